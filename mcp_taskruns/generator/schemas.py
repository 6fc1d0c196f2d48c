"""Schemas of an OpenAPI document: their fields, and schemas of arguments without references."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from mcp_taskruns.generator.document import Document, Operation
from mcp_taskruns.generator.words import first_sentence, split_words

_MAX_COMPOSITION = 6
"""The depth of nested `allOf`, `oneOf` and `anyOf` that is followed."""

_MAX_FIELD_DEPTH = 3
_MAX_FIELDS = 1_000
"""The number of fields of a response that are looked at."""

_MAX_ARGUMENT_DEPTH = 4
_MAX_PROPERTIES = 40
"""The number of properties of an object inside an argument that are described."""

_MAX_PARTS = 150
"""The number of schemas inside an argument that are described; objects of some APIs contain each other."""

_COMPOSITIONS = ("allOf", "oneOf", "anyOf")
_LIMITS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "format", "default")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")

Flat = dict[str, Any]
"""A schema without references and compositions: `types`, `enum`, `properties`, `required`, `items`, `description`."""


@dataclass(frozen=True)
class Field:
    """A field of an object, with its path from there and its schema."""

    path: tuple[str, ...]
    schema: Flat

    @property
    def name(self) -> str:
        """The last step of the path."""
        return self.path[-1]

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the name."""
        return split_words(self.name)

    @property
    def enum(self) -> tuple[str, ...]:
        """The texts that the field may have."""
        return tuple(dict.fromkeys(value for value in self.schema["enum"] if isinstance(value, str)))

    @property
    def is_scalar(self) -> bool:
        """Whether the field has no fields of its own."""
        return not self.schema["properties"] and self.schema["items"] is None

    @property
    def is_time(self) -> bool:
        """Whether the field may be a timestamp: a text, or a Unix time."""
        return self.is_scalar and not self.schema["types"] & {"boolean"} and len(self.enum) < 2

    @property
    def is_number(self) -> bool:
        """Whether the field is a number."""
        return bool(self.schema["types"] & {"integer", "number"})

    def jsonpath(self) -> str:
        """Return the path as a JSONPath."""
        return jsonpath(self.path)


def jsonpath(path: tuple[str, ...]) -> str:
    """Return names of members as a JSONPath that starts with `$`."""
    return "$" + "".join(f".{step}" if re.fullmatch(r"[A-Za-z_]\w*", step) else f"['{step}']" for step in path)


@dataclass(frozen=True)
class Schemas:
    """The schemas of a document."""

    document: Document
    _flat: dict[str, Flat] = field(default_factory=dict, compare=False, repr=False)
    _responses: dict[Operation, list[Field]] = field(default_factory=dict, compare=False, repr=False)

    def flatten(self, schema: Any) -> Flat:
        """Return a schema with its references resolved and the parts of its compositions merged."""
        reference = schema.get("$ref") if isinstance(schema, Mapping) and len(schema) == 1 else None
        if not isinstance(reference, str):
            return self._flatten(schema, (), count())
        if reference not in self._flat:
            self._flat[reference] = self._flatten(schema, (), count())
        return self._flat[reference]

    def _flatten(self, schema: Any, outer: tuple[str, ...], parts: Iterator[int]) -> Flat:
        """Return a flat schema; `outer` are the references of the compositions around it, `parts` counts all parts."""
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        inner = (*outer, str(reference or ""))
        resolved = self.document.resolve(schema)
        if not isinstance(resolved, Mapping):
            resolved = {}
        written = resolved.get("type")
        flat: Flat = {
            "types": set(written if isinstance(written, list) else [written]) - {None, "null"},
            "enum": [*_list(resolved.get("enum")), *([resolved["const"]] if "const" in resolved else [])],
            "properties": dict(_mapping(resolved.get("properties"))),
            "required": {name for name in _list(resolved.get("required")) if isinstance(name, str)},
            "items": resolved.get("items"),
            "description": str(resolved.get("description") or ""),
            "format": resolved.get("format"),
        }
        is_circular = reference is not None and reference in outer
        if len(outer) < _MAX_COMPOSITION and not is_circular and next(parts) < _MAX_PARTS:
            for keyword in _COMPOSITIONS:
                self._merge(flat, [self._flatten(part, inner, parts) for part in _list(resolved.get(keyword))], keyword)
        return flat

    def _merge(self, flat: Flat, parts: list[Flat], keyword: str) -> None:
        for part in parts:
            for name, schema in part["properties"].items():
                known = flat["properties"].get(name)
                flat["properties"][name] = schema if known in (None, schema) else {"anyOf": [known, schema]}
            flat["types"] |= part["types"]
            flat["enum"] += part["enum"]
            flat["required"] |= part["required"] if keyword == "allOf" else set()
            for key in ("items", "format"):
                flat[key] = part[key] if flat[key] is None else flat[key]
            flat["description"] = flat["description"] or part["description"]

    def response_fields(self, operation: Operation) -> list[Field]:
        """Return the fields of an operation's response."""
        if operation not in self._responses:
            self._responses[operation] = self.fields(self.response_of(operation))
        return self._responses[operation]

    def fields(self, schema: Any) -> list[Field]:
        """Return the fields of an object and of the objects in it, the outermost first; not those of lists."""
        found: list[Field] = []
        level: list[tuple[tuple[str, ...], Flat]] = [((), self.flatten(schema))] if schema is not None else []
        for _ in range(_MAX_FIELD_DEPTH):
            inner: list[tuple[tuple[str, ...], Flat]] = []
            for path, flat in level:
                for name, part in islice(flat["properties"].items(), _MAX_FIELDS - len(found) - len(inner)):
                    inner.append(((*path, str(name)), self.flatten(part)))
            found += [Field(path, flat) for path, flat in inner]
            level = inner
        return found

    def response_of(self, operation: Operation) -> Any:
        """Return the schema of an operation's response; without one, that of an example, if there is one."""
        if operation.response is not None:
            flat = self.flatten(operation.response)
            if flat["properties"] or flat["items"] is not None:
                return operation.response
        examples = [*operation.examples, *_json_blocks(operation.description)]
        schemas = [schema_of_example(example) for example in examples if isinstance(example, dict | list)]
        return next(iter(schemas), operation.response)

    def item(self, operation: Operation, path: str) -> Any:
        """Return the schema of the items of the list at a JSONPath, such as `$.jobs[*]`, in a response."""
        schema = self.response_of(operation)
        found = [one for one in self.fields(schema) if f"{one.jsonpath()}[*]" == path]
        return found[0].schema["items"] if found else self.flatten(schema)["items"]

    def is_read_only(self, schema: Any) -> bool:
        """Whether a member is only in responses."""
        return _mapping(self.document.resolve(schema)).get("readOnly") is True

    def argument(self, schema: Any) -> dict[str, Any]:
        """Return the JSON Schema of an argument, without references. Circular and deep parts accept any value."""
        return self._argument(schema, 0, count())

    def _argument(self, schema: Any, depth: int, parts: Iterator[int]) -> dict[str, Any]:
        """Return the schema of an argument or of a part of it; `parts` counts those of the argument."""
        flat = self.flatten(schema)
        resolved = _mapping(self.document.resolve(schema))
        types = sorted(flat["types"]) or (["object"] if flat["properties"] else [])
        result: dict[str, Any] = {}
        if types:
            result["type"] = types[0] if len(types) == 1 else types
        if values := [value for value in _unique(flat["enum"]) if value is not None]:
            result["examples" if self._accepts_any_text(resolved) else "enum"] = values
        result |= {key: resolved[key] for key in _LIMITS if _is_plain(resolved.get(key))}
        if depth and (description := first_sentence(flat["description"])):
            result["description"] = description
        if depth < _MAX_ARGUMENT_DEPTH and next(parts) < _MAX_PARTS:
            self._add_parts(result, flat, depth, parts)
        return result

    def _accepts_any_text(self, resolved: Mapping[str, Any]) -> bool:
        """Whether a composition accepts any text beside those that it names."""
        parts = [self.flatten(part) for keyword in ("anyOf", "oneOf") for part in _list(resolved.get(keyword))]
        return any("string" in part["types"] and not part["enum"] for part in parts)

    def _add_parts(self, result: dict[str, Any], flat: Flat, depth: int, parts: Iterator[int]) -> None:
        if "array" in flat["types"] and flat["items"] is not None:
            result["items"] = self._argument(flat["items"], depth + 1, parts)
        if len(flat["properties"]) > _MAX_PROPERTIES:
            return
        properties = {
            str(name): self._argument(part, depth + 1, parts)
            for name, part in flat["properties"].items()
            if not self.is_read_only(part)
        }
        if properties:
            result["properties"] = properties
            required = sorted(flat["required"] & set(properties))
            result |= {"required": required} if required else {}


def schema_of_example(value: Any) -> dict[str, Any]:
    """Return a schema that describes an example."""
    match value:
        case dict():
            return {
                "type": "object",
                "properties": {str(name): schema_of_example(item) for name, item in value.items()},
            }
        case list():
            return {"type": "array", "items": schema_of_example(value[0]) if value else {}}
        case bool():
            return {"type": "boolean"}
        case int() | float():
            return {"type": "integer" if isinstance(value, int) else "number"}
        case str():
            return {"type": "string"} | ({"format": "date-time"} if _TIMESTAMP.match(value) else {})
        case _:
            return {}


def _json_blocks(markdown: str) -> Iterator[Any]:
    """Yield the values of the code blocks in JSON of a Markdown text."""
    for block in re.findall(r"```(?:json)?\s*\n(\s*[\[{].*?)```", markdown, re.DOTALL):
        try:
            yield json.loads(re.sub(r",(\s*[}\]])", r"\1", block))
        except (ValueError, RecursionError):
            continue


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not (isinstance(value, str) and len(value) > 100)


def _unique(values: list[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True, default=str): value for value in values}.values())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
