"""What a node keeps on this machine's disk until all is stored: documents, checkpoints, masks."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """Where a node keeps what must outlive it.

    Parameters
    ----------
    folder : str
        Folder on a local disk; "~" is the home folder. Nodes on one machine may share it.
    journal : bool
        Whether the documents of open runs are written down, so that a node that was killed goes on
        where it was. Without it, the rest of such runs is lost.
    checkpoint_frames : int
        Most frames that have to be labelled again after a restart, about.
    min_free_bytes : int
        What is to stay free on that disk [bytes]; nothing is spooled when less is left.
    """

    folder: str = "~/.local/state/ptychoseg_stream"
    journal: bool = True
    checkpoint_frames: int = 256
    min_free_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.folder:
            raise ValueError("folder is empty: name a folder on a local disk")
        if self.checkpoint_frames < 1:
            raise ValueError(f"checkpoint_frames: {self.checkpoint_frames} must be 1 or more")
        if self.min_free_bytes < 0:
            raise ValueError(f"min_free_bytes: {self.min_free_bytes} must be 0 or more")

    @property
    def runs(self) -> Path:
        """Folder of the journals and checkpoints, one folder per derived run."""
        return Path(self.folder).expanduser() / "runs"

    @property
    def masks(self) -> Path:
        """Folder of masks that Tiled did not take yet, one folder per derived run."""
        return Path(self.folder).expanduser() / "masks"

    @property
    def appends(self) -> Path:
        """Folder of marks: rows of these derived runs are on their way to Tiled."""
        return Path(self.folder).expanduser() / "appends"

    @property
    def feed(self) -> Path:
        """Folder of the messages of the live feed, one file per derived run."""
        return Path(self.folder).expanduser() / "feed"
