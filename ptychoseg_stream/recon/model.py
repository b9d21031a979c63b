"""The forward model of far-field ptychography, written with cdtools' parts; needs cdtools.

    sim(i) = sum over modes |F[P(x) O(x + x_i)]|^2 + B^2

P is the probe, O the object, x_i the corner of the window of frame i, B the root of the background.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .toolkit import cdtools

CDTOOLS = cdtools()
Weigh: TypeAlias = Callable[[Tensor], Tensor]
"""From indices of frames ``(n,)`` to the weights of their pixels ``(n, H, W)``."""


class FarField(CDTOOLS.models.CDIModel):
    """Probe, object and background, and what a detector would see of them.

    Parameters
    ----------
    probe : Tensor of complex64
        ``(modes, H, W)`` [sqrt(counts)].
    obj : Tensor of complex64
        ``(h, w)`` transmission.
    background : Tensor of float32
        ``(H, W)`` counts of each frame that are not of the beam, above 0.
    weigh : callable
        How much each pixel of each frame counts.
    """

    def __init__(self, probe: Tensor, obj: Tensor, background: Tensor, weigh: Weigh) -> None:
        super().__init__()
        # Adam takes steps of one size for all: so all that it fits is of the order of 1.
        self.register_buffer("probe_norm", probe.abs().max())
        self.probe = torch.nn.Parameter(probe / self.probe_norm)
        self.obj = torch.nn.Parameter(obj)
        self.background = torch.nn.Parameter(background.sqrt())
        self.loss_normalizer = None  # cdtools' own knows one mask for all frames
        self._weigh = weigh
        self._index = torch.zeros(0, dtype=torch.int64)
        self.counted = 0.0

    def forward(self, index: Tensor, corners: Tensor) -> Any:
        """Return ``(n, H, W)`` what the detector sees; and remember of which frames."""
        self._index = index
        return super().forward(index, corners)

    def interaction(self, index: Tensor, corners: Tensor) -> Any:
        """Return ``(n, modes, H, W)`` exit waves; fractions of a pixel shift the probe."""
        return CDTOOLS.tools.interactions.ptycho_2D_sinc(
            self.probe_norm * self.probe, self.obj, corners, multiple_modes=True
        )

    def forward_propagator(self, wavefields: Tensor) -> Any:
        """Propagate exit waves to the detector."""
        return CDTOOLS.tools.propagators.far_field(wavefields)

    def measurement(self, wavefields: Tensor) -> Any:
        """Return ``(n, H, W)`` counts."""
        measurements = CDTOOLS.tools.measurements
        return measurements.quadratic_background(
            wavefields, self.background, measurement=measurements.incoherent_sum
        )

    def loss(self, patterns: Tensor, simulated: Tensor) -> Tensor:
        """Return the weighted squared error of the amplitudes of the frames last simulated."""
        weights = self._weigh(self._index)  # (n, H, W)
        self.counted += float((weights * patterns).sum())
        return (weights * (simulated.sqrt() - patterns.sqrt()) ** 2).sum()
