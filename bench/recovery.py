"""A daemon that died: how long until it answers again and all its containers are supervised."""

import time
from collections.abc import Sequence

from bench.engines import Engine
from bench.rows import SLEEP, Row
from support import images, traces
from support.daemon import Daemon
from support.waiting import wait_for

CROWD = 200


def recover(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """kill -9 with 200 running containers, then from the new daemon's start to its answer for all of them."""
    print(f"… recovery of {CROWD} containers", flush=True)
    daemon = Daemon()
    try:
        daemon.start()
        images.import_base(daemon.docker, "busybox")
        for _ in range(CROWD):
            daemon.docker("run", "-d", *SLEEP)
        daemon.kill()
        began = time.perf_counter()
        daemon.start()
        wait_for(lambda: len(daemon.docker("ps", "-q").lines) == CROWD, timeout_s=60, what="all containers")
        taken = time.perf_counter() - began
        daemon.docker("rm", "-f", *daemon.docker("ps", "-aq").lines, timeout_s=300)
    finally:
        traces.discard(daemon)
    return [Row(f"kill -9 → answering, {CROWD} containers re-adopted", "s", {engines[0].name: taken})]
