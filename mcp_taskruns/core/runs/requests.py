"""What runs ask their users, and wait for."""

from collections.abc import Iterator
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line, quote_name
from mcp_taskruns.core.model.json_path import matches, value_at, values_at
from mcp_taskruns.core.model.run import RequestEvent, RunRequests

MAX_DESCRIBED = 3
"""Open requests that are described."""

MAX_TEXT = 200
"""Characters of what a run asks for."""


class OpenRequests:
    """The requests in the events of a run that no later event has resolved."""

    def __init__(self, requests: RunRequests) -> None:
        self._requests = requests
        self._open: dict[str, tuple[RequestEvent, Any]] = {}

    def update(self, event: Any) -> None:
        """Take the data of an event into account; call it in the order of the events."""
        for form in self._requests.asked:
            if matches(event, form.when) and isinstance(request_id := value_at(event, form.id), str):
                self._open[request_id] = (form, event)
        for form in self._requests.resolved:
            if matches(event, form.when):
                self._open.pop(str(value_at(event, form.id)), None)

    def clear(self) -> None:
        """Forget the requests of a run that has ended."""
        self._open.clear()

    def describe(self) -> Iterator[str]:
        """Yield sentences about the open requests, the latest first, and what to do."""
        described = [*reversed(self._open.items())][:MAX_DESCRIBED]
        for request_id, (form, event) in described:
            text = value_at(event, form.text) if form.text else None
            asked = f": {one_line(text, MAX_TEXT)}" if isinstance(text, str) and text else ""
            options = [quote_name(one) for one in values_at(event, form.options) if isinstance(one, str)]
            hint = self._requests.hint.replace("{id}", quote_name(request_id))
            yield f"The run waits for a response to its request {quote_name(request_id)}{asked}. " + hint.replace(
                "{options}", ", ".join(options) or "unknown"
            )
        if len(self._open) > len(described):
            yield f"{len(self._open) - len(described):,} older requests are open, too."
