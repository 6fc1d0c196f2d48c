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
from mcp_taskruns.core.events import Ended, Event, EventFold, Progress
from mcp_taskruns.core.masking import Mask
from mcp_taskruns.core.operation import Tool
from mcp_taskruns.core.request import UpstreamRequest, build_request, credential_values
from mcp_taskruns.core.result import Outcome, fit, read_answer
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
        self._running: set[anyio.CancelScope] = set()
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
        with anyio.CancelScope() as scope:
            self._running.add(scope)
            try:
                return self._finish(tool, await self._run(tool, request, report))
            finally:
                self._running.discard(scope)
        raise UpstreamError("this server is stopping", hint="The run at the provider goes on.", retryable=True)

    def stop(self) -> None:
        """End the calls under way; the runs at the providers go on."""
        for scope in self._running:
            scope.cancel()

    async def aclose(self) -> None:
        """Hang up on the providers."""
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            await upstream.aclose()

    async def _run(self, tool: Tool, request: UpstreamRequest, report: Report) -> Outcome:
        upstream = self._open_upstream()
        began = anyio.current_time()
        try:
            with anyio.fail_after(self._settings.timeout) as bound:
                async with upstream.send(request) as answer:
                    if answer.is_event_stream:
                        bound.deadline = float("inf")  # a stream has bounds of its own
                        return await self._follow(tool, answer, report)
                    whole = await answer.read()
        except TimeoutError as exc:
            from mcp_taskruns.upstream import timed_out

            raise timed_out(request, self._settings.timeout) from exc
        logger.debug("answered tool=%s status=%d seconds=%.3f", tool.name, whole.status, anyio.current_time() - began)
        return read_answer(replace(whole, body=self.mask.data(whole.body)), tool.operation)

    def _finish(self, tool: Tool, outcome: Outcome) -> Outcome:
        """The outcome within its bound, and masked once more: what was decoded since may spell a secret anew."""
        fitted = fit(outcome, self._settings.max_result_chars, _advice(tool))
        return replace(
            fitted,
            text=self.mask.plain(fitted.text),
            media_type=self.mask.plain(fitted.media_type),
            notes=tuple(map(self.mask.plain, fitted.notes)),
        )

    def _open_upstream(self) -> "Upstream":
        if self._upstream is None:
            # The HTTP client takes 150 ms to import: paid by the first call, not by the start.
            from mcp_taskruns.upstream import Upstream

            self._upstream = Upstream(self._settings.timeout)
        return self._upstream

    async def _follow(self, tool: Tool, answer: "UpstreamAnswer", report: Report) -> Outcome:
        settings = self._settings
        fold = EventFold(settings.stream_events, settings.max_result_chars)
        ended: Ended = "closed"
        reason = ""
        with anyio.move_on_after(settings.stream_seconds) as wait:
            try:
                # Bytes bound what a stream may send before an event is whole.
                async with aclosing(answer.events(8 * settings.max_result_chars)) as events:
                    async for event in events:
                        progress = fold.add(Event(*map(self.mask.text, (event.data, event.event, event.id))))
                        if progress is not None:
                            await report(replace(progress, message=self.mask.text(progress.message)))
                        if fold.full:
                            ended = "event_limit"
                            break
            except UpstreamError as exc:
                ended, reason = "error", exc.message
        if wait.cancelled_caught:
            ended = "wait_over"
        resume = next((name for name in tool.input_schema["properties"] if name.lower() == "last-event-id"), "")
        return fold.outcome(ended, reason, resume)

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
    for flag, patterns in (("--tools", settings.tools), ("--exclude-tools", settings.exclude_tools)):
        for pattern in patterns:
            if not any(_matches(tool, [pattern]) for tool in tools):
                # A misspelled pattern that excludes nothing would leave a tool that should not be there.
                raise SettingsError(f"{flag}: no tool matches {pattern!r}; `mcp-taskruns tools` lists them")
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
