"""What a published description of the Docker Engine API (Swagger 2.0, as Moby publishes it) names.

Our own table of routes cannot show what it lacks; this one names every route, parameter and field that clients know.

    python -m support.published v1.51.yaml > support/api-1.51.json    (from the folder of the tests)

writes the facts that `support.described` reads: names and types, and nothing of the text.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import inspect as shapes

from support.hostile import Hostile, Json, Place, Route, requests_for

METHODS: Final = ("get", "head", "post", "put", "delete")
KINDS: Final[dict[str, shapes.Type]] = {
    "string": shapes.StrType(),
    "integer": shapes.IntType(),
    "number": shapes.FloatType(),
    "boolean": shapes.BoolType(),
}
ANY: Final = shapes.AnyType()


class Description:
    """One version of the API."""

    def __init__(self, path: Path) -> None:
        self._all: Json = yaml.load(path.read_text(), yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)

    def requests(self, seed: int) -> Iterator[Hostile]:
        """Each once, mixed."""
        found = [
            request for route, schema in self.routes() for request in requests_for(route, dict(self._places(schema)))
        ]
        random.Random(seed).shuffle(found)
        return iter(found)

    def routes(self) -> Iterator[tuple[Route, Json]]:
        """With the schema of its body; {} for one that has none, or one that is no JSON."""
        for path, entry in self._all["paths"].items():
            for method in (word for word in METHODS if word in entry):
                given = [
                    self._resolve(one) for one in (*entry.get("parameters", ()), *entry[method].get("parameters", ()))
                ]
                schema = next((one.get("schema", {}) for one in given if one["in"] == "body"), {})
                named = tuple(one["name"] for one in given if one["in"] == "query")
                yield Route(method.upper(), path, bool(schema), named), schema

    def facts(self) -> Json:
        """Routes with the parameters of their query, the types of body and answer; the fields of each type."""
        types: Json = {}
        routes = {}
        for path, entry in self._all["paths"].items():
            for method in (word for word in METHODS if word in entry):
                operation, key = entry[method], f"{method.upper()} {path}"
                given = [self._resolve(one) for one in (*entry.get("parameters", ()), *operation.get("parameters", ()))]
                body = next((one.get("schema", {}) for one in given if one["in"] == "body"), {})
                answers = (operation["responses"].get(code, {}).get("schema") for code in (200, 201))
                routes[key] = {
                    "query": sorted(one["name"] for one in given if one["in"] == "query"),
                    "body": self._type(body, f"{key} body", types),
                    "answer": self._type(next(filter(None, answers), {}), f"{key} answer", types),
                }
        return {"routes": routes, "types": dict(sorted(types.items()))}

    def _type(self, schema: Json, name: str, types: Json) -> Json:
        """A word, the name of a type that is put into `types`, [type of entries] or {"*": type of values}."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            schema = self._resolve(schema)
        fields = self._fields(schema)
        if fields:
            if name not in types:
                types[name] = {}
                for key, one in fields.items():
                    types[name][key] = self._type(one, f"{name}.{key}", types)
            return name
        if "items" in schema:
            return [self._type(schema["items"], f"{name}[]", types)]
        if isinstance(schema.get("additionalProperties"), dict):
            return {"*": self._type(schema["additionalProperties"], f"{name}[]", types)}
        return schema.get("type", "") if schema.get("type") in KINDS else "any" if schema else ""

    def _fields(self, schema: Json) -> Json:
        found: Json = {}
        for part in schema.get("allOf", ()):
            found |= self._fields(self._resolve(part))
        return found | schema.get("properties", {})

    def _resolve(self, part: Json) -> Json:
        found = part
        for word in part["$ref"].removeprefix("#/").split("/") if "$ref" in part else ():
            found = self._all[word] if found is part else found[word]
        return found

    def _places(
        self, schema: Json, at: Place = (), within: tuple[str, ...] = ()
    ) -> Iterator[tuple[Place, shapes.Type]]:
        """Where a body can hold something. What holds its own kind is entered once."""
        name = schema.get("$ref", "")
        if name in within:
            return
        within = (*within, name) if name else within
        schema = self._resolve(schema)
        for part in schema.get("allOf", ()):
            yield from self._places(part, at, within)
        inner: dict[str | int, Json] = dict(schema.get("properties", {}))
        if "items" in schema:
            inner[0] = schema["items"]
        if isinstance(schema.get("additionalProperties"), dict):
            inner["key"] = schema["additionalProperties"]
        for key, one in inner.items():
            yield (*at, key), self._kind(one)
            yield from self._places(one, (*at, key), within)

    def _kind(self, schema: Json) -> shapes.Type:
        kind: Any = self._resolve(schema).get("type", "object")
        return KINDS.get(kind, ANY)


def main(path: str) -> None:
    """Write the facts, a route or a type a line."""
    facts = Description(Path(path)).facts()
    parts = []
    for name, entries in facts.items():
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
        parts.append(f"{json.dumps(name)}: {{\n{lines}\n}}")
    print("{" + ",\n".join(parts) + "}")


if __name__ == "__main__":
    main(sys.argv[1])
