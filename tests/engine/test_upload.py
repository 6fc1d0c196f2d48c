"""Uploads: files of a call are sent to the provider's storage and attached to a run."""

import base64
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.errors import CallError, InvalidArguments, UpstreamError
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.traffic import RecordedRequest
from tests.calls import (
    ALL_TRIES_S,
    NO_FAULT,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    TASK,
    TRIES,
    calling,
    json_response,
    opened,
    sent,
)
from tests.clients import open_gateway
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

RUN = {"task_id": TASK, "id": POSTHOG_RUNNING}
PREPARE, FINALIZE, DOWNLOAD = (
    "posthog-prepare-direct-uploads-task-run",
    "posthog-finalize-direct-uploads-task-run",
    "posthog-download-artifact-through-backend",
)
PREPARED = f"POST {POSTHOG_RUNS}/{POSTHOG_RUNNING}/artifacts/prepare_upload/"
STORED = "POST /posthog/storage/"
MAX_SIZE = 31_457_280
"""PostHog products/tasks/backend/serializers.py: TaskRunArtifactsPrepareUploadRequestSerializer"""

TEXT = "# Bericht\n\nnaïve — 漢字\n"
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")


@pytest.fixture
async def gateway(environment: dict[str, str]) -> AsyncIterator[Gateway]:
    gateway = open_gateway(environment)
    yield gateway
    await gateway.aclose()


def artifact(name: str, **more: Any) -> dict[str, Any]:
    """Return a file as an argument of the tool that prepares uploads."""
    return {"name": name, "type": "output", **more}


def arguments_with(*files: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call with these files."""
    return RUN | {"body": {"artifacts": list(files)}}


async def call(gateway: Gateway, tool: str, arguments: dict[str, Any]) -> CallResult:
    """Make a call and return its result; raise its error."""
    async with calling(gateway, tool, arguments) as running_call:
        await running_call.finish(5)
    if running_call.error is not None:
        raise running_call.error
    return running_call.outcome


def uploads(simulator: Simulator) -> list[RecordedRequest]:
    """Return the requests that reached the storage."""
    return [request for request in simulator.requests if request.path.startswith("/posthog/storage/")]


def parts_of(request: RecordedRequest) -> dict[str, tuple[bytes, bytes]]:
    """Return the headers and the content of each part of a form by its name, in their order. RFC 7578"""
    boundary = dict(request.headers)["content-type"].removeprefix("multipart/form-data; boundary=")
    first, *parts, end = request.body.split(f"--{boundary}".encode())
    assert (first, end) == (b"", b"--\r\n")
    by_name: dict[str, tuple[bytes, bytes]] = {}
    for part in parts:
        headers, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'; name="([^"]*)"', headers)
        assert name is not None
        by_name[name.group(1).decode()] = headers, content.removesuffix(b"\r\n")
    return by_name


def stored_files(simulator: Simulator) -> dict[str, bytes]:
    """Return the files that were sent to the storage by their keys."""
    forms = map(parts_of, uploads(simulator))
    return {form["key"][1].decode(): form["file"][1] for form in forms}


async def test_upload_request_is_the_prepared_form_with_the_file_last_and_without_credential(
    simulator: Simulator, gateway: Gateway
) -> None:
    await call(gateway, PREPARE, arguments_with(artifact("a b.md", content="hello", content_type="text/markdown")))
    (request,) = uploads(simulator)
    headers = dict(request.headers)
    assert request.method == "POST"
    assert set(headers) <= {"host", "user-agent", "accept", "accept-encoding", "content-type", "content-length"}
    assert int(headers["content-length"]) == len(request.body)
    # Fields first, the file last: S3 ignores what follows the file. Amazon S3 API reference: POST Object
    parts = parts_of(request)
    assert list(parts) == ["key", "x-amz-algorithm", "policy", "x-amz-signature", "file"]
    head, content = parts["file"]
    assert b'filename="a b.md"' in head
    assert b"Content-Type: text/markdown" in head
    assert content == b"hello"


async def test_credential_of_the_provider_is_not_sent_to_the_storage(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    key = environment["POSTHOG_API_KEY"] = "phx_planted_5d20c7"
    async with opened(environment) as gateway:
        await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert dict(simulator.requests[0].headers)["authorization"] == f"Bearer {key}"
    (request,) = uploads(simulator)
    assert key not in str(request.headers) + request.path
    assert key.encode() not in request.body


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param(artifact("report.md", content=TEXT, content_type="text/markdown"), TEXT.encode(), id="text"),
        pytest.param(
            artifact(
                "shot.png",
                content=base64.b64encode(PNG).decode(),
                content_encoding="base64",
                content_type="image/png",
            ),
            PNG,
            id="image",
        ),
        pytest.param(
            artifact(
                "all.bin",
                content=base64.encodebytes(bytes(range(256)) * 20).decode(),
                content_encoding="base64",
                content_type="application/x-thing",
            ),
            bytes(range(256)) * 20,
            id="any bytes",
        ),
        pytest.param(
            # Content that looks like the end of a part does not end it.
            artifact(
                "form.txt", content="\r\n--boundary--\r\n\r\nContent-Disposition: form-data", content_type="text/plain"
            ),
            b"\r\n--boundary--\r\n\r\nContent-Disposition: form-data",
            id="form boundary",
        ),
    ],
)
async def test_uploaded_file_is_downloaded_unchanged(
    file: dict[str, Any], content: bytes, simulator: Simulator, gateway: Gateway
) -> None:
    uploaded = await call(gateway, PREPARE, arguments_with(file))
    (entry,) = uploaded.value["artifacts"]
    assert entry["size"] == len(content)
    finalized = {name: entry[name] for name in ("id", "name", "type", "storage_path")}
    attached = await call(gateway, FINALIZE, arguments_with(finalized | {"content_type": file["content_type"]}))
    assert attached.value["artifacts"][0]["size"] == len(content)
    downloaded = await call(gateway, DOWNLOAD, RUN | {"body": {"storage_path": entry["storage_path"]}})
    assert downloaded.media_type == file["content_type"]
    assert (downloaded.text.encode() if downloaded.data is None else downloaded.data) == content
    assert (downloaded.data is None) is file["content_type"].startswith("text/")
    assert len(uploads(simulator)) == 1


async def test_provider_receives_the_size_and_not_the_content(simulator: Simulator, gateway: Gateway) -> None:
    await call(
        gateway, PREPARE, arguments_with(artifact("a.md", content="é" * 3, content_encoding="utf-8", source="me"))
    )
    assert simulator.requests[0].body == (b'{"artifacts":[{"name":"a.md","type":"output","source":"me","size":6}]}')


async def test_result_names_the_uploaded_files_and_the_next_tool_and_hides_the_form(gateway: Gateway) -> None:
    outcome = await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    (entry,) = outcome.value["artifacts"]
    assert entry["uploaded"] is True
    assert "presigned_post" not in entry
    assert "signature" not in outcome.text
    assert outcome.notes == (
        "Uploaded: a.md (5 bytes). Now attach the uploaded files to the run: call "
        "posthog-finalize-direct-uploads-task-run with id, name, type and storage_path of each.",
    )


async def test_files_without_content_are_not_uploaded_and_keep_their_forms(
    simulator: Simulator, gateway: Gateway
) -> None:
    outcome = await call(gateway, PREPARE, arguments_with(artifact("a.md", size=5), artifact("b.md", size=6)))
    assert sent(simulator) == [PREPARED]
    assert outcome.notes == ()
    for entry in outcome.value["artifacts"]:
        assert set(entry["presigned_post"]) == {"url", "fields"}
        assert "uploaded" not in entry


async def test_each_file_with_content_is_uploaded_with_its_own_form(simulator: Simulator, gateway: Gateway) -> None:
    files = [artifact("a.md", content="aaa"), artifact("b.md", size=6), artifact("c.md", content="ccc")]
    outcome = await call(gateway, PREPARE, arguments_with(*files))
    assert sent(simulator) == [PREPARED, STORED, STORED]
    entries = {entry["name"]: entry for entry in outcome.value["artifacts"]}
    assert {name: "presigned_post" in entry for name, entry in entries.items()} == {
        "a.md": False,
        "b.md": True,
        "c.md": False,
    }
    assert outcome.notes[0].startswith("Uploaded: a.md (3 bytes), c.md (3 bytes). ")
    assert stored_files(simulator) == {
        entries["a.md"]["storage_path"]: b"aaa",
        entries["c.md"]["storage_path"]: b"ccc",
    }


async def test_progress_reports_each_uploaded_file(gateway: Gateway) -> None:
    files = [artifact("a.md", content="a"), artifact("b.md", size=6), artifact("c.md", content="c")]
    async with calling(gateway, PREPARE, arguments_with(*files)) as uploading:
        await uploading.finish(5)
    assert uploading.progress == [
        Progress(1, 4, "prepared"),
        Progress(2, 4, "uploaded a.md"),
        Progress(4, 4, "uploaded c.md"),
    ]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            artifact("shot.png", content="not base64!", content_encoding="base64"),
            "the content of `shot.png` is not valid base64",
        ),
        (
            artifact("big.txt", content="x" * (MAX_SIZE + 1)),
            "body.artifacts[1].size: 31457281 is greater than the maximum of 31457280",
        ),
        (artifact("empty.md", content=""), "body.artifacts[1].size: 0 is less than the minimum of 1"),
        (artifact("a.md", content=5), "body.artifacts[1].content: must be of type string"),
        (artifact("a.md", content="a", content_encoding="hex"), "must be one of utf-8, base64"),
        (artifact("a.md"), "body.artifacts[1]: needs size or content"),
    ],
    ids=["invalid base64", "too large", "empty", "not a string", "unknown encoding", "neither size nor content"],
)
async def test_invalid_file_is_rejected_before_a_request_is_sent(
    file: dict[str, Any], message: str, simulator: Simulator, gateway: Gateway
) -> None:
    with pytest.raises(InvalidArguments) as exc_info:
        await call(gateway, PREPARE, arguments_with(artifact("first.md", content="a"), file))
    assert message in exc_info.value.message
    assert "Nothing was sent." in exc_info.value.hint
    assert simulator.requests == []


def storage_error(status: int, code: str, message: str) -> Fault:
    """Return an error of the storage. Amazon S3 API reference: Error responses"""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>"
    )
    return Fault(status, {"Content-Type": "application/xml"}, body)


@pytest.mark.parametrize(
    "fault",
    [
        storage_error(400, "EntityTooLarge", "secret-1"),
        storage_error(403, "AccessDenied", "secret-1"),
        Fault(404, {"Content-Type": "text/html"}, "<html><title>secret-1</title></html>"),
        json_response({"message": "secret-1", "Code": "secret-1"}, 422),
        Fault(503, {"Content-Type": "text/plain"}, "secret-1"),
    ],
)
async def test_error_of_the_storage_has_its_status_and_not_its_content(
    fault: Fault, simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", fault)
    with pytest.raises(CallError) as exc_info:
        await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert exc_info.value.message == f"a.md was not uploaded: the provider returned {fault.status}"
    assert exc_info.value.status == fault.status
    assert exc_info.value.hint.endswith("The run has none of the files: call again with all of them.")
    assert "secret-1" not in exc_info.value.to_line()
    assert sent(simulator) == [PREPARED, STORED]


async def test_content_that_the_storage_returns_is_not_part_of_the_result(
    simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", json_response({"credentials": "secret-1"}))
    outcome = await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert "secret-1" not in str(outcome)


async def test_page_that_the_storage_returns_is_not_an_upload(simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", Fault(200, {"Content-Type": "text/html"}, "<!DOCTYPE html><title>secret-1</title>"))
    with pytest.raises(CallError) as exc_info:
        await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert exc_info.value.message == "a.md was not uploaded: the provider returned 200: an HTML page instead of JSON"
    assert exc_info.value.hint.endswith("The run has none of the files: call again with all of them.")
    assert "secret-1" not in exc_info.value.to_line()


@pytest.mark.parametrize(
    "fault",
    [
        storage_error(403, "AccessDenied", "Invalid according to Policy: Policy expired."),
        storage_error(307, "TemporaryRedirect", "Please re-send this request to the specified temporary endpoint."),
    ],
    ids=["403", "307"],
)
async def test_hint_for_a_storage_error_does_not_mention_the_environment(
    fault: Fault, simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", fault)
    with pytest.raises(CallError) as exc_info:
        await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert "environment" not in exc_info.value.hint
    assert sent(simulator) == [PREPARED, STORED]


@pytest.mark.parametrize(
    "fault",
    [
        # success_action_status: Amazon S3 API reference, POST Object
        Fault(204),
        Fault(200),
        Fault(201, {"Content-Type": "application/xml"}, "<PostResponse><Key>tasks/a</Key></PostResponse>"),
    ],
    ids=["204", "200", "201"],
)
async def test_each_success_status_of_the_storage_is_accepted(
    fault: Fault, simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", fault)
    outcome = await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert outcome.value["artifacts"][0]["uploaded"] is True


async def test_form_that_the_storage_rejects_is_an_error(simulator: Simulator, gateway: Gateway) -> None:
    origin = gateway.client.settings.environment["POSTHOG_BASE_URL"]
    form = {"url": f"{origin}/storage/", "fields": {"key": "other", "policy": "p", "x-amz-signature": "s"}}
    simulator.fail_next("posthog", json_response({"artifacts": [{"id": "a" * 32, "presigned_post": form}]}))
    with pytest.raises(CallError) as exc_info:
        await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert exc_info.value.message == "a.md was not uploaded: the provider returned 403"


async def test_failed_upload_stops_the_remaining_uploads(simulator: Simulator, gateway: Gateway) -> None:
    for fault in (NO_FAULT, NO_FAULT, storage_error(400, "EntityTooLarge", "too large")):
        simulator.fail_next("posthog", fault)
    files = [artifact(f"{name}.md", content=name) for name in "abc"]
    with pytest.raises(CallError) as exc_info:
        await call(gateway, PREPARE, arguments_with(*files))
    assert exc_info.value.message == "b.md was not uploaded: the provider returned 400"
    assert sent(simulator) == [PREPARED, STORED, STORED]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_form_is_sent_once_to_a_busy_storage(status: int, simulator: Simulator, gateway: Gateway) -> None:
    for fault in (NO_FAULT, *[storage_error(status, "SlowDown", "Please reduce your request rate.")] * 9):
        simulator.fail_next("posthog", fault)
    async with calling(gateway, PREPARE, arguments_with(artifact("a.md", content="hello"))) as uploading:
        await uploading.finish(ALL_TRIES_S)
    assert uploading.failure.message == f"a.md was not uploaded: the provider returned {status}"
    assert uploading.failure.retryable
    assert sent(simulator) == [PREPARED, STORED]


async def test_form_is_sent_once_when_the_connection_is_lost(simulator: Simulator, gateway: Gateway) -> None:
    for fault in (NO_FAULT, *[Fault(200, body="x" * 1_000, truncate=True)] * 9):
        simulator.fail_next("posthog", fault)
    async with calling(gateway, PREPARE, arguments_with(artifact("a.md", content="hello"))) as uploading:
        await uploading.finish(ALL_TRIES_S)
    assert uploading.error is not None
    assert sent(simulator) == [PREPARED, STORED]


@pytest.mark.parametrize("status", [503, 429])
async def test_rejected_preparation_uploads_no_file(status: int, simulator: Simulator, gateway: Gateway) -> None:
    for _ in range(TRIES):
        simulator.fail_next("posthog", Fault(status, {"Content-Type": "application/json"}, '{"detail": "busy"}'))
    async with calling(gateway, PREPARE, arguments_with(artifact("a.md", content="hello"))) as uploading:
        await uploading.finish(ALL_TRIES_S)
    assert uploading.failure.status == status
    assert uploads(simulator) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://bucket.s3.amazonaws.com/",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1.example/",
        "ftp://bucket.example/",
        "file:///etc/passwd",
        "https://key:secret@bucket.example/",
        "https:///key",
        "https://bucket.example:0/",
        "https://[::1/",
        "bucket.s3.amazonaws.com",
        "",
        None,
        5,
    ],
)
async def test_upload_url_must_be_https_without_credentials(url: Any, simulator: Simulator, gateway: Gateway) -> None:
    form = {"url": url, "fields": {"key": "k"}}
    simulator.fail_next("posthog", json_response({"artifacts": [{"id": "a" * 32, "presigned_post": form}]}))
    with pytest.raises(UpstreamError) as exc_info:
        await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert exc_info.value.message == (
        "a.md was not uploaded: the upload URL of posthog's storage is not a valid https URL"
    )
    assert not exc_info.value.retryable
    assert sent(simulator) == [PREPARED]


@pytest.mark.parametrize("form", [None, "text", {}, {"url": "https://bucket.example/"}, {"url": "u", "fields": []}])
async def test_invalid_upload_form_is_an_error(form: Any, simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("posthog", json_response({"artifacts": [{"id": "a" * 32, "presigned_post": form}]}))
    with pytest.raises(UpstreamError) as exc_info:
        await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    assert exc_info.value.message == "a.md was not uploaded: posthog returned no usable upload form"
    assert sent(simulator) == [PREPARED]


@pytest.mark.parametrize("artifacts", [[], [{"id": "a"}], [{"id": "a"}] * 3, None, {"id": "a"}])
async def test_wrong_number_of_upload_forms_is_an_error(artifacts: Any, simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("posthog", json_response({"artifacts": artifacts}))
    with pytest.raises(CallError) as exc_info:
        await call(gateway, PREPARE, arguments_with(artifact("a.md", content="a"), artifact("b.md", content="b")))
    assert exc_info.value.message.startswith("posthog prepared")
    assert sent(simulator) == [PREPARED]


async def test_upload_url_of_a_loopback_provider_may_be_http(simulator: Simulator, gateway: Gateway) -> None:
    await call(gateway, PREPARE, arguments_with(artifact("a.md", content="hello")))
    (request,) = uploads(simulator)
    assert dict(request.headers)["host"].startswith("127.0.0.1:")


async def test_concurrent_uploads_do_not_mix_their_files(simulator: Simulator, gateway: Gateway) -> None:
    outcomes: dict[str, CallResult] = {}

    async def upload(name: str) -> None:
        outcomes[name] = await gateway.call(PREPARE, arguments_with(artifact(name, content=name * 100)), ignore)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for name in "abcd":
                tasks.start_soon(upload, name)
    assert stored_files(simulator) == {
        outcomes[name].value["artifacts"][0]["storage_path"]: name.encode() * 100 for name in "abcd"
    }


async def ignore(_: Progress) -> None:
    """Ignore progress."""
