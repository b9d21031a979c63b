"""Talking to a Tiled server: one request is one attempt, and every failure says what to do."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
from jsonschema import ValidationError
from tiled.client import from_context
from tiled.client.auth import CannotRefreshAuthentication
from tiled.client.base import BaseClient
from tiled.client.container import Container
from tiled.client.context import Context

from ..errors import StoreError
from .options import TiledOptions

SCOPES = "read:metadata, read:data, create:node, write:metadata, write:data"
READ_SCOPES = "read:metadata, read:data"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
NodeT = TypeVar("NodeT", bound=BaseClient)


class Unavailable(StoreError):
    """The server does not answer, or says that it is in trouble: worth another attempt."""


class Unanswered(Unavailable):
    """Rows were sent to a table, and nobody knows whether they come."""


class Refusal(StoreError):
    """The server said no, and will say so again."""


class KeyRefused(Refusal):
    """There is no API key, or the server does not take it."""


def connect(uri: str, api_key: str, timeout: float, append_timeout: float = 0.0) -> Container:
    """Return a client of a node, without ever asking for credentials on a terminal.

    Parameters
    ----------
    uri : str
        Server or node.
    api_key : str
        Key; may be empty for a server that lets anybody write.
    timeout : float
        How long to wait for one answer [s].
    append_timeout : float
        The same for rows of a table, where that is longer [s].

    Raises
    ------
    httpx.HTTPError, Refusal, Unavailable
        If there is no server, or none for us; `translated` makes one clear error of them.
    """
    # A proxy named in the environment cannot reach what listens on this machine only.
    direct = httpx.URL(uri).host in LOOPBACK
    # Tiled's own first requests would be repeated for most of a minute: ask once before.
    refuse_trouble(httpx.get(uri, timeout=timeout, trust_env=not direct))
    context, path = Context.from_any_uri(
        uri,
        api_key=api_key or None,
        timeout=httpx.Timeout(timeout),
        trust_env=not direct,
    )
    with ExitStack() as undo:
        undo.callback(context.close)
        one_attempt(context.http_client, append_timeout)
        if not api_key:
            context.api_key = None  # Tiled took TILED_API_KEY, maybe meant for another server
            if context.server_info.authentication.required:
                raise KeyRefused("it wants an API key, and there is none")
        try:
            client = from_context(context, node_path_parts=path, remember_me=False)
        except RuntimeError as error:  # what Tiled's client makes of a 401
            raise KeyRefused("it does not take the API key") from error
        undo.pop_all()
        return client


def without_key(uri: str) -> str:
    """Return an address without anything secret."""
    return str(httpx.URL(uri).copy_with(query=None, userinfo=b""))


def node_address(address: str) -> str:
    """Return the address of a node as Tiled's client wants it, also of ``http://HOST/a/b``."""
    url = httpx.URL(address)
    path = url.path.strip("/")
    if not path or "api/v1" in path:
        return address
    return str(url.copy_with(path=f"/api/v1/metadata/{path}"))


def same_server(one: str, other: str) -> bool:
    """Whether two addresses mean the same server, however this machine is called."""
    try:
        first, second = httpx.URL(one), httpx.URL(other)
    except httpx.InvalidURL:  # in a file that somebody wrote by hand
        return one == other
    local = first.host in LOOPBACK and second.host in LOOPBACK
    return (local or first.host == second.host) and first.port == second.port


def is_for(options: TiledOptions, server: str, container: str) -> bool:
    """Whether rows for a container of a server go to where `options` writes."""
    return container == options.container and same_server(server, options.uri)


def one_attempt(client: httpx.Client, append_timeout: float = 0.0) -> None:
    """Have a client give up at once, so that the caller decides about another attempt.

    Tiled's client repeats a request for up to 45 s while the server is down; only errors that are
    not httpx's own pass its retries by.

    Parameters
    ----------
    client : httpx.Client
    append_timeout : float
        How long to wait for the answer to rows of a table, where that is longer than for others
        [s]: `Unanswered` is raised then.
    """
    send = client.send

    def once(request: httpx.Request, **kwargs: Any) -> httpx.Response:
        appends = request.method == "PATCH" and "/table/partition/" in request.url.path
        limits: dict[str, float] = request.extensions.get("timeout") or {}
        if appends and append_timeout > (limits.get("read") or append_timeout):
            request.extensions["timeout"] = {**limits, "read": append_timeout}
        try:
            response = send(request, **kwargs)
        except httpx.RequestError as error:
            late = isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)
            raise (Unanswered if appends and late else Unavailable)(_brief(error)) from error
        if appends and response.status_code == HTTPStatus.GATEWAY_TIMEOUT:
            raise Unanswered(f"{response.status_code} {response.reason_phrase}")
        refuse_trouble(response)
        return response

    client.send = once


def refuse_trouble(response: httpx.Response) -> None:
    """Raise `Unavailable` if a server says that it cannot answer by now."""
    if response.status_code >= 500 or response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        raise Unavailable(f"{response.status_code} {response.reason_phrase}")


@contextmanager
def translated(server: str, api_key_env: str, scopes: str = SCOPES) -> Generator[None, None, None]:
    """Turn whatever a Tiled client raises into `Unavailable` or `Refusal`, worded for a user.

    Parameters
    ----------
    server : str
        Its address.
    api_key_env : str
        Variable with the key.
    scopes : str
        What the key must be allowed to.
    """
    try:
        yield
    except Unavailable as error:
        raise type(error)(
            f"Tiled at {server} does not answer ({error}): start it, or correct the profile's uri"
        ) from error
    except httpx.RequestError as error:
        raise Unavailable(
            f"Tiled at {server} cannot be reached ({_brief(error)}): start it, or correct the "
            "profile's uri"
        ) from error
    except httpx.HTTPStatusError as error:
        raise Refusal(_advice(server, error, api_key_env, scopes)) from error
    except KeyRefused as error:
        raise Refusal(
            f"Tiled at {server} refuses: {error}; set {api_key_env} to a key with the scopes "
            f"{scopes}"
        ) from error
    except Refusal as error:
        raise Refusal(f"Tiled at {server}: {error}") from error
    except (
        ValueError,  # includes tiled's Conflicts and what 400 becomes
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        OSError,
        httpx.InvalidURL,
        ValidationError,
        CannotRefreshAuthentication,
    ) as error:
        raise Refusal(f"Tiled at {server} did not take it ({_brief(error)})") from error


def adopt(parent: Container, key: str, create: Callable[[], NodeT]) -> NodeT:
    """Create a node, or take the one of that key if it exists by now.

    Two writers may make a container at the same moment, and an attempt whose answer was lost may
    have succeeded.
    """
    try:
        return create()
    except httpx.HTTPStatusError as error:
        if error.response.status_code != HTTPStatus.CONFLICT:
            raise
        return parent[key]


def open_container(root: Container, path: str) -> Container:
    """Return the container at ``a/b/c`` below `root`; makes what is missing."""
    node = root
    for key in filter(None, path.split("/")):
        parent = node
        try:
            node = parent[key]
        except KeyError:
            node = adopt(parent, key, lambda parent=parent, key=key: parent.create_container(key))
    return node


def _advice(server: str, error: httpx.HTTPStatusError, api_key_env: str, scopes: str) -> str:
    status, told = error.response.status_code, _detail(error.response)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and "access tags" in told:
        return (
            f"Tiled at {server} refuses the raw run's access tags ({status}: {told}): define them "
            f"there, and let the owner of the key in {api_key_env} use them"
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return (
            f"Tiled at {server} refuses the API key ({status}{told and ': ' + told}): set "
            f"{api_key_env} to a key with the scopes {scopes}"
        )
    if status == HTTPStatus.NOT_FOUND:
        return f"Tiled at {server} has no such node ({status}): was the run or container deleted?"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"Tiled at {server} refuses requests of this size ({status}): lower patch_bytes"
    return f"Tiled at {server} refuses ({_brief(error)})"


def _detail(response: httpx.Response) -> str:
    """Return the reason that a server gives, in one line; empty if it gives none."""
    try:
        detail: Any = response.json()["detail"]
    except (ValueError, LookupError, TypeError, httpx.StreamError):
        return ""
    return " ".join(str(detail).split())[:200]


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
