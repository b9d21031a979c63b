"""A reconstruction in Tiled: object, probe and error, growing beside the derived run.

It lies in a container of its own, beside that of the derived runs and under the same uid: only the
node writes to a derived run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiled.client.container import Container

from ..sinks.connection import adopt, open_container

SUFFIX = "_recon"
"""What the container's name ends with, after that of the derived runs."""


class TiledReconstruction:
    """Object, probe and error of a run; each write replaces what was there.

    Parameters
    ----------
    root : Container
        Of the server.
    container : str
        Path of the container of the derived runs.
    uid : str
        Of the derived run.
    metadata : mapping
        What the reconstruction was made of and with.
    """

    def __init__(
        self, root: Container, container: str, uid: str, metadata: Mapping[str, Any]
    ) -> None:
        parent = open_container(root, container.rstrip("/") + SUFFIX)
        self.node = adopt(
            parent, uid, lambda: parent.create_container(uid, metadata=dict(metadata))
        )
        if dict(self.node.metadata) != dict(metadata):
            self.node.replace_metadata(dict(metadata))

    def write(
        self,
        obj: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        losses: Sequence[float],
        told: Mapping[str, Any],
    ) -> None:
        """Write what there is now.

        Parameters
        ----------
        obj : ndarray of complex64
            ``(h, w)`` transmission.
        probe : ndarray of complex64
            ``(modes, H, W)`` [sqrt(counts)].
        losses : sequence of float
            One per epoch.
        told : mapping
            Metadata of the object: pixel, corner, frames.

        Raises
        ------
        Exception
            As the client of Tiled; `ptychoseg_stream.sinks.connection.translated` words it.
        """
        self._put("probe", probe, {"units": "sqrt(counts)"})
        self._extend("error", np.asarray(losses, np.float64))
        self._put("object", obj, told)

    def _put(self, name: str, values: NDArray[Any], metadata: Mapping[str, Any]) -> None:
        if name in self.node:
            array: Any = self.node[name]
            if tuple(array.shape) == values.shape:
                array.write(values)
                array.replace_metadata(dict(metadata))
                return
            self.node.delete_contents([name], external_only=False)
        self.node.write_array(values, key=name, metadata=dict(metadata))

    def _extend(self, name: str, values: NDArray[np.float64]) -> None:
        """Add what is new; a curve that is longer than ours is another attempt's."""
        have = self.node[name].shape[0] if name in self.node else 0
        if have > len(values):
            self.node.delete_contents([name], external_only=False)
            have = 0
        if not have:
            self.node.write_array(values, key=name, metadata={"meaning": "one per epoch"})
        elif have < len(values):
            array: Any = self.node[name]
            array.patch(values[have:], offset=(have,), extend=True)
