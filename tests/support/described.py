"""The facts of API 1.51 (`api-1.51.json`, made by `support.published`), held against the shapes of this program.

A type is a word (`integer`), the name of a type with fields, `[type]` for a list or `{"*": type}` for a map.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import inspect as shapes

from bennu.decoding import fold

Json = Any
FACTS: Final[Json] = json.loads((Path(__file__).parent / "api-1.51.json").read_text())
ROUTES: Final[dict[str, Json]] = FACTS["routes"]
TYPES: Final[dict[str, dict[str, Json]]] = FACTS["types"]
SOURCE: Final = Path(__file__).parents[2] / "src/bennu"


# --- what is asked ----------------------------------------------------------------------------------------------


def unread_fields(described: Json, shape: Any) -> Iterator[str]:
    """Yield each field of a described body that the shape does not read: `HostConfig.CpuCount`."""
    yield from _unread(described, shapes.type_info(shape), set())


def _unread(described: Json, kind: shapes.Type, within: set[str]) -> Iterator[str]:
    kinds = kind.types if isinstance(kind, shapes.UnionType) else (kind,)
    for one in kinds:
        match described, one:
            case [item], shapes.ListType(item_type=inner):
                yield from _unread(item, inner, within)
            case {"*": item}, shapes.DictType(value_type=inner):
                yield from _unread(item, inner, within)
            case str(), shapes.StructType(fields=fields) if described in TYPES and described not in within:
                known = {fold(field.encode_name): field.type for field in fields}
                for name, inner_type in TYPES[described].items():
                    if fold(name) not in known:
                        yield f"{described}.{name}"
                    else:
                        yield from _unread(inner_type, known[fold(name)], within | {described})


def attributes(shape: Any) -> Iterator[tuple[str, str]]:
    """Yield each field of a shape and of those in it, as `Shape.field` and as the attribute that holds it."""
    yield from _attributes(shapes.type_info(shape))


def _attributes(kind: shapes.Type) -> Iterator[tuple[str, str]]:
    match kind:
        case shapes.UnionType(types=types):
            for one in types:
                yield from _attributes(one)
        case shapes.ListType(item_type=inner) | shapes.DictType(value_type=inner):
            yield from _attributes(inner)
        case shapes.StructType(cls=cls, fields=fields):
            for field in fields:
                yield f"{cls.__name__}.{field.encode_name}", field.name
                yield from _attributes(field.type)


def words_of_the_source() -> set[str]:
    """Answer what is looked up or named by a string anywhere in the program, apart from where shapes are declared."""
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    return set(re.findall(r"\.(\w+)\b", text)) | set(re.findall(r'(?<!name=)"(\w+)"', text))


# --- what is answered -------------------------------------------------------------------------------------------


class Seen:
    """Collects what answers have of the described types."""

    def __init__(self) -> None:
        self.present: set[str] = set()  # `Type.Field`
        self.strange: set[str] = set()  # fields that no description has
        self.wrong: set[str] = set()  # fields of another type
        self.types: set[str] = set()

    def look(self, described: Json, value: Json, at: str = "") -> None:
        """Look at an answer of this type, and at all that is in it."""
        match described:
            case [item]:
                self._expect(isinstance(value, list | None), at, value)
                for entry in value if isinstance(value, list) else ():
                    self.look(item, entry, at)
            case {"*": item}:
                self._expect(isinstance(value, dict | None), at, value)
                for entry in value.values() if isinstance(value, dict) else ():
                    self.look(item, entry, at)
            case str() if described in TYPES:
                self._expect(isinstance(value, dict | None), at, value)
                if isinstance(value, dict):
                    self._look_at_fields(described, value)
            case _:
                self._expect(_is_of(described, value), at, value)

    def _look_at_fields(self, described: str, value: Json) -> None:
        self.types.add(described)
        for name, entry in value.items():
            if name not in TYPES[described]:
                self.strange.add(f"{described}.{name}")
                continue
            self.present.add(f"{described}.{name}")
            self.look(TYPES[described][name], entry, f"{described}.{name}")

    def _expect(self, fits: bool, at: str, value: Json) -> None:
        if not fits:
            self.wrong.add(f"{at} = {value!r:.60}")

    def absent(self) -> set[str]:
        """Answer the fields that no answer had, of the types that were looked at."""
        return {f"{name}.{field}" for name in self.types for field in TYPES[name]} - self.present


def _is_of(word: str, value: Json) -> bool:
    match word:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
    return True
