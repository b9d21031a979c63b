from collections.abc import Iterator

import numpy as np
from ptychoseg_callbacks.frames import FrameFinder
from ptychoseg_callbacks.open_run import MOST_KINDS, OpenRun, kind_of

from ptychoseg_stream.science.frame import Frame, Mask


def refused(reasons) -> Iterator[Mask]:
    for i, reason in enumerate(reasons):
        frame = Frame("run", i, None, (4, 4))
        yield Mask(frame, np.full((4, 4), 255, np.uint8), "none", "refused", reason)


def account_of(reasons):
    run = OpenRun("run", FrameFinder({"uid": "run"}))
    run.count(list(refused(reasons)))
    return run.account("success", "")


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
