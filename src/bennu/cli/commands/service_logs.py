"""service logs: the lines of many tasks, each with the task it is from."""

import time
from collections.abc import Callable
from typing import Any, Final

from bennu.cli.client import Answer, Client, segment
from bennu.cli.command import command, switch, text
from bennu.cli.commands.logs import read_moment
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.session import Frames, write_all, write_stdout

TASK: Final = "com.docker.swarm.task.id"
SERVICE: Final = "com.docker.swarm.service.id"
NODE: Final = "com.docker.swarm.node.id"
SHORT: Final = 12
Dict = dict[str, Any]


@command(
    "SERVICE|TASK",
    switch("-f, --follow", "Follow log output"),
    switch("--details", "Show extra details provided to logs"),
    switch("--no-resolve", "Do not map IDs to Names in output"),
    switch("--no-task-ids", "Do not include task IDs in output"),
    switch("--no-trunc", "Do not truncate output"),
    switch("--raw", "Do not neatly format logs"),
    text("--since", 'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")'),
    text("-n, --tail", "Number of lines to show from the end of the logs", default="all"),
    switch("-t, --timestamps", "Show timestamps"),
    least=1,
    most=1,
)
def logs(client: Client, words: list[str], **values: Any) -> None:
    kind, found = find(client, words[0])
    template = found["Spec"]["TaskTemplate"] if kind == "services" else found["Spec"]
    is_tty = bool((template.get("ContainerSpec") or {}).get("TTY"))
    if is_tty and not values["raw"]:
        raise Failure("tty service logs only supported with --raw")
    query = {
        "stdout": True,
        "stderr": True,
        "follow": values["follow"],
        "details": values["details"] or not values["raw"],
        "timestamps": values["timestamps"],
        "since": read_moment("since", values["since"], time.time_ns()),
        "tail": values["tail"],
    }
    answer = client.call("GET", f"/{kind}/{found['ID']}/logs", query=query)
    if values["raw"]:
        copy(answer, write_stdout if is_tty else Frames().feed)
    else:
        copy(answer, Frames(Labels(client, values).write).feed)


def find(client: Client, name: str) -> tuple[str, Dict]:
    for kind in ("services", "tasks"):
        try:
            return kind, client.json("GET", f"/{kind}/{segment(name)}")
        except ApiFailure as failure:
            if failure.status != 404:
                raise
    raise Failure(f"no such task or service: {name}")


def copy(answer: Answer, write: Callable[[bytes], None]) -> None:
    for data in answer.chunks():
        write(data)


class Labels:
    """Puts `web.1.qd7so4hqs6r8@node1    | ` before each line, padded to the widest slot."""

    def __init__(self, client: Client, values: Dict) -> None:
        self._client = client
        self._values = values
        self._names: dict[tuple[str, str], str] = {}  # by task and node
        self._services: dict[str, Dict] = {}

    def write(self, descriptor: int, record: bytes) -> None:
        head, details, text = split_record(record, stamped=self._values["timestamps"])
        name = self._name(details)
        shown = f"{name} | "
        if self._values["details"]:
            others = ",".join(f"{key}={value}" for key, value in details.items() if key not in (TASK, SERVICE, NODE))
            shown += f"{others} " if others else ""
        write_all(descriptor, head + shown.encode() + text)

    def _name(self, details: dict[str, str]) -> str:
        key = details.get(TASK, ""), details.get(NODE, "")
        if key not in self._names:
            self._names[key] = self._make_name(*key, details.get(SERVICE, ""))
        return self._names[key]

    def _make_name(self, task_id: str, node_id: str, service_id: str) -> str:
        task = self._ask(f"/tasks/{task_id}") or {}
        node = self._ask(f"/nodes/{node_id}") or {}
        service = self._services.setdefault(service_id, self._ask(f"/services/{service_id}") or {})
        if self._values["no_resolve"]:
            service_name, hostname = service_id, node_id
        else:
            service_name = (service.get("Spec") or {}).get("Name", service_id)
            hostname = (node.get("Description") or {}).get("Hostname", node_id)
        name = f"{service_name}.{task.get('Slot') or task.get('NodeID') or '?'}"
        if not self._values["no_task_ids"]:
            name += f".{task_id if self._values['no_trunc'] else task_id[:SHORT]}"
        replicas = (((service.get("Spec") or {}).get("Mode") or {}).get("Replicated") or {}).get("Replicas", 0)
        padding = len(str(replicas)) - len(str(task.get("Slot", "")))
        return f"{name}@{hostname}{' ' * max(0, padding)}   "

    def _ask(self, path: str) -> Dict | None:
        """None: it is gone meanwhile."""
        try:
            found: Dict = self._client.json("GET", path)
        except ApiFailure:
            return None
        return found


def split_record(record: bytes, *, stamped: bool) -> tuple[bytes, dict[str, str], bytes]:
    """`STAMP a=1,b=2 text`: the stamp with its blank, the details, and the text."""
    head = b""
    if stamped:
        stamp, _, record = record.partition(b" ")
        head = stamp + b" "
    details, _, text = record.partition(b" ")
    pairs = (part.partition("=") for part in details.decode(errors="replace").split(","))
    return head, {name: value for name, _, value in pairs}, text
