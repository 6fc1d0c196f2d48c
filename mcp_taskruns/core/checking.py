"""What the author of a capability file, or of its overlay, should know about it.

A finding has a code of `CODES`, and the place it is about: in the capability as `spec` reads it, with the overlay in
it, where lists are lists and each word has one spelling.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any, Literal

from mcp_taskruns.core import spec
from mcp_taskruns.core.authentication import Unsupported, parse_authentication
from mcp_taskruns.core.compiler import HINTS_BY_METHOD, compile_tool, fits
from mcp_taskruns.core.dialects import unify
from mcp_taskruns.core.naming import MAX_NAME, legal_name, prefix_of
from mcp_taskruns.core.operation import EACH, Location, Operation, Template, Tool, Variable
from mcp_taskruns.core.operations import BODY, BODY_KINDS, ENVIRONMENT, METHODS, Found
from mcp_taskruns.core.refinements import Refinements
from mcp_taskruns.core.templates import PLACEHOLDER, BrokenTemplate, Holes
from mcp_taskruns.core.text import one_line

Place = tuple[str | int, ...]
"""Keys, and numbers of the items of lists."""

MAX_DESCRIPTION = 2_048
"""Longer descriptions are cut by some clients."""


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
        "warning",
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


@dataclass(frozen=True)
class _Site(Found):
    """An operation of the provider, and its place."""

    place: Place

    @property
    def name(self) -> str:
        return f"{self.consumed.namespace}.{self.operation.name}"

    @property
    def consumed_place(self) -> Place:
        return self.place[:3]

    @property
    def path_place(self) -> Place:
        return (*(self.place if self.operation.path is not None else self.place[:-2]), "path")

    def inputs(self) -> Iterator[tuple[Place, spec.InputParameter]]:
        """The inputs that are declared for it, the innermost first."""
        scopes = ((self.place, self.operation), (self.place[:-2], self.resource), (self.consumed_place, self.consumed))
        for place, scope in scopes:
            yield from _numbered((*place, "inputParameters"), scope.input_parameters)


@dataclass(frozen=True)
class _Use:
    """What calls an operation: a tool, or an operation of a REST adapter. `site` is what it calls, None for nothing."""

    place: Place
    declared: spec.ExposedTool | spec.RestOperation
    name: str
    tool: Tool
    sites: Sequence[_Site]

    @property
    def is_ambiguous(self) -> bool:
        """Whether `with` does not tell which of several operations is called."""
        return len(self.sites) > 1 and sum(fits(self.declared, site) for site in self.sites) != 1

    @property
    def site(self) -> _Site | None:
        """The operation that is called."""
        return _chosen(self.declared, self.sites)


def _chosen(declared: spec.ExposedTool | spec.RestOperation, sites: Sequence[_Site]) -> _Site | None:
    """Of the operations of a name the one that is called, as the compiler chooses it."""
    fitting = [site for site in sites if fits(declared, site)]
    return fitting[0] if len(fitting) == 1 else next(iter(sites), None)


class _File:
    """A capability with what calls what in it."""

    def __init__(
        self, capability: spec.Capability, tools: Sequence[Tool], environment: Collection[str] | None = None
    ) -> None:
        self.capability = capability
        self.environment = environment
        self.sites: dict[str, list[_Site]] = {}
        for place, consumed in self.consumes():
            refinements = Refinements(capability.source, consumed)
            for outer, resource in _numbered((*place, "resources"), consumed.resources):
                for inner, operation in _numbered((*outer, "operations"), resource.operations):
                    site = _Site(consumed, resource, operation, refinements, inner)
                    self.sites.setdefault(site.name, []).append(site)
        self.waits = [tool for tool in tools if tool.waits]
        self.tools = list(self._tool_uses([tool for tool in tools if not tool.waits]))
        self.rest = list(self._rest_uses())

    @property
    def uses(self) -> list[_Use]:
        return [*self.tools, *self.rest]

    def consumes(self) -> Iterator[tuple[Place, spec.Consumed]]:
        return _numbered(("capability", "consumes"), self.capability.capability.consumes)

    def exposes(self) -> Iterator[tuple[Place, spec.Exposed]]:
        return _numbered(("capability", "exposes"), self.capability.capability.exposes)

    def _tool_uses(self, tools: Sequence[Tool]) -> Iterator[_Use]:
        found = [
            (inner, declared)
            for place, exposed in self.exposes()
            if exposed.type == "mcp"
            for inner, declared in _numbered((*place, "tools"), exposed.tools)
        ]
        for (place, declared), tool in zip(found, tools, strict=True):
            yield _Use(place, declared, tool.name, tool, self.sites.get(declared.call, ()))

    def _rest_uses(self) -> Iterator[_Use]:
        for place, exposed in self.exposes():
            if exposed.type != "rest":
                continue
            for outer, resource in _numbered((*place, "resources"), exposed.resources):
                for inner, declared in _numbered((*outer, "operations"), resource.operations):
                    name = f"{declared.method.upper()} {resource.path}"
                    sites = self.sites.get(declared.call, [])
                    tool = compile_tool(self.capability, declared, _chosen(declared, sites))
                    yield _Use(inner, declared, name, tool, sites)


def _numbered(place: Place, items: Sequence[Any]) -> Iterator[tuple[Place, Any]]:
    for number, item in enumerate(items):
        yield (*place, number), item


def check_capability(
    capability: spec.Capability, tools: Sequence[Tool], environment: Collection[str] | None = None
) -> Iterator[Finding]:
    """What is wrong with a capability, and with the tools that were compiled from it alone.

    `environment` are the names of the variables that are set; without it they are not looked at.
    """
    file = _File(capability, tools, environment)
    yield from dict.fromkeys(chain.from_iterable(check(file) for check in _CHECKS))


def check_together(capabilities: Sequence[spec.Capability]) -> Iterator[tuple[int, Finding]]:
    """What is wrong only because capabilities are served together; each finding with the number of its capability."""
    taken: dict[str, tuple[int, str]] = {}
    for number, capability in enumerate(capabilities):
        for place, exposed in _numbered(("capability", "exposes"), capability.capability.exposes):
            for inner, tool in _numbered((*place, "tools"), exposed.tools if exposed.type == "mcp" else ()):
                name = legal_name(_listed_name(capability, tool))
                other, source = taken.setdefault(name, (number, capability.source))
                if other != number:
                    told = f"{name} is a tool of {source} too: this one is listed with a mark of its file"
                    yield number, Finding("name-collision", _name_place(inner, tool), told)


def _listed_name(capability: spec.Capability, tool: spec.ExposedTool) -> str:
    return f"{prefix_of(capability)}-{tool.rename or tool.name}"


def _name_place(place: Place, tool: spec.ExposedTool) -> Place:
    return (*place, "rename" if tool.rename else "name")


# The whole file


def _check_version(file: _File) -> Iterator[Finding]:
    version = file.capability.naftiko
    if version not in spec.KNOWN_VERSIONS:
        known = ", ".join(sorted(spec.KNOWN_VERSIONS))
        yield Finding("unknown-version", ("naftiko",), f"version {version} is not known here; known are {known}")


_KINDS_OF_ADAPTERS = frozenset({"mcp", "rest"})

_PARTS = {
    "steps": "several calls, one after the other",
    "mappings": "what several calls return together",
    "aggregates": "parts that several adapters share",
    "functions": "parts that several adapters share",
    "ref": "a part that stands elsewhere",
    "import": "a part of another file",
    "skills": "instructions for models",
    "prompts": "texts for models",
}
"""Words of the format's other dialects whose parts are not served."""


def _check_keys(file: _File) -> Iterator[Finding]:
    for place, exposed in file.exposes():
        if exposed.type not in _KINDS_OF_ADAPTERS:
            yield Finding("unsupported-kind", (*place, "type"), f"an adapter of type {exposed.type} is not served")
        if exposed.type == "mcp" and exposed.resources:
            told = "resources of an MCP adapter are not served, its tools are"
            yield Finding("unsupported-kind", (*place, "resources"), told)
    for place, consumed in file.consumes():
        if consumed.type != "http":
            told = f"{consumed.namespace or 'consumes'} is of type {consumed.type}: only http is called"
            yield Finding("unsupported-kind", (*place, "type"), told)
        if consumed.import_ is not None:
            told = f"{consumed.import_!r} is imported from another file, which is not read"
            yield Finding("unsupported-kind", (*place, "import"), told, "Copy the consumes into this file.")
    for place, bind in _numbered(("binds",), file.capability.binds):
        if bind.location:
            told = f"{bind.location} is not read: the keys are those of the server's environment"
            yield Finding("unsupported-kind", (*place, "location"), told, "Set the keys in the environment.")
    ignored = [place for place, exposed in file.exposes() if exposed.type not in _KINDS_OF_ADAPTERS]
    ignored += [(*place, "resources") for place, exposed in file.exposes() if exposed.type == "mcp"]
    for place, known in _unknown_keys(file.capability, ()):
        key = str(place[-1])
        if any(place[: len(part)] == part for part in ignored):
            continue
        if key in _PARTS:
            yield Finding("unsupported-kind", place, f"{key} ({_PARTS[key]}) is not served")
        elif not (key.startswith("x-") or (key == "address" and len(place) == 4)):  # of adapters, as their port
            told = f"the key {key} is not known and is ignored"
            yield Finding("unsupported-key", place, told, _did_you_mean(key, known))


def _unknown_keys(part: spec.Part, place: Place) -> Iterator[tuple[Place, Sequence[str]]]:
    """The places of the keys that the format does not know, each with the keys that it knows there."""
    words = {name: info.alias or name for name, info in type(part).model_fields.items()}
    for key in part.model_extra or {}:
        yield (*place, key), list(words.values())
    for name, word in words.items():
        value = getattr(part, name)
        if isinstance(value, spec.Part):
            yield from _unknown_keys(value, (*place, word))
        elif isinstance(value, tuple):
            for inner, item in _numbered((*place, word), value):
                if isinstance(item, spec.Part):
                    yield from _unknown_keys(item, inner)


def _did_you_mean(written: str, known: Collection[str]) -> str:
    close = get_close_matches(written, list(known), 1, 0.7)
    return f"Write {close[0]}, if that is meant." if close else ""


def _check_tools_there(file: _File) -> Iterator[Finding]:
    if not file.tools:
        yield Finding("no-tools", ("capability", "exposes"), "there are no MCP tools in this file")


# The provider's side


def _check_addresses(file: _File) -> Iterator[Finding]:
    bases = {use.tool.operation.namespace: use.tool.operation.base for use in file.uses if use.site}
    for place, consumed in file.consumes():
        base = bases.get(consumed.namespace)
        if base is None or base.default is not None:
            continue
        if file.environment is None:
            is_settled = bool(consumed.base_uri_env)
        else:
            is_settled = not set(base.variables).isdisjoint(file.environment)
        if is_settled:
            continue
        written = (consumed.base_uri or "").strip()
        if not written:
            told = "baseUri is empty" if consumed.base_uri is not None else "there is no baseUri"
        elif "{" in written:
            told = f"baseUri {written} has a placeholder that nothing fills"
        else:
            told = f"baseUri {written} is no http address"
        mend = f"Set {base.variables[0]} in the server's environment, or write the address in an overlay."
        yield Finding("empty-base-uri", (*place, "baseUri"), told, mend)


def _check_authentication(file: _File) -> Iterator[Finding]:
    holes = Holes(file.capability)
    for place, consumed in file.consumes():
        here = (*place, "authentication")
        try:
            parse_authentication(consumed.authentication or {}, lambda text: holes.constant(str(text)))
        except Unsupported as exc:
            is_unknown = str(exc).endswith("cannot do")
            code = "unsupported-authentication" if is_unknown else "incomplete-authentication"
            yield Finding(code, here, f"{consumed.namespace} {exc}")
        except BrokenTemplate as exc:
            yield Finding("unclosed-template", here, f"the authentication of {consumed.namespace} has {exc}")


def _check_credentials(file: _File) -> Iterator[Finding]:
    binds = [
        ((*place, "keys", key), key, names)
        for place, bind in _numbered(("binds",), file.capability.binds)
        for key, names in bind.keys.items()
    ]
    known = {name for _, key, names in binds for name in (key, *names)}
    used: dict[str, _Site] = {}
    for use in file.uses:
        site = use.site
        if site is not None:
            known |= {declared.name for _, declared in site.inputs() if declared.location == ENVIRONMENT}
            names = chain.from_iterable(variable.names for variable in _variables(use.tool.operation))
            used |= {name: used.get(name, site) for name in names}
    for name in sorted(used.keys() - known):
        told = f"{name} is used and no bind declares it"
        mend = f"Declare it: binds with keys {{{name}: {name}}}."
        yield Finding("unbound-credential", _place_of_hole(used[name], name), told, mend)
    if file.environment is not None:
        for place, key, names in binds:
            if set(names).isdisjoint(file.environment):
                told = f"{' or '.join(names)} is not set in the environment"
                told += "" if key in names else f", and is to be {key}"
                yield Finding("unset-credential", place, told, f"Set {names[0]} where the server runs.")


def _variables(operation: Operation) -> Iterator[Variable]:
    """What of the environment it sends."""
    parts = operation.authentication.parts if operation.authentication else ()
    constants = [parameter.constant for parameter in operation.parameters]
    pending: list[Any] = [operation.path, operation.body, operation.base.default, *parts, *constants]
    while pending:
        part = pending.pop()
        if isinstance(part, Variable):
            yield part
        elif isinstance(part, dict):
            pending += part.values()
        elif isinstance(part, list | tuple):
            pending += part


def _place_of_hole(site: _Site, name: str) -> Place:
    """The first text with a hole of this name, else the operation."""
    hole = re.compile(rf"\{{\s*([\w-]+\.)*{re.escape(name)}\s*\}}")
    return next((place for place, text in _texts(site) if hole.search(text)), site.place)


def _texts(site: _Site) -> Iterator[tuple[Place, str]]:
    """The texts of an operation that may have holes."""
    yield from _leaves((*site.consumed_place, "authentication"), site.consumed.authentication)
    yield from _leaves((*site.consumed_place, "baseUri"), site.consumed.base_uri)
    yield site.path_place, site.path
    for place, declared in site.inputs():
        yield from _leaves((*place, "value"), declared.value)
    yield from _leaves((*site.place, "body"), site.operation.body)


def _leaves(place: Place, value: Any) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves((*place, key), item)
    elif isinstance(value, list):
        for inner, item in _numbered(place, value):
            yield from _leaves(inner, item)


def _check_operations(file: _File) -> Iterator[Finding]:
    """What keeps operations from being called."""
    for use in file.uses:
        site = use.site
        reason = use.tool.operation.unsupported
        if site is None or reason is None:
            continue
        told = list(_refusals(file, use, site))
        yield from told
        is_told = told or site.consumed.type != "http" or _cannot_authenticate(file, site)
        if not is_told:
            yield Finding("unsupported-operation", site.place, reason.removeprefix(f"{file.capability.source} "))


def _cannot_authenticate(file: _File, site: _Site) -> bool:
    places = [finding.place[:3] for finding in _check_authentication(file)]
    return site.consumed_place in places


def _refusals(file: _File, use: _Use, site: _Site) -> Iterator[Finding]:
    holes = Holes(file.capability)
    method, path = site.operation.method, site.path
    if method.upper() not in METHODS:
        yield Finding("unknown-method", (*site.place, "method"), f"{site.name}: {method} is no HTTP method here")
    try:
        template: Template = holes.path(path)
    except BrokenTemplate as exc:
        yield Finding("unclosed-template", site.path_place, f"{site.name}: the path has {exc}")
        return
    literal = "".join(part if isinstance(part, str) else "x" for part in template).partition("?")[0]
    if re.search(r"(^|/)(\.|%2e){1,2}(/|$)", literal, re.IGNORECASE):
        yield Finding("unsafe-path", site.path_place, f"{site.name}: the path {path} leads elsewhere")
    names = _placeholders(path)
    for place, declared in _numbered((*site.place, "inputParameters"), site.operation.input_parameters):
        if (declared.location or "").lower() == Location.PATH and declared.name not in names:
            told = f"{site.name}: the path {path} has no place for the path parameter {declared.name}"
            close = [name for name in names if _plain(name) == _plain(declared.name)]
            mend = f"Write {close[0]} in place of {declared.name}." if close else ""
            yield Finding("absent-placeholder", place, told, mend or f"Put {{{declared.name}}} into the path.")
    body = site.operation.body
    written = str(body["type"]) if isinstance(body, Mapping) and body.get("type") else "json"
    if re.sub(r"[-_ ]", "", written.lower()) not in BODY_KINDS:
        told = f"{site.name}: a body of type {written} cannot be sent"
        yield Finding("unsupported-body", (*site.place, "body", "type"), told)
    for place, text in [*_texts(site), *_leaves((*use.place, "with"), use.declared.with_)]:
        try:
            holes.template(text)
        except BrokenTemplate as exc:
            if place[:4] != (*site.consumed_place, "authentication"):
                yield Finding("unclosed-template", place, f"{site.name} has {exc}")


def _placeholders(path: str) -> list[str]:
    """The names in the holes of a path, without what says that they are the caller's."""
    written = [(double or single).strip() for double, single in PLACEHOLDER.findall(path)]
    return [name.rpartition(".")[2] if name.startswith(("tools.", "rest.", "mcp.")) else name for name in written]


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name).lower()


def _check_duplicates(file: _File) -> Iterator[Finding]:
    for name, sites in file.sites.items():
        if len(sites) > 1:
            told = f"{name} is there {len(sites)} times: a tool calls the one that its `with` fits"
            yield Finding("duplicate-operation", (*sites[1].place, "name"), told)
    for use in file.uses:
        if use.is_ambiguous:
            fitting = sum(fits(use.declared, site) for site in use.sites) or "none"
            told = f"{use.name} calls {use.declared.call}, and its `with` fits {fitting} of {len(use.sites)} operations"
            yield Finding("ambiguous-operation", (*use.place, "call"), told)


# What is called, and with what


def _check_calls(file: _File) -> Iterator[Finding]:
    imported = {name for _, one in file.consumes() if one.import_ for name in (one.import_, one.namespace)}
    for use in file.uses:
        if use.site is None:
            call = use.declared.call
            told = f"{use.name} calls {call}, which is not there" if call else f"{use.name} does not say what it calls"
            if call.partition(".")[0] in imported:
                told = f"{use.name} calls {call}, which is in another file"
            yield Finding("call-to-nothing", (*use.place, "call"), told, _did_you_mean(call, file.sites))


def _check_inputs(file: _File) -> Iterator[Finding]:
    undeclared: dict[tuple[Place, str], list[_Site]] = {}
    for use in file.uses:
        site = use.site
        if site is None or use.is_ambiguous:
            continue
        operation = use.tool.operation
        declared = {one.name for _, one in site.inputs()}
        in_path = {one.name for _, one in site.inputs() if (one.location or "path").lower() == Location.PATH}
        refined = {one.name for one in getattr(use.declared, "input_parameters", ())}
        for parameter in operation.parameters:
            if parameter.location is Location.PATH and parameter.name not in in_path:
                if parameter.argument is not None and parameter.argument not in refined:
                    known = undeclared.setdefault((site.consumed_place, parameter.name), [])
                    known += [site] if site not in known else []
            elif parameter.location is Location.QUERY and parameter.name in use.declared.with_.keys() - declared:
                told = f"{use.name}: {site.name} knows no input {parameter.name}: it is sent in the query"
                mend = _did_you_mean(parameter.name, declared)
                yield Finding("with-unknown-input", (*use.place, "with", parameter.name), told, mend)
    for (_, name), sites in undeclared.items():
        times = f" (in {len(sites)} operations)" if len(sites) > 1 else ""
        told = f"{{{name}}} in {sites[0].path} is not declared{times}: the caller gets no description of it"
        mend = f"Declare {name} under inputParameters with in: path and a description."
        yield Finding("undeclared-placeholder", sites[0].path_place, told, mend)


_DESCRIBING = frozenset({"properties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"})
"""Words of a schema, of which one at least says what an object has in it."""


def _check_bodies(file: _File) -> Iterator[Finding]:
    for use in file.tools:
        site = use.site
        if site is None:
            continue
        for parameter in use.tool.operation.parameters:
            if (parameter.location, parameter.name) != (Location.BODY, BODY) or parameter.argument is None:
                continue
            schema = use.tool.input_schema["properties"][parameter.argument]
            if schema.get("type", "object") == "object" and _DESCRIBING.isdisjoint(schema):
                declared = [place for place, one in site.inputs() if one.name == BODY]
                place = declared[0] if declared else (*use.place, "with", BODY)
                told = f"{use.name}: nothing is known of its body but that it is an object"
                mend = f"Describe it in the overlay: `schema` with properties on the parameter {BODY}."
                yield Finding("body-without-schema", place, told, mend)


def _check_schemas(file: _File) -> Iterator[Finding]:
    from jsonschema import Draft202012Validator, SchemaError

    for use in file.tools:
        schema = use.tool.input_schema
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as exc:
            told = f"{use.name}: its schema is not valid: {exc.json_path}: {exc.message[:200]}"
            yield Finding("invalid-schema", _place_of_argument(use, list(exc.path)), told)
        for path, address in _remote_references(schema, ()):
            told = f"{use.name}: its schema refers to {address}: only references within it can be followed"
            yield Finding("invalid-schema", _place_of_argument(use, path), told)


def _place_of_argument(use: _Use, path: Sequence[Any]) -> Place:
    """Where the argument is declared in whose schema this path begins."""
    argument = path[1] if len(path) > 1 else None
    names = {parameter.name for parameter in use.tool.operation.parameters if parameter.argument == argument}
    declared = [place for place, one in (use.site.inputs() if use.site else ()) if one.name in names]
    return next(iter(declared), use.place)


def _remote_references(schema: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(schema, Mapping):
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            yield path, reference
        for name, item in schema.items():
            yield from _remote_references(item, (*path, name))
    elif isinstance(schema, list):
        for item in schema:
            yield from _remote_references(item, path)


# What a model reads

_TAGS = "a|b|br|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|span|strong|sub|sup|table|td|th|tr|u|ul"
_HTML = re.compile(
    rf"<(?P<tag>{_TAGS})(\s[^<>]*)?>.*?</(?P=tag)>|<(br|hr|p|li)\s*/?>|<(a|img)\s[^<>]*>|</({_TAGS})>"
    r"|&(amp|lt|gt|quot|nbsp|apos|[lr]squo|[lr]dquo|ndash|mdash|hellip|#\d+|#x[0-9a-f]+);",
    re.IGNORECASE | re.DOTALL,
)


def _check_descriptions(file: _File) -> Iterator[Finding]:
    described: dict[str, str] = {}
    for use in file.tools:
        site = use.site
        own = use.declared.description
        outer = site.operation.description if site else None
        description = own or outer or ""
        place = (*(use.place if own or not outer or not site else site.place), "description")
        name = getattr(use.declared, "rename", None) or use.declared.name
        if not description.strip():
            yield Finding("description-missing", place, f"{use.name} has no description")
        elif _letters(description) in (_letters(name), _letters(use.name)):
            told = f"{use.name}: its description, {description.strip()!r}, only repeats its name"
            yield Finding("description-missing", place, told)
        other = described.setdefault(_letters(description) or use.name, use.name)
        if other != use.name:
            yield Finding("description-repeated", place, f"{use.name} has the same description as {other}")
        if len(description) > MAX_DESCRIPTION:
            told = f"{use.name}: its description has {len(description):,} characters, more than {MAX_DESCRIPTION:,}"
            yield Finding("description-too-long", place, told)
        yield from _check_html(use.name, "its description", place, description)
        for inner, declared in site.inputs() if site else ():
            what = f"the description of {declared.name}"
            yield from _check_html(use.name, what, (*inner, "description"), declared.description or "")


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def _check_html(name: str, what: str, place: Place, text: str) -> Iterator[Finding]:
    found = _HTML.search(text)
    if found is not None:
        shown = found.group() if len(found.group()) <= 40 else f"{found.group()[:40]}…"
        yield Finding("description-html", place, f"{name}: {what} holds HTML: {shown!r}")


def _check_names(file: _File) -> Iterator[Finding]:
    taken = {legal_name(f"{tool.prefix}-{tool.spec_name}") for tool in file.waits}
    names = {use.declared.name: use.name for use in file.tools}
    for use in file.tools:
        tool = use.declared
        assert isinstance(tool, spec.ExposedTool)
        place = _name_place(use.place, tool)
        written = _listed_name(file.capability, tool)
        legal = legal_name(written)
        if re.search(r"[^a-zA-Z0-9_-]", written):
            yield Finding("illegal-name", place, f"{written!r} cannot be listed so: it becomes {legal}")
        elif len(written) > MAX_NAME:
            told = f"{written} has {len(written)} characters, more than {MAX_NAME}: it becomes {legal}"
            yield Finding("name-too-long", place, told)
        if legal in taken:
            told = f"another tool has the name {legal}: the later one is listed under another"
            yield Finding("name-collision", place, told)
        taken.add(legal)
        numbered = re.fullmatch(r"(.+)[-_]\d+", tool.name)
        if numbered and numbered.group(1) in names and not tool.rename:
            told = f"{use.name} differs from {names[numbered.group(1)]} by a number only"
            yield Finding("useless-name", place, told)


# What a tool does


def _verbs(text: str) -> frozenset[str]:
    """Verbs, as they stand in names: `delete-run`, and `deletes-a-run` where names come from descriptions."""
    return frozenset(form for verb in text.split() for form in (verb, f"{verb}s"))


_DESTROYING = _verbs("delete cancel revoke remove destroy purge erase terminate wipe")
_READING = _verbs("get list read search")
_ALSO_READING = _READING | _verbs(
    "find fetch retrieve query lookup look view show describe count check validate verify test preview export download "
    "estimate calculate compare analyze explain filter"
)
_WRITING = _verbs(
    "add append apply approve archive assign cancel clear clone complete copy create delete disable enable generate "
    "insert invite mark merge move patch publish put remove rename replace reset restore resume revoke save send set "
    "start stop submit sync transfer trigger update upload upsert write"
)
_OF_MANY = frozenset({"bulk", "batch", "mass", "force"})


def _check_hints(file: _File) -> Iterator[Finding]:
    for use in file.tools:
        site = use.site
        if site is None or use.tool.operation.method not in HINTS_BY_METHOD:
            continue
        found = _contradiction(use, site)
        if found is not None:
            key, told = found
            yield Finding(
                "contradicting-hint", (*use.place, "hints", key), f"{use.name} {told}", _mend_of_hint(key, told)
            )


def _mend_of_hint(key: str, told: str) -> str:
    if key == "destructive":
        return "Set destructive: true." if "is not" in told else "Set one of them to false."
    if "readOnly: false" in told:
        return "Set readOnly: true, or repeatable: false on the operation if it changes something."
    return "Set readOnly: false, or repeatable: true on the operation if it only reads."


def _contradiction(use: _Use, site: _Site) -> tuple[str, str] | None:
    """The hint that contradicts what the tool is called or how it calls, and the sentence that says so."""
    hints, operation = use.tool.hints, use.tool.operation
    words = _words(use)
    verb = next(iter(words), "")
    is_safe = operation.is_safe
    if hints.read_only and hints.destructive:
        return "destructive", "is readOnly and destructive: both cannot be"
    if verb in _DESTROYING and not is_safe and not hints.destructive and "background" not in words:
        return "destructive", f"is not destructive, and its name says that it is ({verb})"
    if not hints.read_only and site.operation.repeatable is not False:
        if is_safe:
            return "readOnly", f"has readOnly: false, and {operation.method} only reads"
        if operation.method == "POST" and verb in _READING and _WRITING.isdisjoint(words):
            return "readOnly", f"has readOnly: false, and its name says that it only reads ({verb})"
    if hints.read_only and not is_safe and site.operation.repeatable is not True:
        is_search = operation.method == "POST" and (
            not _ALSO_READING.isdisjoint(words) or "graphql" in site.path.lower()
        )
        if not is_search:
            return "readOnly", f"is readOnly, and {operation.method} changes something"
    return None


def _words(use: _Use) -> list[str]:
    """The words of a tool's name, without the provider's and those that say how many."""
    name = getattr(use.declared, "rename", None) or use.declared.name
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)]
    ignored = {*use.tool.prefix.split("-"), *_OF_MANY}
    while words and words[0] in ignored:
        words = words[1:]
    return words


_EVENTS = re.compile(r"\bSSE\b|server[- ]sent[- ]events?|\bevent[- ]stream\b|\bEventSource\b", re.IGNORECASE)
_STREAM_PATH = re.compile(r"/(stream|sse|event-?stream)/?$", re.IGNORECASE)
_MEDIA = re.compile(r"audio|video|media|image|speech|voice|file|download|binary", re.IGNORECASE)


def _check_streams(file: _File) -> Iterator[Finding]:
    for use in file.tools:
        site, operation = use.site, use.tool.operation
        if site is None or operation.is_stream:
            continue
        told = " ".join([use.declared.description or "", site.operation.description or ""])
        words = _words(use)
        reason = ""
        if _EVENTS.search(told):
            reason = "its description speaks of server-sent events"
        elif operation.method == "GET" and not _MEDIA.search(f"{site.path} {told} {' '.join(words)}"):
            if _STREAM_PATH.search(site.path):
                reason = f"its path is {site.path}"
            elif words[:1] == ["stream"] and len(words) > 1:
                reason = "its name says that it streams"
        if reason:
            asked = operation.accept.partition(",")[0]
            told = f"{use.name} seems to be a stream of events ({reason}), and asks for {asked}"
            yield Finding("event-stream-suspected", (*site.place, "accept"), told)


# The REST side


def _check_routes(file: _File) -> Iterator[Finding]:
    routes: dict[tuple[str, str], _Use] = {}
    for use in file.rest:
        method, _, path = use.name.partition(" ")
        place = (*use.place[:-2], "path")
        route = (method, PLACEHOLDER.sub("{}", path).rstrip("/"))
        other = routes.setdefault(route, use)
        if other is not use:
            told = f"{use.name} is {other.name} as well: only the first is reached"
            yield Finding("rest-route-collision", place, told)
        if use.site is None or use.tool.operation.unsupported:
            continue
        parameters = use.tool.operation.parameters
        known = {*use.tool.input_schema["properties"], *use.declared.with_, *(one.name for one in parameters)}
        plain = {_plain(name) for name in known}
        for name in _placeholders(path):
            if _plain(name) not in plain:
                told = f"{use.name}: {{{name}}} is no argument of {use.declared.call}"
                yield Finding("rest-variable-unmatched", place, told, _did_you_mean(name, known))


# What overlays say


def _check_hint_holes(file: _File) -> Iterator[Finding]:
    for place, consumed in file.consumes():
        for inner, rule in _numbered((*place, "errors"), consumed.errors):
            groups = set(re.compile(rule.says).groupindex) if rule.says else set()
            holes = set(re.findall(r"\{(\w+)\}", rule.hint))
            for hole in sorted(holes - groups - {"credential"}):
                # Members of the error's body fill holes as well, so only what looks like a slip is one.
                close = get_close_matches(hole, [*sorted(groups), "credential"], 1, 0.7)
                unused = sorted(groups - holes)
                if close or unused:
                    told = f"the hint has a hole {{{hole}}}, and `says` has no group of that name"
                    mend = f"Write {{{(close or unused)[0]}}}, if that is meant."
                    yield Finding("unfilled-hole", (*inner, "hint"), told, mend)


def _check_words(file: _File) -> Iterator[Finding]:
    for use in file.tools:
        site = use.site
        if site is None:
            continue
        properties = use.tool.input_schema["properties"]
        paging, upload = use.tool.operation.paging, use.tool.operation.upload
        if paging is not None:
            for word in ("limit", "cursor", "offset"):
                name = getattr(paging, word)
                if name and name not in properties:
                    told = f"{use.name}: paging names the argument {name}, which the tool does not have"
                    mend = _did_you_mean(name, properties)
                    yield Finding("absent-argument", (*site.place, "paging", word), told, mend)
        if upload is not None:
            schema: Any = use.tool.input_schema
            for step in (*upload.files, upload.content):
                schema = _below(schema, step)
                if schema is None:
                    told = f"{use.name}: upload names {step}, which is nowhere in the tool's schema"
                    yield Finding("absent-argument", (*site.place, "upload", "files"), told)
                    break


def _below(schema: Any, step: Any) -> Any:
    """The schema of what a step leads to, True where nothing is known of it, None where it is not."""
    if not isinstance(schema, Mapping):
        return schema
    if step is EACH:
        return schema.get("items", True)
    return schema["properties"].get(step) if "properties" in schema else True


_NEW_PARTS: Mapping[str, Collection[Collection[str]]] = {
    "operations": ({"method"}, {"call"}),
    "tools": ({"call"},),
    "consumes": ({"resources", "baseUri"}, {"resources", "baseUriEnv"}),
    "resources": ({"path", "operations"},),
    "exposes": ({"type", "tools"}, {"type", "resources"}),
    "binds": ({"keys"},),
}
"""What an item of these lists has that is not a refinement of one but a new one: all of one of these keys."""

_IDENTIFYING = frozenset({"name", "namespace", "in", "naftiko"})
"""Keys that an overlay repeats to say what it is about."""

_OPAQUE = frozenset({"schema", "value", "const", "when", "arguments", "with", "body"})
"""Keys whose values are the provider's, in which null is a value."""


def check_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> Iterator[Finding]:
    """What an overlay says in vain of a file; both are documents, and places are those of the overlay."""
    yield from _check_refined([(unify(base), unify(overlay, keep_nulls=True))], ())


_Scopes = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Parts of a file that stand in each other, each with what an overlay says of it."""


def _check_refined(scopes: _Scopes, place: Place) -> Iterator[Finding]:
    base, overlay = scopes[-1]
    for key, value in overlay.items():
        inner = (*place, key)
        if value is None and key not in base:
            code = "overlay-matches-nothing" if base else "overlay-changes-nothing"
            told = f"{_told(scopes, inner)} is null, and there is nothing to delete"
            yield Finding(code, inner, told, "Take it out.")
        elif key not in base and key not in _OPAQUE:
            yield from _check_new(scopes, value, inner)
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            yield from _check_refined([*scopes, (base[key], value)], inner)
        elif isinstance(value, list) and isinstance(base.get(key), list) and all(map(identity, value)):
            yield from _check_items(scopes, base[key], value, inner)
            if not value:
                told = f"{_told(scopes, inner)} is an empty list, which adds nothing and deletes nothing"
                yield Finding("overlay-changes-nothing", inner, told, "Write null to delete the list.")
        elif _is_same(base.get(key), value) and not _identifies(inner):
            told = f"{_told(scopes, inner)} is {_shown(value)} in the file as well"
            yield Finding("overlay-changes-nothing", inner, told)


def _check_new(scopes: _Scopes, value: Any, place: Place) -> Iterator[Finding]:
    """What is said of what the file does not have."""
    if isinstance(value, Mapping):
        yield from _check_refined([*scopes, ({}, value)], place)
    elif isinstance(value, list) and all(map(identity, value)):
        yield from _check_items(scopes, [], value, place)


def _check_items(scopes: _Scopes, base: list[Any], items: list[Any], place: Place) -> Iterator[Finding]:
    """Items with names, of which each refines the one of its name."""
    known = {identity(item): item for item in reversed(base)}
    for inner, item in _numbered(place, items):
        name = identity(item)
        if name in known:
            yield from _check_refined([*scopes, (known[name], item)], inner)
        elif _is_new(scopes, place, item):
            yield from _check_refined([*scopes, ({}, item)], inner)
        else:
            told = f"there is no {name} among the {place[-1]} of the file, and this is no whole new one"
            mend = _did_you_mean(str(name), [str(one) for one in known])
            yield Finding("overlay-matches-nothing", inner, told, mend)


def _is_new(scopes: _Scopes, place: Place, item: Mapping[str, Any]) -> bool:
    """Whether an item that the file does not have is a whole one."""
    if place[-1] == "inputParameters" and "consumes" in place:
        return not {"in", "value", "env"}.isdisjoint(item) or item.get("name") in _known_inputs(scopes)
    return any(set(item) >= set(keys) for keys in _NEW_PARTS.get(str(place[-1]), ((),)))


def _known_inputs(scopes: _Scopes) -> set[str]:
    """The names of inputs that are declared around a part or in it, or that are holes of its paths."""
    around = {name for pair in scopes for part in pair for name in _inputs_of(part)}
    return around | {name for part in scopes[-1] for name in _inputs_below(part)}


def _inputs_of(part: Mapping[str, Any]) -> Iterator[str]:
    declared = part.get("inputParameters")
    for item in declared if isinstance(declared, list) else ():
        if isinstance(item, Mapping) and "in" in item:  # without it an overlay's item does not make itself known
            yield str(item.get("name"))
    if isinstance(part.get("path"), str):
        yield from _placeholders(part["path"])


def _inputs_below(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _inputs_of(part)
    for key in ("resources", "operations"):
        items = part.get(key)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, Mapping):
                yield from _inputs_below(item)


def _identifies(place: Place) -> bool:
    is_kind = place[-1] == "type" and place[:1] == ("capability",) and len(place) == 4
    return place[-1] in _IDENTIFYING or is_kind


def identity(item: Any) -> str | None:
    """What an item of a list is refined by."""
    name = item.get("name", item.get("namespace")) if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else None


def _is_same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # which tells 1 from true and from 1.0


def _told(scopes: _Scopes, place: Place) -> str:
    """What stands at a place, as a person says it: `hints.destructive of list-things`."""
    names = [name for _, part in scopes if (name := identity(part))]
    items = [number for number, step in enumerate(place) if isinstance(step, int)]
    steps = ".".join(map(str, place[items[-1] + 1 :] if items else place))
    return f"{steps} of {names[-1]}" if names else steps


def _shown(value: Any) -> str:
    text = "true" if value is True else "false" if value is False else str(value)
    return one_line(text, 60)


_CHECKS: Sequence[Callable[[_File], Iterator[Finding]]] = (
    _check_version,
    _check_keys,
    _check_tools_there,
    _check_addresses,
    _check_authentication,
    _check_credentials,
    _check_operations,
    _check_duplicates,
    _check_calls,
    _check_inputs,
    _check_bodies,
    _check_schemas,
    _check_descriptions,
    _check_names,
    _check_hints,
    _check_streams,
    _check_routes,
    _check_hint_holes,
    _check_words,
)
