"""Answers GET /health with 200, or with 503 after GET /environment/health?status=false (and 200 again after =true)."""

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT = 8080


class Handler(BaseHTTPRequestHandler):
    healthy = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self.answer(200 if Handler.healthy else 503, "healthy" if Handler.healthy else "unhealthy")
        elif url.path == "/environment/health":
            wanted = parse_qs(url.query).get("status", [""])[0].lower()
            if wanted not in ("true", "false"):
                self.answer(400, "status must be true or false")
                return
            Handler.healthy = wanted == "true"
            self.answer(200, f"health is now {wanted}")
        else:
            self.answer(404, "no such page")

    def answer(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
print(f"listening on port {PORT}", flush=True)
ThreadingHTTPServer(("", PORT), Handler).serve_forever()
