"""The first problem that pydantic reports in a file: its place, and a message for the author."""

from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_MESSAGES = {
    "missing": "is missing",
    "tuple_type": "must be a list, or a mapping keyed by name",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
}

_UNION_MEMBERS = frozenset({"str", "Header", "[key]"})
"""Steps that pydantic adds to the location of an error, which are not in the document."""


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the place and the message of the first problem."""
    details = error.errors(include_url=False, include_input=False)
    first = next((detail for detail in details if "unknown key" in detail["msg"]), details[0])
    return format_place([step for step in first["loc"] if step not in _UNION_MEMBERS]), _message(first)


def _message(detail: ErrorDetails) -> str:
    return _MESSAGES.get(detail["type"]) or detail["msg"].removeprefix("Value error, ").replace("Input should", "must")


def format_place(steps: Sequence[int | str]) -> str:
    """Return a place in a document as text: `capability.consumes[0].baseUri`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
