"""What the instructions of a Dockerfile must and must not have, in the words of Docker's classic builder. Pure.

Docker finds some of these only when it comes to the step; here all are told before the first, with their line.
"""

import posixpath
from collections.abc import Callable, Mapping
from typing import Final

from bennu.errors import InvalidParameter
from bennu.images.changes import probe_times
from bennu.images.dockerfile import Instruction, parse_pairs, split_words

ONE_ARGUMENT: Final = ("MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR")
PROTOCOLS: Final = frozenset({"", "tcp", "udp", "sctp"})
MAX_PORT: Final = 65535


def check_arguments(instruction: Instruction) -> None:
    """Check what follows the word and its flags. Raises: InvalidParameter."""
    check = RULES.get(instruction.word)
    if check is not None:
        check(instruction)


def _words(instruction: Instruction) -> list[str]:
    listed = instruction.json_list()
    return listed if listed is not None else split_words(instruction.rest)


def _one(instruction: Instruction) -> None:
    if not instruction.rest:
        raise InvalidParameter(f"{instruction.word} requires exactly one argument")
    _check_quotes(instruction.rest)


def _some(instruction: Instruction) -> list[str]:
    words = _words(instruction)
    if not words:
        raise InvalidParameter(f"{instruction.word} requires at least one argument")
    return words


def _arg(instruction: Instruction) -> None:
    for word in _some(instruction):
        _check_quotes(word)
        if word.startswith("="):
            raise InvalidParameter("ARG names can not be blank")


def _pairs(instruction: Instruction) -> None:
    for word in split_words(instruction.rest):
        _check_quotes(word)
    parse_pairs(instruction, {})


def _check_quotes(text: str) -> None:
    """Refuse a quote that does not end: it would take in all that follows."""
    quote, position = "", 0
    while position < len(text):
        char = text[position]
        position += 2 if char == "\\" and quote != "'" else 1
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
    if quote:
        kind = "double" if quote == '"' else "single"
        raise InvalidParameter(f"unexpected end of statement while looking for matching {kind}-quote")


def _expose(instruction: Instruction) -> None:
    for word in _some(instruction):
        if "$" in word:
            continue  # known when its arguments are
        port, _, protocol = word.strip("\"'").rpartition(":")[2].partition("/")
        if protocol.lower() not in PROTOCOLS:
            raise InvalidParameter(f"Invalid proto: {protocol}")
        first, dash, last = port.partition("-")
        if not all(_is_port(number) for number in (first, last or first)) or (dash and int(first) > int(last or -1)):
            raise InvalidParameter(f"Invalid containerPort: {port}")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6 and int(text) <= MAX_PORT


def _copy(instruction: Instruction) -> None:
    words = _words(instruction)
    if len(words) < 2:
        raise InvalidParameter(
            f"{instruction.word} requires at least two arguments, but only one was provided. Destination could not be "
            "determined"
        )
    target = words[-1].strip("\"'")
    is_folder = target.endswith("/") or posixpath.basename(target) in (".", "..")
    if len(words) > 2 and not is_folder and "$" not in target:
        raise InvalidParameter(
            f"When using {instruction.word} with more than one source file, the destination must be a directory and "
            "end with a /"
        )


def _volume(instruction: Instruction) -> None:
    if not all(word.strip() for word in _some(instruction)):
        raise InvalidParameter("VOLUME specified can not be an empty string")


def _run(instruction: Instruction) -> None:
    if not instruction.rest:
        raise InvalidParameter("RUN requires at least one argument")


def _shell(instruction: Instruction) -> None:
    if not instruction.rest or instruction.json_list() == []:
        raise InvalidParameter("SHELL requires at least one argument")
    if instruction.json_list() is None:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")


def _healthcheck(instruction: Instruction) -> None:
    word, _, rest = instruction.rest.partition(" ")
    if not word:
        raise InvalidParameter("HEALTHCHECK requires at least one argument")
    match word.upper():
        case "NONE":
            if rest.strip():
                raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        case "CMD":
            if not rest.strip():
                raise InvalidParameter("Missing command after HEALTHCHECK CMD")
        case other:
            raise InvalidParameter(f'Unknown type "{other}" in HEALTHCHECK (try CMD)')
    probe_times(instruction.flags)


RULES: Final[Mapping[str, Callable[[Instruction], None]]] = {
    **dict.fromkeys(ONE_ARGUMENT, _one),
    **dict.fromkeys(("ENV", "LABEL"), _pairs),
    **dict.fromkeys(("ADD", "COPY"), _copy),
    "ARG": _arg,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "RUN": _run,
    "SHELL": _shell,
    "VOLUME": _volume,
}
