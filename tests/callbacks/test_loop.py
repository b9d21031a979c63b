"""The loop alone, with a target that counts."""

from typing import Any

import pytest
from callbacks_targets import CountingTarget, Port, documents
from ptychoseg_callbacks.loop import Close, Drain, Loop, Received, Suspend
from ptychoseg_callbacks.queueing.inbox import Inbox


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


class Stepping(CountingTarget):
    """Takes ten steps for each event."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[int] = []
        self.ticks_at: list[int] = []

    def steps(self, received: Received) -> Any:
        for step in range(10 if received.name == "event" else 0):
            self.taken.append(step)
            self.ticks_at.append(self.ticks)
            yield
        yield from super().steps(received)


def test_what_is_due_is_done_between_the_steps_of_one_document() -> None:
    target, now = Stepping(), [0.0]

    def clock() -> float:
        now[0] += 0.05
        return now[0]

    port = Port(Inbox())
    for each in documents("a", 1):
        port.inbox.put(*each)
    port.inbox.tell(Close(1.0))
    Loop(target, port, clock).run()
    assert target.ticks_at == sorted(target.ticks_at)
    assert 1 <= target.ticks_at[-1] - target.ticks_at[0] < 9  # when it is due, not at each step


def test_document_is_broken_off_when_the_port_says_so_and_none_follows() -> None:
    class Impatient(Stepping):
        def steps(self, received: Received) -> Any:
            for step in super().steps(received):
                if self.taken == [0, 1, 2]:
                    port.suspend = Suspend(1.0)
                yield step

    target, port = Impatient(), Port(Inbox())
    for each in documents("a", 3):
        port.inbox.put(*each)
    port.inbox.tell(Close(1.0))
    Loop(target, port).run()
    assert target.taken == [0, 1, 2]
    assert target.runs[0].marks == []
    assert target.was_suspended
    assert target.was_shut_down
    assert port.inbox.waiting > 0


def test_runs_that_a_close_spares_are_left_as_they_are() -> None:
    target = CountingTarget()
    both = [*documents("a", 1)[:-1], *documents("b", 1)[:-1]]
    looped(target, *both, Close(1.0, "because", frozenset("b")))
    assert [run.end for run in target.runs] == ["because", ""]
    assert target.was_suspended
