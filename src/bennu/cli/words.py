"""Bennu's own words, under both of their names: `bennu WORD` and `docker bennu WORD`.

Every failure becomes a message and an exit code here; a word is loaded from its module when it is typed.
"""

import os
import sys
from importlib import import_module
from typing import Any, Final

import click

from bennu import __version__
from bennu.cli.client import ApiClient
from bennu.cli.endpoint import find_host
from bennu.cli.failure import CommandFailure

WORDS: Final = {
    "why": ("commands.why:why", "Tell why a container died, who asked for it, and what was decided then"),
    "rollout": ("commands.rollout:rollout", "Watch and steer the rollout of a service"),
    "restart": ("commands.restart:restart", "With --now: skip the delay of a restart that is pending"),
    "doctor": ("commands.doctor:doctor", "Check what this machine offers, and say the cure for what is missing"),
    "demo": ("commands.demo:demo", "Play scenes on real containers, in private roots"),
}
HELP: Final = "What only Bennu can say of containers and services."
REST: Final = "Every other word is handed to the docker command, with Bennu's daemon for its host."


class Words(click.Group):
    """The commands of the table above, in its order."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(WORDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in WORDS:
            return None
        module, _, attribute = WORDS[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(f"bennu.cli.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in WORDS.items()])


@click.command(cls=Words, help=HELP, invoke_without_command=True)
@click.option("-H", "--host", metavar="string", help="Daemon socket to connect to (BENNU_HOST, DOCKER_HOST)")
@click.option("-c", "--context", metavar="string", help="Context of the docker command to connect to")
@click.option("--config", metavar="string", help="Where the docker command keeps its contexts (~/.docker)")
@click.option("-D", "--debug", is_flag=True, hidden=True, expose_value=False)  # docker's, which it leaves in the line
@click.option("-l", "--log-level", hidden=True, expose_value=False)
@click.option("--tls", is_flag=True, help="Use TLS; implied by --tlsverify")
@click.option("--tlscacert", metavar="string", help="Trust certs signed only by this CA (~/.docker/ca.pem)")
@click.option("--tlscert", metavar="string", help="Path to TLS certificate file (~/.docker/cert.pem)")
@click.option("--tlskey", metavar="string", help="Path to TLS key file (~/.docker/key.pem)")
@click.option("--tlsverify", is_flag=True, help="Use TLS and verify the remote (DOCKER_TLS_VERIFY)")
@click.version_option(__version__, "-v", "--version", message="Bennu version %(version)s")
@click.pass_context
def words(ctx: click.Context, /, host: str | None, context: str | None, config: str | None, **tls: Any) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return
    is_plugin = ctx.info_name != "bennu"
    if not host and (context or (is_plugin and not os.environ.get("DOCKER_HOST"))):
        from bennu.cli.contexts import ask_docker

        ctx.obj = ask_docker(context, config)
        return
    address = find_host(host or (os.environ["DOCKER_HOST"] if is_plugin else None))
    ctx.obj = ApiClient(address, _find_tls(tls) if address.startswith("tcp://") else None)


def _find_tls(options: dict[str, Any]) -> Any:
    from bennu.cli.tls import find_tls  # costs what only those pay who use it

    return find_tls(**options)


def run_words(args: list[str], program: str) -> int:
    """Run one command line and answer its exit code; every expected failure is told on stderr here."""
    if args[:1] == ["help"]:
        args = [*(word for word in args[1:] if word in WORDS), "--help"]
    words.epilog = REST if program == "bennu" else None
    try:
        result: Any = words.main(args, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except CommandFailure as failure:
        from bennu.cli.output import complain

        complain(str(failure))
        return failure.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0
