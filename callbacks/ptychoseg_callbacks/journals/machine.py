"""Which machine a process runs on."""

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

_ID = Path("/etc/machine-id")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, for people and for comparing.

    Parameters
    ----------
    name : str
        Of the host.
    mark : str
        Differs between machines; empty where a machine has no identity, as most containers.
    """

    name: str = ""
    mark: str = ""

    def is_other(self, mark: str) -> bool:
        """Whether a mark is certainly that of another machine."""
        return bool(self.mark) and bool(mark) and mark != self.mark


def this_machine() -> Machine:
    """Return the machine of this process.

    The name alone does not tell machines apart: a container gets a new one at each start.
    """
    try:
        found = _ID.read_bytes().strip()
    except OSError:
        found = b""
    # The id itself is to be kept to the machine.
    mark = hashlib.blake2b(found, digest_size=8, person=b"ptychoseg").hexdigest() if found else ""
    return Machine(platform.node(), mark)
