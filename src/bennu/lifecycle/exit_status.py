"""The meaning of exit codes, and the codes of failed starts. Pure."""

from typing import Final

from bennu.lifecycle.signals import is_linux_signal, signal_name

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
START_FAILED: Final = 128

_MEANINGS: Final = {0: "success", NOT_EXECUTABLE: "command cannot be invoked", NOT_FOUND: "command not found"}
# Docker classifies by these phrases in the runtime's error, in any case.
_NOT_FOUND_PHRASES: Final = ("executable file not found", "no such file or directory", "not a directory")
_DENIED_PHRASES: Final = ("permission denied", "is a directory")


def signal_of(code: int) -> int | None:
    """Return the signal that a code above 128 stands for; None if it stands for none."""
    number = code - 128
    return number if code > 128 and is_linux_signal(number) else None


def decode_exit_code(code: int | None) -> str:
    """Describe an exit code: `137: killed by SIGKILL`, `2: exited with an error`, `unknown`."""
    if code is None:
        return "unknown"
    if (number := signal_of(code)) is not None:
        return f"{code}: killed by {signal_name(number)}"
    return f"{code}: {_MEANINGS.get(code, 'exited with an error')}"


def classify_start_failure(message: str) -> int:
    """Return the exit code shown for a container whose start failed with this text: 126, 127 or 128."""
    text = message.lower()
    if any(phrase in text for phrase in _NOT_FOUND_PHRASES):
        return NOT_FOUND
    if any(phrase in text for phrase in _DENIED_PHRASES):
        return NOT_EXECUTABLE
    return START_FAILED
