import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from mcp_taskruns.core.calls import redaction
from mcp_taskruns.core.calls.redaction import REDACTED, REPLACEMENT, Redactor, redact_paths
from mcp_taskruns.core.model.json_path import parse_path

SECRET = 'phx_A/b+c="%\\d'


@pytest.mark.parametrize(
    "form",
    [
        pytest.param('phx_A/b+c="%\\d', id="raw"),
        pytest.param('phx_A/b+c=\\"%\\\\d', id="in JSON"),
        pytest.param("phx_A%2Fb%2Bc%3D%22%25%5Cd", id="in a URL"),
        pytest.param("cGh4X0EvYitjPSIlXG", id="in base64"),
    ],
)
def test_secret_is_redacted_in_every_encoding(form: str) -> None:
    redactor = Redactor([SECRET])
    assert redactor.redact_text(f"<{form}|{form}>") == f"<{REPLACEMENT}|{REPLACEMENT}>"
    assert redactor.redact_bytes(b"\x00<" + form.encode() + b">\xff") == b"\x00<" + REPLACEMENT.encode() + b">\xff"


def test_encodings_of_these_tests_are_correct() -> None:
    assert json.dumps(SECRET) == '"phx_A/b+c=\\"%\\\\d"'
    assert quote(SECRET, safe="") == "phx_A%2Fb%2Bc%3D%22%25%5Cd"
    assert base64.b64encode(SECRET.encode()).decode() == "cGh4X0EvYitjPSIlXGQ="


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "u", "us", "user:", "user1:", "user12:"])
@pytest.mark.parametrize("after", ["", ":", ":x", ":xyz"])
@pytest.mark.parametrize("secret", ["abcdef", "abcdefg", "abcdefgh", "key_\xff\xfe\xfd?>?>"])
def test_secret_is_redacted_at_any_offset_in_base64(
    encode: Callable[[bytes], bytes], before: str, after: str, secret: str
) -> None:
    encoded = encode(f"{before}{secret}{after}".encode()).decode()
    # Each character encodes six bits; characters that encode only bits of the secret are redacted.
    start, end = 8 * len(before), 8 * len((before + secret).encode())
    own = [place for place in range(len(encoded)) if start <= 6 * place and 6 * (place + 1) <= end]
    expected = encoded[: own[0]] + REPLACEMENT + encoded[own[-1] + 1 :]
    assert Redactor([secret]).redact_text(f"Basic {encoded}") == f"Basic {expected}"


@pytest.mark.parametrize(("secret", "expected"), [("", False), ("12345", False), ("123456", True)])
def test_secrets_shorter_than_six_characters_are_not_redacted(secret: str, expected: bool) -> None:
    text = f"a {secret} b"
    assert Redactor([secret]).redact_text(text) == (f"a {REPLACEMENT} b" if expected else text)


def test_longer_secret_is_redacted_first() -> None:
    assert (
        Redactor(["key-1", "key-12", "key-12-and-more"]).redact_text("key-12-and-more key-12")
        == f"{REPLACEMENT} {REPLACEMENT}"
    )


def test_secret_that_contains_another_secret_is_redacted_as_a_whole() -> None:
    assert Redactor(["secret-1", "my-secret-1"]).redact_text("my-secret-1 secret-1") == f"{REPLACEMENT} {REPLACEMENT}"


@pytest.mark.parametrize("form", ['"ü"-123456', '\\"ü\\"-123456', '\\"\\u00fc\\"-123456', "%22%C3%BC%22-123456"])
def test_secret_with_quotes_and_umlauts_is_redacted_from_its_first_character(form: str) -> None:
    assert Redactor(['"ü"-123456']).redact_text(f"< \\ {form}>") == f"< \\ {REPLACEMENT}>"


def test_text_without_secrets_is_unchanged() -> None:
    redactor = Redactor(["key-12"])
    assert (redactor.redact_text("key-13"), redactor.redact_bytes(b"\xff\xfe")) == ("key-13", b"\xff\xfe")


def test_redactor_without_secrets_changes_nothing() -> None:
    assert Redactor([]).redact_text("anything") == "anything"


def test_redacted_json_is_valid_json() -> None:
    body = json.dumps({"message": f"wrong key {SECRET}", "n": [1]}).encode()
    assert json.loads(Redactor([SECRET]).redact_bytes(body)) == {"message": f"wrong key {REPLACEMENT}", "n": [1]}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{"message": "\\u006bey-123456"}', f'{{"message":"{REPLACEMENT}"}}'),
        ('{"\\u006Bey\\u002d123456": "gr\\u00f6\\u00dfe"}', f'{{"{REPLACEMENT}":"größe"}}'),
        ('["a\\/key-123456\\/b", null, 1.5]', f'["a/{REPLACEMENT}/b",null,1.5]'),
        # Text that is not JSON is redacted as text.
        ('sent \\ key-123456 "', f'sent \\ {REPLACEMENT} "'),
        ('{"message": "key-123456\\n"', f'{{"message": "{REPLACEMENT}\\n"'),
        ('{"message": "key-123456"}', f'{{"message": "{REPLACEMENT}"}}'),
    ],
)
def test_secret_with_json_escapes_is_redacted(written: str, expected: str) -> None:
    redactor = Redactor(["key-123456"])
    assert redactor.redact_text(written) == expected
    assert redactor.redact_bytes(written.encode()) == expected.encode()


def test_secret_with_backslashes_is_redacted_in_json_and_text() -> None:
    redactor = Redactor([SECRET])
    assert redactor.redact_text(json.dumps({"message": SECRET})) == f'{{"message":"{REPLACEMENT}"}}'
    assert redactor.redact_text(f"sent {SECRET}!") == f"sent {REPLACEMENT}!"


def test_redact_plain_text_does_not_parse_json() -> None:
    redactor = Redactor([SECRET])
    text = '{"a": "\\n", "secret": %s}'
    assert redactor.redact_plain_text(text % json.dumps(SECRET)) == text % f'"{REPLACEMENT}"'
    assert redactor.redact_plain_text(f"\\ {SECRET}") == f"\\ {REPLACEMENT}"


@pytest.mark.parametrize("secrets", [[], ["key-123456"]])
@pytest.mark.parametrize(
    "text", ['{"a": "\\u00f6"}', '{"a": "\\u00f6"}\n{"b": "\\u00f6"}\n'], ids=["JSON", "JSON lines"]
)
def test_json_without_secrets_is_not_rewritten(text: str, secrets: list[str]) -> None:
    assert Redactor(secrets).redact_text(text) == text
    assert Redactor(secrets).redact_bytes(text.encode()) == text.encode()


def test_unpaired_surrogate_beside_a_secret_becomes_a_question_mark() -> None:
    redactor = Redactor(["key-123456"])
    assert redactor.redact_text("\\ \ud800 key-123456") == f"\\ ? {REPLACEMENT}"
    assert redactor.redact_bytes(b'["\\ud800", "key-123456"]') == f'["?","{REPLACEMENT}"]'.encode()


def test_repr_of_a_redactor_hides_its_secrets() -> None:
    assert "key-123456" not in repr(Redactor(["key-123456"]))


URL = "https://bucket.s3.amazonaws.com/log?X-Amz-Signature=abc"


@pytest.mark.parametrize(
    ("value", "paths", "shown", "redacted"),
    [
        ({"token": "a.b.c", "id": 1}, ["token"], {"token": REDACTED, "id": 1}, ["token"]),
        # PostHog products/tasks/backend/serializers.py: TaskRunDetailSerializer
        (
            {"id": "r", "log_url": URL, "state": {"mode": "background", "sandbox_url": URL}},
            ["log_url", "state.sandbox_connect_token", "state.sandbox_url"],
            {"id": "r", "log_url": REDACTED, "state": {"mode": "background", "sandbox_url": REDACTED}},
            ["log_url", "state.sandbox_url"],
        ),
        (
            {"results": [{"log_url": URL}, {"log_url": None}, {}, {"log_url": URL}]},
            ["results[*].log_url"],
            {"results": [{"log_url": REDACTED}, {"log_url": None}, {}, {"log_url": REDACTED}]},
            ["results[*].log_url"],
        ),
        # Values that are not text are redacted too.
        ({"token": {"jwt": "a", "expires": 5}}, ["token"], {"token": REDACTED}, ["token"]),
        ({"token": 123456}, ["token"], {"token": REDACTED}, ["token"]),
        ({"tokens": ["a", "b", ""]}, ["tokens[*]"], {"tokens": [REDACTED, REDACTED, ""]}, ["tokens[*]"]),
        # Empty values are not redacted.
        ({"token": ""}, ["token"], {"token": ""}, []),
        ({"token": None}, ["token"], {"token": None}, []),
        (
            {"results": [{"token": "a"}, {"token": ""}]},
            ["results[*].token"],
            {"results": [{"token": REDACTED}, {"token": ""}]},
            ["results[*].token"],
        ),
        ({"other": 1}, ["token"], {"other": 1}, []),
        ({"state": "replaced"}, ["state.token"], {"state": "replaced"}, []),
        (["token"], ["token"], ["token"], []),
        (None, ["token"], None, []),
        ({"token": "a"}, [], {"token": "a"}, []),
    ],
)
def test_redact_paths_replaces_values_and_returns_their_paths(
    value: Any, paths: list[str], shown: Any, redacted: list[str]
) -> None:
    before = repr(value)
    assert redact_paths(value, (parse_path(f"$.{path}") for path in paths)) == (shown, redacted)
    assert repr(value) == before


def test_redaction_by_path_and_by_value_have_different_marks() -> None:
    assert (REDACTED, REPLACEMENT) == ("[redacted]", "[secret]")


def test_secret_with_escapes_in_json_lines_is_redacted() -> None:
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in "phx_planted/x")
    lines = f'{{"a":"\\n"}}\n{{"b":"{spelled}"}}\nno JSON \\ at all\n'.encode()
    assert Redactor(["phx_planted/x"]).redact_bytes(lines) == b'{"a":"\\n"}\n{"b":"[secret]"}\nno JSON \\ at all\n'


def test_secret_with_escapes_in_text_that_is_not_json_is_redacted() -> None:
    assert Redactor(["key-123456"]).redact_bytes(b"no JSON: \\u006bey-123456") == b"no JSON: [secret]"


def test_secret_with_escapes_after_many_json_lines_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "MAX_LINES", 2)
    line = '{"a":"\\u006bey-123456"}\n'
    assert Redactor(["key-123456"]).redact_text(line * 4) == '{"a":"[secret]"}\n' * 4


def test_secret_with_escapes_is_found_where_text_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "PIECE_BYTES", 40)
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in "key-123456")
    for before in range(60):
        text = f'["{"a" * before}{spelled}b"]'
        assert Redactor(["key-123456"]).redact_text(text) == f'["{"a" * before}[secret]b"]'


def test_json_lines_whose_escapes_spell_no_secret_are_kept_beside_one_that_does() -> None:
    lines = '{"b":"\\u00f6"}\n{"a":"\\u006bey-123456"}\n{"c":"\\u00f6"}\n'
    assert Redactor(["key-123456"]).redact_text(lines) == '{"b":"\\u00f6"}\n{"a":"[secret]"}\n{"c":"\\u00f6"}\n'
