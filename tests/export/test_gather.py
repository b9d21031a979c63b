"""Which frames are exported, where metadata come from, and what is said when they are missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from export_support import experiment_of, raw_of, stored_run, with_products

from ptychoseg_stream.errors import DatasetError, StoreError
from ptychoseg_stream.export.gather import gather
from ptychoseg_stream.export.given import Given, pixel_size_of, read_positions
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.sim import Scan


def test_frames_without_a_mask_are_left_out_and_counted(spoiled: Scan) -> None:
    status = ["ok", "refused", "ok", "lost", "ok", "ok"]
    gathered = gather(stored_run(spoiled, status=status), raw_of(spoiled.frames), Given())
    assert gathered.run.rows.tolist() == [0, 2, 4, 5]
    assert np.array_equal(gathered.run.positions, spoiled.positions[[0, 2, 4, 5]])
    assert gathered.notes == ("2 of 6 frames left out: 2 without a mask (refused or lost)",)


def test_of_a_point_that_was_taken_again_the_last_attempt_counts(spoiled: Scan) -> None:
    run = stored_run(spoiled, raw_seq_num=[1, 2, 3, 2, 3, 4], attempt=[0, 0, 0, 1, 1, 0])
    gathered = gather(run, raw_of(spoiled.frames), Given())
    assert gathered.run.rows.tolist() == [0, 3, 4, 5]
    assert "2 taken again later" in gathered.notes[0]


def test_an_event_with_several_images_keeps_all_of_the_last_attempt(spoiled: Scan) -> None:
    run = stored_run(spoiled, raw_seq_num=[1, 1, 1, 1, 2, 2], attempt=[0, 0, 1, 1, 0, 0])
    assert gather(run, raw_of(spoiled.frames), Given()).run.rows.tolist() == [2, 3, 4, 5]


def test_events_of_unknown_number_are_never_the_same_point(spoiled: Scan) -> None:
    run = stored_run(spoiled, raw_seq_num=[0] * 6, attempt=[0, 1, 0, 0, 0, 0])
    assert len(gather(run, raw_of(spoiled.frames), Given()).run) == 6


def test_frames_without_a_position_are_left_out(spoiled: Scan) -> None:
    positions = spoiled.positions.copy()
    positions[1, 0] = np.nan
    run = with_products(stored_run(spoiled), positions=positions[:5])  # of the last, none
    gathered = gather(run, raw_of(spoiled.frames), Given())
    assert gathered.run.rows.tolist() == [0, 2, 3, 4]
    assert "2 without a position" in gathered.notes[0]


UNKNOWN = {
    "energy_eV (give --energy": {"energy": 0.0},
    "detector_distance_m (give --distance": {"distance": 0.0},
    "detector_pixel_size_m (give --pixel-size": {"pixel_size": (0.0, 0.0)},
}


@pytest.mark.parametrize("told", UNKNOWN)
def test_what_is_missing_is_named_with_the_option_that_supplies_it(
    spoiled: Scan, told: str
) -> None:
    experiment = replace(experiment_of(spoiled), **UNKNOWN[told])
    run = with_products(stored_run(spoiled), experiment=experiment)
    with pytest.raises(DatasetError) as caught:
        gather(run, raw_of(spoiled.frames), Given())
    assert told in str(caught.value)
    assert "run derived" in str(caught.value)
    assert sum(other in str(caught.value) for other in UNKNOWN) == 1
    gather(run, raw_of(spoiled.frames), Given(experiment_of(spoiled)))


def test_all_that_is_missing_is_named_at_once(spoiled: Scan) -> None:
    nowhere = np.full_like(spoiled.positions, np.nan)
    run = with_products(stored_run(spoiled), experiment=Experiment(), positions=nowhere)
    with pytest.raises(DatasetError) as caught:
        gather(run, raw_of(spoiled.frames), Given())
    for option in ("--energy", "--distance", "--pixel-size", "--positions FILE:/dataset"):
        assert option in str(caught.value)


def test_what_is_given_counts_before_the_run_and_the_run_before_its_file(spoiled: Scan) -> None:
    raw = replace(raw_of(spoiled.frames), experiment=Experiment(8000.0, 2.0))
    known = replace(experiment_of(spoiled), energy=0.0)
    run = with_products(stored_run(spoiled), experiment=known)
    moved = spoiled.positions + 1e-6
    told = gather(run, raw, Given(Experiment(distance=3.0), moved, "p.h5:/p")).run
    assert told.experiment == Experiment(8000.0, 3.0, known.pixel_size)
    assert np.array_equal(told.positions, moved)
    assert told.provenance["positions"] == "p.h5:/p"


def test_positions_of_the_raw_file_serve_where_the_run_has_none(spoiled: Scan) -> None:
    raw = replace(raw_of(spoiled.frames), positions=spoiled.positions)
    run = with_products(stored_run(spoiled), positions=np.empty((0, 2)))
    assert np.array_equal(gather(run, raw, Given()).run.positions, spoiled.positions)


def test_a_run_without_products_says_what_to_do(spoiled: Scan) -> None:
    with pytest.raises(StoreError, match="ptychoseg replay"):
        gather(replace(stored_run(spoiled), products=None), raw_of(spoiled.frames), Given())


def test_a_run_without_validity_says_what_to_do(spoiled: Scan) -> None:
    with pytest.raises(StoreError, match="valid_bits"):
        gather(replace(stored_run(spoiled), arrays=("mask",)), raw_of(spoiled.frames), Given())


def test_a_run_in_which_no_frame_has_a_mask_says_so(spoiled: Scan) -> None:
    run = stored_run(spoiled, status=["refused"] * 6)
    with pytest.raises(StoreError, match="6 without a mask"):
        gather(run, raw_of(spoiled.frames), Given())


@pytest.mark.parametrize("wrong", [np.s_[:4], np.s_[:, :50]], ids=["fewer", "smaller"])
def test_frames_of_another_run_are_refused(spoiled: Scan, wrong: Any) -> None:
    with pytest.raises(DatasetError, match="--frames"):
        gather(stored_run(spoiled), raw_of(spoiled.frames[wrong]), Given())


def test_positions_of_another_length_are_refused(spoiled: Scan) -> None:
    given = Given(positions=spoiled.positions[:4], source="p.h5:/p")
    with pytest.raises(DatasetError, match="4 positions, run derived has 6"):
        gather(stored_run(spoiled), raw_of(spoiled.frames), given)


@pytest.mark.parametrize("factor", [1e6, 1e-6], ids=["in um", "no scan"])
def test_positions_that_cannot_be_metres_are_remarked(spoiled: Scan, factor: float) -> None:
    run = with_products(stored_run(spoiled), positions=spoiled.positions * factor)
    (note,) = gather(run, raw_of(spoiled.frames), Given()).notes
    assert "--positions-unit" in note


def test_a_run_that_is_not_over_is_exported_with_a_note(spoiled: Scan) -> None:
    (note,) = gather(replace(stored_run(spoiled), stop={}), raw_of(spoiled.frames), Given()).notes
    assert "not over" in note


@pytest.mark.parametrize(
    ("text", "size"), [("", (0, 0)), ("55e-6", (55e-6, 55e-6)), ("1e-5,2e-5", (1e-5, 2e-5))]
)
def test_a_pixel_size_is_one_number_or_y_and_x(text: str, size: tuple[float, float]) -> None:
    assert pixel_size_of(text) == size


@pytest.mark.parametrize("text", ["55", "a", "1e-5,2e-5,3e-5", "-1e-5", "nan"])
def test_a_pixel_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="--pixel-size"):
        pixel_size_of(text)


def test_positions_are_read_from_hdf5_and_npy_in_their_unit(tmp_path: Path) -> None:
    places = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    np.save(tmp_path / "p.npy", places)
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["scan/yx"] = places
    assert np.allclose(read_positions(f"{tmp_path}/p.npy", "um"), places * 1e-6)
    assert np.allclose(read_positions(f"{tmp_path}/p.h5:/scan/yx", "mm"), places * 1e-3)


def test_positions_that_are_none_are_refused_and_those_there_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["scan/yx"] = np.zeros((3, 2))
        file["other"] = np.zeros((3, 5))
    with pytest.raises(DatasetError, match=r"\(frames, 2\): /scan/yx"):
        read_positions(f"{tmp_path}/p.h5")
    with pytest.raises(DatasetError, match=r"\(3, 5\) is no list of positions"):
        read_positions(f"{tmp_path}/p.h5:/other")
    with pytest.raises(DatasetError, match="no such file"):
        read_positions(f"{tmp_path}/none.h5:/yx")
    with pytest.raises(DatasetError, match="--positions-unit"):
        read_positions(f"{tmp_path}/p.h5:/scan/yx", "inch")
