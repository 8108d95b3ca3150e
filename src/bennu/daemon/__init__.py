"""`bennud`: one host's engine and its API, as a process."""


def main() -> None:
    """Entry point; the heavy imports wait until the arguments are known to be good."""
    from bennu.daemon.run import main as run

    run()
