"""The API as version 1.51 has it, and as older clients know it, against a running engine."""

import io
import json
import tarfile
from typing import Any
from urllib.parse import quote

import pytest

from support.daemon import Daemon

READ_JSON = (
    *("/containers/create", "/containers/foobar/update", "/containers/foobar/exec", "/exec/foobar/start", "/commit"),
    *("/networks/create", "/networks/foobar/connect", "/networks/foobar/disconnect", "/volumes/create"),
    *("/plugins/foobar/set", "/plugins/pull", "/plugins/foobar/upgrade", "/swarm/init"),
)
ARM: str = quote('{"os":"linux","architecture":"s390x"}')


def ask(daemon: Daemon, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    status, raw = daemon.request(method, path, None if body is None else json.dumps(body), headers)
    return status, json.loads(raw) if raw.strip() else None


def run(daemon: Daemon, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Start a container of this body and answer how it is inspected."""
    status, made = ask(daemon, "POST", f"/containers/create?name={name}", {"Image": "busybox", **body})
    assert status == 201, made
    assert ask(daemon, "POST", f"/containers/{name}/start")[0] == 204
    found: dict[str, Any] = ask(daemon, "GET", f"/containers/{name}/json")[1]
    return found


@pytest.mark.parametrize("path", READ_JSON)
def test_a_body_is_judged_before_anything_is_looked_up(daemon: Daemon, path: str) -> None:
    for content_type, body, words in (
        ("text/plain", "{}", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        ("application/json", "{invalid", "invalid character 'i' looking for beginning of object key string"),
        ("application/json", ("[]" if path.startswith("/plugins") else "{}") + " x", "unexpected content after JSON"),
    ):
        status, raw = daemon.request("POST", f"/v1.51{path}", body, {"Content-Type": content_type})
        assert (status, words in json.loads(raw)["message"]) == (400, True), raw


def test_limits_count_in_whatever_case_they_are_written(daemon: Daemon, busybox: str) -> None:
    host = {
        "networkmode": "none",
        "memory": 64 << 20,
        "readonlyRootfs": True,
        "capDrop": ["ALL"],
        "NanoCPUs": 5 * 10**8,
    }
    body = {"user": "1000", "cmd": ["sh", "-c", "id -u; touch /x; grep CapBnd /proc/self/status"], "hostConfig": host}
    shown = run(daemon, "folded", body)
    assert shown["HostConfig"]["Memory"] == 64 << 20
    assert shown["HostConfig"]["NanoCpus"] == 5 * 10**8
    assert ask(daemon, "POST", "/containers/folded/wait")[0] == 200
    said = daemon.docker("logs", "folded")
    assert said.out.splitlines() == ["1000", "CapBnd:\t0000000000000000"]
    assert "Read-only file system" in said.err
    assert ask(daemon, "POST", "/containers/folded/update", {"restartpolicy": {"NAME": "always"}})[0] == 200
    assert ask(daemon, "GET", "/containers/folded/json")[1]["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_limits_are_changed_and_lifted_by_an_update(daemon: Daemon, busybox: str) -> None:
    host = {"NetworkMode": "none", "PidsLimit": 32, "SecurityOpt": ["writable-cgroups=false"]}
    run(daemon, "limited", {"Cmd": ["sleep", "1000"], "HostConfig": host})

    def update(version: str = "1.51", **asked: int) -> dict[str, Any]:
        status, answer = ask(daemon, "POST", f"/v{version}/containers/limited/update", asked)
        assert status == 200, answer
        found: dict[str, Any] = ask(daemon, "GET", "/containers/limited/json")[1]["HostConfig"]
        return found

    assert update("1.39", PidsLimit=16)["PidsLimit"] == 32
    assert update(PidsLimit=16)["PidsLimit"] == 16
    assert update(PidsLimit=-2)["PidsLimit"] == 0
    for quota in (15_000, 20_000, -1):
        assert update(CpuQuota=quota)["CpuQuota"] == quota


def test_older_clients_get_what_they_took_for_granted(daemon: Daemon, busybox: str) -> None:
    status, made = ask(daemon, "POST", "/v1.39/containers/create?name=old", {"Image": "busybox", "HostConfig": {}})
    assert status == 201, made
    assert ask(daemon, "GET", "/containers/old/json")[1]["HostConfig"]["IpcMode"] == "shareable"
    body = {"Image": "busybox", "HostConfig": {"Annotations": {"": "a"}}}
    words = "invalid Annotations: the empty string is not permitted as an annotation key"
    assert ask(daemon, "POST", "/containers/create", body) == (400, {"message": words})
    body = {"Image": "busybox", "HostConfig": {"SecurityOpt": ["writable-cgroups=potato"]}}
    words = 'invalid --security-opt 2: "writable-cgroups=potato"'
    assert ask(daemon, "POST", "/containers/create", body) == (500, {"message": words})
    info = ask(daemon, "GET", "/v1.49/info")[1]
    assert (info["BridgeNfIptables"], "BridgeNfIptables" in ask(daemon, "GET", "/v1.50/info")[1]) == (False, False)


def test_the_terminal_of_an_exec_ends_with_its_container(daemon: Daemon, busybox: str) -> None:
    shown = run(daemon, "over", {"Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}})
    made = ask(daemon, "POST", "/containers/over/exec", {"Cmd": ["sleep", "1000"], "Tty": True})[1]["Id"]
    assert ask(daemon, "POST", f"/exec/{made}/start", {"Detach": True, "Tty": True})[0] == 200
    assert ask(daemon, "POST", f"/exec/{made}/resize?h=40&w=40")[0] == 200
    assert ask(daemon, "POST", "/containers/over/kill")[0] == 204
    assert ask(daemon, "POST", "/containers/over/wait")[0] == 200
    words = f"container {shown['Id']} is not running"
    assert ask(daemon, "POST", f"/exec/{made}/resize?h=40&w=40") == (409, {"message": words})


def test_images_are_for_one_platform(daemon: Daemon, busybox: str) -> None:
    own = quote(json.dumps({"os": "linux", "architecture": ask(daemon, "GET", "/version")[1]["Arch"]}))
    for path in ("json", "history", "get"):
        assert daemon.request("GET", f"/images/busybox/{path}?platform={own}")[0] == 200
    for method, path in (
        ("GET", "/images/busybox/json"),
        ("GET", "/images/busybox/history"),
        ("DELETE", "/images/busybox"),
    ):
        status, answer = ask(daemon, method, f"{path}?platform{'s' if method == 'DELETE' else ''}={ARM}")
        assert status == 404
        assert "does not match the specified platform (linux/s390x)" in answer["message"]
    assert ask(daemon, "GET", f"/v1.48/images/busybox/json?platform={ARM}")[0] == 200
    assert ask(daemon, "GET", f"/images/busybox/get?platform={own}&platform={ARM}") == (
        400,
        {"message": "multiple platform parameters not supported"},
    )
    assert ask(daemon, "GET", f"/images/busybox/get?platform={ARM}")[0] == 500


def test_disk_usage_is_told_by_kind(daemon: Daemon, busybox: str) -> None:
    ask(daemon, "POST", "/containers/create?name=user", {"Image": "busybox"})
    everything = ask(daemon, "GET", "/system/df")[1]
    (image,) = (one for one in everything["Images"] if "busybox:latest" in one["RepoTags"])
    assert image["Containers"] == 1
    assert everything["LayersSize"] <= sum(one["Size"] for one in everything["Images"])
    ask(daemon, "POST", "/images/busybox/tag?repo=twin")
    ask(daemon, "POST", "/commit?container=user&repo=child")
    shared = ask(daemon, "GET", "/system/df?type=image")[1]
    assert shared["LayersSize"] == everything["LayersSize"]  # the same layers once more
    sizes = {name: one["SharedSize"] for one in shared["Images"] for name in one["RepoTags"]}
    assert sizes["busybox:latest"] == sizes["child:latest"] == image["Size"]
    assert (shared["Containers"], shared["Volumes"], shared["BuildCache"]) == (None, None, None)
    volumes = ask(daemon, "GET", "/system/df?type=volume&type=build-cache")[1]
    there = len(ask(daemon, "GET", "/volumes")[1]["Volumes"])
    assert len(volumes.pop("Volumes")) == there
    assert isinstance(volumes.pop("BuildCache"), list)
    assert volumes == {"LayersSize": 0, "Images": None, "Containers": None}
    assert ask(daemon, "GET", "/system/df?type=zz") == (400, {"message": "unknown object type: zz"})
    assert ask(daemon, "GET", "/v1.41/system/df?type=zz")[0] == 200
    listed = {minor: ask(daemon, "GET", f"/v1.{minor}/images/json")[1] for minor in (50, 51)}
    assert {one["Containers"] for one in listed[50]} == {-1}
    assert sorted(one["Containers"] for one in listed[51]) == [0, 1]


def test_there_are_no_plugins_and_no_sessions(daemon: Daemon) -> None:
    assert ask(daemon, "GET", "/plugins") == (200, [])
    assert ask(daemon, "POST", "/plugins/foobar/enable") == (404, {"message": 'plugin "foobar" not found'})
    assert ask(daemon, "POST", "/plugins/pull") == (400, {"message": "invalid reference format"})
    assert ask(daemon, "POST", "/plugins/pull?remote=a/b")[0] == 501
    assert ask(daemon, "POST", "/session") == (400, {"message": "no upgrade proto in request"})
    status, raw = daemon.request("POST", "/session", None, {"Connection": "Upgrade", "Upgrade": "foo"})
    assert (status, json.loads(raw)) == (400, {"message": "protocol foo not supported"})


def test_a_slash_at_the_end_of_a_path_leads_through_a_link(daemon: Daemon, busybox: str) -> None:
    made = run(daemon, "linked", {"Cmd": ["ln", "-s", "/etc", "/link"], "HostConfig": {"NetworkMode": "none"}})["Id"]
    assert ask(daemon, "POST", "/containers/linked/wait")[0] == 200
    names = {}
    for path in ("/link", "/link/", "/link/."):
        status, raw = daemon.request("GET", f"/containers/linked/archive?path={path}")
        assert status == 200
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            names[path] = archive.getnames()
    assert names["/link"] == ["link"]
    assert names["/link/"][:2] == ["link", "link/group"]
    assert names["/link/."][:2] == [".", "./group"]
    words = f"Could not find the file /dne in container {made}"
    assert ask(daemon, "GET", f"/containers/{made}/archive?path=/dne") == (404, {"message": words})
