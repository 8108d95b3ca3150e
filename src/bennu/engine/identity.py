"""The name an engine keeps for life: a file in its data root, as dockerd has it."""

import uuid
from pathlib import Path
from typing import Final

from bennu.errors import BennuError
from bennu.files import replace_file

FILE: Final = "engine-id"


def read_engine_id(data_root: Path) -> str:
    """Answer the id of the engine on this root, made at its first start. Blocks. Raises: BennuError."""
    path = data_root / FILE
    try:
        if path.exists() and (known := path.read_text().strip()):
            return known
        made = str(uuid.uuid4())
        replace_file(path, made.encode())
    except (OSError, UnicodeDecodeError) as error:
        raise BennuError(f"cannot use the engine's id in {path}: {error}") from None
    return made
