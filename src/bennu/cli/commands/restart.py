"""restart --now: skips the delay of a pending restart."""

import click

from bennu.cli.client import ApiClient, segment
from bennu.cli.failure import ApiFailure, CommandFailure
from bennu.cli.output import say


@click.command()
@click.option("--now", is_flag=True, required=True, help="Skip the delay of a restart that is pending")
@click.argument("containers", metavar="CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def restart(client: ApiClient, now: bool, containers: tuple[str, ...]) -> None:
    """Start containers at once that wait for their restart policy's delay."""
    problems = []
    for name in containers:
        try:
            client.call("POST", f"/bennu/v1/containers/{segment(name)}/restart-now")
            say(name)
        except ApiFailure as failure:
            problems.append(str(failure))
    if problems:
        raise CommandFailure("\n".join(problems))
