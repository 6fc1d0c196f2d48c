"""What overlays can describe about the requests to a provider and its error bodies."""

from pathlib import Path

import httpx
import pytest

from mcp_taskruns.errors import ProviderError
from mcp_taskruns.settings import Settings
from tests.engine.runs.described import OPERATIONS, acme, by_path
from tests.engine.token_server import TOKEN_PATH, TokenServer

pytestmark = pytest.mark.anyio


async def test_error_message_is_where_the_overlay_declares_it(tmp_path: Path) -> None:
    refused = httpx.Response(422, json={"exception_message": "Invalid request received.", "request": {"password": "x"}})
    declared = {"error_messages": "$.exception_message"}
    async with acme(tmp_path, by_path({"GET /teams/t/jobs": refused}), consumed=declared) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.call("listjobs")
    assert caught.value.message == 'the provider returned 422: "Invalid request received."'


async def test_id_with_slashes_is_sent_as_several_segments(tmp_path: Path) -> None:
    operations = {**OPERATIONS, "listruns": {"method": "GET", "path": "/teams/{team}/apps/{app}/runs"}}
    declared = {"inputParameters": {"app": {"in": "path", "keeps_slashes": True}}}
    responses = by_path({"GET /teams/t/apps/acme/flux/dev/runs": {"runs": 2}})
    async with acme(tmp_path, responses, operations=operations, consumed=declared) as provider:
        assert (await provider.call("listruns", app="acme/flux/dev")).value == {"runs": 2}
        assert provider.requests == ["GET /teams/t/apps/acme/flux/dev/runs"]


PREFECT = [
    {"type": "bearer", "token": "{{env.ACME_API_KEY}}"},
    {"type": "basic", "credentials": "{{env.ACME_API_AUTH_STRING}}"},
    {"type": "none"},
]


@pytest.mark.parametrize(
    ("environment", "sent"),
    [
        ({"ACME_API_KEY": "pnu_5d1c7a90", "ACME_API_AUTH_STRING": "admin:pass"}, "Bearer pnu_5d1c7a90"),
        ({"ACME_API_AUTH_STRING": "admin:pass"}, "Basic YWRtaW46cGFzcw=="),
        ({}, None),
    ],
)
async def test_first_credential_that_is_set_is_sent(
    tmp_path: Path, environment: dict[str, str], sent: str | None
) -> None:
    declared = {"authentication": PREFECT}
    settings = Settings(environment=environment)
    responses = by_path({"GET /teams/t/jobs": {"jobs": []}})
    async with acme(tmp_path, responses, consumed=declared, settings=settings) as provider:
        await provider.call("listjobs")
        assert provider.received[0].headers.get("Authorization") == sent


@pytest.mark.parametrize(
    ("environment", "requests"),
    [
        ({"ACME_TOKEN": "token-0-7c1f5d0a9e", "ACME_USER": "admin", "ACME_PASSWORD": "pass"}, 0),
        ({"ACME_USER": "admin", "ACME_PASSWORD": "pass"}, 1),
    ],
)
async def test_token_is_fetched_if_none_is_set(tmp_path: Path, environment: dict[str, str], requests: int) -> None:
    server = TokenServer()
    server.valid.add("token-0-7c1f5d0a9e")
    login = {"username": "{{env.ACME_USER}}", "password": "{{env.ACME_PASSWORD}}"}
    declared = {
        "authentication": [
            {"type": "bearer", "token": "{{env.ACME_TOKEN}}"},
            {"type": "oauth2", "tokenUri": TOKEN_PATH, "body": login},
        ]
    }
    settings = Settings(environment=environment)
    async with acme(tmp_path, server, consumed=declared, settings=settings) as provider:
        assert (await provider.call("listjobs")).value == {"jobs": []}
    assert len(server.token_requests) == requests


async def test_refused_optional_credential_names_all_variables(tmp_path: Path) -> None:
    responses = by_path({"GET /teams/t/jobs": httpx.Response(401, json={"detail": "Unauthorized"})})
    async with acme(tmp_path, responses, consumed={"authentication": PREFECT}) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.call("listjobs")
    assert caught.value.hint == (
        "Check ACME_API_KEY or ACME_API_AUTH_STRING in the server's environment: it may be missing or wrong, or lack a "
        "permission."
    )
