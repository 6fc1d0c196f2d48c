"""JSON Schemas of capability files and overlays, for editors.

`mcp-taskruns schema overlay > capabilities/schemas/overlay.schema.json` updates a committed file.
"""

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel

from mcp_taskruns.core.format import keywords, overlay_spec, run_keywords, spec
from mcp_taskruns.core.format.dialects import OTHER_SPELLINGS

SchemaName = Literal["capability", "overlay"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_NAMED_LISTS = {
    "binds": "namespace",
    "consumes": "namespace",
    "exposes": "namespace",
    "resources": "name",
    "operations": "name",
    "tools": "name",
    "inputParameters": "name",
    "outputParameters": "name",
}
"""The keys of capability files that may be a mapping keyed by name, with the key of the name in a list."""

_KEYWORDS: Mapping[str, type[BaseModel]] = {
    "ConsumedOperation": keywords.OperationKeywords,
    "Consumed": keywords.ConsumedKeywords,
    "InputParameter": keywords.ParameterKeywords,
    "ExposedTool": keywords.ToolKeywords,
}
"""Models of capability files with the overlay keywords that they inherit, which their schema does not propose."""


def build_schema(name: SchemaName) -> dict[str, Any]:
    """Return the JSON Schema of capability files or of overlays."""
    schema = _overlay_schema() if name == "overlay" else _capability_schema()
    return {"$schema": _DIALECT, "title": f"mcp-taskruns {name}", **schema}


def format_schema(name: SchemaName) -> str:
    """Return a schema as the text of its file."""
    return json.dumps(build_schema(name), indent=2) + "\n"


def _overlay_schema() -> dict[str, Any]:
    schema = _model_schema(overlay_spec.Overlay, (overlay_spec, keywords, run_keywords))
    for _, part in _objects(schema):
        part["properties"] = {key: _or_null(value) for key, value in part["properties"].items()}
    schema["properties"]["overlay"] = {**schema["properties"]["overlay"]["anyOf"][0]}
    return schema


def _capability_schema() -> dict[str, Any]:
    schema = _model_schema(spec.Capability, (spec, keywords, run_keywords))
    del schema["properties"]["source"], schema["properties"]["prefix"]
    for name, model in _KEYWORDS.items():
        properties = schema["$defs"][name]["properties"]
        for field, info in model.model_fields.items():
            del properties[info.alias or field]
    _allow_mappings(schema)
    for _, part in _objects(schema):
        part["additionalProperties"] = True
        part["properties"] = {key: _or_null(value) for key, value in part["properties"].items()}
        spellings = {OTHER_SPELLINGS[key]: value for key, value in part["properties"].items() if key in OTHER_SPELLINGS}
        part["properties"] |= spellings
    schema["required"] = []
    schema["anyOf"] = [{"required": ["naftiko"]}, {"required": ["ikanos"]}]
    return _remove_unused(schema)


def _model_schema(model: type[BaseModel], modules: tuple[ModuleType, ...]) -> dict[str, Any]:
    """Return the schema that pydantic generates, with descriptions from the source code and without titles."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    docs = {name: fields for module in modules for name, fields in _field_docs(module).items()}
    for name, part in _objects(schema):
        part.pop("title", None)
        bases = _bases(name or model.__name__, modules)
        for key, value in part["properties"].items():
            value.pop("title", None)
            doc = next((docs[base][key] for base in bases if key in docs.get(base, ())), None)
            if doc:
                value["description"] = doc
    return schema


def _objects(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schemas of all models, the root without a name."""
    yield "", schema
    yield from ((name, part) for name, part in schema.get("$defs", {}).items() if "properties" in part)


def _bases(name: str, modules: tuple[ModuleType, ...]) -> list[str]:
    model = next(getattr(module, name) for module in modules if hasattr(module, name))
    return [base.__name__ for base in model.__mro__ if base.__module__ in {module.__name__ for module in modules}]


def _field_docs(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the documentation of fields by class: the string after each annotation, by the key in files."""
    docs: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields = docs.setdefault(node.name, {})
        model = getattr(module, node.name)
        for field, doc in zip(node.body, node.body[1:], strict=False):
            is_doc = isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_doc:
                info = model.model_fields.get(field.target.id)
                if info is None:
                    continue  # a class variable
                assert isinstance(doc, ast.Expr)
                assert isinstance(doc.value, ast.Constant)
                fields[info.alias or field.target.id] = " ".join(str(doc.value.value).split())
    return docs


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that accepts null too, and null for entries of a mapping."""
    entries = schema.get("additionalProperties")
    if isinstance(entries, dict):
        schema = {**schema, "additionalProperties": _or_null(entries)}
    if not schema.keys() - {"description", "title", "default"} or {"type": "null"} in schema.get("anyOf", ()):
        return schema
    described: dict[str, Any] = {key: schema[key] for key in ("description", "default") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in described}
    alternatives = inner["anyOf"] if inner.keys() == {"anyOf"} else [inner]
    return {**described, "anyOf": [*alternatives, {"type": "null"}]}


def _allow_mappings(schema: dict[str, Any]) -> None:
    """Accept mappings keyed by name instead of lists of named items."""
    entries: dict[str, dict[str, Any]] = {}
    for _, part in list(_objects(schema)):
        for key, identity in _NAMED_LISTS.items():
            value = part["properties"].get(key)
            if value is None or "$ref" not in value.get("items", {}):
                continue
            name = value["items"]["$ref"].rpartition("/")[2]
            entry = f"{name}Entry"
            if entry not in entries:
                entries[entry] = deepcopy(schema["$defs"][name])
                entries[entry]["required"] = [
                    required for required in entries[entry].get("required", ()) if required != identity
                ]
            mapping = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{entry}"}}
            part["properties"][key] = {"anyOf": [value, mapping]}
    for entry, definition in entries.items():
        schema["$defs"][entry] = definition
    for entry in entries:  # the parts of an entry may be mappings too
        original = schema["$defs"][entry.removesuffix("Entry")]["properties"]
        schema["$defs"][entry]["properties"] = deepcopy(original)


def _remove_unused(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove the definitions to which nothing refers."""
    used: set[str] = set()
    pending: list[Any] = [{key: value for key, value in schema.items() if key != "$defs"}]
    while pending:
        part = pending.pop()
        if isinstance(part, Mapping):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in used:
                used.add(name)
                pending.append(schema["$defs"][name])
            pending += part.values()
        elif isinstance(part, list):
            pending += part
    return {**schema, "$defs": {name: part for name, part in schema["$defs"].items() if name in used}}


def keyword_table(model: str) -> str:
    """Return a Markdown table of the overlay keywords of a model: key, type, meaning."""
    modules = (keywords, run_keywords)
    keyword_model: type[BaseModel] = next(getattr(module, model) for module in modules if hasattr(module, model))
    schema = _model_schema(keyword_model, modules)
    rows = ["| keyword | type | meaning |", "|---|---|---|"]
    for key, value in schema["properties"].items():
        is_required = key in schema.get("required", ())
        meaning = value.get("description") or _definition_of(schema, value).get("description", "")
        default = value.get("default")
        if default not in (None, "", [], {}, False) and "default" not in meaning.lower():
            meaning += f" Default: `{default}`." if not isinstance(default, dict) else ""
        rows.append(f"| `{key}`{' (required)' if is_required else ''} | {_type_of(value)} | {meaning.strip()} |")
    return "\n".join([*rows, ""])


def _definition_of(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    for part in (value, *value.get("anyOf", ()), value.get("items", {}), value.get("additionalProperties", {})):
        if isinstance(part, Mapping) and "$ref" in part:
            definition: Mapping[str, Any] = schema["$defs"][part["$ref"].rpartition("/")[2]]
            return definition
    return {}


_SHORT_MAPPINGS = {"Header": "`{header: name}`", "ResponseValue": "`{response: path}`"}
"""Models with one key, which tables show."""


def _type_of(value: Mapping[str, Any]) -> str:
    """Return the type of a value as text."""
    alternatives = [part for part in value.get("anyOf", ()) if part != {"type": "null"}]
    if alternatives:
        return " or ".join(dict.fromkeys(map(_type_of, alternatives)))
    if "enum" in value:
        return ", ".join(f"`{item}`" for item in value["enum"])
    if "$ref" in value:
        return _SHORT_MAPPINGS.get(value["$ref"].rpartition("/")[2], "mapping")
    match value.get("type"):
        case "array":
            return f"list of {_type_of(value.get('items', {}))}"
        case "object":
            entries = value.get("additionalProperties")
            return f"mapping of {_type_of(entries)}" if isinstance(entries, Mapping) else "mapping"
        case str(name):
            return name
        case _:
            return "any"
