#!/usr/bin/env python3
"""Many clients that ask all the time until standard input has a line, and then say as JSON what came of it.

    crowd.py PORT TARGET SERVICE COUNT      each client has one connection, and one request in flight
"""

import asyncio
import collections
import json
import resource
import sys
import time

# Longer than the node takes for any request: who waits so long got no answer at all.
PATIENCE_SECONDS = 30
# Of a client that was refused.
PAUSE_SECONDS = 0.5


async def answer_of(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    await reader.readexactly(int(headers["content-length"]))
    error = headers.get("x-cellmesh-error")
    return " ".join(filter(None, [head[0].split()[1], error])), headers.get("connection") == "close"


async def ask(streams, request):
    reader, writer = streams
    writer.write(request)
    await writer.drain()
    return await answer_of(reader)


async def client(port, request, answers, slowest, stop):
    streams = None
    while not stop.is_set():
        start = time.monotonic()
        try:
            streams = streams or await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            outcome, closes = "not connected", True
        else:
            try:
                outcome, closes = await asyncio.wait_for(ask(streams, request), PATIENCE_SECONDS)
            except TimeoutError:
                outcome, closes = "hung", True
            except (OSError, EOFError):
                outcome, closes = "cut", True
        answers[outcome] += 1
        slowest[0] = max(slowest[0], time.monotonic() - start)
        if closes and streams:
            streams[1].close()
            streams = None
        if outcome != "200":
            await asyncio.sleep(PAUSE_SECONDS)
    if streams:
        streams[1].close()


async def main(port, target, service, count):
    request = f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-cellmesh-service: {service}\r\n\r\n".encode()
    answers, slowest, stop = collections.Counter(), [0.0], asyncio.Event()
    clients = [asyncio.create_task(client(int(port), request, answers, slowest, stop)) for _ in range(int(count))]
    await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    await asyncio.gather(*clients)
    print(json.dumps({"answers": answers, "slowest_s": slowest[0]}))


if __name__ == "__main__":
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    asyncio.run(main(*sys.argv[1:]))
