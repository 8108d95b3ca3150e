"""Compose files as stacks: filled in, checked, merged, turned into specifications."""

from pathlib import Path
from typing import Any

import pytest

from bennu.cli.failure import Failure
from bennu.cli.stacks import fields
from bennu.cli.stacks.composefile import load
from bennu.cli.stacks.interpolation import fill
from bennu.cli.stacks.objects import networks
from bennu.cli.stacks.service import Ids, restart_policy, service_spec

ENV = {"A": "one", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("$A and ${A}", "one and one"),
        ("$B${B}", ""),
        ("$$A $${A}", "$A ${A}"),
        ("${EMPTY:-x} ${EMPTY-x} ${B:-x} ${B-x} ${A:-x}", "x  x x one"),
        ("${A:+set} ${EMPTY:+set} ${EMPTY+set} ${B+set}", "set  set "),
        ("${B:-${A}-${B:-$A}}", "one-one"),
        ("${A?why} ${EMPTY?why}", "one "),
        ("price: 5", "price: 5"),
    ],
)
def test_variables_are_filled_in(text: str, filled: str) -> None:
    assert fill(text, ENV, "services.web.image") == filled


@pytest.mark.parametrize("text", ["$", "${", "${A", "${}", "${1}", "${A!}", "a $ b", "${A:}"])
def test_a_dollar_that_is_no_variable_is_an_error_that_names_the_place(text: str) -> None:
    with pytest.raises(Failure, match=r"invalid interpolation format for services.web.image: .* escape any \$"):
        fill(text, ENV, "services.web.image")


@pytest.mark.parametrize("text", ["${B?no B}", "${EMPTY:?no B}"])
def test_a_variable_that_must_be_set_fails_with_its_reason(text: str) -> None:
    with pytest.raises(Failure, match="is missing a value: no B"):
        fill(text, ENV, "x")


def test_short_ports_and_their_ranges() -> None:
    def port(target: int, published: int, protocol: str = "tcp") -> dict[str, Any]:
        return {"Protocol": protocol, "TargetPort": target, "PublishedPort": published, "PublishMode": "ingress"}

    assert fields.ports(["80", "8080:80", 443, "9000-9001:90-91/udp"]) == [
        port(80, 0),
        port(80, 8080),
        port(443, 0),
        port(90, 9000, "udp"),
        port(91, 9001, "udp"),
    ]
    assert fields.ports([{"target": 80, "published": "8080", "mode": "host"}])[0]["PublishMode"] == "host"
    with pytest.raises(ValueError, match="hostip is not supported"):
        fields.ports(["127.0.0.1:80:80"])
    with pytest.raises(ValueError, match="invalid ranges"):
        fields.ports(["1-3:4-5"])


def test_short_volumes() -> None:
    def volumes(entry: str) -> dict[str, Any]:
        return fields.volumes([entry], Path("/there"))[0]

    assert volumes("/data") == {"type": "volume", "target": "/data"}
    assert volumes("v:/data:ro,nocopy") == {
        "type": "volume",
        "source": "v",
        "target": "/data",
        "read_only": True,
        "volume": {"nocopy": True},
    }
    assert volumes("./x:/data:rslave")["source"] == "/there/x"
    assert volumes("../x:/data")["source"] == "/x"
    with pytest.raises(ValueError, match="empty section between colons"):
        volumes("a::b")


def test_restart_words_mean_something_for_tasks() -> None:
    assert restart_policy(None, None) is None
    assert restart_policy("no", None) is None
    assert restart_policy("unless-stopped", None) == {"Condition": "any"}
    assert restart_policy("on-failure:3", None) == {"Condition": "on-failure", "MaxAttempts": 3}
    assert restart_policy("always", {"condition": "none", "delay": "5s"}) == {"Condition": "none", "Delay": 5 * 10**9}
    with pytest.raises(ValueError, match="unknown policy 'sometimes'"):
        restart_policy("sometimes", None)


def write(folder: Path, text: str, name: str = "compose.yml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def spec_of(file: str, *more: str, service: str = "web") -> dict[str, Any]:
    ids = Ids(lambda name: f"id of {name}", lambda name: f"id of {name}")
    return service_spec("st", service, load([file, *more]), ids)


def test_a_service_becomes_a_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "mine")
    (tmp_path / "web.env").write_text("FILED=1\nV=from the file\n")
    spec = spec_of(
        write(
            tmp_path,
            """
            services:
              web:
                image: web:1
                command: run --now 'two words'
                env_file: web.env
                environment: {V: 2, FROM_HERE: null, NOWHERE: null}
                labels: [a=b]
                extra_hosts: [db:10.0.0.1]
                ulimits: {nofile: {soft: 1, hard: 2}, nproc: 5}
                stop_grace_period: 3s
                healthcheck: {test: curl localhost, interval: 2s, retries: 4}
                networks: {back: {aliases: [api]}}
                ports: ["8080:80"]
                secrets: [{source: s, mode: 0400}]
                deploy:
                  replicas: 3
                  labels: {tier: front}
                  update_config: {delay: 2s, order: start-first}
                  resources: {limits: {cpus: "0.5", memory: 64M}}
                  placement: {constraints: [node.role==manager], max_replicas_per_node: 1}
            networks: {back: {}}
            secrets: {s: {file: ./s.txt}}
            """,
        )
    )
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert spec["Name"] == "st_web"
    assert spec["Labels"] == {
        "tier": "front",
        "com.docker.stack.namespace": "st",
        "com.docker.stack.image": "web:1",
    }
    assert spec["Mode"] == {"Replicated": {"Replicas": 3}}
    assert spec["UpdateConfig"] == {"Parallelism": 1, "MaxFailureRatio": 0, "Order": "start-first", "Delay": 2 * 10**9}
    assert container["Args"] == ["run", "--now", "two words"]
    assert container["Env"] == ["FILED=1", "FROM_HERE=mine", "NOWHERE", "V=2"]
    assert container["Labels"] == {"a": "b", "com.docker.stack.namespace": "st"}
    assert container["Hosts"] == ["10.0.0.1 db"]
    assert container["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}, {"Name": "nproc", "Soft": 5, "Hard": 5}]
    assert container["StopGracePeriod"] == 3 * 10**9
    assert container["Healthcheck"] == {"Test": ["CMD-SHELL", "curl localhost"], "Interval": 2 * 10**9, "Retries": 4}
    assert container["Secrets"] == [
        {"File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 0o400}, "SecretID": "id of st_s", "SecretName": "st_s"}
    ]
    template = spec["TaskTemplate"]
    assert template["Networks"] == [{"Target": "st_back", "Aliases": ["api", "web"]}]
    assert template["Resources"] == {"Limits": {"NanoCPUs": 5 * 10**8, "MemoryBytes": 64 << 20}}
    assert template["Placement"] == {"Constraints": ["node.role==manager"], "MaxReplicas": 1}


def test_the_default_network_is_made_only_if_it_is_used(tmp_path: Path) -> None:
    both = load([write(tmp_path, "services: {a: {image: x}, b: {image: x, networks: [own]}}\nnetworks: {own: {}}")])
    assert [body["Name"] for body in networks("st", both)[0]] == ["st_default", "st_own"]
    one = load([write(tmp_path, "services: {b: {image: x, networks: [own]}}\nnetworks: {own: {external: true}}")])
    assert networks("st", one) == ([], ["own"])


def test_later_files_change_earlier_ones_field_by_field(tmp_path: Path) -> None:
    base = write(
        tmp_path,
        """
        services:
          web:
            image: web:1
            command: a b
            environment: [X=1, Y=1]
            volumes: ["v:/data", "w:/more"]
            ports: ["80:80"]
        volumes: {v: {}, w: {}}
        """,
    )
    over = write(
        tmp_path,
        """
        services:
          web: {image: "web:2", command: c, environment: {Y: 2}, volumes: ["w:/data"], ports: ["81:81"]}
        """,
        "over.yml",
    )
    container = spec_of(base, over)["TaskTemplate"]["ContainerSpec"]
    assert (container["Image"], container["Args"], container["Env"]) == ("web:2", ["c"], ["X=1", "Y=2"])
    assert [(mount["Source"], mount["Target"]) for mount in container["Mounts"]] == [
        ("st_w", "/more"),
        ("st_w", "/data"),
    ]
    assert len(spec_of(base, over)["EndpointSpec"]["Ports"]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "top-level object must be a mapping"),
        ("services: {web: {}}", "invalid image reference for service web: no image specified"),
        ("services: {web: {image: x, imagine: y}}", "services.web Additional property imagine is not allowed"),
        ("services: {web: {image: x, deploy: {replica: 2}}}", "services.web.deploy Additional property replica is not"),
        ("services: {web: {image: x, ports: 80}}", "services.web.ports must be a list"),
        (
            "services: {web: {image: x, mem_limit: 5m}}",
            "contains unsupported options:\n\nmem_limit: Set resource limits",
        ),
        ("services: {web: {image: x, networks: [n]}}", 'service web: undefined network "n"'),
        ("services: {web: {image: x, volumes: ['v:/d']}}", 'service web: undefined volume "v"'),
        ("services: {web: {image: x, secrets: [s]}}", 'service web: undefined secret "s"'),
        ("services: {web: {image: x, deploy: {mode: global, replicas: 2}}}", "replicas can only be used with"),
        ("services: {web: {image: x, deploy: {mode: all}}}", "service web: unknown mode: all"),
        ("version: '2'\nservices: {}", "unsupported Compose file version: 2"),
        ("services: {web: {image: x, stop_grace_period: 5}}", "service web: stop_grace_period: must be a string"),
        ("services: {web: {image: x, deploy: {replicas: few}}}", "service web: deploy.replicas: must be an integer"),
        ("services: {1: {image: x}}", "non-string key in services: 1"),
        ("services: {web: {image: '${X'}}", "invalid interpolation format for services.web.image"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Failure) as caught:
        spec_of(write(tmp_path, text))
    assert message in str(caught.value)


def test_what_a_stack_cannot_honour_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec_of(write(tmp_path, "services: {web: {image: x, build: ., privileged: true, container_name: n, x-y: 1}}"))
    said = capsys.readouterr().err
    assert "Ignoring unsupported options: build, privileged" in said
    assert "container_name: Setting the container name is not supported." in said
