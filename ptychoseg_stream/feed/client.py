"""The whole protocol of an acknowledged consumer, for other languages to copy."""

from collections.abc import Iterator

from ..errors import FeedError, FeedGone
from ..sinks.feed.fields import Fields
from ..sinks.feed.items import Item, Stop
from ..sinks.feed.messages import decode
from ..sinks.feed.wire import VERSION, Message
from .line import Line

CREDIT = 64
"""Messages that may be on their way; the node may grant fewer."""


def follow_acknowledged(line: Line, run: str = "") -> Iterator[Item]:
    """Yield the items of a run, each once and in order.

    To ask for message `seq` says that all before it came. After silence it is asked again: the node
    may have been started anew, and knows nothing of us.
    """
    want, seq = run, 0
    while True:
        line.ask({"version": VERSION, "want": want, "next": seq, "credit": CREDIT})
        last = seq + 1  # until the node says how many come
        while seq < last and (message := line.hear()) is not None:
            header = message.header
            if message.kind == "granted":
                want, last = granted(message)
            elif message.kind == "gone":
                text = f"run {header.get('run')}: {header.get('reason')}"
                raise FeedGone(text, str(header.get("tiled") or ""))
            elif message.kind == "refused":
                raise FeedError(f"the node does not understand this side: {header.get('reason')}")
            elif message.kind != "waiting":
                item = decode(message)
                if item.seq > seq:
                    line.renew()  # what is between was lost: ask for it over another connection
                    break
                if item.seq == seq:  # else it came twice
                    seq += 1
                    yield item
                    if isinstance(item, Stop):
                        return


def granted(message: Message) -> tuple[str, int]:
    """Return the uid of the run that is followed, and which message is the first not to come."""
    fields = Fields(message)
    return fields.text("derived") or fields.text("run"), fields.count("last")
