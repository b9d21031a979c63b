"""What training minimises, and what it reports beside it."""

import torch
from torch import Tensor


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice coefficient over the batch (Milletari et al. 2016), fit for soft labels.

    In the form of Wang et al., "Dice semimetric losses" (2023): for hard labels it is the usual
    one, for soft labels it is least where the prediction equals the label. The usual one is not: it
    rounds a soft label, and rounds 1/2 up, which dilates the mask.
    """
    p = torch.sigmoid(logits)
    total = p.sum() + target.sum()
    return 1 - (total - (p - target).abs().sum() + 1) / (total + 1)


def batch_iou(logits: Tensor, target: Tensor) -> float:
    """IoU of the batch's predictions with its labels, both cut at 1/2; 1 when both are empty."""
    found, true = logits.detach() > 0, target > 0.5
    union = int((found | true).sum())
    return int((found & true).sum()) / union if union else 1.0
