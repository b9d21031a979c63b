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
        Arrays of masks that may wait in memory [bytes]; from half of it on they go to the spool.
    retry_wait, retry_longest : float
        Pause before a server that does not answer is asked again [s]; it doubles with each attempt,
        up to the longest.
    refused_wait : float
        Pause before a run that the server refused is offered again [s]; the next run to begin ends
        it early.
    timeout : float
        How long to wait for one answer [s].
    append_timeout : float
        The same for rows of a table [s]. Tiled cannot be told them twice: after no answer, or if
        the process died meanwhile, it is left alone for so long again, and then asked what came.

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
    retry_wait: float = 0.5
    retry_longest: float = 30.0
    refused_wait: float = 60.0
    timeout: float = 10.0
    append_timeout: float = 30.0

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
        if self.batch_rows < 1:
            raise ProfileError(f"batch_rows is {self.batch_rows}: make it 1 or more")
        positive = ("batch_seconds", "timeout", "append_timeout", "patch_bytes", "retry_wait")
        for name in (*positive, "refused_wait"):
            if getattr(self, name) <= 0:
                raise ProfileError(f"{name} is {getattr(self, name)}: make it positive")
        if self.queue_bytes < 0:
            raise ProfileError(f"queue_bytes is {self.queue_bytes}: make it 0 or more")
        if self.retry_longest < self.retry_wait:
            raise ProfileError(
                f"retry_longest is {self.retry_longest}: make it retry_wait ({self.retry_wait}) or "
                "more"
            )
