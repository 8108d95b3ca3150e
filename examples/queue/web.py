"""POST /jobs/WORD queues a job, GET /done says how many are done, GET /health whether all is well."""

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from store import ask


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match self.path:
            case "/health":
                self.say(ask("PING"))
            case "/done":
                self.say(ask("GET", "done"))
            case _:
                self.say("not found", 404)

    def do_POST(self) -> None:
        self.say(ask("PUSH", "jobs", self.path.rpartition("/")[2]))

    def say(self, text: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
print("web ready", flush=True)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
