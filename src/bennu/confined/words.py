"""How bennud and the helper talk: a request in one message, answers in lines of JSON."""

import json
import os
from collections.abc import Callable
from typing import Any, Final

from bennu.confined.tree import printable

MAX_REQUEST: Final = 1 << 17  # bytes of what bennud asks in one message


class Refused(Exception):
    """What is asked cannot be done; the message is for people. `kind` tells bennud what it means."""

    def __init__(self, message: str, kind: str = "invalid") -> None:
        super().__init__(message)
        self.kind = kind


def say_to(descriptor: int) -> Callable[[Any], None]:
    def say(message: Any) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[os.write(descriptor, data) :]

    return say


def describe(error: BaseException) -> dict[str, Any]:
    """Describe an error in plain words, without a look at its traceback.

    `kind`: "invalid" for what the content is to blame for, "missing", "not-a-folder", "system" for the kernel's word,
    "bug" for the rest.
    """
    if isinstance(error, Refused):
        return {"error": str(error), "errno": None, "kind": error.kind}
    if isinstance(error, OSError):
        reason = (error.strerror or type(error).__name__).lower()  # the case in which Go has the kernel's words
        where = f" ({printable(os.fsdecode(error.filename))})" if isinstance(error.filename, str | bytes) else ""
        kinds = {FileNotFoundError: "missing", NotADirectoryError: "not-a-folder"}
        return {"error": f"{reason}{where}", "errno": error.errno, "kind": kinds.get(type(error), "system")}
    if isinstance(error, MemoryError):
        return {"error": "it needs more memory than it may have", "errno": None, "kind": "invalid"}
    return {"error": f"{type(error).__name__}", "errno": None, "kind": "bug"}
