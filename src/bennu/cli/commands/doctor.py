"""doctor: what this machine offers to containers, and the command that cures what is missing.

Looks at the machine itself, so it works, and is needed most, when no daemon runs.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from bennu.cli.client import ApiClient
from bennu.cli.failure import ApiFailure, CommandFailure
from bennu.cli.output import say, visible
from bennu.host import DEFAULT_BRIDGE, Bridge, Finding, FindingVerdict, examine

MARKS: Final = {FindingVerdict.OK: "ok", FindingVerdict.WARN: "warn", FindingVerdict.FAIL: "FAIL"}
COLOURS: Final = {FindingVerdict.OK: "\x1b[32m", FindingVerdict.WARN: "\x1b[33m", FindingVerdict.FAIL: "\x1b[1;31m"}
BRIDGE_NAME: Final = "com.docker.network.bridge.name"
DOCKER_SOCKET: Final = Path("/var/run/docker.sock")
DATA_ROOT: Final = "/var/lib/bennu"
EXEC_ROOT: Final = "/run/bennu"
RESET: Final = "\x1b[0m"


@click.command()
@click.option("--data-root", help="Folder in which the daemon keeps, or would keep, its state", default=DATA_ROOT)
@click.option("--exec-root", help="Folder of what runs; only with --repair", default=EXEC_ROOT)
@click.option("--bridge", help="Bridge to let through, where no daemon says which", default=DEFAULT_BRIDGE)
@click.option("-q", "--quiet", is_flag=True, help="Only what is not as it should be")
@click.option("--json", is_flag=True, help="Findings as JSON, one an object")
@click.option("--repair", is_flag=True, help="Make damaged or missing state anew from its copies; bennud must not run")
@click.pass_obj
def doctor(
    client: ApiClient,
    *,
    data_root: str,
    exec_root: str,
    bridge: str,
    quiet: bool,
    json: bool,
    repair: bool,
) -> int:
    """Check what this machine offers, and say the cure for what is missing."""
    if repair:
        return run_repair(data_root, exec_root)
    findings = asyncio.run(examine(Path(data_root), bridges=read_bridges(client) or [Bridge(bridge)]))
    findings += [look_at_daemon(client), *read_warnings(client)]
    has_docker = shutil.which("dockerd") is not None
    findings.append(look_at_docker_socket(DOCKER_SOCKET, client.host, has_docker=has_docker))
    shown = [finding for finding in findings if not quiet or finding.verdict is not FindingVerdict.OK]
    if json:
        print_json(shown)
    else:
        print_findings(shown, colours=sys.stdout.isatty())
        say(summary(findings))
    return 1 if any(finding.verdict is FindingVerdict.FAIL for finding in findings) else 0


def run_repair(data_root: str, exec_root: str) -> int:
    """Repair the state by the daemon's own program; options that are not given are read from its configuration."""
    roots = (("--data-root", data_root, DATA_ROOT), ("--exec-root", exec_root, EXEC_ROOT))
    given = [word for flag, value, default in roots if value != default for word in (flag, value)]
    return subprocess.run([sys.executable, "-m", "bennu.daemon", "--repair", *given]).returncode


def read_bridges(client: ApiClient) -> list[Bridge]:
    """List the bridges of all networks of the daemon; none when it does not answer."""
    try:
        networks = client.json("GET", "/networks")
    except CommandFailure:
        return []
    return [
        Bridge(one["Options"].get(BRIDGE_NAME) or f"br-{one['Id'][:12]}", one["EnableIPv6"])
        for one in networks
        if one["Driver"] in ("bridge", "overlay")
    ]


def look_at_daemon(client: ApiClient) -> Finding:
    """Ask whether the daemon answers. If not, that is only a warning: this machine may be fine."""
    try:
        version = client.json("GET", "/version")
    except ApiFailure as failure:
        return Finding("daemon", FindingVerdict.WARN, f"answers at {client.host}, but: {failure.message}")
    except CommandFailure as failure:
        problem, _, cure = str(failure).partition("\n")
        return Finding("daemon", FindingVerdict.WARN, problem, cure.removeprefix("Start it with: "))
    return Finding("daemon", FindingVerdict.OK, f"{version.get('Version', 'unknown version')} answers at {client.host}")


def look_at_docker_socket(path: Path, host: str, *, has_docker: bool) -> Finding:
    """Tell whether clients that are told nothing, such as `docker -H ssh://HOST`, find somebody at Docker's socket."""
    name = "docker socket"
    if path.exists():
        return Finding(name, FindingVerdict.OK, f"{path} is there, for clients that are told of no other")
    if has_docker:
        return Finding(name, FindingVerdict.OK, f"{path} is left to Docker, which is installed here")
    text = f"{path} is nobody's: clients that are told of no other, as by docker -H ssh://, would find bennud there"
    return Finding(name, FindingVerdict.OK, text, f"bennud -H {host} -H unix://{path}")


def read_warnings(client: ApiClient) -> list[Finding]:
    """Ask what the daemon itself finds wrong, such as records that it cannot read."""
    try:
        warnings = client.json("GET", "/info").get("Warnings") or []
    except CommandFailure:
        return []
    return [Finding("state", FindingVerdict.WARN, text.removeprefix("WARNING: ")) for text in warnings]


def print_findings(findings: Sequence[Finding], *, colours: bool) -> None:
    for finding in findings:
        mark = MARKS[finding.verdict]
        padded = mark.ljust(5)
        if colours:
            padded = COLOURS[finding.verdict] + padded + RESET
        say(f"{padded} {finding.name:<13} {visible(finding.text, sys.stdout)}", styled=True)
        if finding.cure:
            say(f"{'':5} {'':<13} → {finding.cure}")


def print_json(findings: Sequence[Finding]) -> None:
    say(json.dumps([asdict(finding) for finding in findings], indent=4))


def summary(findings: Sequence[Finding]) -> str:
    """Write the one line that ends the list. Pure."""
    failed = sum(finding.verdict is FindingVerdict.FAIL for finding in findings)
    warned = sum(finding.verdict is FindingVerdict.WARN for finding in findings)
    if failed:
        return f"\nThis machine cannot run containers yet: {failed} to cure, {warned} to know of."
    if warned:
        return f"\nThis machine can run containers; {warned} to know of."
    return "\nThis machine is fit."
