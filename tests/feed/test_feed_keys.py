"""An encrypted feed is for those whose keys are in the folder."""

import shutil
from pathlib import Path

import pytest
import zmq.auth
from feed_support import ACCOUNT, info_of, send, serving

from ptychoseg_stream.errors import FeedError, ProfileError, SourceError
from ptychoseg_stream.feed import follow
from ptychoseg_stream.sinks.feed.options import FeedOptions
from ptychoseg_stream.sinks.feed.sockets import Sockets


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    (folder / "clients").mkdir(parents=True)
    for name in ("node", "friend", "stranger"):
        zmq.auth.create_certificates(folder, name)
        (folder / f"{name}.key_secret").chmod(0o600)
    shutil.copy(folder / "friend.key", folder / "clients")
    return folder


def test_only_a_key_that_is_known_hears_anything(tmp_path: Path, port: int, keys: Path) -> None:
    ours = {"curve_secret": str(keys / "node.key_secret"), "curve_clients": str(keys / "clients")}
    server_key = str(keys / "node.key")
    with serving(tmp_path, port, **ours) as server:
        server.open(info_of())
        send(server, range(3))
        server.close("raw-1", ACCOUNT)

        def count(secret: str, timeout: float = 60.0) -> int:
            names = {"curve_secret": str(keys / secret), "curve_server": server_key}
            return len(list(follow(f"zmq://127.0.0.1:{port}", "raw-1", timeout=timeout, **names)))

        assert count("friend.key_secret") == 5
        with pytest.raises(FeedError, match="do the keys fit"):
            count("stranger.key_secret", 1.0)
        with pytest.raises(FeedError, match="does it use no keys"):
            list(follow(f"zmq://127.0.0.1:{port}", "raw-1", timeout=1.0))


def test_keys_that_are_missing_are_named(tmp_path: Path, keys: Path) -> None:
    with pytest.raises(SourceError, match="curve_secret"):
        list(follow("zmq://127.0.0.1:1", curve_secret="no.key_secret", curve_server="no.key"))
    options = FeedOptions(
        "tcp://127.0.0.1:1", curve_secret=str(keys / "node.key"), curve_clients=str(keys)
    )
    with pytest.raises(ProfileError, match="holds no secret key"):
        Sockets(options)
    options = FeedOptions(
        "tcp://127.0.0.1:1",
        curve_secret=str(keys / "node.key_secret"),
        curve_clients=str(tmp_path / "nowhere"),
    )
    with pytest.raises(ProfileError, match="nowhere"):
        Sockets(options)


def test_an_open_door_is_warned_of(port: int, caplog: pytest.LogCaptureFixture) -> None:
    Sockets(FeedOptions(f"tcp://127.0.0.1:{port}")).close()
    assert not caplog.records
    Sockets(FeedOptions(f"tcp://0.0.0.0:{port}")).close()
    assert "cross the network unencrypted" in caplog.text


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"serve": "5571"}, "serve: 5571 is no place"),
        ({"serve": "zmq://127.0.0.1:5571"}, "serve"),
        ({"serve": "tcp://127.0.0.1"}, "serve"),
        ({"serve": "tcp://127.0.0.1:99999"}, "serve"),
        ({"serve": "tcp://me:secret@127.0.0.1:5571"}, "serve"),
        ({"publish": "ipc://"}, "publish"),
        ({"serve": "tcp://127.0.0.1:1", "publish": "tcp://127.0.0.1:1"}, "publish"),
        ({"keep_bytes": 0}, "keep_bytes"),
        ({"curve_secret": "a"}, "curve_clients"),
        ({"curve_clients": "a"}, "curve_secret"),
    ],
)
def test_options_that_cannot_work_are_refused(given: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        FeedOptions(**given)


@pytest.mark.parametrize("address", ["", "zmq://", "ftp://h:1", "5571"])
def test_addresses_that_are_none_are_refused(address: str) -> None:
    with pytest.raises(FeedError, match="cannot be followed"):
        list(follow(address))


def test_a_secret_in_an_address_is_not_repeated() -> None:
    for address in ("http://h/?api_key=topsecret", "zmq://me:topsecret@h:1"):
        with pytest.raises(SourceError) as caught:
            list(follow(address))
        assert "topsecret" not in str(caught.value)
