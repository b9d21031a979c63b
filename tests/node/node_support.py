"""A node that learns in line, and all that its masks say, fit to be compared."""

from dataclasses import fields

from beams import QUICK

from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.science.frame import Mask

ALL = ("teacher", "student", "fused")
OPTIONS = NodeOptions(stages=(0, 3, 7), also=ALL, student=QUICK)


def node_of(options=OPTIONS, store=None) -> Node:
    return Node(options, lambda: InlineTrainer(options.student), store or MemoryStore())


def labelled(frames, options=OPTIONS, store=None, cuts=()) -> list[Mask]:
    """Label the frames of one run, cut into batches before the frames counted by `cuts`."""
    node = node_of(options, store)
    node.open("run")
    parts = [frames[a:b] for a, b in zip((0, *cuts), (*cuts, len(frames)), strict=True)]
    masks = [mask for part in parts for mask in node.process(part)]
    node.close("run")
    return masks


def content(mask: Mask):
    """All that a mask says, as plain values that can be compared."""
    values = {f.name: getattr(mask, f.name) for f in fields(mask)}
    values["frame"] = mask.frame.index
    values["classes"] = mask.classes.tobytes()
    values["alternatives"] = {k: v.tobytes() for k, v in mask.alternatives.items()}
    for name in ("valid_bits", "confidence"):
        array = getattr(mask, name)
        values[name] = None if array is None else array.tobytes()
    values["stages"] = repr(mask.stages)
    values["alarms"] = repr(mask.alarms)
    values["quality"] = repr(mask.quality)  # NaN equals itself
    return values


def contents(masks):
    return [content(mask) for mask in masks]
