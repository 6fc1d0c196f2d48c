from dataclasses import dataclass
from typing import Any

import pytest

from mcp_taskruns.core.checks.capability import check_capability, check_together
from mcp_taskruns.core.checks.codes import CODES, MAX_DESCRIPTION, Finding
from mcp_taskruns.core.checks.overlay import check_overlay
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import parse_capability
from tests.core.documents import Json, document, inputs

TOLD = "Does one thing with another."
CONSUMES = ("capability", "consumes", 0)
RESOURCE = (*CONSUMES, "resources", 0)
OPERATION = (*RESOURCE, "operations", 0)
EXPOSES = ("capability", "exposes", 0)
TOOL = (*EXPOSES, "tools", 0)


def findings(given: Json, environment: tuple[str, ...] | None = None) -> list[Finding]:
    capability = parse_capability(given, "things-api.yaml")
    return list(check_capability(capability, compile_tools([capability]), environment))


def sound(operation: Json | None = None, *, tool: Json | None = None, **more: Any) -> Json:
    """A capability in which nothing is wrong, but for what is passed."""
    return document({"method": "GET"} | (operation or {}), tool={"description": TOLD} | (tool or {}), **more)


def with_root(given: Json, **root: Any) -> Json:
    return given | root


def with_tools(*tools: Json, operations: list[Json] | None = None) -> Json:
    """A sound capability with these tools."""
    given = sound()
    given["capability"]["exposes"][0]["tools"] = list(tools)
    if operations is not None:
        given["capability"]["consumes"][0]["resources"][0]["operations"] = [
            {"method": "GET"} | one for one in operations
        ]
    return given


def with_exposed(*exposed: Json, operation: Json | None = None, path: str = "/things") -> Json:
    """A sound capability with these adapters before its own."""
    given = sound(operation, path=path)
    given["capability"]["exposes"] = [*exposed, *given["capability"]["exposes"]]
    return given


def rest(path: str, method: str = "GET", **operation: Any) -> Json:
    """A REST adapter with one route."""
    return {"type": "rest", "resources": [rest_resource(path, method, **operation)]}


def rest_resource(path: str, method: str = "GET", /, **operation: Any) -> Json:
    return {"path": path, "operations": [{"method": method, "call": "things.op"} | operation]}


def named(name: str, method: str = "GET", hints: Json | None = None, **operation: Any) -> Json:
    """A capability whose tool has this name and these hints."""
    return sound({"method": method} | operation, tool={"name": name} | ({"hints": hints} if hints else {}))


def without_method(given: Json) -> Json:
    del given["capability"]["consumes"][0]["resources"][0]["operations"][0]["method"]
    return given


def changed_tool(**tool: Any) -> Json:
    return sound(tool=tool)


def lifecycle() -> Json:
    return {
        "read": {"operation": "op", "id": "id"},
        "shape": {"id": "id", "state": "state"},
        "states": {"running": ["on"]},
    }


BODY = {"name": "body", "in": "body", "type": "object"}
IN_PATH = {"name": "id", "in": "path", "description": "Which."}


def test_a_sound_capability_has_no_findings() -> None:
    assert findings(sound()) == []


@dataclass(frozen=True)
class Case:
    """A capability, and the one thing that is wrong with it."""

    code: str
    given: Json
    place: tuple[str | int, ...]
    message: str
    mend: str | None = None
    environment: tuple[str, ...] | None = None


IMPORTING = with_exposed()
IMPORTING["capability"]["consumes"].append({"namespace": "others", "import": "other-file"})
CALLING_IMPORTED = with_tools({"name": "t", "description": TOLD, "call": "others.list"})
CALLING_IMPORTED["capability"]["consumes"].append({"namespace": "others", "import": "other-file"})
OF_ANOTHER_TYPE = sound(type="grpc")
TWICE = with_tools(
    {"name": "one", "description": "Gets one thing.", "call": "things.get", "with": {"a": "tools.a"}},
    {"name": "two", "description": "Gets another thing.", "call": "things.get", "with": {"b": "tools.b"}},
    operations=[
        {"name": "get", "inputParameters": [{"name": "a"}]},
        {"name": "get", "inputParameters": [{"name": "b"}]},
    ],
)
AMBIGUOUS = with_tools(
    {"name": "one", "description": TOLD, "call": "things.get"},
    operations=[{"name": "get"}, {"name": "get", "method": "POST"}],
)
SEVERAL = sound(path="/{id}")
SEVERAL["capability"]["consumes"][0]["resources"].append(
    {"path": "/{id}/parts", "operations": [{"name": "parts", "method": "GET"}]}
)
SEVERAL["capability"]["exposes"][0]["tools"] += [
    {"name": "parts", "description": "Lists parts.", "call": "things.parts"},
    {"name": "again", "description": "Gets it again.", "call": "things.op"},
]

CASES = [
    Case(
        "unknown-version",
        with_root(sound(), naftiko="9.0.0"),
        ("naftiko",),
        "version 9.0.0 is not known here; known are 1.0.0-alpha1, 1.0.0-alpha2, 1.0.0-alpha3",
    ),
    Case(
        "unsupported-kind",
        with_exposed({"type": "skill"}),
        (*EXPOSES, "type"),
        "an adapter of type skill is not served",
    ),
    Case(
        "unsupported-kind",
        with_exposed({"type": "control", "address": "localhost", "management": {"health": True}}),
        (*EXPOSES, "type"),
        "an adapter of type control is not served",
    ),
    Case(
        "unsupported-kind",
        with_exposed({"type": "mcp", "resources": [{"name": "readme", "uri": "a://b"}]}),
        (*EXPOSES, "resources"),
        "resources of an MCP adapter are not served, its tools are",
    ),
    Case(
        "unsupported-kind",
        OF_ANOTHER_TYPE,
        (*CONSUMES, "type"),
        "things is of type grpc: only http is called",
    ),
    Case(
        "unsupported-kind",
        IMPORTING,
        ("capability", "consumes", 1, "import"),
        "'other-file' is imported from another file, which is not read",
        "Copy the consumes into this file.",
    ),
    Case(
        "unsupported-kind",
        with_root(sound(), binds=[{"namespace": "file", "location": "file:///keys.yaml", "keys": {}}]),
        ("binds", 0, "location"),
        "file:///keys.yaml is not read: the keys are those of the server's environment",
        "Set the keys in the environment.",
    ),
    Case(
        "unsupported-kind",
        changed_tool(steps=[{"name": "first"}]),
        (*TOOL, "steps"),
        "steps (several calls, one after the other) is not served",
    ),
    Case(
        "unsupported-key",
        sound({"inputParameter": []}),
        (*OPERATION, "inputParameter"),
        "the key inputParameter is not known and is ignored",
        "Write inputParameters, if that is meant.",
    ),
    Case("unsupported-key", with_root(sound(), more=1), ("more",), "the key more is not known and is ignored"),
    Case(
        "unsupported-key",
        changed_tool(hints={"readonly": True}),
        (*TOOL, "hints", "readonly"),
        "the key readonly is not known and is ignored",
        "Write readOnly, if that is meant.",
    ),
    Case(
        "no-tools", with_root(sound(), capability={}), ("capability", "exposes"), "there are no MCP tools in this file"
    ),
    Case(
        "empty-base-uri",
        sound(baseUri=""),
        (*CONSUMES, "baseUri"),
        "baseUri is empty",
        "Set THING_BASE_URL in the server's environment, or write the address in an overlay.",
    ),
    Case("empty-base-uri", sound(baseUri=None), (*CONSUMES, "baseUri"), "there is no baseUri"),
    Case("empty-base-uri", sound(baseUri="/v1"), (*CONSUMES, "baseUri"), "baseUri /v1 is no http address"),
    Case(
        "empty-base-uri",
        sound(baseUri="https://${REGION}.example"),
        (*CONSUMES, "baseUri"),
        "baseUri https://${REGION}.example has a placeholder that nothing fills",
    ),
    Case(
        "empty-base-uri",
        sound(baseUri="", baseUriEnv="THING_HOST"),
        (*CONSUMES, "baseUri"),
        "baseUri is empty",
        environment=("THING_KEY",),
    ),
    Case(
        "unsupported-authentication",
        sound(authentication={"type": "oauth1"}),
        (*CONSUMES, "authentication"),
        "things authenticates by oauth1, which this server cannot do",
    ),
    Case(
        "incomplete-authentication",
        sound(authentication={"type": "bearer"}),
        (*CONSUMES, "authentication"),
        "things authenticates by bearer and does not say with what",
    ),
    Case(
        "unbound-credential",
        sound(authentication={"type": "bearer", "token": "{{env.MY_KEY}}"}),
        (*CONSUMES, "authentication", "token"),
        "MY_KEY is used and no bind declares it",
        "Declare it: binds with keys {MY_KEY: MY_KEY}.",
    ),
    Case(
        "unbound-credential",
        sound(inputs({"name": "a", "value": [5]}, {"name": "X-A", "in": "header", "value": [1, "{{MY_TOKEN}}"]})),
        (*OPERATION, "inputParameters", 1, "value", 1),
        "MY_TOKEN is used and no bind declares it",
    ),
    Case(
        "unbound-credential",
        sound({"method": "POST", "body": {"type": "json", "data": {"key": "{{env.MY_KEY}}"}}}),
        (*OPERATION, "body", "data", "key"),
        "MY_KEY is used and no bind declares it",
    ),
    Case(
        "unbound-credential",
        changed_tool(**{"with": {"limit": "{{env.MY_LIMIT}}"}}) | {"binds": []},
        OPERATION,
        "MY_LIMIT is used and no bind declares it",
    ),
    Case(
        "unset-credential",
        sound(),
        ("binds", 0, "keys", "THING_KEY"),
        "THING_KEY is not set in the environment",
        "Set THING_KEY where the server runs.",
        environment=(),
    ),
    Case(
        "unset-credential",
        with_root(sound(), binds=[{"keys": {"KEY": ["FIRST", "SECOND"]}}]),
        ("binds", 0, "keys", "KEY"),
        "FIRST or SECOND is not set in the environment, and is to be KEY",
        "Set FIRST where the server runs.",
        environment=("THIRD",),
    ),
    Case(
        "call-to-nothing",
        changed_tool(call="things.opp"),
        (*TOOL, "call"),
        "thing-do-it calls things.opp, which is not there",
        "Write things.op, if that is meant.",
    ),
    Case("call-to-nothing", changed_tool(call=""), (*TOOL, "call"), "thing-do-it does not say what it calls"),
    Case(
        "call-to-nothing",
        CALLING_IMPORTED,
        (*TOOL, "call"),
        "thing-t calls others.list, which is in another file",
        "Copy the consumes of the other file into this one.",
    ),
    Case(
        "call-to-nothing",
        with_exposed(rest("/v1/{anything}", call="elsewhere.get")),
        (*EXPOSES, "resources", 0, "operations", 0, "call"),
        "GET /v1/{anything} calls elsewhere.get, which is not there",
    ),
    Case(
        "duplicate-operation",
        TWICE,
        (*RESOURCE, "operations", 1, "name"),
        "things.get is there 2 times: a tool calls the one that its `with` fits",
    ),
    Case(
        "ambiguous-operation",
        AMBIGUOUS,
        (*TOOL, "call"),
        "thing-one calls things.get, and its `with` fits 2 of 2 operations",
    ),
    Case(
        "ambiguous-operation",
        with_tools(
            {"name": "one", "description": TOLD, "call": "things.get", "with": {"c": "tools.c"}},
            operations=[{"name": "get"}, {"name": "get"}],
        ),
        (*TOOL, "call"),
        "thing-one calls things.get, and its `with` fits none of 2 operations",
    ),
    Case(
        "undeclared-placeholder",
        sound(path="/things/{id}"),
        (*RESOURCE, "path"),
        "{id} in /things/{id} is not declared: the caller gets no description of it",
        "Declare id under inputParameters with in: path and a description.",
    ),
    Case(
        "undeclared-placeholder",
        sound(inputs({"name": "id", "in": "query"}, path="/{{id}}")),
        (*OPERATION, "path"),
        "{id} in /{{id}} is not declared: the caller gets no description of it",
    ),
    Case(
        "undeclared-placeholder",
        SEVERAL,
        (*RESOURCE, "path"),
        "{id} in /{id} is not declared (in 2 operations): the caller gets no description of it",
    ),
    Case(
        "absent-placeholder",
        sound(inputs({"name": "id", "in": "path"})),
        (*OPERATION, "inputParameters", 0),
        "things.op: the path /things has no place for the path parameter id",
        "Put {id} into the path.",
    ),
    Case(
        "absent-placeholder",
        sound(
            inputs({"name": "a"}, {"name": "runid", "in": "path"}, {"name": "run_id", "in": "path"}), path="/{run_id}"
        ),
        (*OPERATION, "inputParameters", 1),
        "things.op: the path /{run_id} has no place for the path parameter runid",
        "Write run_id in place of runid.",
    ),
    Case("unsafe-path", sound(path="/v1/../x"), (*RESOURCE, "path"), "things.op: the path /v1/../x leads elsewhere"),
    Case("unsafe-path", sound(path="/v1/%2E"), (*RESOURCE, "path"), "things.op: the path /v1/%2E leads elsewhere"),
    Case(
        "unclosed-template",
        sound(path="/things/{{id"),
        (*RESOURCE, "path"),
        "things.op: the path has a hole that never closes in '/things/{{id'",
    ),
    Case(
        "unclosed-template",
        sound({"method": "POST", "body": {"type": "text", "data": "a {{b"}}),
        (*OPERATION, "body", "data"),
        "things.op has a hole that never closes in 'a {{b'",
    ),
    Case(
        "unclosed-template",
        changed_tool(**{"with": {"a": "{{b"}}),
        (*TOOL, "with", "a"),
        "things.op has a hole that never closes in '{{b'",
    ),
    Case(
        "unclosed-template",
        sound(authentication={"type": "bearer", "token": "{{env.KEY"}),
        (*CONSUMES, "authentication"),
        "the authentication of things has a hole that never closes in '{{env.KEY'",
    ),
    Case(
        "unclosed-template",
        sound(path="/things{?q}"),
        (*RESOURCE, "path"),
        "things.op: the path has the hole {?q} in '/things{?q}', which only RFC 6570 has",
    ),
    Case("missing-method", without_method(sound()), OPERATION, "things.op has no method: it is called with GET"),
    Case(
        "unknown-place",
        sound(inputs({"name": "a"}, {"name": "limit", "in": "querry"})),
        (*OPERATION, "inputParameters", 1, "in"),
        "things.op: limit is in querry, which is no place in a request",
        "Write query, if that is meant.",
    ),
    Case(
        "unknown-place",
        sound(inputParameters=[{"name": "limit", "in": "matrix"}]),
        (*CONSUMES, "inputParameters", 0, "in"),
        "things.op: limit is in matrix, which is no place in a request",
    ),
    Case(
        "unknown-type",
        sound(inputs({"name": "limit", "type": "int"})),
        (*OPERATION, "inputParameters", 0, "type"),
        "things.op: the type of limit is int, which JSON Schema does not have",
        "Use string, integer, number, boolean, array or object.",
    ),
    Case(
        "unknown-type",
        sound(inputs({"name": "limit", "type": ["null", "String"]})),
        (*OPERATION, "inputParameters", 0, "type"),
        "things.op: the type of limit is String, which JSON Schema does not have",
        "Write string, if that is meant.",
    ),
    Case(
        "unreadable-mapping",
        changed_tool(outputParameters=[{"type": "string", "mapping": "$.a["}]),
        (*TOOL, "outputParameters"),
        "thing-do-it has a mapping that is no JSONPath: '$.a['",
    ),
    Case(
        "unreadable-mapping",
        changed_tool(outputParameters=[{"type": "array", "mapping": "$[?match(@.a, 'b')]"}]),
        (*TOOL, "outputParameters"),
        "thing-do-it has a mapping with a pattern, which could take without end: \"$[?match(@.a, 'b')]\"",
    ),
    Case(
        "literal-credential",
        sound(authentication={"type": "bearer", "token": "sk-1234"}),
        (*CONSUMES, "authentication"),
        "the credential of things is no variable of the environment",
    ),
    Case(
        "literal-credential",
        sound(authentication={"type": "basic", "username": "me", "password": "other.KEY"}),
        (*CONSUMES, "authentication"),
        "the credential of things is no variable of the environment",
    ),
    Case(
        "address-in-clear",
        sound(baseUri="http://api.example"),
        (*CONSUMES, "baseUri"),
        "baseUri http://api.example is not https, or has a query, and is called by nobody",
    ),
    Case(
        "address-in-clear",
        sound(baseUri="https://api.example/v1?a=b"),
        (*CONSUMES, "baseUri"),
        "baseUri https://api.example/v1?a=b is not https, or has a query, and is called by nobody",
    ),
    Case(
        "unsupported-operation",
        sound({"method": "POST", "body": {"{{a}}": 1}}),
        OPERATION,
        "has a hole in the name of a member, '{{a}}'",
    ),
    Case(
        "unknown-method", sound({"method": "FETCH"}), (*OPERATION, "method"), "things.op: FETCH is no HTTP method here"
    ),
    Case(
        "unsupported-body",
        sound({"method": "POST", "body": {"type": "avro", "data": "x"}}),
        (*OPERATION, "body", "type"),
        "things.op: a body of type avro cannot be sent",
    ),
    Case(
        "unsupported-operation",
        sound(path="https://other.example/things"),
        OPERATION,
        "has a whole address in place of a path: 'https://other.example/things'",
    ),
    Case(
        "with-unknown-input",
        sound(inputs({"name": "taskId", "in": "query"}), tool={"with": {"task_id": "tools.task_id"}}),
        (*TOOL, "with", "task_id"),
        "thing-do-it: things.op knows no input task_id: it is sent in the query",
        "Write taskId, if that is meant.",
    ),
    Case(
        "body-without-schema",
        sound(inputs({"name": "a"}, BODY, method="POST")),
        (*OPERATION, "inputParameters", 1),
        "thing-do-it: nothing is known of its body but that it is an object",
        "Describe it in the overlay: `schema` with properties on the parameter body.",
    ),
    Case(
        "body-without-schema",
        sound({"method": "POST"}, tool={"with": {"body": "tools.body"}}),
        (*TOOL, "with", "body"),
        "thing-do-it: nothing is known of its body but that it is an object",
    ),
    Case(
        "invalid-schema",
        sound(inputs({"name": "a", "schema": {"items": {"type": "text"}}})),
        (*OPERATION, "inputParameters", 0),
        "thing-do-it: its schema is not valid: $.properties.a.items.type: 'text' is not valid under any of the given "
        "schemas",
    ),
    Case(
        "invalid-schema",
        sound(inputs({"name": "a"}, {"name": "b", "schema": {"anyOf": [{"$ref": "https://schemas.example/a.json"}]}})),
        (*OPERATION, "inputParameters", 1),
        "thing-do-it: its schema refers to https://schemas.example/a.json: only references within it can be followed",
    ),
    Case(
        "invalid-schema",
        with_tools(
            {
                "name": "t",
                "description": TOLD,
                "call": "things.op",
                "inputParameters": [{"name": "q", "schema": {"minimum": "a"}}],
            },
            operations=[{"name": "op", "method": "POST", "body": {"type": "json", "data": {"q": "{{q}}"}}}],
        ),
        TOOL,
        "thing-t: its schema is not valid: $.properties.q.minimum: 'a' is not of type 'number'",
    ),
    Case("description-missing", document(), (*TOOL, "description"), "thing-do-it has no description"),
    Case(
        "description-missing",
        changed_tool(name="list-things", description="List things."),
        (*TOOL, "description"),
        "thing-list-things: its description, 'List things.', only repeats its name",
    ),
    Case(
        "description-missing",
        changed_tool(name="list-things", rename="show", description="Thing show"),
        (*TOOL, "description"),
        "thing-show: its description, 'Thing show', only repeats its name",
    ),
    Case(
        "description-missing",
        document({"description": "Do it"}),
        (*OPERATION, "description"),
        "thing-do-it: its description, 'Do it', only repeats its name",
    ),
    Case(
        "description-repeated",
        with_tools(
            {"name": "one", "description": "Manages runs", "call": "things.op"},
            {"name": "two", "description": "Manages runs.", "call": "things.op"},
        ),
        (*EXPOSES, "tools", 1, "description"),
        "thing-two has the same description as thing-one",
    ),
    Case(
        "description-too-long",
        changed_tool(description="x" * (MAX_DESCRIPTION + 1)),
        (*TOOL, "description"),
        "thing-do-it: its description has 2,049 characters, more than 2,048",
    ),
    Case(
        "description-html",
        changed_tool(description="Lists <b>all</b> things."),
        (*TOOL, "description"),
        "thing-do-it: its description holds HTML: '<b>all</b>'",
    ),
    Case(
        "description-html",
        sound(inputs({"name": "a", "description": f"Its <p>{'x' * 60}</p>"})),
        (*OPERATION, "inputParameters", 0, "description"),
        f"thing-do-it: the description of a holds HTML: '<p>{'x' * 37}…'",
    ),
    Case(
        "name-too-long",
        changed_tool(name="x" * 70),
        (*TOOL, "name"),
        f"thing-{'x' * 70} has 76 characters, more than 64: it becomes thing-{'x' * 49}-6b71f0ce",
    ),
    Case(
        "illegal-name",
        changed_tool(rename="do it now"),
        (*TOOL, "rename"),
        "'thing-do it now' cannot be listed so: it becomes thing-do-it-now",
    ),
    Case(
        "name-collision",
        with_tools(
            {"name": "get", "description": "Gets one.", "call": "things.op"},
            {"name": "get", "description": "Gets another.", "call": "things.op"},
        ),
        (*EXPOSES, "tools", 1, "name"),
        "another tool has the name thing-get: the later one is listed under another",
    ),
    Case(
        "name-collision",
        sound(inputs(IN_PATH), path="/{id}", tool={"name": "wait-for-run"}, runs=lifecycle()),
        (*TOOL, "name"),
        "another tool has the name thing-wait-for-run: the later one is listed under another",
    ),
    Case(
        "useless-name",
        with_tools(
            {"name": "get-a", "description": "Gets one.", "call": "things.op"},
            {"name": "get-a-2", "description": "Gets another.", "call": "things.op"},
        ),
        (*EXPOSES, "tools", 1, "name"),
        "thing-get-a-2 differs from thing-get-a by a number only",
    ),
    Case(
        "contradicting-hint",
        named("cancel-run", "POST"),
        (*TOOL, "hints", "destructive"),
        "thing-cancel-run is not destructive, and its name says that it is (cancel)",
        "Set destructive: true.",
    ),
    Case(
        "contradicting-hint",
        named("thing-bulk-deletes-runs", "POST", {"destructive": False}),
        (*TOOL, "hints", "destructive"),
        "thing-thing-bulk-deletes-runs is not destructive, and its name says that it is (deletes)",
    ),
    Case(
        "contradicting-hint",
        named("get-run", "GET", {"readOnly": True, "destructive": True}),
        (*TOOL, "hints", "destructive"),
        "thing-get-run is readOnly and destructive: both cannot be",
        "Set one of them to false.",
    ),
    Case(
        "contradicting-hint",
        named("run", "GET", {"readOnly": False}),
        (*TOOL, "hints", "readOnly"),
        "thing-run has readOnly: false, and GET only reads",
        "Set readOnly: true, or repeatable: false on the operation if it changes something.",
    ),
    Case(
        "contradicting-hint",
        named("searchRuns", "POST"),
        (*TOOL, "hints", "readOnly"),
        "thing-searchRuns has readOnly: false, and its name says that it only reads (search)",
    ),
    Case(
        "contradicting-hint",
        named("run", "POST", {"readOnly": True}),
        (*TOOL, "hints", "readOnly"),
        "thing-run is readOnly, and POST changes something",
        "Set readOnly: false, or repeatable: true on the operation if it only reads.",
    ),
    Case(
        "contradicting-hint",
        named("get-run", "PUT", {"readOnly": True}),
        (*TOOL, "hints", "readOnly"),
        "thing-get-run is readOnly, and PUT changes something",
    ),
    Case(
        "event-stream-suspected",
        sound(path="/runs/stream/"),
        (*OPERATION, "accept"),
        "thing-do-it seems to be a stream of events (its path is /runs/stream/), and asks for application/json",
    ),
    Case(
        "event-stream-suspected",
        named("stream-runs"),
        (*OPERATION, "accept"),
        "thing-stream-runs seems to be a stream of events (its name says that it streams), and asks for "
        "application/json",
    ),
    Case(
        "event-stream-suspected",
        sound({"method": "POST", "description": "Tells of runs by server-sent events."}),
        (*OPERATION, "accept"),
        "thing-do-it seems to be a stream of events (its description speaks of server-sent events), and asks for "
        "application/json",
    ),
    Case(
        "rest-variable-unmatched",
        with_exposed(rest("/v1/{run}"), operation=inputs(IN_PATH), path="/{id}"),
        (*EXPOSES, "resources", 0, "path"),
        "GET /v1/{run}: {run} is no argument of things.op",
    ),
    Case(
        "rest-variable-unmatched",
        with_exposed(rest("/v1/{taskids}"), operation=inputs(IN_PATH | {"name": "taskId"}), path="/{taskId}"),
        (*EXPOSES, "resources", 0, "path"),
        "GET /v1/{taskids}: {taskids} is no argument of things.op",
        "Write taskId, if that is meant.",
    ),
    Case(
        "rest-route-collision",
        with_exposed(
            {"type": "rest", "resources": [rest_resource("/v1/{id}/"), rest_resource("/v1/{ID}", "get")]},
            operation=inputs(IN_PATH),
            path="/{id}",
        ),
        (*EXPOSES, "resources", 1, "path"),
        "GET /v1/{ID} is GET /v1/{id}/ as well: only the first is reached",
    ),
    Case(
        "unfilled-hole",
        sound(errors=[{"says": r"use (?P<root>\S+)", "hint": "Use {rot}."}]),
        (*CONSUMES, "errors", 0, "hint"),
        "the hint has a hole {rot}, and `says` has no group of that name",
        "Write {root}, if that is meant.",
    ),
    Case(
        "unfilled-hole",
        sound(errors=[{"says": r"use (?P<root>\S+)", "hint": "Use {parent}."}]),
        (*CONSUMES, "errors", 0, "hint"),
        "the hint has a hole {parent}, and `says` has no group of that name",
        "Write {root}, if that is meant.",
    ),
    Case(
        "unfilled-hole",
        sound(errors=[{"status": 401, "hint": "Check {credentials}."}]),
        (*CONSUMES, "errors", 0, "hint"),
        "the hint has a hole {credentials}, and `says` has no group of that name",
        "Write {credential}, if that is meant.",
    ),
    Case(
        "absent-argument",
        sound(inputs({"name": "limits"}, {"name": "after"}, paging={"size": 5, "cursor": "after", "next": "id"})),
        (*OPERATION, "paging", "limit"),
        "thing-do-it: paging names the argument limit, which the tool does not have",
        "Write limits, if that is meant.",
    ),
    Case(
        "absent-argument",
        sound(inputs({"name": "limit"}, paging={"size": 5, "offset": "offset"})),
        (*OPERATION, "paging", "offset"),
        "thing-do-it: paging names the argument offset, which the tool does not have",
    ),
    Case(
        "absent-argument",
        sound(
            inputs(
                BODY | {"schema": {"properties": {"files": {"items": {"properties": {"name": {}}}}}}},
                method="POST",
                upload={"files": "body.files[*]", "prepared": "files[*]", "form": "form"},
            )
        ),
        (*OPERATION, "upload", "files"),
        "thing-do-it: upload names content, which is nowhere in the tool's schema",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code} {case.message[:40]}")
def test_what_is_wrong_is_found_at_its_place(case: Case) -> None:
    found = [one for one in findings(case.given, case.environment) if one.code == case.code]
    assert [(one.place, one.message) for one in found] == [(case.place, case.message)]
    assert case.mend is None or found[0].mend == case.mend


def capable(*binds: Json, **authentication: Any) -> Json:
    return with_root(sound(authentication=authentication), binds=list(binds))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(with_root(sound(), **{"x-owner": "me"}), id="an extension's key"),
        pytest.param(
            with_exposed({"type": "rest", "address": "localhost", "port": 8080}), id="an adapter's own address"
        ),
        pytest.param(sound(baseUri="", baseUriEnv="THING_HOST"), id="an address of each installation"),
        pytest.param(sound(baseUri="https://{{env.THING_KEY}}.example"), id="an address with a variable"),
        pytest.param(
            capable(
                {"keys": {"KEY": ["FIRST_KEY", "SECOND_KEY"]}},
                type="basic",
                username="{{KEY}}",
                password="{{env.FIRST_KEY}}",
            ),
            id="credentials by each of their names",
        ),
        pytest.param(
            sound(
                inputs({"name": "REGION", "in": "environment"}, {"name": "q", "value": "{{REGION}}"}),
                path="/{REGION}/things",
            ),
            id="inputs of the environment",
        ),
        pytest.param(sound(inputs(IN_PATH), path="/{id}"), id="a declared placeholder"),
        pytest.param(sound(inputs({"name": "id"}), path="/{id}"), id="a placeholder that is declared without a place"),
        pytest.param(sound(inputParameters=[IN_PATH]), id="a path parameter of the adapter"),
        pytest.param(
            sound(path="/{id}", tool={"with": {"id": "fixed"}}),
            id="a placeholder that the file fills and nobody asks for",
        ),
        pytest.param(
            sound(path="/{id}", tool={"inputParameters": [{"name": "id", "description": "Which."}]}),
            id="a placeholder that the tool describes",
        ),
        pytest.param(sound(inputs(IN_PATH, path="/{{tools.id}}")), id="a placeholder that says whose it is"),
        pytest.param(sound(path="/a..b/.well-known/c."), id="dots in a path"),
        pytest.param(sound(baseUri="http://localhost:8080/v1"), id="an address of this machine"),
        pytest.param(sound(baseUri="{{env.THING_KEY}}/v1"), id="an address that begins with a variable"),
        pytest.param(sound(inputs({"name": "a", "in": "formData", "type": "file"}, method="POST")), id="a file"),
        pytest.param(sound(inputs({"name": "a", "in": "Form"}, method="POST")), id="a field of a form"),
        pytest.param(sound(inputs({"name": "a", "type": ["string", "null"]})), id="a type that may be null"),
        pytest.param(
            sound({"method": "POST", "body": {"type": "avro", "more": 1}}), id="a body with a member called type"
        ),
        pytest.param(sound(authentication={"type": "none"}), id="no authentication"),
        pytest.param(sound(authentication={"type": "basic", "username": "{{THING_KEY}}"}), id="no password"),
        pytest.param(
            sound(authentication={"type": "basic", "username": "me", "password": "{{THING_KEY}}"}), id="a user's name"
        ),
        pytest.param(sound(authentication={"type": "bearer", "token": "env.THING_KEY"}), id="a variable in words"),
        pytest.param(sound(authentication={"type": "bearer", "token": "${THING_KEY}"}), id="a variable of a shell"),
        pytest.param(changed_tool(outputParameters=[{"mapping": "$..a[0:2]"}]), id="an output by JSONPath"),
        pytest.param(sound({"method": "patch"}), id="a method in small letters"),
        pytest.param(
            sound(inputs(BODY | {"schema": {"properties": {"a": {}}}}, method="POST")), id="a body that is described"
        ),
        pytest.param(sound(inputs(BODY | {"type": "array"}, method="POST")), id="a body that is a list"),
        pytest.param(sound(inputs(BODY | {"value": {}}, method="POST")), id="a body that is not asked for"),
        pytest.param(sound(inputs(BODY | {"name": "filter"}, method="POST")), id="a member of a body"),
        pytest.param(
            sound(
                {"method": "POST", "body": {"type": "json", "data": {"a": "{{a}}"}}}, tool={"with": {"a": "tools.a"}}
            ),
            id="a hole of a body in with",
        ),
        pytest.param(sound(tool={"with": {"Accept": "tools.Accept"}}), id="a header of ours in with"),
        pytest.param(
            sound(inputs({"name": "a", "schema": {"properties": {"$ref": {"type": "string"}}, "$ref": "#"}})),
            id="a reference within a schema",
        ),
        pytest.param(changed_tool(description="x" * MAX_DESCRIPTION), id="a long description"),
        pytest.param(
            changed_tool(description="Takes <id>, List<String> & a <token>; 1 < 2 > 0. R&D; <a> or <b>."),
            id="a description with braces that are no HTML",
        ),
        pytest.param(changed_tool(name="x" * 58), id="a name of 64 characters"),
        pytest.param(
            with_tools(
                {"name": "oauth", "description": "Tells of one.", "call": "things.op"},
                {"name": "oauth2", "description": "Tells of another.", "call": "things.op"},
                {"name": "list-v-3", "description": "Lists.", "call": "things.op"},
            ),
            id="names with numbers that mean something",
        ),
        pytest.param(
            with_tools(
                {"name": "get-a", "description": "Gets one.", "call": "things.op"},
                {"name": "get-a-2", "rename": "follow-a", "description": "Follows one.", "call": "things.op"},
            ),
            id="a number that nobody sees",
        ),
        pytest.param(named("cancel-run", "POST", {"destructive": True}), id="a cancel that is destructive"),
        pytest.param(named("delete-status", "GET"), id="a read of what a deletion does"),
        pytest.param(named("remove-background", "POST"), id="a remove that removes nothing of anybody's"),
        pytest.param(
            named("get-token", "GET", {"readOnly": False}, repeatable=False), id="a GET that is known to write"
        ),
        pytest.param(named("presign", "POST", {"readOnly": True}, repeatable=True), id="a POST that is known to read"),
        pytest.param(named("search-things", "POST", {"readOnly": True}), id="a search by POST"),
        pytest.param(
            sound({"method": "POST"}, path="/graphql", tool={"name": "x", "hints": {"readOnly": True}}),
            id="a query of GraphQL",
        ),
        pytest.param(named("get-or-create-run", "POST"), id="a get that creates"),
        pytest.param(named("list-update", "PUT"), id="a list that is a noun"),
        pytest.param(sound({"accept": "text/event-stream"}, path="/stream"), id="a stream that is called as one"),
        pytest.param(sound(path="/videos/{id}/stream", inputParameters=[IN_PATH]), id="a stream of video"),
        pytest.param(sound(path="/events"), id="a list of events"),
        pytest.param(named("stream", "GET"), id="a stream that is a noun"),
        pytest.param(named("stream-things", "POST"), id="a stream by POST that nobody tells of"),
        pytest.param(
            with_exposed(
                {
                    "type": "rest",
                    "resources": [
                        rest_resource("/v1/{task-id}/{key}", **{"with": {"task_id": "rest.task_id", "key": "rest.k"}})
                    ],
                },
                operation=inputs(IN_PATH | {"name": "task_id"}, IN_PATH | {"name": "key"}),
                path="/{task_id}/{key}",
            ),
            id="REST variables in another spelling",
        ),
        pytest.param(
            with_exposed(
                {"type": "rest", "resources": [rest_resource("/v1/a"), rest_resource("/v1/a", "POST")]},
            ),
            id="two methods of a REST path",
        ),
        pytest.param(
            sound(
                errors=[
                    {"says": "(?P<scope>x)", "hint": "Give {credential} the scope {scope}."},
                    {"says": "invalid", "hint": "Not on this run: {missing_artifact_ids}."},
                    {"status": 404},
                ]
            ),
            id="hints whose holes are filled",
        ),
        pytest.param(
            sound(inputs({"name": "limit"}, {"name": "offset"}, paging={"size": 5, "offset": "offset"})),
            id="paging by what is there",
        ),
        pytest.param(
            sound(
                inputs(
                    BODY | {"schema": {"properties": {"files": {}}}},
                    method="POST",
                    upload={"files": "body.files[*]", "prepared": "files[*]", "form": "form"},
                )
            ),
            id="an upload of files of which nothing is known",
        ),
        pytest.param(
            sound(
                inputs(
                    BODY | {"schema": {"properties": {"files": True}}},
                    method="POST",
                    upload={"files": "body.files[*]", "prepared": "files[*]", "form": "form"},
                )
            ),
            id="an upload of files that may be anything",
        ),
    ],
)
def test_what_is_not_wrong_is_not_found(given: Json) -> None:
    assert findings(given) == []


def test_what_the_environment_has_is_not_asked_for() -> None:
    given = sound(baseUri="https://{host}", baseUriEnv="THING_HOST")
    assert findings(given, ("THING_KEY", "THING_HOST")) == []
    assert findings(given, ("THING_KEY", "THING_BASE_URL")) == []


def test_what_follows_from_a_finding_is_no_finding_of_its_own() -> None:
    def codes(given: Json) -> list[str]:
        return [one.code for one in findings(given)]

    assert codes(sound(authentication={"type": "oauth1"})) == ["unsupported-authentication"]
    assert codes(OF_ANOTHER_TYPE) == ["unsupported-kind"]
    none_fits = with_tools(
        {"name": "one", "description": TOLD, "call": "things.get", "with": {"c": "tools.c"}},
        operations=[{"name": "get"}, {"name": "get", "method": "HEAD"}],
    )
    assert codes(AMBIGUOUS) == codes(none_fits) == ["duplicate-operation", "ambiguous-operation"]
    for kind in ({"type": "control", "management": {"health": True}}, {"type": "skill", "skills": [], "port": 1}):
        assert codes(with_exposed(kind)) == ["unsupported-kind"]
    with_resources = {"type": "mcp", "resources": [{"name": "readme", "uri": "a://b"}]}
    assert codes(with_exposed(with_resources)) == ["unsupported-kind"]
    # The broken path has no placeholders, and what REST makes of it is not told as well.
    assert codes(with_exposed(rest("/v1/{id}"), path="/{{id")) == ["unclosed-template"]


def test_each_thing_is_told_once() -> None:
    given = with_exposed(rest("/v1/things"), path="/a/../b")
    assert [one.code for one in findings(given)] == ["unsafe-path"]


def test_an_unusable_address_is_told_once_for_all_tools() -> None:
    given = sound(baseUri="")
    given["capability"]["exposes"][0]["tools"].append(
        {"name": "again", "description": "Does it again.", "call": "things.op"}
    )
    given["capability"]["consumes"].append({"namespace": "unused"})
    assert [one.code for one in findings(given)] == ["empty-base-uri"]


def test_a_placeholder_of_two_adapters_is_told_of_each() -> None:
    given = sound(path="/{id}")
    given["capability"]["consumes"].append(
        {
            "namespace": "more",
            "baseUri": "https://more.example",
            "resources": [{"path": "/{id}", "operations": [{"name": "op", "method": "GET"}]}],
        }
    )
    given["capability"]["exposes"][0]["tools"].append({"name": "more", "description": "More.", "call": "more.op"})
    assert [one.place[2] for one in findings(given) if one.code == "undeclared-placeholder"] == [0, 1]


def test_keyed_maps_have_the_places_of_lists() -> None:
    given = sound(path="/{id}")
    given["capability"]["consumes"] = {"things": given["capability"]["consumes"][0]}
    assert [one.place for one in findings(given)] == [(*RESOURCE, "path")]


def test_files_that_have_tools_of_one_name_are_told_of_it() -> None:
    one = parse_capability(sound(), "a.yaml")
    other = parse_capability(with_exposed({"type": "rest"}), "b.yaml")
    third = parse_capability(changed_tool(name="other", rename="do-it"), "c.yaml")
    told = "thing-do-it is a tool of a.yaml too: this one is listed with a mark of its file"
    assert list(check_together([one, other, third])) == [
        (1, Finding("name-collision", ("capability", "exposes", 1, "tools", 0, "name"), told)),
        (2, Finding("name-collision", (*TOOL, "rename"), told)),
    ]


def test_files_that_have_other_names_are_not_told_of_them() -> None:
    one = parse_capability(sound(), "a.yaml")
    other = parse_capability(with_root(sound(), prefix="other"), "b.yaml")
    assert list(check_together([one, other])) == []
    # Of two in one file the file's own check tells.
    twice = with_tools({"name": "get", "call": "things.op"}, {"name": "get", "call": "things.op"})
    assert list(check_together([parse_capability(twice, "a.yaml")])) == []


BASE = sound(
    inputs({"name": "limit", "in": "query", "type": "integer"}, path="/things/{id}/{part}"),
    tool={"hints": {"readOnly": False, "destructive": True, "idempotent": None}},
    authentication={"type": "bearer", "token": "{{THING_KEY}}"},
    accept="text/plain",
)


def consumed(**keys: Any) -> Json:
    return {"capability": {"consumes": [{"namespace": "things", **keys}]}}


def resource(**keys: Any) -> Json:
    return consumed(resources=[{"name": "r", **keys}])


def operation(**keys: Any) -> Json:
    return resource(operations=[{"name": "op", **keys}])


def parameter(**keys: Any) -> Json:
    return operation(inputParameters=[keys])


def exposed(*tools: Json, **keys: Any) -> Json:
    return {"capability": {"exposes": [{"namespace": "things-mcp", "tools": list(tools), **keys}]}}


OVERLAYS = [
    Case(
        "overlay-matches-nothing",
        exposed({"name": "do-that", "description": "Other."}),
        TOOL,
        "there is no do-that among the tools of the file, and this is no whole new one",
    ),
    Case(
        "overlay-matches-nothing",
        exposed({"name": "do-itt", "description": "Other."}),
        TOOL,
        "there is no do-itt among the tools of the file, and this is no whole new one",
        "Write do-it, if that is meant.",
    ),
    Case(
        "overlay-matches-nothing",
        resource(operations=[{"name": "oper", "accept": "text/html"}]),
        OPERATION,
        "there is no oper among the operations of the file, and this is no whole new one",
    ),
    Case(
        "overlay-matches-nothing",
        consumed(resources=[{"name": "s", "operations": [{"name": "op", "method": "GET"}]}]),
        RESOURCE,
        "there is no s among the resources of the file, and this is no whole new one",
    ),
    Case(
        "overlay-matches-nothing",
        {"capability": {"consumes": [{"namespace": "thing", "baseUri": "https://a.example"}]}},
        CONSUMES,
        "there is no thing among the consumes of the file, and this is no whole new one",
        "Write things, if that is meant.",
    ),
    Case(
        "overlay-matches-nothing",
        {"capability": {"exposes": [{"namespace": "rest", "type": "rest"}]}},
        EXPOSES,
        "there is no rest among the exposes of the file, and this is no whole new one",
    ),
    Case(
        "overlay-matches-nothing",
        {"binds": [{"namespace": "vault"}]},
        ("binds", 0),
        "there is no vault among the binds of the file, and this is no whole new one",
    ),
    Case(
        "overlay-matches-nothing",
        parameter(name="limits", description="How many."),
        (*OPERATION, "inputParameters", 0),
        "there is no limits among the inputParameters of the file, and this is no whole new one",
        "Write limit, if that is meant.",
    ),
    Case(
        "overlay-matches-nothing",
        consumed(inputParameters=[{"name": "Id", "description": "Which."}]),
        (*CONSUMES, "inputParameters", 0),
        "there is no Id among the inputParameters of the file, and this is no whole new one",
    ),
    Case(
        "overlay-matches-nothing",
        consumed(authentification=None),
        (*CONSUMES, "authentification"),
        "authentification of things is null, and there is nothing to delete",
    ),
    Case("overlay-matches-nothing", {"prefix": None}, ("prefix",), "prefix is null, and there is nothing to delete"),
    Case(
        "overlay-matches-nothing",
        {"info": {"label": None}},
        ("info", "label"),
        "info.label is null, and there is nothing to delete",
    ),
    Case(
        "overlay-changes-nothing",
        consumed(inputParameters=[{"name": "id", "in": "path", "type": None}]),
        (*CONSUMES, "inputParameters", 0, "type"),
        "type of id is null, and there is nothing to delete",
        "Take it out.",
    ),
    Case(
        "overlay-changes-nothing",
        exposed({"name": "do-it", "hints": {"readOnly": True, "destructive": True}}),
        (*TOOL, "hints", "destructive"),
        "hints.destructive of do-it is true in the file as well",
    ),
    Case(
        "overlay-changes-nothing",
        exposed({"name": "do-it", "hints": {"readOnly": False}}),
        (*TOOL, "hints", "readOnly"),
        "hints.readOnly of do-it is false in the file as well",
    ),
    Case(
        "overlay-changes-nothing",
        {"info": {"tags": ["Thing", "Beta"]}},
        ("info", "tags"),
        "info.tags is ['Thing', 'Beta'] in the file as well",
    ),
    Case(
        "overlay-changes-nothing",
        operation(inputParameters=[]),
        (*OPERATION, "inputParameters"),
        "inputParameters of op is an empty list, which adds nothing and deletes nothing",
        "Write null to delete the list.",
    ),
]


@pytest.mark.parametrize("case", OVERLAYS, ids=lambda case: f"{case.code} {case.message[:40]}")
def test_what_an_overlay_says_in_vain_is_found_at_its_place(case: Case) -> None:
    found = list(check_overlay(BASE, case.given))
    assert [(one.code, one.place, one.message) for one in found] == [(case.code, case.place, case.message)]
    assert case.mend is None or found[0].mend == case.mend


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {"naftiko": "1.0.0-alpha2", "prefix": "other"},
        consumed(authentication=None, baseUri="https://other.example", type="http"),
        consumed(authentication={"token": "{{OTHER}}"}, accept=None),
        consumed(errors=[{"status": 404, "hint": "Look."}], runs={"read": {"operation": "op", "id": "id"}}),
        parameter(name="limit", **{"in": "query"}, schema={"maximum": 5, "default": None}),
        parameter(name="cursor", **{"in": "query"}),
        parameter(name="version", value="2"),
        parameter(name="region", env="REGION"),
        parameter(name="id", description="Which."),
        parameter(name="part", type="string"),
        consumed(inputParameters=[{"name": "id", "description": "Which."}, {"name": "limit", "schema": {}}]),
        operation(path="/other/{new}", inputParameters=[{"name": "new", "description": "Which."}]),
        consumed(
            inputParameters=[{"name": "outer", "in": "query"}],
            resources=[{"name": "r", "operations": [{"name": "op", "inputParameters": [{"name": "outer"}]}]}],
        ),
        resource(operations=[{"name": "new", "method": "POST", "inputParameters": [{"name": "a", "in": "query"}]}]),
        consumed(resources=[{"name": "s", "path": "/s", "operations": [{"name": "op", "method": "GET"}]}]),
        {"capability": {"consumes": [{"namespace": "m", "baseUri": "https://m.example", "resources": []}]}},
        {"capability": {"consumes": [{"namespace": "m", "baseUriEnv": "M", "resources": []}]}},
        {"capability": {"exposes": [{"namespace": "m", "type": "rest", "resources": []}]}},
        exposed({"name": "new", "call": "things.op", "with": {"limit": None}}),
        exposed({"name": "do-it", "inputParameters": [{"name": "anything"}], "outputParameters": [{"name": "a"}]}),
        exposed({"name": "do-it", "hints": {"readOnly": True, "destructive": False, "idempotent": True}}),
        {"binds": [{"namespace": "env", "keys": {"THING_KEY": ["OTHER"]}}, {"namespace": "more", "keys": {"A": "B"}}]},
        {"capability": {"consumes": {"things": {"resources": {"r": {"operations": {"op": {"method": "POST"}}}}}}}},
        {"info": {"tags": ["Other"]}},
    ],
    ids=lambda overlay: str(overlay)[-60:],
)
def test_what_an_overlay_says_with_effect_is_not_found(overlay: Json) -> None:
    assert list(check_overlay(BASE, overlay)) == []


def test_values_of_another_kind_are_a_change() -> None:
    assert list(check_overlay({"info": {"label": 1}}, {"info": {"label": True}})) == []
    assert list(check_overlay({"info": {"label": 1}}, {"info": {"label": 1.0}})) == []


@pytest.mark.parametrize("wrong", [5, [5], [{"path": 5, "inputParameters": 5}]])
def test_a_file_of_a_wrong_shape_is_read_as_far_as_it_goes(wrong: Any) -> None:
    base = {"capability": {"consumes": [{"namespace": "things", "resources": wrong, "inputParameters": [5]}]}}
    overlay = consumed(inputParameters=[{"name": "id", "description": "Which."}])
    assert [one.code for one in check_overlay(base, overlay)] == ["overlay-matches-nothing"]


def test_a_finding_has_the_severity_and_the_mend_of_its_code() -> None:
    finding = Finding("no-tools", (), "none")
    assert (finding.severity, finding.mend) == ("error", CODES["no-tools"].mend)
    assert Finding("unknown-version", (), "none").severity == "warning"
    assert Finding("no-tools", (), "none", "Do it.").mend == "Do it."


def test_each_message_and_each_mend_is_a_line_and_each_mend_a_sentence() -> None:
    for case in CASES:
        for finding in findings(case.given, case.environment):
            assert "\n" not in finding.message + finding.mend
            assert finding.mend[0].isupper()
            assert finding.mend.endswith(".")


def test_each_code_says_what_it_means_why_it_matters_and_what_to_do() -> None:
    for name, code in CODES.items():
        assert name == name.lower().replace("_", "-")
        for sentence in (code.title, code.why, code.mend):
            assert sentence[0] == "`" or sentence[0].isupper()
            assert sentence.endswith(".")
