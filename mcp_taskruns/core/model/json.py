"""JSON and lines of text."""

import json
from typing import Any

from pydantic_core import from_json, to_json


def dump(value: Any) -> str:
    """Compact JSON."""
    return to_json(value, inf_nan_mode="null").decode()


def parse(text: str | bytes) -> Any:
    """The value of JSON text; raises ValueError for other text. Half a surrogate pair becomes a question mark."""
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        if (b"\\ud" if isinstance(text, bytes) else "\\ud") not in text.lower():  # type: ignore[operator]  # alike
            raise
    try:
        written = json.dumps(json.loads(text), ensure_ascii=False)
    except RecursionError as exc:
        raise ValueError("too deep") from exc
    return from_json(written.encode("utf-8", "replace"), cache_strings="keys")


def parse_or_text(text: str) -> Any:
    """JSON where it is JSON, else the text."""
    try:
        return parse(text)
    except ValueError:
        return text
