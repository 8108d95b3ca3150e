"""Runs the processes of containers: OCI bundles, conmon, crun. Knows processes, knows no policy."""

from bennu.runtime.attach import AttachStream
from bennu.runtime.bundle import find_living
from bennu.runtime.capabilities import parse_capabilities
from bennu.runtime.devices import DeviceNode, parse_device_rule
from bennu.runtime.exec import ExecProcess, ExecRequest
from bennu.runtime.failures import NotAlive, RuntimeFailure
from bennu.runtime.hostfacts import HostFacts
from bennu.runtime.probe_exec import ProbeExec, ProbeExecResult
from bennu.runtime.records import BundleRequest, Created, ExitRecord, Recovered
from bennu.runtime.runtime import Runtime
from bennu.runtime.seccomp_profile import SeccompProfile
from bennu.runtime.security import Security, parse_security_options
from bennu.runtime.spec import SpecRequest, build_env, build_spec, container_group
from bennu.runtime.stats import Stats
from bennu.runtime.users import User, find_user

__all__ = [
    "AttachStream",
    "BundleRequest",
    "Created",
    "DeviceNode",
    "ExecProcess",
    "ExecRequest",
    "ExitRecord",
    "HostFacts",
    "NotAlive",
    "ProbeExec",
    "ProbeExecResult",
    "Recovered",
    "Runtime",
    "RuntimeFailure",
    "SeccompProfile",
    "Security",
    "SpecRequest",
    "Stats",
    "User",
    "build_env",
    "build_spec",
    "container_group",
    "find_living",
    "find_user",
    "parse_capabilities",
    "parse_device_rule",
    "parse_security_options",
]
