"""Sends hostile requests to a daemon, keeps what they are about in being, and notes every answer that is not honest.

Honest is an answer in words: a status below 500; a 501 or 503; a 500 whose message does not speak of Python. Not honest
is a traceback in the daemon's log, an exception's name in a message or in a task's error, and no answer at all.
"""

import base64
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Final

from support import images
from support.daemon import Daemon, UnixConnection
from support.hostile import SERVICE, Hostile

OF_PYTHON: Final = re.compile(r"\b[A-Z]\w+(?:Error|Exception|Exit)\b|Traceback|File \"")
JSON: Final = {"Content-Type": "application/json"}
ANSWER_WITHIN_S: Final = 40.0  # some verbs wait 10 s themselves, and other tests want the processor too
LOOK_S: Final = 0.02
STREAMS: Final = frozenset(("/events", "/containers/{id}/stats", "/containers/{id}/wait")) | {
    *("/containers/{id}/attach", "/containers/{id}/attach/ws", "/exec/{id}/start"),
    *("/containers/{id}/logs", "/services/{id}/logs", "/tasks/{id}/logs"),
}
SUBJECT: Final = {"Image": "busybox", "Cmd": ["sleep", "100000"], "StopSignal": "KILL"}
MAKES_SERVICE: Final = frozenset(("/services/create", "/services/{id}/update"))


@dataclass
class Assault:
    """`begin()`, then `send` as many as you like; `findings` says what was wrong."""

    daemon: Daemon
    seed: int = 0
    in_swarm: bool = True
    statuses: Counter[int] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)  # of answers from 500 on, without what differs each time
    findings: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    _read: int = 0  # how far the daemon's log has been looked through

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def begin(self) -> None:
        images.import_base(self.daemon.docker, "busybox")
        self._read = len(self.daemon.log())
        self._restore()

    def send(self, requests: Iterable[Hostile]) -> None:
        for request in requests:
            self._send(request)

    def _send(self, request: Hostile) -> None:
        begun = time.monotonic()
        try:
            status, body = self._ask(request)
        except (OSError, HTTPException) as error:
            self._note(request, f"no answer: {type(error).__name__} {error}")
            self._restore()
            return
        took = time.monotonic() - begun
        self.slowest = max(self.slowest, (took, f"{request.route.method} {request.path[:200]} {request.what}"))
        self.statuses[status] += 1
        words = body.decode(errors="replace")
        if status >= 500:
            self.words[f"{status} {shorten(words)}"] += 1
        if (status >= 500 and not words.startswith('{"message":')) or (status != 200 and OF_PYTHON.search(words)):
            self._note(request, f"{status} {words[:300]}")
        if status < 400 and request.route.method != "GET":
            self._follow(request, status, words)
        self._look_at_log(request)

    def _ask(self, request: Hostile) -> tuple[int, bytes]:
        path = request.path.replace("SUBJECT", self._subject_of(request.route.path))
        if "VERSION" in path:
            path = path.replace("VERSION", str(self._version(request.route.path)))
        headers = {} if request.body is None else JSON
        connection = UnixConnection(self.daemon.socket, ANSWER_WITHIN_S)
        with contextlib.closing(connection):
            connection.putrequest(request.route.method, path, skip_host="Host" in request.headers)
            given = {**headers, "Connection": "close", **request.headers}
            if request.body is not None and "Transfer-Encoding" not in given:
                given["Content-Length"] = str(len(request.body))
            for name, value in given.items():
                connection.putheader(name, value.encode("latin-1", "replace"))
            with contextlib.suppress(BrokenPipeError):  # it may answer before it has read everything
                connection.endheaders(request.body)
            raw = connection.sock  # the answer takes it along
            answer = connection.getresponse()
            if (answer.status < 300 and request.route.path in STREAMS) or answer.status == 101:
                raw.settimeout(LOOK_S)
                with contextlib.suppress(TimeoutError, HTTPException):
                    return answer.status, answer.read(4096)
                return answer.status, b""
            return answer.status, answer.read()

    # --- what follows from a request ----------------------------------------------------------------------------

    def _follow(self, request: Hostile, status: int, words: str) -> None:
        """What was made is used, for much shows only then; afterwards all is as before."""
        path = request.route.path
        if path == "/containers/create" and status == 201 and self._random.random() < 0.4:
            made = json.loads(words)["Id"]
            status, body = self.ask("POST", f"/containers/{made}/start")
            if status >= 500:
                self.words[f"start {status} {shorten(body)}"] += 1
            if OF_PYTHON.search(body):
                self._note(request, f"start: {status} {body[:300]}")
        if path in MAKES_SERVICE and self._random.random() < 0.25:
            self._await_tasks(request)
        self._restore()

    def _await_tasks(self, request: Hostile) -> None:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            tasks = json.loads(self.ask("GET", "/tasks")[1])
            if all(task["Status"]["State"] not in ("new", "pending", "assigned", "accepted") for task in tasks):
                break
            time.sleep(0.05)
        else:
            return
        for task in tasks:
            if OF_PYTHON.search(task["Status"].get("Err", "")):
                self._note(request, f"task {task['Status']['State']}: {task['Status']['Err'][:300]}")

    def _look_at_log(self, request: Hostile) -> None:
        if self.daemon.log_path.stat().st_size == self._read:
            return
        with self.daemon.log_path.open("rb") as log:
            log.seek(self._read)
            new = log.read().decode(errors="replace")
        self._read = self.daemon.log_path.stat().st_size
        if OF_PYTHON.search(new):
            self._note(request, "log: " + new[-1500:])

    def _note(self, request: Hostile, what: str) -> None:
        self.findings.append(f"{request.route.method} {request.path[:150]} [{request.what}]: {what}")

    # --- what the requests are about ----------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, raw = self.daemon.request(
            method, path, None if body is None else json.dumps(body), JSON if body else {}
        )
        return status, raw.decode(errors="replace")

    def _list(self, path: str) -> list[dict[str, Any]]:
        status, words = self.ask("GET", path)
        found = json.loads(words) if status == 200 else []
        return found["Volumes"] if isinstance(found, dict) else found

    def _subject_of(self, path: str) -> str:
        if path.startswith("/exec/"):
            _, words = self.ask("POST", "/containers/subject/exec", {"Cmd": ["true"]})
            made = json.loads(words).get("Id", "none")
            if path.endswith(("/resize", "/json")):
                self.ask("POST", f"/exec/{made}/start", {"Detach": True})
            return str(made)
        if path.startswith("/images/"):
            return "busybox"
        if path.startswith("/nodes/"):
            return "self"
        if "/tasks/" in path:
            return next((str(task["ID"]) for task in self._list("/tasks")), "none")
        return "subject"

    def _version(self, path: str) -> int:
        where = path.removesuffix("/update").replace("{id}", self._subject_of(path))
        status, words = self.ask("GET", where)
        return int(json.loads(words)["Version"]["Index"]) if status == 200 else 0

    def _restore(self) -> None:
        """Exactly the things that requests are about, and nothing else."""
        self._restore_swarm()
        for one in self._list("/containers/json?all=1"):
            is_task = "com.docker.swarm.task" in one["Labels"]
            if not is_task and (one["Names"] != ["/subject"] or one["State"] != "running"):
                self.ask("DELETE", f"/containers/{one['Id']}?force=1&v=1")
        for one in self._list("/images/json"):
            for tag in [tag for tag in one["RepoTags"] or [one["Id"]] if tag != "busybox:latest"]:
                self.ask("DELETE", f"/images/{tag}?force=1")
        if not self._list("/images/json"):
            images.import_base(self.daemon.docker, "busybox")
        for one in self._list("/networks"):
            if one["Name"] not in ("bridge", "host", "none", "subject", "ingress", "docker_gwbridge"):
                self.ask("DELETE", f"/networks/{one['Id']}")
        for one in self._list("/volumes"):
            if one["Name"] != "subject":
                self.ask("DELETE", f"/volumes/{one['Name']}?force=1")
        self.ask("POST", "/containers/create?name=subject", SUBJECT)
        self.ask("POST", "/containers/subject/start")
        self.ask("POST", "/networks/create", {"Name": "subject"})
        self.ask("POST", "/volumes/create", {"Name": "subject"})

    def _restore_swarm(self) -> None:
        if not self.in_swarm:
            self.ask("POST", "/swarm/leave?force=1")
            return
        if self.ask("GET", "/swarm")[0] != 200:
            self.ask("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})
        names = [one["Spec"]["Name"] for one in self._list("/services")]
        for name in names:
            if name != "subject" or len(names) > 3:
                self.ask("DELETE", f"/services/{name}")
        if "subject" not in names:
            self.ask("POST", "/services/create", SERVICE | {"Name": "subject"})
        for kind in ("secrets", "configs"):
            for one in self._list(f"/{kind}"):
                if one["Spec"]["Name"] != "subject":
                    self.ask("DELETE", f"/{kind}/{one['ID']}")
            self.ask("POST", f"/{kind}/create", {"Name": "subject", "Data": base64.b64encode(b"x").decode()})


def shorten(words: str) -> str:
    """Without ids, numbers and what was quoted."""
    return re.sub(r"[0-9a-z]{25,}|\d+", "N", re.sub(r'\\"[^"]*\\"', '"…"', words))[:110]
