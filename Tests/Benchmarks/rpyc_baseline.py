#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What RPyC does on this machine, used the way its documentation says is fastest.

One process per role; each prints `key=value` words on one line of standard output.
"""

import argparse
import collections
import ctypes
import signal
import sys
import threading
import time

import rpyc
from rpyc.core.stream import SocketStream
from rpyc.utils.helpers import BgServingThread
from rpyc.utils.server import OneShotServer

PR_SET_PDEATHSIG = 1


class Echo(rpyc.Service):
    """The other side of every measurement."""

    def exposed_echo(self, payload):
        return payload

    def exposed_now(self, payload):
        """Answers with the time of the answer."""
        return time.monotonic_ns()

    def exposed_stream(self, callback, count, size, window):
        """Calls `callback` so many times, at most `window` calls ahead of it."""
        event = rpyc.async_(callback)
        payload = b"x" * size
        pending = collections.deque()
        for _ in range(count):
            if len(pending) == window:
                pending.popleft().wait()
            pending.append(event(payload))
        while pending:
            pending.popleft().wait()


def connect(endpoint):
    """Connects to `tcp://host:port`, without Nagle's delay."""
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    stream = SocketStream.connect(host, int(port), nodelay=True)
    return rpyc.connect_stream(stream, config={"sync_request_timeout": None})


def percentiles(role, nanoseconds):
    """The line that says how long something took."""
    nanoseconds.sort()
    count = len(nanoseconds)
    p50 = nanoseconds[count // 2] / 1e3
    p99 = nanoseconds[count * 99 // 100] / 1e3
    return f"role={role} count={count} p50_us={p50:.3f} p99_us={p99:.3f} max_us={nanoseconds[-1] / 1e3:.3f}"


def serve(arguments):
    """Serves one connection, then ends."""
    server = OneShotServer(
        Echo,
        hostname="127.0.0.1",
        port=0,
        protocol_config={"sync_request_timeout": None},
    )
    print(f"endpoint=tcp://127.0.0.1:{server.port}", flush=True)
    server.start()


def blocking(arguments):
    """One call outstanding."""
    connection = connect(arguments.endpoint)
    echo = connection.root.echo
    payload = b"x" * arguments.size
    took = []
    for _ in range(arguments.count // 10 + 10):
        echo(payload)
    for _ in range(arguments.count):
        start = time.perf_counter_ns()
        echo(payload)
        took.append(time.perf_counter_ns() - start)
    print(percentiles("blocking", took))
    connection.close()


def pipelined(arguments):
    """`async_` calls, `window` of them outstanding."""
    connection = connect(arguments.endpoint)
    echo = rpyc.async_(connection.root.echo)
    payload = b"x" * arguments.size

    def run(count):
        pending = collections.deque()
        for _ in range(count):
            if len(pending) == arguments.window:
                pending.popleft().wait()
            pending.append(echo(payload))
        while pending:
            pending.popleft().wait()

    run(arguments.count // 10)
    start = time.perf_counter()
    run(arguments.count)
    seconds = time.perf_counter() - start
    print(f"role=pipelined count={arguments.count} window={arguments.window} calls_per_s={arguments.count / seconds:.0f}")
    connection.close()


def callback(arguments):
    """From the server's answer to the callback of its result, served in the background."""
    connection = connect(arguments.endpoint)
    answer = rpyc.async_(connection.root.now)
    background = background_thread(connection, arguments)
    payload = b"x" * arguments.size
    took = []
    called = threading.Event()

    def completed(result):
        took.append(time.monotonic_ns() - result.value)
        called.set()

    for _ in range(arguments.count + 3):
        called.clear()
        answer(payload).add_callback(completed)
        if not called.wait(10):
            sys.exit("rpyc_baseline: a callback never came")
    print(percentiles("callback", took[3:]))
    background.stop()
    connection.close()


def events(arguments):
    """The server calls a callback of the client, served in the background."""
    connection = connect(arguments.endpoint)
    stream = rpyc.async_(connection.root.stream)
    background = background_thread(connection, arguments)
    arrived = 0
    finished = threading.Event()
    wanted = 0

    def received(payload):
        nonlocal arrived
        arrived += 1
        if arrived == wanted:
            finished.set()

    def run(count):
        nonlocal arrived, wanted
        arrived, wanted = 0, count
        finished.clear()
        done = threading.Event()
        start = time.perf_counter()
        result = stream(received, count, arguments.size, arguments.window)
        result.add_callback(lambda _: done.set())
        if not finished.wait(300):
            sys.exit("rpyc_baseline: the events never came")
        seconds = time.perf_counter() - start
        done.wait(300)
        return seconds

    run(max(arguments.count // 10, 2))
    seconds = run(arguments.count)
    print(f"role=events count={arguments.count} events_per_s={arguments.count / seconds:.0f}")
    background.stop()
    connection.close()


def background_thread(connection, arguments):
    """RPyC's own background thread; the pause between its looks is 100 ms unless told otherwise."""
    if arguments.pause is None:
        return BgServingThread(connection)
    # With no pause it must wait for data while it looks, or it would spin.
    return BgServingThread(connection, serve_interval=arguments.serve, sleep_interval=arguments.pause)


def main():
    # A server must not outlive whoever started it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(required=True)
    roles.add_parser("server").set_defaults(run=serve)
    for role in (blocking, pipelined, callback, events):
        measured = roles.add_parser(role.__name__, help=role.__doc__)
        measured.set_defaults(run=role)
        measured.add_argument("endpoint")
        measured.add_argument("count", type=int)
        measured.add_argument("size", type=int)
        measured.add_argument("--window", type=int, default=1000)
        measured.add_argument("--pause", type=float, help="seconds between the background thread's looks")
        measured.add_argument("--serve", type=float, default=0.1, help="seconds that each of its looks waits")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
