import pytest

from bennu.engine.top import parse_ps
from bennu.errors import BennuError

PS = """UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 19:58 ?        00:00:01 /init
root         412       1  0 20:01 ?        00:00:00 sh -c  sleep 9
"""


def test_only_the_containers_processes_are_shown_and_the_command_keeps_its_blanks() -> None:
    titles, rows = parse_ps(PS, {412, 999})
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert rows == [["root", "412", "1", "0", "20:01", "?", "00:00:00", "sh -c  sleep 9"]]


def test_an_output_without_pids_is_refused() -> None:
    with pytest.raises(BennuError, match="Couldn't find PID field in ps output"):
        parse_ps("CMD\nsh\n", {1})
