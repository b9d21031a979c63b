"""Keeps a failure where it happened."""

import logging

import pytest

from ptychoseg_stream.node.guard import Guard


class Unspeakable(Exception):
    """Cannot even say what went wrong."""

    def __str__(self) -> str:
        raise RuntimeError("nor this")


def test_error_that_cannot_be_put_in_words_is_an_error_like_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> int:
        raise Unspeakable

    caplog.set_level(logging.DEBUG)
    guard = Guard(logging.getLogger("guarded"))
    assert guard.call("speak", fail, 7) == 7
    assert guard.failures == 1
    assert guard.last == "cannot speak: Unspeakable: what it says cannot be read"
    assert guard.last in caplog.text
