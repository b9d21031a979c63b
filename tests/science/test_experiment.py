import numpy as np
import pytest

from ptychoseg_stream.science.experiment import Experiment, ExperimentOptions, experiment_of


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({"energy_eV": 1000}, Experiment(1000.0)),
        ({"photon_energy_keV": 6.2}, Experiment(6200.0)),
        ({"detector_distance_mm": 168}, Experiment(distance=0.168)),
        ({"detector_pixel_size_m": 55e-6}, Experiment(pixel_size=(55e-6, 55e-6))),
        ({"pixel_size_um": [75, 172]}, Experiment(pixel_size=(75e-6, 172e-6))),
        ({"energy_eV": np.float32(500)}, Experiment(500.0)),
        ({"energy_eV": "1000", "detector_distance_m": -1}, Experiment()),
        ({"energy_eV": float("nan"), "pixel_size_m": [1e-6]}, Experiment()),
        ({"energy_eV": True, "pixel_size_m": "ab"}, Experiment()),
    ],
    ids=str,
)
def test_what_a_start_document_says_is_read_in_its_unit(start, expected):
    found = experiment_of(start, ExperimentOptions())
    assert found.energy == expected.energy
    assert found.distance == pytest.approx(expected.distance)
    assert found.pixel_size == pytest.approx(expected.pixel_size)


def test_the_start_document_counts_more_than_the_profile():
    options = ExperimentOptions(energy_eV=700.0, distance_m=0.1, pixel_size_m=(1e-5, 1e-5))
    found = experiment_of({"energy_eV": 800.0}, options)
    assert found == Experiment(800.0, 0.1, (1e-5, 1e-5))


def test_wavelength_follows_from_the_energy():
    assert Experiment(1000.0).wavelength == pytest.approx(1.2398e-9, rel=1e-4)
    assert Experiment().wavelength == 0


@pytest.mark.parametrize(
    "wrong", [{"energy_eV": -1.0}, {"distance_m": float("inf")}, {"pixel_size_m": (55.0, 55.0)}]
)
def test_options_that_cannot_be_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExperimentOptions(**wrong)
