"""YAML with comments, in the style of the built-in files."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MARK = "check:"
"""What a comment begins with that marks a guess."""

_WIDTH = 118
_PLAIN = re.compile(r"[A-Za-z_/$](?:[\w./$'-]|:(?=[\w/]))*(?: [\w(](?:[\w./()'-]|:(?=[\w/]))*)*|\d+\.\d+\.\d+[\w.-]*")
_RESERVED = re.compile(r"(?i:null|true|false|yes|no|on|off|y|n|~)")
_PRINTABLE = re.compile(r"[ -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")


@dataclass(frozen=True)
class Comment:
    """A key of a mapping that is a comment, not an entry."""

    text: str


class Flow(dict[str, Any]):
    """A mapping that is written on one line if it fits."""


def mark(text: str) -> Comment:
    """Return a comment that marks a guess."""
    return Comment(f"{MARK} {text}")


def to_yaml(document: Mapping[Any, Any]) -> str:
    """Return a mapping as YAML. A key that is a Comment becomes comment lines before the next key."""
    return "\n".join(_mapping(document, 0)) + "\n"


def _mapping(mapping: Mapping[Any, Any], indent: int) -> Iterator[str]:
    for key, value in mapping.items():
        if isinstance(key, Comment):
            yield from _comment(key.text, indent)
        else:
            yield from _entry(f"{' ' * indent}{scalar(key)}:", value, indent)


def _comment(text: str, indent: int) -> Iterator[str]:
    """Yield the lines of a comment; those after the first are indented, so that they belong to it."""
    first = f"{' ' * indent}# "
    yield from textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=f"{first}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _entry(head: str, value: Any, indent: int) -> Iterator[str]:
    """Yield the lines of a value after its key, or after the hyphen of a list."""
    if _is_long(head, value):
        yield f"{head} >-"
        pad = " " * (indent + 2)
        yield from textwrap.wrap(
            value, _WIDTH, initial_indent=pad, subsequent_indent=pad, break_long_words=False, break_on_hyphens=False
        )
    elif not value or not isinstance(value, Mapping | list) or _fits(head, value):
        yield f"{head} {_flow(value)}"
    elif isinstance(value, Mapping):
        yield head
        yield from _mapping(_with_flows(value) if isinstance(value, Flow) else value, indent + 2)
    else:
        yield head
        yield from _list(value, indent)


def _fits(head: str, value: Mapping[str, Any] | list[Any]) -> bool:
    """Whether a list of scalars, or a mapping that may be on one line, fits on one."""
    is_flat = isinstance(value, Flow) or not any(isinstance(item, Mapping) for item in value)
    return is_flat and not _is_block(value) and len(head) + len(_flow(value)) < _WIDTH


def _is_block(value: Any) -> bool:
    return isinstance(value, Mapping) and not isinstance(value, Flow)


def _with_flows(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: Flow(item) if isinstance(item, Mapping) else item for key, item in mapping.items()}


def _is_long(head: str, value: Any) -> bool:
    """Whether a value is a text to be folded: it has single spaces only, so that folding does not change it."""
    if not isinstance(value, str) or len(head) + len(value) < _WIDTH - 1:
        return False
    return value == " ".join(value.split()) and " " in value and _PRINTABLE.fullmatch(value) is not None


def _list(items: list[Any], indent: int) -> Iterator[str]:
    for item in items:
        if item and isinstance(item, Mapping):
            lines = list(_mapping(item, indent + 2))
            yield f"{' ' * indent}- {lines[0].lstrip()}"
            yield from lines[1:]
        else:
            yield from _entry(f"{' ' * indent}-", item, indent)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """Return a scalar in YAML 1.2; a text that could be read as something else is quoted."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and not _RESERVED.fullmatch(value):
        return value
    if _PRINTABLE.fullmatch(value):
        return "'" + value.replace("'", "''") + "'"
    return '"' + "".join(map(_escape, value)) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if _PRINTABLE.fullmatch(character):
        return character
    return f"\\U{ord(character):08x}"
