"""What overlays can describe about the requests to a provider and its error bodies."""

from pathlib import Path

import httpx
import pytest

from mcp_taskruns.errors import ProviderError
from tests.engine.runs.described import OPERATIONS, acme, by_path

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
