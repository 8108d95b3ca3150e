"""What exit codes mean: all 256, and the unknown one; and what a failed start counts as."""

import signal

import pytest

from bennu.lifecycle.exit_status import classify_start_failure, decode_exit_code, signal_of

SIGNALS = {*range(1, 32), *range(34, 65)}


@pytest.mark.parametrize("code", range(256))
def test_every_exit_code_has_words(code: int) -> None:
    words = decode_exit_code(code)
    assert words.startswith(f"{code}: ")
    assert ("killed by SIG" in words) == (code - 128 in SIGNALS)
    assert ("success" in words) == (code == 0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "unknown"),
        (0, "0: success"),
        (1, "1: exited with an error"),
        (125, "125: exited with an error"),
        (126, "126: command cannot be invoked"),
        (127, "127: command not found"),
        (128, "128: exited with an error"),
        (130, "130: killed by SIGINT"),
        (134, "134: killed by SIGABRT"),
        (137, "137: killed by SIGKILL"),
        (139, "139: killed by SIGSEGV"),
        (143, "143: killed by SIGTERM"),
        (160, "160: exited with an error"),
        (192, "192: killed by SIGRTMAX"),
        (255, "255: exited with an error"),
    ],
)
def test_the_words(code: int | None, words: str) -> None:
    assert decode_exit_code(code) == words


@pytest.mark.parametrize("number", [member.value for member in signal.Signals])
def test_128_and_a_signal_is_that_signal(number: int) -> None:
    assert signal_of(128 + number) == number
    assert signal_of(number) is None


RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(RUNC + 'exec: "nosuch": executable file not found in $PATH: unknown', 127, id="not in PATH"),
        pytest.param(RUNC + 'exec: "/x/y": stat /x/y: no such file or directory: unknown', 127, id="no such path"),
        pytest.param(RUNC + 'error mounting "/f" to rootfs at "/d": not a directory: unknown', 127, id="mount clash"),
        pytest.param(RUNC + 'exec: "/etc/passwd": permission denied: unknown', 126, id="not executable"),
        pytest.param(RUNC + 'exec: "/etc": is a directory: permission denied: unknown', 126, id="a folder"),
        pytest.param("unable to find user nosuch: no matching entries in passwd file", 128, id="no such user"),
        pytest.param("Bind for 0.0.0.0:80 failed: port is already allocated", 128, id="port taken"),
        pytest.param("network nosuchnet not found", 128, id="no such network"),
        pytest.param("", 128, id="no words at all"),
        pytest.param("Permission denied", 126, id="in any case"),
    ],
)
def test_a_failed_start_is_told_by_its_text(message: str, code: int) -> None:
    assert classify_start_failure(message) == code
