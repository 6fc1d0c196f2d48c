"""Artifacts: upload, download, presigned requests to storage.

Expected values are from PostHog products/tasks/backend/{api,models,serializers}.py, stream/redis_stream.py and
posthog/api/mixins.py (https://github.com/PostHog/posthog), not from the simulator.
"""

import base64
from typing import Any

import httpx
import pytest

from mcp_taskruns.simulator.lifecycle import ManualClock
from tests.simulator.posthog.driver import COMPLETED, FAILED, NOT_STARTED, RUNS, run_detail

pytestmark = pytest.mark.anyio


async def test_download_and_presigned_url_return_bytes_and_content_type(client: httpx.AsyncClient) -> None:
    report, png = (await run_detail(client, COMPLETED))["artifacts"]
    for entry, content_type in ((report, "text/markdown"), (png, "image/png")):
        path = {"storage_path": entry["storage_path"]}
        response = await client.post(f"{RUNS}{COMPLETED}/artifacts/download/", json=path)
        assert response.headers["Content-Type"] == content_type
        assert response.headers["Content-Disposition"] == f'attachment; filename="{entry["name"]}"'
        assert response.headers["Cache-Control"] == "no-cache"
        assert len(response.content) == entry["size"]
        presigned = (await client.post(f"{RUNS}{COMPLETED}/artifacts/presign/", json=path)).json()
        assert presigned["expires_in"] == 3600
        fetched = await client.get(presigned["url"], headers={"Authorization": ""})
        assert (fetched.content, fetched.headers["Content-Type"]) == (response.content, content_type)
    assert response.content.startswith(b"\x89PNG")


async def test_presigned_url_is_valid_for_an_hour_and_one_object(client: httpx.AsyncClient, clock: ManualClock) -> None:
    report, png = (await run_detail(client, COMPLETED))["artifacts"]
    body = {"storage_path": report["storage_path"]}
    url = (await client.post(f"{RUNS}{COMPLETED}/artifacts/presign/", json=body)).json()["url"]
    other = await client.get(url.replace(report["storage_path"], png["storage_path"]))
    assert (other.status_code, "SignatureDoesNotMatch" in other.text) == (403, True)
    clock.advance(3600)
    assert (await client.get(url)).status_code == 200
    clock.advance(1)
    expired = await client.get(url)
    assert (expired.status_code, "Request has expired" in expired.text) == (403, True)


async def test_artifact_with_expired_content_is_404(client: httpx.AsyncClient) -> None:
    path = {"storage_path": (await run_detail(client, FAILED))["artifacts"][0]["storage_path"]}
    response = await client.post(f"{RUNS}{FAILED}/artifacts/download/", json=path)
    assert (response.status_code, response.json()) == (404, {"error": "Artifact content not found"})
    url = (await client.post(f"{RUNS}{FAILED}/artifacts/presign/", json=path)).json()["url"]
    assert (await client.get(url)).status_code == 404


async def test_download_finds_artifacts_of_the_run_resumed_from(
    client: httpx.AsyncClient,
) -> None:
    path = {"storage_path": (await run_detail(client, COMPLETED))["artifacts"][0]["storage_path"]}
    for operation in ("presign", "download"):
        response = await client.post(f"{RUNS}{NOT_STARTED}/artifacts/{operation}/", json=path)
        assert (response.status_code, response.json()) == (404, {"error": "Artifact not found on this run"})
    await client.patch(f"{RUNS}{NOT_STARTED}/", json={"state": {"resume_from_run_id": COMPLETED}})
    assert (await client.post(f"{RUNS}{NOT_STARTED}/artifacts/download/", json=path)).status_code == 200
    assert (await client.post(f"{RUNS}{NOT_STARTED}/artifacts/presign/", json=path)).status_code == 404


async def test_upload_returns_the_whole_manifest(client: httpx.AsyncClient) -> None:
    binary = bytes(range(256))
    artifacts = [
        {"name": "notes.txt", "type": "plan", "content": "naïve"},
        {
            "name": "../my file?.bin",
            "type": "output",
            "content": base64.b64encode(binary).decode(),
            "content_encoding": "base64",
            "content_type": "application/x-thing",
            "source": "agent",
        },
    ]
    response = await client.post(f"{RUNS}{COMPLETED}/artifacts/", json={"artifacts": artifacts})
    manifest = response.json()["artifacts"]
    assert [entry["name"] for entry in manifest] == ["report.md", "screenshot.png", "notes.txt", "my_file_.bin"]
    assert [entry["size"] for entry in manifest[2:]] == [6, 256]
    assert manifest == (await run_detail(client, COMPLETED))["artifacts"]
    for entry, content, content_type in (
        (manifest[2], "naïve".encode(), "application/octet-stream"),
        (manifest[3], binary, "application/x-thing"),
    ):
        path = {"storage_path": entry["storage_path"]}
        download = await client.post(f"{RUNS}{COMPLETED}/artifacts/download/", json=path)
        assert (download.content, download.headers["Content-Type"]) == (content, content_type)


@pytest.mark.parametrize(
    ("artifacts", "attr"),
    [
        ("x", "artifacts"),
        (["x"], "artifacts__0"),
        ([{"name": "a", "type": "plan"}], "artifacts__0__content"),
        ([{"name": "a", "type": "picture", "content": ""}], "artifacts__0__type"),
        ([{"name": "a", "type": "plan", "content": "%", "content_encoding": "base64"}], "artifacts__0__content"),
        ([{"name": "a", "type": "plan", "content": "x" * 31_457_281}], "artifacts__0__content"),
    ],
)
async def test_invalid_upload_is_400_with_the_field(client: httpx.AsyncClient, artifacts: Any, attr: str) -> None:
    response = await client.post(f"{RUNS}{COMPLETED}/artifacts/", json={"artifacts": artifacts})
    assert (response.status_code, response.json()["attr"]) == (400, attr)
    assert len((await run_detail(client, COMPLETED))["artifacts"]) == 2


async def prepare(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    body = {"artifacts": [{"name": "data.bin", "type": "output", "size": 1000, **more}]}
    response = await client.post(f"{RUNS}{COMPLETED}/artifacts/prepare_upload/", json=body)
    assert response.status_code == 200, response.text
    prepared: dict[str, Any] = response.json()["artifacts"][0]
    return prepared


async def finalize(client: httpx.AsyncClient, prepared: dict[str, Any], **more: Any) -> httpx.Response:
    body = {name: prepared[name] for name in ("id", "name", "type", "storage_path")} | more
    return await client.post(f"{RUNS}{COMPLETED}/artifacts/finalize_upload/", json={"artifacts": [body]})


async def send_form(client: httpx.AsyncClient, form: dict[str, Any], content: bytes, **changed: str) -> httpx.Response:
    return await client.post(
        form["url"],
        data=form["fields"] | changed,
        files={"file": ("data.bin", content)},
        headers={"Authorization": ""},
    )


async def test_direct_upload_is_prepared_sent_and_finalized(client: httpx.AsyncClient) -> None:
    prepared = await prepare(client)
    assert prepared["expires_in"] == 3600
    premature = await finalize(client, prepared)
    assert (premature.status_code, premature.json()) == (400, {"error": "Artifact upload not found in object storage"})
    assert (await send_form(client, prepared["presigned_post"], b"\0" * 1000)).status_code == 204
    assert len((await run_detail(client, COMPLETED))["artifacts"]) == 2
    done = (await finalize(client, prepared)).json()["artifacts"]
    assert [(entry["name"], entry["size"], entry["content_type"]) for entry in done] == [
        ("data.bin", 1000, "binary/octet-stream")
    ]
    again = (await finalize(client, prepared)).json()["artifacts"]
    assert again == done
    assert len((await run_detail(client, COMPLETED))["artifacts"]) == 3
    path = {"storage_path": prepared["storage_path"]}
    download = await client.post(f"{RUNS}{COMPLETED}/artifacts/download/", json=path)
    assert download.content == b"\0" * 1000


async def test_finalize_rejects_the_path_of_another_run(client: httpx.AsyncClient) -> None:
    prepared = await prepare(client)
    for path in (
        prepared["storage_path"].replace(COMPLETED, FAILED),
        prepared["storage_path"].replace("_data", "data"),
    ):
        response = await finalize(client, prepared, storage_path=path)
        assert (response.status_code, response.json()) == (
            400,
            {"error": "Artifact storage path is invalid for this run"},
        )


async def test_storage_rejects_a_changed_or_expired_form_or_a_large_file(
    client: httpx.AsyncClient, clock: ManualClock
) -> None:
    form = (await prepare(client))["presigned_post"]
    forged = await send_form(client, form, b"x", policy=base64.b64encode(b"{}").decode())
    assert (forged.status_code, "SignatureDoesNotMatch" in forged.text) == (403, True)
    moved = await send_form(client, form, b"x", key="elsewhere")
    assert (moved.status_code, "Invalid according to Policy" in moved.text) == (403, True)
    # PostHog allows 64 KiB more than the announced size.
    assert (await send_form(client, form, b"x" * (1000 + 65_536))).status_code == 204
    large = await send_form(client, form, b"x" * (1000 + 65_537))
    assert (large.status_code, "EntityTooLarge" in large.text) == (400, True)
    clock.advance(3601)
    assert (await send_form(client, form, b"x")).status_code == 403


async def test_storage_requires_fields_before_the_file(client: httpx.AsyncClient) -> None:
    form = (await prepare(client))["presigned_post"]
    parts = {name: (None, value) for name, value in form["fields"].items()}
    first = await client.post(form["url"], files={"file": ("data.bin", b"x"), **parts})
    assert (first.status_code, "must contain a field named 'key'" in first.text) == (400, True)
    without = await client.post(form["url"], files=parts)
    assert (without.status_code, "exactly one file" in without.text) == (400, True)


@pytest.mark.parametrize(("size", "code"), [(0, "min_value"), (31_457_281, "max_value"), (True, "invalid_input")])
async def test_prepare_rejects_an_invalid_size(client: httpx.AsyncClient, size: Any, code: str) -> None:
    body = {"artifacts": [{"name": "a", "type": "plan", "size": size}]}
    response = await client.post(f"{RUNS}{COMPLETED}/artifacts/prepare_upload/", json=body)
    assert (response.status_code, response.json()["code"], response.json()["attr"]) == (400, code, "artifacts__0__size")


async def test_finalize_rejects_an_object_over_the_size_limit(client: httpx.AsyncClient) -> None:
    prepared = await prepare(client, size=31_457_280)
    assert (await send_form(client, prepared["presigned_post"], bytes(31_457_281))).status_code == 204
    response = await finalize(client, prepared)
    assert (response.status_code, response.json()) == (400, {"error": "data.bin exceeds the 30MB attachment limit"})
