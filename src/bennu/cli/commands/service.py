"""service: tasks that keep their number."""

import shlex
from typing import Any, Final

from bennu.cli.client import Client, segment
from bennu.cli.command import command, integer, several, switch, text
from bennu.cli.commands.life import for_each
from bennu.cli.commands.service_progress import follow_progress
from bennu.cli.commands.tasks import natural, print_tasks
from bennu.cli.failure import Failure
from bennu.cli.formatting import Listing, print_list
from bennu.cli.output import complain, say, shorten_id
from bennu.cli.service_options import BLOBS, CONTAINER, CREATE, UPDATE
from bennu.cli.service_spec import apply_lists, apply_single, look, place
from bennu.cli.values import collect_env, encode_filters, parse_filter

FILTER: Final = several("-f, --filter", "Filter output based on conditions provided", kind="filter", parse=parse_filter)
MODES: Final = {
    "replicated": ("Replicated", {"Replicas": 1}),
    "global": ("Global", {}),
    "replicated-job": ("ReplicatedJob", {}),
    "global-job": ("GlobalJob", {}),
}
DETACH: Final = switch("-d, --detach", "Exit immediately instead of waiting for the service to converge")
QUIET: Final = switch("-q, --quiet", "Suppress progress output")
LISTING: Final = Listing(headers={}, columns="ID Name Mode Replicas Image Ports", quiet="ID")


@command("IMAGE [COMMAND] [ARG...]", *CREATE, least=1, interspersed=False)
def create(client: Client, words: list[str], *, given: set[str], **values: Any) -> None:
    if values["mode"] not in MODES:
        raise Failure(f"unknown mode: {values['mode']}")
    word, mode = MODES[values["mode"]]
    spec: dict[str, Any] = {"Name": values["name"] or "", "Labels": {}, "Mode": {word: dict(mode)}}
    place(spec, f"{CONTAINER}.Image", with_tag(words[0]))
    if words[1:]:
        place(spec, f"{CONTAINER}.Args", words[1:])
    apply_single(spec, values, given)
    apply_lists(spec, values | {"env": collect_env(values["env_file"], values["env"])})
    refer(client, spec, values, "")
    made = client.json("POST", "/services/create", json_body=spec)
    for warning in made.get("Warnings") or ([made["Warning"]] if made.get("Warning") else []):
        complain(warning)
    say(made["ID"])
    if not values["detach"]:
        follow_progress(client, made["ID"], quiet=values["quiet"])


def with_tag(image: str) -> str:
    """An image without tag or digest means its `latest`."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def refer(client: Client, spec: dict[str, Any], values: dict[str, Any], suffix: str) -> None:
    """Secrets and configs are named by people and known by their ids."""
    for kind, field in BLOBS:
        added = values.get(f"{kind}{suffix}") or []
        removed = values.get(f"{kind}_rm") or []
        if not added and not removed:
            continue
        name_key, id_key = f"{kind.title()}Name", f"{kind.title()}ID"
        gone = {*removed, *(entry["Name"] for entry in added)}
        entries = [entry for entry in look(spec, f"{CONTAINER}.{field}") or [] if entry[name_key] not in gone]
        for entry in added:
            found = client.json("GET", f"/{kind}s/{segment(entry['Name'])}")
            entries.append({name_key: entry["Name"], id_key: found["ID"], "File": entry["File"]})
        place(spec, f"{CONTAINER}.{field}", entries)


@command("SERVICE", *UPDATE, text("--strategy", "rolling, canary or blue-green"), least=1, most=1)
def update(client: Client, words: list[str], *, given: set[str], **values: Any) -> None:
    found = client.json("GET", f"/services/{segment(words[0])}")
    spec = found["Spec"]
    query: dict[str, Any] = {"version": found["Version"]["Index"]}
    if values["rollback"]:
        if given - {"rollback", "detach", "quiet"}:
            raise Failure("other flags may not be combined with --rollback")
        query["rollback"] = "previous"
    if values["image"]:
        place(spec, f"{CONTAINER}.Image", with_tag(values["image"]))
    if values["args"] is not None:
        place(spec, f"{CONTAINER}.Args", shlex.split(values["args"]))
    if values["force"]:
        place(spec, "TaskTemplate.ForceUpdate", (look(spec, "TaskTemplate.ForceUpdate") or 0) + 1)
    if values["strategy"]:
        spec["Labels"] = {**(spec.get("Labels") or {}), "bennu.rollout.strategy": values["strategy"]}
    apply_single(spec, values, given)
    apply_lists(spec, values)
    refer(client, spec, values, "_add")
    answer = client.json("POST", f"/services/{found['ID']}/update", query=query, json_body=spec)
    for warning in (answer or {}).get("Warnings") or []:
        complain(warning)
    say(words[0])
    if not values["detach"]:
        follow_progress(client, found["ID"], quiet=values["quiet"])


@command(
    "SERVICE",
    DETACH,
    QUIET,
    integer("--to", "Revision to go back to (see 'bennu service history'; default the previous one)"),
    least=1,
    most=1,
)
def rollback(client: Client, words: list[str], *, detach: bool, quiet: bool, to: int | None) -> None:
    found = client.json("GET", f"/services/{segment(words[0])}")
    if to is not None:
        client.call("POST", f"/bennu/v1/services/{found['ID']}/rollback", query={"to": to}).read()
    else:
        query = {"version": found["Version"]["Index"], "rollback": "previous"}
        client.json("POST", f"/services/{found['ID']}/update", query=query, json_body=found["Spec"])
    say(words[0])
    if not detach:
        follow_progress(client, found["ID"], quiet=quiet)


@command("SERVICE=REPLICAS [SERVICE=REPLICAS...]", switch("-d, --detach", "Exit immediately"), least=1)
def scale(client: Client, words: list[str], *, detach: bool) -> None:
    def one(word: str) -> str:
        name, _, number = word.partition("=")
        if not number:
            raise Failure(f"invalid scale specifier '{word}'. Must use the format <service>=<replicas>")
        if not number.isdecimal():
            raise Failure(
                f'{name}: invalid replicas value {number}: strconv.ParseUint: parsing "{number}": invalid syntax'
            )
        found = client.json("GET", f"/services/{segment(name)}")
        mode = found["Spec"]["Mode"]
        if "Replicated" in mode:
            mode["Replicated"]["Replicas"] = int(number)
        elif "ReplicatedJob" in mode:
            mode["ReplicatedJob"]["TotalCompletions"] = int(number)
        else:
            raise Failure(f"{name}: scale can only be used with replicated or replicated-job mode")
        query = {"version": found["Version"]["Index"]}
        client.json("POST", f"/services/{found['ID']}/update", query=query, json_body=found["Spec"])
        say(f"{name} scaled to {number}")
        if not detach:
            follow_progress(client, found["ID"], quiet=False)
        return ""

    for_each(words, one)


def mode_of(service: dict[str, Any]) -> str:
    [word] = service["Spec"]["Mode"]
    return next(name for name, (key, _) in MODES.items() if key == word)


def describe(service: dict[str, Any], now: float) -> dict[str, Any]:
    status = service.get("ServiceStatus") or {"RunningTasks": 0, "DesiredTasks": 0}
    ports = (service.get("Endpoint") or {}).get("Ports") or []
    return {
        "ID": shorten_id(service["ID"]),
        "Name": service["Spec"]["Name"],
        "Mode": mode_of(service).replace("-", " "),
        "Replicas": replicas_of(service, status),
        "Image": service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].partition("@")[0],
        "Ports": ports_of(ports),
    }


def replicas_of(service: dict[str, Any], status: dict[str, Any]) -> str:
    """Running and wanted, with what limits them or what a job has completed."""
    text = f"{status['RunningTasks']}/{status['DesiredTasks']}"
    mode = service["Spec"]["Mode"]
    completed = status.get("CompletedTasks", 0)
    if "ReplicatedJob" in mode:
        most, total = (mode["ReplicatedJob"].get(key, 1) for key in ("MaxConcurrent", "TotalCompletions"))
        return f"{status['RunningTasks']}/{most} ({completed}/{total} completed)"
    if "GlobalJob" in mode:
        return f"{text} ({completed}/{status['DesiredTasks'] + completed} completed)"
    most = (service["Spec"]["TaskTemplate"].get("Placement") or {}).get("MaxReplicas", 0)
    return f"{text} (max {most} per node)" if most else text


def ports_of(ports: list[dict[str, Any]]) -> str:
    """Those of the ingress, neighbours as one range: `*:9000-9001->90-91/udp`."""
    ranges: list[list[Any]] = []  # protocol, first and last published, first and last target
    wanted = [port for port in ports if port.get("PublishMode") != "host"]
    for port in sorted(wanted, key=lambda port: (port["Protocol"], port["PublishedPort"])):
        published, target = port["PublishedPort"], port["TargetPort"]
        if ranges and ranges[-1][0] == port["Protocol"] and ranges[-1][2::2] == [published - 1, target - 1]:
            ranges[-1][2::2] = [published, target]
        else:
            ranges.append([port["Protocol"], published, published, target, target])
    return ", ".join(f"*:{span(one[1], one[2])}->{span(one[3], one[4])}/{one[0]}" for one in ranges)


def span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


@command(
    "", FILTER, text("--format", "Format output using a Go template"), switch("-q, --quiet", "Only display IDs"), most=0
)
def ls(client: Client, words: list[str], *, filter: list[str], format: str | None, quiet: bool) -> None:
    found = client.json("GET", "/services", query={"filters": encode_filters(filter), "status": True})
    print_list(LISTING, sorted(found, key=lambda one: natural(one["Spec"]["Name"])), describe, format, quiet)


@command(
    "SERVICE [SERVICE...]",
    FILTER,
    switch("--no-trunc", "Do not truncate output"),
    switch("-q, --quiet", "Only display task IDs"),
    text("--format", "Format output using a Go template"),
    least=1,
)
def ps(client: Client, words: list[str], *, filter: list[str], no_trunc: bool, quiet: bool, format: str | None) -> None:
    """The reason of each failure is shown whole."""
    wanted = [*filter, *(f"service={client.json('GET', f'/services/{segment(name)}')['ID']}" for name in words)]
    print_tasks(client, wanted, full=no_trunc, quiet=quiet, form=format)


@command("SERVICE [SERVICE...]", least=1)
def rm(client: Client, words: list[str]) -> None:
    def remove(name: str) -> str:
        client.do("DELETE", f"/services/{segment(name)}")
        return name

    for_each(words, remove)
