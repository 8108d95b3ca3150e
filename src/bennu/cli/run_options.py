"""The options of `run` and `create`, written once.

An option whose value goes into the request unchanged names its place in `body` ("HostConfig.Memory"); the others are
combined by `run_body`.
"""

from typing import Final

from bennu.cli.command import Option, integer, several, switch, text
from bennu.cli.mounts import parse_mount
from bennu.cli.values import (
    parse_attach,
    parse_cpus,
    parse_device_rule,
    parse_duration,
    parse_env,
    parse_host_mapping,
    parse_label,
    parse_size,
    parse_swap,
    parse_ulimit,
)


def size(names: str, help: str, body: str) -> Option:
    return Option(names, help, "bytes", parse_size, body=body)


def duration(names: str, help: str) -> Option:
    return Option(names, help, "duration", parse_duration)


H: Final = "HostConfig."

RESOURCES: Final = (
    Option("--blkio-weight", "Block IO (relative weight), 10 to 1000, or 0", "uint16", int, body=H + "BlkioWeight"),
    integer("--cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period", body=H + "CpuPeriod"),
    integer("--cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota", body=H + "CpuQuota"),
    integer("--cpu-rt-period", "Limit CPU real-time period in microseconds", body=H + "CpuRealtimePeriod"),
    integer("--cpu-rt-runtime", "Limit CPU real-time runtime in microseconds", body=H + "CpuRealtimeRuntime"),
    integer("-c, --cpu-shares", "CPU shares (relative weight)", body=H + "CpuShares"),
    Option("--cpus", "Number of CPUs", "decimal", parse_cpus, body=H + "NanoCpus"),
    text("--cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)", body=H + "CpusetCpus"),
    text("--cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)", body=H + "CpusetMems"),
    size("-m, --memory", "Memory limit", H + "Memory"),
    size("--memory-reservation", "Memory soft limit", H + "MemoryReservation"),
    Option("--memory-swap", "Limit of memory plus swap: '-1' is unlimited", "bytes", parse_swap, body=H + "MemorySwap"),
    integer("--pids-limit", "Tune container pids limit (set -1 for unlimited)", body=H + "PidsLimit"),
)

PROCESS: Final = (
    several("-a, --attach", "Attach to STDIN, STDOUT or STDERR", parse=parse_attach),
    text("--entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    several("-e, --env", "Set environment variables", parse=parse_env),
    several("--env-file", "Read in a file of environment variables"),
    several("--group-add", "Add additional groups to join", body=H + "GroupAdd"),
    switch("--init", "Run an init inside the container that forwards signals and reaps processes"),
    switch("-i, --interactive", "Keep STDIN open even if not attached"),
    text("--stop-signal", "Signal to stop the container", body="StopSignal"),
    integer("--stop-timeout", "Timeout (in seconds) to stop a container", body="StopTimeout"),
    switch("-t, --tty", "Allocate a pseudo-TTY", body="Tty"),
    several("--ulimit", "Ulimit options", kind="ulimit", parse=parse_ulimit),
    text("-u, --user", "Username or UID (format: <name|uid>[:<group|gid>])", body="User"),
    text("-w, --workdir", "Working directory inside the container", body="WorkingDir"),
)

HEALTH: Final = (
    text("--health-cmd", "Command to run to check health"),
    duration("--health-interval", "Time between running the check (ms|s|m|h)"),
    integer("--health-retries", "Consecutive failures needed to report unhealthy"),
    duration("--health-start-interval", "Time between running the check during the start period (ms|s|m|h)"),
    duration("--health-start-period", "Start period before failures of the check count (ms|s|m|h)"),
    duration("--health-timeout", "Maximum time to allow one check to run (ms|s|m|h)"),
    switch("--no-healthcheck", "Disable any container-specified HEALTHCHECK"),
)

NETWORK: Final = (
    several("--add-host", "Add a custom host-to-IP mapping (host:ip)", parse=parse_host_mapping, body=H + "ExtraHosts"),
    several("--dns", "Set custom DNS servers", body=H + "Dns"),
    several("--dns-opt", "Set DNS options", body=H + "DnsOptions", hidden=True),
    several("--dns-option", "Set DNS options", body=H + "DnsOptions"),
    several("--dns-search", "Set custom DNS search domains", body=H + "DnsSearch"),
    text("--domainname", "Container NIS domain name", body="Domainname"),
    several("--expose", "Expose a port or a range of ports"),
    text("-h, --hostname", "Container host name", body="Hostname"),
    text("--ip", "IPv4 address (e.g., 172.30.100.104)"),
    text("--ip6", "IPv6 address (e.g., 2001:db8::33)"),
    several("--link", "Add link to another container"),
    several("--link-local-ip", "Container IPv4/IPv6 link-local addresses"),
    text("--mac-address", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    several("--net", "Connect a container to a network", kind="network", hidden=True),
    several("--net-alias", "Add network-scoped alias for the container", hidden=True),
    several("--network", "Connect a container to a network", kind="network"),
    several("--network-alias", "Add network-scoped alias for the container"),
    several("-p, --publish", "Publish a container's port(s) to the host"),
    switch("-P, --publish-all", "Publish all exposed ports to random ports", body=H + "PublishAllPorts"),
)

FILESYSTEM: Final = (
    several("--device", "Add a host device to the container"),
    several(
        "--device-cgroup-rule",
        "Add a rule to the cgroup allowed devices list",
        parse=parse_device_rule,
        body=H + "DeviceCgroupRules",
    ),
    several("--mount", "Attach a filesystem mount to the container", kind="mount", parse=parse_mount),
    switch("--read-only", "Mount the container's root filesystem as read only", body=H + "ReadonlyRootfs"),
    size("--shm-size", "Size of /dev/shm", H + "ShmSize"),
    several("--storage-opt", "Storage driver options for the container"),
    several("--tmpfs", "Mount a tmpfs directory"),
    several("-v, --volume", "Bind mount a volume"),
    text("--volume-driver", "Optional volume driver for the container", body=H + "VolumeDriver"),
    several("--volumes-from", "Mount volumes from the specified container(s)", body=H + "VolumesFrom"),
)

ISOLATION: Final = (
    several("--annotation", "Add an annotation to the container (passed through to the OCI runtime)", kind="map"),
    several("--cap-add", "Add Linux capabilities"),
    several("--cap-drop", "Drop Linux capabilities"),
    text("--cgroup-parent", "Optional parent cgroup for the container", body=H + "CgroupParent"),
    text("--cgroupns", "Cgroup namespace to use (host|private)", body=H + "CgroupnsMode"),
    text("--gpus", "GPU devices to add to the container ('all' to pass all GPUs)", kind="gpu-request"),
    text("--ipc", "IPC mode to use", body=H + "IpcMode"),
    text("--isolation", "Container isolation technology", body=H + "Isolation"),
    text("--pid", "PID namespace to use", body=H + "PidMode"),
    switch("--privileged", "Give extended privileges to this container", body=H + "Privileged"),
    text("--runtime", "Runtime to use for this container", body=H + "Runtime"),
    several("--security-opt", "Security options"),
    several("--sysctl", "Sysctl options", kind="map"),
    text("--userns", "User namespace to use", body=H + "UsernsMode"),
    text("--uts", "UTS namespace to use", body=H + "UTSMode"),
)

LIFE: Final = (
    text("--cidfile", "Write the container ID to the file", body=H + "ContainerIDFile"),
    several("-l, --label", "Set meta data on a container", parse=parse_label),
    several("--label-file", "Read in a line delimited file of labels"),
    text("--log-driver", "Logging driver for the container"),
    several("--log-opt", "Log driver options"),
    integer("--memory-swappiness", "Tune container memory swappiness (0 to 100)", body=H + "MemorySwappiness"),
    text("--name", "Assign a name to the container"),
    switch("--oom-kill-disable", "Disable OOM Killer", body=H + "OomKillDisable"),
    integer("--oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)", body=H + "OomScoreAdj"),
    text("--platform", "Set platform if server is multi-platform capable"),
    text("--pull", "Pull image before running (always|missing|never)", default="missing"),
    switch("-q, --quiet", "Suppress the pull output"),
    text("--restart", "Restart policy to apply when a container exits"),
    switch("--rm", "Automatically remove the container and its anonymous volumes when it exits", body=H + "AutoRemove"),
)

CREATE: Final = tuple(
    sorted(
        (*RESOURCES, *PROCESS, *HEALTH, *NETWORK, *FILESYSTEM, *ISOLATION, *LIFE), key=lambda option: option.flags[-1]
    )
)

RUN: Final = tuple(
    sorted(
        (
            *CREATE,
            switch("-d, --detach", "Run container in background and print container ID"),
            text("--detach-keys", "Override the key sequence for detaching a container"),
            switch("--sig-proxy", "Proxy received signals to the process", default=True),
        ),
        key=lambda option: option.flags[-1],
    )
)
