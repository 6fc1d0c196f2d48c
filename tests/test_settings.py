import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.errors import SettingsError
from mcp_taskruns.settings import PREFIX, Settings, flag_of, options, read_settings, variable_of


def read(flags: dict[str, Any] | None = None, **environ: str) -> Settings:
    return read_settings(flags or {}, environ)


def read_error(flags: dict[str, Any] | None = None, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(flags, **environ)
    return str(caught.value)


def test_defaults_without_flags_and_variables() -> None:
    assert read() == Settings()
    assert (Settings().transport, Settings().host, Settings().port) == ("stdio", "127.0.0.1", 9090)


def test_rate_limits_and_redaction_are_on_by_default() -> None:
    assert (read().no_rate_limits, read().reveal_secrets) == (False, False)
    assert read({"no_rate_limits": True}) == Settings(no_rate_limits=True)
    assert read({"reveal_secrets": True}) == Settings(reveal_secrets=True)


def test_flags_take_precedence_over_variables_and_variables_over_defaults() -> None:
    assert read().port == 9090
    assert read(MCP_TASKRUNS_PORT="1").port == 1
    assert read({"port": 2}, MCP_TASKRUNS_PORT="1").port == 2
    assert read({"port": None}, MCP_TASKRUNS_PORT="1").port == 1


def test_falsy_flag_takes_precedence_over_variable() -> None:
    assert read({"simulate": False}, MCP_TASKRUNS_SIMULATE="yes").simulate is False
    assert read({"port": 0}, MCP_TASKRUNS_PORT="1").port == 0


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("transport", "http", "http"),
        ("host", "::1", "::1"),
        ("port", "65535", 65535),
        ("port", "0", 0),
        ("speed", "2.5", 2.5),
        ("timeout", "1", 1.0),
        ("timeout", "0.5", 0.5),
        ("stream_events", "1", 1),
        ("capabilities", "a, b/c ,,", ("a", "b/c")),
        ("only", "render", ("render",)),
        ("tools", "render-*,*-list-*", ("render-*", "*-list-*")),
        ("simulate", "1", True),
        ("simulate", "True", True),
        ("simulate", " YES ", True),
        ("simulate", "on", True),
        ("read_only", "0", False),
        ("read_only", "false", False),
        ("read_only", "No", False),
        ("read_only", "off", False),
        ("no_rate_limits", "1", True),
        ("no_start_reuse", "1", True),
        ("no_rate_limits", "no", False),
        ("reveal_secrets", "true", True),
        ("reveal_secrets", "0", False),
        ("tool_names", "spec", "spec"),
        ("tool_names", "Spec", "spec"),
        ("transport", "HTTP", "http"),
        ("max_result_chars", "1000", 1000),
        ("speed", "0.001", 0.001),
        ("log_level", "debug", "debug"),
        ("strict", "1", True),
        ("strict", "off", False),
        ("watch", "yes", True),
        ("watch", "0", False),
        ("rest", "on", True),
        ("rest", "no", False),
        ("rest_port", "8081", 8081),
        ("rest_port", "0", 0),
        ("base_uri", "acme=https://a.example/v1", ("acme=https://a.example/v1",)),
        ("base_uri", "a=https://a.example, b=http://127.0.0.1:1", ("a=https://a.example", "b=http://127.0.0.1:1")),
        ("base_uri", "", ()),
        ("host", "", "127.0.0.1"),
        ("port", "", 9090),
    ],
)
def test_variable_is_parsed_by_the_type_of_its_option(name: str, text: str, value: Any) -> None:
    settings = read_settings({}, {PREFIX + name.upper(): text})
    assert getattr(settings, name) == value
    assert type(getattr(settings, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("port", "http", "MCP_TASKRUNS_PORT: 'http' is not an integer"),
        ("port", "1.5", "MCP_TASKRUNS_PORT: '1.5' is not an integer"),
        ("port", "-1", "MCP_TASKRUNS_PORT: -1 is not a port; use 0 to 65535"),
        ("port", "65536", "MCP_TASKRUNS_PORT: 65536 is not a port; use 0 to 65535"),
        ("timeout", "soon", "MCP_TASKRUNS_TIMEOUT: 'soon' is not a number"),
        ("timeout", "0", "MCP_TASKRUNS_TIMEOUT: 0.0 is not a number greater than 0"),
        ("timeout", "nan", "MCP_TASKRUNS_TIMEOUT: nan is not a number greater than 0"),
        ("timeout", "-0.5", "MCP_TASKRUNS_TIMEOUT: -0.5 is not a number greater than 0"),
        ("wait_seconds", "0", "MCP_TASKRUNS_WAIT_SECONDS: 0.0 is not a number greater than 0"),
        ("max_wait_seconds", "0", "MCP_TASKRUNS_MAX_WAIT_SECONDS: 0.0 is not a number greater than 0"),
        ("speed", "-1", "MCP_TASKRUNS_SPEED: -1.0 is not a number greater than 0"),
        ("stream_events", "0", "MCP_TASKRUNS_STREAM_EVENTS: 0 is not a number greater than 0"),
        ("max_result_chars", "-5", "MCP_TASKRUNS_MAX_RESULT_CHARS: -5 is not a number greater than 0"),
        ("simulate", "maybe", "MCP_TASKRUNS_SIMULATE: 'maybe' is not a boolean (use 1 or 0)"),
        ("transport", "sse", "MCP_TASKRUNS_TRANSPORT: 'sse' is not one of stdio, http"),
        ("tool_names", "Specs", "MCP_TASKRUNS_TOOL_NAMES: 'specs' is not one of prefixed, spec"),
        ("max_result_chars", "999", "MCP_TASKRUNS_MAX_RESULT_CHARS: 999 is less than the minimum of 1000"),
        ("strict", "maybe", "MCP_TASKRUNS_STRICT: 'maybe' is not a boolean (use 1 or 0)"),
        ("watch", "5", "MCP_TASKRUNS_WATCH: '5' is not a boolean (use 1 or 0)"),
        ("rest", "8080", "MCP_TASKRUNS_REST: '8080' is not a boolean (use 1 or 0)"),
        ("rest_port", "65536", "MCP_TASKRUNS_REST_PORT: 65536 is not a port; use 0 to 65535"),
        ("rest_port", "-1", "MCP_TASKRUNS_REST_PORT: -1 is not a port; use 0 to 65535"),
        ("rest_port", "yes", "MCP_TASKRUNS_REST_PORT: 'yes' is not an integer"),
        (
            "log_level",
            "loud",
            "MCP_TASKRUNS_LOG_LEVEL: 'loud' is not one of debug, info, warning, error, critical",
        ),
    ],
)
def test_invalid_variable_is_rejected(name: str, text: str, message: str) -> None:
    assert read_error({}, **{PREFIX + name.upper(): text}) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("transport", "sse", "--transport: 'sse' is not one of stdio, http"),
        ("port", 65536, "--port: 65536 is not a port; use 0 to 65535"),
        ("port", -1, "--port: -1 is not a port; use 0 to 65535"),
        ("rest_port", 65536, "--rest-port: 65536 is not a port; use 0 to 65535"),
        ("rest_port", -1, "--rest-port: -1 is not a port; use 0 to 65535"),
        ("speed", 0.0, "--speed: 0.0 is not a number greater than 0"),
        ("timeout", -0.5, "--timeout: -0.5 is not a number greater than 0"),
        ("timeout", float("nan"), "--timeout: nan is not a number greater than 0"),
        ("stream_events", 0, "--stream-events: 0 is not a number greater than 0"),
        ("max_result_chars", 0, "--max-result-chars: 0 is not a number greater than 0"),
        ("max_result_chars", 999, "--max-result-chars: 999 is less than the minimum of 1000"),
    ],
)
def test_invalid_flag_is_rejected(name: str, value: Any, message: str) -> None:
    assert read_error({name: value}) == message


def test_strict_watch_and_rest_are_off_by_default() -> None:
    assert (read().strict, read().watch, read().rest, read().rest_port, read().base_uri) == (
        False,
        False,
        False,
        8080,
        (),
    )
    for name in ("strict", "watch", "rest"):
        assert getattr(read({name: True}), name) is True


@pytest.mark.parametrize(
    "given",
    [
        "acme",
        "https://a.example",
        "=https://a.example",
        "acme=",
        "acme=a.example",
        "acme=//a.example",
        "acme=ftp://a.example",
        "acme=file:///etc",
        "acme=https://",
        "acme https://a.example",
        "acme=b=https://a.example",
        "acme= https://a.example",
        "acme=/v1",
    ],
)
def test_base_uri_must_be_a_namespace_and_a_url(given: str) -> None:
    message = f"{given!r} is not NAMESPACE=URL, such as acme=https://api.acme.example"
    assert read_error({"base_uri": [given]}) == f"--base-uri: {message}"
    assert read_error({"base_uri": ["good=https://good.example", given]}) == f"--base-uri: {message}"
    assert read_error({}, MCP_TASKRUNS_BASE_URI=given) == f"MCP_TASKRUNS_BASE_URI: {message}"


def test_base_uris_are_keyed_by_namespace() -> None:
    settings = read({"base_uri": ["acme=https://a.example/x?a=b", "my-api=http://127.0.0.1:8000"]})
    assert settings.base_uris == {"acme": "https://a.example/x?a=b", "my-api": "http://127.0.0.1:8000"}
    assert read().base_uris == {}


def test_base_uri_flag_takes_precedence_over_variable() -> None:
    assert read({"base_uri": ["a=https://flag.example"]}, MCP_TASKRUNS_BASE_URI="b=https://b.example").base_uris == {
        "a": "https://flag.example"
    }


@pytest.mark.parametrize("name", ["timeout", "wait_seconds", "max_wait_seconds", "speed"])
def test_fractions_below_one_are_accepted(name: str) -> None:
    assert getattr(read({name: 0.5}), name) == 0.5
    assert getattr(read_settings({}, {PREFIX + name.upper(): "0.5"}), name) == 0.5


def test_false_is_not_validated_as_a_number() -> None:
    assert read({"read_only": False}).read_only is False


def test_list_flags_become_tuples() -> None:
    assert read({"capabilities": ["a", "b,c"]}).capabilities == ("a", "b,c")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MCP_TASKRUNS_READONLY", "MCP_TASKRUNS_READ_ONLY"),
        ("MCP_TASKRUNS_TOKEN", "MCP_TASKRUNS_TOKENS"),
        ("MCP_TASKRUNS_PROT", "MCP_TASKRUNS_PORT"),
        ("MCP_TASKRUNS_PORTS", "MCP_TASKRUNS_PORT"),
        ("MCP_TASKRUNS_HOSTS", "MCP_TASKRUNS_HOST"),
    ],
)
@pytest.mark.parametrize("text", ["", "1", "tcp://10.0.0.1:9090"])
def test_misspelled_variable_is_rejected_with_a_suggestion(name: str, meant: str, text: str) -> None:
    assert read_error({}, **{name: text}) == f"{name}: unknown variable; did you mean {meant}?"


def test_unknown_variable_is_rejected_with_the_known_ones() -> None:
    name = f"{PREFIX}{'X' * 60}"
    message, _, known = read_error({}, **{name: ""}).partition("; known variables: ")
    assert message == f"{name}: unknown variable"
    assert known.split(", ") == sorted([variable_of(option) for option in options()] + ["MCP_TASKRUNS_TOKENS"])


def test_service_links_of_kubernetes_and_docker_are_ignored() -> None:
    # Kubernetes and Docker set these for a service named mcp-taskruns.
    links = {
        "MCP_TASKRUNS_SERVICE_HOST": "10.0.0.1",
        "MCP_TASKRUNS_SERVICE_PORT": "9090",
        "MCP_TASKRUNS_SERVICE_PORT_HTTP": "9090",
        "MCP_TASKRUNS_PORT": "tcp://10.0.0.1:9090",
        "MCP_TASKRUNS_PORT_9090_TCP": "tcp://10.0.0.1:9090",
        "MCP_TASKRUNS_PORT_9090_TCP_ADDR": "10.0.0.1",
    }
    assert read_settings({}, links) == Settings(environment=links)
    assert read_settings({"port": 5}, links).port == 5


def test_other_variables_are_kept_in_the_environment() -> None:
    assert read(RENDER_API_KEY="rnd_key", PATH="/bin").environment == {"RENDER_API_KEY": "rnd_key", "PATH": "/bin"}


def env_file(folder: Path, text: str | bytes) -> str:
    path = folder / "keys.env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_env_file_adds_variables_but_does_not_override_them(tmp_path: Path) -> None:
    path = env_file(tmp_path, "RENDER_API_KEY=file\nPOSTHOG_API_KEY=file\nMCP_TASKRUNS_PORT=5\nEMPTY=\nNOTHING\n")
    settings = read({"env_file": path}, RENDER_API_KEY="set")
    assert settings.environment == {"RENDER_API_KEY": "set", "POSTHOG_API_KEY": "file", "MCP_TASKRUNS_PORT": "5"}
    assert (settings.port, settings.env_file) == (5, path)


def test_env_file_can_be_set_by_variable_or_flag(tmp_path: Path) -> None:
    path = env_file(tmp_path, "A=file\n")
    assert read(MCP_TASKRUNS_ENV_FILE=path).environment["A"] == "file"
    assert read({"env_file": path}, MCP_TASKRUNS_ENV_FILE="/nowhere").environment["A"] == "file"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=pa$$word", "pa$$word"),
        ("A=${HOME}", "${HOME}"),
        ('A="$HOME and ${B:-c}"', "$HOME and ${B:-c}"),
        ("A='quoted # no comment'", "quoted # no comment"),
        ("A=plain # comment", "plain"),
        ("export A=größe", "größe"),
    ],
)
def test_env_file_values_are_not_expanded(tmp_path: Path, line: str, value: str) -> None:
    assert read({"env_file": env_file(tmp_path, line)}, HOME="/home/me").environment["A"] == value


def test_unknown_variable_in_an_env_file_is_rejected(tmp_path: Path) -> None:
    assert "MCP_TASKRUNS_PROT: unknown variable" in read_error({"env_file": env_file(tmp_path, "MCP_TASKRUNS_PROT=1")})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nno assignment here\n", 2),
        ("A='open\n", 1),
        ("# comment\n=5\n", 2),
        ("A=1\nRENDER API KEY=secret\n", 2),
    ],
)
def test_invalid_line_of_an_env_file_is_reported_without_its_content(tmp_path: Path, text: str, line: int) -> None:
    path = env_file(tmp_path, text)
    assert read_error({"env_file": path}) == f"--env-file {path}: line {line} is not in the form NAME=value"


def test_last_value_of_a_variable_in_an_env_file_is_used(tmp_path: Path) -> None:
    assert read({"env_file": env_file(tmp_path, "A=1\nA=2\nA=\n")}).environment == {"A": "2"}


def test_unreadable_env_file_is_reported(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.env")
    assert read_error({"env_file": gone}) == f"--env-file {gone}: No such file or directory"
    latin = env_file(tmp_path, b"A=gr\xf6\xdfe")
    assert read_error({"env_file": latin}) == f"--env-file {latin}: the file is not valid UTF-8"


def _make_directory(path: Path) -> None:
    path.mkdir()


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_make_directory, _make_pipe, _make_socket, _link_to_device])
def test_env_file_that_is_not_a_regular_file_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make(Path("keys.env"))
    message = "--env-file keys.env: this is not a regular file; write the variables to a file"
    assert read_error({"env_file": "keys.env"}) == message


def test_env_file_may_be_a_link_to_a_regular_file(tmp_path: Path) -> None:
    link = tmp_path / "link.env"
    link.symlink_to(env_file(tmp_path, "A=file\n"))
    assert read({"env_file": str(link)}).environment["A"] == "file"


def test_env_file_above_the_size_limit_is_rejected(tmp_path: Path) -> None:
    path = env_file(tmp_path, "A=" + "x" * 999_998)
    assert len(read({"env_file": path}).environment["A"]) == 999_998
    path = env_file(tmp_path, "A=" + "x" * 999_999)
    assert read_error({"env_file": path}) == f"--env-file {path}: the file is larger than 1,000,000 bytes"


def test_tokens_are_a_list() -> None:
    assert read(MCP_TASKRUNS_TOKENS="0123456789abcdef, fedcba9876543210-more").tokens == (
        "0123456789abcdef",
        "fedcba9876543210-more",
    )


@pytest.mark.parametrize("tokens", ["short", "0123456789abcde", "0123456789abcdef,short"])
def test_short_token_is_rejected_without_showing_it(tokens: str) -> None:
    assert (
        read_error({}, MCP_TASKRUNS_TOKENS=tokens)
        == "MCP_TASKRUNS_TOKENS: a token has fewer than 16 characters; use longer tokens"
    )


def test_repr_of_settings_contains_no_secrets() -> None:
    settings = read(
        MCP_TASKRUNS_TOKENS="planted-token-1234",
        RENDER_API_KEY="planted-key",
        OTHER="planted-other",
        MCP_TASKRUNS_PORT="5",
    )
    assert settings.tokens == ("planted-token-1234",)
    assert settings.environment["RENDER_API_KEY"] == "planted-key"
    assert "port=5" in repr(settings)
    assert "planted" not in repr(settings) + str(settings)


def test_every_option_has_a_flag_a_variable_and_help() -> None:
    names = {option.name: (flag_of(option), variable_of(option)) for option in options()}
    assert names["read_only"] == ("--read-only", "MCP_TASKRUNS_READ_ONLY")
    assert not {"tokens", "environment"} & set(names)
    assert all(option.metadata["help"] and option.metadata["commands"] for option in options())
