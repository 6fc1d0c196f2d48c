"""PostHog's operations on artifacts, where the provider differs from its capability file.

Literals are from PostHog's source (products/tasks/backend: api.py, serializers.py) and S3's POST Object.
"""

import base64
import json
from typing import Any

import httpx
import pytest
from mcp import types

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import POSTHOG_COMPLETED, POSTHOG_FAILED, POSTHOG_RUNNING, Arguments, outside
from tests.providers.driver import (
    POSTHOG_WRITING,
    Caller,
    SentRequest,
    connected,
    run_arguments,
    run_path,
    sent_requests,
    server_requests,
)

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

UPLOAD, DOWNLOAD, PRESIGN, PREPARE, FINALIZE = (
    "posthog-upload-artifacts-task-run",
    "posthog-download-artifact-through-backend",
    "posthog-generate-presigned-url-artifact",
    "posthog-prepare-direct-uploads-task-run",
    "posthog-finalize-direct-uploads-task-run",
)
BINARY = bytes(range(256))
TEXT = "Grüße — 漢字\n"


def file(name: str, content: str | bytes | None = None, **more: Any) -> Arguments:
    """Return the argument for an artifact with text, with bytes in base64 or without content."""
    artifact = {"name": name, "type": "artifact", **more}
    if isinstance(content, bytes):
        return {**artifact, "content": base64.b64encode(content).decode(), "content_encoding": "base64"}
    return artifact if content is None else {**artifact, "content": content}


async def storage_path_of(environment: dict[str, str], run_id: str, name: str) -> str:
    """Return the storage path of an artifact of the run."""
    run = await outside(environment, "GET", run_path(run_id))
    paths: dict[str, str] = {entry["name"]: entry["storage_path"] for entry in run["artifacts"]}
    return paths[name]


async def attach(environment: dict[str, str], *files: Arguments) -> None:
    """Attach artifacts to the completed run, with a request outside the server."""
    await outside(environment, "POST", run_path(POSTHOG_COMPLETED, "artifacts/"), {"artifacts": list(files)})


async def download(caller: Caller, environment: dict[str, str], name: str) -> types.ContentBlock:
    """Download an artifact of the completed run and return the only content block."""
    path = await storage_path_of(environment, POSTHOG_COMPLETED, name)
    result = await caller.call(DOWNLOAD, **run_arguments(POSTHOG_COMPLETED, body={"storage_path": path}))
    assert result.notes == []
    assert result.structured_content is None
    block: types.ContentBlock = result.content
    return block


# upload-artifacts-task-run


async def test_posthog_upload_stores_binary_content_unchanged(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    artifact = file("all.bin", BINARY, content_type="application/x-thing", source="agent_output")
    result = await caller.call(UPLOAD, **run_arguments(POSTHOG_COMPLETED, body={"artifacts": [artifact]}))
    body = {
        "name": "all.bin",
        "type": "artifact",
        "content": base64.b64encode(BINARY).decode(),
        "content_encoding": "base64",
        "content_type": "application/x-thing",
        "source": "agent_output",
    }
    assert sent_requests(simulator) == [
        SentRequest("POST", run_path(POSTHOG_COMPLETED, "artifacts/"), POSTHOG_WRITING, {"artifacts": [body]})
    ]
    # The response is the whole manifest, not only the new artifacts
    assert [entry["name"] for entry in result.value["artifacts"]] == ["report.md", "screenshot.png", "all.bin"]
    block = await download(caller, environment, "all.bin")
    assert isinstance(block, types.EmbeddedResource)
    assert isinstance(block.resource, types.BlobResourceContents)
    assert base64.b64decode(block.resource.blob) == BINARY


async def test_posthog_upload_stores_text_as_utf_8(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    artifact = file("notes.md", TEXT, content_type="text/markdown")
    await caller.call(UPLOAD, **run_arguments(POSTHOG_COMPLETED, body={"artifacts": [artifact]}))
    assert sent_requests(simulator)[0].body == {"artifacts": [artifact]}
    block = await download(caller, environment, "notes.md")
    assert isinstance(block, types.TextContent)
    assert block.text == TEXT


async def test_posthog_upload_with_invalid_base64_is_a_validation_error(caller: Caller) -> None:
    artifact = {**file("a.bin", "no base64!"), "content_encoding": "base64"}
    result = await caller.call(UPLOAD, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [artifact]}))
    assert (result.error["kind"], result.error["status"]) == ("validation", 400)
    assert "artifacts__0__content: Invalid base64 artifact content" in result.error["message"]


@pytest.mark.parametrize(
    ("artifacts", "problem"),
    [
        ([], "body.artifacts: "),
        ([{"name": "a.md", "type": "artifact"}], "body.artifacts[0].content: is required"),
        ([file("a.md", "a", type="")], "body.artifacts[0].type: "),
        (
            [file("a.md", "a", content_encoding="hex")],
            "body.artifacts[0].content_encoding: must be one of utf-8, base64",
        ),
        ([file("x" * 256, "a")], "body.artifacts[0].name: is too long"),
    ],
    ids=["empty-list", "missing-content", "type", "encoding", "name"],
)
async def test_posthog_upload_invalid_artifact_is_rejected_before_sending(
    artifacts: Any, problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(UPLOAD, **run_arguments(POSTHOG_RUNNING, body={"artifacts": artifacts}))
    assert result.error["message"].startswith(problem)
    assert server_requests(simulator) == []


async def test_posthog_upload_with_a_lost_response_is_not_retried(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("posthog", Fault(truncate=True))
    result = await caller.call(
        UPLOAD, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [file("a.md", "a")]}), within=5
    )
    assert result.error["retryable"] is False
    assert len(server_requests(simulator)) == 1


# download-artifact-through-backend


async def test_posthog_download_returns_text_as_text_content(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    block = await download(caller, environment, "report.md")
    assert isinstance(block, types.TextContent)
    assert block.text == "# Report\n\nThe retry loop ran for ever: naïve back-off.\n"
    path = await storage_path_of(environment, POSTHOG_COMPLETED, "report.md")
    # PostHog responds with 406 to Accept: application/octet-stream
    assert sent_requests(simulator) == [
        SentRequest("POST", run_path(POSTHOG_COMPLETED, "artifacts/download/"), POSTHOG_WRITING, {"storage_path": path})
    ]


async def test_posthog_download_returns_an_image_as_image_content(environment: dict[str, str], caller: Caller) -> None:
    block = await download(caller, environment, "screenshot.png")
    assert isinstance(block, types.ImageContent)
    assert block.mime_type == "image/png"
    assert base64.b64decode(block.data).startswith(b"\x89PNG\r\n\x1a\n")


async def test_posthog_download_returns_other_bytes_as_a_blob(environment: dict[str, str], caller: Caller) -> None:
    await attach(environment, file("a.zip", b"PK\x03\x04\x00\xff", content_type="application/zip"))
    block = await download(caller, environment, "a.zip")
    assert isinstance(block, types.EmbeddedResource)
    assert isinstance(block.resource, types.BlobResourceContents)
    assert (block.resource.mime_type, base64.b64decode(block.resource.blob)) == (
        "application/zip",
        b"PK\x03\x04\x00\xff",
    )


async def test_posthog_download_without_a_content_type_detects_text(
    environment: dict[str, str], caller: Caller
) -> None:
    # api.py (download): application/octet-stream for an entry without a type
    await attach(environment, file("notes.txt", TEXT), file("all.bin", BINARY))
    text = await download(caller, environment, "notes.txt")
    assert isinstance(text, types.TextContent)
    assert text.text == TEXT
    blob = await download(caller, environment, "all.bin")
    assert isinstance(blob, types.EmbeddedResource)


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        ("application/json", '{"a": 1, "a": 2}\n'),
        ("application/json", '{"cut off": '),
        ("application/jsonl", '{"a": 1}\n{"a": 2}\n'),
        ("text/plain", '{"a":   1}'),
        ("text/event-stream", "data: x\n\n"),
    ],
    ids=["json", "broken-json", "json-lines", "json-as-text", "events"],
)
async def test_posthog_download_returns_json_and_events_unparsed(
    media_type: str, content: str, environment: dict[str, str], caller: Caller
) -> None:
    await attach(environment, file("a.json", content, content_type=media_type))
    block = await download(caller, environment, "a.json")
    assert isinstance(block, types.TextContent)
    assert block.text == content


async def test_posthog_download_finds_an_artifact_of_the_run_resumed_from(
    environment: dict[str, str], caller: Caller
) -> None:
    state = {"resume_from_run_id": POSTHOG_COMPLETED}
    await outside(environment, "PATCH", run_path(POSTHOG_RUNNING), {"state": state})
    path = await storage_path_of(environment, POSTHOG_COMPLETED, "report.md")
    result = await caller.call(DOWNLOAD, **run_arguments(POSTHOG_RUNNING, body={"storage_path": path}))
    assert result.text.startswith("# Report")


@pytest.mark.parametrize(
    ("run_id", "name", "message", "hint"),
    [
        (POSTHOG_FAILED, "core.log", "Artifact content not found", "artifacts are kept for 30 days"),
        (POSTHOG_COMPLETED, "core.log", "Artifact not found on this run", "artifacts in posthog-retrieve-task-run"),
    ],
    ids=["expired", "another-run"],
)
async def test_posthog_download_of_a_missing_artifact_is_not_found_with_a_hint(
    run_id: str, name: str, message: str, hint: str, environment: dict[str, str], caller: Caller
) -> None:
    path = await storage_path_of(environment, POSTHOG_FAILED, name)
    result = await caller.call(DOWNLOAD, **run_arguments(run_id, body={"storage_path": path}))
    assert (result.error["kind"], result.error["status"]) == ("not_found", 404)
    assert result.error["message"] == f'the provider returned 404: "{message}"'
    assert hint in result.error["hint"]


@pytest.mark.parametrize("tool", [DOWNLOAD, PRESIGN])
async def test_posthog_reading_artifacts_works_with_a_read_only_key(
    tool: str, environment: dict[str, str], caller: Caller
) -> None:
    path = await storage_path_of(environment, POSTHOG_COMPLETED, "report.md")
    async with connected(environment, POSTHOG_API_KEY="phx_readonly") as reader:
        result = await reader.call(tool, **run_arguments(POSTHOG_COMPLETED, body={"storage_path": path}))
    assert not result.is_error
    hints = await caller.annotations(tool)
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (True, False, True)


async def test_posthog_download_retries_503(simulator: Simulator, environment: dict[str, str], caller: Caller) -> None:
    path = await storage_path_of(environment, POSTHOG_COMPLETED, "report.md")
    simulator.fail_next("posthog", Fault(503, body="busy"))
    result = await caller.call(DOWNLOAD, **run_arguments(POSTHOG_COMPLETED, body={"storage_path": path}), within=2)
    assert result.text.startswith("# Report")
    assert len(server_requests(simulator)) == 2


# finalize-direct-uploads-task-run


async def prepare(caller: Caller, *files: Arguments) -> list[dict[str, Any]]:
    """Prepare artifacts for the running run and return the entries of the response."""
    result = await caller.call(PREPARE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": list(files)}))
    entries: list[dict[str, Any]] = result.value["artifacts"]
    return entries


def finalize_entry(entry: dict[str, Any]) -> Arguments:
    """Return the entry for finalize_upload of a prepared artifact."""
    return {name: entry[name] for name in ("id", "name", "type", "storage_path", "content_type")}


async def test_posthog_finalize_attaches_uploaded_artifacts(simulator: Simulator, caller: Caller) -> None:
    entry = finalize_entry((await prepare(caller, file("a.md", TEXT, content_type="text/markdown")))[0])
    result = await caller.call(FINALIZE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    _, _, finalizing = sent_requests(simulator)
    assert finalizing == SentRequest(
        "POST", run_path(POSTHOG_RUNNING, "artifacts/finalize_upload/"), POSTHOG_WRITING, {"artifacts": [entry]}
    )
    (attached,) = result.value["artifacts"]
    assert (attached["storage_path"], attached["size"]) == (entry["storage_path"], len(TEXT.encode()))
    # A second finalize returns the existing entry
    again = await caller.call(FINALIZE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    assert again.value == result.value
    assert (await caller.annotations(FINALIZE))["idempotentHint"]


async def test_posthog_finalize_without_upload_is_a_conflict_with_a_hint(caller: Caller) -> None:
    entry = finalize_entry((await prepare(caller, file("a.md", size=2, content_type="text/markdown")))[0])
    result = await caller.call(FINALIZE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    assert (result.error["kind"], result.error["status"]) == ("conflict", 400)
    assert result.error["message"] == 'the provider returned 400: "Artifact upload not found in object storage"'
    assert "posthog-prepare-direct-uploads-task-run with its content" in result.error["hint"]


async def test_posthog_finalize_with_a_foreign_storage_path_is_a_validation_error(caller: Caller) -> None:
    entry = {"id": "a1" * 16, "name": "a.md", "type": "artifact", "storage_path": "tasks/artifacts/elsewhere/a.md"}
    result = await caller.call(FINALIZE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    assert (result.error["kind"], result.error["status"]) == ("validation", 400)
    assert "as posthog-prepare-direct-uploads-task-run returned them" in result.error["hint"]


async def test_posthog_finalize_without_id_or_path_is_rejected_before_sending(
    simulator: Simulator, caller: Caller
) -> None:
    entry = {"name": "a.md", "type": "artifact"}
    result = await caller.call(FINALIZE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    assert "body.artifacts[0].id: is required" in result.error["message"]
    assert "body.artifacts[0].storage_path: is required" in result.error["message"]
    assert server_requests(simulator) == []


# prepare-direct-uploads-task-run


@pytest.mark.parametrize("content", [TEXT, BINARY], ids=["text", "binary"])
async def test_posthog_prepare_uploads_content_that_can_be_read_back(
    content: str | bytes, simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    artifact = file("a.bin", content, content_type="application/x-thing")
    result = await caller.call(PREPARE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [artifact]}))
    prepared, post = server_requests(simulator)
    assert prepared.path == run_path(POSTHOG_RUNNING, "artifacts/prepare_upload/")
    expected = {"name": "a.bin", "type": "artifact", "content_type": "application/x-thing", "size": len(data)}
    assert json.loads(prepared.body) == {"artifacts": [expected]}
    # S3 ignores fields after the file, and must not receive the PostHog key
    assert (post.method, post.path) == ("POST", "/posthog/storage/")
    assert dict(post.headers)["content-type"].startswith("multipart/form-data; boundary=")
    assert "authorization" not in dict(post.headers)
    assert post.body.rindex(b'name="x-amz-signature"') < post.body.index(b'name="file"')
    assert data in post.body
    (entry,) = result.value["artifacts"]
    assert (entry["size"], entry["uploaded"], "presigned_post" in entry) == (len(data), True, False)
    assert result.notes[0].startswith(
        f"Uploaded: a.bin ({len(data)} bytes). Now attach the uploaded files to the run: call"
    )
    assert FINALIZE in result.notes[0]
    assert "uploaded a.bin" in result.progress
    await caller.call(FINALIZE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [finalize_entry(entry)]}))
    path = {"storage_path": entry["storage_path"]}
    downloaded = await caller.call(DOWNLOAD, **run_arguments(POSTHOG_RUNNING, body=path))
    assert isinstance(downloaded.content, types.EmbeddedResource)
    assert isinstance(downloaded.content.resource, types.BlobResourceContents)
    assert base64.b64decode(downloaded.content.resource.blob) == data


async def test_posthog_prepare_with_a_size_returns_the_form(simulator: Simulator, caller: Caller) -> None:
    (entry,) = await prepare(caller, file("a.bin", size=31_457_280))
    assert entry["expires_in"] == 3600
    form = entry["presigned_post"]
    assert form["url"].endswith("/posthog/storage/")
    assert form["fields"]["key"] == entry["storage_path"]
    assert len(server_requests(simulator)) == 1


@pytest.mark.parametrize(
    ("artifact", "problem"),
    [
        (file("a.bin"), "body.artifacts[0]: needs size or content"),
        (file("a.bin", size=31_457_281), "body.artifacts[0].size: 31457281 is greater than the maximum of 31457280"),
        (file("a.bin", size=0), "body.artifacts[0].size: 0 is less than the minimum of 1"),
        ({**file("a.bin", "no base64!"), "content_encoding": "base64"}, "the content of `a.bin` is not valid base64"),
        (file("a.bin", ""), "body.artifacts[0].size: 0 is less than the minimum of 1"),
    ],
    ids=["no-size-or-content", "too-large", "size-zero", "invalid-base64", "empty-content"],
)
async def test_posthog_prepare_invalid_artifact_is_rejected_before_sending(
    artifact: Arguments, problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(PREPARE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [artifact]}))
    assert (result.error["kind"], result.error["message"]) == ("validation", problem)
    assert server_requests(simulator) == []


async def test_posthog_prepare_returns_the_error_of_the_storage(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("posthog", Fault())
    body = "<Error><Code>AccessDenied</Code><Message>Policy expired</Message></Error>"
    simulator.fail_next("posthog", Fault(403, {"Content-Type": "application/xml"}, body))
    result = await caller.call(PREPARE, **run_arguments(POSTHOG_RUNNING, body={"artifacts": [file("a.md", "a")]}))
    assert result.error["status"] == 403
    assert result.error["message"].startswith("a.md was not uploaded: ")
    assert "Policy expired" not in str(result.error)  # the storage's response is not passed on
    assert "call again with all of them" in result.error["hint"]


# generate-presigned-url-artifact


async def test_posthog_presigned_url_returns_the_artifact(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    path = await storage_path_of(environment, POSTHOG_COMPLETED, "report.md")
    result = await caller.call(PRESIGN, **run_arguments(POSTHOG_COMPLETED, body={"storage_path": path}))
    assert sent_requests(simulator) == [
        SentRequest("POST", run_path(POSTHOG_COMPLETED, "artifacts/presign/"), POSTHOG_WRITING, {"storage_path": path})
    ]
    assert result.value["expires_in"] == 3600
    async with httpx.AsyncClient() as client:
        assert (await client.get(result.value["url"])).text.startswith("# Report")


async def test_posthog_presign_of_a_missing_artifact_is_not_found(caller: Caller) -> None:
    result = await caller.call(PRESIGN, **run_arguments(POSTHOG_COMPLETED, body={"storage_path": "x"}))
    assert (result.error["kind"], result.error["status"]) == ("not_found", 404)
    assert "artifacts in posthog-retrieve-task-run" in result.error["hint"]


@pytest.mark.parametrize("tool", [DOWNLOAD, PRESIGN])
@pytest.mark.parametrize(
    "body", [{}, {"storage_path": ""}, {"storage_path": "x" * 501}], ids=["missing", "empty", "too-long"]
)
async def test_posthog_invalid_storage_path_is_rejected_before_sending(
    body: Arguments, tool: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(tool, **run_arguments(POSTHOG_COMPLETED, body=body))
    assert result.error["message"].startswith("body.storage_path: ")
    assert server_requests(simulator) == []
