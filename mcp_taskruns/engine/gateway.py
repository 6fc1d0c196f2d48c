"""The one way from a tool's name and arguments to an outcome."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.core.calls.pages import Page, read_page, render_page
from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult, truncate_result
from mcp_taskruns.core.calls.truncation import truncate
from mcp_taskruns.core.calls.uploads import extract_files
from mcp_taskruns.core.model.json import parse
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import ALL_PAGES, UNTIL, WAIT_SECONDS, Tool
from mcp_taskruns.core.runs.events import Event
from mcp_taskruns.core.runs.logs import render_log
from mcp_taskruns.core.runs.messages import matches_schema, status_line
from mcp_taskruns.core.runs.reading import runs_in_response
from mcp_taskruns.engine.client import Exchange
from mcp_taskruns.engine.paginate import read_pages
from mcp_taskruns.engine.progress import Report, Reporter, reporting
from mcp_taskruns.engine.runs.cancel import cancel_run, find_cancel
from mcp_taskruns.engine.runs.follow import events_of, follow, follow_answer
from mcp_taskruns.engine.runs.start import start_run
from mcp_taskruns.engine.runs.wait import total_of, wait_for_runs
from mcp_taskruns.engine.upload import upload_files
from mcp_taskruns.errors import InvalidArguments, UnknownTool, UpstreamError
from mcp_taskruns.loading.catalog import Catalog
from mcp_taskruns.settings import Settings

if TYPE_CHECKING:
    from mcp_taskruns.engine.transport import UpstreamAnswer

MAX_STRUCTURED = 20_000
"""Characters of the object beside the text: a large answer should not be sent twice, whole."""

PassOn = Callable[[AsyncIterator[Event]], Awaitable[None]]
"""Takes the events of a stream as they come."""

PASSED_ON = CallResult(200, "", media_type="text/event-stream")
"""What came of a stream that was passed on."""

_PAGING = frozenset({"limit", "offset", "cursor", "page", "after"})


class Gateway:
    """Runs calls of the tools of a catalog."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self.catalog = catalog
        self._settings = settings
        self._accepts: dict[str, tuple[Tool, Callable[[Any], bool]]] = {}
        self._running: set[anyio.CancelScope] = set()
        self._listeners: list[Callable[[], Awaitable[None]]] = []
        self.exchange = Exchange(settings, catalog.operations)
        self.mask = self.exchange.mask

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools that are served now, by name."""
        return self.catalog.tools

    async def serve(self, catalog: Catalog) -> None:
        """Serve another catalog from now on; calls under way end as they began. Tells who listens."""
        self.exchange.adopt(catalog.operations)
        self._accepts = {}
        self.catalog = catalog
        for listener in self._listeners:
            await listener()

    def on_change(self, listener: Callable[[], Awaitable[None]]) -> None:
        """Have this called whenever another catalog is served."""
        self._listeners.append(listener)

    async def call(self, name: str, arguments: Mapping[str, Any], report: Report) -> CallResult:
        """Run one call; an event stream is followed, with one report per event.

        Raises UnknownTool for a name that is not among the tools, CallError for whatever the caller should read.
        """
        tool, passed = self.prepare(name, arguments)
        with self.under_way():
            return self.finish(tool, await self._run(tool, passed, report))

    async def call_tool(
        self, tool: Tool, arguments: Mapping[str, Any], report: Report, pass_on: PassOn
    ) -> CallResult | None:
        """The same, of a tool of a route, and of any length.

        An event stream is passed on instead, and then there is no outcome. Raises CallError.
        """
        passed = self._check(tool, arguments)
        with self.under_way():
            outcome = await self._run(tool, passed, report, pass_on)
            return None if outcome is PASSED_ON else self.exchange.redact_result(outcome)

    @asynccontextmanager
    async def follow_tool(
        self, tool: Tool, arguments: Mapping[str, Any], last_event_id: str = ""
    ) -> AsyncIterator[tuple[AsyncIterator[Event], float]]:
        """The events of a tool that is called for them, and for how many seconds they may be followed.

        They come as they are, but without secrets; on leaving, the provider is hung up on. Opening and reading raise
        CallError.
        """
        passed, operation = self._check(tool, arguments), tool.operation
        opening = self.exchange.open_stream(operation, passed, last_event_id=last_event_id)
        wanted = passed.get(WAIT_SECONDS) if WAIT_SECONDS in tool.server_arguments else None
        longest = self._settings.max_wait_seconds
        seconds = longest if wanted is None else min(float(wanted), longest)
        async with opening as answer, aclosing(self._events(operation, passed, answer, last_event_id)) as events:
            yield events, seconds

    async def _events(
        self, operation: Operation, passed: Mapping[str, Any], answer: "UpstreamAnswer", last_event_id: str = ""
    ) -> AsyncGenerator[Event, None]:
        """The events of a stream, over as many connections as it takes, without secrets."""
        async with aclosing(
            events_of(self.exchange, operation, passed, answer, _nothing_to_do, last_event_id)
        ) as events:
            async for event in events:
                yield replace(
                    event,
                    data=self.mask.redact_text(event.data),
                    event=self.mask.redact_text(event.event),
                    id=self.mask.redact_text(event.id),
                )

    def prepare(self, name: str, arguments: Mapping[str, Any]) -> tuple[Tool, dict[str, Any]]:
        """The tool of this name and the arguments that are sent, checked. Raises UnknownTool and CallError."""
        tool = self._tool(name)
        return tool, self._check(tool, arguments)

    def _tool(self, name: str) -> Tool:
        tool = self.tools.get(name)
        if tool is None:
            raise UnknownTool(name)
        return tool

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """A block that `stop` ends with an UpstreamError."""
        with anyio.CancelScope() as scope:
            self._running.add(scope)
            try:
                yield
            finally:
                self._running.discard(scope)
        if scope.cancelled_caught:
            raise UpstreamError("this server is stopping", hint="The run at the provider goes on.", retryable=True)

    def stop(self) -> None:
        """End the calls under way; the runs at the providers go on."""
        for scope in self._running:
            scope.cancel()

    async def aclose(self) -> None:
        """Hang up on the providers."""
        await self.exchange.aclose()

    async def _run(
        self, tool: Tool, passed: Mapping[str, Any], report: Report, pass_on: PassOn | None = None
    ) -> CallResult:
        lifecycle = tool.runs
        if lifecycle is None:
            return await self._forward(tool, passed, report, pass_on)
        if tool.is_wait_tool:
            return await self._wait(tool, lifecycle, passed, report)
        if tool.operation.name in lifecycle.starts:
            return await self._start(tool, lifecycle, passed, report)
        cancel = find_cancel(tool, passed)
        if cancel is not None:
            return await cancel_run(self.exchange, lifecycle, cancel, passed, report)
        outcome = await self._forward(tool, passed, report, pass_on)
        line = status_line(runs_in_response(lifecycle, tool.operation.name, outcome.value))
        return replace(outcome, notes=(line, *outcome.notes)) if line else outcome

    async def _forward(
        self, tool: Tool, passed: Mapping[str, Any], report: Report, pass_on: PassOn | None
    ) -> CallResult:
        operation = tool.operation
        seconds = self._seconds(tool, passed)
        limit = self._settings.max_result_chars if pass_on is None else sys.maxsize
        if operation.is_stream:
            return await follow(self.exchange, tool, passed, report, seconds=seconds)
        if operation.upload is not None:
            passed, files = extract_files(operation.upload, passed)
            if any(files):
                self._check(tool, passed)  # the sizes of the files
                return await upload_files(self.exchange, operation, operation.upload, passed, files, report)
        if operation.paging is not None and ALL_PAGES in tool.server_arguments and passed.get(ALL_PAGES):
            async with reporting(report) as reporter:
                pages = read_pages(self.exchange, operation, operation.paging, passed, reporter, seconds=seconds)
                return self._shown(operation, passed, *await pages, limit=limit)

        async def go_on(answer: "UpstreamAnswer") -> CallResult:
            if pass_on is not None:
                async with aclosing(self._events(operation, passed, answer)) as events:
                    await pass_on(events)
                return PASSED_ON
            return await follow_answer(self.exchange, tool, passed, answer, report, seconds=seconds)

        if operation.returns_file:
            return await self.exchange.fetch(operation, passed, tell=Reporter(report).note)
        if operation.timeout_s is not None:
            async with reporting(report) as reporter:
                return await self.exchange.fetch(operation, passed, go_on, tell=reporter.note)
        reporter = Reporter(report)
        outcome = await self.exchange.fetch(operation, passed, go_on, tell=reporter.note)
        page = None if operation.paging is None else read_page(operation.paging, passed, outcome)
        return self._shown(operation, passed, outcome, page, limit=limit)

    def _shown(
        self, operation: Operation, passed: Mapping[str, Any], outcome: CallResult, page: Page | None, *, limit: int
    ) -> CallResult:
        """Lists and logs as they are shown: as much as there is room for, and how to get the rest."""
        if operation.log is not None:
            return render_log(outcome, operation.log, passed, limit, page)
        return render_page(outcome, page, limit)

    async def _wait(self, tool: Tool, lifecycle: Lifecycle, passed: Mapping[str, Any], report: Report) -> CallResult:
        ids = passed[lifecycle.read.run_id_argument]
        several = isinstance(ids, list)
        run_ids = list(dict.fromkeys(ids)) if several else [ids]
        others = path_arguments(tool.operation, passed)
        async with reporting(report, total_of(lifecycle, len(run_ids))) as reporter:
            return await wait_for_runs(
                self.exchange,
                lifecycle,
                others,
                run_ids,
                reporter,
                seconds=self._seconds(tool, passed),
                until=passed.get(UNTIL, "all"),
                several=several,
            )

    async def _start(self, tool: Tool, lifecycle: Lifecycle, passed: Mapping[str, Any], report: Report) -> CallResult:
        wants_end = WAIT_SECONDS in passed and WAIT_SECONDS in tool.server_arguments
        seconds = self._seconds(tool, passed) if wants_end else None
        if seconds is not None:
            self.check_start(tool, lifecycle)
        return await start_run(self.exchange, tool, lifecycle, passed, report, seconds=seconds)

    def check_start(self, tool: Tool, lifecycle: Lifecycle) -> None:
        """Raise InvalidArguments where starting the run takes a tool that the operator does not serve."""
        then = lifecycle.starts[tool.operation.name].then
        if then is not None and then.tool not in self.tools:
            raise InvalidArguments(
                f"{WAIT_SECONDS}: {tool.name} cannot wait here, because {then.tool} is not served",
                hint=f"Leave out {WAIT_SECONDS}. Nothing was sent.",
            )

    def _seconds(self, tool: Tool, passed: Mapping[str, Any]) -> float:
        """How long this call may follow or wait."""
        settings = self._settings
        wanted = passed.get(WAIT_SECONDS) if WAIT_SECONDS in tool.server_arguments else None
        return min(settings.wait_seconds if wanted is None else float(wanted), settings.max_wait_seconds)

    def finish(self, tool: Tool, outcome: CallResult) -> CallResult:
        """The outcome within its bound and without secrets, as an object too where the tool says what it returns."""
        fitted = truncate_result(outcome, self._settings.max_result_chars, _advice(tool))
        masked = self.exchange.redact_result(fitted)
        schema = tool.output_schema
        if schema is None:
            return masked
        if masked.text != fitted.text and masked.media_type == "application/json":
            masked = replace(masked, value=parse(masked.text))
        return replace(masked, structured=self._structured(tool, schema, masked))

    def _structured(self, tool: Tool, schema: Mapping[str, Any], outcome: CallResult) -> dict[str, Any]:
        """The outcome as an object that fits the tool's output schema: strict clients refuse anything else.

        What does not fit, because a provider changed its answers, is there as text.
        """
        value: Any = outcome.value if outcome.media_type == "application/json" else None
        if not (tool.is_wait_tool or matches_schema(schema, value)):
            return {"text": outcome.text}
        if tool.is_wait_tool or len(outcome.text) <= MAX_STRUCTURED:
            found: dict[str, Any] = value
            return found
        kept, missing = truncate(value, MAX_STRUCTURED, len(outcome.text))
        return {**kept, "truncated": f"{'; '.join(missing)}. The text of the result has more."}

    def _check(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that are sent: without nulls and without what the server sets itself."""
        passed = {
            name: value for name, value in arguments.items() if value is not None and name not in tool.dropped_arguments
        }
        known, accepts = self._accepts.get(tool.name, (None, None))
        if accepts is None or known is not tool:
            accepts = compile_validator(tool.input_schema)
            self._accepts[tool.name] = (tool, accepts)
        if not accepts(passed):
            problems = explain_problems(tool.input_schema, passed)
            if problems:
                raise InvalidArguments(
                    "; ".join(problems),
                    hint=f"The arguments of {tool.name} are: {', '.join(tool.input_schema['properties']) or 'none'}. "
                    "Nothing was sent.",
                )
        return passed


def _advice(tool: Tool) -> str:
    paging = [name for name in tool.input_schema["properties"] if name.lower() in _PAGING]
    return f"For the rest call again with other values of {', '.join(paging)}." if paging else ""


async def _nothing_to_do() -> None:
    """A stream that was opened again is read on."""
