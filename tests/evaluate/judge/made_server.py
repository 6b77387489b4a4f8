"""A real HTTP server that answers chat completions from a script."""

from __future__ import annotations

import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text="4", probabilities=None):
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if probabilities is not None:
        top = [{"token": token, "logprob": math.log(p)} for token, p in probabilities]
        choice["logprobs"] = {"content": [{"token": text, "logprob": top[0]["logprob"], "top_logprobs": top}]}
    return json.dumps({"choices": [choice]})


GOOD = completion("4", [("4", 0.5), (" 4", 0.25), ("5", 0.25)])


class Server:
    """Answers from a script: (status, body, headers, seconds to wait) per request; the last one is repeated."""

    def __init__(self, script):
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = self._now = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                    place = len(server.requests)
                    server.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                status, text, headers, wait = script[min(place, len(script) - 1)]
                time.sleep(wait)
                with lock:
                    server._now -= 1
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode())
                except BrokenPipeError:
                    pass  # the client gave up waiting, as it should

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()
