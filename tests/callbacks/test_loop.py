"""The loop alone, with a target that counts."""

from typing import Any

import pytest
from callbacks_targets import CountingTarget, documents
from ptychoseg_callbacks.inbox import Inbox
from ptychoseg_callbacks.loop import Close, Drain, Loop, Message, Received

from ptychoseg_stream.node.vitals import Vitals


class Port:
    """An inbox with nobody at the other end but the test."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.reports: list[Vitals] = []
        self.told: list[int] = []
        self.answers: list[tuple[int, bool]] = []

    def take(self, timeout: float) -> Message | None:
        return self.inbox.take(0.0)

    def alive(self) -> bool:
        return True

    def waiting(self) -> int:
        return self.inbox.waiting

    def report(self, vitals: Vitals) -> None:
        self.reports.append(vitals)

    def stored(self, number: int) -> None:
        self.told.append(number)

    def drained(self, token: int, complete: bool) -> None:
        self.answers.append((token, complete))


def looped(target: CountingTarget, *messages: Any) -> Port:
    port = Port(Inbox())
    for message in messages:
        if isinstance(message, tuple):
            port.inbox.put(*message)
        else:
            port.inbox.tell(message)
    port.inbox.tell(Close(1.0))
    Loop(target, port).run()
    return port


def test_loop_reports_ticks_and_tells_what_is_stored() -> None:
    target = CountingTarget()
    port = looped(target, *documents("a", 3), Drain(7, 1.0))
    assert port.reports[-1].received == 3
    assert port.told[-1] == 6
    assert port.answers == [(7, True)]
    assert target.ticks > 0
    assert target.was_shut_down


def test_document_that_makes_the_target_raise_costs_only_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(CountingTarget):
        def steps(self, received: Received) -> Any:
            if received.doc.get("seq_num") == 2:
                raise ZeroDivisionError("a bug")
            return super().steps(received)

        def tick(self) -> None:
            raise OSError("tick")

        def stored(self) -> int:
            raise OSError("stored")

    target = Broken()
    port = looped(target, *documents("a", 4))
    assert target.runs[0].marks == [0, 2, 3]
    assert caplog.text.count("a bug") == 1
    assert port.reports[-1].fault


def test_open_runs_are_closed_with_the_reason_that_the_message_gives() -> None:
    target = CountingTarget()
    looped(target, *documents("a", 1)[:-1], Close(1.0, "because"))
    assert target.runs[0].end == "because"
