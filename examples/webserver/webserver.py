"""Answers every request with the version it was started as. Dies of SIGTERM at once, as most programs do."""

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000
VERSION = sys.argv[1] if len(sys.argv) > 1 else "1"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"You are using version {VERSION}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: it is asked many times a second."""


# As PID 1 it would not die of SIGTERM without a handler.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
print(f"version {VERSION} listening on port {PORT}", flush=True)
ThreadingHTTPServer(("", PORT), Handler).serve_forever()
