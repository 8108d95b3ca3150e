"""Fields of a create request that this engine cannot honour yet: refused by name, never ignored."""

from collections.abc import Iterator, Mapping
from typing import Final

from bennu.engine.log_attributes import check_tag
from bennu.engine.logs.options import parse_log_options
from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.model import ContainerConfig, HostConfig

RUNTIMES: Final = ("crun", "runc")
SHIMS: Final = {"io.containerd.runc.v2": "runc"}


def runtime_names(oci_runtime: str) -> list[str]:
    """List the names by which containers may ask for the runtime; `runc` is Docker's word for whatever runs them."""
    return [oci_runtime] if oci_runtime == "runc" else [oci_runtime, "runc"]


def refuse_unsupported(config: ContainerConfig, host: HostConfig, oci_runtime: str, added: Mapping[str, str]) -> None:
    """Refuse unsupported fields. `added`: runtimes that bennud was told of.

    Raises: NotImplementedHere naming the first; InvalidParameter if unknown anywhere.
    """
    parse_log_options(host.log_config.type, host.log_config.config or {})
    check_tag(host.log_config.config or {})
    named = host.runtime or oci_runtime
    asked = SHIMS.get(named, named)
    if asked not in RUNTIMES and named not in added:
        raise InvalidParameter(f"unknown or invalid runtime name: {host.runtime}")
    if asked not in runtime_names(oci_runtime):
        raise NotImplementedHere(
            f"HostConfig.Runtime {host.runtime} is not implemented here: this engine runs containers with "
            f"{oci_runtime} (bennud --default-runtime)"
        )
    for field in _unsupported(config, host):
        raise NotImplementedHere(f"{field} is not implemented")


def _unsupported(config: ContainerConfig, host: HostConfig) -> Iterator[str]:
    for field, asked in (
        ("Config.NetworkDisabled", config.network_disabled),
        ("HostConfig.BlkioWeightDevice", host.blkio_weight_device),
        ("HostConfig.BlkioDeviceReadBps", host.blkio_device_read_bps),
        ("HostConfig.BlkioDeviceWriteBps", host.blkio_device_write_bps),
        ("HostConfig.BlkioDeviceReadIOps", host.blkio_device_read_iops),
        ("HostConfig.BlkioDeviceWriteIOps", host.blkio_device_write_iops),
        ("HostConfig.Cgroup", host.cgroup),
        ("HostConfig.StorageOpt", host.storage_opt),
    ):
        if asked:
            yield field
