"""A legacy plugin of the test's own: HTTP on a unix socket. It answers as a function says and keeps all it hears."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Answer = Callable[[str, Json], Json | str]
FOLDER = Path("/run/docker/plugins")


class PluginServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """`answer(method, body)` gives the JSON of an answer; a string is an error, sent with status 500."""

    daemon_threads = True

    def __init__(self, name: str, implements: str, answer: Answer) -> None:
        self.name = name
        self.implements = implements
        self.answer = answer
        self.heard: list[tuple[str, Json]] = []
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.path = FOLDER / f"{name}.sock"
        self.path.unlink(missing_ok=True)
        super().__init__(str(self.path), PluginHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def methods(self) -> list[str]:
        return [method for method, _ in self.heard]

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.path.unlink(missing_ok=True)


class PluginHandler(BaseHTTPRequestHandler):
    server: PluginServer

    def do_POST(self) -> None:
        method = self.path.lstrip("/")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if method == "Plugin.Activate":
            found: Json | str = {"Implements": [self.server.implements]}
        else:
            self.server.heard.append((method, body))
            found = self.server.answer(method, body)
        text = json.dumps({"Err": found} if isinstance(found, str) else found).encode()
        self.send_response(500 if isinstance(found, str) else 200)
        self.send_header("Content-Length", str(len(text)))
        with contextlib.suppress(BrokenPipeError):  # a daemon that was just ended
            self.end_headers()
            self.wfile.write(text)

    def address_string(self) -> str:
        return self.server.name

    def log_message(self, format: str, *args: Any) -> None:
        pass
