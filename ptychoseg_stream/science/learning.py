"""The student learns from the teacher: staged fine-tuning, one small record a step.

The label of every staged frame is the teacher's ring on the registered mean of all staged frames:
the student learns to see in one noisy, modulated frame what the teacher sees only in their mean.
`ptychoseg_stream.science.refine` takes it from there.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ..errors import LearningError
from .augment import Example, batch_of
from .frame import FloatArray
from .loss import batch_iou, dice_loss
from .unet import UNet, new_unet

Weights: TypeAlias = Mapping[str, NDArray]

SETTLING_BATCHES = 8
"""Batches that measure the final batch statistics."""


@dataclass(frozen=True, slots=True)
class StudentOptions:
    """The student and how it learns.

    Parameters
    ----------
    base, depth : int
        Of the U-Net: channels of the first level, number of poolings.
    first_steps, steps : int
        Training steps of the first student, and of each later stage.
    learning_rate, weight_decay : float
        Of AdamW.
    warm_up : int
        Steps of linear warm-up; then the cosine falls to 5 %.
    batch : int
        Patches per step.
    patch : int
        Side of the square patches [px].
    seed : int
        Of initialisation and augmentation.
    rounds : int
        Most rounds of refinement after a stage; 0 for none.
    round_steps : int
        Training steps of a round.
    anchor_weight : float
        Of the teacher's label in the soft label of a round; the rest is the student's own
        probability. 0 is self-training without an anchor, which runs away.
    epsilon : float
        Refinement has converged when its masks change by less than this (1 - IoU).
    """

    base: int = 8
    depth: int = 2
    first_steps: int = 60
    steps: int = 30
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4
    warm_up: int = 5
    batch: int = 8
    patch: int = 64
    seed: int = 0
    rounds: int = 5
    round_steps: int = 10
    anchor_weight: float = 0.5
    epsilon: float = 0.005

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("base", "depth", "first_steps", "steps", "batch", "round_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        if self.patch < 2**self.depth:
            raise ValueError(f"patch must be {2**self.depth} or more for this depth")
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.warm_up < 0:
            raise ValueError("learning_rate must be above 0, weight_decay and warm_up not below")
        if self.rounds < 0 or self.epsilon < 0:
            raise ValueError("rounds and epsilon must be 0 or more")
        if not 0 <= self.anchor_weight <= 1:
            raise ValueError("anchor_weight must lie in 0 to 1")


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One step of training.

    Parameters
    ----------
    stage, step, steps : int
        Stage (from 0), step in this round of it (from 1) and how many the round will have.
    loss : float
        Binary cross-entropy plus Dice loss of the batch.
    iou : float
        Of the batch's predictions with the pseudo-label.
    round : int
        Round of refinement, from 1; 0 while the teacher's label is learned.
    """

    stage: int
    step: int
    steps: int
    loss: float
    iou: float
    round: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """One stretch of training: which (that seeds the augmentation), how long, and how fast."""

    stage: int
    round: int
    steps: int
    learning_rate: float


@dataclass(frozen=True, slots=True, eq=False)
class Student:
    """A trained student: immutable weights, named by their content.

    Parameters
    ----------
    weights : mapping of str to ndarray
        State of the net.
    revision : int
        Stage that made it, from 0.
    hash : str
        SHA-256 over the weights, hexadecimal.
    net : UNet
        The net in evaluation mode.
    """

    weights: Weights
    revision: int
    hash: str
    net: UNet

    @classmethod
    def of(cls, weights: Weights, revision: int, options: StudentOptions) -> "Student":
        """Build the net that has these weights."""
        net = _net(weights, options)
        net.eval()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        return cls(weights, revision, weights_hash(weights), net)

    def predict(self, inputs: FloatArray) -> FloatArray:
        """Return the ring probability ``(n, h, w)`` of inputs ``(n, 5, h, w)``.

        The net sees one frame at a time: on a CPU a batch is no faster, and it would change the
        last bits with the size of the batch, so that live and replayed masks could differ.
        """
        with torch.inference_mode():
            return np.stack([self._one(x) for x in inputs])

    def _one(self, x: FloatArray) -> FloatArray:
        image = torch.from_numpy(x[None]).contiguous(memory_format=torch.channels_last)
        return torch.sigmoid(self.net(image))[0].numpy()


def weights_hash(weights: Weights) -> str:
    """SHA-256 over names and values, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def fine_tune(
    previous: Student | None,
    examples: Sequence[Example],
    options: StudentOptions,
    stage: int | None = None,
) -> Iterator[TrainingStep | Student]:
    """Learn one stage on all staged frames; yields a record a step and, last, the student.

    Parameters
    ----------
    previous : Student or None
        The student to begin from; None for a fresh one.
    examples : sequence of Example
        All frames staged so far with their pseudo-labels.
    options : StudentOptions
    stage : int, optional
        Number of the stage; that after `previous` by default. It differs where a stage between
        was refused.

    Yields
    ------
    TrainingStep
        After each step.
    Student
        Once, at the end.

    Raises
    ------
    LearningError
        If a staged frame or the loss is not finite.
    """
    if stage is None:
        stage = 0 if previous is None else previous.revision + 1
    steps = options.first_steps if previous is None else options.steps
    return train(previous, examples, options, Course(stage, 0, steps, options.learning_rate))


def train(
    previous: Student | None,
    examples: Sequence[Example],
    options: StudentOptions,
    course: Course,
) -> Iterator[TrainingStep | Student]:
    """Train for one course; what is yielded and raised is as in `fine_tune`."""
    _refuse_unusable(examples, course.stage)
    rng = np.random.default_rng([options.seed, course.stage, course.round])
    net = _net(previous.weights, options) if previous else _fresh(options)
    net.train()
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=course.learning_rate, weight_decay=options.weight_decay
    )
    for step in range(1, course.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step - 1, course, options.warm_up)
        x, y = (torch.from_numpy(a) for a in batch_of(examples, options.batch, options.patch, rng))
        logits = net(x.contiguous(memory_format=torch.channels_last))
        loss = functional.binary_cross_entropy_with_logits(logits, y) + dice_loss(logits, y)
        if not bool(torch.isfinite(loss)):
            raise LearningError(f"stage {course.stage}, step {step}: the loss is not finite")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        value, agreement = float(loss.detach()), batch_iou(logits, y)
        yield TrainingStep(course.stage, step, course.steps, value, agreement, course.round)
    _settle(net, examples, options, rng)
    yield Student.of(_weights(net), course.stage, options)


def _refuse_unusable(examples: Sequence[Example], stage: int) -> None:
    if not examples:
        raise LearningError(f"stage {stage}: there is no staged frame to learn from")
    shape = examples[0].ring.shape
    for number, example in enumerate(examples):
        which = f"stage {stage}: staged frame {number} of {len(examples)} (from 0)"
        if not example.counts.shape == example.label.shape == shape:
            raise LearningError(f"{which} or its label is not of the size {shape} of the others")
        finite = np.isfinite(example.counts).all() and np.isfinite(example.label).all()
        if not finite or not 0 < example.plateau < np.inf:
            raise LearningError(f"{which} holds values that are not finite, or no beam")


def _settle(
    net: UNet, examples: Sequence[Example], options: StudentOptions, rng: np.random.Generator
) -> None:
    """Measure the batch statistics anew with the final weights.

    The running averages still hold those of earlier weights; with them the mask is dilated by a
    few per cent (about 0.01 of IoU).
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over what follows
    with torch.no_grad():
        for _ in range(SETTLING_BATCHES):
            x, _ = batch_of(examples, options.batch, options.patch, rng)
            net(torch.from_numpy(x).contiguous(memory_format=torch.channels_last))


def _fresh(options: StudentOptions) -> UNet:
    return new_unet(options.base, options.depth, options.seed)


def _net(weights: Weights, options: StudentOptions) -> UNet:
    net = _fresh(options)
    net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()})
    return net


def _weights(net: UNet) -> dict[str, NDArray]:
    return {k: v.detach().cpu().numpy().copy() for k, v in net.state_dict().items()}


def _rate(step: int, course: Course, warm_up: int) -> float:
    """Learning rate of a step (from 0): linear warm-up, then a cosine to 5 %."""
    if step < warm_up:
        return course.learning_rate * (step + 1) / warm_up
    done = (step - warm_up) / max(1, course.steps - warm_up)
    return course.learning_rate * (0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * done))))
