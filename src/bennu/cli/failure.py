"""Failures that end a command: a message for stderr and an exit code."""


class CommandFailure(Exception):
    """Ends the command with a message and an exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CannotConnect(CommandFailure):
    """No daemon answers at the address; the message says what to do."""


class ApiFailure(CommandFailure):
    """The daemon refused. `status` is the HTTP status, `message` the daemon's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message
