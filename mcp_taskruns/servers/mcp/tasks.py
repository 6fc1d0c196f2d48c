"""Runs as MCP tasks, for clients that declare the extension io.modelcontextprotocol/tasks (2026-07-28).

A call that starts a run is answered with a task at once. The task's id holds what reading the run takes, signed with
the provider's credential: nothing is kept here, so any server with the same credential answers for it.
"""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_taskruns.core.calls.request import credential_values, path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import dump, parse
from mcp_taskruns.core.model.json_path import set_at
from mcp_taskruns.core.model.run import Lifecycle, RunCancel, RunStatus
from mcp_taskruns.core.model.tool import WAIT_SECONDS, Tool
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.core.runs.messages import status_line, wait_result
from mcp_taskruns.core.runs.reading import Reading
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import reporting
from mcp_taskruns.engine.results import finish_result
from mcp_taskruns.engine.runs.cancel import cancel_run
from mcp_taskruns.engine.runs.read import read_run
from mcp_taskruns.engine.runs.start import launch, with_notes
from mcp_taskruns.errors import CallError

EXTENSION = "io.modelcontextprotocol/tasks"

SIGNATURE_BYTES = 12

STATUSES: Mapping[RunStatus, str] = {
    RunStatus.SUCCEEDED: "completed",
    RunStatus.FAILED: "completed",  # with a result that is an error; `failed` is for calls that are protocol errors
    RunStatus.CANCELED: "cancelled",
}
"""The status of a task whose run has ended; all others are working."""

Context = ServerRequestContext[None, Any]
Render = Callable[[str, CallResult], dict[str, Any]]


class TaskParams(types.RequestParams):
    """Which task a request is about."""

    task_id: str


class UpdateTaskParams(TaskParams):
    """Answers to what a task has asked."""

    input_responses: dict[str, Any]


@dataclass(frozen=True)
class Handle:
    """What a task's id holds: the tool that started the run, the run, what else reading it takes, and since when."""

    tool: Tool
    lifecycle: Lifecycle
    run_id: str
    others: Mapping[str, Any]
    created: int


class Tasks:
    """The runs that the gateway's tools start, as tasks; `render` makes results of outcomes."""

    def __init__(self, gateway: Gateway, render: Render) -> None:
        self._gateway = gateway
        self._render = render

    def register(self, server: Server[None]) -> None:
        """Advertise the extension and answer its methods."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", TaskParams, self._handler(self._get))
        server.add_request_handler("tasks/update", UpdateTaskParams, self._handler(self._update))
        server.add_request_handler("tasks/cancel", TaskParams, self._handler(self._cancel))

    async def start(self, context: Context, name: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """Start a run and answer with its task; None for a call that starts none, or of a client without tasks.

        A run whose id is not told cannot be a task: the answer is then the call's result. Raises CallError when the run
        was not started.
        """
        tool = self._gateway.tools.get(name)
        lifecycle = tool.runs if tool else None
        start = lifecycle.starts.get(tool.operation.name) if tool and lifecycle else None
        if start is None or lifecycle is None or not _declares_tasks(context):
            return None
        tool, passed = self._gateway.prepare(name, arguments)
        if start.then is not None:
            if WAIT_SECONDS not in passed:
                return None  # it only makes a run, which nobody starts yet
            self._gateway.check_start(tool, lifecycle)
        with self._gateway.in_flight():
            async with reporting(_untold) as reporter:
                started = await launch(self._gateway.client, tool, lifecycle, passed, reporter, is_complete=True)
        if not started.run_id:
            return self._render(name, finish_result(self._gateway.client, tool, with_notes(started)))
        others = path_arguments(lifecycle.read.operation, passed)
        others.pop(lifecycle.read.run_id_argument, None)
        handle = Handle(tool, lifecycle, started.run_id, others, int(datetime.now(UTC).timestamp()))
        told = [status_line([started.reading]) if started.reading else f"Run {started.run_id}."]
        if started.key is not None:
            told.append(f'Idempotency key: "{started.key}".')
        return {"resultType": "task", **self._fields(handle, "working", " ".join(told))}

    def _handler(
        self, act: Callable[[Any, Handle], Awaitable[dict[str, Any]]]
    ) -> Callable[[Context, Any], Awaitable[dict[str, Any]]]:
        async def handle(context: Context, params: TaskParams) -> dict[str, Any]:
            if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
                raise MCPError(types.METHOD_NOT_FOUND, "Method not found", context.method)
            # As the SDK does for tools/call; its table of named methods lacks these.
            if context.request and decode_header_value(context.request.headers.get(MCP_NAME_HEADER)) != params.task_id:
                raise MCPError(types.HEADER_MISMATCH, "The header Mcp-Name is not the task's id")
            if not _declares_tasks(context):
                needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
                raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "Missing required client capability", needed)
            try:
                with self._gateway.in_flight():
                    return {"resultType": "complete", **await act(params, self._read_id(params.task_id))}
            except CallError as exc:
                if exc.kind == "not_found":
                    raise _not_found() from exc
                # No status of the task: how the run stands is not known, and to a client `failed` would be the end.
                raise MCPError(types.INTERNAL_ERROR, self._gateway.redactor.redact_text(exc.message)) from exc

        return handle

    async def _get(self, _: TaskParams, handle: Handle) -> dict[str, Any]:
        client = self._gateway.client
        reading = await read_run(client, handle.lifecycle, handle.others, handle.run_id, was_known=True)
        status = STATUSES.get(reading.status, "working")
        fields = self._fields(handle, status, status_line([reading]))
        return {**fields, "result": self._result(handle, reading)} if status == "completed" else fields

    async def _update(self, _: UpdateTaskParams, __: Handle) -> dict[str, Any]:
        """No task asks for anything, so there is no answer to take: answers to nothing are ignored."""
        return {}

    async def _cancel(self, _: TaskParams, handle: Handle) -> dict[str, Any]:
        """Cancel the run if it goes on; where the operator serves no tool for that, acknowledge and do nothing."""
        cancel = self._served_cancel(handle.lifecycle)
        if cancel is not None:
            arguments = {**handle.others, cancel.call.run_id_argument: handle.run_id}
            for path, wanted in cancel.when:
                arguments = set_at(arguments, path, wanted[0])
            await cancel_run(self._gateway.client, handle.lifecycle, cancel, arguments, _untold)
        return {}

    def _served_cancel(self, lifecycle: Lifecycle) -> RunCancel | None:
        return next((cancel for cancel in lifecycle.cancels if cancel.call.tool in self._gateway.tools), None)

    def _fields(self, handle: Handle, status: str, line: str) -> dict[str, Any]:
        lifecycle = handle.lifecycle
        return {
            "taskId": self._write_id(handle),
            "status": status,
            "statusMessage": self._gateway.redactor.redact_plain_text(line),
            "createdAt": _timestamp(datetime.fromtimestamp(handle.created, UTC)),
            "lastUpdatedAt": _timestamp(datetime.now(UTC)),
            "ttlMs": None if lifecycle.retention_seconds is None else round(lifecycle.retention_seconds * 1000),
            "pollIntervalMs": round(max(lifecycle.poll_seconds, lifecycle.max_age_seconds) * 1000),
        }

    def _result(self, handle: Handle, reading: Reading) -> dict[str, Any]:
        """What waiting for the run would return now; a run that failed is a tool error."""
        watch = Watch([handle.run_id])
        watch.update(reading)
        elapsed = datetime.now(UTC).timestamp() - handle.created
        value = wait_result(handle.lifecycle, watch, elapsed_s=elapsed, polls=1)
        outcome = CallResult.from_value(value, status_line([reading]))
        result = self._render(handle.tool.name, finish_result(self._gateway.client, handle.tool, outcome))
        if reading.status is not RunStatus.FAILED:
            return result
        # Errors are text only: strict clients would check an object against the tool's schema.
        return {**{name: part for name, part in result.items() if name != "structuredContent"}, "isError": True}

    def _write_id(self, handle: Handle) -> str:
        told = dump([handle.tool.name, handle.run_id, handle.others, handle.created]).encode()
        return base64.urlsafe_b64encode(self._sign(handle.lifecycle, told) + told).decode().rstrip("=")

    def _read_id(self, task_id: str) -> Handle:
        try:
            raw = base64.urlsafe_b64decode(task_id + "=" * (-len(task_id) % 4))
            name, run_id, others, created = parse(raw[SIGNATURE_BYTES:])
            tool = self._gateway.tools[name]
        except (ValueError, LookupError, TypeError) as exc:
            raise _not_found() from exc
        lifecycle = tool.runs
        if lifecycle is None or not hmac.compare_digest(
            raw[:SIGNATURE_BYTES], self._sign(lifecycle, raw[SIGNATURE_BYTES:])
        ):
            raise _not_found()
        return Handle(tool, lifecycle, run_id, others, created)

    def _sign(self, lifecycle: Lifecycle, told: bytes) -> bytes:
        secrets = credential_values(lifecycle.read.operation, self._gateway.client.settings.environment)
        key = hashlib.sha256("\0".join([EXTENSION, *secrets]).encode()).digest()
        return hmac.digest(key, told, "sha256")[:SIGNATURE_BYTES]


def _declares_tasks(context: Context) -> bool:
    """Whether this request is of a client that knows tasks; older protocol versions cannot carry them."""
    capability = types.ClientCapabilities(extensions={EXTENSION: {}})
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and context.session.check_client_capability(capability)


def _not_found() -> MCPError:
    return MCPError(types.INVALID_PARAMS, "Failed to retrieve task: Task not found")


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _untold(_: Progress) -> None:
    """A task is asked for its progress: nobody listens here."""
    await anyio.lowlevel.checkpoint()
