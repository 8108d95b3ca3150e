"""A count of all that a daemon holds and has made on its machine, to be the same again once everything is removed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from support import traces
from support.daemon import Daemon
from support.waiting import wait_for

SOME_THREADS = 16  # for work that blocks: they come as they are needed, up to a limit, and stay


@dataclass(frozen=True)
class Census:
    """`descriptors` and `threads` are bennud's own."""

    descriptors: int
    threads: int
    helpers: int
    mounts: int
    namespaces: int
    links: int
    rules: int
    control_groups: int
    folders: dict[str, int]


def take(daemon: Daemon, ids: Iterable[str] = ()) -> Census:
    """`ids`: of the containers there were, to look for their control groups."""
    exec_root, data_root = daemon.exec_root, daemon.data_root
    folders = {
        "containers": data_root / "containers",
        "volumes": data_root / "volumes",
        "layers": data_root / "images/layers",
        "blobs": data_root / "images/blobs",
        "arriving": data_root / "images/tmp",
        "bundles": exec_root / "c",
        "exits": exec_root / "exits",
        "runtime": exec_root / "oci",
        "shared memory": exec_root / "shm",
    }
    return Census(
        descriptors=traces.open_files(daemon),
        threads=len(traces.names_in(Path(f"/proc/{daemon.pid}/task"))),
        helpers=len(traces.processes(daemon)),
        mounts=len(traces.mounts(daemon)),
        namespaces=len(traces.names_in(exec_root / "netns")),
        links=len(traces.names_in(Path("/sys/class/net"))),  # of all: bridges of networks bear no mark
        rules=sum(len(rules) for rules in traces.rules(daemon).values()),
        control_groups=len(traces.control_groups(set(ids))),
        folders={name: len(traces.names_in(folder)) for name, folder in folders.items()},
    )


def differences(before: Census, now: Census) -> dict[str, object]:
    """Fewer descriptors are fine, and so are the threads that stay."""
    found: dict[str, object] = {}
    for name, was in asdict(before).items():
        most = {"threads": max(SOME_THREADS, before.threads), "descriptors": before.descriptors}.get(name)
        number = getattr(now, name)
        if number != was if most is None else number > most:
            found[name] = (was, number)
    return found


def assert_the_same(daemon: Daemon, before: Census, ids: Iterable[str] = (), timeout_s: float = 20.0) -> None:
    """Wait for what may take its time in the background, then insist."""
    wait_for(
        lambda: not differences(before, take(daemon, ids)),
        timeout_s=timeout_s,
        what="everything to be as it was",
        describe=lambda: "\n".join(f"{name}: {two}" for name, two in differences(before, take(daemon, ids)).items()),
    )
