"""How PostHog reads a request and words a refusal: keys, Accept, validation, the shapes of its errors."""

import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

ABSENT: Any = object()


class ApiError(Exception):
    """A refusal, raised anywhere below the dispatch and answered there."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body)
        self.status = status
        self.body = body
        self.headers = headers

    def response(self, *, as_events: bool) -> Response:
        """JSON; on the event stream PostHog's renderer iterates over the dict and writes its keys."""
        if as_events:
            return Response("".join(self.body), self.status, self.headers, "text/event-stream")
        return JSONResponse(self.body, self.status, self.headers)


def refusal(
    status: int, kind: str, code: str, detail: str, *, attr: str | None = None, headers: Mapping[str, str] | None = None
) -> ApiError:
    """The shape of Django REST framework's errors at PostHog (drf-exceptions-hog)."""
    return ApiError(status, {"type": kind, "code": code, "detail": detail, "attr": attr}, headers)


def not_found(detail: str = "Not found.") -> ApiError:
    return refusal(404, "invalid_request", "not_found", detail)


def invalid(code: str, detail: str, attr: str | None) -> ApiError:
    return refusal(400, "validation_error", code, detail, attr=attr)


def business_error(status: int, error: str, **more: Any) -> ApiError:
    """The other shape, TaskRunErrorResponse: what the views of tasks answer by themselves."""
    return ApiError(status, {"error": error, **more})


# Without Retry-After: waiting does not help (PostHog products/tasks/backend/services/code_usage_gate.py).
USAGE_LIMIT = ApiError(
    429,
    {
        "type": "rate_limited",
        "code": "usage_limit_exceeded",
        "error": "You've reached your PostHog Code usage limit.",
        "detail": "You've reached your PostHog Code usage limit.",
        "attr": None,
    },
)


def throttled(seconds: float) -> ApiError:
    wait = math.ceil(seconds)
    detail = f"Request was throttled. Expected available in {wait} second{'' if wait == 1 else 's'}."
    return refusal(429, "throttled_error", "throttled", detail, headers={"Retry-After": str(wait)})


@dataclass(frozen=True)
class Key:
    """A personal API key, known by its text alone."""

    text: str

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset({"task:read"} if self.text == "phx_readonly" else {"task:read", "task:write"})

    @property
    def is_throttled(self) -> bool:
        return self.text == "phx_throttled"

    @property
    def is_in_outage(self) -> bool:
        return self.text == "phx_outage"

    @property
    def is_over_limit(self) -> bool:
        return self.text == "phx_overlimit"


def read_key(request: Request) -> Key:
    """Project tokens (`phc_`) are no personal API keys and are refused like a wrong one."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text:
        detail = "Authentication credentials were not provided."
        raise refusal(401, "authentication_error", "not_authenticated", detail)
    if not text.startswith("phx_") or "wrong" in text:
        detail = "Personal API key found in request Authorization header is invalid."
        # Where session authentication is listed first, Django REST framework makes a 403 of it.
        raise refusal(403 if "403" in text else 401, "authentication_error", "authentication_failed", detail)
    return Key(text)


def require_scope(key: Key, scope: str) -> None:
    if scope not in key.scopes:
        detail = f"API key missing required scope '{scope}'"
        raise refusal(403, "authentication_error", "permission_denied", detail)


def require_accept(request: Request, media_type: str) -> None:
    """Every endpoint has one renderer, and the framework ignores `q` when it looks for it."""
    family = media_type.partition("/")[0]
    asked = {one.partition(";")[0].strip().lower() for one in request.headers.get("accept", "*/*").split(",")}
    if not asked & {"*/*", f"{family}/*", media_type}:
        raise refusal(406, "invalid_request", "not_acceptable", "Could not satisfy the request Accept header.")


async def read_json(request: Request) -> Any:
    """The body; an empty one is an empty object, as in Django REST framework."""
    raw = await request.body()
    if not raw:
        return {}
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip() != "application/json":
        detail = f'Unsupported media type "{content_type}" in request.'
        raise refusal(415, "invalid_request", "unsupported_media_type", detail)
    try:
        return json.loads(raw)
    except ValueError as exc:
        raise refusal(400, "invalid_request", "parse_error", f"JSON parse error - {exc}") from exc


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool | float):
        raise TypeError
    return int(value)


def _uuid(value: Any) -> str:
    return str(uuid.UUID(_string(value)))


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_string(value))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _json_rpc_id(value: Any) -> str | int | float:
    if not isinstance(value, str | int | float):
        raise TypeError
    return value


DATETIME_FORMAT = (
    "Datetime has wrong format. Use one of these formats instead: YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]."
)

# kind: how to read it, and the code and detail when it is something else.
KINDS: Mapping[str, tuple[Callable[[Any], Any], str, str]] = {
    "any": (lambda value: value, "", ""),
    "string": (_string, "invalid_input", "Not a valid string."),
    "integer": (_integer, "invalid_input", "A valid integer is required."),
    "uuid": (_uuid, "invalid_input", "Must be a valid UUID."),
    "datetime": (_moment, "invalid_input", DATETIME_FORMAT),
    "object": (_mapping, "not_a_dict", 'Expected a dictionary of items but got type "{type}".'),
    "list": (_list, "not_a_list", 'Expected a list of items but got type "{type}".'),
    "json_rpc_id": (_json_rpc_id, "invalid_input", "id must be a string or number"),
}


@dataclass(frozen=True)
class Field:
    """One declared key of a body or a query. `items` are the fields, or the one field, of a list's items;
    `empty` is what an empty list is told."""

    kind: str = "string"
    required: bool = False
    nullable: bool = False
    default: Any = ABSENT
    choices: tuple[str, ...] = ()
    blank: bool = True
    max_length: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    items: "Mapping[str, Field] | Field | None" = None
    empty: str | None = None

    def clean(self, value: Any, attr: str) -> Any:
        """The value as the views see it, or the 400 that names `attr`."""
        if value is None:
            if self.nullable:
                return None
            raise invalid("null", "This field may not be null.", attr)
        if self.choices and value not in self.choices:
            raise invalid("invalid_choice", f'"{value}" is not a valid choice.', attr)
        read, code, detail = KINDS[self.kind]
        try:
            clean = read(value)
        except (TypeError, ValueError) as exc:
            raise invalid(code, detail.format(type=type(value).__name__), attr) from exc
        for broken, limit_code, message in self._limits(clean):
            if broken:
                raise invalid(limit_code, message, attr)
        if self.items is None:
            return clean
        items = self.items
        if isinstance(items, Field):
            return [items.clean(item, f"{attr}__{index}") for index, item in enumerate(clean)]
        return [validate(items, item, f"{attr}__{index}__") for index, item in enumerate(clean)]

    def _limits(self, value: Any) -> Sequence[tuple[bool, str, str]]:
        longest, low, high = self.max_length, self.minimum, self.maximum
        return (
            (self.empty is not None and value == [], "invalid_input", self.empty or ""),
            (not self.blank and value == "", "blank", "This field may not be blank."),
            (
                longest is not None and len(value) > longest,
                "max_length",
                f"Ensure this field has no more than {longest} characters.",
            ),
            (low is not None and value < low, "min_value", f"Ensure this value is greater than or equal to {low}."),
            (high is not None and value > high, "max_value", f"Ensure this value is less than or equal to {high}."),
        )


def validate(fields: Mapping[str, Field], given: Any, prefix: str = "", *, strict: bool = False) -> dict[str, Any]:
    """The declared values of `given`; others are dropped, or refused when `strict`."""
    if not isinstance(given, dict):
        detail = f"Invalid data. Expected a dictionary, but got {type(given).__name__}."
        raise invalid("invalid_input", detail, prefix.removesuffix("__") or None)
    if strict and (unknown := sorted(given.keys() - fields.keys())):
        raise invalid("invalid_input", f"Unknown field: {unknown[0]}.", unknown[0])
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in given:
            values[name] = field.clean(given[name], prefix + name)
        elif field.required:
            raise invalid("required", "This field is required.", prefix + name)
        elif field.default is not ABSENT:
            values[name] = field.default
    return values


_TYPES: Mapping[str, type] = {"object": dict, "string": str}


def schema_error(schema: Mapping[str, Any], value: Any) -> str | None:
    """What breaks the schema first. Knows what the seeds use: type object or string, required and properties."""
    expected = schema["type"]
    if not isinstance(value, _TYPES[expected]):
        return f"{value!r} is not of type {expected!r}"
    if not isinstance(value, dict):
        return None
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"{missing[0]!r} is a required property"
    parts = [(part, value[name]) for name, part in schema.get("properties", {}).items() if name in value]
    return next((error for part, item in parts if (error := schema_error(part, item))), None)
