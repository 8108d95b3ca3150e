"""Who is called what; what is an answer to which question."""

import dns.message
import dns.rcode
import dns.rrset
import pytest

from bennu.network.dns.forwarder import is_answer_to, lifetime_s, question_end
from bennu.network.dns.names import NameIndex, ServiceNames, address_of
from bennu.network.dns.server import NameServer
from bennu.network.frontends import BackendAddress, Frontend, FrontendAddress, ServiceBackend
from bennu.network.model import Endpoint, Sandbox


def endpoint(network: str, address: str, *names: str, **more: object) -> Endpoint:
    return Endpoint(
        endpoint_id=f"{network}{address}",
        network_id=network * 64,
        network_name=network,
        interface="eth0",
        host_interface="v",
        mac_address="",
        ip_address=address,
        gateway="10.0.0.1",
        dns_names=list(names),
        **more,  # type: ignore[arg-type]
    )


def sandbox(*endpoints: Endpoint) -> Sandbox:
    return Sandbox(sandbox_id="s", netns="/n", endpoints=list(endpoints))


A = sandbox(endpoint("x", "10.0.0.2", "a", "www"), endpoint("y", "10.1.0.2", "a"))
B = sandbox(endpoint("x", "10.0.0.3", "b", "www", links={"db": "a"}))
C = sandbox(endpoint("y", "10.1.0.3", "c", "www"))
INDEX = NameIndex([A, B, C])


@pytest.mark.parametrize(
    ("asker", "name", "expected"),
    [
        pytest.param(B, "a", ["10.0.0.2"], id="name"),
        pytest.param(B, "A", ["10.0.0.2"], id="any-case"),
        pytest.param(B, "a.x", ["10.0.0.2"], id="with-network"),
        pytest.param(B, "a.y", [], id="of-a-network-the-asker-is-not-on"),
        pytest.param(A, "www", ["10.0.0.2", "10.0.0.3"], id="first-network-only"),
        pytest.param(A, "www.y", ["10.1.0.3"], id="second-network-when-named"),
        pytest.param(A, "c", ["10.1.0.3"], id="second-network-when-unknown-on-the-first"),
        pytest.param(B, "c", [], id="isolated"),
        pytest.param(B, "db", ["10.0.0.2"], id="link"),
        pytest.param(A, "db", [], id="somebody-elses-link"),
        pytest.param(B, "", [], id="empty"),
    ],
)
def test_names_are_found_on_the_askers_networks(asker: Sandbox, name: str, expected: list[str]) -> None:
    assert (INDEX.find(asker, name) or []) == expected


def frontend(service: str, vip: str, *tasks: str, names: tuple[str, ...] = ("web",)) -> Frontend:
    return Frontend(
        service_id=service,
        addresses=(FrontendAddress(network_id="x" * 64, bridge="br-x", vip=vip, names=names),),
        backends=tuple(
            ServiceBackend(owner=task, ip=task, addresses=(BackendAddress(network_id="x" * 64, ip=task),))
            for task in tasks
        ),
    )


@pytest.mark.parametrize(
    ("shown", "name", "expected"),
    [
        pytest.param(frontend("s", "10.0.0.9", "10.0.0.4"), "web", ["10.0.0.9"], id="vip"),
        pytest.param(frontend("s", "10.0.0.9", "10.0.0.4"), "WEB.x", ["10.0.0.9"], id="vip-with-network"),
        pytest.param(frontend("s", "10.0.0.9", "10.0.0.4"), "tasks.web", ["10.0.0.4"], id="tasks-behind-a-vip"),
        pytest.param(frontend("s", "", "10.0.0.4", "10.0.0.5"), "web", ["10.0.0.4", "10.0.0.5"], id="dnsrr"),
        pytest.param(frontend("s", "", "10.0.0.4"), "tasks.web", ["10.0.0.4"], id="tasks-of-dnsrr"),
        pytest.param(frontend("s", "10.0.0.9"), "web", [], id="nobody-serves"),
        pytest.param(frontend("s", "10.0.0.9"), "tasks.web", [], id="no-tasks-serve"),
        pytest.param(frontend("s", "10.0.0.9", "10.0.0.4", names=("web", "Alias")), "alias", ["10.0.0.9"], id="alias"),
        pytest.param(frontend("s", "10.0.0.9", "10.0.0.4"), "tasks.other", None, id="no-service"),
    ],
)
def test_services_answer_while_somebody_serves(shown: Frontend, name: str, expected: list[str] | None) -> None:
    names = ServiceNames()
    index = NameIndex([A, B, C], names)
    names.put(shown)
    assert index.find(B, name) == expected
    assert index.find(C, name) is None, "it is on no network of the service"
    names.drop(shown.service_id)
    assert index.find(B, name) is None


def test_services_of_one_name_all_answer_and_one_that_is_renamed_answers_to_its_new_name_alone() -> None:
    names = ServiceNames()
    names.put(frontend("s", "10.0.0.9", "10.0.0.4"))
    names.put(frontend("t", "10.0.0.8", "10.0.0.5"))
    assert names.find("x" * 64, "web") == ["10.0.0.9", "10.0.0.8"]
    names.put(frontend("t", "10.0.0.8", "10.0.0.5", names=("shop",)))
    assert names.find("x" * 64, "web") == ["10.0.0.9"]
    assert names.find("x" * 64, "tasks.shop") == ["10.0.0.5"]


def test_the_name_of_a_service_without_tasks_is_denied_without_asking_others() -> None:
    names = ServiceNames()
    names.put(frontend("s", "10.0.0.9"))
    server = NameServer(lambda: NameIndex([A, B], names), list)
    for name in ("web", "tasks.web"):
        answer = server.answer_now(B, dns.message.make_query(name, "A").to_wire(), tcp=False)
        assert answer is not None and dns.message.from_wire(answer).rcode() == dns.rcode.NXDOMAIN


def test_addresses_lead_back_to_names_on_the_askers_networks() -> None:
    assert INDEX.find_pointer(B, "2.0.0.10.in-addr.arpa") == "a.x"
    assert INDEX.find_pointer(B, "3.0.1.10.in-addr.arpa") is None


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.17.172.in-addr.arpa", "172.17.0.2"),
        ("2.0.17.172.IN-ADDR.ARPA", "172.17.0.2"),
        (".".join(reversed("fd000000000000000000000000000002")) + ".ip6.arpa", "fd00::2"),
        ("17.172.in-addr.arpa", ""),
        ("x.ip6.arpa", ""),
        ("in-addr.arpa", ""),
        ("example.test", ""),
    ],
)
def test_reverse_names(name: str, address: str) -> None:
    assert address_of(name) == address


def test_an_answer_has_the_questions_id_and_question() -> None:
    query = dns.message.make_query("www.Example.test", "A")
    wire = query.to_wire()
    good = dns.message.make_response(query).to_wire()
    assert is_answer_to(wire, good)
    assert not is_answer_to(wire, wire), "a question is no answer"
    assert not is_answer_to(wire, b"\0\0" + good[2:]), "another id"
    other = dns.message.make_response(dns.message.make_query("www.example.com", "A", id=query.id)).to_wire()
    assert not is_answer_to(wire, other)
    assert wire[12 : question_end(wire)] == b"\3www\7Example\4test\0\0\1\0\1"
    for cut in range(len(wire)):
        assert not is_answer_to(wire, good[:cut])


def test_an_answer_is_kept_for_its_least_ttl_and_a_failure_not_at_all() -> None:
    query = dns.message.make_query("www.example.test", "A")
    response = dns.message.make_response(query)
    assert lifetime_s(response.to_wire()) == 0, "no SOA says for how long"
    response.answer.append(dns.rrset.from_text("www.example.test.", 60, "IN", "CNAME", "b.test."))
    response.answer.append(dns.rrset.from_text("b.test.", 7, "IN", "A", "203.0.113.7"))
    assert lifetime_s(response.to_wire()) == 7
    response.set_rcode(dns.rcode.SERVFAIL)
    assert lifetime_s(response.to_wire()) == 0
    denial = dns.message.make_response(query)
    denial.set_rcode(dns.rcode.NXDOMAIN)
    denial.authority.append(dns.rrset.from_text("test.", 300, "IN", "SOA", "a. b. 1 2 3 4 20"))
    assert lifetime_s(denial.to_wire()) == 20
    assert lifetime_s(b"nonsense") == 0


def ask(wire: bytes, *, tcp: bool = False, index: NameIndex = INDEX, asker: Sandbox = B) -> bytes | None:
    return NameServer(lambda: index, list).answer_now(asker, wire, tcp=tcp)


def test_a_big_answer_is_cut_on_udp_and_whole_on_tcp() -> None:
    crowd = [sandbox(endpoint("x", f"10.0.{n // 200}.{n % 200 + 1}", "crowd")) for n in range(300)]
    index = NameIndex(crowd)
    wire = dns.message.make_query("crowd", "A").to_wire()
    cut, whole = ask(wire, index=index), ask(wire, tcp=True, index=index)
    assert cut is not None and whole is not None
    assert len(cut) <= 512 and cut[2] & 0x02, "the truncation flag is set"
    assert sum(len(rrset) for rrset in dns.message.from_wire(whole).answer) == 300


@pytest.mark.parametrize("name", ["www.example.test", ".", "9.9.9.9.in-addr.arpa"])
def test_what_is_not_ours_is_left_to_others(name: str) -> None:
    assert ask(dns.message.make_query(name, "A").to_wire()) is None


def test_no_bytes_whatever_break_the_server() -> None:
    good = dns.message.make_query("a", "A").to_wire()
    for cut in range(len(good)):
        answer = ask(good[:cut])
        assert answer == b"" or (answer is not None and answer[3] & 0x0F == dns.rcode.FORMERR)
    for position in range(len(good)):
        for byte in (0, 1, 0x3F, 0xC0, 0xFF):
            ask(good[:position] + bytes([byte]) + good[position + 1 :])
