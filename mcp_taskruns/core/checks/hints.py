"""Checks of the hints of tools against their names and methods."""

import re
from collections.abc import Iterator

from mcp_taskruns.core.checks.codes import Finding
from mcp_taskruns.core.checks.model import File, Site, Use
from mcp_taskruns.core.format.compiler import HINTS_BY_METHOD


def _verbs(text: str) -> frozenset[str]:
    """Return each verb with its third person: `delete-run`, and `deletes-a-run` in names made from descriptions."""
    return frozenset(form for verb in text.split() for form in (verb, f"{verb}s"))


_DESTRUCTIVE = _verbs("delete cancel revoke remove destroy purge erase terminate wipe")
_READING = _verbs("get list read search")
_READING_OR_COMPUTING = _READING | _verbs(
    "find fetch retrieve query lookup look view show describe count check validate verify test preview export download "
    "estimate calculate compare analyze explain filter"
)
_WRITING = _verbs(
    "add append apply approve archive assign cancel clear clone complete copy create delete disable enable generate "
    "insert invite mark merge move patch publish put remove rename replace reset restore resume revoke save send set "
    "start stop submit sync transfer trigger update upload upsert write"
)
_QUANTIFIERS = frozenset({"bulk", "batch", "mass", "force"})


def check_hints(file: File) -> Iterator[Finding]:
    """Find hints that contradict the name or the method of a tool."""
    for use in file.tools:
        if use.site is not None and use.tool.operation.method in HINTS_BY_METHOD:
            found = _find_contradiction(use, use.site)
            if found is not None:
                hint, message, fix = found
                yield Finding("contradictory-hint", (*use.place, "hints", hint), f"{use.name} {message}", fix)


def _find_contradiction(use: Use, site: Site) -> tuple[str, str, str] | None:
    """Return the hint, a message without its subject, and a fix."""
    hints, is_safe = use.tool.hints, use.tool.operation.is_safe
    if hints.read_only and hints.destructive:
        return "destructive", "is both readOnly and destructive", "Set one of them to false."
    words = words_of_name(use)
    verb = next(iter(words), "")
    if verb in _DESTRUCTIVE and not is_safe and not hints.destructive and "background" not in words:
        return "destructive", f"is not destructive, but its name suggests it ({verb})", "Set destructive: true."
    if hints.read_only:
        return _find_unlikely_read(use, site, words)
    return _find_unlikely_write(use, site, words)


def _find_unlikely_read(use: Use, site: Site, words: list[str]) -> tuple[str, str, str] | None:
    operation = use.tool.operation
    if operation.is_safe or site.operation.safe_to_retry is True:
        return None
    reads = not _READING_OR_COMPUTING.isdisjoint(words) or "graphql" in site.path.lower()
    if operation.method == "POST" and reads:
        return None
    fix = "Set readOnly: false, or safe_to_retry: true on the operation if it only reads."
    return "readOnly", f"is readOnly, but {operation.method} changes something", fix


def _find_unlikely_write(use: Use, site: Site, words: list[str]) -> tuple[str, str, str] | None:
    operation = use.tool.operation
    if site.operation.safe_to_retry is False:
        return None
    fix = "Set readOnly: true, or safe_to_retry: false on the operation if it changes something."
    if operation.is_safe:
        return "readOnly", f"has readOnly: false, but {operation.method} only reads", fix
    verb = next(iter(words), "")
    if operation.method == "POST" and verb in _READING and _WRITING.isdisjoint(words):
        return "readOnly", f"has readOnly: false, but its name suggests that it only reads ({verb})", fix
    return None


def words_of_name(use: Use) -> list[str]:
    """Return the words of a tool's name in lower case, without a leading provider name or quantifier."""
    name = use.declared.rename or use.declared.name
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)]
    ignored = {*use.tool.prefix.split("-"), *_QUANTIFIERS}
    while words and words[0] in ignored:
        words = words[1:]
    return words
