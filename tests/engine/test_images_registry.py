"""Pulling from and pushing to a real registry on this machine."""

import contextlib
import http.client
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from images_fixtures import Server, image_server, plain_registry  # noqa: F401 - fixtures
from images_helpers import digest_of, entry, make_tar

from bennu.images.platform import host_architecture
from support.daemon import Daemon
from support.registries import data_of


def test_what_is_pushed_comes_back_as_it_was(server: Server, registry: str) -> None:
    name = f"{registry}/team/app:v1"
    server.docker("import", "-c", "HEALTHCHECK CMD true", "-", name, stdin=make_tar([entry("f", os.urandom(3 << 20))]))
    before = server.inspect(name)
    pushed = server.docker("push", name).lines
    assert pushed[0] == f"The push refers to repository [{registry}/team/app]"
    assert pushed[-1].startswith("v1: digest: sha256:")
    digest = pushed[-1].split()[2]
    assert server.inspect(name)["RepoDigests"] == [f"{registry}/team/app@{digest}"]
    assert server.docker("rmi", name).lines[:2] == [f"Untagged: {name}", f"Untagged: {registry}/team/app@{digest}"]

    messages = server.messages("POST", f"/images/create?fromImage={registry}/team/app&tag=v1")
    words = [message["status"] for message in messages]
    assert words[0] == "Pulling from team/app" and messages[0]["id"] == "v1"
    assert words[1] == "Pulling fs layer" and messages[1]["progressDetail"] == {}
    loading = [message["progressDetail"] for message in messages if message["status"] == "Downloading"]
    assert loading and all(0 < step["current"] <= step["total"] for step in loading)
    assert [step["current"] for step in loading] == sorted(step["current"] for step in loading)
    news = f"Status: Downloaded newer image for {name}"
    assert words[-5:] == ["Verifying Checksum", "Download complete", "Pull complete", f"Digest: {digest}", news]
    after = server.inspect(name)
    assert after["Id"] == before["Id"] and after["RepoDigests"] == [f"{registry}/team/app@{digest}"]
    assert after["Config"]["Healthcheck"] == {"Test": ["CMD-SHELL", "true"]}

    again = server.docker("pull", name).lines
    assert again[-2] == f"Status: Image is up to date for {name}"
    by_digest = server.docker("pull", f"{registry}/team/app@{digest}").lines
    assert by_digest[-1] == f"{registry}/team/app@{digest}"
    assert server.docker("rmi", name).lines[:2] == [f"Untagged: {name}", f"Untagged: {registry}/team/app@{digest}"]


def test_a_mirror_is_asked_before_docker_hub_and_the_image_is_docker_hubs(
    make_daemon: Callable[..., Daemon], registry: str
) -> None:
    docker = make_daemon(options=[f"--registry-mirror=http://{registry}", "--max-concurrent-downloads=1"]).docker
    name = f"{registry}/library/mirrored:v1"
    docker("import", "-", name, stdin=make_tar([entry("f", b"content")]))
    docker("push", name)
    docker("rmi", name)
    docker("pull", "mirrored:v1")
    assert docker("images", "--format", "{{.Repository}}:{{.Tag}}").line == "mirrored:v1"
    assert docker("inspect", "-f", "{{index .RepoDigests 0}}", "mirrored:v1").line.startswith("mirrored@sha256:")


def put_index(registry: str, repository: str, tag: str, entries: list[dict[str, object]]) -> str:
    """Make a list of manifests in the registry; its digest."""
    kind = "application/vnd.docker.distribution.manifest.list.v2+json"
    body = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    connection = http.client.HTTPConnection(registry, timeout=20)
    with contextlib.closing(connection):
        connection.request("PUT", f"/v2/{repository}/manifests/{tag}", body, {"Content-Type": kind})
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
    return digest_of(body)


def test_of_a_list_of_platforms_this_machines_image_is_pulled(server: Server, registry: str) -> None:
    ours, theirs = f"{registry}/multi:ours", f"{registry}/multi:theirs"
    entries: list[dict[str, object]] = []
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    for name, machine in ((theirs, "s390x"), (ours, host_architecture())):
        server.docker("import", "-", name, stdin=make_tar([entry(machine, machine.encode())]))
        words = server.docker("push", name).lines[-1].split()
        platform = {"os": "linux", "architecture": machine}
        entries.append({"mediaType": kind, "digest": words[2], "size": int(words[4]), "platform": platform})
    wanted = server.inspect(ours)["Id"]
    server.docker("rmi", ours, theirs)
    digest = put_index(registry, "multi", "v1", entries)
    server.docker("pull", f"{registry}/multi:v1")
    found = server.inspect(f"{registry}/multi:v1")
    assert found["Id"] == wanted and found["RepoDigests"] == [f"{registry}/multi@{digest}"]
    put_index(registry, "multi", "v2", entries[:1])
    status, message = server.error("POST", f"/images/create?fromImage={registry}/multi&tag=v2")
    assert (status, message) == (
        500,
        f"no matching manifest for linux/{host_architecture()} in the manifest list entries",
    )
    server.docker("rmi", f"{registry}/multi:v1")


def test_errors_of_a_registry_are_dockers(server: Server, registry: str) -> None:
    assert server.error("POST", f"/images/create?fromImage={registry}/nosuch&tag=v1") == (
        404,
        f"manifest for {registry}/nosuch:v1 not found: manifest unknown: manifest unknown",
    )
    status, message = server.error("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=v1")
    assert status == 500 and message.startswith('Get "http')
    assert message.endswith("connect: connection refused")
    assert server.error("POST", "/images/create?fromImage=UPPER&tag=v1")[0] == 400
    refused = server.docker("push", f"{registry}/nosuch:v1", ok=False)
    assert refused.err.strip().endswith(f"tag does not exist: {registry}/nosuch:v1")


def test_pulls_of_one_image_at_once_bring_each_layer_once(server: Server, registry: str) -> None:
    name = f"{registry}/crowd:v1"
    server.docker("import", "-", name, stdin=make_tar([entry("f", os.urandom(2 << 20))]))
    server.docker("push", name)
    server.docker("rmi", name)
    path = f"/images/create?fromImage={registry}/crowd&tag=v1"
    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(lambda _: server.messages("POST", path), range(4)))
    assert all("error" not in message for messages in told for message in messages)
    brought = sum(any(message["status"] == "Verifying Checksum" for message in messages) for messages in told)
    assert brought == 1
    server.docker("rmi", name)


def test_a_layer_that_was_changed_in_the_registry_is_refused(server: Server, registry: str) -> None:
    name = f"{registry}/evil:v1"
    server.docker("import", "-", name, stdin=make_tar([entry("f", os.urandom(100_000))]))
    server.docker("push", name)
    image = server.inspect(name)
    server.docker("rmi", name)
    blobs = [path for path in data_of(registry).rglob("data") if path.stat().st_size > 90_000]
    for blob in blobs:
        changed = bytearray(blob.read_bytes())
        changed[-1000] ^= 0xFF
        blob.write_bytes(changed)
    messages = server.messages("POST", f"/images/create?fromImage={registry}/evil&tag=v1")
    assert messages[-1]["error"].startswith("filesystem layer verification failed for digest sha256:")
    assert messages[-1]["errorDetail"] == {"message": messages[-1]["error"]}
    assert server.error("GET", f"/images/{image['Id']}/json")[0] == 404
    assert list((server.images_root / "tmp").iterdir()) == []


def test_a_login_that_is_wrong_for_an_open_registry_does_no_harm(server: Server, registry: str) -> None:
    name = f"{registry}/open:v1"
    server.docker("import", "-", name, stdin=make_tar([entry("f", b"open")]))
    server.docker("push", name)
    config = server.root / "home/docker/config.json"
    config.write_text(json.dumps({"auths": {registry: {"auth": "dXNlcjpwYXNz"}}}))
    try:
        assert server.docker("pull", name).lines[-2].startswith("Status: Image is up to date")
    finally:
        config.unlink()
    server.docker("rmi", name)
