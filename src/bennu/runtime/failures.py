"""What the OCI runtime says when a process cannot be started, in the words clients know.

Clients read the text: `docker run` turns "executable file not found" into exit code 127. crun says the same things in
other words, so every known sentence of it is said again as runc says it; an unknown one is passed on as it is.
Pure: the tables are tested against recorded output.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from bennu.errors import BennuError, Conflict

CREATE_PREFIX: Final = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
)
EXEC_PREFIX: Final = "OCI runtime exec failed: exec failed: "
CLASH_HINT: Final = (
    "Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


class RuntimeFailure(BennuError):
    """A process could not be started; `exit_code` is 126 (cannot be invoked), 127 (not found) or 128 (else)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NotAlive(Conflict):
    """The container, or the process meant, is not there (any more)."""


def create_failure(stderr: str, spec: dict[str, Any]) -> RuntimeFailure:
    """What a failed creation of a container is told as. `spec` is its OCI configuration."""
    reason = _reason(stderr, spec["process"]["args"], spec["process"].get("cwd", "/"), spec.get("mounts", ()))
    return _failure(CREATE_PREFIX + "unable to start container process: " + reason, reason)


def exec_failure(stderr: str, args: Sequence[str], cwd: str) -> RuntimeFailure:
    """What a failed start of a further process is told as."""
    reason = _reason(stderr, args, cwd, ())
    return _failure(EXEC_PREFIX + "unable to start container process: " + reason, reason)


def _failure(message: str, reason: str) -> RuntimeFailure:
    hint = f": {CLASH_HINT}" if reason.endswith(": not a directory") and "mounting" in reason else ""
    message += ": unknown" + hint
    return RuntimeFailure(message, exit_code_of(message))


def exit_code_of(message: str) -> int:
    """The exit code of a start that failed with these words, as dockerd decides it."""
    text = message.lower()
    if "/dev/" in text and "device file" in text:
        return 128
    if any(words in text for words in ("executable file not found", "no such file or directory", "not a directory")):
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 128


def last_line(stderr: str) -> str:
    """The error itself: crun may print warnings before it, and runc prefixes its log's fields."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1]
    field = re.search(r'\bmsg="((?:[^"\\]|\\.)*)"', line)
    if field:
        line = field[1].replace('\\"', '"')
    return re.sub(r"^(\d{4}-\d\d-\d\dT\S+: )?", "", line)


def _reason(stderr: str, args: Sequence[str], cwd: str, mounts: Sequence[dict[str, Any]]) -> str:
    said = last_line(stderr)
    program = args[0] if args else ""
    for pattern, rewrite in _SENTENCES:
        match = re.search(pattern, said)
        if match:
            return rewrite(match, program, cwd, mounts)
    return _lower_errno(said) or "the runtime gave no reason"


def _lower_errno(text: str) -> str:
    """`…: Permission denied` → `…: permission denied`: runc's errno texts begin in lower case."""
    head, colon, tail = text.rpartition(": ")
    return f"{head}{colon}{tail[:1].lower()}{tail[1:]}" if colon else text


def _not_found(match: "re.Match[str]", program: str, _cwd: str, _mounts: object) -> str:
    if "/" in program:
        return f'exec: "{program}": stat {program}: no such file or directory'
    return f'exec: "{program}": executable file not found in $PATH'


def _cannot_open(match: "re.Match[str]", program: str, _cwd: str, _mounts: object) -> str:
    errno = match[1].lower()
    # crun answers EPERM for what is no regular file; runc says what it is only for directories.
    if errno == "operation not permitted":
        return f'exec: "{program}": is a directory: permission denied'
    return f'exec: "{program}": {errno}'


def _bad_workdir(match: "re.Match[str]", _program: str, cwd: str, _mounts: object) -> str:
    return f'chdir to cwd ("{cwd}") set in config.json failed: {match[1].lower()}'


def _mount_clash(match: "re.Match[str]", _program: str, _cwd: str, mounts: Sequence[dict[str, Any]]) -> str:
    inside, errno = match[1].strip("`'"), match[2].lower()
    source = next((m.get("source", "") for m in mounts if m.get("destination", "").strip("/") == inside.strip("/")), "")
    return f'error during container init: error mounting "{source}" to rootfs at "/{inside.strip("/")}": {errno}'


_SENTENCES: Final = (
    (r"^(?:exec: )?executable file [`'].*['`] not found(?: in \$PATH)?", _not_found),
    (r"^open executable: (.+)$", _cannot_open),
    (r"^chdir [`'].*['`]?: (.+)$", _bad_workdir),
    (
        r"mount [`'][^`']*[`'] (?:to|at) ([^:]+): (Not a directory)",
        _mount_clash,
    ),
)
