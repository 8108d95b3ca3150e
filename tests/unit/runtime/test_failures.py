"""What crun 1.8.1 and runc 1.1.5 wrote when a process could not be started, and what clients are told."""

from typing import Any

import pytest

from bennu.runtime.failures import CLASH_HINT, CREATE_PREFIX, EXEC_PREFIX, create_failure, exec_failure

START = "unable to start container process: "
INIT = START + "error during container init: "


def spec(*args: str, cwd: str = "/") -> dict[str, Any]:
    mounts = [
        {"source": "/srv/file", "destination": "/adir"},
        {"source": "/srv/dir", "destination": "/afile"},
        {"source": "/srv/deep", "destination": "/afile/x"},
        {"source": "/nosrc", "destination": "/data"},
        {"source": "tmpfs", "destination": "/t"},
    ]
    return {"process": {"args": list(args), "cwd": cwd}, "mounts": mounts}


# program, what crun wrote, what is told, exit code
CREATE = [
    pytest.param(
        "nosuch",
        "executable file `nosuch` not found in $PATH: No such file or directory\n",
        START + 'exec: "nosuch": executable file not found in $PATH',
        127,
        id="not-found",
    ),
    pytest.param(
        "/nosuch/path",
        "executable file `/nosuch/path` not found in $PATH: No such file or directory\n",
        START + 'exec: "/nosuch/path": stat /nosuch/path: no such file or directory',
        127,
        id="path-missing",
    ),
    pytest.param(
        "./nosuch",
        "executable file `./nosuch` not found in $PATH: No such file or directory\n",
        START + 'exec: "./nosuch": stat ./nosuch: no such file or directory',
        127,
        id="relative-path-missing",
    ),
    pytest.param(
        "/etc/passwd",
        "open executable: Permission denied\n",
        START + 'exec: "/etc/passwd": permission denied',
        126,
        id="not-executable",
    ),
    pytest.param(
        "/etc",
        "open executable: Operation not permitted\n",
        START + 'exec: "/etc": is a directory: permission denied',
        126,
        id="is-a-directory",
    ),
    pytest.param(
        "/etc/passwd/x",
        "open executable: Not a directory\n",
        START + 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory',
        127,
        id="parent-is-a-file",
    ),
    pytest.param(
        "",
        "open executable: Operation not permitted\n",
        START + 'exec: "": executable file not found in $PATH',
        127,
        id="empty-program",
    ),
    pytest.param(
        "true",
        "error stat'ing file `/nosrc`: No such file or directory\n",
        INIT + 'error mounting "/nosrc" to rootfs at "/data": stat /nosrc: no such file or directory',
        127,
        id="mount-source-missing",
    ),
    pytest.param(
        "true",
        "mount `tmpfs` to `t`: Invalid argument\n",
        INIT + 'error mounting "tmpfs" to rootfs at "/t": invalid argument',
        128,
        id="tmpfs-option",
    ),
    pytest.param(
        "true",
        "the sysctl `kernel.nosuch` is not namespaced\n",
        'sysctl "kernel.nosuch" is not in a separate kernel namespace',
        128,
        id="sysctl-of-the-host",
    ),
    pytest.param(
        "true",
        "write to /proc/sys/kernel/shmmax: Invalid argument\n",
        INIT + "write /proc/sys/kernel/shmmax: invalid argument",
        128,
        id="sysctl-value",
    ),
    pytest.param("true", "sethostname: Invalid argument\n", INIT + "sethostname: invalid argument", 128, id="hostname"),
    pytest.param(
        "true",
        "setrlimit `RLIMIT_NOFILE`: Operation not permitted\n",
        INIT + "setrlimit `RLIMIT_NOFILE`: operation not permitted",
        128,
        id="limit-above-ours",
    ),
    pytest.param(
        "true",
        "writing file `cpuset.cpus`: Numerical result out of range\n",
        START + "unable to apply cgroup configuration: write cpuset.cpus: numerical result out of range",
        128,
        id="cpuset",
    ),
    pytest.param(
        "true",
        "open `/proc/999999/ns/pid`: No such file or directory\n",
        START + "open `/proc/999999/ns/pid`: no such file or directory",
        127,
        id="namespace-missing",
    ),
    pytest.param(
        "true",
        "some warning\nsomething new: Out of luck\n",
        START + "something new: out of luck",
        128,
        id="a-sentence-never-seen",
    ),
    pytest.param("true", "", START + "the runtime gave no reason", 128, id="silence"),
]


@pytest.mark.parametrize(("program", "stderr", "told", "exit_code"), CREATE)
def test_a_failed_creation_is_told_in_runcs_words(program: str, stderr: str, told: str, exit_code: int) -> None:
    failure = create_failure(stderr, spec(program))
    assert str(failure) == CREATE_PREFIX + told + ": unknown"
    assert failure.exit_code == exit_code


@pytest.mark.parametrize(
    ("stderr", "source", "target"),
    [
        pytest.param("mount `/srv/file` to `adir`: Not a directory\n", "/srv/file", "/adir", id="file-onto-directory"),
        pytest.param("mount `/srv/dir` to `afile`: Not a directory\n", "/srv/dir", "/afile", id="directory-onto-file"),
        pytest.param("mkdir `/afile/x`: Not a directory\n", "/srv/deep", "/afile/x", id="below-a-file"),
    ],
)
def test_mounts_that_do_not_fit_come_with_advice(stderr: str, source: str, target: str) -> None:
    failure = create_failure(stderr, spec("true"))
    told = f'error mounting "{source}" to rootfs at "{target}": not a directory: unknown'
    assert str(failure) == f"{CREATE_PREFIX}{INIT}{told}: {CLASH_HINT}"
    assert failure.exit_code == 127


def test_a_working_directory_that_is_a_file() -> None:
    failure = create_failure("chdir `/etc/passwd`: Not a directory\n", spec("true", cwd="/etc/passwd"))
    assert str(failure) == CREATE_PREFIX + INIT + "mkdir /etc/passwd: not a directory: unknown"


@pytest.mark.parametrize(
    ("stderr", "told", "exit_code"),
    [
        pytest.param(
            'time="2026-11-23T20:52:05Z" level=error msg="runc create failed: unable to start container process: '
            'exec: \\"nosuch\\": executable file not found in $PATH"\n',
            START + 'exec: "nosuch": executable file not found in $PATH',
            127,
            id="not-found",
        ),
        pytest.param(
            'time="2026-11-23T20:52:08Z" level=warning msg="lstat /sys/fs/cgroup/devices/x: no such file"\n'
            'time="2026-11-23T20:52:08Z" level=error msg="runc create failed: sysctl \\"kernel.nosuch\\" is not in a '
            'separate kernel namespace"\n',
            'sysctl "kernel.nosuch" is not in a separate kernel namespace',
            128,
            id="after-a-warning",
        ),
    ],
)
def test_runcs_own_words_are_kept(stderr: str, told: str, exit_code: int) -> None:
    failure = create_failure(stderr, spec("nosuch"))
    assert str(failure) == CREATE_PREFIX + told + ": unknown"
    assert failure.exit_code == exit_code


@pytest.mark.parametrize(
    ("program", "stderr", "told", "exit_code"),
    [
        pytest.param(
            "nosuch",
            "executable file `nosuch` not found in $PATH: No such file or directory\n",
            'exec: "nosuch": executable file not found in $PATH',
            127,
            id="not-found",
        ),
        pytest.param(
            "/bin/script",
            "exec: Exec format error\n",
            'exec: "/bin/script": exec format error',
            128,
            id="format",
        ),
        pytest.param("id", "chdir `/nowhere`: No such file or directory\n", None, 127, id="working-directory"),
    ],
)
def test_a_failed_exec_is_told_in_runcs_words(program: str, stderr: str, told: str | None, exit_code: int) -> None:
    failure = exec_failure(stderr, [program], "/nowhere")
    told = told or 'chdir to cwd ("/nowhere") set in config.json failed: no such file or directory'
    assert str(failure) == EXEC_PREFIX + START + told + ": unknown"
    assert failure.exit_code == exit_code
