"""What a certificate shows of the program that asked."""

import pytest

from bennu.api.http.peer import show_command
from bennu.tls import show_subject


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        pytest.param(["docker", "stop", "web"], "docker stop web", id="as-typed"),
        pytest.param(["/usr/bin/docker", "stop", "web"], "docker stop web", id="without-the-folder"),
        pytest.param(["/venv/bin/python", "/venv/bin/bennu", "stop", "web"], "bennu stop web", id="a-script"),
        pytest.param(["python3", "-c", "import docker\nstop()"], "python3 -c import docker stop()", id="one-line"),
        pytest.param(["evil", "\x1b[2Jgone"], "evil  [2Jgone", id="nothing-that-a-terminal-obeys"),
    ],
)
def test_a_command_line_is_shown_as_a_person_typed_it(words: list[str], shown: str) -> None:
    assert show_command(words) == shown


def test_a_subject_is_shown_as_openssl_writes_it_in_one_printable_line() -> None:
    parts = ((("organizationName", "Ops"),), (("commonName", "alice"), ("emailAddress", "a@x\x1b[2J")))
    assert show_subject({"subject": parts}) == "O=Ops, CN=alice, emailAddress=a@x [2J"
    assert show_subject({}) == ""
