"""The way from a tool's name and arguments to a result; servers call tools through it."""

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import anyio

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems, find_unusable_values
from mcp_taskruns.core.calls.pages import Page, format_page, read_page
from mcp_taskruns.core.calls.parts import parse_result_path
from mcp_taskruns.core.calls.property_names import to_real_names
from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.core.calls.unknown_outcome import changes_something, find_reader, with_reader, write_hint
from mcp_taskruns.core.calls.uploads import extract_files
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import ALL_PAGES, LINES, PART, RESULT_PATH, UNTIL, WAIT_SECONDS, Derived, Tool
from mcp_taskruns.core.runs.logs import format_log
from mcp_taskruns.core.runs.reading import ids_as_text, statuses_in_response
from mcp_taskruns.core.runs.results import status_line
from mcp_taskruns.engine.client import Client, EventStream
from mcp_taskruns.engine.paginate import read_pages
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.results import advice_of, finish_result, select_part
from mcp_taskruns.engine.runs.cancel import cancel_run, find_cancel
from mcp_taskruns.engine.runs.details import add_details, result_with_text_ids
from mcp_taskruns.engine.runs.explain import explain_run
from mcp_taskruns.engine.runs.follow import follow, follow_stream, stream_events
from mcp_taskruns.engine.runs.read import explain_missing
from mcp_taskruns.engine.runs.retry import retry_run
from mcp_taskruns.engine.runs.start import start_run
from mcp_taskruns.engine.runs.start_keys import Caller, Stage, StartCall, StartKeys
from mcp_taskruns.engine.runs.wait import reporting_wait, wait_for_runs
from mcp_taskruns.engine.upload import upload_files
from mcp_taskruns.errors import CallError, InvalidArguments, UnknownTool, UpstreamError
from mcp_taskruns.loading.catalog import Catalog
from mcp_taskruns.settings import Settings

Listener = Callable[[], Awaitable[None]]

STOPPING = "this server is stopping"


class Gateway:
    """Calls the tools of a catalog. `client` is for tests; by default the gateway makes one."""

    def __init__(self, catalog: Catalog, settings: Settings, client: Client | None = None) -> None:
        self.catalog = catalog
        self.client = client or Client(settings, catalog.operations)
        self._settings = settings
        self._checks: dict[str, tuple[Tool, Callable[[Any], bool]]] = {}
        self._start_keys = StartKeys(reuses=not settings.no_start_reuse)
        self._in_flight: set[anyio.CancelScope] = set()
        self._stop_message = STOPPING
        self._listeners: list[Listener] = []

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The served tools by name."""
        return self.catalog.tools

    @property
    def redactor(self) -> Redactor:
        """Redacts every secret that calls of the catalog send."""
        return self.client.redactor

    async def replace_catalog(self, catalog: Catalog) -> None:
        """Serve another catalog and notify the listeners; calls in flight keep their tools."""
        self.client.add_operations(catalog.operations)
        self._checks = {}
        self.catalog = catalog
        for listener in self._listeners:
            await listener()

    def on_change(self, listener: Listener) -> None:
        """Call the listener after each change of the catalog."""
        self._listeners.append(listener)

    async def call(
        self, name: str, arguments: Mapping[str, Any], report: Report, caller: Caller | None = None
    ) -> CallResult:
        """Call a tool and return its result; each event of an event stream is reported as progress.

        Raises UnknownTool for a name that is not served, and CallError for everything that the caller should read.
        """
        tool, checked = self.prepare(name, arguments)
        caller = caller or Caller()
        with self.in_flight(caller, tool):
            try:
                result = await self._run_or_select(tool, checked, report, caller)
                return await self.client.worker.run(len(result.text), finish_result, self.client, tool, result)
            except CallError as exc:
                raise with_reader(self._explain(tool, checked, exc), self.reader_of(tool)) from exc.__cause__

    def _explain(self, tool: Tool, arguments: Mapping[str, Any], failure: CallError) -> CallError:
        """Return the failure of a call; a run that was just started may not be visible yet."""
        runs = tool.runs
        if runs is None or tool.derived or tool.operation.name != runs.read.operation.name:
            return failure
        return explain_missing(self.client, runs, arguments[runs.read.run_id_argument], failure)

    @asynccontextmanager
    async def open_tool(
        self, tool: Tool, arguments: Mapping[str, Any], report: Report
    ) -> AsyncIterator[CallResult | AsyncIterator[Event]]:
        """Call the tool of a route; yield its result, untruncated, or the events of the stream that it returns.

        Raises CallError.
        """
        checked = self.check_arguments(tool, arguments)
        with self.in_flight():
            result = await self._run_in_steps(tool, checked, report, Caller(), limit=sys.maxsize)
            if result is not None:
                yield await self._select_and_redact(tool, checked, result)
                return
            async with self._open(tool, checked, report) as opened:
                if isinstance(opened, CallResult):
                    detailed = await add_details(self.client, tool, checked, opened)
                    result = await self._present(tool, checked, detailed, limit=sys.maxsize)
                    yield await self._select_and_redact(tool, checked, result)
                    return
                async with aclosing(stream_events(self.client, tool, checked, opened)) as events:
                    yield events

    @asynccontextmanager
    async def open_stream(
        self, tool: Tool, arguments: Mapping[str, Any], last_event_id: str = ""
    ) -> AsyncIterator[tuple[AsyncIterator[Event], float]]:
        """Yield the redacted events of a tool whose operation returns an event stream, and how long to follow them.

        Opening and reading raise CallError.
        """
        checked = self.check_arguments(tool, arguments)
        limit = self._settings.max_wait_seconds
        seconds = float(min(checked[WAIT_SECONDS], limit)) if self._has_wait(tool, checked) else limit
        async with (
            self.client.open_stream(tool.operation, checked, last_event_id=last_event_id) as stream,
            aclosing(stream_events(self.client, tool, checked, stream, last_event_id)) as events,
        ):
            yield events, seconds

    def prepare(self, name: str, arguments: Mapping[str, Any]) -> tuple[Tool, dict[str, Any]]:
        """Return the tool of this name and the checked arguments. Raises UnknownTool and InvalidArguments."""
        tool = self.tools.get(name)
        if tool is None:
            raise UnknownTool(name)
        return tool, self.check_arguments(tool, arguments)

    def check_arguments(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments under their real names, without nulls and without headers that the server sets itself.

        Raises InvalidArguments for arguments that the input schema does not allow.
        """
        checked = {
            name: value for name, value in arguments.items() if value is not None and name not in tool.dropped_arguments
        }
        checked |= {name: ids_as_text(checked[name]) for name in tool.operation.integer_arguments if name in checked}
        known, is_valid = self._checks.get(tool.name, (None, None))
        if is_valid is None or known is not tool:
            is_valid = compile_validator(tool.input_schema, time.thread_time)
            self._checks[tool.name] = (tool, is_valid)
        problems = find_unusable_values(checked)
        if tool.safe_names and not problems:
            checked = to_real_names(checked, tool.input_schema, tool.safe_names)
        if not (problems or is_valid(checked)):
            problems = explain_problems(tool.input_schema, checked, time.thread_time)
        if problems:
            names = ", ".join(tool.safe_names.get(name, name) for name in tool.input_schema["properties"]) or "none"
            raise InvalidArguments(
                "; ".join(problems), hint=f"The arguments of {tool.name} are: {names}. Nothing was sent."
            )
        if self._selects(tool, checked):
            parse_result_path(checked[RESULT_PATH])
        return checked

    def check_start(self, tool: Tool, lifecycle: Lifecycle) -> None:
        """Raise InvalidArguments if starting the run takes a second tool that is not served."""
        then = lifecycle.starts[tool.operation.name].then
        if then is not None and then.tool not in self.tools:
            raise InvalidArguments(
                f"{WAIT_SECONDS}: {tool.name} cannot wait, because {then.tool} is not served",
                hint=f"Leave out {WAIT_SECONDS}. Nothing was sent.",
            )

    @contextmanager
    def start_call(
        self, caller: Caller, tool: Tool, lifecycle: Lifecycle, arguments: Mapping[str, Any]
    ) -> Iterator[StartCall]:
        """Yield the start of a run by a tool; the block makes the call."""
        finder = self.reader_of(tool)
        with self._start_keys.call(caller, tool, lifecycle, arguments, finder) as call:
            yield call

    def reader_of(self, tool: Tool) -> str:
        """Return the name of the tool that reads what a tool changes, or an empty text."""
        return find_reader(tool, self.tools.values()) if changes_something(tool) else ""

    @contextmanager
    def in_flight(self, caller: Caller | None = None, tool: Tool | None = None) -> Iterator[None]:
        """Run a block that `stop` ends with an UpstreamError, which explains what the call may have done."""
        with anyio.CancelScope() as scope:
            self._in_flight.add(scope)
            try:
                yield
            finally:
                self._in_flight.discard(scope)
        if scope.cancelled_caught:
            raise self._stopped(caller, tool)

    def _stopped(self, caller: Caller | None, tool: Tool | None) -> UpstreamError:
        """Return the error of a call that ends because this server stops."""
        message = self._stop_message
        if caller is not None and caller.start is not None:
            was_sent = caller.start.stage is not Stage.UNSENT
            hint = caller.start.stop_hint()
            return UpstreamError(message, hint=hint, retryable=not was_sent, outcome_unknown=was_sent)
        if tool is not None and changes_something(tool):
            return UpstreamError(message, hint=write_hint(self.reader_of(tool)), outcome_unknown=True)
        is_about_run = tool is None or tool.derived or tool.operation.is_stream
        hint = "The run continues at the provider." if is_about_run else "Nothing was changed."
        return UpstreamError(message, hint=hint, retryable=True)

    def stop(self, message: str = STOPPING) -> bool:
        """End the calls in flight with errors, and return whether there are any; the runs at the providers go on."""
        self._stop_message = message
        for scope in self._in_flight:
            scope.cancel()
        return bool(self._in_flight)

    async def aclose(self) -> None:
        """Close the connections to the providers."""
        await self.client.aclose()

    async def _run_or_select(
        self, tool: Tool, arguments: Mapping[str, Any], report: Report, caller: Caller
    ) -> CallResult:
        """Run a call; with `result_path` return only that part of the complete result."""
        if not self._selects(tool, arguments):
            return await self._run(tool, arguments, report, caller, limit=self._settings.max_result_chars)
        result = await self._run(tool, arguments, report, caller, limit=sys.maxsize)
        return await self.client.worker.run(len(result.text), self._select, tool, arguments, result)

    def _selects(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        return RESULT_PATH in tool.server_arguments and RESULT_PATH in arguments

    def _select(self, tool: Tool, arguments: Mapping[str, Any], result: CallResult) -> CallResult:
        return select_part(self.client, result, arguments[RESULT_PATH]) if self._selects(tool, arguments) else result

    async def _run(
        self, tool: Tool, arguments: Mapping[str, Any], report: Report, caller: Caller, *, limit: int
    ) -> CallResult:
        """Run a call. Lists and logs are truncated to `limit` characters."""
        if tool.operation.is_stream:
            return await follow(self.client, tool, arguments, report, seconds=self._seconds(tool, arguments))
        result = await self._run_in_steps(tool, arguments, report, caller, limit=limit)
        if result is not None:
            return result
        async with self._open(tool, arguments, report) as opened:
            if isinstance(opened, CallResult):
                detailed = await add_details(self.client, tool, arguments, opened)
                return await self._present(tool, arguments, detailed, limit=limit)
            seconds = self._seconds(tool, arguments)
            return await follow_stream(self.client, tool, arguments, opened, report, seconds=seconds)

    async def _run_in_steps(
        self, tool: Tool, arguments: Mapping[str, Any], report: Report, caller: Caller, *, limit: int
    ) -> CallResult | None:
        """Run a call that takes more than one request; None for any other."""
        lifecycle, operation = tool.runs, tool.operation
        if lifecycle is not None:
            if tool.derived:
                return await self._run_derived(tool, lifecycle, arguments, report)
            if operation.name in lifecycle.starts:
                return await self._start(tool, lifecycle, arguments, report, caller)
            cancel = find_cancel(tool, arguments)
            if cancel is not None:
                return await cancel_run(self.client, lifecycle, cancel, arguments, report)
        if operation.upload is not None:
            arguments, files = extract_files(operation.upload, arguments)
            if any(files):
                self.check_arguments(tool, arguments)  # the sizes of the files
                return await upload_files(self.client, operation, operation.upload, arguments, files, report)
        if operation.paging is not None and ALL_PAGES in tool.server_arguments and arguments.get(ALL_PAGES):
            seconds = self._seconds(tool, arguments)
            async with reporting(report, seconds) as reporter:
                result, page = await read_pages(
                    self.client, tool, operation.paging, arguments, reporter, seconds=seconds
                )
            if lifecycle is not None:
                result = result_with_text_ids(lifecycle, operation.name, result)
            return await self._show(tool, arguments, result, page, limit=limit)
        return None

    @asynccontextmanager
    async def _open(
        self, tool: Tool, arguments: Mapping[str, Any], report: Report
    ) -> AsyncIterator[CallResult | EventStream]:
        """Call the tool's operation once. A slow operation sends heartbeats until its response arrives."""
        operation = tool.operation
        timeout = operation.timeout_s or self._settings.timeout
        if operation.returns_file:
            yield await self.client.fetch(operation, arguments, notify=ProgressReporter(report, timeout).note)
            return
        if operation.timeout_s is None:
            async with self.client.open(operation, arguments, notify=ProgressReporter(report, timeout).note) as opened:
                yield opened
            return
        async with (
            reporting(report, timeout) as reporter,
            self.client.open(operation, arguments, notify=reporter.note) as opened,
        ):
            yield opened

    async def _present(self, tool: Tool, arguments: Mapping[str, Any], result: CallResult, *, limit: int) -> CallResult:
        """Return a list or a log as far as it fits, and the status of the runs that the response shows."""
        paging = None if tool.operation.returns_file else tool.operation.paging
        page = None if paging is None else read_page(paging, arguments, result)
        return await self._show(tool, arguments, result, page, limit=limit)

    async def _show(
        self, tool: Tool, arguments: Mapping[str, Any], result: CallResult, page: Page | None, *, limit: int
    ) -> CallResult:
        return await self.client.worker.run(len(result.text), _show_result, tool, arguments, result, page, limit=limit)

    async def _select_and_redact(self, tool: Tool, arguments: Mapping[str, Any], result: CallResult) -> CallResult:
        size = len(result.text)
        result = await self.client.worker.run(size, self._select, tool, arguments, result)
        return await self.client.worker.run(size, self.client.redact_result, result)

    async def _run_derived(
        self, tool: Tool, lifecycle: Lifecycle, arguments: Mapping[str, Any], report: Report
    ) -> CallResult:
        """Run a call of a tool that is made of the description of runs."""
        if tool.derived is Derived.WAIT:
            return await self._wait(tool, lifecycle, arguments, report)
        own = {name: value for name, value in arguments.items() if name not in tool.server_arguments}
        if tool.derived is Derived.EXPLAIN:
            lines = arguments.get(LINES) if LINES in tool.server_arguments else None
            return await explain_run(self.client, lifecycle, own, report, lines=lines, served=self.tools)
        part = arguments.get(PART) if PART in tool.server_arguments else None
        part = part or next(iter(lifecycle.retries))
        seconds = self._seconds(tool, arguments) if self._has_wait(tool, arguments) else None
        return await retry_run(self.client, lifecycle, own, report, part=part, seconds=seconds)

    async def _wait(self, tool: Tool, lifecycle: Lifecycle, arguments: Mapping[str, Any], report: Report) -> CallResult:
        ids = arguments[lifecycle.read.run_id_argument]
        several = isinstance(ids, list)
        run_ids = list(dict.fromkeys(ids)) if several else [ids]
        seconds = self._seconds(tool, arguments)
        async with reporting_wait(report, lifecycle, seconds, runs=len(run_ids)) as reporter:
            return await wait_for_runs(
                self.client,
                lifecycle,
                path_arguments(tool.operation, arguments),
                run_ids,
                reporter,
                seconds=seconds,
                until=arguments.get(UNTIL, "all"),
                several=several,
            )

    async def _start(
        self, tool: Tool, lifecycle: Lifecycle, arguments: Mapping[str, Any], report: Report, caller: Caller
    ) -> CallResult:
        seconds = self._seconds(tool, arguments) if self._has_wait(tool, arguments) else None
        if seconds is not None:
            self.check_start(tool, lifecycle)
        with self.start_call(caller, tool, lifecycle, arguments) as call:
            return await start_run(self.client, tool, call, arguments, report, seconds=seconds)

    def _has_wait(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        return WAIT_SECONDS in tool.server_arguments and WAIT_SECONDS in arguments

    def _seconds(self, tool: Tool, arguments: Mapping[str, Any]) -> float:
        """Return how long this call may follow or wait."""
        settings = self._settings
        wanted = arguments[WAIT_SECONDS] if self._has_wait(tool, arguments) else settings.wait_seconds
        return float(min(wanted, settings.max_wait_seconds))


def _show_result(
    tool: Tool, arguments: Mapping[str, Any], result: CallResult, page: Page | None, *, limit: int
) -> CallResult:
    """Return a list or a log within `limit` characters, with the status of the runs that it shows."""
    log = tool.operation.log
    if not tool.operation.returns_file:
        if log is not None:
            result = format_log(result, log, arguments, limit, page)
        else:
            result = format_page(result, page, limit, advice_of(tool, result.value))
    if tool.runs is None:
        return result
    named = arguments.get(tool.runs.read.run_id_argument)
    run_id = named if isinstance(named, str) else ""
    line = status_line(statuses_in_response(tool.runs, tool.operation.name, result.value, run_id))
    return replace(result, notes=(line, *result.notes)) if line else result
