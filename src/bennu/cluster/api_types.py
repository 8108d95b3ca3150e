"""The API's shapes of a service's specification, as clients send them and as they are shown again.

Absent fields are left out again (`omit_defaults`), and what a client made explicit stays explicit: that difference is
visible to clients and decides whether tasks are replaced. Unknown fields are dropped, as dockerd does.
"""

from typing import Any

import msgspec

from bennu.model import Healthcheck, Mount, Shape, Ulimit


class ApiType(Shape, omit_defaults=True):
    """The base of the API's shapes: absent fields stay absent."""


class FileTarget(ApiType):
    name: str = ""
    uid: str = msgspec.field(name="UID", default="")
    gid: str = msgspec.field(name="GID", default="")
    mode: int = 0


class SecretReference(ApiType):
    file: FileTarget | None = None
    secret_id: str = msgspec.field(name="SecretID", default="")
    secret_name: str = ""


class ConfigReference(ApiType):
    file: FileTarget | None = None
    runtime: dict[str, Any] | None = None
    config_id: str = msgspec.field(name="ConfigID", default="")
    config_name: str = ""


class DnsConfig(ApiType):
    nameservers: list[str] | None = None
    search: list[str] | None = None
    options: list[str] | None = None


class SeccompOptions(ApiType):
    mode: str = ""
    profile: str = ""  # base64


class AppArmorOptions(ApiType):
    mode: str = ""


class SELinuxContext(Shape):
    """The label that tasks ask for: security options of their containers. Shown whole, as by dockerd."""

    disable: bool = False
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class Privileges(ApiType):
    credential_spec: dict[str, Any] | None = None
    se_linux_context: SELinuxContext | None = msgspec.field(name="SELinuxContext", default=None)
    seccomp: SeccompOptions | None = None
    app_armor: AppArmorOptions | None = None
    no_new_privileges: bool = False


class ContainerSpec(ApiType):
    image: str = ""
    labels: dict[str, str] | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    hostname: str = ""
    env: list[str] | None = None
    dir: str = ""
    user: str = ""
    groups: list[str] | None = None
    privileges: Privileges | None = None
    init: bool | None = None
    stop_signal: str = ""
    tty: bool = msgspec.field(name="TTY", default=False)
    open_stdin: bool = False
    read_only: bool = False
    mounts: list[Mount] | None = None
    stop_grace_period: int | None = None
    healthcheck: Healthcheck | None = None
    hosts: list[str] | None = None
    dns_config: DnsConfig | None = msgspec.field(name="DNSConfig", default=None)
    secrets: list[SecretReference] | None = None
    configs: list[ConfigReference] | None = None
    isolation: str = ""
    sysctls: dict[str, str] | None = None
    capability_add: list[str] | None = None
    capability_drop: list[str] | None = None
    ulimits: list[Ulimit] | None = None
    oom_score_adj: int = 0


class Limits(ApiType):
    nano_cpus: int = msgspec.field(name="NanoCPUs", default=0)
    memory_bytes: int = 0
    pids: int = 0


class DiscreteResource(ApiType):
    kind: str = ""
    value: int = 0


class NamedResource(ApiType):
    kind: str = ""
    value: str = ""


class GenericResource(ApiType):
    discrete_resource_spec: DiscreteResource | None = None
    named_resource_spec: NamedResource | None = None


class Reservations(ApiType):
    nano_cpus: int = msgspec.field(name="NanoCPUs", default=0)
    memory_bytes: int = 0
    generic_resources: list[GenericResource] | None = None


class Resources(ApiType):
    limits: Limits | None = None
    reservations: Reservations | None = None
    swap_bytes: int | None = None
    memory_swappiness: int | None = None


class RestartPolicyWire(ApiType):
    condition: str = ""
    delay: int | None = None
    max_attempts: int | None = None
    window: int | None = None


class SpreadOver(ApiType):
    spread_descriptor: str = ""


class PlacementPreference(ApiType):
    spread: SpreadOver | None = None


class PlatformWire(ApiType):
    architecture: str = ""
    os: str = msgspec.field(name="OS", default="")


class PlacementWire(ApiType):
    constraints: list[str] | None = None
    preferences: list[PlacementPreference] | None = None
    max_replicas: int = 0
    platforms: list[PlatformWire] | None = None


class NetworkAttachmentConfig(ApiType):
    target: str = ""
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None


class LogDriver(ApiType):
    name: str = ""
    options: dict[str, str] | None = None


class TaskTemplate(ApiType):
    """The API's `TaskTemplate`, compared as one piece.

    `placement` and `force_update` are not compared with the rest: they live apart in the core.
    """

    plugin_spec: dict[str, Any] | None = None
    container_spec: ContainerSpec | None = None
    network_attachment_spec: dict[str, Any] | None = None
    resources: Resources | None = None
    restart_policy: RestartPolicyWire | None = None
    placement: PlacementWire | None = None
    networks: list[NetworkAttachmentConfig] | None = None
    log_driver: LogDriver | None = None
    force_update: int = 0
    runtime: str = ""


class ReplicatedMode(ApiType):
    replicas: int | None = None


class ReplicatedJobMode(ApiType):
    max_concurrent: int | None = None
    total_completions: int | None = None


class Mode(ApiType):
    replicated: ReplicatedMode | None = None
    global_: dict[str, Any] | None = msgspec.field(name="Global", default=None)
    replicated_job: ReplicatedJobMode | None = None
    global_job: dict[str, Any] | None = None


class UpdateConfigWire(ApiType):
    parallelism: int = 0
    delay: int = 0
    failure_action: str = ""
    monitor: int = 0
    max_failure_ratio: float = 0
    order: str = ""


class PortWire(ApiType):
    name: str = ""
    protocol: str = ""
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = ""


class EndpointWire(ApiType):
    mode: str = ""
    ports: list[PortWire] | None = None


class ServiceSpecWire(ApiType):
    name: str = ""
    labels: dict[str, str] | None = None
    task_template: TaskTemplate = msgspec.field(default_factory=TaskTemplate)
    mode: Mode | None = None
    update_config: UpdateConfigWire | None = None
    rollback_config: UpdateConfigWire | None = None
    networks: list[NetworkAttachmentConfig] | None = None
    endpoint_spec: EndpointWire | None = None


class OrchestrationWire(ApiType):
    task_history_retention_limit: int | None = None


class RaftWire(ApiType):
    snapshot_interval: int = 0
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 0
    election_tick: int = 0
    heartbeat_tick: int = 0


class DispatcherWire(ApiType):
    heartbeat_period: int = 0


class CAConfigWire(ApiType):
    node_cert_expiry: int = 0
    external_cas: list[dict[str, Any]] | None = msgspec.field(name="ExternalCAs", default=None)
    signing_ca_cert: str = msgspec.field(name="SigningCACert", default="")
    signing_ca_key: str = msgspec.field(name="SigningCAKey", default="")
    force_rotate: int = 0


class TaskDefaultsWire(ApiType):
    log_driver: LogDriver | None = None


class EncryptionConfigWire(ApiType):
    auto_lock_managers: bool = False


class SwarmSpecWire(ApiType):
    """The settings of a swarm (moby `api/types/swarm/swarm.go`)."""

    name: str = ""
    labels: dict[str, str] | None = None
    orchestration: OrchestrationWire | None = None
    raft: RaftWire | None = None
    dispatcher: DispatcherWire | None = None
    ca_config: CAConfigWire | None = msgspec.field(name="CAConfig", default=None)
    task_defaults: TaskDefaultsWire | None = None
    encryption_config: EncryptionConfigWire | None = None
