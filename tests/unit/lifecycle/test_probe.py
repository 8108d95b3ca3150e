"""What is asked of a container: Bennu's labels, read or refused by name, and as much HTTP as a probe needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bennu.errors import InvalidParameter
from bennu.lifecycle.health import on_unhealthy
from bennu.lifecycle.probe import (
    CommandProbe,
    HttpProbe,
    TcpProbe,
    http_request,
    is_whole,
    judge_answer,
    probe_from_labels,
)

# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "probe"),
    [
        ("http://:8080/health", HttpProbe("127.0.0.1", 8080, "/health")),
        (":8080", HttpProbe("127.0.0.1", 8080, "/")),
        ("http://localhost", HttpProbe("127.0.0.1", 80, "/")),
        ("http://[::1]:81/a?b=c", HttpProbe("::1", 81, "/a?b=c")),
        ("http://10.0.0.1?x", HttpProbe("10.0.0.1", 80, "/?x")),
    ],
)
def test_http_probes_by_label(url: str, probe: HttpProbe) -> None:
    assert probe_from_labels("bennu.health", {"bennu.health.http": url}) == probe


def test_an_http_probe_with_everything() -> None:
    labels = {
        "bennu.ready.http": "http://:80/x",
        "bennu.ready.http.method": "head",
        "bennu.ready.http.status": "200-204, 418",
        "bennu.ready.http.header.Host": "example",
        "bennu.ready.http.header.X-Probe": "yes: it is",
    }
    headers = (("Host", "example"), ("X-Probe", "yes: it is"))
    expected = HttpProbe("127.0.0.1", 80, "/x", "HEAD", headers, ((200, 204), (418, 418)))
    assert probe_from_labels("bennu.ready", labels) == expected


@pytest.mark.parametrize(
    "labels",
    [
        {"http": "https://:8080/"},
        {"http": "http://user@host/"},
        {"http": "http://:0/"},
        {"http": "http://:99999/"},
        {"http": "http://:" + "9" * 5000},
        {"http": "http://[::1/"},
        {"http": "http://h/a b"},
        {"http": "http://h/\r\nX: y"},
        {"http": ":80", "http.method": "GET /"},
        {"http": ":80", "http.status": "ok"},
        {"http": ":80", "http.status": "9" * 5000},
        {"http": ":80", "http.header.X": "a\r\nEvil: b"},
        {"http": ":80", "http.header.X:": "a"},
        {"tcp": "database"},
        {"tcp": ":"},
        {"tcp": ":70000"},
        {"tcp": "db:5432"},
        {"http": "http://web/health"},
        {"http": ":80", "tcp": ":80"},
        {"htpp": ":80"},
        {"cmd": "true"},
        {"http.method": "HEAD"},
        {"tcp": ":80", "http.status": "200"},
        {"http": ":80", "http.stauts": "200"},
        {"http": ":80", "http.header": "X: y"},
        {"http": ":80", "http.header.": "y"},
        {"http": ":80", "http.status": "299-200"},
        {"http": ":80", "http.status": "99"},
        {"http": ":80", "http.status": "600"},
    ],
)
def test_labels_that_cannot_be_read_are_refused_and_named(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match=r"label bennu\.health\."):
        probe_from_labels("bennu.health", {f"bennu.health.{name}": text for name, text in labels.items()})


@given(st.text(), st.sampled_from(["http", "tcp", "http.status", "http.method"]))
def test_no_label_does_anything_but_parse_or_be_refused(text: str, name: str) -> None:
    try:
        probe_from_labels("bennu.health", {"bennu.health.http": ":80", f"bennu.health.{name}": text})
        on_unhealthy({"bennu.on-unhealthy": text})
    except InvalidParameter:
        return


def test_tcp_and_command_probes_by_label() -> None:
    assert probe_from_labels("bennu.health", {"bennu.health.tcp": ":5432"}) == TcpProbe("127.0.0.1", 5432)
    assert probe_from_labels("bennu.health", {"bennu.health.tcp": "[::1]:1"}) == TcpProbe("::1", 1)
    assert probe_from_labels("bennu.ready", {"bennu.ready.cmd": "test -e x"}) == CommandProbe(
        ("/bin/sh", "-c", "test -e x")
    )
    assert probe_from_labels("bennu.health", {"bennu.ready.cmd": "x", "bennu.ready.tcp": ":1"}) is None
    assert probe_from_labels("bennu.ready", {"bennu.ready.within": "3s"}) is None


def test_an_empty_label_takes_back_one_of_the_image() -> None:
    labels = {"bennu.health.http": "", "bennu.health.tcp": ":80"}
    assert probe_from_labels("bennu.health", labels) == TcpProbe("127.0.0.1", 80)
    assert probe_from_labels("bennu.health", {"bennu.health.http": ""}) is None


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"bennu.health.htpp": ":80"}, "known are bennu.health.http, bennu.health.tcp"),
        ({"bennu.health.http": ":80", "bennu.health.tcp": ":80"}, "only one probe can decide"),
        ({"bennu.health.tcp": "db:5432"}, "'db' is not an IP address"),
    ],
)
def test_a_refusal_says_what_to_do(labels: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        probe_from_labels("bennu.health", labels)


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (HttpProbe("127.0.0.1", 80, "/x", "HEAD"), "HEAD http://127.0.0.1:80/x"),
        (HttpProbe("::1", 8080, "/"), "GET http://[::1]:8080/"),
        (TcpProbe("::1", 5432), "connect to [::1]:5432"),
        (CommandProbe(("/bin/sh", "-c", "test -e /x")), "/bin/sh -c test -e /x"),
    ],
)
def test_a_probe_in_words(probe: HttpProbe | TcpProbe | CommandProbe, words: str) -> None:
    assert str(probe) == words


# --- HTTP -------------------------------------------------------------------------------------------------------------

PROBE = HttpProbe("127.0.0.1", 80, "/health?a=b")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_the_request() -> None:
    assert http_request(PROBE) == (
        b"GET /health?a=b HTTP/1.1\r\nHost: 127.0.0.1:80\r\nUser-Agent: bennu-health\r\nConnection: close\r\n\r\n"
    )


def test_headers_asked_for_take_the_place_of_ours_however_they_are_spelled() -> None:
    probe = HttpProbe("::1", 80, "/", headers=(("X-Probe", "1"), ("host", "example")))
    lines = http_request(probe).decode().split("\r\n")
    assert [line for line in lines if line.lower().startswith("host")] == ["host: example"]
    assert "X-Probe: 1" in lines
    assert "Host: [::1]:80" in http_request(HttpProbe("::1", 80, "/")).decode()


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        (199, ((200, 399),), 1),
        (200, ((200, 399),), 0),
        (399, ((200, 399),), 0),
        (400, ((200, 399),), 1),
        (503, ((200, 399),), 1),
        (404, ((200, 204), (404, 404)), 0),
        (205, ((200, 204), (404, 404)), 1),
    ],
)
def test_the_status_decides(status: int, expected: tuple[tuple[int, int], ...], code: int) -> None:
    probe = HttpProbe("127.0.0.1", 80, "/", expected=expected)
    answer = f"HTTP/1.1 {status} Whatever\r\nServer: x\r\n\r\nthe body".encode()
    assert judge_answer(probe, answer) == (code, f"HTTP {status}: the body".encode())


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 \xb2\xb2\xb2 OK"],
)
def test_what_is_not_http_is_a_failure(answer: bytes) -> None:
    code, output = judge_answer(PROBE, answer)
    assert code == 1
    assert output in (b"the answer is not HTTP", b"the connection was closed without an answer")


@pytest.mark.parametrize(
    ("answer", "method", "whole"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "GET", False, id="not yet"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello", "GET", True, id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", True, id="head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "HEAD", False, id="head, not yet"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", "GET", True, id="no content"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\n\r\n", "GET", True, id="not modified"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\n\r\n", "GET", True, id="chunks"),
        pytest.param(CHUNKED + b"2\r\nok\r\n", "GET", False, id="a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "GET", False, id="until closed"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000, "GET", True, id="enough"),
        pytest.param(b"x" * 4097, "GET", True, id="no HTTP, and enough of it"),
    ],
)  # fmt: skip
def test_reading_ends_where_the_answer_does(answer: bytes, method: str, whole: bool) -> None:
    assert is_whole(HttpProbe("127.0.0.1", 80, "/", method), answer) is whole


@given(st.binary(max_size=200))
def test_no_answer_does_anything_but_count(answer: bytes) -> None:
    is_whole(PROBE, answer)
    code, _ = judge_answer(PROBE, answer)
    assert code in (0, 1)
