"""An OpenAPI document: its operations, with references resolved."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

METHODS = ("get", "post", "put", "patch", "delete")

Schema = Mapping[str, Any]

_MAX_REFERENCES = 20
"""How many references in a row are followed; more of them lead back to the first."""


class InvalidDocument(ValueError):
    """The reason for which a document cannot be used."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of an operation."""

    name: str
    location: str
    required: bool
    description: str
    schema: Any
    explode: bool | None = None


@dataclass(frozen=True)
class Body:
    """The body of a request: its media type and schema. Many documents omit `required`, which then counts as true."""

    media_type: str
    schema: Any
    required: bool


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation of the document, with its JSON response as a schema or an example; compared by identity."""

    id: str
    method: str
    path: str
    summary: str = ""
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    response: Any = None
    """The schema of the successful JSON response; None if there is none."""
    examples: tuple[Any, ...] = ()
    media_type: str = ""
    """The media type of the successful response; empty if it has no content."""
    returns_nothing: bool = False
    """Whether no successful response can have content."""
    redirects: bool = False
    """Whether the successful response is a redirect."""
    security: Any = None
    servers: tuple[str, ...] = ()

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        """The names of the path's placeholders."""
        return tuple(re.findall(r"\{([^{}]+)\}", self.path))

    @property
    def is_json(self) -> bool:
        """Whether the successful response may be JSON."""
        return "json" in self.media_type or not self.media_type


@dataclass(frozen=True)
class Document:
    """An OpenAPI 3 document. Raises InvalidDocument for other values."""

    root: Mapping[str, Any]
    _cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        version = self.root.get("openapi") if isinstance(self.root, Mapping) else None
        if isinstance(self.root, Mapping) and "swagger" in self.root:
            raise InvalidDocument("it is Swagger 2.0; convert it to OpenAPI 3 first")
        if not str(version or "").startswith("3"):
            raise InvalidDocument("it has no `openapi: 3...`; is it an OpenAPI 3 document?")
        if not isinstance(self.root.get("paths"), Mapping):
            raise InvalidDocument("it has no `paths`")

    @property
    def info(self) -> Mapping[str, Any]:
        """The title, the description and the version."""
        return _mapping(self.root.get("info"))

    def resolve(self, value: Any) -> Any:
        """Return what a value refers to; an empty mapping for a reference that leads nowhere or back to itself.

        Members beside a reference are kept, as in OpenAPI 3.1.
        """
        beside: dict[str, Any] = {}
        for _ in range(_MAX_REFERENCES):
            if not (isinstance(value, Mapping) and isinstance(value.get("$ref"), str)):
                return {**value, **beside} if beside and isinstance(value, Mapping) else value
            beside = {**{key: item for key, item in value.items() if key != "$ref"}, **beside}
            value = self._look_up(value["$ref"])
        return {}

    def _look_up(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            return {}  # in another file
        value: Any = self.root
        for step in reference[2:].split("/"):
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(value, list):
                value = value[int(key)] if key.isdigit() and int(key) < len(value) else None
            else:
                value = value.get(key) if isinstance(value, Mapping) else None
        return {} if value is None else value

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """All operations, in the order of the document."""
        return tuple(self._operations())

    def _operations(self) -> Iterator[Operation]:
        for path, written in self.root["paths"].items():
            item = _mapping(self.resolve(written))
            for method in METHODS:
                operation = self.resolve(item.get(method))
                if isinstance(operation, Mapping):
                    yield self._operation(str(path), method, item, operation)

    def _operation(self, path: str, method: str, item: Mapping[str, Any], operation: Mapping[str, Any]) -> Operation:
        media_type, response, examples = self._response(operation)
        servers = operation.get("servers") or item.get("servers") or ()
        return Operation(
            id=str(operation.get("operationId") or f"{method} {path}"),
            method=method.upper(),
            path=path.partition("?")[0].partition("#")[0],
            summary=str(operation.get("summary") or ""),
            description=str(operation.get("description") or ""),
            parameters=tuple(self._parameters(item, operation)),
            body=self._body(operation),
            response=response,
            examples=examples,
            media_type=media_type,
            returns_nothing=_success_codes(operation) <= {"204", "205"},
            redirects=not _success_codes(operation)
            and any(str(code)[:1] == "3" for code in _mapping(operation.get("responses"))),
            security=operation.get("security", self.root.get("security")),
            servers=tuple(self.server_urls(servers)),
        )

    def _parameters(self, item: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[Parameter]:
        found: dict[tuple[str, str], Parameter] = {}
        for written in (*_list(item.get("parameters")), *_list(operation.get("parameters"))):
            declared = _mapping(self.resolve(written))
            name, location = str(declared.get("name") or ""), str(declared.get("in") or "query")
            content: Any = next(iter(_mapping(declared.get("content")).values()), {})
            if name:
                found[name, location] = Parameter(
                    name=name,
                    location=location,
                    required=declared.get("required") is True or location == "path",
                    description=str(declared.get("description") or ""),
                    schema=declared.get("schema", _mapping(content).get("schema", {})),
                    explode=declared.get("explode") if isinstance(declared.get("explode"), bool) else None,
                )
        yield from found.values()

    def _body(self, operation: Mapping[str, Any]) -> Body | None:
        declared = _mapping(self.resolve(operation.get("requestBody")))
        content = _mapping(declared.get("content"))
        if not content:
            return None
        media_type = min(content, key=_media_rank)
        schema = _mapping(content[media_type]).get("schema", {})
        return Body(str(media_type).partition(";")[0].strip().lower(), schema, declared.get("required", True) is True)

    def _response(self, operation: Mapping[str, Any]) -> tuple[str, Any, tuple[Any, ...]]:
        """Return the media type, the schema and the examples of the first successful response with content."""
        responses = _mapping(operation.get("responses"))
        by_code = {str(code): response for code, response in responses.items()}
        for code in sorted(_success_codes(operation)):
            content = _mapping(_mapping(self.resolve(by_code[code])).get("content"))
            if content:
                media_type = min(content, key=_media_rank)
                declared = _mapping(content[media_type])
                named = (
                    _mapping(self.resolve(one)).get("value") for one in _mapping(declared.get("examples")).values()
                )
                examples = [one for one in (declared.get("example"), *named) if one is not None]
                return str(media_type).lower(), declared.get("schema"), tuple(examples)
        return "", None, ()

    def server_urls(self, servers: Any = None) -> Iterator[str]:
        """Yield the URLs of servers, by default of the document, with the defaults of their variables."""
        for server in _list(self.root.get("servers") if servers is None else servers):
            declared = _mapping(self.resolve(server))
            variables = _mapping(declared.get("variables"))
            url = str(declared.get("url") or "")
            for name, variable in variables.items():
                default = _mapping(variable).get("default")
                url = url if default is None else url.replace(f"{{{name}}}", str(default))
            yield url

    @property
    def security_schemes(self) -> Mapping[str, Any]:
        """The security schemes by name."""
        components = _mapping(self.root.get("components"))
        return {name: _mapping(self.resolve(one)) for name, one in _mapping(components.get("securitySchemes")).items()}


def _success_codes(operation: Mapping[str, Any]) -> set[str]:
    """Return the status codes of successful responses, with those of all others."""
    codes = map(str, _mapping(operation.get("responses")))
    return {code for code in codes if code[:1] == "2" or code == "default"}


def _media_rank(media_type: Any) -> int:
    """Return the order in which media types are preferred."""
    written = str(media_type).lower()
    kinds = ("application/json", "json", "form-urlencoded", "multipart", "text/", "octet-stream")
    return next((rank for rank, kind in enumerate(kinds) if kind in written), len(kinds))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
