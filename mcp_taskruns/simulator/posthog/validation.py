"""Validation of bodies and queries with the error codes and messages of Django REST framework."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mcp_taskruns.simulator.posthog.errors import validation_error

ABSENT: Any = object()


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


def _datetime(value: Any) -> datetime:
    parsed = datetime.fromisoformat(_string(value))
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


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

# By kind: the parser, and the error code and detail for a value of another kind.
KINDS: Mapping[str, tuple[Callable[[Any], Any], str, str]] = {
    "any": (lambda value: value, "", ""),
    "string": (_string, "invalid_input", "Not a valid string."),
    "integer": (_integer, "invalid_input", "A valid integer is required."),
    "uuid": (_uuid, "invalid_input", "Must be a valid UUID."),
    "datetime": (_datetime, "invalid_input", DATETIME_FORMAT),
    "object": (_mapping, "not_a_dict", 'Expected a dictionary of items but got type "{type}".'),
    "list": (_list, "not_a_list", 'Expected a list of items but got type "{type}".'),
    "json_rpc_id": (_json_rpc_id, "invalid_input", "id must be a string or number"),
}


@dataclass(frozen=True)
class Field:
    """One field of a body or a query."""

    kind: str = "string"
    required: bool = False
    nullable: bool = False
    default: Any = ABSENT
    choices: tuple[str, ...] = ()
    blank: bool = True
    max_length: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    # The fields, or the only field, of the items of a list.
    items: "Mapping[str, Field] | Field | None" = None
    # The error message for an empty list. None allows empty lists.
    empty_message: str | None = None

    def clean(self, value: Any, attr: str) -> Any:
        """Return the parsed value. Raises a 400 that names `attr`."""
        if value is None:
            if self.nullable:
                return None
            raise validation_error("null", "This field may not be null.", attr)
        if self.choices and value not in self.choices:
            raise validation_error("invalid_choice", f'"{value}" is not a valid choice.', attr)
        parse, code, detail = KINDS[self.kind]
        try:
            clean = parse(value)
        except (TypeError, ValueError) as exc:
            raise validation_error(code, detail.format(type=type(value).__name__), attr) from exc
        for is_violated, limit_code, message in self._limits(clean):
            if is_violated:
                raise validation_error(limit_code, message, attr)
        if self.items is None:
            return clean
        items = self.items
        if isinstance(items, Field):
            return [items.clean(item, f"{attr}__{index}") for index, item in enumerate(clean)]
        return [validate(items, item, f"{attr}__{index}__") for index, item in enumerate(clean)]

    def _limits(self, value: Any) -> Sequence[tuple[bool, str, str]]:
        max_length, low, high = self.max_length, self.minimum, self.maximum
        return (
            (self.empty_message is not None and value == [], "invalid_input", self.empty_message or ""),
            (not self.blank and value == "", "blank", "This field may not be blank."),
            (
                max_length is not None and len(value) > max_length,
                "max_length",
                f"Ensure this field has no more than {max_length} characters.",
            ),
            (low is not None and value < low, "min_value", f"Ensure this value is greater than or equal to {low}."),
            (high is not None and value > high, "max_value", f"Ensure this value is less than or equal to {high}."),
        )


def validate(fields: Mapping[str, Field], document: Any, prefix: str = "", *, strict: bool = False) -> dict[str, Any]:
    """Return the values of the declared fields. Unknown fields are dropped, or rejected if `strict`.

    Raises a 400 that names the first invalid field.
    """
    if not isinstance(document, dict):
        detail = f"Invalid data. Expected a dictionary, but got {type(document).__name__}."
        raise validation_error("invalid_input", detail, prefix.removesuffix("__") or None)
    if strict and (unknown := sorted(document.keys() - fields.keys())):
        raise validation_error("invalid_input", f"Unknown field: {unknown[0]}.", unknown[0])
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in document:
            values[name] = field.clean(document[name], prefix + name)
        elif field.required:
            raise validation_error("required", "This field is required.", prefix + name)
        elif field.default is not ABSENT:
            values[name] = field.default
    return values


_TYPES: Mapping[str, type] = {"object": dict, "string": str}


def schema_error(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return the first violation of a JSON Schema, or None.

    Supports only the keywords type (object or string), required and properties.
    """
    expected = schema["type"]
    if not isinstance(value, _TYPES[expected]):
        return f"{value!r} is not of type {expected!r}"
    if not isinstance(value, dict):
        return None
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"{missing[0]!r} is a required property"
    properties = [(subschema, value[name]) for name, subschema in schema.get("properties", {}).items() if name in value]
    return next((error for subschema, item in properties if (error := schema_error(subschema, item))), None)
