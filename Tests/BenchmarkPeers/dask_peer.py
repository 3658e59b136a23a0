# SPDX-License-Identifier: Apache-2.0
"""Calls through Dask's scheduler with two worker processes: prints calls_per_s. Arguments: N SIZE WINDOW."""

import ctypes
import logging
import signal
import sys
import time

from distributed import Client, LocalCluster

PR_SET_PDEATHSIG = 1


def echo(payload):
    return payload


def run(client, payload, count, window):
    for start in range(0, count, window):
        # Pure calls of equal arguments would be made once only.
        futures = client.map(echo, [payload] * min(window, count - start), pure=False)
        client.gather(futures)


def main():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    count, size, window = (int(argument) for argument in sys.argv[1:4])
    payload = b"x" * size
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=logging.ERROR
    ) as cluster, Client(cluster) as client:
        run(client, payload, count // 10 + 10, window)
        started = time.monotonic()
        run(client, payload, count, window)
        seconds = time.monotonic() - started
    print(f"role=pipelined count={count} calls_per_s={count / seconds:.0f}", flush=True)


if __name__ == "__main__":
    main()
