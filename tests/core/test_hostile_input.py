"""Hostile capability files, responses and settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.core.calls.errors import WRITE_HINT
from mcp_taskruns.core.calls.pages import read_page
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.redaction import REPLACEMENT, Redactor
from mcp_taskruns.core.calls.response import MAX_LINES, CallResult, read_response
from mcp_taskruns.core.calls.sse import Event, EventSplitter
from mcp_taskruns.core.checks.capability import check_capability
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import parse_capability
from mcp_taskruns.core.model.json import parse
from mcp_taskruns.core.model.operation import Paging
from mcp_taskruns.core.model.run import ProgressFields, RunFields, Statuses
from mcp_taskruns.core.runs.events import EventCollector
from mcp_taskruns.core.runs.reading import parse_reading
from mcp_taskruns.errors import NotConfigured, ProviderError, SettingsError
from mcp_taskruns.settings import read_settings
from tests.core.documents import document, inputs, request_of, tool_of

DEEP = "[" * 100_000 + '"\\ud800"' + "]" * 100_000


def test_deep_json_with_unpaired_surrogate_raises_value_error() -> None:
    with pytest.raises(ValueError, match="deep"):
        parse(DEEP)


def test_redactor_accepts_deep_json_with_unpaired_surrogate() -> None:
    Redactor(["key-123456"]).redact_bytes(DEEP.encode())


def test_response_of_deep_json_with_unpaired_surrogate_is_read() -> None:
    read_response(HttpResponse(200, {"content-type": "text/plain"}, DEEP.encode()), tool_of().operation)


@pytest.mark.parametrize(
    "address",
    ["https://a b.example", "https://a\n.example", "https://a.example\t/v1", "https://a.exam\x00ple",
     "https://a.example/a b", "https://a.example/#", "https://a.example/?"],
)  # fmt: skip
def test_base_url_with_query_is_refused(address: str) -> None:
    with pytest.raises(NotConfigured):
        request_of(tool_of(), {}, {"THING_BASE_URL": address})


@pytest.mark.parametrize("reference", ["gopher://x", "urn:x:y", "data:,x"])
def test_schema_reference_of_any_scheme_raises_not_configured(reference: str) -> None:
    with pytest.raises(NotConfigured):
        compile_validator({"$ref": reference})


def test_boolean_property_schema_is_explained() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"b": True}, "additionalProperties": False}
    assert explain_problems({"properties": {"body": schema}}, {"body": {"zz": 1}}) == ["body.zz: unknown argument"]


def test_env_file_error_has_the_line_number(tmp_path: Path) -> None:
    path = tmp_path / "keys.env"
    path.write_text("A=1\n\n\nno assignment\n")
    with pytest.raises(SettingsError, match="line 4 "):
        read_settings({"env_file": str(path)}, {})


def test_credential_sent_twice_is_named_once() -> None:
    tool = tool_of(
        inputs({"name": "X-K", "in": "header", "value": "{{env.THING_KEY}}"}),
        authentication={"type": "bearer", "token": "{{env.THING_KEY}}"},
    )
    with pytest.raises(ProviderError) as caught:
        read_response(HttpResponse(401, {}, b""), tool.operation)
    assert caught.value.hint.startswith("Check THING_KEY in ")


@pytest.mark.parametrize("event", [Event("", event="n" * 5_000), Event("", event="done", id="i" * 5_000)])
def test_event_name_and_id_are_truncated(event: Event) -> None:
    collector = EventCollector(10, 1_000)
    collector.add(event)
    result = collector.result("event_limit", {})
    assert len(result.text) < 1_000
    assert "data" not in result.value["events"][0]


@pytest.mark.parametrize("name", ["list_tasks", "listTasks", "List"])
def test_every_legal_name_is_replaced_in_descriptions(name: str) -> None:
    given = document(tool={"name": name})
    given["capability"]["exposes"][0]["tools"].append(
        {"name": "b", "call": "things.op", "description": f"See thing-{name}."}
    )
    tools = compile_tools([parse_capability(given, "f.yaml")], names="spec")
    assert tools[1].description == f"See {name}."


def test_secret_with_quote_and_umlaut_is_redacted_in_json() -> None:
    assert Redactor(['a"ü123456']).redact_bytes(b'{"k":"a\\"\\u00fc123456"}') == f'{{"k":"{REPLACEMENT}"}}'.encode()


@pytest.mark.parametrize("kind", ['["a"]', '{"a":1}', "null", "5"])
def test_event_of_any_type_is_accepted(kind: str) -> None:
    assert EventCollector(10, 1_000).add(Event(f'{{"type":{kind}}}')) is not None


def test_call_finds_the_operation_in_its_namespace() -> None:
    given = document(tool={"with": {"body": "tools.body"}})
    consumed = given["capability"]["consumes"][0]
    operation = consumed["resources"][0]["operations"][0]
    batch = {**operation, "method": "POST", "inputParameters": [{"name": "body", "in": "body", "type": "object"}]}
    consumed["resources"].append({"name": "batch", "path": "/batch", "operations": [batch]})
    tool = compile_tools([parse_capability(given, "f.yaml")])[0]
    assert tool.operation.path == ("/batch",)
    codes = [finding.code for finding in check_capability(parse_capability(given, "f.yaml"), [tool])]
    assert "duplicate-operation" in codes


def test_all_binds_of_one_namespace_are_read() -> None:
    given = document(authentication={"type": "bearer", "token": "{{env.B_KEY}}"})
    given["binds"] = [{"namespace": "env", "keys": {"A": "A"}}, {"namespace": "env", "keys": {"B_KEY": "REAL_B"}}]
    tool = compile_tools([parse_capability(given, "f.yaml")])[0]
    assert [variable.names for variable in tool.operation.credentials()] == [("REAL_B",)]


@pytest.mark.parametrize("media_type", ["application/xml", "image/svg+xml", "application/yaml"])
def test_text_media_types_are_text(media_type: str) -> None:
    result = read_response(HttpResponse(200, {"content-type": media_type}, b"a: <b>"), tool_of().operation)
    assert (result.text, result.data) == ("a: <b>", None)


def test_json_can_start_with_a_byte_order_mark() -> None:
    response = HttpResponse(200, {"content-type": "application/json"}, b'\xef\xbb\xbf{"a":1}')
    assert read_response(response, tool_of().operation).value == {"a": 1}


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.0])
def test_infinite_number_is_refused_as_a_setting(value: float) -> None:
    with pytest.raises(SettingsError, match="is not a number greater than 0"):
        read_settings({"timeout": value}, {})


def test_empty_variable_does_not_override_the_env_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.env"
    path.write_text("RENDER_API_KEY=rnd_fromfile\n")
    settings = read_settings({"env_file": str(path)}, {"RENDER_API_KEY": ""})
    assert settings.environment["RENDER_API_KEY"] == "rnd_fromfile"


def test_unsupported_exposure_type_is_a_finding() -> None:
    given = document()
    given["capability"]["exposes"].append({"type": "skill", "namespace": "s"})
    capability = parse_capability(given, "f.yaml")
    findings = check_capability(capability, compile_tools([capability]))
    (finding,) = [finding for finding in findings if finding.code == "unsupported-feature"]
    assert finding.place[:3] == ("capability", "exposes", 1)
    assert "skill" in finding.message


def error_of(body: bytes, status: int = 400, media_type: str = "application/json") -> str:
    """Return the message of an error response."""
    with pytest.raises(ProviderError) as caught:
        read_response(HttpResponse(status, {"content-type": media_type}, body), tool_of().operation)
    return caught.value.message


def test_field_is_truncated_in_error_messages() -> None:
    body = json.dumps({"attr": "a" * 1_000_000, "errors": ["m", *map(str, range(20_000))]}).encode()
    message = error_of(body)
    assert message.startswith(f'the provider returned 400: "{"a" * 100}: m - ')
    assert len(message) < 2_100


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"attr": {"a": 1}, "detail": "is wrong"}, "is wrong"),
        ({"attr": ["a"], "path": ["b", 0], "detail": "is wrong"}, "is wrong"),
        ({"path": ["b", 0, None, "c"], "detail": "is wrong"}, "b.0.c: is wrong"),
        ({"path": ["b"] * 1_000, "detail": "is wrong"}, "b." * 19 + "b: is wrong"),
        ({"path": "b", "detail": "is wrong"}, "is wrong"),
    ],
)
def test_place_of_an_error_is_a_field_or_a_short_path(error: Any, message: str) -> None:
    assert error_of(json.dumps(error).encode()) == f'the provider returned 400: "{message}"'


@pytest.mark.parametrize(("method", "hint"), [("GET", "Ask for less at a time."), ("POST", WRITE_HINT)])
def test_response_with_too_many_values_names_the_reason(method: str, hint: str) -> None:
    response = HttpResponse(200, {"content-type": "application/json"}, b"[" + b"0," * 700_000 + b"0]")
    with pytest.raises(ProviderError) as caught:
        read_response(response, tool_of({"method": method}).operation)
    assert caught.value.message.startswith("the provider's response is JSON that has more than 600,000 values")
    assert (caught.value.hint, caught.value.retryable) == (hint, False)


@pytest.mark.parametrize(
    ("line", "kept"), [(b"1\n", MAX_LINES - 1), (b"[" + b"0," * 99_999 + b"0]\n", 6)], ids=["lines", "values"]
)
def test_last_lines_of_a_log_that_is_too_long_are_read(line: bytes, kept: int) -> None:
    body = b'"first"\n' + line * (300_000 if len(line) == 2 else 20) + b'"last"'
    result = read_response(HttpResponse(200, {"content-type": "application/x-ndjson"}, body), tool_of().operation)
    assert len(result.value) == kept + 1
    assert result.value[-1] == "last"
    assert "first" not in result.value
    note = f"Only the last {kept + 1:,} lines were read: the response has too many lines or values."
    assert result.notes == (note,)


def test_lines_of_lone_surrogates_are_read() -> None:
    response = HttpResponse(200, {"content-type": "application/jsonl"}, b'"\\ud800"\n' * 100_000)
    assert read_response(response, tool_of().operation).value == ["?"] * 100_000


@pytest.mark.parametrize(
    ("progress", "ratio"),
    [(10**4_000, 1.0), (-(10**4_000), 0.0), (1, 1.0), (0.25, 0.25)],
    ids=["huge", "negative", "1", "0.25"],
)
def test_progress_of_any_size_is_a_ratio(progress: float, ratio: float) -> None:
    fields = RunFields(("id",), (("status",),), progress=ProgressFields(("progress",)))
    reading = parse_reading({"status": "x", "progress": progress}, fields, Statuses(), "r")
    assert reading is not None
    assert reading.progress == ratio


@pytest.mark.parametrize(("total", "read"), [("12", 12), ("9" * 5_000, None), (12, 12), ({"a": 1}, None), (None, None)])
def test_total_of_a_list_is_a_number_of_bounded_length(total: Any, read: int | None) -> None:
    paging = Paging(("items",), "limit", 10, 10, offset_argument="offset", total=("total",))
    page = read_page(paging, {}, CallResult.from_value({"items": [1], "total": total}))
    assert page is not None
    assert page.total == read


def test_lines_of_an_event_are_bounded() -> None:
    events = list(EventSplitter().feed(b"data:a\n" * 60_000 + b"\n"))
    assert [event.count(b"data:a") for event in events] == [50_000]
    assert events[0].startswith(b"id:t:\n")


def test_search_of_an_error_message_ends_after_a_while() -> None:
    errors = {"slow": {"message_matches": "^(a|aa)+$", "hint": "Never."}}
    tool = tool_of(errors=errors)
    with pytest.raises(ProviderError) as caught:
        read_response(HttpResponse(400, {}, b"a" * 100 + b"!"), tool.operation)
    assert caught.value.hint != "Never."
