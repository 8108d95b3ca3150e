"""The `bennu` command: runs a word of its own, and hands every other one to the docker command.

Nothing is loaded before it is known whose the word is: `bennu run` costs little more than `docker run`.
"""

import sys
from typing import Final

OWN: Final = frozenset({"demo", "doctor", "rollout", "why"})
# Global options of docker's whose value is the word after them.
WITH_VALUE: Final = frozenset(
    {"-H", "--host", "-c", "--context", "--config", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey"}
)


def main() -> None:
    args = sys.argv[1:]
    if not is_own(args):
        from bennu.cli.docker import become_docker

        become_docker(args)
    from bennu.cli.words import run_words

    sys.exit(run_words(args, "bennu"))


def is_own(args: list[str]) -> bool:
    """Tell whether a line is ours: also one without a word (`bennu --version`), and `restart --now`. Pure."""
    at = find_word(args)
    word, more = (args[at], args[at + 1 :]) if at < len(args) else ("help", [])
    if word == "help":
        return not more or more[0] in OWN
    return word in OWN or (word == "restart" and "--now" in more)


def find_word(args: list[str]) -> int:
    """Answer where the global options end. Pure."""
    at = 0
    while at < len(args) and args[at].startswith("-"):
        at += 2 if args[at] in WITH_VALUE else 1
    return at


if __name__ == "__main__":
    main()
