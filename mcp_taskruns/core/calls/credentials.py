"""Credentials and other values from the server's environment."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote_plus

from mcp_taskruns.core.calls.redaction import MIN_SECRET, REPLACEMENT
from mcp_taskruns.core.model.operation import (
    Authentication,
    ConstantTemplate,
    Location,
    Operation,
    TokenEndpoint,
    Variable,
    variables_in,
)
from mcp_taskruns.errors import Kind, NotConfigured

CREDENTIAL = "the provider's credential"


BASE_URI_PART = "a part of the provider's base URL"


CONSTANT = "a value that this call needs"


SHORT = 12
"""A credential with fewer characters is short: providers issue longer ones."""

LONGEST_WORD = 20
"""A credential of at most so many characters may be a word, if it has only letters."""

Credentials = list[tuple[Location, str, str]]
"""Where each credential is sent, its name and its value."""


def credential_values(operation: Operation, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets that calls of this operation send, raw and in the form in which they are sent."""
    for variable in operation.credentials():
        yield from (environment[name].strip() for name in variable.names if environment.get(name))
    for authentication in operation.authentications:
        try:
            yield from _sent_values(authentication, environment)
        except NotConfigured:
            continue


def _sent_values(authentication: Authentication, environment: Mapping[str, str]) -> Iterator[str]:
    for _, _, value in resolve_credentials(authentication, environment)[1]:
        yield value.rsplit(" ", 1)[-1]
    if authentication.endpoint and authentication.endpoint.basic:
        yield client_credentials(authentication.endpoint, environment)
    if authentication.kind == "basic" and len(authentication.parts) == 1:
        yield fill_constant(authentication.parts[0], environment, CREDENTIAL).partition(":")[2]


def read_variable(names: Iterable[str], environment: Mapping[str, str]) -> str | None:
    """Return the value of the first variable that is set."""
    return next((environment[name] for name in names if environment.get(name)), None)


def choose_authentication(operation: Operation, environment: Mapping[str, str]) -> Authentication | None:
    """Return the first authentication whose variables are all set. Raises NotConfigured, which names all of them."""
    authentications = operation.authentications
    for one in authentications:
        if is_complete(one, environment):
            return one
    if not operation.alternatives and (operation.authentication is None or operation.authentication.endpoint is None):
        return operation.authentication  # `resolve_credentials` names the variable that is missing
    raise NotConfigured(
        f"{CREDENTIAL} is not set",
        kind="auth",
        hint=f"Set {describe_variables(authentications)} in the server's environment and restart the server.",
    )


def is_complete(authentication: Authentication, environment: Mapping[str, str]) -> bool:
    """Return whether all variables of an authentication are set."""
    return all((read_variable(one.names, environment) or "").strip() for one in authentication.variables())


def describe_variables(authentications: Iterable[Authentication]) -> str:
    """Return the variables of alternatives for a sentence: `A_TOKEN, or A_USER and A_PASSWORD`."""
    described = (
        " and ".join(dict.fromkeys(" or ".join(variable.names) for variable in one.variables()))
        for one in authentications
    )
    ways = list(dict.fromkeys(filter(None, described)))
    return (", or " if any(" and " in way for way in ways) else " or ").join(ways)


def credential_names(operation: Operation) -> str:
    """Return the names of the variables with the credentials of an operation, for a sentence."""
    variables = operation.credentials()
    if not any(one.endpoint for one in operation.authentications) and not operation.alternatives:
        return ", ".join(dict.fromkeys(" or ".join(variable.names) for variable in variables))
    known = {variable for one in operation.authentications for variable in one.variables()}
    others = dict.fromkeys(" or ".join(variable.names) for variable in variables if variable not in known)
    return ", ".join([describe_variables(operation.authentications), *others])


def resolve_credentials(
    authentication: Authentication | None, environment: Mapping[str, str]
) -> tuple[tuple[str, str] | None, Credentials]:
    """Return user and password for digest authentication, and the credentials that the request contains.

    A request with a token of an endpoint contains none yet.
    """
    if authentication is None or authentication.kind in {"none", "oauth2"}:
        return None, []
    parts = [fill_constant(template, environment, CREDENTIAL) for template in authentication.parts]
    match authentication.kind:
        case "digest":
            return _digest(parts), []
        case "bearer":
            parts = [f"Bearer {parts[0]}"]
        case "basic":
            parts = [f"Basic {_basic(parts, authentication)}"]
    return None, [
        (authentication.placement, name, value) for name, value in zip(authentication.names, parts, strict=True)
    ]


def client_credentials(endpoint: TokenEndpoint, environment: Mapping[str, str]) -> str:
    """Return client id and secret as the Authorization header contains them: RFC 6749 section 2.3.1."""
    parts = [quote_plus(fill_constant(part, environment, CREDENTIAL)) for part in endpoint.basic]
    return base64.b64encode(":".join(parts).encode()).decode()


def _basic(parts: list[str], authentication: Authentication) -> str:
    """Return user and password as the Authorization header contains them: RFC 7617."""
    text = ":".join(parts)
    if ":" not in text:
        raise NotConfigured(
            "the credential for basic authentication contains no colon",
            kind="auth",
            hint=f"Set {describe_variables((authentication,))} in the server's environment to `user:password`.",
        )
    return base64.b64encode(text.encode()).decode()


def _digest(parts: list[str]) -> tuple[str, str]:
    user, password = parts
    if ":" in user:
        raise NotConfigured(
            "the user name for digest authentication contains a colon",
            kind="auth",
            hint="Correct the user name in the server's environment: RFC 7616 does not allow a colon.",
        )
    return user, password


def fill_constant(template: ConstantTemplate, environment: Mapping[str, str], purpose: str) -> str:
    """Fill a template from the environment. `purpose` names the result in the message of NotConfigured."""
    return "".join(part if isinstance(part, str) else require_variable(part, environment, purpose) for part in template)


def require_variable(variable: Variable, environment: Mapping[str, str], purpose: str) -> str:
    names = " or ".join(variable.names)
    kind: Kind = "auth" if purpose == CREDENTIAL else "config"
    value = (read_variable(variable.names, environment) or "").strip()
    if not value:
        raise NotConfigured(
            f"{purpose} is not set", kind=kind, hint=f"Set {names} in the server's environment and restart the server."
        )
    if not (value.isascii() and value.isprintable()):
        raise NotConfigured(
            f"{purpose} contains characters other than printable ASCII",
            kind=kind,
            hint=f"Correct {names} in the server's environment; check it for a line break.",
        )
    return value


def weak_credentials(operations: Iterable[Operation], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence about each credential that cannot be redacted reliably; it names the variable, not the value."""
    users = {variable for operation in operations for variable in _user_of(operation)}
    variables = dict.fromkeys(variable for operation in operations for variable in operation.credentials())
    for variable in variables:
        name = next((name for name in variable.names if environment.get(name)), "")
        value = environment.get(name, "").strip()
        is_redacted = len(value) >= MIN_SECRET
        if value and not is_redacted and variable not in users:
            yield f"{name} has fewer than {MIN_SECRET} characters, so it is not redacted in results and log lines."
        elif is_redacted and (len(value) < SHORT or (value.isalpha() and len(value) <= LONGEST_WORD)):
            yield f"{name} is short or a common word: wherever it occurs in results, `{REPLACEMENT}` replaces it."


def _user_of(operation: Operation) -> Iterator[Variable]:
    """Yield the variable of a user name, which is no secret."""
    for one in operation.authentications:
        has_user = one.kind in {"basic", "digest"} or (one.endpoint is not None and one.endpoint.body_kind == "form")
        if has_user and len(one.parts) > 1:
            yield from variables_in(one.parts[:1])
