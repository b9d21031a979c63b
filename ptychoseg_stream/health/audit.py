"""Does a stored run add up? Everything is counted again, from what is stored."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..node.ports import RawStore
from .check import Check, fail, note, ok, several


@dataclass(frozen=True, slots=True)
class Books:
    """What is stored of a derived run.

    Parameters
    ----------
    raw : str
        Uid of the raw run.
    stream, data_key : str
        Where the frames were in it.
    table : mapping of str to list
        The columns of the table.
    lengths : mapping of str to int
        Rows of each array.
    stop : mapping
        The stop document; empty if there is none.
    held : float
        How long a node that has the run open now waits for a document [s]; 0: none has it open.
    of_raw : int
        Derived runs that the raw run has, of which this is the newest; 1 if nobody looked.
    """

    raw: str
    stream: str
    data_key: str
    table: Mapping[str, Sequence[Any]]
    lengths: Mapping[str, int]
    stop: Mapping[str, Any]
    held: float = 0.0
    of_raw: int = 1


def audit(books: Books, raw: RawStore | None) -> Iterator[Check]:
    """Count a run again and compare.

    Parameters
    ----------
    books : Books
    raw : RawStore or None
        Where the raw run may be; what it counts is compared, too.
    """
    if books.of_raw > 1:
        yield note(
            "derived runs",
            f"there are {books.of_raw} of this raw run; this is the newest",
            "name another one by its own uid or address",
        )
    yield _rows(books)
    yield _arrays(books)
    yield from _account(books, raw)
    yield _raw_counts(books, raw)


def _rows(books: Books) -> Check:
    indices = [int(index) for index in books.table["raw_index"]]
    seen = Counter(indices)
    twice = sorted(index for index, count in seen.items() if count > 1)
    missing = sorted(set(range(max(indices, default=-1) + 1)) - set(seen))
    if twice or missing:
        return fail(
            "rows",
            f"{several(len(indices), 'row')}; frames with more than one: {_some(twice)}; "
            f"frames without any: {_some(missing)}",
            "replay the run: a new set of masks is written beside this one",
        )
    if indices != sorted(indices):
        return fail("rows", "rows are not in the order of the frames", "replay the run")
    return ok("rows", f"{several(len(indices), 'row')}, one for each frame from 0 on")


def _arrays(books: Books) -> Check:
    rows = len(books.table["raw_index"])
    wrong = {name: length for name, length in books.lengths.items() if length != rows}
    if wrong:
        text = ", ".join(f"{name} has {length}" for name, length in sorted(wrong.items()))
        return fail("arrays", f"the table has {several(rows, 'row')}, {text}", "replay the run")
    names = ", ".join(sorted(books.lengths))
    return ok(
        "arrays", f"{names}: {several(rows, 'row')} each" if names else "none, as there are no rows"
    )


def counted(table: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    """Return the account that the rows of a table give."""
    status = Counter(str(each) for each in table["status"])
    return {
        "received": sum(status.values()),
        "written": status["ok"],
        "refused": status["refused"],
        "lost": status["lost"],
    }


def _open(books: Books, line: str, raw: RawStore | None) -> Check:
    """Say what becomes of a run that has no stop document."""
    if not books.held:
        return fail(
            "account",
            f"{line}; the run has no stop document: it is open, or its node died",
            "start the node again, with the same profile: it goes on with the run",
        )
    ended = "as the raw run ended, where the server of `raw.uri` knows" if raw else "as failed"
    return fail(
        "account",
        f"{line}; the run has no stop document: a node on this machine has it open, and waits for "
        "its documents",
        f"wait: the node closes it after {books.held:g} s without one (`idle_timeout`), {ended}",
    )


def _account(books: Books, raw: RawStore | None) -> Iterator[Check]:
    again = counted(books.table)
    line = "received {received} = written {written} + refused {refused} + lost {lost}".format(
        **again
    )
    if not books.stop:
        yield _open(books, line, raw)
        return
    told = dict(books.stop.get("account", {}))
    told["refused"] = sum(dict(told.get("refused", {})).values())
    wrong = {name: told.get(name) for name, count in again.items() if told.get(name) != count}
    if wrong:
        text = ", ".join(f"{name} {count}" for name, count in wrong.items())
        yield fail("account", f"{line}; the stop document says {text}", "replay the run")
    else:
        yield ok("account", line)
    if told.get("imbalance"):
        yield fail("balance", str(told["imbalance"]), "replay the run when the raw run is complete")
    if again["lost"]:
        reasons = Counter(
            str(why)
            for why, status in zip(books.table["reason"], books.table["status"], strict=True)
            if status == "lost"
        )
        why, count = reasons.most_common(1)[0]
        yield note(
            "lost",
            f"{several(again['lost'], 'frame')}; most ({count}): {why}",
            "see column `reason`",
        )


def _raw_counts(books: Books, raw: RawStore | None) -> Check:
    rows = len(books.table["raw_index"])
    stored = raw.count(books.raw, books.stream, books.data_key) if raw else -1
    announced = int(dict(books.stop.get("account", {})).get("announced", -1))
    count = stored if stored >= 0 else announced
    where = "in the raw store" if stored >= 0 else "by its own stop document"
    if count < 0:
        return note(
            "raw run",
            f"run {books.raw} is not in the raw store, and nobody told how many frames it has",
            "name the server of raw runs in `raw.uri` of the profile",
        )
    if count > rows and books.held and not books.stop:
        text = f"it has {several(count, 'frame')} {where}, there are {rows} rows so far"
        return note("raw run", text, "look again when the run is closed")
    if count != rows:
        return fail(
            "raw run",
            f"it has {several(count, 'frame')} {where}, there are {rows} rows",
            "replay the run: frames were missed",
        )
    return ok("raw run", f"it has {several(count, 'frame')} {where}, and so many rows are there")


def _some(values: Sequence[int], most: int = 5) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return f"{shown or 'none'}{f' and {len(values) - most} more' if len(values) > most else ''}"
