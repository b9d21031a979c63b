"""The student network; it reads like its drawing.

::

    5 x h x w ── double(8) ───────────────────────────── cat ── double(8) ── 1x1 ── + S/p ── logit
                    └ pool ── double(16) ────── cat ── double(16) ┘ up
                                 └ pool ── double(32) ┘ up
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 5
PRIOR_CHANNEL = 2
"""The smoothed plateau-scaled image S/p: its half-maximum is the prior that the net corrects."""


class Double(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU.

    Batch normalisation, because group or instance statistics of a ring patch differ from those of
    a frame: nets trained on patches with them dilate the ring.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """U-Net (Ronneberger, Fischer, Brox 2015) that learns a correction to a half-maximum mask.

    Parameters
    ----------
    base : int
        Channels of the first level; each level down doubles them.
    depth : int
        Number of poolings.
    """

    def __init__(self, base: int = 8, depth: int = 2) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            Double(i, o) for i, o in zip([CHANNELS, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            Double(below + here, here)
            for here, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(base, 1, 1)
        self.multiple = 2**depth

    def forward(self, x: Tensor) -> Tensor:  # (n, 5, h, w) -> (n, h, w) logits
        """Return logits ``8 (net + S/p - 0.5)``: the net corrects the image, in plateaus."""
        h, w = x.shape[-2:]
        y = functional.pad(x, (0, -w % self.multiple, 0, -h % self.multiple), mode="replicate")
        levels: list[Tensor] = []
        for level, double in enumerate(self.down):
            y = double(functional.max_pool2d(y, 2) if level else y)
            levels.append(y)
        for double, skip in zip(self.up, levels[-2::-1], strict=True):
            y = functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = double(torch.cat([y, skip], dim=1))
        return 8 * (self.head(y)[:, 0, :h, :w] + x[:, PRIOR_CHANNEL] - 0.5)


def new_unet(base: int, depth: int, seed: int) -> UNet:
    """Return a freshly initialised net; the head starts at zero, so it serves the prior."""
    net = UNet(base, depth).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    nn.init.zeros_(net.head.weight)
    if net.head.bias is not None:
        nn.init.zeros_(net.head.bias)
    return net
