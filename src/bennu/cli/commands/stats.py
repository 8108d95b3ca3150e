"""stats: what containers use, now."""

import time
from typing import Any, Final

from bennu.cli.client import Client, segment
from bennu.cli.command import command, switch, text
from bennu.cli.failure import ApiFailure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import human_binary_size, human_size, shorten_id
from bennu.cli.terminal import is_terminal

LISTING: Final = Listing(
    headers={
        "ID": "CONTAINER ID",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
    },
    columns="ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs",
    quiet="ID",
)
CLEAR: Final = "\x1b[H\x1b[2J"


def describe(sample: dict[str, Any], *, full: bool) -> dict[str, Any]:
    memory = sample.get("memory_stats") or {}
    used, limit = memory_used(memory), memory.get("limit", 0)
    networks = (sample.get("networks") or {}).values()
    received, sent = (sum(network[key] for network in networks) for key in ("rx_bytes", "tx_bytes"))
    blocks = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read, written = (sum(b["value"] for b in blocks if b["op"].lower() == operation) for operation in ("read", "write"))
    return {
        "ID": sample["id"] if full else shorten_id(sample["id"]),
        "Container": sample["id"] if full else shorten_id(sample["id"]),
        "Name": sample["name"].removeprefix("/"),
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{human_binary_size(used)} / {human_binary_size(limit)}",
        "MemPerc": f"{used * 100 / limit if limit else 0:.2f}%",
        "NetIO": f"{human_size(received, 3)} / {human_size(sent, 3)}",
        "BlockIO": f"{human_size(read, 3)} / {human_size(written, 3)}",
        "PIDs": str((sample.get("pids_stats") or {}).get("current", 0)),
    }


def memory_used(memory: dict[str, Any]) -> int:
    """Without the cache that the kernel gives back when asked."""
    facts, usage = memory.get("stats") or {}, int(memory.get("usage", 0))
    for name in ("total_inactive_file", "inactive_file"):
        if 0 < facts.get(name, 0) < usage:
            return usage - int(facts[name])
    return usage


def cpu_percent(sample: dict[str, Any]) -> float:
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    used = dig(now, "cpu_usage", "total_usage") - dig(before, "cpu_usage", "total_usage")
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    processors = now.get("online_cpus") or 1
    return used / system * processors * 100 if used > 0 and system > 0 else 0.0


def dig(value: dict[str, Any], *path: str) -> int:
    for name in path:
        value = value.get(name) or {}
    return value if isinstance(value, int) else 0


@command(
    "[CONTAINER...]",
    switch("-a, --all", "Show all containers (default shows just running)"),
    text("--format", "Format output using a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'"),
    switch("--no-stream", "Disable streaming stats and only pull the first result"),
    switch("--no-trunc", "Do not truncate output"),
)
def stats(client: Client, words: list[str], *, all: bool, format: str | None, no_stream: bool, no_trunc: bool) -> None:
    while True:
        names = words or [item["Id"] for item in client.json("GET", "/containers/json", query={"all": all})]
        rows = [describe(sample, full=no_trunc) for sample in sample_all(client, names, tolerant=not words)]
        if not no_stream and is_terminal(1):
            print(CLEAR, end="")
        print_list(LISTING, rows, lambda row, now: row, format, quiet=False)
        if no_stream:
            return
        time.sleep(0.5 if rows else 1)


def sample_all(client: Client, names: list[str], *, tolerant: bool) -> list[dict[str, Any]]:
    """One sample each, all at the same time: the daemon needs a second or two for its two readings."""
    from concurrent.futures import ThreadPoolExecutor

    def sample(name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = client.json("GET", f"/containers/{segment(name)}/stats", query={"stream": "0"})
        except ApiFailure as failure:
            if tolerant and failure.status == 404:
                return None
            raise
        return found

    if not names:
        return []
    with ThreadPoolExecutor(max_workers=min(len(names), 32)) as pool:
        return [found for found in pool.map(sample, names) if found is not None]
