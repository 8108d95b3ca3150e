"""The `bennu` command: finds the subcommand, runs it, turns every failure into a message and an exit code.

Nothing but click and the small HTTP client is imported before the subcommand is known.
"""

import os
import sys
from typing import Any, Final

import click

from bennu import __version__
from bennu.cli.client import Client, find_host
from bennu.cli.command import Group
from bennu.cli.failure import Failure

PS: Final = ("commands.list_containers:ps", "List containers")
INSPECT: Final = ("commands.inspect:inspect", "Return low-level information on objects")

CONTAINER: Final[dict[str, tuple[str, str]]] = {
    "attach": ("commands.run:attach", "Attach local standard input, output, and error streams to a running container"),
    "create": ("commands.run:create", "Create a new container"),
    "exec": ("commands.exec:exec_", "Execute a command in a running container"),
    "kill": ("commands.life:kill", "Kill one or more running containers"),
    "logs": ("commands.logs:logs", "Fetch the logs of a container"),
    "pause": ("commands.life:pause", "Pause all processes within one or more containers"),
    "rename": ("commands.life:rename", "Rename a container"),
    "restart": ("commands.life:restart", "Restart one or more containers"),
    "rm": ("commands.life:rm", "Remove one or more containers"),
    "run": ("commands.run:run", "Create and run a new container from an image"),
    "start": ("commands.run:start", "Start one or more stopped containers"),
    "stop": ("commands.life:stop", "Stop one or more running containers"),
    "unpause": ("commands.life:unpause", "Unpause all processes within one or more containers"),
    "wait": ("commands.life:wait", "Block until one or more containers stop, then print their exit codes"),
}

ROOT: Final[dict[str, tuple[str, str]]] = {
    "run": CONTAINER["run"],
    "exec": CONTAINER["exec"],
    "ps": PS,
    "logs": CONTAINER["logs"],
    "inspect": INSPECT,
    "version": ("commands.version:version", "Show the version of the command and of the daemon"),
    **CONTAINER,
}


def build_root() -> Group:
    root = Group(
        "bennu",
        ROOT,
        "A container engine about the death and resurrection of containers. The words are docker's.",
        invoke_without_command=True,
        no_args_is_help=False,
        epilog="Run 'bennu COMMAND --help' for more information on a command.",
        callback=before_command,
    )
    root.params = [
        click.Option(["-H", "--host"], metavar="string", help="Daemon socket to connect to (BENNU_HOST, DOCKER_HOST)"),
        click.Option(["-v", "--version"], is_flag=True, help="Print version information and quit"),
    ]
    return root


@click.pass_context
def before_command(ctx: click.Context, host: str | None, version: bool) -> None:
    if version:
        click.echo(f"Bennu version {__version__}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()
    ctx.obj = Client(find_host(host))


def run_command(args: list[str] | None) -> int:
    """Run one command line; its exit code. Every expected failure is said on stderr here."""
    try:
        result: Any = build_root().main(args, prog_name="bennu", standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        if str(failure):
            print(failure, file=sys.stderr)
        return failure.exit_code
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as error:
        print(error.format_message(), "\nRun 'bennu --help' for more information", file=sys.stderr)
        return 125
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def main(args: list[str] | None = None) -> None:
    code = run_command(args)
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
