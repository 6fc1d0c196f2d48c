"""JSON serialization and parsing."""

import json
from typing import Any

from pydantic_core import from_json, to_json


def dump(value: Any) -> str:
    """Return a value as compact JSON."""
    return to_json(value, inf_nan_mode="null").decode()


def parse(text: str | bytes) -> Any:
    """Parse JSON text. Raises ValueError for invalid JSON.

    A lone surrogate becomes a question mark.
    """
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        if (b"\\ud" if isinstance(text, bytes) else "\\ud") not in text.lower():  # type: ignore[operator]  # same type
            raise
    try:
        written = json.dumps(json.loads(text), ensure_ascii=False)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    return from_json(written.encode("utf-8", "replace"), cache_strings="keys")


def parse_or_text(text: str) -> Any:
    """Return the parsed value of JSON text, or the text itself if it is not valid JSON."""
    try:
        return parse(text)
    except ValueError:
        return text
