"""Keeps secrets out of what librdkafka says: it repeats settings."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .quiet import Quiet

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter

_STARS = "***"


class Secrets:
    """Replaces values that must not be shown.

    Parameters
    ----------
    values : sequence of str
        The secrets.
    """

    def __init__(self, values: Sequence[str] = ()) -> None:
        # The longest first: one may be part of another.
        self._values = sorted(filter(None, values), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return a text without them."""
        for value in self._values:
            text = text.replace(value, _STARS)
        return text

    def text_of(self, error: Any) -> str:
        """Return what an error of confluent_kafka says, without them."""
        if isinstance(error, Exception):  # a KafkaException holds a KafkaError
            error = error.args[0] if error.args else error
        said = getattr(error, "str", None)
        return self.hide(str(said() if callable(said) else error))


class CarefulLog(Adapter):
    """A logger that librdkafka may write to.

    Parameters
    ----------
    log : logging.Logger
        Where the lines go.
    secrets : Secrets
        What they must not hold.
    quiet : Quiet, optional
        Which of them are kept back, as librdkafka repeats itself; default: one of a kind in 5 min.

    Attributes
    ----------
    secrets : Secrets
        As given.
    """

    def __init__(self, log: logging.Logger, secrets: Secrets, quiet: Quiet | None = None) -> None:
        super().__init__(log)
        self.secrets = secrets
        self._quiet = quiet or Quiet()

    def log(self, level: int, msg: object, *args: object, **more: Any) -> None:
        """Log a line without secrets, unless one of its kind was logged a moment ago."""
        text = self.secrets.hide(str(msg) % args if args else str(msg))
        kept_back = self._quiet.passes(level, text)
        if kept_back >= 0:
            since = f" ({kept_back} more like it since the last one)" if kept_back else ""
            super().log(level, "%s%s", text, since, **more)
