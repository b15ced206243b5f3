#!/usr/bin/env python3
"""A Service and its clients: so many requests a second, whatever becomes of those before (open loop).

    traffic.py RATE         a line of standard input is {"to": [[NAME, PID, PORT], ...]} or {"killed": SECONDS}; its end is theirs

What kube-proxy does for the clients of a Service is done here: a new connection goes to one of the endpoints named last, in turn, and
stays with it until one of both closes it. Nothing is tried a second time: a connection that an endpoint refuses is a request lost.
PID is a process in the network of the pod. SECONDS is when something was killed, by the system's monotonic clock.

Of twenty requests ten go over kept connections of HTTP/1.1, nine over HTTP/2, one over a connection of its own. Beside these some
clients ask seldom. Each request has a number, which has to come back in the body; each has one outcome, and what comes for none is
counted too.
"""

import asyncio
import collections
import functools
import itertools
import json
import random
import socket
import sys
import time

import hpack

from network import network_of

# Longer than a request may take (`dpu.request_timeout`): who waits so long gets no answer at all.
PATIENCE_SECONDS = 20
TICK_SECONDS = 0.004
KEPT_COUNT, H2_COUNT, SELDOM_COUNT = 32, 4, 16
SELDOM_SECONDS = 8
STREAMS_MAX = 50
# Connections of one request each, at a time: the node takes so many of one address.
FRESH_MAX = 200
# The oldest requests, of which some may have waited for too long.
LOOK_COUNT = 100
RIGHT = "200"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 1
END_HEADERS = 4


class Request:
    def __init__(self, number, kind):
        self.number, self.kind, self.start = number, kind, time.monotonic()
        self.sent, self.ended, self.connection, self.to = None, False, None, None
        # When something was killed while it was in flight.
        self.killed = None

    @property
    def path(self):
        return f"/?item={self.number}".encode()

    @property
    def body(self):
        return b'{"wanted":"item=%d","price":"7","stock":"hello","delivery":"tomorrow"}' % self.number


class Seen:
    """What became of all of them."""

    def __init__(self):
        self.started, self.open = 0, {}
        self.answers = collections.defaultdict(collections.Counter)
        self.errors, self.right_ms = [], {}
        self.slowest, self.told_to_go, self.moved, self.unasked = 0.0, 0, 0, 0
        # Seconds from a kill to the outcome of each request that was in flight then.
        self.after_kill = []

    def note_kill(self, at):
        for request in self.open.values():
            if request.killed is None and request.sent is not None and request.sent <= at:
                request.killed = at

    def begin(self, kind):
        self.started += 1
        request = self.open[self.started] = Request(self.started, kind)
        return request

    def settle(self, request, outcome):
        assert not request.ended, f"a second outcome of request {request.number}: {outcome}"
        request.ended = True
        del self.open[request.number]
        now = time.monotonic()
        self.answers[request.kind][outcome] += 1
        # Since it was sent: before that it waited for a connection of this busy client.
        self.slowest = max(self.slowest, now - (request.sent or now))
        if request.killed is not None:
            self.after_kill.append(now - request.killed)
        if outcome == RIGHT:
            self.right_ms[int(now * 1000)] = None
        else:
            self.errors.append((request.start, now, f"{request.kind}: {outcome}", request.to))

    def answer(self, request, status, error, body):
        if status == RIGHT and body != request.body:
            error = "with another body"
        self.settle(request, f"{status} {error}" if error else status)

    def report(self):
        return {"started": self.started, "answers": self.answers, "errors": self.errors, "right_ms": list(self.right_ms),
                "slowest_s": self.slowest, "told_to_go": self.told_to_go, "moved": self.moved, "unasked": self.unasked,
                "after_kill_s": self.after_kill}


class Connection(asyncio.Protocol):
    """Of either protocol. `has_answered`: what fails before may not even have been accepted."""

    def __init__(self, seen):
        self.seen, self.buffer = seen, bytearray()
        self.transport, self.is_usable, self.has_answered = None, True, False

    def connection_made(self, transport):
        self.transport = transport

    def takes_more(self):
        return self.is_usable and not self.transport.is_closing()

    def lost(self, request, is_begun):
        if not request.ended:
            self.seen.settle(request, "truncated" if is_begun else "cut" if self.has_answered else "not connected")

    def close(self):
        self.is_usable = False
        if self.transport:
            self.transport.close()


class Http1(Connection):
    request = None

    def send(self, request):
        self.request, request.connection, request.sent = request, self, time.monotonic()
        request.to = self.to
        self.transport.write(b"GET %b HTTP/1.1\r\nhost: shop\r\n\r\n" % request.path)

    def data_received(self, data):
        self.buffer += data
        head_len = self.buffer.find(b"\r\n\r\n")
        if self.request is None:
            self.seen.unasked += 1
            return self.close()
        if head_len < 0:
            return None
        first, *lines = self.buffer[:head_len].decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        end = head_len + 4 + int(headers["content-length"])
        if len(self.buffer) < end:
            return None
        body, request = bytes(self.buffer[head_len + 4:end]), self.request
        del self.buffer[:end]
        self.seen.unasked += bool(self.buffer)
        self.request, self.has_answered = None, True
        if headers.get("connection") == "close":
            self.seen.told_to_go += 1
            self.close()
        if not request.ended:
            self.seen.answer(request, first.split()[1], headers.get("x-cellmesh-error"), body)
        self.on_free(self)

    def connection_lost(self, _error):
        self.is_usable = False
        if self.request:
            self.lost(self.request, is_begun=bool(self.buffer))
            self.request = None
            self.on_free(self)


class Stream:
    def __init__(self, request):
        self.request, self.status, self.error, self.body = request, None, None, b""


class Http2(Connection):
    def __init__(self, seen):
        super().__init__(seen)
        self.streams, self.next_id, self.decoder = {}, 1, hpack.Decoder()
        # What waits for a stream to end.
        self.waiting = collections.deque()

    def frame(self, kind, flags, stream, payload=b""):
        self.transport.write(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.frame(SETTINGS, 0, 0)
        # As much as there is: answers are small, and never wait for room.
        self.frame(WINDOW_UPDATE, 0, 0, (2**31 - 1 - 65535).to_bytes(4, "big"))

    def send(self, request):
        if len(self.streams) == STREAMS_MAX:
            self.waiting.append(request)
            return
        request.sent, request.to = time.monotonic(), self.to
        stream, self.next_id = self.next_id, self.next_id + 2
        self.streams[stream] = Stream(request)
        # GET, http; authority and path are literals that nobody has to remember.
        block = b"\x82\x86\x01\x04shop\x04" + bytes([len(request.path)]) + request.path
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, block)

    def data_received(self, data):
        self.buffer += data
        while len(self.buffer) >= 9:
            end = 9 + int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < end:
                return
            kind, flags, stream = self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big")
            payload = bytes(self.buffer[9:end])
            del self.buffer[:end]
            self.take(kind, flags, stream, payload)
        if not self.is_usable and not self.streams:
            self.close()

    def take(self, kind, flags, number, payload):
        if kind in (HEADERS, DATA, RST_STREAM):
            self.take_of_stream(kind, flags, number, payload)
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self.frame(kind, ACK, 0, payload if kind == PING else b"")
        elif kind == GOAWAY:
            self.go(int.from_bytes(payload[:4], "big"))

    def take_of_stream(self, kind, flags, number, payload):
        fields = self.decoder.decode(payload) if kind == HEADERS else ()
        stream = self.streams.get(number)
        if stream is None:
            self.seen.unasked += 1
            return
        for name, value in fields:
            if name == ":status":
                stream.status = value
            elif name == "x-cellmesh-error":
                stream.error = value
        if kind == DATA:
            stream.body += payload
        if kind == RST_STREAM:
            self.settle(number, f"reset {int.from_bytes(payload, 'big')}")
        elif flags & END_STREAM:
            self.has_answered = True
            self.settle(number, None)

    def settle(self, number, outcome):
        stream = self.streams.pop(number)
        if outcome and not stream.request.ended:
            self.seen.settle(stream.request, outcome)
        elif not stream.request.ended:
            self.seen.answer(stream.request, stream.status, stream.error, stream.body)
        self.send_waiting()

    def send_waiting(self):
        waiting, self.waiting = self.waiting, collections.deque()
        for request in waiting:
            self.send(request) if self.takes_more() else self.again(request)

    def go(self, last):
        """Streams after the last were not looked at: they are no requests yet, and are sent elsewhere (RFC 9113, 6.8)."""
        if self.is_usable:
            self.seen.told_to_go += 1
        self.is_usable = False
        for number in [number for number in self.streams if number > last]:
            self.seen.moved += 1
            self.again(self.streams.pop(number).request)
        self.send_waiting()

    def connection_lost(self, _error):
        self.is_usable = False
        for stream in self.streams.values():
            self.lost(stream.request, is_begun=stream.status is not None)
        self.streams.clear()
        self.send_waiting()


class Clients:
    def __init__(self, rate):
        self.rate, self.seen = rate, Seen()
        self.endpoints, self.turn, self.stop = [], 0, False
        self.free, self.waiting = collections.deque([None] * KEPT_COUNT), collections.deque()
        self.h2, self.h2_turn = [None] * H2_COUNT, 0
        self.fresh, self.tasks = asyncio.Semaphore(FRESH_MAX), set()

    def do(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.done)

    def done(self, task):
        self.tasks.discard(task)
        if not task.cancelled():
            task.result()

    async def connect(self, connection):
        """To the next endpoint; false if it takes none."""
        self.turn += 1
        connection.to, pid, port = self.endpoints[self.turn % len(self.endpoints)]
        try:
            with network_of(pid):
                end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            return False
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.sock_connect(end, ("127.0.0.1", port)), PATIENCE_SECONDS)
            await loop.create_connection(lambda: connection, sock=end)
        except OSError:
            end.close()
            return False
        return True

    def begin(self):
        kind = self.seen.started % 20
        if kind == 0:
            self.do(self.ask_fresh(self.seen.begin("fresh")))
        elif kind < 10:
            self.ask_h2(self.seen.begin("http2"))
        else:
            self.waiting.append(self.seen.begin("kept"))
            self.serve_waiting()

    async def ask_fresh(self, request):
        async with self.fresh:
            ended = asyncio.get_running_loop().create_future()
            await self.ask(request, None, functools.partial(self.returned, ended))
            (await ended).close()

    def serve_waiting(self):
        while self.waiting and self.free:
            self.do(self.ask(self.waiting.popleft(), self.free.popleft(), self.give_back))

    def give_back(self, connection):
        self.free.append(connection)
        self.serve_waiting()

    async def ask(self, request, connection, on_free):
        """Over HTTP/1.1, on this connection or a new one. `on_free` gets it back."""
        if connection is None or not connection.takes_more():
            connection = Http1(self.seen)
            if not await self.connect(connection):
                connection.is_usable = False
                self.seen.settle(request, "not connected")
                on_free(connection)
                return
        connection.on_free = on_free
        connection.send(request)

    def ask_h2(self, request):
        self.h2_turn = (self.h2_turn + 1) % H2_COUNT
        place = self.h2[self.h2_turn]
        if isinstance(place, list):
            place.append(request)
        elif place and place.takes_more():
            place.send(request)
        else:
            self.h2[self.h2_turn] = [request]
            self.do(self.connect_h2(self.h2_turn))

    async def connect_h2(self, turn):
        """What is asked meanwhile waits for it."""
        connection = Http2(self.seen)
        connection.again = self.ask_h2
        is_connected = await self.connect(connection)
        waiting, self.h2[turn] = self.h2[turn], connection if is_connected else None
        for request in waiting:
            if is_connected and connection.takes_more():
                connection.send(request)
            else:
                self.seen.settle(request, "not connected")

    async def ask_seldom(self):
        """A client that keeps its connection for what it has to say now and then."""
        kept = None
        while not self.stop:
            await asyncio.sleep(random.uniform(0, SELDOM_SECONDS))
            if self.stop or not self.endpoints:
                continue
            returned = asyncio.get_running_loop().create_future()
            request = self.seen.begin("seldom")
            await self.ask(request, kept, functools.partial(self.returned, returned))
            kept = await returned

    @staticmethod
    def returned(future, connection):
        if not future.done():
            future.set_result(connection)

    def give_up(self):
        """On those that have waited for too long since they were sent."""
        now = time.monotonic()
        for request in list(itertools.islice(self.seen.open.values(), LOOK_COUNT)):
            if request.sent is None or now - request.sent < PATIENCE_SECONDS:
                continue
            self.seen.settle(request, "hung")
            if request.connection:
                request.connection.close()

    async def pace(self):
        start, begun = time.monotonic(), 0
        while not self.stop:
            due = int((time.monotonic() - start) * self.rate)
            while begun < due and self.endpoints:
                begun += 1
                self.begin()
            self.give_up()
            await asyncio.sleep(TICK_SECONDS)

    async def listen(self):
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            self.endpoints = order.get("to", self.endpoints)
            if "killed" in order:
                self.seen.note_kill(order["killed"])
        self.stop = True

    async def run(self):
        orders = asyncio.create_task(self.listen())
        while not self.endpoints:
            await asyncio.sleep(TICK_SECONDS)
        for _ in range(SELDOM_COUNT):
            self.do(self.ask_seldom())
        await self.pace()
        await orders
        while self.seen.open:
            self.give_up()
            await asyncio.sleep(TICK_SECONDS)
        return self.seen.report()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Clients(float(sys.argv[1])).run())))
