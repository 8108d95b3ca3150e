"""What `run`, `start` and `attach` share: attach first, wait for the end, pass signals on, report the status."""

from collections.abc import Mapping
from typing import Any

from bennu.cli.client import Answer, Client, segment
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.output import complain
from bennu.cli.session import Session, signal_label
from bennu.cli.terminal import parse_detach_keys, raw_mode, read_size


def open_attach(
    client: Client, container: str, *, stdin: bool, stdout: bool = True, stderr: bool = True, keys: str | None = None
) -> Answer:
    query = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr, "detachKeys": keys}
    return client.hijack(f"/containers/{segment(container)}/attach", query=query)


def open_wait(client: Client, container: str, condition: str) -> Answer:
    """Registers the wait; its body comes when the container ends."""
    return client.call("POST", f"/containers/{segment(container)}/wait", query={"condition": condition})


def read_wait(answer: Answer) -> int:
    """The exit code. Raises: Failure (125) when the wait itself went wrong."""
    result = answer.json()
    if not isinstance(result, dict):
        raise Failure("the daemon went away before the container ended", 125)
    problem = (result.get("Error") or {}).get("Message")
    if problem:
        complain(f"Error waiting for container: {problem}")
        return 125
    return int(result["StatusCode"])


def resize(client: Client, path: str) -> None:
    """Tell the process at `path` the window's size. One that is not running has no window: no error."""
    size = read_size(1) or read_size(0)
    if size is None or size == (0, 0):
        return
    try:
        client.do("POST", f"{path}/resize", query={"h": size[0], "w": size[1]})
    except ApiFailure:
        return


def proxy_signal(client: Client, container: str, number: int) -> None:
    name = signal_label(number).removeprefix("SIG")
    try:
        client.do("POST", f"/containers/{segment(container)}/kill", query={"signal": name})
    except ApiFailure:
        return  # it may have just ended


def hold_session(
    client: Client,
    container: str,
    answer: Answer,
    *,
    tty: bool,
    stdin: bool,
    keys: str | None,
    proxy: bool,
) -> bool:
    """Carry the stream to its end. Returns: True when the person detached."""
    path = f"/containers/{segment(container)}"
    session = Session(
        answer,
        tty=tty,
        stdin=stdin,
        detach_keys=parse_detach_keys(keys) if tty and stdin else b"",
        on_signal=(lambda number: proxy_signal(client, container, number)) if proxy else None,
        on_resize=(lambda: resize(client, path)) if tty else None,
    )
    if tty:
        resize(client, path)
    with raw_mode(tty and stdin):
        return session.run()


def inspect_container(client: Client, container: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = client.json("GET", f"/containers/{segment(container)}/json")
    return found
