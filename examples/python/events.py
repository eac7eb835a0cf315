#!/usr/bin/env python3
"""Listens to events through a running gateway. Needs nothing but Python.

    python3 examples/python/events.py http://127.0.0.1:8787 'v2.users.*'

It comes back by itself when the stream ends, with the id of the last event, so that it is given what it missed.
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


def lines(base, topics, last):
    query = urllib.parse.urlencode([("topic", topic) for topic in topics])
    request = urllib.request.Request(f"{base}/tidegate/events?{query}")
    if last:
        request.add_header("Last-Event-ID", last)
    # Something comes every 15 seconds.
    with urllib.request.urlopen(request, timeout=60) as stream:
        for line in stream:
            yield line.decode().rstrip("\n")


def listen(base, topics):
    last = ""
    while True:
        try:
            name, data = "", ""
            for line in lines(base, topics, last):
                field, _, value = line.partition(": ")
                if field == "id":
                    last = value
                elif field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif not line and data:
                    yield name or "event", json.loads(data)
                    name, data = "", ""
        except urllib.error.HTTPError as error:
            sys.exit(f"the gateway refuses: {error.code} {error.read().decode(errors='replace')}")
        except OSError as error:
            print(f"listening again: {error}", file=sys.stderr)
        time.sleep(1)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    for name, told in listen(sys.argv[1].rstrip("/"), sys.argv[2:]):
        print(name, json.dumps(told), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
