"""How a request proves who asks, in all spellings of public files."""

from typing import Any

import pytest

from mcp_taskruns.core.calls.credentials import credential_values
from mcp_taskruns.core.format.authentication import (
    Unsupported,
    UnsupportedKind,
    parse_alternatives,
    parse_authentication,
)
from mcp_taskruns.core.model.operation import (
    NO_AUTHENTICATION,
    Authentication,
    ConstantTemplate,
    Location,
    TokenEndpoint,
    Variable,
)
from mcp_taskruns.errors import NotConfigured
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
        ({"type": "basic", "credentials": KEY}, Authentication("basic", (VALUE,))),
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


@pytest.mark.parametrize("kind", ["oauth1", "aws-sig-v4", "hmac", "Custom", 5])
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


TOKEN_URI = "https://login.example/token"
CLIENT = {"type": "oauth2", "tokenUri": TOKEN_URI, "clientId": "me", "clientSecret": KEY}
FORM = {"grant_type": ("client_credentials",)}


def endpoint(body: Any = FORM, **changes: Any) -> TokenEndpoint:
    return TokenEndpoint((TOKEN_URI,), body, **changes)


@pytest.mark.parametrize(
    ("declared", "parts", "expected"),
    [
        (CLIENT, (ME, VALUE), endpoint(basic=(ME, VALUE))),
        (
            {"type": "OAuth2", "token_url": TOKEN_URI, "client-id": "me", "client_secret": KEY, "grantType": None},
            (ME, VALUE),
            endpoint(basic=(ME, VALUE)),
        ),
        ({**CLIENT, "token": KEY, "password": "x"}, (ME, VALUE), endpoint(basic=(ME, VALUE))),
        ({**CLIENT, "grant_type": "client_credentials"}, (ME, VALUE), endpoint(basic=(ME, VALUE))),
        ({**CLIENT, "clientAuthentication": "client_secret_basic"}, (ME, VALUE), endpoint(basic=(ME, VALUE))),
        (
            {**CLIENT, "clientAuthentication": "client_secret_post"},
            (ME, VALUE),
            endpoint({**FORM, "client_id": ME, "client_secret": VALUE}),
        ),
        (
            {**CLIENT, "scopes": ["a", "b"], "parameters": {"audience": "x", "limit": 5}},
            (ME, VALUE),
            endpoint({**FORM, "scope": ("a b",), "audience": ("x",), "limit": 5}, basic=(ME, VALUE)),
        ),
        ({**CLIENT, "scope": "a b"}, (ME, VALUE), endpoint({**FORM, "scope": ("a b",)}, basic=(ME, VALUE))),
        (
            {
                "type": "oauth2",
                "tokenUri": TOKEN_URI,
                "body": {"user": "me", "more": [{"password": KEY}, 5, True]},
                "tokenPath": "$.data.token",
                "expiresInPath": "$.data.ttl",
                "renewAfter": 403,
            },
            (VALUE,),
            endpoint(
                {"user": ME, "more": [{"password": VALUE}, 5, True]},
                body_kind="json",
                token=("data", "token"),
                expires_in=("data", "ttl"),
                renew_after=frozenset({401, 403}),
            ),
        ),
        ({**CLIENT, "renewAfter": [403, 419]}, (ME, VALUE), endpoint(basic=(ME, VALUE), renew_after={401, 403, 419})),
    ],
)
def test_token_endpoint_has_a_form_or_a_body(declared: Json, parts: Any, expected: TokenEndpoint) -> None:
    assert parse_authentication(declared, template) == Authentication("oauth2", parts, endpoint=expected)


@pytest.mark.parametrize("uri", ["/token", "token", "http://localhost:8080/token", KEY])
def test_token_endpoint_may_be_relative_or_on_loopback(uri: str) -> None:
    parsed = parse_authentication({**CLIENT, "tokenUri": uri}, template)
    assert parsed is not None
    assert parsed.endpoint is not None
    assert parsed.endpoint.uri == template(uri)


OAUTH = "has authentication of type oauth2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clientId": ""}, f"{OAUTH} without a credential"),
        ({"clientSecret": None}, f"{OAUTH} without a credential"),
        ({"body": {}}, f"{OAUTH} without a credential"),
        ({"body": {"user": "me", "password": ""}}, f"{OAUTH} without a credential"),
        ({"tokenUri": None}, f"{OAUTH} without a token endpoint"),
        ({"tokenUri": " "}, f"{OAUTH} without a token endpoint"),
        (
            {"tokenUri": "http://login.example/x"},
            "has the token endpoint http://login.example/x, which does not use https",
        ),
        ({"tokenUri": "ftp://localhost/x"}, "has the token endpoint ftp://localhost/x, which does not use https"),
        ({"renewOn": 403}, f"{OAUTH} with the unknown key 'renewOn'"),
        ({"clientAuthentication": "private_key_jwt"}, f"{OAUTH} with the client authentication 'private_key_jwt'"),
        ({"clientAuthentication": ["none"]}, f"{OAUTH} with the client authentication ['none']"),
        ({"parameters": ["a"]}, f"{OAUTH} whose `parameters` are not a mapping"),
        ({"renewAfter": 500}, f"{OAUTH} with a new token after 500"),
        ({"renewAfter": [403, "x"]}, f"{OAUTH} with a new token after [403, 'x']"),
        (
            {"tokenPath": "token"},
            f"{OAUTH} with an invalid path: `token` is not a path: paths start with `$`, write `$.token`",
        ),
    ],
    ids=repr,
)
def test_unusable_token_endpoint_is_rejected(changes: Json, message: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_authentication({**CLIENT, **changes}, template)
    assert str(caught.value) == message
    assert not isinstance(caught.value, UnsupportedKind)


@pytest.mark.parametrize("grant", ["authorization_code", "password", 5])
def test_other_grant_types_are_unsupported(grant: Any) -> None:
    with pytest.raises(UnsupportedKind, match=f"with the grant type {grant}"):
        parse_authentication({**CLIENT, "grantType": grant}, template)


BEARER = Authentication("bearer", (VALUE,))


@pytest.mark.parametrize(
    ("declared", "parsed"),
    [
        (None, ()),
        ({}, ()),
        ([], ()),
        ({"type": "none"}, ()),
        ([{"type": "none"}], ()),
        ({"type": "bearer", "token": KEY}, (BEARER,)),
        ([{"type": "bearer", "token": KEY}], (BEARER,)),
        ([{"type": "bearer", "token": KEY}, {"type": "none"}], (BEARER, NO_AUTHENTICATION)),
        (
            [{"type": "bearer", "token": KEY}, {"type": "basic", "credentials": KEY}],
            (BEARER, Authentication("basic", (VALUE,))),
        ),
    ],
)
def test_authentication_may_have_alternatives(declared: Any, parsed: tuple[Authentication, ...]) -> None:
    assert parse_alternatives(declared, template) == parsed


def test_alternative_after_none_is_rejected() -> None:
    with pytest.raises(Unsupported, match="after that of type none, which never counts"):
        parse_alternatives([{"type": "none"}, {"type": "bearer", "token": KEY}], template)


A, B, C, D = (f"{{{{env.{name}}}}}" for name in "ABCD")
ALTERNATIVES = [
    {"type": "bearer", "token": A},
    {"type": "basic", "username": B, "password": C},
    {"type": "basic", "credentials": D},
]


@pytest.mark.parametrize(
    ("environment", "sent"),
    [
        ({"A": "a", "B": "b", "C": "c", "D": "d:e"}, "Bearer a"),
        ({"B": "b", "C": "c", "D": "d:e"}, "Basic Yjpj"),
        ({"A": " ", "B": "b", "C": "", "D": "d:e"}, "Basic ZDpl"),
        ({"D": "user:pass:word"}, "Basic dXNlcjpwYXNzOndvcmQ="),
    ],
)
def test_first_alternative_whose_variables_are_all_set_counts(environment: Json, sent: str) -> None:
    for tool in (
        tool_of(authentication=ALTERNATIVES),
        tool_of({"authentication": ALTERNATIVES}, authentication={"type": "bearer", "token": "other"}),
    ):
        request = request_of(tool, environment=environment)
        assert dict(request.headers)["Authorization"] == sent


@pytest.mark.parametrize("environment", [{}, {"B": "b"}])
def test_missing_credential_names_the_variables_of_all_alternatives(environment: Json) -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(authentication=ALTERNATIVES), environment=environment)
    assert caught.value.hint == "Set A, or B and C, or D in the server's environment and restart the server."
    assert (caught.value.kind, caught.value.message) == ("auth", "the provider's credential is not set")


def test_none_as_the_last_alternative_makes_the_credential_optional() -> None:
    tool = tool_of(authentication=[*ALTERNATIVES, {"type": "none"}])
    assert request_of(tool, environment={"B": "b"}).headers == (("Accept", "application/json, */*;q=0.5"),)
    assert dict(request_of(tool, environment={"A": "a"}).headers)["Authorization"] == "Bearer a"


def test_user_and_password_in_one_variable_have_a_colon_between_them() -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(authentication=ALTERNATIVES[2]), environment={"D": "word"})
    assert caught.value.message == "the credential for basic authentication contains no colon"
    assert caught.value.hint == "Set D in the server's environment to `user:password`."
    assert "word" not in caught.value.message


def test_all_forms_of_all_alternatives_are_secrets() -> None:
    declared = [
        *ALTERNATIVES,
        {
            "type": "oauth2",
            "tokenUri": "https://{{env.E}}.example",
            "clientId": "{{env.E}}",
            "clientSecret": "{{env.F}}",
        },
    ]
    environment = {"A": "bearer-key", "D": "user:password", "E": "client", "F": "a secret"}
    values = set(credential_values(tool_of(authentication=declared).operation, environment))
    # base64 of client:a+secret
    assert values == {
        "bearer-key",
        "user:password",
        "dXNlcjpwYXNzd29yZA==",
        "password",
        "client",
        "a secret",
        "Y2xpZW50OmErc2VjcmV0",
    }
