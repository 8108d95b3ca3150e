"""inspect: everything the daemon knows about an object."""

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from bennu.cli.client import Client, segment
from bennu.cli.command import Spec, command, switch, text
from bennu.cli.failure import ApiFailure, Failure
from bennu.cli.output import say

# In the order in which a bare name is looked up.
PLACES: Final = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}
# Never looked up by a bare name.
SWARM_PLACES: Final = {
    "service": "/services/{}",
    "node": "/nodes/{}",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}
FORMAT: Final = text("-f, --format", "Format output using a Go template, or 'json'")


def find_object(client: Client, name: str, kinds: Iterable[str], *, size: bool) -> Any:
    """The first object of one of the kinds that answers to `name`. Raises: ApiFailure of the last kind tried."""
    last: ApiFailure | None = None
    for kind in kinds:
        query = {"size": True} if size and kind == "container" else None
        if kind == "service":
            query = {"insertDefaults": True}
        path = (PLACES | SWARM_PLACES)[kind].format(segment(name) if kind != "image" else image_path(name))
        try:
            return client.json("GET", path, query=query)
        except ApiFailure as failure:
            if failure.status != 404 and not (failure.status in (400, 501) and last is not None):
                raise
            last = failure
    assert last is not None
    raise last


def image_path(name: str) -> str:
    return "/".join(segment(part) for part in name.split("/"))


def show_objects(names: Iterable[str], find: Callable[[str], Any], form: str | None) -> int:
    """Print what is found, complain about the rest; the exit code."""
    render = None if form is None else renderer(form)
    found, failures = [], []
    for name in names:
        try:
            found.append(find(name))
        except ApiFailure as failure:
            failures.append(str(failure))
    if form == "json":
        say(json.dumps(found, separators=(",", ":"), ensure_ascii=False))
    elif render is None:
        say(json.dumps(found, indent=4, ensure_ascii=False))
    else:
        for item in found:
            say(render(item))
    if failures:
        raise Failure("\n".join(failures))
    return 0


def renderer(form: str) -> Callable[[Any], str]:
    """What turns an object into text; a template that makes no sense is refused before anything is asked."""
    from bennu.cli.formatting import make_renderer

    try:
        return make_renderer(form)
    except Failure as failure:
        raise Failure(str(failure), 64) from None


@command(
    "NAME|ID [NAME|ID...]",
    FORMAT,
    switch("-s, --size", "Display total file sizes if the type is container"),
    text("--type", "Only inspect objects of the given type"),
    least=1,
)
def inspect(client: Client, words: list[str], *, format: str | None, size: bool, type: str | None) -> int:
    if type is not None and type not in PLACES:
        raise Failure(f'unknown type: "{type}": must be one of ' + ", ".join(f'"{kind}"' for kind in PLACES))

    def find(name: str) -> Any:
        try:
            return find_object(client, name, [type] if type else PLACES, size=size)
        except ApiFailure as failure:
            if failure.status == 404 and type is None:
                raise NoSuchObject(name) from None
            raise

    return show_objects(words, find, format)


class NoSuchObject(ApiFailure):
    """No kind of object answers to the name."""

    def __init__(self, name: str, kind: str = "") -> None:
        super().__init__(404, f"no such {kind}: {name}" if kind else f"No such object: {name}")

    def __str__(self) -> str:
        return f"Error: {self.message}"


def inspect_of(kind: str, usage: str) -> Spec:
    """The `inspect` of one kind's group."""
    more = [SIZE] if kind == "container" else [PRETTY] if kind in SWARM_PLACES else []

    @command(usage, FORMAT, *more, least=1)
    def inspect_one(
        client: Client, words: list[str], *, format: str | None, size: bool = False, pretty: bool = False
    ) -> int:
        if pretty and format is not None:
            raise Failure("--format is incompatible with human friendly format")

        def find(name: str) -> Any:
            try:
                return find_object(client, name, [kind], size=size)
            except ApiFailure as failure:
                if failure.status == 404 and kind in SWARM_PLACES:
                    raise NoSuchObject(name, kind) from None
                raise

        return show_pretty(client, kind, words, find) if pretty else show_objects(words, find, format)

    return inspect_one


def show_pretty(client: Client, kind: str, names: Iterable[str], find: Callable[[str], Any]) -> int:
    from bennu.cli.pretty import PRETTY as WORDS

    failures = []
    for name in names:
        try:
            found = find(name)
            for attachment in found["Spec"].get("TaskTemplate", {}).get("Networks") or ():
                attachment["Target"] = client.json("GET", f"/networks/{attachment['Target']}")["Name"]
            say(WORDS[kind](found))
        except ApiFailure as failure:
            failures.append(str(failure))
    if failures:
        raise Failure("\n".join(failures))
    return 0


SIZE: Final = switch("-s, --size", "Display total file sizes")
PRETTY: Final = switch("--pretty", "Print the information in a human friendly format")
container_inspect = inspect_of("container", "CONTAINER [CONTAINER...]")
image_inspect = inspect_of("image", "IMAGE [IMAGE...]")
network_inspect = inspect_of("network", "NETWORK [NETWORK...]")
volume_inspect = inspect_of("volume", "VOLUME [VOLUME...]")
service_inspect = inspect_of("service", "SERVICE [SERVICE...]")
node_inspect = inspect_of("node", "self|NODE [NODE...]")
secret_inspect = inspect_of("secret", "SECRET [SECRET...]")
config_inspect = inspect_of("config", "CONFIG [CONFIG...]")
