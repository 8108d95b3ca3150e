"""What clients may ask to be mounted, and the words for what they may not."""

from pathlib import Path

import pytest

from bennu.engine.mount_parser import is_mode, parse_bind, parse_mount, parse_volumes_from
from bennu.engine.mounts import plan_mounts
from bennu.errors import BennuError, InvalidParameter
from bennu.model import (
    BindOptions,
    ContainerConfig,
    HostConfig,
    ImageOptions,
    Mount,
    TmpfsOptions,
    VolumeDriverConfig,
    VolumeOptions,
)

ROOT = Path("/var/lib/bennu")
BIND, VOLUME, TMPFS, IMAGE = (
    f'invalid mount config for type "{kind}": ' for kind in ("bind", "volume", "tmpfs", "image")
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/x", ("volume", "", "/x", "", False, "")),
        ("name:/x", ("volume", "name", "/x", "", False, "")),
        ("name:/x:ro,nocopy,Z,cached", ("volume", "name", "/x", "ro,nocopy,Z,cached", True, "")),
        ("/s/../t/:/x/../y/:ro,rslave", ("bind", "/t", "/y", "ro,rslave", True, "rslave")),
        ("/s:/x:", ("bind", "/s", "/x", "", False, "")),
        ("/s:/x:consistent", ("bind", "/s", "/x", "consistent", False, "")),
        ("/s:/ro", ("bind", "/s", "/ro", "", False, "")),
    ],
)
def test_binds(text: str, expected: tuple[object, ...]) -> None:
    found = parse_bind(text)
    assert (found.type, found.source, found.target, found.mode, found.read_only, found.propagation) == expected
    assert found.anonymous == (not found.source)
    assert found.local_mode == ("z" if found.type == "volume" else "")


SPEC = "invalid volume specification: '{}'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((f"/x:{mode}", SPEC) for mode in ("", "ro", "rw", "z", "nocopy", "rshared", "ro,z")),
        *((text, SPEC) for text in ("", ":/x", "::", "a:/x:ro:z")),
        ("/x::", f"{SPEC}: {BIND}field Target must not be empty"),
        ("a:x", f"{SPEC}: {VOLUME}invalid mount path: 'x' mount path must be absolute"),
        ("/s:x:ro", f"{SPEC}: {BIND}invalid mount path: 'x' mount path must be absolute"),
        ("a:/", f"{SPEC}: {VOLUME}invalid specification: destination can't be '/'"),
        ("/s:/.//", f"{SPEC}: {BIND}invalid specification: destination can't be '/'"),
        ("/s:/\\", f"{SPEC}: {BIND}invalid specification: destination can't be '/'"),
        ("/s:/x:nocopy", f"{SPEC}: {BIND}field VolumeOptions must not be specified"),
        ("name:/x:rslave", f"{SPEC}: {VOLUME}field BindOptions must not be specified"),
        *((f"/s:/x:{mode}", f"invalid mode: {mode}") for mode in ("bad", ",ro", "ro,rw", "z,Z", "shared,rslave")),
        ("/s:/x:cached,delegated", "invalid mode: cached,delegated"),
    ],
)
def test_binds_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(BennuError) as caught:
        parse_bind(text)
    assert str(caught.value) == message.format(text)
    assert type(caught.value) is BennuError, "dockerd answers 500"


def test_a_name_that_no_volume_has_is_refused_as_the_volumes_do() -> None:
    with pytest.raises(InvalidParameter, match=r"^create v: volume name is too short"):
        parse_bind("v:/x")
    with pytest.raises(InvalidParameter, match=r'^create ./a: "./a" includes invalid characters'):
        parse_bind("./a:/x")


def test_a_mode_has_one_word_of_each_kind() -> None:
    assert is_mode("ro,z,rslave,nocopy,cached") and is_mode("")
    assert not any(map(is_mode, ("ro,ro", "nocopy,nocopy", "ro,", "RO", "slave,rslave")))


def test_volumes_from() -> None:
    assert parse_volumes_from("c") == ("c", False, "")
    assert parse_volumes_from("c:ro,z") == ("c", True, "ro,z")
    for text, message in (
        ("", "volumes-from specification cannot be an empty string"),
        ("c:nocopy", "invalid mode: nocopy"),
        ("c:rslave", "invalid mode: rslave"),
    ):
        with pytest.raises(InvalidParameter, match=f"^{message}$"):
            parse_volumes_from(text)


def mount(kind: str, **fields: object) -> Mount:
    return Mount(**{"type": kind, "target": "/x", "source": "/" if kind == "bind" else "", **fields})  # type: ignore[arg-type]


SUBPATH = "subpath must be a relative path within the volume"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (mount("bind", target=""), BIND + "field Target must not be empty"),
        (mount("bind", target="x"), BIND + "invalid mount path: 'x' mount path must be absolute"),
        (mount("bind", source=""), BIND + "field Source must not be empty"),
        (mount("bind", source="rel"), BIND + "invalid mount path: 'rel' mount path must be absolute"),
        (mount("bind", source="/no/such"), BIND + "bind source path does not exist: /no/such"),
        (mount("bind", bind_options=BindOptions(propagation="bad")), BIND + "invalid propagation mode: bad"),
        (mount("bind", volume_options=VolumeOptions()), BIND + "field VolumeOptions must not be specified"),
        (mount("volume", read_only=True), VOLUME + "must not set ReadOnly mode when using anonymous volumes"),
        (mount("volume", bind_options=BindOptions()), VOLUME + "field BindOptions must not be specified"),
        (
            mount("volume", volume_options=VolumeOptions(subpath="a")),
            VOLUME + "must not set Subpath when using anonymous volumes",
        ),
        *(
            (mount("volume", source="v", volume_options=VolumeOptions(subpath=path)), VOLUME + SUBPATH)
            for path in ("/a", "..", "../a", "a/../../b")
        ),
        (mount("tmpfs", source="a"), TMPFS + "field Source must not be specified"),
        (mount("tmpfs", tmpfs_options=TmpfsOptions(options=[["uid", "0"]])), TMPFS + "invalid option: uid"),
        (mount("tmpfs", tmpfs_options=TmpfsOptions(options=[[]])), TMPFS + "invalid option array length"),
        (mount("image"), IMAGE + "field Source must not be empty"),
        (mount("image", source="i", image_options=ImageOptions(subpath="../a")), IMAGE + SUBPATH),
        (
            mount("image", source="i", volume_options=VolumeOptions()),
            IMAGE + "field VolumeOptions must not be specified",
        ),
        (mount("npipe"), 'invalid mount config for type "npipe": mount type unknown'),
    ],
)
def test_mounts_that_are_refused(asked: Mount, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_mount(asked)
    assert str(caught.value) == message


def test_mounts_keep_what_only_their_options_say() -> None:
    options = VolumeOptions(
        no_copy=True,
        labels={"a": "b"},
        subpath="a/../b",
        driver_config=VolumeDriverConfig(name="d", options={"o": "1"}),
    )
    found = parse_mount(mount("volume", source="v", volume_options=options))
    assert (found.no_copy, found.labels, found.driver, found.driver_options) == (True, {"a": "b"}, "d", {"o": "1"})
    assert found.spec is not None and found.spec.volume_options is options
    assert parse_mount(mount("bind")).spec is None
    assert parse_mount(mount("image", source="i")).read_only


def plan(*binds: str, mounts: list[Mount] | None = None, tmpfs: dict[str, str] | None = None, **how: bool):  # type: ignore[no-untyped-def]
    host = HostConfig(binds=list(binds), mounts=mounts, tmpfs=tmpfs)
    return plan_mounts(ContainerConfig(), host, [], ROOT, **how)


def test_a_target_may_come_once() -> None:
    for how, word in (
        ({"binds": ("/s:/x", "v0:/x/")}, "/x"),
        ({"binds": ("/s:/x",), "mounts": [mount("tmpfs", target="/x/")]}, "/x/"),
        ({"binds": ("/s:/x",), "tmpfs": {"/x": ""}}, "/x"),
    ):
        with pytest.raises(InvalidParameter, match=f"^Duplicate mount point: {word}$"):
            plan(*how.pop("binds"), **how)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize("source", ["/", "/var", str(ROOT), f"{ROOT}/volumes"])
def test_a_bind_mount_that_shows_the_data_root_follows_what_is_unmounted_there(source: str) -> None:
    [planned] = plan(f"{source}:/x")
    assert planned.propagation == "rslave"
    assert plan(f"{source}:/x:rshared")[0].propagation == "rshared"
    for propagation in ("private", "rprivate", "slave", "shared"):
        with pytest.raises(InvalidParameter, match=r"^invalid mount config: must use either propagation mode"):
            plan(f"{source}:/x:{propagation}")


def test_other_bind_mounts_propagate_nothing() -> None:
    assert [one.propagation for one in plan("/var/lib/bennu2:/x", "/varia:/y", "var0:/z")] == ["", "", ""]


def test_read_only_stops_at_other_mounts_for_clients_that_know_no_more() -> None:
    mounts = [mount("bind", target="/b", read_only=True, bind_options=BindOptions(propagation="rslave"))]
    read_only, writable, typed = plan("/s:/x:ro", "/s:/y", mounts=mounts, recursive_read_only=False)
    for planned in (read_only, typed):
        assert planned.spec.bind_options.read_only_non_recursive and planned.spec.read_only
    assert typed.spec.bind_options.propagation == "rslave" and writable.spec is None
    assert plan("/s:/x:ro")[0].spec is None
    assert not mounts[0].bind_options.read_only_non_recursive, "the client's own words stay"  # type: ignore[union-attr]
