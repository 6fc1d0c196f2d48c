"""Notifications of the agent, which PostHog logs and publishes on the event stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Notification:
    """The method and params of one log entry."""

    method: str
    params: Mapping[str, Any]


def console(message: str, level: str = "info") -> Notification:
    """Return a line of console output."""
    return Notification("_posthog/console", {"level": level, "message": message})


def session_update(kind: str, /, **fields: Any) -> Notification:
    """Return an update of the agent's session."""
    return Notification("session/update", {"update": {"sessionUpdate": kind, **fields}})


def agent_message(text: str) -> tuple[Notification, Notification]:
    """Return a message of the agent as a chunk, for the stream, and as a whole, for the log."""
    content = {"type": "text", "text": text}
    return session_update("agent_message_chunk", content=content), session_update("agent_message", content=content)


def event_type(entry: Mapping[str, Any]) -> str:
    """Return the type that session_logs filters by: the method, or the kind of a session update."""
    notification = entry.get("notification")
    if not isinstance(notification, dict):
        return ""
    method = str(notification.get("method", ""))
    params = notification.get("params")
    update = params.get("update") if isinstance(params, dict) else None
    if method == "session/update" and isinstance(update, dict):
        return str(update.get("sessionUpdate", method))
    return method


def is_message_chunk(entry: Mapping[str, Any]) -> bool:
    return event_type(entry) == "agent_message_chunk"
