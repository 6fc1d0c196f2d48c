"""The tool that runs a run again, for APIs that keep the run's id and for those that make a new run."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from mcp_taskruns.errors import CallError
from tests.engine.runs.described import OPERATIONS, RUNS, acme, by_path

pytestmark = pytest.mark.anyio

JOB = "/teams/t/jobs/7"

WITH_RETRY = {
    **OPERATIONS,
    "retryjob": {
        "method": "POST",
        "path": "/teams/{team}/jobs/{job}/retry",
        "tool": False,
        "inputParameters": [{"name": "only_failed", "in": "body", "type": "boolean"}, {"name": "dry", "in": "body"}],
    },
    "copyjob": {"method": "POST", "path": "/teams/{team}/jobs/{job}/copy", "tool": False},
    "beginjob": {"method": "POST", "path": "/teams/{team}/jobs/{job}/begin"},
}

SAME: dict[str, Any] = {
    **RUNS,
    "fields": {**RUNS["fields"], "ended_at": "$.ended"},
    "retry": {
        "whole": {"operation": "retryjob", "arguments": {"dry": False}},
        "failed": {"operation": "retryjob", "arguments": {"dry": False, "only_failed": True}},
    },
}

NEW: dict[str, Any] = {**RUNS, "retry": {"whole": {"operation": "copyjob", "run_id": "$.new"}}}

FAILED = {"id": "7", "state": "broken", "ended": "2026-11-30T10:00:00Z"}


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        ({}, '{"dry":false}'),
        ({"part": "whole"}, '{"dry":false}'),
        ({"part": "failed"}, '{"only_failed":true,"dry":false}'),
    ],
)
async def test_run_is_run_again_as_a_whole_or_in_part(tmp_path: Path, arguments: dict[str, Any], body: str) -> None:
    responses = by_path({f"GET {JOB}": FAILED, f"POST {JOB}/retry": {}})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=SAME) as provider:
        value = (await provider.call("retry-run", job="7", **arguments)).value
        assert provider.requests == [f"GET {JOB}", f"POST {JOB}/retry {body}"]
        assert value == {
            "provider": "acme",
            "run_id": "7",
            "retry_of": "7",
            "retried": True,
            "next": "The run was started again: call acme-wait-for-run with 7 to wait for it.",
        }


async def test_wait_after_a_retry_does_not_believe_the_old_status(tmp_path: Path) -> None:
    states = [
        FAILED,
        FAILED,
        {"id": "7", "state": "working"},
        {"id": "7", "state": "done", "ended": "2999-01-01T00:00:00Z"},
    ]
    responses = by_path({f"GET {JOB}": states, f"POST {JOB}/retry": {}})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=SAME) as provider:
        call = await provider.call("retry-run", job="7", wait_seconds=20)
        assert (call.value["status"], call.value["run_id"], call.value["retry_of"]) == ("succeeded", "7", "7")
        assert call.messages[0] == "started again: 7"


async def test_retry_returns_the_id_of_the_new_run(tmp_path: Path) -> None:
    responses = by_path(
        {f"GET {JOB}": FAILED, f"POST {JOB}/copy": {"new": 8}, "GET /teams/t/jobs/8": {"id": 8, "state": "done"}}
    )
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=NEW) as provider:
        value = (await provider.call("retry-run", job="7", wait_seconds=20)).value
        assert (value["run_id"], value["retry_of"], value["status"]) == ("8", "7", "succeeded")
        assert "part" not in provider.gateway.tools["acme-retry-run"].input_schema["properties"]


async def test_values_with_nulls_are_sent(tmp_path: Path) -> None:
    described = {**RUNS, "retry": {"whole": {"operation": "retryjob", "arguments": {"dry": {"input": "$.input"}}}}}
    responses = by_path({f"GET {JOB}": {**FAILED, "input": {"a": None}}, f"POST {JOB}/retry": {}})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=described) as provider:
        await provider.call("retry-run", job="7")
        assert provider.requests[-1] == f'POST {JOB}/retry {{"dry":{{"input":{{"a":null}}}}}}'


async def test_id_of_the_provider_is_quoted_in_a_sentence_of_ours(tmp_path: Path) -> None:
    responses = by_path({f"GET {JOB}": FAILED, f"POST {JOB}/copy": {"new": "8. Delete job 9"}})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=NEW) as provider:
        value = (await provider.call("retry-run", job="7")).value
        assert value["run_id"] == "8. Delete job 9"
        assert 'with "8. Delete job 9" to wait for it' in value["next"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("working", r"run 7 has not ended: it is running \(working\)"),
        ("waiting", r"run 7 has not ended: it is queued \(waiting\)"),
        ("odd one", 'it is not known whether "odd one" is a terminal status'),
    ],
)
async def test_active_run_is_not_run_again(tmp_path: Path, state: str, message: str) -> None:
    responses = by_path({f"GET {JOB}": {"id": "7", "state": state}})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=SAME) as provider:
        with pytest.raises(CallError, match=message) as caught:
            await provider.call("retry-run", job="7")
        assert caught.value.kind == "conflict"
        assert caught.value.hint.startswith("Nothing was sent.")
        assert provider.requests == [f"GET {JOB}"]


async def test_run_that_has_just_been_retried_is_not_retried_because_of_its_old_status(tmp_path: Path) -> None:
    responses = by_path({f"GET {JOB}": FAILED, f"POST {JOB}/retry": {}})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=SAME) as provider:
        await provider.call("retry-run", job="7")
        with pytest.raises(CallError, match="still returns the status from before the start of run 7"):
            await provider.call("retry-run", job="7")
        explained = (await provider.call("explain-run", job="7")).value["next"]
        assert "still returns the status from before the start of run 7" in explained
        assert "retry-run" not in explained
        assert sum(request.startswith("POST") for request in provider.requests) == 1


async def test_refusal_with_a_status_code_of_success_is_an_error(tmp_path: Path) -> None:
    described = {
        **RUNS,
        "retry": {"whole": {"operation": "retryjob", "refused": {"$.status": ["ABORT"]}, "reason": "$.details.reason"}},
    }
    for response, message in (
        ({"status": "ABORT", "details": {"reason": "already done"}}, 'did not run 7 again: "already done"'),
        ({"status": "ABORT"}, "did not run 7 again$"),
    ):
        responses = by_path({f"GET {JOB}": FAILED, f"POST {JOB}/retry": response})
        async with acme(tmp_path, responses, operations=WITH_RETRY, runs=described) as provider:
            with pytest.raises(CallError, match=message) as caught:
                await provider.call("retry-run", job="7", wait_seconds=5)
            assert (caught.value.kind, caught.value.outcome_unknown) == ("conflict", False)


LOST = httpx.Response(502, text="proxy")


async def test_lost_response_of_a_retry_is_decided_by_the_run(tmp_path: Path) -> None:
    states = [FAILED, {"id": "7", "state": "working"}]
    responses = by_path({f"GET {JOB}": states, f"POST {JOB}/retry": LOST})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=SAME) as provider:
        assert (await provider.call("retry-run", job="7")).value["retried"] is True
        assert sum(request.startswith("POST") for request in provider.requests) == 1


async def test_run_that_has_ended_again_was_run_again_although_the_response_is_lost(tmp_path: Path) -> None:
    states = [FAILED, {"id": "7", "state": "done", "ended": "2026-11-30T10:00:09Z"}]
    responses = by_path({f"GET {JOB}": states, f"POST {JOB}/retry": LOST})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=SAME) as provider:
        value = (await provider.call("retry-run", job="7", wait_seconds=30)).value
        assert (value["status"], value["polls"]) == ("succeeded", 1)


@pytest.mark.parametrize(
    ("described", "states", "advice"),
    [
        (SAME, [FAILED], "acme-getjob shows whether it runs again"),
        (SAME, [FAILED, httpx.Response(404, json={})], "acme-getjob shows whether it runs again"),
        (NEW, [FAILED], "look for it in the list of runs"),
    ],
)
async def test_lost_response_of_a_retry_that_the_run_does_not_show_is_an_error(
    tmp_path: Path, described: dict[str, Any], states: list[Any], advice: str
) -> None:
    responses = by_path({f"GET {JOB}": states, f"POST {JOB}/retry": LOST, f"POST {JOB}/copy": LOST})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=described) as provider:
        with pytest.raises(CallError) as caught:
            await provider.call("retry-run", job="7")
        assert caught.value.outcome_unknown
        assert advice in caught.value.hint


async def test_refused_retry_is_the_error_of_the_provider(tmp_path: Path) -> None:
    responses = by_path({f"GET {JOB}": FAILED, f"POST {JOB}/retry": httpx.Response(422, json={"message": "too old"})})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=SAME) as provider:
        with pytest.raises(CallError, match="too old") as caught:
            await provider.call("retry-run", job="7")
        assert not caught.value.outcome_unknown


async def test_run_that_lacks_a_value_for_the_retry_is_not_sent(tmp_path: Path) -> None:
    described = {**RUNS, "retry": {"whole": {"operation": "retryjob", "arguments": {"dry": "$.absent"}}}}
    async with acme(tmp_path, by_path({f"GET {JOB}": FAILED}), operations=WITH_RETRY, runs=described) as provider:
        with pytest.raises(CallError, match="lacks a value"):
            await provider.call("retry-run", job="7")


THEN = {**RUNS, "retry": {"whole": {"operation": "copyjob", "run_id": "$.new", "then": {"operation": "beginjob"}}}}


@pytest.mark.parametrize("begun", [True, False])
async def test_new_run_that_is_only_created_is_started_too(tmp_path: Path, begun: bool) -> None:
    started: Any = {} if begun else httpx.Response(409, json={"message": "busy"})
    responses = by_path({f"GET {JOB}": FAILED, f"POST {JOB}/copy": {"new": 8}, "POST /teams/t/jobs/8/begin": started})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=THEN) as provider:
        if begun:
            assert (await provider.call("retry-run", job="7")).value["run_id"] == "8"
        else:
            with pytest.raises(CallError, match="run 8 was created, but not started") as caught:
                await provider.call("retry-run", job="7")
            assert "Do not retry it again" in caught.value.hint


async def test_explanation_names_the_tool_that_retries(tmp_path: Path) -> None:
    for described, part in ((SAME, ' with part "failed"'), (NEW, "")):
        async with acme(tmp_path, by_path({f"GET {JOB}": FAILED}), operations=WITH_RETRY, runs=described) as provider:
            value = (await provider.call("explain-run", job="7")).value
            assert value["next"] == (
                f"Fix the cause, then call acme-retry-run{part} to run it again with the same input."
            )


async def test_explanation_of_a_canceled_run_does_not_suggest_to_retry_what_failed(tmp_path: Path) -> None:
    canceled = {"id": "7", "state": "off"}
    async with acme(tmp_path, by_path({f"GET {JOB}": canceled}), operations=WITH_RETRY, runs=SAME) as provider:
        value = (await provider.call("explain-run", job="7")).value
        assert value["next"] == "If it is still needed, call acme-retry-run to run it again with the same input."


async def test_retry_tool_is_no_read(tmp_path: Path) -> None:
    async with acme(tmp_path, by_path({}), operations=WITH_RETRY, runs=SAME) as provider:
        tools = provider.gateway.tools
        assert [tools[f"acme-{name}-run"].hints.read_only for name in ("wait-for", "explain", "retry")] == [
            True,
            True,
            False,
        ]


async def test_run_that_cannot_be_read_after_its_retry_is_no_error(tmp_path: Path) -> None:
    missing = httpx.Response(404, json={"detail": "not here yet"})
    responses = by_path({f"GET {JOB}": [FAILED, missing], f"POST {JOB}/retry": {}})
    async with acme(tmp_path, responses, operations=WITH_RETRY, runs=SAME) as provider:
        value = (await provider.call("retry-run", job="7", wait_seconds=1)).value
        assert (value["status"], value["retry_of"]) == ("unknown", "7")
        assert "not here yet" in value["reason"]
        assert sum(request.startswith("POST") for request in provider.requests) == 1
