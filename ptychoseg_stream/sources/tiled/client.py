"""Reading from a Tiled server over plain HTTP: every call is one attempt, of bounded time and size.

Tiled's own Python client repeats requests for most of a minute, keeps structures that have grown
meanwhile, and asks for passwords on the terminal: none of it is wanted beside a running scan.
"""

import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from math import prod
from typing import Any, TypeAlias, cast
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import SourceError
from .address import (
    Path,
    TiledAddress,
    TiledMissing,
    TiledRefused,
    TiledSlow,
    TiledUnavailable,
)
from .blocks import Blocks

Item: TypeAlias = Mapping[str, Any]  # what Tiled says of a node: "id" and "attributes"

SCOPES = "read:metadata, read:data"
_MOST_TEXT = 1 << 28  # bytes of one answer that is JSON or a table
_BYTE_ORDER = {"little": "<", "big": ">", "not_applicable": "|"}


class TiledClient:
    """Reads from one server; may be used by several threads; a context manager.

    Parameters
    ----------
    address : TiledAddress
        Of any node; only the server counts.
    api_key_env : str
        Environment variable with the API key; none is sent if it is not set.
    timeout : float
        How long one answer may take, to its last byte [s].
    patience : float
        A single image that is too slow gets so many times longer at most.
    api_key : str
        Sent in place of that in the environment.

    Attributes
    ----------
    blocks : Blocks
        How much of an array is to be asked for at once.
    """

    def __init__(
        self,
        address: TiledAddress,
        api_key_env: str = "TILED_API_KEY",
        timeout: float = 5.0,
        patience: float = 8.0,
        api_key: str = "",
    ) -> None:
        """Take the address; nothing is sent yet."""
        key = api_key or (os.environ.get(api_key_env, "") if api_key_env else "")
        self.address = address
        self.headers = {"Authorization": f"Apikey {key}"} if key else {}
        self.timeout = timeout
        self.blocks = Blocks(timeout, patience)
        self._api_key_env = api_key_env
        self._http = httpx.Client(
            base_url=f"{address.base}/api/v1/",
            headers=self.headers,
            timeout=timeout,
            trust_env=not address.local,
            follow_redirects=True,
        )

    def __enter__(self) -> "TiledClient":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def item(self, path: Path, *, data_sources: bool = False) -> Item:
        """Return what is known of a node; where its files are only if `data_sources`.

        Raises
        ------
        TiledUnavailable, TiledRefused, TiledMissing
            As of all the methods that ask the server.
        """
        params = {"omit_links": True, "include_data_sources": data_sources}
        answer = self._json("metadata", path, params)
        return _item(answer.get("data"), path)

    def children(
        self,
        path: Path,
        *,
        offset: int = 0,
        limit: int = 100,
        sort: str = "",
        filters: Sequence[tuple[str, str]] = (),
    ) -> list[Item]:
        """Return the nodes in a container, one page of them.

        Parameters
        ----------
        path : tuple of str
            The container.
        offset, limit : int
            Which page.
        sort : str
            "-" for the newest first, or a key of the metadata such as "start.time".
        filters : sequence of (str, str)
            Parameters of a search, as Tiled encodes them.
        """
        params: list[tuple[str, Any]] = [
            ("page[offset]", offset),
            ("page[limit]", limit),
            ("omit_links", True),
            *((("sort", sort),) if sort else ()),
            *filters,
        ]
        found = self._json("search", path, params).get("data")
        return [_item(one, path) for one in cast(list[Any], found or [])]

    def array(self, path: Path, first: int, last: int, shape: Sequence[int], dtype: Any) -> Any:
        """Return rows [first, last) of an array.

        Parameters
        ----------
        path : tuple of str
            The array.
        first, last : int
            Which rows.
        shape : sequence of int
            Of the whole array.
        dtype : dtype
            Of its items, with the byte order of the server.

        Returns
        -------
        ndarray
            ``(last - first, ...)``, that can be written to.
        """
        wanted = (last - first, *shape[1:])
        size = prod(wanted) * np.dtype(dtype).itemsize
        params = {"slice": f"{first}:{last}", "format": "application/octet-stream"}
        # What is sent is what is wanted: bytes that unpack to more are never unpacked.
        identity, began = {"Accept-Encoding": "identity"}, time.monotonic()
        try:
            seconds = self.blocks.seconds(size)
            data = self._get("array/full", path, params, size, identity, seconds)
        except TiledSlow:
            self.blocks.late(size)
            raise
        self.blocks.came(size, time.monotonic() - began)
        if len(data) != size:
            raise TiledUnavailable(
                f"{self._name(path)}: rows {first} to {last - 1} came as {len(data)} bytes, not "
                f"{size}: they are not all stored yet, or the array was replaced",
                reached=True,
            )
        array: NDArray[Any] = np.frombuffer(data, dtype).reshape(wanted)
        return array.astype(array.dtype.newbyteorder("="))

    def table(self, path: Path, columns: Sequence[str] = ()) -> pa.Table:
        """Return a table, or only some of its columns."""
        params = [("format", "application/vnd.apache.arrow.file")]
        params += [("column", name) for name in columns]
        data = self._get("table/full", path, params, _MOST_TEXT)
        try:
            return pa.ipc.open_file(io.BytesIO(data)).read_all()
        except (pa.ArrowException, OSError) as error:
            raise TiledRefused(f"{self._name(path)}: not a table in Arrow's format") from error

    def text(self, path: Path, mimetype: str) -> str:
        """Return a whole container in another format."""
        return self._get("container/full", path, {"format": mimetype}, _MOST_TEXT).decode()

    def _json(self, endpoint: str, path: Path, params: Any) -> Mapping[str, Any]:
        data = self._get(endpoint, path, params, _MOST_TEXT, {"Accept": "application/json"})
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, Mapping):
            raise TiledRefused(f"{self._name(path)}: the answer is not JSON; is it Tiled?")
        return cast(Mapping[str, Any], answer)

    def _get(
        self,
        endpoint: str,
        path: Path,
        params: Any,
        limit: int,
        headers: Mapping[str, str] | None = None,
        seconds: float = 0.0,
    ) -> bytes:
        """Return the body of an answer; gives up at `limit` bytes, or when the time is over."""
        seconds = seconds or self.timeout
        url = f"{endpoint}/" + "/".join(quote(key, safe="") for key in path)
        end = time.monotonic() + seconds
        body = bytearray()
        try:
            with self._http.stream(
                "GET", url, params=params, headers=headers, timeout=seconds
            ) as response:
                if response.status_code != HTTPStatus.OK:
                    raise self._refusal(path, response.status_code)
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > limit:
                        raise TiledRefused(f"{self._name(path)}: more than {limit} bytes came")
                    if time.monotonic() > end:
                        raise TiledSlow(f"{self._name(path)}: slower than {seconds:g} s")
        except httpx.ReadTimeout as error:
            raise TiledSlow(f"{self._name(path)}: no answer within {seconds:g} s") from error
        except httpx.HTTPError as error:
            raise TiledUnavailable(
                f"{self._name(path)} does not answer ({type(error).__name__}): "
                "start the server, or correct the address"
            ) from error
        return bytes(body)

    def _refusal(self, path: Path, status: int) -> SourceError:
        name = self._name(path)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            where = f"set {self._api_key_env} to a key" if self._api_key_env else "give a key"
            return TiledRefused(f"{name} refuses ({status}): {where} with the scopes {SCOPES}")
        if status == HTTPStatus.NOT_FOUND:
            return TiledMissing(
                f"{name}: no such node (404); is the path right, or was it deleted?"
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return TiledUnavailable(f"{name}: the server is in trouble ({status})", reached=True)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return TiledUnavailable(f"{name}: the server has too much to do ({status})")
        return TiledRefused(f"{name}: the server refuses ({status})")

    def _name(self, path: Path) -> str:
        return f"Tiled at {TiledAddress(self.address.base, path)}"


def dtype_of(data_type: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the dtype of an array's items, as Tiled describes it.

    Raises
    ------
    TiledRefused
        If they are not real numbers.
    """
    kind, size = data_type.get("kind"), data_type.get("itemsize")
    order = _BYTE_ORDER.get(str(data_type.get("endianness")), "|")
    if kind not in ("b", "i", "u", "f") or size not in (1, 2, 4, 8):
        raise TiledRefused(f"an array of kind {kind} and {size} bytes per item holds no images")
    return np.dtype(f"{order}{kind}{size}")


def _item(data: Any, path: Path) -> Item:
    if isinstance(data, Mapping) and isinstance(data.get("attributes"), Mapping):
        return cast(Item, data)
    raise TiledRefused(f"{'/'.join(path) or 'the root'}: not what Tiled says of a node")
