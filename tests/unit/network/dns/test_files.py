"""/etc/hosts and /etc/resolv.conf as text."""

import pytest

from bennu.errors import InvalidParameter
from bennu.network.dns.files import (
    ResolvConfRequest,
    amend_hosts,
    forget_host,
    parse_link,
    parse_resolv_conf,
    readdress_hosts,
    render_hosts,
    render_resolv_conf,
    upstream_servers,
)

HEAD = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def test_hosts_end_with_the_extra_ones_and_then_the_own_addresses() -> None:
    text = render_hosts(
        "box",
        "example.test",
        addresses=["172.17.0.2", "fd00::2"],
        extra_hosts=["db:10.0.0.7", "six:[fd00::7]", "up:host-gateway", "eq=10.0.0.8"],
        links={"172.17.0.9": ["database", "0123456789ab", "db1"]},
        host_gateways=["172.17.0.1", "fd00::1"],
    )
    assert text == HEAD + (
        "10.0.0.7\tdb\nfd00::7\tsix\n172.17.0.1\tup\nfd00::1\tup\n10.0.0.8\teq\n172.17.0.9\tdatabase 0123456789ab db1\n"
        "172.17.0.2\tbox.example.test box\nfd00::2\tbox.example.test box\n"
    )


@pytest.mark.parametrize(
    ("hostname", "domainname", "names"),
    [("a.b.c", "", "a.b.c a"), ("a", "b.c", "a.b.c a"), ("a.b", "c.d", "a.b.c.d a"), ("plain", "", "plain")],
)
def test_a_dotted_host_name_has_its_first_label_beside_it(hostname: str, domainname: str, names: str) -> None:
    assert render_hosts(hostname, domainname, addresses=["10.0.0.2"]) == HEAD + f"10.0.0.2\t{names}\n"


def test_without_ipv6_no_line_has_an_address_of_it() -> None:
    text = render_hosts(
        "box", addresses=["10.0.0.2", "fd00::2"], extra_hosts=["six:fe80::7", "four:10.0.0.7"], ipv6=False
    )
    assert text == "127.0.0.1\tlocalhost\n10.0.0.7\tfour\n10.0.0.2\tbox\n"


def test_what_a_container_wrote_into_its_hosts_file_outlives_a_change_of_its_networks() -> None:
    before, after = render_hosts("box", addresses=["10.0.0.2", "10.1.0.2"]), render_hosts("box", addresses=["10.2.0.2"])
    own = before.replace("10.1.0.2\tbox\n", "") + "192.0.2.1\tmine\n"
    assert amend_hosts(own, before, after) == HEAD + "192.0.2.1\tmine\n10.2.0.2\tbox\n"


def test_a_link_gets_its_new_address_in_the_place_of_the_old_one() -> None:
    text = "127.0.0.1\tlocalhost\n10.0.0.2\tdb c1 former\nfd00::2\tdb c1\n10.0.0.3\tbox\n"
    links = {"10.0.0.9": ["db", "c1"], "fd00::9": ["db", "c1"], "10.0.0.8": ["new"]}
    assert readdress_hosts(text, links) == (
        "127.0.0.1\tlocalhost\n10.0.0.9\tdb c1\nfd00::9\tdb c1\n10.0.0.3\tbox\n10.0.0.8\tnew\n"
    )


def test_a_link_that_is_removed_takes_its_lines_with_it() -> None:
    text = "127.0.0.1\tlocalhost\n10.0.0.2\tdb c1 former\nfd00::2\tdb c1\n10.0.0.3\tbox db\n"
    assert forget_host(text, "db") == "127.0.0.1\tlocalhost\n10.0.0.3\tbox db\n"


def test_a_container_without_network_has_the_head_only() -> None:
    assert render_hosts("box") == HEAD


@pytest.mark.parametrize("entry", ["bogus", ":1.2.3.4", "name:"])
def test_a_bad_extra_host_is_named(entry: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        render_hosts("box", extra_hosts=[entry])
    assert str(refused.value) == f'bad format for add-host: "{entry}"'


def test_host_gateway_needs_a_gateway() -> None:
    with pytest.raises(InvalidParameter, match="unable to derive the IP value for host-gateway"):
        render_hosts("box", extra_hosts=["up:host-gateway"])


HOST = "# by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.53 # near\nsearch a.test b.test\noptions ndots:2 rotate\n"


@pytest.mark.parametrize(
    ("host", "asked", "expected"),
    [
        pytest.param(
            HOST, {}, "nameserver 192.0.2.53\nsearch a.test b.test\noptions ndots:2 rotate\n", id="loopback-filtered"
        ),
        pytest.param("nameserver 127.0.0.1\n", {}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", id="fallback"),
        pytest.param("", {}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", id="empty"),
        pytest.param(
            HOST,
            {"servers": ["1.1.1.1"], "search": ["x.test"], "options": ["ndots:1"]},
            "nameserver 1.1.1.1\nsearch x.test\noptions ndots:1\n",
            id="asked",
        ),
        pytest.param(HOST, {"search": ["."]}, "nameserver 192.0.2.53\noptions ndots:2 rotate\n", id="no-search-at-all"),
        pytest.param(HOST, {"servers": ["127.0.0.1"]}, None, id="asked-loopback-stays"),
        pytest.param(
            "nameserver 192.0.2.53\nsearch a.test\n",
            {"embedded": True},
            "nameserver 127.0.0.11\nsearch a.test\noptions ndots:0\n",
            id="embedded",
        ),
        pytest.param(
            HOST,
            {"embedded": True, "servers": ["1.1.1.1"]},
            "nameserver 127.0.0.11\nsearch a.test b.test\noptions ndots:2 rotate\n",
            id="embedded-keeps-options",
        ),
        pytest.param(
            "nameserver 192.0.2.53\noptions ndots:many rotate\n",
            {"embedded": True},
            "nameserver 127.0.0.11\noptions rotate ndots:0\n",
            id="embedded-drops-a-ndots-that-is-no-number",
        ),
        pytest.param(
            "nameserver 2001:db8::53\nnameserver 192.0.2.53\n",
            {},
            "nameserver 192.0.2.53\n",
            id="no-ipv6-no-such-server",
        ),
        pytest.param("nameserver 2001:db8::53\n", {"ipv6": True}, "nameserver 2001:db8::53\n", id="a-server-of-ipv6"),
        pytest.param(
            "nameserver 127.0.0.1\nsortlist 10.0.0.0\n",
            {"is_host": True},
            "nameserver 127.0.0.1\nsortlist 10.0.0.0\n",
            id="in-the-hosts-network-as-it-is",
        ),
    ],
)
def test_resolv_conf(host: str, asked: dict[str, object], expected: str | None) -> None:
    rendered = render_resolv_conf(host, ResolvConfRequest(**asked))  # type: ignore[arg-type]
    text = "".join(line for line in rendered.splitlines(keepends=True) if not line.startswith("#"))
    if expected is None:
        assert text.startswith("nameserver 127.0.0.1\n")
    else:
        assert text == expected


def test_the_file_tells_whom_the_embedded_dns_asks() -> None:
    def last_line(*servers: str) -> str:
        return render_resolv_conf(HOST, ResolvConfRequest(servers=servers, embedded=True)).splitlines()[-1]

    assert last_line() == "# What 127.0.0.11 does not know it asks of 127.0.0.53, 192.0.2.53 (from the host's network)."
    assert last_line("1.1.1.1").endswith("it asks of 1.1.1.1 (from the container's own network).")


def test_malformed_lines_are_passed_over() -> None:
    parsed = parse_resolv_conf("nameserver\nnameserver x\nnonsense 1\ndomain d.test\nnameserver fe80::1%eth0\n")
    assert parsed.servers == ("fe80::1%eth0",) and parsed.search == ("d.test",)


def test_the_embedded_dns_may_ask_the_hosts_loopback_resolver() -> None:
    assert upstream_servers(HOST) == ["127.0.0.53", "192.0.2.53"]
    assert upstream_servers("") == ["8.8.8.8", "8.8.4.4"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db", ("db", "db")),
        ("db:database", ("db", "database")),
        ("/db:/web/database", ("db", "database")),
    ],
)
def test_a_link_names_a_container_and_what_it_is_called_here(text: str, expected: tuple[str, str]) -> None:
    assert parse_link(text) == expected


@pytest.mark.parametrize("text", ["", ":x", "a:b:c"])
def test_a_bad_link_is_named(text: str) -> None:
    with pytest.raises(InvalidParameter, match=f"bad format for links: {text}"):
        parse_link(text)
