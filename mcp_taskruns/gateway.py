"""The one way from a tool's name and arguments to an outcome."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import chain
from typing import TYPE_CHECKING, Any

import anyio

from mcp_taskruns.core.arguments import compile_check, explain_problems
from mcp_taskruns.core.masking import Mask
from mcp_taskruns.core.operation import Tool
from mcp_taskruns.core.request import build_request, credential_values
from mcp_taskruns.core.result import Ended, EventFold, Outcome, Progress, fit, read_answer
from mcp_taskruns.errors import InvalidArguments, SettingsError, UnknownTool, UpstreamError
from mcp_taskruns.settings import Settings

if TYPE_CHECKING:
    from mcp_taskruns.upstream import Upstream, UpstreamAnswer

Report = Callable[[Progress], Awaitable[None]]
"""What a caller gives to be told of progress while a call runs."""

_PAGING = frozenset({"limit", "offset", "cursor", "page", "after"})

logger = logging.getLogger(__name__)


class Gateway:
    """Runs calls of the tools that the settings let through; `tools` are those, by name."""

    def __init__(self, tools: Sequence[Tool], settings: Settings) -> None:
        self.tools = {tool.name: tool for tool in _chosen(tools, settings)}
        self._settings = settings
        self._accepts: dict[str, Callable[[Any], bool]] = {}
        self._upstream: Upstream | None = None
        secrets = (credential_values(tool.operation, settings.environment) for tool in tools)
        self.mask = Mask(chain(settings.tokens, *secrets))

    async def call(self, name: str, arguments: Mapping[str, Any], report: Report) -> Outcome:
        """Run one call; an event stream is followed, with one report per event.

        Raises UnknownTool for a name that is not among the tools, CallError for whatever the caller should read.
        """
        tool = self.tools.get(name)
        if tool is None:
            raise UnknownTool(name)
        passed = self._check(tool, arguments)
        request = build_request(tool.operation, passed, self._settings.environment)
        upstream = self._open_upstream()
        try:
            with anyio.fail_after(self._settings.timeout) as bound:
                async with upstream.send(request) as answer:
                    if answer.is_event_stream:
                        bound.deadline = float("inf")  # a stream has bounds of its own
                        outcome = await self._follow(answer, report)
                    else:
                        whole = await answer.read()
                        whole = replace(whole, body=self.mask.data(whole.body))
                        outcome = read_answer(whole, tool.operation.error_body)
        except TimeoutError as exc:
            raise UpstreamError(
                f"{request.provider} did not answer within {self._settings.timeout:g} seconds",
                kind="timeout",
                hint="The request may have been carried out: read the current state before trying again.",
            ) from exc
        return fit(outcome, self._settings.max_result_chars, _advice(tool))

    async def aclose(self) -> None:
        """Hang up on the providers."""
        if self._upstream is not None:
            await self._upstream.aclose()

    def _open_upstream(self) -> "Upstream":
        if self._upstream is None:
            # The HTTP client takes 150 ms to import: paid by the first call, not by the start.
            from mcp_taskruns.upstream import Upstream

            self._upstream = Upstream(self._settings.timeout)
        return self._upstream

    async def _follow(self, answer: "UpstreamAnswer", report: Report) -> Outcome:
        settings = self._settings
        fold = EventFold(settings.stream_events, settings.max_result_chars)
        ended: Ended = "closed"
        reason = ""
        with anyio.move_on_after(settings.stream_seconds) as wait:
            try:
                # Bytes bound what a stream may send before an event is whole.
                async with aclosing(answer.events(8 * settings.max_result_chars)) as events:
                    async for event in events:
                        progress = fold.add(replace(event, data=self.mask.text(event.data)))
                        if progress is not None:
                            await report(progress)
                        if fold.full:
                            ended = "event_limit"
                            break
            except UpstreamError as exc:
                ended, reason = "error", exc.message
        if wait.cancelled_caught:
            ended = "wait_over"
        return fold.outcome(ended, reason)

    def _check(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that are sent: without nulls and without what the server sets itself."""
        passed = {name: value for name, value in arguments.items() if value is not None and name not in tool.ignored}
        accepts = self._accepts.get(tool.name)
        if accepts is None:
            accepts = self._accepts[tool.name] = compile_check(tool.input_schema)
        if not accepts(passed):
            problems = explain_problems(tool.input_schema, passed)
            if problems:
                raise InvalidArguments(
                    "; ".join(problems),
                    hint=f"The arguments of {tool.name} are: {', '.join(tool.input_schema['properties']) or 'none'}. "
                    "Nothing was sent.",
                )
        return passed


def _chosen(tools: Sequence[Tool], settings: Settings) -> Iterator[Tool]:
    prefixes = {tool.prefix for tool in tools}
    unknown = set(settings.only) - prefixes
    if unknown:
        there_are = ", ".join(sorted(prefixes))
        raise SettingsError(f"--only: no capability has the prefix {', '.join(sorted(unknown))}; there are {there_are}")
    for tool in tools:
        if settings.only and tool.prefix not in settings.only:
            continue
        if settings.read_only and not tool.hints.read_only:
            continue
        if settings.tools and not _matches(tool, settings.tools):
            continue
        if not _matches(tool, settings.exclude_tools):
            yield tool


def _matches(tool: Tool, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(tool.name, pattern) for pattern in patterns)


def _advice(tool: Tool) -> str:
    paging = [name for name in tool.input_schema["properties"] if name.lower() in _PAGING]
    return f"For the rest call again with other values of {', '.join(paging)}." if paging else ""
