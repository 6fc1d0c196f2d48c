"""All checks of a capability file with its overlay applied.

Places refer to the document as `spec` reads it: with the overlay merged, lists instead of keyed mappings, and one
spelling of each keyword.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

from mcp_taskruns.core.checks.codes import Finding, Place
from mcp_taskruns.core.checks.hints import check_hints
from mcp_taskruns.core.checks.inputs import check_bodies, check_parameters, check_placeholders, check_schemas
from mcp_taskruns.core.checks.keys import check_keys
from mcp_taskruns.core.checks.model import File, enumerate_items, listed_name, name_place
from mcp_taskruns.core.checks.operations import check_calls, check_completeness, check_duplicates, check_operations
from mcp_taskruns.core.checks.patterns import MAX_QUOTED, find_pattern_problem
from mcp_taskruns.core.checks.provider import check_authentication, check_base_uris, check_credentials
from mcp_taskruns.core.checks.tools import check_descriptions, check_names, check_routes, check_streams
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.names import legal_name, make_unique, suggest_name
from mcp_taskruns.core.model.json_path import EACH, Path
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.tool import Tool


def check_capability(
    capability: spec.Capability, tools: Sequence[Tool], environment: Collection[str] | None = None
) -> Iterator[Finding]:
    """Find problems of a capability and of the tools that were compiled from it alone.

    `environment` holds the names of the environment variables that are set; None means that they are not checked.
    """
    file = File(capability, tools, environment)
    yield from dict.fromkeys(chain.from_iterable(check(file) for check in _CHECKS))


def check_together(capabilities: Sequence[spec.Capability]) -> Iterator[tuple[int, Finding]]:
    """Find problems that exist only because capabilities are served together.

    Yields each finding with the index of its capability.
    """
    taken: dict[str, tuple[int, str]] = {}
    listed: list[list[str]] = []
    for index, capability in enumerate(capabilities):
        for number, (place, tool) in enumerate(_mcp_tools(capability)):
            name = legal_name(listed_name(capability, tool))
            other, source = taken.setdefault(name, (index, capability.source))
            if other != index:
                listed = listed or _names_together(capabilities)
                message = f"{source} has a tool {name} too; this one is listed as {listed[index][number]}"
                yield index, Finding("duplicate-tool-name", name_place(place, tool), message)


def _mcp_tools(capability: spec.Capability) -> Iterator[tuple[Place, spec.ExposedTool]]:
    for place, exposed in enumerate_items(("capability", "exposes"), capability.capability.exposes):
        yield from enumerate_items((*place, "tools"), exposed.tools if exposed.type == "mcp" else ())


def _names_together(capabilities: Sequence[spec.Capability]) -> list[list[str]]:
    """Return the listed names of the tools of each capability when all of them are served."""
    groups = [compile_tools([capability]) for capability in capabilities]
    unique = make_unique(groups, [capability.source for capability in capabilities])
    return [[tool.name for tool in group] for group in unique]


def _check_version(file: File) -> Iterator[Finding]:
    version = file.capability.naftiko
    if version not in spec.KNOWN_VERSIONS:
        known = ", ".join(sorted(spec.KNOWN_VERSIONS))
        yield Finding("unknown-version", ("naftiko",), f"the version {version} is unknown; known versions: {known}")


def _check_tools_exist(file: File) -> Iterator[Finding]:
    if not file.tools:
        yield Finding("no-tools", ("capability", "exposes"), "the file has no MCP tools")


def _check_hint_placeholders(file: File) -> Iterator[Finding]:
    """Find placeholders in hints of error rules that are probably misspelled.

    Members of the provider's error body fill placeholders as well, and nobody knows all of them. So a placeholder is
    reported only if its name resembles a known one, or if a group of the pattern is unused.
    """
    for place, consumed in file.consumes():
        for rule_name, rule in consumed.errors.items():
            groups = set(re.compile(rule.message_matches).groupindex) if rule.message_matches else set()
            names = set(re.findall(r"\{(\w+)\}", rule.hint))
            for name in sorted(names - groups - {"credential"}):
                close = get_close_matches(name, [*sorted(groups), "credential"], 1, 0.7)
                unused = sorted(groups - names)
                if close or unused:
                    message = f"the hint has a placeholder {{{name}}}, but the pattern has no group of that name"
                    fix = f"Did you mean `{{{(close or unused)[0]}}}`?"
                    yield Finding("unknown-hint-placeholder", (*place, "errors", rule_name, "hint"), message, fix)


def _check_error_patterns(file: File) -> Iterator[Finding]:
    for place, consumed in file.consumes():
        for name, rule in consumed.errors.items():
            pattern = rule.message_matches or ""
            if (problem := find_pattern_problem(pattern)) is not None:
                message = f"the pattern `{pattern[:MAX_QUOTED]}` {problem}"
                yield Finding("unsafe-pattern", (*place, "errors", name, "message_matches"), message)


def _check_argument_names(file: File) -> Iterator[Finding]:
    """Find keywords of operations that refer to arguments that the tool does not have."""
    for use in file.tools:
        if use.site is None:
            continue
        properties = use.tool.input_schema["properties"]
        for (keyword, key), name in _named_arguments(use.tool.operation).items():
            if name and name not in properties:
                message = f"{use.name}: {keyword} refers to the argument {name}, which the tool does not have"
                yield Finding(
                    "unknown-argument", (*use.site.place, keyword, key), message, suggest_name(name, properties)
                )


def _named_arguments(operation: Operation) -> Mapping[tuple[str, str], str | None]:
    """Return the names of arguments in keywords, by keyword and key."""
    paging, echo = operation.paging, operation.echo
    keys = ("page_size_argument", "cursor_argument", "offset_argument", "page_argument") if paging else ()
    names = {("paging", key): getattr(paging, key) for key in keys}
    return names | ({("echo", "argument"): echo.argument} if echo else {})


def _check_other_hints(file: File) -> Iterator[Finding]:
    """Find placeholders in texts in which nothing is filled: only hints of error rules have placeholders."""
    for place, text in _texts_without_placeholders(file):
        for name in re.findall(r"\{(\w+)\}", text):
            message = f"the text has a placeholder {{{name}}}, but only hints of error rules have placeholders"
            yield Finding("unknown-hint-placeholder", place, message, "Write the text without it.")


def _texts_without_placeholders(file: File) -> Iterator[tuple[Place, str]]:
    for place, consumed in file.consumes():
        for status, hint in (consumed.runs.status_hints if consumed.runs else {}).items():
            yield (*place, "runs", "status_hints", status), hint
    for site in chain.from_iterable(file.sites.values()):
        if site.operation.upload is not None:
            yield (*site.place, "upload", "hint"), site.operation.upload.hint
        for inner, note in enumerate_items((*site.place, "notes"), site.operation.notes):
            yield (*inner, "text"), note.text


def _check_upload(file: File) -> Iterator[Finding]:
    for use in file.tools:
        site = use.site
        declared = site.operation.upload if site else None
        if site is None or declared is None or use.tool.operation.upload is None:
            continue
        schema: Any = use.tool.input_schema
        names = {"files": use.tool.operation.upload.files}
        written = {"content_field", *declared.model_fields_set} & _FILE_FIELDS
        names |= {keyword: (*names["files"], EACH, getattr(declared, keyword)) for keyword in sorted(written)}
        for keyword, path in names.items():
            wrong = _find_missing(schema, path)
            if wrong is not None:
                message = f"{use.name}: upload refers to {wrong[0]}, which is not in the input schema"
                key = keyword if keyword in declared.model_fields_set else "files"
                yield Finding("unknown-argument", (*site.place, "upload", key), message, suggest_name(*wrong))
            if wrong is not None and keyword == "files":
                break


def _find_missing(schema: Any, path: Path) -> tuple[str, Collection[str]] | None:
    """Return the first step of a path that a schema does not have, and the names that it has instead."""
    for step in path:
        inner = _descend(schema, step)
        if inner is None:
            return str(step), schema["properties"]
        schema = inner
    return None


_FILE_FIELDS = frozenset({"content_field", "encoding_field", "size_field", "name_field", "media_type_field"})


def _descend(schema: Any, step: Any) -> Any:
    """Return the schema to which a step leads; True if nothing is known about it, None if it does not exist."""
    if not isinstance(schema, Mapping):
        return schema
    if step is EACH:
        return schema.get("items", True) if "properties" not in schema else schema
    return schema["properties"].get(step) if "properties" in schema else True


_CHECKS: Sequence[Callable[[File], Iterator[Finding]]] = (
    _check_version,
    check_keys,
    _check_tools_exist,
    check_base_uris,
    check_authentication,
    check_credentials,
    check_operations,
    check_completeness,
    check_duplicates,
    check_calls,
    check_parameters,
    check_placeholders,
    check_bodies,
    check_schemas,
    check_descriptions,
    check_names,
    check_hints,
    check_streams,
    check_routes,
    _check_hint_placeholders,
    _check_other_hints,
    _check_error_patterns,
    _check_argument_names,
    _check_upload,
)
