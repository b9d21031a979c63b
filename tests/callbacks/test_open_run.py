import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from ptychoseg_callbacks.frames.finder import FrameFinder
from ptychoseg_callbacks.runs.open_run import OpenRun
from ptychoseg_callbacks.runs.tally import MOST_KINDS, kind_of

from ptychoseg_stream.science.frame import Frame, Mask
from ptychoseg_stream.science.records import Alarm, StageRecord


def refused(reasons) -> Iterator[Mask]:
    for i, reason in enumerate(reasons):
        frame = Frame("run", i, None, (4, 4))
        yield Mask(frame, np.full((4, 4), 255, np.uint8), "none", "refused", reason)


def account_of(reasons):
    run = OpenRun("run", FrameFinder({"uid": "run"}))
    run.count(list(refused(reasons)))
    return run.tally.account("success", "")


def test_refusals_of_one_kind_are_counted_together_whatever_their_details():
    reasons = [f"another size: frame {i} is (4, {i}), the run began with (4, 4)" for i in range(9)]
    reasons += ["no beam: plateau 0.1 counts", "no beam: plateau 0.2 counts"]
    assert account_of(reasons).refused == {"another size": 9, "no beam": 2}


def test_kinds_have_no_numbers_and_no_dots():
    assert kind_of("12.5% of the pixels are unusable (3% NaN)") == "some of the pixels are unusable"
    assert "." not in kind_of("set node.prepare.gain to something")
    assert kind_of("") == "no reason given"


def test_account_does_not_grow_with_the_run():
    names = [chr(97 + i // 26) + chr(97 + i % 26) for i in range(300)]
    counts = account_of(names).refused
    assert len(counts) == MOST_KINDS + 1
    assert sum(counts.values()) == 300


# --- what the operator is told --------------------------------------------------------------------

NAN = float("nan")


def mask_of(index, verdict="annulus", status="ok", **more):
    frame = Frame("run", index, None, (4, 4))
    return Mask(frame, np.zeros((4, 4), np.uint8), "fused", status, verdict=verdict, **more)


def stage_of(number, reason=""):
    return StageRecord(
        number, (0,), 1, 0.01, False, not reason, reason, 0.9, 0.0, "student", "parent", "teacher"
    )


def opened(masks):
    run = OpenRun("run", FrameFinder({"uid": "run"}))
    for mask in masks:
        run.count([mask])
    return run


def test_frames_are_counted_by_what_they_show_and_lost_ones_show_nothing():
    masks = [mask_of(i, v) for i, v in enumerate(("annulus", "annulus", "disc", "none"))]
    masks += [mask_of(4, "no beam", "refused"), mask_of(5, "none", "lost")]
    account = opened(masks).tally.account("success", "")
    assert account.verdicts == {"annulus": 2, "disc": 1, "none": 1, "no beam": 1}
    assert (account.written, account.lost, account.alarms) == (4, 1, 0)


def test_each_alarm_is_a_line_of_the_log_and_the_last_one_is_remembered(caplog):
    first = Alarm(3, "ciou", 0.7, 0.95, -9.0, "restart", "the ring fell from 0.95 to 0.70")
    second = replace(first, index=4, monitor="shift_y", action="re-register", text="it moved")
    with caplog.at_level(logging.WARNING):
        run = opened([mask_of(3, alarms=(first,)), mask_of(4, alarms=(second,)), mask_of(5)])
    assert [r.getMessage() for r in caplog.records] == [
        "run run, frame 3: the ring fell from 0.95 to 0.70",
        "run run, frame 4: it moved",
    ]
    assert run.alarm == "frame 4: it moved"
    assert run.tally.account("success", "").alarms == 2


def test_refused_student_is_a_line_of_the_log_and_a_promoted_one_is_not(caplog):
    stages = (stage_of(0), stage_of(1, "the ring is gone in kept frame 0"))
    with caplog.at_level(logging.WARNING):
        opened([mask_of(7, stages=stages)])
    assert [r.getMessage() for r in caplog.records] == [
        "run run: the student of stage 1 does not serve: the ring is gone in kept frame 0"
    ]
