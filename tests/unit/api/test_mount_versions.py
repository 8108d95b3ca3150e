"""Options of mounts, and the API version that each of them needs."""

import pytest

from bennu.api.routes.older_clients import translate
from bennu.errors import InvalidParameter
from bennu.model import BindOptions, ContainerConfig, HostConfig, Mount, NetworkingConfig, TmpfsOptions, VolumeOptions

NEWEST = 60


def adapt_mounts(host: HostConfig, minor: int) -> None:
    translate(ContainerConfig(), host, NetworkingConfig(), minor, cgroup_v2=True)


@pytest.mark.parametrize(
    ("mount", "minor", "message"),
    [
        (
            Mount(type="bind", volume_options=VolumeOptions()),
            42,
            'VolumeOptions must not be specified on mount type "bind"',
        ),
        (
            Mount(type="volume", bind_options=BindOptions()),
            42,
            'BindOptions must not be specified on mount type "volume"',
        ),
        (
            Mount(type="image", tmpfs_options=TmpfsOptions()),
            48,
            'TmpfsOptions must not be specified on mount type "image"',
        ),
    ],
)
def test_options_of_another_type_are_wrong_since_1_42(mount: Mount, minor: int, message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{message}$"):
        adapt_mounts(HostConfig(mounts=[mount]), minor)


def test_older_clients_cannot_have_meant_them() -> None:
    bind = Mount(
        type="bind",
        bind_options=BindOptions(create_mountpoint=True, non_recursive=True),
        volume_options=VolumeOptions(),
        tmpfs_options=TmpfsOptions(),
    )
    adapt_mounts(HostConfig(mounts=[bind]), 41)
    assert bind == Mount(type="bind", bind_options=BindOptions(non_recursive=True))
    adapt_mounts(HostConfig(mounts=[bind]), 39)
    assert bind == Mount(type="bind", bind_options=BindOptions())


@pytest.mark.parametrize(
    ("mount", "since", "name"),
    [
        (
            Mount(type="bind", bind_options=BindOptions(read_only_force_recursive=True)),
            44,
            "BindOptions.ReadOnlyForceRecursive",
        ),
        (Mount(type="volume", volume_options=VolumeOptions(subpath="a")), 45, "VolumeOptions.Subpath"),
        (Mount(type="image"), 48, 'Mount type "Image"'),
    ],
)
def test_what_must_not_be_passed_over_is_refused_by_name(mount: Mount, since: int, name: str) -> None:
    host = HostConfig(mounts=[mount])
    with pytest.raises(InvalidParameter, match=f"^{name} needs API v1.{since} or newer$"):
        adapt_mounts(host, since - 1)
    for minor in (since, NEWEST):
        adapt_mounts(host, minor)
