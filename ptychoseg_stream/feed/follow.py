"""One call for all ways to follow a run; the address says which."""

from collections.abc import Iterator

from ..errors import FeedError
from ..sinks.feed.items import Item
from ..sources.shown import shown
from .client import follow_acknowledged
from .line import Line
from .published import follow_published

FORMS = "zmq://HOST:PORT, pub://HOST:PORT, or http(s)://SERVER/.../UID of a derived run in Tiled"


def follow(
    address: str,
    run: str = "",
    *,
    api_key: str = "",
    timeout: float = 600.0,
    curve_secret: str = "",
    curve_server: str = "",
) -> Iterator[Item]:
    """Yield what is told of a run from its start to its stop, then end.

    Parameters
    ----------
    address : str
        ``zmq://HOST:PORT``: a node's acknowledged feed (`feed.serve` of its profile). Nothing is
        missed, even if this side or the node is away for a while. ``pub://HOST:PORT``: what it
        publishes (`feed.publish`); what is not taken in time is lost, and that raises.
        ``http(s)://SERVER/.../UID``: a derived run in Tiled, also one that is over.
    run : str
        Uid of the raw or the derived run; "": the run that is open now, else the next one.
    api_key : str
        Of Tiled; "": what the environment variable TILED_API_KEY holds.
    timeout : float
        How long the server may be silent [s]. A run without frames is not silence.
    curve_secret, curve_server : str
        Files of this side's key pair (``NAME.key_secret``) and of the node's public key, where the
        feed is encrypted.

    Yields
    ------
    Start, FrameItem, Revision, PositionsItem, ProductsItem, Stop
        With `seq` 0, 1, 2, ...

    Raises
    ------
    FeedGone
        If the feed does not keep (all of) the run: its `address` is where Tiled has it.
    FeedError
        If nothing was heard for `timeout`, something was lost, or a message is malformed.
    SourceError
        If the address or the keys cannot be used; Tiled refuses.
    """
    scheme, _, place = address.partition("://")
    if scheme in ("zmq", "pub") and place:
        with Line(f"zmq://{place}", scheme == "pub", timeout, (curve_secret, curve_server)) as line:
            yield from (follow_published if scheme == "pub" else follow_acknowledged)(line, run)
    elif scheme in ("http", "https"):
        from .stored import follow_stored

        yield from follow_stored(address, run, api_key, timeout)
    else:
        raise FeedError(f"{shown(address)} cannot be followed: give {FORMS}")
