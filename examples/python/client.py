# SPDX-License-Identifier: Apache-2.0
"""Calls a worker's functions in all the ways there are, and checks what comes. Usage: client.py ENDPOINT"""

import sys
import threading
import time

import drover

client = drover.Client(sys.argv[1], name="python-client")


def check(what, found, expected):
    print(f"{what}: {found!r}", flush=True)
    if found != expected:
        sys.exit(f"FAILED {what}: expected {expected!r}")


# A call that waits.
check("call", client.call("echo", "hello", expiry=10), "hello")

# A call that doesn't: its result is a handle to wait for, with a limit or without, or to add a callback to.
result = client.call_async("sleep", 0.3, "done")
told = threading.Event()
seen = []
result.add_callback(lambda result: (seen.append(result.value()), told.set()))
check("ready at once", result.is_ready, False)
check("ready after 0.05 s", result.wait(timeout=0.05), False)
check("value", result.value(timeout=10), "done")
check("callback ran", told.wait(10) and seen, ["done"])

# Events: the worker tells a Python function something while the call runs.
numbers = []
caller = threading.current_thread()
threads = set()


def on_tick(number):
    numbers.append(number)
    threads.add(threading.current_thread())


ticked = client.callback(on_tick)
check("tick", client.call("tick", ticked, 5, 0.01, expiry=10), 5)
client.drain()
check("events", numbers, [0, 1, 2, 3, 4])
check("events missing", ticked.missing, 0)
check("events came on the caller's thread", caller in threads, False)

# A question: the worker waits for what the Python function returns.
check("ask", client.call("ask", client.callback(lambda number: number * 2), 21, expiry=10), 42)


def refuse(number):
    raise LookupError(f"no answer to {number}")


try:
    client.call("ask", client.callback(refuse), 5, expiry=10)
    sys.exit("FAILED: the callback's error was swallowed")
except drover.RemoteError as error:
    check("the callback's error", ("LookupError" in str(error), "no answer to 5" in str(error)), (True, True))

# An error in the handler.
try:
    client.call("fail", "boom", expiry=10)
    sys.exit("FAILED: no error came")
except drover.RemoteError as error:
    check("error", (error.code, "boom" in error.message), ("failed", True))

# A function that nobody registered.
try:
    client.call("nonsense", expiry=10)
    sys.exit("FAILED: no error came")
except drover.RemoteError as error:
    check("unknown function", error.code, "unknownFunction")

# A call that takes longer than its caller is willing to wait.
started = time.monotonic()
try:
    client.call("sleep", 5, "late", expiry=0.2)
    sys.exit("FAILED: the call did not expire")
except drover.Expired as error:
    check("expired in time", 0.15 < time.monotonic() - started < 2, True)

# A call that nobody wants any more.
result = client.call_async("sleep", 5, "unwanted")
result.wait(timeout=0.1)
check("phase", result.phase, "running")
result.cancel()
try:
    result.value(timeout=10)
    sys.exit("FAILED: the call was not cancelled")
except drover.Cancelled as error:
    check("cancelled", str(error), "sleep was cancelled")

# Calls of one key run one at a time, in their order.
results = [client.call_async("sleep", 0.02, name, key="account 7") for name in "abcde"]
check("in order", "".join(result.value(10) for result in results), "abcde")

# Many calls at once share frames on the way back.
results = [client.call_async("echo", str(number)) for number in range(2000)]
check("sum of 2000 calls", sum(int(result.value(30)) for result in results), 1_999_000)

check("malformed or strange messages", (client.malformed, client.strange), (0, 0))
client.close()
print("python client: ok", flush=True)
