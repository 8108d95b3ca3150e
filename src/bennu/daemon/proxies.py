"""Proxies for what bennud fetches: from its options, else from its environment, which its helpers inherit."""

import logging
import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from bennu.daemon.flags import Settings

PROXIES: Final = ("http-proxy", "https-proxy", "no-proxy")
log = logging.getLogger("bennud")


def mask_credentials(url: str) -> str:
    """Replace a user and his password in a URL, which is shown to anybody who may ask."""
    try:
        parts = urlsplit(url)
        if "@" not in parts.netloc:
            return url
    except ValueError:
        return url
    return parts._replace(netloc=f"xxxxx:xxxxx@{parts.netloc.rpartition('@')[2]}").geturl()


def read_proxies(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Answer the proxies in force, without passwords: an option wins over the environment."""
    return {name: mask_credentials(str(settings.get(name) or _from(environment, name))) for name in PROXIES}


def _from(environment: Mapping[str, str], name: str) -> str:
    upper, lower = _variables(name)
    return environment.get(upper) or environment.get(lower, "")


def _variables(name: str) -> tuple[str, str]:
    upper = name.upper().replace("-", "_")
    return upper, upper.lower()


def export_proxies(proxies: Mapping[str, str]) -> None:
    """Put the options' proxies in the environment, where the programs that pull and push look for them."""
    for name, value in proxies.items():
        for variable in _variables(name):
            former = os.environ.get(variable, "")
            if former and former != value:
                log.warning(
                    "overriding existing proxy variable with value from configuration: name=%s old-value=%s "
                    "new-value=%s",
                    variable,
                    mask_credentials(former),
                    mask_credentials(value),
                )
            os.environ[variable] = value
