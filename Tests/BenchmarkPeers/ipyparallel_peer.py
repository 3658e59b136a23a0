# SPDX-License-Identifier: Apache-2.0
"""Calls through ipyparallel's task scheduler with two engines: prints calls_per_s. Arguments: N SIZE WINDOW."""

import ctypes
import logging
import signal
import sys
import time

import ipyparallel

PR_SET_PDEATHSIG = 1


def echo(payload):
    return payload


def run(view, payload, count, window):
    outstanding = []
    for index in range(count):
        if index >= window:
            outstanding[index % window].get()
            outstanding[index % window] = view.apply_async(echo, payload)
        else:
            outstanding.append(view.apply_async(echo, payload))
    for result in outstanding:
        result.get()


def main():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # Ends by exception, so that the cluster is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    count, size, window = (int(argument) for argument in sys.argv[1:4])
    payload = b"x" * size
    # No limit per engine: with the usual one, of a single task, an engine waits for the scheduler after each.
    arguments = ["--TaskScheduler.hwm=0"]
    with ipyparallel.Cluster(n=2, log_level=logging.ERROR, controller_args=arguments) as client:
        client.wait_for_engines(2)
        view = client.load_balanced_view()
        run(view, payload, count // 10 + 10, window)
        started = time.monotonic()
        run(view, payload, count, window)
        seconds = time.monotonic() - started
    print(f"role=pipelined count={count} calls_per_s={count / seconds:.0f}", flush=True)


if __name__ == "__main__":
    main()
