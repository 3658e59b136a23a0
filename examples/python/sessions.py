# SPDX-License-Identifier: Apache-2.0
"""Checks what a worker and a client do when a session is lost (docs/protocol.md, 6.3), each against sockets by hand."""

import sys

import msgpack
import zmq

import drover

PATIENCE = 10_000  # milliseconds
EPOCH = 77  # of the worker by hand


def check(what, found, expected):
    print(f"{what}: {found!r}", flush=True)
    if found != expected:
        sys.exit(f"FAILED {what}: expected {expected!r}")


def receive(peer, kind):
    """The next message of this kind, and the route it came by."""
    while peer.poll(PATIENCE):
        *route, frame = peer.recv_multipart()
        for part in drover.messages([frame]):
            if part.kind == kind:
                return part, route
    sys.exit(f"FAILED: no message of kind {kind} came")


# A worker, asked to go on with sessions that it has and hasn't.
worker = drover.Worker()
worker.start()
peer = zmq.Context.instance().socket(zmq.DEALER)
peer.linger = 0
peer.connect(worker.endpoint)


def introduce(session):
    fields = {"minor": 0, "client": bytes(16)}
    peer.send(drover.message(drover.HELLO, msgpack.packb(fields), id=5, number=session))
    welcome, _ = receive(peer, drover.WELCOME)
    return welcome.number, msgpack.unpackb(welcome.payload)["resumed"]


check("a session nobody has", introduce(9), (0, False))
check("a session to begin", introduce(0), (1, False))
check("the session there is", introduce(1), (1, True))
check("another one", introduce(2), (0, False))
check("any", introduce(0), (1, True))
peer.close()
worker.close()

# A client, told that its session is gone.
peer = zmq.Context.instance().socket(zmq.ROUTER)
peer.linger = 0
peer.bind("tcp://127.0.0.1:*")
client = drover.Client(peer.last_endpoint.decode())


def welcome(route, session, resumed):
    fields = {"minor": 0, "worker": bytes(16), "window": 8, "resumed": resumed}
    frame = drover.message(drover.WELCOME, msgpack.packb(fields), id=EPOCH, number=session)
    peer.send_multipart(route + [frame])


first, former = receive(peer, drover.HELLO)
check("claimed at first", first.number, 0)
welcome(former, 3, False)
once, again = client.call_async("once"), client.call_async("again", idempotent=True)
for _ in range(2):
    receive(peer, drover.REQUEST)
peer.send_multipart(former + [drover.message(drover.RESET)])
hello, route = receive(peer, drover.HELLO)
check("claimed after a reset", (hello.number, hello.id == first.id, route == former), (3, True, True))
welcome(route, 0, False)
hello, route = receive(peer, drover.HELLO)
isNext = hello.id == (first.id + 1) % 2**64
check("claimed after the loss", (hello.number, isNext, route == former), (0, True, False))
try:
    once.value(timeout=10)
    sys.exit("FAILED: a call survived its session")
except drover.Lost as error:
    check("lost", "forgotten" in str(error), True)
welcome(route, 4, False)
request, _ = receive(peer, drover.REQUEST)
check("sent again", request.id == again.id, True)
client.close()
peer.close()
print("python sessions: ok", flush=True)
