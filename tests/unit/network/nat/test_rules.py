"""The nftables table as text. That the kernel's own parser takes it: tests/engine/test_network_rules.py."""

from bennu.network.frontends import Frontend, drop_conflicting_ports
from bennu.network.model import GatewayMode, OpenPort, PortForward
from bennu.network.nat.frontend_rules import render_frontend_changes, verdict_entries
from bennu.network.nat.nft import parse_generation
from bennu.network.nat.rules import BridgeRules, Ruleset, chains_of, render_change, render_table
from support.rules import BRIDGES, LOCAL, MODES, SIX, SIX_ONE, WEB, frontend


def ports(*forwards: PortForward, opened: tuple[OpenPort, ...] = ()) -> Ruleset:
    return Ruleset(BRIDGES, frozenset(forwards), open_ports=frozenset(opened))


def test_each_port_is_one_element_of_the_map_for_its_kind() -> None:
    text = render_table("t", Ruleset(BRIDGES, frozenset({WEB, LOCAL, SIX, SIX_ONE})))
    assert "map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 8080 :" in text
    assert "elements = { tcp . 8080 : 172.17.0.2 . 80 }" in text
    assert "elements = { 127.0.0.1 . udp . 53 : 172.17.0.2 . 53 }" in text
    assert "elements = { tcp . 8080 : fd00::2 . 80 }" in text
    assert "elements = { fd00::1 . tcp . 8080 : fd00::2 . 80 }" in text


def test_only_networks_that_ask_for_it_are_masqueraded() -> None:
    text = render_table("t", Ruleset(BRIDGES))
    assert 'oifname != "bennu0" ip saddr 172.17.0.0/16 masquerade' in text
    assert 'oifname != "br-six" ip6 saddr fd00::/64 masquerade' in text
    assert 'oifname != "br-inner"' not in text and 'oifname != "br-quiet"' not in text


def test_internal_networks_are_closed_and_quiet_ones_open_for_published_ports_only() -> None:
    text = render_table("t", Ruleset(BRIDGES))
    assert 'iifname { "br-inner" } drop' in text and 'oifname { "br-inner" } drop' in text
    assert 'iifname "br-quiet" oifname "br-quiet" ct status dnat accept' in text
    assert 'iifname "bennu0" oifname "bennu0" accept' in text


def test_what_goes_nowhere_near_our_bridges_meets_no_verdict() -> None:
    """A host's other traffic is nobody's business here: every rule that filters names one of our interfaces."""
    chain = render_table("t", Ruleset(BRIDGES)).partition("chain forward {")[2].partition("}\n\t}")[0]
    for line in map(str.strip, chain.splitlines()):
        if line.endswith(("drop", "accept")):
            assert line.startswith(("iifname", "oifname")), line


def test_new_connections_go_to_each_task_in_turn() -> None:
    entries = verdict_entries(frontend("s", 8000, "10.0.1.3", "10.0.1.4"))
    assert entries["port_tcp_8000_s"].rules == (
        "meta l4proto tcp dnat ip to numgen inc mod 2 map { 0 : 10.0.0.3 . 80, 1 : 10.0.0.4 . 80 }",
    )
    assert entries["vip_10.0.1.2"].rules == ("dnat ip to numgen inc mod 2 map { 0 : 10.0.1.3, 1 : 10.0.1.4 }",)
    assert entries["vip_10.0.1.2"].element == '"br-n" . 10.0.1.2 : goto vip_10.0.1.2'


def test_what_nobody_serves_refuses() -> None:
    for way in verdict_entries(frontend("s", 8000)).values():
        assert way.rules[-1] == "reject"


def test_a_change_of_a_services_tasks_is_about_its_chains_alone() -> None:
    change = render_frontend_changes("t", [(frontend("s", 8000, "10.0.1.3"), frontend("s", 8000, "10.0.1.4"))])
    assert [line.split()[0] for line in change.splitlines()] == ["flush", "add", "flush", "add"]
    assert "element" not in change
    same = frontend("s", 8000, "10.0.1.3")
    assert render_frontend_changes("t", [(same, same)]) == ""


def test_a_port_that_moves_to_another_service_is_taken_before_it_is_given() -> None:
    before, after = Frontend(service_id="a", ports=(("tcp", 80),)), Frontend(service_id="b", ports=(("tcp", 80),))
    change = render_frontend_changes("t", [(None, after), (before, None)]).splitlines()
    assert change[0] == "delete element inet t services { tcp . 80 }"
    assert change[-1] == "add element inet t services { tcp . 80 : goto port_tcp_80_b }"


def test_two_services_that_were_stored_with_one_port_show_it_both_no_more() -> None:
    first = Frontend(service_id="a", ports=(("tcp", 80), ("tcp", 81)))
    found = drop_conflicting_ports([first, Frontend(service_id="b", ports=(("tcp", 80), ("udp", 80)))])
    assert [one.ports for one in found] == [(("tcp", 81),), (("udp", 80),)]


def test_a_change_names_only_what_changed() -> None:
    text = render_change("t", ports(WEB, LOCAL), ports(WEB, SIX))
    assert text.splitlines() == [
        "delete element inet t port4 { 127.0.0.1 . udp . 53 }",
        "add element inet t any6 { tcp . 8080 : fd00::2 . 80 }",
    ]
    assert render_change("t", ports(WEB), ports(WEB)) == ""


def test_a_port_that_moves_is_deleted_before_it_is_added() -> None:
    moved = PortForward("tcp", "0.0.0.0", 8080, "172.17.0.3", 80)
    assert [line.split()[0] for line in render_change("t", ports(WEB), ports(moved)).splitlines()] == ["delete", "add"]


def test_a_generation_is_read_from_the_kernels_answer() -> None:
    answer = bytes.fromhex(
        "2c000000 0f0a0000 01000000 00000000 00000000 08000100 00000007 08000200 000004d2".replace(" ", "")
    )
    assert parse_generation(answer) == 7
    for cut in range(28):
        assert parse_generation(answer[:cut]) == -1
    assert parse_generation(b"\0" * 64) == -1


def test_routed_addresses_are_not_translated_and_open_what_is_published_and_answer_pings() -> None:
    chains = chains_of(Ruleset(MODES))
    leaving = [line for line in chains["postrouting"] if "oifname !=" in line]
    assert leaving == [
        'oifname != "br-nat" ip saddr 10.0.0.0/24 masquerade',
        'oifname != "br-nat" ip6 saddr fd00:a::/64 snat ip6 to 2001:db8::9',
        'oifname != "br-bare" ip saddr 10.2.0.0/24 snat ip to 192.0.2.9',
    ]
    forward = chains["forward"]
    assert 'oifname { "br-routed" } meta nfproto ipv4 meta l4proto icmp accept' in forward
    assert 'oifname { "br-routed" } ip6 daddr . meta l4proto . th dport @open6 accept' in forward
    assert forward[-1] == 'oifname { "br-nat", "br-routed", "br-bare", "br-in" } drop'


def test_unprotected_containers_are_reached_from_other_hosts_and_not_from_other_networks() -> None:
    (line,) = [line for line in chains_of(Ruleset(MODES))["forward"] if line.startswith('oifname { "br-bare" }')]
    assert line == (
        'oifname { "br-bare" } iifname != { "br-nat", "br-routed", "br-bare", "br-in" } meta nfproto ipv4 accept'
    )


def test_published_ports_are_reached_directly_from_trusted_interfaces_or_where_all_are() -> None:
    trusted = 'oifname "br-nat" iifname { "eth7" } ip daddr . meta l4proto . th dport @open4 accept'
    everywhere = 'oifname { "br-nat", "br-routed", "br-bare" } iifname != '
    plain, direct = chains_of(Ruleset(MODES))["forward"], chains_of(Ruleset(MODES, direct_routing=True))["forward"]
    assert trusted in plain
    assert not any(line.startswith(everywhere) for line in plain)
    assert sum(line.startswith(everywhere) for line in direct) == 2


def test_a_mark_lets_packets_in() -> None:
    lines = [chains_of(Ruleset(BRIDGES[:1], accept_mark=mark))["forward"] for mark in ("0x1", "0x1/0xff")]
    assert 'oifname { "bennu0" } meta mark 0x1 accept' in lines[0]
    assert 'oifname { "bennu0" } meta mark & 0xff == 0x1 accept' in lines[1]


def test_a_family_without_rules_passes_untouched() -> None:
    chains = chains_of(Ruleset(BRIDGES, families=(6,)))
    assert chains["forward"][1] == "meta nfproto ipv4 accept"
    assert not any(" ip saddr" in line for line in chains["postrouting"])
    assert any(" ip6 saddr fd00::/64 masquerade" in line for line in chains["postrouting"])


def test_open_ports_come_and_go_as_elements() -> None:
    four, six = OpenPort("tcp", "10.0.0.2", 80), OpenPort("udp", "fd00:a::2", 53)
    assert (
        "set open4 { type ipv4_addr . inet_proto . inet_service; elements = { 10.0.0.2 . tcp . 80 } }"
        in render_table("t", ports(opened=(four,)))
    )
    assert render_change("t", ports(opened=(four,)), ports(opened=(six,))).splitlines() == [
        "delete element inet t open4 { 10.0.0.2 . tcp . 80 }",
        "add element inet t open6 { fd00:a::2 . udp . 53 }",
    ]


def test_containers_kept_apart_stay_apart_where_ports_are_open_to_others() -> None:
    quiet = BridgeRules("br-q", ("10.9.0.0/24",), icc=False, mode4=GatewayMode.ROUTED)
    forward = chains_of(Ruleset((quiet,)))["forward"]
    apart = forward.index('iifname "br-q" oifname "br-q" drop')
    assert apart < next(number for number, line in enumerate(forward) if "@open4" in line)
