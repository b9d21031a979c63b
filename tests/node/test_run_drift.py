"""What a run does when the experiment changes."""

from dataclasses import replace

import numpy as np
import pytest
from beams import frames_of, ring_iou
from node_support import OPTIONS, contents, labelled
from scenes import peaks

from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.sim import GoldBalls, simulate

pytestmark = pytest.mark.slow

SERVED = replace(OPTIONS, also=())
CHANGE = 30


def scores(masks, truth, part=slice(None)):
    """Ring IoU of each served mask with the truth of its frame."""
    assert all(m.status == "ok" for m in masks[part])
    return np.array([ring_iou(m.classes, truth[m.frame.index]) for m in masks[part]])


def alarms_of(masks):
    return [(a.index, a.monitor, a.action) for m in masks for a in m.alarms]


# --- nothing changes ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{}, {"strong": True}], ids=["clean", "strong"])
def test_stationary_run_raises_no_alarm(kind):
    scan = simulate(GoldBalls(n_frames=70, **kind))
    masks = labelled(frames_of(scan.frames), SERVED)
    assert alarms_of(masks) == []
    assert [s.stage for m in masks for s in m.stages] == [0, 1, 2]
    assert scores(masks, scan.truth).mean() > (0.9 if kind else 0.95)


# --- another ring ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grown():
    scan = simulate(GoldBalls(n_frames=70, change_at=CHANGE, ring_scale=1.1))
    return scan, labelled(frames_of(scan.frames), SERVED)


def test_larger_ring_restarts_the_ladder_once(grown):
    _, masks = grown
    found = alarms_of(masks)
    assert [action for _, _, action in found] == ["restart"]
    (index, monitor, _), (alarm,) = found[0], [a for m in masks for a in m.alarms]
    assert CHANGE < index <= CHANGE + 10
    assert monitor in ("ciou", "area", "radius", "js")
    assert "learning begins anew" in alarm.text
    assert abs(alarm.score) > OPTIONS.drift.ring_limit
    assert next(i for i, m in enumerate(masks) if m.alarms) == index  # on the mask of its frame


def test_stages_begin_anew_at_the_alarm_and_go_on_counting(grown):
    _, masks = grown
    ((index, _, _),) = alarms_of(masks)
    records = [s for m in masks for s in m.stages]
    assert [s.stage for s in records] == [0, 1, 2, 3, 4, 5]
    assert [s.frames for s in records[3:]] == [
        (index,),
        (index, index + 3),
        (index, index + 3, index + 7),
    ]
    assert all(s.promoted for s in records)
    assert masks[-1].student_revision == 5


def test_masks_recover_and_the_old_ring_is_forgotten(grown):
    scan, masks = grown
    ((index, _, _),) = alarms_of(masks)
    assert scores(masks, scan.truth, slice(10, CHANGE)).mean() > 0.95
    assert scores(masks, scan.truth, slice(CHANGE, CHANGE + 1))[0] < 0.85  # the change harms
    after = scores(masks, scan.truth, slice(index + 8, None))
    assert after.mean() > 0.95
    assert after.min() > 0.93
    # What an average over all frames would remember: a ring between the two.
    area = (scan.truth[-1] == ClassCode.RING).sum()
    assert [m.ring_area / area for m in masks[-5:]] == pytest.approx([1] * 5, abs=0.05)


def test_frames_that_look_like_another_beam_are_shown_by_the_student_alone(grown):
    """Between the change and the alarm the averages of the old ring would harm."""
    scan, masks = grown
    ((index, _, _),) = alarms_of(masks)
    doubtful = scores(masks, scan.truth, slice(index - 2, index))
    assert doubtful.mean() > scores(masks, scan.truth, slice(CHANGE, CHANGE + 1))[0] + 0.1


# --- odd frames -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd_frames():
    """A steady run, and the same with three frames of a much larger ring."""
    steady = simulate(GoldBalls(n_frames=24))
    other = simulate(GoldBalls(n_frames=24, ring_scale=1.6))
    images = steady.frames.copy()
    images[9:12] = other.frames[9:12]
    # The frames 9 to 11 have no part in the learning of the other run either.
    alone = [f for f in frames_of(steady.frames) if not 9 <= f.index < 12]
    options = replace(SERVED, stages=(0, 3, 9))
    return steady, labelled(frames_of(images), options), labelled(alone, options)


def test_odd_frames_are_labelled_but_not_learned_from(odd_frames):
    _, masks, _ = odd_frames
    assert {m.status for m in masks} == {"ok"}
    staged = [s.frames for m in masks for s in m.stages]
    assert staged == [(0,), (0, 3), (0, 3, 12)]
    assert not any(a.action == "restart" for m in masks for a in m.alarms)
    assert all(m.ring_area > 1.5 * masks[0].ring_area for m in masks[9:12])


def test_odd_frames_leave_no_trace_in_the_averages(odd_frames):
    scan, masks, alone = odd_frames
    expected = {m.frame.index: m for m in alone}
    for mask in masks[12:]:
        assert ring_iou(mask.classes, expected[mask.frame.index].classes) > 0.98
    assert scores(masks, scan.truth, slice(12, None)).mean() > 0.95


# --- beam lost ------------------------------------------------------------------------------------

AWAY = range(14, 20)


@pytest.fixture(scope="module")
def interrupted():
    scan = simulate(GoldBalls(n_frames=40))
    images = scan.frames.copy()
    for i in AWAY:
        images[i] = np.random.default_rng(i).poisson(0.05, images[i].shape)
    return scan, labelled(frames_of(images), SERVED), labelled(frames_of(scan.frames), SERVED)


def test_frames_without_beam_are_refused_and_publish_nothing(interrupted):
    _, masks, _ = interrupted
    for mask in (masks[i] for i in AWAY):
        assert (mask.status, mask.source, mask.verdict) == ("refused", "none", "no beam")
        assert "no beam" in mask.reason
        assert (mask.classes == ClassCode.INVALID).all()
        assert mask.valid_bits is not None  # the pixels were looked at all the same
    assert {m.status for m in masks if m.frame.index not in AWAY} == {"ok"}


def test_loss_and_return_of_the_beam_are_told_once_each(interrupted):
    _, masks, _ = interrupted
    assert alarms_of(masks) == [(AWAY[0], "beam", "no beam"), (AWAY[-1] + 1, "beam", "note")]
    lost, back = (a for m in masks for a in m.alarms)
    assert "nothing is learned" in lost.text
    assert f"after {len(AWAY)} frames" in back.text


def test_masks_after_the_return_are_as_good_as_without_the_loss(interrupted):
    scan, masks, undisturbed = interrupted
    after = slice(AWAY[-1] + 1, None)
    assert masks[-1].student_hash == undisturbed[-1].student_hash
    loss = scores(undisturbed, scan.truth, after).mean() - scores(masks, scan.truth, after).mean()
    assert abs(loss) < 0.01
    assert scores(masks, scan.truth, after).min() > 0.93


def test_beam_may_come_back_elsewhere():
    path = ((0.0, 0.0),) * 20 + ((9.0, -7.0),) * 14
    scan = simulate(GoldBalls(n_frames=34, drift_path=path))
    images = scan.frames.copy()
    images[16:20] = 0
    masks = labelled(frames_of(images), SERVED)
    assert [m.status for m in masks] == ["ok"] * 16 + ["refused"] * 4 + ["ok"] * 14
    assert scores(masks, scan.truth, slice(20, None)).min() > 0.9


# --- motion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [(3.0, -1.5), (8.0, 5.0), (-25.0, 12.5)])
def test_beam_that_jumps_is_followed_at_once_however_far(jump):
    path = ((0.0, 0.0),) * 15 + (jump,) * 15
    scan = simulate(GoldBalls(n_frames=30, drift_path=path))
    masks = labelled(frames_of(scan.frames), SERVED)
    assert scores(masks, scan.truth).min() > 0.9
    assert scores(masks, scan.truth, slice(20, None)).mean() > 0.94
    assert {a for _, _, a in alarms_of(masks)} == {"re-register"}
    assert masks[-1].shift == pytest.approx(jump, abs=0.4)
    centre = np.array(masks[-1].quality.centre) - masks[14].quality.centre
    assert centre == pytest.approx(jump, abs=0.4)


@pytest.mark.parametrize("speed", [0.05, 0.25, 0.8])
def test_beam_that_drifts_is_followed_however_fast(speed):
    path = tuple((speed * i, -0.5 * speed * i) for i in range(36))
    scan = simulate(GoldBalls(n_frames=36, drift_path=path))
    masks = labelled(frames_of(scan.frames), SERVED)
    assert scores(masks, scan.truth, slice(10, None)).mean() > 0.93
    assert {a for _, _, a in alarms_of(masks)} <= {"re-register"}
    assert masks[-1].shift == pytest.approx(path[-1], abs=0.3)


# --- dose -----------------------------------------------------------------------------------------


def test_dose_that_falls_is_noted_and_costs_little():
    scan = simulate(GoldBalls(n_frames=50, change_at=34, dose_factor=0.05))
    masks = labelled(frames_of(scan.frames), SERVED)
    assert {a for _, _, a in alarms_of(masks)} == {"note"}
    assert scores(masks, scan.truth, slice(36, None)).mean() > 0.94
    assert [s.stage for m in masks for s in m.stages] == [0, 1, 2]


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(), (20, 23, 24), (10, 34, 40)], ids=str)
def test_what_is_done_about_changes_does_not_depend_on_batches(cuts, eventful):
    images, one_by_one = eventful
    assert contents(labelled(frames_of(images), SERVED, cuts=cuts)) == one_by_one


@pytest.fixture(scope="module")
def eventful():
    """Bragg peaks first; then a beam that jumps, is lost, and comes back larger."""
    path = ((0.0, 0.0),) * 16 + ((6.0, -4.0),) * 32
    scan = simulate(GoldBalls(n_frames=48, drift_path=path, change_at=30, ring_scale=1.1))
    images = scan.frames.copy()
    images[0] = peaks(9)
    images[22:25] = 0
    masks = labelled(frames_of(images), SERVED, cuts=range(1, 48))
    assert {"restart", "no beam", "re-register"} <= {a for _, _, a in alarms_of(masks)}
    return images, contents(masks)
