"""Warnings about credentials that cannot be redacted reliably."""

import pytest

from mcp_taskruns.core.calls.credentials import weak_credentials
from mcp_taskruns.core.model.operation import Authentication, BaseUri, Operation, TokenEndpoint, Variable

BASE = BaseUri(("https://api.example",), ("THING_BASE_URL",))
KEY = Authentication("bearer", ((Variable(("THING_KEY", "THING_TOKEN")),),))
BASIC = Authentication("basic", ((Variable(("THING_USER",)),), (Variable(("THING_PASSWORD",)),)))

TOO_SHORT = "has fewer than 6 characters, so it is not redacted in results and log lines."
COMMON = "is short or a common word: wherever it occurs in results, `[secret]` replaces it."


def warnings(authentication: Authentication, **environment: str) -> list[str]:
    operation = Operation("read", "thing", "GET", BASE, ("/",), authentication=authentication)
    return list(dict.fromkeys(weak_credentials([operation, operation], environment)))


@pytest.mark.parametrize("value", ["abc", "key", "test", " test ", "12345"])
def test_short_credential_is_reported_as_not_redacted(value: str) -> None:
    assert warnings(KEY, THING_KEY=value) == [f"THING_KEY {TOO_SHORT}"]


@pytest.mark.parametrize(
    "value", ["secret", "succeeded", "production", "test-key", "123456", "Authentication", "key_of_thing"[:11]]
)
def test_common_word_is_reported_as_replaced_everywhere(value: str) -> None:
    assert warnings(KEY, THING_TOKEN=value) == [f"THING_TOKEN {COMMON}"]


@pytest.mark.parametrize("value", ["", " ", "rnd_5d1c7a90b2e8", "0123456789ab", "x" * 21])
def test_long_or_missing_credential_is_not_reported(value: str) -> None:
    assert warnings(KEY, THING_KEY=value) == []


def test_variable_that_is_used_is_reported() -> None:
    assert warnings(KEY, THING_KEY="", THING_TOKEN="test") == [f"THING_TOKEN {TOO_SHORT}"]
    assert warnings(KEY, THING_KEY="rnd_5d1c7a90b2e8", THING_TOKEN="test") == []


def test_short_user_name_is_not_reported_unless_it_is_replaced() -> None:
    assert warnings(BASIC, THING_USER="bob", THING_PASSWORD="bob") == [f"THING_PASSWORD {TOO_SHORT}"]
    assert warnings(BASIC, THING_USER="render", THING_PASSWORD="") == [f"THING_USER {COMMON}"]


USER, PASSWORD = (Variable(("THING_USER",)),), (Variable(("THING_PASSWORD",)),)


def test_short_client_id_is_not_reported() -> None:
    endpoint = TokenEndpoint(("/token",), {"client_id": USER, "client_secret": PASSWORD})
    client = Authentication("oauth2", (USER, PASSWORD), endpoint=endpoint)
    assert warnings(client, THING_USER="bob", THING_PASSWORD="bob") == [f"THING_PASSWORD {TOO_SHORT}"]


def test_short_password_of_a_token_endpoint_is_reported() -> None:
    endpoint = TokenEndpoint(("/token",), {"user": USER, "password": PASSWORD}, body_kind="json")
    login = Authentication("oauth2", (PASSWORD,), endpoint=endpoint)
    assert warnings(login, THING_USER="bob", THING_PASSWORD="bob") == [f"THING_PASSWORD {TOO_SHORT}"]


def test_short_user_and_password_in_one_variable_are_reported() -> None:
    assert warnings(Authentication("basic", ((Variable(("THING_LOGIN",)),),)), THING_LOGIN="a:b") == [
        f"THING_LOGIN {TOO_SHORT}"
    ]
