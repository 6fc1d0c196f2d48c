"""Links to the next page of a list: the URL in a response, and the arguments in its query."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from mcp_taskruns.core.model.operation import QueryArgument

MAX_URL = 16_000
"""Characters of a URL that is read."""

MAX_PARAMETERS = 200
"""Query parameters of a URL that is read."""

_LINK = re.compile(r'<([^<>]*)>((?:"[^"]*"|[^"<])*)')
_LINK_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*(?:=\s*(?:"([^"]*)"|([^\s;,"]*)))?')


def find_next_link(header: str) -> str:
    """Return the URL with the relation `next` in a header Link, empty if there is none. RFC 8288 section 3."""
    for url, parameters in _LINK.findall(header):
        relations = (
            quoted or plain for name, quoted, plain in _LINK_PARAMETER.findall(parameters) if name.lower() == "rel"
        )
        if "next" in next(relations, "").lower().split():  # only the first `rel` of a link counts
            return str(url.strip())
    return ""


def parse_query(url: str) -> dict[str, list[str]]:
    """Return the query parameters of a URL, absolute or relative; none if it is too long."""
    query = url.partition("?")[2].partition("#")[0]
    if len(url) > MAX_URL or query.count("&") >= MAX_PARAMETERS:
        return {}
    return parse_qs(query)


def query_arguments(url: str, known: Mapping[str, QueryArgument]) -> dict[str, Any]:
    """Return the arguments in the query of a URL. `known` are those of the operation, by their query parameters."""
    found = parse_query(url)
    return {one.name: _to_value(found[parameter], one.type) for parameter, one in known.items() if parameter in found}


def _to_value(texts: list[str], type_: str) -> Any:
    if type_ == "array":
        return texts if len(texts) > 1 else texts[0].split(",")
    return to_type(texts[-1], type_)


def to_type(value: Any, type_: str) -> Any:
    """Return a value of a response as an argument of this type; unchanged if it has no such form."""
    if type_ == "integer" and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    if type_ == "boolean" and value in ("true", "false"):
        return value == "true"
    if type_ == "string" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value
