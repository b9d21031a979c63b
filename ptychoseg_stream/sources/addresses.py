"""Which source an address means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ptychoseg_callbacks.source import Source

from ..errors import SourceError
from .kafka.documents import KafkaDocuments
from .kafka.options import KafkaOptions
from .shown import shown
from .tiled.documents import Wanted
from .tiled.live import LiveOptions, TiledLive
from .zmq.documents import ZmqDocuments
from .zmq.options import ZmqOptions

FORMS = "zmq://HOST:PORT, kafka://BROKER:9092/TOPIC, tiled://HOST:PORT/CONTAINER"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How documents are taken from each kind of source.

    Parameters
    ----------
    zmq : ZmqOptions
    kafka : KafkaOptions
    tiled : LiveOptions
    """

    zmq: ZmqOptions = field(default_factory=ZmqOptions)
    kafka: KafkaOptions = field(default_factory=KafkaOptions)
    tiled: LiveOptions = field(default_factory=LiveOptions)


def open_source(
    address: str, options: SourceOptions, wanted: Wanted, also: Sequence[str] = ()
) -> Source:
    """Return the source at an address; nothing is connected yet.

    Parameters
    ----------
    address : str
        See `FORMS`.
    options : SourceOptions
    wanted : Wanted
        What is read of runs in Tiled.
    also : sequence of str
        Uids of runs in Tiled that are delivered although they have ended. Looked at when the
        source begins to run, so they may still be added.

    Raises
    ------
    SourceError
        If it is no address of a kind that is known, or its options do not fit.
    """
    kinds: dict[str, Callable[[], Source]] = {
        "zmq": lambda: ZmqDocuments(address, options.zmq),
        "tcp": lambda: ZmqDocuments(address, options.zmq),
        "ipc": lambda: ZmqDocuments(address, options.zmq),
        "kafka": lambda: KafkaDocuments(address, options.kafka),
        "tiled": lambda: TiledLive(address, options.tiled, wanted, also),
        "tiled+https": lambda: TiledLive(address, options.tiled, wanted, also),
    }
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme not in kinds:
        raise SourceError(f"{shown(address)} is no source; give {FORMS}")
    return kinds[scheme]()
