"""Fixtures for every test. Those that need a real engine skip with the reason where none can run."""

from collections.abc import Callable, Iterator

import docker as docker_py
import pytest

from support import images, traces
from support import oracle as oracle_support
from support.cli import Cli, docker_version
from support.daemon import Daemon, why_not

LOG_LINES = 60
RECENT_DOCKER = (25, 0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--half", type=int, choices=(1, 2), help="run every second file, from the first or the second on")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    half: int | None = config.getoption("half")
    if half is None:
        return
    wanted = set(sorted({item.path for item in items})[half - 1 :: 2])
    config.hook.pytest_deselected(items=[item for item in items if item.path not in wanted])
    items[:] = [item for item in items if item.path in wanted]


@pytest.fixture(scope="session")
def able() -> None:
    """Skip unless containers can run here."""
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def _shared_daemon(able: None) -> Iterator[Daemon]:
    daemon = Daemon()
    try:
        daemon.start()
        yield daemon
        remove_containers(daemon)
        traces.assert_nothing_left(daemon)
    finally:
        traces.discard(daemon)


@pytest.fixture
def daemon(_shared_daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """The session's bennud. Containers a test leaves are removed after it; a daemon that died is a failure, once."""
    if not _shared_daemon.is_alive:
        _shared_daemon.start()
    request.node.stash[log_key] = (_shared_daemon, len(_shared_daemon.log()))
    yield _shared_daemon
    assert _shared_daemon.is_alive, f"bennud died\n{tail(_shared_daemon.log())}"
    remove_containers(_shared_daemon)


@pytest.fixture
def make_daemon(able: None, request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """`make_daemon(options=[...])` starts a bennud for this test alone, to be killed, stopped and started at will."""
    made: list[Daemon] = []

    def make(**settings: object) -> Daemon:
        daemon = Daemon(**settings)  # type: ignore[arg-type]
        made.append(daemon)
        request.node.stash[log_key] = (daemon, 0)
        return daemon.start()

    yield make
    for daemon in made:
        traces.discard(daemon)


@pytest.fixture
def docker(daemon: Daemon) -> Cli:
    """The real docker command, pointed at the session's bennud."""
    return daemon.docker


@pytest.fixture
def bennu(daemon: Daemon) -> Cli:
    """Our own command, pointed at the session's bennud, for the words that only it knows."""
    return daemon.bennu


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker_py.DockerClient]:
    """docker-py, pointed at the session's bennud."""
    client = docker_py.DockerClient(base_url=daemon.host, version="auto", timeout=60)
    yield client
    client.close()


@pytest.fixture
def busybox(daemon: Daemon) -> str:
    """An image with a shell and every small tool."""
    return images.import_base(daemon.docker, "busybox")


@pytest.fixture
def python(daemon: Daemon) -> str:
    """An image with python3, sh and curl."""
    return images.import_base(daemon.docker, "python")


@pytest.fixture
def signaltest(daemon: Daemon, python: str) -> str:
    """The program that says which signal it got and exits with its number."""
    return images.build_example(daemon.docker, "signaltest", "signaltest:v1")


@pytest.fixture(scope="session")
def oracle() -> Iterator[Cli]:
    """The docker command, pointed at a private dockerd that has the image busybox."""
    if reason := why_not() or oracle_support.why_not():
        pytest.skip(reason)
    with oracle_support.run_dockerd() as cli:
        images.import_base(cli, "busybox")
        yield cli


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what expects a recent docker client where the client is an old one."""
    if item.get_closest_marker("recent_docker"):
        version = docker_version()
        if version < RECENT_DOCKER:
            pytest.skip(f"the docker command here is version {version[0]}; this expects the words of a newer one")


def remove_containers(daemon: Daemon) -> None:
    if ids := daemon.docker("ps", "-aq").lines:
        daemon.docker("rm", "-fv", *ids)


# --- the daemon's log, beside a failed test's own output -----------------------------------------------------------

log_key = pytest.StashKey[tuple[Daemon, int]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and (found := item.stash.get(log_key, None)):
        daemon, start = found
        if since := daemon.log()[start:]:
            report.sections.append(("bennud's log since the test began", tail(since)))
    return report


def tail(text: str) -> str:
    return "\n".join(text.splitlines()[-LOG_LINES:])
