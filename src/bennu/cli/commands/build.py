"""build: an image from a Dockerfile and the files around it."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bennu.cli.client import Client
from bennu.cli.command import Option, command, integer, several, switch, text
from bennu.cli.context import END, stream_bytes, stream_context
from bennu.cli.failure import Failure
from bennu.cli.output import say
from bennu.cli.progress import show_progress
from bennu.cli.values import as_mapping, parse_host_mapping, parse_size, parse_swap, parse_ulimit

STDIN_DOCKERFILE: Final = ".dockerfile.stdin"
MAGIC: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # compressed archives
TAR_MAGIC: Final = slice(257, 262)

OPTIONS: Final = (
    several("--add-host", "Add a custom host-to-IP mapping (host:ip)", parse=parse_host_mapping),
    several("--build-arg", "Set build-time variables"),
    several("--cache-from", "Images to consider as cache sources"),
    text("--cgroup-parent", "Set the parent cgroup for the RUN instructions during build"),
    integer("--cpu-period", "Limit the CPU CFS (Completely Fair Scheduler) period"),
    integer("--cpu-quota", "Limit the CPU CFS (Completely Fair Scheduler) quota"),
    integer("-c, --cpu-shares", "CPU shares (relative weight)"),
    text("--cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    text("--cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"),
    text("-f, --file", 'Name of the Dockerfile (default is "PATH/Dockerfile")'),
    switch("--force-rm", "Always remove intermediate containers"),
    text("--iidfile", "Write the image ID to the file"),
    several("--label", "Set metadata for an image"),
    Option("-m, --memory", "Memory limit", "bytes", parse_size),
    Option("--memory-swap", "Limit of memory plus swap: -1 is unlimited", "bytes", parse_swap),
    text("--network", "Set the networking mode for the RUN instructions during build", default="default"),
    switch("--no-cache", "Do not use cache when building the image"),
    text("--platform", "Set platform if server is multi-platform capable"),
    switch("--pull", "Always attempt to pull a newer version of the image"),
    switch("-q, --quiet", "Suppress the build output and print image ID on success"),
    switch("--rm", "Remove intermediate containers after a successful build", default=True),
    Option("--shm-size", "Size of /dev/shm", "bytes", parse_size),
    several("-t, --tag", 'Name and optionally a tag in the "name:tag" format'),
    text("--target", "Set the target build stage to build"),
    several("--ulimit", "Ulimit options", kind="ulimit", parse=parse_ulimit),
)


@command("PATH | URL | -", *OPTIONS, least=1, most=1)
def build(client: Client, words: list[str], **values: Any) -> int:
    dockerfile, body = open_context(words[0], values["file"])
    query = build_query(values, dockerfile, words[0])
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": "e30="}
    answer = client.call("POST", "/build", query=query, body=body, headers=headers)
    kept: list[str] = []
    messages = answer.objects()
    if values["quiet"]:
        messages = keep_text(messages, kept)
    try:
        found = show_progress(messages, quiet=values["quiet"])
    except Failure:
        sys.stderr.write("".join(kept))
        raise
    identity = next((aux["ID"] for aux in reversed(found) if isinstance(aux, dict) and aux.get("ID")), "")
    if values["quiet"]:
        say(identity or "".join(kept).strip())
    if values["iidfile"]:
        if not identity:
            raise Failure("the daemon did not tell the image's ID: cannot write " + values["iidfile"])
        Path(values["iidfile"]).write_text(identity)
    return 0


def keep_text(messages: Iterable[Any], kept: list[str]) -> Iterator[Any]:
    """Pass the messages on, keeping what a failed quiet build has to show."""
    for message in messages:
        kept.append(message.get("stream") or "")
        yield message


def build_query(values: dict[str, Any], dockerfile: str, context: str) -> dict[str, Any]:
    arguments = {
        name: value if equals else os.environ.get(name)
        for name, equals, value in (entry.partition("=") for entry in values["build_arg"])
    }
    ulimits = values["ulimit"]
    return {
        "t": values["tag"],
        "dockerfile": dockerfile,
        "remote": context if is_remote(context) else None,
        "nocache": values["no_cache"],
        "pull": values["pull"],
        "rm": "1" if values["rm"] else "0",
        "forcerm": values["force_rm"],
        "q": values["quiet"],
        "memory": values["memory"],
        "memswap": values["memory_swap"],
        "cpushares": values["cpu_shares"],
        "cpuperiod": values["cpu_period"],
        "cpuquota": values["cpu_quota"],
        "cpusetcpus": values["cpuset_cpus"],
        "cpusetmems": values["cpuset_mems"],
        "cgroupparent": values["cgroup_parent"],
        "shmsize": values["shm_size"],
        "networkmode": values["network"],
        "target": values["target"],
        "platform": values["platform"],
        "extrahosts": values["add_host"],
        "buildargs": json.dumps(arguments),
        "labels": json.dumps(as_mapping(values["label"])),
        "cachefrom": json.dumps(values["cache_from"]),
        "ulimits": json.dumps(ulimits) if ulimits else None,
    }


def is_remote(context: str) -> bool:
    return context.startswith(("http://", "https://", "git://", "git@"))


def open_context(context: str, file: str | None) -> tuple[str, Iterable[bytes] | None]:
    """(the Dockerfile's name within the context, the context as tar)."""
    if is_remote(context):
        return file or "Dockerfile", None
    if context == "-":
        return stdin_context(file)
    root = Path(context)
    if not root.exists():
        raise Failure(f"unable to prepare context: path {context!r} not found".replace("'", '"'))
    if not root.is_dir():
        raise Failure(f"unable to prepare context: context must be a directory: {context}")
    if file == "-":
        return STDIN_DOCKERFILE, stream_context(root, STDIN_DOCKERFILE, {STDIN_DOCKERFILE: sys.stdin.buffer.read()})
    name, extra = place_dockerfile(root, file)
    return name, stream_context(root, name, extra)


def place_dockerfile(root: Path, file: str | None) -> tuple[str, dict[str, bytes]]:
    """The Dockerfile's name in the context; one from elsewhere is sent along under a name of its own."""
    path = root / "Dockerfile" if file is None else Path(file)
    if file is not None and not path.exists() and not path.is_absolute():
        path = root / file
    try:
        if not path.is_file():
            raise FileNotFoundError(path)
        inside = path.resolve()
        if inside.is_relative_to(root.resolve()):
            return inside.relative_to(root.resolve()).as_posix(), {}
        return STDIN_DOCKERFILE, {STDIN_DOCKERFILE: path.read_bytes()}
    except OSError:
        raise Failure(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {path}: "
            "no such file or directory"
        ) from None


def stdin_context(file: str | None) -> tuple[str, Iterable[bytes]]:
    """What comes on stdin is an archive or a lone Dockerfile; its first bytes tell."""
    if file == "-":
        raise Failure("invalid argument: can't use stdin for both build context and dockerfile")
    stream = sys.stdin.buffer
    head = stream.read(512)
    if head.startswith(MAGIC) or head[TAR_MAGIC] == b"ustar":
        return file or "Dockerfile", chain([head], iter(lambda: stream.read(1 << 18), b""))
    return "Dockerfile", chain(stream_bytes("Dockerfile", head + stream.read()), [END])
