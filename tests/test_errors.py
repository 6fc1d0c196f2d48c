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


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    classes = [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)]
    assert ["TaskRunsError", *drawn] == classes
    inner = re.findall(r"^    [├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    assert [kind.__name__ for kind in CallError.__subclasses__()] == inner
    assert all(issubclass(vars(errors)[name], TaskRunsError) for name in drawn)


@pytest.mark.parametrize(
    ("place", "text"),
    [("capability.consumes[0]", "f.yaml: capability.consumes[0]: is wrong"), ("", "f.yaml: is wrong")],
)
def test_a_capability_error_names_file_and_place(place: str, text: str) -> None:
    error = CapabilityError("f.yaml", place, "is wrong")
    assert (str(error), error.source, error.place, error.reason) == (text, "f.yaml", place, "is wrong")


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
def test_a_call_error_has_the_kind_of_its_class_unless_it_is_given_one(error: type[CallError], kind: Kind) -> None:
    assert (error("told").kind, error("told", kind="conflict").kind) == (kind, "conflict")


def test_a_call_error_as_json_leaves_out_what_is_not_known() -> None:
    assert CallError("told").to_json() == {"kind": "unavailable", "message": "told", "retryable": False}
    assert str(CallError("told")) == "told"


def test_a_call_error_as_json_has_all_that_is_known() -> None:
    error = ProviderError("told", kind="rate_limited", hint="Wait.", status=429, retryable=True, retry_after_s=0.0)
    assert error.to_json() == {
        "kind": "rate_limited",
        "status": 429,
        "message": "told",
        "retryable": True,
        "retry_after_s": 0.0,
        "hint": "Wait.",
    }
