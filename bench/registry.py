"""An image of 500 MB by way of archives and of a registry on this machine."""

import hashlib
import io
import json
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.engines import Engine
from bench.rows import Row
from support import registries
from support.registries import run_registry

LAYERS, FILES, FILE_BYTES = 5, 100, 1 << 20
NAME = "bench-large:1"
GOAL = "1.0 of dockerd's"
Timed = Callable[[Engine], float]


def move_images(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """The engines in turn; medians. Each push goes to a registry that has nothing yet, each pull comes from one."""
    few = max(1, rounds // 5)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        archive = make_archive(Path(folder))
        rows = [
            row("docker load, 500 MB in 5 layers", engines, few, lambda engine: load(engine, archive)),
            row("docker save", engines, few, lambda engine: save(engine, Path(folder) / "saved")),
        ]
        if registries.program() is None:
            print("no docker-registry to push to: ./dev setup")
            return rows
        pushes: dict[str, list[float]] = {engine.name: [] for engine in engines}
        pulls: dict[str, list[float]] = {engine.name: [] for engine in engines}
        for _ in range(few):
            for engine in engines:
                with run_registry(prefix=engine.cli.prefix) as registry:
                    pushes[engine.name].append(push(engine, registry))
                    pulls[engine.name].append(pull(engine, registry, archive))
        for name, times in (("docker push to an empty registry", pushes), ("docker pull of what was pushed", pulls)):
            rows.append(Row(name, "s", {key: statistics.median(taken) for key, taken in times.items()}, GOAL))
        return rows


def row(name: str, engines: Sequence[Engine], rounds: int, timed: Timed) -> Row:
    print(f"… {name}", flush=True)
    times: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for _ in range(rounds):
        for engine in engines:
            times[engine.name].append(timed(engine))
    return Row(name, "s", {key: statistics.median(taken) for key, taken in times.items()}, GOAL)


def load(engine: Engine, archive: Path) -> float:
    remove(engine, NAME)
    return taken(engine, "load", "-q", "-i", str(archive))


def save(engine: Engine, target: Path) -> float:
    seconds = taken(engine, "save", "-o", str(target), NAME)
    target.unlink()
    return seconds


def push(engine: Engine, registry: str) -> float:
    engine.cli("tag", NAME, f"{registry}/{NAME}")
    return taken(engine, "push", "-q", f"{registry}/{NAME}")


def pull(engine: Engine, registry: str, archive: Path) -> float:
    """Pull into an engine that has none of the layers; what was loaded is there again afterwards."""
    remove(engine, f"{registry}/{NAME}", NAME)
    seconds = taken(engine, "pull", "-q", f"{registry}/{NAME}")
    remove(engine, f"{registry}/{NAME}")
    load(engine, archive)
    return seconds


def remove(engine: Engine, *names: str) -> None:
    for name in names:
        if engine.cli("images", "-q", name).out:
            engine.cli("rmi", "-f", name, timeout_s=120)


def taken(engine: Engine, *words: str) -> float:
    started = time.perf_counter()
    engine.cli(*words, timeout_s=600)
    return time.perf_counter() - started


def make_archive(folder: Path) -> Path:
    """Write an archive as docker saves them; half of its bytes compress well."""
    layers = [(name, make_layer(folder / name, number)) for number, name in enumerate("abcde"[:LAYERS])]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for _, digest in layers]},
    }
    documents = {"config.json": config}
    names = [name for name, _ in layers]
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": names}]
    archive = folder / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        for name in names:
            tar.add(folder / name, name)
            (folder / name).unlink()
        for name, document in {**documents, "manifest.json": manifest}.items():
            add(tar, name, json.dumps(document).encode())
    return archive


def make_layer(path: Path, number: int) -> str:
    """Write a layer of 100 files; its digest."""
    with tarfile.open(path, "w") as tar:
        for index, content in enumerate(contents(random.Random(number))):
            add(tar, f"usr/lib/{number}/file{index}", content)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(source: random.Random) -> Iterator[bytes]:
    words = [source.randbytes(8).hex().encode() for _ in range(2000)]
    for _ in range(FILES):
        text = b" ".join(source.choices(words, k=FILE_BYTES // 34))
        yield text + source.randbytes(FILE_BYTES - len(text))


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))
