"""What a profile asks of servers: Tiled with its scopes, the raw store, brokers of documents."""

import os
from collections.abc import Iterator
from http import HTTPStatus

import httpx

from ..errors import SourceError, StoreError
from ..profile import EMBEDDED, Profile
from ..sinks.connection import LOOPBACK, SCOPES, Refusal, connect, translated, without_key
from ..sources.tiled.address import TiledAddress
from ..sources.tiled.client import TiledClient
from .check import Check, fail, note, ok

WANTED = frozenset(SCOPES.split(", "))
TIMEOUT = 5.0  # s


def tiled_checks(profile: Profile) -> Iterator[Check]:
    """Look at the server of the masks: is it there, does it take our key, what may the key do?"""
    options = profile.tiled
    if options.uri == EMBEDDED:
        yield note("Tiled", "an embedded server is started with the node and ends with it")
        return
    key = os.environ.get(options.api_key_env, "")
    yield _exposure(options.uri)
    if not key:
        yield fail(
            "API key", f"the environment variable {options.api_key_env} is not set", "set it"
        )
    try:
        with translated(options.uri, options.api_key_env):
            client = connect(options.uri, key, TIMEOUT)
    except StoreError as error:
        yield fail("Tiled", str(error), f"see `tiled.uri`, and the key in {options.api_key_env}")
        if key and isinstance(error, Refusal):
            yield _scopes(_api_of(options.uri), key, options.api_key_env)
        return
    try:
        yield ok("Tiled", f"{options.uri} answers")
        if key:
            yield _scopes(client.context.api_uri, key, options.api_key_env)
    finally:
        client.context.http_client.close()


def _exposure(uri: str) -> Check:
    url, uri = httpx.URL(uri), without_key(uri)
    if url.host in LOOPBACK or url.scheme == "https":
        return ok("transport", f"{uri} is on this machine, or encrypted")
    return note(
        "transport",
        f"{uri} is on another machine and not encrypted: keys and masks can be read on the way",
        "use https",
    )


def _api_of(uri: str) -> httpx.URL:
    """Return where Tiled's client looks for the API of a server, which may be behind a prefix."""
    url = httpx.URL(without_key(uri))
    return url.copy_with(path=f"{url.path.partition('/api')[0].rstrip('/')}/api/v1", fragment=None)


def _scopes(api: httpx.URL, key: str, variable: str) -> Check:
    """Ask what the key may do; a server for one user has one key that may do everything."""
    path = f"{api.path.rstrip('/')}/auth/apikey"
    url = api.copy_with(path=path, query=None, fragment=None)
    headers = {"Authorization": f"Apikey {key}"}
    try:
        answer = httpx.get(
            url, headers=headers, timeout=TIMEOUT, trust_env=url.host not in LOOPBACK
        )
    except httpx.HTTPError as error:
        return note("scopes", f"could not be asked for: {type(error).__name__}")
    if answer.status_code == HTTPStatus.NOT_FOUND:
        return ok("scopes", "a server for a single user: its key may do everything")
    if answer.status_code != HTTPStatus.OK:
        return fail(
            "scopes", f"the server answers {answer.status_code} to the key", f"set {variable}"
        )
    try:
        scopes = set(answer.json()["scopes"])
    except (ValueError, LookupError, TypeError):
        return note("scopes", f"{url} does not answer as Tiled does, so they are not known")
    missing = sorted(WANTED - scopes)
    if "inherit" in scopes:
        return note(
            "scopes",
            "the key may do all that its owner may",
            f"make one with only {SCOPES}",
        )
    if missing:
        return fail("scopes", f"the key lacks {', '.join(missing)}", f"make one with {SCOPES}")
    more = sorted(scopes - WANTED)
    if more:
        return note("scopes", f"the key may also {', '.join(more)}", f"{SCOPES} are enough")
    return ok("scopes", f"exactly those that are needed: {SCOPES}")


def raw_checks(profile: Profile) -> Iterator[Check]:
    """Look at the server of the raw runs."""
    options = profile.raw
    if not options.uri:
        yield note(
            "raw runs",
            "no server is named (`raw.uri`): images that a stream loses stay lost",
            "name the Tiled server of the raw runs",
        )
        return
    key = os.environ.get(options.api_key_env, "")
    fault = look(options.uri, options.path, options.api_key_env)
    where = "/".join(filter(None, (options.uri, options.path)))
    if fault and not key:
        fault = f"{fault} (the environment variable {options.api_key_env} is not set)"
    if fault:
        yield fail("raw runs", fault, "see `raw.uri` and `raw.path` of the profile")
    else:
        yield ok("raw runs", f"{where} answers and can be read")


def look(uri: str, path: str, api_key_env: str) -> str:
    """Return why a container in Tiled cannot be read; empty if it can.

    Parameters
    ----------
    uri, path : str
        Server, and container in it.
    api_key_env : str
        Environment variable with the API key.
    """
    try:
        address = TiledAddress.parse(uri) / path
        with TiledClient(address, api_key_env, TIMEOUT) as client:
            client.children(address.path, limit=1)
    except SourceError as error:
        return str(error)
    return ""
