"""What is concluded about a machine, from files as various machines have them."""

import json
from pathlib import Path

import pytest

from bennu.host import FindingVerdict, cgroups, firewall, rights, tools
from bennu.host.cgroups import CgroupMode, Layout
from bennu.host.finding import Finding

ALL_CAPABILITIES = (1 << 41) - 1


def make_tree(root: Path, mounts: list[tuple[str, str, str]], files: dict[str, str]) -> Path:
    """A folder that looks like /sys/fs/cgroup, and the folder that stands for /proc/self."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    lines = []
    for where, kind, options in mounts:
        (root / where).mkdir(parents=True, exist_ok=True)
        lines.append(f"{kind} {root / where if where else root} {kind} rw,{options} 0 0\n")
    proc = root.parent / "proc"
    proc.mkdir()
    (proc / "mounts").write_text("".join(lines))
    groups = [f"{number}:{options}:/\n" for number, (_, kind, options) in enumerate(mounts) if kind == "cgroup"]
    (proc / "cgroup").write_text("".join([*groups, "0::/\n"]))
    return proc


def test_a_version_2_machine_is_known_by_its_root_mount(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    proc = make_tree(root, [("", "cgroup2", "nosuid")], {"cgroup.controllers": "cpuset cpu io memory pids\n"})
    layout = cgroups.read_layout(root, proc)
    assert layout == Layout(CgroupMode.V2, frozenset(), frozenset({"cpuset", "cpu", "io", "memory", "pids"}))
    assert {finding.verdict for finding in cgroups.judge(layout)} == {FindingVerdict.OK}


def test_a_version_2_group_with_a_type_is_somebody_elses_container(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    files = {"cgroup.controllers": "cpuset cpu memory pids", "cgroup.type": "domain"}
    layout = cgroups.read_layout(root, make_tree(root, [("", "cgroup2", "")], files))
    assert layout.nested
    assert any(finding.name == "nesting" for finding in cgroups.judge(layout))


def test_a_hybrid_machine_names_what_is_left_on_the_version_2_side(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    mounts = [("memory", "cgroup", "memory"), ("pids", "cgroup", "pids"), ("unified", "cgroup2", "")]
    layout = cgroups.read_layout(root, make_tree(root, mounts, {"unified/cgroup.controllers": "hugetlb\n"}))
    assert layout.mode is CgroupMode.HYBRID
    assert layout.leftover == {"hugetlb"}
    finding = cgroups.judge(layout)[0]
    assert finding.verdict is FindingVerdict.WARN
    assert f"mount -t cgroup -o hugetlb cgroup {cgroups.CGROUP_ROOT}/hugetlb" in finding.cure


def test_a_hierarchy_that_only_another_namespace_has_mounted_is_left_over(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    proc = make_tree(root, [("memory", "cgroup", "memory")], {})
    with (proc / "cgroup").open("a") as groups:
        groups.write("7:hugetlb:/\n8:name=systemd:/\n")
    layout = cgroups.read_layout(root, proc)
    assert (layout.leftover, layout.refused) == ({"hugetlb"}, frozenset())


def test_a_version_1_machine_leaves_nothing_over(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    layout = cgroups.read_layout(root, make_tree(root, [("memory", "cgroup", "memory")], {}))
    assert (layout.mode, layout.leftover) == (CgroupMode.V1, frozenset())
    lost = cgroups.judge(layout)[1]
    assert lost.verdict is FindingVerdict.WARN
    assert "pids" in lost.text and "memory" not in lost.text


def test_without_control_groups_no_container_runs(tmp_path: Path) -> None:
    layout = cgroups.read_layout(tmp_path, make_tree(tmp_path / "cgroup", [], {}))
    assert [finding.verdict for finding in cgroups.judge(layout)] == [FindingVerdict.FAIL]


def test_every_missing_capability_is_named() -> None:
    status = f"CapEff:\t{ALL_CAPABILITIES & ~(1 << 12) & ~(1 << 21):016x}\n"
    finding = rights.check_rights(status, 0)[-1]
    assert (finding.verdict, finding.text) == (FindingVerdict.FAIL, "missing: CAP_NET_ADMIN, CAP_SYS_ADMIN")


def test_a_root_that_cannot_raise_limits_is_only_warned() -> None:
    finding = rights.check_rights(f"CapEff:\t{ALL_CAPABILITIES & ~(1 << 24):016x}\n", 0)[-1]
    assert finding.verdict is FindingVerdict.WARN
    assert "clamped" in finding.text


def test_who_is_not_root_is_told_so_before_anything_else() -> None:
    assert rights.check_rights("", 1000) == [
        Finding("user", FindingVerdict.FAIL, "uid 1000: containers need root", "sudo bennud")
    ]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        pytest.param("conmon version 2.1.6\ncommit: unknown\n", FindingVerdict.OK, id="new-enough"),
        pytest.param("conmon version 2.0.25\n", FindingVerdict.WARN, id="too-old"),
        pytest.param("conmon version 2.0.26\n", FindingVerdict.OK, id="just-enough"),
        pytest.param("conmon, a program\n", FindingVerdict.WARN, id="does-not-say"),
    ],
)
def test_versions_compare_as_numbers(said: str, verdict: FindingVerdict) -> None:
    tool = next(tool for tool in tools.TOOLS if tool.name == "conmon")
    assert tools.judge_version(tool, "/usr/bin/conmon", said).verdict is verdict


def test_a_tool_that_is_not_there_names_its_package() -> None:
    tool = tools.Tool("surely-not-installed", "some-package", "does things")
    finding = tools.missing(tool)
    assert (finding.verdict, finding.cure) == (FindingVerdict.FAIL, "apt-get install some-package")


def nft_list(*chains: dict[str, str]) -> list[dict[str, object]]:
    text = json.dumps({"nftables": [{"metainfo": {}}, *({"chain": chain} for chain in chains)]})
    items: list[dict[str, object]] = json.loads(text)["nftables"]
    return items


FORWARD = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}


@pytest.mark.parametrize(
    ("chains", "ufw", "word"),
    [
        pytest.param([FORWARD], False, "nft insert rule ip filter FORWARD iifname '{ b0 }' accept", id="plain"),
        pytest.param(
            [FORWARD, {"family": "ip", "table": "filter", "name": "DOCKER-USER"}],
            False,
            "for b in b0; do iptables -I DOCKER-USER -i $b -j ACCEPT",
            id="docker",
        ),
        pytest.param(
            [FORWARD, {"family": "ip", "table": "filter", "name": "ufw-before-forward"}],
            True,
            "for b in b0; do ufw route allow in on $b",
            id="ufw",
        ),
        pytest.param(
            [{"family": "inet", "table": "firewalld", "name": "filter_FORWARD", "hook": "forward", "policy": "accept"}],
            False,
            "for b in b0; do firewall-cmd --permanent --zone=trusted --add-interface=$b; done; firewall-cmd --reload",
            id="firewalld",
        ),
    ],
)
def test_who_drops_forwarded_packets_is_told_in_its_own_words(
    chains: list[dict[str, str]], ufw: bool, word: str
) -> None:
    items = nft_list(*chains)
    (finding,) = firewall.judge_firewall(items, [firewall.Bridge("b0")], ufw=ufw)
    assert finding.verdict is FindingVerdict.WARN
    assert word in finding.cure


def test_an_accepting_or_foreign_hook_is_no_obstacle() -> None:
    items = nft_list({**FORWARD, "policy": "accept"}, {**FORWARD, "hook": "input"}, {**FORWARD, "family": "ip6"})
    (finding,) = firewall.judge_firewall(items, [firewall.Bridge("b0")], ufw=True)
    assert finding.verdict is FindingVerdict.OK


def test_a_disk_is_judged_where_the_folder_will_be(tmp_path: Path) -> None:
    assert str(tmp_path) in rights.check_disk(tmp_path / "not" / "yet").text


def test_seccomp_needs_only_the_kernel() -> None:
    assert rights.check_seccomp("Seccomp:\t0\n").verdict is FindingVerdict.OK
    assert rights.check_seccomp("Name:\tx\n").verdict is FindingVerdict.WARN


def test_few_open_files_are_worth_a_word() -> None:
    assert rights.check_limits(1024).verdict is FindingVerdict.WARN
    assert rights.check_limits(1 << 20).verdict is FindingVerdict.OK
    assert "some 448 containers" in rights.check_limits(1024).text
