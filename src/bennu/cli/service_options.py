"""From the flags of `service create` and `service update` to the service's specification, in Docker's shapes.

One table says for every flag with a single value where in the specification it goes; lists are added to on creation,
and on update by their `-add` and `-rm` forms.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from bennu.cli.command import Option, integer, several, switch, text
from bennu.cli.failure import Failure
from bennu.cli.mounts import parse_mount
from bennu.cli.values import parse_cpus, parse_duration, parse_env, parse_label, parse_size

Spec = dict[str, Any]
CONTAINER: Final = "TaskTemplate.ContainerSpec"
RESTART: Final = "TaskTemplate.RestartPolicy"
LIMITS: Final = "TaskTemplate.Resources.Limits"
RESERVED: Final = "TaskTemplate.Resources.Reservations"
CHECK: Final = f"{CONTAINER}.Healthcheck"


def duration(names: str, help: str) -> Option:
    return Option(names, help, "duration", parse_duration)


def ratio(names: str, help: str) -> Option:
    return Option(names, help, "float", float)


def _rollout(prefix: str, what: str, path: str) -> list[tuple[Option, str]]:
    return [
        (
            integer(f"--{prefix}-parallelism", f"Tasks {what} at the same time (0 for all at once)"),
            f"{path}.Parallelism",
        ),
        (duration(f"--{prefix}-delay", "Delay between tasks"), f"{path}.Delay"),
        (duration(f"--{prefix}-monitor", "How long each task is watched for failure"), f"{path}.Monitor"),
        (ratio(f"--{prefix}-max-failure-ratio", "Failure rate to tolerate"), f"{path}.MaxFailureRatio"),
        (text(f"--{prefix}-failure-action", "Action on failure: pause, continue or rollback"), f"{path}.FailureAction"),
        (text(f"--{prefix}-order", "start-first or stop-first"), f"{path}.Order"),
    ]


SINGLE: Final[tuple[tuple[Option, str], ...]] = (
    (integer("--replicas", "Number of tasks"), "Mode.Replicated.Replicas"),
    (text("--hostname", "Container hostname"), f"{CONTAINER}.Hostname"),
    (text("-u, --user", "Username or UID (format: <name|uid>[:<group|gid>])"), f"{CONTAINER}.User"),
    (text("-w, --workdir", "Working directory inside the container"), f"{CONTAINER}.Dir"),
    (text("--stop-signal", "Signal to stop the container"), f"{CONTAINER}.StopSignal"),
    (duration("--stop-grace-period", "Time to wait before force killing a container"), f"{CONTAINER}.StopGracePeriod"),
    (switch("--init", "Run an init that forwards signals and reaps processes"), f"{CONTAINER}.Init"),
    (switch("--read-only", "Mount the container's root filesystem as read only"), f"{CONTAINER}.ReadOnly"),
    (switch("-t, --tty", "Allocate a pseudo-TTY"), f"{CONTAINER}.TTY"),
    (duration("--health-interval", "Time between running the check"), f"{CHECK}.Interval"),
    (duration("--health-timeout", "Maximum time to allow one check to run"), f"{CHECK}.Timeout"),
    (duration("--health-start-period", "Start period before counting retries"), f"{CHECK}.StartPeriod"),
    (duration("--health-start-interval", "Time between checks in the start period"), f"{CHECK}.StartInterval"),
    (integer("--health-retries", "Failures in a row until unhealthy"), f"{CHECK}.Retries"),
    (text("--restart-condition", "Restart when: none, on-failure or any"), f"{RESTART}.Condition"),
    (duration("--restart-delay", "Delay between restart attempts"), f"{RESTART}.Delay"),
    (integer("--restart-max-attempts", "Restarts before giving up"), f"{RESTART}.MaxAttempts"),
    (duration("--restart-window", "Window used to evaluate the restart policy"), f"{RESTART}.Window"),
    (Option("--limit-cpu", "Limit CPUs", "decimal", parse_cpus), f"{LIMITS}.NanoCPUs"),
    (Option("--limit-memory", "Limit memory", "bytes", parse_size), f"{LIMITS}.MemoryBytes"),
    (integer("--limit-pids", "Limit the number of processes"), f"{LIMITS}.Pids"),
    (Option("--reserve-cpu", "Reserve CPUs", "decimal", parse_cpus), f"{RESERVED}.NanoCPUs"),
    (Option("--reserve-memory", "Reserve memory", "bytes", parse_size), f"{RESERVED}.MemoryBytes"),
    (integer("--replicas-max-per-node", "Tasks per node at the most"), "TaskTemplate.Placement.MaxReplicas"),
    (text("--endpoint-mode", "vip or dnsrr"), "EndpointSpec.Mode"),
    *_rollout("update", "updated", "UpdateConfig"),
    *_rollout("rollback", "rolled back", "RollbackConfig"),
)


def parse_publish(entry: str) -> Spec:
    """`8080:80/tcp`, `80`, or `published=8080,target=80,protocol=tcp,mode=host`. Raises: ValueError."""
    if "=" in entry:
        given = dict(part.partition("=")[::2] for part in entry.split(","))
        unknown = set(given) - {"published", "target", "protocol", "mode"}
        if unknown or "target" not in given:
            raise ValueError(f"invalid port: {entry}")
        published, target = given.get("published", "0"), given["target"]
        protocol, mode = given.get("protocol", "tcp"), given.get("mode", "ingress")
    else:
        ports, _, protocol = entry.partition("/")
        published, colon, target = ports.rpartition(":")
        published, protocol, mode = published if colon else "0", protocol or "tcp", "ingress"
    if not published.isdecimal() or not target.isdecimal():
        raise ValueError(f"invalid port: {entry}")
    return {
        "Protocol": protocol,
        "TargetPort": int(target),
        "PublishedPort": int(published),
        "PublishMode": mode,
    }


def parse_reference(entry: str) -> Spec:
    """A secret or config: `name`, or `source=name,target=file,uid=0,gid=0,mode=0440`. Raises: ValueError."""
    given = dict(part.partition("=")[::2] for part in entry.split(",")) if "=" in entry else {"source": entry}
    source = given.get("source") or given.get("src")
    if not source:
        raise ValueError(f"source is required: {entry}")
    file = {"Name": given.get("target", source), "UID": given.get("uid", "0"), "GID": given.get("gid", "0")}
    return {"Name": source, "File": {**file, "Mode": int(given.get("mode", "0444"), 8)}}


def keep(entry: str) -> str:
    return entry


# flag, help, how an entry is read, where the list is, what a removal compares an entry with.
LISTS: Final[tuple[tuple[str, str, Callable[[str], Any], str, Callable[[Any], str]], ...]] = (
    ("env", "Set environment variables", parse_env, f"{CONTAINER}.Env", lambda entry: str(entry).partition("=")[0]),
    ("constraint", "Placement constraints", keep, "TaskTemplate.Placement.Constraints", str),
    ("mount", "Attach a filesystem mount", parse_mount, f"{CONTAINER}.Mounts", lambda mount: str(mount["Target"])),
    ("publish", "Publish a port", parse_publish, "EndpointSpec.Ports", lambda port: str(port["TargetPort"])),
    (
        "network",
        "Network attachments",
        lambda entry: {"Target": entry},
        "TaskTemplate.Networks",
        lambda net: str(net["Target"]),
    ),
    ("group", "Supplementary groups", keep, f"{CONTAINER}.Groups", str),
    ("cap-add", "Add capabilities", keep, f"{CONTAINER}.CapabilityAdd", str),
    ("cap-drop", "Drop capabilities", keep, f"{CONTAINER}.CapabilityDrop", str),
    ("host", "Set extra hosts (host:ip)", keep, f"{CONTAINER}.Hosts", str),
)
MAPS: Final = (
    ("label", "Service labels", "Labels"),
    ("container-label", "Container labels", f"{CONTAINER}.Labels"),
)
SHORT: Final = {"env": "-e", "publish": "-p", "label": "-l"}
UNADDED: Final = ("cap-add", "cap-drop")  # docker's update has them without a suffix
BLOBS: Final = (("secret", "Secrets"), ("config", "Configs"))


def _many(flag: str, help: str, parse: Callable[[str], Any], short: str = "") -> Option:
    return several(f"{short}, --{flag}" if short else f"--{flag}", help, parse=parse)


OTHERS: Final = (
    text("--health-cmd", "Command to run to check health"),
    switch("--no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    switch("-d, --detach", "Exit immediately instead of waiting for the service to converge"),
    switch("-q, --quiet", "Suppress progress output"),
)
COMMON: Final = (*(option for option, _ in SINGLE), *OTHERS)
CREATE: Final = (
    *COMMON,
    text("--name", "Service name"),
    text("--mode", "replicated, global, replicated-job or global-job", default="replicated"),
    text("--entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    *(_many(flag, help, parse, SHORT.get(flag, "")) for flag, help, parse, _, _ in LISTS),
    *(_many(flag, help, parse_label, SHORT.get(flag, "")) for flag, help, _ in MAPS),
    *(_many(flag, f"Specify {flag}s to expose to the service", parse_reference) for flag, _ in BLOBS),
)
UPDATE: Final = (
    *COMMON,
    text("--image", "Service image tag"),
    text("--args", "Service command args"),
    switch("--force", "Force update even if no changes require it"),
    switch("--rollback", "Rollback to previous specification"),
    *(_many(flag if flag in UNADDED else f"{flag}-add", help, parse) for flag, help, parse, _, _ in LISTS),
    *(_many(f"{flag}-rm", f"Remove: {help}", keep) for flag, help, _, _, _ in LISTS if flag not in UNADDED),
    *(_many(f"{flag}-add", help, parse_label) for flag, help, _ in MAPS),
    *(_many(f"{flag}-rm", f"Remove: {help}", keep) for flag, help, _ in MAPS),
    *(_many(f"{flag}-add", f"Add or update a {flag} on a service", parse_reference) for flag, _ in BLOBS),
    *(_many(f"{flag}-rm", f"Remove a {flag}", keep) for flag, _ in BLOBS),
)


def place(spec: Spec, path: str, value: Any) -> None:
    """Put a value where the dotted path leads, making objects on the way."""
    *way, last = path.split(".")
    for word in way:
        spec = spec.setdefault(word, {}) if spec.get(word) is not None else spec.update({word: {}}) or spec[word]
    spec[last] = value


def look(spec: Spec, path: str) -> Any:
    found: Any = spec
    for word in path.split("."):
        found = (found or {}).get(word)
    return found


def apply_single(spec: Spec, values: Mapping[str, Any], given: Collection[str]) -> None:
    """Every flag that was typed goes to its place. Raises: Failure for replicas of a mode that has none."""
    for option, path in SINGLE:
        if option.key not in given:
            continue
        if option.key == "replicas" and "Replicated" not in spec["Mode"]:
            raise Failure("replicas can only be used with replicated mode")
        place(spec, path, values[option.key])
    if "no_healthcheck" in given and values["no_healthcheck"]:
        place(spec, f"{CHECK}.Test", ["NONE"])
    elif "health_cmd" in given:
        place(spec, f"{CHECK}.Test", ["CMD-SHELL", values["health_cmd"]])


def apply_lists(spec: Spec, values: Mapping[str, Any]) -> None:
    """Add and remove what the flags of either command name."""
    for flag, _, _, path, name_of in LISTS:
        key = flag.replace("-", "_")
        added = values.get(key) or values.get(f"{key}_add") or []
        removed = values.get(f"{key}_rm") or []
        if added or removed:
            gone = {*removed, *map(name_of, added)}
            kept = [entry for entry in look(spec, path) or [] if name_of(entry) not in gone]
            place(spec, path, [*kept, *added])
    for flag, _, path in MAPS:
        key = flag.replace("-", "_")
        named = dict(entry.partition("=")[::2] for entry in values.get(key) or values.get(f"{key}_add") or [])
        removed = values.get(f"{key}_rm") or []
        if named or removed:
            labels = {name: value for name, value in (look(spec, path) or {}).items() if name not in removed}
            place(spec, path, {**labels, **named})
