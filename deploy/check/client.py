#!/usr/bin/env python3
"""A client that asks all the time until its standard input has a line, and then says as JSON what came of it.

    client.py PORT fresh|kept [TARGET [SERVICE]]    a new connection for each request; or one that is kept until the server says
                                                    otherwise
"""

import collections
import http.client
import json
import select
import sys
import time

PAUSE_SECONDS = 0.005


def ask(connection, target, headers):
    connection.request("GET", target, headers=headers)
    answer = connection.getresponse()
    answer.read()
    name = answer.getheader("x-cellmesh-error")
    return f"{answer.status} {name}" if name else str(answer.status), answer.will_close


def main(port, mode, target="/?item=tea", service=None):
    headers = {"x-cellmesh-service": service} if service else {}
    answers, closed, longest, last = collections.Counter(), 0, 0.0, None
    right = time.monotonic()
    connection, is_used = None, False
    while not select.select([sys.stdin], [], [], 0)[0]:
        if connection is None:
            connection, is_used = http.client.HTTPConnection("127.0.0.1", port, timeout=20), False
        try:
            last, closes = ask(connection, target, headers)
            is_used = True
        except (http.client.HTTPException, OSError) as error:
            # A connection on which nothing was answered yet may not have been accepted either: the request is safe to repeat.
            is_new = isinstance(error, ConnectionRefusedError) or not is_used
            last, closes = "not connected" if is_new else "cut", True
        answers[last] += 1
        if last == "200":
            longest, right = max(longest, time.monotonic() - right), time.monotonic()
            closed += closes
        if closes or mode == "fresh":
            connection.close()
            connection = None
        time.sleep(PAUSE_SECONDS)
    print(json.dumps({"answers": answers, "closed": closed, "longest_gap_s": longest, "last": last}))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
