"""Forwarding: does anything else on this machine throw away the containers' packets?

An `accept` in a table of ours ends only that table's judgement; a `drop` in anybody's table is final. So another
program's forward chain with policy drop cannot be overruled, only told to let us through: in its own words.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bennu.errors import BennuError
from bennu.host.finding import Finding, fail, ok, warn
from bennu.process import run

NFT_TIMEOUT_S: Final = 20
IP_FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True, slots=True)
class ForwardChain:
    """A chain on the forward hook that drops by default."""

    family: str
    table: str
    name: str


def check_forwarding(path: Path = IP_FORWARD) -> Finding:
    try:
        on = path.read_text().strip() == "1"
        writable = _can_write(path)
    except OSError as error:
        return fail("ip_forward", f"cannot be read: {error.strerror}")
    if on:
        return ok("ip_forward", "on")
    if writable:
        return ok("ip_forward", "off; bennud turns it on")
    return fail("ip_forward", "off, and /proc/sys is read-only here", "sysctl -w net.ipv4.ip_forward=1 (on the host)")


def _can_write(path: Path) -> bool:
    try:
        with path.open("r+"):
            return True
    except OSError:
        return False


async def check_firewall(bridge: str) -> list[Finding]:
    """Find the forward chains that drop, and who owns them."""
    try:
        done = await run(["nft", "--json", "list", "chains"], timeout_s=NFT_TIMEOUT_S)
    except (OSError, BennuError) as error:
        return [warn("firewall", f"cannot be looked at: {error}")]
    if done.exit_code != 0:
        return [warn("firewall", f"cannot be looked at: {done.stderr.decode(errors='replace').strip()}")]
    items = json.loads(done.stdout)["nftables"]
    return judge_firewall(dropping_chains(items), tables(items), bridge, ufw=shutil.which("ufw") is not None)


def dropping_chains(items: Sequence[dict[str, Any]]) -> list[ForwardChain]:
    """Pure: from nft's list."""
    chains = [item["chain"] for item in items if "chain" in item]
    return [
        ForwardChain(chain["family"], chain["table"], chain["name"])
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in ("ip", "inet")
    ]


def tables(items: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    """Every (table, chain) there is."""
    return {(item["chain"]["table"], item["chain"]["name"]) for item in items if "chain" in item}


def judge_firewall(
    dropping: Sequence[ForwardChain], chains: set[tuple[str, str]], bridge: str, *, ufw: bool
) -> list[Finding]:
    """Pure. One finding for each owner that must be told to let the bridge's packets pass."""
    findings = [warn("firewall", *_advice(chain, chains, bridge, ufw=ufw)) for chain in dropping]
    if any(table == "firewalld" for table, _ in chains):
        cure = f"firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
        findings.append(warn("firewall", "firewalld rejects what passes between zones it does not know", cure))
    return findings or [ok("firewall", "no forward chain drops by default")]


def _advice(chain: ForwardChain, chains: set[tuple[str, str]], bridge: str, *, ufw: bool) -> tuple[str, str]:
    where = f"{chain.family} {chain.table} {chain.name}"
    if (chain.table, "ufw-before-forward") in chains and ufw:
        return (
            f"ufw drops what is forwarded ({where}): containers reach nothing, published ports are not reached",
            f"ufw route allow in on {bridge} && ufw route allow out on {bridge}",
        )
    if (chain.table, "DOCKER-USER") in chains:
        return (
            f"Docker drops what is forwarded ({where}): published ports are reached from this machine only",
            f"iptables -I DOCKER-USER -i {bridge} -j ACCEPT && iptables -I DOCKER-USER -o {bridge} -j ACCEPT",
        )
    return (
        f"the chain {where} drops what is forwarded: containers reach nothing, published ports are not reached",
        f"nft insert rule {where} iifname {bridge} accept && nft insert rule {where} oifname {bridge} accept",
    )
