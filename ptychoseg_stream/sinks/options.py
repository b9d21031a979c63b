"""Settings of the Tiled sink."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import ProfileError
from .arrays import ARRAYS, DEFAULT, MASK

MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class TiledOptions:
    """Where masks are stored and how eagerly.

    Parameters
    ----------
    uri : str
        Tiled server, or a node in it, without a key. "embedded": a server that whoever reads the
        profile starts; the sink is then given the real address.
    api_key_env : str
        Environment variable that holds the API key.
    container : str
        Path of the container of derived runs, made on demand.
    batch_rows : int
        Rows that are stored together, ...
    batch_seconds : float
        ... unless the first of them has waited this long [s].
    arrays : tuple of str
        Arrays to publish: "mask", and of "valid_bits", "confidence", "teacher", "student", "fused"
        those wanted beside it.
    patch_bytes : int
        Most of one array in one request [bytes], one row at least: websocket subscribers refuse
        messages of more than 1 MB.
    queue_bytes : int
        Arrays of masks that may wait for the server [bytes] before a run goes to a file.
    history_bytes : int
        Compressed rows of a run to remember [bytes], so that the file of a run that fails half-way
        is complete.
    attempts : int
        How often a request is made before giving up on a server that does not answer.
    retry_wait : float
        Pause before the second attempt [s]; doubles with each.
    timeout : float
        How long to wait for one answer [s].
    unsent_folder : str
        Where the HDF5 files of runs go that Tiled did not take; "~" is the home folder.

    Raises
    ------
    ProfileError
        If a value makes no sense.
    """

    uri: str = "http://127.0.0.1:8000"
    api_key_env: str = "TILED_API_KEY"
    container: str = "processed/ptychoseg"
    batch_rows: int = 16
    batch_seconds: float = 0.25
    arrays: tuple[str, ...] = DEFAULT
    patch_bytes: int = 700 * 1024
    queue_bytes: int = 256 * MEGABYTE
    history_bytes: int = 64 * MEGABYTE
    attempts: int = 6
    retry_wait: float = 0.5
    timeout: float = 10.0
    unsent_folder: str = "~/ptychoseg_unsent"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if "api_key=" in self.uri or urlsplit(self.uri).password:
            raise ProfileError(
                f"uri holds a key: put the key into the environment variable {self.api_key_env} "
                "and leave only the address in uri"
            )
        if not self.container.strip("/"):
            raise ProfileError("container is empty: name one, such as 'processed/ptychoseg'")
        if MASK not in self.arrays or not set(self.arrays) <= set(ARRAYS):
            others = tuple(name for name in ARRAYS if name != MASK)
            raise ProfileError(f"arrays is {self.arrays}: name {MASK!r} and any of {others}")
        if len(set(self.arrays)) < len(self.arrays):
            raise ProfileError(f"arrays is {self.arrays}: name each once")
        for name in ("batch_rows", "attempts"):
            if getattr(self, name) < 1:
                raise ProfileError(f"{name} is {getattr(self, name)}: make it 1 or more")
        for name in ("batch_seconds", "timeout", "patch_bytes"):
            if getattr(self, name) <= 0:
                raise ProfileError(f"{name} is {getattr(self, name)}: make it positive")
        for name in ("retry_wait", "queue_bytes", "history_bytes"):
            if getattr(self, name) < 0:
                raise ProfileError(f"{name} is {getattr(self, name)}: make it 0 or more")
