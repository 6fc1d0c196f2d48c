"""The body of an operation: its kind and its template."""

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.authentication import Unsupported
from mcp_taskruns.core.format.inputs import FORM_LOCATIONS
from mcp_taskruns.core.format.templates import InvalidTemplate, TemplateParser
from mcp_taskruns.core.model.operation import (
    ArgumentReference,
    BodyKind,
    Location,
    OptionalObject,
    Parameter,
)

BODY_KINDS: Mapping[str, BodyKind] = {
    "json": "json",
    "text": "text",
    "raw": "text",
    "xml": "xml",
    "form": "form",
    "formurlencoded": "form",
    "multipart": "multipart",
    "multipartform": "multipart",
    "binary": "binary",
}


def parse_body(body: Any, parser: TemplateParser) -> tuple[BodyKind | None, Any]:
    """Return the kind and the tree of a body template.

    A body without a template consists of its parameters: its tree is None, and its kind too unless it is declared.
    Raises Unsupported and InvalidTemplate.
    """
    if body is None or body == {}:
        return None, None
    if isinstance(body, str):
        return _parse_text(body, parser)
    kind = kind_without_data(body)
    if kind is not None:
        return kind, None
    if not isinstance(body, Mapping) or set(body) != {"type", "data"}:
        return "json", parser.tree(body)  # some APIs have members `data` and `type` of their own
    kind = BODY_KINDS.get(_normalize(body["type"]))
    if kind is None:
        raise Unsupported(f"has a body of the unsupported type {body['type']}")
    data = body["data"]
    if kind == "json" and isinstance(data, str):
        try:
            return kind, parser.json_text(data)
        except InvalidTemplate:
            raise
        except ValueError:
            return kind, parser.tree(data)
    if kind == "multipart" and not isinstance(data, list | Mapping):
        raise Unsupported("has a multipart body without fields")
    return kind, parser.tree(data)


def kind_without_data(body: Any) -> BodyKind | None:
    """Return the kind of a body such as `{type: json}`, which the caller passes as a whole; None for other bodies."""
    is_without_data = isinstance(body, Mapping) and {"type"} <= body.keys() <= {"type", "data"}
    if not is_without_data or body.get("data") is not None:
        return None
    return BODY_KINDS.get(_normalize(body["type"]))


def _normalize(kind: Any) -> str:
    return re.sub(r"[-_ ]", "", str(kind).lower())


def _parse_text(body: str, parser: TemplateParser) -> tuple[BodyKind, Any]:
    """Return a text as JSON with placeholders if it can be parsed so, else as XML or plain text."""
    template = parser.tree(body)
    if body.lstrip().startswith("<"):
        return "xml", template
    try:
        tree = parser.json_text(body)
    except InvalidTemplate:
        raise
    except ValueError:
        return "text", template
    return "json", tree


def body_from_parameters(parameters: Iterable[Parameter], *, is_whole: bool) -> Any:
    """Return the body that consists of parameters: the only one if that is the whole body, else an object of them."""
    fields = OptionalObject(
        (parameter.name, ArgumentReference(parameter.argument) if parameter.argument else parameter.constant)
        for parameter in parameters
    )
    return next(iter(fields.values()), None) if is_whole else fields or None


def put_into_body(body: Any, steps: Sequence[str], value: ArgumentReference) -> Any:
    """Return a body template with a value at the place that a `mapping` names. Raises Unsupported.

    Objects on the way that the template does not have are only sent with the value.
    """
    if not steps:
        return value
    if body is not None and not isinstance(body, dict):
        raise Unsupported(f"maps an argument to the member {steps[0]!r} of a body that is not an object")
    members = OptionalObject() if body is None else copy(body)
    members[steps[0]] = put_into_body(members.get(steps[0]), steps[1:], value)
    return members


def body_steps(mapping: str | None) -> list[str] | None:
    """Return the steps in the body of a mapping such as `body.filter.status`; None for other mappings.

    Raises Unsupported for a mapping that is not a path of names.
    """
    if mapping is None or not re.match(r"(\$\.)?body(?![\w-])", mapping):
        return None
    _, *steps = mapping.removeprefix("$.").split(".")
    if not all(steps) or "[" in mapping:
        raise Unsupported(f"has the mapping {mapping!r}, which is not a path of names")
    return steps


def body_kind_of(parameters: Iterable[spec.InputParameter]) -> BodyKind:
    """Return the kind of a body without a declared one: a form if its parameters are form fields, else JSON.

    JSON may be passed as text in a single parameter that is declared as a string.
    """
    parameters = list(parameters)
    fields = [one for one in parameters if (one.location or "").lower() in FORM_LOCATIONS]
    has_file = any("file" in ((one.type,) if isinstance(one.type, str) else one.type or ()) for one in fields)
    if fields:
        return "multipart" if has_file else "form"
    in_body = {one.name: one for one in parameters if (one.location or "").lower() == Location.BODY}
    types = [
        kind for one in in_body.values() for kind in ((one.type,) if isinstance(one.type, str) else one.type or ())
    ]
    return "json_text" if len(in_body) == 1 and "string" in types else "json"


def body_argument(name: str, kind: BodyKind) -> spec.InputParameter:
    """Return the declaration of an argument that a body template refers to."""
    if kind != "binary":
        return spec.InputParameter(name=name)
    schema = {"type": "string", "contentEncoding": "base64"}
    return spec.InputParameter(name=name, description="Bytes, in base64.", json_schema=schema)
