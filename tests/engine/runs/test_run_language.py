"""What overlays can describe about the runs of any API: each test has a small API of one kind."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcp_taskruns.errors import CallError, ProviderError
from mcp_taskruns.settings import Settings
from tests.engine.runs.described import OPERATIONS, RUNS, acme, by_path

pytestmark = pytest.mark.anyio

JOB = "/teams/t/jobs/7"


def runs(**changes: Any) -> dict[str, Any]:
    return {**RUNS, **changes}


async def test_status_is_made_of_two_fields(tmp_path: Path) -> None:
    described = runs(
        fields={"id": "$.id", "status": ["$.state", "$.outcome"]},
        statuses={"running": "working", "succeeded": "over/good", "failed": "over/*"},
    )
    responses = [
        {"id": "7", "state": "working", "outcome": None},
        {"id": "7", "state": "over", "outcome": "odd"},
    ]
    async with acme(tmp_path, by_path({f"GET {JOB}": responses}), runs=described) as provider:
        value = (await provider.call("wait-for-run", job="7")).value
        assert (value["status"], value["native_status"]) == ("failed", "over/odd")


async def test_integer_ids_are_text_in_results_and_arguments(tmp_path: Path) -> None:
    operations = {
        **OPERATIONS,
        "getjob": {
            **OPERATIONS["getjob"],
            "inputParameters": [
                {"name": "team", "in": "path", "type": "string"},
                {"name": "job", "in": "path", "type": "integer"},
            ],
        },
    }
    job = {"id": 9007199254740993, "state": "done"}
    responses = by_path({"GET /teams/t/jobs": {"jobs": [job]}, "GET /teams/t/jobs/9007199254740993": job})
    async with acme(tmp_path, responses, operations=operations) as provider:
        listed = (await provider.call("listjobs")).value["jobs"][0]["id"]
        assert listed == "9007199254740993"
        for given in (listed, 9007199254740993):
            assert (await provider.call("wait-for-run", job=given)).value["run_id"] == listed
            assert (await provider.call("getjob", job=given)).value["id"] == listed
        assert provider.gateway.tools["acme-getjob"].input_schema["properties"]["job"] == {
            "type": "string",
            "pattern": "^-?[0-9]+$",
        }
        with pytest.raises(CallError, match="job"):
            await provider.call("getjob", job="7a")


async def test_integer_id_in_the_response_of_a_cancellation_is_text(tmp_path: Path) -> None:
    responses = by_path(
        {
            "GET /teams/t/jobs/7": {"id": 7, "state": "working"},
            "POST /teams/t/jobs/7/stop": {"id": 7, "state": "off", "why": "asked to"},
        }
    )
    async with acme(tmp_path, responses, runs={**RUNS, "runs_in": {"stopjob": "$"}}) as provider:
        value = (await provider.call("stopjob", job="7")).value
    assert (value["run_id"], value["response"]["id"]) == ("7", "7")


async def test_integer_id_in_a_body_is_sent_as_an_integer(tmp_path: Path) -> None:
    operations = {
        **OPERATIONS,
        "stopjob": {
            "method": "POST",
            "path": "/teams/{team}/stop",
            "inputParameters": [{"name": "job", "in": "body", "type": "integer"}, {"name": "why", "in": "body"}],
        },
    }
    states = [{"id": 7, "state": "working"}, {"id": 7, "state": "off"}]
    async with acme(
        tmp_path, by_path({f"GET {JOB}": states, "POST /teams/t/stop": {}}), operations=operations
    ) as provider:
        value = (await provider.call("stopjob", job="7", why="late")).value
        assert (value["run_id"], value["status"]) == ("7", "canceled")
        assert provider.requests[1] == 'POST /teams/t/stop {"job":7,"why":"late"}'


@pytest.mark.parametrize(
    ("progress", "value", "percent"),
    [
        ({"percent": "$.percent"}, {"percent": 40}, 40),
        ({"done": ["$.done.ok", "$.done.bad"], "total": "$.all"}, {"done": {"ok": 1, "bad": 1}, "all": 8}, 25),
    ],
)
async def test_progress_is_a_percentage_or_a_number_of_parts(
    tmp_path: Path, progress: Any, value: dict[str, Any], percent: float
) -> None:
    described = runs(fields={**RUNS["fields"], "progress": progress})
    states = [{"id": "7", "state": "working", **value}, {"id": "7", "state": "done"}]
    async with acme(tmp_path, by_path({f"GET {JOB}": states}), runs=described) as provider:
        call = await provider.call("wait-for-run", job="7")
        assert (call.progress[0].progress, call.progress[0].total) == (percent, 100)


OUTPUT = {"method": "GET", "path": "/outputs/{file}", "tool": False}


def with_output(**more: Any) -> dict[str, Any]:
    return runs(result={"operation": "getoutput", "arguments": {"file": "$.output_file"}, **more})


async def test_result_is_read_from_another_operation_once_the_run_has_ended(tmp_path: Path) -> None:
    states = [{"id": "7", "state": "working"}, {"id": "7", "state": "done", "output_file": "f/1"}]
    responses = by_path({f"GET {JOB}": states, "GET /outputs/f/1": {"data": {"answer": 42}}})
    operations = {**OPERATIONS, "getoutput": OUTPUT}
    async with acme(tmp_path, responses, operations=operations, runs=with_output(result="$.data")) as provider:
        value = (await provider.call("wait-for-run", job="7")).value
        assert value["result"] == {"answer": 42}
        assert provider.requests == [f"GET {JOB}", f"GET {JOB}", "GET /outputs/f%2F1"]
        # The response to reading the run has no place for it, so that is not read.
        await provider.call("getjob", job="7")
        assert len(provider.requests) == 4


async def test_result_that_is_text_is_returned_as_text(tmp_path: Path) -> None:
    lines = httpx.Response(200, text='{"a":1}\n{"a":2}\n', headers={"Content-Type": "text/plain"})
    job = {"id": "7", "state": "done", "output_file": "f"}
    operations = {**OPERATIONS, "getoutput": OUTPUT}
    async with acme(
        tmp_path, by_path({f"GET {JOB}": job, "GET /outputs/f": lines}), operations=operations, runs=with_output()
    ) as provider:
        assert (await provider.call("wait-for-run", job="7")).value["result"] == '{"a":1}\n{"a":2}\n'


async def test_result_without_content_is_none(tmp_path: Path) -> None:
    job = {"id": "7", "state": "done", "output_file": "f"}
    responses = by_path({f"GET {JOB}": job, "GET /outputs/f": httpx.Response(204)})
    async with acme(
        tmp_path, responses, operations={**OPERATIONS, "getoutput": OUTPUT}, runs=with_output()
    ) as provider:
        assert (await provider.call("wait-for-run", job="7")).value["result"] is None


@pytest.mark.parametrize(
    ("data", "result"), [('{"answer": 42}', {"answer": 42}), ("plain", "plain"), ({"answer": 42}, {"answer": 42})]
)
async def test_result_that_is_json_in_a_text_is_parsed(tmp_path: Path, data: Any, result: Any) -> None:
    job = {"id": "7", "state": "done", "output_file": "f"}
    operations = {**OPERATIONS, "getoutput": OUTPUT}
    described = with_output(result="$.data", json_text=True)
    responses = by_path({f"GET {JOB}": job, "GET /outputs/f": {"data": data}})
    async with acme(tmp_path, responses, operations=operations, runs=described) as provider:
        assert (await provider.call("wait-for-run", job="7")).value["result"] == result


@pytest.mark.parametrize(
    ("response", "note"),
    [
        (
            httpx.Response(404, json={"detail": "expired"}),
            'The result could not be read: the provider returned 404: "exp',
        ),
        (httpx.Response(200, content=b"\0\1", headers={"Content-Type": "image/png"}), "The result is a file"),
    ],
)
async def test_result_that_cannot_be_read_is_reported_and_the_wait_stands(
    tmp_path: Path, response: httpx.Response, note: str
) -> None:
    job = {"id": "7", "state": "done", "output_file": "f"}
    operations = {**OPERATIONS, "getoutput": OUTPUT}
    async with acme(
        tmp_path, by_path({f"GET {JOB}": job, "GET /outputs/f": response}), operations=operations, runs=with_output()
    ) as provider:
        value = (await provider.call("wait-for-run", job="7")).value
        assert (value["status"], value["result"]) == ("succeeded", None)
        assert note in value["next"]


@pytest.mark.parametrize("job", [{"id": "7", "state": "broken", "output_file": "f"}, {"id": "7", "state": "done"}])
async def test_result_is_not_read_of_a_run_without_one(tmp_path: Path, job: dict[str, Any]) -> None:
    operations = {**OPERATIONS, "getoutput": OUTPUT}
    async with acme(tmp_path, by_path({f"GET {JOB}": job}), operations=operations, runs=with_output()) as provider:
        assert (await provider.call("wait-for-run", job="7")).value["result"] is None
        assert provider.requests == [f"GET {JOB}"]


async def test_start_names_its_run_in_another_member(tmp_path: Path) -> None:
    described = runs(start={"createjob": {"run_id": "$.job_id"}})
    responses = by_path({"POST /teams/t/jobs": {"job_id": 7}, f"GET {JOB}": {"id": 7, "state": "done"}})
    async with acme(tmp_path, responses, runs=described) as provider:
        value = (await provider.call("createjob", wait_seconds=5)).value
        assert (value["run_id"], value["status"]) == ("7", "succeeded")
        assert (await provider.call("createjob")).value == {"job_id": "7"}


async def test_integer_ids_on_all_pages_are_text(tmp_path: Path) -> None:
    operations = {
        **OPERATIONS,
        "listjobs": {
            **OPERATIONS["listjobs"],
            "inputParameters": [{"name": "page", "in": "query", "type": "integer"}],
            "paging": {"items": "$.jobs", "page_argument": "page", "default_page_size": 1, "page_size_argument": ""},
        },
    }
    pages = [{"jobs": [{"id": number, "state": "done"}]} for number in (8, 7)]
    async with acme(
        tmp_path, by_path({"GET /teams/t/jobs": [*pages, {"jobs": []}]}), operations=operations
    ) as provider:
        listed = (await provider.call("listjobs", all_pages=True)).value["jobs"]
        assert [job["id"] for job in listed] == ["8", "7"]


NO_CONTENT = httpx.Response(204)


def created(seconds: float) -> str:
    """Return the time so many seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def finding(**more: Any) -> dict[str, Any]:
    return runs(start={"createjob": {"find": {"operation": "listjobs", "created_at": "$.at", **more}}})


async def test_start_without_response_finds_the_newest_run_since(tmp_path: Path) -> None:
    operations = {
        **OPERATIONS,
        "whoami": {"method": "GET", "path": "/me", "tool": False},
        "listjobs": {
            **OPERATIONS["listjobs"],
            "inputParameters": [{"name": name, "in": "query"} for name in ("kind", "branch", "actor")],
        },
    }
    described = finding(
        arguments={"kind": "manual"},
        same={"branch": "$.body.ref"},
        actor={"operation": "whoami", "name": "$.login", "argument": "actor"},
    )
    old = {"id": "6", "state": "done", "at": created(-60)}
    lists = [
        {"jobs": [old]},
        {
            "jobs": [
                old,
                {"id": "8", "state": "waiting", "at": created(0.5)},
                {"id": "7", "at": created(0)},
                {"at": "x"},
            ]
        },
    ]
    responses = by_path(
        {
            "POST /teams/t/jobs": NO_CONTENT,
            "GET /me": {"login": "ada"},
            "GET /teams/t/jobs": lists,
            "GET /teams/t/jobs/8": {"id": "8", "state": "done"},
        }
    )
    async with acme(tmp_path, responses, operations=operations, runs=described) as provider:
        value = (await provider.call("createjob", body={"ref": "main"}, wait_seconds=5)).value
        assert (value["run_id"], value["status"]) == ("8", "succeeded")
        assert provider.requests[1:4] == [
            "GET /me",
            *["GET /teams/t/jobs?kind=manual&branch=main&actor=ada"] * 2,
        ]


@pytest.mark.parametrize("listed", [{"jobs": []}, httpx.Response(403, json={"detail": "no"})])
async def test_started_run_that_is_not_found_is_no_error(
    tmp_path: Path, listed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_taskruns.engine.runs.find.DELAYS", (0.0, 0.0))
    responses = by_path({"POST /teams/t/jobs": NO_CONTENT, "GET /teams/t/jobs": listed})
    async with acme(tmp_path, responses, runs=finding()) as provider:
        call = await provider.call("createjob", wait_seconds=5)
        assert "does not name the run, so there was nothing to wait for" in " ".join(call.result.notes)


async def test_run_of_somebody_is_not_taken_if_the_user_is_unknown(tmp_path: Path) -> None:
    operations = {
        **OPERATIONS,
        "whoami": {"method": "GET", "path": "/me", "tool": False},
        "listjobs": {**OPERATIONS["listjobs"], "inputParameters": [{"name": "actor", "in": "query"}]},
    }
    responses = by_path(
        {
            "POST /teams/t/jobs": NO_CONTENT,
            "GET /me": {"app": "bot"},
            "GET /teams/t/jobs": {"jobs": [{"id": "8", "state": "waiting", "at": created(0.5)}]},
        }
    )
    actor = {"operation": "whoami", "name": "$.login", "argument": "actor"}
    async with acme(tmp_path, responses, operations=operations, runs=finding(actor=actor)) as provider:
        call = await provider.call("createjob", wait_seconds=5)
        assert "does not name the run, so there was nothing to wait for" in " ".join(call.result.notes)
        assert "the run could not be looked up: the response of whoami does not name the user" in call.messages


OWN_ID = runs(start={"createjob": {"idempotency_key_argument": "$.body.id", "key_is_run_id": True}})
TAKEN = {"taken": {"status": 500, "message_matches": "already exists", "kind": "conflict"}}


@pytest.mark.parametrize("response", [httpx.Response(409, json={}), httpx.Response(500, text="job 7 already exists")])
async def test_duplicate_of_a_run_with_its_own_id_is_that_run(tmp_path: Path, response: httpx.Response) -> None:
    responses = by_path({"POST /teams/t/jobs": response, f"GET {JOB}": {"id": "7", "state": "done"}})
    async with acme(tmp_path, responses, runs=OWN_ID, consumed={"errors": TAKEN}) as provider:
        call = await provider.call("createjob", body={"id": "7"})
        assert call.value == {"id": "7", "state": "done"}
        assert "A run with this id exists, so no second one was started: this is the run." in call.result.notes
        assert provider.requests == ['POST /teams/t/jobs {"id":"7"}', f"GET {JOB}"]


async def test_conflict_about_something_else_stays_an_error(tmp_path: Path) -> None:
    responses = by_path({"POST /teams/t/jobs": httpx.Response(409, json={"detail": "same date"})})
    async with acme(tmp_path, responses, runs=OWN_ID) as provider:
        with pytest.raises(ProviderError, match="same date"):
            await provider.call("createjob", body={"id": "7"})


async def test_run_with_an_id_of_ours_is_started_once_although_the_first_response_is_lost(tmp_path: Path) -> None:
    lost, taken = httpx.Response(503, text="proxy"), httpx.Response(409, json={})
    responses: dict[str, Any] = {"POST /teams/t/jobs": [lost, taken]}
    respond = by_path(responses)

    def provide(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"id": request.url.path.rpartition("/")[2], "state": "done"})
        response = respond(request)
        assert isinstance(response, httpx.Response)
        return response

    async with acme(tmp_path, provide, runs=OWN_ID) as provider:
        value = (await provider.call("createjob", wait_seconds=5)).value
        assert value["status"] == "succeeded"
        assert [request.split()[0] for request in provider.requests][:3] == ["POST", "POST", "GET"]
        assert value["run_id"] == value["idempotency_key"]


@pytest.mark.parametrize("is_taken", [False, True])
async def test_run_with_an_own_id_is_new_if_its_argument_has_the_name_of_that_of_read(
    tmp_path: Path, is_taken: bool
) -> None:
    named = [{"name": "job", "in": "body", "type": "string"}, {"name": "why", "in": "body", "type": "string"}]
    operations = {**OPERATIONS, "createjob": {**OPERATIONS["createjob"], "inputParameters": named}}
    described = runs(start={"createjob": {"idempotency_key_argument": "$.job", "key_is_run_id": True}})
    response = httpx.Response(409, json={}) if is_taken else {"id": "7"}
    responses = by_path({"POST /teams/t/jobs": response, f"GET {JOB}": {"id": "7", "state": "done"}})
    async with acme(tmp_path, responses, operations=operations, runs=described) as provider:
        # The end of a run that a call resumes is believed only if it is newer than the call.
        value = (await provider.call("createjob", job="7", why="test", wait_seconds=1)).value
        assert (value["status"], value["timed_out"]) == ("succeeded", False)


@pytest.mark.parametrize(("after", "cancelled"), [("broken", True), ("off", True), ("done", False)])
async def test_canceled_run_may_have_another_terminal_status(tmp_path: Path, after: str, cancelled: bool) -> None:
    described = runs(cancel={"stopjob": {"ends_as": "broken"}})
    states = [{"id": "7", "state": "working"}, {"id": "7", "state": after}]
    responses = by_path({f"GET {JOB}": states, f"POST {JOB}/stop": {"ok": True}})
    async with acme(tmp_path, responses, runs=described) as provider:
        value = (await provider.call("stopjob", job="7")).value
        assert value["cancelled"] is cancelled
        assert ("The run was cancelled" in value["next"]) is cancelled


async def test_cancel_reads_until_a_run_that_stops_in_the_background_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_taskruns.engine.runs.cancel.SETTLE_SECONDS", (0.0, 0.0))
    states = [{"id": "7", "state": state} for state in ("working", "working", "working", "off")]
    responses = by_path({f"GET {JOB}": states, f"POST {JOB}/stop": {"stopped": True}})
    async with acme(tmp_path, responses) as provider:
        value = (await provider.call("stopjob", job="7")).value
        assert (value["cancelled"], value["status"], value["response"]) == (True, "canceled", {"stopped": True})


async def test_provider_may_call_its_runs_otherwise(tmp_path: Path) -> None:
    responses = by_path({f"GET {JOB}": {"id": "7", "state": "done"}})
    async with acme(tmp_path, responses, runs=runs(noun="batch job")) as provider:
        assert (await provider.call("wait-for-batch-job", job="7")).value["status"] == "succeeded"
        tool = provider.gateway.tools["acme-explain-batch-job"]
        assert tool.title == "acme: explain batch job"
        assert tool.description.startswith("Explains an acme batch job in one call")


async def test_result_may_be_the_items_of_a_list_and_the_error_several(tmp_path: Path) -> None:
    described = runs(fields={**RUNS["fields"], "result": "$.out[*].text", "error": "$.errors[*].message"})
    job = {"id": "7", "out": [{"text": "a"}, {"text": "b"}], "errors": [{"message": "x"}, {"message": "y"}]}
    for state, field, value in (("done", "result", ["a", "b"]), ("broken", "error", "x (y)")):
        async with acme(tmp_path, by_path({f"GET {JOB}": {**job, "state": state}}), runs=described) as provider:
            assert (await provider.call("wait-for-run", job="7")).value[field] == value


async def test_status_line_of_a_run_without_id_names_the_requested_one(tmp_path: Path) -> None:
    async with acme(tmp_path, by_path({f"GET {JOB}": {"state": "done"}})) as provider:
        assert (await provider.call("getjob", job="7")).result.notes[0] == "Run 7: succeeded (done)."


async def test_tool_that_retries_is_listed_if_what_it_calls_is_available(tmp_path: Path) -> None:
    operations = {
        **OPERATIONS,
        "retryjob": {"method": "POST", "path": "/teams/{team}/jobs/{job}/retry", "tool": False},
        "liststeps": {"method": "GET", "path": "/teams/{team}/jobs/{job}/steps", "tool": False},
    }
    described = runs(
        retry={"whole": {"operation": "retryjob"}},
        steps={
            "operation": "liststeps",
            "items": "$[*]",
            "fields": {"name": "$.name", "status": "$.state"},
            "failed": "bad",
        },
    )
    needs = {"needs": [{"env": "ACME_V2_KEY"}]}
    consumed = {"operations": {"retryjob": needs, "liststeps": needs}}
    responses = {
        f"GET {JOB}": {"id": "7", "state": "broken"},
        f"GET {JOB}/steps": httpx.Response(200, json=[{"name": "a", "state": "bad"}]),
    }
    for environment in ({}, {"ACME_V2_KEY": "k"}):
        settings = Settings(environment=environment)
        async with acme(
            tmp_path, by_path(responses), operations=operations, runs=described, consumed=consumed, settings=settings
        ) as provider:
            assert ("acme-retry-run" in provider.gateway.tools) is bool(environment)
            value = (await provider.call("explain-run", job="7")).value
            assert value.get("steps") == ([{"name": "a", "status": "bad"}] if environment else None)


async def test_key_that_only_a_side_request_sends_is_redacted(tmp_path: Path) -> None:
    key = "planted_2b77c1a90d"
    operations = {**OPERATIONS, "getoutput": OUTPUT}
    consumed = {
        "operations": {"getoutput": {"authentication": {"type": "bearer", "token": "{{env.ACME_OUTPUT_KEY}}"}}},
    }
    responses = by_path({f"GET {JOB}": {"id": "7", "state": "done", "output_file": "f"}, "GET /outputs/f": {"k": key}})
    settings = Settings(environment={"ACME_OUTPUT_KEY": key})
    async with acme(
        tmp_path, responses, operations=operations, runs=with_output(), consumed=consumed, settings=settings
    ) as provider:
        assert key not in (await provider.call("wait-for-run", job="7")).result.text
        assert provider.received[-1].headers["Authorization"] == f"Bearer {key}"
