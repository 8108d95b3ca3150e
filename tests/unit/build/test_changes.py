"""`--change` of import and commit."""

from typing import Any

import pytest

from bennu.build.changes import apply_changes
from bennu.errors import InvalidParameter


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("CMD echo hi", {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        ('CMD ["echo", "hi"]', {"Cmd": ["echo", "hi"]}),
        ("cmd  [not json", {"Cmd": ["/bin/sh", "-c", "[not json"]}),
        ('ENTRYPOINT ["/x"]', {"Cmd": None, "Entrypoint": ["/x"]}),
        ("ENV A=b", {"Env": ["P=q", "A=b"]}),
        ("ENV A b c", {"Env": ["P=q", "A=b c"]}),
        ("ENV A=\"b c\" D=e\\ f P=2 Q='$P'", {"Env": ["P=2", "A=b c", "D=e f", "Q=$P"]}),
        ("ENV A=$P-${P}x${NO:-def}${P:+alt}", {"Env": ["P=q", "A=q-qxdefalt"]}),
        ("EXPOSE 80 53/udp 90-91", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}}),
        ('LABEL a=b c="d e"', {"Labels": {"a": "b", "c": "d e"}}),
        ("LABEL a=1 \\\n b=2", {"Labels": {"a": "1", "b": "2"}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("USER 1:2", {"User": "1:2"}),
        ("WORKDIR sub", {"WorkingDir": "/w/sub"}),
        ("WORKDIR /abs/../x", {"WorkingDir": "/x"}),
        ("STOPSIGNAL SIGUSR1", {"StopSignal": "SIGUSR1"}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=4 CMD curl -f x",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "curl -f x"],
                    "Interval": 90 * 10**9,
                    "Timeout": 5 * 10**8,
                    "Retries": 4,
                }
            },
        ),
        ('HEALTHCHECK CMD ["a", "b"]', {"Healthcheck": {"Test": ["CMD", "a", "b"]}}),
        ("# a comment", {}),
        ("", {}),
    ],
)
def test_an_instruction_changes_what_it_names(change: str, expected: dict[str, Any]) -> None:
    before = {"Env": ["P=q"], "WorkingDir": "/w", "Cmd": ["old"]}
    assert apply_changes(before, [change]) == before | expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN x", "run is not a valid change command"),
        ("COPY a b", "copy is not a valid change command"),
        ("FOO", "FOO is not a valid change command"),
        ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("EXPOSE " + "9" * 5000, "invalid containerPort: " + "9" * 5000),
        (
            f"HEALTHCHECK --retries={'9' * 5000} CMD x",
            f'strconv.ParseInt: parsing "{"9" * 5000}": value out of range',
        ),
        (f"HEALTHCHECK --interval={'9' * 400}h CMD x", 'time: invalid duration "' + "9" * 400 + 'h"'),
        ("ENV A=b c", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ("HEALTHCHECK FOO x", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=soon CMD x", 'time: invalid duration "soon"'),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
    ],
)
def test_a_wrong_instruction_is_refused(change: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        apply_changes({}, [change])
    assert str(caught.value).lower() == message.lower()


def test_a_command_given_beside_an_entrypoint_stays_whatever_the_order() -> None:
    given = apply_changes({"Cmd": ["old"]}, ['CMD ["new"]', 'ENTRYPOINT ["/e"]'])
    assert given == {"Cmd": ["new"], "Entrypoint": ["/e"]}
