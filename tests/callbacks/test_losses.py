"""Documents that are lost at random, one by one: nothing is mixed up, all is accounted for."""

import random
from collections import Counter
from pathlib import Path

import pytest
from bluesky.run_engine import RunEngine
from detectors_support import FLAVOURS
from scans_support import MemoryStore, found, numbers, recorded, step, without


@pytest.mark.parametrize("darks", [[], [0], [0, 3]])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_whatever_is_lost_no_index_has_the_image_of_another(
    RE: RunEngine, tmp_path: Path, flavour: str, darks: list[int]
) -> None:
    """Any documents of points may be missing, one by one: 15 seeded choices of them."""
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 6, dark_at=darks))
    whole, announced = found(documents)
    assert announced == len(whole)
    right = numbers(whole)
    chance = random.Random(len(darks))
    images = 0
    for seed in range(15):
        share = chance.choice([0.1, 0.3, 0.6])
        left = without(
            documents,
            lambda name, _, share=share: (
                name in ("datum", "stream_datum", "event") and chance.random() < share
            ),
        )
        frames, announced = found(left)
        assert [frame.index for frame in frames] == list(range(len(right))), seed
        assert announced == len(right)
        for here, there in zip(numbers(frames), right, strict=True):
            assert here in (-1, there), (seed, numbers(frames))
        images += sum(number >= 0 for number in numbers(frames))
        filled, _ = found(left, MemoryStore(documents, whole))
        assert numbers(filled) == right, seed
    assert images > 15 * len(right) * (0.4 if "inline" in flavour or darks else 0.7)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_scan_that_went_back_is_accounted_for_whatever_is_lost(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    plan = step(FLAVOURS[flavour](tmp_path), 7, checkpoint_every=3, pause_at=[2, 5])
    documents = recorded(RE, plan)
    chance = random.Random(3)
    for seed in range(15):
        left = without(
            documents,
            lambda name, _: name in ("datum", "stream_datum", "event") and chance.random() < 0.2,
        )
        frames, announced = found(left)
        assert [frame.index for frame in frames] == list(range(len(frames))), seed
        assert announced == len(frames), seed
        takes = Counter((frame.seq_num, frame.attempt) for frame in frames)
        assert set(takes.values()) == {3 if "3 per" in flavour else 1}, seed
