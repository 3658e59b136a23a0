# SPDX-License-Identifier: Apache-2.0
"""Drover's wire protocol, version 1, in one file: a client and a worker on pyzmq and msgpack.

The protocol is specified in docs/protocol.md; numbers such as (5.2) in comments are its sections. This module is
written to be read: it has the whole conversation, but no encryption, no load balancing and no speed to speak of.
"""

import collections
import concurrent.futures
import itertools
import os
import queue
import socket
import struct
import sys
import threading
import time
import traceback

import msgpack
import zmq

HEADER = struct.Struct("<BBBBIQII")  # first byte, kind, flags, content type, length, id, time, number (4)
FIRST = 0xD1
HELLO, WELCOME, RESET, GOODBYE, BEAT, PING, PONG, REFUSED = range(1, 9)
DEFINE, REQUEST, REPLY, ERROR, CANCEL, ACCEPTED, STARTED, PROGRESS, CANCELLED, DEADLINE = range(16, 26)
EVENT, INVOKE, ENDED, FLOW, PENDING = range(32, 37)
IDEMPOTENT, RESENT, METADATA, ATTACHED, RENEWED, MUST_UNDERSTAND = 1, 2, 4, 8, 0x10, 0x80
NO_LIMIT = 0xFFFFFFFF
MAX_PAYLOAD = 64 << 20
NEWS_KEPT = 512  # callbacks of a session of which something is remembered that came before their request
BEAT_SECONDS, SILENCE_SECONDS, REPORT_SECONDS, LAPSE_SECONDS = 2.0, 6.0, 0.005, 0.1


class RemoteError(Exception):
    """The other side answered with an error (9)."""

    def __init__(self, code, message, type="", trace="", retryable=False, worker=""):
        super().__init__(f"{code}: {type + ': ' if type else ''}{message}")
        self.code, self.message, self.type, self.trace = code, message, type, trace
        self.retryable, self.worker = retryable, worker

    def packed(self):
        names = ("code", "type", "message", "trace", "retryable", "worker")
        return pack({name: getattr(self, name) for name in names})

    @staticmethod
    def unpacked(payload):
        known = ("code", "message", "type", "trace", "retryable", "worker")
        fields = {"code": "internal", "message": ""} | msgpack.unpackb(payload)
        return RemoteError(**{name: fields[name] for name in known if name in fields})

    @staticmethod
    def of(error, place, worker=""):
        """An exception as it travels."""
        if isinstance(error, Cancelled):
            return RemoteError("cancelled", str(error), type="Cancelled", trace=place, worker=worker)
        if isinstance(error, BadArguments):
            return RemoteError("badArguments", str(error), trace=place, worker=worker)
        if isinstance(error, RemoteError):
            trace = f"{error.trace}\n{place}" if error.trace else place
            return RemoteError("failed", error.message, error.type or "RemoteError", trace, error.retryable, worker)
        return RemoteError("failed", str(error), type=type(error).__name__, trace=place, worker=worker)


class BadArguments(Exception):
    """A handler can't take what it was sent."""


class Expired(Exception):
    """The call's time was over before its answer came."""


class Lost(Exception):
    """The worker is gone, and nobody knows whether the call ran."""


class Cancelled(Exception):
    """The call was cancelled; raised in handlers too, by `Job.check`."""


class ProtocolError(Exception):
    """Bytes that are no message of this protocol."""


def pack(value):
    def other(object):
        if isinstance(object, Callback):
            return object.reference
        raise TypeError(f"{type(object).__name__} can't be sent")

    return msgpack.packb(value, default=other)


def message(kind, payload=b"", *, flags=0, id=0, time=0, number=0):
    return HEADER.pack(FIRST, kind, flags, 0, len(payload), id, time, number) + payload


def clock(now):
    """What this side's clock shows, as a stamp: microseconds modulo 2^32, never 0 (5, BEAT)."""
    return max(1, int(now * 1_000_000) & 0xFFFFFFFF)


Message = collections.namedtuple("Message", "kind flags content id time number payload")


def messages(frames):
    """The messages of one received ZeroMQ message: of its frame, and perhaps an attached payload (3)."""
    frame, attached = frames[0], frames[1:]
    offset = 0
    if len(attached) > 1:
        raise ProtocolError("more than two frames")
    while offset < len(frame):
        if len(frame) - offset < HEADER.size:
            raise ProtocolError("a header is cut off")
        first, kind, flags, content, length, id, limit, number = HEADER.unpack_from(frame, offset)
        if first != FIRST:
            raise ProtocolError(f"the first byte is 0x{first:02X}, not 0x{FIRST:02X}")
        if length > MAX_PAYLOAD:
            raise ProtocolError("a payload is over the limit")
        offset += HEADER.size
        if flags & ATTACHED:
            if offset != len(frame) or not attached or len(attached[0]) != length:
                raise ProtocolError("an attached payload is missing or has another length")
            payload = attached.pop()
        else:
            payload = frame[offset : offset + length]
            offset += length
            if len(payload) != length:
                raise ProtocolError("a payload is cut off")
        yield Message(kind, flags, content, id, limit, number, payload)
    if attached:
        raise ProtocolError("a second frame that no message announced")


class Loop:
    """A thread that owns a socket. Other threads hand it work with `post`; nobody else touches the socket."""

    def __init__(self, kind):
        self.socket = self.opened(kind)
        self.poller = zmq.Poller()
        self.identity = os.urandom(16)
        self.epoch = int.from_bytes(os.urandom(8), "little")
        self.malformed = self.strange = 0
        self.isClosing = False
        self.posts = queue.SimpleQueue()
        self.bell, self.ringer = socket.socketpair()
        self.thread = threading.Thread(target=self.run, name="drover", daemon=True)

    def opened(self, kind):
        opened = zmq.Context.instance().socket(kind)
        for option, value in {
            zmq.LINGER: 500,
            zmq.SNDHWM: 100_000,
            zmq.RCVHWM: 100_000,
            zmq.MAXMSGSIZE: MAX_PAYLOAD + (1 << 16),
            zmq.HEARTBEAT_IVL: 2000,
            zmq.HEARTBEAT_TIMEOUT: 6000,
            zmq.HEARTBEAT_TTL: 6000,
        }.items():
            opened.setsockopt(option, value)
        return opened

    def post(self, work, *arguments):
        self.posts.put((work, arguments))
        self.ringer.send(b"!")

    def run(self):
        self.poller.register(self.socket, zmq.POLLIN)
        self.poller.register(self.bell, zmq.POLLIN)
        while not self.isClosing:
            wait = self.tick(time.monotonic())
            ready = dict(self.poller.poll(max(0, min(wait, 1.0)) * 1000 + 1))
            if self.bell.fileno() in ready:
                self.bell.recv(4096)
            while not self.posts.empty():
                work, arguments = self.posts.get()
                work(*arguments)
            if self.socket in ready:
                for _ in range(256):
                    try:
                        frames = self.socket.recv_multipart(zmq.NOBLOCK)
                    except zmq.Again:
                        break
                    self.receive(frames)
        self.leave()
        self.socket.close()

    def close(self):
        self.post(setattr, self, "isClosing", True)
        self.thread.join()


# -- Client ------------------------------------------------------------------------------------------------------------


class AsyncResult:
    """What a call will come to. It changes once, from pending to a value, an error, expired, cancelled or lost."""

    def __init__(self, client, id, function, payload, flags, deadline, callbacks):
        self.client, self.id, self.function, self.flags = client, id, function, flags
        self.payload, self.deadline, self.callbacks = payload, deadline, callbacks
        self.phase = "local"
        self.progress = []
        self.future = concurrent.futures.Future()

    @property
    def is_ready(self):
        return self.future.done()

    def wait(self, timeout=None):
        """Waits for the end of the call; returns whether it came within `timeout` seconds."""
        return bool(concurrent.futures.wait([self.future], timeout).done)

    def value(self, timeout=None):
        """Waits, then returns the value or raises what the call came to instead."""
        return self.future.result(timeout)

    def add_callback(self, body):
        """Has `body(result)` run on the client's callback thread when the call has ended, or soon if it has."""
        self.future.add_done_callback(lambda _: self.client.callbacks.submit(guarded, body, self))

    def cancel(self):
        self.client.post(self.client.end, self, Cancelled(f"{self.function} was cancelled"), 0)


def guarded(body, *arguments):
    try:
        return body(*arguments)
    except Exception:
        traceback.print_exc(file=sys.stderr)


class Callback:
    """A Python function that workers can reach; pass it as an argument of a call (7)."""

    def __init__(self, client, number, body, until_cancelled):
        self.client, self.body, self.next, self.missing = client, body, 0, 0
        self.calls = 0  # those that it was passed to and that have not ended
        self.reference = [client.identity, number, int(until_cancelled)]

    def cancel(self):
        self.client.post(self.client.unsubscribe, self.reference[1])


class Client(Loop):
    """Calls functions of one worker."""

    def __init__(self, endpoint, name="python"):
        super().__init__(zmq.DEALER)
        self.name, self.endpoint = name, endpoint
        self.socket.connect(endpoint)
        self.ids, self.numbers = itertools.count(1), itertools.count(1)
        self.functions = {}  # name -> number, for the client's life
        self.defined = set()  # what the worker knows of them, for the session's life
        self.calls = {}  # id -> AsyncResult, those that have not ended
        self.sent = set()  # ids that count against the window until the worker has answered them
        self.waiting = collections.deque()
        self.subscriptions = {}
        self.invocations = set()  # ids of those that are not answered
        self.answers = collections.deque()  # given while there was no session
        self.worker, self.workerEpoch, self.session = None, None, 0
        self.isOpen = self.isDraining = False
        self.isClockNew = False  # the worker shall not go by earlier stamps
        self.window = 0
        self.nextHello, self.helloPause = 0.0, 0.1
        self.lastHeard = self.lastSent = time.monotonic()
        self.callbacks = concurrent.futures.ThreadPoolExecutor(1, "drover-callbacks")
        self.thread.start()

    def opened(self, kind):
        opened = super().opened(kind)
        opened.setsockopt(zmq.IMMEDIATE, 1)  # nothing may queue on a connection that isn't up
        opened.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
        return opened

    # Used from any thread.

    def call(self, function, *arguments, expiry=None):
        return self.call_async(function, *arguments, expiry=expiry).value()

    def call_async(self, function, *arguments, expiry=None, idempotent=False, key=None):
        callbacks = [argument for argument in arguments if isinstance(argument, Callback)]
        payload, flags = pack(list(arguments)), IDEMPOTENT if idempotent else 0
        if key is not None:
            payload, flags = pack({"key": key}) + payload, flags | METADATA
        for callback in callbacks:
            if callback.client is self and callback.reference[1] not in self.subscriptions:
                raise ValueError(f"callback {callback.reference[1]} has ended; make a new one, or one until_cancelled")
        deadline = None if expiry is None else time.monotonic() + expiry
        result = AsyncResult(self, next(self.ids), function, payload, flags, deadline, callbacks)
        self.post(self.submit, result)
        return result

    def callback(self, body, until_cancelled=False):
        number = next(self.numbers)
        self.subscriptions[number] = Callback(self, number, body, until_cancelled)
        return self.subscriptions[number]

    def drain(self):
        """Waits until the callbacks and events that have come so far have been dealt with."""
        self.callbacks.submit(lambda: None).result()

    # On the loop's thread.

    def submit(self, result):
        self.calls[result.id] = result
        for callback in result.callbacks:
            callback.calls += 1
        self.waiting.append(result.id)
        self.dispatch()

    def dispatch(self):
        """Sends what waits, as far as the worker's window allows (6.4)."""
        while self.waiting and self.isOpen and not self.isDraining and len(self.sent) < self.window:
            result = self.calls.get(self.waiting.popleft())
            if result:
                self.transmit(result)

    def transmit(self, result, resent=0):
        number = self.functions.setdefault(result.function, len(self.functions))
        frame = b""
        if number not in self.defined:
            self.defined.add(number)
            frame = message(DEFINE, result.function.encode(), number=number)
        left = NO_LIMIT
        if result.deadline is not None:
            # What is left is left at the stamp before it, however long both are under way.
            now = time.monotonic()
            frame += self.stamp(now)
            left = min(max(1, int((result.deadline - now) * 1000 + 0.999)), NO_LIMIT - 1)
        flags = result.flags | resent
        self.sent.add(result.id)
        result.phase = "sent"
        self.send(frame + message(REQUEST, result.payload, flags=flags, id=result.id, time=left, number=number))

    def send(self, frame):
        try:
            self.socket.send(frame, zmq.NOBLOCK)
            self.lastSent = time.monotonic()
        except zmq.Again:
            pass  # the connection is down; what matters is sent again after the next WELCOME

    def stamp(self, now):
        """A sign of life with this side's clock, from which the times that follow count (5, BEAT)."""
        isNew, self.isClockNew = self.isClockNew, False
        return message(BEAT, id=self.epoch, time=clock(now), number=int(isNew))

    def end(self, result, failure, cancel=None, value=None):
        """Ends a call, once; tells the worker if it is still at it (8)."""
        if self.calls.pop(result.id, None) is None:
            return
        result.phase = "ended"
        if cancel is not None and result.id in self.sent:
            self.send(message(CANCEL, id=result.id, number=cancel))
        for callback in result.callbacks:
            callback.calls -= 1
            if callback.reference[2] == 0 and callback.calls == 0:
                self.unsubscribe(callback.reference[1])
        result.future.set_exception(failure) if failure else result.future.set_result(value)

    def unsubscribe(self, number):
        if self.subscriptions.pop(number, None) and self.isOpen:
            self.send(message(ENDED, number=number))

    def lose(self, why):
        """Everything the worker had of us is gone (6.3): calls that may run twice go to the queue, others are lost."""
        # By a new connection and under another epoch nothing of the session that was left can be taken for the next.
        self.epoch = (self.epoch + 1) % 2**64
        self.poller.unregister(self.socket)
        self.socket.close(0)
        self.socket = self.opened(zmq.DEALER)
        self.socket.connect(self.endpoint)
        self.poller.register(self.socket, zmq.POLLIN)
        self.isOpen, self.worker, self.workerEpoch, self.session = False, None, None, 0
        self.nextHello, self.helloPause = time.monotonic() + 0.05, 0.1
        self.sent.clear()
        self.invocations.clear()
        self.answers.clear()
        for result in list(self.calls.values()):
            if result.phase == "local":
                continue
            if result.flags & IDEMPOTENT:
                result.phase = "local"
                self.waiting.appendleft(result.id)
            else:
                self.end(result, Lost(f"{why}; whether {result.function} ran is unknown"))

    def tick(self, now):
        for result in [result for result in self.calls.values() if result.deadline and result.deadline <= now]:
            self.end(result, Expired(f"{result.function} expired; it was {result.phase}"), 1)
        if self.workerEpoch is not None and now - self.lastHeard > SILENCE_SECONDS:
            self.lose("the worker was silent")
        if not self.isOpen and now >= self.nextHello:
            self.nextHello, self.helloPause = now + self.helloPause, min(self.helloPause * 2, SILENCE_SECONDS)
            hello = {"minor": 0, "client": self.identity, "name": self.name}
            hello |= {"beat": int(BEAT_SECONDS * 1000), "maxPayload": MAX_PAYLOAD}
            self.send(message(HELLO, pack(hello), id=self.epoch, time=clock(now), number=self.session))
        if self.isOpen and now - self.lastSent >= BEAT_SECONDS:
            self.send(self.stamp(now))
        deadlines = [result.deadline for result in self.calls.values() if result.deadline]
        return min(deadlines + [self.nextHello if not self.isOpen else now + 1.0]) - now

    def receive(self, frames):
        self.lastHeard, connection = time.monotonic(), self.socket
        try:
            for part in messages(frames):
                if self.socket is connection:  # what comes behind the end of the session is nothing of the next
                    self.take(part)
        except (ProtocolError, ValueError, msgpack.UnpackException):
            self.malformed += 1

    def take(self, part):
        result = self.calls.get(part.id)
        if part.kind in (REPLY, ERROR):
            self.sent.discard(part.id)
            if result and result.deadline and time.monotonic() >= result.deadline:
                self.end(result, Expired(f"{result.function} expired; it was {result.phase}"))
            elif result:
                failure = RemoteError.unpacked(part.payload) if part.kind == ERROR else None
                self.end(result, failure, value=None if failure else msgpack.unpackb(part.payload))
            self.dispatch()
        elif part.kind == CANCELLED:
            self.sent.discard(part.id)
            # Dropped too early, the worker holds earlier stamps against what is sent now.
            if part.number == 3 and result and result.deadline and time.monotonic() < result.deadline:
                self.isClockNew = True
            if result and part.number in (0, 3):
                self.end(result, Expired(f"{result.function} expired before it was started"))
            elif result:
                self.end(result, Lost(f"the worker does not know {result.function} any more"))
            self.dispatch()
        elif part.kind in (ACCEPTED, STARTED) and result:
            result.phase = "running" if part.kind == STARTED else "accepted"
        elif part.kind == PROGRESS and result:
            result.progress.append(msgpack.unpackb(part.payload))
        elif part.kind in (EVENT, INVOKE):
            self.deliver(part)
        elif part.kind == ENDED:
            self.subscriptions.pop(part.number, None)
        elif part.kind == WELCOME:
            self.welcome(part.id, part.number, part.time, msgpack.unpackb(part.payload))
        elif part.kind == RESET and self.isOpen:
            self.isOpen, self.nextHello, self.helloPause = False, 0.0, 0.1
        elif part.kind == BEAT and self.workerEpoch not in (None, part.id):
            self.lose("the worker was restarted")
        elif part.kind == GOODBYE:
            self.isDraining = True
            if part.number != 0:
                self.lose("the worker has left")
        elif part.kind == REFUSED:
            error = RemoteError.unpacked(part.payload)
            if error.code != "busy":  # there may be room for this client later: it says HELLO again
                for each in list(self.calls.values()):
                    self.end(each, error)
        elif part.kind == PING:
            callback = self.subscriptions.get(part.number)
            if callback and part.time == 1 and len(part.payload) == 8:  # what has a lower number was lost (7.2)
                following = int.from_bytes(part.payload, "little")
                callback.missing += max(0, following - callback.next)
                callback.next = max(following, callback.next)
            self.send(message(PONG, id=part.id))
        elif part.kind not in (BEAT, PONG, ACCEPTED, STARTED, PROGRESS):
            self.strange += 1

    def welcome(self, epoch, session, connection, fields):
        """A session begins, or goes on (6.3)."""
        former = (self.workerEpoch, self.session, True)
        if self.workerEpoch is not None and former != (epoch, session, fields.get("resumed", False)):
            return self.lose("the worker has forgotten this client")
        self.worker, self.workerEpoch, self.session = fields.get("name", ""), epoch, session
        self.window, self.isOpen, self.isDraining = max(1, fields["window"]), True, False
        self.defined.clear()
        self.sent.clear()
        if connection > 1:  # the worker ends what it invoked by former connections and is not named here (5, PENDING)
            ids = b"".join(struct.pack("<Q", invocation) for invocation in self.invocations)
            self.send(message(PENDING, ids, number=connection))
        while self.answers:
            self.answered(*self.answers.popleft())
        for result in list(self.calls.values()):
            if result.phase != "local":
                self.transmit(result, RESENT)  # only if the session goes on: `lose` has put the others back
        self.dispatch()

    def deliver(self, part):
        callback = self.subscriptions.get(part.number)
        if callback is None:
            self.send(message(ENDED, number=part.number))
            if part.kind == INVOKE:
                gone = RemoteError("subscriberGone", f"callback {part.number} is over")
                self.send(message(ERROR, gone.packed(), id=part.id))
            return
        sequence = part.id if part.kind == EVENT else callback.next
        callback.missing += max(0, sequence - callback.next)
        callback.next = sequence + 1
        arguments = msgpack.unpackb(part.payload)
        if part.kind == EVENT:
            self.callbacks.submit(guarded, callback.body, *arguments)
        else:
            self.invocations.add(part.id)
            self.callbacks.submit(self.answer, part, self.epoch, callback.body, arguments)

    def answer(self, part, life, body, arguments):
        """Runs on the callback thread: answers a worker that waits (7.3)."""
        try:
            frame = message(REPLY, pack(body(*arguments)), id=part.id)
        except Exception as error:
            frame = message(ERROR, RemoteError.of(error, f"callback {part.number} of {self.name}").packed(), id=part.id)
        self.post(self.answered, part.id, life, frame)

    def answered(self, invocation, life, frame):
        """Sends an answer, or keeps it until the session goes on; in another one the id may be another invocation's."""
        if life != self.epoch:
            return
        if not self.isOpen:
            self.answers.append((invocation, life, frame))
            return
        self.invocations.discard(invocation)
        self.send(frame)

    def leave(self):
        for result in list(self.calls.values()):
            self.end(result, Lost("the client was closed"))
        if self.isOpen:
            self.send(message(GOODBYE, number=1))
        self.callbacks.shutdown(wait=False)


# -- Worker ------------------------------------------------------------------------------------------------------------


class Job:
    """A request on its way through the worker; handlers that ask for it get it as their first argument."""

    def __init__(self, worker, session, id, function, payload, time_left, key):
        self.worker, self.session, self.id, self.function = worker, session, id, function
        self.payload, self.key = payload, key
        self.limit(time_left)
        self.reportAt = time.monotonic() + REPORT_SECONDS
        self.future = None
        self.isRunning = False
        self.cancelled = threading.Event()
        self.sequence, self.room = itertools.count(), Room()

    def limit(self, time_left):
        """The caller waits for so many milliseconds from now: said with the request, or moved since (8.1)."""
        self.deadline = None if time_left == NO_LIMIT else time.monotonic() + time_left / 1000

    def check(self):
        if self.cancelled.is_set():
            raise Cancelled("nobody wants the result any more")

    def report(self, progress):
        """Tells the caller how far the work is; waits while much of what was told hasn't been read (5, FLOW)."""
        self.room.take(self)
        self.worker.post(self.tell, pack(progress))

    def tell(self, progress):  # on the loop's thread
        self.worker.send(self.session, message(PROGRESS, progress, id=self.id, time=next(self.sequence)))
        self.worker.told(self.session, self.room, time=2, payload=struct.pack("<Q", self.id))

    def callback(self, reference):
        """The client's callback behind an argument: an array of client, subscription and lifetime (7.1)."""
        client, number, _ = reference
        if not 0 <= number < 2**32:
            raise BadArguments(f"a callback's subscription is a number of 32 bits, not {number}")
        with self.session.lock:
            subscriber = self.session.subscribers.get(number)
            if subscriber is None:
                subscriber = Subscriber(self.worker, self.session, number)
                # What the client said of it may have come before this request was read (7.5).
                news = self.session.news.get(number)
                if news == ENDED:
                    subscriber.end()
                elif news == FLOW:
                    subscriber.room.set(isPaused=True)
                if news != ENDED:
                    self.session.news.pop(number, None)
                    self.session.subscribers[number] = subscriber
        return JobCallback(subscriber, self)


class Room:
    """How far handlers may get ahead of a client: a PING after so many messages asks whether it has read them."""

    LIMIT = 8192

    def __init__(self):
        self.changed = threading.Condition()
        self.unread = self.sent = self.asked = 0
        self.isPaused = self.isOver = False

    def take(self, job=None, waits=True):
        """Waits until one more may be sent; returns False if it doesn't wait and there is no room."""
        with self.changed:
            while (self.isPaused or self.unread >= self.LIMIT) and not self.isOver:
                if not waits:
                    return False
                if job:
                    job.check()
                self.changed.wait(0.05)  # its cancellation is looked for
            self.unread += 1
        return True

    def ask(self):  # on the loop's thread, after one was sent
        self.sent += 1
        return self.due()

    def due(self):
        if self.asked or self.sent < self.LIMIT // 4:
            return False
        self.asked, self.sent = self.sent, 0
        return True

    def read(self):
        with self.changed:
            self.unread, self.asked = self.unread - self.asked, 0
            self.changed.notify_all()

    def set(self, isPaused=False, isOver=False):
        with self.changed:
            self.isPaused, self.isOver = isPaused, self.isOver or isOver
            self.changed.notify_all()


class JobCallback:
    """A callback as a handler has it: what waits ends when the handler's call is cancelled."""

    def __init__(self, subscriber, job):
        self.subscriber, self.job = subscriber, job

    def emit(self, *arguments):
        """Tells the client something; waits until there is room for it."""
        self.subscriber.emit(arguments, self.job)

    def try_emit(self, *arguments):
        """Tells the client something if there is room for it; returns whether."""
        return self.subscriber.emit(arguments, self.job, waits=False)

    def __call__(self, *arguments):
        return self.subscriber(*arguments)

    def cancel(self):
        self.subscriber.cancel()


class Subscriber:
    """A callback of a client, in a worker."""

    def __init__(self, worker, session, number):
        self.worker, self.session, self.number = worker, session, number
        self.next = 0
        self.isEnded = False
        self.room = Room()

    def emit(self, arguments, job, waits=True):
        """Sends an event once there is room: the client asks for no pause, and has read most of what came before."""
        isTaken = self.room.take(job, waits)
        if self.isEnded:
            raise RemoteError("subscriberGone", f"callback {self.number} is over")
        if isTaken:
            self.worker.post(self.transmit, EVENT, pack(list(arguments)), None)
        return isTaken

    def end(self):
        self.isEnded = True
        self.room.set(isOver=True)

    def __call__(self, *arguments):
        """Asks the client, and waits for what its callback returns."""
        if self.isEnded:
            raise RemoteError("subscriberGone", f"callback {self.number} is over")
        answer = concurrent.futures.Future()
        self.worker.post(self.transmit, INVOKE, pack(list(arguments)), answer)
        return answer.result()

    def cancel(self):
        self.worker.post(self.transmit, ENDED, b"", None)

    def transmit(self, kind, payload, answer):  # on the loop's thread
        id = 0
        if self.isEnded:
            if answer:
                answer.set_exception(RemoteError("subscriberGone", f"callback {self.number} is over"))
            return
        if kind == ENDED:
            self.session.remember(self.number, ENDED)
            self.end()
        else:
            id, self.next = self.next, self.next + 1
        if answer:
            id = next(self.worker.invocations)
            self.session.invocations[id] = (self.number, answer)
        limit = NO_LIMIT if kind == INVOKE else 0
        self.worker.send(self.session, message(kind, payload, id=id, time=limit, number=self.number))
        if kind == EVENT:
            self.worker.told(self.session, self.room, struct.pack("<Q", self.next), time=1, number=self.number)


class Session:
    """What a worker knows of a client."""

    def __init__(self, number, epoch, route, client):
        self.number, self.epoch, self.route, self.client = number, epoch, route, client
        self.functions, self.jobs, self.subscribers, self.invocations = {}, {}, {}, {}
        self.lock = threading.Lock()  # handlers' threads read callbacks, the loop's is told what becomes of them
        self.news = collections.OrderedDict()  # subscription -> ENDED or FLOW, of those without a subscriber
        self.questions = {}  # id of a PING -> the room that its PONG makes, and the PING's payload and fields
        self.results = collections.OrderedDict()  # id -> the answer as it was sent (8.3)
        self.kept = 0  # their bytes
        self.forgottenUpTo = 0
        self.lastHeard = self.lastSent = time.monotonic()

    def remember(self, number, news):
        """A callback has ended, or its events are to pause (FLOW) or to go on (None), known here or not (7.5)."""
        with self.lock:
            subscriber = self.subscribers.get(number)
            if subscriber and news != ENDED:
                subscriber.room.set(isPaused=news == FLOW)
                return
            if subscriber:
                del self.subscribers[number]
                subscriber.end()
            if news == ENDED or self.news.get(number) != ENDED:
                self.news.pop(number, None)
                if news:
                    self.news[number] = news
            while len(self.news) > NEWS_KEPT:
                self.news.popitem(last=False)


class Worker(Loop):
    """Runs functions for clients."""

    def __init__(self, endpoint="tcp://127.0.0.1:*", name="python", concurrency=4, window=1024):
        super().__init__(zmq.ROUTER)
        self.name, self.concurrency, self.window = name, concurrency, window
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.bind(endpoint)
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.handlers, self.sessions, self.keys = {}, {}, {}
        self.invocations, self.sessionNumbers = itertools.count(1), itertools.count(1)
        self.received = self.completed = self.failed = self.dropped = 0
        self.pool = concurrent.futures.ThreadPoolExecutor(concurrency, "drover-handler")

    def register(self, name, wants_job=False):
        def registered(body):
            if name in self.handlers:
                raise ValueError(f"the function {name!r} is registered twice")
            self.handlers[name] = (body, wants_job)
            return body

        return registered

    def start(self):
        self.thread.start()

    # On the loop's thread.

    def send(self, session, frame):
        session.lastSent = time.monotonic()
        self.route(session.route, frame)

    def told(self, session, room, payload=b"", **fields):
        """Something was sent that the client is to read: after many of them it is asked whether it has (5, PING)."""
        if room.ask():
            self.ask(session, room, payload, fields)

    def ask(self, session, room, payload, fields):
        nonce = next(self.invocations)
        session.questions[nonce] = room, payload, fields
        self.send(session, message(PING, payload, id=nonce, **fields))

    def heard_back(self, session, nonce):
        room, payload, fields = session.questions.pop(nonce, (None, None, None))
        if room:
            room.read()
            if room.due():
                self.ask(session, room, payload, fields)

    def route(self, route, frame):
        try:
            self.socket.send_multipart([route, frame], zmq.NOBLOCK)
        except zmq.ZMQError:
            pass  # the connection is gone; if its client comes back it asks again for what it misses

    def receive(self, frames):
        route, session = frames[0], self.sessions.get(frames[0])
        if session:
            session.lastHeard = time.monotonic()
        try:
            for part in messages(frames[1:]):
                session = self.sessions.get(route)
                if part.kind == HELLO:
                    self.hello(route, part.id, part.number, msgpack.unpackb(part.payload))
                elif session:
                    self.take(session, part)
                else:
                    self.route(route, message(RESET))
        except (ProtocolError, ValueError, KeyError, IndexError, msgpack.UnpackException):
            self.malformed += 1

    def hello(self, route, epoch, claimed, fields):
        client = fields["client"]
        session = next((each for each in self.sessions.values() if each.client == client), None)
        isResumed = session is not None and session.epoch == epoch
        if claimed and not (isResumed and session.number == claimed):
            # The session that the client wants to go on with is gone. Another one would take what the client sends again
            # for new (6.3).
            return self.route(route, self.welcome(0, False))
        if isResumed:
            if self.sessions.get(route, session) is not session:
                self.lose(self.sessions[route])
            del self.sessions[session.route]
            session.route = route
            session.lastHeard = time.monotonic()
        else:
            for former in (session, self.sessions.get(route)):
                if former:
                    self.lose(former)
            session = Session(next(self.sessionNumbers), epoch, route, client)
        self.sessions[route] = session
        self.send(session, self.welcome(session.number, isResumed))
        with session.lock:
            subscribers = list(session.subscribers.values())
        for subscriber in subscribers:
            subscriber.room.set(isPaused=False)  # a pause is said again (7.4)
            if subscriber.next:  # what went with the connection is missing, though no event may come any more (7.2)
                payload = struct.pack("<Q", subscriber.next)
                self.send(session, message(PING, payload, id=next(self.invocations), time=1, number=subscriber.number))
        for nonce in list(session.questions):  # what was asked about was read, or lost with the connection
            self.heard_back(session, nonce)

    def welcome(self, number, isResumed):
        welcome = {"minor": 0, "worker": self.identity, "name": self.name, "window": self.window}
        welcome |= {"beat": int(BEAT_SECONDS * 1000), "silence": int(SILENCE_SECONDS * 1000)}
        welcome |= {"maxPayload": MAX_PAYLOAD, "concurrency": self.concurrency, "resumed": isResumed}
        return message(WELCOME, pack(welcome), id=self.epoch, number=number)

    def lose(self, session):
        """A client is gone: what it waited for isn't run, what runs is asked to stop (6.5)."""
        self.sessions.pop(session.route, None)
        for job in list(session.jobs.values()):
            self.cancel(job, None)
        with session.lock:
            for subscriber in session.subscribers.values():
                subscriber.end()
        for _, answer in session.invocations.values():
            answer.set_exception(RemoteError("subscriberGone", "the client is gone"))
        session.invocations.clear()

    def take(self, session, part):
        if part.kind == DEFINE:
            session.functions[part.number] = part.payload.decode()
        elif part.kind == REQUEST:
            self.request(session, part)
        elif part.kind == CANCEL:
            job = session.jobs.get(part.id)
            if job:
                self.cancel(job, 0)
            else:
                self.send(session, message(CANCELLED, id=part.id, number=2))
        elif part.kind == DEADLINE:
            if part.id in session.jobs:
                session.jobs[part.id].limit(part.time)
        elif part.kind in (REPLY, ERROR):
            _, answer = session.invocations.pop(part.id, (0, None))
            if answer and part.kind == REPLY:
                answer.set_result(msgpack.unpackb(part.payload))
            elif answer:
                answer.set_exception(RemoteError.unpacked(part.payload))
        elif part.kind == ENDED:
            session.remember(part.number, ENDED)
            for id in [id for id, (number, _) in session.invocations.items() if number == part.number]:
                gone = RemoteError("subscriberGone", f"callback {part.number} is over")
                session.invocations.pop(id)[1].set_exception(gone)
        elif part.kind == FLOW:
            session.remember(part.number, FLOW if part.id == 0 else None)
        elif part.kind == BEAT and part.id != session.epoch:
            self.route(session.route, message(RESET))
        elif part.kind == GOODBYE:
            self.lose(session)
        elif part.kind == PING:
            self.send(session, message(PONG, pack(self.status()), id=part.id))
        elif part.kind == PONG:
            self.heard_back(session, part.id)
        elif part.kind != BEAT:
            self.strange += 1
            if part.flags & MUST_UNDERSTAND and part.id:
                refusal = RemoteError("unsupported", f"kind {part.kind} is not known here", worker=self.name)
                self.send(session, message(ERROR, refusal.packed(), id=part.id))

    def status(self):
        jobs = [job for session in self.sessions.values() for job in session.jobs.values()]
        running = sum(job.isRunning for job in jobs)
        counts = {"running": running, "queued": len(jobs) - running, "concurrency": self.concurrency}
        counts |= {"clients": len(self.sessions), "received": self.received, "completed": self.completed}
        return counts | {"worker": self.name, "failed": self.failed, "dropped": self.dropped, "draining": False}

    def request(self, session, part):
        """At most once: a request that is here is not taken again, one that was answered is answered again (8.3)."""
        self.received += 1
        if part.id in session.jobs:
            if part.flags & RESENT:
                session.jobs[part.id].limit(part.time)
            return
        if part.flags & RESENT:
            answer = session.results.get(part.id)
            if answer and not (part.flags & RENEWED and answer[1] == CANCELLED):
                return self.send(session, answer)
            if part.id <= session.forgottenUpTo and not part.flags & IDEMPOTENT:
                return self.refuse(session, part.id, "indeterminate", "it may have run; its answer is held no more")
        function, payload, key = session.functions.get(part.number), part.payload, None
        if function not in self.handlers:
            return self.refuse(session, part.id, "unknownFunction", f"no function {function!r} is registered here")
        if part.content != 0:
            return self.refuse(session, part.id, "unsupported", f"content type {part.content} is not known here")
        if len(session.jobs) >= self.window:
            return self.refuse(session, part.id, "busy", f"the client has {self.window} requests here", True)
        if part.flags & METADATA:
            unpacker = msgpack.Unpacker()
            unpacker.feed(payload)
            key = unpacker.unpack().get("key")
            payload = payload[unpacker.tell() :]
        job = Job(self, session, part.id, function, payload, part.time, key)
        session.jobs[part.id] = job
        if key is not None:
            self.keys.setdefault(key, collections.deque()).append(job)
            if self.keys[key][0] is not job:
                return
        self.launch(job)

    def refuse(self, session, id, code, text, retryable=False):
        error = RemoteError(code, text, retryable=retryable, worker=self.name)
        self.answer(session, id, message(ERROR, error.packed(), id=id))

    def answer(self, session, id, frame):
        """Answers, and keeps the answer for a copy of the request that may come (8.3)."""
        session.kept += len(frame) - len(session.results.pop(id, b""))
        session.results[id] = frame
        while len(session.results) > 256 or session.kept > 16 << 20:
            oldest, frame_of_oldest = session.results.popitem(last=False)
            session.kept -= len(frame_of_oldest)
            session.forgottenUpTo = max(session.forgottenUpTo, oldest)
        if self.sessions.get(session.route) is session:
            self.send(session, frame)

    def launch(self, job):
        job.future = self.pool.submit(self.perform, job)

    def cancel(self, job, stage):
        job.cancelled.set()
        if job.future is None or job.future.cancel():
            self.dropped += 1
            self.finish(job, None if stage is None else message(CANCELLED, id=job.id, number=stage), False)

    def perform(self, job):  # on a handler's thread
        deadline = job.deadline  # the loop's thread may move it meanwhile
        if deadline and time.monotonic() >= deadline:
            return self.post(self.finish, job, message(CANCELLED, id=job.id, number=3), False)
        job.isRunning = True
        isError = False
        began = time.monotonic()
        try:
            body, wants_job = self.handlers[job.function]
            arguments = msgpack.unpackb(job.payload)
            value = body(job, *arguments) if wants_job else body(*arguments)
            kind, payload = REPLY, pack(value)
        except Exception as error:
            isError = True
            remote = RemoteError.of(error, f"{job.function} on {self.name}", self.name)
            kind, payload = ERROR, remote.packed()
        ran = 1 + int((time.monotonic() - began) * 1e6)
        self.post(self.finish, job, message(kind, payload, id=job.id, time=min(ran, NO_LIMIT)), True, isError)

    def finish(self, job, frame, hasRun=True, isError=False):
        session = job.session
        if session.jobs.pop(job.id, None) is None:
            return
        if hasRun:
            self.completed += 1
            self.failed += isError
        if frame:
            self.answer(session, job.id, frame)
        line = self.keys.get(job.key)
        if line and job in line:
            wasFirst = line[0] is job
            line.remove(job)
            if not line:
                del self.keys[job.key]
            elif wasFirst:
                self.launch(line[0])

    def tick(self, now):
        wait = 1.0
        for session in list(self.sessions.values()):
            if now - session.lastHeard > SILENCE_SECONDS:
                self.lose(session)
                continue
            if now - session.lastSent >= BEAT_SECONDS:
                self.send(session, message(BEAT, id=self.epoch))
            for job in list(session.jobs.values()):
                # A running handler gets a moment more: the caller's clock ends the call, not the handler's complaint.
                lapseAt = job.deadline and job.deadline + (LAPSE_SECONDS if job.isRunning else 0)
                if lapseAt and now >= lapseAt and not job.cancelled.is_set():
                    self.cancel(job, 3)
                elif job.reportAt and now >= job.reportAt:
                    # 4: it waits for another one of its ordering key, and needs no slot until then (5, ACCEPTED).
                    held = 0 if job.isRunning or self.keys.get(job.key, [job])[0] is job else 4
                    self.send(session, message(STARTED if job.isRunning else ACCEPTED, id=job.id, number=held))
                    job.reportAt = None if job.isRunning else now + 0.1
                wait = min([wait] + [at - now for at in (lapseAt, job.reportAt) if at and at > now])
        return wait

    def leave(self):
        for session in list(self.sessions.values()):
            self.send(session, message(GOODBYE, number=1))
            self.lose(session)
        self.pool.shutdown(wait=False, cancel_futures=True)
