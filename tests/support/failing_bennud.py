"""bennud in which one function fails once while a container is being started: which, and how, is said by a file.

    python tests/support/failing_bennud.py FOLDER  BENNUD-ARGUMENTS…

FOLDER/entered gets the name of each function of ours that a start enters, once, with a word on whether it is awaited.
FOLDER/fail holds a name and a kind of failure: the next start that comes there fails so, and the file goes.
"""

import asyncio
import contextvars
import errno
import inspect
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import thread as executor
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bennu.daemon import main
from bennu.engine import effects
from bennu.engine.container import Container

KINDS: Final[dict[str, Callable[[], BaseException]]] = {
    "EMFILE": lambda: OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    "ValueError": lambda: ValueError("an embedded null byte, say"),
    "RuntimeError": lambda: RuntimeError("nobody thought of this"),
    "CancelledError": asyncio.CancelledError,
}
IS_STARTING: Final = contextvars.ContextVar("is_starting", default=False)


class Saboteur:
    """Watches every call of the process; the context tells which belong to a start, in whatever task or thread."""

    def __init__(self, folder: Path) -> None:
        self._fail = folder / "fail"
        self._entered = folder / "entered"
        self._known: set[str] = set()

    def watch(self) -> None:
        """Of this thread, from here on."""
        sys.settrace(self._on_call)

    def _on_call(self, frame: FrameType, kind: str, _argument: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("bennu.") or not IS_STARTING.get() or "<" in frame.f_code.co_qualname:
            return
        if _is_callback(frame):
            return
        name = f"{module}:{frame.f_code.co_qualname}"
        if name not in self._known:
            self._known.add(name)
            with self._entered.open("a") as file:
                file.write(f"{name} {'awaited' if _is_coroutine(frame) else 'called'}\n")
        if self._fail.exists():
            wanted, how = self._fail.read_text().split()
            if wanted == name:
                self._fail.unlink()
                raise KINDS[how]()  # the interpreter then stops watching this thread


def _is_coroutine(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & inspect.CO_COROUTINE)


def _is_callback(frame: FrameType) -> bool:
    """Called by the event loop itself: nobody awaits it."""
    caller = frame.f_back.f_globals.get("__name__", "") if frame.f_back else ""
    return caller in ("asyncio.events", __name__) and not _is_coroutine(frame)


def sabotage(saboteur: Saboteur) -> None:
    """Each step of the loop and of its threads is watched; of them, what belongs to a launch is told and can fail."""
    begin_run = effects.begin_run

    async def watched_begin_run(container: Container) -> None:
        token = IS_STARTING.set(True)
        try:
            await begin_run(container)
        finally:
            IS_STARTING.reset(token)

    def watched(step: Callable[[Any], None]) -> Callable[[Any], None]:
        def take_step(self: Any) -> None:
            saboteur.watch()
            step(self)

        return take_step

    effects.begin_run = watched_begin_run
    executor._WorkItem.run = watched(executor._WorkItem.run)  # type: ignore[method-assign]
    threading.Thread.run = watched(threading.Thread.run)  # type: ignore[method-assign]
    asyncio.Handle._run = watched(asyncio.Handle._run)  # type: ignore[method-assign]


if __name__ == "__main__":
    saboteur = Saboteur(Path(sys.argv[1]))
    sabotage(saboteur)
    sys.argv = ["bennud", *sys.argv[2:]]
    main()
