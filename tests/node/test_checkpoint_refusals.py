"""Checkpoints that cannot be gone on from: altered, forged, or of something else."""

import hashlib
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from beams import QUICK, frames_of
from eventful import EVENTFUL, checkpoint_after, eventful_frames

from ptychoseg_stream.errors import CheckpointError
from ptychoseg_stream.node.checkpoint import BEHIND, START, Owner, pack, unpack
from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.run import RunLabeller
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer


@pytest.fixture(scope="module")
def frames():
    return eventful_frames()


@pytest.fixture(scope="module")
def checkpoint(frames):
    """After 30 frames of the eventful run."""
    return checkpoint_after(30, frames)


def refusal(data, options=EVENTFUL, run="run", user=None) -> str:
    node = Node(options, lambda: InlineTrainer(options.student), MemoryStore(), user)
    with pytest.raises(CheckpointError) as caught:
        node.open(run, data)
    with pytest.raises(KeyError):
        node.process(frames_of([None], run))  # it is not open
    return str(caught.value)


def resealed(data, change) -> bytes:
    """Alter the head of a checkpoint, and make length and digest fit again."""
    magic, form, _, size = START.unpack_from(data)
    head = msgpack.unpackb(data[BEHIND : BEHIND + size])
    arrays = data[BEHIND + size :]
    head = change(head) or head
    packed = head if isinstance(head, bytes) else msgpack.packb(head)
    start = START.pack(magic, form, BEHIND + len(packed) + len(arrays), len(packed))
    return start + hashlib.sha256(start + packed + arrays).digest() + packed + arrays


def test_options_that_changed_are_named(checkpoint):
    student = replace(EVENTFUL.student, steps=4)
    text = refusal(checkpoint, replace(EVENTFUL, stages=(0, 3), student=student))
    assert text.startswith("the options changed: ")
    assert "node.stages [0, 3, 7] -> [0, 3]" in text
    assert "node.student.steps 3 -> 4" in text
    assert text.count("->") == 2


def test_another_pixel_mask_is_refused(checkpoint):
    assert "`pixel_mask`" in refusal(checkpoint, user=np.zeros((104, 104), bool))


def test_checkpoint_of_another_run_is_refused(checkpoint):
    assert refusal(checkpoint, run="other") == "the checkpoint is of run run, not of other"


@pytest.mark.parametrize("name", ["features", "layout"])
def test_checkpoint_of_another_version_is_refused(checkpoint, name):
    text = refusal(resealed(checkpoint, lambda head: head.update({name: "other"})))
    assert "was written by ptychoseg_stream" in text
    assert "go on with that version" in text


def test_another_format_is_refused(checkpoint):
    other = bytearray(checkpoint)
    other[START.size - 18] = 9
    assert "is of format 9, this version reads format 1" in refusal(bytes(other))


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"x", "no checkpoint"), (b"\x80\x04pickle" * 20, "no checkpoint"), (b"PTY", "no checkpoint")],
    ids=str,
)
def test_what_is_no_checkpoint_is_refused(data, text):
    assert text in refusal(data)


@pytest.mark.parametrize("seed", range(200))
def test_damaged_checkpoint_is_refused(checkpoint, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(checkpoint)
    near = len(data) if seed % 2 else 12_000  # as often in the head as anywhere
    at = int(rng.integers(near))
    match seed % 5:
        case 0:
            data[at] ^= 1 << int(rng.integers(8))
        case 1:
            del data[at:]
        case 2:
            del data[at : at + int(rng.integers(1, 100))]
        case 3:
            data[at:at] = rng.bytes(int(rng.integers(1, 100)))
        case _:
            data[at : at + 512] = rng.bytes(512)
    assert bytes(data) != checkpoint
    if data:  # nothing at all is a run that begins
        assert "checkpoint" in refusal(bytes(data))


def places_of(tree, place=()):
    """Where the entries of a tree are."""
    yield place
    if isinstance(tree, list):
        for i, item in enumerate(tree):
            yield from places_of(item, (*place, i))


VALUES = (None, True, -1, 2**62, 1e300, float("nan"), "x", b"x", [], ["same", 0], ["same", 10**9])
VALUES += (["array", "<f4", [2**40], "C", 0], ["object", "Popen", ["id"]], ["list", 3], {"a": 1})


@pytest.mark.parametrize("seed", range(10))
def test_forged_checkpoint_is_refused_or_holds_what_is_declared(checkpoint, seed):
    """Its digest fits: what is read back is still only of listed classes and declared types."""
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(20):

        def forge(head):
            places = list(places_of(head["tree"]))
            *way, last = places[int(rng.integers(1, len(places)))]
            entry = head["tree"]
            for step in way:
                entry = entry[step]
            entry[last] = VALUES[int(rng.integers(len(VALUES)))]

        try:
            state, trainer = unpack(resealed(checkpoint, forge), Owner("run", EVENTFUL))
        except CheckpointError:
            refused += 1
        else:
            data = pack(state, trainer, Owner("run", EVENTFUL))
            assert unpack(data, Owner("run", EVENTFUL))
    assert refused > 10


HOSTILE = {
    "head that is no table": lambda head: msgpack.packb([1, 2]),
    "head of another kind": lambda head: b"\xc1",
    "head that claims a long list": lambda head: b"\xdd\xff\xff\xff\xff",
    "head of many levels": lambda head: b"\x91" * 5000 + b"\xc0",
    "tree of many levels": lambda head: {**head, "tree": [deep(500), None]},
    "no tree": lambda head: {k: v for k, v in head.items() if k != "tree"},
    "tree without a trainer": lambda head: {**head, "tree": head["tree"][:1]},
    "two trainers": lambda head: {**head, "tree": head["tree"][1:] * 2},
    "negative length": lambda head: {**head, "sizes": [-1, *head["sizes"]]},
    "lengths that are texts": lambda head: {**head, "sizes": ["1"]},
    "arrays that are missing": lambda head: {**head, "sizes": head["sizes"][:-1]},
    "array of nothing, enormous": lambda head: enormous(head),
    "extension": lambda head: {**head, "tree": msgpack.ExtType(1, b"x")},
    "options that are none": lambda head: {**head, "options": "{"},
}


def deep(levels):
    tree = None
    for _ in range(levels):
        tree = ["list", [tree]]
    return tree


def enormous(head):
    sizes = [*head["sizes"], 0]
    array = ["array", "<f8", [0, 2**62], "C", len(sizes) - 1]
    return {**head, "sizes": sizes, "tree": [array, head["tree"][1]]}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_checkpoint_is_refused(checkpoint, kind):
    assert "damaged" in refusal(resealed(checkpoint, HOSTILE[kind]))


def test_student_whose_weights_were_altered_is_refused(checkpoint):
    def alter(head):
        def walk(tree):
            if isinstance(tree, list):
                if tree[:2] == ["object", "Student"]:
                    tree[2][2] = "0" * 64
                for item in tree:
                    walk(item)

        walk(head["tree"])

    assert "weights of a student do not match their hash" in refusal(resealed(checkpoint, alter))


def test_parts_of_different_sizes_are_refused(frames):
    run = RunLabeller(EVENTFUL, InlineTrainer(QUICK), MemoryStore(), "run")
    run.label(frames[:3])
    run.state.shape = (104, 105)
    data = pack(run.state, run.trainer.state(), Owner("run", EVENTFUL))
    assert "frames are (104, 105), the window is of (104, 104)" in refusal(data)
