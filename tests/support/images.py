"""The base images, built from Debian packages by `examples/base-images`, and the programs of the examples on top."""

import subprocess
from pathlib import Path

from support.cli import Cli, cache_dir

EXAMPLES = Path(__file__).parents[2] / "examples"


def base_image(name: str) -> Path:
    """The tar file of `busybox` or `python`; built now if it was never built."""
    subprocess.run([EXAMPLES / "base-images"], env=None, check=True)
    return cache_dir() / "images" / f"{name}.tar"


def import_base(cli: Cli, name: str) -> str:
    """Give a daemon the image; its reference."""
    reference = f"{name}:latest"
    if not cli("images", "-q", reference).out:
        command = {"busybox": 'CMD ["sh"]', "python": 'CMD ["python3"]'}[name]
        cli("import", "-c", command, base_image(name), reference, timeout_s=120)
    return reference


def build_example(cli: Cli, name: str, tag: str, *more: str) -> str:
    """Build `examples/NAME`; its reference."""
    if not cli("images", "-q", tag).out:
        cli("build", "-t", tag, *more, EXAMPLES / name, timeout_s=180)
    return tag
