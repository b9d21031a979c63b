import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ptychoseg_stream.science.drift import MONITORS, DriftOptions, Monitors
from ptychoseg_stream.science.readings import Readings

SCATTER = {
    "plateau": 0.05,
    "total": 0.03,
    "scatter": 0.15,
    "error": 0.04,
    "js": 0.004,
    "area": 0.012,
    "radius": 0.007,
    "shift_y": 0.08,
    "shift_x": 0.08,
    "ciou": 0.012,
    "spikes": 0.0,
}
"""Standard deviations of a clean scan of gold balls."""
USUAL = Readings(
    plateau=np.log(1300.0),
    total=np.log(3.5e5),
    scatter=np.log(0.04),
    error=np.log(0.017),
    js=0.01,
    area=np.log(245.0),
    radius=np.log(8.9),
    shift_y=0.1,
    shift_x=0.0,
    ciou=0.95,
    spikes=0.0,
)


def steady(n, seed=0, begin=USUAL, correlated=0.6):
    """Readings of a stationary scan: neighbouring frames are alike."""
    rng = np.random.default_rng(seed)
    state = rng.standard_normal(len(SCATTER))
    for _ in range(n):
        noise = rng.standard_normal(len(SCATTER))
        state = correlated * state + np.sqrt(1 - correlated**2) * noise
        moved = {
            name: getattr(begin, name) + scale * x
            for (name, scale), x in zip(SCATTER.items(), state, strict=True)
        }
        yield dataclasses.replace(begin, **moved)


def moved(readings, **by):
    return dataclasses.replace(readings, **{k: getattr(readings, k) + v for k, v in by.items()})


def alarms_of(readings, monitors=None, begin=0):
    monitors = monitors or Monitors()
    return [a for i, r in enumerate(readings, begin) for a in monitors.update(i, r)]


def changed(at=40, n=80, seed=0, **by):
    return [moved(r, **by) if i >= at else r for i, r in enumerate(steady(n, seed))]


def test_monitors_are_named_after_the_readings_and_the_beam():
    fields = {field.name for field in dataclasses.fields(Readings)}
    assert set(MONITORS) == fields - {"verdict"} | {"beam"}


def test_stationary_readings_raise_nothing():
    found = [alarms_of(steady(400, seed)) for seed in range(10)]
    assert found == [[]] * 10


@pytest.mark.parametrize(
    ("by", "monitors", "action", "latest"),
    [
        ({"plateau": np.log(0.3), "total": np.log(0.3)}, {"plateau", "total"}, "note", 1),
        ({"plateau": np.log(0.01), "total": np.log(0.01)}, {"plateau", "total"}, "note", 1),
        ({"error": 0.6}, {"error"}, "note", 4),
        ({"scatter": 1.5}, {"scatter"}, "note", 4),
        ({"shift_y": 2.0}, {"shift_y"}, "re-register", 1),
        ({"shift_x": -1.0}, {"shift_x"}, "re-register", 4),
        ({"spikes": np.log(61.0)}, {"spikes"}, "bad pixels", 1),
        ({"ciou": -0.2}, {"ciou"}, "restart", 7),
        ({"area": 0.2}, {"area"}, "restart", 7),
        ({"area": -0.2}, {"area"}, "restart", 7),
        ({"radius": 0.1}, {"radius"}, "restart", 7),
        ({"js": 0.15}, {"js"}, "restart", 7),
    ],
)
def test_change_is_noticed_once_with_its_action(by, monitors, action, latest):
    found = alarms_of(changed(**by))
    assert [a.action for a in found] == [action]
    assert 40 <= found[0].index <= 40 + latest
    assert found[0].monitor in monitors
    assert abs(found[0].score) > 7


@pytest.mark.parametrize("by", [{"ciou": 0.05}, {"js": -0.009}])
def test_ring_that_agrees_better_is_no_reason_to_begin_anew(by):
    assert alarms_of(changed(**by)) == []


def test_text_says_what_changed_from_what_to_what_and_what_is_done():
    (alarm,) = alarms_of(changed(area=np.log(0.8)))
    assert alarm.text.startswith("ring area fell from 24")
    assert "learning begins anew" in alarm.text
    assert "\n" not in alarm.text
    assert alarm.expected == pytest.approx(245, rel=0.02)
    assert alarm.value == pytest.approx(196, rel=0.03)
    assert alarm.score < -7


def test_one_odd_frame_alone_raises_nothing():
    odd = {"plateau": 3.0, "shift_y": 30.0, "ciou": -0.7, "area": -1.0, "spikes": 5.0}
    readings = [moved(r, **odd) if i == 50 else r for i, r in enumerate(steady(100))]
    assert alarms_of(readings) == []


def test_ring_that_looks_different_for_fewer_than_five_frames_is_not_learned_anew():
    readings = [moved(r, area=0.5) if 50 <= i < 53 else r for i, r in enumerate(steady(100))]
    assert alarms_of(readings) == []


def test_new_level_is_the_usual_one_after_a_note_and_the_way_back_is_noted_too():
    low = {"plateau": np.log(0.1), "total": np.log(0.1)}
    readings = [moved(r, **low) if 40 <= i < 120 else r for i, r in enumerate(steady(200))]
    found = alarms_of(readings)
    assert [a.action for a in found] == ["note", "note"]
    assert 120 <= found[1].index <= 123
    assert "rose" in found[1].text


def test_slow_drift_is_followed_but_not_overlooked():
    readings = [moved(r, shift_y=0.045 * max(0, i - 40)) for i, r in enumerate(steady(90))]
    found = alarms_of(readings)
    assert found[0].action == "re-register"
    assert found[0].index <= 66
    creeping = [moved(r, plateau=-0.0005 * i, total=-0.0005 * i) for i, r in enumerate(steady(800))]
    assert alarms_of(creeping) == []


def test_slow_change_of_the_ring_is_not_taken_for_usual():
    readings = [moved(r, radius=0.0005 * max(0, i - 150)) for i, r in enumerate(steady(400))]
    found = alarms_of(readings)
    assert found[0].action == "restart"


def test_monitors_are_calibrated_anew_after_a_restart():
    monitors = Monitors()
    assert not monitors.calibrated
    other = moved(USUAL, radius=0.2, area=0.4, plateau=-0.1)
    readings = list(steady(45)) + list(steady(100, seed=1, begin=other))
    states = []
    found = []
    for i, r in enumerate(readings):
        found += monitors.update(i, r)
        states.append(monitors.calibrated)
    assert [a.action for a in found] == ["restart"]
    at = found[0].index
    assert states[at - 1]
    assert not states[at]
    assert states[-1]


def test_gross_change_is_noticed_before_calibration_is_over():
    found = alarms_of(changed(at=9, n=19, area=0.6, ciou=-0.5))
    assert [a.action for a in found] == ["restart"]
    assert found[0].index <= 16


def test_readings_against_a_provisional_reference_are_not_calibrated_on():
    monitors = Monitors()
    for i, r in enumerate(steady(21)):
        assert monitors.update(i, moved(r, ciou=-0.1), settled=False) == ()
    assert not monitors.calibrated
    rest = [moved(r, ciou=-0.12) if i >= 40 else r for i, r in enumerate(steady(60, seed=1))]
    found = alarms_of(rest, monitors, begin=21)
    assert [a.action for a in found] == ["restart"]


# --- beam ---------------------------------------------------------------------------------------


def test_beam_lost_and_back_are_said_once_each():
    monitors = Monitors()
    found = alarms_of(steady(40), monitors)
    for i in range(40, 55):
        found += monitors.lost(i, "no beam: plateau 0.1")
        assert not monitors.beam
    found += alarms_of(steady(45, seed=3), monitors, begin=55)
    assert monitors.beam
    assert [(a.index, a.monitor, a.action) for a in found] == [
        (40, "beam", "no beam"),
        (55, "beam", "note"),
    ]
    assert "no beam: plateau 0.1" in found[0].text
    assert "after 15 frames" in found[1].text
    assert found[1].expected == pytest.approx(1300, rel=0.1)


def test_dose_of_a_hundredth_is_no_lost_beam_but_half_a_count_is():
    faint = moved(USUAL, plateau=np.log(0.01), total=np.log(0.01))
    assert [a.action for a in alarms_of([USUAL] * 30 + [faint] * 10)] == ["note"]
    dark = dataclasses.replace(USUAL, plateau=np.log(0.4))
    assert [a.action for a in alarms_of([USUAL] * 30 + [dark] * 10)] == ["no beam"]
    noisy = Monitors(DriftOptions(read_noise=20.0))
    assert [a.action for a in alarms_of([USUAL] * 30 + [faint] * 10, noisy)] == ["no beam"]


def test_no_ring_where_the_reference_has_one_is_no_beam_but_a_broken_one_is():
    gone = dataclasses.replace(USUAL, verdict="none", ciou=0.1)
    assert [a.action for a in alarms_of([USUAL] * 30 + [gone] * 10)] == ["no beam"]
    broken = dataclasses.replace(USUAL, verdict="none", ciou=0.6)
    assert [a.action for a in alarms_of([USUAL] * 30 + [broken] * 10)] == ["restart"]


def test_beam_may_be_missing_from_the_first_frame():
    monitors = Monitors()
    (lost,) = monitors.lost(0, "no beam")
    assert lost.index == 0
    assert [a.action for a in alarms_of(steady(60), monitors, begin=1)] == ["note"]


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("calibration", 3),
        ("memory", 5),
        ("weight", 0.0),
        ("limit", -1.0),
        ("clip", 0.0),
        ("persistence", 0),
        ("tolerance", 0.5),
        ("floors", {"beam": 1.0}),
        ("floors", {"area": 0.0}),
    ],
)
def test_option_that_cannot_work_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}:"):
        DriftOptions(**{name: value})


def test_floor_sets_the_least_change_that_is_noticed():
    assert alarms_of(changed(area=0.2), Monitors(DriftOptions(floors={"area": 0.2}))) == []


def test_same_readings_give_the_same_alarms():
    readings = changed(at=30, n=90, radius=0.1, shift_x=1.0)
    assert repr(alarms_of(readings)) == repr(alarms_of(readings))


# --- frames -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark():
    folder = Path(__file__).parents[2] / "benchmarks"
    spec = importlib.util.spec_from_file_location("benchmark_drift", folder / "drift.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "latest"),
    [
        ("jump 2 px", 2),
        ("dose x0.01", 2),
        ("ring +10 %", 8),
        ("pupil damage", 8),
        ("60 hot pixels", 2),
        ("beam lost and back", 0),
    ],
)
def test_change_in_frames_is_noticed(benchmark, name, latest):
    change = next(c for c in benchmark.changes() if c.name == name)
    frames, _ = change.make(seed=0)
    found = benchmark.Watch().alarms(frames)
    assert found[0].action in change.wanted.split("/")
    assert 0 <= found[0].index - benchmark.AT <= latest


@pytest.mark.slow
def test_frames_of_a_steady_scan_raise_nothing(benchmark):
    change = next(c for c in benchmark.changes() if c.name == "nothing")
    assert benchmark.Watch().alarms(change.make(seed=5)[0]) == []
