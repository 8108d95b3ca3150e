"""docker-py, unmodified: it pools connections, negotiates once, and reads streams its own way."""

import io
import tarfile
import threading
import time

import docker
import pytest
import requests
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound, NotFound

from support.daemon import Daemon
from support.waiting import wait_for


def test_run_returns_output_and_raises_on_failure(client: docker.DockerClient, busybox: str) -> None:
    assert client.containers.run(busybox, "echo hello", remove=True, network_mode="none") == b"hello\n"
    with pytest.raises(ContainerError) as failed:
        client.containers.run(busybox, ["sh", "-c", "echo bad >&2; exit 3"], remove=True, network_mode="none")
    assert failed.value.exit_status == 3
    assert failed.value.stderr == b"bad\n"


def test_a_missing_image_and_a_missing_container_are_told_apart(client: docker.DockerClient) -> None:
    with pytest.raises(ImageNotFound):
        client.api.create_container("nosuch-image:v9", "true")
    with pytest.raises(NotFound) as missing:
        client.containers.get("nope")
    assert not isinstance(missing.value, ImageNotFound)
    assert missing.value.explanation == "No such container: nope"


def test_a_whole_life(client: docker.DockerClient, busybox: str) -> None:
    box = client.containers.run(busybox, "sleep 1000", detach=True, name="py", labels={"a": "b"}, network_mode="none")
    assert box.status == "created" or box.status == "running"
    box.reload()
    assert box.status == "running"
    assert [one.name for one in client.containers.list(filters={"label": "a=b"})] == ["py"]
    box.pause()
    box.reload()
    assert box.status == "paused"
    box.unpause()
    box.rename("py2")
    assert client.containers.get("py2").id == box.id
    box.restart(timeout=0)
    assert box.top()["Titles"][0] == "UID"
    box.kill()
    assert box.wait() == {"StatusCode": 137}
    box.start()
    box.stop(timeout=0)
    box.remove()
    assert client.containers.list(all=True) == []


def test_who_has_heard_all_of_a_container_finds_it_ended(client: docker.DockerClient, busybox: str) -> None:
    for number in range(5):
        box = client.containers.create(busybox, f"sh -c 'echo hello; exit {number}'", network_mode="none")
        stream = box.attach(stdout=True, stream=True)
        box.start()
        assert b"".join(stream) == b"hello\n"
        box.reload()
        assert (box.status, box.attrs["State"]["ExitCode"]) == ("exited", number)


def test_a_network_is_found_in_its_scope_only(client: docker.DockerClient) -> None:
    network = client.networks.create("scoped", scope="local")
    assert client.api.inspect_network(network.id, scope="local")["Scope"] == "local"
    with pytest.raises(NotFound):
        client.api.inspect_network(network.id, scope="swarm")


def test_inspect_shows_of_a_network_what_was_asked_for(client: docker.DockerClient) -> None:
    """A gateway that nobody named is shown only where the subnet was chosen, too, as by dockerd."""
    pool = docker.types.IPAMPool(subnet="10.215.96.0/24", iprange="10.215.96.128/25")
    named = client.networks.create("named", ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    (shown,) = named.attrs["IPAM"]["Config"]
    assert shown == {"Subnet": "10.215.96.0/24", "IPRange": "10.215.96.128/25"}
    (chosen,) = client.networks.create("chosen").attrs["IPAM"]["Config"]
    assert set(chosen) == {"Subnet", "Gateway"}
    assert client.networks.create("made-of").attrs["ConfigFrom"] == {"Network": ""}


def test_exec_with_streams_told_apart(client: docker.DockerClient, busybox: str) -> None:
    box = client.containers.run(busybox, "sleep 1000", detach=True, network_mode="none")
    done = box.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (done.exit_code, done.output) == (4, (b"out\n", b"err\n"))
    code, output = box.exec_run("sh -c 'echo a; sleep 0.1; echo b'", stream=True)
    assert (code, b"".join(output)) == (None, b"a\nb\n")
    assert box.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")


def test_logs_as_a_whole_and_as_they_come(client: docker.DockerClient, busybox: str) -> None:
    script = "for i in 1 2 3; do echo $i; sleep 0.2; done"
    box = client.containers.run(busybox, ["sh", "-c", script], detach=True, network_mode="none")
    assert b"".join(box.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert box.logs(tail=1) == b"3\n"
    assert box.logs(stdout=False) == b""


def test_attach_before_the_start_loses_nothing(client: docker.DockerClient, busybox: str) -> None:
    made = client.api.create_container(busybox, ["sh", "-c", "echo first"], host_config={"NetworkMode": "none"})
    stream = client.api.attach(made["Id"], stream=True)
    client.api.start(made["Id"])
    assert b"".join(stream) == b"first\n"


def test_the_attached_socket_speaks_both_ways(client: docker.DockerClient, busybox: str) -> None:
    box = client.containers.create(busybox, "cat", stdin_open=True, tty=True, network_mode="none")
    socket = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    box.start()
    socket._sock.sendall(b"ping\n")
    seen = b""
    while b"ping\r\nping" not in seen:
        seen += socket._sock.recv(100)
    socket.close()


def test_events_are_a_stream(client: docker.DockerClient, busybox: str) -> None:
    events = client.events(decode=True, filters={"type": "container", "event": ["create", "destroy"]})
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(event["Action"] for event in events))
    reader.start()
    time.sleep(0.3)
    client.containers.create(busybox, "true", network_mode="none").remove()
    wait_for(lambda: seen == ["create", "destroy"])
    events.close()
    reader.join(10)
    assert not reader.is_alive()


def test_conflicts_and_bad_input_have_their_status(client: docker.DockerClient, busybox: str) -> None:
    client.containers.create(busybox, "true", name="taken")
    for code, make in (
        (409, lambda: client.containers.create(busybox, "true", name="taken")),
        (400, lambda: client.containers.create(busybox, "true", name="a b")),
        (400, lambda: client.containers.create(busybox, "true", mem_limit="1m")),
        (409, lambda: client.containers.get("taken").kill()),
        (400, lambda: client.containers.list(filters={"bogus": "1"})),
    ):
        with pytest.raises(APIError) as refused:
            make()
        assert refused.value.response.status_code == code


def test_files_go_in_and_out(client: docker.DockerClient, busybox: str) -> None:
    box = client.containers.run(busybox, "sleep 1000", detach=True, network_mode="none")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("note.txt")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    assert box.put_archive("/tmp", data.getvalue())
    assert box.exec_run("cat /tmp/note.txt").output == b"hello"
    pieces, stat = box.get_archive("/tmp/note.txt")
    assert (stat["name"], stat["size"]) == ("note.txt", 5)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        member = archive.extractfile("note.txt")
        assert member is not None
        assert member.read() == b"hello"
    with pytest.raises(NotFound):
        box.get_archive("/tmp/absent")


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.40", "1.44", "1.47", "1.51"])
def test_every_version_that_is_claimed_works(daemon: Daemon, busybox: str, version: str) -> None:
    client = docker.DockerClient(base_url=daemon.host, version=version)
    try:
        assert client.containers.run(busybox, "echo x", remove=True, network_mode="none") == b"x\n"
    finally:
        client.close()


def test_pooled_connections_are_kept(client: docker.DockerClient) -> None:
    for _ in range(30):
        assert client.ping()
    assert client.version()["ApiVersion"] == "1.51"
    assert isinstance(client.api, requests.Session)


def test_an_image_is_built_with_its_log_and_its_errors(client: docker.DockerClient, busybox: str) -> None:
    client.images.get(busybox).tag("base")
    dockerfile = b"FROM base\nARG WHO\nRUN echo made for $WHO > /made\n"
    image, log = client.images.build(
        fileobj=io.BytesIO(dockerfile), tag="built:1", buildargs={"WHO": "you"}, labels={"a": "b"}, rm=True
    )
    assert image.tags == ["built:1"] and image.labels == {"a": "b"}
    assert [line["stream"] for line in log if "stream" in line][-1] == "Successfully tagged built:1\n"
    assert client.containers.run(image, "cat /made", remove=True, network_mode="none") == b"made for you\n"
    told = list(client.api.build(fileobj=io.BytesIO(dockerfile), nocache=True, decode=True))  # rm: no, by default
    assert not any("Removed intermediate container" in line.get("stream", "") for line in told)
    built = next(line["aux"]["ID"] for line in told if "aux" in line)
    assert client.images.get(built).short_id == f"sha256:{told[-1]['stream'].split()[-1]}"
    with pytest.raises(BuildError, match="returned a non-zero code: 7") as failed:
        client.images.build(fileobj=io.BytesIO(b"FROM base\nRUN echo bad; exit 7\n"))
    assert "bad\n" in [line.get("stream") for line in failed.value.build_log]
    with pytest.raises(APIError, match="unknown instruction: NOPE") as refused:
        client.images.build(fileobj=io.BytesIO(b"FROM base\nNOPE\n"))
    assert refused.value.status_code == 400
