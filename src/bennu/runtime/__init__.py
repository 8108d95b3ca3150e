"""Processes of containers: OCI bundle, conmon, crun. Knows processes, knows no policy."""

from bennu.runtime.attach import AttachStream
from bennu.runtime.failures import NotAlive, RuntimeFailure
from bennu.runtime.runtime import BundleRequest, Created, ExitRecord, Recovered, Runtime

__all__ = [
    "AttachStream",
    "BundleRequest",
    "Created",
    "ExitRecord",
    "NotAlive",
    "Recovered",
    "Runtime",
    "RuntimeFailure",
]
