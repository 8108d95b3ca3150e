"""logs: what a container has written."""

import time

from bennu.cli.client import Client, segment
from bennu.cli.command import command, switch, text
from bennu.cli.session import output_writer
from bennu.cli.values import parse_timestamp


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
        "since": parse_timestamp(since, now_ns) if since else None,
        "tail": tail,
        "timestamps": timestamps,
        "until": parse_timestamp(until, now_ns) if until else None,
    }
    found = client.json("GET", f"/containers/{container}/json")
    write = output_writer(tty=found["Config"]["Tty"])
    for data in client.call("GET", f"/containers/{container}/logs", query=query).chunks():
        write(data)
