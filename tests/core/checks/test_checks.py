import hashlib
from dataclasses import dataclass
from typing import Any

import pytest

from mcp_taskruns.core.checks.capability import check_capability, check_together
from mcp_taskruns.core.checks.codes import MAX_DESCRIPTION, RULES, Finding
from mcp_taskruns.core.checks.overlay import check_overlay
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import parse_capability
from tests.core.documents import Json, document, inputs

DESCRIPTION = "Does one thing with another."
CONSUMES = ("capability", "consumes", 0)
RESOURCE = (*CONSUMES, "resources", 0)
OPERATION = (*RESOURCE, "operations", 0)
EXPOSES = ("capability", "exposes", 0)
TOOL = (*EXPOSES, "tools", 0)


def findings(given: Json, environment: tuple[str, ...] | None = None) -> list[Finding]:
    capability = parse_capability(given, "things-api.yaml")
    return list(check_capability(capability, compile_tools([capability]), environment))


def valid(operation: Json | None = None, *, tool: Json | None = None, **more: Any) -> Json:
    """A capability without findings, apart from those that the arguments cause."""
    return document({"method": "GET"} | (operation or {}), tool={"description": DESCRIPTION} | (tool or {}), **more)


def with_root(given: Json, **root: Any) -> Json:
    return given | root


def with_tools(*tools: Json, operations: list[Json] | None = None) -> Json:
    """A valid capability with these tools."""
    given = valid()
    given["capability"]["exposes"][0]["tools"] = list(tools)
    if operations is not None:
        given["capability"]["consumes"][0]["resources"][0]["operations"] = [
            {"method": "GET"} | one for one in operations
        ]
    return given


def with_exposed(*exposed: Json, operation: Json | None = None, path: str = "/things") -> Json:
    """A valid capability with these adapters before its own."""
    given = valid(operation, path=path)
    given["capability"]["exposes"] = [*exposed, *given["capability"]["exposes"]]
    return given


def rest(path: str, method: str = "GET", **operation: Any) -> Json:
    """A REST adapter with one route."""
    return {"type": "rest", "resources": [rest_resource(path, method, **operation)]}


def rest_resource(path: str, method: str = "GET", /, **operation: Any) -> Json:
    return {"path": path, "operations": [{"method": method, "call": "things.op"} | operation]}


def named(name: str, method: str = "GET", hints: Json | None = None, **operation: Any) -> Json:
    """A capability whose tool has this name and these hints."""
    return valid({"method": method} | operation, tool={"name": name} | ({"hints": hints} if hints else {}))


def without_method(given: Json) -> Json:
    del given["capability"]["consumes"][0]["resources"][0]["operations"][0]["method"]
    return given


def with_credentials(bind: Json, authentication: Any = None, **declared: Any) -> Json:
    """A valid capability with this bind and authentication, which may be given by its keys."""
    return with_root(valid(authentication=authentication or declared), binds=[bind])


OAUTH: Json = {
    "type": "oauth2",
    "tokenUri": "/token",
    "clientId": "{{THING_KEY}}",
    "clientSecret": "{{THING_KEY}}",
}
ALTERNATIVES: list[Json] = [
    {"type": "bearer", "token": "{{A_KEY}}"},
    {"type": "basic", "username": "{{USER_NAME}}", "password": "{{PASSWORD}}"},
]


def with_tool(**tool: Any) -> Json:
    return valid(tool=tool)


def lifecycle() -> Json:
    return {
        "read": {"operation": "op", "run_id_argument": "id"},
        "fields": {"id": "$.id", "status": "$.status"},
        "statuses": {"running": ["on"]},
    }


BODY = {"name": "body", "in": "body", "type": "object"}
IN_PATH = {"name": "id", "in": "path", "description": "Which."}


def test_valid_capability_has_no_findings() -> None:
    assert findings(valid()) == []


@dataclass(frozen=True)
class Case:
    """A capability or overlay, and the one finding of this rule."""

    code: str
    given: Json
    place: tuple[str | int, ...]
    message: str
    fix: str | None = None
    environment: tuple[str, ...] | None = None


IMPORTING = with_exposed()
IMPORTING["capability"]["consumes"].append({"namespace": "others", "import": "other-file"})
CALLING_IMPORTED = with_tools({"name": "t", "description": DESCRIPTION, "call": "others.list"})
CALLING_IMPORTED["capability"]["consumes"].append({"namespace": "others", "import": "other-file"})
GRPC = valid(type="grpc")
DUPLICATE = with_tools(
    {"name": "one", "description": "Gets one thing.", "call": "things.get", "with": {"a": "tools.a"}},
    {"name": "two", "description": "Gets another thing.", "call": "things.get", "with": {"b": "tools.b"}},
    operations=[
        {"name": "get", "inputParameters": [{"name": "a"}]},
        {"name": "get", "inputParameters": [{"name": "b"}]},
    ],
)
AMBIGUOUS = with_tools(
    {"name": "one", "description": DESCRIPTION, "call": "things.get"},
    operations=[{"name": "get"}, {"name": "get", "method": "POST"}],
)
SEVERAL = valid(path="/{id}")
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
        with_root(valid(), naftiko="9.0.0"),
        ("naftiko",),
        "the version 9.0.0 is unknown; known versions: 1.0.0-alpha1, 1.0.0-alpha2, 1.0.0-alpha3",
    ),
    Case(
        "unsupported-feature",
        with_exposed({"type": "skill"}),
        (*EXPOSES, "type"),
        "adapters of type skill are not supported",
    ),
    Case(
        "unsupported-feature",
        with_exposed({"type": "control", "address": "localhost", "management": {"health": True}}),
        (*EXPOSES, "type"),
        "adapters of type control are not supported",
    ),
    Case(
        "unsupported-feature",
        with_exposed({"type": "mcp", "resources": [{"name": "readme", "uri": "a://b"}]}),
        (*EXPOSES, "resources"),
        "resources of MCP adapters are not supported",
    ),
    Case(
        "unsupported-feature",
        GRPC,
        (*CONSUMES, "type"),
        "things has type grpc; only http is supported",
    ),
    Case(
        "unsupported-feature",
        IMPORTING,
        ("capability", "consumes", 1, "import"),
        "imports are not supported: 'other-file'",
        "Copy the `consumes` of the other file into this one.",
    ),
    Case(
        "unsupported-feature",
        with_root(valid(), binds=[{"namespace": "file", "location": "file:///keys.yaml", "keys": {}}]),
        ("binds", 0, "location"),
        "file:///keys.yaml is not read; keys are taken from the environment",
        "Set the keys in the environment.",
    ),
    Case(
        "unsupported-feature",
        with_tool(steps=[{"name": "first"}]),
        (*TOOL, "steps"),
        "`steps` (sequences of calls) is not supported",
    ),
    Case(
        "unknown-key",
        valid({"inputParameter": []}),
        (*OPERATION, "inputParameter"),
        "the key `inputParameter` is unknown and ignored",
        "Did you mean `inputParameters`?",
    ),
    Case("unknown-key", with_root(valid(), more=1), ("more",), "the key `more` is unknown and ignored"),
    Case(
        "unknown-key",
        with_tool(hints={"readonly": True}),
        (*TOOL, "hints", "readonly"),
        "the key `readonly` is unknown and ignored",
        "Did you mean `readOnly`?",
    ),
    Case("no-tools", with_root(valid(), capability={}), ("capability", "exposes"), "the file has no MCP tools"),
    Case(
        "missing-base-uri",
        valid(baseUri=""),
        (*CONSUMES, "baseUri"),
        "`baseUri` is empty",
        "Set THING_BASE_URL in the environment of the server, or set `baseUri` in an overlay.",
    ),
    Case("missing-base-uri", valid(baseUri=None), (*CONSUMES, "baseUri"), "`baseUri` is missing"),
    Case("missing-base-uri", valid(baseUri="/v1"), (*CONSUMES, "baseUri"), "`baseUri` /v1 is not an HTTP URL"),
    Case(
        "missing-base-uri",
        valid(baseUri="https://${REGION}.example"),
        (*CONSUMES, "baseUri"),
        "`baseUri` https://${REGION}.example has a placeholder without a value",
    ),
    Case(
        "missing-base-uri",
        valid(baseUri="", base_uri_env="THING_HOST"),
        (*CONSUMES, "baseUri"),
        "`baseUri` is empty",
        environment=("THING_KEY",),
    ),
    Case(
        "unsupported-authentication",
        valid(authentication={"type": "oauth1"}),
        (*CONSUMES, "authentication"),
        "things has the unsupported authentication type oauth1",
    ),
    Case(
        "incomplete-authentication",
        valid(authentication={"type": "bearer"}),
        (*CONSUMES, "authentication"),
        "things has authentication of type bearer without a credential",
    ),
    Case(
        "unsupported-authentication",
        valid(authentication={"type": "oauth2", "grantType": "password"}),
        (*CONSUMES, "authentication"),
        "things has authentication of type oauth2 with the grant type password",
    ),
    Case(
        "incomplete-authentication",
        valid(authentication={**OAUTH, "tokenUri": "http://login.example/token"}),
        (*CONSUMES, "authentication"),
        "things has the token endpoint http://login.example/token, which does not use https",
        "Use an https URL: http is for loopback addresses only.",
    ),
    Case(
        "undeclared-credential",
        valid(authentication=[{**OAUTH, "clientSecret": "{{env.MY_SECRET}}"}, {"type": "none"}]),
        (*CONSUMES, "authentication", 0, "clientSecret"),
        "MY_SECRET is used but not declared in `binds`",
    ),
    Case(
        "undeclared-credential",
        valid(authentication={"type": "bearer", "token": "{{env.MY_KEY}}"}),
        (*CONSUMES, "authentication", "token"),
        "MY_KEY is used but not declared in `binds`",
        "Declare it in `binds`, with keys {MY_KEY: MY_KEY}.",
    ),
    Case(
        "undeclared-credential",
        valid(inputs({"name": "a", "value": [5]}, {"name": "X-A", "in": "header", "value": [1, "{{MY_TOKEN}}"]})),
        (*OPERATION, "inputParameters", 1, "value", 1),
        "MY_TOKEN is used but not declared in `binds`",
    ),
    Case(
        "undeclared-credential",
        valid({"method": "POST", "body": {"type": "json", "data": {"key": "{{env.MY_KEY}}"}}}),
        (*OPERATION, "body", "data", "key"),
        "MY_KEY is used but not declared in `binds`",
    ),
    Case(
        "undeclared-credential",
        with_tool(**{"with": {"limit": "{{env.MY_LIMIT}}"}}) | {"binds": []},
        OPERATION,
        "MY_LIMIT is used but not declared in `binds`",
    ),
    Case(
        "unset-credential",
        valid(),
        ("binds", 0, "keys", "THING_KEY"),
        "THING_KEY is not set in the environment",
        "Set THING_KEY in the environment of the server.",
        environment=(),
    ),
    Case(
        "unset-credential",
        with_root(valid(), binds=[{"keys": {"KEY": ["FIRST", "SECOND"]}}]),
        ("binds", 0, "keys", "KEY"),
        "FIRST or SECOND is not set in the environment (the value of KEY)",
        "Set FIRST in the environment of the server.",
        environment=("THIRD",),
    ),
    Case(
        "unset-credential",
        with_credentials({"keys": ["A_KEY", "USER_NAME", "PASSWORD"]}, ALTERNATIVES),
        ("binds", 0, "keys", "A_KEY"),
        "A_KEY, or USER_NAME and PASSWORD is not set in the environment",
        "Set A_KEY, or USER_NAME and PASSWORD in the environment of the server.",
        environment=("USER_NAME",),
    ),
    Case(
        "hardcoded-credential",
        valid(
            authentication=[{"type": "bearer", "token": "{{THING_KEY}}"}, {"type": "basic", "credentials": "me:sk-1"}]
        ),
        (*CONSUMES, "authentication"),
        "the credential of things does not refer to an environment variable",
    ),
    Case(
        "unknown-operation",
        with_tool(call="things.opp"),
        (*TOOL, "call"),
        "thing-do-it calls things.opp, which does not exist",
        "Did you mean `things.op`?",
    ),
    Case("unknown-operation", with_tool(call=""), (*TOOL, "call"), "thing-do-it has no `call`"),
    Case(
        "unknown-operation",
        CALLING_IMPORTED,
        (*TOOL, "call"),
        "thing-t calls others.list, which is in another file",
        "Copy the `consumes` of the other file into this one.",
    ),
    Case(
        "unknown-operation",
        with_exposed(rest("/v1/{anything}", call="elsewhere.get")),
        (*EXPOSES, "resources", 0, "operations", 0, "call"),
        "GET /v1/{anything} calls elsewhere.get, which does not exist",
    ),
    Case(
        "duplicate-operation",
        DUPLICATE,
        (*RESOURCE, "operations", 1, "name"),
        "2 operations have the name things.get; tools call them by their order or by `with`",
    ),
    Case(
        "ambiguous-operation",
        AMBIGUOUS,
        (*TOOL, "call"),
        "thing-one calls things.get, and its `with` matches 2 of 2 operations",
    ),
    Case(
        "ambiguous-operation",
        with_tools(
            {"name": "one", "description": DESCRIPTION, "call": "things.get", "with": {"c": "tools.c"}},
            operations=[{"name": "get"}, {"name": "get"}],
        ),
        (*TOOL, "call"),
        "thing-one calls things.get, and its `with` matches none of 2 operations",
    ),
    Case(
        "undeclared-placeholder",
        valid(path="/things/{id}"),
        (*RESOURCE, "path"),
        "{id} in /things/{id} is not declared, so its argument has no description",
        "Declare id in `inputParameters` with `in: path` and a description.",
    ),
    Case(
        "undeclared-placeholder",
        valid(inputs({"name": "id", "in": "query"}, path="/{{id}}")),
        (*OPERATION, "path"),
        "{id} in /{{id}} is not declared, so its argument has no description",
    ),
    Case(
        "undeclared-placeholder",
        SEVERAL,
        (*RESOURCE, "path"),
        "{id} in /{id} is not declared (in 2 operations), so its argument has no description",
    ),
    Case(
        "missing-placeholder",
        valid(inputs({"name": "id", "in": "path"})),
        (*OPERATION, "inputParameters", 0),
        "things.op: the path /things has no placeholder for the path parameter id",
        "Add {id} to the path.",
    ),
    Case(
        "missing-placeholder",
        valid(
            inputs({"name": "a"}, {"name": "runid", "in": "path"}, {"name": "run_id", "in": "path"}), path="/{run_id}"
        ),
        (*OPERATION, "inputParameters", 1),
        "things.op: the path /{run_id} has no placeholder for the path parameter runid",
        "Rename the parameter to run_id.",
    ),
    Case(
        "unsafe-path",
        valid(path="/v1/../x"),
        (*RESOURCE, "path"),
        "things.op: the path /v1/../x has a `.` or `..` segment",
    ),
    Case(
        "unsafe-path",
        valid(path="/v1/%2E"),
        (*RESOURCE, "path"),
        "things.op: the path /v1/%2E has a `.` or `..` segment",
    ),
    Case(
        "invalid-template",
        valid(path="/things/{{id"),
        (*RESOURCE, "path"),
        "things.op: the path has an unclosed placeholder in '/things/{{id'",
    ),
    Case(
        "invalid-template",
        valid({"method": "POST", "body": {"type": "text", "data": "a {{b"}}),
        (*OPERATION, "body", "data"),
        "things.op has an unclosed placeholder in 'a {{b'",
    ),
    Case(
        "invalid-template",
        with_tool(**{"with": {"a": "{{b"}}),
        (*TOOL, "with", "a"),
        "things.op has an unclosed placeholder in '{{b'",
    ),
    Case(
        "invalid-template",
        valid(authentication={"type": "bearer", "token": "{{env.KEY"}),
        (*CONSUMES, "authentication"),
        "the authentication of things has an unclosed placeholder in '{{env.KEY'",
    ),
    Case(
        "invalid-template",
        valid(path="/things{?q}"),
        (*RESOURCE, "path"),
        "things.op: the path has the RFC 6570 expression {?q} in '/things{?q}', which is not supported",
    ),
    Case("missing-method", without_method(valid()), OPERATION, "things.op has no method; GET is used"),
    Case(
        "unknown-parameter-location",
        valid(inputs({"name": "a"}, {"name": "limit", "in": "querry"})),
        (*OPERATION, "inputParameters", 1, "in"),
        "things.op: limit has the unknown location querry",
        "Did you mean `query`?",
    ),
    Case(
        "unknown-parameter-location",
        valid(inputParameters=[{"name": "limit", "in": "matrix"}]),
        (*CONSUMES, "inputParameters", 0, "in"),
        "things.op: limit has the unknown location matrix",
    ),
    Case(
        "unknown-parameter-type",
        valid(inputs({"name": "limit", "type": "int"})),
        (*OPERATION, "inputParameters", 0, "type"),
        "things.op: limit has the unknown type int",
        "Use string, integer, number, boolean, array or object.",
    ),
    Case(
        "unknown-parameter-type",
        valid(inputs({"name": "limit", "type": ["null", "String"]})),
        (*OPERATION, "inputParameters", 0, "type"),
        "things.op: limit has the unknown type String",
        "Did you mean `string`?",
    ),
    Case(
        "invalid-output-mapping",
        with_tool(outputParameters=[{"type": "string", "mapping": "$.a["}]),
        (*TOOL, "outputParameters"),
        "thing-do-it has a mapping that is not valid JSONPath: '$.a['",
    ),
    Case(
        "invalid-output-mapping",
        with_tool(outputParameters=[{"type": "array", "mapping": "$[?match(@.a, 'b')]"}]),
        (*TOOL, "outputParameters"),
        "thing-do-it has a mapping with a regular expression, which is not supported: \"$[?match(@.a, 'b')]\"",
    ),
    Case(
        "hardcoded-credential",
        valid(authentication={"type": "bearer", "token": "sk-1234"}),
        (*CONSUMES, "authentication"),
        "the credential of things does not refer to an environment variable",
    ),
    Case(
        "hardcoded-credential",
        valid(authentication={"type": "basic", "username": "me", "password": "other.KEY"}),
        (*CONSUMES, "authentication"),
        "the credential of things does not refer to an environment variable",
    ),
    Case(
        "insecure-base-uri",
        valid(baseUri="http://api.example"),
        (*CONSUMES, "baseUri"),
        "`baseUri` http://api.example does not use https, or has a query",
    ),
    Case(
        "insecure-base-uri",
        valid(baseUri="https://api.example/v1?a=b"),
        (*CONSUMES, "baseUri"),
        "`baseUri` https://api.example/v1?a=b does not use https, or has a query",
    ),
    Case(
        "unsupported-operation",
        valid({"method": "POST", "body": {"{{a}}": 1}}),
        OPERATION,
        "has a placeholder in a key, '{{a}}'",
    ),
    Case(
        "unknown-method",
        valid({"method": "FETCH"}),
        (*OPERATION, "method"),
        "things.op: the method FETCH is not supported",
    ),
    Case(
        "unsupported-body-type",
        valid({"method": "POST", "body": {"type": "avro", "data": "x"}}),
        (*OPERATION, "body", "type"),
        "things.op: the body type avro is not supported",
    ),
    Case(
        "unsupported-operation",
        valid(path="https://other.example/things"),
        OPERATION,
        "has a URL instead of a path: 'https://other.example/things'",
    ),
    Case(
        "undeclared-parameter",
        valid(inputs({"name": "taskId", "in": "query"}), tool={"with": {"task_id": "tools.task_id"}}),
        (*TOOL, "with", "task_id"),
        "thing-do-it: things.op does not declare task_id; it is sent in the query",
        "Did you mean `taskId`?",
    ),
    Case(
        "missing-body-schema",
        valid(inputs({"name": "a"}, BODY, method="POST")),
        (*OPERATION, "inputParameters", 1),
        "thing-do-it: the body is an object without a schema",
        "Describe it in the overlay: set `schema` with properties on the parameter body.",
    ),
    Case(
        "missing-body-schema",
        valid({"method": "POST"}, tool={"with": {"body": "tools.body"}}),
        (*TOOL, "with", "body"),
        "thing-do-it: the body is an object without a schema",
    ),
    Case(
        "invalid-schema",
        valid(inputs({"name": "a", "schema": {"items": {"type": "text"}}})),
        (*OPERATION, "inputParameters", 0),
        "thing-do-it: the input schema is not valid: $.properties.a.items.type: 'text' is not valid under any of "
        "the given schemas",
    ),
    Case(
        "invalid-schema",
        valid(inputs({"name": "a"}, {"name": "b", "schema": {"anyOf": [{"$ref": "https://schemas.example/a.json"}]}})),
        (*OPERATION, "inputParameters", 1),
        "thing-do-it: the input schema has the external reference https://schemas.example/a.json",
    ),
    Case(
        "invalid-schema",
        with_tools(
            {
                "name": "t",
                "description": DESCRIPTION,
                "call": "things.op",
                "inputParameters": [{"name": "q", "schema": {"minimum": "a"}}],
            },
            operations=[{"name": "op", "method": "POST", "body": {"type": "json", "data": {"q": "{{q}}"}}}],
        ),
        TOOL,
        "thing-t: the input schema is not valid: $.properties.q.minimum: 'a' is not of type 'number'",
    ),
    Case(
        "endless-schema",
        valid(inputs({"name": "a"}, {"name": "b", "schema": {"allOf": [{"$ref": "#/properties/b"}]}})),
        (*OPERATION, "inputParameters", 1),
        "thing-do-it: validating arguments against the input schema would never end",
    ),
    Case(
        "unsafe-pattern",
        valid(inputs({"name": "a"}, {"name": "b", "schema": {"items": {"pattern": "^(a+)+$"}}})),
        (*OPERATION, "inputParameters", 1),
        "thing-do-it: the pattern `^(a+)+$` can match the same text in exponentially many ways",
    ),
    Case(
        "unsafe-pattern",
        valid(inputs({"name": "a"}, {"name": "b", "schema": {"type": "string", "pattern": "((a{300}){300}){300}"}})),
        (*OPERATION, "inputParameters", 1),
        "thing-do-it: the pattern `((a{300}){300}){300}` is too large to be compiled",
    ),
    Case(
        "unsafe-pattern",
        valid(errors={"slow": {"message_matches": "(a|a)*b", "hint": "Wait."}}),
        (*CONSUMES, "errors", "slow", "message_matches"),
        "the pattern `(a|a)*b` can match the same text in exponentially many ways",
    ),
    Case(
        "costly-output-mapping",
        valid(tool={"outputParameters": [{"type": "array", "mapping": "$..*..*..*"}]}),
        (*TOOL, "outputParameters"),
        "thing-do-it has a mapping that could take too long for a large response: '$..*..*..*'",
    ),
    Case("missing-description", document(), (*TOOL, "description"), "thing-do-it has no description"),
    Case(
        "missing-description",
        with_tool(name="list-things", description="List things."),
        (*TOOL, "description"),
        "thing-list-things: the description 'List things.' only repeats the name",
    ),
    Case(
        "missing-description",
        with_tool(name="list-things", rename="show", description="Thing show"),
        (*TOOL, "description"),
        "thing-show: the description 'Thing show' only repeats the name",
    ),
    Case(
        "missing-description",
        document({"description": "Do it"}),
        (*OPERATION, "description"),
        "thing-do-it: the description 'Do it' only repeats the name",
    ),
    Case(
        "duplicate-description",
        with_tools(
            {"name": "one", "description": "Manages runs", "call": "things.op"},
            {"name": "two", "description": "Manages runs.", "call": "things.op"},
        ),
        (*EXPOSES, "tools", 1, "description"),
        "thing-two has the same description as thing-one",
    ),
    Case(
        "description-too-long",
        with_tool(description="x" * (MAX_DESCRIPTION + 1)),
        (*TOOL, "description"),
        "thing-do-it: the description has 2,049 characters, more than 2,048",
    ),
    Case(
        "html-in-description",
        with_tool(description="Lists <b>all</b> things."),
        (*TOOL, "description"),
        "thing-do-it: the description contains HTML: '<b>all</b>'",
    ),
    Case(
        "html-in-description",
        valid(inputs({"name": "a", "description": f"Its <p>{'x' * 60}</p>"})),
        (*OPERATION, "inputParameters", 0, "description"),
        f"thing-do-it: the description of a contains HTML: '<p>{'x' * 37}…'",
    ),
    Case(
        "tool-name-too-long",
        with_tool(name="x" * 70),
        (*TOOL, "name"),
        f"thing-{'x' * 70} has 76 characters, more than 64; it is listed as thing-{'x' * 49}-6b71f0ce",
    ),
    Case(
        "invalid-tool-name",
        with_tool(rename="do it now"),
        (*TOOL, "rename"),
        "'thing-do it now' has characters that clients reject; it is listed as thing-do-it-now",
    ),
    Case(
        "duplicate-tool-name",
        with_tools(
            {"name": "get", "description": "Gets one.", "call": "things.op"},
            {"name": "get", "description": "Gets another.", "call": "things.op"},
        ),
        (*EXPOSES, "tools", 1, "name"),
        "another tool has the name thing-get; this one is listed under another name",
    ),
    Case(
        "duplicate-tool-name",
        valid(inputs(IN_PATH), path="/{id}", tool={"name": "wait-for-run"}, runs=lifecycle()),
        (*TOOL, "name"),
        "another tool has the name thing-wait-for-run; this one is listed under another name",
    ),
    Case(
        "numbered-tool-name",
        with_tools(
            {"name": "get-a", "description": "Gets one.", "call": "things.op"},
            {"name": "get-a-2", "description": "Gets another.", "call": "things.op"},
        ),
        (*EXPOSES, "tools", 1, "name"),
        "thing-get-a-2 differs from thing-get-a by a number only",
    ),
    Case(
        "contradictory-hint",
        named("cancel-run", "POST"),
        (*TOOL, "hints", "destructive"),
        "thing-cancel-run is not destructive, but its name suggests it (cancel)",
        "Set destructive: true.",
    ),
    Case(
        "contradictory-hint",
        named("thing-bulk-deletes-runs", "POST", {"destructive": False}),
        (*TOOL, "hints", "destructive"),
        "thing-bulk-deletes-runs is not destructive, but its name suggests it (deletes)",
    ),
    Case(
        "contradictory-hint",
        named("get-run", "GET", {"readOnly": True, "destructive": True}),
        (*TOOL, "hints", "destructive"),
        "thing-get-run is both readOnly and destructive",
        "Set one of them to false.",
    ),
    Case(
        "contradictory-hint",
        named("run", "GET", {"readOnly": False}),
        (*TOOL, "hints", "readOnly"),
        "thing-run has readOnly: false, but GET only reads",
        "Set readOnly: true, or safe_to_retry: false on the operation if it changes something.",
    ),
    Case(
        "contradictory-hint",
        named("searchRuns", "POST"),
        (*TOOL, "hints", "readOnly"),
        "thing-searchRuns has readOnly: false, but its name suggests that it only reads (search)",
    ),
    Case(
        "contradictory-hint",
        named("run", "POST", {"readOnly": True}),
        (*TOOL, "hints", "readOnly"),
        "thing-run is readOnly, but POST changes something",
        "Set readOnly: false, or safe_to_retry: true on the operation if it only reads.",
    ),
    Case(
        "contradictory-hint",
        named("get-run", "PUT", {"readOnly": True}),
        (*TOOL, "hints", "readOnly"),
        "thing-get-run is readOnly, but PUT changes something",
    ),
    Case(
        "undeclared-event-stream",
        valid(path="/runs/stream/"),
        (*OPERATION, "accept"),
        "thing-do-it seems to return an event stream (its path is /runs/stream/), but accepts application/json",
    ),
    Case(
        "undeclared-event-stream",
        named("stream-runs"),
        (*OPERATION, "accept"),
        "thing-stream-runs seems to return an event stream (its name begins with stream), but accepts application/json",
    ),
    Case(
        "undeclared-event-stream",
        valid({"method": "POST", "description": "Reports runs as server-sent events."}),
        (*OPERATION, "accept"),
        "thing-do-it seems to return an event stream (its description mentions server-sent events), but accepts "
        "application/json",
    ),
    Case(
        "unknown-rest-variable",
        with_exposed(rest("/v1/{run}"), operation=inputs(IN_PATH), path="/{id}"),
        (*EXPOSES, "resources", 0, "path"),
        "GET /v1/{run}: {run} is not an argument of things.op",
    ),
    Case(
        "unknown-rest-variable",
        with_exposed(rest("/v1/{taskids}"), operation=inputs(IN_PATH | {"name": "taskId"}), path="/{taskId}"),
        (*EXPOSES, "resources", 0, "path"),
        "GET /v1/{taskids}: {taskids} is not an argument of things.op",
        "Did you mean `taskId`?",
    ),
    Case(
        "duplicate-rest-route",
        with_exposed(
            {"type": "rest", "resources": [rest_resource("/v1/{id}/"), rest_resource("/v1/{ID}", "get")]},
            operation=inputs(IN_PATH),
            path="/{id}",
        ),
        (*EXPOSES, "resources", 1, "path"),
        "GET /v1/{ID} is the same route as GET /v1/{id}/, which is served instead",
    ),
    Case(
        "unknown-hint-placeholder",
        valid(errors={"rule": {"message_matches": r"use (?P<root>\S+)", "hint": "Use {rot}."}}),
        (*CONSUMES, "errors", "rule", "hint"),
        "the hint has a placeholder {rot}, but the pattern has no group of that name",
        "Did you mean `{root}`?",
    ),
    Case(
        "unknown-hint-placeholder",
        valid(errors={"rule": {"message_matches": r"use (?P<root>\S+)", "hint": "Use {parent}."}}),
        (*CONSUMES, "errors", "rule", "hint"),
        "the hint has a placeholder {parent}, but the pattern has no group of that name",
        "Did you mean `{root}`?",
    ),
    Case(
        "unknown-hint-placeholder",
        valid(errors={"rule": {"status": 401, "hint": "Check {credentials}."}}),
        (*CONSUMES, "errors", "rule", "hint"),
        "the hint has a placeholder {credentials}, but the pattern has no group of that name",
        "Did you mean `{credential}`?",
    ),
    Case(
        "unknown-argument",
        valid(
            inputs(
                {"name": "limits"},
                {"name": "after"},
                paging={"default_page_size": 5, "cursor_argument": "after", "next_cursor": "$.id"},
            )
        ),
        (*OPERATION, "paging", "page_size_argument"),
        "thing-do-it: paging refers to the argument limit, which the tool does not have",
        "Did you mean `limits`?",
    ),
    Case(
        "unknown-argument",
        valid(inputs({"name": "limit"}, paging={"default_page_size": 5, "offset_argument": "offset"})),
        (*OPERATION, "paging", "offset_argument"),
        "thing-do-it: paging refers to the argument offset, which the tool does not have",
    ),
    Case(
        "unknown-argument",
        valid(
            inputs(
                BODY | {"schema": {"properties": {"files": {"items": {"properties": {"name": {}}}}}}},
                method="POST",
                upload={"files": "$.body.files[*]", "prepared": "$.files[*]", "form_field": "form"},
            )
        ),
        (*OPERATION, "upload", "files"),
        "thing-do-it: upload refers to content, which is not in the input schema",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code} {case.message[:40]}")
def test_finding_has_code_place_and_message(case: Case) -> None:
    found = [one for one in findings(case.given, case.environment) if one.code == case.code]
    assert [(one.place, one.message) for one in found] == [(case.place, case.message)]
    assert case.fix is None or found[0].fix == case.fix


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(with_root(valid(), **{"x-owner": "me"}), id="extension key"),
        pytest.param(with_exposed({"type": "rest", "address": "localhost", "port": 8080}), id="address of an adapter"),
        pytest.param(valid(baseUri="", base_uri_env="THING_HOST"), id="base URI from an overlay variable"),
        pytest.param(valid(baseUri="https://{{env.THING_KEY}}.example"), id="base URI with a variable"),
        pytest.param(
            with_credentials(
                {"keys": {"KEY": ["FIRST_KEY", "SECOND_KEY"]}},
                type="basic",
                username="{{KEY}}",
                password="{{env.FIRST_KEY}}",
            ),
            id="credential by each of its names",
        ),
        pytest.param(
            valid(
                inputs({"name": "REGION", "in": "environment"}, {"name": "q", "value": "{{REGION}}"}),
                path="/{REGION}/things",
            ),
            id="environment parameter",
        ),
        pytest.param(valid(inputs(IN_PATH), path="/{id}"), id="declared placeholder"),
        pytest.param(valid(inputs({"name": "id"}), path="/{id}"), id="placeholder declared without a location"),
        pytest.param(valid(inputParameters=[IN_PATH]), id="path parameter declared on the adapter but not used"),
        pytest.param(
            valid(path="/{id}", tool={"with": {"id": "fixed"}}),
            id="placeholder with a constant value",
        ),
        pytest.param(
            valid(path="/{id}", tool={"inputParameters": [{"name": "id", "description": "Which."}]}),
            id="placeholder described by the tool",
        ),
        pytest.param(valid(inputs(IN_PATH, path="/{{tools.id}}")), id="placeholder with an adapter prefix"),
        pytest.param(valid(path="/a..b/.well-known/c."), id="dots inside path segments"),
        pytest.param(valid(baseUri="http://localhost:8080/v1"), id="http on loopback"),
        pytest.param(valid(baseUri="{{env.THING_KEY}}/v1"), id="base URI that begins with a variable"),
        pytest.param(
            valid(inputs({"name": "a", "in": "formData", "type": "file"}, method="POST")), id="form field of type file"
        ),
        pytest.param(valid(inputs({"name": "a", "in": "Form"}, method="POST")), id="form field"),
        pytest.param(valid(inputs({"name": "a", "type": ["string", "null"]})), id="nullable type"),
        pytest.param(
            valid({"method": "POST", "body": {"type": "avro", "more": 1}}), id="JSON body with a member named type"
        ),
        pytest.param(valid(authentication={"type": "none"}), id="no authentication"),
        pytest.param(
            valid(authentication={"type": "basic", "username": "{{THING_KEY}}"}),
            id="basic authentication without a password",
        ),
        pytest.param(
            valid(authentication={"type": "basic", "username": "me", "password": "{{THING_KEY}}"}),
            id="basic authentication with a literal username",
        ),
        pytest.param(valid(authentication={"type": "bearer", "token": "env.THING_KEY"}), id="variable as env.KEY"),
        pytest.param(valid(authentication={"type": "bearer", "token": "${THING_KEY}"}), id="variable in shell syntax"),
        pytest.param(with_tool(outputParameters=[{"mapping": "$..a[0:2]"}]), id="output mapping with JSONPath"),
        pytest.param(valid({"method": "patch"}), id="method in lower case"),
        pytest.param(
            valid(inputs(BODY | {"schema": {"properties": {"a": {}}}}, method="POST")), id="body with properties"
        ),
        pytest.param(valid(inputs(BODY | {"type": "array"}, method="POST")), id="body of type array"),
        pytest.param(valid(inputs(BODY | {"value": {}}, method="POST")), id="constant body"),
        pytest.param(
            valid(inputs(BODY | {"name": "filter"}, {"name": "limit", "in": "body"}, method="POST")),
            id="body parameters with other names",
        ),
        pytest.param(
            valid(
                {"method": "POST", "body": {"type": "json", "data": {"a": "{{a}}"}}}, tool={"with": {"a": "tools.a"}}
            ),
            id="body placeholder in with",
        ),
        pytest.param(valid(tool={"with": {"Accept": "tools.Accept"}}), id="header set by the server in with"),
        pytest.param(
            valid(inputs({"name": "a", "schema": {"properties": {"$ref": {"type": "string"}}, "$ref": "#"}})),
            id="internal schema reference",
        ),
        pytest.param(with_tool(description="x" * MAX_DESCRIPTION), id="description of maximum length"),
        pytest.param(
            with_tool(description="Takes <id>, List<String> & a <token>; 1 < 2 > 0. R&D; <a> or <b>."),
            id="description with angle brackets that are not HTML",
        ),
        pytest.param(with_tool(name="x" * 58), id="tool name of 64 characters"),
        pytest.param(
            with_tools(
                {"name": "oauth", "description": "Describes one.", "call": "things.op"},
                {"name": "oauth2", "description": "Describes another.", "call": "things.op"},
                {"name": "list-v-3", "description": "Lists.", "call": "things.op"},
            ),
            id="tool names that end with a number",
        ),
        pytest.param(
            with_tools(
                {"name": "get-a", "description": "Gets one.", "call": "things.op"},
                {"name": "get-a-2", "rename": "follow-a", "description": "Follows one.", "call": "things.op"},
            ),
            id="numbered tool that is renamed",
        ),
        pytest.param(named("cancel-run", "POST", {"destructive": True}), id="destructive cancel"),
        pytest.param(named("delete-status", "GET"), id="GET with a destructive verb"),
        pytest.param(named("remove-background", "POST"), id="remove-background"),
        pytest.param(
            named("get-token", "GET", {"readOnly": False}, safe_to_retry=False), id="GET declared as not safe_to_retry"
        ),
        pytest.param(
            named("presign", "POST", {"readOnly": True}, safe_to_retry=True), id="POST declared as safe_to_retry"
        ),
        pytest.param(named("search-things", "POST", {"readOnly": True}), id="search by POST"),
        pytest.param(
            valid({"method": "POST"}, path="/graphql", tool={"name": "x", "hints": {"readOnly": True}}),
            id="GraphQL query",
        ),
        pytest.param(named("get-or-create-run", "POST"), id="get-or-create"),
        pytest.param(named("list-update", "PUT"), id="list as a noun"),
        pytest.param(valid({"accept": "text/event-stream"}, path="/stream"), id="declared event stream"),
        pytest.param(valid(path="/videos/{id}/stream", inputParameters=[IN_PATH]), id="video stream"),
        pytest.param(valid(path="/events"), id="list of events"),
        pytest.param(named("stream", "GET"), id="stream as a noun"),
        pytest.param(named("stream-things", "POST"), id="stream by POST without a description of events"),
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
            id="REST variables with another spelling",
        ),
        pytest.param(
            with_exposed(
                {"type": "rest", "resources": [rest_resource("/v1/a"), rest_resource("/v1/a", "POST")]},
            ),
            id="two methods on a REST path",
        ),
        pytest.param(
            valid(
                errors={
                    "scope": {"message_matches": "(?P<scope>x)", "hint": "Give {credential} the scope {scope}."},
                    "artifacts": {"message_matches": "invalid", "hint": "Not on this run: {missing_artifact_ids}."},
                    "other": {"status": 404},
                }
            ),
            id="hint placeholders that are filled",
        ),
        pytest.param(
            valid(
                inputs(
                    {"name": "limit"}, {"name": "offset"}, paging={"default_page_size": 5, "offset_argument": "offset"}
                )
            ),
            id="paging with existing arguments",
        ),
        pytest.param(
            valid(
                inputs(
                    BODY | {"schema": {"properties": {"files": {}}}},
                    method="POST",
                    upload={"files": "$.body.files[*]", "prepared": "$.files[*]", "form_field": "form"},
                )
            ),
            id="upload of files without a schema",
        ),
        pytest.param(
            valid(
                inputs(
                    BODY | {"schema": {"properties": {"files": True}}},
                    method="POST",
                    upload={"files": "$.body.files[*]", "prepared": "$.files[*]", "form_field": "form"},
                )
            ),
            id="upload of files with schema true",
        ),
    ],
)
def test_valid_variant_has_no_findings(given: Json) -> None:
    assert findings(given) == []


def test_set_environment_variables_are_not_reported() -> None:
    given = valid(baseUri="https://{host}", base_uri_env="THING_HOST")
    assert findings(given, ("THING_KEY", "THING_HOST")) == []
    assert findings(given, ("THING_KEY", "THING_BASE_URL")) == []


def test_consequences_of_a_finding_are_not_reported() -> None:
    def codes(given: Json) -> list[str]:
        return [one.code for one in findings(given)]

    assert codes(valid(authentication={"type": "oauth1"})) == ["unsupported-authentication"]
    assert codes(GRPC) == ["unsupported-feature"]
    none_fits = with_tools(
        {"name": "one", "description": DESCRIPTION, "call": "things.get", "with": {"c": "tools.c"}},
        operations=[{"name": "get"}, {"name": "get", "method": "HEAD"}],
    )
    assert codes(AMBIGUOUS) == codes(none_fits) == ["duplicate-operation", "ambiguous-operation"]
    for kind in ({"type": "control", "management": {"health": True}}, {"type": "skill", "skills": [], "port": 1}):
        assert codes(with_exposed(kind)) == ["unsupported-feature"]
    with_resources = {"type": "mcp", "resources": [{"name": "readme", "uri": "a://b"}]}
    assert codes(with_exposed(with_resources)) == ["unsupported-feature"]
    # The invalid path has no placeholders; the REST route that uses it is not reported again.
    assert codes(with_exposed(rest("/v1/{id}"), path="/{{id")) == ["invalid-template"]


def test_finding_shared_by_mcp_and_rest_is_reported_once() -> None:
    given = with_exposed(rest("/v1/things"), path="/a/../b")
    assert [one.code for one in findings(given)] == ["unsafe-path"]


def test_missing_base_uri_is_reported_once_for_all_tools() -> None:
    given = valid(baseUri="")
    given["capability"]["exposes"][0]["tools"].append(
        {"name": "again", "description": "Does it again.", "call": "things.op"}
    )
    given["capability"]["consumes"].append({"namespace": "unused"})
    assert [one.code for one in findings(given)] == ["missing-base-uri"]


def test_undeclared_placeholder_is_reported_for_each_adapter() -> None:
    given = valid(path="/{id}")
    given["capability"]["consumes"].append(
        {
            "namespace": "more",
            "baseUri": "https://more.example",
            "resources": [{"path": "/{id}", "operations": [{"name": "op", "method": "GET"}]}],
        }
    )
    given["capability"]["exposes"][0]["tools"].append({"name": "more", "description": "More.", "call": "more.op"})
    assert [one.place[2] for one in findings(given) if one.code == "undeclared-placeholder"] == [0, 1]


def test_places_in_keyed_mappings_are_those_of_lists() -> None:
    given = valid(path="/{id}")
    given["capability"]["consumes"] = {"things": given["capability"]["consumes"][0]}
    assert [one.place for one in findings(given)] == [(*RESOURCE, "path")]


def test_tool_names_of_several_files_that_collide_are_reported() -> None:
    one = parse_capability(valid(), "a.yaml")
    other = parse_capability(with_exposed({"type": "rest"}), "b.yaml")
    third = parse_capability(with_tool(name="other", rename="do-it"), "c.yaml")
    fourth = parse_capability(valid(namespace="thing-users", tool={"call": "thing-users.op"}), "d.yaml")
    message = "a.yaml has a tool thing-do-it too; this one is listed as thing-"
    digests = [hashlib.sha256(f"{name}.yaml".encode()).hexdigest()[:6] for name in "bc"]
    assert list(check_together([one, other, third, fourth])) == [
        (
            1,
            Finding(
                "duplicate-tool-name", ("capability", "exposes", 1, "tools", 0, "name"), f"{message}do-it-{digests[0]}"
            ),
        ),
        (2, Finding("duplicate-tool-name", (*TOOL, "rename"), f"{message}do-it-{digests[1]}")),
        (3, Finding("duplicate-tool-name", (*TOOL, "name"), f"{message}users-do-it")),
    ]


def test_tool_names_of_several_files_that_differ_are_not_reported() -> None:
    one = parse_capability(valid(), "a.yaml")
    other = parse_capability(with_root(valid(), prefix="other"), "b.yaml")
    assert list(check_together([one, other])) == []
    # Two tools of one file are reported by the check of that file.
    twice = with_tools({"name": "get", "call": "things.op"}, {"name": "get", "call": "things.op"})
    assert list(check_together([parse_capability(twice, "a.yaml")])) == []


BASE = valid(
    inputs({"name": "limit", "in": "query", "type": "integer"}, path="/things/{id}/{part}"),
    tool={"hints": {"readOnly": False, "destructive": True, "idempotent": None}},
    authentication={"type": "bearer", "token": "{{THING_KEY}}"},
    accept="text/plain",
)


def consumed(**keys: Any) -> Json:
    return {"capability": {"consumes": {"things": keys}}}


def operation(**keys: Any) -> Json:
    return consumed(operations={"op": keys})


def parameter(name: str, **keys: Any) -> Json:
    return operation(inputParameters={name: keys})


def exposed(**tools: Json | None) -> Json:
    return {
        "capability": {
            "exposes": {"things-mcp": {"tools": {name.replace("_", "-"): keys for name, keys in tools.items()}}}
        }
    }


THINGS = ("capability", "consumes", "things")
TOOLS = ("capability", "exposes", "things-mcp", "tools")

OVERLAYS = [
    Case(
        "unused-overlay-entry",
        exposed(do_that={"description": "Other."}),
        (*TOOLS, "do-that"),
        "`tools` of the capability file has no do-that, and the entry is not a complete new item",
    ),
    Case(
        "unused-overlay-entry",
        exposed(do_itt={"description": "Other."}),
        (*TOOLS, "do-itt"),
        "`tools` of the capability file has no do-itt, and the entry is not a complete new item",
        "Did you mean `do-it`?",
    ),
    Case(
        "unused-overlay-entry",
        consumed(operations={"oper": {"accept": "text/html"}}),
        (*THINGS, "operations", "oper"),
        "`operations` of the capability file has no oper, and the entry is not a complete new item",
    ),
    Case(
        "unused-overlay-entry",
        consumed(operations={"other": {"method": "GET"}}),
        (*THINGS, "operations", "other"),
        "`operations` of the capability file has no other, and the entry is not a complete new item",
    ),
    Case(
        "unused-overlay-entry",
        consumed(operations={"other": None}),
        (*THINGS, "operations", "other"),
        "operations.other of things is null, but there is nothing to delete",
    ),
    Case(
        "unused-overlay-entry",
        {"capability": {"consumes": {"thing": {"baseUri": "https://a.example"}}}},
        ("capability", "consumes", "thing"),
        "`consumes` of the capability file has no thing, and the entry is not a complete new item",
        "Did you mean `things`?",
    ),
    Case(
        "unused-overlay-entry",
        {"capability": {"exposes": {"rest": {"type": "rest"}}}},
        ("capability", "exposes", "rest"),
        "`exposes` of the capability file has no rest, and the entry is not a complete new item",
    ),
    Case(
        "unused-overlay-entry",
        {"binds": {"vault": {}}},
        ("binds", "vault"),
        "`binds` of the capability file has no vault, and the entry is not a complete new item",
    ),
    Case(
        "unused-overlay-entry",
        parameter("limits", description="How many."),
        (*THINGS, "operations", "op", "inputParameters", "limits"),
        "`inputParameters` of the capability file has no limits, and the entry is not a complete new item",
        "Did you mean `limit`?",
    ),
    Case(
        "unused-overlay-entry",
        consumed(inputParameters={"Id": {"description": "Which."}}),
        (*THINGS, "inputParameters", "Id"),
        "`inputParameters` of the capability file has no Id, and the entry is not a complete new item",
    ),
    Case(
        "unused-overlay-entry",
        consumed(errors=None),
        (*THINGS, "errors"),
        "errors of things is null, but there is nothing to delete",
    ),
    Case("unused-overlay-entry", {"prefix": None}, ("prefix",), "prefix is null, but there is nothing to delete"),
    Case(
        "unused-overlay-entry",
        {"info": {"label": None}},
        ("info", "label"),
        "info.label is null, but there is nothing to delete",
    ),
    Case(
        "redundant-overlay-entry",
        consumed(inputParameters={"id": {"in": "path", "type": None}}),
        (*THINGS, "inputParameters", "id", "type"),
        "type of id is null, but there is nothing to delete",
        "Remove it.",
    ),
    Case(
        "redundant-overlay-entry",
        exposed(do_it={"hints": {"readOnly": True, "destructive": True}}),
        (*TOOLS, "do-it", "hints", "destructive"),
        "hints.destructive of do-it is already true in the capability file",
    ),
    Case(
        "redundant-overlay-entry",
        exposed(do_it={"hints": {"readOnly": False}}),
        (*TOOLS, "do-it", "hints", "readOnly"),
        "hints.readOnly of do-it is already false in the capability file",
    ),
    Case(
        "redundant-overlay-entry",
        {"info": {"tags": ["Thing", "Beta"]}},
        ("info", "tags"),
        "info.tags is already ['Thing', 'Beta'] in the capability file",
    ),
]


@pytest.mark.parametrize("case", OVERLAYS, ids=lambda case: f"{case.code} {case.message[:40]}")
def test_overlay_entry_without_effect_is_reported(case: Case) -> None:
    found = list(check_overlay(BASE, case.given))
    assert [(one.code, one.place, one.message) for one in found] == [(case.code, case.place, case.message)]
    assert case.fix is None or found[0].fix == case.fix


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {"overlay": 2, "prefix": "other"},
        consumed(authentication=None, baseUri="https://other.example", type="http"),
        consumed(authentication={"token": "{{OTHER}}"}, accept=None),
        consumed(errors={"gone": {"status": 404}}, runs={"read": {"operation": "op", "run_id_argument": "id"}}),
        parameter("limit", **{"in": "query"}, schema={"maximum": 5, "default": None}),
        parameter("cursor", **{"in": "query"}),
        parameter("version", value="2"),
        parameter("region", env="REGION"),
        parameter("id", description="Which."),
        parameter("part", type="string"),
        consumed(inputParameters={"id": {"description": "Which."}, "limit": {"schema": {}}}),
        operation(path="/other/{new}", inputParameters={"new": {"description": "Which."}}),
        consumed(inputParameters={"outer": {"in": "query"}}, operations={"op": {"inputParameters": {"outer": {}}}}),
        consumed(operations={"new": {"method": "POST", "path": "/n", "inputParameters": {"a": {"in": "query"}}}}),
        {"capability": {"consumes": {"m": {"baseUri": "https://m.example", "operations": {}}}}},
        {"capability": {"consumes": {"m": {"base_uri_env": "M", "operations": {}}}}},
        {"capability": {"exposes": {"m": {"type": "rest", "resources": {}}}}},
        exposed(new={"call": "things.op", "with": {"limit": None}}),
        exposed(do_it={"inputParameters": {"anything": {}}, "outputParameters": [{"name": "a"}]}),
        exposed(do_it={"hints": {"readOnly": True, "destructive": False, "idempotent": True}}),
        {"binds": {"env": {"keys": {"THING_KEY": ["OTHER"]}}, "more": {"keys": {"A": "B"}}}},
        operation(method="POST"),
        consumed(operations={"op": None}),
        exposed(do_it=None),
        {"info": {"tags": ["Other"]}},
    ],
    ids=lambda overlay: str(overlay)[-60:],
)
def test_overlay_entry_with_effect_is_not_reported(overlay: Json) -> None:
    assert list(check_overlay(BASE, overlay)) == []


def test_overlay_value_of_another_type_is_not_redundant() -> None:
    assert list(check_overlay({"info": {"label": 1}}, {"info": {"label": True}})) == []
    assert list(check_overlay({"info": {"label": 1}}, {"info": {"label": 1.0}})) == []


@pytest.mark.parametrize("wrong", [5, [5], [{"path": 5, "inputParameters": 5}]])
def test_overlay_check_tolerates_an_invalid_capability_file(wrong: Any) -> None:
    base = {"capability": {"consumes": [{"namespace": "things", "resources": wrong, "inputParameters": [5]}]}}
    overlay = consumed(inputParameters={"id": {"description": "Which."}})
    assert [one.code for one in check_overlay(base, overlay)] == ["unused-overlay-entry"]


def test_finding_has_severity_and_default_fix_of_its_rule() -> None:
    finding = Finding("no-tools", (), "none")
    assert (finding.severity, finding.fix) == ("error", RULES["no-tools"].fix)
    assert Finding("unknown-version", (), "none").severity == "warning"
    assert Finding("no-tools", (), "none", "Do it.").fix == "Do it."


def test_messages_are_single_lines_and_fixes_are_sentences() -> None:
    for case in CASES:
        for finding in findings(case.given, case.environment):
            assert "\n" not in finding.message + finding.fix
            assert finding.fix[0].isupper()
            assert finding.fix.endswith((".", "?"))


def test_rules_are_documented_in_sentences() -> None:
    for code, rule in RULES.items():
        assert code == code.lower().replace("_", "-")
        for sentence in (rule.title, rule.reason, rule.fix):
            assert sentence[0] == "`" or sentence[0].isupper()
            assert sentence.endswith(".")


def test_placeholders_in_texts_that_are_never_filled_are_reported() -> None:
    upload = {"files": "$.files", "prepared": "$.x", "form_field": "form", "hint": "Start {run}."}
    given = valid(
        inputs({"name": "files", "in": "query", "type": "array"}, upload=upload, notes=[{"text": "See {id}."}]),
        runs=lifecycle() | {"status_hints": {"on": 'Wait for {it}, or {"a": 1}.'}},
    )
    given["capability"]["consumes"][0]["resources"][0]["path"] = "/things/{id}"
    places = [one.place[-3:] for one in findings(given) if one.code == "unknown-hint-placeholder"]
    assert places == [
        ("runs", "status_hints", "on"),
        (0, "upload", "hint"),
        ("notes", 0, "text"),
    ]


FILES = {"type": "array", "items": {"type": "object", "properties": {"content": {}, "size": {}, "name": {}}}}


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, []),
        ({"files": "$.body.files[*]"}, []),
        ({"files": "$.bdy.files"}, ["files: bdy"]),
        ({"files": "$.body.fils"}, ["files: fils"]),
        ({"content_field": "cntent"}, ["content_field: cntent"]),
        ({"size_field": "sze", "name_field": "nme"}, ["name_field: nme", "size_field: sze"]),
        ({"encoding_field": "e", "media_type_field": "size"}, ["encoding_field: e"]),
    ],
)
def test_misspelled_arguments_of_uploads_are_reported(given: Json, wrong: list[str]) -> None:
    upload = {"files": "$.body.files", "prepared": "$.x", "form_field": "form"} | given
    body = {"name": "body", "in": "body", "schema": {"properties": {"files": FILES}}}
    found = findings(valid(inputs(body, method="POST", upload=upload)))
    assert [f"{one.place[-1]}: {one.message.split()[4][:-1]}" for one in found] == wrong


@pytest.mark.parametrize(
    "wrong",
    [
        {"pattern": "("},
        {"type": "text"},
        {"items": [{}]},
        {"required": True},
        {"$id": "a#b"},
        {"$defs": {"x": {"type": 5}}},
    ],
)
def test_invalid_schema_of_a_parameter_is_reported(wrong: Json) -> None:
    found = findings(valid(inputs({"name": "a", "in": "query", "schema": wrong})))
    assert [one.code for one in found] == ["invalid-schema"]


@pytest.mark.parametrize(
    "right", [{"pattern": "^a$", "minLength": 1}, {"type": ["string", "null"]}, {"prefixItems": [{}]}, {"not": False}]
)
def test_valid_schema_of_a_parameter_is_not_reported(right: Json) -> None:
    assert findings(valid(inputs({"name": "a", "in": "query", "schema": right}))) == []


@pytest.mark.parametrize(
    ("authentication", "environment"),
    [
        (ALTERNATIVES, ("A_KEY",)),
        (ALTERNATIVES, ("USER_NAME", "PASSWORD")),
        ([*ALTERNATIVES, {"type": "none"}], ()),
        ([*ALTERNATIVES, {"type": "none"}], ("USER_NAME",)),
    ],
)
def test_other_alternatives_of_a_credential_need_not_be_set(
    authentication: list[Json], environment: tuple[str, ...]
) -> None:
    given = with_credentials({"keys": ["A_KEY", "USER_NAME", "PASSWORD"]}, authentication)
    assert findings(given, environment) == []


def test_client_of_a_token_endpoint_has_no_findings() -> None:
    assert findings(valid(authentication={**OAUTH, "scopes": ["a"], "renewAfter": 403})) == []
