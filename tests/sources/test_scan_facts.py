"""What CXI and NeXus files say about the scan."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from replay_support import asymmetric

from ptychoseg_stream.sources.recorded.scan_facts import ScanFacts, read_facts

FRAMES = asymmetric(4)


def facts_of(path: Path, dataset: str = "/entry/data/data", **datasets: Any) -> ScanFacts:
    """Write the file, with ``name=(value, units)`` or ``name=value``, and read what it says."""
    with h5py.File(path, "w") as file:
        file[dataset] = FRAMES
        for name, value in datasets.items():
            value, units = value if isinstance(value, tuple) else (value, "")
            file[name.replace("__", "/")] = value
            if units:
                file[name.replace("__", "/")].attrs["units"] = units
    os.utime(path, (1e9, 1e9))
    with h5py.File(path) as file:
        return read_facts(file, dataset, len(FRAMES))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan_0042.nxs"


def test_what_nexus_says_goes_into_the_start_document(path: Path) -> None:
    facts = facts_of(
        path,
        entry__sample__name="gold balls",
        entry__title=b"night shift",
        entry__entry_identifier="1234",
        entry__start_time="2024-05-01T10:00:00+02:00",
        entry__instrument__detector__frame_time=(20.0, "ms"),
        entry__instrument__detector__distance=(np.array([1500.0]), "mm"),
        entry__instrument__beam__incident_energy=(8.0, "keV"),
    )
    assert facts.metadata == {
        "sample": "gold balls",
        "title": "night shift",
        "scan_id": 1234,
        "energy_eV": pytest.approx(8000),
        "detector_distance_m": pytest.approx(1.5),
    }
    assert facts.began == datetime(2024, 5, 1, 8, tzinfo=UTC).timestamp()
    assert facts.period == pytest.approx(0.02)


@pytest.mark.parametrize(("length", "unit"), [(1.5498, "angstrom"), (0.15498, "nm"), (1.5498, "")])
def test_the_energy_follows_from_the_wavelength(path: Path, length: float, unit: str) -> None:
    facts = facts_of(path, entry__instrument__beam__incident_wavelength=(length, unit))
    assert facts.metadata["energy_eV"] == pytest.approx(8000, rel=1e-4)


def test_what_cxi_says_is_read_too(shared_data: Any) -> None:
    path = shared_data("gold_balls/goldballs_resim_f000-040.cxi")
    with h5py.File(path) as file:
        facts = read_facts(file, "/entry_1/data_1/data", 41)
    assert facts.metadata["energy_eV"] == pytest.approx(1000, rel=1e-3)
    assert facts.metadata["detector_distance_m"] == pytest.approx(0.168)
    assert facts.positions is not None
    assert facts.positions.shape == (41, 2)
    assert "scan_id" not in facts.metadata  # two numbers in the name: which of them?


def test_a_file_that_says_nothing_has_its_name_and_date(path: Path) -> None:
    facts = facts_of(path, "/frames")
    assert facts.metadata == {"scan_id": 42}
    assert facts.began == 1e9
    assert facts.period == 0
    assert facts.positions is None


@pytest.mark.parametrize(
    "said",
    [
        {"entry__sample__name": np.arange(3)},
        {"entry__sample__name": np.array([b"a", b"b"])},
        {"entry__start_time": "yesterday"},
        {"entry__entry_identifier": "9" * 400},
        {"entry__instrument__detector__frame_time": "soon"},
        {"entry__instrument__detector__frame_time": np.nan},
        {"entry__instrument__detector__frame_time": -1.0},
        {"entry__instrument__detector__frame_time": np.zeros(0)},
        {"entry__instrument__detector__frame_time": (3.0, "furlongs")},
        {"entry__instrument__beam__incident_energy": (3.0, "J")},
    ],
)
def test_what_makes_no_sense_is_left_out(path: Path, said: Any) -> None:
    facts = facts_of(path, **said)
    assert facts.metadata == {"scan_id": 42}
    assert (facts.began, facts.period) == (1e9, 0)


def test_what_another_file_says_is_left_out(path: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = "of another user"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = FRAMES
        file["entry/sample/name"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
    with h5py.File(path) as file:
        assert "sample" not in read_facts(file, "/entry/data/data", 4).metadata


def test_a_long_text_is_cut(path: Path) -> None:
    assert len(facts_of(path, entry__title="x" * 10_000).metadata["title"]) == 200
