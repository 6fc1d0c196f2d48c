"""Every rule of the capability format, shown by small files: which request a call is, and what a tool asks for."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.core.model.tool import RESULT_PATH
from mcp_taskruns.errors import InvalidArguments, NotConfigured
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp.wire import tool_to_wire
from tests.format.files import ENVIRONMENT, FILES, FOLDER, failure, sent, tools_of

ACCEPT = {"Accept": "application/json, */*;q=0.5"}
JSON = ACCEPT | {"Content-Type": "application/json"}
STREAM = {"Accept": "text/event-stream, */*;q=0.1"}


@dataclass(frozen=True)
class Sent:
    """A call and the request that it must be. `content` is bytes, a JSON value, or None for no body."""

    file: str
    tool: str
    arguments: Mapping[str, Any]
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: ACCEPT)
    content: Any = None

    def __str__(self) -> str:
        return f"{self.file.removesuffix('.yaml')} {self.tool} {json.dumps(self.arguments, ensure_ascii=False)}"[:90]


SENT = [
    # A placeholder is an argument, declared or not, and one segment of the path.
    Sent("paths.yaml", "undeclared", {"id": "a"}, "GET", "https://paths.example/v1/things/a"),
    Sent("paths.yaml", "undeclared", {"id": "a/b c?d#e"}, "GET", "https://paths.example/v1/things/a%2Fb%20c%3Fd%23e"),
    Sent("paths.yaml", "undeclared", {"id": "%2e%2e"}, "GET", "https://paths.example/v1/things/%252e%252e"),
    Sent("paths.yaml", "undeclared", {"id": "Az09-._~"}, "GET", "https://paths.example/v1/things/Az09-._~"),
    Sent(
        "paths.yaml", "undeclared", {"id": "é:@!$&'"}, "GET", "https://paths.example/v1/things/%C3%A9%3A%40%21%24%26%27"
    ),
    Sent("paths.yaml", "undeclared", {"id": "..."}, "GET", "https://paths.example/v1/things/..."),
    Sent("paths.yaml", "without-with", {"id": "a"}, "GET", "https://paths.example/v1/things/a"),
    Sent("paths.yaml", "declared", {"id": 7}, "DELETE", "https://paths.example/v1/things/7"),
    Sent("paths.yaml", "located-by-its-place", {"id": "a"}, "GET", "https://paths.example/v1/things/a"),
    Sent("paths.yaml", "own-path", {"other": "o"}, "GET", "https://paths.example/v1/others/o"),
    Sent("paths.yaml", "trailing-slash", {"id": "a"}, "GET", "https://paths.example/v1/things/a/"),
    Sent("paths.yaml", "suffix", {"id": "a/b"}, "GET", "https://paths.example/v1/things/a%2Fb.json"),
    Sent("paths.yaml", "verb", {"id": "a:b"}, "POST", "https://paths.example/v1/things/a%3Ab:run"),
    Sent(
        "paths.yaml",
        "two-in-one",
        {"base": "main", "head": "fix/it"},
        "GET",
        "https://paths.example/v1/compare/main...fix%2Fit",
    ),
    Sent("paths.yaml", "repeated", {"id": "a"}, "GET", "https://paths.example/v1/things/a/copies/a"),
    Sent("paths.yaml", "dotted", {"thing.id": "a"}, "GET", "https://paths.example/v1/things/a"),
    Sent("paths.yaml", "double", {"id": "a"}, "GET", "https://paths.example/v1/things/a"),
    Sent("paths.yaml", "double-tools", {"id": "a"}, "GET", "https://paths.example/v1/things/a/parts"),
    Sent("paths.yaml", "backwards", {"first": "1", "second": "2"}, "GET", "https://paths.example/v1/2/1"),
    Sent("paths.yaml", "of-a-tenant", {"tenant": "t"}, "GET", "https://paths.example/v1/tenants/t/things"),
    # Literal text is kept, but for what no URL may hold.
    Sent("paths.yaml", "no-slash", {}, "GET", "https://paths.example/v1/things"),
    Sent("paths.yaml", "not-ascii", {}, "GET", "https://paths.example/v1/gr%C3%B6%C3%9Fe/a%20b%7Cc"),
    Sent("paths.yaml", "allowed", {}, "GET", "https://paths.example/v1/a:b@c;d=1,2/(e)*!$~-._"),
    Sent("paths.yaml", "escaped", {}, "GET", "https://paths.example/v1/a%20b"),
    Sent("paths.yaml", "dots", {}, "GET", "https://paths.example/v1/a/.../b"),
    Sent("paths.yaml", "with-query", {"q": "x"}, "GET", "https://paths.example/v1/search?kind=all&q=x"),
    Sent("paths.yaml", "with-query", {}, "GET", "https://paths.example/v1/search?kind=all"),
    Sent(
        "paths.yaml",
        "placeholder-in-query",
        {"kind": "a&b"},
        "GET",
        "https://paths.example/v1/search?kind=a%26b&page=1",
    ),
    Sent("paths.yaml", "head", {}, "HEAD", "https://paths.example/v1/literals"),
    Sent("paths.yaml", "options", {}, "OPTIONS", "https://paths.example/v1/literals"),
    # Query: absent and null are omitted, arrays repeat their key, booleans are words, objects are JSON.
    Sent("queries.yaml", "search", {"limit": 1}, "GET", "https://queries.example/things?limit=1"),
    Sent(
        "queries.yaml",
        "search",
        {"q": "a b&c=d/é~-._+%", "limit": 0},
        "GET",
        "https://queries.example/things?q=a%20b%26c%3Dd%2F%C3%A9~-._%2B%25&limit=0",
    ),
    Sent(
        "queries.yaml",
        "search",
        {"limit": 2, "tags": ["a", "b,c", "a"]},
        "GET",
        "https://queries.example/things?limit=2&tags=a&tags=b%2Cc&tags=a",
    ),
    Sent("queries.yaml", "search", {"limit": 2, "tags": []}, "GET", "https://queries.example/things?limit=2"),
    Sent(
        "queries.yaml",
        "search",
        {"limit": 2, "ratio": 0.5, "exact": True},
        "GET",
        "https://queries.example/things?limit=2&ratio=0.5&exact=true",
    ),
    Sent(
        "queries.yaml",
        "search",
        {"limit": 2, "exact": False},
        "GET",
        "https://queries.example/things?limit=2&exact=false",
    ),
    Sent(
        "queries.yaml",
        "search",
        {"limit": 2, "filter": {"a": [1, "ü"], "b": None}},
        "GET",
        "https://queries.example/things?limit=2&filter=%7B%22a%22%3A%5B1%2C%22%C3%BC%22%5D%2C%22b%22%3Anull%7D",
    ),
    Sent("queries.yaml", "search", {"limit": 2, "anything": None}, "GET", "https://queries.example/things?limit=2"),
    Sent("queries.yaml", "search", {"q": "", "limit": 2}, "GET", "https://queries.example/things?q=&limit=2"),
    Sent(
        "queries.yaml",
        "odd-names",
        {"page[size]": 5, "ids[]": ["a", "b"], "filter.name": "n", "$top": 1, "two words": "w", "größe&=": "x"},
        "GET",
        "https://queries.example/things?page%5Bsize%5D=5&ids%5B%5D=a&ids%5B%5D=b&filter.name=n&%24top=1&two%20words=w"
        "&gr%C3%B6%C3%9Fe%26%3D=x",
    ),
    Sent("queries.yaml", "joined", {"codes": ["a", "b,c"]}, "GET", "https://queries.example/things?codes=a,b%2Cc"),
    # Headers and cookies.
    Sent(
        "headers.yaml",
        "everywhere",
        {
            "id": "i",
            "dry": True,
            "X-Trace": "a b; c=d",
            "X-Count": 3,
            "session": "s 1;x",
            "theme": "dark",
            "note": "n",
        },
        "POST",
        "https://headers.example/things/i?dry=true",
        JSON | {"X-Trace": "a b; c=d", "X-Count": "3", "Cookie": "session=s%201%3Bx; theme=dark"},
        "n",
    ),
    Sent(
        "headers.yaml",
        "everywhere",
        {"id": "i", "X-Count": 0},
        "POST",
        "https://headers.example/things/i",
        ACCEPT | {"X-Count": "0"},
    ),
    Sent(
        "headers.yaml",
        "our-own",
        {"id": "i", "X-Kept": "k", "Accept": "text/html", "content-type": "a/b", "token": "t", "Host": "h.example"},
        "POST",
        "https://headers.example/things/i",
        ACCEPT | {"X-Kept": "k"},
    ),
    # Input parameters of the body: a single one is all of it, several are its members.
    Sent(
        "bodies.yaml",
        "whole",
        {"body": {"name": "ä", "deep": [1, None, {}]}},
        "POST",
        "https://bodies.example/things",
        JSON,
        {"name": "ä", "deep": [1, None, {}]},
    ),
    Sent("bodies.yaml", "optional", {}, "PUT", "https://bodies.example/things"),
    Sent("bodies.yaml", "optional", {"body": {"a": 1}}, "PUT", "https://bodies.example/things", JSON, {"a": 1}),
    Sent(
        "bodies.yaml",
        "list",
        {"body": [{"op": "add"}]},
        "PATCH",
        "https://bodies.example/things",
        JSON,
        [{"op": "add"}],
    ),
    Sent("bodies.yaml", "untyped", {"body": "text"}, "DELETE", "https://bodies.example/things", JSON, "text"),
    Sent("bodies.yaml", "untyped", {}, "DELETE", "https://bodies.example/things"),
    Sent(
        "bodies.yaml",
        "members",
        {"name": "n", "size": 3, "tags": ["a", 1], "extra": {"k": False}},
        "POST",
        "https://bodies.example/things",
        JSON,
        {"name": "n", "size": 3, "tags": ["a", 1], "extra": {"k": False}},
    ),
    Sent("bodies.yaml", "members", {"name": "n"}, "POST", "https://bodies.example/things", JSON, {"name": "n"}),
    Sent("bodies.yaml", "only-optional-members", {}, "POST", "https://bodies.example/things"),
    Sent(
        "bodies.yaml", "only-optional-members", {"size": 0}, "POST", "https://bodies.example/things", JSON, {"size": 0}
    ),
    Sent(
        "bodies.yaml",
        "single-member",
        {"payload": {"a": 1}},
        "POST",
        "https://bodies.example/things",
        JSON,
        {"a": 1},
    ),
    Sent(
        "bodies.yaml",
        "body-among-members",
        {"title": "t", "body": "b"},
        "POST",
        "https://bodies.example/things",
        JSON,
        {"title": "t", "body": "b"},
    ),
    # A `body` in `with` is the body where nothing is declared and the method takes one, else a query parameter.
    Sent("bodies.yaml", "undeclared-post", {"body": {"a": 1}}, "POST", "https://bodies.example/things", JSON, {"a": 1}),
    Sent("bodies.yaml", "undeclared-post", {}, "POST", "https://bodies.example/things"),
    Sent("bodies.yaml", "undeclared-put", {"body": [1]}, "PUT", "https://bodies.example/things", JSON, [1]),
    Sent("bodies.yaml", "undeclared-patch", {"body": {}}, "PATCH", "https://bodies.example/things", JSON, {}),
    Sent(
        "bodies.yaml",
        "undeclared-delete",
        {"body": {"a": 1}},
        "DELETE",
        "https://bodies.example/things",
        JSON,
        {"a": 1},
    ),
    Sent("bodies.yaml", "undeclared-get", {"body": "b"}, "GET", "https://bodies.example/things?body=b"),
    Sent("bodies.yaml", "none", {}, "POST", "https://bodies.example/things"),
    # JSON templates: a placeholder that is a whole value keeps its JSON type; an absent one removes its key.
    Sent(
        "body-templates.yaml",
        "json",
        {"name": 'A "b"', "size": 3, "second": "s", "flag": False},
        "POST",
        "https://templates.example/things",
        JSON,
        {
            "name": 'A "b"',
            "size": 3,
            "tags": ["s", "fixed"],
            "note": 'Hello A "b"!',
            "nested": {"flag": False, "on": True, "count": 3, "none": None},
            "region": "eu",
        },
    ),
    Sent("body-templates.yaml", "json-optional", {}, "PATCH", "https://templates.example/things"),
    Sent(
        "body-templates.yaml",
        "json-optional",
        {"size": ["x"]},
        "PATCH",
        "https://templates.example/things",
        JSON,
        {"size": ["x"]},
    ),
    Sent(
        "body-templates.yaml",
        "json-text",
        {"name": 'A "b"\n\\', "size": 3.5, "first": {"k": 1}},
        "POST",
        "https://templates.example/things",
        JSON,
        {"name": 'A "b"\n\\', "size": 3.5, "note": 'to A "b"\n\\', "tags": [{"k": 1}, 1]},
    ),
    Sent(
        "body-templates.yaml",
        "json-text",
        {"name": "A"},
        "POST",
        "https://templates.example/things",
        JSON,
        {"name": "A", "note": "to A", "tags": [1]},
    ),
    Sent(
        "body-templates.yaml",
        "json-text",
        {"name": '", "admin": true, "x": "'},
        "POST",
        "https://templates.example/things",
        JSON,
        {"name": '", "admin": true, "x": "', "note": 'to ", "admin": true, "x": "', "tags": [1]},
    ),
    Sent(
        "body-templates.yaml",
        "bare-json",
        {"name": 5, "size": "3"},
        "POST",
        "https://templates.example/things",
        JSON,
        {"name": 5, "size": "3"},
    ),
    Sent("body-templates.yaml", "bare-json", {}, "POST", "https://templates.example/things"),
    Sent(
        "body-templates.yaml",
        "bare-placeholder",
        {"payload": {"a": [1]}},
        "POST",
        "https://templates.example/things",
        JSON,
        {"a": [1]},
    ),
    Sent(
        "body-templates.yaml",
        "bare-list",
        {"value": "x"},
        "POST",
        "https://templates.example/things",
        JSON,
        [{"op": "add", "value": "x"}],
    ),
    Sent(
        "body-templates.yaml",
        "json-refined",
        {"name": "n"},
        "POST",
        "https://templates.example/things",
        JSON,
        {"thing": {"name": "n"}},
    ),
    Sent(
        "body-templates.yaml",
        "json-renamed",
        {"title": "t", "size": 1},
        "POST",
        "https://templates.example/things",
        JSON,
        {"name": "t", "kind": "box", "size": 1},
    ),
    # Other templates; forms and XML are in test_bodies.
    Sent(
        "body-templates.yaml",
        "text",
        {"message": 'hä\n{{x}} "&<'},
        "POST",
        "https://templates.example/things",
        ACCEPT | {"Content-Type": "text/plain; charset=utf-8"},
        'hä\n{{x}} "&<'.encode(),
    ),
    Sent(
        "body-templates.yaml",
        "text-inside",
        {"name": "Ann", "message": "a & <b>"},
        "POST",
        "https://templates.example/things",
        ACCEPT | {"Content-Type": "text/plain; charset=utf-8"},
        b'Dear Ann, "a & <b>" & more',
    ),
    Sent(
        "body-templates.yaml",
        "bare-text",
        {"name": "Ann"},
        "POST",
        "https://templates.example/things",
        ACCEPT | {"Content-Type": "text/plain; charset=utf-8"},
        b"Dear Ann",
    ),
    Sent(
        "body-templates.yaml",
        "binary",
        {"content": "AAEC/v8="},
        "PUT",
        "https://templates.example/things",
        ACCEPT | {"Content-Type": "application/octet-stream"},
        b"\x00\x01\x02\xfe\xff",
    ),
    # Constants, also for server headers that the file sets.
    Sent(
        "constants.yaml",
        "everywhere",
        {"q": "x", "name": "n"},
        "POST",
        "https://constants.example/orgs/acme%2Forg/things?version=2026-01-31&count=0&exact=false&kinds=a&kinds=b"
        "&filter=%7B%22deep%22%3A%5B1%5D%7D&q=x",
        JSON | {"X-Key": "key=constant-key", "Cookie": "session=fixed"},
        {"kind": "box", "name": "n"},
    ),
    Sent(
        "constants.yaml",
        "server-headers",
        {"body": {"a": 1}},
        "POST",
        "https://constants.example/orgs/acme/things",
        {
            "Accept": "application/vnd.constants+json",
            "Content-Type": "application/vnd.api+json",
            "Authorization": "Token constant-key",
        },
        {"a": 1},
    ),
    Sent(
        "constants.yaml",
        "beside-authentication",
        {},
        "GET",
        "https://constants.example/me",
        ACCEPT | {"Authorization": "Bearer constant-key"},
    ),
    # Inputs of the environment.
    Sent(
        "environment.yaml",
        "list",
        {"limit": 5},
        "GET",
        "https://environment.example/eu%201/things?limit=5&region=eu%201",
    ),
    Sent("environment.yaml", "double", {"id": "a"}, "GET", "https://environment.example/eu%201/things/a"),
    Sent(
        "environment.yaml",
        "create",
        {"name": "n"},
        "POST",
        "https://environment.example/eu%201/things",
        JSON,
        {"region": "eu 1", "name": "n"},
    ),
    # What `with` may say.
    Sent("with.yaml", "same-name", {"q": "x", "limit": 2}, "GET", "https://with.example/things?q=x&limit=2"),
    Sent("with.yaml", "renamed", {"words": "x", "maxResults": 2}, "GET", "https://with.example/things?q=x&limit=2"),
    Sent("with.yaml", "not-mentioned", {"words": "x", "limit": 2}, "GET", "https://with.example/things?q=x&limit=2"),
    Sent(
        "with.yaml",
        "references",
        {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "user.name": "8"},
        "GET",
        "https://with.example/things?a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8",
    ),
    Sent(
        "with.yaml",
        "places",
        {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "query": "7", "body": "8"},
        "GET",
        "https://with.example/things?a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8",
    ),
    Sent(
        "with.yaml",
        "template",
        {"owner": "o", "repo": "r"},
        "GET",
        "https://with.example/things?q=repo%3Ao%2Fr%20is%3Aopen",
    ),
    Sent(
        "with.yaml",
        "literals",
        {},
        "GET",
        "https://with.example/things?a=v1.2&b=api.example.com&c=10&d=false&e=x&e=y&f=%7B%22deep%22%3A1.5%7D"
        "&g=plain%20text",
    ),
    Sent("with.yaml", "consumed-namespace", {}, "GET", "https://with.example/things?q=with.prime&limit=find.2"),
    Sent("with.yaml", "environment", {}, "GET", "https://with.example/things?q=eu&limit=eu"),
    Sent("with.yaml", "literal-path", {}, "GET", "https://with.example/things/7"),
    Sent("with.yaml", "template-path", {"number": "1/2"}, "GET", "https://with.example/things/n-1%2F2"),
    Sent("with.yaml", "shared", {"x": "7"}, "GET", "https://with.example/things?q=7&limit=7"),
    Sent(
        "with.yaml",
        "unknown-input",
        {"q": "x", "order": "asc"},
        "GET",
        "https://with.example/things?q=x&sort=asc&page=2",
    ),
    Sent("with.yaml", "unknown-input", {"q": "x"}, "GET", "https://with.example/things?q=x&page=2"),
    Sent(
        "with.yaml",
        "unknown-headers",
        {"Accept": "text/html", "token": "t", "host": "h"},
        "POST",
        "https://with.example/things",
    ),
    Sent("with.yaml", "unknown-body", {"payload": {"a": 1}}, "POST", "https://with.example/things", JSON, {"a": 1}),
    # The inner scope wins, field by field.
    Sent(
        "inheritance.yaml",
        "inherited",
        {"locale": "de", "page": 2},
        "GET",
        "https://inheritance.example/things?locale=de&page=2",
        ACCEPT | {"X-Version": "2"},
    ),
    Sent(
        "inheritance.yaml",
        "refined",
        {"page": 2, "page_header": "3"},
        "GET",
        "https://inheritance.example/things?page=2",
        ACCEPT | {"X-Version": "3", "page": "3"},
    ),
    Sent(
        "inheritance.yaml",
        "of-the-adapter",
        {},
        "GET",
        "https://inheritance.example/others",
        ACCEPT | {"X-Version": "1"},
    ),
    # One argument name in several places.
    Sent("collisions.yaml", "two", {"id": "a", "id_query": 2}, "GET", "https://collisions.example/things/a?id=2"),
    Sent("collisions.yaml", "two", {"id": "a"}, "GET", "https://collisions.example/things/a"),
    Sent(
        "collisions.yaml",
        "five",
        {"id": "p", "id_query": "q", "id_header": "h", "id_cookie": "c", "id_body": True},
        "POST",
        "https://collisions.example/things/p?id=q",
        JSON | {"id": "h", "Cookie": "id=c"},
        True,
    ),
    Sent(
        "collisions.yaml",
        "renamed-apart",
        {"id": "a", "folder": "f"},
        "GET",
        "https://collisions.example/things/a?parent=f",
    ),
    # Operations of one name.
    Sent("duplicate-operations.yaml", "list", {"limit": 1}, "GET", "https://duplicates.example/things?limit=1"),
    Sent("duplicate-operations.yaml", "one", {"id": "a"}, "GET", "https://duplicates.example/things/a"),
    Sent(
        "duplicate-operations.yaml",
        "part",
        {"id": "a", "part": "p"},
        "GET",
        "https://duplicates.example/things/a/parts/p",
    ),
    # Addresses.
    Sent("base-uris.yaml", "slash", {}, "GET", "https://base-uris.example/v1/things"),
    Sent("base-uris.yaml", "slashes", {}, "GET", "https://base-uris.example/v1//things"),
    Sent("base-uris.yaml", "bound", {}, "GET", "https://eu-1.base-uris.example/things"),
    Sent("base-uris.yaml", "bare", {}, "GET", "https://eu-1.base-uris.example/things"),
    Sent(
        "several-consumes.yaml",
        "get-order",
        {"order": "o"},
        "GET",
        "https://shop.several.example/orders/o",
        ACCEPT | {"X-Shop": "yes", "Authorization": "Bearer shop-token"},
    ),
    Sent("several-consumes.yaml", "get-old-order", {"order": "o"}, "GET", "https://archive.several.example/old/o"),
    # The spelling of alpha3.
    Sent(
        "keyed-maps.yaml",
        "list",
        {"limit": 1, "tag": ["a", "b"], "dry": True},
        "GET",
        "https://keyed.example/things?dry=true&limit=1&tag=a&tag=b",
        ACCEPT | {"X-Tenant": "acme", "Authorization": "Bearer keyed-token"},
    ),
    Sent(
        "keyed-maps.yaml",
        "make",
        {"body": {"a": 1}},
        "POST",
        "https://keyed.example/things",
        JSON | {"X-Tenant": "acme", "Authorization": "Bearer keyed-token"},
        {"a": 1},
    ),
    Sent(
        "keyed-maps.yaml",
        "get",
        {"id": "a"},
        "GET",
        "https://keyed.example/things/a",
        ACCEPT | {"X-Tenant": "acme", "Authorization": "Bearer keyed-token"},
    ),
    # The original dialect.
    Sent(
        "original-dialect.yaml",
        "get-ship",
        {"number": "IMO 9", "detail": True},
        "GET",
        "https://registry.harbour.example/ships/IMO%209?full=true",
        ACCEPT | {"X-Registry-Version": "2026-01", "Authorization": "Bearer harbour-secret"},
    ),
    Sent(
        "original-dialect.yaml",
        "list-ships",
        {},
        "GET",
        "https://registry.harbour.example/ships",
        ACCEPT | {"X-Registry-Version": "2026-01", "Authorization": "Bearer harbour-secret"},
    ),
    Sent(
        "original-dialect.yaml",
        "plan-voyage",
        {"ship": "s", "crew": ["a", "b"], "departure": "2026-02-01"},
        "POST",
        "https://registry.harbour.example/voyages",
        JSON | {"X-Registry-Version": "2026-01", "Authorization": "Bearer harbour-secret"},
        {"ship": "s", "crew": ["a", "b"], "dates": {"departure": "2026-02-01"}},
    ),
    Sent(
        "original-dialect.yaml",
        "rename-ship",
        {"imo": "9", "name": 'The "Ann"'},
        "PATCH",
        "https://registry.harbour.example/ships/9",
        JSON | {"X-Registry-Version": "2026-01", "Authorization": "Bearer harbour-secret"},
        {"name": 'The "Ann"'},
    ),
    Sent(
        "tool-inputs.yaml",
        "refined",
        {"thing": 7, "depth": 2, "lang": "de"},
        "GET",
        "https://tool-inputs.example/things/7?depth=2&lang=de",
    ),
    # The Accept header.
    Sent("accept.yaml", "plain", {}, "GET", "https://accept.example/events"),
    Sent("accept.yaml", "declared", {}, "GET", "https://accept.example/events", STREAM),
    Sent("accept.yaml", "declared-by-input", {"Accept": "text/html"}, "GET", "https://accept.example/events", STREAM),
    # YAML.
    Sent(
        "yaml-traps.yaml",
        "on",
        {"no": "a", "yes": True, "off": "x", "n": 1, "42": 2, "null": "z"},
        "GET",
        "https://traps.example/things/a?yes=true&off=x&n=1&42=2&day=2026-01-31&time=12%3A30&octal=010&version=1.0.0"
        "&norway=no&null=z",
    ),
    Sent("yaml-traps.yaml", "alias", {"limit": 1}, "GET", "https://traps.example/aliases?limit=1"),
    # What the server cannot do leaves the rest of a file as it is.
    Sent("not-ours.yaml", "works", {}, "GET", "https://not-ours.example/things"),
]


@pytest.mark.parametrize("row", SENT, ids=str)
def test_call_sends_this_request(row: Sent) -> None:
    request = sent(row.file, row.tool, row.arguments)
    assert (request.method, request.url) == (row.method, row.url)
    assert sorted(name.lower() for name, _ in request.headers) == sorted(name.lower() for name in row.headers)
    assert {name.lower(): value for name, value in request.headers} == {
        name.lower(): value for name, value in row.headers.items()
    }
    if row.content is None or isinstance(row.content, bytes):
        assert request.content == row.content
    else:
        assert request.content is not None
        # As text, which tells true from 1.
        assert json.dumps(json.loads(request.content)) == json.dumps(row.content)


@pytest.mark.parametrize("row", SENT, ids=str)
def test_input_schema_accepts_the_arguments_of_the_calls(row: Sent) -> None:
    tool = tools_of(row.file)[row.tool]
    arguments = {
        name: value for name, value in row.arguments.items() if name not in tool.dropped_arguments and value is not None
    }
    assert explain_problems(tool.input_schema, arguments) == []
    assert compile_validator(tool.input_schema)(arguments)


def test_every_supported_tool_has_a_call() -> None:
    shown = {(row.file, row.tool) for row in SENT}
    elsewhere = {"names.yaml", "hints.yaml", "outputs.yaml", "authentication.yaml", "no_tags.yaml", "prefixed.yaml"}
    elsewhere |= {"same-names-a.yaml", "same-names-b.yaml", "same-names-c.yaml", "base-uri-alone.yaml"}
    assert {file for file, _ in shown} == set(FILES) - elsewhere


def schema(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


STRING, INTEGER, BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
STRINGS = {"type": "array", "items": {"type": "string"}}

SCHEMAS = [
    ("paths.yaml", "undeclared", schema({"id": STRING}, "id")),
    ("paths.yaml", "without-with", schema({"id": STRING}, "id")),
    ("paths.yaml", "declared", schema({"id": INTEGER | {"description": "Its number."}}, "id")),
    ("paths.yaml", "located-by-its-place", schema({"id": STRING | {"description": "Its name."}}, "id")),
    ("paths.yaml", "repeated", schema({"id": STRING}, "id")),
    ("paths.yaml", "dotted", schema({"thing.id": STRING}, "thing.id")),
    ("paths.yaml", "double", schema({"id": STRING}, "id")),
    ("paths.yaml", "double-tools", schema({"id": STRING}, "id")),
    ("paths.yaml", "of-a-tenant", schema({"tenant": STRING | {"description": "Whose things."}}, "tenant")),
    ("paths.yaml", "no-slash", schema({})),
    (
        "queries.yaml",
        "search",
        schema(
            {
                "q": STRING | {"description": "Words to look for."},
                "limit": INTEGER,
                "ratio": {"type": "number"},
                "exact": BOOLEAN,
                "tags": STRINGS,
                "filter": {"type": "object"},
                "anything": {},
                "of-no-known-type": {},
            },
            "limit",
        ),
    ),
    (
        "headers.yaml",
        "everywhere",
        schema(
            {
                "id": STRING,
                "dry": BOOLEAN,
                "X-Trace": STRING | {"description": "To find it again."},
                "X-Count": INTEGER,
                "X-Tags": STRINGS,
                "session": STRING,
                "theme": STRING,
                "note": STRING,
            },
            "id",
            "X-Count",
        ),
    ),
    ("headers.yaml", "our-own", schema({"id": STRING, "X-Kept": STRING}, "id")),
    (
        "bodies.yaml",
        "whole",
        schema({"body": {"type": "object", "description": "Request body (JSON)."}}, "body"),
    ),
    ("bodies.yaml", "optional", schema({"body": {"type": "object"}})),
    ("bodies.yaml", "list", schema({"body": {"type": "array", "items": {}}})),
    ("bodies.yaml", "untyped", schema({"body": {}})),
    (
        "bodies.yaml",
        "members",
        schema(
            {
                "name": STRING,
                "size": INTEGER,
                "tags": {"type": "array", "items": {}},
                "extra": {"type": "object"},
            },
            "name",
        ),
    ),
    ("bodies.yaml", "none", schema({})),
    (
        "body-templates.yaml",
        "json-refined",
        schema({"name": STRING | {"description": "What to call it."}}, "name"),
    ),
    ("constants.yaml", "everywhere", schema({"q": STRING, "name": STRING})),
    ("environment.yaml", "list", schema({"limit": INTEGER})),
    ("environment.yaml", "double", schema({"id": STRING}, "id")),
    ("with.yaml", "same-name", schema({"q": STRING | {"description": "Words."}, "limit": INTEGER}, "q")),
    (
        "with.yaml",
        "renamed",
        schema({"words": STRING | {"description": "Words."}, "maxResults": INTEGER}, "words"),
    ),
    (
        "with.yaml",
        "not-mentioned",
        schema({"words": STRING | {"description": "Words."}, "limit": INTEGER}, "words"),
    ),
    ("with.yaml", "literals", schema({})),
    ("with.yaml", "environment", schema({})),
    ("with.yaml", "literal-path", schema({})),
    ("with.yaml", "unknown-headers", schema({})),
    (
        "inheritance.yaml",
        "inherited",
        schema(
            {
                "locale": STRING | {"description": "Of the resource."},
                "page": INTEGER | {"description": "A page's number."},
            },
            "locale",
        ),
    ),
    (
        "inheritance.yaml",
        "refined",
        schema(
            {
                "locale": STRING | {"description": "Of the operation."},
                "page": INTEGER | {"description": "A page's number."},
                "page_header": STRING,
            }
        ),
    ),
    (
        "collisions.yaml",
        "two",
        schema({"id": STRING, "id_query": INTEGER | {"description": "The other id."}}, "id"),
    ),
    (
        "collisions.yaml",
        "five",
        schema({"id": STRING, "id_query": STRING, "id_header": STRING, "id_cookie": STRING, "id_body": BOOLEAN}, "id"),
    ),
    ("collisions.yaml", "renamed-apart", schema({"id": STRING, "folder": STRING}, "id")),
    (
        "keyed-maps.yaml",
        "list",
        schema(
            {
                "dry": BOOLEAN,
                "limit": INTEGER | {"description": "How many."},
                "tag": STRINGS | {"description": "Of which kinds."},
            },
            "limit",
        ),
    ),
    (
        "original-dialect.yaml",
        "get-ship",
        schema(
            {
                "number": STRING | {"description": "The ship's number."},
                "detail": BOOLEAN | {"description": "Whether to tell all."},
            },
            "number",
        ),
    ),
    (
        "original-dialect.yaml",
        "plan-voyage",
        schema(
            {
                "ship": STRING | {"description": "Which ship."},
                "crew": {"type": "array", "items": {}, "description": "Who sails."},
                "departure": STRING,
            },
            "ship",
            "departure",
        ),
    ),
    ("original-dialect.yaml", "rename-ship", schema({"imo": STRING, "name": STRING}, "imo", "name")),
    (
        "tool-inputs.yaml",
        "plain",
        schema(
            {
                "id": STRING,
                "depth": STRING | {"description": "How deep."},
                "lang": STRING | {"description": "Which language."},
            },
            "id",
            "depth",
        ),
    ),
    (
        "tool-inputs.yaml",
        "refined",
        schema(
            {
                "thing": INTEGER | {"description": "The thing's number."},
                "depth": INTEGER | {"description": "How deep."},
                "lang": STRING | {"description": "Of the labels."},
            },
            "thing",
            "lang",
        ),
    ),
    (
        "yaml-traps.yaml",
        "on",
        schema({"no": STRING, "yes": BOOLEAN, "off": STRING, "n": INTEGER, "42": INTEGER, "null": STRING}, "no"),
    ),
]


def own_schema(file: str, tool: str) -> dict[str, Any]:
    """Return the input schema of a tool without the argument of the server that selects a part of a result."""
    found = tools_of(file)[tool].input_schema
    return {**found, "properties": {name: part for name, part in found["properties"].items() if name != RESULT_PATH}}


@pytest.mark.parametrize(("file", "tool", "expected"), SCHEMAS, ids=lambda part: part if isinstance(part, str) else "")
def test_tool_has_this_input_schema(file: str, tool: str, expected: dict[str, Any]) -> None:
    found = own_schema(file, tool)
    assert found == expected
    assert list(found["properties"]) == list(expected["properties"])  # path, query, header, cookie, body


ASKED = [
    ("paths.yaml", "backwards", {"first", "second"}, {"first", "second"}),
    ("bodies.yaml", "undeclared-post", {"body"}, set()),
    ("bodies.yaml", "undeclared-get", {"body"}, set()),
    ("body-templates.yaml", "json", {"name", "size", "first", "second", "flag"}, set()),
    ("body-templates.yaml", "json-text", {"name", "size", "first"}, set()),
    ("body-templates.yaml", "json-renamed", {"title", "size"}, set()),
    ("body-templates.yaml", "text", {"message"}, {"message"}),
    ("body-templates.yaml", "binary", {"content"}, {"content"}),
    ("body-templates.yaml", "form", {"name", "tags", "meta", "on"}, set()),
    ("body-templates.yaml", "multipart-file", {"title", "content", "filename"}, set()),
    ("environment.yaml", "create", {"name"}, set()),
    (
        "with.yaml",
        "references",
        {"one", "two", "three", "four", "five", "six", "seven", "user.name"},
        set(),
    ),
    ("with.yaml", "places", {"one", "two", "three", "four", "five", "six", "query", "body"}, set()),
    ("with.yaml", "shared", {"x"}, {"x"}),
    ("with.yaml", "unknown-input", {"q", "limit", "order"}, {"q"}),
    ("with.yaml", "unknown-body", {"payload"}, set()),
]


@pytest.mark.parametrize(
    ("file", "tool", "names", "required"), ASKED, ids=lambda part: part if isinstance(part, str) else ""
)
def test_tool_has_these_arguments(file: str, tool: str, names: set[str], required: set[str]) -> None:
    found = own_schema(file, tool)
    assert set(found["properties"]) == names
    assert set(found.get("required", [])) == required


@pytest.mark.parametrize(("tool", "names"), [("template", {"owner", "repo"}), ("template-path", {"number"})])
def test_placeholders_of_a_template_are_arguments(tool: str, names: set[str]) -> None:
    assert set(own_schema("with.yaml", tool)["properties"]) == names


@pytest.mark.parametrize("file", FILES)
def test_input_schemas_are_valid_and_closed(file: str) -> None:
    for tool in load_tools([FOLDER / file]):
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["additionalProperties"] is False
        assert set(tool.input_schema.get("required", [])) <= set(tool.input_schema["properties"])


@pytest.mark.parametrize(
    ("file", "tool", "ignored"),
    [
        ("headers.yaml", "our-own", {"Accept", "content-type", "token", "Host", "Content-Length"}),
        ("with.yaml", "unknown-headers", {"Accept", "token", "host"}),
        ("accept.yaml", "declared-by-input", {"Accept"}),
    ],
)
def test_server_headers_are_accepted_and_dropped(file: str, tool: str, ignored: set[str]) -> None:
    found = tools_of(file)[tool]
    assert found.dropped_arguments >= ignored
    assert not found.dropped_arguments & set(found.input_schema["properties"])


def test_stream_has_only_the_wait_argument() -> None:
    tool = tools_of("accept.yaml")["declared-by-input"]
    assert set(tool.input_schema["properties"]) == tool.server_arguments
    assert "Accept" not in tool.server_arguments


@pytest.mark.parametrize(
    ("file", "tool", "arguments", "named"),
    [
        ("paths.yaml", "without-a-place", {"id": "a", "ghost": "g"}, "ghost"),
        ("paths.yaml", "parent", {}, ".."),
        ("paths.yaml", "self", {}, "."),
        ("paths.yaml", "unclosed", {"id": "a"}, "{{"),
        ("paths.yaml", "unclosed-later", {"id": "a", "part": "b"}, "{{"),
        ("constants.yaml", "unclosed", {}, "{{"),
        ("with.yaml", "unclosed", {"words": "a"}, "{{"),
        ("authentication.yaml", "unclosed", {}, "{{"),
        ("body-templates.yaml", "unclosed", {"name": "a"}, "{{"),
        ("body-templates.yaml", "unclosed-text", {"name": "a"}, "{{"),
        ("body-templates.yaml", "unknown-kind", {"content": "a"}, "protobuf"),
        ("authentication.yaml", "oauth1", {}, "oauth1"),
        ("authentication.yaml", "aws-sig-v4", {}, "aws-sig-v4"),
        ("authentication.yaml", "hmac", {}, "hmac"),
        ("authentication.yaml", "incomplete", {}, "bearer"),
        ("not-ours.yaml", "nothing", {}, "not-ours.gone"),
        ("not-ours.yaml", "nowhere", {"id": "a"}, "elsewhere.list"),
        ("not-ours.yaml", "imported", {}, "shared"),
    ],
)
def test_unsupported_tool_is_listed_with_a_reason(
    file: str, tool: str, arguments: Mapping[str, Any], named: str
) -> None:
    error = failure(file, tool, arguments)
    assert isinstance(error, NotConfigured)
    assert error.kind == "unsupported"
    assert named in error.to_line()


@pytest.mark.parametrize(
    ("file", "tool", "arguments", "named"),
    [
        ("paths.yaml", "undeclared", {"id": ""}, "id"),
        ("paths.yaml", "undeclared", {"id": "."}, "id"),
        ("paths.yaml", "undeclared", {"id": ".."}, "id"),
        ("paths.yaml", "suffix", {"id": ""}, "id"),
        ("paths.yaml", "two-in-one", {"base": "a", "head": ".."}, "head"),
        ("headers.yaml", "everywhere", {"id": "i", "X-Count": 1, "X-Trace": "a\r\nX-Evil: b"}, "X-Trace"),
        ("headers.yaml", "everywhere", {"id": "i", "X-Count": 1, "X-Trace": "a\x00"}, "X-Trace"),
        ("headers.yaml", "everywhere", {"id": "i", "X-Count": 1, "X-Trace": "größe"}, "X-Trace"),
        ("body-templates.yaml", "binary", {"content": "no base64!"}, "content"),
    ],
)
def test_value_of_a_wrong_type_is_rejected(file: str, tool: str, arguments: Mapping[str, Any], named: str) -> None:
    error = failure(file, tool, arguments)
    assert isinstance(error, InvalidArguments)
    assert named in error.to_line()


AUTHENTICATED: Sequence[tuple[str, str, Mapping[str, str]]] = [
    ("none", "/me", {}),
    ("absent", "/me", {}),
    ("bearer", "/me", {"Authorization": "Bearer tok/en+1"}),
    ("bearer-bare", "/me", {"Authorization": "Bearer tok/en+1"}),
    ("bearer-vault", "/me", {"Authorization": "Bearer from-the-vault"}),
    ("apikey-header", "/me", {"X-Key": "tok/en+1"}),
    ("apikey-default", "/me", {"Authorization": "Token tok/en+1"}),
    ("apikey-query", "/me?q=x&api%5Bkey%5D=tok%2Fen%2B1", {}),
    ("apikey-in-header", "/me", {"X-Key": "tok/en+1"}),
    ("apikey-in-query", "/me?key=tok%2Fen%2B1", {}),
    ("apikey-header-key", "/me", {"X-Key": "tok/en+1"}),
    ("apikey-header-value", "/me", {"X-Key": "key-tok/en+1"}),
    ("apikey-name-key", "/me", {"X-Key": "tok/en+1"}),
    ("apikey-headers", "/me", {"X-Key": "tok/en+1", "X-App": "app seven"}),
    ("basic", "/me", {"Authorization": "Basic dXNlcjpwYTpzcw=="}),
    ("digest", "/me", {}),
]

BOUND = {
    "bearer-vault": "AUTH_VAULT_TOKEN",
    "basic": "AUTH_USER",
    "digest": "AUTH_USER",
}
"""The variable that a call needs first, where it is not AUTH_TOKEN."""


@pytest.mark.parametrize(("tool", "target", "headers"), AUTHENTICATED, ids=[row[0] for row in AUTHENTICATED])
def test_request_is_authenticated(tool: str, target: str, headers: Mapping[str, str]) -> None:
    request = sent("authentication.yaml", tool, {"q": "x"} if "?q" in target else {})
    assert request.url == f"https://authentication.example{target}"
    assert dict(request.headers) == {**ACCEPT, **headers}
    assert len(request.headers) == 1 + len(headers)


def test_digest_needs_a_challenge() -> None:
    assert sent("authentication.yaml", "digest", {}).digest == ("user", "pa:ss")
    assert sent("authentication.yaml", "basic", {}).digest is None


@pytest.mark.parametrize("value", [None, "", "  "])
@pytest.mark.parametrize("tool", [row[0] for row in AUTHENTICATED[2:]])
def test_missing_credential_is_named(tool: str, value: str | None) -> None:
    variable = BOUND.get(tool, "AUTH_TOKEN")
    left = {name: given for name, given in ENVIRONMENT.items() if name != variable}
    error = failure("authentication.yaml", tool, {}, left if value is None else left | {variable: value})
    assert error.kind == "auth"
    assert variable in error.to_line()
    assert not any(secret in error.to_line() for secret in ("tok/en+1", "from-the-vault", "pa:ss"))


def test_tools_without_credentials_are_listed() -> None:
    assert len(tools_of("authentication.yaml")) == 21


BASES = [
    ("base-uris.yaml", "empty", {}, "BASE_URIS_EMPTY_BASE_URL", "empty", "/things"),
    ("base-uris.yaml", "missing", {}, "BASE_URIS_MISSING_BASE_URL", "missing", "/things"),
    ("base-uris.yaml", "relative", {}, "BASE_URIS_RELATIVE_BASE_URL", "relative", "/things"),
    ("base-uris.yaml", "braces", {}, "BASE_URIS_BRACES_BASE_URL", "braces", "/things"),
    ("base-uris.yaml", "dollar-braces", {}, "BASE_URIS_DOLLAR_BRACES_BASE_URL", "dollar_braces", "/things"),
    ("base-uris.yaml", "with-dot", {}, "BASE_URIS_WITH_DOT_BASE_URL", "with.dot", "/things"),
    ("base-uri-alone.yaml", "get", {"id": "a"}, "BASE_ALONE_BASE_URL", "only", "/things/a"),
    ("prefixed.yaml", "list", {}, "MY_OWN_BASE_URL", "prefixed", "/things"),
]


@pytest.mark.parametrize(("file", "tool", "arguments", "variable", "namespace", "path"), BASES)
def test_missing_base_uri_must_be_configured(
    file: str, tool: str, arguments: Mapping[str, Any], variable: str, namespace: str, path: str
) -> None:
    error = failure(file, tool, arguments)
    assert error.kind == "config"
    assert re.search(rf"\b{variable}\b", error.to_line())
    assert f"--base-uri {namespace}=" in error.to_line()
    given = sent(file, tool, arguments, ENVIRONMENT | {variable: "https://given.example/base/"})
    assert given.url == f"https://given.example/base{path}"


@pytest.mark.parametrize(
    ("file", "tool", "variable"),
    [
        ("base-uris.yaml", "slash", "BASE_URIS_SLASH_BASE_URL"),
        ("base-uris.yaml", "bound", "BASE_URIS_BOUND_BASE_URL"),
        ("no_tags.yaml", "list", "NO_TAGS_BASE_URL"),
        ("not-ours.yaml", "works", "NOT_OURS_BASE_URL"),
    ],
)
def test_given_base_uri_replaces_that_of_the_file(file: str, tool: str, variable: str) -> None:
    environment = {variable: "https://given.example"}
    assert sent(file, tool, {}, environment).url == "https://given.example/things"


@pytest.mark.parametrize("tool", ["bound", "bare"])
def test_missing_variable_of_a_base_uri_is_named(tool: str) -> None:
    error = failure("base-uris.yaml", tool, {}, {})
    assert error.kind == "config"
    assert "BASES_REGION" in error.to_line()


def test_each_adapter_has_its_own_base_uri() -> None:
    environment = ENVIRONMENT | {"SEVERAL_SHOP_BASE_URL": "https://given.example"}
    assert (
        sent("several-consumes.yaml", "get-order", {"order": "o"}, environment).url == "https://given.example/orders/o"
    )
    old = sent("several-consumes.yaml", "get-old-order", {"order": "o"}, environment)
    assert old.url == "https://archive.several.example/old/o"
    archive = {"SEVERAL_SHOP_ARCHIVE_BASE_URL": "https://given.example"}
    assert sent("several-consumes.yaml", "get-old-order", {"order": "o"}, archive).url == "https://given.example/old/o"


@pytest.mark.parametrize(
    ("file", "tool", "arguments", "variable"),
    [
        ("constants.yaml", "everywhere", {}, "CONSTANTS_ORGANISATION"),
        ("environment.yaml", "list", {}, "SHOP_REGION"),
        ("environment.yaml", "create", {}, "SHOP_REGION"),
        ("with.yaml", "environment", {}, "WITH_REGION"),
        ("body-templates.yaml", "json", {"name": "n"}, "TEMPLATES_REGION"),
    ],
)
def test_missing_environment_value_is_named(file: str, tool: str, arguments: Mapping[str, Any], variable: str) -> None:
    error = failure(file, tool, arguments, {name: value for name, value in ENVIRONMENT.items() if name != variable})
    assert error.kind == "config"
    assert variable in error.to_line()


def test_names_are_legal_and_unique() -> None:
    names = [tool.name for tool in load_tools([FOLDER / "names.yaml"])]
    assert names[:8] == [
        "names-co-beta-plain",
        "names-co-beta-Under_Score-9",
        "names-co-beta-two-words",
        "names-co-beta-a-b-c",
        "names-co-beta-twice",
        "names-co-beta-twice-2",
        "names-co-beta-twice-3",
        "names-co-beta-exactly-sixty-four-characters-with-what-it-begin-1",
    ]
    assert len(names[7]) == 64
    assert [name for name in names if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)] == []
    assert len(set(names)) == len(names) == 11


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("no_tags.yaml", ["no-tags-list"]),
        ("prefixed.yaml", ["my-own-list"]),
        ("base-uris.yaml", ["base-uris-slash", "base-uris-slashes"]),
        ("keyed-maps.yaml", ["keyed-list", "keyed-make", "keyed-get"]),
        ("original-dialect.yaml", ["harbour-get-ship", "harbour-list-ships", "harbour-plan-voyage"]),
        ("several-consumes.yaml", ["several-get-order", "several-get-old-order"]),
        ("yaml-traps.yaml", ["traps-on", "traps-alias", "traps-folded", "traps-2026"]),
    ],
)
def test_tool_name_starts_with_the_prefix(file: str, names: list[str]) -> None:
    assert [tool.name for tool in load_tools([FOLDER / file])][: len(names)] == names


def same_names(letters: str) -> list[str]:
    return [tool.name for tool in load_tools([FOLDER / f"same-names-{letter}.yaml" for letter in letters])]


def test_name_of_another_file_gets_a_digest() -> None:
    first, only_a, second, only_b, third, only_c = same_names("abc")
    assert (first, only_a, only_b, only_c) == ("same-list", "same-only-a", "same-only-b", "same-only-c")
    assert re.fullmatch(r"same-list-[0-9a-f]{6}", second)
    assert re.fullmatch(r"same-list-[0-9a-f]{6}", third)
    assert second != third
    # The mark is the file's, whichever other files there are.
    assert same_names("ac") == [first, only_a, third, only_c]
    assert same_names("bc") == [first, only_b, third, only_c]
    assert same_names("c") == [first, only_c]


def test_names_of_all_files_are_unique() -> None:
    tools = load_tools([FOLDER])
    assert len({tool.name for tool in tools}) == len(tools) == sum(len(load_tools([FOLDER / file])) for file in FILES)


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("get", (True, False, True, True)),
        ("head", (True, False, True, True)),
        ("post", (False, False, False, True)),
        ("put", (False, True, True, True)),
        ("patch", (False, True, False, True)),
        ("delete", (False, True, True, True)),
        ("declared", (True, False, False, False)),
        ("declared-wrongly", (False, False, True, True)),
        ("closed-world", (True, False, True, False)),
        ("search", (True, False, False, True)),
    ],
)
def test_hints_are_declared_or_follow_the_method(tool: str, expected: tuple[bool, ...]) -> None:
    annotations = tool_to_wire(tools_of("hints.yaml")[tool])["annotations"]
    names = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
    assert tuple(annotations[name] for name in names) == expected


def test_tool_has_its_label_and_description() -> None:
    labelled = tool_to_wire(tools_of("hints.yaml")["labelled"])
    assert (labelled["title"], labelled["description"]) == ("A label", "A description.")
    keyed = tool_to_wire(tools_of("keyed-maps.yaml")["list"])
    assert (keyed["title"], keyed["description"]) == ("List the things", "List all things.")
    # Without a description of its own, its operation's.
    assert tool_to_wire(tools_of("yaml-traps.yaml")["folded"])["description"] == "One line of two."


def test_only_declared_streams_are_streams() -> None:
    tools = tools_of("accept.yaml")
    assert [name for name, tool in tools.items() if tool.operation.is_stream] == ["declared", "declared-by-input"]
