"""The core's frozen dataclasses as JSON and back, driven by their annotations alone.

Law: `load(kind, dump(value)) == value` for every value of a kind made of dataclasses, named tuples, enums, tuples,
frozen sets, mappings, `bytes` that are text, numbers, text and None. A union of dataclasses is told apart by the
class's name under "$". Fields that have their default are left out, so a new field with a default reads old state;
what became of other shapes of earlier versions is in `upgrades.py`.
"""

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, Final, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from bennu.cluster.upgrades import UPGRADES

T = TypeVar("T")
Loader = Callable[[Any], Any]

PLAIN: Final[Mapping[Any, tuple[type, ...]]] = {int: (int,), str: (str,), bool: (bool,), float: (float, int)}
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode


def encode(value: Any) -> bytes:
    return _encode(dump(value))


def decode(kind: type[T], data: bytes) -> T:
    load: Any = _loader
    loaded: T = load(kind)(_decode(data))
    return loaded


def dump(value: Any) -> Any:
    """Turn a value into plain data of the kinds JSON knows."""
    if value is None or isinstance(value, bool | str) or type(value) in (int, float):
        return value
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        kept: dict[str, Any] = {"$": type(value).__name__}
        defaults: Any = _defaults
        for name, default in defaults(type(value)):
            part = getattr(value, name)
            if part != default:
                kept[name] = dump(part)
        return kept
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Mapping):
        return {str(key): dump(part) for key, part in value.items()}
    if isinstance(value, frozenset):
        return sorted((dump(part) for part in value), key=repr)
    if isinstance(value, tuple | list):
        return [dump(part) for part in value]
    raise TypeError(f"cannot be stored: {type(value).__name__}")


@functools.cache
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:
    nothing = object()
    found = []
    for field in fields(kind):
        default: Any = nothing
        if field.default is not MISSING:
            default = field.default
        elif field.default_factory is not MISSING:
            default = field.default_factory()
        found.append((field.name, default))
    return tuple(found)


@functools.cache
def _loader(kind: Any) -> Loader:
    """Make the function that builds a value of `kind` from plain data."""
    if isinstance(kind, NewType):
        return _loader(kind.__supertype__)
    origin = get_origin(kind)
    if origin is Union or origin is types.UnionType:
        return _union(get_args(kind))
    if origin is not None:
        return _generic(origin, get_args(kind))
    if is_dataclass(kind):
        return _dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        loaders = [_loader(part) for part in get_type_hints(kind).values()]
        return lambda data: kind(*(load(part) for load, part in zip(loaders, data, strict=True)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    if kind is bytes:
        return lambda data: data.encode()
    if kind in PLAIN:
        return functools.partial(_plain, PLAIN[kind])
    return lambda data: data


def _plain(kinds: tuple[type, ...], data: Any) -> Any:
    if type(data) not in kinds:
        raise TypeError(f"{str(data)[:40]!r} is not of type {kinds[0].__name__}")
    return data


def _dataclass(kind: Any) -> Loader:
    loaders: dict[str, Loader] = {}
    upgrade = UPGRADES.get(kind)

    def load(data: Mapping[str, Any]) -> Any:
        if not loaders:  # not earlier: a dataclass may hold its own kind
            loaders.update((name, _loader(hint)) for name, hint in get_type_hints(kind).items())
        if upgrade is not None:
            data = upgrade(data)
        return kind(**{name: loaders[name](part) for name, part in data.items() if name in loaders})

    return load


def _union(parts: tuple[Any, ...]) -> Loader:
    load_part: Any = _loader
    classes = {str(getattr(part, "__name__", "")): load_part(part) for part in parts if is_dataclass(part)}
    others = [part for part in parts if part is not type(None) and not is_dataclass(part)]
    lists = next((_loader(part) for part in others if get_origin(part) in (frozenset, tuple)), None)
    plain = next((_loader(part) for part in others if get_origin(part) not in (frozenset, tuple)), None)

    def load(data: Any) -> Any:
        if data is None:
            return None
        if isinstance(data, dict) and "$" in data:
            return classes[data["$"]](data)
        if isinstance(data, list) and lists is not None:
            return lists(data)
        return plain(data) if plain is not None else data

    return load


def _generic(origin: Any, parts: tuple[Any, ...]) -> Loader:
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        each = _loader(parts[0])
        return lambda data: tuple(each(part) for part in data)
    if origin is tuple:
        loaders = [_loader(part) for part in parts]
        return lambda data: tuple(load(part) for load, part in zip(loaders, data, strict=True))
    if origin is frozenset:
        each = _loader(parts[0])
        return lambda data: frozenset(each(part) for part in data)
    each = _loader(parts[1])
    return lambda data: {key: each(part) for key, part in data.items()}
