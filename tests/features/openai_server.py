"""A chat endpoint on this machine, that answers as the test says and remembers what it was asked."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Reply:
    """What the server does with a request: a status and a body, after a wait; drip: seconds between single bytes."""

    def __init__(self, text: str | None = "", *, status=200, raw=None, headers=None, wait=0.0, drip=0.0, usage=(7, 3)):
        self.status, self.headers, self.wait, self.drip = status, headers or {}, wait, drip
        self.body = raw
        if raw is None:
            chat = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
            if usage:
                chat["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
            self.body = json.dumps(chat, ensure_ascii=False).encode()


class ChatServer:
    """`bodies` and `headers` of all requests in their order; `url` is what a user would write."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply | str]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = self.at_once = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.bodies.append(body)
                    server.headers.append(dict(self.headers) | {"path": self.path})
                    server.times.append(time.monotonic())
                    n = len(server.bodies)
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                try:
                    reply = answer(body, n)
                    reply = Reply(reply) if isinstance(reply, str) else reply
                    time.sleep(reply.wait)
                finally:
                    with lock:
                        server.at_once -= 1
                try:
                    self.send_response(reply.status)
                    for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    if reply.drip:
                        for byte in reply.body:
                            self.wfile.write(bytes([byte]))
                            self.wfile.flush()
                            time.sleep(reply.drip)
                    else:
                        self.wfile.write(reply.body)
                except OSError:  # the client has given up
                    pass

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Reply | str]):
    """A server that runs while the block does. `answer` gets the request's body and its number, from 1."""
    server = ChatServer(answer)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
