"""Checks of the keys of a capability file: features that are not supported, and keys that do not exist."""

from collections.abc import Iterator, Sequence

from mcp_taskruns.core.checks.codes import Finding, Place
from mcp_taskruns.core.checks.model import File, enumerate_items
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.names import suggest_name

_ADAPTER_TYPES = frozenset({"mcp", "rest"})

_UNSUPPORTED_KEYS = {
    "steps": "sequences of calls",
    "mappings": "combined results of several calls",
    "aggregates": "parts that adapters share",
    "functions": "parts that adapters share",
    "ref": "references to another part",
    "import": "parts of another file",
    "skills": "instructions for models",
    "prompts": "texts for models",
}
"""Keywords of other dialects of the format, with what they are for."""


def check_keys(file: File) -> Iterator[Finding]:
    """Find features that are not supported and keys that are ignored."""
    yield from _check_adapters(file)
    yield from _check_sources(file)
    ignored = [place for place, exposed in file.exposes() if exposed.type not in _ADAPTER_TYPES]
    ignored += [(*place, "resources") for place, exposed in file.exposes() if exposed.type == "mcp"]
    for place, known in _find_unknown_keys(file.capability, ()):
        if not any(place[: len(part)] == part for part in ignored):
            yield from _check_key(place, known)


def _check_adapters(file: File) -> Iterator[Finding]:
    for place, exposed in file.exposes():
        if exposed.type not in _ADAPTER_TYPES:
            message = f"adapters of type {exposed.type} are not supported"
            yield Finding("unsupported-feature", (*place, "type"), message)
        if exposed.type == "mcp" and exposed.resources:
            message = "resources of MCP adapters are not supported"
            yield Finding("unsupported-feature", (*place, "resources"), message)


def _check_sources(file: File) -> Iterator[Finding]:
    """Find providers that are not called over HTTP, and files that are not read."""
    for place, consumed in file.consumes():
        if consumed.type != "http":
            message = f"{consumed.namespace or 'consumes'} has type {consumed.type}; only http is supported"
            yield Finding("unsupported-feature", (*place, "type"), message)
        if consumed.import_ is not None:
            message = f"imports are not supported: {consumed.import_!r}"
            fix = "Copy the `consumes` of the other file into this one."
            yield Finding("unsupported-feature", (*place, "import"), message, fix)
    for place, bind in enumerate_items(("binds",), file.capability.binds):
        if bind.location:
            message = f"{bind.location} is not read; keys are taken from the environment"
            yield Finding("unsupported-feature", (*place, "location"), message, "Set the keys in the environment.")


def _find_unknown_keys(part: spec.Part, place: Place) -> Iterator[tuple[Place, Sequence[str]]]:
    """Yield the places of unknown keys, each with the keys that are known there."""
    keywords = {name: info.alias or name for name, info in type(part).model_fields.items()}
    for key in part.model_extra or {}:
        yield (*place, key), list(keywords.values())
    for name, keyword in keywords.items():
        value = getattr(part, name)
        if isinstance(value, spec.Part):
            yield from _find_unknown_keys(value, (*place, keyword))
        elif isinstance(value, tuple):
            for inner, item in enumerate_items((*place, keyword), value):
                if isinstance(item, spec.Part):
                    yield from _find_unknown_keys(item, inner)


def _check_key(place: Place, known: Sequence[str]) -> Iterator[Finding]:
    key = str(place[-1])
    is_adapter_address = key == "address" and len(place) == 4  # ignored like the port beside it
    if key in _UNSUPPORTED_KEYS:
        message = f"`{key}` ({_UNSUPPORTED_KEYS[key]}) is not supported"
        yield Finding("unsupported-feature", place, message)
    elif not key.startswith("x-") and not is_adapter_address:
        yield Finding("unknown-key", place, f"the key `{key}` is unknown and ignored", suggest_name(key, known))
