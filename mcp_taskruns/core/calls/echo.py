"""Find out from a response whether a call has changed what it was asked to change."""

from collections.abc import Iterator, Mapping
from typing import Any

from mcp_taskruns.core.calls.redaction import REDACTED, REPLACEMENT
from mcp_taskruns.core.model.operation import Echo

_REPLACED = (REPLACEMENT, REDACTED)


def describe_unchanged(echo: Echo, arguments: Mapping[str, Any], response: Any) -> str:
    """Return the note about members of the argument that the response shows with another value; empty without any."""
    fields = list(_unchanged(arguments.get(echo.argument), response, ""))
    return echo.text.replace("{fields}", ", ".join(fields)) if fields else ""


def _unchanged(wanted: Any, shown: Any, place: str) -> Iterator[str]:
    """Yield the places whose value differs. What is redacted is not compared, nor what the response never shows."""
    if isinstance(wanted, Mapping) and isinstance(shown, Mapping):
        for name, value in wanted.items():
            if place or name in shown:
                yield from _unchanged(value, shown.get(name), f"{place}.{name}" if place else name)
    elif place and wanted != shown and not (isinstance(shown, str) and any(text in shown for text in _REPLACED)):
        yield place
