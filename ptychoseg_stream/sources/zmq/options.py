"""Settings and addresses of documents over 0MQ."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from ...errors import SourceError
from ..shown import shown

_MIB = 1 << 20
_MAX_IPC_PATH = 100  # bytes; operating systems allow 104 to 108
FORM = "give zmq://HOST:PORT with the host and the out port of bluesky-0MQ-proxy"


@dataclass(frozen=True, slots=True)
class ZmqOptions:
    """How documents are taken from a proxy.

    Parameters
    ----------
    prefix : str
        Take only the documents of publishers with this prefix; "" takes all.
    curve_secret : str
        File of this machine's key pair (``NAME.key_secret``); "": the connection is not encrypted.
    curve_server : str
        File of the proxy's public key (``NAME.key``); goes with `curve_secret`.
    high_water : int
        Messages that may wait in the socket; beyond it they are lost (and their frames refilled).
        An upper bound of the memory is `high_water` times the size of a document.
    max_message : int
        Longest message that is received [bytes]; a longer one breaks the connection for a moment.
    patience : float
        A connection that is not there for so long is reported [s].

    Raises
    ------
    ValueError
        If a value makes no sense; its text begins with the name of the field.
    """

    prefix: str = ""
    curve_secret: str = ""
    curve_server: str = ""
    high_water: int = 1000
    max_message: int = 512 * _MIB
    patience: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if " " in self.prefix or not self.prefix.isascii():
            raise ValueError(f"prefix: {self.prefix!r} may hold neither a space nor non-ASCII text")
        if self.curve_secret and not self.curve_server:
            raise ValueError("curve_server: name the proxy's public key, too, as with curve_secret")
        if self.curve_server and not self.curve_secret:
            raise ValueError("curve_secret: name this machine's key, too, as with curve_server")
        if self.high_water < 1:
            raise ValueError(f"high_water: {self.high_water} must be 1 or more")
        if self.max_message < _MIB:
            raise ValueError(f"max_message: {self.max_message} must be {_MIB} bytes or more")
        if self.patience <= 0:
            raise ValueError(f"patience: {self.patience} must be above 0 s")


def endpoint_of(url: str) -> str:
    """Return what libzmq calls an address: ``zmq://h:1`` is ``tcp://h:1``; ``ipc://`` stays.

    Raises
    ------
    SourceError
        If there is no host or port, or something that does not belong there.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "ipc" and rest:
        if len(rest.encode()) > _MAX_IPC_PATH:
            raise SourceError(f"{url}: the path is too long for a socket; take a shorter one")
        return url
    if "@" in rest:
        raise SourceError(f"an address of 0MQ has neither user nor password: {FORM}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if scheme not in ("zmq", "tcp") or not host or not port or "*" in host or extra:
        raise SourceError(f"{shown(url)}: not an address to connect to; {FORM}")
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
