"""Checks of how tools and routes are presented: descriptions, names, event streams and REST paths."""

import re
from collections.abc import Iterator

from mcp_taskruns.core.checks.codes import MAX_DESCRIPTION, Finding, Place
from mcp_taskruns.core.checks.hints import words_of_name
from mcp_taskruns.core.checks.model import File, Site, Use, listed_name, name_place
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.names import MAX_NAME, legal_name, suggest_name
from mcp_taskruns.core.format.templates import PATH_PLACEHOLDER, placeholders_of
from mcp_taskruns.core.rest.routes import normalize_name

MAX_QUOTED_HTML = 40
"""The length in characters to which HTML is truncated in a message."""

_TAGS = "a|b|br|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|span|strong|sub|sup|table|td|th|tr|u|ul"
_HTML = re.compile(
    rf"<(?P<tag>{_TAGS})(\s[^<>]*)?>.*?</(?P=tag)>|<(br|hr|p|li)\s*/?>|<(a|img)\s[^<>]*>|</({_TAGS})>"
    r"|&(amp|lt|gt|quot|nbsp|apos|[lr]squo|[lr]dquo|ndash|mdash|hellip|#\d+|#x[0-9a-f]+);",
    re.IGNORECASE | re.DOTALL,
)

_SSE = re.compile(r"\bSSE\b|server[- ]sent[- ]events?|\bevent[- ]stream\b|\bEventSource\b", re.IGNORECASE)
_STREAM_PATH = re.compile(r"/(stream|sse|event-?stream)/?\Z", re.IGNORECASE)
_MEDIA = re.compile(r"audio|video|media|image|speech|voice|file|download|binary", re.IGNORECASE)


def check_descriptions(file: File) -> Iterator[Finding]:
    """Find descriptions that do not help a model to choose a tool."""
    seen: dict[str, str] = {}
    for use in file.tools:
        place, description = _description_of(use)
        yield from _check_description(use, place, description)
        other = seen.setdefault(_normalize(description) or use.name, use.name)
        if other != use.name:
            yield Finding("duplicate-description", place, f"{use.name} has the same description as {other}")
        yield from _check_html(use.name, "the description", place, description)
        for inner, declared in use.site.inputs() if use.site else ():
            subject = f"the description of {declared.name}"
            yield from _check_html(use.name, subject, (*inner, "description"), declared.description or "")


def _description_of(use: Use) -> tuple[Place, str]:
    """Return the description of a tool, or else of its operation, with its place."""
    inherited = use.site.operation.description if use.site else None
    if use.site is not None and inherited and not use.declared.description:
        return (*use.site.place, "description"), inherited
    return (*use.place, "description"), use.declared.description or ""


def _check_description(use: Use, place: Place, description: str) -> Iterator[Finding]:
    name = use.declared.rename or use.declared.name
    if not description.strip():
        yield Finding("missing-description", place, f"{use.name} has no description")
    elif _normalize(description) in (_normalize(name), _normalize(use.name)):
        message = f"{use.name}: the description {description.strip()!r} only repeats the name"
        yield Finding("missing-description", place, message)
    if len(description) > MAX_DESCRIPTION:
        message = f"{use.name}: the description has {len(description):,} characters, more than {MAX_DESCRIPTION:,}"
        yield Finding("description-too-long", place, message)


def _normalize(text: str) -> str:
    """Return the letters and digits of a text in lower case."""
    return re.sub(r"[\W_]+", "", text).lower()


def _check_html(name: str, subject: str, place: Place, text: str) -> Iterator[Finding]:
    match = _HTML.search(text)
    if match is not None:
        html = match.group()
        shown = html if len(html) <= MAX_QUOTED_HTML else f"{html[:MAX_QUOTED_HTML]}…"
        yield Finding("html-in-description", place, f"{name}: {subject} contains HTML: {shown!r}")


def check_names(file: File) -> Iterator[Finding]:
    """Find tool names that are changed when they are listed, or that do not distinguish tools."""
    taken = {legal_name(f"{tool.prefix}-{tool.declared_name}") for tool in file.run_tools}
    names = {use.declared.name: use.name for use in file.tools}
    for use in file.tools:
        tool = use.declared
        assert isinstance(tool, spec.ExposedTool)
        place = name_place(use.place, tool)
        written = listed_name(file.capability, tool)
        listed = legal_name(written)
        if re.search(r"[^a-zA-Z0-9_-]", written):
            message = f"{written!r} has characters that clients reject; it is listed as {listed}"
            yield Finding("invalid-tool-name", place, message)
        elif len(written) > MAX_NAME:
            message = f"{written} has {len(written)} characters, more than {MAX_NAME}; it is listed as {listed}"
            yield Finding("tool-name-too-long", place, message)
        if listed in taken:
            message = f"another tool has the name {listed}; this one is listed under another name"
            yield Finding("duplicate-tool-name", place, message)
        taken.add(listed)
        numbered = re.fullmatch(r"(.+)[-_]\d+", tool.name)
        if numbered and numbered.group(1) in names and not tool.rename:
            message = f"{use.name} differs from {names[numbered.group(1)]} by a number only"
            yield Finding("numbered-tool-name", place, message)


def check_streams(file: File) -> Iterator[Finding]:
    """Find operations that seem to return an event stream but do not ask for one."""
    for use in file.tools:
        site, operation = use.site, use.tool.operation
        if site is None or operation.is_stream:
            continue
        reason = _stream_reason(use, site)
        if reason:
            accept = operation.accept.partition(",")[0]
            message = f"{use.name} seems to return an event stream ({reason}), but accepts {accept}"
            yield Finding("undeclared-event-stream", (*site.place, "accept"), message)


def _stream_reason(use: Use, site: Site) -> str:
    """Return why an operation seems to return an event stream, or an empty string."""
    description = " ".join([use.declared.description or "", site.operation.description or ""])
    if _SSE.search(description):
        return "its description mentions server-sent events"
    words = words_of_name(use)
    if use.tool.operation.method != "GET" or _MEDIA.search(f"{site.path} {description} {' '.join(words)}"):
        return ""
    if _STREAM_PATH.search(site.path):
        return f"its path is {site.path}"
    return "its name begins with stream" if words[:1] == ["stream"] and len(words) > 1 else ""


def check_routes(file: File) -> Iterator[Finding]:
    """Find REST routes that cannot be reached, and path variables that are ignored."""
    routes: dict[tuple[str, str], Use] = {}
    for use in file.rest:
        method, _, path = use.name.partition(" ")
        place = (*use.place[:-2], "path")
        route = (method, PATH_PLACEHOLDER.sub("{}", path).rstrip("/"))
        first = routes.setdefault(route, use)
        if first is not use:
            message = f"{use.name} is the same route as {first.name}, which is served instead"
            yield Finding("duplicate-rest-route", place, message)
        if use.site is not None and not use.tool.operation.unsupported:
            yield from _check_variables(use, place, path)


def _check_variables(use: Use, place: Place, path: str) -> Iterator[Finding]:
    parameters = use.tool.operation.parameters
    known = {*use.tool.input_schema["properties"], *use.declared.with_, *(item.name for item in parameters)}
    normalized = {normalize_name(name) for name in known}
    for name in placeholders_of(path):
        if normalize_name(name) not in normalized:
            message = f"{use.name}: {{{name}}} is not an argument of {use.declared.call}"
            yield Finding("unknown-rest-variable", place, message, suggest_name(name, known))
