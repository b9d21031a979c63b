import numpy as np
import pytest

from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sim.plans import ptycho_scan, sample_stage, take_frames


def documents_of(engine, plan):
    seen = []
    engine(plan, lambda name, doc: seen.append((name, doc)))
    return seen


def test_a_ptycho_scan_reads_frame_and_motors_at_every_point_of_one_run(engine):
    scan = simulate(GoldBalls(grid=(2, 4)))
    detector, (x, y) = PlayedDetector(scan.frames, name="det"), sample_stage()
    plan = ptycho_scan(
        detector, x, y, scan.positions, energy=scan.energy_eV, md={"sample": "gold balls"}
    )
    seen = documents_of(engine, plan)
    assert [name for name, _ in seen] == ["start", "descriptor", *["event"] * 8, "stop"]
    start = seen[0][1]
    assert start["plan_name"] == "ptycho_scan"
    assert start["energy_eV"] == 1000.0
    assert start["positions_unit"] == {"sample_x": "um", "sample_y": "um"}
    assert start["num_points"] == 8
    assert start["sample"] == "gold balls"
    events = [doc["data"] for name, doc in seen if name == "event"]
    at = np.array([(data["sample_y"], data["sample_x"]) for data in events])
    assert at == pytest.approx(1e6 * scan.positions)
    assert np.array_equal([data["det_image"] for data in events], scan.frames)


def test_there_is_a_checkpoint_before_every_point():
    detector, (x, y) = PlayedDetector(np.ones((3, 4, 4)), name="det"), sample_stage()
    for plan in (ptycho_scan(detector, x, y, np.zeros((3, 2))), take_frames(detector, 3)):
        messages = [message.command for message in plan]
        assert messages.count("checkpoint") == 3
        assert messages.count("create") <= 3


def test_motors_in_millimetres_get_millimetres(engine):
    detector, (x, y) = PlayedDetector(np.ones((1, 4, 4)), name="det"), sample_stage()
    x.egu = y.egu = "mm"
    engine(ptycho_scan(detector, x, y, [(2e-3, -1e-3)]))
    assert (y.position, x.position) == pytest.approx((2.0, -1.0))


def test_positions_and_units_that_make_no_sense_are_refused_before_the_scan(engine):
    detector, (x, y) = PlayedDetector(np.ones((1, 4, 4)), name="det"), sample_stage()
    with pytest.raises(ValueError, match=r"positions: shape \(3,\)"):
        engine(ptycho_scan(detector, x, y, [1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="positions"):
        engine(ptycho_scan(detector, x, y, [(0.0, np.nan)]))
    x.egu = "deg"
    with pytest.raises(ValueError, match="sample_x: unit 'deg'"):
        engine(ptycho_scan(detector, x, y, [(0.0, 0.0)]))
