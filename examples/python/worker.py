# SPDX-License-Identifier: Apache-2.0
"""A worker with a few functions to try. Usage: worker.py [ENDPOINT]; it prints the endpoint it listens at."""

import sys
import time

import drover

worker = drover.Worker(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:*", name="python-worker")


@worker.register("echo")
def echo(value):
    return value


@worker.register("sleep", wants_job=True)
def sleep(job, seconds, value):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        job.cancelled.wait(left)
        job.check()
    return value


@worker.register("fail")
def fail(text):
    raise ValueError(text)


@worker.register("tick", wants_job=True)
def tick(job, reference, count, gap):
    """Tells the client 0, 1, 2, ... through its callback, `gap` seconds apart."""
    callback = job.callback(reference)
    for number in range(count):
        job.check()
        callback.emit(number)
        time.sleep(gap)
    return count


@worker.register("ask", wants_job=True)
def ask(job, reference, number):
    """Returns what the client's callback makes of `number`."""
    return job.callback(reference)(number)


print(worker.endpoint, flush=True)
worker.start()
try:
    sys.stdin.read()  # until its end, or Ctrl-C
except KeyboardInterrupt:
    pass
worker.close()
