"""Requests made to break something: each is answered in words, and the daemon is none the worse for it.

They are derived from the routes and shapes of this program (`support.hostile`), so that a new route or field is met
without anybody thinking of it; a body that nobody told the generator of fails the first test here. A soak test takes
them from a published description of the API instead, which knows what this program may lack.
"""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import traces
from support.assault import Assault
from support.daemon import Daemon
from support.hostile import BODIES, QUERIES, hostile_requests, read_routes
from support.published import Description

DESCRIPTION = os.environ.get("BENNU_API_DESCRIPTION", "")
SAMPLE = 150
SOAK = 15_000
SOAK_INIT = 1_000  # outside a swarm, of how one begins
GROWTH_KB = 40_000  # histories and caches with bounds of their own
GROWTH_FILES = 12


def test_the_generator_knows_every_route_that_reads_a_body() -> None:
    routes = {route.key: route for route in read_routes()}
    assert {key for key, route in routes.items() if route.reads_body} == set(BODIES)
    assert set(QUERIES) <= set(routes)


def test_a_sample_of_hostile_requests_is_answered_in_words(make_daemon: Callable[..., Daemon]) -> None:
    assault = Assault(make_daemon(), seed=2)
    assault.begin()
    assault.send(itertools.islice(hostile_requests(seed=2), SAMPLE))
    assert not assault.findings, "\n".join(assault.findings)
    assert assault.statuses.total() == SAMPLE


@pytest.mark.soak
@pytest.mark.parametrize("seed", [3])
def test_thousands_of_hostile_requests_leave_no_trace(make_daemon: Callable[..., Daemon], seed: int) -> None:
    daemon = make_daemon()
    assault = Assault(daemon, seed)
    assault.begin()
    before = traces.open_files(daemon), resident_kb(daemon)
    assault.send(itertools.islice(hostile_requests(seed), SOAK))
    outside = Assault(daemon, seed, in_swarm=False, statuses=assault.statuses, words=assault.words)
    outside.begin()
    inits = (request for request in hostile_requests(seed) if request.route.path == "/swarm/init")
    outside.send(itertools.islice(inits, SOAK_INIT))
    time.sleep(5)  # for what ends on its own
    after = traces.open_files(daemon), resident_kb(daemon)
    print(f"{assault.statuses.total()} requests; descriptors and KB before {before}, after {after}")
    print(dict(sorted(assault.statuses.items())), "slowest", max(assault.slowest, outside.slowest))
    print(*(f"{count:6} {words}" for words, count in assault.words.most_common()), sep="\n")
    findings = assault.findings + outside.findings
    assert not findings, "\n".join(findings)
    assert after[0] <= before[0] + GROWTH_FILES
    assert after[1] <= before[1] + GROWTH_KB


@pytest.mark.soak
@pytest.mark.skipif(not DESCRIPTION, reason="BENNU_API_DESCRIPTION is to name a file of Moby's api/docs, as v1.51.yaml")
def test_what_the_published_description_names_is_answered_in_words(make_daemon: Callable[..., Daemon]) -> None:
    requests = list(Description(Path(DESCRIPTION)).requests(seed=4))
    daemon = make_daemon()
    assault = Assault(daemon, seed=4)
    assault.begin()
    before = traces.open_files(daemon)
    assault.send(itertools.islice(requests, SOAK))
    time.sleep(5)
    print(f"{assault.statuses.total()} of {len(requests)} requests; slowest", assault.slowest)
    print(dict(sorted(assault.statuses.items())))
    print(*(f"{count:6} {words}" for words, count in assault.words.most_common()), sep="\n")
    assert not assault.findings, "\n".join(assault.findings)
    assert traces.open_files(daemon) <= before + GROWTH_FILES


def resident_kb(daemon: Daemon) -> int:
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
