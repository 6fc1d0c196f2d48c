"""Reading of runs of the shipped capabilities.

Their responses are taken from render 1.5.0, Inngest's open-source server, PostHog's source (products/tasks/backend) and
runwayml 5.24.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from math import nan
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mcp_taskruns.core.calls.truncation import MAX_LINE
from mcp_taskruns.core.model.json import parse
from mcp_taskruns.core.model.json_path import EACH
from mcp_taskruns.core.model.run import Lifecycle, ProgressFields, RunFields, RunStatus, Statuses
from mcp_taskruns.core.runs.polling import MAX_INTERVAL_S, poll_interval_s, run_age_s
from mcp_taskruns.core.runs.reading import (
    Reading,
    describe_run,
    error_text,
    ids_as_text,
    parse_reading,
    run_in_event,
    runs_in_response,
    with_text_ids,
)
from mcp_taskruns.core.runs.results import MAX_LISTED_RUNS, WAIT_SCHEMA, cancel_result, status_line, wait_result
from mcp_taskruns.core.runs.watch import MAX_FAILED_FIRST_READS, MAX_FAILED_READS, Until, Watch, describe_watch
from mcp_taskruns.errors import CallError, NotVisibleYet
from mcp_taskruns.loading.loader import load_tools
from tests.core.documents import Json

LIFECYCLES: dict[str, Lifecycle] = {tool.prefix: tool.runs for tool in load_tools([]) if tool.runs is not None}
RENDER, INNGEST, POSTHOG, RUNWAY = (LIFECYCLES[name] for name in ("render", "inngest", "posthog", "runway"))

NOT_STARTED, QUEUED, RUNNING, PAUSED = RunStatus.NOT_STARTED, RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.PAUSED
SUCCEEDED, FAILED, CANCELED = RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELED


@pytest.mark.parametrize(
    ("provider", "states"),
    [
        # render 1.5.0 public_api/models/task_run_status.py
        (
            "render",
            {
                "pending": QUEUED,
                "running": RUNNING,
                "paused": PAUSED,
                "completed": SUCCEEDED,
                "succeeded": SUCCEEDED,
                "failed": FAILED,
                "canceled": CANCELED,
            },
        ),
        # inngest pkg/enums/run_status.go; Unknown is not a status
        (
            "inngest",
            {
                "Scheduled": QUEUED,
                "Running": RUNNING,
                "Completed": SUCCEEDED,
                "Failed": FAILED,
                "Overflowed": FAILED,
                "Cancelled": CANCELED,
                "Skipped": CANCELED,
            },
        ),
        # PostHog products/tasks/backend/models.py
        (
            "posthog",
            {
                "not_started": NOT_STARTED,
                "queued": QUEUED,
                "in_progress": RUNNING,
                "completed": SUCCEEDED,
                "failed": FAILED,
                "cancelled": CANCELED,
            },
        ),
        # runwayml 5.24 types/task_retrieve_response.py
        (
            "runway",
            {
                "PENDING": QUEUED,
                "THROTTLED": QUEUED,
                "RUNNING": RUNNING,
                "SUCCEEDED": SUCCEEDED,
                "FAILED": FAILED,
                "CANCELLED": CANCELED,
            },
        ),
    ],
)
def test_every_native_status_has_a_status(provider: str, states: dict[str, RunStatus]) -> None:
    assert LIFECYCLES[provider].statuses == Statuses({(native,): status for native, status in states.items()})


def test_succeeded_failed_and_canceled_are_terminal() -> None:
    assert {state for state in RunStatus if state.is_terminal} == {SUCCEEDED, FAILED, CANCELED}


# render 1.5.0 public_api/models/task_run_details.py
RENDER_RUN: Json = {
    "id": "trn-d1abc2def3ghi4jkl5mn",
    "taskId": "tsk-d1abc2def3ghi4jkl5mn",
    "status": "completed",
    "parentTaskRunId": "",
    "rootTaskRunId": "trn-d1abc2def3ghi4jkl5mn",
    "retries": 0,
    "startedAt": "2026-01-31T09:00:00Z",
    "completedAt": "2026-01-31T09:00:02Z",
    "attempts": [{"attempt": 0, "status": "completed", "startedAt": "2026-01-31T09:00:00Z"}],
    "input": [5],
    "results": [25],
}
RENDER_TIMES: Json = {"started": "2026-01-31T09:00:00Z", "ended": "2026-01-31T09:00:02Z"}

# inngest dev, GET /v1/runs/{runId}
INNGEST_RUN: Json = {
    "run_id": "01M80PM0K0BN206E4QS0K61EWC",
    "run_started_at": "2026-11-22T04:00:54.368Z",
    "function_id": "222cde6f-6d7d-5a55-bad1-9a9b6bcec4eb",
    "function_version": 0,
    "environment_id": "00000000-0000-4000-b000-000000000000",
    "event_id": "01M80PM0D0MZ2TNFQ2WC5WAF2A",
    "status": "Completed",
    "ended_at": "2026-11-22T04:00:54.572181484Z",
    "output": {"input": {"n": 1, "who": "quick"}, "sum": 42},
}
INNGEST_TIMES: Json = {"started": "2026-11-22T04:00:54.368Z", "ended": "2026-11-22T04:00:54.572181484Z"}
INNGEST_ERROR = {
    "code": "non_retriable_error",
    "message": "boom: card declined",
    "name": "NonRetriableError",
    "stack": "Traceback (most recent call last):\n",
}

# PostHog products/tasks/backend/serializers.py: TaskRunDetailSerializer
POSTHOG_RUN: Json = {
    "id": "0196b7a2-9e21-7c44-b0f3-5d7a8c2e1b22",
    "task": "0196b7a1-4f3c-7a10-8d5e-2b9c6f1e0a11",
    "stage": "build",
    "branch": None,
    "status": "in_progress",
    "environment": "cloud",
    "error_message": None,
    "output": None,
    "state": {},
    "artifacts": [],
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:01:00Z",
    "completed_at": None,
}

# runwayml 5.24 types/task_retrieve_response.py
RUNWAY_RUN: Json = {
    "id": "17f20503-6c24-4c16-946b-35dbbce2af2f",
    "status": "RUNNING",
    "createdAt": "2026-01-31T09:00:00.000Z",
    "progress": 0.42,
    "estimatedCost": {"credits": 25},
}


@pytest.mark.parametrize(
    ("lifecycle", "operation", "response", "readings"),
    [
        pytest.param(
            RENDER,
            "gettaskrun",
            RENDER_RUN,
            [Reading(RENDER_RUN["id"], SUCCEEDED, "completed", result=[25], **RENDER_TIMES)],
            id="Render, completed",
        ),
        pytest.param(
            RENDER,
            "gettaskrun",
            RENDER_RUN | {"status": "succeeded"},
            [Reading(RENDER_RUN["id"], SUCCEEDED, "succeeded", result=[25], **RENDER_TIMES)],
            id="Render, succeeded",
        ),
        pytest.param(
            RENDER,
            "gettaskrun",
            RENDER_RUN | {"status": "failed", "results": None, "error": "ValueError: no"},
            [Reading(RENDER_RUN["id"], FAILED, "failed", error="ValueError: no", **RENDER_TIMES)],
            id="Render, failed",
        ),
        pytest.param(
            RENDER,
            "gettaskrun",
            RENDER_RUN | {"status": "paused", "results": []},
            [Reading(RENDER_RUN["id"], PAUSED, "paused", started="2026-01-31T09:00:00Z")],
            id="Render, paused",
        ),
        pytest.param(
            RENDER,
            "createtask",
            {"id": "trn-1", "taskId": "tsk-1", "status": "pending", "retries": 0, "attempts": []},
            [Reading("trn-1", QUEUED, "pending")],
            id="Render, made just now",
        ),
        pytest.param(
            RENDER,
            "listtaskruns",
            [
                {"taskRun": {"id": "trn-1", "status": "running"}, "cursor": "a"},
                {"taskRun": {"id": "trn-2", "status": "canceled"}, "cursor": "b"},
            ],
            [Reading("trn-1", RUNNING, "running"), Reading("trn-2", CANCELED, "canceled")],
            id="Render, a page",
        ),
        pytest.param(RENDER, "listtaskruns", [], [], id="Render, an empty page"),
        pytest.param(RENDER, "listtasks", [{"task": {"id": "tsk-1", "status": "running"}}], [], id="Render, no runs"),
        pytest.param(RENDER, "listtasks", {"id": "tsk-1", "status": "running"}, [], id="Render, not a run"),
        pytest.param(RENDER, "canceltaskrun", None, [], id="Render, no content"),
        pytest.param(
            INNGEST,
            "getrun",
            {"data": INNGEST_RUN, "metadata": {"fetched_at": "2026-11-22T04:17:49.081825028Z"}},
            [
                Reading(
                    INNGEST_RUN["run_id"],
                    SUCCEEDED,
                    "Completed",
                    result={"input": {"n": 1, "who": "quick"}, "sum": 42},
                    **INNGEST_TIMES,
                )
            ],
            id="Inngest, Completed",
        ),
        pytest.param(
            INNGEST,
            "getrun",
            {"data": INNGEST_RUN | {"status": "Failed", "output": INNGEST_ERROR}},
            [Reading(INNGEST_RUN["run_id"], FAILED, "Failed", error=INNGEST_ERROR, **INNGEST_TIMES)],
            id="Inngest, Failed",
        ),
        pytest.param(
            INNGEST,
            "getrun",
            {"data": INNGEST_RUN | {"status": "Cancelled", "output": {}}},
            [Reading(INNGEST_RUN["run_id"], CANCELED, "Cancelled", **INNGEST_TIMES)],
            id="Inngest, Cancelled",
        ),
        pytest.param(
            INNGEST,
            "getrun",
            {"data": {name: value for name, value in INNGEST_RUN.items() if name != "output"} | {"status": "Running"}},
            [Reading(INNGEST_RUN["run_id"], RUNNING, "Running", started="2026-11-22T04:00:54.368Z")],
            id="Inngest, Running",
        ),
        pytest.param(
            INNGEST,
            "getrun",
            {"data": INNGEST_RUN | {"status": "Unknown"}},
            [Reading(INNGEST_RUN["run_id"], RunStatus.UNKNOWN, "Unknown", started="2026-11-22T04:00:54.368Z")],
            id="Inngest, Unknown",
        ),
        pytest.param(INNGEST, "getrun", {"error": "x", "data": None, "status": 500}, [], id="Inngest, an error"),
        pytest.param(
            POSTHOG,
            "tasksrunsretrieve",
            POSTHOG_RUN,
            [Reading(POSTHOG_RUN["id"], RUNNING, "in_progress", "build", started="2026-01-01T00:00:00Z")],
            id="PostHog, in_progress",
        ),
        pytest.param(
            POSTHOG,
            "tasksrunsretrieve",
            POSTHOG_RUN | {"status": "completed", "stage": None, "output": {"pr_url": "https://github.com/a/b/pull/1"}},
            [
                Reading(
                    POSTHOG_RUN["id"],
                    SUCCEEDED,
                    "completed",
                    result={"pr_url": "https://github.com/a/b/pull/1"},
                    started="2026-01-01T00:00:00Z",
                )
            ],
            id="PostHog, completed",
        ),
        pytest.param(
            POSTHOG,
            "tasksrunssetoutputpartialupdate",
            POSTHOG_RUN | {"status": "failed", "error_message": "No sandbox"},
            [Reading(POSTHOG_RUN["id"], FAILED, "failed", "build", error="No sandbox", started="2026-01-01T00:00:00Z")],
            id="PostHog, failed",
        ),
        pytest.param(
            POSTHOG,
            "tasksrunslist",
            {"count": 2, "next": None, "previous": None, "results": [{"id": "a", "status": "queued"}, {"id": "b"}]},
            [Reading("a", QUEUED, "queued")],
            id="PostHog, a page",
        ),
        pytest.param(
            RUNWAY,
            "gettask",
            RUNWAY_RUN,
            [Reading(RUNWAY_RUN["id"], RUNNING, "RUNNING", progress=0.42, started="2026-01-31T09:00:00.000Z")],
            id="Runway, RUNNING",
        ),
        pytest.param(
            RUNWAY,
            "gettask",
            {"id": "17f2", "status": "SUCCEEDED", "output": ["https://x.example/a.mp4"], "cost": {"credits": 25}},
            [Reading("17f2", SUCCEEDED, "SUCCEEDED", result=["https://x.example/a.mp4"])],
            id="Runway, SUCCEEDED",
        ),
        pytest.param(
            RUNWAY,
            "gettask",
            {"id": "17f2", "status": "FAILED", "failure": "It was refused.", "failureCode": "SAFETY.INPUT.TEXT"},
            [Reading("17f2", FAILED, "FAILED", error="It was refused. (SAFETY.INPUT.TEXT)")],
            id="Runway, FAILED",
        ),
        pytest.param(
            RUNWAY,
            "gettask",
            {"id": "17f2", "status": "FAILED", "failure": "It broke.", "failureCode": None},
            [Reading("17f2", FAILED, "FAILED", error="It broke.")],
            id="Runway, FAILED without a code",
        ),
        pytest.param(
            RUNWAY,
            "gettask",
            {"id": "17f2", "status": "CANCELLED"},
            [Reading("17f2", CANCELED, "CANCELLED")],
            id="Runway, CANCELLED",
        ),
        pytest.param(RUNWAY, "deletetask", None, [], id="Runway, no content"),
    ],
)
def test_runs_are_found_in_responses(
    lifecycle: Lifecycle, operation: str, response: Any, readings: list[Reading]
) -> None:
    assert runs_in_response(lifecycle, operation, response) == readings


@pytest.mark.parametrize(("run_id", "expected"), [({"run_id": "requested"}, "requested"), ({}, "")])
def test_run_without_id_in_a_response_has_the_requested_id(run_id: dict[str, str], expected: str) -> None:
    (reading,) = runs_in_response(RUNWAY, "gettask", {"status": "RUNNING"}, **run_id)
    assert reading.run_id == expected


SHAPE = RunFields(
    id=("id",),
    status=(("status",),),
    stage=("stage",),
    progress=ProgressFields(("progress",)),
    result=("out",),
    error=(("error",), ("code",), ("detail",)),
    started_at=("at",),
    ended_at=("over",),
)
STATES = Statuses({("on",): RUNNING, ("ok",): SUCCEEDED, ("bad",): FAILED, ("off",): CANCELED})


@pytest.mark.parametrize(
    "value", [None, "on", [], [{"status": "on"}], {}, {"id": "r"}, {"status": None}, {"status": 1}, {"status": ["on"]}]
)
def test_value_without_status_is_not_a_run(value: Any) -> None:
    assert parse_reading(value, SHAPE, STATES, "r") is None


@pytest.mark.parametrize(
    ("fields", "run_id"),
    [({}, "requested"), ({"id": None}, "requested"), ({"id": ""}, "requested"), ({"id": True}, "requested")],
)
def test_run_without_id_has_the_requested_id(fields: Json, run_id: str) -> None:
    assert parse_reading({"status": "on", **fields}, SHAPE, STATES, "requested") == Reading(run_id, RUNNING, "on")


def test_run_keeps_its_own_id() -> None:
    assert parse_reading({"status": "on", "id": "own"}, SHAPE, STATES, "requested") == Reading("own", RUNNING, "on")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (0, 0.0),
        (0.42, 0.42),
        (1, 1.0),
        (1.5, 1.0),
        (-1, 0.0),
        ("0.5", None),
        (None, None),
        ([0.5], None),
        (nan, None),
        (True, None),
    ],
)
def test_progress_is_a_ratio_or_none(value: Any, read: float | None) -> None:
    reading = parse_reading({"status": "on", "id": "r", "progress": value}, SHAPE, STATES, "")
    assert reading is not None
    assert reading.progress == read


@pytest.mark.parametrize(
    ("fields", "value", "read"),
    [
        (ProgressFields(percent=("p",)), {"p": 42}, 0.42),
        (ProgressFields(percent=("p",)), {"p": 250}, 1.0),
        (ProgressFields(percent=("p",)), {"p": "42"}, None),
        (ProgressFields(done=(("ok",), ("bad",)), total=("all",)), {"ok": 2, "bad": 1, "all": 4}, 0.75),
        (ProgressFields(done=(("ok",), ("bad",)), total=("all",)), {"ok": 2, "all": 4}, 0.5),
        (ProgressFields(done=(("ok",),), total=("all",)), {"ok": 0, "all": 0}, None),
        (ProgressFields(done=(("ok",),), total=("all",)), {"ok": 1, "all": None}, None),
        (ProgressFields(done=(("ok",),), total=("all",)), {"all": 4}, None),
    ],
)
def test_progress_is_read_from_a_percentage_or_from_parts(
    fields: ProgressFields, value: Json, read: float | None
) -> None:
    reading = parse_reading({"status": "on", **value}, replace(SHAPE, progress=fields), STATES, "r")
    assert reading is not None
    assert reading.progress == read


TWO_FIELDS = replace(SHAPE, status=(("status",), ("outcome",)))
OUTCOMES = Statuses(
    {("on",): RUNNING, ("over", "good"): SUCCEEDED, ("over", "true"): PAUSED},
    ((("over", "*"), FAILED), (("*", "gone"), CANCELED)),
)


@pytest.mark.parametrize(
    ("outcome", "native", "status"),
    [
        (None, "on", RUNNING),
        ("", "on", RUNNING),
        ({"a": 1}, "on", RUNNING),
        ("gone", "on/gone", CANCELED),
        ("other", "on/other", RunStatus.UNKNOWN),
    ],
)
def test_status_of_two_fields_leaves_out_a_field_without_value(outcome: Any, native: str, status: RunStatus) -> None:
    value = {"id": "r", "status": "on", "outcome": outcome}
    assert parse_reading(value, TWO_FIELDS, OUTCOMES, "r") == Reading("r", status, native)


@pytest.mark.parametrize(
    ("outcome", "native", "status"),
    [
        ("good", "over/good", SUCCEEDED),
        (True, "over/true", PAUSED),
        (3, "over/3", FAILED),
        ("gone", "over/gone", FAILED),  # the first pattern
        ("with/slash", "over/with/slash", FAILED),
    ],
)
def test_exact_status_of_two_fields_counts_before_patterns(outcome: Any, native: str, status: RunStatus) -> None:
    reading = parse_reading({"id": "r", "status": "over", "outcome": outcome}, TWO_FIELDS, OUTCOMES, "r")
    assert reading is not None
    assert (reading.native_status, reading.status) == (native, status)


@pytest.mark.parametrize(("run_id", "text"), [(12_345, "12345"), (-1, "-1"), (2**70, str(2**70)), ("a1", "a1")])
def test_integer_id_becomes_text(run_id: Any, text: str) -> None:
    reading = parse_reading({"status": "on", "id": run_id}, SHAPE, STATES, "requested")
    assert reading is not None
    assert reading.run_id == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([{"id": 1}, {"id": "b"}], [{"id": "1"}, {"id": "b"}]),
        ([{"id": "a"}], [{"id": "a"}]),
        ([{"id": None}, {}, 5], [{"id": None}, {}, 5]),
        ({"id": 1}, {"id": 1}),
    ],
)
def test_integer_ids_in_responses_become_text(value: Any, shown: Any) -> None:
    lifecycle = Lifecycle("p", RENDER.read, SHAPE, STATES, runs_in={"op": (EACH,)})
    assert with_text_ids(lifecycle, "op", value) == shown
    assert with_text_ids(lifecycle, "other", value) is value


@pytest.mark.parametrize(("name", "value"), [("stage", 5), ("at", {})])
def test_fields_of_other_types_are_empty(name: str, value: Any) -> None:
    assert parse_reading({"status": "on", "id": "r", name: value}, SHAPE, STATES, "") == Reading("r", RUNNING, "on")


@pytest.mark.parametrize(
    ("value", "attempts"),
    [(3, 3), ([{}, {}], 2), (1, None), ([{}], None), ([], None), ("3", None), (True, None), (None, None)],
)
def test_attempts_are_a_number_or_the_length_of_a_list(value: Any, attempts: int | None) -> None:
    run = {"id": "r", "state": "x", "tries": value}
    fields = RunFields(id=("id",), status=(("state",),), attempts=("tries",))
    reading = parse_reading(run, fields, Statuses({("x",): SUCCEEDED}), "")
    assert reading is not None
    assert reading.attempts == attempts


@pytest.mark.parametrize(("native", "ended"), [("ok", "t"), ("bad", "t"), ("off", "t"), ("on", ""), ("new", "")])
def test_only_a_run_with_a_terminal_status_has_an_end(native: str, ended: str) -> None:
    reading = parse_reading({"status": native, "id": "r", "over": "t"}, SHAPE, STATES, "")
    assert reading is not None
    assert reading.ended == ended


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, None),
        ({"error": None, "code": ""}, None),
        ({"error": {}, "code": []}, None),
        ({"error": "no"}, "no"),
        ({"code": "X"}, "X"),
        ({"error": {"a": 1}}, {"a": 1}),
        ({"error": 0}, 0),
        ({"error": "no", "code": "X"}, "no (X)"),
        ({"error": {"a": 1}, "code": "X"}, '{"a":1} (X)'),
        ({"error": "no", "code": "X", "detail": 5}, "no (X, 5)"),
    ],
)
def test_error_joins_the_values_of_its_paths(fields: Json, error: Any) -> None:
    for native, state in (("bad", FAILED), ("off", CANCELED)):
        assert parse_reading({"status": native, "id": "r", **fields}, SHAPE, STATES, "") == Reading(
            "r", state, native, error=error
        )


@pytest.mark.parametrize("native", ["on", "ok", "odd"])
def test_only_failed_and_canceled_runs_have_an_error(native: str) -> None:
    reading = parse_reading({"status": native, "id": "r", "error": "from an earlier try"}, SHAPE, STATES, "")
    assert reading is not None
    assert reading.error is None


@pytest.mark.parametrize(("native", "result"), [("on", None), ("ok", [1]), ("bad", None), ("off", None), ("odd", None)])
def test_only_succeeded_runs_have_a_result(native: str, result: Any) -> None:
    reading = parse_reading({"status": native, "id": "r", "out": [1]}, SHAPE, STATES, "")
    assert reading is not None
    assert reading.result == result


# PostHog products/tasks/backend/models.py and api.py (stream)
STATE_EVENT: Json = {
    "type": "task_run_state",
    "run_id": "0196b7a2-9e21-7c44-b0f3-5d7a8c2e1b22",
    "task_id": "0196b7a1-4f3c-7a10-8d5e-2b9c6f1e0a11",
    "status": "failed",
    "stage": "build",
    "output": None,
    "branch": None,
    "error_message": "No sandbox",
    "updated_at": "2026-01-01T00:00:00Z",
    "completed_at": None,
}


@pytest.mark.parametrize(
    ("lifecycle", "data", "reading"),
    [
        pytest.param(
            RENDER,
            RENDER_RUN | {"status": "failed", "error": "no", "results": None},
            Reading(RENDER_RUN["id"], FAILED, "failed", error="no", **RENDER_TIMES),
            id="Render",
        ),
        pytest.param(RENDER, {"status": "running"}, Reading("requested", RUNNING, "running"), id="Render, without id"),
        pytest.param(RENDER, {"error": "x"}, None, id="Render, an error"),
        pytest.param(RENDER, "{", None, id="Render, broken JSON"),
        pytest.param(
            POSTHOG,
            STATE_EVENT,
            # The stream is about one run, even if its id is spelled with other letters.
            Reading("requested", FAILED, "failed", "build", error="No sandbox"),
            id="PostHog",
        ),
        pytest.param(POSTHOG, STATE_EVENT | {"type": "other"}, None, id="PostHog, of another type"),
        pytest.param(
            POSTHOG,
            {"type": "task_run_state", "status": "queued"},
            Reading("requested", QUEUED, "queued"),
            id="without id",
        ),
        pytest.param(POSTHOG, {"error": "Stream not available"}, None, id="PostHog, an error"),
        pytest.param(INNGEST, INNGEST_RUN, None, id="Inngest has no stream"),
    ],
)
def test_run_is_read_from_matching_events(lifecycle: Lifecycle, data: Any, reading: Reading | None) -> None:
    assert run_in_event(lifecycle, data, "requested") == reading


def test_update_returns_whether_the_reading_changed() -> None:
    watch = Watch(["a"])
    readings = [
        Reading("a", QUEUED, "queued"),
        Reading("a", QUEUED, "queued"),
        Reading("a", QUEUED, "queued", started="2026-01-01T00:00:00Z"),
        Reading("a", RUNNING, "running"),
        Reading("a", RUNNING, "running", "build"),
        Reading("a", RUNNING, "running", "build", 0.101),
        Reading("a", RUNNING, "running", "build", 0.102),
        Reading("a", RUNNING, "running", "build", 0.2),
        Reading("a", FAILED, "failed", error="no"),
    ]
    assert [watch.update(reading) for reading in readings] == [True, False, False, True, True, True, False, True, True]
    assert watch.readings == {"a": readings[-1]}


def test_latest_reading_is_kept_without_changes() -> None:
    watch = Watch(["a"])
    watch.update(Reading("a", QUEUED, "queued"))
    assert watch.update(Reading("a", QUEUED, "queued", started="2026-01-01T00:00:00Z")) is False
    assert watch.readings["a"] == Reading("a", QUEUED, "queued", started="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("end", [SUCCEEDED, FAILED, CANCELED])
@pytest.mark.parametrize("later", RunStatus)
def test_terminal_status_is_kept(end: RunStatus, later: RunStatus) -> None:
    watch = Watch(["a"])
    ended = Reading("a", end, "end")
    assert watch.update(ended)
    assert not watch.update(Reading("a", later, "later"))
    assert watch.readings == {"a": ended}


@pytest.mark.parametrize("status", RunStatus)
def test_event_does_not_prove_a_terminal_status(status: RunStatus) -> None:
    watch = Watch(["a"])
    reading = Reading("a", status, "native")
    assert watch.note_event(reading) is not status.is_terminal
    assert watch.readings == {"a": None if status.is_terminal else reading}
    assert not watch.note_event(Reading("b", status, "native"))


def test_event_does_not_change_a_terminal_status() -> None:
    watch = Watch(["a"])
    ended = Reading("a", FAILED, "failed")
    watch.update(ended)
    assert not watch.note_event(Reading("a", RUNNING, "running"))
    assert watch.readings == {"a": ended}


LOST = CallError("lost", retryable=True)


@pytest.mark.parametrize(("was_read", "limit"), [(False, MAX_FAILED_FIRST_READS), (True, MAX_FAILED_READS)])
def test_run_is_given_up_after_too_many_failed_reads(was_read: bool, limit: int) -> None:
    watch = Watch(["a", "b"])
    if was_read:
        watch.update(Reading("a", RUNNING, "running"))
    for number in range(limit):
        watch.fail("a", LOST)
        assert (watch.failed_reads("a"), watch.pending, watch.is_over) == (number + 1, ["a", "b"], False)
    watch.fail("a", LOST)
    assert (watch.pending, watch.active, watch.failures) == (["b"], ["a", "b"], {"a": LOST})
    watch.update(Reading("b", SUCCEEDED, "completed"))
    assert (watch.is_over, watch.is_done, watch.ended_count) == (True, False, 1)


def test_run_that_is_not_visible_yet_is_not_given_up() -> None:
    watch = Watch(["a"])
    for _ in range(3 * MAX_FAILED_READS):
        watch.fail("a", NotVisibleYet("the provider returned 404", retryable=True))
    assert watch.pending == ["a"]


def test_successful_read_ends_a_row_of_failed_reads() -> None:
    watch = Watch(["a"])
    watch.update(Reading("a", RUNNING, "running"))
    for _ in range(3 * MAX_FAILED_READS):
        watch.fail("a", LOST)
        watch.update(Reading("a", RUNNING, "running"))
    assert (watch.pending, watch.failures, watch.failed_reads("a")) == (["a"], {}, 0)


def test_final_failure_gives_a_run_up_at_once() -> None:
    watch = Watch(["a"])
    watch.fail("a", CallError("not found"), is_final=True)
    assert (watch.pending, watch.is_over, watch.is_done, watch.is_known) == ([], True, False, False)


@pytest.mark.parametrize(
    ("run_ids", "readings", "line"),
    [
        (["a"], [], ""),
        (["a"], [Reading("a", RUNNING, "running", "build")], "a: running, build"),
        (["a", "b"], [], "0 of 2 runs have ended"),
        (["a", "b"], [Reading("a", FAILED, "failed")], "1 of 2 runs have ended"),
    ],
)
def test_watch_is_described_in_one_line(run_ids: list[str], readings: list[Reading], line: str) -> None:
    watch = Watch(run_ids)
    for reading in readings:
        watch.update(reading)
    assert describe_watch(watch) == line
    watch.fail(run_ids[0], LOST)
    assert describe_watch(watch) == (f"{line}, the last read failed" if line else "")


def test_readings_of_other_runs_are_ignored() -> None:
    watch = Watch(["a"])
    assert not watch.update(Reading("b", SUCCEEDED, "completed"))
    assert (watch.readings, watch.has_ended("b"), watch.is_done) == ({"a": None}, False, False)


A_DONE, A_RUNNING = Reading("a", SUCCEEDED, "completed"), Reading("a", RUNNING, "running")
B_DONE, B_QUEUED = Reading("b", CANCELED, "canceled"), Reading("b", QUEUED, "pending")


@pytest.mark.parametrize(
    ("readings", "pending", "ended", "over"),
    [
        ([], ["a", "b"], 0, {"all": False, "any": False}),
        ([A_RUNNING, B_QUEUED], ["a", "b"], 0, {"all": False, "any": False}),
        ([A_DONE], ["b"], 1, {"all": False, "any": True}),
        ([B_DONE, A_RUNNING], ["a"], 1, {"all": False, "any": True}),
        ([A_DONE, B_DONE], [], 2, {"all": True, "any": True}),
    ],
)
def test_watch_is_done_when_all_or_any_runs_have_ended(
    readings: list[Reading], pending: list[str], ended: int, over: dict[Until, bool]
) -> None:
    for until, is_over in over.items():
        watch = Watch(["a", "b", "a"], until)
        for reading in readings:
            watch.update(reading)
        assert (watch.pending, watch.ended_count, watch.is_done) == (pending, ended, is_over)
        assert [watch.has_ended(run_id) for run_id in ("a", "b")] == ["a" not in pending, "b" not in pending]
        assert watch.statuses() == {reading.run_id: str(reading.status) for reading in sorted(readings, key=_id)}


def _id(reading: Reading) -> str:
    return reading.run_id


@pytest.mark.parametrize(
    ("lifecycle", "age", "seconds"),
    [
        (INNGEST, 0, 3),
        (INNGEST, 60, 3),
        (INNGEST, 61, 3.05),
        (INNGEST, 300, 15),
        (INNGEST, 600, 30),
        (INNGEST, 86_400, MAX_INTERVAL_S),
        (RUNWAY, 0, 5),
        (RUNWAY, 100, 5),
        (RUNWAY, 200, 10),
    ],
)
def test_poll_interval_grows_with_the_age_of_the_run(lifecycle: Lifecycle, age: float, seconds: float) -> None:
    assert poll_interval_s(lifecycle, age) == seconds


def test_poll_interval_is_at_least_poll_seconds() -> None:
    slow = Lifecycle("p", RENDER.read, SHAPE, STATES, poll_seconds=60)
    assert [poll_interval_s(slow, age) for age in (0, 10_000)] == [60, 60]


@pytest.mark.parametrize(
    ("started", "age"),
    [
        ("2026-01-31T09:00:00Z", 90),
        ("2026-01-31T09:00:00.500Z", 89.5),
        ("2026-01-31T09:00:00.500000000Z", 89.5),  # Go's RFC3339Nano
        ("2026-01-31T10:00:00+01:00", 90),
        ("2026-01-31T09:00:00", 90),
        ("2026-01-31", 32_490),
        ("2026-01-31T09:02:00Z", 0),  # clocks that differ
        ("2126-01-31T09:00:00Z", 0),
        # The zero times of Go and .NET, and of Unix
        ("0001-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00", 0),
        ("0001-01-01T00:00:00+14:00", 0),
        ("1970-01-01T00:00:00.000Z", 0),
        ("1969-12-31T19:00:00-05:00", 0),
        ("", 0),
        ("yesterday", 0),
        ("1769850000", 0),
    ],
)
def test_run_age_is_computed_from_the_start_time(started: str, age: float) -> None:
    reading = Reading("r", RUNNING, "running", started=started)
    now = datetime(2026, 1, 31, 9, 1, 30, tzinfo=UTC)
    assert run_age_s(reading, now) == age
    assert run_age_s(reading, now.astimezone(timezone(timedelta(hours=-5)))) == age


@pytest.mark.parametrize(
    "zero",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00",
        "1970-01-01T00:00:00+00:00",
        "0000-00-00 00:00:00",  # MySQL
        "0001-01-01 00:00:00 +0000 UTC",  # Go, time.Time.String
    ],
)
def test_zero_time_of_a_provider_is_unknown(zero: str) -> None:
    fields = replace(SHAPE, started_at=("started",), ended_at=("ended",))
    value = {"id": "r", "started": zero, "ended": zero}
    for native in ("on", "ok", "bad", "off"):
        reading = parse_reading({**value, "status": native}, fields, STATES, "r")
        assert reading is not None
        assert (reading.started, reading.ended) == ("", "")


@pytest.mark.parametrize(
    ("reading", "line"),
    [
        (Reading("trn-1", QUEUED, "pending"), "trn-1: queued"),
        (Reading("trn-1", RUNNING, "in_progress", "build"), "trn-1: running, build"),
        (Reading("17f2", RUNNING, "RUNNING", progress=0.42), "17f2: running, 42%"),
        (Reading("17f2", RUNNING, "RUNNING", "render", progress=0.0), "17f2: running, render, 0%"),
        (Reading("17f2", SUCCEEDED, "SUCCEEDED", progress=0.9, result=["x"]), "17f2: succeeded"),
        (Reading("trn-1", FAILED, "failed", "build", error="No sandbox"), 'trn-1: failed, build, "No sandbox"'),
        (
            Reading("01M8", FAILED, "Failed", error=INNGEST_ERROR),
            '01M8: failed, "NonRetriableError: boom: card declined"',
        ),
        (Reading("trn-1", CANCELED, "canceled"), "trn-1: canceled"),
        (Reading("trn-1", RunStatus.UNKNOWN, "evicted"), "trn-1: evicted"),
        (Reading("trn-1", FAILED, "failed", error="one\r\n\ttwo\x1b[31m"), 'trn-1: failed, "one two [31m"'),
    ],
)
def test_run_is_described_in_one_line(reading: Reading, line: str) -> None:
    assert describe_run(reading) == line


def test_run_line_is_truncated() -> None:
    line = describe_run(Reading("r" * 100, FAILED, "failed", "s" * 100, error=["x\n"] * 100))
    assert (len(line), line.isprintable()) == (MAX_LINE, True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("no", "no"),
        (INNGEST_ERROR, "NonRetriableError: boom: card declined"),
        ({"message": "no"}, "no"),
        ({"name": "E", "message": 5}, "E"),
        ({"code": 1}, '{"code":1}'),
        (["a"], '["a"]'),
        (0, "0"),
    ],
)
def test_error_text_has_name_and_message(error: Any, words: str) -> None:
    assert error_text(error) == words


@pytest.mark.parametrize(
    ("readings", "line"),
    [
        ([], ""),
        ([Reading("trn-1", SUCCEEDED, "completed")], "Run trn-1: succeeded (completed)."),
        ([Reading("trn-1", SUCCEEDED, "succeeded")], "Run trn-1: succeeded."),
        ([Reading("17f2", QUEUED, "THROTTLED")], "Run 17f2: queued (THROTTLED)."),
        ([Reading("trn-1", RunStatus.UNKNOWN, "evicted")], "Run trn-1: unknown (evicted)."),
        ([A_DONE, B_DONE], "Runs a: succeeded (completed); b: canceled."),
    ],
)
def test_status_line_has_status_and_native_status(readings: list[Reading], line: str) -> None:
    assert status_line(readings) == line


@pytest.mark.parametrize(("count", "more"), [(10, ""), (11, "; and 1 more"), (1_510, "; and 1,500 more")])
def test_status_line_lists_the_first_runs(count: int, more: str) -> None:
    line = status_line([Reading(f"r{number}", RUNNING, "running") for number in range(count)])
    assert line == "Runs " + "; ".join(f"r{number}: running" for number in range(MAX_LISTED_RUNS)) + more + "."


@pytest.mark.parametrize("text", ["a\nb\x1b[31m", "x" * 1_000_000])
def test_status_line_is_one_line(text: str) -> None:
    line = status_line([Reading(f"r{number}{text}", RunStatus.UNKNOWN, text) for number in range(MAX_LISTED_RUNS)])
    assert line.isprintable()
    assert len(line) < 10_000


def wait_for(
    lifecycle: Lifecycle,
    run_ids: list[str],
    *readings: Reading,
    until: Until = "all",
    several: bool = False,
    elapsed_s: float = 12.345,
    polls: int = 3,
) -> Json:
    watch = Watch(run_ids, until)
    for reading in readings:
        watch.update(reading)
    value = wait_result(lifecycle, watch, elapsed_s=elapsed_s, polls=polls, several=several)
    assert list(Draft202012Validator(dict(WAIT_SCHEMA)).iter_errors(value)) == []
    assert set(value) <= set(WAIT_SCHEMA["properties"])
    return value


FAILED_NEXT = (
    "The run has failed: read error, and call render-run-task only if a retry can succeed; "
    "waiting longer has no effect."
)


@pytest.mark.parametrize(
    ("lifecycle", "readings", "expected_fields"),
    [
        pytest.param(
            RENDER,
            [Reading("r", SUCCEEDED, "completed", result=[25])],
            {
                "status": "succeeded",
                "native_status": "completed",
                "terminal": True,
                "timed_out": False,
                "result": [25],
                "error": None,
                "next": "The run has succeeded: no further call is needed.",
            },
            id="succeeded",
        ),
        pytest.param(
            RENDER,
            [Reading("r", FAILED, "failed", error="ValueError: no")],
            {
                "status": "failed",
                "native_status": "failed",
                "terminal": True,
                "timed_out": False,
                "result": None,
                "error": "ValueError: no",
                "next": FAILED_NEXT,
            },
            id="failed",
        ),
        pytest.param(
            INNGEST,
            [Reading("r", CANCELED, "Cancelled")],
            {
                "status": "canceled",
                "native_status": "Cancelled",
                "terminal": True,
                "timed_out": False,
                "result": None,
                "error": None,
                "next": "The run has been cancelled: waiting longer has no effect.",
            },
            id="canceled, without a tool that starts runs",
        ),
        pytest.param(
            INNGEST,
            [Reading("r", FAILED, "Failed", error="boom")],
            {
                "status": "failed",
                "native_status": "Failed",
                "terminal": True,
                "timed_out": False,
                "result": None,
                "error": "boom",
                "next": "The run has failed: read error; waiting longer has no effect.",
            },
            id="failed, without a tool that starts runs",
        ),
        pytest.param(
            RUNWAY,
            [Reading("r", RUNNING, "RUNNING", progress=0.5)],
            {
                "status": "running",
                "native_status": "RUNNING",
                "terminal": False,
                "timed_out": True,
                "result": None,
                "error": None,
                "next": "The run continues, and nothing was cancelled: call runway-wait-for-run again to keep waiting.",
            },
            id="timed out",
        ),
        pytest.param(
            INNGEST,
            [],
            {
                "status": "unknown",
                "native_status": None,
                "terminal": False,
                "timed_out": True,
                "result": None,
                "error": None,
                "next": "No status is known yet: call inngest-wait-for-run again.",
            },
            id="nothing is known",
        ),
        pytest.param(
            POSTHOG,
            [Reading("r", NOT_STARTED, "not_started")],
            {
                "status": "not started",
                "native_status": "not_started",
                "terminal": False,
                "timed_out": False,
                "result": None,
                "error": None,
                "next": "The run has not been started: start a cloud run with posthog-start-task-run; the desktop "
                "client starts a local run. After the start, call posthog-wait-for-run.",
            },
            id="not started",
        ),
        pytest.param(
            POSTHOG,
            [Reading("r", QUEUED, "queued")],
            {
                "status": "queued",
                "native_status": "queued",
                "terminal": False,
                "timed_out": True,
                "result": None,
                "error": None,
                "next": "The run continues, and nothing was cancelled: call posthog-wait-for-run again "
                "to keep waiting.",
            },
            id="queued",
        ),
    ],
)
def test_wait_result_of_one_run_is_flat(lifecycle: Lifecycle, readings: list[Reading], expected_fields: Json) -> None:
    value = wait_for(lifecycle, ["r"], *readings)
    expected = {"provider": lifecycle.provider, "run_id": "r", "elapsed_seconds": 12.3, "polls": 3, **expected_fields}
    assert value == expected


def test_wait_result_has_long_fields_last() -> None:
    assert list(wait_for(RENDER, ["r"], A_DONE)) == [
        "provider",
        "run_id",
        "status",
        "native_status",
        "terminal",
        "timed_out",
        "elapsed_seconds",
        "polls",
        "result",
        "error",
        "next",
    ]


A_RUN = {
    "run_id": "a",
    "status": "succeeded",
    "native_status": "completed",
    "terminal": True,
    "result": None,
    "error": None,
}
B_RUN = {
    "run_id": "b",
    "status": "queued",
    "native_status": "pending",
    "terminal": False,
    "result": None,
    "error": None,
}


@pytest.mark.parametrize(
    ("readings", "until", "expected_fields"),
    [
        pytest.param(
            [B_QUEUED, A_DONE],
            "all",
            {
                "runs": [A_RUN, B_RUN],
                "terminal": False,
                "timed_out": True,
                "next": 'Call render-wait-for-run again for the runs that continue: ["b"].',
            },
            id="not all",
        ),
        pytest.param(
            [B_QUEUED, A_DONE],
            "any",
            {
                "runs": [A_RUN, B_RUN],
                "terminal": True,
                "timed_out": False,
                "next": 'Call render-wait-for-run again for the runs that continue: ["b"].',
            },
            id="any",
        ),
        pytest.param(
            [],
            "any",
            {
                "runs": [
                    A_RUN | {"status": "unknown", "native_status": None, "terminal": False},
                    B_RUN | {"status": "unknown", "native_status": None},
                ],
                "terminal": False,
                "timed_out": True,
                "next": "No status is known yet: call render-wait-for-run again.",
            },
            id="not any",
        ),
        pytest.param(
            [A_DONE, Reading("b", SUCCEEDED, "succeeded", result=[1])],
            "all",
            {
                "runs": [
                    A_RUN,
                    B_RUN | {"status": "succeeded", "native_status": "succeeded", "terminal": True, "result": [1]},
                ],
                "terminal": True,
                "timed_out": False,
                "next": "All runs have succeeded: no further call is needed.",
            },
            id="all",
        ),
    ],
)
def test_wait_result_of_several_runs_lists_each(readings: list[Reading], until: Until, expected_fields: Json) -> None:
    value = wait_for(RENDER, ["a", "b"], *readings, until=until, several=True)
    assert value == {"provider": "render", "elapsed_seconds": 12.3, "polls": 3, **expected_fields}


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ((SUCCEEDED, FAILED), "ended, some without success"),
        ((CANCELED, SUCCEEDED), "ended, some without success"),
        ((FAILED, CANCELED), "ended without success"),
        ((FAILED, FAILED), "failed"),
    ],
)
def test_wait_result_distinguishes_outcomes_of_several_runs(statuses: tuple[RunStatus, ...], outcome: str) -> None:
    readings = [
        Reading(run_id, status, str(status), error="boom") for run_id, status in zip("ab", statuses, strict=True)
    ]
    advice = wait_for(RENDER, ["a", "b"], *readings, several=True)["next"]
    assert advice.startswith(f"All runs have {outcome}: read error, and call render-run-task")


def test_wait_result_names_the_tool_that_explains_failures_without_an_error() -> None:
    readings = [Reading("a", SUCCEEDED, "ok"), Reading("b", FAILED, "failed"), Reading("c", FAILED, "failed")]
    advice = wait_for(RENDER, ["a", "b", "c"], *readings, several=True)["next"]
    assert "ended, some without success: call render-explain-run to see why, and call render-run-task" in advice
    readings[2] = replace(readings[2], error="boom")
    advice = wait_for(RENDER, ["a", "b", "c"], *readings, several=True)["next"]
    assert "ended, some without success: read error, and call render-run-task" in advice


def test_status_hints_are_listed_once_in_order() -> None:
    natives = "edcbad"
    advice = {native: f"Advice on {native}." for native in natives}
    lifecycle = Lifecycle("p", RENDER.read, SHAPE, Statuses(), wait_tool="p-wait", status_hints=advice)
    readings = [Reading(str(place), QUEUED, native) for place, native in enumerate(natives)]
    advice = wait_for(lifecycle, [reading.run_id for reading in readings], *readings, several=True)["next"]
    assert advice == (
        "Advice on a. Advice on b. Advice on c. Advice on d. Advice on e. "
        'Call p-wait again for the runs that continue: ["0","1","2","3","4","5"].'
    )


def test_status_hints_of_ended_runs_are_omitted() -> None:
    lifecycle = Lifecycle(
        "p", RENDER.read, SHAPE, Statuses(), wait_tool="p-wait", status_hints={"ok": "Wrong.", "on": "Right."}
    )
    readings = [Reading("a", SUCCEEDED, "ok"), Reading("b", RUNNING, "on")]
    advice = wait_for(lifecycle, ["a", "b"], *readings, several=True)["next"]
    assert advice == 'Right. Call p-wait again for the runs that continue: ["b"].'


@pytest.mark.parametrize(
    ("status", "hint", "advice"),
    [
        (
            RUNNING,
            "A person has to approve it.",
            "A person has to approve it. The run continues, and nothing was cancelled: call p-wait again to keep "
            "waiting.",
        ),
        (
            RunStatus.NOT_STARTED,
            "Start it with p-start.",
            "Start it with p-start. When it has been started, call p-wait to wait for it.",
        ),
        (RunStatus.NOT_STARTED, "Call p-start, then p-wait.", "Call p-start, then p-wait."),
        (
            RunStatus.UNKNOWN,
            "New here.",
            f"New here. It is not known whether on is a terminal status: read the run with {RENDER.read.tool}.",
        ),
    ],
)
def test_status_hint_is_followed_by_the_next_call(status: RunStatus, hint: str, advice: str) -> None:
    lifecycle = Lifecycle("p", RENDER.read, SHAPE, Statuses(), wait_tool="p-wait", status_hints={"on": hint})
    assert wait_for(lifecycle, ["a"], Reading("a", status, "on"))["next"] == advice


def test_array_of_one_id_returns_a_list() -> None:
    value = wait_for(RENDER, ["a"], A_DONE, several=True)
    assert (value["runs"], value["next"]) == ([A_RUN], "The run has succeeded: no further call is needed.")


def failed_wait(
    *readings: Reading, interruption: CallError | None = None, **failures: CallError | list[CallError]
) -> Json:
    """Return the result of waiting for the runs that were read, or that could not be read."""
    watch = Watch(dict.fromkeys([*(reading.run_id for reading in readings), *failures]))
    for reading in readings:
        watch.update(reading)
    for run_id, several in failures.items():
        for failure in several if isinstance(several, list) else [several]:
            watch.fail(run_id, failure)
    value = wait_result(
        RENDER, watch, elapsed_s=1.0, polls=1, several=len(watch.readings) > 1, interruption=interruption
    )
    assert list(Draft202012Validator(dict(WAIT_SCHEMA)).iter_errors(value)) == []
    return value


UNAVAILABLE = CallError("the provider returned 503", hint="Nothing was changed.", retryable=True)
WAIT_AGAIN = "To wait again, call render-wait-for-run."


def test_wait_interrupted_by_a_wrong_credential_has_its_hint() -> None:
    denied = CallError("the provider returned 401", kind="auth", hint="Check RENDER_API_KEY.")
    value = failed_wait(Reading("a", RUNNING, "running"), interruption=denied)
    assert (value["terminal"], value["timed_out"], value["status"]) == (False, False, "running")
    assert value["reason"] == "the provider returned 401"
    assert value["next"] == "Check RENDER_API_KEY. Then call render-wait-for-run again."


def test_wait_interrupted_by_failed_reads_has_a_reason_and_the_call_to_make() -> None:
    value = failed_wait(Reading("a", RUNNING, "running"), a=[UNAVAILABLE] * (MAX_FAILED_READS + 1))
    assert (value["terminal"], value["timed_out"], value["status"]) == (False, False, "running")
    assert value["reason"] == "the provider returned 503"
    changed = "The last read of the run failed, so its status may have changed."
    assert value["next"] == f"{changed} Nothing was changed. {WAIT_AGAIN}"


def test_wait_that_timed_out_after_a_failed_read_does_not_claim_that_the_run_continues() -> None:
    value = failed_wait(Reading("a", RUNNING, "running"), a=UNAVAILABLE)
    assert (value["timed_out"], value["reason"]) == (True, "the provider returned 503")
    assert "continues" not in value["next"]


def test_run_that_was_never_read_has_a_reason() -> None:
    value = failed_wait(a=CallError("the provider returned 404", hint="Check the ids."))
    assert (value["status"], value["reason"]) == ("unknown", "the provider returned 404")
    assert value["next"] == f"Check the ids. {WAIT_AGAIN}"


def test_each_of_several_runs_has_its_own_reason() -> None:
    value = failed_wait(A_DONE, B_QUEUED, c=UNAVAILABLE, d=CallError("gone"))
    assert [run.get("reason") for run in value["runs"]] == [None, None, "the provider returned 503", "gone"]
    reasons = 'The last read of these runs failed, see their reason: ["c","d"].'
    continues = 'Call render-wait-for-run again for the runs that continue: ["b"].'
    assert value["next"] == f"{reasons} Nothing was changed. {WAIT_AGAIN} {continues}"


def test_run_without_native_status_has_null() -> None:
    value = wait_for(RENDER, ["a"], Reading("a", CANCELED, "", error="gone"))
    assert (value["status"], value["native_status"], value["error"]) == ("canceled", None, "gone")
    assert status_line([Reading("a", CANCELED, "")]) == "Run a: canceled."


def test_unknown_native_status_asks_to_read_the_run() -> None:
    readings = [
        Reading("a", RunStatus.UNKNOWN, "odd"),
        Reading("b", RunStatus.UNKNOWN, "new"),
        Reading("c", RUNNING, "on"),
    ]
    advice = wait_for(RENDER, ["a", "b", "c"], *readings, several=True)["next"]
    unknown = f"It is not known whether new, odd is a terminal status: read the run with {RENDER.read.tool}."
    assert advice == f'{unknown} Call {RENDER.wait_tool} again for the runs that continue: ["c"].'


@pytest.mark.parametrize(
    ("before", "after", "response", "guard", "was_accepted", "expected_fields"),
    [
        pytest.param(
            Reading("r", RUNNING, "running"),
            Reading("r", CANCELED, "canceled"),
            None,
            "",
            True,
            {"cancelled": True, "next": "The run was cancelled."},
            id="cancelled",
        ),
        pytest.param(
            Reading("r", RUNNING, "running"),
            Reading("r", CANCELED, "canceled"),
            {"status": "cancelled"},
            "",
            True,
            {"cancelled": True, "response": {"status": "cancelled"}, "next": "The run was cancelled."},
            id="cancelled, with a response",
        ),
        pytest.param(
            Reading("r", SUCCEEDED, "completed"),
            Reading("r", SUCCEEDED, "completed"),
            None,
            "",
            False,
            {"cancelled": False, "next": "The run had already succeeded: nothing was cancelled."},
            id="had succeeded",
        ),
        pytest.param(
            Reading("r", FAILED, "FAILED"),
            Reading("r", FAILED, "FAILED"),
            None,
            "delete_output",
            False,
            {
                "cancelled": False,
                "next": "The run had already failed: nothing was cancelled. "
                "To have it deleted together with its output, pass delete_output: true.",
            },
            id="had failed, could be deleted",
        ),
        pytest.param(
            Reading("r", CANCELED, "canceled"),
            Reading("r", CANCELED, "canceled"),
            None,
            "",
            False,
            {"cancelled": False, "next": "The run had already been cancelled: nothing was cancelled."},
            id="had been cancelled",
        ),
        pytest.param(
            Reading("r", RUNNING, "running"),
            Reading("r", SUCCEEDED, "completed"),
            None,
            "",
            True,
            {"cancelled": False, "next": "The run had already succeeded: nothing was cancelled."},
            id="succeeded in between",
        ),
        pytest.param(
            Reading("r", SUCCEEDED, "SUCCEEDED"),
            Reading("r", SUCCEEDED, "SUCCEEDED"),
            None,
            "delete_output",
            True,
            {
                "cancelled": False,
                "deleted": True,
                "status": "deleted",
                "native_status": None,
                "next": "The run had already succeeded: it was deleted together with its output.",
            },
            id="deleted",
        ),
        pytest.param(
            Reading("r", RUNNING, "running"),
            Reading("r", RUNNING, "running"),
            None,
            "",
            True,
            {
                "cancelled": False,
                "next": "The provider has accepted the cancellation: call render-wait-for-run to wait for the run.",
            },
            id="accepted",
        ),
        pytest.param(
            Reading("r", RUNNING, "running"),
            Reading("r", RunStatus.UNKNOWN, ""),
            {},
            "",
            True,
            {
                "cancelled": False,
                "response": {},
                "next": "The provider has accepted the cancellation: call render-wait-for-run to wait for the run.",
            },
            id="accepted, status unknown afterwards",
        ),
        pytest.param(
            Reading("r", RunStatus.UNKNOWN, "odd"),
            Reading("r", RunStatus.UNKNOWN, "odd"),
            None,
            "delete_output",
            False,
            {
                "cancelled": False,
                "next": "It is not known whether odd is a terminal status, so nothing was cancelled: a run that has "
                "ended would be deleted together with its output. To accept that, pass delete_output: true.",
            },
            id="unknown status, could be deleted",
        ),
    ],
)
def test_cancel_result_reports_what_happened(
    before: Reading, after: Reading, response: Any, guard: str, was_accepted: bool, expected_fields: Json
) -> None:
    cancel = replace(RENDER.cancels[0], confirm_argument=guard, confirm_effect="deleted together with its output")
    value = cancel_result(RENDER, cancel, before, after, was_accepted=was_accepted, was_sent=True, response=response)
    expected: Json = {
        "provider": "render",
        "run_id": "r",
        "status_before": str(before.status),
        "status": str(after.status),
        "native_status": after.native_status or None,
        "terminal": after.status.is_terminal,
        **expected_fields,
    }
    assert value == expected
    assert list(value)[-1] == "next"


@pytest.mark.parametrize(
    ("ended", "error", "sentence"),
    [
        ("2026-11-30T20:00:00Z", None, " It ended at 2026-11-30T20:00:00Z."),
        ("2026-11-30T20:00:00Z", "no disk", ' It ended at 2026-11-30T20:00:00Z with the error: "no disk".'),
        ("", {"name": "ValueError", "message": "odd\nnumber."}, ' It ended with the error: "ValueError: odd number.".'),
        ('now". Call x', 'No". Call "y', ' It ended at "now\'. Call x" with the error: "No\'. Call \'y".'),
        ("", None, ""),
    ],
)
def test_cancel_result_reports_when_and_with_which_error_the_run_ended(ended: str, error: Any, sentence: str) -> None:
    before = Reading("r", FAILED, "failed", error=error, ended=ended)
    value = cancel_result(RENDER, RENDER.cancels[0], before, before, was_accepted=False, was_sent=False)
    assert value["next"] == f"The run had already failed: nothing was cancelled.{sentence}"


def test_cancel_result_quotes_only_the_beginning_of_a_long_error() -> None:
    before = Reading("r", FAILED, "failed", error="x" * 10_000)
    value = cancel_result(RENDER, RENDER.cancels[0], before, before, was_accepted=False, was_sent=False)
    assert len(value["next"]) < 500


@pytest.mark.parametrize("was_lost", [False, True])
def test_cancel_result_reports_a_lost_response(was_lost: bool) -> None:
    before, after = Reading("r", RUNNING, "running"), Reading("r", CANCELED, "canceled")
    value = cancel_result(RENDER, RENDER.cancels[0], before, after, was_accepted=True, was_sent=True, was_lost=was_lost)
    assert value["cancelled"] is True
    lost = "; the provider's response was lost" if was_lost else ""
    assert value["next"] == f"The run was cancelled{lost}."


def test_cancel_result_reports_the_status_of_a_run_that_a_confirmed_call_has_kept() -> None:
    before, after = Reading("r", FAILED, "failed"), Reading("r", CANCELED, "archived")
    cancel = replace(RENDER.cancels[0], confirm_argument="archive", confirm_effect="archived")
    value = cancel_result(RENDER, cancel, before, after, was_accepted=True, was_sent=True, is_kept=True)
    assert (value["cancelled"], value["status"], value["native_status"]) == (False, "canceled", "archived")
    assert "deleted" not in value
    assert value["next"] == "The run had already failed: it was archived."


@pytest.mark.parametrize(
    ("is_conditional", "was_sent", "note"),
    [(True, False, " Nothing was sent."), (True, True, ""), (False, False, ""), (False, True, "")],
)
def test_cancel_result_reports_that_an_update_with_other_effects_was_not_sent(
    is_conditional: bool, was_sent: bool, note: str
) -> None:
    ended = Reading("r", FAILED, "failed")
    when = ((("status",), ("canceled",)),) if is_conditional else ()
    cancel = replace(RENDER.cancels[0], when=when, confirm_argument="")
    value = cancel_result(RENDER, cancel, ended, ended, was_accepted=False, was_sent=was_sent)
    assert value["next"] == f"The run had already failed: nothing was cancelled.{note}"


def test_wait_schema_is_valid() -> None:
    Draft202012Validator.check_schema(dict(WAIT_SCHEMA))
    assert WAIT_SCHEMA["properties"]["status"]["enum"] == list(RunStatus)


def test_runs_are_found_in_a_list() -> None:
    lifecycle = Lifecycle("p", RENDER.read, SHAPE, STATES, runs_in={"op": (EACH,)})
    response = parse('[{"id":"a","status":"on"},{"id":"b"},{"id":"c","status":"ok"}]')
    assert [reading.run_id for reading in runs_in_response(lifecycle, "op", response)] == ["a", "c"]


def test_ids_in_a_list_of_arguments_become_text() -> None:
    assert ids_as_text([1, "b", None]) == ["1", "b", None]
