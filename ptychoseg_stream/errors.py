"""Everything this package raises on purpose.

::

    PtychosegError
    ├── ProfileError        a profile that does not exist or does not say what it must
    ├── FrameError          a frame that cannot be labelled (its text is the reason in the row)
    ├── DatasetError        a file or dataset with frames that cannot be read
    ├── CentroidsError      a centroids or student file that does not fit this version
    ├── CheckpointError     a checkpoint of an open run that cannot be gone on from
    ├── SourceError         a source of documents that cannot be used (address, key, file)
    ├── ExtraMissing        an optional package that was not installed
    ├── LearningError       a stage of fine-tuning that went wrong; the student before it serves on
    ├── StoreError          a Tiled server (or disk) that refuses masks
    └── FeedError           a live feed that cannot be followed, or a message of it that is none

Every message names the file, key or frame, and what to do.
"""


class PtychosegError(Exception):
    """Base of all errors raised on purpose; its text is meant for a user's eyes.

    Attributes
    ----------
    exit_code : int
        That of a command which ends by it: 2 if something was given that cannot be used.
    """

    exit_code = 2


class ProfileError(PtychosegError):
    """A profile is missing, has an unknown key, or a value that makes no sense."""


class FrameError(PtychosegError):
    """A frame that cannot be labelled: NaN only, empty, saturated, of another size.

    Parameters
    ----------
    text : str
        The reason.
    verdict : str
        What the frame shows, of `ptychoseg_stream.science.frame.Verdict`: "none" or "no beam".
    """

    def __init__(self, text: str, verdict: str = "none") -> None:
        super().__init__(text)
        self.verdict = verdict


class DatasetError(PtychosegError):
    """A file or dataset of frames that is missing or cannot be read."""


class CentroidsError(PtychosegError):
    """A centroids (or student) file made by another feature version, or damaged."""


class CheckpointError(PtychosegError):
    """A checkpoint that is damaged, or was written by another version."""


class SourceError(PtychosegError):
    """A source of documents that cannot be used: a wrong address, a missing key or package."""


class SourceLost(SourceError):
    """A source that worked, and works no more: the same command may well work again."""

    exit_code = 1


class ExtraMissing(PtychosegError):
    """A command needs a package that is only installed on request; the text says how."""


class LearningError(PtychosegError):
    """A stage of fine-tuning went wrong; the student before it goes on serving."""


class StoreError(PtychosegError):
    """A Tiled server or a disk that refuses what we want to store."""


class FeedError(PtychosegError):
    """A live feed that cannot be followed any more, or a message of it that is malformed."""

    exit_code = 1


class FeedGone(FeedError):
    """What was asked for is not kept by the feed (any more): it can be read in Tiled.

    Parameters
    ----------
    text : str
        Why.
    address : str
        Of the derived run in Tiled; empty if it is not known.
    """

    def __init__(self, text: str, address: str = "") -> None:
        super().__init__(f"{text}; follow {address} instead" if address else text)
        self.address = address
