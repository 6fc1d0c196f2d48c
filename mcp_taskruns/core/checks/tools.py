"""What is wrong with how tools and routes are told: descriptions, names, hints, streams, paths."""

import re
from collections.abc import Iterator

from mcp_taskruns.core.checks.codes import MAX_DESCRIPTION, Finding, Place, did_you_mean
from mcp_taskruns.core.checks.model import File, Site, Use, listed_name, name_place
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.compiler import HINTS_BY_METHOD
from mcp_taskruns.core.format.names import MAX_NAME, legal_name
from mcp_taskruns.core.format.templates import PLACEHOLDER, placeholders_of
from mcp_taskruns.core.rest.routes import same_variable

_TAGS = "a|b|br|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|span|strong|sub|sup|table|td|th|tr|u|ul"
_HTML = re.compile(
    rf"<(?P<tag>{_TAGS})(\s[^<>]*)?>.*?</(?P=tag)>|<(br|hr|p|li)\s*/?>|<(a|img)\s[^<>]*>|</({_TAGS})>"
    r"|&(amp|lt|gt|quot|nbsp|apos|[lr]squo|[lr]dquo|ndash|mdash|hellip|#\d+|#x[0-9a-f]+);",
    re.IGNORECASE | re.DOTALL,
)


def check_descriptions(file: File) -> Iterator[Finding]:
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


def check_names(file: File) -> Iterator[Finding]:
    taken = {legal_name(f"{tool.prefix}-{tool.spec_name}") for tool in file.waits}
    names = {use.declared.name: use.name for use in file.tools}
    for use in file.tools:
        tool = use.declared
        assert isinstance(tool, spec.ExposedTool)
        place = name_place(use.place, tool)
        written = listed_name(file.capability, tool)
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


def check_hints(file: File) -> Iterator[Finding]:
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


def check_streams(file: File) -> Iterator[Finding]:
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


def check_routes(file: File) -> Iterator[Finding]:
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
        plain = {same_variable(name) for name in known}
        for name in placeholders_of(path):
            if same_variable(name) not in plain:
                told = f"{use.name}: {{{name}}} is no argument of {use.declared.call}"
                yield Finding("rest-variable-unmatched", place, told, did_you_mean(name, known))
