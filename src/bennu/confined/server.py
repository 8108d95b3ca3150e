"""The helper's server: bennud's child, which forks a child of its own for every request, ahead of it.

    python -I -S -X utf8 -c '…' SOURCES CHANNEL

Everything that a request may need is loaded before the first one comes; then the server leaves the host's namespaces
and mounts. One child always waits for a request, so that no request waits for a fork; as it gets one, it shuts itself
in, and the server forks the next.

A request is one message on CHANNEL: JSON, and with it descriptors in this order: where answers go, what stays open as
long as somebody waits, the trees, input if any, output if any.

    {"task": "stat", "trees": [["folder"|"process"|"overlay", writable, ""|path in the first tree, descriptors], …],
     "enter": true, "input": false, "output": true, "arguments": {…}}

The child answers lines of JSON: whatever the task has to tell, at last {"done": …} or {"error", "errno", "kind"}. No
last line: it was ended. When bennud is gone, CHANNEL ends, the server with it, and the kernel ends all its children.
"""

import array
import contextlib
import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.utf_8  # noqa: F401  tar headers name these; after the change of root there is nothing to load from
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from bennu.confined import (
    arrivals,
    calls,
    changes,
    copy_files,
    digest,
    fill,
    jail,
    pack,
    run_tasks,
    send,
    tasks,
    unpack,
)
from bennu.confined.words import MAX_REQUEST, Refused, describe, say_to

MAX_DESCRIPTORS: Final = 253  # the kernel's own limit for a message
TAKEN: Final = b"+"  # said of the channel by the child that waits: it has a request
GONE: Final = b"-"  # bennud is gone
FORK_AGAIN_S: Final = 0.1
FORK_AFTER_MS: Final = 50  # leaves the processors to what was asked for, unless somebody asks again meanwhile
READ: Final = (jail.CAP_DAC_READ_SEARCH,)
READ_LAYER: Final = (*READ, jail.CAP_SYS_ADMIN)
WRITE: Final = (
    *(jail.CAP_CHOWN, jail.CAP_DAC_OVERRIDE, jail.CAP_DAC_READ_SEARCH, jail.CAP_FOWNER, jail.CAP_FSETID),
    *(jail.CAP_MKNOD, jail.CAP_SETFCAP),
)
WRITE_LAYER: Final = (*WRITE, jail.CAP_SYS_ADMIN)

Task = Callable[..., Any]
# What can be asked for, and which capabilities it is done with.
TASKS: Final[Mapping[str, tuple[Task, tuple[int, ...]]]] = {
    "stat": (tasks.stat_path, READ),
    "accounts": (tasks.read_accounts, READ),
    "furnish": (tasks.furnish, WRITE),
    "read": (tasks.read_file, READ),
    "prepare_run": (run_tasks.prepare_run, READ),
    "make_folders": (run_tasks.make_folders, WRITE),
    "clear_stubs": (run_tasks.clear_stubs, WRITE),
    "copy_files": (copy_files.copy_files, WRITE_LAYER),
    "make_folder": (copy_files.make_folder, WRITE),
    "make_file": (copy_files.make_file, WRITE),
    "remove_files": (copy_files.remove_files, WRITE),
    "digest": (digest.digest, READ),
    "send": (send.send, READ),
    "measure": (tasks.measure, READ),
    "changes": (changes.find_changes, READ),
    "fill": (fill.fill, WRITE_LAYER),
    "pack": (pack.pack_path, READ),
    "pack_root": (pack.pack_root, READ),
    "pack_layer": (pack.pack_layer, READ_LAYER),
    "pack_step": (pack.pack_step, READ_LAYER),
    "unpack": (unpack.unpack_into, WRITE),
    "unpack_tree": (unpack.unpack_tree, WRITE),
    "unpack_layer": (unpack.unpack_layer, WRITE_LAYER),
    "take_apart": (unpack.take_apart, WRITE),
    "receive_tree": (arrivals.receive_tree, WRITE),
}


TELLING: Final = (*unpack.TELLING, send.send)  # tasks that say more than their answer


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[2]))
    channel.set_inheritable(False)
    system_calls = calls.compile_filter()
    gc.disable()
    gc.freeze()
    home = jail.leave_host()
    child = os.fork()
    if child:
        channel.close()
        os.waitpid(child, 0)  # the first process of the namespace: with it everything in it ends
        os._exit(0)
    jail.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    serve(channel, Means(home, jail.open_proc(), system_calls))


class Means(NamedTuple):
    """What every child shuts itself in with."""

    home: int  # a descriptor of the server's mount namespace
    proc: int  # of a procfs
    system_calls: bytes


def serve(channel: socket.socket, means: Means) -> None:
    """Keep a child waiting for the next request until bennud is gone."""
    asked = select.poll()
    asked.register(channel, select.POLLIN)
    word = b""
    while word != GONE:
        heard, said = os.pipe2(os.O_CLOEXEC)
        try:
            child = os.fork()
        except OSError:  # no process more for now: what runs goes on, and who asks waits
            os.close(heard)
            os.close(said)
            time.sleep(FORK_AGAIN_S)
            continue
        if child == 0:
            os.close(heard)
            stand_by(channel, said, means)
        os.close(said)
        word = os.read(heard, 1)  # nothing: it died while it waited
        os.close(heard)
        asked.poll(FORK_AFTER_MS)


def stand_by(channel: socket.socket, said: int, means: Means) -> None:
    """Wait for a request, say that the next child has to, and answer. Never returns."""
    try:
        message, descriptors = receive(channel)
        channel.close()
        os.write(said, TAKEN if message else GONE)
        os.close(said)
        if message:
            answer(message, descriptors, means)
    finally:
        os._exit(0)


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    numbers = array.array("i")
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * numbers.itemsize)
    message, ancillary, _, _ = channel.recvmsg(MAX_REQUEST, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return message, list(numbers)


def answer(message: bytes, descriptors: list[int], means: Means) -> None:
    """Do what was asked, shut in. Never returns."""
    try:
        say = say_to(descriptors[0])
        try:
            say({"done": perform(json.loads(message), descriptors[1:], say, means)})
        except BaseException as error:
            say(describe(error))
        os.close(descriptors[0])  # heard as the end; taking the mounts down takes a moment longer
    finally:
        os._exit(0)  # no clean-up code, no traceback: both would look for modules where a stranger may have put some


def perform(request: Mapping[str, Any], descriptors: list[int], say: Callable[[Any], None], means: Means) -> Any:
    """Perform a request and answer the task's result. Raises: whatever the task raises."""
    task, capabilities = TASKS[request["task"]]
    end_when_closed(descriptors.pop(0))
    trees = []
    for kind, writable, path, count in request["trees"]:
        given, descriptors = descriptors[:count], descriptors[count:]
        if kind == "process":
            given = [jail.mounts_of(given[0], means.home)]
        if kind == "overlay":
            given = [jail.lay_over(given, writable=writable, home=means.home)]
        trees.append(jail.Tree(given[0], writable, path))
    os.close(means.home)
    streams = {name: descriptors.pop(0) for name in ("input", "output") if request[name]}
    arguments = {**request["arguments"], **streams}
    if task in TELLING:
        arguments["say"] = say
    jail.shut_in(trees, enter=request["enter"], proc=means.proc)
    close_imports()
    os.umask(0)
    jail.give_up(capabilities, means.system_calls)
    done = task(**arguments)
    for stream in streams.values():  # what they are of is free again when the answer is heard
        with contextlib.suppress(OSError):
            os.close(stream)
    return done


def end_when_closed(waiting: int) -> None:
    """Have the kernel end this process when nobody waits for its answer any more: SIGIO's default is to end it."""
    fcntl.fcntl(waiting, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(waiting, fcntl.F_SETFL, fcntl.fcntl(waiting, fcntl.F_GETFL) | os.O_ASYNC)
    closed = select.poll()
    closed.register(waiting, 0)
    if closed.poll(0):
        raise Refused("nobody waits for the answer")


def close_imports() -> None:
    """Close all ways to import: a module that is missing from now on is not looked for in the tree."""
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()
