"""Operations that only the `runs` of an overlay name: their secrets, and what they need from the environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.settings import Settings
from tests.engine.runs.described import OPERATIONS, RUNS, Json, acme, by_path

pytestmark = pytest.mark.anyio

JOB = "/teams/t/jobs/7"
SECRET = "s3cr3t-of-the-other-operation"
ENVIRONMENT = {"ACME_OTHER_KEY": SECRET}


def other(path: str, method: str = "GET", **more: Any) -> Json:
    """Return an operation without a tool, which authenticates with another credential."""
    token = {"type": "bearer", "token": "{{env.ACME_OTHER_KEY}}"}
    return {"method": method, "path": path, "tool": False, "authentication": token, **more}


RETRY: Mapping[str, Json] = {"whole": {"operation": "other"}}


@pytest.mark.parametrize(
    ("runs", "operation"),
    [
        ({"result": {"operation": "other"}}, other("/jobs/{job}/result")),
        ({"retry": RETRY}, other("/jobs/{job}/retry", "POST")),
        ({"cancel": {"stopjob": {"first": {"operation": "other"}}}}, other("/jobs/{job}/stop", "POST")),
        (
            {
                "steps": {
                    "operation": "other",
                    "items": "$[*]",
                    "fields": {"name": "$.n", "status": "$.s"},
                    "failed": "f",
                }
            },
            other("/jobs/{job}/steps"),
        ),
        ({"logs": [{"operation": "other"}]}, other("/jobs/{job}/log")),
        ({"start": {"createjob": {"find": {"operation": "other", "created_at": "$.at"}}}}, other("/jobs")),
        (
            {
                "start": {
                    "createjob": {
                        "find": {
                            "operation": "listjobs",
                            "created_at": "$.at",
                            "actor": {"operation": "other", "name": "$.login", "argument": "by"},
                        }
                    }
                }
            },
            other("/user"),
        ),
    ],
    ids=["result", "retry", "cancel first", "steps", "logs", "find", "actor"],
)
async def test_secret_of_an_operation_without_a_tool_is_redacted(tmp_path: Path, runs: Json, operation: Json) -> None:
    by = {"name": "by", "in": "query", "type": "string"}
    operations = {**OPERATIONS, "listjobs": {**OPERATIONS["listjobs"], "inputParameters": [by]}, "other": operation}
    respond = by_path({f"GET {JOB}": {"id": "7", "state": "working", "note": f"key {SECRET}"}})
    settings = Settings(environment=ENVIRONMENT)
    async with acme(tmp_path, respond, operations=operations, runs={**RUNS, **runs}, settings=settings) as served:
        assert SECRET not in (await served.call("getjob", job="7")).result.text


@pytest.mark.parametrize(
    ("retry", "environment", "is_listed"),
    [
        (RETRY, {}, False),
        (RETRY, ENVIRONMENT, True),
        ({**RETRY, "failed": {"operation": "another"}}, {}, False),
    ],
)
async def test_retry_tool_is_listed_if_all_its_operations_can_be_called(
    tmp_path: Path, retry: Json, environment: dict[str, str], is_listed: bool
) -> None:
    needy = other("/jobs/{job}/retry", "POST", needs=[{"env": "ACME_OTHER_KEY"}])
    operations = {
        **OPERATIONS,
        "other": needy,
        "another": {"method": "POST", "path": "/jobs/{job}/again", "tool": False},
    }
    settings = Settings(environment=environment)
    async with acme(tmp_path, None, operations=operations, runs={**RUNS, "retry": retry}, settings=settings) as served:
        assert ("acme-retry-run" in served.gateway.tools) is is_listed
        assert {"acme-getjob", "acme-wait-for-run", "acme-explain-run"} <= set(served.gateway.tools)
