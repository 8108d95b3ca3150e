"""Another program's firewall drops what is forwarded: what doctor says is what it takes, no more."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from network_helpers import exchange, needs_network, open_neighbour

from support import images
from support.daemon import Daemon
from support.waiting import wait_for

pytestmark = [needs_network, pytest.mark.slow]
NEIGHBOUR, GATEWAY = "198.18.78.2", "198.18.78.1"
STRICT = """
table inet strict {
	chain forward { type filter hook forward priority filter; policy drop; ct state established,related accept; }
}
"""
DOCKERS = "iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER && iptables -P FORWARD DROP"
DOCKERS_END = "iptables -P FORWARD ACCEPT; nft delete table ip filter"


def firewall_findings(daemon: Daemon) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(daemon.bennu("doctor", "--json").out)
    return [one for one in found if one["name"] == "firewall"]


def has_iptables() -> bool:
    program = shutil.which("iptables")
    return program is not None and b"nf_tables" in subprocess.run([program, "--version"], capture_output=True).stdout


@pytest.mark.parametrize("owner", ["a table of nftables", "iptables as Docker leaves it"])
def test_what_doctor_says_lets_containers_through_a_firewall_that_drops(
    make_daemon: Callable[..., Daemon], tmp_path: Path, owner: str
) -> None:
    is_dockers = owner.startswith("iptables")
    if is_dockers and not has_iptables():
        pytest.skip("iptables over nftables is not installed")
    daemon = make_daemon()
    docker, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")
    docker("network", "create", "front")
    docker("run", "-d", "-p", "7000:7", "--network", "front", busybox, "nc", "-ll", "-p", "7", "-e", "hostname")
    with open_neighbour(tmp_path, NEIGHBOUR, GATEWAY) as neighbour, contextlib.ExitStack() as undo:

        def reached() -> bool:
            try:
                return bool(exchange(neighbour, GATEWAY, 7000))
            except OSError:
                return False

        wait_for(reached, what="the published port to be reached")
        undo.callback(subprocess.run, ["sh", "-c", DOCKERS_END if is_dockers else "nft delete table inet strict"])
        if is_dockers:
            subprocess.run(["sh", "-ec", DOCKERS], check=True)
        else:
            subprocess.run(["nft", "-f", "-"], input=STRICT.encode(), check=True)
        assert not reached(), "the firewall does not drop"
        (finding,) = firewall_findings(daemon)
        assert finding["verdict"] == "warn" and docker("network", "ls", "-qf", "name=front").line in finding["cure"]
        subprocess.run(["sh", "-ec", finding["cure"]], check=True)
        wait_for(reached, what="the published port to be reached")
        (finding,) = firewall_findings(daemon)
        assert finding["verdict"] == "ok"
        docker("network", "create", "later")
        (finding,) = firewall_findings(daemon)
        assert docker("network", "ls", "-qf", "name=later").line in finding["cure"]
