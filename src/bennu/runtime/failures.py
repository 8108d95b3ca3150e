"""Translates what the OCI runtime says of a failed start into the words that clients know (runc's).

Clients read the text: `docker run` turns "executable file not found" into exit code 127. crun says the same things in
other words, so every known sentence of it is said again as runc says it; an unknown one is passed on as it is.
Pure: the tables are tested against recorded output.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bennu.errors import BennuError, Conflict
from bennu.lifecycle.exit_status import classify_start_failure

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
    """The container, or the process meant, does not live."""


def create_failure(stderr: str, spec: Mapping[str, Any]) -> RuntimeFailure:
    """Translate a failed creation of a container. `spec` is its OCI configuration."""
    return _failure(CREATE_PREFIX, start_reason(stderr, spec))


def start_reason(stderr: str, spec: Mapping[str, Any]) -> str:
    """Say in runc's words why a container was not started; `stderr` is what the runtime said, or its log."""
    process = spec["process"]
    return _reason(stderr, _Failed(process["args"], process.get("cwd", "/"), spec.get("mounts", ())))


def mount_failure(source: str, target: str, reason: str) -> RuntimeFailure:
    """Word the failure of a mount."""
    return _failure(CREATE_PREFIX, f'{_INIT}error mounting "{source}" to rootfs at "{target}": {reason}')


def exec_failure(stderr: str, args: Sequence[str], cwd: str) -> RuntimeFailure:
    """Translate a failed start of a further process."""
    return _failure(EXEC_PREFIX, _reason(stderr, _Failed(args, cwd, (), in_exec=True)))


def _failure(prefix: str, reason: str) -> RuntimeFailure:
    hint = f": {CLASH_HINT}" if "error mounting" in reason and reason.endswith(": not a directory") else ""
    return RuntimeFailure(f"{prefix}{reason}: unknown{hint}", classify_start_failure(reason))


def last_line(stderr: str) -> str:
    """Answer the error itself: warnings may come before it, and runc wraps it in a log line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if not lines:
        return ""
    wrapped = re.search(r'\bmsg="((?:[^"\\]|\\.)*)"', lines[-1])
    return wrapped[1].replace('\\"', '"') if wrapped else re.sub(r"^error: ", "", lines[-1])


@dataclass(frozen=True, slots=True)
class _Failed:
    """What was to be started."""

    args: Sequence[str]
    cwd: str
    mounts: Sequence[Mapping[str, Any]]
    in_exec: bool = False

    @property
    def program(self) -> str:
        return self.args[0] if self.args else ""


def _reason(stderr: str, failed: _Failed) -> str:
    said = last_line(stderr)
    if said.startswith(("runc create failed: ", "exec failed: ")):
        return said.partition(" failed: ")[2]
    for pattern, rewrite in _SENTENCES:
        if match := re.search(pattern, said):
            return rewrite(match, failed)
    return _START + (_lower(said) or "the runtime gave no reason")


_START: Final = "unable to start container process: "
_INIT: Final = _START + "error during container init: "


def _lower(text: str) -> str:
    """Turn `…: Permission denied` into `…: permission denied`: runc's errno texts begin in lower case."""
    head, colon, tail = text.rpartition(": ")
    return f"{head}{colon}{tail[:1].lower()}{tail[1:]}"


def _not_found(_match: "re.Match[str]", failed: _Failed) -> str:
    program = failed.program
    if "/" in program:
        return f'{_START}exec: "{program}": stat {program}: no such file or directory'
    return f'{_START}exec: "{program}": executable file not found in $PATH'


def _cannot_execute(match: "re.Match[str]", failed: _Failed) -> str:
    program, errno = failed.program, match["errno"].lower()
    if not program:
        return f'{_START}exec: "": executable file not found in $PATH'
    if errno == "operation not permitted":  # crun's word for what is no regular file
        return f'{_START}exec: "{program}": is a directory: permission denied'
    if errno == "not a directory":
        return f'{_START}exec: "{program}": stat {program}: not a directory'
    return f'{_START}exec: "{program}": {errno}'


def _bad_workdir(match: "re.Match[str]", failed: _Failed) -> str:
    errno = match["errno"].lower()
    if errno == "not a directory" and not failed.in_exec:
        return f"{_INIT}mkdir {failed.cwd}: {errno}"
    return f'{_START}chdir to cwd ("{failed.cwd}") set in config.json failed: {errno}'


def _bad_mount(match: "re.Match[str]", failed: _Failed) -> str:
    found = match.groupdict()
    target = "/" + (found.get("target") or "").strip("/")
    source, errno = found.get("source") or "", found["errno"].lower()
    for mount in failed.mounts:
        if (source and mount["source"] == source) or (not source and mount["destination"].rstrip("/") == target):
            source, target = mount["source"], mount["destination"]
            break
    else:
        return _START + _lower(match[0])
    detail = f"stat {source}: " if errno == "no such file or directory" else ""
    return f'{_INIT}error mounting "{source}" to rootfs at "{target}": {detail}{errno}'


def _sysctl(match: "re.Match[str]", _failed: _Failed) -> str:
    return f'sysctl "{match["name"]}" is not in a separate kernel namespace'


def _in_init(match: "re.Match[str]", _failed: _Failed) -> str:
    return _INIT + _lower(match[0]).replace("write to /proc", "write /proc")


def _bad_cgroup(match: "re.Match[str]", _failed: _Failed) -> str:
    return f"{_START}unable to apply cgroup configuration: write {match['file']}: {match['errno'].lower()}"


_SENTENCES: Final = (
    (r"executable file [`'].*['`] not found", _not_found),
    (r"^open executable: (?P<errno>.+)$", _cannot_execute),
    (r"^exec(?: container process)?(?: \(.*\))?(?: `.*`)?: (?P<errno>.+)$", _cannot_execute),
    (r"^chdir [`'].*['`]?: (?P<errno>.+)$", _bad_workdir),
    (r"^mount [`'][^`']*[`'] to [`'](?P<target>[^`']*)[`']: (?P<errno>.+)$", _bad_mount),
    (r"^error stat'ing file `(?P<source>[^`]*)`: (?P<errno>.+)$", _bad_mount),
    (r"^(?:mkdir|creat|open|openat|creating file|creating directory) `(?P<target>[^`]*)`: (?P<errno>.+)$", _bad_mount),
    (r"^the sysctl `(?P<name>[^`]*)` is not namespaced$", _sysctl),
    (r"^(?:open|write to) /proc/sys/.*$", _in_init),
    (r"^(?:sethostname|setrlimit `\w+`|set ?rlimit).*$", _in_init),
    (r"^writing file `(?P<file>[^`]*)`: (?P<errno>.+)$", _bad_cgroup),
)
