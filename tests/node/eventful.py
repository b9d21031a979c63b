"""Runs in which much happens, and how to go on with them in another node."""

from dataclasses import replace

import numpy as np
from beams import annulus, frames_of
from node_support import ALL, OPTIONS, node_of
from scenes import drawn, peaks

from ptychoseg_stream.science.frame import Frame
from ptychoseg_stream.sim import GoldBalls, simulate

EVENTFUL = replace(OPTIONS, also=ALL, confidence=True)


def eventful_frames() -> list[Frame]:
    """No ring at first, gaps, a frame of another size, another beam, a lost one, another dose."""
    first = simulate(GoldBalls(n_frames=30, strong=True, drift=(2.0, -1.5), cosmics=1.0)).frames
    other = simulate(GoldBalls(n_frames=34, ring_scale=1.2, hot_pixels=20, stray=0.05)).frames
    images: list = [*first.astype(np.float32), *other.astype(np.float32)]
    images[0] = images[1] = peaks(5).astype(np.float32)  # a run that begins without a ring
    images[4] = np.full((104, 104), np.nan, np.float32)
    images[7] = None
    images[9] = images[9][:64, :80]
    images[12][40:44, 50:60] = np.nan
    for i in range(44, 48):
        images[i] = np.random.default_rng(i).poisson(0.05, (104, 104)).astype(np.float32)
    for i in range(56, 64):
        images[i] = np.random.default_rng(i).poisson(0.1 * images[i]).astype(np.float32)
    frames = frames_of(images)
    return [replace(f, teacher_only=16 <= f.index < 20 or f.index == 36) for f in frames]


def leaving_frames() -> list[Frame]:
    """Frames of 320x300 px, of which a box is cut out; the beam jumps out of it."""
    path = [(80, 90)] * 6 + [(81, 90)] * 2 + [(220, 210)] * 6
    return frames_of(
        drawn(annulus((320, 300), at, 15, 32), seed=i).astype(np.float32)
        for i, at in enumerate(path)
    )


def relayed(frames, options=EVENTFUL, every=1):
    """Label frames with a chain of nodes: each goes on from the checkpoint of the one before."""
    masks, checkpoint = [], b""
    for begin in range(0, len(frames), every):
        node = node_of(options)
        node.open("run", checkpoint)
        masks += node.process(frames[begin : begin + every])
        checkpoint = node.checkpoint("run")
        node.close("run")
    return masks


def checkpoint_after(count, frames, options=EVENTFUL) -> bytes:
    node = node_of(options)
    node.open("run")
    node.process(frames[:count])
    checkpoint = node.checkpoint("run")
    node.close("run")
    return checkpoint
