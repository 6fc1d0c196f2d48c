"""The settings of a process: command-line options, then environment variables, then defaults, read once."""

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from io import StringIO
from math import inf
from typing import Any, Literal

from dotenv.parser import parse_stream

from mcp_taskruns.errors import SettingsError

PREFIX = "MCP_TASKRUNS_"

MIN_TOKEN = 16
"""The minimum length of a bearer token in characters; shorter ones can be guessed."""

MAX_PORT = 65_535

MAX_ENV_FILE_BYTES = 1_000_000
"""The size above which an environment file is rejected."""

_SERVICE_LINK = re.compile(rf"{PREFIX}(SERVICE_|PORT_)")
"""Variables that Kubernetes and Docker set for a service named mcp-taskruns."""

SERVE = frozenset({"serve"})
CALL = frozenset({"serve", "call"})
LIST = frozenset({"serve", "call", "tools"})
CHECK = LIST | {"check"}
READ = CHECK | {"providers"}
ALL = READ | {"simulate"}


def _option(
    default: Any, description: str, commands: frozenset[str], choices: tuple[str, ...] = (), minimum: int = 0
) -> Any:
    """Return a field that is an option of `commands` and an environment variable.

    Numbers must be greater than 0 and at least `minimum`.
    """
    metadata = {"help": description, "commands": commands, "choices": choices, "minimum": minimum}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All settings of a process. Durations are in seconds.

    `environment` holds the environment variables, including those of the environment file. `simulator` is the origin of
    the simulated providers once they run.
    """

    transport: Literal["stdio", "http"] = _option("stdio", "Transport for MCP clients", SERVE, ("stdio", "http"))
    host: str = _option("127.0.0.1", "Address to listen on with --transport http or --rest", SERVE)
    port: int = _option(9090, "MCP port with --transport http; 0 selects a free port", SERVE)
    allowed_hosts: tuple[str, ...] = _option((), "Additional Host headers to accept over HTTP", SERVE)
    insecure: bool = _option(False, "Allow other machines to connect without MCP_TASKRUNS_TOKENS", SERVE)
    rest: bool = _option(False, "Also serve the REST API of the capability files", SERVE)
    rest_port: int = _option(8080, "REST port with --rest; 0 selects a free port", SERVE)
    watch: bool = _option(False, "Reload capability files and overlays when they change", SERVE)
    simulate: bool = _option(False, "Call simulated providers in this process; needs no credentials", CALL)
    speed: float = _option(1.0, "Speed factor of simulated runs", CALL | {"simulate"})
    capabilities: tuple[str, ...] = _option(
        (), "Folders of capability files to load instead of the built-in files; can be repeated", READ
    )
    with_: tuple[str, ...] = _option(
        (), "Load these built-in providers too, or all; `mcp-taskruns providers` lists their names", CHECK
    )
    no_overlays: bool = _option(False, "Load capability files without their overlays", READ)
    strict: bool = _option(
        False, "Fail if a capability file is invalid; with check, also exit with 1 on warnings", CHECK
    )
    base_uri: tuple[str, ...] = _option(
        (), "Base URI of a provider as NAMESPACE=URL, with the namespace of its consumes", LIST
    )
    only: tuple[str, ...] = _option((), "Serve only providers with these prefixes, such as render,runway", LIST)
    read_only: bool = _option(False, "Serve only tools that change nothing", LIST)
    tools: tuple[str, ...] = _option(
        (), "Serve only tools that match these patterns, such as 'render-*,*-list-*'", LIST
    )
    exclude_tools: tuple[str, ...] = _option((), "Do not serve tools that match these patterns", LIST)
    tool_names: Literal["prefixed", "spec"] = _option(
        "prefixed", "Tool names: prefixed with the provider, or as in the files", CHECK, ("prefixed", "spec")
    )
    no_rate_limits: bool = _option(False, "Ignore the rate limits that the providers publish", CALL)
    no_start_reuse: bool = _option(
        False, "Start another run for an identical start whose first result did not reach the client", CALL
    )
    reveal_secrets: bool = _option(
        False, "Do not redact the secrets in responses that overlays mark, such as sandbox tokens", CALL
    )
    env_file: str = _option(
        "", "Read environment variables from a file of NAME=value lines; existing ones take precedence", READ
    )
    timeout: float = _option(60.0, "Timeout in seconds of a request to a provider, except event streams", CALL)
    wait_seconds: float = _option(
        45.0, "Seconds to wait or follow if a call sets no wait_seconds; many clients time out after 60", CALL
    )
    max_wait_seconds: float = _option(600.0, "Maximum seconds to wait or follow in one call", CALL)
    stream_events: int = _option(10_000, "Maximum number of events to follow in one call", CALL)
    max_result_chars: int = _option(
        50_000, "Maximum characters of a result; longer results are truncated by whole items", CALL, minimum=1_000
    )
    log_level: str = _option("warning", "Log level on stderr", ALL, ("debug", "info", "warning", "error", "critical"))
    tokens: tuple[str, ...] = field(default=(), repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    simulator: str = ""

    @property
    def base_uris(self) -> Mapping[str, str]:
        """The base URIs that the operator set, by namespace."""
        return dict(item.split("=", 1) for item in self.base_uri)


def options() -> tuple[Field[Any], ...]:
    """Return the fields of `Settings` that are options and environment variables."""
    return tuple(option for option in fields(Settings) if "help" in option.metadata)


def flag_of(option: Field[Any]) -> str:
    """Return the command-line flag of an option: `--read-only` for `read_only`, `--with` for `with_`."""
    return "--" + option.name.rstrip("_").replace("_", "-")


def variable_of(option: Field[Any]) -> str:
    """Return the environment variable of an option: `MCP_TASKRUNS_READ_ONLY` for `read_only`."""
    return PREFIX + option.name.rstrip("_").upper()


def read_settings(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Read settings from flags (by field name; None if not given) and environment variables.

    Raises SettingsError for an invalid value, and for an unknown variable with our prefix: a misspelled
    MCP_TASKRUNS_READONLY must not be ignored.
    """
    environment = dict(environ)
    env_file = flags.get("env_file") or environ.get(f"{PREFIX}ENV_FILE")
    if env_file:
        # An empty variable counts as not set: client configurations often have one for every credential.
        environment |= {name: value for name, value in _read_env_file(env_file).items() if not environ.get(name)}
    values: dict[str, Any] = {}
    for option in options():
        flag = flags.get(option.name)
        text = environment.get(variable_of(option), "")
        if text.startswith("tcp://"):
            text = ""  # Kubernetes and Docker set MCP_TASKRUNS_PORT like this for a service named mcp-taskruns
        if flag is not None:
            values[option.name] = _validate(option, flag, flag_of(option))
        elif text:
            values[option.name] = _validate(option, _parse(option, text), variable_of(option))
    tokens = tuple(split_list(environment.get(f"{PREFIX}TOKENS", "")))
    if any(len(token) < MIN_TOKEN for token in tokens):
        raise SettingsError(f"{PREFIX}TOKENS: a token has fewer than {MIN_TOKEN} characters; use longer tokens")
    _reject_unknown_variables(environment)
    return Settings(**values, tokens=tokens, environment=environment)


def _reject_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {variable_of(option) for option in options()} | {f"{PREFIX}TOKENS"}
    for name in environment:
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.match(name):
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known variables: {', '.join(sorted(known))}"
            raise SettingsError(f"{name}: unknown variable; {hint}")


def _read_env_file(path: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for binding in parse_stream(StringIO(_read_text(path))):
        if binding.error:
            text = binding.original.string
            line = binding.original.line + text[: -len(text.lstrip())].count("\n")
            raise SettingsError(f"--env-file {path}: line {line} is not in the form NAME=value")
        if binding.key and binding.value:
            values[binding.key] = binding.value
    return values


def _read_text(path: str) -> str:
    """Return the text of a regular file. Others are not opened: reading a pipe or a device may take for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SettingsError(f"--env-file {path}: this is not a regular file; write the variables to a file")
        with open(path, "rb") as file:
            data = file.read(MAX_ENV_FILE_BYTES + 1)
        if len(data) > MAX_ENV_FILE_BYTES:
            raise SettingsError(f"--env-file {path}: the file is larger than {MAX_ENV_FILE_BYTES:,} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "the file is not valid UTF-8"
        raise SettingsError(f"--env-file {path}: {reason}") from exc


def split_list(text: str) -> list[str]:
    """Return the items of a comma-separated list."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _parse_boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError


_PARSERS: dict[type, Callable[[str], Any]] = {
    bool: _parse_boolean,
    int: int,
    float: float,
    tuple: lambda text: tuple(split_list(text)),
    str: str,
}

_TYPE_NAMES = {bool: "a boolean (use 1 or 0)", int: "an integer", float: "a number"}


def _parse(option: Field[Any], text: str) -> Any:
    kind = type(option.default)
    try:
        return _PARSERS[kind](text)
    except ValueError:
        raise SettingsError(f"{variable_of(option)}: {text!r} is not {_TYPE_NAMES[kind]}") from None


def _validate(option: Field[Any], value: Any, source: str) -> Any:
    """Return the value in its normal form. Raises SettingsError that names `source`, the flag or the variable."""
    choices = option.metadata["choices"]
    if choices:
        value = value.lower()
        if value not in choices:
            raise SettingsError(f"{source}: {value!r} is not one of {', '.join(choices)}")
    if option.name == "base_uri":
        _validate_base_uris(value, source)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _validate_number(option, value, source)
    return tuple(value) if isinstance(value, list) else value


def _validate_base_uris(items: list[str], source: str) -> None:
    for item in items:
        if not re.fullmatch(r"[^=]+=https?://.+", item):
            raise SettingsError(f"{source}: {item!r} is not NAMESPACE=URL, such as acme=https://api.acme.example")


def _validate_number(option: Field[Any], value: float, source: str) -> None:
    minimum = option.metadata["minimum"]
    if option.name in {"port", "rest_port"}:
        if not 0 <= value <= MAX_PORT:
            raise SettingsError(f"{source}: {value} is not a port; use 0 to {MAX_PORT}")
    elif not 0 < value < inf:
        raise SettingsError(f"{source}: {value} is not a number greater than 0")
    elif value < minimum:
        raise SettingsError(f"{source}: {value} is less than the minimum of {minimum}")
