"""One line of a check list."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "note", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and how it stands.

    Parameters
    ----------
    name : str
        What was looked at.
    state : {"ok", "note", "fail"}
        "note": it works, and somebody should know.
    text : str
        What was found.
    advice : str
        What to do; empty if nothing.
    """

    name: str
    state: State
    text: str
    advice: str = ""


def ok(name: str, text: str) -> Check:
    """Return the line of something that is as it should be."""
    return Check(name, "ok", text)


def note(name: str, text: str, advice: str = "") -> Check:
    """Return the line of something to know about."""
    return Check(name, "note", text, advice)


def fail(name: str, text: str, advice: str) -> Check:
    """Return the line of something that does not work."""
    return Check(name, "fail", text, advice)


def several(count: int, what: str) -> str:
    """Return a number of things: ``1 row``, ``2 rows``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
