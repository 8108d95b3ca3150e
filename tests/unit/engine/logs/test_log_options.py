"""Log options as dockerd 28.5.2 takes and refuses them."""

import pytest

from bennu.engine import log_attributes
from bennu.engine.log_attributes import FUNCTIONS, check_tag, encode_as_go, expand_tag, read_attributes
from bennu.engine.logs.options import LogSettings, parse_log_options
from bennu.engine.record import Record
from bennu.errors import BennuError, InvalidParameter, NotImplementedHere
from bennu.go.template import Struct
from bennu.model import ContainerConfig, HostConfig, LogConfig

START = "failed to initialize logging driver: "


@pytest.mark.parametrize(
    ("driver", "options", "settings"),
    [
        ("none", {"anything": "goes"}, None),
        ("", {}, LogSettings()),
        ("json-file", {"max-file": "3", "compress": "false", "mode": "blocking"}, LogSettings(max_files=3)),
        ("json-file", {"max-size": "10m"}, LogSettings(max_bytes=10_000_000)),
        ("json-file", {"max-size": "1.5kb", "max-file": "4"}, LogSettings(max_bytes=1500, max_files=4)),
        ("json-file", {"max-size": "1k", "max-file": "2", "compress": "T"}, LogSettings(True, 1000, 2, True)),
        ("json-file", {"mode": "non-blocking"}, LogSettings(ring_bytes=10**6)),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "4m"}, LogSettings(ring_bytes=4 << 20)),
        ("json-file", {"tag": "x", "labels": "a", "env-regex": "^A", "cache-disabled": "true"}, LogSettings()),
        ("local", {}, LogSettings(False, 20 << 20, 5, True)),
        ("local", {"max-file": "1", "compress": "false", "max-size": "1m"}, LogSettings(False, 10**6, 1, False)),
    ],
)
def test_options_are_read_as_dockerd_reads_them(
    driver: str, options: dict[str, str], settings: LogSettings | None
) -> None:
    assert parse_log_options(driver, options) == settings


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("nope", {}, 'error looking up logging plugin nope: plugin "nope" not found'),
        ("", {"mode": "foo"}, "logger: logging mode not supported: foo"),
        ("", {"max-buffer-size": "4m"}, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        (
            "",
            {"mode": "non-blocking", "max-buffer-size": "-5m"},
            "error parsing option max-buffer-size: invalid size: '-5m'",
        ),
        ("json-file", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for log driver local"),
        ("", {"max-size": "abc"}, f"{START}invalid size: 'abc'"),
        ("", {"max-size": "-1"}, f"{START}invalid size: '-1'"),
        ("", {"max-size": "0"}, f"{START}max-size must be a positive number"),
        ("", {"max-file": "0"}, f"{START}max-file cannot be less than 1"),
        ("", {"max-file": "x"}, f'{START}strconv.Atoi: parsing "x": invalid syntax'),
        ("", {"max-file": "٣"}, f'{START}strconv.Atoi: parsing "٣": invalid syntax'),
        ("", {"compress": "maybe"}, f'{START}strconv.ParseBool: parsing "maybe": invalid syntax'),
        (
            "",
            {"compress": "true", "max-file": "2"},
            f"{START}compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("local", {"max-size": "abc"}, f"{START}invalid value for max-size: abc: invalid size: 'abc'"),
        ("local", {"max-file": "1"}, f"{START}compression cannot be enabled when max file count is 1"),
        (
            "local",
            {"compress": "maybe"},
            f'{START}error reading compress log option: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
    ],
)
def test_bad_options_are_refused_in_dockerds_words(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_log_options(driver, options)
    assert str(caught.value) == words


def test_a_bad_expression_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="error parsing regexp: "):
        parse_log_options("", {"labels-regex": "("})


@pytest.mark.parametrize(("driver", "options"), [("syslog", {}), ("journald", {}), ("", {"env-regex": r"\pL"})])
def test_what_is_not_implemented_is_named(driver: str, options: dict[str, str]) -> None:
    with pytest.raises(NotImplementedHere, match=driver or "env-regex"):
        parse_log_options(driver, options)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("{{.Name", "template: log-tag:1: unclosed action"),
        (
            "{{.Nope}}",
            'template: log-tag:1:2: executing "log-tag" at <.Nope>: can\'t evaluate field Nope in type *logger.Info',
        ),
    ],
)
def test_a_bad_tag_is_refused_in_gos_words(tag: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check_tag({"tag": tag})
    assert str(caught.value) == START + words
    check_tag({"tag": "{{.Name}}/{{.ImageName}}"})


def test_a_tag_may_use_functions() -> None:
    info = Struct("*logger.Info", {"Name": "web", "ContainerLabels": {"b": "<", "a": "1"}})
    assert expand_tag("{{upper .Name}} {{json .ContainerLabels}}", info) == 'WEB {"a":"1","b":"\\u003c"}'
    assert set(FUNCTIONS) == {"json", "lower", "upper", "title"}


def test_attributes_are_encoded_as_go_does() -> None:
    assert encode_as_go({"b": "x&é\u2028", "a": '"'}) == '{"a":"\\"","b":"x\\u0026é\\u2028"}'


async def test_an_expression_that_matches_for_ever_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_attributes, "MATCH_WITHIN_S", 0.5)
    record = Record(
        id="c",
        name="n",
        created_ns=1,
        image_id="sha256:1",
        path="/bin/true",
        args=[],
        config=ContainerConfig(labels={"a" * 40 + "b": ""}),
        host_config=HostConfig(log_config=LogConfig(config={"labels-regex": "^(a+)+$"})),
        endpoints={},
        mounts=[],
    )
    with pytest.raises(BennuError, match=r'^failed to initialize .*: "\^\(a\+\)\+\$" takes more than 0.5 s to match$'):
        await read_attributes(record, "")
