"""Which system calls a container may make: the built-in filter walked whole, and profiles of the client's own."""

import errno
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pytest

from bennu.errors import InvalidParameter
from bennu.model import ContainerConfig, HostConfig
from bennu.runtime import HostFacts, SpecRequest, build_spec
from bennu.runtime.capabilities import ALL, DEFAULT
from bennu.runtime.default_calls import ALWAYS, ARCHITECTURES, NEVER, ONLY_ON, OPENED_BY
from bennu.runtime.seccomp import decide_filter
from bennu.runtime.seccomp_profile import SeccompProfile

GO_ARCHITECTURES: Final = ("amd64", "386", "arm64", "arm", "ppc64le", "riscv64", "s390x")
WITHOUT_GATES: Final = tuple(name for name in DEFAULT if name not in OPENED_BY)
MASKED_OPERATOR: Final = "SCMP_CMP_MASKED_EQ"


def built_in(
    capabilities: Iterable[str] = DEFAULT, architecture: str = "amd64", kernel: tuple[int, int] = (6, 1)
) -> Mapping[str, Any]:
    found = decide_filter(None, privileged=False, capabilities=capabilities, architecture=architecture, kernel=kernel)
    assert found is not None
    return found


def answer(profile: Mapping[str, Any], name: str, *arguments: int) -> str | int:
    """`allow`, or the error number a call is answered with, as the rules say it."""
    for rule in profile["syscalls"]:
        if name in rule["names"] and all(matches(compared, arguments) for compared in rule.get("args", ())):
            return "allow" if rule["action"] == "SCMP_ACT_ALLOW" else rule["errnoRet"]
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    found: int = profile["defaultErrnoRet"]
    return found


def matches(compared: Mapping[str, Any], arguments: tuple[int, ...]) -> bool:
    given, value = arguments[compared["index"]], compared["value"]
    operators = {
        "SCMP_CMP_LT": given < value,
        "SCMP_CMP_EQ": given == value,
        "SCMP_CMP_GT": given > value,
        MASKED_OPERATOR: given & value == compared["valueTwo"],
    }
    return operators[compared["op"]]


# --- the built-in filter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", sorted(OPENED_BY))
def test_a_capability_opens_its_calls_and_no_others(capability: str) -> None:
    without, with_it = built_in(WITHOUT_GATES), built_in([*WITHOUT_GATES, capability])
    for name in sorted(set(" ".join(OPENED_BY.values()).split()) - {"ptrace", "process_vm_readv", "process_vm_writev"}):
        closed = errno.ENOSYS if name == "clone3" else errno.EPERM
        if name != "clone":
            assert answer(without, name) == closed, name
        if name in OPENED_BY[capability].split():
            assert answer(with_it, name, 0x1000_0000) == "allow", name
        elif name != "clone":
            assert answer(with_it, name) == closed, name


def test_what_nobody_needs_is_refused_even_with_every_capability() -> None:
    profile = built_in(ALL)
    for name in " ".join(NEVER.values()).split():
        assert answer(profile, name) == errno.EPERM, name
    assert answer(profile, "a_call_of_the_next_kernel") == errno.ENOSYS


def test_no_call_is_on_two_pages() -> None:
    always, never, gated = (" ".join(table.values()).split() for table in (ALWAYS, NEVER, OPENED_BY))
    assert len(set(always)) == len(always)
    assert len(set(never)) == len(never)
    assert not set(always) & set(never) | set(gated) & {*always, *never}


@pytest.mark.parametrize("architecture", GO_ARCHITECTURES)
def test_each_architecture_has_its_own_calls_and_those_of_its_other_word_sizes(architecture: str) -> None:
    profile = built_in(architecture=architecture)
    own = "x86" if architecture == "386" else architecture
    for other, names in ONLY_ON.items():
        for name in names.split():
            mine = name in ONLY_ON[own].split()
            assert answer(profile, name) == ("allow" if mine else errno.ENOSYS), (other, name)
    assert profile["architectures"] == list(ARCHITECTURES[own])
    assert answer(profile, "read") == "allow"
    assert answer(profile, "keyctl") == errno.EPERM


@pytest.mark.parametrize(("architecture", "flags_at"), [("amd64", 0), ("arm64", 0), ("s390x", 1)])
def test_clone_makes_processes_but_no_namespaces(architecture: str, flags_at: int) -> None:
    def clone(flags: int, capabilities: Iterable[str] = DEFAULT) -> str | int:
        arguments = [0x1000_0000 | 0x2_0000] * 2  # the other argument is an address and may be anything
        arguments[flags_at] = flags
        return answer(built_in(capabilities, architecture), "clone", *arguments)

    assert clone(0x11) == clone(0x3D_0F00) == "allow"  # fork; a thread
    for flag in (0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000):
        assert clone(0x11 | flag) == errno.EPERM
        assert clone(0x11 | flag, [*DEFAULT, "CAP_SYS_ADMIN"]) == "allow"


def test_sockets_of_every_family_but_two() -> None:
    for capabilities in (DEFAULT, ALL):
        found = {family: answer(built_in(capabilities), "socket", family, 1, 0) for family in range(200)}
        assert [family for family, said in found.items() if said == errno.EPERM] == [38, 40]
        assert [family for family, said in found.items() if said == "allow"] == [*range(38), 39, *range(41, 46)]
    assert answer(built_in(), "socket", 40 | 1 << 32) == errno.EAFNOSUPPORT  # the kernel would take it for 40


def test_old_programs_of_32_bits_have_their_one_way_to_sockets() -> None:
    """As in Docker, which refused it once and took that back; what family is meant, no filter sees."""
    assert answer(built_in(), "socketcall", 1, 0) == "allow"


def test_personalities_that_weaken_a_program_are_refused() -> None:
    profile = built_in()
    for harmless in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert answer(profile, "personality", harmless) == "allow"
    assert answer(profile, "personality", 0x40000) == errno.EPERM  # addresses that anybody can guess
    assert answer(profile, "personality", 0x40008) == errno.ENOSYS


@pytest.mark.parametrize(
    ("kernel", "capabilities", "found"),
    [((4, 7), DEFAULT, errno.EPERM), ((4, 8), DEFAULT, "allow"), ((4, 7), ALL, "allow"), ((6, 1), DEFAULT, "allow")],
)
def test_ptrace_waits_for_the_kernel_that_asks_the_filter_afterwards(
    kernel: tuple[int, int], capabilities: Iterable[str], found: str | int
) -> None:
    for name in ("ptrace", "process_vm_readv", "process_vm_writev"):
        assert answer(built_in(capabilities, kernel=kernel), name) == found


def test_containers_with_the_same_capabilities_share_one_filter() -> None:
    assert built_in(DEFAULT) is built_in([*reversed(DEFAULT), "CAP_NET_ADMIN"])
    assert built_in(DEFAULT) is not built_in([*DEFAULT, "CAP_BPF"])


# --- who gets which -----------------------------------------------------------------------------------------------

OWN: Final = '{"defaultAction":"SCMP_ACT_LOG"}'


def filter_of(**fields: Any) -> Mapping[str, Any] | None:
    request = SpecRequest(
        container_id="c",
        config=ContainerConfig(),
        host_config=HostConfig(**fields),
        host=HostFacts(capabilities=frozenset(ALL)),
        args=["x"],
        rootfs="/",
    )
    found: Mapping[str, Any] | None = build_spec(request)["linux"].get("seccomp")
    return found


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, built_in(), id="nothing-said"),
        pytest.param({"cap_add": ["SYS_ADMIN"]}, built_in([*DEFAULT, "CAP_SYS_ADMIN"]), id="a-capability-more"),
        pytest.param({"cap_drop": ["ALL"]}, built_in([]), id="no-capability"),
        pytest.param({"security_opt": ["seccomp=builtin"]}, built_in(), id="by-its-name"),
        pytest.param({"security_opt": ["seccomp="]}, built_in(), id="by-an-empty-name"),
        pytest.param({"security_opt": ["seccomp=unconfined"]}, None, id="unconfined"),
        pytest.param({"privileged": True}, None, id="privileged"),
        pytest.param(
            {"privileged": True, "security_opt": ["seccomp=builtin"]}, built_in(ALL), id="privileged-but-asked"
        ),
        pytest.param(
            {"privileged": True, "security_opt": [f"seccomp={OWN}"]},
            {"defaultAction": "SCMP_ACT_LOG", "syscalls": [], "architectures": ["SCMP_ARCH_X86_64"]},
            id="privileged-with-ones-own",
        ),
    ],
)
def test_only_who_asks_for_it_or_is_privileged_runs_without_a_filter(
    fields: dict[str, Any], expected: Mapping[str, Any] | None
) -> None:
    assert filter_of(**fields) == expected


# --- profiles of the client's own ---------------------------------------------------------------------------------

PROFILE: Final[dict[str, Any]] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_S390X", "subArchitectures": None},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
    ],
    "syscalls": [
        {"names": ["always"], "action": "SCMP_ACT_ALLOW", "args": None, "includes": {}, "excludes": {}, "comment": ""},
        {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["no-admin"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["not-x86"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["x86"]}},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
        {"name": "args", "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        {"names": ["default-anyway"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    ],
}


@pytest.mark.parametrize(
    ("architecture", "kernel", "capabilities", "names"),
    [
        ("amd64", (6, 1), [], ["always", "no-admin", "not-x86", "new", "args"]),
        ("amd64", (4, 4), ["CAP_SYS_ADMIN"], ["always", "admin", "not-x86", "old", "args"]),
        ("arm64", (6, 1), [], ["always", "no-admin", "arm", "not-x86", "new", "args"]),
        ("386", (6, 1), [], ["always", "no-admin", "new", "args"]),
    ],
)
def test_a_conditional_profile_is_resolved(
    architecture: str, kernel: tuple[int, int], capabilities: list[str], names: list[str]
) -> None:
    found = decide_filter(
        SeccompProfile.parse(json.dumps(PROFILE)),
        privileged=False,
        capabilities=capabilities,
        architecture=architecture,
        kernel=kernel,
    )
    assert found is not None
    assert [rule["names"][0] for rule in found["syscalls"]] == names
    assert found["defaultErrnoRet"] == 38
    assert found["syscalls"][0] == {"names": ["always"], "action": "SCMP_ACT_ALLOW"}
    assert found["syscalls"][-1]["args"] == [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ", "valueTwo": 0}]
    expected = {
        "amd64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "arm64": ["SCMP_ARCH_AARCH64"],
        "386": ["SCMP_ARCH_X86"],
    }
    assert found["architectures"] == expected[architecture]


def test_a_profile_in_the_form_of_oci_runtimes_is_taken_as_it_is() -> None:
    plain = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }
    assert filter_of(security_opt=[f"seccomp={json.dumps(plain)}"]) == plain


def with_rule(**fields: Any) -> str:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", **fields}
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{}", id="empty"),
        pytest.param("{", id="not-json"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="a-list"),
        pytest.param("unconfined ", id="nearly-a-name"),
        pytest.param("/etc/seccomp.json", id="a-path"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"defaultAction":"SCMP_ACT_ALLOW","x":' + "[" * 100_000, id="deep-where-nobody-looks"),
        pytest.param('{"defaultAction":"\ud800"}', id="no-text"),
        pytest.param('{"syscalls":[]}', id="no-default"),
        pytest.param('{"defaultAction":""}', id="empty-default"),
        pytest.param('{"defaultAction":"SCMP_ACT_MAYBE"}', id="unknown-action"),
        pytest.param('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}', id="rules-no-list"),
        pytest.param('{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":-1}', id="negative-error"),
        pytest.param(json.dumps(PROFILE | {"architectures": ["SCMP_ARCH_X86"]}), id="architectures-twice"),
        pytest.param(with_rule(action=None), id="rule-without-action"),
        pytest.param(with_rule(name="mkdirat"), id="names-twice"),
        pytest.param(with_rule(names="mkdir"), id="names-no-list"),
        pytest.param(with_rule(includes={"minKernel": "four"}), id="kernel-no-version"),
        pytest.param(with_rule(args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]), id="seventh-argument"),
        pytest.param(with_rule(args=[{"index": 0, "value": 1 << 64, "op": "SCMP_CMP_EQ"}]), id="value-of-65-bits"),
        pytest.param(with_rule(args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]), id="negative-value"),
        pytest.param(with_rule(args=[{"index": 0, "value": 0, "op": "SCMP_CMP_ALMOST"}]), id="unknown-operator"),
    ],
)
def test_a_broken_profile_is_refused_in_words_and_never_taken_for_none(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^Decoding seccomp profile failed: "):
        filter_of(security_opt=[f"seccomp={text}"])
