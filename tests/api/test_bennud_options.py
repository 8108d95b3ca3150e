"""bennud's command line, configuration file, sockets and locks."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bennu.daemon.config_file import parse_file
from bennu.daemon.flags import FLAGS, Kind, Use, help_lines, parse_arguments
from bennu.daemon.hosts import Tls
from bennu.daemon.options import check_options, read_options
from bennu.daemon.proxies import read_proxies
from bennu.daemon.reload import read_again, reload_attributes, sanitized
from bennu.daemon.sockets import hold_roots, listen_unix, remove_stale
from bennu.engine.context import Resolving
from bennu.engine.defaults import is_cgroup_v2
from bennu.engine.settings import EngineSettings
from bennu.errors import BennuError, Conflict, InvalidParameter
from bennu.model import Ulimit
from bennu.network import NetworkSettings
from bennu.runtime.container_defaults import ContainerDefaults
from bennu.runtime.seccomp import Seccomp
from bennu.runtime.seccomp_profile import SeccompProfile


def options(*arguments: str, file: Path | None = None):  # type: ignore[no-untyped-def]
    return read_options([*arguments, *(("--config-file", str(file)) if file else ())])


def test_without_arguments_everything_is_in_its_usual_place() -> None:
    got = check_options({})
    assert got.data_root == Path("/var/lib/bennu")
    assert got.exec_root == Path("/run/bennu")
    assert got.hosts == ("unix:///run/bennu/bennu.sock",)
    assert (got.log_level, got.oci_runtime, got.default_stop_timeout_s, got.warnings) == ("info", "crun", 10, ())


def test_values_come_after_a_blank_an_equals_sign_or_a_short_name() -> None:
    spoken = ["--data-root", "/d", "--exec-root=/e", "-H", "unix:///a", "-Hunix:///b", "-l=debug", "-p", "/p"]
    got = check_options(parse_arguments(spoken))
    assert (got.data_root, got.exec_root) == (Path("/d"), Path("/e"))
    assert got.hosts == ("unix:///a", "unix:///b")
    assert (got.log_level, got.pidfile) == ("debug", Path("/p"))


def test_how_many_certificates_are_kept_is_read() -> None:
    assert check_options({}).keep_deaths == 100
    assert check_options(parse_arguments(["--keep-deaths=7"])).keep_deaths == 7


def test_debug_is_a_log_level() -> None:
    assert check_options(parse_arguments(["-D"])).log_level == "debug"
    assert check_options(parse_arguments(["--debug=false"])).log_level == "info"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--storage-driver", "overlay2"],
        ["-s", "overlay2"],
        ["--userland-proxy-path=/x"],
        ["--containerd", "/run/containerd/containerd.sock"],
        ["--live-restore"],
        ["--network-control-plane-mtu=1400", "--containerd-namespace=x"],
        ["--allow-nondistributable-artifacts=10.0.0.0/8", "--add-runtime", "kata=/usr/bin/kata"],
    ],
)
def test_dockerds_other_flags_are_accepted_with_one_warning_each(arguments: list[str]) -> None:
    names = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    warnings = check_options(parse_arguments(arguments)).warnings
    assert len(warnings) == len(names)
    assert all("no effect" in warning for warning in warnings)


@pytest.mark.parametrize("name", sorted(name for name, flag in FLAGS.items() if flag.use is Use.REFUSED))
def test_flags_that_promise_safety_are_refused_and_not_ignored(name: str) -> None:
    value = [] if FLAGS[name].kind is Kind.SWITCH else ["x"]
    with pytest.raises(InvalidParameter, match=f"--{name} is not implemented"):
        check_options(parse_arguments([f"--{name}", *value]))


def test_switching_an_absent_safety_off_is_fine() -> None:
    assert check_options(parse_arguments(["--tlsverify=false", "--selinux-enabled=false"]))


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("tcp://127.0.0.1:2377", "tcp://127.0.0.1:2377"),
        ("tcp://", "tcp://127.0.0.1:2376"),
        ("tcp://:2399", "tcp://127.0.0.1:2399"),
        ("tcp://:", "tcp://127.0.0.1:2376"),
        ("tcp://[::]:2399", "tcp://[::]:2399"),
        ("0.0.0.0", "tcp://0.0.0.0:2376"),
        ("tcp://[::1]", "tcp://[::1]:2376"),
    ],
)
def test_tcp_is_for_clients_with_certificates_on_dockers_port(given: str, host: str) -> None:
    options = check_options(parse_arguments(["--tlsverify", "--tlskey=/etc/bennu/key.pem", "-H", given]))
    assert options.hosts == (host,)
    home = Path.home() / ".docker"
    assert options.tls == Tls(home / "ca.pem", home / "cert.pem", Path("/etc/bennu/key.pem"))


def test_networks_and_names_are_the_administrators_choice() -> None:
    usual = check_options({})
    assert usual.network == NetworkSettings() and usual.resolving == Resolving()
    spoken = ["--bip=10.9.0.1/24", "--mtu=1400", "--icc=false", "--ip-masq=false", "--ip", "127.0.0.1"]
    spoken += ["--default-address-pool", "base=10.8.0.0/16,size=24", "--default-address-pool=size=64,base=fd00:7::/48"]
    spoken += ["--ipv6", "--bip6=fd00::1/64", "--fixed-cidr=10.9.0.128/25", "--fixed-cidr-v6=fd00::/80"]
    spoken += ["--default-gateway=10.9.0.254", "--default-gateway-v6=fd00::fe", "--allow-direct-routing"]
    spoken += ["--userland-proxy=false", "--ip-forward=false", "--ip-forward-no-drop", "--bridge-accept-fwmark=1/0xff"]
    spoken += ["--default-network-opt", "bridge=com.docker.network.driver.mtu=1300", "--firewall-backend=nftables"]
    spoken += ["--socket-lb=false"]
    spoken += ["--dns=9.9.9.9", "--dns", "2620:fe::fe", "--dns-search=here.example", "--dns-opt=ndots:2"]
    got = check_options(parse_arguments(spoken))
    assert got.network == NetworkSettings(
        ipv6=True,
        bip="10.9.0.1/24",
        bip6="fd00::1/64",
        fixed_cidr="10.9.0.128/25",
        fixed_cidr_v6="fd00::/80",
        default_gateway="10.9.0.254",
        default_gateway_v6="fd00::fe",
        allow_direct_routing=True,
        userland_proxy=False,
        ip_forward=False,
        ip_forward_no_drop=True,
        accept_fwmark="0x1/0xff",
        default_options={"bridge": {"com.docker.network.driver.mtu": "1300"}},
        mtu=1400,
        icc=False,
        ip_masq=False,
        ip="127.0.0.1",
        socket_lb=False,
        pools=(("10.8.0.0/16", 24), ("fd00:7::/48", 64)),
    )
    assert got.resolving == Resolving(("9.9.9.9", "2620:fe::fe"), ("here.example",), ("ndots:2",))
    assert got.warnings == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "unknown flag: --bogus"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-H"], "flag needs an argument: -H"),
        (["extra"], "unknown argument: 'extra'"),
        (["-D=maybe"], 'invalid argument "maybe" for "--debug" flag'),
        (["-l", "loud"], "invalid logging level: loud"),
        (["-H", "tcp://127.0.0.1:2375"], "listens on TCP only with --tlsverify"),
        (["-H", "127.0.0.1:2375"], "listens on TCP only with --tlsverify"),
        (["--tls", "-H", "tcp://127.0.0.1:2376"], "listens on TCP only with --tlsverify"),
        (["--tlsverify=false", "-H", "tcp://127.0.0.1:2376"], "listens on TCP only with --tlsverify"),
        (["--tlsverify", "-H", "tcp://127.0.0.1:port"], "invalid bind address (tcp://127.0.0.1:port)"),
        (["--tlsverify", "-H", "tcp://127.0.0.1:99999"], "use tcp://ADDRESS:PORT"),
        (["--tlsverify", "-H", "tcp://127.0.0.1:2376/v1"], "use tcp://ADDRESS:PORT"),
        (["-H", "npipe:////./pipe/x"], "invalid bind address"),
        (["-H", "unix://" + "/x" * 60], "longer than the 107 bytes"),
        (["--default-runtime", "kata"], "unknown or invalid runtime name: kata"),
        (["--default-stop-timeout", "soon"], "not a whole number"),
        (["--data-root", "/"], "a root cannot be /"),
        (["--keep-deaths=0"], "not a number from 1 to 1000000"),
        (["--keep-deaths", "some"], "not a number from 1 to 1000000"),
        (["--mtu=big"], "not a number from 0 to 65535"),
        (["--ip", "here"], "here is not an ip address"),
        (["--dns", "8.8.8"], "8.8.8 is not an ip address"),
        (["--default-address-pool", "10.0.0.0/8"], "invalid field '10.0.0.0/8' must be a key=value pair"),
        (["--default-address-pool", "base=10.0.0.0/8,width=9"], "unexpected key 'width' in 'width=9'"),
        (["--default-address-pool", "base=10.0.0.0/24,size=16"], "size must be from 24 to 30"),
        (["--default-address-pool", "base=nowhere,size=16"], "nowhere"),
        (["--default-address-pool", "base=fd00::/64,size=127"], "size must be from 64 to 126"),
        (["-b", "br9", "--bip=10.0.0.1/24"], "You specified -b & --bip, mutually exclusive options."),
        (["-b", "br9", "--bip6=fd00::1/64"], "You specified -b & --bip6, mutually exclusive options."),
        (["--iptables=false", "--icc=false"], "You specified --iptables=false with --icc=false."),
        (["--ipv6", "--ip6tables=false", "--icc=false"], "You specified --ip6tables=false with --icc=false."),
        (["--bip", "10.0.0.1"], "parse --bip failed: invalid CIDR address: 10.0.0.1"),
        (["--ipv6", "--fixed-cidr-v6", "10.0.0.0/8"], "parse --fixed-cidr-v6 failed"),
        (["--default-gateway", "fd00::1"], "fd00::1 is not an IPv4 address"),
        (["--bridge-accept-fwmark", "1/2/3"], "not MARK[/MASK]"),
        (["--default-network-opt", "bridge=mtu"], "must be of the form DRIVER=OPTION=VALUE"),
        (
            ["--default-network-opt", "bridge=com.docker.network.driver.mtu=x"],
            "failed to parse com.docker.network.driver",
        ),
    ],
)
def test_nonsense_is_told_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        check_options(parse_arguments(arguments))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_configuration_file_speaks_the_same_names(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(
        json.dumps(
            {
                "hosts": ["unix:///a"],
                "data-root": "/d",
                "debug": True,
                "log-opts": {"max-size": "1m"},
                "default-stop-timeout": 5,
                "live-restore": True,
                "icc": False,
                "mtu": 1400,
                "default-address-pools": [{"base": "10.8.0.0/16", "size": 24}],
                "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1300"}},
            }
        )
    )
    got = options(file=file)
    assert (got.hosts, got.data_root, got.log_level) == (("unix:///a",), Path("/d"), "debug")
    assert got.default_stop_timeout_s == 5
    assert (got.network.icc, got.network.mtu, got.network.pools) == (False, 1400, (("10.8.0.0/16", 24),))
    assert got.network.default_options == {"bridge": {"com.docker.network.driver.mtu": "1300"}}
    assert got.engine.containers.log_options == {"max-size": "1m"}
    assert len(got.warnings) == 1


def test_a_setting_in_both_places_is_a_conflict(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"data-root": "/d"}')
    with pytest.raises(InvalidParameter, match="specified both as a flag and in the configuration file: data-root"):
        options("--data-root", "/e", file=file)
    file.write_text('{"proxies": {"http-proxy": "https://me:secret@proxy.example"}, "labels": ["a=b"]}')
    spoken = ["--http-proxy=https://me:secret@proxy.example", "--label=a=b", "--label=c=d"]
    with pytest.raises(InvalidParameter) as refused:
        options(*spoken, file=file)
    masked = "https://xxxxx:xxxxx@proxy.example"
    assert str(refused.value).endswith(
        f"http-proxy: (from flag: {masked}, from file: {masked}), labels: (from flag: [a=b c=d], from file: [a=b])"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "invalid JSON: Expecting property name"),
        ("[]", "it must hold one JSON object"),
        (r'{"data-root": "/a\u0000b"}', "invalid JSON: a NUL character in a string"),
        ('{"bogus": 1}', "don't match any configuration option: bogus"),
        ('{"proxies": {"ftp-proxy": "x"}}', "don't match any configuration option: ftp-proxy"),
        ('{"debug": 7}', r"cannot unmarshal number into Go struct field Config.debug of type bool"),
        ('{"labels": "x"}', r"cannot unmarshal string into Go struct field Config.labels of type \[\]string"),
        ('{"mtu": "1400"}', r"cannot unmarshal string into Go struct field Config.mtu of type int"),
        ('{"data-root": 7}', r"cannot unmarshal number into Go struct field Config.data-root of type string"),
    ],
)
def test_a_bad_configuration_file_is_named_with_its_problem(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(content)
    with pytest.raises(BennuError, match=problem) as refused:
        parse_file(file, {})
    assert str(refused.value).startswith(f"unable to configure the Docker daemon with file {file}: ")
    with pytest.raises(BennuError, match="no such file"):
        parse_file(tmp_path / "absent", {})


def test_help_shows_what_is_honoured() -> None:
    text = "\n".join(help_lines())
    assert "--data-root" in text
    assert "--userland-proxy-path" not in text


# --- containers, registries, proxies, plugins -------------------------------------------------------------------


def engine(*spoken: str) -> EngineSettings:
    return check_options(parse_arguments(spoken)).engine


def test_what_containers_do_not_say_is_the_administrators_choice(tmp_path: Path) -> None:
    profile = tmp_path / "seccomp.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_LOG"}')
    spoken = ["--default-ulimit", "nofile=64:128", "--default-ulimit=core=-1", "--default-shm-size=1.5g", "--init"]
    spoken += ["--default-ipc-mode=shareable", "--default-cgroupns-mode=private", "--cgroup-parent=docker"]
    spoken += ["--no-new-privileges", "--seccomp-profile", str(profile), "--init-path=/opt/init"]
    got = engine(*spoken)
    assert got.containers == ContainerDefaults(
        ulimits=(Ulimit(name="nofile", soft=64, hard=128), Ulimit(name="core", soft=-1, hard=-1)),
        shm_size=3 << 29,
        init=True,
        ipc_mode="shareable",
        cgroupns_mode="private",
        cgroup_parent="/docker",
        no_new_privileges=True,
        seccomp=SeccompProfile.parse(profile.read_text()),
    )
    assert (got.seccomp_profile, got.init_path) == (str(profile), "/opt/init")
    assert engine("--seccomp-profile=").containers.seccomp is None
    assert engine("--seccomp-profile=builtin").seccomp_profile == engine().seccomp_profile == "builtin"
    assert engine("--seccomp-profile=unconfined").containers.seccomp is Seccomp.UNCONFINED


def test_registries_are_the_administrators_choice() -> None:
    spoken = ["--registry-mirror=https://m.example", "--registry-mirror", "http://n.example:5000/"]
    spoken += ["--insecure-registry=10.0.0.0/8", "--insecure-registry", "http://r.example:5000"]
    got = engine(*spoken, "--max-concurrent-downloads=7").registries
    assert got.mirrors == ("https://m.example/", "http://n.example:5000/")
    assert got.hosts == ("r.example:5000",)
    assert [str(network) for network in got.networks] == ["10.0.0.0/8", "::1/128", "127.0.0.0/8"]
    assert got.downloads == 7
    assert engine("--max-concurrent-downloads=0").registries.downloads == 3


@pytest.mark.parametrize(
    ("spoken", "folders"),
    [
        ([], ("/etc/cdi", "/var/run/cdi")),
        (["--feature", "cdi"], ("/etc/cdi", "/var/run/cdi")),
        (["--cdi-spec-dir=/a", "--cdi-spec-dir", "/b", "--feature=cdi=true"], ("/a", "/b")),
        (["--cdi-spec-dir="], ()),
        (["--feature=cdi=false"], ()),
        (["--feature=cdi=false", "--cdi-spec-dir=/a"], ()),
    ],
)
def test_cdi_folders(spoken: list[str], folders: tuple[str, ...]) -> None:
    assert engine(*spoken).cdi_folders == folders


def test_an_empty_list_of_cdi_folders_in_the_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"cdi-spec-dirs": [], "features": {"cdi": true, "other": false}}')
    assert options(file=file).engine.cdi_folders == ()


def test_proxies_come_from_options_else_from_the_environment() -> None:
    spoken = parse_arguments(["--http-proxy=http://me:secret@p.example:3128/", "--no-proxy=a.example,10.0.0.0/8"])
    environment = {"https_proxy": "http://you:secret@q.example", "HTTP_PROXY": "http://unused.example"}
    assert read_proxies(spoken, environment) == {
        "http-proxy": "http://xxxxx:xxxxx@p.example:3128/",
        "https-proxy": "http://xxxxx:xxxxx@q.example",
        "no-proxy": "a.example,10.0.0.0/8",
    }


def test_authorization_plugins_are_asked_once_each_and_in_order() -> None:
    words = [f"--authorization-plugin={name}" for name in ("b", "a", "b")]
    assert engine(*words).authorization_plugins == ("b", "a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--default-ulimit=nofile"], "invalid ulimit argument: nofile"),
        (["--default-ulimit=bogus=1"], "invalid ulimit type: bogus"),
        (["--default-ulimit=nofile=2:1"], "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        (["--default-shm-size=much"], "invalid size: 'much'"),
        (["--log-opt=max-siez=1m"], "failed to set log opts: unknown log opt 'max-siez' for json-file log driver"),
        (
            ["--log-driver=local", "--log-opt=tag=x"],
            "failed to set log opts: unknown log opt 'tag' for log driver local",
        ),
        (["--log-driver=syslog"], "the log driver syslog is not implemented"),
        (["--default-ipc-mode=host"], 'IPC mode "host" is not supported as default value'),
        (["--default-ipc-mode=bogus"], "default IPC mode setting (bogus) is invalid"),
        (["--default-cgroupns-mode=bogus"], "invalid default cgroup namespace (bogus)"),
        (["--cgroup-parent=/a/../b"], "invalid cgroup parent"),
        (["--seccomp-profile=/nowhere"], "opening seccomp profile (/nowhere) failed"),
        (["--exec-opt=native.cgroupdriver=systemd"], "native.cgroupdriver=systemd is not implemented"),
        (["--exec-opt=native.cgroupdriver=none"], "native.cgroupdriver option none not supported"),
        (["--exec-opt=isolation=process"], "option 'isolation' is only supported on windows"),
        (["--exec-opt=bogus=1"], "unknown option: 'bogus'"),
        (["--exec-opt=bogus"], "must be in format option=value"),
        (["--registry-mirror=m.example"], 'no scheme specified for "m.example"'),
        (["--registry-mirror=ftp://m.example"], 'unsupported scheme "ftp"'),
        (["--registry-mirror=https://m.example?x=1"], "query or fragment"),
        (["--registry-mirror=https://me:secret@m.example"], 'not allowed in URI "https://me:xxxxx@m.example"'),
        (["--insecure-registry=-x"], "Cannot begin or end with a hyphen"),
        (["--insecure-registry=ftp://x"], "should not contain '://'"),
        (["--insecure-registry=x:99999"], 'invalid port "99999"'),
        (["--feature=cdi=perhaps"], 'invalid argument "cdi=perhaps" for "--feature" flag'),
        (["--log-level=loud"], "invalid logging level: loud"),
        (["--log-format=xml"], "invalid log format: xml"),
        (["--max-concurrent-downloads=-1"], "invalid max concurrent downloads: -1"),
        (["--max-download-attempts=-1"], "invalid max download attempts: -1"),
        (["--storage-opt=overlay2.size=1g"], "--storage-opt overlay2.size=1g is not implemented"),
        (["--metrics-addr=here"], "it must look like ADDRESS:PORT"),
        (["--label=bare"], "bad attribute format: bare"),
        (["--label=a=1", "--label=a=2"], "conflict labels for a=2 and a=1"),
    ],
)
def test_settings_that_cannot_be_are_told_in_dockers_words(arguments: list[str], message: str) -> None:
    with pytest.raises(BennuError) as refused:
        check_options(parse_arguments(arguments))
    assert message in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_was_changed_changes_what_may_change(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(
        '{"debug": true, "mtu": 1400, "max-concurrent-downloads": 9, "labels": ["a=b"], "features": {"x": true}}'
    )
    before = options("--insecure-registry=10.0.0.0/8", "--http-proxy=http://me:secret@p", file=file)
    file.write_text('{"debug": false, "mtu": 1300, "default-shm-size": "1m", "registry-mirrors": ["http://m"]}')
    after, left = read_again(before)
    assert left == ["mtu"]
    assert (after.log_level, after.engine.debug, after.network.mtu) == ("info", False, 1400)
    assert after.engine.containers.shm_size == 1 << 20
    assert (after.engine.registries.mirrors, after.engine.registries.downloads) == (("http://m/",), 3)
    assert after.engine.labels == ("a=b",)
    assert reload_attributes(after) == {
        "debug": "false",
        "default-cgroupns-mode": "private" if is_cgroup_v2() else "host",
        "default-ipc-mode": "private",
        "default-runtime": "crun",
        "default-shm-size": "1048576",
        "features": "map[]",
        "insecure-registries": '["10.0.0.0/8"]',
        "labels": '["a=b"]',
        "live-restore": "true",
        "max-concurrent-downloads": "3",
        "max-concurrent-uploads": "5",
        "max-download-attempts": "5",
        "registry-mirrors": '["http://m"]',
        "runtimes": "",
        "shutdown-timeout": "15",
    }
    assert sanitized(after.settings)["http-proxy"] == "http://xxxxx:xxxxx@p"
    file.write_text('{"debug": tru}')
    with pytest.raises(BennuError, match="unable to configure the Docker daemon with file"):
        read_again(before)


# --- sockets and locks ------------------------------------------------------------------------------------------


def test_a_socket_is_for_its_owner_and_group_only_from_the_first_moment(tmp_path: Path) -> None:
    listener = listen_unix(tmp_path / "new" / "s", "")
    assert stat.S_IMODE((tmp_path / "new" / "s").stat().st_mode) == 0o660
    listener.close()
    assert not (tmp_path / "new" / "s").exists()


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen_unix(path, "")
    with pytest.raises(Conflict, match="another process listens there"):
        remove_stale(path)
    first.socket.close()  # as the kernel does for a process that was killed
    assert path.exists()
    listen_unix(path, "").close()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(Conflict, match="is no socket"):
        listen_unix(path, "")
    assert path.read_text() == "precious"


def test_an_unknown_group_is_told(tmp_path: Path) -> None:
    with pytest.raises(BennuError, match="group nobody-knows-it not found"):
        listen_unix(tmp_path / "s", "nobody-knows-it")


def test_roots_belong_to_one_process_and_the_second_is_told_which(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bennu.daemon.sockets import hold_roots\n"
        "with hold_roots(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "root")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(Conflict, match=rf"in use by another bennud \(pid {holder.pid}\)"),
            hold_roots(tmp_path / "other", tmp_path / "root"),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.communicate()
    with hold_roots(tmp_path / "other", tmp_path / "root"):
        assert (tmp_path / "root" / "lock").read_text() == f"{os.getpid()}\n"


def test_passed_sockets_need_a_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bennu.daemon.sockets import passed_sockets

    monkeypatch.delenv("LISTEN_PID", raising=False)
    with pytest.raises(BennuError, match="no sockets found via socket activation"):
        passed_sockets()


def test_a_listener_accepts_at_once(tmp_path: Path) -> None:
    listener = listen_unix(tmp_path / "s", "")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    listener.close()


def test_what_a_node_has_is_read() -> None:
    words = ["--label", "disk=ssd", "--node-generic-resource", "gpu=2"]
    words += ["--node-generic-resource", "fpga=left", "--node-generic-resource", "fpga=right"]
    node = check_options(parse_arguments(words)).node
    assert node.labels == {"disk": "ssd"}
    assert node.generic == {"gpu": 2, "fpga": frozenset({"left", "right"})}
    for wrong in (["gpu"], ["gpu=1", "gpu=left"]):
        with pytest.raises(InvalidParameter, match="node-generic-resource"):
            check_options(parse_arguments([word for entry in wrong for word in ("--node-generic-resource", entry)]))
