"""The writer's process: reads the pipes of all runs and writes their logs, in one loop.

    python -I -S -X utf8 -c '…' SOURCES LISTENING FOLDER FINGERPRINT

LISTENING is the socket that bennud connects to, FOLDER where what is unfinished is left for the next writer. Every
pipe gets the same turn: what it holds, at most 64 kB. Who is not read waits, and so a log holds its bounds.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

from bennu.logwriter.run import LogRun
from bennu.logwriter.words import HELD, Job, receive

OOM_SCORE: Final = "-999"  # all containers would wait for it
SLOW_S: Final = 1.0  # how long bennud may leave what it is told untaken
LONELY_S: Final = 10.0  # how long it waits for the bennud that started it


def main() -> None:
    """Run the process."""
    listening = socket.socket(fileno=int(sys.argv[2]))
    listening.set_inheritable(False)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # it ends when nobody needs it
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    Writer(listening, Path(sys.argv[3]), sys.argv[4]).serve()


class Writer:
    """All runs, and the bennud that tells of them."""

    def __init__(self, listening: socket.socket, folder: Path, sources: str) -> None:
        self._listening = listening
        self._held_file = folder / HELD
        self._sources = sources
        self._runs: dict[str, LogRun] = {}  # by container
        self._by_descriptor: dict[int, LogRun] = {}
        self._clients: dict[int, socket.socket] = {}
        self._held = self._take_held()
        self._was_met = False
        self._left = False
        self._compressed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        listening.setblocking(False)
        for descriptor in (listening.fileno(), self._compressed):
            self._epoll.register(descriptor, select.EPOLLIN)

    def serve(self) -> None:
        """Serve until nobody is left who could have something to write, or the next writer is to come."""
        while not self._left:
            is_lonely = not self._runs and not self._clients
            events = self._epoll.poll((0.0 if self._was_met else LONELY_S) if is_lonely else None)
            if is_lonely and not events:
                return
            for descriptor, event in events:
                if (run := self._by_descriptor.get(descriptor)) is not None:
                    self._take_turn(run, event)
                elif descriptor == self._listening.fileno():
                    self._accept()
                elif descriptor == self._compressed:
                    self._go_on()
                elif descriptor in self._clients:
                    self._hear(self._clients[descriptor])

    # --- pipes ----------------------------------------------------------------------------------------------------

    def _take_turn(self, run: LogRun, event: int) -> None:
        if event & select.EPOLLIN:
            run.take_turn()
            if run.is_waiting:
                self._epoll.modify(run.source.descriptor, 0)
        if run.source.ended or not event & select.EPOLLIN:
            self._finish(run)

    def _go_on(self) -> None:
        """Write what has waited for a compression that is over, and read again from those runs."""
        os.eventfd_read(self._compressed)
        for run in [run for run in self._runs.values() if run.has_waiting and not run.is_waiting]:
            self._epoll.modify(run.source.descriptor, select.EPOLLIN)
            self._take_turn(run, select.EPOLLIN)

    def _wake(self) -> None:
        os.eventfd_write(self._compressed, 1)

    def _finish(self, run: LogRun) -> None:
        self._forget(run)
        run.finish()

    def _forget(self, run: LogRun) -> None:
        self._epoll.unregister(run.source.descriptor)
        del self._by_descriptor[run.source.descriptor]
        del self._runs[run.job.id]

    # --- bennud ---------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except OSError:  # no descriptor is left; the next round tries again
            return
        client.settimeout(SLOW_S)
        self._was_met = True
        self._clients[client.fileno()] = client
        self._epoll.register(client, select.EPOLLIN)

    def _hear(self, client: socket.socket) -> None:
        """Do what one message asks; break off with a client for whom that cannot be done: it comes again."""
        try:
            message, pipe = receive(client)
            if message is not None:
                self._do(client, message, pipe)
                return
        except OSError:
            pass
        self._epoll.unregister(client)
        del self._clients[client.fileno()]
        client.close()

    def _do(self, client: socket.socket, message: dict[str, Any], pipe: int) -> None:
        if "write" in message:
            self._write(Job(**message["write"]), pipe)
        elif "finish" in message:
            if run := self._runs.get(message["finish"]):
                self._finish(run)
        elif "only" in message:
            for run in [run for id_, run in self._runs.items() if id_ not in set(message["only"])]:
                self._finish(run)
            self._held = {}
        elif "leave" in message:
            self._leave()
        if "ask" in message:
            client.send(json.dumps({"answer": message["ask"], "sources": self._sources}).encode())

    def _complain(self, complaint: str) -> None:
        for client in self._clients.values():
            with contextlib.suppress(OSError):
                client.send(json.dumps({"complaint": complaint}).encode())

    def _write(self, job: Job, pipe: int) -> None:
        former = self._runs.get(job.id)
        if former is not None and former.job.run == job.run:
            if pipe >= 0:
                os.close(pipe)
            return
        if former is not None:
            self._finish(former)
        try:
            if pipe < 0:
                pipe = os.open(job.pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:  # its bundle is gone: there is nothing more to write
            return
        except OSError as error:  # no descriptor is left; whoever is broken off with tells of it again
            self._complain(f"the log of container {job.id[:12]} has to wait: {error.strerror}")
            raise
        run = LogRun(job, pipe, self._held.pop(job.run, None), compressed=self._wake, complain=self._complain)
        self._runs[job.id] = run
        self._by_descriptor[run.source.descriptor] = run
        self._epoll.register(run.source.descriptor, select.EPOLLIN)

    def _leave(self) -> None:
        """Write down what is unfinished, and end. Nothing is read any more, so nothing is lost."""
        held = {}
        for run in list(self._runs.values()):
            self._forget(run)
            held[run.job.run] = run.leave()
        self._held_file.write_text(json.dumps(held))
        self._left = True

    def _take_held(self) -> dict[str, Any]:
        try:
            held: dict[str, Any] = json.loads(self._held_file.read_bytes())
        except (OSError, ValueError):
            return {}
        self._held_file.unlink()
        return held
