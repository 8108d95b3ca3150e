"""What `bennu` asks the daemon for is what `docker` asks for, word for word.

Both commands are run with the same words against a socket that writes down the requests; the docker command is the
oracle. Fields that hold nothing (null, "", 0, false, [], {}) count as absent, because that is how the daemon reads
them.
"""

import json
import os
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from bennu.cli.main import run_command

DOCKER = shutil.which("docker")
pytestmark = pytest.mark.skipif(DOCKER is None, reason="the docker command is not installed")

EMPTY = (None, "", 0, False, [], {}, [0, 0])
ID = "0123456789abcdef" * 4


LISTS = {
    ("GET", "containers/json"): b"[]",
    ("GET", "images/json"): b"[]",
    ("GET", "networks"): b"[]",
    ("GET", "volumes"): b'{"Volumes": []}',
    ("GET", "containers/a/top"): b'{"Titles": ["PID"], "Processes": []}',
}


class Recorder(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.seen: list[tuple[str, str, dict[str, list[str]], Any]] = []
        super().__init__(path, Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers just enough for a client to be content."""

    server: Recorder
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = url.path.split("/", 2)[2] if url.path.startswith("/v1") else url.path
        if path != "/_ping":
            self.server.seen.append((self.command, path, parse_qs(url.query), json.loads(body) if body else None))
        if (self.command, path) in LISTS:
            self._answer(200, LISTS[self.command, path])
        elif path.endswith("/json") and self.command == "GET":
            self._answer(200, json.dumps({"Id": ID, "Config": {"Tty": False}, "State": {"Running": True}}).encode())
        elif path == "volumes/create":
            self._answer(201, b'{"Name": "v"}')
        elif path.endswith(("create", "exec", "commit")):
            self._answer(201, json.dumps({"Id": ID, "Warnings": []}).encode())
        elif path.endswith("update"):
            self._answer(200, b'{"Warnings": []}')
        else:
            self._answer(200, b"[]" if self.command != "POST" else b"{}")

    do_POST = do_GET  # noqa: N815
    do_DELETE = do_GET  # noqa: N815

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Api-Version", "1.47")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    server = Recorder(str(tmp_path / "s"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def significant(value: Any) -> Any:
    """Without what is empty, at any depth."""
    if isinstance(value, dict):
        found = {key: significant(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in EMPTY}
    if isinstance(value, list):
        return [significant(item) for item in value]
    return value


def ask(recorder: Recorder, words: list[str]) -> tuple[list[Any], list[Any]]:
    """What docker asks and what bennu asks."""
    address = "unix://" + str(recorder.server_address)
    assert DOCKER is not None
    environment = {**os.environ, "DOCKER_HOST": address}
    subprocess.run([DOCKER, *words], env=environment, check=False, capture_output=True, stdin=subprocess.DEVNULL)
    theirs = [significant_request(request) for request in recorder.seen]
    recorder.seen.clear()
    run_command(["-H", address, *words])
    ours = [significant_request(request) for request in recorder.seen]
    recorder.seen.clear()
    return theirs, ours


def significant_request(request: tuple[str, str, dict[str, list[str]], Any]) -> Any:
    method, path, query, body = request
    # docker's order of these differs from run to run
    for unordered in (body and body.get("Env"), body and (body.get("HostConfig") or {}).get("Binds")):
        if unordered:
            unordered.sort()
    return method, path, {name: values for name, values in query.items() if values != ["0"]}, significant(body)


CREATE = {
    "plain": "busybox",
    "a command with options of its own": "busybox ls -l --color=never",
    "interactive": "-i busybox cat",
    "terminal": "-it busybox",
    "name": "--name n1 --hostname h1 --domainname d1 busybox",
    "environment": "-e A=1 -e B= -e HOME -e NOT_THERE_AT_ALL -eC=3 --env=D=4 busybox",
    "labels": "-l a=1 --label b busybox",
    "user and folder": "-u 1000:1000 -w /srv --group-add audio --group-add 12 busybox",
    "entrypoint": "--entrypoint /bin/sh busybox -c true",
    "reset entrypoint": "--entrypoint= busybox true",
    "stop": "--stop-signal SIGINT --stop-timeout 3 busybox",
    "restart": "--restart on-failure:3 busybox",
    "restart always": "--restart always busybox",
    "remove": "--rm busybox",
    "false remove": "--rm=false --init=true busybox",
    "volumes": "-v /a:/b -v name:/c:ro -v /anonymous -v /a:/d:ro,z busybox",
    "mounts": "--mount type=bind,source=/a,target=/b,readonly --mount type=volume,src=v,dst=/c,volume-nocopy busybox",
    "more mounts": "--mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770 --mount target=/anonymous busybox",
    "mount options": "--mount type=bind,src=/a,dst=/b,bind-propagation=rslave,bind-recursive=disabled busybox",
    "volume options": "--mount type=volume,src=v,dst=/v,volume-label=a=b,volume-opt=o=x,volume-driver=local busybox",
    "tmpfs": "--tmpfs /run --tmpfs /tmp:size=1m,mode=1777 busybox",
    "volumes from": "--volumes-from other:ro --volume-driver local busybox",
    "publish": "-p 80 -p 8080:80 -p 127.0.0.1:53:53/udp -p 9000-9002:9000-9002 -p [::1]:81:81 busybox",
    "publish on any of a range": "-p 9000-9010:80 -p 127.0.0.1::90 busybox",
    "expose": "--expose 80 --expose 90-92/udp -P busybox",
    "no network": "--network none busybox",
    "host network": "--net host busybox",
    "another's network": "--network container:other busybox",
    "user network": "--network n1 --network-alias a --network-alias b --ip 10.0.0.5 busybox",
    "networks with settings": "--network name=n1,alias=a,ip=10.0.0.5,driver-opt=k=v --network n2 busybox",
    "mac address": "--network n1 --mac-address 92:d0:c6:0a:29:33 busybox",
    "names": "--dns 1.1.1.1 --dns-search example.org --dns-option ndots:2 busybox",
    "hosts": "--add-host a:1.2.3.4 --add-host b=::1 busybox",
    "host gateway": "--add-host h:host-gateway --add-host g=[2001:db8::1] busybox",
    "links": "--link other:o busybox",
    "memory": "-m 64m --memory-swap -1 --memory-reservation 32m --shm-size 1g busybox",
    "memory in parts": "-m 1.5g --memory-swap 2GiB --memory-swappiness 10 --oom-kill-disable --oom-score-adj 5 busybox",
    "processors": "--cpus 1.5 --cpu-shares 512 --cpuset-cpus 0-1 --cpuset-mems 0 busybox",
    "quota": "--cpu-period 100000 --cpu-quota 50000 --blkio-weight 300 busybox",
    "limits": "--pids-limit 100 --ulimit nofile=1024:2048 --ulimit core=0 --ulimit memlock=-1:-1 busybox",
    "capabilities": "--cap-add NET_ADMIN --cap-add sys_time --cap-drop ALL --privileged busybox",
    "security": "--security-opt no-new-privileges --security-opt seccomp=unconfined --read-only busybox",
    "namespaces": "--pid host --ipc private --uts host --userns host --cgroupns private --cgroup-parent /x busybox",
    "devices": "--device /dev/fuse --device /dev/a:/dev/b:r --device /dev/c:rw --device /dev/d:/dev/e busybox",
    "device rules": "--device-cgroup-rule c#1:3#mr busybox",
    "settings of the kernel": "--sysctl net.core.somaxconn=1024 --sysctl net.ipv4.ip_forward=0 busybox",
    "annotations": "--annotation a=b --runtime crun --isolation default --storage-opt size=10G busybox",
    "health": "--health-cmd true --health-interval 1s --health-timeout 500ms --health-retries 3 busybox",
    "start of health": "--health-cmd x --health-start-period 1m30s --health-start-interval 2s busybox",
    "no health": "--no-healthcheck busybox",
    "log": "--log-driver json-file --log-opt max-size=1m --log-opt max-file=3 busybox",
    "streams": "-a stdin -a STDOUT -i busybox",
    "platform": "--platform linux/amd64 busybox",
}


@pytest.mark.recent_docker
@pytest.mark.parametrize("line", CREATE.values(), ids=CREATE.keys())
def test_create_asks_for_what_docker_asks_for(recorder: Recorder, line: str) -> None:
    words = [word.replace("#", " ") for word in line.split(" ")]
    theirs, ours = ask(recorder, ["create", *words])
    assert theirs, "docker itself asked for nothing"
    assert ours == theirs


OTHERS = {
    "kill": "kill a",
    "kill with a signal": "kill -s SIGINT a",
    "stop": "stop -t 3 -s TERM a",
    "restart": "restart a",
    "rm": "rm -f -v a",
    "rm of a link": "rm --link a/b",
    "rename": "rename a b",
    "pause": "pause a",
    "unpause": "unpause a",
    "update": "update --restart on-failure:2 -m 64m --memory-swap 128m --cpus 0.5 --pids-limit 5 a",
    "detached exec": "exec -d -e A=b -u 1 -w /tmp --privileged a true -x",
    "list": "ps",
    "list with filters": "ps -a -f status=exited -f name=x -f name=y -n 3",
    "list with sizes": "ps -s -l",
    "images": "images -a -f dangling=true x",
    "tag": "tag a:1 b:2",
    "remove an image": "rmi -f --no-prune a/b:1",
    "volume": "volume create -d local -o a=b --label c=d v",
    "volumes": "volume ls -f name=x",
    "remove a volume": "volume rm -f v",
    "prune volumes": "volume prune -f --all",
    "networks": "network ls -f driver=bridge",
    "network": "network create --subnet 10.1.0.0/16 --gateway 10.1.0.1 --internal --label a=b -o k=v n",
    "remove a network": "network rm n",
    "connect": "network connect --alias a --ip 10.1.0.5 n c",
    "disconnect": "network disconnect -f n c",
    "prune containers": "container prune -f --filter label=a",
    "prune images": "image prune -f -a",
    "commit": "commit -a me -m text -c CMD#true --pause=false a b:1",
    "top": "top a -o pid,cmd",
    "changes": "diff a",
    "inspect": "container inspect -s a",
    "history": "history a:1",
}


@pytest.mark.recent_docker
@pytest.mark.parametrize("line", OTHERS.values(), ids=OTHERS.keys())
def test_other_commands_ask_for_what_docker_asks_for(recorder: Recorder, line: str) -> None:
    words = [word.replace("#", " ") for word in line.split(" ")]
    theirs, ours = ask(recorder, words)
    assert theirs, "docker itself asked for nothing"
    assert deeds(ours) == deeds(theirs)


def deeds(requests: list[Any]) -> list[Any]:
    """What changes something; what only looks, when there is nothing else.

    The order of names within `filters` says nothing, and docker spells image names out in full.
    """
    for _, _, query, _ in requests:
        if "filters" in query:
            query["filters"] = json.loads(query["filters"][0])
        if "repo" in query:
            query["repo"] = [name.removeprefix("docker.io/library/") for name in query["repo"]]
    changing = [request for request in requests if request[0] != "GET"]
    return changing or requests
