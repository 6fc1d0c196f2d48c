"""An OpenAPI document as a self-contained HTML page."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

Json = Mapping[str, Any]

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_NOT_WORD = re.compile(r"\W+")
_KEYWORDS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "default", "examples")
_VALUES: Json = {"string": "text", "integer": 1, "number": 1, "boolean": True}

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --dim: #666; --accent: #0a58ca }
@media (prefers-color-scheme: dark) { :root { --dim: #aaa; --accent: #7ab7ff } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; font: 16px/1.5 system-ui, sans-serif; display: grid;
  grid-template-columns: minmax(0, 17rem) minmax(0, 1fr); gap: 0 2.5rem }
header, footer { grid-column: 1 / -1 }
nav { position: sticky; top: 1rem; align-self: start; max-height: calc(100vh - 2rem); overflow: auto;
  font-size: .875rem }
nav ul { list-style: none; margin: 0 0 1rem; padding: 0 }
nav li { margin: .2rem 0 }
a { color: var(--accent); text-decoration: none }
a:hover { text-decoration: underline }
h1 { margin: 0 }
h2 { margin: 2rem 0 0 }
h4 { margin: 1rem 0 .25rem; font-size: .875rem; color: var(--dim) }
article { border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; padding: 0 1rem 1rem;
  scroll-margin: 1rem }
article:target { border-color: var(--accent) }
article h3 { margin: 1rem 0 .5rem; font-size: 1rem; overflow-wrap: anywhere }
code, pre { font: .85rem/1.5 ui-monospace, monospace }
pre { background: var(--soft); border-radius: .35rem; padding: .6rem .8rem; margin: .25rem 0; overflow: auto }
.method { font-weight: 700; margin-right: .5rem }
.dim { color: var(--dim) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--dim) }
summary { cursor: pointer; color: var(--accent) }
@media (max-width: 50rem) { body { grid-template-columns: minmax(0, 1fr) } nav { position: static; max-height: none } }
"""


def docs_page(document: Json) -> str:
    """Return the page of a document from `openapi_document`."""
    info = document["info"]
    title = escape(info["title"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{title} <small class="dim">{escape(info["version"])}</small></h1>\n'
        f"<p>{escape(info['description'])}</p>\n{_usage(document)}</header>\n"
        f"<nav>\n{''.join(_contents(document))}</nav>\n<main>\n{''.join(_sections(document))}</main>\n"
        '<footer><p class="dim">Machine-readable: <a href="openapi.json">openapi.json</a> (OpenAPI '
        f"{escape(document['openapi'])}).</p></footer>\n</body>\n</html>\n"
    )


def _usage(document: Json) -> str:
    """Return the paragraph about the examples and errors."""
    server = document["servers"][0]["url"].rstrip("/")
    address = f": <code>{escape(server)}</code>" if "://" in server else " (scheme, host and port)"
    token = " and <code>$TOKEN</code> is one of its bearer tokens" if "security" in document else ""
    kinds = document["components"]["schemas"]["Problem"]["properties"]["kind"]["enum"]
    return (
        f"<p>In the examples, <code>$BASE</code> is the base URL of this server{address}{token}. Errors are "
        "<code>application/problem+json</code>; their <code>kind</code> is one of "
        f"{', '.join(f'<code>{escape(kind)}</code>' for kind in kinds)}.</p>\n"
    )


def _by_tag(document: Json) -> dict[str, list[tuple[str, str, Json]]]:
    """Return the method, path and operation of each route by its first tag, in the order of the tags."""
    routes: dict[str, list[tuple[str, str, Json]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            routes[operation["tags"][0]].append((method.upper(), path, operation))
    return routes


def _contents(document: Json) -> Iterator[str]:
    for tag, operations in _by_tag(document).items():
        yield f"<strong>{escape(tag)}</strong>\n<ul>\n"
        for _, _, operation in operations:
            yield f'<li><a href="#{_anchor(operation)}">{escape(operation["summary"])}</a></li>\n'
        yield "</ul>\n"


def _anchor(operation: Json) -> str:
    return quote(operation["operationId"])


def _sections(document: Json) -> Iterator[str]:
    protected = "security" in document
    for tag, operations in _by_tag(document).items():
        yield f"<section>\n<h2>{escape(tag)}</h2>\n"
        for method, path, operation in operations:
            yield from _article(method, path, operation, protected)
        yield "</section>\n"


def _article(method: str, path: str, operation: Json, protected: bool) -> Iterator[str]:
    yield f'<article id="{escape(operation["operationId"])}">\n'
    yield f'<h3><code><span class="method">{escape(method)}</span>{escape(path)}</code></h3>\n'
    yield f"<p><strong>{escape(operation['summary'])}</strong> "
    yield f'<code class="dim">{escape(operation["operationId"])}</code><br>\n{escape(operation["description"])}</p>\n'
    if operation.get("parameters"):
        yield '<h4>Parameters</h4>\n<div class="scroll"><table>\n'
        yield "<tr><th>name</th><th>in</th><th>type</th><th>description</th></tr>\n"
        yield from map(_row, operation["parameters"])
        yield "</table></div>\n"
    if "requestBody" in operation:
        yield from _body(operation["requestBody"])
    yield f"<h4>Example</h4>\n<pre>{escape(curl_example(method, path, operation, protected))}</pre>\n"
    yield f'<p class="dim">{escape(_responses(operation["responses"]))}</p>\n</article>\n'


def _row(parameter: Json) -> str:
    schema = _schema_of(parameter)
    required = "required" if parameter["required"] else "optional"
    notes = [parameter.get("description", ""), *(_keyword(key, schema[key]) for key in _KEYWORDS if key in schema)]
    if parameter.get("explode"):
        notes.append("Can be repeated for several values.")
    if "content" in parameter:
        notes.append("Encoded as JSON.")
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code></td>"
        f'<td>{escape(parameter["in"])}<br><span class="dim">{required}</span></td>'
        f"<td>{escape(_type(schema))}</td><td>{escape(' '.join(filter(None, notes)))}</td></tr>\n"
    )


def _keyword(key: str, value: Any) -> str:
    words = re.sub(r"([A-Z])", r" \1", key).lower()
    shown = ", ".join(map(_json, value)) if key == "examples" else _json(value)
    return f"{words[0].upper()}{words[1:]}: {shown}."


def _type(schema: Json) -> str:
    """Return a short description of the type of a value."""
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(map(_type, choices))
    if "enum" in schema:
        return " | ".join(map(_json, schema["enum"]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    named = kind if isinstance(kind, str) else " or ".join(kind)
    return f"{named} ({schema['format']})" if "format" in schema else named


def _body(body: Json) -> Iterator[str]:
    required = "required" if body["required"] else "optional"
    yield f"<h4>Body, JSON, {required}</h4>\n"
    if "description" in body:
        yield f"<p>{escape(body['description'])}</p>\n"
    schema = json.dumps(_schema_of(body), indent=2, ensure_ascii=False)
    yield f"<details><summary>Schema</summary>\n<pre>{escape(schema)}</pre></details>\n"


def _schema_of(owner: Json) -> Json:
    """Return the schema of a parameter or a body, which may be inside its media type."""
    schema: Json = owner["schema"] if "schema" in owner else owner["content"]["application/json"]["schema"]
    return schema


def _responses(responses: Json) -> str:
    kinds = [kind for response in responses.values() for kind in response.get("content", {})]
    return f"Returns {' or '.join(kinds)}.".replace("*/*", "any other type" if len(kinds) > 1 else "a file of any type")


def curl_example(method: str, path: str, operation: Json, protected: bool) -> str:
    """Return a curl command for the smallest valid request of an operation."""
    parameters = [parameter for parameter in operation.get("parameters", []) if parameter["required"]]
    filled = {parameter["name"]: _text(parameter) for parameter in parameters if parameter["in"] == "path"}
    target = "".join(
        # `split` returns the names of placeholders at odd indices.
        quote(filled.get(part, part), safe="") if index % 2 else quote(part, safe="/:@,;=+~")
        for index, part in enumerate(_PLACEHOLDER.split(path))
    )
    query = "&".join(
        f"{quote(parameter['name'], safe='')}={quote(_text(parameter), safe='')}"
        for parameter in parameters
        if parameter["in"] == "query"
    )
    streams = "text/event-stream" in next(iter(operation["responses"].values()))["content"]
    options = ["--no-buffer"] if streams else []
    if method != "GET":
        options.append("--head" if method == "HEAD" else f"--request {method}")
    lines = [" ".join(["curl", *options, f'"$BASE{target}{f"?{query}" if query else ""}"'])]
    if protected:
        lines.append('--header "Authorization: Bearer $TOKEN"')
    headers = [f"{parameter['name']}: {_text(parameter)}" for parameter in parameters if parameter["in"] == "header"]
    lines += [f"--header {shlex.quote(header)}" for header in headers]
    if "requestBody" in operation:
        lines.append("--header 'Content-Type: application/json'")
        lines.append(f"--data {shlex.quote(_json(example_of(_schema_of(operation['requestBody']))))}")
    return " \\\n  ".join(lines)


def _text(parameter: Json) -> str:
    """Return an example of a parameter as text for a URL or a header; without one, its name in capitals."""
    schema = _schema_of(parameter)
    value = example_of(schema)
    if value == _VALUES["string"]:
        return _NOT_WORD.sub("_", parameter["name"]).upper()
    while isinstance(value, list):
        value = value[0] if value else ""
    return value if isinstance(value, str) else _json(value)


def example_of(schema: Json) -> Any:
    """Return an example from a schema, or else the smallest valid value."""
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    for one in ("default", "const"):
        if one in schema:
            return schema[one]
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return example_of(choices[0])
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        return {name: example_of(properties.get(name, {})) for name in schema.get("required", properties)}
    if kind == "array":
        return [example_of(schema.get("items", {}))]
    return schema.get("minimum", _VALUES.get(str(kind), _VALUES["string"]))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
