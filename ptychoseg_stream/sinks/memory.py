"""A sink that keeps masks in memory: for evaluation and tests."""

from collections.abc import Sequence

import numpy as np

from ..errors import StoreError
from ..node.ports import Account, Products, RunInfo
from ..science.frame import Mask
from .arrays import ARRAYS, CLASS_MAPS, Pixels


class MemorySink:
    """Keeps what it is given; a `node.ports.Sink`.

    Attributes
    ----------
    runs : dict
        `RunInfo` by uid of the raw run.
    rows : dict
        List of masks by uid of the raw run, in order of arrival.
    products : dict
        The last `Products` by uid of the raw run.
    accounts : dict
        `Account` by uid of the raw run, once it is closed.
    """

    def __init__(self) -> None:
        self.runs: dict[str, RunInfo] = {}
        self.rows: dict[str, list[Mask]] = {}
        self.products: dict[str, Products] = {}
        self.accounts: dict[str, Account] = {}

    def open(self, run: RunInfo) -> None:
        """Begin a run; one of the same uid is forgotten."""
        self.runs[run.uid] = run
        self.rows[run.uid] = []
        self.products.pop(run.uid, None)
        self.accounts.pop(run.uid, None)

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        """Take the next masks of a run.

        Raises
        ------
        StoreError
            If the run is not open.
        """
        self._check(run_uid)
        self.rows[run_uid].extend(masks)

    def publish(self, run_uid: str, products: Products) -> None:
        """Take what a run says as a whole.

        Raises
        ------
        StoreError
            If the run is not open.
        """
        self._check(run_uid)
        self.products[run_uid] = products

    def close(self, run_uid: str, account: Account) -> None:
        """End a run.

        Raises
        ------
        StoreError
            If the run is not open.
        """
        self._check(run_uid)
        self.accounts[run_uid] = account

    def stack(self, run_uid: str, name: str = "mask") -> Pixels:
        """Return an array of all masks of a run.

        Parameters
        ----------
        run_uid : str
            Uid of the raw run.
        name : str
            "mask" for the served class maps, else one of the alternatives; "valid_bits",
            "confidence".

        Returns
        -------
        ndarray of uint8 or uint16
            ``(n, H, W)``. A mask without bits has the bit `gap` in every pixel, as in Tiled, and
            one without confidence has 0.

        Raises
        ------
        StoreError
            If there is no such run or array, or a mask without that alternative.
        """
        masks = self.rows.get(run_uid)
        if not masks:
            raise StoreError(f"there are no masks of run {run_uid}: was it opened and written?")
        if name not in ARRAYS:
            raise StoreError(f"there is no array {name!r}: ask for one of {', '.join(ARRAYS)}")
        kind = ARRAYS[name]
        arrays = [kind.find(mask) for mask in masks]
        if name in CLASS_MAPS and any(array is None for array in arrays):
            raise StoreError(f"run {run_uid} has masks without {name!r}: publish it in the profile")
        return np.stack(
            [
                np.full(mask.classes.shape, kind.fill, kind.dtype) if array is None else array
                for mask, array in zip(masks, arrays, strict=True)
            ]
        )

    def stored(self, run_uid: str) -> int:
        """Return how many rows of a run there are."""
        return len(self.rows.get(run_uid, ()))

    def settled(self, run_uid: str) -> bool:
        """Return whether a run is closed; True if it is not known."""
        return run_uid not in self.runs or run_uid in self.accounts

    def address(self, run_uid: str) -> str:
        """Return ``memory:<uid>``; empty if unknown."""
        return f"memory:{run_uid}" if run_uid in self.runs else ""

    def fault(self) -> str:
        """Return nothing: memory does not fail."""
        return ""

    def drain(self, timeout: float) -> bool:
        """Return True: nothing is ever waiting."""
        return True

    def shutdown(self) -> None:
        """Do nothing: there is nothing to release."""

    def _check(self, run_uid: str) -> None:
        if run_uid not in self.runs or run_uid in self.accounts:
            raise StoreError(f"run {run_uid} is not open: call open() before write() or close()")
