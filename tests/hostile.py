"""The hostile corpus: malformed inputs of every way in. None of them may cost anything but itself.

What must hold after each, whatever the way: the node lives, and the next good run has its masks;
the frames before and behind the input, in the same run, have theirs where the case leaves the run
usable; nothing was raised into the caller; no code that came along was run; no file outside of the
configured folders was opened; memory stayed bounded; the account balances, or says why it does not.
"""

from hostile_documents import DOCUMENTS, FRAMES
from hostile_files import FILES
from hostile_payloads import PAYLOADS
from hostile_recordings import RECORDINGS
from hostile_state import JOURNALS, PROFILES, SPOOL
from hostile_support import Case

CASES: tuple[Case, ...] = (
    *DOCUMENTS,
    *FRAMES,
    *FILES,
    *PAYLOADS,
    *RECORDINGS,
    *JOURNALS,
    *SPOOL,
    *PROFILES,
)


def cases(*groups: str) -> list[Case]:
    """Return the cases of some groups."""
    return [case for case in CASES if case.group in groups]
