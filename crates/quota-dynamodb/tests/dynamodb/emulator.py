"""DynamoDB for one test: moto on a free port of the loopback, which is printed.

moto checks a condition and writes in two steps, and serves each request in a thread: two writers could both find their
condition met, which DynamoDB never lets happen. So requests pass one lock here. Beside DynamoDB it answers

    /test/counts   how many requests of each kind there were
    /test/lose     the next write happens, and its answer does not arrive for ten seconds
"""

import json
import threading
import time

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

dynamodb = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()
counts = {}
lose = False


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


def app(environ, start_response):
    global lose
    path = environ["PATH_INFO"]
    if path.startswith("/test/"):
        if path == "/test/lose":
            lose = True
        start_response("200 OK", [("Content-Type", "application/json"), ("Connection", "close")])
        return [json.dumps(counts).encode()]
    kind = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    with lock:
        counts[kind] = counts.get(kind, 0) + 1
        answer = list(dynamodb(environ, start_response))
        lost, lose = lose and kind == "PutItem", lose and kind != "PutItem"
    if lost:
        time.sleep(10)
    return answer


server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
server.daemon_threads = True
print(server.port, flush=True)
server.serve_forever()
