"""What bennud's options say of containers, registries and itself, held to by real containers of one daemon."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from bennu.engine.defaults import is_cgroup_v2
from support import images, traces
from support.daemon import Daemon
from support.waiting import wait_for

PARENT = "bennu-options-test"


class Proxy(ThreadingHTTPServer):
    """A proxy that leads nowhere and remembers where to it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), RefusingProxy)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class RefusingProxy(BaseHTTPRequestHandler):
    server: Proxy

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(502)

    do_GET = do_CONNECT  # noqa: N815 - the name that the base class calls

    def log_message(self, format: str, *args: Any) -> None:
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    server = Proxy()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def tuned(able: None, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one of each."""
    folder = tmp_path_factory.mktemp("tuned")
    profile, file = folder / "seccomp.json", folder / "daemon.json"
    calls = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}))
    address = f"http://me:secret@127.0.0.1:{proxy.server_address[1]}"
    file.write_text(
        json.dumps(
            {
                "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 123, "Hard": 456}},
                "default-shm-size": "8m",
                "default-ipc-mode": "shareable",
                "default-cgroupns-mode": "private",
                "cgroup-parent": PARENT,
                "no-new-privileges": True,
                "log-opts": {"max-size": "1m", "max-file": "2"},
                "seccomp-profile": str(profile),
                "init": True,
                "debug": True,
                "experimental": True,
                "insecure-registries": ["insecure.invalid:5000", "10.1.0.0/16"],
                "registry-mirrors": ["https://mirror.invalid"],
                "proxies": {"http-proxy": address, "https-proxy": address, "no-proxy": "198.51.100.7"},
                "labels": ["disk=ssd"],
                "cdi-spec-dirs": [str(folder / "cdi")],
                "runtimes": {"kata": {"path": "/usr/bin/kata"}},
            }
        )
    )
    address = f"127.0.0.1:{free_port()}"
    words = [f"--metrics-addr={address}", "--swarm-default-advertise-addr=192.0.2.7"]
    daemon = Daemon(options=["--config-file", file, *words])
    (daemon.root / "data").mkdir()
    (daemon.root / "data/engine-id").write_text("an id of old")
    try:
        daemon.start()
        images.import_base(daemon.docker, "busybox")
        yield daemon
    finally:
        traces.discard(daemon)
        for group in Path("/sys/fs/cgroup").glob(f"**/{PARENT}"):
            group.rmdir()


def test_containers_that_say_nothing_are_as_the_daemon_says(tuned: Daemon) -> None:
    script = (
        "ulimit -Sn; ulimit -Hn; df -m /dev/shm | tail -1; mkdir /x; grep NoNewPrivs /proc/1/status; cat /proc/1/comm"
    )
    said = tuned.docker(
        "run", "--rm", "--name=plain", "busybox", "sh", "-c", f"{script}; cat /proc/self/cgroup", ok=False
    )
    lines = said.lines
    assert lines[:2] == ["123", "456"]
    assert lines[2].split()[1] == "8"
    assert "mkdir: can't create directory '/x': Operation not permitted" in said.err
    assert lines[3].split() == ["NoNewPrivs:", "1"]
    assert lines[4] in ("docker-init", "tini", "tini-static")
    assert all(
        line.endswith(":/") for line in lines[5:] if "freezer" in line or "pids" in line or line.startswith("0:")
    )


def test_containers_that_speak_for_themselves_are_as_they_say(tuned: Daemon) -> None:
    words = ["--ulimit", "nofile=77:88", "--shm-size=16m", "--security-opt=no-new-privileges=false", "--cgroupns=host"]
    words += ["--security-opt", "seccomp=unconfined", "--init=false", "--ipc=private", "--runtime=runc"]
    script = (
        "ulimit -Sn; df -m /dev/shm | tail -1; mkdir /x; grep NoNewPrivs /proc/1/status; readlink /proc/1/ns/cgroup"
    )
    lines = tuned.docker("run", "--rm", *words, "busybox", "sh", "-c", script).lines
    assert (lines[0], lines[1].split()[1], lines[2].split()[1]) == ("77", "16", "0")
    assert lines[3] == str(Path("/proc/self/ns/cgroup").readlink())


def test_logs_are_bounded_as_the_daemon_says_where_the_driver_is_the_same(tuned: Daemon) -> None:
    def config_of(*words: str) -> dict[str, object]:
        made = tuned.docker("create", *words, "busybox", "true").line
        try:
            config: dict[str, object] = json.loads(tuned.docker("inspect", made).out)[0]["HostConfig"]["LogConfig"]
            return config
        finally:
            tuned.docker("rm", made)

    usual = {"max-size": "1m", "max-file": "2"}
    assert config_of() == {"Type": "json-file", "Config": usual}
    assert config_of("--log-opt", "max-file=5", "--log-opt", "tag=x") == {
        "Type": "json-file",
        "Config": {"max-size": "1m", "max-file": "5", "tag": "x"},
    }
    assert config_of("--log-driver", "local") == {"Type": "local", "Config": {}}
    assert tuned.docker("info", "-f", "{{.LoggingDriver}}").line == "json-file"


def test_the_control_group_namespace_the_group_and_the_shared_memory_of_a_container(tuned: Daemon) -> None:
    tuned.docker("run", "-d", "--name=sleeper", "busybox", "sleep", "600")
    try:
        inspected = json.loads(tuned.docker("inspect", "sleeper").out)[0]
        pid, host = inspected["State"]["Pid"], inspected["HostConfig"]
        assert (host["IpcMode"], host["CgroupnsMode"], host["ShmSize"]) == ("shareable", "private", 8 << 20)
        assert f"/{PARENT}/{inspected['Id']}" in Path(f"/proc/{pid}/cgroup").read_text()
        assert str(Path(f"/proc/{pid}/ns/cgroup").readlink()) != str(Path("/proc/self/ns/cgroup").readlink())
        assert tuned.docker("run", "--rm", "--ipc=container:sleeper", "busybox", "true").code == 0
    finally:
        tuned.docker("rm", "-f", "sleeper")
    privileged = tuned.docker("run", "--rm", "--privileged", "busybox", "readlink", "/proc/1/ns/cgroup").line
    assert (privileged == str(Path("/proc/self/ns/cgroup").readlink())) is not is_cgroup_v2()


@pytest.mark.parametrize(("version", "mode"), [("1.40", "host"), ("1.41", "private")])
def test_a_client_that_knows_no_control_group_namespaces(tuned: Daemon, version: str, mode: str) -> None:
    body, kind = json.dumps({"Image": "busybox", "Cmd": ["true"]}), {"Content-Type": "application/json"}
    status, said = tuned.request("POST", f"/v{version}/containers/create", body, kind)
    assert status == 201
    made = json.loads(said)["Id"]
    found = tuned.docker("inspect", "-f", "{{.HostConfig.CgroupnsMode}}", made).line
    tuned.docker("rm", made)
    assert found == ("private" if is_cgroup_v2() else mode)


def test_a_runtime_that_is_known_and_not_run_is_refused_by_name(tuned: Daemon) -> None:
    said = tuned.docker("create", "--runtime=kata", "busybox", "true", ok=False)
    assert "HostConfig.Runtime kata is not implemented here" in said.err
    said = tuned.docker("create", "--runtime=bogus", "busybox", "true", ok=False)
    assert "unknown or invalid runtime name: bogus" in said.err


def test_cdi_devices_are_injected_and_drivers_that_are_not_here_are_told_at_the_start(tuned: Daemon) -> None:
    folder = Path(json.loads(tuned.request("GET", "/info")[1])["CDISpecDirs"][0])
    folder.mkdir()
    edits = {"env": ["FOO=injected"], "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/zero"}]}
    device = {"name": "foo", "containerEdits": edits}
    (folder / "vendor.json").write_text(json.dumps({"kind": "vendor.example/device", "devices": [device]}))
    request = {"Driver": "cdi", "DeviceIDs": ["vendor.example/device=foo"]}
    gpu = {"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}
    for name, asked in (("cdi", request), ("gpu", gpu)):
        script = "echo $FOO; head -c 3 /dev/vendor0 | wc -c"
        config = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"DeviceRequests": [asked]}}
        kind = {"Content-Type": "application/json"}
        assert tuned.request("POST", f"/containers/create?name={name}", json.dumps(config), kind)[0] == 201
    assert tuned.docker("start", "-a", "cdi").lines == ["injected", "3"]
    shown = json.loads(tuned.docker("inspect", "cdi").out)[0]["HostConfig"]["DeviceRequests"][0]
    assert shown == {**request, "Count": 0, "Capabilities": None, "Options": None}
    said = tuned.docker("start", "gpu", ok=False).err
    assert 'could not select device driver "" with capabilities: [[gpu]]' in said
    assert {"Source": "cdi", "ID": "vendor.example/device=foo"} in json.loads(tuned.request("GET", "/info")[1])[
        "DiscoveredDevices"
    ]
    tuned.docker("rm", "cdi", "gpu")


def test_info_tells_what_the_options_say(tuned: Daemon, proxy: Proxy) -> None:
    info = json.loads(tuned.request("GET", "/info")[1])
    masked = f"http://xxxxx:xxxxx@127.0.0.1:{proxy.server_address[1]}"
    told = {name: info[name] for name in ("ID", "Debug", "ExperimentalBuild", "Labels", "NoProxy")}
    assert told == {
        "ID": "an id of old",
        "Debug": True,
        "ExperimentalBuild": True,
        "Labels": ["disk=ssd"],
        "NoProxy": "198.51.100.7",
    }
    assert (info["HttpProxy"], info["HttpsProxy"]) == (masked, masked)
    assert info["RegistryConfig"]["Mirrors"] == ["https://mirror.invalid/"]
    assert info["RegistryConfig"]["IndexConfigs"]["insecure.invalid:5000"]["Secure"] is False
    assert info["RegistryConfig"]["InsecureRegistryCIDRs"] == ["10.1.0.0/16", "::1/128", "127.0.0.0/8"]
    assert "name=no-new-privileges" in info["SecurityOptions"] and "name=cgroupns" in info["SecurityOptions"]
    assert any("is not using the default seccomp profile" in warning for warning in info["Warnings"])


def test_metrics_are_on_a_port_of_their_own_under_dockers_names_too(tuned: Daemon) -> None:
    address = str(tuned.options[2]).partition("=")[2]
    with urlopen(f"http://{address}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    assert 'engine_daemon_container_states_containers{state="running"} 0.0' in lines
    assert any(line.startswith("engine_daemon_engine_info{") and 'daemon_id="an id of old"' in line for line in lines)
    assert any(line.startswith("bennu_deaths_total") for line in lines)
    with pytest.raises(HTTPError, match="404"), urlopen(f"http://{address}/info", timeout=20):
        pass


def test_a_swarm_is_begun_on_the_address_for_it(tuned: Daemon) -> None:
    tuned.docker("swarm", "init")
    try:
        assert tuned.docker("info", "-f", "{{.Swarm.NodeAddr}}").line == "192.0.2.7"
    finally:
        tuned.docker("swarm", "leave", "-f")


def test_pulls_go_through_the_proxy_but_for_who_is_exempt(tuned: Daemon, proxy: Proxy) -> None:
    for name in ("198.51.100.7/some/image", "203.0.113.5:5000/some/image", "some/image"):
        assert tuned.docker("pull", name, ok=False).code != 0
    assert set(proxy.asked) == {"203.0.113.5:5000", "mirror.invalid:443", "registry-1.docker.io:443"}


def test_a_hangup_reads_the_file_again_and_tells_no_password(tuned: Daemon) -> None:
    file = Path(str(tuned.options[1]))
    before = file.read_text()
    file.write_text(json.dumps(json.loads(before) | {"debug": False, "labels": ["disk=hdd"], "mtu": 1300}))
    os.kill(tuned.pid, signal.SIGHUP)
    wait_for(lambda: "Reloaded configuration" in tuned.log(), what="the reload", describe=tuned.log)
    assert "Got signal to reload configuration" in tuned.log()
    info = json.loads(tuned.request("GET", "/info")[1])
    assert (info["Debug"], info["Labels"]) == (False, ["disk=hdd"])
    filters = quote(json.dumps({"type": ["daemon"]}))
    found = tuned.request("GET", f"/events?since=1&until={time.time():.9f}&filters={filters}")[1]
    event = json.loads(found.splitlines()[-1])
    assert (event["Action"], event["Actor"]["ID"]) == ("reload", "an id of old")
    assert event["Actor"]["Attributes"]["labels"] == '["disk=hdd"]'
    file.write_text("{")
    os.kill(tuned.pid, signal.SIGHUP)
    wait_for(lambda: "Error reloading configuration" in tuned.log(), what="the refusal", describe=tuned.log)
    assert json.loads(tuned.request("GET", "/info")[1])["Labels"] == ["disk=hdd"]
    assert "secret" not in tuned.log()
