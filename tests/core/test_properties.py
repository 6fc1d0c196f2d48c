"""Properties of all capability files, arguments and responses, tested with generated ones.

Capability files are generated from the grammar of the format, as the values that a YAML parser returns. Requests are
parsed again by the standard library's parsers, which are independent of the encoders.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from functools import cache
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.request import HttpRequest, build_request
from mcp_taskruns.core.calls.response import read_response
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import parse_capability
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CallError, CapabilityError, InvalidArguments
from tests.core.documents import KEY, Json, document, tool_of

settings.register_profile(
    "properties",
    deadline=None,
    derandomize=True,
    database=None,
    # Generating a complete capability file takes long, and these tests need one.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
PROFILE = settings.get_profile("properties")

LINE = st.characters(exclude_categories=("Cs", "Cc"))

LABELS = (
    ["id", "x", "y", "body", "taskRunId", "page[size]", "user.name", "$top", "two words", "größe", "yes", "on"]
)  # fmt: skip
NAMES = (
    st.sampled_from([*LABELS, "n" * 80, 'a"b', "it's", "a\\b", "rest", "-", "Accept", "authorization", "日本", "%41"])
    | st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="{}"), min_size=1, max_size=12)
    | st.sampled_from(LABELS)
)
TOOL_NAMES = (
    st.sampled_from(["list-things", "list_things", "list things", "ListThings", "", " ", "--", "…", "日本", "t" * 200])
    | st.integers(0, 9)
    | NAMES
)
NAMESPACES = st.sampled_from(["things", "api", "my api", "größe", "env"])
WORDS = st.text(LINE, max_size=30)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any], size: int = 6) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=size
    )


JSON = nested(SCALARS, WORDS)
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get", "Post"])
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "file", "String", "uuid"])
LOCATIONS = st.sampled_from(["path", "query", "header", "cookie", "body", "environment"])

BASE = "https://api.example/base"

PLACEHOLDERS = (
    st.builds("{{{{{}}}}}".format, NAMES)
    | st.builds("{{{{ tools.{} }}}}".format, NAMES)
    | st.sampled_from(["{{env.KEY}}", "{{KEY}}", "{{env.OTHER}}", "{{x}}", "{{things.id}}"])
)
TEMPLATES = st.lists(WORDS | PLACEHOLDERS, max_size=4).map("".join) | PLACEHOLDERS
PATH_PIECES = st.sampled_from(["things", "v1", "a b", "größe", "{{never", "}", "."]) | st.builds(
    str.format,
    st.sampled_from(["{{{0}}}", "{{{{{0}}}}}", "{{{0}}}.json", "v{{{{ {0} }}}}:run", "{{{0}}}...{{{1}}}{{{0}}}"]),
    NAMES,
    NAMES,
)  # fmt: skip
PATHS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["/", "/", "", "//"]),
    st.lists(PATH_PIECES, max_size=4).map("/".join),
    st.sampled_from(["", "/"]),
    st.sampled_from(["", "", "?a=b", "?q={x}"]),
)


def entry(required: Mapping[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]) -> Any:
    """Generate a mapping of these keys; optional ones may be missing."""
    return st.fixed_dictionaries(dict(required), optional=optional)


@st.composite
def several(draw: st.DrawFn, entries: st.SearchStrategy[Json], key: str = "name", least: int = 0, most: int = 3) -> Any:
    """Generate a list of entries, or the same entries as a mapping keyed by name."""
    found = draw(st.lists(entries, min_size=least, max_size=most))
    if draw(st.booleans()) or len({str(item[key]) for item in found}) < len(found):
        return found
    return {item[key]: {name: value for name, value in item.items() if name != key} for item in found}


INPUTS = several(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={
            "in": LOCATIONS,
            "type": TYPES,
            "description": WORDS,
            "required": st.booleans(),
            "value": st.one_of(TEMPLATES, JSON),
        },
    )
)
BODIES = TEMPLATES | st.one_of(
    entry({"type": st.just("json"), "data": nested(SCALARS | TEMPLATES, NAMES) | TEMPLATES}),
    entry({"type": st.just("json"), "data": st.builds('{{"a": {}, "b": "{}"}}'.format, PLACEHOLDERS, TEMPLATES)}),
    entry({"type": st.sampled_from(["text", "xml", "binary"]), "data": TEMPLATES}),
    entry(
        {
            "type": st.sampled_from(["formUrlEncoded", "form", "multipartForm", "multipart"]),
            "data": st.dictionaries(NAMES, SCALARS | TEMPLATES, max_size=3) | TEMPLATES,
        }
    ),
    entry(
        {
            "type": st.sampled_from(["multipartForm", "multipart"]),
            "data": st.lists(
                entry({"name": NAMES, "value": TEMPLATES}, filename=TEMPLATES, contentType=st.just("text/csv")),
                max_size=3,
            ),
        }
    ),
    entry({"type": st.sampled_from(["protobuf", "graphql"]), "data": JSON}),
)
BEYOND = [
    "$..a",
    "$.a[1:3]",
    "$[::0]",
    "$[?(@.a > 1)]",
    "$[?@.a == 'b'].b",
    "$[?match(@.a, '[')]",
    "$[?length(@.a) > 1]",
    "$[",
    "$.a.",
]
MAPPINGS = st.sampled_from(["$", "$.", "a.b", *BEYOND]) | st.lists(
    st.sampled_from([".a", ".b", ".two-words", "[0]", "[*]", "['a b']", ".größe"]), max_size=4
).map(lambda steps: "$" + "".join(steps))


def outputs(names: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate output parameters, at most three levels deep."""
    leaf = entry({"mapping": MAPPINGS}, type=TYPES)
    constant = entry({}, type=TYPES, value=JSON, const=JSON)
    shape: st.SearchStrategy[Json] = st.one_of(leaf, leaf, constant)
    named = st.builds(lambda name, one: {"name": name, **one}, names, shape)
    for _ in range(2):
        members = st.dictionaries(names, shape, min_size=1, max_size=3) | st.lists(named, min_size=1, max_size=3)
        properties = entry({"properties": members}, type=TYPES, mapping=MAPPINGS)
        items = entry({"items": shape | st.lists(shape, min_size=1, max_size=1)}, type=TYPES, mapping=MAPPINGS)
        shape = st.one_of(leaf, constant, properties, properties, items, items)
        named = st.builds(lambda name, one: {"name": name, **one}, names, shape)
    return st.one_of(
        st.lists(shape, max_size=2), st.lists(named, max_size=3), st.dictionaries(names, shape, max_size=3)
    )


OUTPUTS = outputs(st.sampled_from(["a", "b", "größe", "two words"]))

OPERATIONS = entry(
    {"name": TOOL_NAMES, "method": METHODS},
    path=PATHS,
    description=WORDS | st.just("answers text/event-stream"),
    inputParameters=INPUTS,
    body=BODIES,
    outputRawFormat=st.sampled_from(["json", "xml", "csv"]),
    outputParameters=several(entry({"name": NAMES}, type=TYPES, value=MAPPINGS)),
)
RESOURCES = entry(
    {"name": TOOL_NAMES, "path": PATHS, "operations": several(OPERATIONS, least=1)},
    description=WORDS,
    inputParameters=INPUTS,
)
SECRET = st.sampled_from(["{{env.KEY}}", "{{KEY}}", "{{env.OTHER}}", "written-down", "Token {{KEY}}", ""])
AUTHENTICATION = st.one_of(
    entry({"type": st.just("bearer"), "token": SECRET}),
    entry({"type": st.just("apikey"), "key": NAMES, "value": SECRET}, placement=st.sampled_from(["header", "query"])),
    entry({"type": st.just("apikey"), "name": NAMES, "value": SECRET}, **{"in": st.sampled_from(["header", "query"])}),
    entry({"type": st.just("apikey"), "header": NAMES, "key": SECRET}),
    entry({"type": st.just("apikey"), "header": NAMES, "value": SECRET}),
    entry({"type": st.just("apikey"), "headers": st.dictionaries(NAMES, SECRET, max_size=2)}),
    entry({"type": st.just("apikey"), "name": NAMES, "key": SECRET}),
    entry({"type": st.sampled_from(["basic", "digest"]), "username": SECRET, "password": SECRET}),
    entry({"type": st.sampled_from(["none", "oauth1", "oauth2", "aws-sig-v4", "hmac"])}, key=SECRET),
    st.just({}),
)
BASE_URIS = st.none() | st.sampled_from(
    [
        "", "https://api.example", "https://api.example/v1/", "http://localhost:8080", "https://{host}/v1", "/v1",
        "${HOST}", "{{env.BASE}}/v1", "api.example", "ftp://api.example", "{{base",
    ]
)  # fmt: skip
CONSUMED = st.builds(
    lambda common, spelled, authentication: common | ({spelled: authentication} if authentication else {}),
    entry(
        {
            "type": st.sampled_from(["http", "http", "grpc"]),
            "namespace": NAMESPACES,
            "resources": several(RESOURCES, least=1),
        },
        baseUri=BASE_URIS,
        inputParameters=INPUTS,
        description=WORDS,
    ),
    st.sampled_from(["authentication", "auth"]),
    AUTHENTICATION,
)
REFERENCES = (
    st.builds("{}.{}".format, st.sampled_from(["tools", "rest", "mcp", "rest.query", "tools.path", "$this.mcp"]), NAMES)
    | st.sampled_from(["rest.body", "tools.body"])
    | PLACEHOLDERS
)
WITH = st.dictionaries(NAMES, REFERENCES | TEMPLATES | JSON, max_size=4)
HINTS = entry({}, readOnly=st.booleans(), destructive=st.booleans(), idempotent=st.booleans(), openWorld=st.booleans())


def entries(found: Any, key: str = "name") -> Iterator[tuple[str, Any]]:
    """Yield names and other members of entries in a list or a mapping keyed by name."""
    if isinstance(found, Mapping):
        yield from ((str(name), item) for name, item in found.items())
    else:
        yield from ((str(item[key]), item) for item in found)


def exposures(calls: list[str]) -> st.SearchStrategy[Json]:
    """Generate the exposed side, which calls these operations and sometimes one that does not exist."""
    call = st.sampled_from([*calls, *calls, "things.nothing", ""])
    tools = entry(
        {"name": TOOL_NAMES, "call": call},
        label=WORDS,
        display=WORDS,
        description=WORDS,
        hints=HINTS,
        inputParameters=INPUTS,
        outputParameters=OUTPUTS,
        steps=st.just([{"name": "s", "type": "call"}]),
        **{"with": WITH},
    )
    operations = entry({"name": TOOL_NAMES, "method": METHODS, "call": call}, **{"with": WITH})
    resources = entry({"name": TOOL_NAMES, "path": PATHS, "operations": several(operations)}, description=WORDS)
    adapter = {"namespace": st.sampled_from(["mcp", "rest", "things-mcp"])}
    mcp = entry(
        {"type": st.just("mcp"), "tools": several(tools, least=1, most=4), **adapter},
        port=st.integers(1, 65535),
        transport=st.sampled_from(["http", "stdio"]),
        description=WORDS,
    )
    rest = entry({"type": st.just("rest"), "resources": several(resources), **adapter}, port=st.integers(1, 65535))
    other = entry({"type": st.sampled_from(["skill", "control"]), **adapter}, skills=JSON)
    return st.one_of(mcp, mcp, rest, other)


BINDS = several(
    entry(
        {"namespace": st.sampled_from(["env", "secrets", "things"])},
        location=st.sampled_from(["file:///etc/secrets.yaml", ""]),
        keys=st.dictionaries(st.sampled_from(["KEY", "BASE", "x"]), st.sampled_from(["KEY", "THING_KEY"]), max_size=2),
    ),
    "namespace",
)
INFO = entry(
    {},
    label=WORDS,
    display=WORDS,
    description=WORDS,
    tags=st.lists(NAMES | st.integers(0, 9), max_size=2),
    created=st.just("2026-01-31"),
    modified=st.just("2026-01-31"),
)


@st.composite
def documents(draw: st.DrawFn) -> Json:
    """Generate a capability file that the grammar allows, as a YAML parser returns it."""
    consumes = draw(several(CONSUMED, "namespace", least=1))
    calls = [
        f"{namespace}.{name}"
        for namespace, consumed in entries(consumes, "namespace")
        for _, resource in entries(consumed["resources"])
        for name, _ in entries(resource["operations"])
    ]
    surface = {"consumes": consumes, "exposes": draw(several(exposures(calls), "namespace", least=1, most=2))}
    if draw(st.booleans()):
        surface["aggregates"] = []
    whole = {
        draw(st.sampled_from(["naftiko", "ikanos"])): draw(st.sampled_from(["1.0.0-alpha2", "1.0.0-alpha3", 1.0])),
        "info": draw(INFO),
        "capability": surface,
    }
    return whole | ({"binds": draw(BINDS)} if draw(st.booleans()) else {})


KEYS = st.none() | st.booleans() | st.integers() | WORDS
ANYTHING = nested(SCALARS | st.floats() | TEMPLATES, KEYS | NAMES)
KEYWORDS = st.sampled_from(
    [
        "name", "in", "type", "value", "with", "call", "path", "method", "body", "tools", "mapping", "properties",
        "items", "resources", "operations", "inputParameters", "outputParameters", "authentication", "auth", "binds",
        "keys", "consumes", "exposes", "info", "tags", "hints", "namespace", "baseUri", "steps", "ref", "import",
        "schema", "prefix", "rename", "explode", "env", "redact", "paging", "log", "errors", "runs", "source",
    ]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, node: Any, other: st.SearchStrategy[Any]) -> Any:
    """Return the value with one part replaced by another value."""
    turn = draw(st.integers(0, 9))
    if isinstance(node, dict) and node and turn > 1:
        key = draw(st.sampled_from(list(node)))
        return {**node, key: draw(mutated(node[key], other))}
    if isinstance(node, list) and node and turn > 1:
        place = draw(st.integers(0, len(node) - 1))
        return [*node[:place], draw(mutated(node[place], other)), *node[place + 1 :]]
    if isinstance(node, dict) and turn > 0:
        return {**node, draw(KEYWORDS): draw(other)}
    return draw(other)


@st.composite
def wrong_documents(draw: st.DrawFn) -> Any:
    """Generate a capability file with up to three mistakes."""
    whole = draw(documents())
    for _ in range(draw(st.integers(1, 3))):
        whole = draw(mutated(whole, ANYTHING))
    return whole


def compiled(*found: Any) -> tuple[Tool, ...]:
    """Compile the tools of several files together."""
    return compile_tools([parse_capability(one, f"file{place}.yaml") for place, one in enumerate(found)])


SAMPLES: Mapping[Any, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=9),
    "integer": st.integers() | st.just(5.0),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    "boolean": st.booleans(),
    "array": st.lists(st.text(max_size=3), max_size=3),
    "object": st.dictionaries(st.text(max_size=3), JSON, max_size=2),
}


def values_of(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Generate values that a property allows; properties of generated files have no bounds."""
    if "minimum" in schema:
        return st.integers(schema["minimum"], schema.get("maximum"))
    if "contentEncoding" in schema:
        return st.binary(max_size=9).map(lambda content: base64.b64encode(content).decode())
    return SAMPLES.get(schema.get("type"), JSON)


@st.composite
def fitting(draw: st.DrawFn, tool: Tool) -> Json:
    """Generate arguments that a tool's input schema allows."""
    schema = tool.input_schema
    return {
        name: draw(values_of(part))
        for name, part in schema["properties"].items()
        if name in schema.get("required", []) or draw(st.booleans())
    }


def check_listing(tools: tuple[Tool, ...]) -> None:
    """Check the properties of tools that are listed together."""
    assert [tool.name for tool in tools if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name)] == []
    assert len({tool.name for tool in tools}) == len(tools)
    for tool in tools:
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["additionalProperties"] is False
        assert set(tool.input_schema.get("required", [])) <= set(tool.input_schema["properties"])


@settings(PROFILE, max_examples=25)
@given(found=st.lists(documents(), min_size=1, max_size=3))
@example([document(tool={"name": "t" * 200})])
def test_generated_files_have_distinct_legal_names_and_valid_schemas(found: list[Json]) -> None:
    tools = compiled(*found)
    check_listing(tools)
    assert compiled(*found) == tools
    tagged = found[0] | {"info": {"tags": ["Thing"]}}
    twins = compiled(tagged, tagged)
    check_listing(twins)
    later = [tool.name for tool in twins[len(twins) // 2 :]]
    assert all(re.search(r"-[0-9a-f]{6}(-\d+)?$", name) for name in later), "not marked with its file"
    assert all(re.search(r"-[0-9a-f]{6}$", name) for name in later[:1]), "numbered too"
    alone = compiled(found[0])
    assert [tool.name for tool in tools[: len(alone)]] == [tool.name for tool in alone], "another file renamed a tool"
    exposed = [item for one in found for _, item in entries(one["capability"]["exposes"], "namespace")]
    written = [name for item in exposed if item["type"] == "mcp" for name, _ in entries(item["tools"])]
    assert [tool.declared_name for tool in tools] == written


@settings(PROFILE, max_examples=30)
@given(found=wrong_documents())
def test_invalid_files_raise_capability_error(found: Any) -> None:
    try:
        tools = compiled(found)
    except CapabilityError:
        return
    assert len({tool.name for tool in tools}) == len(tools)
    for tool in tools:
        try:
            compile_validator(tool.input_schema)
            build_request(tool.operation, {}, {})
        except CallError:
            pass


@settings(PROFILE, max_examples=25)
@given(data=st.data())
def test_fast_validator_agrees_with_explain_problems(data: st.DataObject) -> None:
    found = data.draw(documents())
    for tool in compiled(found):
        check = compile_validator(tool.input_schema)
        right = data.draw(fitting(tool))
        assert (check(right), explain_problems(tool.input_schema, right)) == (True, [])
        wrong = data.draw(mutated(right, JSON | st.floats()))
        if "contentEncoding" in json.dumps(
            tool.input_schema
        ):  # the fast validator refuses other text, which is allowed
            assert not (check(wrong) and explain_problems(tool.input_schema, wrong))
        else:
            assert check(wrong) is not bool(explain_problems(tool.input_schema, wrong))
        missing = {name: value for name, value in right.items() if name not in tool.input_schema.get("required", [])}
        assert check(missing) is (missing == right)


@settings(PROFILE, max_examples=25)
@given(data=st.data())
def test_any_tool_builds_a_valid_request_or_raises_call_error(data: st.DataObject) -> None:
    found = data.draw(documents())
    for tool in compiled(found):
        operation = tool.operation
        names = [*operation.base.variables, *chain.from_iterable(one.names for one in operation.credentials())]
        environment = dict.fromkeys(names, "key-123456") | dict.fromkeys(operation.base.variables, BASE)
        try:
            request = build_request(operation, data.draw(fitting(tool)), environment)
        except CallError:
            continue
        assert re.fullmatch(r"https?://[!-~]+", request.url)
        assert urlsplit(request.url).netloc in {"api.example", "localhost:8080"}
        assert all(value.isprintable() for _, value in request.headers)
        names = [name.lower() for name, _ in request.headers]
        assert len(set(names)) == len(names)
        assert ("content-type" in names) is (request.content is not None)


PIECES = [
    "/", "..", ".", "%2e", "%2F", "?", "#", "&", ";", "=", "+", " ", ",", ":", "@", "\\", '"', "'", "<", ">", "]]>",
    "<!--", "&amp;", "\r\n", "\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "\ud800",
    "\udc00", "{", "}", "{x}", "{{x}}", "{{env.THING_KEY}}", "${x}", "--", "a", "ü", "日本", "💥",
    "\r\nX-Evil: 1\r\n\r\n", '","evil":"',
]  # fmt: skip
ANY_TEXT = st.text(st.characters()) | st.lists(st.sampled_from(PIECES), max_size=5).map("".join)


@dataclass(frozen=True)
class Sent:
    """A request parsed by the standard library, with all names and values decoded."""

    path: list[str]
    method: str = "GET"
    origin: tuple[str, str] = ("https", "api.example")
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: list[tuple[str, str]] = field(default_factory=list)
    content_type: str | None = None
    body: Any = None


def read_request(request: HttpRequest) -> Sent:
    """Parse a request like a server."""
    assert re.fullmatch(r"[!-~]+", request.url), "a URL holds what no URL may"
    url = urlsplit(request.url)
    assert "#" not in request.url
    for name, value in request.headers:
        assert re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
        assert re.fullmatch(r"[ -~]*", value)
    headers = {name.lower(): value for name, value in request.headers}
    assert len(headers) == len(request.headers)
    cookies = headers.pop("cookie", "")
    content_type = headers.pop("content-type", None)
    assert headers.pop("x-key") == "key-123456"
    assert headers.pop("accept") == "application/json, */*;q=0.5"
    return Sent(
        [unquote(segment, errors="strict") for segment in url.path.split("/")[1:]],
        request.method,
        (url.scheme, url.netloc),
        parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query), errors="strict"),
        headers,
        [(name, unquote(value)) for name, value in (pair.split("=", 1) for pair in cookies.split("; ") if pair)],
        content_type and content_type.partition(";")[0],
        None if request.content is None else read_body(content_type or "", request.content),
    )


def read_body(content_type: str, content: bytes) -> Any:
    """Parse a body by its content type."""
    match content_type.partition(";")[0]:
        case "application/json":
            return json.loads(content)
        case "application/x-www-form-urlencoded":
            assert re.fullmatch(rb"[!-~]*", content)
            return parse_qsl(content.decode(), keep_blank_values=True, strict_parsing=True, errors="strict")
        case "application/xml":
            root = ElementTree.fromstring(content)  # written by this server, and the file declares no other entities
            return [(one.tag, one.attrib, one.text, one.tail) for one in root.iter()]
        case "multipart/form-data":
            whole = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + content)
            assert not whole.defects
            parts = whole.get_payload()
            assert isinstance(parts, list)
            return [read_part(part) for part in parts if isinstance(part, Message)]
        case "text/plain":
            assert content_type == "text/plain; charset=utf-8"
            return content.decode()
    return content


def read_part(part: Message) -> tuple[Any, ...]:
    """Return name, content type and text of a form field."""
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    assert not part.defects
    kinds = [kind for kind in part.get_all("content-type", []) if not kind.startswith("text/plain")]
    assert {name.lower() for name in part} <= {"content-disposition", "content-type"}
    assert part.get_content_disposition() == "form-data"
    return part.get_param("name", header="content-disposition"), kinds, content.decode()


def never(_: str) -> bool:
    return False


def is_half(text: str) -> bool:
    """Return whether the text contains an unpaired surrogate, which UTF-8 cannot encode."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def is_no_segment(text: str) -> bool:
    return text in {"", ".", ".."}


def is_no_header(text: str) -> bool:
    return re.fullmatch(r"[ -~]*", text) is None


def is_no_xml(text: str) -> bool:
    """Return whether the text contains a character that XML 1.0 cannot represent (section 2.2)."""
    return re.search("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text) is not None


@dataclass(frozen=True)
class Place:
    """A file whose operation has an argument `x`, and what is sent for each value.

    Some values must be refused, some others may be refused.
    """

    file: Json
    expected: Callable[[str], Sent]
    refused: Callable[[str], bool] = never
    may_be_refused: Callable[[str], bool] = never
    arguments: Callable[[str], Json] = lambda value: {"x": value}


def made(*parameters: Json, path: str = "/things", tool: Json | None = None, **operation: Any) -> Json:
    """Return a file whose operation has these parameters; its key is sent in a header."""
    return document(
        {"inputParameters": list(parameters), **operation},
        path=path,
        tool=tool,
        baseUri=BASE,
        authentication={"type": "apikey", "key": "X-Key", "value": "{{env.THING_KEY}}", "placement": "header"},
    )


def templated(kind: str, data: Any) -> Json:
    """Return a file whose operation has a body template."""
    return made(method="POST", body={"type": kind, "data": data})


def in_query(name: str, **more: Any) -> Json:
    return {"name": name, "in": "query", **more}


def at(*segments: str, **rest: Any) -> Sent:
    return Sent(["base", *(segments or ("things",))], **rest)


def posted(content_type: str, body: Any) -> Sent:
    return at(method="POST", content_type=content_type, body=body)


JSON_TYPE = "application/json"
FORM = "application/x-www-form-urlencoded"
XML = "application/xml"
MULTIPART = "multipart/form-data"
BRACKETS = "page[size]"

PLACES = {
    "a segment": Place(made(path="/things/{x}/end/"), lambda v: at("things", v, "end", ""), is_no_segment),
    "a segment of the original dialect": Place(made(path="/things/{{x}}"), lambda v: at("things", v), is_no_segment),
    "several segments": Place(
        made(path="/{x}/of/{y}"), lambda v: at("y", "of", v), is_no_segment, arguments=lambda v: {"x": "y", "y": v}
    ),
    "two segments": Place(made(path="/{x}/of/{x}"), lambda v: at(v, "of", v), is_no_segment),
    "inside segments": Place(made(path="/v{x}.json/{x}:run"), lambda v: at(f"v{v}.json", f"{v}:run"), is_no_segment),
    "between dots": Place(
        made(path="/{x}...{y}"), lambda v: at(f"{v}...{v}"), is_no_segment, arguments=lambda v: {"x": v, "y": v}
    ),
    "a path that begins a query": Place(
        made(in_query("q"), path="/things?fixed=1&y={x}"),
        lambda v: at(query=[("fixed", "1"), ("y", v), ("q", "end")]),
        never,
        is_no_segment,
        lambda v: {"x": v, "q": "end"},
    ),
    "the query": Place(
        made(in_query("x"), in_query("c", value="fixed"), in_query("y")),
        lambda v: at(query=[("x", v), ("c", "fixed"), ("y", "end")]),
        arguments=lambda v: {"x": v, "y": "end"},
    ),
    "a name with brackets": Place(
        made(in_query(BRACKETS), tool={"with": {BRACKETS: "tools.x"}}), lambda v: at(query=[(BRACKETS, v)])
    ),
    "a list in the query": Place(
        made(in_query("x", type="array")),
        lambda v: at(query=[("x", v), ("x", "end"), ("x", v)]),
        arguments=lambda v: {"x": [v, "end", v]},
    ),
    "a text of `with`": Place(
        made(in_query("q"), tool={"with": {"q": "from {{x}} on"}}), lambda v: at(query=[("q", f"from {v} on")])
    ),
    "a query parameter that only `with` names": Place(
        made(in_query("q", value="fixed"), tool={"with": {"other": "tools.x"}}),
        lambda v: at(query=[("q", "fixed"), ("other", v)]),
    ),
    "a header": Place(
        made({"name": "X-Note", "in": "header"}, tool={"with": {"X-Note": "tools.x"}}),
        lambda v: at(headers={"x-note": v}),
        is_no_header,
    ),
    "a cookie": Place(
        made({"name": "x", "in": "cookie"}, {"name": "y", "in": "cookie"}),
        lambda v: at(cookies=[("x", v), ("y", "end")]),
        never,
        is_no_header,
        lambda v: {"x": v, "y": "end"},
    ),
    "the JSON body": Place(
        made({"name": "body", "in": "body"}, method="POST"),
        lambda v: posted(JSON_TYPE, v),
        arguments=lambda v: {"body": v},
    ),
    "a member of the JSON body": Place(
        made({"name": "x", "in": "body"}, {"name": "y", "in": "body"}, method="POST"),
        lambda v: posted(JSON_TYPE, {"x": v, "y": "end"}),
        arguments=lambda v: {"x": v, "y": "end"},
    ),
    "a JSON template": Place(
        templated("json", {"x": "{{x}}", "in": ["<{{x}}>", "{{x}}"], "end": 1}),
        lambda v: posted(JSON_TYPE, {"x": v, "in": [f"<{v}>", v], "end": 1}),
    ),
    "a JSON template that is text": Place(
        templated("json", '{"x": {{x}}, "in": ["<{{x}}>", "{{ tools.x }}"], "end": 1}'),
        lambda v: posted(JSON_TYPE, {"x": v, "in": [f"<{v}>", v], "end": 1}),
    ),
    "a bare JSON template": Place(
        made(method="POST", body='{"x": "{{x}}", "end": 1}'), lambda v: posted(JSON_TYPE, {"x": v, "end": 1})
    ),
    "a form": Place(
        templated("formUrlEncoded", {"x": "{{x}}", "in": "<{{x}}>", "end": 1}),
        lambda v: posted(FORM, [("x", v), ("in", f"<{v}>"), ("end", "1")]),
    ),
    "a form that is text": Place(
        templated("form", "x={{x}}&in=_{{x}}_&end=1"),
        lambda v: posted(FORM, [("x", v), ("in", f"_{v}_"), ("end", "1")]),
    ),
    "a multipart form": Place(
        templated("multipartForm", {"x": "{{x}}", "in": "<{{x}}>", "end": "1"}),
        lambda v: posted(MULTIPART, [("x", [], v), ("in", [], f"<{v}>"), ("end", [], "1")]),
    ),
    "a multipart form that is a list": Place(
        templated(
            "multipart", [{"name": "x", "value": "{{x}}", "contentType": "text/csv"}, {"name": "y", "value": "1"}]
        ),
        lambda v: posted(MULTIPART, [("x", ["text/csv"], v), ("y", [], "1")]),
    ),
    "XML": Place(
        templated("xml", "<a><b>{{x}}</b><c>1</c></a>"),
        lambda v: posted(XML, [("a", {}, None, None), ("b", {}, v or None, None), ("c", {}, "1", None)]),
        never,
        is_no_xml,
    ),
    "an attribute of XML": Place(
        templated("xml", """<a b="{{x}}" c='{{x}}'/>"""),
        lambda v: posted(XML, [("a", {"b": v, "c": v}, None, None)]),
        never,
        is_no_xml,
    ),
    "bare XML": Place(
        made(method="POST", body="<a>{{x}}</a>"),
        lambda v: posted(XML, [("a", {}, v or None, None)]),
        never,
        is_no_xml,
    ),
    "plain text": Place(templated("text", "<{{x}}>"), lambda v: posted("text/plain", f"<{v}>")),
}  # fmt: skip

every_place = pytest.mark.parametrize("name", PLACES)


@cache
def tool_at(name: str) -> Tool:
    (tool,) = compiled(PLACES[name].file)
    return tool


def markup(request: HttpRequest) -> str:
    """Return only the markup characters of an XML body."""
    return re.sub(r"""[^<>"']""", "", (request.content or b"").decode())


@every_place
@settings(PROFILE, max_examples=30)
@given(value=ANY_TEXT)
@example("a")
@example("")
@example("..")
@example("%2e%2e/?#&=;+ ")
@example("\r\nX-Evil: 1\r\n\r\n")
@example("\"'\\}]<b/>&amp;{{x}}")
@example("\ud800")
def test_text_arguments_are_encoded_at_every_location(name: str, value: str) -> None:
    place = PLACES[name]
    must_be_refused = place.refused(value) or is_half(value)
    try:
        request = build_request(tool_at(name).operation, place.arguments(value), KEY)
    except InvalidArguments:
        assert must_be_refused or place.may_be_refused(value)
        return
    assert not must_be_refused
    if place.may_be_refused is is_no_xml and is_no_xml(value):  # no parser accepts an empty form
        assert markup(request) == markup(build_request(tool_at(name).operation, place.arguments("a"), KEY))
        return
    assert read_request(request) == place.expected(value)


BOUNDARY = re.compile(r'boundary="?([^";]+)"?')


@pytest.mark.parametrize("name", ["a multipart form", "a multipart form that is a list"])
@pytest.mark.parametrize("begin", ["", "\r\n", "\n", "a"])
def test_multipart_boundary_does_not_occur_in_parts(name: str, begin: str) -> None:
    value = "a"
    for _ in range(5):  # each text contains the previous boundary
        request = build_request(tool_at(name).operation, {"x": value}, KEY)
        assert read_request(request) == PLACES[name].expected(value)
        found = BOUNDARY.search(dict(request.headers)["Content-Type"])
        assert found
        line = f"--{found.group(1)}"
        value = f'{begin}{line}\r\nContent-Disposition: form-data; name="evil"\r\n\r\n1\r\n{line}--\r\n'


@settings(PROFILE, max_examples=30)
@given(value=ANY_TEXT)
def test_multipart_file_names_are_escaped(value: str) -> None:
    (tool,) = compiled(templated("multipart", [{"name": "x", "value": "1", "filename": "{{x}}"}]))
    try:
        request = build_request(tool.operation, {"x": value}, KEY)
    except InvalidArguments:
        assert is_half(value)
        return
    content = request.content or b""
    assert content.count(b"\r\n") == 5, "the boundary, one or two headers, an empty line, the content, the boundary"
    (disposition,) = re.findall(rb"(?m)^Content-Disposition: ([^\r\n]*)\r$", content)
    assert re.fullmatch(rb'form-data; name="x"(; filename="[^"\r\n]*")?', disposition)


@settings(PROFILE, max_examples=30)
@given(value=st.binary())
def test_base64_arguments_are_sent_as_bytes(value: bytes) -> None:
    (tool,) = compiled(templated("binary", "{{x}}"))
    request = build_request(tool.operation, {"x": base64.b64encode(value).decode()}, KEY)
    assert read_request(request) == posted("application/octet-stream", value)


@settings(PROFILE, max_examples=50)
@given(value=ANY_TEXT)
def test_invalid_base64_is_refused(value: str) -> None:
    (tool,) = compiled(templated("binary", "{{x}}"))
    try:
        request = build_request(tool.operation, {"x": value}, KEY)
    except InvalidArguments:
        return
    assert re.fullmatch(r"[A-Za-z0-9+/_=\s-]*", value)
    assert request.content == base64.b64decode(value.translate({ord("-"): "+", ord("_"): "/"}))


UNICODE = st.text(max_size=9)
VALUES = nested(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | UNICODE, UNICODE, 12
)
OBJECTS = st.dictionaries(UNICODE, VALUES, max_size=4)


def exact(value: Any) -> str:
    """Return a value as text in which 5.0 equals 5 and true differs from 1."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{exact(item)}" for name, item in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(exact, value)) + "]"
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


@settings(PROFILE, max_examples=50)
@given(value=OBJECTS | st.lists(VALUES, max_size=4))
def test_json_bodies_round_trip(value: Any) -> None:
    for name, expected in {"the JSON body": value, "a JSON template": {"x": value}}.items():
        argument = "body" if name == "the JSON body" else "x"
        request = build_request(tool_at(name).operation, {argument: value}, KEY)
        sent = read_request(request).body
        assert exact(sent if argument == "body" else {"x": sent["x"]}) == exact(expected)


@settings(PROFILE, max_examples=50)
@given(one=OBJECTS, many=st.lists(OBJECTS | UNICODE | st.integers() | st.booleans(), max_size=4))
def test_json_query_parameters_round_trip(one: Json, many: list[Any]) -> None:
    (tool,) = compiled(made(in_query("one", type="object"), in_query("many", type="array")))
    pairs = read_request(build_request(tool.operation, {"one": one, "many": many}, KEY)).query
    assert [name for name, _ in pairs] == ["one", *("many" for _ in many)]
    sent = [text for _, text in pairs]
    assert exact(json.loads(sent[0])) == exact(one)
    read = [text if isinstance(item, str) else json.loads(text) for text, item in zip(sent[1:], many, strict=True)]
    assert exact(read) == exact(many)


MEDIA_TYPES = st.sampled_from(
    [
        "application/json", "application/problem+json", "application/json; charset=utf-16", "application/x-ndjson",
        "text/plain", "text/html", "text/event-stream", "application/xml", "image/png", "application/octet-stream", "",
        ";", "TEXT/JSON",
    ]
)  # fmt: skip
HEADER_VALUES = st.sampled_from(["1", "-1", "1e400", "nan", "Fri, 31 Feb 9999 99:99:99 GMT", "soon"]) | WORDS
HEADERS = entry(
    {},
    **dict.fromkeys(("retry-after", "retry-after-ms", "ratelimit-reset", "location", "link"), HEADER_VALUES),
    **{"content-type": MEDIA_TYPES | WORDS},
)
MEMBERS = st.sampled_from(
    ["a", "b", "a", "b", "a", "b", "größe", "two words", "a b", "error", "message", "errors", "detail", "path"]
)
JSON_BODIES = nested(SCALARS | st.text(st.characters(), max_size=3) | st.floats(), MEMBERS, 12).map(
    lambda value: json.dumps(value).encode()
)
ANY_BODY = JSON_BODIES | st.binary() | st.lists(JSON_BODIES).map(b"\n".join) | ANY_TEXT.map(
    lambda text: text.encode("utf-8", "surrogatepass")
)  # fmt: skip


@settings(PROFILE, max_examples=125)
@given(
    outputs=OUTPUTS, status=st.integers(100, 599) | st.just(200), headers=HEADERS, body=ANY_BODY, now=st.floats(0, 1e10)
)
def test_any_response_is_a_result_or_a_call_error(
    outputs: Any, status: int, headers: dict[str, str], body: bytes, now: float
) -> None:
    tool = tool_of(tool={"outputParameters": outputs})
    try:
        result = read_response(HttpResponse(status, headers, body, now), tool.operation)
    except CallError as exc:
        json.dumps(exc.to_json(), allow_nan=False)
        return
    assert 100 <= status < 300
    result.text.encode()
    if result.media_type == "application/json":
        json.loads(result.text)


@settings(PROFILE, max_examples=50)
@given(outputs=OUTPUTS, value=nested(SCALARS, MEMBERS, 12))
def test_mapped_output_is_valid_json(outputs: Any, value: Any) -> None:
    tool = tool_of(tool={"outputParameters": outputs})
    response = HttpResponse(200, {"content-type": "application/json"}, json.dumps(value).encode())
    try:
        result = read_response(response, tool.operation)
    except CallError:
        assert any(path in json.dumps(outputs) for path in BEYOND), "every other mapping can be read"
        return
    assert exact(json.loads(result.text)) == exact(result.value)
    if not outputs:
        assert exact(result.value) == exact(value)
