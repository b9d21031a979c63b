"""Settings of the live feed."""

from dataclasses import dataclass
from urllib.parse import urlsplit

_MIB = 1 << 20
_MAX_IPC_PATH = 100  # bytes; operating systems allow 104 to 108


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """How frames and masks are told live.

    Parameters
    ----------
    serve : str
        Where consumers ask for messages, and miss none: ``tcp://127.0.0.1:5571``. Empty: nowhere.
    publish : str
        Where messages are published, and lost for who does not take them. Empty: nowhere.
    keep_bytes : int
        Most that the messages of all runs may take in the spool, so that a consumer can come back
        for them [bytes]; the oldest runs go first.
    curve_secret : str
        File of this node's key pair (``NAME.key_secret``); "": what is told is not encrypted.
    curve_clients : str
        Folder with the public keys (``NAME.key``) of those who may listen; goes with
        `curve_secret`.

    Raises
    ------
    ValueError
        If a value makes no sense; its text begins with the name of the field.
    """

    serve: str = ""
    publish: str = ""
    keep_bytes: int = 2048 * _MIB
    curve_secret: str = ""
    curve_clients: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("serve", "publish"):
            if getattr(self, name) and not _can_be_bound(getattr(self, name)):
                raise ValueError(
                    f"{name}: {getattr(self, name)} is no place to listen at: give "
                    "tcp://127.0.0.1:5571, the address of a network card, or ipc:///PATH"
                )
        if self.serve and self.serve == self.publish:
            raise ValueError("publish: it must be another port than serve")
        if self.keep_bytes < _MIB:
            raise ValueError(f"keep_bytes: {self.keep_bytes} must be {_MIB} bytes or more")
        if self.curve_secret and not self.curve_clients:
            raise ValueError("curve_clients: name the folder of those who may listen, too")
        if self.curve_clients and not self.curve_secret:
            raise ValueError("curve_secret: name this node's key, too, as with curve_clients")

    @property
    def wanted(self) -> bool:
        """Whether there is to be a feed at all."""
        return bool(self.serve or self.publish)


def _can_be_bound(endpoint: str) -> bool:
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc":
        return bool(rest) and len(rest.encode()) <= _MAX_IPC_PATH
    try:
        parts = urlsplit(endpoint)
        good = bool(parts.hostname and parts.port)
    except ValueError:
        return False
    more = parts.path or parts.query or parts.fragment or "@" in rest
    return scheme == "tcp" and good and not more
