"""CURVE keys of 0MQ: who may listen, and that nobody else can."""

import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.auth

from ...errors import SourceError

_LENGTH = 40  # characters of a key


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """The keys of a client.

    Parameters
    ----------
    public, secret : bytes
        Its own pair (40 characters each).
    server : bytes
        Public key of the server.
    """

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes

    def apply(self, socket: "zmq.Socket[bytes]") -> None:
        """Encrypt what comes through `socket`; before it connects."""
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret
        socket.curve_serverkey = self.server


def load_keys(secret_file: str, server_file: str) -> CurveKeys:
    """Read certificates as `zmq.auth.create_certificates` writes them.

    Parameters
    ----------
    secret_file : str
        Of this client, ``NAME.key_secret``; "~" is the home folder.
    server_file : str
        Public certificate of the server, ``NAME.key``.

    Raises
    ------
    SourceError
        If a file is missing, not a certificate, or without the key it should have.
    """
    if not zmq.has("curve"):
        raise SourceError("this pyzmq was built without CURVE: install the wheel of pyzmq")
    public, secret = _certificate("curve_secret", secret_file)
    if secret is None:
        raise SourceError(
            f"curve_secret: {secret_file} holds no secret key; name the file that ends with "
            "`.key_secret`"
        )
    return CurveKeys(public, secret, _certificate("curve_server", server_file)[0])


def open_to_others(secret_file: str) -> bool:
    """Whether other users of this machine may read a secret that `load_keys` has read."""
    mode = Path(secret_file).expanduser().stat().st_mode
    return bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def _certificate(option: str, file: str) -> tuple[bytes, bytes | None]:
    path = Path(file).expanduser()
    try:
        public, secret = zmq.auth.load_certificate(path)
    except OSError as error:
        raise SourceError(
            f"{option}: {file} is not there or cannot be read; make a pair with "
            "zmq.auth.create_certificates(FOLDER, NAME)"
        ) from error
    except (ValueError, IndexError):  # their text may hold lines of the file
        public, secret = b"", None
    if len(public) != _LENGTH or len(secret or public) != _LENGTH:
        raise SourceError(
            f"{option}: {file} is no CURVE certificate; make a pair with "
            "zmq.auth.create_certificates(FOLDER, NAME)"
        )
    return public, secret
