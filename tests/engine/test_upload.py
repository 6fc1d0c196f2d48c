"""Files of a call: sent to the provider's storage, and attached to a run."""

import base64
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.engine.gateway import Gateway
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


def file(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "output", **more}


def preparing(*files: dict[str, Any]) -> dict[str, Any]:
    return RUN | {"body": {"artifacts": list(files)}}


async def call(gateway: Gateway, tool: str, arguments: dict[str, Any]) -> CallResult:
    """What a call returns that has no need of time."""
    async with calling(gateway, tool, arguments) as running:
        await running.finish(5)
    if running.error is not None:
        raise running.error
    return running.outcome


def stored(simulator: Simulator) -> list[RecordedRequest]:
    """What reached the storage."""
    return [request for request in simulator.requests if request.path.startswith("/posthog/storage/")]


def parts_of(request: RecordedRequest) -> dict[str, tuple[bytes, bytes]]:
    """The parts of a form in their order, by name: headers and content. RFC 7578"""
    boundary = dict(request.headers)["content-type"].removeprefix("multipart/form-data; boundary=")
    first, *parts, end = request.body.split(f"--{boundary}".encode())
    assert (first, end) == (b"", b"--\r\n")
    found: dict[str, tuple[bytes, bytes]] = {}
    for part in parts:
        headers, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'; name="([^"]*)"', headers)
        assert name is not None
        found[name.group(1).decode()] = headers, content.removesuffix(b"\r\n")
    return found


def kept(simulator: Simulator) -> dict[str, bytes]:
    """What was sent to the storage under which key."""
    forms = map(parts_of, stored(simulator))
    return {form["key"][1].decode(): form["file"][1] for form in forms}


async def test_the_request_that_sends_a_file_is_the_prepared_form_with_the_file_last_and_no_credential(
    simulator: Simulator, gateway: Gateway
) -> None:
    await call(gateway, PREPARE, preparing(file("a b.md", content="hello", content_type="text/markdown")))
    (request,) = stored(simulator)
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


async def test_a_secret_of_ours_does_not_reach_the_storage(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["POSTHOG_API_KEY"] = "phx_planted_5d20c7"
    async with opened(environment) as gateway:
        await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    assert dict(simulator.requests[0].headers)["authorization"] == f"Bearer {key}"
    (request,) = stored(simulator)
    assert key not in str(request.headers) + request.path
    assert key.encode() not in request.body


@pytest.mark.parametrize(
    ("artifact", "content"),
    [
        pytest.param(file("report.md", content=TEXT, content_type="text/markdown"), TEXT.encode(), id="text"),
        pytest.param(
            file(
                "shot.png",
                content=base64.b64encode(PNG).decode(),
                content_encoding="base64",
                content_type="image/png",
            ),
            PNG,
            id="image",
        ),
        pytest.param(
            file(
                "all.bin",
                content=base64.encodebytes(bytes(range(256)) * 20).decode(),
                content_encoding="base64",
                content_type="application/x-thing",
            ),
            bytes(range(256)) * 20,
            id="any bytes",
        ),
        pytest.param(
            # What would end a form's part does not end it here.
            file(
                "form.txt", content="\r\n--boundary--\r\n\r\nContent-Disposition: form-data", content_type="text/plain"
            ),
            b"\r\n--boundary--\r\n\r\nContent-Disposition: form-data",
            id="like a form",
        ),
    ],
)
async def test_what_was_uploaded_and_finalized_is_downloaded_byte_by_byte(
    artifact: dict[str, Any], content: bytes, simulator: Simulator, gateway: Gateway
) -> None:
    uploaded = await call(gateway, PREPARE, preparing(artifact))
    (entry,) = uploaded.value["artifacts"]
    assert entry["size"] == len(content)
    finalized = {name: entry[name] for name in ("id", "name", "type", "storage_path")}
    attached = await call(gateway, FINALIZE, preparing(finalized | {"content_type": artifact["content_type"]}))
    assert attached.value["artifacts"][0]["size"] == len(content)
    found = await call(gateway, DOWNLOAD, RUN | {"body": {"storage_path": entry["storage_path"]}})
    assert found.media_type == artifact["content_type"]
    assert (found.text.encode() if found.data is None else found.data) == content
    assert (found.data is None) is artifact["content_type"].startswith("text/")
    assert len(stored(simulator)) == 1


async def test_the_provider_is_told_the_size_and_not_the_content(simulator: Simulator, gateway: Gateway) -> None:
    await call(gateway, PREPARE, preparing(file("a.md", content="é" * 3, content_encoding="utf-8", source="me")))
    assert simulator.requests[0].body == (b'{"artifacts":[{"name":"a.md","type":"output","source":"me","size":6}]}')


async def test_the_answer_says_what_was_uploaded_and_what_to_call_next_and_hides_the_form(gateway: Gateway) -> None:
    outcome = await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    (entry,) = outcome.value["artifacts"]
    assert entry["uploaded"] is True
    assert "presigned_post" not in entry
    assert "signature" not in outcome.text
    assert outcome.notes == (
        "Uploaded: a.md (5 bytes). Now attach the uploaded files to the run: call "
        "posthog-finalize-direct-uploads-task-run with id, name, type and storage_path of each.",
    )


async def test_files_without_content_keep_their_forms_and_nothing_is_sent_for_them(
    simulator: Simulator, gateway: Gateway
) -> None:
    outcome = await call(gateway, PREPARE, preparing(file("a.md", size=5), file("b.md", size=6)))
    assert sent(simulator) == [PREPARED]
    assert outcome.notes == ()
    for entry in outcome.value["artifacts"]:
        assert set(entry["presigned_post"]) == {"url", "fields"}
        assert "uploaded" not in entry


async def test_of_several_files_only_those_with_content_are_sent_each_to_its_own_form(
    simulator: Simulator, gateway: Gateway
) -> None:
    given = [file("a.md", content="aaa"), file("b.md", size=6), file("c.md", content="ccc")]
    outcome = await call(gateway, PREPARE, preparing(*given))
    assert sent(simulator) == [PREPARED, STORED, STORED]
    entries = {entry["name"]: entry for entry in outcome.value["artifacts"]}
    assert {name: "presigned_post" in entry for name, entry in entries.items()} == {
        "a.md": False,
        "b.md": True,
        "c.md": False,
    }
    assert outcome.notes[0].startswith("Uploaded: a.md (3 bytes), c.md (3 bytes). ")
    assert kept(simulator) == {
        entries["a.md"]["storage_path"]: b"aaa",
        entries["c.md"]["storage_path"]: b"ccc",
    }


async def test_progress_says_how_far_an_upload_is(gateway: Gateway) -> None:
    given = [file("a.md", content="a"), file("b.md", size=6), file("c.md", content="c")]
    async with calling(gateway, PREPARE, preparing(*given)) as running:
        await running.finish(5)
    assert running.progress == [
        Progress(1, 4, "prepared"),
        Progress(2, 4, "uploaded a.md"),
        Progress(4, 4, "uploaded c.md"),
    ]


@pytest.mark.parametrize(
    ("artifact", "told"),
    [
        (
            file("shot.png", content="no base64!", content_encoding="base64"),
            "the content of `shot.png` is not valid base64",
        ),
        (
            file("big.txt", content="x" * (MAX_SIZE + 1)),
            "body.artifacts[1].size: 31457281 is greater than the maximum of 31457280",
        ),
        (file("empty.md", content=""), "body.artifacts[1].size: 0 is less than the minimum of 1"),
        (file("a.md", content=5), "body.artifacts[1].content: must be of type string"),
        (file("a.md", content="a", content_encoding="hex"), "must be one of utf-8, base64"),
        (file("a.md"), "body.artifacts[1]: needs size or content"),
    ],
    ids=["no base64", "too large", "empty", "no text", "another encoding", "neither"],
)
async def test_a_file_that_cannot_be_sent_is_refused_before_anything_is(
    artifact: dict[str, Any], told: str, simulator: Simulator, gateway: Gateway
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await call(gateway, PREPARE, preparing(file("first.md", content="a"), artifact))
    assert told in caught.value.message
    assert "Nothing was sent." in caught.value.hint
    assert simulator.requests == []


def storage_error(status: int, code: str, message: str) -> Fault:
    """Amazon S3 API reference: Error responses"""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>"
    )
    return Fault(status, {"Content-Type": "application/xml"}, body)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            storage_error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size"),
            "Your proposed upload exceeds the maximum allowed size",
        ),
        (storage_error(403, "AccessDenied", "Invalid according to Policy."), "Invalid according to Policy."),
        (Fault(404, {"Content-Type": "text/html"}, "<html><title>Not Found</title></html>"), "Not Found"),
    ],
)
async def test_what_the_storage_refuses_is_told_in_its_words_and_with_the_file_s_name(
    fault: Fault, told: str, simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", fault)
    with pytest.raises(CallError) as caught:
        await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    assert caught.value.message == f"a.md was not uploaded: the provider returned {fault.status}: {told}"
    assert caught.value.status == fault.status
    assert caught.value.hint.endswith("The run has none of the files: call again with all of them.")
    assert not caught.value.retryable
    assert sent(simulator) == [PREPARED, STORED]


@pytest.mark.parametrize(
    "fault",
    [
        storage_error(403, "AccessDenied", "Invalid according to Policy: Policy expired."),
        storage_error(307, "TemporaryRedirect", "Please re-send this request to the specified temporary endpoint."),
    ],
    ids=["403", "307"],
)
async def test_what_the_storage_refuses_is_not_laid_on_the_server_s_environment_which_it_does_not_know(
    fault: Fault, simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", fault)
    with pytest.raises(CallError) as caught:
        await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    assert "environment" not in caught.value.hint
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
async def test_the_storage_takes_a_file_with_any_of_its_words(
    fault: Fault, simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", fault)
    outcome = await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    assert outcome.value["artifacts"][0]["uploaded"] is True


async def test_a_form_that_the_storage_does_not_know_is_told_in_its_words(
    simulator: Simulator, gateway: Gateway
) -> None:
    origin = gateway.client.settings.environment["POSTHOG_BASE_URL"]
    form = {"url": f"{origin}/storage/", "fields": {"key": "other", "policy": "p", "x-amz-signature": "s"}}
    simulator.fail_next("posthog", json_response({"artifacts": [{"id": "a" * 32, "presigned_post": form}]}))
    with pytest.raises(CallError) as caught:
        await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    told = "The request signature we calculated does not match."
    assert caught.value.message == f"a.md was not uploaded: the provider returned 403: {told}"


async def test_a_file_that_fails_stops_those_that_follow(simulator: Simulator, gateway: Gateway) -> None:
    for fault in (NO_FAULT, NO_FAULT, storage_error(400, "EntityTooLarge", "too large")):
        simulator.fail_next("posthog", fault)
    given = [file(f"{name}.md", content=name) for name in "abc"]
    with pytest.raises(CallError) as caught:
        await call(gateway, PREPARE, preparing(*given))
    assert caught.value.message == "b.md was not uploaded: the provider returned 400: too large"
    assert sent(simulator) == [PREPARED, STORED, STORED]


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_storage_that_is_busy_is_asked_again(status: int, simulator: Simulator, gateway: Gateway) -> None:
    for fault in (NO_FAULT, *[storage_error(status, "SlowDown", "Please reduce your request rate.")] * 2):
        simulator.fail_next("posthog", fault)
    async with calling(gateway, PREPARE, preparing(file("a.md", content="hello"))) as running:
        await running.finish(ALL_TRIES_S)
    assert sent(simulator) == [PREPARED, STORED, STORED, STORED]
    (entry,) = running.value["artifacts"]
    assert kept(simulator) == {entry["storage_path"]: b"hello"}
    assert any("retrying" in line for line in running.lines)


async def test_a_storage_that_stays_busy_is_given_up(simulator: Simulator, gateway: Gateway) -> None:
    for fault in (NO_FAULT, *[storage_error(503, "SlowDown", "Please reduce your request rate.")] * 9):
        simulator.fail_next("posthog", fault)
    async with calling(gateway, PREPARE, preparing(file("a.md", content="hello"))) as running:
        await running.finish(ALL_TRIES_S)
    assert running.failure.message.startswith("a.md was not uploaded: the provider returned 503: Please reduce")
    assert running.failure.retryable
    assert sent(simulator) == [PREPARED, *[STORED] * TRIES]


@pytest.mark.parametrize("status", [503, 429])
async def test_what_is_refused_before_the_files_are_sent_sends_none(
    status: int, simulator: Simulator, gateway: Gateway
) -> None:
    for _ in range(TRIES):
        simulator.fail_next("posthog", Fault(status, {"Content-Type": "application/json"}, '{"detail": "busy"}'))
    async with calling(gateway, PREPARE, preparing(file("a.md", content="hello"))) as running:
        await running.finish(ALL_TRIES_S)
    assert running.failure.status == status
    assert stored(simulator) == []


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
async def test_a_file_is_sent_to_no_address_on_whose_way_others_can_read_it(
    url: Any, simulator: Simulator, gateway: Gateway
) -> None:
    form = {"url": url, "fields": {"key": "k"}}
    simulator.fail_next("posthog", json_response({"artifacts": [{"id": "a" * 32, "presigned_post": form}]}))
    with pytest.raises(UpstreamError) as caught:
        await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    assert caught.value.message == (
        "a.md was not uploaded: the upload URL of posthog's storage is not a valid https URL"
    )
    assert not caught.value.retryable
    assert sent(simulator) == [PREPARED]


@pytest.mark.parametrize("form", [None, "text", {}, {"url": "https://bucket.example/"}, {"url": "u", "fields": []}])
async def test_a_form_of_another_shape_is_told(form: Any, simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("posthog", json_response({"artifacts": [{"id": "a" * 32, "presigned_post": form}]}))
    with pytest.raises(UpstreamError) as caught:
        await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    assert caught.value.message == "a.md was not uploaded: posthog returned no usable upload form"
    assert sent(simulator) == [PREPARED]


@pytest.mark.parametrize("artifacts", [[], [{"id": "a"}], [{"id": "a"}] * 3, None, {"id": "a"}])
async def test_more_or_fewer_files_than_were_asked_for_are_sent_nowhere(
    artifacts: Any, simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("posthog", json_response({"artifacts": artifacts}))
    with pytest.raises(CallError) as caught:
        await call(gateway, PREPARE, preparing(file("a.md", content="a"), file("b.md", content="b")))
    assert caught.value.message.startswith("posthog prepared")
    assert sent(simulator) == [PREPARED]


async def test_a_file_may_go_to_this_machine_in_clear(simulator: Simulator, gateway: Gateway) -> None:
    await call(gateway, PREPARE, preparing(file("a.md", content="hello")))
    (request,) = stored(simulator)
    assert dict(request.headers)["host"].startswith("127.0.0.1:")


async def test_several_uploads_at_once_do_not_mix_their_files(simulator: Simulator, gateway: Gateway) -> None:
    outcomes: dict[str, CallResult] = {}

    async def upload(name: str) -> None:
        outcomes[name] = await gateway.call(PREPARE, preparing(file(name, content=name * 100)), ignore)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for name in "abcd":
                tasks.start_soon(upload, name)
    assert kept(simulator) == {
        outcomes[name].value["artifacts"][0]["storage_path"]: name.encode() * 100 for name in "abcd"
    }


async def ignore(_: Progress) -> None:
    """A caller that does not look at progress."""
