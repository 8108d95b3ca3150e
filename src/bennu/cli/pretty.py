"""`inspect --pretty` of the swarm's objects: what people want to read of them, in docker's layout."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bennu.cli.output import human_binary_size
from bennu.lifecycle.health import go_duration

Dict = dict[str, Any]


def service(found: Dict) -> str:
    """Its networks are shown by what stands for them: give it their names."""
    spec = found["Spec"]
    template = spec["TaskTemplate"]
    lines = [
        f"\nID:\t\t{found['ID']}",
        f"Name:\t\t{spec['Name']}",
        *_labels(spec.get("Labels")),
        *_mode(spec["Mode"]),
        *_update_status(found.get("UpdateStatus")),
        *_placement(template.get("Placement") or {}),
        *_rollout("Update", spec.get("UpdateConfig")),
        *_rollout("Rollback", spec.get("RollbackConfig")),
        *_container(template["ContainerSpec"]),
        *_files("Config", template["ContainerSpec"].get("Configs")),
        *_files("Secret", template["ContainerSpec"].get("Secrets")),
        *_log_driver(template.get("LogDriver")),
        *_resources(template.get("Resources")),
        *_networks(template.get("Networks")),
        f"Endpoint Mode:\t{(found.get('Endpoint') or {}).get('Spec', {}).get('Mode', '')}",
        *_ports((found.get("Endpoint") or {}).get("Ports")),
        *_healthcheck(template["ContainerSpec"].get("Healthcheck")),
    ]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str] | None, title: str = "Labels:") -> list[str]:
    return (
        [title, *(f" {name}={value}" if value else f" {name}" for name, value in sorted(labels.items()))]
        if labels
        else []
    )


def _mode(mode: Dict) -> list[str]:
    if "Replicated" in mode:
        replicas = mode["Replicated"].get("Replicas")
        return ["Service Mode:\tReplicated", *([f" Replicas:\t{replicas}"] if replicas is not None else [])]
    if "ReplicatedJob" in mode:
        job = mode["ReplicatedJob"]
        return [
            "Service Mode:\tReplicatedJob",
            f" Max Concurrent:\t{job.get('MaxConcurrent')}",
            f" Total Completions:\t{job.get('TotalCompletions')}",
        ]
    return [f"Service Mode:\t{'Global' if 'Global' in mode else 'GlobalJob'}"]


def _update_status(status: Dict | None) -> list[str]:
    if not status:
        return []
    lines = ["UpdateStatus:", f" State:\t\t{status['State']}"]
    if status.get("StartedAt"):
        lines.append(f" Started:\t{status['StartedAt'][:19]}Z")
    if status["State"] == "completed" and status.get("CompletedAt"):
        lines.append(f" Completed:\t{status['CompletedAt'][:19]}Z")
    return [*lines, f" Message:\t{status.get('Message', '')}"]


def _placement(placement: Dict) -> list[str]:
    lines = ["Placement:"]
    if placement.get("Constraints"):
        lines.append(f" Constraints:\t[{' '.join(placement['Constraints'])}]")
    if placement.get("Preferences"):
        words = [f"spread={item['Spread']['SpreadDescriptor']}" for item in placement["Preferences"]]
        lines.append(f" Preferences:   [{' '.join(words)}]")
    if placement.get("MaxReplicas"):
        lines.append(f" Max Replicas Per Node:   {placement['MaxReplicas']}")
    return lines


def _rollout(what: str, config: Dict | None) -> Iterator[str]:
    if config is None:
        return
    yield f"{what}Config:"
    yield f" Parallelism:\t{config.get('Parallelism', 0)}"
    if config.get("Delay"):
        yield f" Delay:\t\t{go_duration(config['Delay'])}"
    yield f" On failure:\t{config.get('FailureAction', '')}"
    if config.get("Monitor"):
        yield f" Monitoring Period: {go_duration(config['Monitor'])}"
    yield f" Max failure ratio: {config.get('MaxFailureRatio', 0):g}"
    yield f" {what} order:".ljust(20) + str(config.get("Order", ""))


def _container(spec: Dict) -> Iterator[str]:
    yield "ContainerSpec:"
    yield f" Image:\t\t{spec['Image']}"
    for key, title in (("Args", "Args:"), ("Env", "Env:")):
        if spec.get(key):
            yield f" {title}\t\t{' '.join(spec[key])} "
    if spec.get("Dir"):
        yield f" Dir:\t\t{spec['Dir']}"
    if spec.get("Init") is not None:
        yield f" Init:\t\t{str(spec['Init']).lower()}"
    if spec.get("User"):
        yield f" User: {spec['User']}"
    added, dropped = spec.get("CapabilityAdd"), spec.get("CapabilityDrop")
    if added or dropped:
        yield "Capabilities:"
        yield from ([f" Add: {', '.join(added)}"] if added else [])
        yield from ([f" Drop: {', '.join(dropped)}"] if dropped else [])
    if spec.get("Sysctls"):
        yield "SysCtls:"
        yield from (f" {name}: {value}" for name, value in sorted(spec["Sysctls"].items()))
    if spec.get("Ulimits"):
        yield "Ulimits:"
        yield from (f" {item['Name']}: {item.get('Soft', 0)}:{item.get('Hard', 0)}" for item in spec["Ulimits"])
    if spec.get("Mounts"):
        yield "Mounts:"
    for mount in spec.get("Mounts") or ():
        yield f" Target:\t{mount['Target']}"
        yield f"  Source:\t{mount.get('Source', '')}"
        yield f"  ReadOnly:\t{str(mount.get('ReadOnly', False)).lower()}"
        yield f"  Type:\t\t{mount['Type']}"


def _files(kind: str, references: list[Dict] | None) -> Iterator[str]:
    if references:
        yield f"{kind}s:"
    for reference in references or ():
        yield f" Target:\t{(reference.get('File') or {}).get('Name', '')}"
        yield f"  Source:\t{reference[f'{kind}Name']}"


def _log_driver(driver: Dict | None) -> Iterator[str]:
    if driver is None:
        return
    yield "Log Driver:"
    if driver.get("Name"):
        yield f" Name:\t\t{driver['Name']}"
    if driver.get("Options"):
        yield " LogOpts:"
        yield from (f"  {name}:       {value}" for name, value in sorted(driver["Options"].items()))
    yield ""


def _resources(resources: Dict | None) -> Iterator[str]:
    if resources is None:
        return
    yield "Resources:"
    reserved, limits = resources.get("Reservations") or {}, resources.get("Limits") or {}
    for title, part in ((" Reservations:", reserved), (" Limits:", limits)):
        if not any(part.values()):
            continue
        yield title
        if part.get("NanoCPUs"):
            yield f"  CPU:\t\t{part['NanoCPUs'] / 1e9:g}"
        if part.get("MemoryBytes"):
            yield f"  Memory:\t{human_binary_size(part['MemoryBytes'])}"
        if part.get("Pids"):
            yield f"  PIDs:\t\t{part['Pids']}"


def _networks(attachments: list[Dict] | None) -> list[str]:
    return ["Networks: " + " ".join(item["Target"] for item in attachments) + " "] if attachments else []


def _ports(ports: list[Dict] | None) -> Iterator[str]:
    if ports:
        yield "Ports:"
    for port in ports or ():
        yield f" PublishedPort = {port.get('PublishedPort', 0)}"
        yield f"  Protocol = {port['Protocol']}"
        yield f"  TargetPort = {port['TargetPort']}"
        yield f"  PublishMode = {port['PublishMode']}"


def _healthcheck(check: Dict | None) -> Iterator[str]:
    if check is None:
        return
    yield " Healthcheck:"
    yield f"  Interval = {go_duration(check.get('Interval', 0))}"
    yield f"  Retries = {check.get('Retries', 0)}"
    yield f"  StartPeriod =\t{go_duration(check.get('StartPeriod', 0))}"
    yield f"  Timeout =\t{go_duration(check.get('Timeout', 0))}"
    if check.get("Test"):
        yield "  Tests:"
        yield from (f"\t Test = {word}" for word in check["Test"])


def _instant(text: str) -> str:
    return text.replace("T", " ").rstrip("Z") + " +0000 utc"


def secret(found: Dict) -> str:
    spec = found["Spec"]
    lines = [f"ID:              {found['ID']}", f"Name:              {spec['Name']}"]
    lines += [
        *_labels(spec.get("Labels"), "Labels:"),
        f"Driver:            {(spec.get('Driver') or {}).get('Name', '')}",
    ]
    lines += [
        f"Created at:        {_instant(found['CreatedAt'])}",
        f"Updated at:        {_instant(found['UpdatedAt'])}",
    ]
    return "\n".join(lines)


def config(found: Dict) -> str:
    import base64

    spec = found["Spec"]
    lines = [f"ID:\t\t\t{found['ID']}", f"Name:\t\t\t{spec['Name']}", *_labels(spec.get("Labels"), "Labels:")]
    lines += [f"Created at:            \t{_instant(found['CreatedAt'])}"]
    lines += [f"Updated at:            \t{_instant(found['UpdatedAt'])}", "Data:"]
    return "\n".join(lines) + "\n" + base64.b64decode(spec.get("Data", "")).decode(errors="replace")


def node(found: Dict) -> str:
    spec, description, status = found["Spec"], found["Description"], found["Status"]
    manager, resources = found.get("ManagerStatus"), description.get("Resources") or {}
    lines = [f"ID:\t\t\t{found['ID']}"]
    lines += [f"Name:\t\t\t{spec['Name']}"] if spec.get("Name") else []
    lines += _labels(spec.get("Labels"))
    lines += [
        f"Hostname:              \t{description['Hostname']}",
        f"Joined at:             \t{_instant(found['CreatedAt'])}",
        "Status:",
        f" State:\t\t\t{status['State'].title()}",
        *([f" Message:\t\t{status['Message']}"] if status.get("Message") else []),
        f" Availability:         \t{spec['Availability'].title()}",
        *([f" Address:\t\t{status['Addr']}"] if status.get("Addr") else []),
    ]
    if manager:
        lines += ["Manager Status:", f" Address:\t\t{manager['Addr']}"]
        lines += [
            f" Raft Status:\t\t{manager['Reachability'].title()}",
            f" Leader:\t\t{'Yes' if manager.get('Leader') else 'No'}",
        ]
    platform = description["Platform"]
    lines += ["Platform:", f" Operating System:\t{platform['OS']}", f" Architecture:\t\t{platform['Architecture']}"]
    lines += ["Resources:", f" CPUs:\t\t\t{resources.get('NanoCPUs', 0) // 10**9}"]
    lines += [f" Memory:\t\t{human_binary_size(resources.get('MemoryBytes', 0))}"]
    plugins: dict[str, list[str]] = {}
    for plugin in description["Engine"].get("Plugins") or ():
        plugins.setdefault(plugin["Type"], []).append(plugin["Name"])
    lines += (
        ["Plugins:", *(f" {kind}:\t\t{', '.join(names)}" for kind, names in sorted(plugins.items()))] if plugins else []
    )
    lines += [f"Engine Version:\t\t{description['Engine']['EngineVersion']}"]
    return "\n".join([*lines, *_labels(description["Engine"].get("Labels"), "Engine Labels:")])


PRETTY: Final[Mapping[str, Callable[[Dict], str]]] = {
    "service": service,
    "node": node,
    "secret": secret,
    "config": config,
}
