"""All firewall rules of a machine flushed, in a network of the test's own: the daemon puts its own back."""

import shutil
import subprocess
from collections.abc import Callable

import pytest

from support import images
from support.daemon import BENNUD, Daemon
from support.waiting import wait_for

HTTPD = ("sh", "-c", "mkdir /w && echo here > /w/index.html && exec httpd -f -p 80 -h /w")
# A daemon in a network that nobody else has: what is flushed there is missed nowhere.
IN_OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", BENNUD)
RECONCILED_S = 5.0


def at(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in the daemon's network."""
    argv = ["nsenter", f"--net=/proc/{daemon.pid}/ns/net", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_published_ports_and_isolation_are_back_after_nft_flush_ruleset(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(program=IN_OWN_NETWORK)
    cli, busybox = daemon.docker, images.import_base(daemon.docker, "busybox")
    for name in ("front", "back"):
        cli("network", "create", name)
        cli("run", "-d", f"--name={name}", f"--network={name}", "-p", "80", busybox, *HTTPD)
    port = cli("port", "front", "80/tcp").lines[0].rpartition(":")[2]
    address = cli("exec", "back", "hostname", "-i").line
    gateway = cli("exec", "back", "sh", "-c", "ip route | cut -d' ' -f3 | head -1").line
    around = ("exec", "back", "sh", "-c", f"timeout 1 wget -qO- http://{gateway}:{port}/ || echo nothing")
    across = ("exec", "front", "sh", "-c", f"timeout 1 wget -qO- http://{address}/ || echo nothing")

    def here() -> str:
        return at(daemon, "curl", "-s", "-m", "1", f"http://127.0.0.1:{port}/").stdout

    wait_for(lambda: here() == "here\n" and cli(*around).line == "here", what="the published port")
    assert cli(*across).line == "nothing"
    for _ in range(3):
        assert at(daemon, "nft", "flush", "ruleset").returncode == 0
        wait_for(lambda: cli(*around).line == "here", timeout_s=RECONCILED_S, what="the published port after the flush")
        assert here() == "here\n"
        assert cli(*across).line == "nothing", "the networks are no longer kept apart"
        assert cli("exec", "front", "wget", "-qO-", "http://front/").line == "here"
