"""What the author of a capability file, or of its overlay, should know about it.

A finding has a code of `CODES`, and the place it is about: in the capability as `spec` reads it, with the overlay in
it, where lists are lists and each word has one spelling.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

from mcp_taskruns.core.checks.codes import Finding, Place, did_you_mean
from mcp_taskruns.core.checks.model import File, listed_name, name_place, numbered
from mcp_taskruns.core.checks.provider import (
    check_addresses,
    check_authentication,
    check_bodies,
    check_calls,
    check_credentials,
    check_duplicates,
    check_halves,
    check_inputs,
    check_operations,
    check_schemas,
)
from mcp_taskruns.core.checks.tools import check_descriptions, check_hints, check_names, check_routes, check_streams
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.names import legal_name
from mcp_taskruns.core.model.json_path import EACH
from mcp_taskruns.core.model.tool import Tool


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
                name = legal_name(listed_name(capability, tool))
                other, source = taken.setdefault(name, (number, capability.source))
                if other != number:
                    told = f"{name} is a tool of {source} too: this one is listed with a mark of its file"
                    yield number, Finding("name-collision", name_place(inner, tool), told)


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
    check_addresses,
    check_authentication,
    check_credentials,
    check_operations,
    check_halves,
    check_duplicates,
    check_calls,
    check_inputs,
    check_bodies,
    check_schemas,
    check_descriptions,
    check_names,
    check_hints,
    check_streams,
    check_routes,
    _check_hint_holes,
    _check_words,
)
