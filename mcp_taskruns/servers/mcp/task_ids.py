"""The ids of MCP tasks.

An id contains everything that reading the run takes, signed with the credential of the provider. The server stores
nothing, so every server with the same credential accepts the id.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_taskruns.core.calls.credentials import credential_values
from mcp_taskruns.core.model.json import dump, parse
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import Tool

SIGNATURE_BYTES = 12


@dataclass(frozen=True)
class TaskHandle:
    """A decoded task id.

    Attributes:
        tool: the tool that started the run.
        lifecycle: the lifecycle of the run.
        run_id: the id of the run at the provider.
        others: the other arguments that reading the run needs.
        created: when the task was created, in seconds since the epoch.
    """

    tool: Tool
    lifecycle: Lifecycle
    run_id: str
    others: Mapping[str, Any]
    created: int


def encode_task_id(handle: TaskHandle, environment: Mapping[str, str]) -> str:
    """Return the task id of a handle."""
    payload = dump([handle.tool.name, handle.run_id, handle.others, handle.created]).encode()
    return base64.urlsafe_b64encode(_sign(handle.lifecycle, payload, environment) + payload).decode().rstrip("=")


def decode_task_id(task_id: str, tools: Mapping[str, Tool], environment: Mapping[str, str]) -> TaskHandle | None:
    """Return the handle of a task id; None if it is invalid, its signature is wrong or its tool is not served."""
    try:
        data = base64.urlsafe_b64decode(task_id + "=" * (-len(task_id) % 4))
        signature, payload = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
        name, run_id, others, created = parse(payload)
        tool = tools[name]
    except (ValueError, LookupError, TypeError):
        return None
    lifecycle = tool.runs
    if lifecycle is None or not hmac.compare_digest(signature, _sign(lifecycle, payload, environment)):
        return None
    return TaskHandle(tool, lifecycle, run_id, others, created)


def _sign(lifecycle: Lifecycle, payload: bytes, environment: Mapping[str, str]) -> bytes:
    secrets = credential_values(lifecycle.read.operation, environment)
    key = hashlib.sha256("\0".join(["io.modelcontextprotocol/tasks", *secrets]).encode()).digest()
    return hmac.digest(key, payload, "sha256")[:SIGNATURE_BYTES]
