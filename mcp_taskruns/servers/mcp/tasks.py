"""Runs as MCP tasks, for clients that declare the extension io.modelcontextprotocol/tasks (2026-07-28).

A call that starts a run returns a task immediately. The state of a task is that of its run at the provider.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import anyio
from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import quote_name
from mcp_taskruns.core.model.json_path import set_at
from mcp_taskruns.core.model.run import Lifecycle, RunCancel, RunStatus
from mcp_taskruns.core.model.tool import WAIT_SECONDS
from mcp_taskruns.core.runs.reading import Reading
from mcp_taskruns.core.runs.results import status_line, wait_result
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress, reporting
from mcp_taskruns.engine.results import finish_result
from mcp_taskruns.engine.runs.cancel import cancel_run
from mcp_taskruns.engine.runs.read import GONE_READS, GONE_SECONDS, read_run
from mcp_taskruns.engine.runs.start import Started, launch, with_notes
from mcp_taskruns.engine.runs.start_keys import Caller
from mcp_taskruns.errors import CallError, NotVisibleYet
from mcp_taskruns.servers.mcp.task_ids import TaskHandle, decode_task_id, encode_task_id
from mcp_taskruns.servers.mcp.wire import result_to_wire

EXTENSION = "io.modelcontextprotocol/tasks"

STATUSES: Mapping[RunStatus, str] = {
    RunStatus.SUCCEEDED: "completed",
    RunStatus.FAILED: "completed",  # with a result that is an error; `failed` is for protocol errors
    RunStatus.CANCELED: "cancelled",
}
"""The task statuses of terminal run statuses; with any other run status a task is `working`."""

Context = ServerRequestContext[None, Any]


class TaskParams(types.RequestParams):
    """The parameters of tasks/get and tasks/cancel."""

    task_id: str


class UpdateTaskParams(TaskParams):
    """The parameters of tasks/update."""

    input_responses: dict[str, Any]


class Tasks:
    """The runs that the tools of a gateway start, as tasks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def register(self, server: Server[None]) -> None:
        """Advertise the extension and handle its methods."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", TaskParams, self._handler(self._get))
        server.add_request_handler("tasks/update", UpdateTaskParams, self._handler(self._update))
        server.add_request_handler("tasks/cancel", TaskParams, self._handler(self._cancel))

    async def start(
        self, context: Context, name: str, arguments: Mapping[str, Any], caller: Caller
    ) -> dict[str, Any] | None:
        """Start a run and return its task; None if the call starts no run or the client does not support tasks.

        Without a run id there is no task, and the result of the call is returned. Raises CallError if the run was not
        started.
        """
        tool = self._gateway.tools.get(name)
        lifecycle = tool.runs if tool else None
        start = lifecycle.starts.get(tool.operation.name) if tool and lifecycle else None
        if start is None or lifecycle is None or not _supports_tasks(context):
            return None
        tool, passed = self._gateway.prepare(name, arguments)
        if start.then is not None:
            if WAIT_SECONDS not in passed:
                return None  # the call only creates the run
            self._gateway.check_start(tool, lifecycle)
        gateway = self._gateway
        with gateway.in_flight(caller, tool), gateway.start_call(caller, tool, lifecycle, passed) as call:
            async with reporting(_ignore_progress) as reporter:
                started = await launch(gateway.client, tool, call, passed, reporter, is_complete=True)
        if not started.run_id:
            return result_to_wire(name, finish_result(self._gateway.client, tool, with_notes(started)))
        others = path_arguments(lifecycle.read.operation, passed)
        others.pop(lifecycle.read.run_id_argument, None)
        handle = TaskHandle(tool, lifecycle, started.run_id, others, int(datetime.now(UTC).timestamp()))
        return {"resultType": "task", **self._fields(handle, "working", _start_message(started))}

    def _handler(
        self, act: Callable[[Any, TaskHandle], Awaitable[dict[str, Any]]]
    ) -> Callable[[Context, Any], Awaitable[dict[str, Any]]]:
        """Return a request handler that validates the request and decodes its task id."""

        async def handle(context: Context, params: TaskParams) -> dict[str, Any]:
            _validate_request(context, params)
            task = decode_task_id(params.task_id, self._gateway.tools, self._environment)
            if task is None:
                raise _not_found()
            try:
                with self._gateway.in_flight():
                    return {"resultType": "complete", **await act(params, task)}
            except CallError as exc:
                if exc.kind == "not_found" and not exc.is_foreign:
                    raise _not_found() from exc
                # Not a task status: that of the run is unknown, and `failed` would be terminal for the client.
                raise MCPError(types.INTERNAL_ERROR, self._gateway.redactor.redact_text(exc.to_line())) from exc

        return handle

    async def _get(self, _: TaskParams, handle: TaskHandle) -> dict[str, Any]:
        try:
            reading = await self._read(handle)
        except NotVisibleYet as exc:
            return self._fields(handle, "working", exc.message)
        status = STATUSES.get(reading.status, "working")
        fields = self._fields(handle, status, status_line([reading]))
        return {**fields, "result": self._result(handle, reading)} if status == "completed" else fields

    async def _read(self, handle: TaskHandle) -> Reading:
        """Read the run, and once more if it is missing: clients forget a task that is not found."""
        client, lifecycle = self._gateway.client, handle.lifecycle
        try:
            return await read_run(client, lifecycle, handle.others, handle.run_id, gone_after=GONE_READS)
        except CallError as exc:
            if exc.kind != "not_found" or isinstance(exc, NotVisibleYet):
                raise
        await anyio.sleep(GONE_SECONDS)
        return await read_run(client, lifecycle, handle.others, handle.run_id)

    async def _update(self, _: UpdateTaskParams, __: TaskHandle) -> dict[str, Any]:
        """Ignore the input: no task asks for any."""
        return {}

    async def _cancel(self, _: TaskParams, handle: TaskHandle) -> dict[str, Any]:
        """Cancel the run unless it is terminal; without a served tool for that, do nothing."""
        cancel = self._served_cancel(handle.lifecycle)
        if cancel is not None:
            arguments = {**handle.others, cancel.call.run_id_argument: handle.run_id}
            for path, values in cancel.when:
                arguments = set_at(arguments, path, values[0])
            await cancel_run(self._gateway.client, handle.lifecycle, cancel, arguments, _ignore_progress)
        return {}

    def _served_cancel(self, lifecycle: Lifecycle) -> RunCancel | None:
        return next((cancel for cancel in lifecycle.cancels if cancel.call.tool in self._gateway.tools), None)

    def _fields(self, handle: TaskHandle, status: str, message: str) -> dict[str, Any]:
        """Return the fields that every task has."""
        lifecycle = handle.lifecycle
        return {
            "taskId": encode_task_id(handle, self._environment),
            "status": status,
            "statusMessage": self._gateway.redactor.redact_plain_text(message),
            "createdAt": _timestamp(datetime.fromtimestamp(handle.created, UTC)),
            "lastUpdatedAt": _timestamp(datetime.now(UTC)),
            "ttlMs": None if lifecycle.retention_seconds is None else round(lifecycle.retention_seconds * 1000),
            "pollIntervalMs": round(max(lifecycle.poll_seconds, lifecycle.max_age_seconds) * 1000),
        }

    def _result(self, handle: TaskHandle, reading: Reading) -> dict[str, Any]:
        """Return what waiting for the run would return now; a failed run is a tool error."""
        watch = Watch([handle.run_id])
        watch.update(reading)
        elapsed = datetime.now(UTC).timestamp() - handle.created
        value = wait_result(handle.lifecycle, watch, elapsed_s=elapsed, polls=1)
        result = CallResult.from_value(value, status_line([reading]))
        wire = result_to_wire(handle.tool.name, finish_result(self._gateway.client, handle.tool, result))
        if reading.status is not RunStatus.FAILED:
            return wire
        # Errors are text only: strict clients validate structured content against the output schema of the tool.
        return {**{name: part for name, part in wire.items() if name != "structuredContent"}, "isError": True}

    @property
    def _environment(self) -> Mapping[str, str]:
        return self._gateway.client.settings.environment


def _start_message(started: Started) -> str:
    message = status_line([started.reading]) if started.reading else f"Run {quote_name(started.run_id)}."
    return " ".join([message, *started.notes])


def _validate_request(context: Context, params: TaskParams) -> None:
    """Raise MCPError for a request of a client or a protocol version without tasks."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found", context.method)
    # The SDK checks this header for tools/call, but not for the methods of extensions.
    if context.request and decode_header_value(context.request.headers.get(MCP_NAME_HEADER)) != params.task_id:
        raise MCPError(types.HEADER_MISMATCH, "The header Mcp-Name does not match the task id")
    if not _supports_tasks(context):
        required: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "Missing required client capability", required)


def _supports_tasks(context: Context) -> bool:
    """Whether the client declares tasks in this request; older protocol versions do not have them."""
    capability = types.ClientCapabilities(extensions={EXTENSION: {}})
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and context.session.check_client_capability(capability)


def _not_found() -> MCPError:
    return MCPError(types.INVALID_PARAMS, "Failed to retrieve task: Task not found")


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _ignore_progress(_: Progress) -> None:
    """Ignore progress: clients poll tasks for it."""
    await anyio.lowlevel.checkpoint()
