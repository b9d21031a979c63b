"""What a profile asks of this machine for its live feed: ports, keys."""

from collections.abc import Iterator
from errno import EADDRINUSE

import zmq

from ..errors import ProfileError
from ..node.curve import on_this_machine
from ..sinks.feed.options import FeedOptions
from ..sinks.feed.sockets import read_keys
from .check import Check, fail, note, ok


def feed_checks(options: FeedOptions) -> Iterator[Check]:
    """Look whether the feed can listen where it is to; nothing is said where there is none."""
    if not options.wanted:
        return
    try:
        keys = read_keys(options)
    except ProfileError as error:
        yield fail("feed", str(error), "correct `feed` of the profile")
        return
    for endpoint in filter(None, (options.serve, options.publish)):
        yield _place(endpoint, keys is not None)


def _place(endpoint: str, encrypted: bool) -> Check:
    if endpoint.startswith("ipc://"):  # to bind it would take it away from a node that runs
        return ok("feed", f"{endpoint} is on this machine")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        socket.ipv6 = "[" in endpoint
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            if error.errno == EADDRINUSE:
                return note(
                    "feed", f"{endpoint} is in use", "by a node that runs, or change the port"
                )
            advice = "name a port of this machine in `feed` of the profile"
            return fail("feed", f"{endpoint} cannot be listened at ({error.strerror})", advice)
    if encrypted or on_this_machine(endpoint):
        return ok("feed", f"{endpoint} is free, and on this machine or encrypted")
    return note(
        "feed",
        f"{endpoint} is free, and anyone who reaches it can read frames and masks",
        "set `feed.curve_secret` and `feed.curve_clients`",
    )
