"""Checks of how a provider is reached: base URI, authentication and credentials."""

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

from mcp_taskruns.core.calls.addresses import is_usable_base_uri
from mcp_taskruns.core.calls.credentials import describe_variables
from mcp_taskruns.core.checks.codes import Finding, Place
from mcp_taskruns.core.checks.model import File, Site, enumerate_items
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.authentication import Unsupported, UnsupportedKind, parse_alternatives
from mcp_taskruns.core.format.inputs import ENVIRONMENT
from mcp_taskruns.core.format.templates import InvalidTemplate, TemplateParser
from mcp_taskruns.core.model.operation import BaseUri, variables_in


def check_base_uris(file: File) -> Iterator[Finding]:
    """Find base URIs that are missing or insecure, of the adapters whose operations are called."""
    bases = {use.tool.operation.namespace: use.tool.operation.base for use in file.uses if use.site}
    for place, consumed in file.consumes():
        base = bases.get(consumed.namespace)
        if base is None:
            continue
        here = (*place, "baseUri")
        if base.default is not None:
            literal = "".join(part if isinstance(part, str) else "x" for part in base.default)
            # A base URI that begins with a variable is checked when it is used.
            if isinstance(base.default[0], str) and not is_usable_base_uri(literal):
                yield Finding("insecure-base-uri", here, f"`baseUri` {literal} does not use https, or has a query")
        elif not _is_configured(file, consumed, base):
            fix = f"Set {base.variables[0]} in the environment of the server, or set `baseUri` in an overlay."
            yield Finding("missing-base-uri", here, _describe_missing(consumed.base_uri), fix)


def _is_configured(file: File, consumed: spec.Consumed, base: BaseUri) -> bool:
    if file.environment is None:
        return bool(consumed.base_uri_env)
    return not set(base.variables).isdisjoint(file.environment)


def _describe_missing(base_uri: str | None) -> str:
    if base_uri is None:
        return "`baseUri` is missing"
    written = base_uri.strip()
    if not written:
        return "`baseUri` is empty"
    if "{" in written:
        return f"`baseUri` {written} has a placeholder without a value"
    return f"`baseUri` {written} is not an HTTP URL"


def check_authentication(file: File) -> Iterator[Finding]:
    """Find authentication that cannot be used, and credentials that are written in the file."""
    parser = TemplateParser(file.capability)
    for place, consumed in file.consumes():
        here = (*place, "authentication")
        try:
            found = parse_alternatives(consumed.authentication, lambda text: parser.credential(str(text)))
        except UnsupportedKind as exc:
            yield Finding("unsupported-authentication", here, f"{consumed.namespace} {exc}", exc.fix)
        except Unsupported as exc:
            yield Finding("incomplete-authentication", here, f"{consumed.namespace} {exc}", exc.fix)
        except InvalidTemplate as exc:
            yield Finding("invalid-template", here, f"the authentication of {consumed.namespace} has {exc}")
        else:
            if any(one.parts and not any(variables_in(one.parts)) for one in found):
                message = f"the credential of {consumed.namespace} does not refer to an environment variable"
                yield Finding("hardcoded-credential", here, message)


def check_credentials(file: File) -> Iterator[Finding]:
    """Find environment variables that are not declared or, if the environment is known, not set."""
    binds = [
        ((*place, "keys", key), key, names)
        for place, bind in enumerate_items(("binds",), file.capability.binds)
        for key, names in bind.keys.items()
    ]
    declared = {name for _, key, names in binds for name in (key, *names)}
    used: dict[str, Site] = {}
    for use in file.uses:
        site = use.site
        if site is not None:
            declared |= {item.name for _, item in site.inputs() if item.location == ENVIRONMENT}
            names = chain.from_iterable(variable.names for variable in use.tool.operation.variables())
            used |= {name: used.get(name, site) for name in names}
    for name in sorted(used.keys() - declared):
        fix = f"Declare it in `binds`, with keys {{{name}: {name}}}."
        place = _place_of_placeholder(used[name], name)
        yield Finding("undeclared-credential", place, f"{name} is used but not declared in `binds`", fix)
    if file.environment is not None:
        yield from _find_unset(file, binds, file.environment)


def _find_unset(
    file: File, binds: Iterable[tuple[Place, str, tuple[str, ...]]], environment: Collection[str]
) -> Iterator[Finding]:
    alternatives = _describe_alternatives(file, environment)
    for place, key, names in binds:
        if not set(names).isdisjoint(environment):
            continue
        needed = next((alternatives[name] for name in names if name in alternatives), None)
        if needed is None:
            message = f"{' or '.join(names)} is not set in the environment"
            message += "" if key in names else f" (the value of {key})"
            yield Finding("unset-credential", place, message, f"Set {names[0]} in the environment of the server.")
        elif needed:
            fix = f"Set {needed} in the environment of the server."
            yield Finding("unset-credential", place, f"{needed} is not set in the environment", fix)
            alternatives = {name: "" if text == needed else text for name, text in alternatives.items()}


def _describe_alternatives(file: File, environment: Collection[str]) -> dict[str, str]:
    """Return, by each variable of alternative credentials, all variables of these; empty if enough of them are set."""
    described: dict[str, str] = {}
    for use in file.uses:
        ways = use.tool.operation.authentications
        if len(ways) > 1:
            variables = [list(way.variables()) for way in ways]
            is_any_set = any(all(not set(one.names).isdisjoint(environment) for one in way) for way in variables)
            text = "" if is_any_set else describe_variables(ways)
            described |= {name: text for one in chain.from_iterable(variables) for name in one.names}
    return described


def _place_of_placeholder(site: Site, name: str) -> Place:
    """Return the place of the first text that has a placeholder of this name, or that of the operation."""
    pattern = re.compile(rf"\{{\s*([\w-]+\.)*{re.escape(name)}\s*\}}")
    return next((place for place, text in site.texts() if pattern.search(text)), site.place)
