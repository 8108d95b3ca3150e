"""Texts of options become values, or are refused in docker's words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.cli import mounts, ports, values
from bennu.cli.failure import Failure

SECOND = 1_000_000_000

GOOD: list[tuple[Callable[[str], Any], str, Any]] = [
    (values.parse_size, "64m", 64 << 20),
    (values.parse_size, "1.5GiB", 3 << 29),
    (values.parse_size, "4096", 4096),
    (values.parse_size, "2 kB", 2048),
    (values.parse_swap, "-1", -1),
    (values.parse_duration, "1m30s", 90 * SECOND),
    (values.parse_duration, "500ms", SECOND // 2),
    (values.parse_duration, "1.5h", 5400 * SECOND),
    (values.parse_duration, "-3s", -3 * SECOND),
    (values.parse_duration, "0", 0),
    (values.parse_duration, "1h2m3s4ms5us6ns", 3723_004_005_006),
    (values.parse_duration, ".5s", SECOND // 2),
    (values.parse_cpus, "1.5", 1_500_000_000),
    (values.parse_cpus, "0.001", 1_000_000),
    (values.parse_ulimit, "nofile=1024:2048", {"Name": "nofile", "Soft": 1024, "Hard": 2048}),
    (values.parse_ulimit, "core=0", {"Name": "core", "Soft": 0, "Hard": 0}),
    (values.parse_host_mapping, "a=::1", "a:::1"),
    (mounts.parse_device, "/dev/a", {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rwm"}),
]


@pytest.mark.parametrize(("parse", "text", "expected"), GOOD, ids=[f"{p.__name__} {t}" for p, t, _ in GOOD])
def test_a_value_is_read(parse: Callable[[str], Any], text: str, expected: Any) -> None:
    assert parse(text) == expected


BAD: list[tuple[Callable[[str], Any], str, str]] = [
    (values.parse_size, "x", "invalid size: 'x'"),
    (values.parse_size, "-1", "invalid size: '-1'"),
    (values.parse_size, "", "invalid size: ''"),
    (values.parse_duration, "5", 'missing unit in duration "5"'),
    (values.parse_duration, "5x", 'invalid duration "5x"'),
    (values.parse_duration, "", 'invalid duration ""'),
    (values.parse_duration, "1s x", 'invalid duration "1s x"'),
    (values.parse_cpus, "x", "failed to parse x as a rational number"),
    (values.parse_cpus, "nan", "failed to parse nan as a rational number"),
    (values.parse_cpus, "0.0000000001", "value is too precise"),
    (values.parse_ulimit, "bogus=1", "invalid ulimit type: bogus"),
    (values.parse_ulimit, "nofile", "invalid ulimit argument: nofile"),
    (values.parse_ulimit, "nofile=2:1", "soft limit must be less than or equal to hard limit"),
    (values.parse_env, "=x", "invalid environment variable: =x"),
    (values.parse_host_mapping, "bogus", 'bad format for add-host: "bogus"'),
    (values.parse_host_mapping, "a:1.2.3", 'invalid IP address in add-host: "1.2.3"'),
    (values.parse_attach, "stdoops", "valid streams are STDIN, STDOUT and STDERR"),
    (mounts.parse_mount, "type=bind,source=/a", "target is required"),
    (mounts.parse_mount, "type=bind,target=/a,bogus=1", "unexpected key 'bogus' in 'bogus=1'"),
    (mounts.parse_mount, "type=bind,target=/a,bogus", "must be a key=value pair"),
    (mounts.parse_mount, "type=bind,target=/a,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
    (mounts.parse_mount, "type=tmpfs,target=/a,tmpfs-size=x", "invalid value for tmpfs-size: x"),
]


@pytest.mark.parametrize(("parse", "text", "complaint"), BAD, ids=[f"{p.__name__} {t}" for p, t, _ in BAD])
def test_a_bad_value_is_refused(parse: Callable[[str], Any], text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert complaint in str(caught.value)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_a_complaint(text: str) -> None:
    try:
        assert isinstance(values.parse_duration(text), int)
    except ValueError as error:
        assert "duration" in str(error)


PORTS = [
    ("80", {"80/tcp": [("", "")]}),
    ("8080:80/udp", {"80/udp": [("", "8080")]}),
    ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
    ("[::1]:1-2:3-4", {"3/tcp": [("::1", "1")], "4/tcp": [("::1", "2")]}),
    ("9000-9010:80", {"80/tcp": [("", "9000-9010")]}),
    ("target=80,published=8080,protocol=udp", {"80/udp": [("", "8080")]}),
]


@pytest.mark.parametrize(("text", "expected"), PORTS, ids=[text for text, _ in PORTS])
def test_a_published_port_is_read(text: str, expected: dict[str, list[tuple[str, str]]]) -> None:
    found = ports.parse_publish([text])
    assert {port: [(b["HostIp"], b["HostPort"]) for b in bindings] for port, bindings in found.items()} == expected


@pytest.mark.parametrize("text", ["zz", "99999", "2-1", "1-2:3-5", "80/icmp", "nohost:80:80", "", "80:"])
def test_a_bad_port_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        ports.parse_publish([text])


def test_an_env_file_gives_its_lines_and_takes_bare_names_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "yes")
    monkeypatch.delenv("NOT_HERE", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\n  A=1\r\nB=x=y\nFROM_HERE\nNOT_HERE\n")
    assert values.collect_env([str(file)], ["C=2", "NOT_HERE"]) == ["A=1", "B=x=y", "FROM_HERE=yes", "C=2", "NOT_HERE"]


@pytest.mark.parametrize(("line", "complaint"), [("A B=1", "contains whitespaces"), ("=1", "no variable name")])
def test_a_bad_env_file_is_refused(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "env"
    file.write_text(line + "\n")
    with pytest.raises(Failure, match=complaint):
        values.collect_env([str(file)], [])


TIMES = [
    ("10m", "1000000000.000000005"),
    ("1700000000", "1700000000"),
    ("1700000000.25", "1700000000.25"),
    ("2023-11-14T22:13:20Z", "1700000000.000000000"),
    ("2023-11-14T22:13:20.123456789Z", "1700000000.123456789"),
    ("2023-11-14T23:13:20+01:00", "1700000000.000000000"),
]


@pytest.mark.parametrize(("text", "expected"), TIMES, ids=[text for text, _ in TIMES])
def test_a_moment_is_a_duration_a_number_or_a_date(text: str, expected: str) -> None:
    assert values.parse_timestamp(text, (1_000_000_000 + 600) * SECOND + 5) == expected


def test_a_moment_that_is_none_of_them_is_refused() -> None:
    with pytest.raises(Failure, match="failed to parse value as time or duration"):
        values.parse_timestamp("yesterday", 0)
