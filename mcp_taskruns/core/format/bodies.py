"""The body of an operation: its kind and its template."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.authentication import Unsupported
from mcp_taskruns.core.format.inputs import BODY, FORM_LOCATIONS
from mcp_taskruns.core.format.templates import InvalidTemplate, TemplateParser
from mcp_taskruns.core.model.operation import (
    ArgumentReference,
    BodyKind,
    Location,
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


def parse_body(body: Any, parser: TemplateParser) -> tuple[BodyKind, Any]:
    """Return the kind and the tree of a body template; a body without a template consists of its parameters.

    Raises Unsupported and InvalidTemplate.
    """
    if body is None:
        return "json", None
    if isinstance(body, str):
        return _parse_text(body, parser)
    if not isinstance(body, Mapping) or set(body) != {"type", "data"}:
        return "json", parser.tree(body)  # some APIs have members `data` and `type` of their own
    kind = BODY_KINDS.get(re.sub(r"[-_ ]", "", str(body["type"]).lower()))
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


def body_from_parameters(parameters: list[Parameter], kind: BodyKind) -> Any:
    """Return the body that consists of parameters: one named `body` alone is all of a JSON body, others are members."""
    fields = {
        parameter.name: ArgumentReference(parameter.argument) if parameter.argument else parameter.constant
        for parameter in parameters
        if parameter.location is Location.BODY
    }
    return fields[BODY] if set(fields) == {BODY} and kind == "json" else fields or None


def body_kind_of(parameters: Iterable[spec.InputParameter]) -> BodyKind:
    """Return the kind of a body without a template: a form if its parameters are form fields, else JSON."""
    fields = [one for one in parameters if (one.location or "").lower() in FORM_LOCATIONS]
    has_file = any("file" in ((one.type,) if isinstance(one.type, str) else one.type or ()) for one in fields)
    return ("multipart" if has_file else "form") if fields else "json"


def body_argument(name: str, kind: BodyKind) -> spec.InputParameter:
    """Return the declaration of an argument that a body template refers to."""
    if kind != "binary":
        return spec.InputParameter(name=name)
    schema = {"type": "string", "contentEncoding": "base64"}
    return spec.InputParameter(name=name, description="Bytes, in base64.", json_schema=schema)
