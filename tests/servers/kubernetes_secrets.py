"""A server that speaks the Kubernetes API's paths and answers for Secrets, with its troubles."""

from __future__ import annotations

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class SecretsHandler(BaseHTTPRequestHandler):
    """/api/v1/namespaces/NS/secrets as the real server answers it: 201, 409, 404, 403, stringData folded into data."""

    protocol_version = "HTTP/1.1"
    server: SecretsApi

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(f"POST {self.path} {body['metadata']['name']}")
            trouble = self.server.troubles.pop(0) if self.server.troubles else None
            match = re.fullmatch(r"/api/v1/namespaces/([^/]+)/secrets", self.path)
            if self.refused(match):
                return
            key = (match[1], body["metadata"]["name"])
            known = key in self.server.secrets
            if trouble not in {500, 429} and not known:
                data = {name: base64.b64encode(value.encode()).decode() for name, value in body["stringData"].items()}
                body = {key: value for key, value in body.items() if key != "stringData"} | {"data": data}
                self.server.secrets[key] = body
        if trouble == "lost answer":
            self.close_connection = True
            self.connection.close()
        elif trouble is not None:
            self.answer(trouble, self.status(trouble, "InternalError"))
        elif known:
            self.answer(409, self.status(409, "AlreadyExists"))
        else:
            self.answer(201, body)

    def do_GET(self):
        with self.server.lock:
            self.server.requests.append(f"GET {self.path}")
            match = re.fullmatch(r"/api/v1/namespaces/([^/]+)/secrets/([^/]+)", self.path)
            # the Role allows this one name
            if self.refused(match) or self.refused(match[2] == "services-credentials"):
                return
            found = self.server.secrets.get((match[1], match[2]))
        self.answer(*((200, found) if found else (404, self.status(404, "NotFound"))))

    def refused(self, fine):
        if fine and not self.server.forbidding:
            return False
        self.answer(403, self.status(403, "Forbidden"))
        return True

    def status(self, code, reason):
        return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}

    def answer(self, code, body):
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Quiet."""


class SecretsApi(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), SecretsHandler)
        self.lock = threading.Lock()
        self.requests: list[str] = []
        self.secrets: dict[tuple[str, str], dict] = {}
        self.troubles: list[int | str] = []
        self.forbidding = False

    def values(self, name, namespace="alignment"):
        data = self.secrets[namespace, name]["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}
