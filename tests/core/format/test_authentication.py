"""How a request proves who asks, in all spellings of public files."""

from typing import Any

import pytest

from mcp_taskruns.core.format.authentication import Unsupported, UnsupportedKind, parse_authentication
from mcp_taskruns.core.model.operation import Authentication, ConstantTemplate, Location, Variable
from tests.core.documents import Json, capability, request_of, tool_of

KEY = "{{env.THING_KEY}}"
VALUE: ConstantTemplate = (Variable(("THING_KEY",)),)
ME: ConstantTemplate = ("me",)


def template(text: Any) -> ConstantTemplate:
    """A template as simple as these tests need it."""
    return VALUE if text == KEY else (str(text),) if text else ()


NOT_A_HEADER = "which is not a valid header name"


@pytest.mark.parametrize("kind", [None, "", "none", "None", "NONE", "inherit", 0])
def test_missing_or_none_type_means_no_authentication(kind: Any) -> None:
    assert parse_authentication({"type": kind, "token": KEY}, template) is None
    assert parse_authentication({}, template) is None


@pytest.mark.parametrize(
    ("declared", "parsed"),
    [
        ({"type": "bearer", "token": KEY}, Authentication("bearer", (VALUE,))),
        ({"type": "bearer", "value": KEY}, Authentication("bearer", (VALUE,))),
        ({"type": "bearer", "token": KEY, "value": "other"}, Authentication("bearer", (VALUE,))),
        ({"type": "basic", "username": "me", "password": KEY}, Authentication("basic", (ME, VALUE))),
        # Some providers take a key as the user, and no password.
        ({"type": "basic", "username": KEY}, Authentication("basic", (VALUE, ()))),
        ({"type": "basic", "username": KEY, "password": ""}, Authentication("basic", (VALUE, ()))),
        ({"type": "digest", "username": "me", "password": KEY}, Authentication("digest", (ME, VALUE))),
    ],
)
def test_credential_is_sent_in_the_authorization_header(declared: Json, parsed: Authentication) -> None:
    assert parse_authentication(declared, template) == parsed
    assert (parsed.placement, parsed.names) == (Location.HEADER, ("Authorization",))


@pytest.mark.parametrize("kind", ["apikey", "apiKey", "api-key", "api_key", "API Key"])
def test_authentication_type_is_recognised_in_all_spellings(kind: str) -> None:
    expected = Authentication("apikey", (VALUE,), Location.HEADER, ("X-Key",))
    assert parse_authentication({"type": kind, "key": "X-Key", "value": KEY}, template) == expected


@pytest.mark.parametrize(
    ("declared", "placement", "name"),
    [
        ({"key": "X-Key", "value": KEY}, Location.HEADER, "X-Key"),
        ({"key": "X-Key", "value": KEY, "placement": "header"}, Location.HEADER, "X-Key"),
        ({"key": "X-Key", "value": KEY, "placement": "HEADER"}, Location.HEADER, "X-Key"),
        ({"key": "a key", "value": KEY, "placement": "query"}, Location.QUERY, "a key"),
        ({"key": "key", "value": KEY, "placement": "cookie"}, Location.COOKIE, "key"),
        ({"name": "X-Key", "value": KEY}, Location.HEADER, "X-Key"),
        ({"name": "X-Key", "value": KEY, "in": "header"}, Location.HEADER, "X-Key"),
        ({"name": "key", "value": KEY, "in": "query"}, Location.QUERY, "key"),
        ({"name": "key", "value": KEY, "in": "cookie"}, Location.COOKIE, "key"),
        ({"name": "key", "value": KEY, "in": "query", "placement": "header"}, Location.HEADER, "key"),
        ({"name": "X-Key", "key": KEY}, Location.HEADER, "X-Key"),
        ({"name": "X-Key", "token": KEY}, Location.HEADER, "X-Key"),
        ({"header": "X-Key", "key": KEY}, Location.HEADER, "X-Key"),
        ({"header": "X-Key", "value": KEY}, Location.HEADER, "X-Key"),
        ({"header": "X-Key", "value": KEY, "key": "other"}, Location.HEADER, "X-Key"),
        ({"header": "X-Key", "name": "other", "value": KEY}, Location.HEADER, "X-Key"),
        ({"headers": None, "key": "X-Key", "value": KEY}, Location.HEADER, "X-Key"),
        ({"headers": ["X-Other"], "key": "X-Key", "value": KEY}, Location.HEADER, "X-Key"),
    ],
)
def test_api_key_has_placement_and_name(declared: Json, placement: Location, name: str) -> None:
    expected = Authentication("apikey", (VALUE,), placement, (name,))
    assert parse_authentication({"type": "apikey", **declared}, template) == expected


def test_api_key_may_consist_of_several_headers() -> None:
    declared = {"type": "apikey", "headers": {"X-Id": "me", "X-Key": KEY}}
    assert parse_authentication(declared, template) == Authentication(
        "apikey", (ME, VALUE), Location.HEADER, ("X-Id", "X-Key")
    )


@pytest.mark.parametrize("kind", ["oauth1", "oauth2", "aws-sig-v4", "hmac", "Custom", 5])
def test_unknown_authentication_type_is_rejected(kind: Any) -> None:
    with pytest.raises(UnsupportedKind) as caught:
        parse_authentication({"type": kind, "token": KEY}, template)
    assert str(caught.value) == f"has the unsupported authentication type {kind}"


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "Bearer"},
        {"type": "bearer", "token": ""},
        {"type": "basic"},
        {"type": "basic", "password": KEY},
        {"type": "digest", "username": "me"},
        {"type": "digest", "username": "me", "password": None},
        {"type": "digest"},
        {"type": "apikey"},
        {"type": "apikey", "key": "X-Key"},
        {"type": "apikey", "value": KEY},
        {"type": "apikey", "name": "X-Key"},
        {"type": "apikey", "headers": {}},
        {"type": "apikey", "headers": {"X-Key": ""}},
        {"type": "apikey", "headers": {"X-Id": "me", "X-Key": None}},
        {"type": "apikey", "headers": {"": KEY}},
    ],
    ids=repr,
)
def test_authentication_without_credential_is_rejected(declared: Json) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_authentication(declared, template)
    assert str(caught.value) == f"has authentication of type {declared['type']} without a credential"
    assert not isinstance(caught.value, UnsupportedKind)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            {"in": "body", "name": "X-Key", "value": KEY},
            "sends its key in 'body'; use header, query or cookie",
        ),
        (
            {"placement": ["query"], "key": "X-Key", "value": KEY},
            "sends its key in ['query']; use header, query or cookie",
        ),
        ({"key": "an id", "value": KEY}, f"sends its key in 'an id', {NOT_A_HEADER}"),
        (
            {"key": "a:b", "value": KEY, "placement": "cookie"},
            f"sends its key in 'a:b', {NOT_A_HEADER}",
        ),
        (
            {"key": "a\r\nX-Evil: 1", "value": KEY},
            f"sends its key in 'a\\r\\nX-Evil: 1', {NOT_A_HEADER}",
        ),
        (
            {"headers": {"X-Id": "me", "größe": KEY}},
            f"sends its key in 'X-Id', 'größe', {NOT_A_HEADER}",
        ),
    ],
)
def test_api_key_with_invalid_placement_is_rejected(declared: Json, message: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_authentication({"type": "apikey", **declared}, template)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("declared", "headers", "digest", "query"),
    [
        (
            {"type": "apikey", "headers": {"X-Id": "me", "X-Key": f"v1 {KEY}"}},
            (("X-Id", "me"), ("X-Key", "v1 key-123456")),
            None,
            "",
        ),
        ({"type": "digest", "username": "me", "password": KEY}, (), ("me", "key-123456"), ""),
        (
            {"type": "apikey", "key": "session", "value": f"{KEY}; a=b", "placement": "cookie"},
            (("Cookie", "session=key-123456%3B%20a%3Db"),),
            None,
            "",
        ),
        ({"type": "apikey", "name": "k[y]", "in": "query", "value": KEY}, (), None, "?k%5By%5D=key-123456"),
        ({"type": "basic", "username": 5, "password": "x"}, (("Authorization", "Basic NTp4"),), None, ""),
    ],
)
@pytest.mark.parametrize("word", ["auth", "authentication"])
def test_authentication_of_the_file_is_sent(
    word: str, declared: Json, headers: tuple[Any, ...], digest: Any, query: str
) -> None:
    request = request_of(tool_of(**{word: declared}))
    assert request.headers == (("Accept", "application/json, */*;q=0.5"), *headers)
    assert (request.digest, request.url) == (digest, f"https://api.example/things{query}")


def test_authentication_may_be_its_type_only() -> None:
    assert capability(authentication="none").capability.consumes[0].authentication == {"type": "none"}
    assert tool_of(authentication="none") == tool_of()
    assert tool_of(authentication="hmac").operation.unsupported == (
        "things-api.yaml has the unsupported authentication type hmac"
    )


def test_credential_is_not_in_the_repr_of_a_request() -> None:
    request = request_of(tool_of(authentication={"type": "digest", "username": "me", "password": KEY}))
    assert "key-123456" not in repr(request)
