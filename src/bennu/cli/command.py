"""Commands that read their words as docker does, declared as data.

An `Option` says how a flag is written, how its text becomes a value and where the help comes from; a command is a plain
function that gets the client, the positional words and the options by name. click draws the help and finds the command;
the words are read here, because docker's rules (`--rm=false`, `-e=K=V`, everything after the image is the
container's) are those of another parser.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from bennu.cli.client import Client
from bennu.cli.failure import UsageFailure

TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Option:
    """One flag. `kind` is the word that help shows for its value; "" means a switch."""

    names: str  # as help shows it: "-m, --memory"
    help: str
    kind: str = ""
    parse: Callable[[str], Any] = str
    many: bool = False
    default: Any = None
    hidden: bool = False
    body: str = ""  # where the value goes in the body of a create request, when nothing has to be computed

    @property
    def flags(self) -> list[str]:
        return self.names.split(", ")

    @property
    def key(self) -> str:
        return self.flags[-1].removeprefix("--").replace("-", "_")

    def start_value(self) -> Any:
        return [] if self.many else self.default


def switch(names: str, help: str, *, default: bool = False, hidden: bool = False, body: str = "") -> Option:
    return Option(names, help, parse=parse_switch, default=default, hidden=hidden, body=body)


def text(names: str, help: str, *, default: str | None = None, kind: str = "string", body: str = "") -> Option:
    return Option(names, help, kind, default=default, body=body)


def several(
    names: str,
    help: str,
    *,
    kind: str = "list",
    parse: Callable[[str], Any] = str,
    body: str = "",
    hidden: bool = False,
) -> Option:
    return Option(names, help, kind, parse, many=True, body=body, hidden=hidden)


def integer(names: str, help: str, *, default: int | None = None, body: str = "") -> Option:
    return Option(names, help, "int", parse_integer, default=default, body=body)


def parse_switch(text: str) -> bool:
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_integer(text: str) -> int:
    try:
        return int(text, 10)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


@dataclass(frozen=True, slots=True)
class Spec:
    """What a command takes besides its name."""

    function: Callable[..., int | None]
    usage: str  # positional words as help shows them
    options: tuple[Option, ...]
    least: int
    most: int | None
    interspersed: bool  # False: options end at the first positional word
    bad_usage_code: int
    index: dict[str, Option] = field(default_factory=dict)

    @property
    def wants_given(self) -> bool:
        """Whether the function asks which options were typed, defaults aside."""
        code = self.function.__code__
        return "given" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

    def __post_init__(self) -> None:
        self.index.update((flag, option) for option in self.options for flag in option.flags)


def command(
    usage: str = "",
    *options: Option,
    least: int = 0,
    most: int | None = None,
    interspersed: bool = True,
    bad_usage_code: int = 125,
) -> Callable[[Callable[..., int | None]], Spec]:
    """Declare the function below as a command: `function(client, words, **options) -> exit code | None`."""

    def declare(function: Callable[..., int | None]) -> Spec:
        return Spec(function, usage, options, least, most, interspersed, bad_usage_code)

    return declare


class Words:
    """Splits a command line into options and positional words by the rules of docker's flags."""

    def __init__(self, spec: Spec, args: Sequence[str]) -> None:
        self.spec = spec
        self.left = list(args)
        self.values: dict[str, Any] = {option.key: option.start_value() for option in spec.options}
        self.given: set[str] = set()
        self.positional: list[str] = []
        self.wants_help = False

    def read(self) -> None:
        while self.left:
            word = self.left.pop(0)
            if word == "--":
                self.positional += self.left
                return
            if word.startswith("--"):
                self._long(word)
            elif word.startswith("-") and word != "-":
                self._short(word)
            else:
                self.positional.append(word)
                if not self.spec.interspersed:
                    self.positional += self.left
                    return

    def _long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        option = self.spec.index.get(name)
        if option is None:
            if name == "--help":
                self.wants_help = True
                return
            raise UsageFailure(f"unknown flag: {name}")
        if equals:
            self._set(option, value)
        elif not option.kind:
            self._set(option, "true")
        else:
            self._set(option, self._next(f"flag needs an argument: {name}"))

    def _short(self, word: str) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            option = self.spec.index.get("-" + letter)
            if option is None:
                raise UsageFailure(f"unknown shorthand flag: '{letter}' in {word}")
            if letters.startswith("="):
                self._set(option, letters[1:])
                return
            if not option.kind:
                self._set(option, "true")
                continue
            self._set(option, letters or self._next(f"flag needs an argument: '{letter}' in {word}"))
            return

    def _next(self, complaint: str) -> str:
        if not self.left:
            raise UsageFailure(complaint)
        return self.left.pop(0)

    def _set(self, option: Option, text: str) -> None:
        try:
            value = option.parse(text)
        except ValueError as error:
            raise UsageFailure(f'invalid argument "{text}" for "{option.names}" flag: {error}') from None
        self.given.add(option.key)
        if option.many:
            self.values[option.key].append(value)
        else:
            self.values[option.key] = value


class Command(click.Command):
    """A `Spec` under a name, drawn by click."""

    def __init__(self, name: str, short: str, spec: Spec) -> None:
        params: list[click.Parameter] = [as_click_option(option) for option in spec.options]
        super().__init__(name, params=params, help=short, callback=self._run, add_help_option=False)
        self.spec = spec

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = Words(self.spec, args)
        try:
            words.read()
            if words.wants_help:
                click.echo(self.get_help(ctx))
                ctx.exit()
            self._count(ctx, words.positional)
        except UsageFailure as failure:
            if failure.exit_code == 125:
                failure.exit_code = self.spec.bad_usage_code
            fail_usage(ctx, self, failure)
        ctx.params = words.values
        ctx.meta["bennu.words"] = words
        return []

    def _count(self, ctx: click.Context, positional: list[str]) -> None:
        least, most = self.spec.least, self.spec.most
        if len(positional) >= least and (most is None or len(positional) <= most):
            return
        if most == 0:
            wanted = "accepts no arguments"
        elif least == most:
            wanted = f"requires {least} argument{'s' * (least != 1)}"
        elif len(positional) < least:
            wanted = f"requires at least {least} argument{'s' * (least != 1)}"
        else:
            wanted = f"requires at most {most} argument{'s' * (most != 1)}"
        raise UsageFailure(f"bennu: '{ctx.command_path}' {wanted}", exit_code=1)

    def _run(self, **_: Any) -> int:
        ctx = click.get_current_context()
        words: Words = ctx.meta["bennu.words"]
        client: Client = ctx.find_root().obj
        options = dict(words.values)
        if self.spec.wants_given:
            options["given"] = words.given
        return self.spec.function(client, words.positional, **options) or 0

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return (["[OPTIONS]"] if self.spec.options else []) + ([self.spec.usage] if self.spec.usage else [])


def as_click_option(option: Option) -> click.Option:
    metavar = option.kind or None
    return click.Option(
        option.flags, help=option.help, metavar=metavar, is_flag=not option.kind, hidden=option.hidden, default=None
    )


def fail_usage(ctx: click.Context, command: click.Command, failure: UsageFailure) -> NoReturn:
    usage = " ".join(["Usage: ", ctx.command_path, *command.collect_usage_pieces(ctx)])
    message = f"{failure}\n\n{usage}\n\nRun '{ctx.command_path} --help' for more information"
    raise UsageFailure(message, failure.exit_code)


Table = dict[str, tuple[str, str]]


@click.pass_context
def help_when_alone(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()


class Group(click.Group):
    """Commands by name, each loaded from its module when it is asked for.

    `table` maps a name to (where, short help); `where` is "module:attribute" below `bennu.cli`. `groups` are tables
    under a name of their own; `aliases` are second names that help does not list; `common` ones come first.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        *,
        help: str,
        groups: Mapping[str, tuple[str, Table]] | None = None,
        aliases: Mapping[str, str] | None = None,
        common: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        super().__init__(name, help=help, invoke_without_command=True, no_args_is_help=False, **settings)
        self.table = table
        self.below = groups or {}
        self.aliases = aliases or {}
        self.common = common

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*sorted(self.table), *self.below]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.below:
            short, table = self.below[cmd_name]
            return Group(cmd_name, table, help=short, aliases=self.aliases, callback=help_when_alone)
        if cmd_name not in self.table:
            if self.aliases.get(cmd_name) not in self.table:
                return None
            cmd_name = self.aliases[cmd_name]
        where, short = self.table[cmd_name]
        module, _, attribute = where.partition(":")
        found = getattr(import_module(f"bennu.cli.{module}"), attribute)
        return Command(cmd_name, short, found) if isinstance(found, Spec) else found

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["COMMAND"] if ctx.parent else ["[OPTIONS] COMMAND"]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.common:
            with formatter.section("Common Commands"):
                formatter.write_dl([(name, self.table[name][1]) for name in self.common])
        if self.below:
            with formatter.section("Management Commands"):
                formatter.write_dl([(name, short) for name, (short, _) in self.below.items()])
        with formatter.section("Commands"):
            others = sorted(set(self.table) - set(self.common))
            formatter.write_dl([(name, self.table[name][1]) for name in others])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = self.get_command(ctx, args[0])
        if found is None:
            raise UsageFailure(self._unknown(ctx, args[0]), 1)
        return args[0], found, args[1:]

    def _unknown(self, ctx: click.Context, name: str) -> str:
        from difflib import get_close_matches

        message = f"bennu: unknown command: {ctx.command_path} {name}"
        known = self.list_commands(ctx)
        close = [one for one in known if one.startswith(name)] or get_close_matches(name, known, n=3, cutoff=0.7)
        if close:
            message += "\n\nDid you mean " + " or ".join(f"'{ctx.command_path} {one}'" for one in close) + "?"
        return f"{message}\n\nRun '{ctx.command_path} --help' for more information"
