#!/usr/bin/env python3
"""greetings: greets people by name, as a native server in Python without dependencies."""

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, TCPServer

VERSION = os.environ.get("HOTSWAP_VERSION", "")
# The first socket that is handed over, as systemd does it.
SOCKET_FD = 3


def answer(method: str, path: str, body: bytes) -> tuple[int, dict]:
    """What the module says."""
    if (method, path) == ("GET", "/greetings"):
        return 200, {"status": "ok", "version": VERSION}
    if method == "GET" and path.startswith("/greetings/"):
        return 200, {"greeting": f"Hello, {path.removeprefix('/greetings/')}!"}
    return 404, {"error": f"nothing at {method} {path}"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        status, value = answer(self.command, self.path.split("?")[0], self.body())
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def address_string(self) -> str:
        # Its clients are the node.
        return "node"

    def log_request(self, *_) -> None:
        """The node meters requests."""


class Server(ThreadingMixIn, TCPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def ready() -> None:
    """Says that requests may come, as sd_notify does."""
    if name := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", name)


def main() -> None:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise SystemExit("no socket was handed over: a node starts this, by `hotswap deploy`")
    server = Server(socket.socket(fileno=SOCKET_FD))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    ready()
    serving.join()


if __name__ == "__main__":
    main()
