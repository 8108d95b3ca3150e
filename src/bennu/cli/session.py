"""The conversation with a running process: keys in, output out, signals and window sizes across.

One thread, one loop. Input is read only while the socket has room for it, so that a large input and a large output
cannot block each other.
"""

import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bennu.cli.client import Answer
from bennu.cli.terminal import DetachFilter

READ_SIZE: Final = 65536
STREAM_HEAD: Final = 8
STDERR: Final = 2
# Signals that are this process's own business, or come from the terminal's job control.
NOT_PROXIED: Final = frozenset({"SIGCHLD", "SIGPIPE", "SIGURG", "SIGWINCH", "SIGKILL", "SIGSTOP"})
# Those that the interpreter uses for its own faults.
FAULTS: Final = frozenset(
    {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP", "SIGPROF", "SIGALRM"}
)


class Frames:
    """Takes a multiplexed stream apart and gives each part to `write` with the descriptor where it belongs."""

    def __init__(self, write: Callable[[int, bytes], None] | None = None) -> None:
        self.held = b""
        self.write = write or write_all

    def feed(self, data: bytes) -> None:
        data = self.held + data
        position = 0
        while len(data) - position >= STREAM_HEAD:
            size = int.from_bytes(data[position + 4 : position + 8], "big")
            end = position + STREAM_HEAD + size
            if len(data) < end:
                break
            self.write(2 if data[position] >= STDERR else 1, data[position + STREAM_HEAD : end])
            position = end
        self.held = data[position:]


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_stdout(data: bytes) -> None:
    write_all(1, data)


def output_writer(*, tty: bool) -> Callable[[bytes], None]:
    return write_stdout if tty else Frames().feed


class Session:
    """Carries one hijacked connection until it ends or the person detaches.

    `on_signal` gets the number of each signal that this process receives meanwhile (empty set of `signals`: none are
    taken); `on_resize` is called at the start and whenever the window changes.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        tty: bool,
        stdin: bool,
        detach_keys: bytes = b"",
        on_signal: Callable[[int], None] | None = None,
        on_resize: Callable[[], None] | None = None,
    ) -> None:
        self.sock = answer.sock
        self.early = answer.rest
        self.tty = tty
        self.stdin = stdin
        self.detach = DetachFilter(detach_keys) if detach_keys else None
        self.on_signal = on_signal
        self.on_resize = on_resize
        self.write = output_writer(tty=tty)
        self.pending = b""  # typed and not yet sent
        self.input_ended = False
        self.detached = False

    def run(self) -> bool:
        """Returns: True when the person detached, False when the stream ended."""
        with selectors.PollSelector() as selector, caught_signals(self._signals()) as wakeup:
            self.sock.setblocking(False)
            selector.register(self.sock, selectors.EVENT_READ)
            selector.register(wakeup, selectors.EVENT_READ)
            if self.stdin:
                selector.register(0, selectors.EVENT_READ)
            self.write(self.early)
            while not self.detached:
                for key, events in selector.select():
                    if key.fileobj is wakeup:
                        self._take_signals(wakeup)
                    elif key.fileobj == 0:
                        self._take_input(selector)
                    elif not self._serve_socket(selector, events):
                        return False
            return True

    def _signals(self) -> list[int]:
        wanted = [int(signal.SIGWINCH)] if self.on_resize else []
        if self.on_signal is not None:
            keyboard = {"SIGTSTP", "SIGTTIN", "SIGTTOU"}  # job control belongs to the shell
            skip = NOT_PROXIED | FAULTS | keyboard
            wanted += [int(number) for number in signal.valid_signals() if signal_label(number) not in skip]
        return wanted

    def _take_signals(self, wakeup: socket.socket) -> None:
        for number in wakeup.recv(4096):
            if number == signal.SIGWINCH:
                if self.on_resize is not None:
                    self.on_resize()
            elif self.on_signal is not None:
                self.on_signal(number)

    def _take_input(self, selector: selectors.BaseSelector) -> None:
        try:
            data = os.read(0, READ_SIZE)
        except OSError:
            data = b""
        selector.unregister(0)
        if not data:
            self.input_ended = True
        elif self.detach is not None and self.tty:
            data, self.detached = self.detach.feed(data)
        self.pending += data
        self._flush(selector)

    def _serve_socket(self, selector: selectors.BaseSelector, events: int) -> bool:
        """False: the stream has ended."""
        if events & selectors.EVENT_WRITE:
            self._flush(selector)
        if events & selectors.EVENT_READ:
            try:
                data = self.sock.recv(READ_SIZE)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            if not data:
                return False
            self.write(data)
        return True

    def _flush(self, selector: selectors.BaseSelector) -> None:
        """Send what is pending; then take input again, or say that there is no more."""
        try:
            self.pending = self.pending[self.sock.send(self.pending) :] if self.pending else b""
        except BlockingIOError:
            pass
        except OSError:  # the other side no longer reads: its output may still come
            self.pending, self.input_ended = b"", True
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.pending else 0)
        selector.modify(self.sock, wanted)
        if self.pending or self.detached:
            return
        if not self.input_ended:
            if 0 not in selector.get_map():
                selector.register(0, selectors.EVENT_READ)
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return


def signal_label(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


@contextmanager
def caught_signals(numbers: list[int]) -> Iterator[socket.socket]:
    """Turn these signals into bytes that can be read from the yielded socket; put the old handlers back at the end."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = {}
    old_wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        for number in numbers:
            before[number] = signal.signal(number, ignore_here)
        yield reader
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_wakeup)
        reader.close()
        writer.close()


def ignore_here(number: int, frame: object) -> None:
    """The number travels through the wakeup descriptor; nothing is done inside the handler."""
