"""exec: one more process in a running container."""

from typing import Any

from bennu.cli import attaching
from bennu.cli.client import Client, segment
from bennu.cli.command import command, several, switch, text
from bennu.cli.session import Session
from bennu.cli.terminal import console_size, is_terminal, parse_detach_keys, raw_mode, require_terminal
from bennu.cli.values import collect_env, parse_env


@command(
    "CONTAINER COMMAND [ARG...]",
    switch("-d, --detach", "Detached mode: run command in the background"),
    text("--detach-keys", "Override the key sequence for detaching a container"),
    several("-e, --env", "Set environment variables", parse=parse_env),
    several("--env-file", "Read in a file of environment variables"),
    switch("-i, --interactive", "Keep STDIN open even if not attached"),
    switch("--privileged", "Give extended privileges to the command"),
    switch("-t, --tty", "Allocate a pseudo-TTY"),
    text("-u, --user", 'Username or UID (format: "<name|uid>[:<group|gid>]")', default=""),
    text("-w, --workdir", "Working directory inside the container", default=""),
    least=2,
    interspersed=False,
)
def exec_(client: Client, words: list[str], **values: Any) -> int:
    detach, tty = values["detach"], values["tty"]
    stdin = values["interactive"] and not detach
    body: dict[str, Any] = {
        "Cmd": words[1:],
        "User": values["user"],
        "WorkingDir": values["workdir"],
        "Privileged": values["privileged"],
        "Tty": tty,
        "Detach": detach,
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Env": collect_env(values["env_file"], values["env"]) or None,
        "DetachKeys": values["detach_keys"] or "",
    }
    if not detach:
        require_terminal(tty=tty, interactive=stdin)
    start: dict[str, Any] = {"Detach": detach, "Tty": tty}
    if tty and is_terminal(1):
        body["ConsoleSize"] = start["ConsoleSize"] = console_size()
    identity = client.json("POST", f"/containers/{segment(words[0])}/exec", json_body=body)["Id"]
    if detach:
        client.call("POST", f"/exec/{identity}/start", json_body=start).read()
        return 0
    return run_attached(client, identity, start, tty=tty, stdin=stdin, keys=values["detach_keys"])


def run_attached(
    client: Client, identity: str, start: dict[str, Any], *, tty: bool, stdin: bool, keys: str | None
) -> int:
    detach_keys = parse_detach_keys(keys) if tty and stdin else b""
    answer = client.hijack(f"/exec/{identity}/start", json_body=start)
    resize = (lambda: attaching.resize(client, f"/exec/{identity}")) if tty else None
    session = Session(answer, tty=tty, stdin=stdin, detach_keys=detach_keys, on_resize=resize)
    if resize:
        resize()
    with raw_mode(tty and stdin):
        if session.run():
            return 0
    return int(client.json("GET", f"/exec/{identity}/json")["ExitCode"] or 0)
