"""What an entry of `HostConfig.Mounts` means in the API version that its client speaks, as dockerd reads it."""

from bennu.errors import InvalidParameter
from bennu.model import HostConfig, Mount


def adapt_mounts(host: HostConfig, minor: int) -> None:
    """Drop options that this version has not and that older clients cannot have meant.

    Raises: InvalidParameter for options that are wrong in this version, or that must not be passed over.
    """
    for mount in host.mounts or ():
        if minor < 42:
            _drop(mount, minor)
        else:
            _refuse_strange(mount)
        _refuse_newer(mount, minor)


def _drop(mount: Mount, minor: int) -> None:
    if mount.bind_options is not None:
        mount.bind_options.create_mountpoint = False
        mount.bind_options.non_recursive = mount.bind_options.non_recursive and minor >= 40
    if mount.type != "volume":
        mount.volume_options = None
    if mount.type != "tmpfs":
        mount.tmpfs_options = None


def _refuse_strange(mount: Mount) -> None:
    for name, kind, options in (
        ("VolumeOptions", "volume", mount.volume_options),
        ("BindOptions", "bind", mount.bind_options),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options),
    ):
        if options is not None and mount.type != kind:
            raise InvalidParameter(f'{name} must not be specified on mount type "{mount.type}"')


def _refuse_newer(mount: Mount, minor: int) -> None:
    bind, volume = mount.bind_options, mount.volume_options
    for name, since, given in (
        ("BindOptions.ReadOnlyForceRecursive", 44, bind is not None and bind.read_only_force_recursive),
        ("VolumeOptions.Subpath", 45, volume is not None and volume.subpath != ""),
        ('Mount type "Image"', 48, mount.type == "image"),
    ):
        if given and minor < since:
            raise InvalidParameter(f"{name} needs API v1.{since} or newer")
