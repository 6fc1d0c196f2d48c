"""A capability file made of the operations of an OpenAPI document."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from mcp_taskruns.core.format.inputs import SERVER_HEADERS
from mcp_taskruns.core.format.names import legal_name, number_duplicates
from mcp_taskruns.generator.document import Document, Operation, Parameter
from mcp_taskruns.generator.emit import Comment, mark
from mcp_taskruns.generator.family import own_id
from mcp_taskruns.generator.schemas import Schemas
from mcp_taskruns.generator.words import clean_text, first_sentence, label_of, name_provider, short_name, split_words

VERSION = "1.0.0-alpha2"
_DERIVED_TOOLS = frozenset({"wait-for-run", "explain-run", "retry-run"})
_MAX_TITLE_WORDS = 7
_BODY_TYPES = {"form-urlencoded": "form", "multipart": "multipart", "json": "json", "text/": "text"}
_CANCELLING = frozenset({"cancel", "cancels", "abort", "stop", "terminate", "kill", "delete", "deletes", "remove"})


@dataclass(frozen=True)
class Input:
    """A parameter of an operation, or a member of its body, as a capability file declares it."""

    name: str
    location: str
    required: bool
    description: str
    schema: Mapping[str, Any]
    explode: bool | None = None

    def declaration(self) -> dict[str, Any]:
        """Return the entry in `inputParameters`."""
        declared = {"name": self.name, "in": self.location, "type": self.schema.get("type", "")}
        declared |= {"description": self.description, "required": self.required}
        return {key: value for key, value in declared.items() if value or key == "in"}

    def refinement(self) -> dict[str, Any]:
        """Return what the overlay adds: the parts of the schema that a capability file does not have."""
        schema = {key: value for key, value in self.schema.items() if key not in {"type", "description"}}
        added: dict[str, Any] = {"in": self.location, "schema": schema} if schema else {}
        return added | ({"in": self.location, "explode": False} if self.explode is False else {})


@dataclass(frozen=True)
class ToolPlan:
    """An operation of the document with its names in the capability file."""

    operation: Operation
    name: str
    """The name of the operation."""
    tool: str
    title: str
    description: str
    inputs: tuple[Input, ...]
    body: Any
    problems: tuple[str, ...]
    """What could not be taken over from the document."""


@dataclass(frozen=True)
class Provider:
    """The provider that a file is made for."""

    name: str
    label: str
    document: Document

    @property
    def variable(self) -> str:
        """The prefix of the provider's environment variables."""
        return re.sub(r"\W", "_", self.name.upper())


def plan_tools(document: Document, name: str, operations: Sequence[Operation]) -> tuple[Provider, list[ToolPlan]]:
    """Return the provider and, for each operation, what to write into its capability file."""
    provider = Provider(name, label_of(name, document.info), document)
    titles = [_title(one, provider.label) for one in operations]
    counts = Counter(titles)
    tools = [
        title if counts[title] == 1 else short_name(own_id(one), provider.label)
        for title, one in zip(titles, operations, strict=True)
    ]
    tools = [f"{tool}-operation" if tool in _DERIVED_TOOLS else tool or "call" for tool in tools]
    tools = number_duplicates([legal_name(tool) for tool in tools])
    names = number_duplicates([legal_name(re.sub(r"[^a-z0-9]", "", own_id(one).lower())) for one in operations])
    plans = [
        _plan_tool(provider, one, operation_name, tool)
        for one, operation_name, tool in zip(operations, names, tools, strict=True)
    ]
    descriptions = Counter(plan.description for plan in plans)
    return provider, [
        plan
        if descriptions[plan.description] == 1
        else replace(plan, description=name_provider(plan.title, provider.label))
        for plan in plans
    ]


def _title(operation: Operation, label: str) -> str:
    """Return a tool's name: the words of the summary if they are few, else of the id."""
    summary = clean_text(operation.summary)
    title = short_name(summary, label)
    return (
        title
        if title and title.count("-") < _MAX_TITLE_WORDS and "." not in summary
        else short_name(own_id(operation), label)
    )


def _plan_tool(provider: Provider, operation: Operation, name: str, tool: str) -> ToolPlan:
    schemas = Schemas(provider.document)
    sentence = first_sentence(operation.summary) or first_sentence(operation.description) or tool.replace("-", " ")
    longer = first_sentence(operation.description)
    inputs = [*_parameters(schemas, operation)]
    members, body, problems = _body_inputs(schemas, operation)
    taken = {one.name for one in inputs}
    problems += tuple(
        f"the argument {one.name} is in the path or query and in the body; the latter is {one.name}_body"
        for one in members
        if one.name in taken
    )
    if operation.servers:
        problems += (f"the document has another server for this operation: {operation.servers[0]}",)
    return ToolPlan(
        operation=operation,
        name=name,
        tool=tool,
        title=sentence.rstrip(".") if len(sentence) < 60 else tool.replace("-", " ").capitalize(),
        description=name_provider(longer if len(longer) > len(sentence) else sentence, provider.label)[:300],
        inputs=(*inputs, *members),
        body=body,
        problems=problems,
    )


def _parameters(schemas: Schemas, operation: Operation) -> Iterator[Input]:
    for parameter in operation.parameters:
        if parameter.location == "header" and parameter.name.lower() in SERVER_HEADERS:
            continue
        if parameter.location == "path" and parameter.name not in operation.placeholders:
            continue
        yield Input(
            name=path_name(parameter.name) if parameter.location == "path" else parameter.name,
            location=parameter.location,
            required=parameter.required,
            description=_description(schemas, parameter),
            schema=schemas.argument(parameter.schema),
            explode=parameter.explode,
        )


def path_name(name: str) -> str:
    """Return the name of a placeholder that the format accepts."""
    return re.sub(r"\W+", "_", name.partition("=")[0]).strip("_")


def _description(schemas: Schemas, parameter: Parameter) -> str:
    return first_sentence(parameter.description or schemas.flatten(parameter.schema)["description"])


def _body_inputs(schemas: Schemas, operation: Operation) -> tuple[list[Input], Any, tuple[str, ...]]:
    """Return the inputs that make the body, the body's declaration, and what could not be taken over."""
    body = operation.body
    if body is None:
        return [], None, ()
    kind = next((kind for part, kind in _BODY_TYPES.items() if part in body.media_type), "")
    if not kind:
        return [], None, (f"a body of the type {body.media_type} is not supported; it is left out",)
    flat = schemas.flatten(body.schema)
    members = [
        Input(
            name=str(name),
            location="body",
            required=body.required and name in flat["required"],
            description=first_sentence(schemas.flatten(part)["description"]),
            schema=schemas.argument(part),
        )
        for name, part in flat["properties"].items()
        if not schemas.is_read_only(part)
    ]
    if not members or kind == "text":
        schema = {"type": "object"} if kind == "json" and not flat["types"] else schemas.argument(body.schema)
        description = first_sentence(flat["description"]) or "Request body."
        return (
            [Input("body", "body", body.required, description, schema)],
            None if kind == "json" else {"type": kind},
            (),
        )
    if len(members) == 1 and kind == "json":
        return members, {members[0].name: f"{{{{{members[0].name}}}}}"}, ()  # alone it would be the whole body
    return members, {"type": kind}, ()


def build_capability(provider: Provider, plans: Sequence[ToolPlan], today: date) -> dict[Any, Any]:
    """Return the capability file as a mapping, with comments."""
    version = clean_text(provider.document.info.get("version"))
    authentication = build_authentication(provider, [plan.operation for plan in plans])
    keys = authentication.variables
    title = clean_text(provider.document.info.get("title")) or provider.label
    document: dict[Any, Any] = {
        Comment(f"Source: {title} {version} (OpenAPI description)"): None,
        "naftiko": VERSION,
        "info": {
            "label": provider.label,
            "description": first_sentence(provider.document.info.get("description")) or f"{provider.label} runs.",
            "tags": [provider.label],
            "created": today.isoformat(),
            "modified": today.isoformat(),
        },
    }
    if keys:
        document["binds"] = [{"namespace": "env", "keys": {key: key for key in keys}}]
    document["capability"] = {
        "consumes": [_consumes(provider, plans, authentication)],
        "exposes": [
            {
                "type": "mcp",
                "namespace": f"{provider.name}-mcp",
                "description": f"Tools for {provider.label}.",
                "tools": [_tool(provider, plan) for plan in plans],
            }
        ],
    }
    return document


def _consumes(provider: Provider, plans: Sequence[ToolPlan], authentication: "Credentials") -> dict[Any, Any]:
    consumed: dict[Any, Any] = {"type": "http", "namespace": provider.name}
    urls = [url.rstrip("/") for url in provider.document.server_urls()]
    addresses = [url for url in urls if re.match(r"https?://[^{}]+$", url)]
    if not addresses:
        written = f"; it has `{clean_text(urls[0])}`" if urls and urls[0] else ""
        consumed[
            mark(
                f"the document has no address of a server{written}. Add `baseUri`, or set {provider.variable}_BASE_URL."
            )
        ] = None
    elif len(urls) > 1:
        others = ", ".join(clean_text(url) for url in urls if url != addresses[0])
        consumed[mark(f"the document also has these servers: {others}")] = None
    consumed |= {"baseUri": addresses[0]} if addresses else {}
    for problem in authentication.marks:
        consumed[mark(problem)] = None
    if authentication.declaration:
        consumed["authentication"] = authentication.declaration
    paths: dict[str, list[ToolPlan]] = {}
    for plan in plans:
        paths.setdefault(plan.operation.path, []).append(plan)
    names = number_duplicates([legal_name("-".join(split_words(path)) or "root") for path in paths])
    consumed["resources"] = [
        {
            "name": name,
            "path": re.sub(r"\{([^{}]+)\}", lambda match: f"{{{path_name(match[1])}}}", path),
            "operations": [_operation(plan) for plan in group],
        }
        for name, (path, group) in zip(names, paths.items(), strict=True)
    ]
    return consumed


def _operation(plan: ToolPlan) -> dict[Any, Any]:
    written: dict[Any, Any] = {"name": plan.name, Comment(f"Source: operationId {clean_text(plan.operation.id)}"): None}
    for problem in plan.problems:
        written[mark(problem)] = None
    written |= {"method": plan.operation.method, "description": plan.title, "outputRawFormat": "json"}
    written["outputParameters"] = [{"name": "result", "type": "object", "value": "$."}]
    if plan.inputs:
        written["inputParameters"] = [one.declaration() for one in plan.inputs]
    if plan.body is not None:
        written["body"] = plan.body
    return written


def _tool(provider: Provider, plan: ToolPlan) -> dict[str, Any]:
    reads = plan.operation.method == "GET" or plan.operation.path.rstrip("/").endswith(("/filter", "/search", "/query"))
    words = {*plan.tool.split("-"), *split_words(plan.operation.path.rpartition("/")[2])}
    destroys = not reads and (plan.operation.method == "DELETE" or bool(words & _CANCELLING))
    tool: dict[str, Any] = {
        "name": plan.tool,
        "label": f"{provider.label}: {plan.tool.replace('-', ' ')}",
        "description": plan.description,
        "hints": {"readOnly": reads, "destructive": destroys, "idempotent": reads},
        "call": f"{provider.name}.{plan.name}",
    }
    names = dict.fromkeys(one.name for one in plan.inputs)
    if names:
        tool["with"] = {name: f"tools.{name}" for name in names}
    return tool


@dataclass(frozen=True)
class Credentials:
    """How requests authenticate, the environment variables, and what is to be checked about it."""

    declaration: Mapping[str, Any]
    variables: tuple[str, ...]
    marks: tuple[str, ...]


def build_authentication(provider: Provider, operations: Sequence[Operation]) -> Credentials:
    """Return how requests authenticate: by the first supported scheme that the operations require."""
    schemes = provider.document.security_schemes
    required = [
        name for one in operations for item in _list(one.security) if isinstance(item, Mapping) for name in item
    ]
    names = [name for name in dict.fromkeys(required) if name in schemes] or list(schemes)
    found = [credentials for name in names if (credentials := _credentials(provider, schemes[name])) is not None]
    if not found:
        text = "the document does not describe how requests authenticate; add `authentication` if they have to"
        return Credentials({}, (), (text,))
    first = min(found, key=lambda one: bool(one.marks))
    others = sorted(set(names) - {name for name in names if _credentials(provider, schemes[name]) == first})
    text = f"the document also has the security schemes {', '.join(map(clean_text, others))}"
    return Credentials(first.declaration, first.variables, (*first.marks, *((text,) if others else ())))


def _credentials(provider: Provider, scheme: Mapping[str, Any]) -> Credentials | None:
    kind, scheme_name = str(scheme.get("type", "")).lower(), str(scheme.get("scheme", "")).lower()
    token, key = f"{provider.variable}_TOKEN", f"{provider.variable}_API_KEY"
    if kind == "http" and scheme_name == "bearer":
        return Credentials({"type": "bearer", "token": f"{{{{env.{token}}}}}"}, (token,), ())
    if kind == "http" and scheme_name in {"basic", "digest"}:
        user, password = f"{provider.variable}_USERNAME", f"{provider.variable}_PASSWORD"
        parts = {"username": f"{{{{env.{user}}}}}", "password": f"{{{{env.{password}}}}}"}
        return Credentials({"type": scheme_name, **parts}, (user, password), ())
    if kind == "apikey":
        name, place = str(scheme.get("name") or ""), str(scheme.get("in") or "header")
        word = re.search(rf"{re.escape(name)}: ?([A-Za-z]+) ", str(scheme.get("description") or "")) if name else None
        value = f"{word[1]} {{{{env.{key}}}}}" if word and place == "header" else f"{{{{env.{key}}}}}"
        doubts = (f"the value of {clean_text(name)}, with or without a word before the key",)
        marks = doubts if name.lower() == "authorization" else ()
        return Credentials({"type": "apikey", "in": place, "name": name, "value": value}, (key,), marks)
    if kind in {"oauth2", "openidconnect"}:
        text = f"the document describes OAuth: {token} takes an access token, which nothing refreshes"
        return Credentials({"type": "bearer", "token": f"{{{{env.{token}}}}}"}, (token,), (text,))
    return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
