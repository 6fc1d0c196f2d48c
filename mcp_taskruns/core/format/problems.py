"""The problems that pydantic reports in a file: their places, and messages for the author."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

UNKNOWN_KEY = "unknown_key"

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


@dataclass(frozen=True)
class Problem:
    """One mistake: the steps to it in the document, its place as text, and a message."""

    steps: tuple[str | int, ...]
    place: str
    reason: str


def find_problems(error: ValidationError) -> list[Problem]:
    """Return the problems, each place once; those of unknown keys come first."""
    details = error.errors(include_url=False, include_input=False)
    problems: dict[tuple[str | int, ...], Problem] = {}
    for detail in sorted(details, key=lambda detail: detail["type"] != UNKNOWN_KEY):
        steps = tuple(step for step in detail["loc"] if step not in _UNION_MEMBERS)
        key = detail.get("ctx", {}).get("key")
        exact = steps if key is None else (*steps, key)
        problems.setdefault(exact, Problem(exact, format_place(steps), _message(detail)))
    return list(problems.values())


def _message(detail: ErrorDetails) -> str:
    return _MESSAGES.get(detail["type"]) or detail["msg"].removeprefix("Value error, ").replace("Input should", "must")


def format_place(steps: Sequence[int | str]) -> str:
    """Return a place in a document as text: `capability.consumes[0].baseUri`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
