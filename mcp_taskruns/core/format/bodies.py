"""The body of an operation: its kind, and its template."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.authentication import Unsupported
from mcp_taskruns.core.format.inputs import BODY, FORM_PLACES
from mcp_taskruns.core.format.templates import BrokenTemplate, Holes
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


def parse_body(body: Any, holes: Holes) -> tuple[BodyKind, Any]:
    """The kind of a body and its tree; the fields of a body that has no template stand in its parameters."""
    if body is None:
        return "json", None
    if isinstance(body, str):
        return _text_body(body, holes)
    if not isinstance(body, Mapping) or set(body) != {"type", "data"}:
        return "json", holes.tree(body)  # some APIs have a member `data`, or a `type`, of their own
    written = str(body["type"])
    kind = BODY_KINDS.get(re.sub(r"[-_ ]", "", written.lower()))
    if kind is None:
        raise Unsupported(f"has a body template of type {written}, which this server cannot send")
    data = body["data"]
    if kind == "json" and isinstance(data, str):
        try:
            return kind, holes.json_text(data)
        except BrokenTemplate:
            raise
        except ValueError:
            return kind, holes.tree(data)
    if kind == "multipart" and not isinstance(data, list | Mapping):
        raise Unsupported("has a multipart body whose data are no fields")
    return kind, holes.tree(data)


def _text_body(body: str, holes: Holes) -> tuple[BodyKind, Any]:
    """A body that is only text: JSON with holes where it reads so, else XML or plain text."""
    template = holes.tree(body)
    if body.lstrip().startswith("<"):
        return "xml", template
    try:
        tree = holes.json_text(body)
    except BrokenTemplate:
        raise
    except ValueError:
        return "text", template
    return "json", tree


def body_from_parameters(parameters: list[Parameter], kind: BodyKind) -> Any:
    """The body that the parameters in it are: the one named `body` is all of a JSON body, others are its members."""
    fields = {
        parameter.name: ArgumentReference(parameter.argument) if parameter.argument else parameter.constant
        for parameter in parameters
        if parameter.location is Location.BODY
    }
    return fields[BODY] if set(fields) == {BODY} and kind == "json" else fields or None


def body_kind_of(parameters: Iterable[spec.InputParameter]) -> BodyKind:
    """How a body without a template is sent: as JSON, or as a form where its parameters are fields of one."""
    fields = [one for one in parameters if (one.location or "").lower() in FORM_PLACES]
    has_file = any("file" in ((one.type,) if isinstance(one.type, str) else one.type or ()) for one in fields)
    return ("multipart" if has_file else "form") if fields else "json"


def body_argument(name: str, kind: BodyKind) -> spec.InputParameter:
    if kind != "binary":
        return spec.InputParameter(name=name)
    schema = {"type": "string", "contentEncoding": "base64"}
    return spec.InputParameter(name=name, description="Bytes, in base64.", json_schema=schema)
