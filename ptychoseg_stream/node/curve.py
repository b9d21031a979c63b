"""Certificates of CURVE, which encrypts 0MQ, and who else can see what is sent."""

import ipaddress
import stat
from pathlib import Path
from urllib.parse import urlsplit

import zmq
import zmq.auth

_LENGTH = 40  # characters of a key


def read_certificate(option: str, file: str) -> tuple[bytes, bytes | None]:
    """Return public and secret key of a file as `zmq.auth.create_certificates` writes it.

    Parameters
    ----------
    option : str
        Named in messages.
    file : str
        "~" is the home folder.

    Raises
    ------
    ValueError
        If the file is missing or no certificate; the text says what to do, and holds no key.
    """
    if not zmq.has("curve"):
        raise ValueError("this pyzmq was built without CURVE: install the wheel of pyzmq")
    path = Path(file).expanduser()
    advice = "make a pair with zmq.auth.create_certificates(FOLDER, NAME)"
    try:
        public, secret = zmq.auth.load_certificate(path)
    except OSError as error:
        raise ValueError(f"{option}: {file} is not there or cannot be read; {advice}") from error
    except (ValueError, IndexError):  # their text may hold lines of the file
        public, secret = b"", None
    if len(public) != _LENGTH or len(secret or public) != _LENGTH:
        raise ValueError(f"{option}: {file} is no CURVE certificate; {advice}")
    return public, secret


def read_pair(option: str, file: str) -> tuple[bytes, bytes]:
    """Return public and secret key; both must be there.

    Raises
    ------
    ValueError
        As `read_certificate`.
    """
    public, secret = read_certificate(option, file)
    if secret is None:
        raise ValueError(
            f"{option}: {file} holds no secret key; name the file that ends with `.key_secret`"
        )
    return public, secret


def open_to_others(secret_file: str) -> bool:
    """Whether other users of this machine may read a secret that was read."""
    mode = Path(secret_file).expanduser().stat().st_mode
    return bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def on_this_machine(endpoint: str) -> bool:
    """Whether what passes through an address never leaves this machine."""
    if endpoint.startswith("ipc://"):
        return True
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
