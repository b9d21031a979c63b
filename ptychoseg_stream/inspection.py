"""What the commands follow, audit, doctor and upload do."""

import os
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.markup import escape

from .assemble import build_raw
from .errors import SourceError
from .feed import follow
from .feed.lines import json_of, line_of
from .health.audit import Books, audit
from .health.check import Check, fail, ok, several
from .health.feeds import feed_checks
from .health.leftovers import is_held
from .health.machine import machine_checks
from .health.servers import look, raw_checks, tiled_checks
from .profile import Profile, load_profile
from .sinks.spool import waiting
from .sinks.stored import open_stored
from .sinks.upload import upload_all
from .sources.addresses import open_source
from .sources.kafka.documents import KafkaDocuments
from .sources.tiled.documents import Wanted
from .sources.zmq.documents import ZmqDocuments

console = Console(width=None if sys.stdout.isatty() else 120)
_SIGNS = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "fail": "[red]FAIL[/]"}
_PROBE = 5.0  # s


def audit_run(target: str, profile_name: str) -> bool:
    """Count a stored run again, print what was found, and return whether it adds up."""
    profile = load_profile(profile_name)
    key = os.environ.get(profile.tiled.api_key_env, "")
    raw = build_raw(profile)
    try:
        with open_stored(target, profile.tiled, key) as stored:
            held = not stored.stop and is_held(profile.spool, stored.uid)
            books = Books(
                str(stored.start.get("original_run_uid", "")),
                stored.raw_stream,
                stored.raw_data_key,
                stored.table,
                stored.lengths,
                stored.stop,
                profile.idle_timeout if held else 0.0,
                stored.of_raw,
            )
            console.print(f"derived run {stored.uid} of raw run {books.raw}", highlight=False)
            return _print(audit(books, raw))
    finally:
        if raw is not None:
            raw.close()


def check_profile(profile_name: str, source: str) -> bool:
    """Check a profile against the world, print each line, and return whether all works."""
    profile = load_profile(profile_name)
    console.print(f"profile {profile.name}: {profile.description}", highlight=False)
    return _print(_profile_checks(profile, source))


def upload_waiting(profile_name: str, seconds: float) -> bool:
    """Send what waits in the spool; return whether nothing waits any more."""
    profile = load_profile(profile_name)
    key = os.environ.get(profile.tiled.api_key_env, "")
    if not waiting(profile.spool):
        console.print(f"nothing waits in {profile.spool.masks}", highlight=False)
        return True
    for sent in upload_all(profile.tiled, profile.spool, key, seconds):
        console.print(str(sent), highlight=False)
    left = waiting(profile.spool)
    for run in left:
        console.print(
            f"[yellow]still waits[/]: run {run.raw}, {several(run.rows, 'row')}, {run.path}",
            highlight=False,
        )
    return not left


def follow_run(address: str, uid: str, as_json: bool, profile_name: str) -> None:
    """Print a line for each item of a run, until its end."""
    key = os.environ.get(load_profile(profile_name).tiled.api_key_env, "")
    for item in follow(address, uid, api_key=key):
        sys.stdout.write((json_of(item) if as_json else line_of(item)) + "\n")
        sys.stdout.flush()


def _profile_checks(profile: Profile, source: str) -> Iterator[Check]:
    yield from machine_checks(profile)
    yield from tiled_checks(profile)
    yield from raw_checks(profile)
    yield from feed_checks(profile.feed)
    if source:
        yield _source_check(profile, source)


def _source_check(profile: Profile, address: str) -> Check:
    """Connect to a source for a moment, taking nothing from it."""
    try:
        source = open_source(address, profile.sources, Wanted())
        if isinstance(source, ZmqDocuments | KafkaDocuments):
            fault = source.probe(_PROBE)
        else:
            fault = look(address, "", profile.sources.tiled.api_key_env)
    except SourceError as error:
        return fail("source", str(error), "correct the address")
    if fault:
        known = fault if address in fault else f"{address}: {fault}"
        return fail("source", known, "without it, no documents arrive")
    return ok("source", f"{address} answers")


def _print(checks: Iterable[Check]) -> bool:
    """Print one line per check as it comes, and what to do; return whether none failed."""
    good = True
    for check in checks:
        good &= check.state != "fail"
        advice = f" [dim]→ {escape(check.advice)}[/]" if check.advice else ""
        line = f"{_SIGNS[check.state]} {check.name}: {escape(check.text)}{advice}"
        console.print(line, highlight=False, soft_wrap=True)
    return good
