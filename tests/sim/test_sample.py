from math import pi

import numpy as np
import pytest

from ptychoseg_stream.sim.sample import GOLD, SILICON_NITRIDE, Balls, gold_on_membrane

PIXEL = 11.128e-9


def gold_thickness(balls, seed=0, shape=(300, 300)):
    """Thickness [m] of the gold, from the modulus behind the membrane."""
    transmission = gold_on_membrane(shape, PIXEL, balls, np.random.default_rng(seed))
    membrane = SILICON_NITRIDE.transmission(np.array([50e-9]))[0]
    return (
        np.log(np.abs(transmission / membrane))
        / np.log(np.abs(GOLD.transmission(np.array([1e-9]))[0]))
        * 1e-9
    )


def test_50_nm_of_gold_weaken_and_turn_the_wave_as_the_tables_say():
    k = 2 * pi / 1.2398e-9
    (wave,) = GOLD.transmission(np.array([50e-9]))
    assert abs(wave) == pytest.approx(np.exp(-k * 8.47e-4 * 50e-9), rel=1e-5)
    assert np.angle(wave) == pytest.approx(-k * 2.127e-3 * 50e-9, rel=1e-5)
    assert np.angle(wave) == pytest.approx(-0.539, abs=1e-3)


def test_the_membrane_alone_is_what_lies_between_the_balls():
    transmission = gold_on_membrane((200, 200), PIXEL, Balls(), np.random.default_rng(0))
    membrane = SILICON_NITRIDE.transmission(np.array([50e-9]))[0]
    assert (transmission == membrane).mean() > 0.6
    assert transmission.dtype == np.complex64


def test_balls_are_as_thick_as_they_are_wide_and_a_layer_does_not_pile_up():
    thickness = gold_thickness(Balls(spread=0.0))
    assert thickness.max() == pytest.approx(50e-9, rel=0.05)
    assert gold_thickness(Balls(spread=0.0, layers=3)).max() > 70e-9


def test_the_volume_of_gold_follows_from_coverage_and_layers():
    for layers in (1, 3):
        balls = Balls(spread=0.0, layers=layers, coverage=0.2)
        volumes = [gold_thickness(balls, seed).mean() for seed in range(4)]
        mean_chord = 2 / 3 * balls.diameter  # volume of a sphere over its shadow
        assert np.mean(volumes) == pytest.approx(layers * 0.2 * mean_chord, rel=0.25)


def test_the_same_generator_gives_the_same_sample():
    one, two, other = (gold_thickness(Balls(), seed) for seed in (3, 3, 4))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
