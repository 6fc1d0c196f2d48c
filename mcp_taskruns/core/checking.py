"""What the author of a capability file, or of its overlay, should know about it.

A finding has a code of `CODES`, and the place it is about: in the capability as `spec` reads it, with the overlay in
it, where lists are lists and each word has one spelling.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

from mcp_taskruns.core import spec
from mcp_taskruns.core.authentication import Unsupported, UnsupportedKind, parse_authentication
from mcp_taskruns.core.checked import File, Site, Use, numbered
from mcp_taskruns.core.codes import MAX_DESCRIPTION, Finding, Place, did_you_mean
from mcp_taskruns.core.compiler import HINTS_BY_METHOD, TYPES, fitting
from mcp_taskruns.core.naming import MAX_NAME, legal_name, prefix_of
from mcp_taskruns.core.operation import EACH, Location, Operation, Template, Tool, Variable
from mcp_taskruns.core.operations import BODY, BODY_KINDS, ENVIRONMENT, FORM_PLACES, METHODS
from mcp_taskruns.core.outputs import parse_outputs
from mcp_taskruns.core.request import is_usable
from mcp_taskruns.core.templates import PLACEHOLDER, BrokenTemplate, Holes, placeholders_of


def check_capability(
    capability: spec.Capability, tools: Sequence[Tool], environment: Collection[str] | None = None
) -> Iterator[Finding]:
    """What is wrong with a capability, and with the tools that were compiled from it alone.

    `environment` are the names of the variables that are set; without it they are not looked at.
    """
    file = File(capability, tools, environment)
    yield from dict.fromkeys(chain.from_iterable(check(file) for check in _CHECKS))


def check_together(capabilities: Sequence[spec.Capability]) -> Iterator[tuple[int, Finding]]:
    """What is wrong only because capabilities are served together; each finding with the number of its capability."""
    taken: dict[str, tuple[int, str]] = {}
    for number, capability in enumerate(capabilities):
        for place, exposed in numbered(("capability", "exposes"), capability.capability.exposes):
            for inner, tool in numbered((*place, "tools"), exposed.tools if exposed.type == "mcp" else ()):
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


def _check_version(file: File) -> Iterator[Finding]:
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


def _check_keys(file: File) -> Iterator[Finding]:
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
    for place, bind in numbered(("binds",), file.capability.binds):
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
            yield Finding("unsupported-key", place, told, did_you_mean(key, known))


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
            for inner, item in numbered((*place, word), value):
                if isinstance(item, spec.Part):
                    yield from _unknown_keys(item, inner)


def _check_tools_there(file: File) -> Iterator[Finding]:
    if not file.tools:
        yield Finding("no-tools", ("capability", "exposes"), "there are no MCP tools in this file")


# The provider's side


def _check_addresses(file: File) -> Iterator[Finding]:
    bases = {use.tool.operation.namespace: use.tool.operation.base for use in file.uses if use.site}
    for place, consumed in file.consumes():
        base = bases.get(consumed.namespace)
        if base is None:
            continue
        if base.default is not None:
            literal = "".join(part if isinstance(part, str) else "x" for part in base.default)
            if isinstance(base.default[0], str) and not is_usable(literal):
                told = f"baseUri {literal} is not https, or has a query, and is called by nobody"
                yield Finding("address-in-clear", (*place, "baseUri"), told)
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


def _check_authentication(file: File) -> Iterator[Finding]:
    holes = Holes(file.capability)
    for place, consumed in file.consumes():
        here = (*place, "authentication")
        try:
            found = parse_authentication(consumed.authentication or {}, lambda text: holes.credential(str(text)))
        except UnsupportedKind as exc:
            yield Finding("unsupported-authentication", here, f"{consumed.namespace} {exc}")
        except Unsupported as exc:
            yield Finding("incomplete-authentication", here, f"{consumed.namespace} {exc}")
        except BrokenTemplate as exc:
            yield Finding("unclosed-template", here, f"the authentication of {consumed.namespace} has {exc}")
        else:
            if found is not None and not any(isinstance(part, Variable) for part in chain.from_iterable(found.parts)):
                told = f"the credential of {consumed.namespace} is no variable of the environment"
                yield Finding("literal-credential", here, told)


def _check_credentials(file: File) -> Iterator[Finding]:
    binds = [
        ((*place, "keys", key), key, names)
        for place, bind in numbered(("binds",), file.capability.binds)
        for key, names in bind.keys.items()
    ]
    known = {name for _, key, names in binds for name in (key, *names)}
    used: dict[str, Site] = {}
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


def _place_of_hole(site: Site, name: str) -> Place:
    """The first text with a hole of this name, else the operation."""
    hole = re.compile(rf"\{{\s*([\w-]+\.)*{re.escape(name)}\s*\}}")
    return next((place for place, text in _texts(site) if hole.search(text)), site.place)


def _texts(site: Site) -> Iterator[tuple[Place, str]]:
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
        for inner, item in numbered(place, value):
            yield from _leaves(inner, item)


def _check_operations(file: File) -> Iterator[Finding]:
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


def _cannot_authenticate(file: File, site: Site) -> bool:
    found = [finding for finding in _check_authentication(file) if finding.code != "literal-credential"]
    return site.consumed_place in [finding.place[:3] for finding in found]


def _refusals(file: File, use: Use, site: Site) -> Iterator[Finding]:
    """Why the compiler refuses an operation."""
    holes = Holes(file.capability)
    method = site.operation.method
    if method.upper() not in METHODS:
        yield Finding("unknown-method", (*site.place, "method"), f"{site.name}: {method} is no HTTP method here")
    try:
        template: Template = holes.path(site.path)
    except BrokenTemplate as exc:
        yield Finding("unclosed-template", site.path_place, f"{site.name}: the path has {exc}")
        return
    literal = "".join(part if isinstance(part, str) else "x" for part in template).partition("?")[0]
    if re.search(r"(^|/)(\.|%2e){1,2}(/|$)", literal, re.IGNORECASE):
        yield Finding("unsafe-path", site.path_place, f"{site.name}: the path {site.path} leads elsewhere")
    yield from _misplaced(site)
    body = site.operation.body
    if isinstance(body, Mapping) and set(body) == {"type", "data"}:
        written = str(body["type"])
        if re.sub(r"[-_ ]", "", written.lower()) not in BODY_KINDS:
            told = f"{site.name}: a body of type {written} cannot be sent"
            yield Finding("unsupported-body", (*site.place, "body", "type"), told)
    for place, text in [*_texts(site), *_leaves((*use.place, "with"), use.declared.with_)]:
        try:
            holes.template(text)
        except BrokenTemplate as exc:
            if place[:4] != (*site.consumed_place, "authentication"):
                yield Finding("unclosed-template", place, f"{site.name} has {exc}")


def _misplaced(site: Site) -> Iterator[Finding]:
    """Inputs for which a request has no place."""
    for place, declared in site.inputs():
        if (declared.location or "query").lower() not in {*Location, ENVIRONMENT, *FORM_PLACES}:
            told = f"{site.name}: {declared.name} is in {declared.location}, which is no place in a request"
            yield Finding("unknown-place", (*place, "in"), told, did_you_mean(str(declared.location), list(Location)))
    names = placeholders_of(site.path)
    for place, declared in numbered((*site.place, "inputParameters"), site.operation.input_parameters):
        if (declared.location or "").lower() == Location.PATH and declared.name not in names:
            told = f"{site.name}: the path {site.path} has no place for the path parameter {declared.name}"
            close = [name for name in names if _plain(name) == _plain(declared.name)]
            mend = f"Write {close[0]} in place of {declared.name}." if close else ""
            yield Finding("absent-placeholder", place, told, mend or f"Put {{{declared.name}}} into the path.")


def _check_halves(file: File) -> Iterator[Finding]:
    """What is called although a half of it is not said, or cannot be read."""
    for use in file.uses:
        if use.site is not None and "method" not in use.site.operation.model_fields_set:
            yield Finding("missing-method", use.site.place, f"{use.site.name} has no method: it is called with GET")
        try:
            parse_outputs(use.declared.output_parameters)
        except ValueError as exc:
            yield Finding("unreadable-mapping", (*use.place, "outputParameters"), f"{use.name} has {exc}")


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name).lower()


def _check_duplicates(file: File) -> Iterator[Finding]:
    for name, sites in file.sites.items():
        if len(sites) > 1:
            told = f"{name} is there {len(sites)} times: a tool calls the one that its `with` fits"
            yield Finding("duplicate-operation", (*sites[1].place, "name"), told)
    for use in file.uses:
        if use.is_ambiguous:
            count = len(fitting(use.declared, use.sites)) or "none"
            told = f"{use.name} calls {use.declared.call}, and its `with` fits {count} of {len(use.sites)} operations"
            yield Finding("ambiguous-operation", (*use.place, "call"), told)


# What is called, and with what


def _check_calls(file: File) -> Iterator[Finding]:
    imported = {name for _, one in file.consumes() if one.import_ for name in (one.import_, one.namespace)}
    for use in file.uses:
        if use.site is None:
            call = use.declared.call
            told = f"{use.name} calls {call}, which is not there" if call else f"{use.name} does not say what it calls"
            mend = did_you_mean(call, file.sites)
            if call.partition(".")[0] in imported:
                told = f"{use.name} calls {call}, which is in another file"
                mend = "Copy the consumes of the other file into this one."
            yield Finding("call-to-nothing", (*use.place, "call"), told, mend)


_TYPES = TYPES | {"null", "file"}
"""The types of JSON Schema, and the one that OpenAPI 2.0 has for fields of forms."""


def _check_inputs(file: File) -> Iterator[Finding]:
    undeclared: dict[tuple[Place, str], list[Site]] = {}
    for use in file.uses:
        site = use.site
        if site is None or use.is_ambiguous:
            continue
        operation = use.tool.operation
        declared = {one.name for _, one in site.inputs()}
        in_path = {one.name for _, one in site.inputs() if (one.location or "path").lower() == Location.PATH}
        refined = {one.name for one in getattr(use.declared, "input_parameters", ())}
        for place, one in site.inputs():
            types = (one.type,) if isinstance(one.type, str) else one.type or ()
            for name in types:
                if name not in _TYPES:
                    told = f"{site.name}: the type of {one.name} is {name}, which JSON Schema does not have"
                    yield Finding("unknown-type", (*place, "type"), told, did_you_mean(name, TYPES))
        for parameter in operation.parameters:
            if parameter.location is Location.PATH and parameter.name not in in_path:
                if parameter.argument is not None and parameter.argument not in refined:
                    known = undeclared.setdefault((site.consumed_place, parameter.name), [])
                    known += [site] if site not in known else []
            elif parameter.location is Location.QUERY and parameter.name in use.declared.with_.keys() - declared:
                told = f"{use.name}: {site.name} knows no input {parameter.name}: it is sent in the query"
                mend = did_you_mean(parameter.name, declared)
                yield Finding("with-unknown-input", (*use.place, "with", parameter.name), told, mend)
    for (_, name), sites in undeclared.items():
        times = f" (in {len(sites)} operations)" if len(sites) > 1 else ""
        told = f"{{{name}}} in {sites[0].path} is not declared{times}: the caller gets no description of it"
        mend = f"Declare {name} under inputParameters with in: path and a description."
        yield Finding("undeclared-placeholder", sites[0].path_place, told, mend)


_DESCRIBING = frozenset({"properties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"})
"""Words of a schema, of which one at least says what an object has in it."""


def _check_bodies(file: File) -> Iterator[Finding]:
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


def _check_schemas(file: File) -> Iterator[Finding]:
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


def _place_of_argument(use: Use, path: Sequence[Any]) -> Place:
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


def _check_descriptions(file: File) -> Iterator[Finding]:
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


def _check_names(file: File) -> Iterator[Finding]:
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


def _check_hints(file: File) -> Iterator[Finding]:
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


def _contradiction(use: Use, site: Site) -> tuple[str, str] | None:
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


def _words(use: Use) -> list[str]:
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


def _check_streams(file: File) -> Iterator[Finding]:
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


def _check_routes(file: File) -> Iterator[Finding]:
    routes: dict[tuple[str, str], Use] = {}
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
        for name in placeholders_of(path):
            if _plain(name) not in plain:
                told = f"{use.name}: {{{name}}} is no argument of {use.declared.call}"
                yield Finding("rest-variable-unmatched", place, told, did_you_mean(name, known))


# What overlays say


def _check_hint_holes(file: File) -> Iterator[Finding]:
    for place, consumed in file.consumes():
        for inner, rule in numbered((*place, "errors"), consumed.errors):
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


def _check_words(file: File) -> Iterator[Finding]:
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
                    mend = did_you_mean(name, properties)
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


_CHECKS: Sequence[Callable[[File], Iterator[Finding]]] = (
    _check_version,
    _check_keys,
    _check_tools_there,
    _check_addresses,
    _check_authentication,
    _check_credentials,
    _check_operations,
    _check_halves,
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
