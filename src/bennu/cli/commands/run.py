"""create, run, start, attach: the commands that bring a container to life and stay with it."""

import os
from contextlib import contextmanager, suppress
from typing import Any

from bennu.cli import attaching
from bennu.cli.client import Client, segment
from bennu.cli.command import command, switch, text
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.output import complain, say
from bennu.cli.run_body import Values, build_body, write_cid_file
from bennu.cli.run_options import CREATE, RUN
from bennu.cli.terminal import console_size, is_terminal, parse_detach_keys, require_terminal

USAGE = "IMAGE [COMMAND] [ARG...]"
NOT_FOUND = ("executable file not found", "no such file or directory", "system cannot find the file specified")
NOT_INVOKABLE = ("permission denied", "is a directory")


def start_failure_code(message: str) -> int:
    """The shell's convention: 127 not found, 126 found and not runnable, 125 anything else."""
    if any(words in message for words in NOT_FOUND):
        return 127
    return 126 if any(words in message for words in NOT_INVOKABLE) else 125


class refused:  # noqa: N801 - reads as a statement
    """Failures inside leave as the command's own: `bennu: …` and where help is found."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Failure) or not str(error):
            return
        code = start_failure_code(error.message) if isinstance(error, ApiFailure) else 125
        raise Failure(f"bennu: {error}\n\nRun '{self.name} --help' for more information", code) from None


@command(USAGE, *CREATE, least=1, interspersed=False)
def create(client: Client, words: list[str], **values: Any) -> None:
    with refused("bennu create"):
        body = build_body(values, words[0], words[1:], detach=False)
    say(create_container(client, values, body))


@command(USAGE, *RUN, least=1, interspersed=False)
def run(client: Client, words: list[str], **values: Any) -> int:
    detach = values["detach"]
    with refused("bennu run"):
        body = build_body(values, words[0], words[1:], detach=detach)
    if not detach:
        require_terminal(tty=body.get("Tty", False), interactive=body["AttachStdin"])
    elif values["attach"]:
        raise Failure("conflicting options: cannot specify both --attach and --detach")
    parse_detach_keys(values["detach_keys"])  # refuse bad ones before anything lives
    with refused("bennu run"):
        return run_container(client, body, values)


def run_container(client: Client, body: Values, values: Values) -> int:
    if is_terminal(1):
        body["HostConfig"]["ConsoleSize"] = console_size()
    container = create_container(client, values, body)
    if values["detach"]:
        client.do("POST", f"/containers/{container}/start")
        say(container)
        return 0
    return run_attached(client, container, body, values)


def run_attached(client: Client, container: str, body: Values, values: Values) -> int:
    tty, stdin = body.get("Tty", False), body["AttachStdin"]
    keys = values["detach_keys"]
    stream = attaching.open_attach(
        client, container, stdin=stdin, stdout=body["AttachStdout"], stderr=body["AttachStderr"], keys=keys
    )
    ending = attaching.open_wait(client, container, "removed" if values["rm"] else "next-exit")
    try:
        client.do("POST", f"/containers/{container}/start")
    except Failure:
        stream.close()
        if values["rm"]:
            with suppress(Failure, OSError):
                ending.read()  # the name is free again when we return
        raise
    proxy = values["sig_proxy"]
    if attaching.hold_session(client, container, stream, tty=tty, stdin=stdin, keys=keys, proxy=proxy):
        return 0
    return attaching.read_wait(ending)


def create_container(client: Client, values: Values, body: Values) -> str:
    """Create, pulling the image when it is missing; the container's ID."""
    if values["pull"] not in ("always", "missing", "never"):
        raise Failure(f'invalid pull option: \'{values["pull"]}\': must be one of "always", "missing" or "never"')
    with cid_file(values["cidfile"]) as write_id:
        if values["pull"] == "always":
            pull_for(client, body["Image"], values)
        try:
            created = post_create(client, values, body)
        except ApiFailure as failure:
            if failure.status != 404 or values["pull"] != "missing" or "No such image" not in failure.message:
                raise
            complain(f"Unable to find image '{with_tag(body['Image'])}' locally")
            pull_for(client, body["Image"], values)
            created = post_create(client, values, body)
        for warning in created.get("Warnings") or []:
            complain(f"WARNING: {warning}")
        container = str(created["Id"])
        write_id(container)
        return container


def post_create(client: Client, values: Values, body: Values) -> Values:
    query = {"name": values["name"], "platform": values["platform"]}
    created: Values = client.json("POST", "/containers/create", query=query, json_body=body)
    return created


def with_tag(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else image + ":latest"


def pull_for(client: Client, image: str, values: Values) -> None:
    from bennu.cli.commands.images import pull_image

    pull_image(client, image, platform=values["platform"], quiet=values["quiet"], to_stderr=True)


@contextmanager
def cid_file(path: str | None) -> Any:
    """Yields what writes the ID. Without an ID the file is taken away again."""
    if path is None:
        yield lambda container: None
        return
    descriptor = write_cid_file(path)
    written = []
    try:
        yield lambda container: written.append(os.write(descriptor, container.encode()))
    finally:
        os.close(descriptor)
        if not written:
            os.unlink(path)  # noqa: PTH108


@command(
    "CONTAINER [CONTAINER...]",
    switch("-a, --attach", "Attach STDOUT/STDERR and forward signals"),
    text("--detach-keys", "Override the key sequence for detaching a container"),
    switch("-i, --interactive", "Attach container's STDIN"),
    switch("--sig-proxy", "Proxy received signals to the process", default=True, hidden=True),
    least=1,
    bad_usage_code=125,
)
def start(
    client: Client,
    words: list[str],
    *,
    attach: bool,
    detach_keys: str | None,
    interactive: bool,
    sig_proxy: bool,
) -> int:
    if attach or interactive:
        if len(words) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return start_attached(client, words[0], interactive, detach_keys, sig_proxy)
    failed = []
    for name in words:
        try:
            client.do("POST", f"/containers/{segment(name)}/start")
            say(name)
        except ApiFailure as failure:
            complain(str(failure))
            failed.append(name)
    if failed:
        raise Failure("Error: failed to start containers: " + ", ".join(failed))
    return 0


def start_attached(client: Client, name: str, interactive: bool, keys: str | None, sig_proxy: bool) -> int:
    found = attaching.inspect_container(client, name)
    config, container = found["Config"], str(found["Id"])
    tty, stdin = config["Tty"], interactive and config["OpenStdin"]
    require_terminal(tty=tty, interactive=stdin)
    stream = attaching.open_attach(client, container, stdin=stdin, keys=keys)
    ending = attaching.open_wait(client, container, "removed" if found["HostConfig"]["AutoRemove"] else "next-exit")
    try:
        client.do("POST", f"/containers/{container}/start")
    except Failure:
        stream.close()
        raise
    proxy = sig_proxy and not tty
    if attaching.hold_session(client, container, stream, tty=tty, stdin=stdin, keys=keys, proxy=proxy):
        return 0
    return attaching.read_wait(ending)


@command(
    "CONTAINER",
    text("--detach-keys", "Override the key sequence for detaching a container"),
    switch("--no-stdin", "Do not attach STDIN"),
    switch("--sig-proxy", "Proxy all received signals to the process", default=True),
    least=1,
    most=1,
)
def attach(client: Client, words: list[str], *, detach_keys: str | None, no_stdin: bool, sig_proxy: bool) -> int:
    found = attaching.inspect_container(client, words[0])
    state, config, container = found["State"], found["Config"], str(found["Id"])
    if not state["Running"]:
        raise Failure("cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise Failure("cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise Failure("cannot attach to a restarting container, wait until it is running")
    tty, stdin = config["Tty"], config["OpenStdin"] and not no_stdin
    require_terminal(tty=tty, interactive=stdin)
    ending = attaching.open_wait(client, container, "not-running")
    stream = attaching.open_attach(client, container, stdin=stdin, keys=detach_keys)
    proxy = sig_proxy and not tty
    if attaching.hold_session(client, container, stream, tty=tty, stdin=stdin, keys=detach_keys, proxy=proxy):
        raise Failure("read escape sequence")
    return attaching.read_wait(ending)
