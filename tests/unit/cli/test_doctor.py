"""What doctor says of the socket where clients look that are told of no other."""

from pathlib import Path

import pytest

from bennu.cli.commands.doctor import look_at_docker_socket


@pytest.mark.parametrize(
    ("there", "docker", "words", "cure"),
    [
        (True, False, "is there", ""),
        (False, True, "is left to Docker", ""),
        (False, False, "is nobody's", "bennud -H unix:///run/b.sock -H unix://SOCKET"),
    ],
)
def test_dockers_socket_is_proposed_where_there_is_no_docker(
    tmp_path: Path, there: bool, docker: bool, words: str, cure: str
) -> None:
    socket = tmp_path / "docker.sock"
    if there:
        socket.touch()
    found = look_at_docker_socket(socket, "unix:///run/b.sock", has_docker=docker)
    assert words in found.text
    assert found.cure == cure.replace("SOCKET", str(socket))
