"""Capability files and overlays made of OpenAPI documents."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_taskruns.generator.build import Generator
from mcp_taskruns.generator.document import InvalidDocument
from mcp_taskruns.loading.check import CheckResult, check_files
from tests.generator import documents
from tests.generator.documents import document, listing, obj, operation, path_parameters, text

JsonObject = dict[str, Any]


def write(folder: Path, root: Any, *names: str, name: str = "acme") -> Path:
    """Write the two files for a document, with the named operations or those chosen by default."""
    generator = Generator.of(root)
    chosen = generator.named_operations(names) if names else generator.default_operations()
    files = generator.build(name, chosen, date(2026, 1, 2))
    (folder / "overlays").mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(files.capability, encoding="utf-8")
    (folder / "overlays" / f"{name}.yaml").write_text(files.overlay, encoding="utf-8")
    return folder


def read(folder: Path, name: str = "acme") -> tuple[JsonObject, JsonObject]:
    """Return the capability file and what the overlay has about the provider."""
    capability = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    overlay = yaml.safe_load((folder / "overlays" / f"{name}.yaml").read_text(encoding="utf-8"))
    return capability, overlay.get("capability", {}).get("consumes", {}).get(name, {})


def runs_of(folder: Path, root: Any, *names: str) -> Any:
    return read(write(folder, root, *names))[1].get("runs")


def check(folder: Path) -> CheckResult:
    result = check_files([folder])
    assert not result.count("error"), [finding.to_line() for finding in result.findings]
    return result


def marks(folder: Path) -> list[str]:
    return [finding.message for finding in check(folder).findings if finding.code == "to-confirm"]


def test_builds_with_numbers_steps_and_logs(tmp_path: Path) -> None:
    assert runs_of(tmp_path, documents.builds()) == {
        "read": {"operation": "getbuild", "run_id_argument": "number"},
        "start": {"createbuild": {}},
        "cancel": {"cancelbuild": {}},
        "runs_in": {"listbuilds": "$[*]", "cancelbuild": "$"},
        "fields": {"id": "$.number", "status": "$.state", "started_at": "$.started_at", "ended_at": "$.finished_at"},
        "statuses": {
            "queued": ["scheduled", "waiting"],
            "running": ["creating", "running", "failing", "canceling"],
            "paused": ["blocked"],
            "succeeded": ["passed"],
            "failed": ["failed"],
            "canceled": ["canceled", "skipped", "not_run"],
        },
        "steps": {
            "operation": "getbuild",
            "items": "$.jobs[*]",
            "fields": {"name": "$.name", "status": "$.state"},
            "failed": ["failed", "timed_out", "waiting_failed"],
        },
        "logs": [{"operation": "getjoblog", "of": "step", "arguments": {"job_id": "$.id"}}],
        "retry": {"whole": {"operation": "rebuildbuild", "run_id": "$.number"}},
    }
    check(tmp_path)


def test_runs_inside_a_member(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, documents.actor_runs())
    assert runs["runs_in"] == {
        "actorrunsget": "$.data.items[*]",
        "actorrunget": "$.data",
        "actrunspost": "$.data",
        "actorrunabort": "$.data",
    }
    assert runs["fields"] == {
        "id": "$.id",
        "status": "$.status",
        "started_at": "$.startedAt",
        "ended_at": "$.finishedAt",
    }
    assert runs["logs"] == [{"operation": "logget"}]
    assert runs["retry"] == {"whole": {"operation": "actorrunresurrect", "run_id": "$.data.id"}}
    check(tmp_path)


def test_ids_in_a_nested_object_and_placeholders_with_dots(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, documents.workflows())
    assert runs["read"] == {"operation": "describeworkflowexecution", "run_id_argument": "execution_workflow_id"}
    assert runs["cancel"] == {"requestcancelworkflowexecution": {}, "terminateworkflowexecution": {}}
    assert runs["fields"]["id"] == "$.execution.workflowId"
    assert runs["runs_in"]["describeworkflowexecution"] == "$.workflowExecutionInfo"
    assert runs["runs_in"]["listworkflowexecutions"] == "$.executions[*]"
    capability, _ = read(tmp_path)
    paths = [resource["path"] for resource in capability["capability"]["consumes"][0]["resources"]]
    assert "/api/v1/namespaces/{namespace}/workflows/{execution_workflow_id}/cancel" in paths
    assert any("may start a run" in mark for mark in marks(tmp_path))


def test_paths_with_verbs_and_a_status_of_two_fields(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, documents.job_runs())
    assert runs["read"] == {"operation": "getrun", "run_id_argument": "run_id"}
    assert runs["start"] == {"runnow": {"run_id": "$.run_id", "idempotency_key_argument": "$.idempotency_token"}}
    assert runs["cancel"] == {"cancelrun": {}}
    assert runs["fields"]["status"] == ["$.status.state", "$.status.termination_details.code"]
    assert runs["statuses"] == {
        "queued": ["PENDING", "QUEUED", "WAITING"],
        "running": ["RUNNING", "TERMINATING"],
        "paused": ["BLOCKED"],
        "succeeded": ["TERMINATED/SUCCESS"],
        "failed": ["TERMINATED/DRIVER_ERROR", "TERMINATED/RUN_EXECUTION_ERROR"],
        "canceled": ["TERMINATED/USER_CANCELED", "TERMINATED/CANCELED", "TERMINATED/SKIPPED"],
    }
    assert runs["result"] == {"operation": "getoutput", "result": "$"}
    assert runs["retry"] == {"whole": {"operation": "repairrun"}}
    assert [finding.code for finding in check(tmp_path).findings if finding.severity == "warning"] == [
        "missing-base-uri"
    ]


JOB = "/jobs/{job_id}"


def jobs(
    response: Any, *, jobs: JsonObject | None = None, below: JsonObject | None = None, **fields: Any
) -> JsonObject:
    """Return a document with jobs; `below` are paths below a job."""
    one = {"parameters": path_parameters("job_id"), "get": operation(response, operationId="getJob", **fields)}
    paths: JsonObject = {"/jobs": jobs or {"post": operation(response, operationId="createJob")}, JOB: one}
    for path, item in (below or {}).items():
        paths[f"{JOB}/{path}"] = {"parameters": path_parameters("job_id"), **item}
    return document(paths)


STATES = ("queued", "running", "done", "failed")


def test_statuses_of_a_list_parameter_with_a_conclusion(tmp_path: Path) -> None:
    job = obj(id={"type": "integer"}, status=text(), conclusion=text(nullable=True))
    states = ("completed", "success", "failure", "cancelled", "odd", "queued", "in_progress")
    parameter = {"name": "status", "in": "query", "schema": {"type": "array", "items": text(*states)}}
    root = jobs(job, jobs={"get": operation(listing(job, "jobs"), operationId="listJobs", parameters=[parameter])})
    runs = runs_of(tmp_path, root)
    assert runs["fields"]["status"] == ["$.status", "$.conclusion"]
    assert runs["statuses"] == {
        "queued": ["queued"],
        "running": ["in_progress"],
        "succeeded": ["completed/success"],
        "failed": ["completed/failure"],
        "canceled": ["completed/cancelled"],
    }
    assert any("completed/odd" in mark for mark in marks(tmp_path))


def test_status_of_two_enums(tmp_path: Path) -> None:
    job = obj(id=text(), status=text("queued", "completed"), conclusion=text("success", "failure", "action_required"))
    assert runs_of(tmp_path, jobs(job))["statuses"] == {
        "queued": ["queued"],
        "succeeded": ["completed/success"],
        "failed": ["completed/failure", "completed/action_required"],
    }


def test_status_without_an_outcome_stays_one_field(tmp_path: Path) -> None:
    job = obj(id=text(), status=text("queued", "completed"), result=text("red", "green"))
    runs = runs_of(tmp_path, jobs(job))
    assert (runs["fields"]["status"], runs["statuses"]["succeeded"]) == ("$.status", ["completed"])
    assert any("no status was found for failed, canceled" in mark for mark in marks(tmp_path))


def test_statuses_listed_in_the_description_of_the_operation(tmp_path: Path) -> None:
    description = (
        'Gets a job.\n\n```json\n{"id": "j", "status": "done", "created_at": "2026-01-02T03:04:05Z", "ratio": 0.5, '
        '"ok": true, "tags": [], "none": null,}\n```\n\n`status` is one of `queued`, `running`, `done` or `failed`.'
    )
    runs = runs_of(tmp_path, jobs(None, description=description))
    assert runs["statuses"] == {
        "queued": ["queued"],
        "running": ["running"],
        "succeeded": ["done"],
        "failed": ["failed"],
    }
    assert runs["fields"] == {"id": "$.id", "status": "$.status", "started_at": "$.created_at"}
    assert runs["start"] == {"createjob": {}}
    assert any("does not describe the response of createjob" in mark for mark in marks(tmp_path))


def test_statuses_listed_in_the_description_of_the_field(tmp_path: Path) -> None:
    job = obj(id=text(), state=text(description="One of 'queued', 'running', 'done', 'failed'."))
    assert runs_of(tmp_path, jobs(job))["statuses"]["failed"] == ["failed"]


def test_description_with_few_statuses_is_no_list(tmp_path: Path) -> None:
    job = obj(id=text(), state=text(description="`queued` at first."))
    assert runs_of(tmp_path, jobs(job), "all") is None


def test_invalid_json_in_a_description_is_ignored(tmp_path: Path) -> None:
    assert runs_of(tmp_path, jobs(None, description="```json\n{no}\n```"), "all") is None


def test_example_instead_of_a_schema(tmp_path: Path) -> None:
    root = jobs(None)
    example = {"example": {"id": "j", "status": "done"}, "examples": {"other": {"value": {"id": "k"}}}}
    root["paths"][JOB]["get"]["responses"]["200"]["content"] = {"application/json": example}
    root["paths"][JOB]["get"]["description"] = "`queued`, `running`, `done`, `failed`"
    assert runs_of(tmp_path, root)["fields"] == {"id": "$.id", "status": "$.status"}


def test_compositions_and_circular_references(tmp_path: Path) -> None:
    root = jobs({"$ref": "#/components/schemas/Job"}, below={"children": {"get": operation(listing({}, "jobs"))}})
    parts = [{"$ref": "#/components/schemas/Base"}, obj(parent={"$ref": "#/components/schemas/Job"})]
    phases = [{"type": "string", "const": state} for state in STATES]
    root["components"] = {
        "schemas": {
            "Job": {"allOf": parts, "required": ["id"]},
            "Base": {"properties": {"id": {"$ref": "#/components/schemas/Id"}, "phase": {"oneOf": phases}}},
            "Id": {"$ref": "#/components/schemas/Id2", "description": "Id."},
            "Id2": text(),
            "Loop": {"$ref": "#/components/schemas/Loop"},
        }
    }
    schema = obj(job={"$ref": "#/components/schemas/Job"}, loop={"$ref": "#/components/schemas/Loop"})
    root["paths"]["/jobs"]["post"]["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    runs = runs_of(tmp_path, root)
    assert runs["fields"] == {"id": "$.id", "status": "$.phase"}
    _, consumed = read(tmp_path)
    argument = consumed["operations"]["createjob"]["inputParameters"]["job"]["schema"]
    assert set(argument["properties"]) == {"id", "phase", "parent"}
    check(tmp_path)


def test_response_with_the_id_elsewhere(tmp_path: Path) -> None:
    one = "/queue/{app}/requests/{request_id}"
    parameters = path_parameters("app", "request_id")
    status = obj(status=text("IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED"))
    root = document(
        {
            "/queue/{app}": {
                "post": operation(
                    obj(request_id=text(), status=text("IN_QUEUE")),
                    operationId="submit",
                    parameters=path_parameters("app"),
                )
            },
            f"{one}/status": {"get": operation(status, operationId="getStatus", parameters=parameters)},
            one: {"get": operation({}, operationId="getResult", parameters=parameters)},
            f"{one}/cancel": {"put": operation(None, code="204", operationId="cancel", parameters=parameters)},
            f"{one}/stream": {
                "get": {"operationId": "stream", "responses": {"200": {"content": {"text/event-stream": {}}}}}
            },
        }
    )
    runs = runs_of(tmp_path, root)
    assert runs["read"] == {"operation": "getstatus", "run_id_argument": "request_id"}
    assert runs["start"] == {"submit": {}}
    assert runs["result"] == {"operation": "getresult", "result": "$"}
    assert any("does not have this id" in mark for mark in marks(tmp_path))


def test_no_runs_without_an_id(tmp_path: Path) -> None:
    root = jobs(obj(status=text(*STATES)))
    assert runs_of(tmp_path, root) is None
    assert any("no operation was found that reads a run" in mark for mark in marks(tmp_path))


def test_no_runs_if_the_read_is_not_chosen(tmp_path: Path) -> None:
    assert runs_of(tmp_path, documents.builds(), "createBuild") is None


def test_parts_of_runs_that_are_not_chosen_are_left_out(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, documents.builds(), "getBuild", "listBuilds")
    assert set(runs) == {"read", "runs_in", "fields", "statuses", "steps"}
    found = " ".join(marks(tmp_path))
    assert "no operation was found that starts a run" in found
    assert "no operation was found that cancels a run" in found


def test_steps_logs_and_retries_below_a_run(tmp_path: Path) -> None:
    task = obj(id=text(), task_name=text(), status=text("queued", "running", "success", "error"), error=text())
    job = obj(
        id=text(),
        status=text("queued", "running"),
        output={},
        error=obj(message=text()),
        progress_percent={"type": "number"},
    )
    below: JsonObject = {
        "tasks": {"get": operation(listing(task, "tasks"), operationId="listTasks")},
        "tasks/{task_id}/logs": {
            "get": {
                "operationId": "getTaskLogs",
                "parameters": path_parameters("task_id"),
                "responses": {"302": {"description": ""}},
            }
        },
        "result": {"get": operation(obj(output={}), operationId="getJobResult")},
        "retry": {"post": operation(None, operationId="retryJob")},
        "retry-failed": {"post": operation(None, operationId="retryFailedTasks")},
        "stop": {"post": operation(None, operationId="stopJob")},
    }
    runs = runs_of(tmp_path, jobs(job, below=below))
    assert runs["fields"]["error"] == "$.error.message"
    assert runs["fields"]["progress"] == {"percent": "$.progress_percent"}
    assert "result" not in runs  # the run has its own
    assert runs["steps"] == {
        "operation": "listtasks",
        "items": "$.tasks[*]",
        "fields": {"name": "$.task_name", "status": "$.status", "error": "$.error"},
        "failed": ["error"],
    }
    assert runs["logs"] == [{"operation": "gettasklogs", "of": "step", "arguments": {"task_id": "$.id"}}]
    assert runs["retry"] == {"whole": {"operation": "retryjob"}, "failed": {"operation": "retryfailedtasks"}}
    assert list(runs["retry"]) == ["whole", "failed"]
    assert read(tmp_path)[1]["operations"]["gettasklogs"] == {"follow_redirect": True}
    assert any("no status is terminal" in mark for mark in marks(tmp_path))


def test_result_of_another_operation_with_another_argument(tmp_path: Path) -> None:
    root = jobs(obj(id=text(), status=text(*STATES)))
    result = operation(obj(output={}), operationId="getResult", parameters=path_parameters("id"))
    root["paths"]["/jobs/{id}/output"] = {"get": result}
    cancel = operation(None, operationId="cancelJob", parameters=path_parameters("id"))
    root["paths"]["/jobs/{id}/cancel"] = {"post": cancel}
    runs = runs_of(tmp_path, root)
    assert runs["result"] == {"operation": "getresult", "run_id_argument": "id", "result": "$.output"}
    assert runs["cancel"] == {"canceljob": {"run_id_argument": "id"}}


def test_steps_and_logs_that_are_not_understood_are_only_named(tmp_path: Path) -> None:
    below: JsonObject = {
        "steps": {"get": operation(listing(obj(id=text()), "steps"), operationId="listSteps")},
        "logs/{part}/{line}": {
            "get": operation(None, operationId="getLog", parameters=path_parameters("part", "line")),
        },
    }
    runs = runs_of(tmp_path, jobs(obj(id=text(), status=text(*STATES)), below=below))
    assert not {"steps", "logs"} & set(runs)
    found = " ".join(marks(tmp_path))
    assert "liststeps may list the steps" in found
    assert "getlog may have the log" in found


def test_progress_in_parts_and_as_a_ratio(tmp_path: Path) -> None:
    number = {"type": "integer"}
    counts = obj(completed=number, failed=number, total=number, name=text())
    runs = runs_of(tmp_path, jobs(obj(id=text(), status=text(*STATES), counts=counts)))
    assert runs["fields"]["progress"] == {"done": ["$.counts.completed", "$.counts.failed"], "total": "$.counts.total"}
    job = obj(id=text(), status=text(*STATES), progress={"type": "number"}, state=obj(message=text()))
    fields = runs_of(tmp_path, jobs(job))["fields"]
    assert (fields["progress"], fields["error"]) == ("$.progress", "$.state.message")


def test_start_without_content_names_no_run(tmp_path: Path) -> None:
    root = jobs(
        obj(id=text(), status=text(*STATES)), jobs={"post": operation(None, code="204", operationId="createJob")}
    )
    assert "start" not in runs_of(tmp_path, root)
    assert any("createjob may start a run, but its response has no id" in mark for mark in marks(tmp_path))


def test_document_without_runs_has_no_default_operations() -> None:
    root = document({"/users/{id}": {"get": operation(obj(id=text()), operationId="getUser")}})
    assert Generator.of(root).default_operations() == []


def test_operations_by_id_or_path() -> None:
    generator = Generator.of(documents.builds())
    ids = [one.id for one in generator.named_operations(["cancel-build", "GET /v2/organizations/{org}"])]
    assert ids == ["cancelBuild", "getOrganization"]
    assert len(generator.named_operations(["all"])) == 7
    with pytest.raises(InvalidDocument, match=r"no operation 'cancelBild'; did you mean cancelBuild\?"):
        generator.named_operations(["cancelBild"])
    with pytest.raises(InvalidDocument, match=r"no operation 'x'$"):
        generator.named_operations(["x"])


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ([], "no `openapi: 3"),
        ({"swagger": "2.0"}, "Swagger 2.0"),
        ({"openapi": "2.0", "paths": {}}, "no `openapi: 3"),
        ({"openapi": "3.0.0"}, "no `paths`"),
    ],
)
def test_other_documents_are_refused(root: Any, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason):
        Generator.of(root)


def test_malformed_parts_are_ignored(tmp_path: Path) -> None:
    root = jobs(obj(id=text(), status=text(*STATES)))
    root["paths"] |= {"/x": None, "/y": {"get": "no", "post": {"parameters": [{"in": "query"}, 3], "responses": []}}}
    root["paths"]["/list"] = {"$ref": "#/components/pathItems/0/x"}
    root["paths"]["/other"] = {"get": {"requestBody": {"$ref": "other.yaml#/x"}, "responses": {"200": {"$ref": "#/z"}}}}
    root["components"] = {"pathItems": [{"x": {"get": operation(listing({}, "all"), operationId="refs")}}]}
    root["info"] = None
    write(tmp_path, root, "all")
    assert {"refs", "posty", "getother"} <= {one["name"] for one in operations_of(tmp_path)}
    check(tmp_path)


def operations_of(folder: Path) -> list[JsonObject]:
    capability, _ = read(folder)
    resources = capability["capability"]["consumes"][0]["resources"]
    return [one for resource in resources for one in resource["operations"]]


def bodies(media_type: str, schema: Any, **fields: Any) -> JsonObject:
    body = {"content": {media_type: {"schema": schema}}, **fields}
    return document({"/files/{name}": {"post": operation(None, operationId="send", requestBody=body)}})


@pytest.mark.parametrize(
    ("media_type", "schema", "inputs", "body"),
    [
        ("application/json", obj(a=text(), b=text()), ["a", "b"], {"type": "json"}),
        ("application/json", obj(a=text()), ["a"], {"a": "{{a}}"}),
        ("application/json", {}, ["body"], None),
        ("application/json", {"type": "array", "items": text()}, ["body"], None),
        ("application/x-www-form-urlencoded", obj(a=text()), ["a"], {"type": "form"}),
        ("multipart/form-data", obj(a=text(), b=text()), ["a", "b"], {"type": "multipart"}),
        ("text/plain", text(), ["body"], {"type": "text"}),
        ("application/octet-stream", {}, [], None),
    ],
)
def test_bodies(tmp_path: Path, media_type: str, schema: Any, inputs: list[str], body: Any) -> None:
    write(tmp_path, bodies(media_type, schema), "all")
    (one,) = operations_of(tmp_path)
    assert [item["name"] for item in one.get("inputParameters", ())] == inputs
    assert one.get("body") == body
    check(tmp_path)


def test_members_that_are_read_only_are_left_out(tmp_path: Path) -> None:
    schema = obj(a={"type": "string", "readOnly": True}, b=obj(c={"readOnly": True}, d=text()))
    write(tmp_path, bodies("application/json", schema, required=False), "all")
    (one,) = operations_of(tmp_path)
    assert one["inputParameters"] == [{"name": "b", "in": "body", "type": "object"}]
    refined = read(tmp_path)[1]["operations"]["send"]["inputParameters"]
    assert refined == {"b": {"in": "body", "schema": {"properties": {"d": {"type": "string"}}}}}


def test_parameters_and_their_schemas(tmp_path: Path) -> None:
    values = [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Id of it. More."},
        {"name": "gone", "in": "path", "schema": {"type": "string"}},
        {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
        {"name": "tags", "in": "query", "explode": False, "schema": {"type": "array", "items": text("a", "b")}},
        {"name": "filter[x]", "in": "query", "content": {"application/json": {"schema": {"type": ["string", "null"]}}}},
        {
            "name": "model",
            "in": "query",
            "schema": {"anyOf": [text(), text("small", "large"), {"type": "null"}], "maxLength": 9},
        },
        {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 20, "maximum": 50}},
        {"name": "either", "in": "query", "schema": {"oneOf": [{"type": "integer"}, text()]}},
    ]
    root = document({"/things/{id}": {"get": operation(None, operationId="get", parameters=values)}})
    write(tmp_path, root, "all")
    (one,) = operations_of(tmp_path)
    assert {item["name"]: item.get("type") for item in one["inputParameters"]} == {
        "id": "string",
        "tags": "array",
        "filter[x]": "string",
        "model": "string",
        "limit": "integer",
        "either": ["integer", "string"],
    }
    assert one["inputParameters"][0]["description"] == "Id of it."
    assert read(tmp_path)[1]["operations"]["get"]["inputParameters"] == {
        "tags": {"in": "query", "schema": {"items": {"type": "string", "enum": ["a", "b"]}}, "explode": False},
        "model": {"in": "query", "schema": {"examples": ["small", "large"], "maxLength": 9}},
        "limit": {"in": "query", "schema": {"maximum": 50, "default": 20}},
    }
    check(tmp_path)


def test_argument_in_path_and_body(tmp_path: Path) -> None:
    root = bodies("application/json", obj(name=text(), b=text()))
    root["paths"]["/files/{name}"]["parameters"] = path_parameters("name")
    write(tmp_path, root, "all")
    assert any("the latter is name_body" in mark for mark in marks(tmp_path))


SCHEMES = {
    "bearer": {"type": "http", "scheme": "Bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "word": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "`Authorization: Key $ACME`"},
    "oauth": {"type": "oauth2", "flows": {}},
    "mutual": {"type": "mutualTLS"},
}


@pytest.mark.parametrize(
    ("names", "expected", "variables"),
    [
        (["bearer"], {"type": "bearer", "token": "{{env.ACME_TOKEN}}"}, ["ACME_TOKEN"]),
        (
            ["basic"],
            {"type": "basic", "username": "{{env.ACME_USERNAME}}", "password": "{{env.ACME_PASSWORD}}"},
            ["ACME_USERNAME", "ACME_PASSWORD"],
        ),
        (
            ["key", "oauth"],
            {"type": "apikey", "in": "header", "name": "X-Key", "value": "{{env.ACME_API_KEY}}"},
            ["ACME_API_KEY"],
        ),
        (
            ["word"],
            {"type": "apikey", "in": "header", "name": "Authorization", "value": "Key {{env.ACME_API_KEY}}"},
            ["ACME_API_KEY"],
        ),
        (["oauth", "bearer"], {"type": "bearer", "token": "{{env.ACME_TOKEN}}"}, ["ACME_TOKEN"]),
        (["oauth"], {"type": "bearer", "token": "{{env.ACME_TOKEN}}"}, ["ACME_TOKEN"]),
        (["mutual"], None, []),
        ([], None, []),
    ],
)
def test_authentication(tmp_path: Path, names: list[str], expected: Any, variables: list[str]) -> None:
    schemes = {name: SCHEMES[name] for name in names}
    root = jobs(obj(id=text(), status=text(*STATES)))
    root |= {"components": {"securitySchemes": schemes}, "security": [{name: []} for name in (*names, "unknown")]}
    capability, _ = read(write(tmp_path, root))
    assert capability["capability"]["consumes"][0].get("authentication") == expected
    assert [key for bind in capability.get("binds", ()) for key in bind["keys"]] == variables
    check(tmp_path)


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ([{"url": "https://a.example/v1/"}], "https://a.example/v1"),
        ([{"url": "/api"}, {"url": "https://b.example"}], "https://b.example"),
        (
            [
                {
                    "url": "{scheme}://{host}",
                    "variables": {"scheme": {"default": "https"}, "host": {"default": "c.example"}},
                }
            ],
            "https://c.example",
        ),
        ([{"url": "https://{region}.example", "variables": {"region": {}}}], None),
        ([], None),
    ],
)
def test_servers(tmp_path: Path, servers: list[JsonObject], expected: str | None) -> None:
    root = jobs(obj(id=text(), status=text(*STATES))) | {"servers": servers}
    capability, _ = read(write(tmp_path, root))
    assert capability["capability"]["consumes"][0].get("baseUri") == expected


def test_server_of_an_operation_is_marked(tmp_path: Path) -> None:
    root = jobs(obj(id=text(), status=text(*STATES)), servers=[{"url": "https://b.example"}])
    write(tmp_path, root)
    assert "to confirm: the document has another server for this operation: https://b.example" in marks(tmp_path)


def test_tools_have_names_descriptions_and_hints(tmp_path: Path) -> None:
    write(tmp_path, documents.builds())
    capability, _ = read(tmp_path)
    tools = {tool["name"]: tool for tool in capability["capability"]["exposes"][0]["tools"]}
    assert list(tools) == ["list-builds", "create-build", "get-build", "cancel-build", "rebuild-build", "get-job-s-log"]
    assert tools["cancel-build"] == {
        "name": "cancel-build",
        "label": "Acme: cancel build",
        "description": "Cancel an Acme build",
        "hints": {"readOnly": False, "destructive": True, "idempotent": False},
        "call": "acme.cancelbuild",
        "with": {"org": "tools.org", "slug": "tools.slug", "number": "tools.number"},
    }
    assert tools["get-build"]["hints"] == {"readOnly": True, "destructive": False, "idempotent": True}
    assert capability["info"]["tags"] == ["Acme"]


def test_names_of_tools_are_unique_and_not_those_of_derived_tools(tmp_path: Path) -> None:
    item = {
        method: operation(None, operationId=f"{method}Thing", summary="Retry a run", description=f"Does {method}.")
        for method in ("post", "put")
    }
    write(tmp_path, document({"/a": item, "/b": {"post": operation(None, operationId="retryRun")}}), "all")
    capability, _ = read(tmp_path)
    names = [tool["name"] for tool in capability["capability"]["exposes"][0]["tools"]]
    assert names == ["post-thing", "put-thing", "retry-run-operation"]
    check(tmp_path)


def test_same_descriptions_are_replaced_by_titles(tmp_path: Path) -> None:
    same = "Creates a prediction from the inputs that you provide."
    paths = {
        f"/{name}": {"post": operation(None, operationId=name, summary=f"Run {name}", description=same)}
        for name in ("model", "version")
    }
    write(tmp_path, document(paths), "all")
    capability, _ = read(tmp_path)
    found = [tool["description"] for tool in capability["capability"]["exposes"][0]["tools"]]
    assert found == ["Run Acme model", "Run Acme version"]


def test_ids_that_repeat_the_path_are_shortened(tmp_path: Path) -> None:
    found = operation(obj(id=text(), status=text(*STATES)), operationId="read_job_api_jobs__job_id__get")
    root = document({"/api/jobs/{job_id}": {"parameters": path_parameters("job_id"), "get": found}})
    assert runs_of(tmp_path, root)["read"]["operation"] == "readjob"


def test_event_streams_are_declared(tmp_path: Path) -> None:
    stream = {"operationId": "watch", "responses": {"200": {"content": {"text/event-stream": {}}}}}
    write(tmp_path, document({"/events": {"get": stream}}), "all")
    assert read(tmp_path)[1]["operations"] == {"watch": {"accept": "text/event-stream"}}


def test_start_of_another_resource_that_returns_an_id(tmp_path: Path) -> None:
    root = jobs(obj(id=text(), status=text(*STATES)), jobs={"get": operation(listing(text(), "names"))})
    parameters = path_parameters("task")
    root["paths"]["/tasks/{task}/trigger"] = {
        "post": operation(obj(id=text()), operationId="trigger", parameters=parameters)
    }
    root["paths"]["/crons/{cron}/start"] = {"post": operation(obj(ok=text()), operationId="startCron")}
    root["paths"]["/names"] = {"get": operation(obj(names={"type": "array", "items": text()}), operationId="jobs")}
    assert runs_of(tmp_path, root)["start"] == {"trigger": {"run_id": "$.id"}}


def test_path_with_a_short_placeholder(tmp_path: Path) -> None:
    found = operation(obj(id=text(), status=text(*STATES)), operationId="getJob", parameters=path_parameters("id"))
    root = document({"/jobs/{id}": {"get": found}, "/hooks": {"post": operation(obj(id=text()), operationId="hook")}})
    assert "start" not in runs_of(tmp_path, root)


def test_logs_of_steps_without_an_id_are_only_named(tmp_path: Path) -> None:
    task = obj(name=text(), status=text("running", "done", "failed"))
    log = operation(obj(text=text()), operationId="getLog", parameters=path_parameters("task_name"))
    below: JsonObject = {
        "tasks": {"get": operation(listing(task, "tasks"), operationId="listTasks")},
        "tasks/{task_name}/log": {"get": log},
    }
    runs = runs_of(tmp_path, jobs(obj(id=text(), status=text(*STATES)), below=below))
    assert "steps" in runs
    assert "logs" not in runs


def test_retry_with_further_arguments_is_left_out(tmp_path: Path) -> None:
    root = jobs(obj(id=text(), status=text(*STATES)))
    root["paths"]["/jobs/{id}/{part}/retry"] = {"post": operation(None, operationId="retry")}
    assert "retry" not in runs_of(tmp_path, root)


def test_unrelated_operations_start_nothing(tmp_path: Path) -> None:
    root = documents.job_runs()
    root["paths"]["/hooks"] = {"post": operation(obj(id=text()), operationId="hook")}
    assert list(runs_of(tmp_path, root)["start"]) == ["runnow"]


def test_all_fields_and_two_retries(tmp_path: Path) -> None:
    job = obj(
        id=text(),
        status=text(*STATES, "canceled"),
        result=text(),
        error=text(),
        started_at={"type": "integer"},
        ended_at={"type": "integer"},
        attempts={"type": "integer"},
    )
    below: JsonObject = {name: {"post": operation(None, operationId=f"{name}Job")} for name in ("retry", "rerun")}
    runs = runs_of(tmp_path, jobs(job, below=below))
    assert set(runs["fields"]) == {"id", "status", "result", "error", "started_at", "ended_at", "attempts"}
    assert runs["retry"] == {"whole": {"operation": "retryjob"}}


def test_list_parameters_that_show_no_statuses(tmp_path: Path) -> None:
    parameters = [{"name": name, "in": "query", "schema": text("a", "b")} for name in ("limit", "status")]
    job = obj(id=text(), status=text())
    listed = operation(listing(job, "jobs"), operationId="listJobs", parameters=parameters)
    assert runs_of(tmp_path, jobs(job, jobs={"get": listed}), "all") is None


def test_large_and_deep_schemas_are_cut(tmp_path: Path) -> None:
    wide = obj(**{f"p{number}": text() for number in range(41)})
    deep: JsonObject = text("x")
    for _ in range(9):
        deep = {"allOf": [deep]}
    schema = obj(wide=wide, deep=deep, odd=3)
    write(tmp_path, bodies("application/json", schema), "all")
    (one,) = operations_of(tmp_path)
    assert [item["name"] for item in one["inputParameters"]] == ["wide", "deep", "odd"]
    assert "operations" not in read(tmp_path)[1]
