"""Commands to the agent, messages for Slack and connection tokens.

Expected values are from PostHog products/tasks/backend/{api,models,serializers}.py, stream/redis_stream.py and
posthog/api/mixins.py (https://github.com/PostHog/posthog), not from the simulator.
"""

import base64
import json
from typing import Any

import httpx
import pytest

from tests.simulator.posthog.driver import COMPLETED, IN_PROGRESS, NOT_STARTED, OUTAGE, RUNS, command, run_detail

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("run_id", "text", "status"),
    [
        (IN_PROGRESS, "Done", "accepted"),
        (IN_PROGRESS, "  ", "skipped"),
        (NOT_STARTED, "Done", "skipped"),
        (COMPLETED, "Done", "skipped"),
    ],
)
async def test_relay_message_needs_an_active_run_with_a_slack_thread(
    client: httpx.AsyncClient, run_id: str, text: str, status: str
) -> None:
    response = await client.post(f"{RUNS}{run_id}/relay_message/", json={"text": text})
    assert (response.status_code, response.json()["status"]) == (200, status)
    assert ("relay_id" in response.json()) == (status == "accepted")


@pytest.mark.parametrize(
    ("run_id", "status", "body"),
    [
        (IN_PROGRESS, 503, {"error": "Failed to queue Slack relay"}),
        (COMPLETED, 200, {"status": "skipped"}),
    ],
)
async def test_relay_message_is_503_in_an_outage_unless_skipped(
    client: httpx.AsyncClient, run_id: str, status: int, body: Any
) -> None:
    response = await client.post(f"{RUNS}{run_id}/relay_message/", json={"text": "Done"}, headers=OUTAGE)
    assert (response.status_code, response.json()) == (status, body)


async def test_relay_message_over_10000_characters_is_400(client: httpx.AsyncClient) -> None:
    response = await client.post(f"{RUNS}{IN_PROGRESS}/relay_message/", json={"text": "x" * 10_001})
    assert (response.status_code, response.json()["code"]) == (400, "max_length")


async def test_user_message_is_queued_and_logged(client: httpx.AsyncClient) -> None:
    response = await command(client, IN_PROGRESS, "user_message", params={"content": "Hurry"}, id=7)
    assert response.json() == {"jsonrpc": "2.0", "result": {"queued": True}, "id": 7}
    assert "Hurry" in (await client.get(f"{RUNS}{IN_PROGRESS}/logs/")).text


async def test_user_message_to_a_completed_run_is_409(client: httpx.AsyncClient) -> None:
    response = await command(client, COMPLETED, "user_message", params={"content": "Hurry"})
    assert (response.status_code, response.json()) == (409, {"error": "Task run workflow has ended"})


async def test_user_message_to_a_run_that_was_not_started_is_502(client: httpx.AsyncClient) -> None:
    response = await command(client, NOT_STARTED, "user_message", params={"content": "Hurry"})
    assert (response.status_code, response.json()) == (502, {"error": "Failed to queue user message for task run"})


async def test_user_message_with_unknown_artifacts_is_400_with_their_ids(client: httpx.AsyncClient) -> None:
    response = await command(client, IN_PROGRESS, "user_message", params={"artifact_ids": ["nope"]})
    error = "Some artifact_ids are invalid for this run"
    assert (response.status_code, response.json()) == (400, {"error": error, "missing_artifact_ids": ["nope"]})


@pytest.mark.parametrize(
    ("method", "params", "result", "status"),
    [
        ("permission_response", {"requestId": "perm-1", "optionId": "allow"}, {"resolved": True}, "in_progress"),
        ("set_config_option", {"configId": "mode", "value": "plan"}, {"configOptions": []}, "in_progress"),
        ("cancel", {}, {"cancelled": True}, "cancelled"),
        ("close", {}, {"closed": True}, "completed"),
    ],
)
async def test_command_returns_the_result_of_the_agent(
    client: httpx.AsyncClient, method: str, params: dict[str, Any], result: dict[str, Any], status: str
) -> None:
    response = await command(client, IN_PROGRESS, method, params=params, id="c-1")
    assert response.json() == {"jsonrpc": "2.0", "id": "c-1", "result": result}
    assert (await run_detail(client, IN_PROGRESS))["status"] == status


@pytest.mark.parametrize(
    ("sandbox_url", "status", "error"),
    [
        (None, 400, "No active sandbox for this task run"),
        ("https://evil.example", 400, "Invalid sandbox URL"),
        ("https://unreachable.modal.host", 502, "Agent server is not reachable"),
        ("https://refusing.modal.host", 502, "Agent server rejected the command"),
        ("https://slow.modal.host", 504, "Agent server request timed out"),
    ],
)
async def test_command_fails_with_the_error_of_the_sandbox(
    client: httpx.AsyncClient, sandbox_url: str | None, status: int, error: str
) -> None:
    await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"state": {"sandbox_url": sandbox_url}})
    response = await command(client, IN_PROGRESS, "cancel")
    assert (response.status_code, response.json()["error"]) == (status, error)


async def test_command_to_a_completed_run_is_502(client: httpx.AsyncClient) -> None:
    assert (await run_detail(client, COMPLETED))["state"]["sandbox_url"]
    response = await command(client, COMPLETED, "cancel")
    assert (response.status_code, response.json()) == (502, {"error": "Agent server is not reachable"})


@pytest.mark.parametrize(
    ("method", "more", "attr"),
    [
        ("shutdown", {}, "method"),
        ("user_message", {}, "params"),
        ("user_message", {"params": {"content": 1}}, "params"),
        ("user_message", {"params": {"artifact_ids": "a"}}, "params"),
        ("user_message", {"params": []}, "params"),
        ("permission_response", {"params": {"requestId": "perm-1"}}, "params"),
        ("set_config_option", {"params": {"configId": " ", "value": "x"}}, "params"),
        ("cancel", {"id": {}}, "id"),
        ("cancel", {"jsonrpc": "1.0"}, "jsonrpc"),
    ],
)
async def test_invalid_command_is_400_with_the_field(
    client: httpx.AsyncClient, method: str, more: dict[str, Any], attr: str
) -> None:
    response = await command(client, IN_PROGRESS, method, **more)
    assert (response.status_code, response.json()["attr"]) == (400, attr)


async def test_connection_token_is_a_jwt_valid_for_a_day(client: httpx.AsyncClient) -> None:
    token = (await client.get(f"{RUNS}{IN_PROGRESS}/connection_token/")).json()["token"]
    _, claims, _ = token.split(".")
    payload = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert payload["run_id"] == IN_PROGRESS
    assert payload["exp"] - payload["iat"] == 24 * 60 * 60
