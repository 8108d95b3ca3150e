"""logs: what a container has written."""

import time

from bennu.cli.client import Client, segment
from bennu.cli.command import command, switch, text
from bennu.cli.failure import Failure
from bennu.cli.session import output_writer
from bennu.cli.values import parse_timestamp


def read_moment(option: str, text: str | None, now_ns: int) -> str | None:
    try:
        return parse_timestamp(text, now_ns) if text else None
    except Failure as failure:
        raise Failure(f'invalid value for "{option}": {failure}') from None


@command(
    "CONTAINER",
    switch("--details", "Show extra details provided to logs"),
    switch("-f, --follow", "Follow log output"),
    text("--since", 'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")'),
    text("-n, --tail", "Number of lines to show from the end of the logs", default="all"),
    switch("-t, --timestamps", "Show timestamps"),
    text("--until", 'Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")'),
    least=1,
    most=1,
)
def logs(
    client: Client,
    words: list[str],
    *,
    details: bool,
    follow: bool,
    since: str | None,
    tail: str,
    timestamps: bool,
    until: str | None,
) -> None:
    now_ns = time.time_ns()
    container = segment(words[0])
    query = {
        "stdout": True,
        "stderr": True,
        "details": details,
        "follow": follow,
        "since": read_moment("since", since, now_ns),
        "tail": tail,
        "timestamps": timestamps,
        "until": read_moment("until", until, now_ns),
    }
    found = client.json("GET", f"/containers/{container}/json")
    write = output_writer(tty=found["Config"]["Tty"])
    for data in client.call("GET", f"/containers/{container}/logs", query=query).chunks():
        write(data)
