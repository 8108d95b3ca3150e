"""The configuration and history of an image while it is being planned, as BuildKit writes them. Pure."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.dockerfile.statements import ProbeSettings
from bennu.go.rfc3339 import format_rfc3339

COMMENT: Final = "buildkit.dockerfile.v0"
EXPORTER_COMMENT: Final = "buildkit.exporter.image.v0"
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL: Final = ("/bin/sh", "-c")
# What an image's configuration may say; anything else that a base has is its own and not passed on.
FACTS: Final = ("author", "architecture", "os", "os.version", "os.features", "variant")
CONFIG: Final = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
    *("ArgsEscaped", "Healthcheck", "OnBuild", "Shell"),
)
HISTORY: Final = ("created", "created_by", "author", "comment", "empty_layer")
MAX_TEXT: Final = 4 << 20  # letters of all history; a plan is kept in memory, and a config has to be read again


@dataclass(slots=True)
class ImageDraft:
    """What is known of an image so far."""

    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    created: str = ""  # of new history; "" = when its layer is made
    written: int = 0
    env_places: dict[str, int] = field(default_factory=dict)  # where in `Env` a name stands

    @classmethod
    def of(cls, image: Mapping[str, Any]) -> "ImageDraft":
        """Begin from an image's configuration; its own time is not the new image's."""
        config = image.get("config") or {}
        history = image.get("history") or []
        return cls(
            {name: copy.deepcopy(image[name]) for name in FACTS if image.get(name)},
            {name: copy.deepcopy(config[name]) for name in CONFIG if config.get(name)},
            [{name: entry[name] for name in HISTORY if entry.get(name)} for entry in history],
        )

    @classmethod
    def empty(cls, platform: str) -> "ImageDraft":
        system, architecture, variant = (*platform.split("/"), "")[:3]
        facts = {"architecture": architecture, "os": system} | ({"variant": variant} if variant else {})
        return cls(facts, {"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"})

    def child(self) -> "ImageDraft":
        """Begin a stage from another: its triggers are for this one, and not of it."""
        config = {name: copy.copy(value) for name, value in self.config.items() if name != "OnBuild"}
        return ImageDraft(dict(self.facts), config, list(self.history), self.created)

    def commit(self, text: str, *, layer: bool = False, marked: bool = False) -> None:
        """Add a line of history; `marked`: its step is BuildKit's. Raises: DockerfileError when it is all too much."""
        self.written += len(text)
        if self.written > MAX_TEXT:
            raise DockerfileError(f"the history of the image is longer than {MAX_TEXT} letters")
        entry: dict[str, Any] = {"created": self.created} if self.created else {}
        entry |= {"created_by": f"{text} # buildkit" if marked else text, "comment": COMMENT}
        self.history.append(entry if layer else entry | {"empty_layer": True})

    def set_variant(self, variant: str) -> None:
        """Set the variant of the architecture; "" = it has none."""
        self.facts.pop("variant", None)
        if variant:
            self.facts["variant"] = variant

    # --- what instructions set ----------------------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        """The variables; of two entries of one name the later counts."""
        return {name: value for name, _, value in (one.partition("=") for one in self.config.get("Env", ()))}

    def set_env(self, name: str, value: str) -> None:
        """Set a variable where it stands, or behind all others."""
        env = self.config.setdefault("Env", [])
        if not self.env_places:  # of two entries of one name the first is set
            self.env_places = {one.partition("=")[0]: at for at, one in reversed(list(enumerate(env)))}
        if (at := self.env_places.get(name)) is None:
            self.env_places[name] = len(env)
            env.append(f"{name}={value}")
        else:
            env[at] = f"{name}={value}"

    def merge(self, name: str, values: Mapping[str, Any]) -> None:
        """Add entries to a field that is a table."""
        self.config.setdefault(name, {}).update(values)

    def set_or_drop(self, name: str, value: object) -> None:
        """Set a field, or leave it out when it says nothing."""
        if value:
            self.config[name] = value
        else:
            self.config.pop(name, None)

    def in_shell(self, words: Sequence[str]) -> list[str]:
        return [*(self.config.get("Shell") or DEFAULT_SHELL), " ".join(words)]

    def set_probe(self, probe: ProbeSettings) -> None:
        times = {
            "Interval": probe.interval_ns,
            "Timeout": probe.timeout_ns,
            "StartPeriod": probe.start_period_ns,
            "StartInterval": probe.start_interval_ns,
            "Retries": probe.retries,
        }
        self.config["Healthcheck"] = {"Test": list(probe.test)} | {name: one for name, one in times.items() if one}

    def write(self) -> dict[str, Any]:
        """Answer the configuration without `rootfs` and `created`; fields in the order that BuildKit writes them."""
        config = {name: self.config[name] for name in CONFIG if name in self.config}
        return self.facts | {"config": config, "history": self.history}


def finish_config(config: Mapping[str, Any], diff_ids: Sequence[str], times_ns: Sequence[int | None]) -> dict[str, Any]:
    """Answer a whole configuration: each layer with its line of history and its time.

    times_ns: when each layer was made, lowest first; None where that is not known. A line without a layer has the time
    of the layer before it, and of the first new one if there is none. Layers unknown to history get a line each.
    """
    history = [dict(entry) for entry in config.get("history", ())]
    of_layers = [entry for entry in history if not entry.get("empty_layer")]
    for entry in of_layers[len(diff_ids) :]:
        entry["empty_layer"] = True
    written = min(len(of_layers), len(diff_ids))
    times = [format_rfc3339(time_ns) if time_ns is not None else None for time_ns in times_ns]
    for time in times[written:]:
        entry = {"created": time} if time else {}
        history.append(entry | {"created_by": "created by buildkit", "comment": EXPORTER_COMMENT})
    for entry, time in zip(of_layers, times, strict=False):
        if time:
            entry.setdefault("created", time)
    _fill_times(history)
    created = config.get("created") or next((one["created"] for one in reversed(history) if "created" in one), None)
    whole = {**config, "created": created, "history": history, "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}
    return dict(sorted(whole.items()))


def _fill_times(history: Sequence[dict[str, Any]]) -> None:
    """Give lines without a layer a time: that of the first new layer, or of the last before."""
    known, is_new = None, False
    for entry in history:
        if "created" not in entry:
            is_new = True
            continue
        known = entry["created"]
        if is_new:
            break
    is_new = False
    for entry in history:
        if "created" in entry:
            known = entry["created"] if is_new else known
        else:
            is_new = True
            if known:
                entry["created"] = known
