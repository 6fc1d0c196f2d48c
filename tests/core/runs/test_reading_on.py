"""The call that reads on in a run of which a result shows only a part."""

from typing import Any

import pytest

from mcp_taskruns.core.calls.truncation import Gap
from mcp_taskruns.core.model.json_path import Path
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.runs.reading_on import advise_to_read_run
from mcp_taskruns.loading.loader import load_tools

LIFECYCLES: dict[str, Lifecycle] = {tool.prefix: tool.runs for tool in load_tools([]) if tool.runs is not None}
WAIT = {"timed_out": False, "polls": 1}


def advise(provider: str, operation: str, value: Any, *places: Path) -> str:
    gaps = [Gap(place, 10, 20, "items") for place in places]
    return advise_to_read_run(LIFECYCLES[provider], operation, value, gaps)


@pytest.mark.parametrize(
    ("provider", "place", "path"),
    [
        ("render", ("result", 0, "a"), "results[0].a[10:]"),
        ("render", ("error",), "error[10:]"),
        ("inngest", ("result", "a b"), 'data.output[\\"a b\\"][10:]'),
        ("inngest", ("error", "stack"), "data.output.stack[10:]"),
        ("posthog", ("result",), "output[10:]"),
        ("posthog", ("error",), "error_message[10:]"),
        ("runway", ("result",), "output[10:]"),
    ],
)
def test_place_in_the_result_of_waiting_is_named_as_in_the_run(provider: str, place: Path, path: str) -> None:
    read = LIFECYCLES[provider].read
    same = " and the same task_id" if provider == "posthog" else ""
    advice = f'To read on, call {read.tool} with {read.run_id_argument} "run-1" and result_path "{path}"{same}.'
    assert advise(provider, read.operation.name, WAIT | {"run_id": "run-1"}, place) == advice
    several = WAIT | {"runs": [{"run_id": "run-0"}, {"run_id": "run-1"}]}
    assert advise(provider, read.operation.name, several, ("runs", 1, *place)) == advice


@pytest.mark.parametrize(
    ("operation", "value", "place", "run_id", "path"),
    [
        ("tasksrunspartialupdate", {"id": "run-1"}, ("output", "x"), "run-1", "output.x[10:]"),
        ("tasksrunsstartcreate", {"latest_run": {"id": "run-2"}}, ("latest_run", "state"), "run-2", "state[10:]"),
    ],
)
def test_place_in_the_response_of_a_write_is_named_as_in_the_run(
    operation: str, value: Any, place: Path, run_id: str, path: str
) -> None:
    assert advise("posthog", operation, value, place) == (
        f'To read on, call posthog-retrieve-task-run with id "{run_id}" and result_path "{path}" and the same task_id.'
    )


@pytest.mark.parametrize(
    ("provider", "operation", "value", "place"),
    [
        ("render", "gettaskrun", WAIT | {"run_id": "r"}, ("next",)),
        ("render", "gettaskrun", WAIT | {"run_id": "r"}, ()),
        ("render", "gettaskrun", WAIT | {"run_id": "r"}, ("result", "k" * 500)),
        # Its text is joined of two fields.
        ("runway", "gettask", WAIT | {"run_id": "r"}, ("error",)),
        ("render", "listtaskruns", [{"taskRun": {"id": "r"}}], (0,)),
        ("posthog", "tasksrunsstartcreate", {"latest_run": {"id": "r"}}, ("description",)),
        ("posthog", "tasksrunspartialupdate", {"id": 5}, ("output",)),
        ("posthog", "tasksrunscommandcreate", {"result": []}, ("result",)),
    ],
)
def test_place_that_no_call_reads_has_no_advice(provider: str, operation: str, value: Any, place: Path) -> None:
    assert advise(provider, operation, value, place) == ""


def test_first_place_that_a_call_reads_is_named() -> None:
    advice = advise("render", "gettaskrun", WAIT | {"run_id": "r"}, ("next",), ("result",), ("error",))
    assert advice.endswith('result_path "results[10:]".')


def test_runs_that_are_left_out_are_read_with_fewer_ids() -> None:
    assert advise("render", "gettaskrun", WAIT | {"runs": []}, ("runs",)) == (
        "For the other runs call again with fewer ids."
    )
