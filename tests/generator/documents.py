"""Small OpenAPI documents in the styles of public run APIs."""

from typing import Any

JsonObject = dict[str, Any]


def operation(response: Any = None, *, code: str = "200", **fields: Any) -> JsonObject:
    """Return an operation with a JSON response of this schema."""
    content = {} if response is None else {"content": {"application/json": {"schema": response}}}
    return {"responses": {code: {"description": "", **content}}, **fields}


def path_parameters(*names: str) -> list[JsonObject]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def document(paths: JsonObject, **fields: Any) -> JsonObject:
    info = {"title": "Acme API", "version": "1"}
    return {
        "openapi": "3.1.0",
        "info": info,
        "servers": [{"url": "https://api.acme.example/v1"}],
        "paths": paths,
        **fields,
    }


def text(*enum: str, **fields: Any) -> JsonObject:
    return {"type": "string", **({"enum": list(enum)} if enum else {}), **fields}


def obj(**properties: Any) -> JsonObject:
    return {"type": "object", "properties": properties}


def listing(item: Any, name: str) -> JsonObject:
    return obj(**{name: {"type": "array", "items": item}})


def builds() -> JsonObject:
    """Builds with a number as id, a list at the root, and logs of jobs inside the build (Buildkite)."""
    states = ("creating", "scheduled", "running", "passed", "failing", "failed", "blocked", "canceling", "canceled")
    job = obj(
        id=text(), name=text(), state=text("scheduled", "running", "passed", "failed", "timed_out", "waiting_failed")
    )
    build = {
        **obj(
            id=text(),
            number={"type": "integer"},
            state=text(*states, "skipped", "not_run", "waiting"),
            jobs={"type": "array", "items": {"$ref": "#/components/schemas/Job"}},
            started_at=text(format="date-time"),
            finished_at=text(format="date-time"),
        ),
    }
    one, ref = "/v2/organizations/{org}/pipelines/{slug}/builds/{number}", {"$ref": "#/components/schemas/Build"}
    return document(
        {
            "/v2/organizations/{org}/pipelines/{slug}/builds": {
                "parameters": path_parameters("org", "slug"),
                "get": operation({"type": "array", "items": ref}, operationId="listBuilds", summary="List builds"),
                "post": operation(
                    ref,
                    code="201",
                    operationId="createBuild",
                    summary="Create a build",
                    requestBody={
                        "content": {
                            "application/json": {
                                "schema": {**obj(commit=text(), branch=text()), "required": ["commit"]}
                            }
                        }
                    },
                ),
            },
            one: {
                "parameters": path_parameters("org", "slug", "number"),
                "get": operation(ref, operationId="getBuild", summary="Get a build"),
            },
            f"{one}/cancel": {
                "parameters": path_parameters("org", "slug", "number"),
                "put": operation(ref, operationId="cancelBuild", summary="Cancel a build"),
            },
            f"{one}/rebuild": {
                "parameters": path_parameters("org", "slug", "number"),
                "put": operation(ref, operationId="rebuildBuild", summary="Rebuild a build"),
            },
            f"{one}/jobs/{{job_id}}/log": {
                "parameters": path_parameters("org", "slug", "number", "job_id"),
                "get": operation(obj(content=text()), operationId="getJobLog", summary="Get a job's log"),
            },
            "/v2/organizations/{org}": {
                "parameters": path_parameters("org"),
                "get": operation(obj(id=text(), name=text()), operationId="getOrganization"),
            },
        },
        components={
            "schemas": {"Build": build, "Job": job},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        security=[{"token": []}],
    )


def actor_runs() -> JsonObject:
    """Runs inside `data`, statuses in capitals with hyphens, a log as text (Apify)."""
    states = ("READY", "RUNNING", "SUCCEEDED", "FAILED", "TIMING-OUT", "TIMED-OUT", "ABORTING", "ABORTED")
    run = obj(id=text(), status=text(*states), startedAt=text(format="date-time"), finishedAt=text(nullable=True))
    data = obj(data=run)
    return document(
        {
            "/v2/acts/{actorId}/runs": {
                "parameters": path_parameters("actorId"),
                "post": operation(data, code="201", operationId="act_runs_post", summary="Run Actor"),
                "get": operation(
                    obj(data=listing(run, "items")), operationId="act_runs_get", summary="Get list of runs"
                ),
            },
            "/v2/actor-runs/{runId}": {
                "parameters": path_parameters("runId"),
                "get": operation(data, operationId="actorRun_get", summary="Get run"),
            },
            "/v2/actor-runs/{runId}/abort": {
                "parameters": path_parameters("runId"),
                "post": operation(data, operationId="actorRun_abort", summary="Abort run"),
            },
            "/v2/actor-runs/{runId}/resurrect": {
                "parameters": path_parameters("runId"),
                "post": operation(data, operationId="actorRun_resurrect", summary="Resurrect run"),
            },
            "/v2/actor-runs/{runId}/log": {
                "parameters": path_parameters("runId"),
                "get": {
                    "operationId": "log_get",
                    "responses": {"200": {"content": {"text/plain": {"schema": text()}}}},
                },
            },
            "/v2/actor-runs": {
                "get": operation(obj(data=listing(run, "items")), operationId="actorRuns_get", summary="List runs"),
            },
        },
        components={"securitySchemes": {"key": {"type": "apiKey", "in": "query", "name": "token"}}},
    )


def workflows() -> JsonObject:
    """Statuses with a common prefix, ids in a nested object, placeholders with dots (Temporal)."""
    names = (
        "UNSPECIFIED",
        "RUNNING",
        "COMPLETED",
        "FAILED",
        "CANCELED",
        "TERMINATED",
        "CONTINUED_AS_NEW",
        "TIMED_OUT",
        "PAUSED",
    )
    status = text(*(f"WORKFLOW_EXECUTION_STATUS_{name}" for name in names), format="enum")
    execution = obj(workflowId=text(), runId=text())
    info = obj(
        execution=execution, status=status, startTime=text(format="date-time"), closeTime=text(format="date-time")
    )
    one = "/api/v1/namespaces/{namespace}/workflows/{execution.workflow_id}"
    both = path_parameters("namespace", "execution.workflow_id")
    return document(
        {
            one: {
                "get": operation(
                    obj(workflowExecutionInfo=info), operationId="DescribeWorkflowExecution", parameters=both
                )
            },
            f"{one}/cancel": {"post": operation(obj(), operationId="RequestCancelWorkflowExecution", parameters=both)},
            f"{one}/terminate": {"post": operation(obj(), operationId="TerminateWorkflowExecution", parameters=both)},
            "/api/v1/namespaces/{namespace}/workflows": {
                "get": operation(
                    listing(info, "executions"),
                    operationId="ListWorkflowExecutions",
                    parameters=path_parameters("namespace"),
                )
            },
            "/api/v1/namespaces/{namespace}/workflows/{workflowId}": {
                "post": operation(
                    obj(runId=text(), started={"type": "boolean"}),
                    operationId="StartWorkflowExecution",
                    parameters=path_parameters("namespace", "workflowId"),
                )
            },
        }
    )


def job_runs() -> JsonObject:
    """Paths with verbs, ids as query parameters, a status of two fields (Databricks)."""
    details = obj(code=text("SUCCESS", "USER_CANCELED", "CANCELED", "DRIVER_ERROR", "RUN_EXECUTION_ERROR", "SKIPPED"))
    state = obj(
        state=text("BLOCKED", "PENDING", "QUEUED", "RUNNING", "TERMINATING", "TERMINATED", "WAITING"),
        termination_details=details,
    )
    run = obj(run_id={"type": "integer"}, job_id={"type": "integer"}, status=state, start_time={"type": "integer"})
    body = {"content": {"application/json": {"schema": {**obj(run_id={"type": "integer"}), "required": ["run_id"]}}}}
    start = obj(job_id={"type": "integer"}, idempotency_token=text(), job_parameters={"type": "object"})
    run_id = [{"name": "run_id", "in": "query", "required": True, "schema": {"type": "integer"}}]
    return document(
        {
            "/api/2.2/jobs/run-now": {
                "post": operation(
                    obj(run_id={"type": "integer"}),
                    operationId="runNow",
                    requestBody={"content": {"application/json": {"schema": start}}},
                )
            },
            "/api/2.2/jobs/runs/get": {"get": operation(run, operationId="getRun", parameters=run_id)},
            "/api/2.2/jobs/runs/list": {"get": operation(listing(run, "runs"), operationId="listRuns")},
            "/api/2.2/jobs/runs/cancel": {"post": operation(obj(), operationId="cancelRun", requestBody=body)},
            "/api/2.2/jobs/runs/get-output": {
                "get": operation(obj(error=text()), operationId="getOutput", parameters=run_id)
            },
            "/api/2.2/jobs/runs/repair": {
                "post": operation(obj(repair_id={"type": "integer"}), operationId="repairRun", requestBody=body)
            },
        },
        servers=[],
    )
