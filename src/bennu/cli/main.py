"""The `bennu` command: finds the subcommand, runs it, turns every failure into a message and an exit code.

Nothing but click and the small HTTP client is imported before the subcommand is known.
"""

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from bennu import __version__
from bennu.cli.client import Client, find_host
from bennu.cli.command import Group, Table
from bennu.cli.failure import Failure

if TYPE_CHECKING:
    from bennu.cli.tls import TlsFiles

CONTAINER: Final[Table] = {
    "attach": ("commands.run:attach", "Attach local standard input, output, and error streams to a running container"),
    "commit": ("commands.transfer:commit", "Create a new image from a container's changes"),
    "cp": ("commands.copy:cp", "Copy files/folders between a container and the local filesystem"),
    "create": ("commands.run:create", "Create a new container"),
    "diff": ("commands.look:diff", "Inspect changes to files or directories on a container's filesystem"),
    "exec": ("commands.exec:exec_", "Execute a command in a running container"),
    "export": ("commands.transfer:export", "Export a container's filesystem as a tar archive"),
    "kill": ("commands.life:kill", "Kill one or more running containers"),
    "logs": ("commands.logs:logs", "Fetch the logs of a container"),
    "pause": ("commands.life:pause", "Pause all processes within one or more containers"),
    "port": ("commands.look:port", "List port mappings or a specific mapping for the container"),
    "rename": ("commands.life:rename", "Rename a container"),
    "restart": ("commands.life:restart", "Restart one or more containers"),
    "rm": ("commands.life:rm", "Remove one or more containers"),
    "run": ("commands.run:run", "Create and run a new container from an image"),
    "start": ("commands.run:start", "Start one or more stopped containers"),
    "stats": ("commands.stats:stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("commands.life:stop", "Stop one or more running containers"),
    "top": ("commands.look:top", "Display the running processes of a container"),
    "unpause": ("commands.life:unpause", "Unpause all processes within one or more containers"),
    "update": ("commands.look:update", "Update configuration of one or more containers"),
    "wait": ("commands.life:wait", "Block until one or more containers stop, then print their exit codes"),
    "why": ("commands.why:why", "Tell why a container died, who asked for it, and what was decided then"),
}
PS: Final = ("commands.list_containers:ps", "List containers")
IMAGES: Final = ("commands.images:images", "List images")
RMI: Final = ("commands.images:rmi", "Remove one or more images")
IMAGE: Final[Table] = {
    "build": ("commands.build:build", "Build an image from a Dockerfile"),
    "history": ("commands.images:history", "Show the history of an image"),
    "import": ("commands.transfer:import_", "Import the contents from a tarball to create a filesystem image"),
    "load": ("commands.transfer:load", "Load an image from a tar archive or STDIN"),
    "pull": ("commands.images:pull", "Download an image from a registry"),
    "save": ("commands.transfer:save", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    "tag": ("commands.images:tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
}
SYSTEM: Final[Table] = {
    "events": ("commands.events:events", "Get real time events from the server"),
    "info": ("commands.system:info", "Display system-wide information"),
}

GROUPS: Final[dict[str, tuple[str, Table]]] = {
    "container": (
        "Manage containers",
        {
            **CONTAINER,
            "inspect": ("commands.inspect:container_inspect", "Display detailed information on one or more containers"),
            "ls": PS,
            "prune": ("commands.system:container_prune", "Remove all stopped containers"),
        },
    ),
    "image": (
        "Manage images",
        {
            **IMAGE,
            "inspect": ("commands.inspect:image_inspect", "Display detailed information on one or more images"),
            "ls": IMAGES,
            "prune": ("commands.images:prune", "Remove unused images"),
            "rm": RMI,
        },
    ),
    "network": (
        "Manage networks",
        {
            "connect": ("commands.networks:connect", "Connect a container to a network"),
            "create": ("commands.networks:create", "Create a network"),
            "disconnect": ("commands.networks:disconnect", "Disconnect a container from a network"),
            "inspect": ("commands.inspect:network_inspect", "Display detailed information on one or more networks"),
            "ls": ("commands.networks:ls", "List networks"),
            "prune": ("commands.networks:prune", "Remove all unused networks"),
            "rm": ("commands.networks:rm", "Remove one or more networks"),
        },
    ),
    "service": (
        "Manage services",
        {
            "create": ("commands.service:create", "Create a new service"),
            "history": ("commands.rollout:history", "List the revisions of a service"),
            "inspect": ("commands.inspect:service_inspect", "Display detailed information on one or more services"),
            "logs": ("commands.service_logs:logs", "Fetch the logs of a service or task"),
            "ls": ("commands.service:ls", "List services"),
            "ps": ("commands.service:ps", "List the tasks of one or more services"),
            "rm": ("commands.service:rm", "Remove one or more services"),
            "rollback": ("commands.service:rollback", "Revert changes to a service's configuration"),
            "scale": ("commands.service:scale", "Scale one or multiple replicated services"),
            "update": ("commands.service:update", "Update a service"),
        },
    ),
    "node": (
        "Manage Swarm nodes",
        {
            "demote": ("commands.node:demote", "Demote one or more nodes from manager in the swarm"),
            "inspect": ("commands.inspect:node_inspect", "Display detailed information on one or more nodes"),
            "ls": ("commands.node:ls", "List nodes in the swarm"),
            "promote": ("commands.node:promote", "Promote one or more nodes to manager in the swarm"),
            "ps": ("commands.node:ps", "List tasks running on one or more nodes, defaults to current node"),
            "rm": ("commands.node:rm", "Remove one or more nodes from the swarm"),
            "update": ("commands.node:update", "Update a node"),
        },
    ),
    "swarm": (
        "Manage Swarm",
        {
            "ca": ("commands.swarm:ca", "Display and rotate the root CA"),
            "init": ("commands.swarm:init", "Initialize a swarm"),
            "join": ("commands.swarm:join", "Join a swarm as a node and/or manager"),
            "join-token": ("commands.swarm:join_token", "Manage join tokens"),
            "leave": ("commands.swarm:leave", "Leave the swarm"),
            "unlock": ("commands.swarm:unlock", "Unlock swarm"),
            "unlock-key": ("commands.swarm:unlock_key", "Manage the unlock key"),
            "update": ("commands.swarm:update", "Update the swarm"),
        },
    ),
    "secret": (
        "Manage Swarm secrets",
        {
            "create": ("commands.secret:secret_create", "Create a secret from a file or STDIN as content"),
            "inspect": ("commands.inspect:secret_inspect", "Display detailed information on one or more secrets"),
            "ls": ("commands.secret:secret_ls", "List secrets"),
            "rm": ("commands.secret:secret_rm", "Remove one or more secrets"),
        },
    ),
    "config": (
        "Manage Swarm configs",
        {
            "create": ("commands.secret:config_create", "Create a config from a file or STDIN"),
            "inspect": ("commands.inspect:config_inspect", "Display detailed information on one or more configs"),
            "ls": ("commands.secret:config_ls", "List configs"),
            "rm": ("commands.secret:config_rm", "Remove one or more configs"),
        },
    ),
    "stack": (
        "Manage Swarm stacks",
        {
            "deploy": ("commands.stack:deploy", "Deploy a new stack or update an existing stack"),
            "ls": ("commands.stack:ls", "List stacks"),
            "ps": ("commands.stack:ps", "List the tasks in the stack"),
            "rm": ("commands.stack:rm", "Remove one or more stacks"),
            "services": ("commands.stack:services", "List the services in the stack"),
        },
    ),
    "rollout": (
        "Watch and steer the rollout of a service",
        {
            "abort": ("commands.rollout:abort", "Go back to the previous version"),
            "pause": ("commands.rollout:pause", "Hold a rollout where it is"),
            "promote": ("commands.rollout:promote", "End the watching of a canary or blue/green rollout in its favour"),
            "resume": ("commands.rollout:resume", "Go on with a paused rollout"),
            "status": ("commands.rollout:status", "Tell how a rollout stands, and what it waits for"),
            "watch": ("commands.rollout:watch", "Show a rollout live, until it has ended"),
        },
    ),
    "system": (
        "Manage the daemon",
        {
            **SYSTEM,
            "df": ("commands.system:df", "Show disk usage"),
            "prune": ("commands.system:prune", "Remove unused data"),
        },
    ),
    "volume": (
        "Manage volumes",
        {
            "create": ("commands.volumes:create", "Create a volume"),
            "inspect": ("commands.inspect:volume_inspect", "Display detailed information on one or more volumes"),
            "ls": ("commands.volumes:ls", "List volumes"),
            "prune": ("commands.volumes:prune", "Remove unused local volumes"),
            "rm": ("commands.volumes:rm", "Remove one or more volumes"),
        },
    ),
}
# Second names, found but not listed.
HIDDEN: Final = {"list": "ls", "remove": "rm", "ps": "ls"}

ROOT: Final[Table] = {
    **CONTAINER,
    **IMAGE,
    **SYSTEM,
    "images": IMAGES,
    "inspect": ("commands.inspect:inspect", "Return low-level information on objects"),
    "ps": PS,
    "rmi": RMI,
    "version": ("commands.version:version", "Show the version of the command and of the daemon"),
    "demo": ("demo:demo", "Play a scene on real containers, in private roots"),
    "doctor": ("doctor:doctor", "Check what this machine offers, and say the cure for what is missing"),
}

COMMON: Final = ("run", "exec", "ps", "logs", "stop", "kill", "rm", "build", "pull", "images", "version", "info")


def build_root() -> Group:
    root = Group(
        "bennu",
        ROOT,
        groups=GROUPS,
        aliases=HIDDEN,
        common=COMMON,
        help="A container engine about the death and resurrection of containers. The words are docker's.",
        epilog="Run 'bennu COMMAND --help' for more information on a command.",
        callback=before_command,
    )
    root.params = [
        click.Option(["-H", "--host"], metavar="string", help="Daemon socket to connect to (BENNU_HOST, DOCKER_HOST)"),
        click.Option(["--tls"], is_flag=True, help="Use TLS; implied by --tlsverify"),
        click.Option(["--tlscacert"], metavar="string", help="Trust certs signed only by this CA (~/.docker/ca.pem)"),
        click.Option(["--tlscert"], metavar="string", help="Path to TLS certificate file (~/.docker/cert.pem)"),
        click.Option(["--tlskey"], metavar="string", help="Path to TLS key file (~/.docker/key.pem)"),
        click.Option(["--tlsverify"], is_flag=True, help="Use TLS and verify the remote (DOCKER_TLS_VERIFY)"),
        click.Option(["-v", "--version"], is_flag=True, help="Print version information and quit"),
    ]
    return root


@click.pass_context
def before_command(ctx: click.Context, /, host: str | None, version: bool, **tls: Any) -> None:
    if version:
        click.echo(f"Bennu version {__version__}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()
    address = find_host(host)
    ctx.obj = Client(address, _find_tls(tls) if address.startswith("tcp://") else None)


def _find_tls(options: dict[str, Any]) -> "TlsFiles | None":
    from bennu.cli.tls import find_tls  # costs what only those pay who use it

    return find_tls(**options)


def run_command(args: list[str] | None) -> int:
    """Run one command line; its exit code. Every expected failure is said on stderr here."""
    try:
        result: Any = build_root().main(args, prog_name="bennu", standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        if str(failure):
            from bennu.cli.output import complain

            complain(str(failure))
        return failure.exit_code
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as error:
        flag = getattr(error, "option_name", None)
        problem = f"unknown flag: {flag}" if flag else error.format_message()
        usage = "Usage:  bennu [OPTIONS] COMMAND [ARG...]"
        print(f"{problem}\n\n{usage}\n\nRun 'bennu --help' for more information", file=sys.stderr)
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
