"""Where a node of a Tiled server is, and what can go wrong on the way there."""

from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from ...errors import SourceError
from ..shown import shown

Path: TypeAlias = tuple[str, ...]  # keys of the nodes from the root of the server

_SCHEMES = {"tiled": "http", "tiled+https": "https", "http": "http", "https": "https"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class TiledUnavailable(SourceError):
    """The server does not answer, or is in trouble: worth another attempt.

    Parameters
    ----------
    text : str
        What happened.
    reached : bool
        Whether the server answered: then it may be only this node that is in trouble.
    """

    def __init__(self, text: str, reached: bool = False) -> None:
        super().__init__(text)
        self.reached = reached


class TiledSlow(TiledUnavailable):
    """The answer did not come in time: less of it might have."""


class TiledRefused(SourceError):
    """The server said no, or something that cannot be understood, and may well say so again."""


class TiledMissing(TiledRefused):
    """There is no such node, or none that this key may see."""


@dataclass(frozen=True, slots=True)
class TiledAddress:
    """A node of a Tiled server.

    Parameters
    ----------
    base : str
        Server, as in ``http://127.0.0.1:8000``.
    path : tuple of str
        Keys from the root to the node.
    """

    base: str
    path: Path = ()

    @classmethod
    def parse(cls, text: str) -> "TiledAddress":
        """Read ``tiled://host:port/a/b``; ``tiled+https://`` is the same over TLS.

        Addresses that Tiled itself prints (``http://host/api/v1/metadata/a/b``) are understood.

        Raises
        ------
        SourceError
            If it is none, or carries a key or password; the text never repeats those.
        """
        if "@" in text.partition("://")[2].partition("/")[0] or "?" in text or "#" in text:
            raise SourceError(
                "the address of Tiled carries a user, key or query: give tiled://host:port/path, "
                "and the API key in the environment"
            )
        try:
            parts = urlsplit(text)
            scheme = _SCHEMES.get(parts.scheme)
            bad = scheme is None or not parts.hostname or parts.port == 0
        except ValueError:  # a port that is no number, or brackets that do not match
            parts, scheme, bad = urlsplit(""), None, True
        if bad:
            raise SourceError(
                f"{shown(text)} is no address of a Tiled server: give tiled://host:port/path "
                "(or tiled+https://)"
            )
        before, api, after = parts.path.partition("/api/v1")
        prefix, inner = (before, after) if api else ("", before)
        keys = tuple(unquote(key) for key in inner.split("/") if key)
        keys = keys[1:] if api and keys[:1] == ("metadata",) else keys
        return cls(f"{scheme}://{parts.netloc}{prefix}", keys)

    def __truediv__(self, path: str) -> "TiledAddress":
        """Return the node ``a/b`` below this one."""
        return TiledAddress(self.base, self.path + tuple(filter(None, path.split("/"))))

    def __str__(self) -> str:
        """Return the address for messages."""
        return "/".join((self.base, *self.path))

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine: no proxy leads there."""
        return urlsplit(self.base).hostname in _LOOPBACK
