"""What is seen of the feed on a terminal."""

import json
from pathlib import Path

import pytest
from feed_support import ACCOUNT, info_of, products_of, send, serving
from typer.testing import CliRunner

from ptychoseg_stream.cli import app
from ptychoseg_stream.health.feeds import feed_checks
from ptychoseg_stream.sinks.feed.options import FeedOptions


def test_follow_prints_a_line_for_each_item(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, port) as server:
        server.open(info_of())
        send(server, [0, 1])
        server.publish("raw-1", products_of(2, [(1, 1)], 1))
        server.close("raw-1", ACCOUNT)
        command = ["follow", f"zmq://127.0.0.1:{port}", "--run", "raw-1"]
        told = CliRunner().invoke(app, command)
        as_json = CliRunner().invoke(app, [*command, "--json"])
    assert told.exit_code == as_json.exit_code == 0
    kinds = ["start", "frame", "frame", "mask", "positions", "products", "stop"]
    assert [line.split()[:2] for line in told.stdout.splitlines()] == [
        [str(seq), kind] for seq, kind in enumerate(kinds)
    ]
    first, frame, *_ = map(json.loads, as_json.stdout.splitlines())
    assert (first["run"], first["shape"], first["points"]) == ("raw-1", "6x8", 40)
    assert (frame["index"], frame["ring"], frame["invalid"], frame["image"]) == (0, 48, 1, "uint16")


def test_follow_ends_with_1_and_a_reason_when_there_is_no_such_run(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, port):
        told = CliRunner().invoke(app, ["follow", f"zmq://127.0.0.1:{port}", "--run", "nobody"])
    assert told.exit_code == 1
    assert "keeps no such run" in told.stderr


def test_a_doctor_says_whether_the_feed_can_listen(tmp_path: Path, port: int) -> None:
    here = f"tcp://127.0.0.1:{port}"
    assert list(feed_checks(FeedOptions())) == []
    assert [check.state for check in feed_checks(FeedOptions(here))] == ["ok"]
    with serving(tmp_path, port) as server:
        server.open(info_of())
        server.close("raw-1", ACCOUNT)
        command = ["follow", f"zmq://127.0.0.1:{port}", "--run", "raw-1"]
        assert CliRunner().invoke(app, command).exit_code == 0  # it listens
        (check,) = feed_checks(FeedOptions(here))
        assert (check.state, check.text) == ("note", f"{here} is in use")


@pytest.mark.parametrize(
    ("options", "state", "word"),
    [
        (FeedOptions("tcp://192.0.2.1:5571"), "fail", "cannot be listened at"),
        (FeedOptions("ipc:///nowhere/feed"), "ok", "on this machine"),
        (
            FeedOptions("tcp://127.0.0.1:5571", curve_secret="no.key", curve_clients="no"),
            "fail",
            "no.key is not there",
        ),
    ],
)
def test_a_doctor_says_why_the_feed_cannot_work(
    options: FeedOptions, state: str, word: str
) -> None:
    (check,) = feed_checks(options)
    assert check.state == state
    assert word in check.text


def test_a_doctor_notes_a_door_that_is_open_to_others(port: int) -> None:
    (check,) = feed_checks(FeedOptions(f"tcp://0.0.0.0:{port}"))
    assert check.state == "note"
    assert "anyone" in check.text
