"""Lists and counters by name over TCP, one line a command; kept in a file across restarts.

PUSH list word | POP list | INCR counter | GET counter | LEN list | PING.  With arguments: a client that says them once.
"""

import json
import os
import signal
import socket
import socketserver
import sys
import threading
from pathlib import Path

PORT = 6379
FILE = Path("/data/store.json")


class Store:
    def __init__(self) -> None:
        known = json.loads(FILE.read_text()) if FILE.exists() else {}
        self.lists: dict[str, list[str]] = known.get("lists", {})
        self.counters: dict[str, int] = known.get("counters", {})
        self.lock = threading.Lock()

    def answer(self, command: str, name: str = "", word: str = "") -> str:
        with self.lock:
            entries = self.lists.get(name, [])
            match command:
                case "PUSH":
                    self.lists[name] = entries
                    entries.append(word)
                    said = str(len(entries))
                case "POP":
                    said = entries.pop(0) if entries else "-"
                case "INCR":
                    self.counters[name] = self.counters.get(name, 0) + 1
                    said = str(self.counters[name])
                case "GET":
                    return str(self.counters.get(name, 0))
                case "LEN":
                    return str(len(entries))
                case "PING":
                    return "PONG"
                case _:
                    return f"ERR unknown command {command}"
            self.save()
            return said

    def save(self) -> None:
        new = FILE.with_suffix(".new")
        new.write_text(json.dumps({"lists": self.lists, "counters": self.counters}))
        new.replace(FILE)


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(f"{store.answer(*line.decode().split()[:3])}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def ask(*words: str, host: str = os.environ.get("STORE", "127.0.0.1")) -> str:
    """One command to the store of that name."""
    with socket.create_connection((host, PORT), timeout=5) as connection:
        connection.sendall(f"{' '.join(words)}\n".encode())
        return connection.makefile().readline().strip()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(ask(*sys.argv[1:]))
    else:
        store = Store()
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        print(f"store ready, {len(store.lists)} lists and {len(store.counters)} counters known", flush=True)
        Server(("", PORT), Handler).serve_forever()
