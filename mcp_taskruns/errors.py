"""What can go wrong, whose fault it is and what to do about it.

TaskRunsError
├── CapabilityError        a capability file or an overlay is wrong: its author mends it
├── SettingsError          a flag or a variable is wrong: the operator mends it
├── UnknownTool            the client named a tool that is not listed: a protocol error
└── CallError              one call failed: a tool error that the model reads
    ├── InvalidArguments   the arguments are wrong: nothing was sent
    ├── NotConfigured      a credential or an address is missing: nothing was sent
    ├── ProviderError      the provider answered with an error
    └── UpstreamError      no whole answer arrived
"""

from typing import Any, Literal

Kind = Literal[
    "auth",
    "not_found",
    "validation",
    "rate_limited",
    "conflict",
    "usage_limit",
    "unavailable",
    "timeout",
    "unsupported",
    "config",
]


class TaskRunsError(Exception):
    """The root: everything this project raises on purpose."""


class CapabilityError(TaskRunsError):
    """A capability file that cannot be served; the text names the file, the place in it and the mend."""

    def __init__(self, source: str, place: str, reason: str) -> None:
        self.source = source
        self.place = place
        self.reason = reason
        super().__init__(f"{source}: {place}: {reason}" if place else f"{source}: {reason}")


class SettingsError(TaskRunsError):
    """A flag, a variable or an environment file that cannot be used."""


class UnknownTool(TaskRunsError):
    """No tool of this name is listed."""


class CallError(TaskRunsError):
    """One call failed.

    `kind` is one of a closed set, `status` the provider's HTTP status where there was one, `retryable` whether the
    same call may succeed later, `retry_after_s` the seconds the provider asked for, `hint` what to do next.
    """

    default_kind: Kind = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        kind: Kind | None = None,
        hint: str = "",
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind: Kind = kind or self.default_kind
        self.hint = hint
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    def to_line(self) -> str:
        """The message and what to do, for people."""
        return f"{self.message.removesuffix('.')}. {self.hint}" if self.hint else self.message

    def to_json(self) -> dict[str, Any]:
        """The error as an object, without what is not known."""
        known = {
            "kind": self.kind,
            "status": self.status,
            "message": self.message,
            "retryable": self.retryable,
            "retry_after_s": self.retry_after_s,
            "hint": self.hint or None,
        }
        return {name: value for name, value in known.items() if value is not None}


class InvalidArguments(CallError):
    """The caller's arguments do not fit the tool; nothing was sent."""

    default_kind: Kind = "validation"


class NotConfigured(CallError):
    """The server lacks a credential, an address or a feature that this call needs; nothing was sent."""

    default_kind: Kind = "config"


class ProviderError(CallError):
    """The provider answered, and the answer is an error."""


class UpstreamError(CallError):
    """The provider could not be reached, or its answer did not arrive whole."""
