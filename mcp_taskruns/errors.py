"""The exceptions of this project.

TaskRunsError
├── CapabilityError        a capability file or an overlay is invalid: its author has to fix it
├── SettingsError          an option or an environment variable is invalid: the operator has to fix it
├── UnknownTool            the client called a tool that is not listed: a protocol error
└── CallError              one call failed: a tool error, which the model reads
    ├── InvalidArguments   the arguments are invalid; nothing was sent
    ├── NotConfigured      a credential or an address is missing; nothing was sent
    ├── ProviderError      the provider returned an error response
    │   └── NotVisibleYet  the provider does not show a start that it has just accepted
    └── UpstreamError      no complete response arrived
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, Self, TypedDict, Unpack

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
"""The closed set of reasons for which a call fails."""


class TaskRunsError(Exception):
    """Base class of every exception that this project raises deliberately."""


class CapabilityError(TaskRunsError):
    """A capability file or an overlay that cannot be served.

    The message has the form `source: place: reason` and suggests a fix. `place` is a path in the document, or a line
    and a column, or empty when the reason concerns the whole file. For `check`, `steps` are the exact path by the names
    that an overlay uses, and `fix` is a sentence.
    """

    def __init__(self, source: str, place: str, reason: str, *, steps: Sequence[str | int] = (), fix: str = "") -> None:
        self.source: Final = source
        self.place: Final = place
        self.reason: Final = reason
        self.steps: Final = tuple(steps)
        self.fix: Final = fix
        super().__init__(f"{source}: {place}: {reason}" if place else f"{source}: {reason}")


class SettingsError(TaskRunsError):
    """An option, an environment variable or an environment file that cannot be used."""


class UnknownTool(TaskRunsError):
    """No tool of this name is listed."""


class CallErrorFields(TypedDict, total=False):
    """The fields of a `CallError` that `replace` can change."""

    message: str
    kind: Kind
    hint: str
    status: int | None
    retryable: bool
    retry_after_s: float | None
    is_foreign: bool
    outcome_unknown: bool


class CallError(TaskRunsError):
    """One failed call.

    Attributes:
        message: what happened.
        kind: why, one of a closed set.
        hint: what to do next; may be empty.
        status: the status code of the provider's response, if there was one.
        retryable: whether the same call may succeed later.
        retry_after_s: the delay that the provider asked for, in seconds.
        is_foreign: whether the response was neither JSON nor a message that the overlay knows: something between may
            have sent it, for example a proxy, or another server than the provider's API.
        outcome_unknown: whether the call changes something, and may have done so although it failed.

    An error is immutable: raise a copy made by `replace` instead of changing it.
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
        is_foreign: bool = False,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.message: Final = message
        self.kind: Final[Kind] = kind or self.default_kind
        self.hint: Final = hint
        self.status: Final = status
        self.retryable: Final = retryable
        self.retry_after_s: Final = retry_after_s
        self.is_foreign: Final = is_foreign
        self.outcome_unknown: Final = outcome_unknown

    def replace(self, **changes: Unpack[CallErrorFields]) -> Self:
        """Return a new error of the same class with some fields changed.

        Raise it `from` the original, which keeps the traceback of the cause.
        """
        fields: CallErrorFields = {
            "message": self.message,
            "kind": self.kind,
            "hint": self.hint,
            "status": self.status,
            "retryable": self.retryable,
            "retry_after_s": self.retry_after_s,
            "is_foreign": self.is_foreign,
            "outcome_unknown": self.outcome_unknown,
        }
        return type(self)(**(fields | changes))

    def to_line(self) -> str:
        """Return the message and the hint as text for people."""
        return f"{self.message.removesuffix('.')}. {self.hint}" if self.hint else self.message

    def to_json(self) -> dict[str, Any]:
        """Return the error as a JSON object without the fields that are unknown."""
        fields = {
            "kind": self.kind,
            "status": self.status,
            "message": self.message,
            "retryable": self.retryable,
            "retry_after_s": self.retry_after_s,
            "hint": self.hint or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


class InvalidArguments(CallError):
    """The arguments do not match the tool's input schema; nothing was sent."""

    default_kind: Kind = "validation"


class NotConfigured(CallError):
    """The server lacks a credential, an address or a feature that the call needs; nothing was sent."""

    default_kind: Kind = "config"


class ProviderError(CallError):
    """The provider returned an error response."""


class NotVisibleYet(ProviderError):
    """The provider's response is older than a start of a run that this process made a moment ago."""


class UpstreamError(CallError):
    """The provider could not be reached, or its response is incomplete."""
