"""From the flags of `service create` and `service update` to the service's specification, in Docker's shapes.

One table says for every flag with a single value where in the specification it goes; lists are added to on creation,
and on update by their `-add` and `-rm` forms.
"""

from collections.abc import Callable
from typing import Any, Final

from bennu.cli.command import Option, integer, several, switch, text
from bennu.cli.mounts import parse_mount
from bennu.cli.service_values import (
    parse_capability,
    parse_credential,
    parse_generic,
    parse_host,
    parse_network,
    parse_preference,
    parse_publish,
    parse_reference,
)
from bennu.cli.values import parse_cpus, parse_duration, parse_env, parse_label, parse_size, parse_ulimit

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
    (integer("--oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)"), f"{CONTAINER}.OomScoreAdj"),
    (text("--isolation", "Service container isolation mode"), f"{CONTAINER}.Isolation"),
    (text("--log-driver", "Logging driver for service"), "TaskTemplate.LogDriver.Name"),
    (
        Option("--credential-spec", "Credential spec for managed service account", "credential-spec", parse_credential),
        f"{CONTAINER}.Privileges.CredentialSpec",
    ),
    *_rollout("update", "updated", "UpdateConfig"),
    *_rollout("rollback", "rolled back", "RollbackConfig"),
)


def keep(entry: str) -> str:
    return entry


# flag, help, how an entry is read, where the list is, what a removal compares an entry with.
LISTS: Final[tuple[tuple[str, str, Callable[[str], Any], str, Callable[[Any], str]], ...]] = (
    ("env", "Set environment variables", parse_env, f"{CONTAINER}.Env", lambda entry: str(entry).partition("=")[0]),
    ("constraint", "Placement constraints", keep, "TaskTemplate.Placement.Constraints", str),
    ("mount", "Attach a filesystem mount", parse_mount, f"{CONTAINER}.Mounts", lambda mount: str(mount["Target"])),
    ("network", "Network attachments", parse_network, "TaskTemplate.Networks", lambda net: str(net["Target"])),
    ("group", "Supplementary groups", keep, f"{CONTAINER}.Groups", str),
    ("cap-add", "Add capabilities", parse_capability, f"{CONTAINER}.CapabilityAdd", str),
    ("cap-drop", "Drop capabilities", parse_capability, f"{CONTAINER}.CapabilityDrop", str),
    ("host", "Set extra hosts (host:ip)", parse_host, f"{CONTAINER}.Hosts", str),
    ("dns", "Set custom DNS servers", keep, f"{CONTAINER}.DNSConfig.Nameservers", str),
    ("dns-search", "Set custom DNS search domains", keep, f"{CONTAINER}.DNSConfig.Search", str),
    ("dns-option", "Set DNS options", keep, f"{CONTAINER}.DNSConfig.Options", str),
    ("ulimit", "Ulimit options", parse_ulimit, f"{CONTAINER}.Ulimits", lambda limit: str(limit["Name"])),
    (
        "placement-pref",
        "Placement preferences (spread=...)",
        parse_preference,
        "TaskTemplate.Placement.Preferences",
        lambda preference: f"spread={preference['Spread']['SpreadDescriptor']}",
    ),
    (
        "generic-resource",
        "User defined resources (kind=number)",
        parse_generic,
        f"{RESERVED}.GenericResources",
        lambda resource: str(resource["DiscreteResourceSpec"]["Kind"]),
    ),
)
MAPS: Final = (
    ("label", "Service labels", "Labels"),
    ("container-label", "Container labels", f"{CONTAINER}.Labels"),
    ("sysctl", "Sysctl options", f"{CONTAINER}.Sysctls"),
)
SHORT: Final = {"env": "-e", "label": "-l"}
UNADDED: Final = ("cap-add", "cap-drop")  # docker's update has them without a suffix
BLOBS: Final = (("secret", "Secrets"), ("config", "Configs"))


def _many(flag: str, help: str, parse: Callable[[str], Any], short: str = "") -> Option:
    return several(f"{short}, --{flag}" if short else f"--{flag}", help, parse=parse)


OTHERS: Final = (
    text("--health-cmd", "Command to run to check health"),
    switch("--no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    switch("-d, --detach", "Exit immediately instead of waiting for the service to converge"),
    switch("-q, --quiet", "Suppress progress output"),
    text("--entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    several("--log-opt", "Logging driver options"),
    switch("--no-resolve-image", "An image is used as it is named either way"),
)
COMMON: Final = (*(option for option, _ in SINGLE), *OTHERS)
CREATE: Final = (
    *COMMON,
    text("--name", "Service name"),
    text("--mode", "replicated, global, replicated-job or global-job", default="replicated"),
    several("--env-file", "Read in a file of environment variables"),
    integer("--max-concurrent", "Number of job tasks to run at the same time"),
    several("-p, --publish", "Publish a port as a node port", parse=parse_publish),
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
    several("--publish-add", "Add or update a published port", parse=parse_publish),
    several("--publish-rm", "Remove a published port by its target port", parse=parse_publish),
    *(_many(flag if flag in UNADDED else f"{flag}-add", help, parse) for flag, help, parse, _, _ in LISTS),
    *(_many(f"{flag}-rm", f"Remove: {help}", keep) for flag, help, _, _, _ in LISTS if flag not in UNADDED),
    *(_many(f"{flag}-add", help, parse_label) for flag, help, _ in MAPS),
    *(_many(f"{flag}-rm", f"Remove: {help}", keep) for flag, help, _ in MAPS),
    *(_many(f"{flag}-add", f"Add or update a {flag} on a service", parse_reference) for flag, _ in BLOBS),
    *(_many(f"{flag}-rm", f"Remove a {flag}", keep) for flag, _ in BLOBS),
)
