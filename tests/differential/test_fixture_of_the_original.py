"""The differential tests stand on a real dockerd; this one says so."""

from support.cli import Cli


def test_the_original_runs_a_container_and_passes_its_exit_code_on(oracle: Cli) -> None:
    assert oracle("run", "--rm", "busybox", "sh", "-c", "echo hello; exit 7", ok=False).code == 7
