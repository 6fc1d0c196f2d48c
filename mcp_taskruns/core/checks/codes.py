"""The kinds of mistakes in capability files and overlays, each with its code: what a finding is made of."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from mcp_taskruns.core.format.names import MAX_NAME
from mcp_taskruns.core.format.operations import METHODS

MAX_DESCRIPTION = 2_048
"""Longer descriptions are cut by some clients."""

Place = tuple[str | int, ...]
"""Keys, and numbers of the items of lists."""


@dataclass(frozen=True)
class Code:
    """A kind of finding. An error: something of the file cannot be served; a warning: it can, and badly."""

    severity: Literal["error", "warning"]
    title: str
    why: str
    mend: str
    example: str = ""


CODES: Mapping[str, Code] = {
    "invalid-file": Code(
        "error",
        "The file cannot be read as a capability.",
        "It is no YAML, not in the format, or its overlay names what is not there: no tool of it is served.",
        "Change what the message names.",
        "capability:\n  consumes: none  # has to be a list",
    ),
    "unknown-version": Code(
        "warning",
        "The version of the format is not known.",
        "Words that it added are ignored, and known ones may mean something else.",
        "Write the version whose format the file has.",
        "naftiko: 2.0.0",
    ),
    "unsupported-kind": Code(
        "warning",
        "A kind of part that this server does not serve.",
        "The part is ignored, and the rest of the file is served.",
        "Describe the same with `consumes` of type http and `exposes` of type mcp.",
        "exposes:\n- type: skill",
    ),
    "unsupported-key": Code(
        "warning",
        "A key that the format does not have.",
        "It is ignored: a misspelled word has no effect, and nothing else says so.",
        "Correct the key, or take it out.",
        "operations:\n- name: list\n  inputParameter: []  # inputParameters",
    ),
    "no-tools": Code(
        "error",
        "The file has no MCP tools.",
        "An MCP client sees nothing of it.",
        "Add an adapter of type mcp with tools.",
        "exposes:\n- {type: mcp, namespace: mcp, tools: []}",
    ),
    "empty-base-uri": Code(
        "warning",
        "The provider's address is not in the file.",
        "It is empty, missing, no http address, or holds a placeholder: each call is an error until it is set.",
        "Write the address in `baseUri`, or the names of variables that hold it in the overlay's `baseUriEnv`.",
        "consumes:\n- baseUri: https://{region}.api.example",
    ),
    "unsupported-authentication": Code(
        "error",
        "A kind of authentication that this server cannot do.",
        "Each call of the adapter is an error.",
        "Use bearer, basic, digest or apikey, where the provider takes one of them.",
        "authentication:\n  type: oauth1",
    ),
    "incomplete-authentication": Code(
        "error",
        "Authentication that does not say with what.",
        "Each call of the adapter is an error: no request is sent without its key.",
        "Say which variable holds the key.",
        "authentication:\n  type: bearer  # and no token",
    ),
    "unbound-credential": Code(
        "warning",
        "A variable is used that no `binds` declares.",
        "It is read from the environment under its own name, and who sets up the server does not see that it needs it.",
        "Declare it under `binds`.",
        "authentication:\n  type: bearer\n  token: '{{env.MY_KEY}}'  # binds has no MY_KEY",
    ),
    "unset-credential": Code(
        "warning",
        "A variable that is declared has no value in the environment (told with --env).",
        "Calls that need it are errors.",
        "Set one of its names where the server runs.",
    ),
    "call-to-nothing": Code(
        "error",
        "A tool calls an operation that is not there.",
        "It is listed, and each call of it is an error.",
        "Write `call` as the namespace and the name of an operation of this file.",
        "tools:\n- name: get-thing\n  call: things.gett  # the operation is things.get",
    ),
    "duplicate-operation": Code(
        "warning",
        "Two operations of an adapter have the same name.",
        "Which one a tool calls is told only by the inputs in its `with`.",
        "Give each operation a name of its own.",
        "operations:\n- {name: post, method: POST}\n- {name: post, method: POST}",
    ),
    "ambiguous-operation": Code(
        "error",
        "A tool calls one of several operations of the same name, and its `with` does not tell which.",
        "The first is called, which may be the wrong one.",
        "Give each operation a name of its own.",
        "call: things.post  # there are two, and both take what `with` has",
    ),
    "undeclared-placeholder": Code(
        "warning",
        "A placeholder of a path is not declared as a parameter.",
        "The tool asks for it as text, and nothing tells the model what it is.",
        "Declare it under `inputParameters` with `in: path` and a description.",
        "path: /projects/{project_id}  # no inputParameters",
    ),
    "absent-placeholder": Code(
        "error",
        "A path parameter has no place in the path.",
        "Its value would not be sent, so that something else would be read or changed: each call is an error.",
        "Put the placeholder into the path.",
        "path: /emails\ninputParameters:\n- {name: email_id, in: path}",
    ),
    "unsafe-path": Code(
        "error",
        "A path leads elsewhere.",
        "A segment `.` or `..` changes which address is called: each call is an error.",
        "Write the path that is meant, without it.",
        "path: /v1/../admin",
    ),
    "unclosed-template": Code(
        "error",
        "A hole that has no end, or no name.",
        "It is never sent as it is written: each call is an error.",
        "Close the braces, or name what belongs between them.",
        "path: /things/{{id",
    ),
    "missing-method": Code(
        "error",
        "An operation without a method.",
        "It is called with GET, which may not be what it is.",
        "Write its method.",
        "operations:\n- name: create-job  # without method: POST",
    ),
    "unknown-place": Code(
        "error",
        "A parameter in no place that a request has.",
        "Nothing can be sent for it, so each call is an error.",
        "Use path, query, header, cookie, body or environment.",
        "inputParameters:\n- {name: limit, in: querry}",
    ),
    "unknown-type": Code(
        "warning",
        "A parameter of no type that JSON Schema has.",
        "Clients are told nothing of its type.",
        "Use string, integer, number, boolean, array or object.",
        "inputParameters:\n- {name: limit, in: query, type: int}",
    ),
    "unreadable-mapping": Code(
        "warning",
        "An output mapping that is no JSONPath, or has a pattern in it.",
        "The answer is returned whole instead.",
        "Write a path such as $.data.id, $.items[*] or $['a b'].",
        "outputParameters:\n- {type: string, mapping: '$.a['}",
    ),
    "literal-credential": Code(
        "warning",
        "A credential that stands in the file.",
        "Who has the file has the secret, or it is the name of one that nobody looks up.",
        "Name a key that `binds` declares, {{env.KEY}}.",
        "authentication: {type: bearer, token: sk-1234}",
    ),
    "address-in-clear": Code(
        "error",
        "An address that is not https, or that has a query.",
        "Credentials are not sent in clear, so each call is an error; loopback is allowed.",
        "Write https://, and put a query into inputParameters.",
        "baseUri: http://api.example",
    ),
    "unknown-method": Code(
        "error",
        "No HTTP method of the format.",
        "Each call is an error.",
        f"Use one of {', '.join(sorted(METHODS))}.",
        "method: FETCH",
    ),
    "unsupported-body": Code(
        "error",
        "A type of body template that this server cannot send.",
        "Each call is an error.",
        "Use json, text, xml, formUrlEncoded, multipartForm or binary.",
        "body: {type: avro, data: '{{x}}'}",
    ),
    "unsupported-operation": Code(
        "error",
        "An operation that cannot be called, for another reason.",
        "The tool is listed, and each call of it is an error.",
        "Change what the message names.",
        "path: https://other.example/things  # a whole address",
    ),
    "with-unknown-input": Code(
        "warning",
        "`with` has an input that the operation does not declare.",
        "It is sent in the query, under that name.",
        "Declare the input on the operation, or correct its name in `with`.",
        "with:\n  task_id: tools.task_id  # the operation has taskId",
    ),
    "body-without-schema": Code(
        "warning",
        "Nothing is known of a body but that it is an object.",
        "A model has to guess its members.",
        "Describe the body in the overlay: `schema` with properties on the parameter.",
        "inputParameters:\n- {name: body, in: body, type: object}",
    ),
    "invalid-schema": Code(
        "error",
        "A tool's input schema is not valid, or refers to what cannot be followed.",
        "Clients refuse the tool, some of them all tools with it.",
        "Write JSON Schema, with references only within it.",
        "schema: {type: text}",
    ),
    "description-missing": Code(
        "warning",
        "A tool has no description, or one that repeats its name.",
        "A model chooses tools by what is said of them.",
        "Say what the tool does, what it returns and when to use another one.",
        "- name: list-tasks\n  description: List tasks",
    ),
    "description-repeated": Code(
        "warning",
        "Two tools have the same description.",
        "No model can tell from it which of them to call.",
        "Say of each what it does.",
        "- {name: get-run, description: Manages runs}\n- {name: follow-run, description: Manages runs}",
    ),
    "description-too-long": Code(
        "warning",
        f"A tool's description has more than {MAX_DESCRIPTION:,} characters.",
        "Some clients cut it, and it costs each conversation its length.",
        "Shorten it.",
    ),
    "description-html": Code(
        "warning",
        "A description holds HTML.",
        "Models and people read the markup instead of the text.",
        "Write plain text.",
        "description: <p>Lists tasks &amp; runs.</p>",
    ),
    "name-too-long": Code(
        "warning",
        f"A tool's name has more than {MAX_NAME} characters with its prefix.",
        "Some clients refuse all tools of a server that lists one, so it is cut and ends with a digest.",
        "Give a shorter name, in an overlay with `rename` or `prefix`.",
    ),
    "illegal-name": Code(
        "warning",
        "A tool's name has characters that clients refuse.",
        "They become `-`, so that the tool is not listed as it is written.",
        "Use letters, digits, `_` and `-` only.",
        "- name: list tasks!",
    ),
    "name-collision": Code(
        "warning",
        "Two tools have the same name.",
        "The later one is listed under another name.",
        "Give one of them another name, in an overlay with `rename` or `prefix`.",
        "tools:\n- {name: get, call: things.one}\n- {name: get, call: things.two}",
    ),
    "useless-name": Code(
        "warning",
        "A tool's name is another one's with a number.",
        "No model can tell what the number means.",
        "Name the tool after what it does, in an overlay with `rename`.",
        "tools:\n- name: get-thing\n- name: get-thing-2",
    ),
    "contradicting-hint": Code(
        "warning",
        "A tool's hints contradict its name or its method.",
        "Clients ask before destructive calls and run read-only ones unasked: a wrong hint deletes, or is in the way.",
        "Correct `hints`; where they are right, say `repeatable` on the operation.",
        "- name: cancel-run\n  hints: {destructive: false}",
    ),
    "event-stream-suspected": Code(
        "warning",
        "An operation seems to be a stream of events and is not called as one.",
        "The request does not ask for text/event-stream, and some providers answer that with an error.",
        "Say `accept: text/event-stream` on the operation.",
        "path: /runs/{id}/stream",
    ),
    "rest-variable-unmatched": Code(
        "warning",
        "A variable of a REST path is no argument of its operation.",
        "What stands there in a request is lost.",
        "Name the variable as the argument; case, `-` and `_` do not matter.",
        "- path: /v1/runs/{run}\n  operations:\n  - with: {runId: rest.runId}",
    ),
    "rest-route-collision": Code(
        "warning",
        "Two REST operations of a file have the same method and path.",
        "Only one of them can be reached.",
        "Change the path of one.",
        "resources:\n- {path: '/v1/things/{id}'}\n- {path: '/v1/things/{name}'}",
    ),
    "unfilled-hole": Code(
        "warning",
        "A hint of an error rule has a hole that seems to be meant for a group of `says`.",
        "Who reads the hint sees the hole.",
        "Name the group as the hole.",
        "says: use (?P<root>\\S+)\nhint: Use {rot}.",
    ),
    "absent-argument": Code(
        "error",
        "An overlay's word names an argument that the tool does not have.",
        "What the word is for does not work.",
        "Name an argument of the tool, or declare it.",
        "paging: {limit: per_page, ...}  # the tool has limit",
    ),
    "overlay-matches-nothing": Code(
        "error",
        "An entry of an overlay refines nothing.",
        "What it says has no effect, or is added as half a part; as a rule the name is misspelled.",
        "Correct the name, or take the entry out.",
        "tools:\n- name: list-taks\n  description: Lists tasks.",
    ),
    "overlay-changes-nothing": Code(
        "warning",
        "An overlay says what the file says already.",
        "It hides which of its entries matter.",
        "Take it out of the overlay.",
        "hints: {readOnly: true}  # as in the file",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, where, and the sentence that says what to do."""

    code: str
    place: Place
    message: str
    mend: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mend", self.mend or CODES[self.code].mend)

    @property
    def severity(self) -> str:
        """`error` or `warning`."""
        return CODES[self.code].severity


def did_you_mean(written: str, known: Collection[str]) -> str:
    close = get_close_matches(written, list(known), 1, 0.7)
    return f"Write {close[0]}, if that is meant." if close else ""
