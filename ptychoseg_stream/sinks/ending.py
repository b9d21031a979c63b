"""How a run ended, until its stop document is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..node.ports import Account


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Parameters
    ----------
    account : Account
        What became of its frames.
    time : float
        When it ended [s since the epoch].
    counts : mapping of str to int
        What the sink counted itself; "dropped" when rows are missing.
    """

    account: Account
    time: float
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all rows were taken."""
        return not self.counts.get("dropped", 0)

    def doubling(self, rows: int) -> "Ending":
        """Return it for a run of which so many rows of tables are there twice."""
        reason = f"{rows} rows of its tables are there twice: leave out what repeats a seq_num"
        account = replace(self.account, exit_status="fail", reason=reason)
        return replace(self, account=account, counts={**self.counts, "doubled": rows})
