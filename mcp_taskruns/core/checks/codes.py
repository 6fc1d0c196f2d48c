"""The rules of `mcp-taskruns check`, by their codes, and the findings that report a violation of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mcp_taskruns.core.format.names import MAX_NAME
from mcp_taskruns.core.format.operations import METHODS

MAX_DESCRIPTION = 2_048
"""The length in characters above which some clients truncate a description."""

Severity = Literal["error", "warning", "note"]
"""An error: a part of the file cannot be used. A warning: it can be used, but has a problem. A note: to confirm."""

Place = tuple[str | int, ...]
"""A path in a document: keys of mappings and indices of list items."""


@dataclass(frozen=True)
class Rule:
    """A rule for capability files. The texts are sentences for the reference page; `example` is YAML that violates it.

    `fix` is the default advice for findings that have no specific one.
    """

    severity: Severity
    title: str
    reason: str
    fix: str
    example: str = ""


RULES: Mapping[str, Rule] = {
    "invalid-file": Rule(
        "error",
        "The file is not a valid capability file.",
        "It is not YAML, does not match the format, or its overlay refers to a part that does not exist. None of its "
        "tools is served.",
        "Correct the value that the message names.",
        "capability:\n  consumes: none  # must be a list",
    ),
    "unknown-version": Rule(
        "warning",
        "The format version is unknown.",
        "Keywords added in that version are ignored, and known keywords may have another meaning.",
        "Set `naftiko` to the version of the format in which the file is written.",
        "naftiko: 2.0.0",
    ),
    "unsupported-feature": Rule(
        "warning",
        "The file uses a feature that this server does not support.",
        "That part is ignored; the rest of the file is served.",
        "Describe it with `consumes` of type http and `exposes` of type mcp.",
        "exposes:\n- type: skill",
    ),
    "unknown-key": Rule(
        "warning",
        "A key is not part of the format.",
        "It is ignored, so a misspelled keyword has no effect.",
        "Correct or remove the key.",
        "operations:\n- name: list\n  inputParameter: []  # inputParameters",
    ),
    "no-tools": Rule(
        "error",
        "The file has no MCP tools.",
        "It adds nothing that an MCP client could call.",
        "Add an adapter of type mcp with tools.",
        "exposes:\n- {type: mcp, namespace: mcp, tools: []}",
    ),
    "missing-base-uri": Rule(
        "warning",
        "The base URI of the provider is not set.",
        "It is missing, empty, not an HTTP URL, or contains a placeholder. Every call fails until it is configured.",
        "Set `baseUri`, or name an environment variable for it with `base_uri_env` in the overlay.",
        "consumes:\n- baseUri: https://{region}.api.example",
    ),
    "unsupported-authentication": Rule(
        "error",
        "The authentication type is not supported.",
        "Every call of the adapter fails.",
        "Use bearer, basic, digest or apikey if the provider accepts one of them.",
        "authentication:\n  type: oauth1",
    ),
    "incomplete-authentication": Rule(
        "error",
        "The authentication has no usable credential.",
        "Every call of the adapter fails, because requests are never sent without their credential.",
        "Name the environment variable that holds the credential.",
        "authentication:\n  type: bearer  # no token",
    ),
    "undeclared-credential": Rule(
        "warning",
        "An environment variable is used but not declared in `binds`.",
        "It is read from the environment under its own name, but people who set up the server cannot see that they "
        "need it.",
        "Declare it in `binds`.",
        "authentication:\n  type: bearer\n  token: '{{env.MY_KEY}}'  # binds has no MY_KEY",
    ),
    "unset-credential": Rule(
        "warning",
        "A declared environment variable has no value (checked with `--env` only).",
        "Calls that need it fail.",
        "Set one of its names in the environment of the server.",
    ),
    "unknown-operation": Rule(
        "error",
        "A tool calls an operation that does not exist.",
        "The tool is listed, but every call of it fails.",
        "Set `call` to the namespace and the name of an operation in this file.",
        "tools:\n- name: get-thing\n  call: things.gett  # the operation is things.get",
    ),
    "duplicate-operation": Rule(
        "warning",
        "Two operations of an adapter have the same name.",
        "If as many tools call the name, they call the operations in the order of the file. Otherwise `with` decides.",
        "Give each operation a unique name.",
        "operations:\n- {name: post, method: POST}\n- {name: post, method: POST}",
    ),
    "ambiguous-operation": Rule(
        "error",
        "A tool calls a name that several operations have, and its `with` does not select one.",
        "The tool is listed, but every call of it fails, because nobody knows which operation is meant.",
        "Give each operation a unique name.",
        "call: things.post  # two operations have this name and the parameters in `with`",
    ),
    "undeclared-placeholder": Rule(
        "warning",
        "A path placeholder is not declared as a parameter.",
        "The tool has a string argument for it, but no description for the model.",
        "Declare it in `inputParameters` with `in: path` and a description.",
        "path: /projects/{project_id}  # no inputParameters",
    ),
    "missing-placeholder": Rule(
        "error",
        "A path parameter has no placeholder in the path.",
        "Without its value the request would address another resource, so every call fails.",
        "Add the placeholder to the path.",
        "path: /emails\ninputParameters:\n- {name: email_id, in: path}",
    ),
    "unsafe-path": Rule(
        "error",
        "A path has a `.` or `..` segment.",
        "Such a segment changes which URL is requested, so every call fails.",
        "Write the path without `.` and `..` segments.",
        "path: /v1/../admin",
    ),
    "invalid-template": Rule(
        "error",
        "A placeholder is not closed or has no name.",
        "The literal text is never sent, so every call fails.",
        "Close the braces, or put a name between them.",
        "path: /things/{{id",
    ),
    "missing-method": Rule(
        "error",
        "An operation has no HTTP method.",
        "It is called with GET, which may be wrong.",
        "Set `method`.",
        "operations:\n- name: create-job  # needs method: POST",
    ),
    "unknown-parameter-location": Rule(
        "error",
        "The location of a parameter does not exist.",
        "The parameter cannot be sent, so every call fails.",
        "Use path, query, header, cookie, body or environment.",
        "inputParameters:\n- {name: limit, in: querry}",
    ),
    "unknown-parameter-type": Rule(
        "warning",
        "The type of a parameter is not a JSON Schema type.",
        "The type is omitted from the tool's input schema.",
        "Use string, integer, number, boolean, array or object.",
        "inputParameters:\n- {name: limit, in: query, type: int}",
    ),
    "invalid-output-mapping": Rule(
        "warning",
        "An output mapping is not valid JSONPath, or uses a regular expression.",
        "The complete response is returned instead.",
        "Use a path such as $.data.id, $.items[*] or $['a b'].",
        "outputParameters:\n- {type: string, mapping: '$.a['}",
    ),
    "costly-output-mapping": Rule(
        "error",
        "An output mapping could visit the values of a response again and again.",
        "A large response would keep the server busy for hours, so the complete response is returned instead.",
        "Use `..` once, one filter, and in it only paths to single values such as @.id.",
        "outputParameters:\n- {type: array, mapping: '$..*..*..*'}",
    ),
    "hardcoded-credential": Rule(
        "warning",
        "A credential is written in the file.",
        "Everyone who can read the file has the secret; or it is the name of a variable that is never looked up.",
        "Refer to a key that `binds` declares, as in {{env.KEY}}.",
        "authentication: {type: bearer, token: sk-1234}",
    ),
    "insecure-base-uri": Rule(
        "error",
        "The base URI does not use https, or has a query.",
        "Credentials are never sent unencrypted, so every call fails. Loopback addresses may use http.",
        "Use https, and declare query parameters in `inputParameters`.",
        "baseUri: http://api.example",
    ),
    "unknown-method": Rule(
        "error",
        "The HTTP method is not supported.",
        "Every call fails.",
        f"Use one of {', '.join(sorted(METHODS))}.",
        "method: FETCH",
    ),
    "unsupported-body-type": Rule(
        "error",
        "The type of a body template is not supported.",
        "Every call fails.",
        "Use json, text, xml, formUrlEncoded, multipartForm or binary.",
        "body: {type: avro, data: '{{x}}'}",
    ),
    "unsupported-operation": Rule(
        "error",
        "An operation cannot be called for another reason.",
        "The tool is listed, but every call of it fails.",
        "Correct the value that the message names.",
        "path: https://other.example/things  # a complete URL",
    ),
    "undeclared-parameter": Rule(
        "warning",
        "`with` sets a parameter that the operation does not declare.",
        "It is sent in the query under that name.",
        "Declare the parameter on the operation, or correct its name in `with`.",
        "with:\n  task_id: tools.task_id  # the operation has taskId",
    ),
    "missing-body-schema": Rule(
        "warning",
        "A request body is declared as an object without properties.",
        "The model has to guess its members.",
        "Describe the body in the overlay: set `schema` with properties on the parameter.",
        "inputParameters:\n- {name: body, in: body, type: object}",
    ),
    "invalid-schema": Rule(
        "error",
        "The input schema of a tool is not valid, or has an external reference.",
        "Clients reject the tool, and some of them all tools of the server.",
        "Use valid JSON Schema, with references inside the schema only.",
        "schema: {type: text}",
    ),
    "endless-schema": Rule(
        "error",
        "The input schema of a tool applies itself to the same value, or too many schemas to one value.",
        "Validating arguments would never end, so every call of the tool fails.",
        "Refer to a schema from inside of its `properties` or `items` only.",
        "schema: {$defs: {a: {allOf: [{$ref: '#/properties/body/$defs/a'}]}}, $ref: '#/properties/body/$defs/a'}",
    ),
    "unsafe-pattern": Rule(
        "error",
        "A regular expression can take exponential time or much memory, or is not a valid one.",
        "A short text could stop the server. Searches are ended after a while, so the pattern has no effect then.",
        "Leave only one way to match a text: do not nest quantifiers, and let alternatives begin differently.",
        "schema: {type: string, pattern: '^(a+)+$'}",
    ),
    "missing-description": Rule(
        "warning",
        "A tool has no description, or one that repeats its name.",
        "Models choose tools by their descriptions.",
        "Describe what the tool does, what it returns and when to use another one.",
        "- name: list-tasks\n  description: List tasks",
    ),
    "duplicate-description": Rule(
        "warning",
        "Two tools have the same description.",
        "A model cannot know which of them to call.",
        "Describe what each of them does.",
        "- {name: get-run, description: Manages runs}\n- {name: follow-run, description: Manages runs}",
    ),
    "description-too-long": Rule(
        "warning",
        f"The description of a tool has more than {MAX_DESCRIPTION:,} characters.",
        "Some clients truncate it, and it takes up space in every conversation.",
        "Shorten it.",
    ),
    "html-in-description": Rule(
        "warning",
        "A description contains HTML.",
        "Models and people see the markup.",
        "Use plain text.",
        "description: <p>Lists tasks &amp; runs.</p>",
    ),
    "tool-name-too-long": Rule(
        "warning",
        f"The name of a tool has more than {MAX_NAME} characters including its prefix.",
        "Some clients reject all tools of a server that lists such a name, so it is truncated and ends with a digest.",
        "Set a shorter name in the overlay, with `rename` or `prefix`.",
    ),
    "invalid-tool-name": Rule(
        "warning",
        "The name of a tool has characters that clients reject.",
        "They are replaced by `-`, so the listed name differs from the written one.",
        "Use only letters, digits, `_` and `-`.",
        "- name: list tasks!",
    ),
    "duplicate-tool-name": Rule(
        "warning",
        "Two tools have the same name.",
        "The second one is listed under another name.",
        "Set another name for one of them in the overlay, with `rename` or `prefix`.",
        "tools:\n- {name: get, call: things.one}\n- {name: get, call: things.two}",
    ),
    "numbered-tool-name": Rule(
        "warning",
        "The name of a tool differs from that of another tool by a number only.",
        "A model cannot know what the number means.",
        "Name the tool after what it does, with `rename` in the overlay.",
        "tools:\n- name: get-thing\n- name: get-thing-2",
    ),
    "contradictory-hint": Rule(
        "warning",
        "The hints of a tool contradict its name or its method.",
        "Clients run read-only tools without asking and confirm destructive ones, so a wrong hint is dangerous or "
        "annoying.",
        "Correct `hints`; if they are right, set `safe_to_retry` on the operation.",
        "- name: cancel-run\n  hints: {destructive: false}",
    ),
    "undeclared-event-stream": Rule(
        "warning",
        "An operation seems to return an event stream, but is not declared as one.",
        "Its requests do not accept text/event-stream, and some providers reject such requests.",
        "Set `accept: text/event-stream` on the operation.",
        "path: /runs/{id}/stream",
    ),
    "unknown-rest-variable": Rule(
        "warning",
        "A variable of a REST path is not an argument of the operation.",
        "Its value in a request is ignored.",
        "Name the variable like the argument; case, `-` and `_` are ignored.",
        "- path: /v1/runs/{run}\n  operations:\n  - with: {runId: rest.runId}",
    ),
    "duplicate-rest-route": Rule(
        "warning",
        "Two REST operations of a file have the same method and path.",
        "Only the first one can be reached.",
        "Change one of the paths.",
        "resources:\n- {path: '/v1/things/{id}'}\n- {path: '/v1/things/{name}'}",
    ),
    "unknown-hint-placeholder": Rule(
        "warning",
        "A hint or a note has a placeholder that nothing fills.",
        "The placeholder appears in the text. Only hints of error rules have placeholders.",
        "In the hint of an error rule, use the name of a group of the pattern.",
        "message_matches: use (?P<root>\\S+)\nhint: Use {rot}.",
    ),
    "unknown-argument": Rule(
        "error",
        "An overlay keyword refers to an argument that the tool does not have.",
        "The keyword has no effect.",
        "Name an argument of the tool, or declare it.",
        "paging: {page_size_argument: per_page, ...}  # the tool has limit",
    ),
    "to-confirm": Rule(
        "note",
        "A comment that begins with `check:` marks something to confirm.",
        "`mcp-taskruns new` writes such comments at everything that it guessed.",
        "Confirm it or correct it, then remove the comment.",
        "# check: these fields were recognised by their names\nfields: {id: $.id, status: $.state}",
    ),
    "unused-overlay-entry": Rule(
        "error",
        "An overlay entry matches nothing in the capability file.",
        "It has no effect or adds an incomplete part. Usually the name is misspelled.",
        "Correct the name, or remove the entry.",
        "tools:\n  list-taks:\n    description: Lists tasks.",
    ),
    "redundant-overlay-entry": Rule(
        "warning",
        "An overlay entry has the value that the capability file has already.",
        "It has no effect and hides the entries that have one.",
        "Remove it from the overlay.",
        "hints: {readOnly: true}  # as in the file",
    ),
}


@dataclass(frozen=True)
class Finding:
    """A violation of a rule: the rule's code, the place in the document, and texts for people.

    `fix` is a sentence; it defaults to that of the rule.
    """

    code: str
    place: Place
    message: str
    fix: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fix", self.fix or RULES[self.code].fix)

    @property
    def severity(self) -> Severity:
        """The severity of the rule."""
        return RULES[self.code].severity
