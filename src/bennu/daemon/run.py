"""The life of the process: read options, take the roots, open the engine, answer until told to end.

SIGTERM and SIGINT end bennud and leave every container running; the next bennud on the same roots takes them up.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bennu.api.app import make_app
from bennu.api.http.serve import ApiServer
from bennu.api.routes.metrics import render
from bennu.cluster import open_cluster
from bennu.daemon.hosts import open_context
from bennu.daemon.log_output import begin_log
from bennu.daemon.options import Options
from bennu.daemon.proxies import export_proxies
from bennu.daemon.reload import Reloader
from bennu.daemon.sockets import hold_roots, listen_tcp, open_listeners
from bennu.descriptors import keep_back
from bennu.engine.engine import Engine, EngineOptions, open_engine
from bennu.errors import BennuError
from bennu.plugins import AUTHORIZATION, PATIENCE_S

SWITCH_S: Final = 0.001  # how long a thread that computes keeps the event loop waiting, each time it wants to go on
log = logging.getLogger("bennud")


def start(options: Options) -> None:
    """Run to the end. Raises: BennuError when it cannot begin."""
    begin_log(options.log_level, options.log_format)
    export_proxies(options.proxies)
    for warning in options.warnings:
        log.warning("%s", warning)
    os.umask(0o022)
    sys.setswitchinterval(SWITCH_S)
    with hold_roots(options.data_root, options.exec_root), written_pid(options.pidfile):
        if sys.version_info < (3, 12):  # the default watcher there starts a thread per child
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
        asyncio.run(serve(options, raise_file_limit()))


def raise_file_limit() -> tuple[int, int]:
    """Let bennud open as many files as it may, but for a reserve: each container takes some, and a shell gives 1,024.

    Answers what it had (soft, hard): that is for the containers, as under dockerd, whose language does the same.
    """
    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    keep_back()
    return given


def start_threads() -> ThreadPoolExecutor:
    """Start now all threads that blocking work may use, so that some exist when no more can be started.

    Raises: BennuError.
    """
    count = min(32, (os.cpu_count() or 1) + 4)  # asyncio's own measure
    threads = ThreadPoolExecutor(count, thread_name_prefix="blocking")
    together = threading.Barrier(count)
    try:
        for _ in range(count):
            threads.submit(together.wait)
    except RuntimeError as error:  # those that wait for the others would do so for ever
        together.abort()
        raise BennuError(f"cannot start {count} threads: {error}") from error
    return threads


async def serve(options: Options, given_files: tuple[int, int]) -> None:
    """Answer requests until a signal says to end. Raises: BennuError."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(start_threads())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    tls = open_context(options.tls) if options.tls else None
    listeners = open_listeners(options.hosts, options.group, exec_root=options.exec_root, has_tls=tls is not None)
    try:
        async with (
            open_engine(engine_options(options, given_files)) as engine,
            open_cluster(engine, options.node) as cluster,
        ):
            for name in options.engine.authorization_plugins:
                await find_judge(engine, name)
            server = ApiServer(make_app(engine, cluster))
            await server.start([listener.socket for listener in listeners], tls)
            loop.add_signal_handler(signal.SIGHUP, Reloader(options, engine, cluster).reload_soon)
            for host in options.hosts:
                log.info("API listen on %s", host.removeprefix("unix://"))
            if options.metrics:
                await server.serve_metrics(listen_tcp(*options.metrics).socket, lambda: render(engine))
                log.info("metrics server listen on %s:%d", *options.metrics)
            engine.begin()
            cluster.begin()
            notify("READY=1")
            await ending.wait()
            notify("STOPPING=1")
            await server.close()
            if options.shutdown_containers:
                log.info("ending; stopping all containers")
                await engine.shut_down()
            else:
                log.info("ending; containers live on")
    finally:
        for listener in listeners:
            listener.close()


async def find_judge(engine: Engine, name: str) -> None:
    """Find an authorization plugin, which may be about to start. Raises: BennuError: nothing may run without it."""
    try:
        await engine.services.plugins.find(name, AUTHORIZATION, patience_s=PATIENCE_S)
    except BennuError as error:
        raise BennuError(f"failed to validate authorization plugin: {error}") from error


def engine_options(options: Options, given_files: tuple[int, int]) -> EngineOptions:
    return EngineOptions(
        data_root=options.data_root,
        exec_root=options.exec_root,
        network=options.network,
        resolving=options.resolving,
        oci_runtime=options.oci_runtime,
        default_stop_timeout_s=options.default_stop_timeout_s,
        keep_deaths=options.keep_deaths,
        given_files=given_files,
        settings=options.engine,
    )


@contextlib.contextmanager
def written_pid(path: Path | None) -> Iterator[None]:
    """Keep the pid in a file while the block runs. Raises: BennuError."""
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{os.getpid()}")
    except OSError as error:
        raise BennuError(f"cannot write the pid file {path}: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def notify(state: str) -> None:
    """Tell the service manager, if one listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
