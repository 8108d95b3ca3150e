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
from bennu.host import forwarding
from bennu.host.finding import Finding, FindingVerdict, fail, ok, warn
from bennu.process import run

NFT_TIMEOUT_S: Final = 20
Item = dict[str, Any]  # one object of `nft --json`
IP_FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True, slots=True)
class Bridge:
    """The interface of one of our networks."""

    name: str
    ipv6: bool = False


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
    if families := forwarding.read_mark().families:
        text = (
            f"on because of bennud ({', '.join(sorted(families))}): this machine forwards what comes from or goes to "
            f"containers; the table inet {forwarding.TABLE} drops all else"
        )
        cure = f"to make it a router: net.ipv4.ip_forward=1 in /etc/sysctl.d, then rm {forwarding.mark_path()}"
        return Finding("ip_forward", FindingVerdict.OK, text, cure)
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


async def check_firewall(bridges: Sequence[Bridge]) -> list[Finding]:
    """Find the forward chains that drop what these bridges' containers send or get, and who owns them."""
    try:
        done = await run(["nft", "--json", "list", "ruleset"], timeout_s=NFT_TIMEOUT_S)
    except (OSError, BennuError) as error:
        return [warn("firewall", f"cannot be looked at: {error}")]
    if done.exit_code != 0:
        return [warn("firewall", f"cannot be looked at: {done.stderr.decode(errors='replace').strip()}")]
    return judge_firewall(json.loads(done.stdout)["nftables"], bridges, ufw=shutil.which("ufw") is not None)


def judge_firewall(items: Sequence[Item], bridges: Sequence[Bridge], *, ufw: bool) -> list[Finding]:
    """Judge nft's list. One finding for each owner that must be told to let the bridges' packets pass. Pure."""
    chains = {(item["chain"]["table"], item["chain"]["name"]) for item in items if "chain" in item}
    findings = []
    for chain in dropping_chains(items):
        passing = accepted_interfaces(items, chain)
        concerned = [bridge.name for bridge in bridges if chain.family != "ip6" or bridge.ipv6]
        shut = [name for name in concerned if not {("iifname", name), ("oifname", name)} <= passing]
        if shut:
            findings.append(warn("firewall", *_advice(chain, chains, shut, ufw=ufw)))
    if any(table == "firewalld" for table, _ in chains):
        names = [bridge.name for bridge in bridges]
        cure = _for_each(names, "firewall-cmd --permanent --zone=trusted --add-interface=$b")
        text = "firewalld rejects what passes between zones it does not know"
        findings.append(warn("firewall", text, f"{cure}; firewall-cmd --reload"))
    return findings or [ok("firewall", "no forward chain drops what containers send and get")]


def dropping_chains(items: Sequence[Item]) -> list[ForwardChain]:
    chains = [item["chain"] for item in items if "chain" in item]
    return [
        ForwardChain(chain["family"], chain["table"], chain["name"])
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in ("ip", "ip6", "inet")
    ]


def accepted_interfaces(items: Sequence[Item], chain: ForwardChain) -> set[tuple[str, str]]:
    """List what rules of the chain's table accept for the interface alone: (iifname or oifname, its name)."""
    rules = [item["rule"] for item in items if "rule" in item]
    ours = [rule for rule in rules if (rule["family"], rule["table"]) == (chain.family, chain.table)]
    return {found for rule in ours for found in _accepted_by(rule["expr"])}


def _accepted_by(parts: Sequence[Item]) -> set[tuple[str, str]]:
    match [part for part in parts if "counter" not in part]:
        case [{"match": {"left": {"meta": {"key": key}}, "op": "==", "right": right}}, {"accept": _}]:
            names = right["set"] if isinstance(right, dict) else [right]
            return {(key, name) for name in names if isinstance(name, str)}
    return set()


def _advice(chain: ForwardChain, chains: set[tuple[str, str]], shut: Sequence[str], *, ufw: bool) -> tuple[str, str]:
    where = f"{chain.family} {chain.table} {chain.name}"
    if ufw and {(chain.table, "ufw-before-forward"), (chain.table, "ufw6-before-forward")} & chains:
        return (
            f"ufw drops what is forwarded ({where}): containers reach nothing, published ports are not reached",
            _for_each(shut, "ufw route allow in on $b", "ufw route allow out on $b"),
        )
    if (chain.table, "DOCKER-USER") in chains:
        tool = "ip6tables" if chain.family == "ip6" else "iptables"
        return (
            f"Docker drops what is forwarded ({where}): published ports are reached from this machine only",
            _for_each(shut, f"{tool} -I DOCKER-USER -i $b -j ACCEPT", f"{tool} -I DOCKER-USER -o $b -j ACCEPT"),
        )
    names = ", ".join(shut)
    return (
        f"the chain {where} drops what is forwarded: containers reach nothing, published ports are not reached",
        " && ".join(f"nft insert rule {where} {key} '{{ {names} }}' accept" for key in ("iifname", "oifname")),
    )


def _for_each(bridges: Sequence[str], *commands: str) -> str:
    return f"for b in {' '.join(bridges)}; do {'; '.join(commands)}; done"
