"""bennud's log: lines of text or of JSON on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

LOG_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
NAMES: Final = {logging.WARNING: "warning", logging.CRITICAL: "fatal"}


class JsonFormatter(logging.Formatter):
    """Writes a record as dockerd's `--log-format json` does: one object with level, msg and time."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "level": NAMES.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "msg": record.getMessage(),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told)


def begin_log(level: str, form: str) -> None:
    """Let everything be logged that is at least of `level`; `form` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(handlers=[handler])
    set_level(level)
    for library in ("pyroute2", "asyncio", "aiohttp"):
        logging.getLogger(library).setLevel(logging.WARNING)  # their debugging is not ours


def set_level(level: str) -> None:
    logging.getLogger().setLevel(LOG_LEVELS[level])
