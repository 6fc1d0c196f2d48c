"""PostHog's operations on files: where the capability file and the provider differ, the client gets what there is.

Literals are from PostHog's source (products/tasks/backend: api.py, serializers.py); the form is S3's (POST Object).
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
    Sent,
    connected,
    on,
    path_on,
    requests,
    wire,
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
    """A file as it is passed: text, or bytes in base64."""
    given = {"name": name, "type": "artifact", **more}
    if isinstance(content, bytes):
        return {**given, "content": base64.b64encode(content).decode(), "content_encoding": "base64"}
    return given if content is None else {**given, "content": content}


async def path_of(environment: dict[str, str], run_id: str, name: str) -> str:
    """Where the run's file is stored."""
    run = await outside(environment, "GET", path_on(run_id))
    paths: dict[str, str] = {entry["name"]: entry["storage_path"] for entry in run["artifacts"]}
    return paths[name]


async def put(environment: dict[str, str], *files: Arguments) -> None:
    """Somebody else attaches files to the completed run."""
    await outside(environment, "POST", path_on(POSTHOG_COMPLETED, "artifacts/"), {"artifacts": list(files)})


async def downloaded(caller: Caller, environment: dict[str, str], name: str) -> types.ContentBlock:
    """The block in which a file of the completed run is told, which is the only one."""
    path = await path_of(environment, POSTHOG_COMPLETED, name)
    told = await caller.call(DOWNLOAD, **on(POSTHOG_COMPLETED, body={"storage_path": path}))
    assert told.notes == []
    assert told.result.structured_content is None
    block: types.ContentBlock = told.content
    return block


# P6 upload-artifacts-task-run: "binary corrupted if not base64"


async def test_p6_a_binary_file_is_stored_byte_by_byte(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    given = file("all.bin", BINARY, content_type="application/x-thing", source="agent_output")
    told = await caller.call(UPLOAD, **on(POSTHOG_COMPLETED, body={"artifacts": [given]}))
    said = {
        "name": "all.bin",
        "type": "artifact",
        "content": base64.b64encode(BINARY).decode(),
        "content_encoding": "base64",
        "content_type": "application/x-thing",
        "source": "agent_output",
    }
    assert wire(simulator) == [
        Sent("POST", path_on(POSTHOG_COMPLETED, "artifacts/"), POSTHOG_WRITING, {"artifacts": [said]})
    ]
    # The whole manifest is answered, and not what was uploaded now
    assert [entry["name"] for entry in told.value["artifacts"]] == ["report.md", "screenshot.png", "all.bin"]
    block = await downloaded(caller, environment, "all.bin")
    assert isinstance(block, types.EmbeddedResource)
    assert isinstance(block.resource, types.BlobResourceContents)
    assert base64.b64decode(block.resource.blob) == BINARY


async def test_p6_text_is_stored_as_utf_8(simulator: Simulator, environment: dict[str, str], caller: Caller) -> None:
    given = file("notes.md", TEXT, content_type="text/markdown")
    await caller.call(UPLOAD, **on(POSTHOG_COMPLETED, body={"artifacts": [given]}))
    assert wire(simulator)[0].body == {"artifacts": [given]}
    block = await downloaded(caller, environment, "notes.md")
    assert isinstance(block, types.TextContent)
    assert block.text == TEXT


async def test_p6_content_that_is_not_the_base64_it_is_said_to_be_is_told(caller: Caller) -> None:
    given = {**file("a.bin", "no base64!"), "content_encoding": "base64"}
    told = await caller.call(UPLOAD, **on(POSTHOG_RUNNING, body={"artifacts": [given]}))
    assert (told.error["kind"], told.error["status"]) == ("validation", 400)
    assert "artifacts__0__content: Invalid base64 artifact content" in told.error["message"]


@pytest.mark.parametrize(
    ("artifacts", "problem"),
    [
        ([], "body.artifacts: "),
        ([{"name": "a.md", "type": "artifact"}], "body.artifacts[0].content: is required"),
        ([file("a.md", "a", type="file")], "body.artifacts[0].type: must be one of plan, context, reference, output"),
        (
            [file("a.md", "a", content_encoding="hex")],
            "body.artifacts[0].content_encoding: must be one of utf-8, base64",
        ),
        ([file("x" * 256, "a")], "body.artifacts[0].name: is too long"),
    ],
    ids=["no file", "no content", "type", "encoding", "name"],
)
async def test_p6_a_file_that_posthog_would_refuse_is_not_sent(
    artifacts: Any, problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(UPLOAD, **on(POSTHOG_RUNNING, body={"artifacts": artifacts}))
    assert told.error["message"].startswith(problem)
    assert requests(simulator) == []


async def test_p6_a_file_is_not_stored_twice_for_an_answer_that_is_lost(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("posthog", Fault(truncate=True))
    told = await caller.call(UPLOAD, **on(POSTHOG_RUNNING, body={"artifacts": [file("a.md", "a")]}), within=5)
    assert told.error["retryable"] is False
    assert len(requests(simulator)) == 1


# P7 download-artifact-through-backend: "JSON parse failure; text-decoding corrupts binary; marked non-read-only"


async def test_p7_text_is_told_as_text(simulator: Simulator, environment: dict[str, str], caller: Caller) -> None:
    block = await downloaded(caller, environment, "report.md")
    assert isinstance(block, types.TextContent)
    assert block.text == "# Report\n\nThe retry loop ran for ever: naïve back-off.\n"
    path = await path_of(environment, POSTHOG_COMPLETED, "report.md")
    # Accept: application/octet-stream is 406
    assert wire(simulator) == [
        Sent("POST", path_on(POSTHOG_COMPLETED, "artifacts/download/"), POSTHOG_WRITING, {"storage_path": path})
    ]


async def test_p7_an_image_is_told_as_an_image(environment: dict[str, str], caller: Caller) -> None:
    block = await downloaded(caller, environment, "screenshot.png")
    assert isinstance(block, types.ImageContent)
    assert block.mime_type == "image/png"
    assert base64.b64decode(block.data).startswith(b"\x89PNG\r\n\x1a\n")


async def test_p7_other_bytes_are_told_as_a_blob(environment: dict[str, str], caller: Caller) -> None:
    await put(environment, file("a.zip", b"PK\x03\x04\x00\xff", content_type="application/zip"))
    block = await downloaded(caller, environment, "a.zip")
    assert isinstance(block, types.EmbeddedResource)
    assert isinstance(block.resource, types.BlobResourceContents)
    assert (block.resource.mime_type, base64.b64decode(block.resource.blob)) == (
        "application/zip",
        b"PK\x03\x04\x00\xff",
    )


async def test_p7_a_file_of_which_nobody_said_what_it_is_is_text_where_it_looks_so(
    environment: dict[str, str], caller: Caller
) -> None:
    # api.py (download): application/octet-stream where the entry has no type
    await put(environment, file("notes.txt", TEXT), file("all.bin", BINARY))
    text = await downloaded(caller, environment, "notes.txt")
    assert isinstance(text, types.TextContent)
    assert text.text == TEXT
    blob = await downloaded(caller, environment, "all.bin")
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
    ids=["json", "broken json", "json lines", "json as text", "events"],
)
async def test_p7_a_file_is_told_as_it_is_and_not_as_an_answer_would_be_read(
    media_type: str, content: str, environment: dict[str, str], caller: Caller
) -> None:
    await put(environment, file("a.json", content, content_type=media_type))
    block = await downloaded(caller, environment, "a.json")
    assert isinstance(block, types.TextContent)
    assert block.text == content


async def test_p7_a_file_of_a_run_that_was_resumed_is_found(environment: dict[str, str], caller: Caller) -> None:
    state = {"resume_from_run_id": POSTHOG_COMPLETED}
    await outside(environment, "PATCH", path_on(POSTHOG_RUNNING), {"state": state})
    path = await path_of(environment, POSTHOG_COMPLETED, "report.md")
    told = await caller.call(DOWNLOAD, **on(POSTHOG_RUNNING, body={"storage_path": path}))
    assert told.text.startswith("# Report")


@pytest.mark.parametrize(
    ("run_id", "name", "says", "hint"),
    [
        (POSTHOG_FAILED, "core.log", "Artifact content not found", "artifacts are kept for 30 days"),
        (POSTHOG_COMPLETED, "core.log", "Artifact not found on this run", "artifacts in posthog-retrieve-task-run"),
    ],
    ids=["gone", "of another run"],
)
async def test_p7_a_file_that_is_not_there_is_told_with_the_reason(
    run_id: str, name: str, says: str, hint: str, environment: dict[str, str], caller: Caller
) -> None:
    path = await path_of(environment, POSTHOG_FAILED, name)
    told = await caller.call(DOWNLOAD, **on(run_id, body={"storage_path": path}))
    assert (told.error["kind"], told.error["status"]) == ("not_found", 404)
    assert told.error["message"] == f"the provider answered 404: {says}"
    assert hint in told.error["hint"]


@pytest.mark.parametrize("tool", [DOWNLOAD, PRESIGN])
async def test_p7_reading_a_file_needs_no_key_that_can_write_and_is_listed_so(
    tool: str, environment: dict[str, str], caller: Caller
) -> None:
    path = await path_of(environment, POSTHOG_COMPLETED, "report.md")
    async with connected(environment, POSTHOG_API_KEY="phx_readonly") as reader:
        told = await reader.call(tool, **on(POSTHOG_COMPLETED, body={"storage_path": path}))
    assert not told.result.is_error
    hints = await caller.annotations(tool)
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (True, False, True)


async def test_p7_a_download_that_fails_in_passing_is_tried_again(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    path = await path_of(environment, POSTHOG_COMPLETED, "report.md")
    simulator.fail_next("posthog", Fault(503, body="busy"))
    told = await caller.call(DOWNLOAD, **on(POSTHOG_COMPLETED, body={"storage_path": path}), within=2)
    assert told.text.startswith("# Report")
    assert len(requests(simulator)) == 2


# P8 finalize-direct-uploads-task-run: "400 if upload step skipped"


async def prepared(caller: Caller, *files: Arguments) -> list[dict[str, Any]]:
    """What preparing these files for the running run returns."""
    told = await caller.call(PREPARE, **on(POSTHOG_RUNNING, body={"artifacts": list(files)}))
    entries: list[dict[str, Any]] = told.value["artifacts"]
    return entries


def named(entry: dict[str, Any]) -> Arguments:
    """A prepared file as finalizing takes it."""
    return {name: entry[name] for name in ("id", "name", "type", "storage_path", "content_type")}


async def test_p8_files_that_were_uploaded_are_attached(simulator: Simulator, caller: Caller) -> None:
    entry = named((await prepared(caller, file("a.md", TEXT, content_type="text/markdown")))[0])
    told = await caller.call(FINALIZE, **on(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    _, _, finalizing = wire(simulator)
    assert finalizing == Sent(
        "POST", path_on(POSTHOG_RUNNING, "artifacts/finalize_upload/"), POSTHOG_WRITING, {"artifacts": [entry]}
    )
    (attached,) = told.value["artifacts"]
    assert (attached["storage_path"], attached["size"]) == (entry["storage_path"], len(TEXT.encode()))
    # What is attached already is echoed
    again = await caller.call(FINALIZE, **on(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    assert again.value == told.value
    assert (await caller.annotations(FINALIZE))["idempotentHint"]


async def test_p8_a_file_that_was_not_uploaded_is_told_with_the_way_to_upload_it(caller: Caller) -> None:
    entry = named((await prepared(caller, file("a.md", size=2, content_type="text/markdown")))[0])
    told = await caller.call(FINALIZE, **on(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    assert (told.error["kind"], told.error["status"]) == ("conflict", 400)
    assert told.error["message"] == "the provider answered 400: Artifact upload not found in object storage"
    assert "posthog-prepare-direct-uploads-task-run with its content" in told.error["hint"]


async def test_p8_a_place_that_is_not_the_runs_is_told(caller: Caller) -> None:
    entry = {"id": "a1" * 16, "name": "a.md", "type": "artifact", "storage_path": "tasks/artifacts/elsewhere/a.md"}
    told = await caller.call(FINALIZE, **on(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    assert (told.error["kind"], told.error["status"]) == ("validation", 400)
    assert "as posthog-prepare-direct-uploads-task-run returned them" in told.error["hint"]


async def test_p8_without_id_or_place_nothing_is_sent(simulator: Simulator, caller: Caller) -> None:
    entry = {"name": "a.md", "type": "artifact"}
    told = await caller.call(FINALIZE, **on(POSTHOG_RUNNING, body={"artifacts": [entry]}))
    assert "body.artifacts[0].id: is required" in told.error["message"]
    assert "body.artifacts[0].storage_path: is required" in told.error["message"]
    assert requests(simulator) == []


# P9 prepare-direct-uploads-task-run: "half a feature: nothing performs the S3 POST"


@pytest.mark.parametrize("content", [TEXT, BINARY], ids=["text", "binary"])
async def test_p9_a_file_is_uploaded_attached_and_read_back(
    content: str | bytes, simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    given = file("a.bin", content, content_type="application/x-thing")
    told = await caller.call(PREPARE, **on(POSTHOG_RUNNING, body={"artifacts": [given]}))
    asked, post = requests(simulator)
    assert asked.path == path_on(POSTHOG_RUNNING, "artifacts/prepare_upload/")
    about = {"name": "a.bin", "type": "artifact", "content_type": "application/x-thing", "size": len(data)}
    assert json.loads(asked.body) == {"artifacts": [about]}
    # S3 ignores the fields after the file, and our key is not for it
    assert (post.method, post.path) == ("POST", "/posthog/storage/")
    assert dict(post.headers)["content-type"].startswith("multipart/form-data; boundary=")
    assert "authorization" not in dict(post.headers)
    assert post.body.rindex(b'name="x-amz-signature"') < post.body.index(b'name="file"')
    assert data in post.body
    (entry,) = told.value["artifacts"]
    assert (entry["size"], entry["uploaded"], "presigned_post" in entry) == (len(data), True, False)
    assert told.notes[0].startswith(
        f"Uploaded: a.bin ({len(data)} bytes). Now attach to the run what was uploaded: call"
    )
    assert FINALIZE in told.notes[0]
    assert "uploaded a.bin" in told.progress
    await caller.call(FINALIZE, **on(POSTHOG_RUNNING, body={"artifacts": [named(entry)]}))
    path = {"storage_path": entry["storage_path"]}
    read = await caller.call(DOWNLOAD, **on(POSTHOG_RUNNING, body=path))
    assert isinstance(read.content, types.EmbeddedResource)
    assert isinstance(read.content.resource, types.BlobResourceContents)
    assert base64.b64decode(read.content.resource.blob) == data


async def test_p9_of_a_file_given_by_its_size_the_form_is_told(simulator: Simulator, caller: Caller) -> None:
    (entry,) = await prepared(caller, file("a.bin", size=31_457_280))
    assert entry["expires_in"] == 3600
    form = entry["presigned_post"]
    assert form["url"].endswith("/posthog/storage/")
    assert form["fields"]["key"] == entry["storage_path"]
    assert len(requests(simulator)) == 1


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (file("a.bin"), "body.artifacts[0]: needs size or content"),
        (file("a.bin", size=31_457_281), "body.artifacts[0].size: 31457281 is greater than the maximum of 31457280"),
        (file("a.bin", size=0), "body.artifacts[0].size: 0 is less than the minimum of 1"),
        ({**file("a.bin", "no base64!"), "content_encoding": "base64"}, "the content of a.bin: is not base64"),
        (file("a.bin", ""), "body.artifacts[0].size: 0 is less than the minimum of 1"),
    ],
    ids=["neither", "too large", "nothing", "no base64", "empty"],
)
async def test_p9_a_file_that_cannot_be_uploaded_is_not_prepared(
    given: Arguments, problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(PREPARE, **on(POSTHOG_RUNNING, body={"artifacts": [given]}))
    assert (told.error["kind"], told.error["message"]) == ("validation", problem)
    assert requests(simulator) == []


async def test_p9_a_storage_that_refuses_the_file_is_told_in_its_words(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("posthog", Fault())
    said = "<Error><Code>AccessDenied</Code><Message>Policy expired</Message></Error>"
    simulator.fail_next("posthog", Fault(403, {"Content-Type": "application/xml"}, said))
    told = await caller.call(PREPARE, **on(POSTHOG_RUNNING, body={"artifacts": [file("a.md", "a")]}))
    assert told.error["status"] == 403
    assert told.error["message"].startswith("a.md was not uploaded: ")
    assert "Policy expired" in told.error["message"]
    assert "call again with all of them" in told.error["hint"]


# P10 generate-presigned-url-artifact: "works; read-only in fact"


async def test_p10_the_link_that_is_told_leads_to_the_file(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    path = await path_of(environment, POSTHOG_COMPLETED, "report.md")
    told = await caller.call(PRESIGN, **on(POSTHOG_COMPLETED, body={"storage_path": path}))
    assert wire(simulator) == [
        Sent("POST", path_on(POSTHOG_COMPLETED, "artifacts/presign/"), POSTHOG_WRITING, {"storage_path": path})
    ]
    assert told.value["expires_in"] == 3600
    async with httpx.AsyncClient() as client:
        assert (await client.get(told.value["url"])).text.startswith("# Report")


async def test_p10_a_file_that_the_run_does_not_have_has_no_link(caller: Caller) -> None:
    told = await caller.call(PRESIGN, **on(POSTHOG_COMPLETED, body={"storage_path": "x"}))
    assert (told.error["kind"], told.error["status"]) == ("not_found", 404)
    assert "artifacts in posthog-retrieve-task-run" in told.error["hint"]


@pytest.mark.parametrize("tool", [DOWNLOAD, PRESIGN])
@pytest.mark.parametrize("body", [{}, {"storage_path": ""}, {"storage_path": "x" * 501}], ids=["none", "empty", "long"])
async def test_p10_without_a_place_nothing_is_sent(
    body: Arguments, tool: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(tool, **on(POSTHOG_COMPLETED, body=body))
    assert told.error["message"].startswith("body.storage_path: ")
    assert requests(simulator) == []
