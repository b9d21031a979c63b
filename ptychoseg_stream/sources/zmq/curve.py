"""CURVE keys of 0MQ: who may listen, and that nobody else can."""

from dataclasses import dataclass, field

import zmq

from ...errors import SourceError
from ...node.curve import open_to_others, read_certificate, read_pair

__all__ = ["CurveKeys", "load_keys", "open_to_others"]


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
    try:
        public, secret = read_pair("curve_secret", secret_file)
        return CurveKeys(public, secret, read_certificate("curve_server", server_file)[0])
    except ValueError as error:
        raise SourceError(str(error)) from error
