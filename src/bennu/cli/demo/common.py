"""Helpers that several scenes share."""

import time
from datetime import datetime

from bennu.cli.client import ApiClient
from bennu.cli.demo.stage import SOURCE, DemoStage, base_image
from bennu.cli.failure import CommandFailure


def have_image(stage: DemoStage, name: str) -> None:
    """Build the image of an example, `NAME:v1`, unless an earlier scene did."""
    client = ApiClient(stage.host)
    have = {tag for image in client.json("GET", "/images/json") for tag in image["RepoTags"] or ()}
    if "python:latest" not in have:
        stage.type("import", "-c", 'CMD ["python3"]', str(base_image("python")), "python:latest", expect="sha256:")
    if f"{name}:v1" not in have:
        stage.type("build", "-q", "-t", f"{name}:v1", str(SOURCE / "examples" / name))


def wait_alive(stage: DemoStage, name: str = "signaltest") -> None:
    """Wait until the program has set its signal handlers: PID 1 does not even notice a signal before that."""
    client = ApiClient(stage.host)
    started = client.json("GET", f"/containers/{name}/json")["State"]["StartedAt"]
    since = datetime.fromisoformat(f"{started[:26].rstrip('Z')}+00:00").timestamp()
    query: dict[str, str | bool] = {"stdout": True, "since": f"{since:.6f}"}
    for _ in range(200):
        if b"alive" in client.call("GET", f"/containers/{name}/logs", query=query):
            return
        time.sleep(0.05)
    raise CommandFailure(f"{name} does not come alive")
