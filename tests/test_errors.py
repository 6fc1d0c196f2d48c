import inspect
import re

import pytest

from mcp_taskruns import errors
from mcp_taskruns.errors import (
    CallError,
    CapabilityError,
    InvalidArguments,
    Kind,
    NotConfigured,
    ProviderError,
    TaskRunsError,
    UpstreamError,
)


def test_docstring_tree_matches_the_class_hierarchy() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    classes = [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)]
    assert ["TaskRunsError", *drawn] == classes
    inner = re.findall(r"^    [├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    assert [kind.__name__ for kind in CallError.__subclasses__()] == inner
    assert all(issubclass(vars(errors)[name], TaskRunsError) for name in drawn)


@pytest.mark.parametrize(
    ("place", "text"),
    [("capability.consumes[0]", "f.yaml: capability.consumes[0]: is invalid"), ("", "f.yaml: is invalid")],
)
def test_capability_error_message_has_file_and_place(place: str, text: str) -> None:
    error = CapabilityError("f.yaml", place, "is invalid")
    assert (str(error), error.source, error.place, error.reason) == (text, "f.yaml", place, "is invalid")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CallError, "unavailable"),
        (InvalidArguments, "validation"),
        (NotConfigured, "config"),
        (ProviderError, "unavailable"),
        (UpstreamError, "unavailable"),
    ],
)
def test_call_error_kind_defaults_to_that_of_its_class(error: type[CallError], kind: Kind) -> None:
    assert (error("failed").kind, error("failed", kind="conflict").kind) == (kind, "conflict")


def test_call_error_as_json_omits_unknown_fields() -> None:
    assert CallError("failed").to_json() == {"kind": "unavailable", "message": "failed", "retryable": False}
    assert str(CallError("failed")) == "failed"


def test_call_error_as_json_includes_all_known_fields() -> None:
    error = ProviderError("failed", kind="rate_limited", hint="Wait.", status=429, retryable=True, retry_after_s=0.0)
    assert error.to_json() == {
        "kind": "rate_limited",
        "status": 429,
        "message": "failed",
        "retryable": True,
        "retry_after_s": 0.0,
        "hint": "Wait.",
    }


def test_replace_returns_a_changed_copy_of_the_same_class() -> None:
    error = ProviderError("failed", kind="rate_limited", hint="Wait.", status=429, retryable=True, retry_after_s=2.0)
    copy = error.replace(message="failed (3 attempts)", retryable=False)
    assert type(copy) is ProviderError
    assert str(copy) == copy.message == "failed (3 attempts)"
    assert copy.to_json() == {**error.to_json(), "message": "failed (3 attempts)", "retryable": False}
    assert (error.message, error.retryable) == ("failed", True)
