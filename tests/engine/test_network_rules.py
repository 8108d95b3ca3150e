"""The kernel's own parser takes every table, and lists as many rules as are counted. nft needs root even to check."""

import itertools
import os
import subprocess

import pytest
from network_helpers import needs_network

from bennu.network.frontends import Frontend
from bennu.network.nat.nft import count_listing, count_ruleset
from bennu.network.nat.rules import BridgeRules, Ruleset, render_removal, render_table
from support.rules import BRIDGES, LOCAL, SIX, SIX_ONE, WEB, frontend

pytestmark = needs_network


def test_the_kernels_parser_accepts_the_entries_of_services() -> None:
    for shown in (frontend("s", 8000), frontend("s", 8000, "10.0.1.3"), frontend("s", 8000, "10.0.1.3", "10.0.1.4")):
        check(render_table("bennu_parse_only", Ruleset(BRIDGES), [shown]))


@pytest.mark.parametrize("bridges", [pytest.param(part, id=str(len(part))) for n in range(5) for part in [BRIDGES[:n]]])
def test_the_kernels_parser_accepts_every_table_and_lists_what_we_count(bridges: tuple[BridgeRules, ...]) -> None:
    forwards = [WEB, LOCAL, SIX, SIX_ONE]
    for size in range(len(forwards) + 1):
        for chosen in itertools.combinations(forwards, size):
            plan = Ruleset(bridges, frozenset(chosen))
            check(render_table("bennu_parse_only", plan))
    check(render_removal("bennu_parse_only"))


def check(script: str) -> None:
    done = subprocess.run(["nft", "--check", "-f", "-"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\n{script}"


@pytest.mark.parametrize("size", range(len(BRIDGES) + 1))
def test_a_plans_rules_are_counted_as_the_kernel_counts_them(size: int) -> None:
    many = tuple(BridgeRules(f"br-{n:012}", (f"10.{n}.0.0/16",)) for n in range(60)) if size == len(BRIDGES) else ()
    plan = Ruleset((*BRIDGES[:size], *many), frozenset({WEB, LOCAL, SIX, SIX_ONE}))
    fronts = [frontend("s", 8000, "10.0.1.3", "10.0.1.4"), Frontend(service_id="t", ports=(("udp", 53),))]
    name = f"bennu_count_{os.getpid()}"
    try:
        subprocess.run(["nft", "-f", "-"], input=render_table(name, plan, fronts), text=True, check=True)
        listed = subprocess.run(["nft", "-j", "list", "table", "inet", name], capture_output=True, check=True)
        assert count_listing(listed.stdout) == count_ruleset(plan, fronts)
    finally:
        subprocess.run(["nft", "-f", "-"], input=render_removal(name), text=True, check=True)
