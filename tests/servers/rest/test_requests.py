"""Which request of the REST side is which request to the provider, and which is refused before anything is sent."""

import json
from typing import Any

import anyio
import httpx
import pytest
from starlette.responses import JSONResponse, Response

from mcp_taskruns.servers import bodies
from mcp_taskruns.simulator.app import Simulator
from tests.calls import POSTHOG_COMPLETED, RENDER_COMPLETED, TASK
from tests.servers.rest.driver import Provider, acme, problem, served
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
THINGS, THING = "/v1/things", "/v1/things/a"


@pytest.mark.parametrize(
    ("method", "path", "requested"),
    [
        ("GET", "/v1/things", "GET /things"),
        ("GET", "/v1/things/special", "GET /special"),
        ("GET", "/v1/things/specials", "GET /things/specials"),
        ("GET", "/v1/things/Special", "GET /things/Special"),
        ("GET", "/v1/things/a%2Fb", "GET /things/a%2Fb"),
        ("GET", "/v1/things/a%2fspecial", "GET /things/a%2Fspecial"),
        ("GET", "/v1/things/a%20b%3Fc%23d%25", "GET /things/a%20b%3Fc%23d%25"),
        ("GET", "/v1/things/%C3%A9", "GET /things/%C3%A9"),
        ("GET", "/v1/things/a+b", "GET /things/a%2Bb"),
        ("GET", "/v1/things/12", "GET /things/12"),
        ("GET", "/v1/t%68ings/spec%69al", "GET /special"),
        ("GET", "/v1/special/anything", "GET /special"),
        ("GET", "/v1/files/other.md", "GET /files/other.md/plain"),
        ("GET", "/v1/files/file-a.md", "GET /files/a/md"),
        ("GET", "/v1/files/file-a.b.md", "GET /files/a/b.md"),
        ("GET", "/v1/files/file-%2F.a%2Fb", "GET /files/%2F/a%2Fb"),
        ("GET", "/v1/files/file-.md", "GET /files/file-.md/plain"),
        ("GET", "/v1/files/file-a", "GET /files/file-a/plain"),
        ("GET", "/v1/files/file-a.", "GET /files/file-a./plain"),
        ("GET", "/acme/v1/things/special", "GET /special"),
        ("GET", "/acme/v1/things/a", "GET /things/a"),
        ("DELETE", "/v1/things/a", "DELETE /things/a"),
    ],
)
async def test_path_leads_to_its_operation_and_segments_stay_encoded(method: str, path: str, requested: str) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.request(method, path)
    assert (response.status_code, response.json()) == (200, {"ok": True})
    assert provider.targets == [requested]


async def test_literal_path_takes_precedence_over_a_variable(simulator: Simulator, environment: dict[str, str]) -> None:
    async with served(environment) as side:
        events = await side.client.get("/v1/task-runs/events", params={"taskRunIds": RENDER_COMPLETED})
        one = await side.client.get(f"/v1/task-runs/{RENDER_COMPLETED}")
    assert events.headers["content-type"] == "text/event-stream"
    assert one.json()["id"] == RENDER_COMPLETED
    assert [request.path.partition("?")[0] for request in simulator.requests] == [
        "/render/v1/task-runs/events",
        f"/render/v1/task-runs/{RENDER_COMPLETED}",
    ]


async def test_path_variable_may_have_another_spelling(simulator: Simulator, environment: dict[str, str]) -> None:
    async with served(environment) as side:
        await side.client.get(f"/v1/task-runs/{RENDER_COMPLETED}")  # {taskrunid} is taskRunId
        await side.client.get(f"/v1/api/projects/1/tasks/{TASK}/runs/{POSTHOG_COMPLETED}")  # {task-id} is task_id
    assert [request.path for request in simulator.requests] == [
        f"/render/v1/task-runs/{RENDER_COMPLETED}",
        f"/posthog/api/projects/1/tasks/{TASK}/runs/{POSTHOG_COMPLETED}/",
    ]


@pytest.mark.parametrize("segment", ["%2E%2E", "%2e", "%2E%2E%2F"])
async def test_dot_segment_is_rejected(segment: str) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.get(f"/v1/things/{segment}")
    if segment == "%2E%2E%2F":
        assert provider.targets == ["GET /things/..%2F"]  # it is one segment, and no step up
    else:
        assert problem(response)["status"] == 400
        assert provider.received == []


@pytest.mark.parametrize(
    ("query", "requested"),
    [
        ("", ""),
        ("limit=5", "limit=5"),
        ("limit=-5", "limit=-5"),
        ("ratio=1.5", "ratio=1.5"),
        ("ratio=2", "ratio=2"),
        ("open=true", "open=true"),
        ("open=False", "open=false"),
        ("tags=a", "tags=a"),
        ("tags=a&tags=b", "tags=a&tags=b"),
        ("tags=a,b", "tags=a%2Cb"),
        ("tags=1&tags=1", "tags=1&tags=1"),
        ('where={"a":[1,"x"]}', "where=%7B%22a%22%3A%5B1%2C%22x%22%5D%7D"),
        ("name=5", "name=5"),
        ("name=true", "name=true"),
        ("name=null", "name=null"),
        ("name=a%26b%3Dc+d", "name=a%26b%3Dc%20d"),
        ("name=", "name="),
        ("name=x&limit=1", "limit=1&name=x"),
    ],
)
async def test_query_is_parsed_by_the_types_of_arguments(query: str, requested: str) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.get(f"{THINGS}?{query}")
    assert response.status_code == 200, response.text
    assert provider.targets == ["GET /things" + (f"?{requested}" if requested else "")]


async def test_cookies_of_the_client_are_not_forwarded() -> None:
    provider = Provider()
    async with acme(provider) as side:
        await side.client.get(THINGS, params={"session": "ours"}, headers={"Cookie": "session=theirs; other=1"})
    assert provider.last.headers["cookie"] == "session=ours"
    assert provider.last.target == "/things"


async def test_headers_that_are_not_arguments_are_not_forwarded() -> None:
    provider = Provider()
    sent = {"X-Trace": "t-1", "X-Other": "o", "Authorization": "Bearer of-the-client", "X-Forwarded-For": "192.0.2.1"}
    async with acme(provider) as side:
        await side.client.get(THING, headers=sent)
    headers = provider.last.headers
    assert headers["x-trace"] == "t-1"
    assert headers["authorization"] == "Bearer acme-key-planted-5d1c7a90b2e8"
    assert not headers.keys() & {"x-other", "x-forwarded-for"}


@pytest.mark.parametrize(
    ("path", "query", "headers", "body", "target", "trace", "sent"),
    [
        (THING, {"thing_id": "q"}, {}, {"thing_id": "b"}, "/things/a", None, None),
        (THING, {"note": "q"}, {}, {"note": "b"}, "/things/a?note=q", None, None),
        (THING, {}, {}, {"note": "b"}, "/things/a?note=b", None, None),
        (THING, {"X-Trace": "q"}, {"X-Trace": "h"}, {"X-Trace": "b"}, "/things/a", "q", None),
        (THING, {}, {"x-trace": "h"}, {"X-Trace": "b"}, "/things/a", "h", None),
        (THING, {}, {}, {"X-Trace": "b"}, "/things/a", "b", None),
        (THING, {"title": "q"}, {}, {"title": "b", "size": 2}, "/things/a", None, {"title": "q", "size": 2}),
        (THING, {"size": "3"}, {}, None, "/things/a", None, {"size": 3}),
    ],
    ids=["path", "query", "body in a query", "query, header", "header", "body in a header", "query, body", "typed"],
)
async def test_precedence_of_path_query_headers_and_body(
    path: str, query: Any, headers: Any, body: Any, target: str, trace: str | None, sent: Any
) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.put(path, params=query, headers=headers, json=body)
    assert response.status_code == 200, response.text
    assert (provider.last.target, provider.last.headers.get("x-trace")) == (target, trace)
    assert (json.loads(provider.last.body) if provider.last.body else None) == sent


@pytest.mark.parametrize("body", [{"body": 1, "x": {"y": [None]}}, {}])
async def test_body_argument_is_passed_unchanged(body: Any) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.post(THINGS, json=body)
    assert response.status_code == 200, response.text
    assert json.loads(provider.last.body) == body
    assert provider.last.headers["content-type"] == "application/json"


async def test_members_of_a_body_fill_placeholders_of_a_template() -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.post("/v1/fixed", json={"title": 'a "b"'})
    assert response.status_code == 200, response.text
    assert json.loads(provider.last.body) == {"kind": "fixed", "title": 'a "b"'}


@pytest.mark.parametrize("content", [b"", b" \n "])
async def test_request_without_a_body_is_sent_without_one(content: bytes) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.post(THINGS, content=content, headers={"Content-Type": "text/plain"})
    assert response.status_code == 200, response.text
    assert provider.last.body == b""
    assert "content-type" not in provider.last.headers


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
async def test_json_media_types_are_accepted(media_type: str) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.post(THINGS, content=b'{"x": 1}', headers={"Content-Type": media_type})
    assert response.status_code == 200, response.text
    assert provider.last.body == b'{"x":1}'


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", f"{THINGS}?nope=1", "nope: unknown argument"),
        ("GET", f"{THINGS}?limit=five", "limit: must be of type integer"),
        ("GET", f"{THINGS}?limit=1.5", "limit: must be of type integer"),
        ("GET", f"{THINGS}?limit=true", "limit: must be of type integer"),
        ("GET", f"{THINGS}?limit=", "limit: must be of type integer"),
        ("GET", f"{THINGS}?limit=NaN", "limit: must be of type integer"),
        ("GET", f"{THINGS}?limit={'1' * 5000}", "limit: must be of type integer"),
        ("GET", f"{THINGS}?limit=null", "limit: must be of type integer"),
        ("GET", f"{THINGS}?limit=1&limit=2", "limit: must be of type integer"),
        ("GET", f"{THINGS}?name=first&name=last", "name: must be of type string"),
        ("GET", f"{THINGS}?ratio=NaN", "ratio: must be of type number"),
        ("GET", f"{THINGS}?ratio=-Infinity", "ratio: must be of type number"),
        ("GET", f"{THINGS}?ratio=1e999", "ratio: must be a finite number"),
        ("GET", f"{THINGS}?open=yes", "open: must be of type boolean"),
        ("GET", f"{THINGS}?open=1", "open: must be of type boolean"),
        ("GET", f"{THINGS}?where=a", "where: must be of type object"),
        ("GET", f"{THINGS}?where=[1]", "where: must be of type object"),
        ("GET", f"{THINGS}?where={'[' * 9000}", "where: must be of type object"),
        ("PUT", f"{THING}?size=x", "size: must be of type integer"),
    ],
)
async def test_invalid_argument_is_400_and_nothing_is_sent(method: str, path: str, detail: str) -> None:
    provider = Provider()
    async with acme(provider) as side:
        details = problem(await side.client.request(method, path))
    assert (details["status"], details["title"], details["kind"]) == (400, "Bad Request", "validation")
    assert detail in details["detail"]
    assert details["retryable"] is False
    assert provider.received == []


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "detail"),
    [
        (THING, b'{"size": "2"}', JSON, 400, "size: must be of type integer"),
        (THING, b'{"nope": 2}', JSON, 400, "nope: unknown argument"),
        (THING, b"[1]", JSON, 400, "the body: must be an object"),
        (THING, b'"text"', JSON, 400, "the body: must be an object"),
        (THING, b'{"size": ', JSON, 400, "the body is not valid JSON"),
        (THING, b"\xff\xfe\xfd", JSON, 400, "the body is not valid JSON"),
        (THING, b"[" * 100_000, JSON, 400, "the body is not valid JSON"),
        (THING, b"size=2", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "x-www-form-urlencoded"),
        (THING, b"<a/>", {"Content-Type": "text/xml"}, 415, "is not supported; send application/json"),
        (THING, b"{}", {"Content-Type": ""}, 415, "is not supported; send application/json"),
    ],
    ids=["type", "unknown", "list", "text", "truncated", "bytes", "deep", "form", "xml", "nameless"],
)
async def test_invalid_body_is_rejected_and_nothing_is_sent(
    path: str, content: bytes, headers: dict[str, str], status: int, detail: str
) -> None:
    provider = Provider()
    async with acme(provider) as side:
        details = problem(await side.client.put(path, content=content, headers=headers))
    assert (details["status"], details["kind"]) == (status, "validation")
    assert detail in details["detail"]
    assert provider.received == []


async def test_body_without_a_content_type_is_415_and_nothing_is_sent() -> None:
    provider = Provider()
    async with acme(provider) as side:
        request = side.client.build_request("POST", THINGS, content=b'{"x": 1}')
        assert "content-type" not in request.headers
        details = problem(await side.client.send(request))
    assert details["status"] == 415
    assert "Content-Type: application/json" in details["detail"]
    assert provider.received == []


async def test_body_above_the_size_limit_is_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1000)
    provider = Provider()
    fits, large = (b'{"x": "' + b"x" * length + b'"}' for length in (991, 992))
    async with acme(provider) as side:
        assert (await side.client.post(THINGS, content=fits, headers=JSON)).status_code == 200
        details = problem(await side.client.post(THINGS, content=large, headers=JSON))
    assert details["status"] == 413
    assert details["detail"] == "the body is larger than 1,000 bytes"
    assert len(provider.received) == 1


async def test_body_with_too_many_values_is_413_and_is_not_parsed() -> None:
    provider = Provider()
    async with acme(provider) as side:
        content = b'{"x": [' + b"{}," * 200_000 + b"0]}"
        details = problem(await side.client.post(THINGS, content=content, headers=JSON))
    assert details["status"] == 413
    assert details["detail"] == "the body is JSON that has more than 600,000 values or 100,000 lists and objects"
    assert provider.received == []


async def test_incomplete_body_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)
    provider = Provider()
    async with acme(provider) as side:
        host, port = side.origin.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            head = f"POST {THINGS} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 10\r\n\r\n"
            await stream.send(head.encode() + b"{")
            with anyio.fail_after(PATIENCE):
                response = await stream.receive()
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"the body was not received within 0.05 s" in response
    assert provider.received == []


async def test_disconnecting_while_sending_a_body_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider()
    async with acme(provider) as side:
        host, port = side.origin.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(f"POST {THINGS} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 10\r\n\r\n{{".encode())
        assert (await side.client.get("/health")).status_code == 200
    assert provider.received == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/v1/things/", 404, None),
        ("GET", "/v1/things/a/b", 404, None),
        ("GET", "/v1//things", 404, None),
        ("GET", "/other/v1/things", 404, None),
        ("POST", "/health", 404, None),
        ("PATCH", "/v1/things", 405, "GET, POST"),
        ("POST", "/v1/things/a", 405, "DELETE, GET, PUT"),
        ("POST", "/acme/v1/things/a", 405, "DELETE, GET, PUT"),
        ("OPTIONS", "/v1/nothing", 404, None),
    ],
)
async def test_unknown_route_is_404_and_unknown_method_405(
    method: str, path: str, status: int, allow: str | None
) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.request(method, path)
    details = problem(response)
    assert details["status"] == status
    assert path in details["detail"]
    assert response.headers.get("allow") == allow
    if allow:
        assert details["hint"] == f"Allowed methods: {allow}."
    else:
        assert details["kind"] == "not_found"
        assert "/openapi.json" in details["hint"]
    assert provider.received == []


@pytest.mark.parametrize("path", ["/v1/things", "/acme/v1/things", "/v1/things/special"])
async def test_head_is_get_without_a_body(path: str) -> None:
    provider = Provider()
    async with acme(provider) as side:
        got, head = await side.client.get(path), await side.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert [request.method for request in provider.received] == ["GET", "GET"]


async def test_head_without_get_is_405() -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.head("/v1/fixed")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert provider.received == []


async def test_options_returns_the_allowed_methods() -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.options(THING)
    assert (response.status_code, response.content, response.headers["allow"]) == (204, b"", "DELETE, GET, PUT")
    assert provider.received == []


@pytest.mark.parametrize(
    ("content", "headers", "status", "media_type", "text"),
    [
        (b'{"a": 1}', {"Content-Type": "application/json"}, 201, "application/json", '{"a":1}'),
        (b"hello", {"Content-Type": "text/plain; charset=latin-1"}, 200, "text/plain; charset=utf-8", "hello"),
        (b"", {}, 204, "text/plain; charset=utf-8", "Done: the provider returned 204 without content."),
        (b"\xff\x00", {"Content-Type": "image/png"}, 206, "image/png", None),
        (b'{"a": "\\ud800"}', {"Content-Type": "application/json"}, 200, "application/json", '{"a":"?"}'),
    ],
    ids=["json", "text", "nothing", "bytes", "half a pair"],
)
async def test_response_has_the_status_and_media_type_of_the_provider(
    content: bytes, headers: dict[str, str], status: int, media_type: str, text: str | None
) -> None:
    provider = Provider(Response(content, status, headers))
    async with acme(provider) as side:
        response = await side.client.post(THINGS, json={})
    assert response.status_code == (200 if status == 204 else status)
    assert response.headers["content-type"] == media_type
    assert response.content == content if text is None else response.text == text


async def test_notes_are_sent_as_headers(environment: dict[str, str]) -> None:
    async with served(environment) as side:
        response = await side.client.get("/v1/tasks", params={"limit": 1})
        path = f"/v1/api/projects/1/tasks/{TASK}/runs/{POSTHOG_COMPLETED}"
        redacted = await side.client.get(path)
    (note,) = response.headers.get_list("x-note")
    assert note.startswith("1 item")
    assert any(note.startswith("Redacted: ") for note in redacted.headers.get_list("x-note"))
    assert redacted.json()["state"]["sandbox_connect_token"] == "[redacted]"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_and_documentation_pages(method: str) -> None:
    async with acme(Provider()) as side:
        pages = {path: await side.client.request(method, path) for path in ("/health", "/openapi.json", "/docs", "/")}
    assert [page.status_code for page in pages.values()] == [200, 200, 200, 200]
    assert pages["/docs"].headers["content-type"] == "text/html; charset=utf-8"
    if method == "GET":
        health = pages["/health"].json()
        assert (health["status"], health["routes"]) == ("ok", len(side.gateway.catalog.routes))
        assert set(pages["/openapi.json"].json()["paths"]) == {route.path for route in side.gateway.catalog.routes}
        assert "/v1/things/{thing-id}" in pages["/docs"].text
        assert pages["/"].text == pages["/docs"].text


async def test_new_catalog_is_served_immediately() -> None:
    provider = Provider()
    async with acme(provider) as side, acme(Provider(), exclude_tools=["acme-list-*"]) as other:
        assert (await side.client.get(THINGS)).status_code == 200
        await side.gateway.replace_catalog(other.gateway.catalog)
        assert problem(await side.client.get(THINGS))["status"] == 405
        assert (await side.client.get(THING)).status_code == 200


async def test_websocket_upgrade_is_rejected() -> None:
    async with acme(Provider()) as side:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        try:
            response = await side.client.get(THINGS, headers=headers)
        except httpx.HTTPError:
            return
    assert response.status_code != 101


async def test_long_response_is_not_truncated() -> None:
    things = [{"id": number, "text": "x" * 100} for number in range(1_000)]
    async with acme(Provider(JSONResponse(things)), max_result_chars=1_000) as side:
        response = await side.client.get("/v1/things")
    assert response.json() == things
    assert not [note for note in response.headers.get_list("x-note") if "Cut" in note]
