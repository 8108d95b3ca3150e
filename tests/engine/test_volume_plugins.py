"""Volumes that a legacy plugin keeps: made, mounted for each container, unmounted and removed by the plugin."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import images, traces
from support.cli import Cli
from support.daemon import Daemon
from support.plugin_server import Json, PluginServer


class Keeper:
    """A volume driver: a folder a volume, which has a path only while somebody has it mounted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.volumes: dict[str, set[str]] = {}
        self.server = PluginServer(f"bt-{secrets.token_hex(4)}", "VolumeDriver", self.answer)

    def shown(self, name: str) -> Json:
        return {"Name": name, "Mountpoint": str(self.root / name) if self.volumes[name] else ""}

    def answer(self, method: str, body: Json) -> Json | str:
        verb, name = method.removeprefix("VolumeDriver."), body.get("Name", "")
        if verb == "Capabilities":
            return {"Capabilities": {"Scope": "Global"}}
        if verb == "List":
            return {"Volumes": [self.shown(known) for known in self.volumes]}
        if verb == "Create":
            if body["Opts"].get("size") == "bad":
                return {"Err": "no such size"}
            self.volumes[name] = set()
            (self.root / name).mkdir()
            return {}
        if name not in self.volumes:
            return "unknown volume"
        if verb == "Mount":
            self.volumes[name].add(body["ID"])
        if verb == "Unmount":
            self.volumes[name].remove(body["ID"])
        if verb == "Remove":
            del self.volumes[name]
        if verb == "Get":
            return {"Volume": self.shown(name)}
        return self.shown(name) if name in self.volumes else {}


@pytest.fixture(scope="module")
def kept(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Keeper]]:
    keeper = Keeper(tmp_path_factory.mktemp("kept"))
    daemon = Daemon()
    try:
        daemon.start()
        images.import_base(daemon.docker, "busybox")
        yield daemon, keeper
    finally:
        traces.discard(daemon)
        keeper.server.close()


def inspected(docker: Cli, name: str) -> Json:
    found: Json = json.loads(docker("volume", "inspect", name).out)[0]
    return found


def test_a_volume_is_made_used_and_removed_by_its_plugin(kept: tuple[Daemon, Keeper]) -> None:
    daemon, keeper = kept
    docker, driver = daemon.docker, keeper.server.name
    assert docker("volume", "create", "-d", driver, "-o", "size=1", "--label=a=b", "mine").line == "mine"
    shown = inspected(docker, "mine")
    assert (shown["Driver"], shown["Scope"], shown["Options"], shown["Labels"]) == (
        driver,
        "global",
        {"size": "1"},
        {"a": "b"},
    )
    docker("run", "--rm", "-v", "mine:/data", "busybox", "sh", "-c", "echo kept > /data/file")
    assert (keeper.root / "mine/file").read_text() == "kept\n"
    assert keeper.volumes == {"mine": set()}
    docker("run", "-d", "--name=user", "-v", "mine:/data:ro", "busybox", "sleep", "600")
    user = docker("inspect", "-f", "{{.Id}}", "user").line
    assert keeper.volumes == {"mine": {user}}
    daemon.kill()
    daemon.start()  # what a daemon forgot, it could not give back
    assert docker("exec", "user", "cat", "/data/file").line == "kept"
    refused = docker("volume", "rm", "mine", ok=False)
    assert "volume is in use" in refused.err
    docker("cp", "user:/data/file", "-")
    docker("rm", "-f", "user")
    assert keeper.volumes == {"mine": set()}
    docker("volume", "prune", "-af")
    assert keeper.volumes == {"mine": set()}  # nobody prunes a plugin's volumes
    docker("volume", "rm", "mine")
    assert keeper.volumes == {}
    assert driver in json.loads(daemon.request("GET", "/info")[1])["Plugins"]["Volume"]


def test_the_driver_of_a_container_keeps_its_volumes(kept: tuple[Daemon, Keeper]) -> None:
    daemon, keeper = kept
    docker, driver = daemon.docker, keeper.server.name
    docker("run", "--rm", f"--volume-driver={driver}", "-v", "named:/a", "-v", "/b", "busybox", "touch", "/a/x", "/b/y")
    assert list(keeper.volumes) == ["named"]  # the anonymous one went with the container
    assert (keeper.root / "named/x").exists()
    docker("run", "--rm", "--mount", f"src=filled,dst=/etc,volume-driver={driver}", "busybox", "true")
    assert (keeper.root / "filled/passwd").exists()  # a new volume is filled with what the image has there
    docker("volume", "rm", "named", "filled")
    asked = keeper.server.methods()
    docker("run", "--rm", "-v", "/b", "busybox", "true")
    assert keeper.server.methods() == asked  # a name that was just drawn is nobody's


def test_a_folder_of_a_plugins_volume_is_mounted_alone(kept: tuple[Daemon, Keeper]) -> None:
    daemon, keeper = kept
    docker = daemon.docker
    part = f"type=volume,src=parts,dst=/part,volume-driver={keeper.server.name},volume-subpath=a/b"
    refused = docker("run", "--rm", "--mount", part, "busybox", "true", ok=False)
    assert "cannot access path" in refused.err, refused.err
    (keeper.root / "parts/a/b").mkdir(parents=True)
    docker("run", "--name=part", "--mount", part, "busybox", "touch", "/part/x")
    assert (keeper.root / "parts/a/b/x").exists()
    point = json.loads(docker("inspect", "part").out)[0]["Mounts"][0]
    assert (point["Driver"], point["Mode"]) == (keeper.server.name, "")  # no label: that is for local volumes
    docker("cp", "part:/part/x", "-")  # the container has ended: mounted for the copy
    assert keeper.volumes == {"parts": set()}
    docker("rm", "part")
    docker("volume", "rm", "parts")


def test_a_volume_that_only_the_plugin_knows_is_found(kept: tuple[Daemon, Keeper]) -> None:
    daemon, keeper = kept
    docker = daemon.docker
    keeper.answer("VolumeDriver.Create", {"Name": "foreign", "Opts": {}})
    assert f"{keeper.server.name} foreign" in docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}").lines
    docker("run", "--rm", "-v", "foreign:/data", "busybox", "touch", "/data/x")
    assert (keeper.root / "foreign/x").exists()
    docker("volume", "rm", "foreign")
    assert keeper.volumes == {}


def test_what_a_plugin_refuses_is_told_in_its_words(kept: tuple[Daemon, Keeper]) -> None:
    daemon, keeper = kept
    docker, driver = daemon.docker, keeper.server.name
    assert "create bad: no such size" in docker("volume", "create", "-d", driver, "-o", "size=bad", "bad", ok=False).err
    said = docker("volume", "create", "-d", "nobody-has-it", "x1", ok=False).err
    assert 'create x1: error looking up volume plugin nobody-has-it: plugin "nobody-has-it" not found' in said
    docker("volume", "create", "ours")
    said = docker("volume", "create", "-d", driver, "ours", ok=False).err
    assert "create ours: volume name must be unique" in said
    docker("volume", "create", "-d", driver, "lost")
    del keeper.volumes["lost"]
    said = docker("run", "--rm", "-v", "lost:/data", "busybox", "true", ok=False)
    assert "VolumeDriver.Mount: unknown volume" in said.err and said.code == 125
    assert "remove lost: VolumeDriver.Remove: unknown volume" in docker("volume", "rm", "lost", ok=False).err
    docker("volume", "rm", "-f", "lost")
    docker("volume", "rm", "ours")
    assert not docker("volume", "ls", "-q").out
