"""The arguments of a call from an HTTP request."""

import json
from typing import Any

from starlette.requests import Request

from mcp_taskruns.core.model.json import JsonLimitExceeded, check_bounded
from mcp_taskruns.core.model.operation import Location
from mcp_taskruns.core.rest.arguments import parse_argument
from mcp_taskruns.core.rest.router import Match
from mcp_taskruns.core.rest.routes import Route
from mcp_taskruns.errors import InvalidArguments


async def read_arguments(match: Match, request: Request) -> dict[str, Any]:
    """Return the arguments of a call. A path variable wins over a query parameter, that over a header and the body.

    Raises InvalidArguments for a body that cannot be used.
    """
    body = await _read_body(request)
    route = match.route
    schemas = route.tool.input_schema["properties"]
    arguments = _body_arguments(route, body)
    for name, location in route.locations.items():
        if location is Location.HEADER and name in request.headers:
            arguments[name] = parse_argument(request.headers.getlist(name), schemas[name])
    for name in request.query_params:
        arguments[name] = parse_argument(request.query_params.getlist(name), schemas.get(name, {}))
    for variable, text in match.variables.items():
        argument = route.variables.get(variable)
        if argument is not None:
            arguments[argument] = parse_argument([text], schemas[argument])
    return arguments


def _body_arguments(route: Route, body: Any) -> dict[str, Any]:
    if body is None:
        return {}
    if route.body:
        return {route.body: body}
    if not isinstance(body, dict):
        raise InvalidArguments("the body: must be an object")
    return dict(body)


async def _read_body(request: Request) -> Any:
    """Return the JSON value of the body; None if it is empty."""
    content = await request.body()
    if not content.strip():
        return None
    declared = request.headers.get("content-type")
    if declared is None:  # a web page may send such a request to any server
        raise InvalidArguments("the body has no content type; send `Content-Type: application/json`", status=415)
    media_type = declared.partition(";")[0].strip().lower()
    if not (media_type == "application/json" or media_type.endswith("+json")):
        message = f"the content type {media_type!r} is not supported; send application/json"
        raise InvalidArguments(message, status=415)
    try:
        check_bounded(content)
        return json.loads(content)
    except JsonLimitExceeded as exc:
        raise InvalidArguments(f"the body is JSON that {exc}", status=413) from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidArguments("the body is not valid JSON") from exc
