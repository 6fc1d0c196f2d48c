"""What the operator chose: flags, then variables, then defaults, read once."""

import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal

from mcp_taskruns.errors import SettingsError

PREFIX = "MCP_TASKRUNS_"

_SERVICE_LINK = re.compile(rf"{PREFIX}(SERVICE_|PORT_)")
"""What Kubernetes and Docker set for a service that is called mcp-taskruns."""

MIN_TOKEN = 16
"""A bearer token of fewer characters can be guessed."""


SERVING = frozenset({"serve"})
CALLING = frozenset({"serve", "call"})
LISTING = frozenset({"serve", "call", "tools"})
ALL = frozenset({"serve", "call", "tools", "check", "simulate"})


def _option(default: Any, told: str, commands: frozenset[str], choices: tuple[str, ...] = (), least: int = 0) -> Any:
    """A field that is a flag of `commands`, and a variable. A number is more than 0, and not less than `least`."""
    return field(default=default, metadata={"help": told, "commands": commands, "choices": choices, "least": least})


@dataclass(frozen=True)
class Settings:
    """All settings of a process. Times are in seconds.

    `simulator` is where simulated providers listen, once they do.
    """

    transport: Literal["stdio", "http"] = _option("stdio", "how clients connect", SERVING, ("stdio", "http"))
    host: str = _option("127.0.0.1", "address to listen on with --transport http", SERVING)
    port: int = _option(9090, "port to listen on with --transport http", SERVING)
    allowed_hosts: tuple[str, ...] = _option((), "further names in HTTP clients' Host headers to answer to", SERVING)
    insecure: bool = _option(False, "listen beyond this machine without MCP_TASKRUNS_TOKENS", SERVING)
    rest: bool = _option(False, "serve the REST side of the capability files too", SERVING)
    rest_port: int = _option(8080, "port to listen on with --rest", SERVING)
    watch: bool = _option(False, "serve capability files and overlays anew when they change", SERVING)
    simulate: bool = _option(False, "call simulated providers inside this process; no keys needed", CALLING)
    speed: float = _option(1.0, "how many times faster than life simulated runs go", CALLING | {"simulate"})
    capabilities: tuple[str, ...] = _option(
        (), "folder of capability files, in place of the shipped ones; repeatable", LISTING | {"check"}
    )
    no_overlays: bool = _option(
        False, "take the capability files as they are, without their overlays", LISTING | {"check"}
    )
    strict: bool = _option(
        False,
        "do not start when a capability file cannot be served; for check, warnings are errors",
        LISTING | {"check"},
    )
    base_uri: tuple[str, ...] = _option(
        (), "address of a provider, as NAMESPACE=URL with the namespace of its consumes", LISTING
    )
    only: tuple[str, ...] = _option((), "prefixes of the providers to serve, such as render,runway", LISTING)
    read_only: bool = _option(False, "list and run only tools that change nothing", LISTING)
    tools: tuple[str, ...] = _option((), "patterns of the tools to serve, such as 'render-*,*-list-*'", LISTING)
    exclude_tools: tuple[str, ...] = _option((), "patterns of tools not to serve", LISTING)
    tool_names: Literal["prefixed", "spec"] = _option(
        "prefixed", "names with the provider's prefix, or as in the files", LISTING | {"check"}, ("prefixed", "spec")
    )
    no_rate_limits: bool = _option(False, "do not keep to the rates that the providers publish", CALLING)
    reveal_secrets: bool = _option(False, "show what capabilities redact in answers, such as sandbox tokens", CALLING)
    env_file: str = _option(
        "", "file of NAME=value lines to add to the environment; set variables win", LISTING | {"check"}
    )
    timeout: float = _option(60.0, "seconds for one request to a provider, streams apart", CALLING)
    wait_seconds: float = _option(
        45.0, "seconds to follow or wait, if a call says none; many clients give up at 60", CALLING
    )
    max_wait_seconds: float = _option(600.0, "seconds to follow or wait at most, whatever a call says", CALLING)
    stream_events: int = _option(10_000, "events to follow at most in one call", CALLING)
    max_result_chars: int = _option(
        50_000, "characters of a result; longer ones are cut by whole items", CALLING, least=1_000
    )
    log_level: str = _option("warning", "what to log on stderr", ALL, ("debug", "info", "warning", "error", "critical"))
    tokens: tuple[str, ...] = field(default=(), repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    simulator: str = ""

    @property
    def base_uris(self) -> Mapping[str, str]:
        """The addresses of providers that the operator gave, by namespace."""
        return dict(given.split("=", 1) for given in self.base_uri)


def options() -> tuple[Field[Any], ...]:
    """The fields that are flags and variables."""
    return tuple(option for option in fields(Settings) if "help" in option.metadata)


def flag_of(option: Field[Any]) -> str:
    """`--read-only` for `read_only`."""
    return "--" + option.name.replace("_", "-")


def variable_of(option: Field[Any]) -> str:
    """`MCP_TASKRUNS_READ_ONLY` for `read_only`."""
    return PREFIX + option.name.upper()


def read_settings(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Settings from flags (by field name, None for one not given) and the environment.

    Raises SettingsError naming the flag or the variable that cannot be used. A misspelled variable is one of those:
    MCP_TASKRUNS_READONLY must not be taken for nothing.
    """
    environment = dict(environ)
    env_file = flags.get("env_file") or environ.get(f"{PREFIX}ENV_FILE")
    if env_file:
        # A variable that is set to nothing is not set: configurations have one for each key.
        environment |= {name: value for name, value in _env_file(env_file).items() if not environ.get(name)}
    values: dict[str, Any] = {}
    for option in options():
        given = flags.get(option.name)
        text = environment.get(variable_of(option), "")
        if text.startswith("tcp://"):
            text = ""  # Kubernetes and Docker set MCP_TASKRUNS_PORT so for a service of that name
        if given is not None:
            values[option.name] = _checked(option, given, flag_of(option))
        elif text:
            values[option.name] = _checked(option, _parse(option, text), variable_of(option))
    tokens = tuple(words(environment.get(f"{PREFIX}TOKENS", "")))
    if any(len(token) < MIN_TOKEN for token in tokens):
        raise SettingsError(f"{PREFIX}TOKENS: each token needs at least {MIN_TOKEN} characters")
    _refuse_unknown(environment)
    return Settings(**values, tokens=tokens, environment=environment)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {variable_of(option) for option in options()} | {f"{PREFIX}TOKENS"}
    for name in environment:
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.match(name):
            from difflib import get_close_matches

            close = get_close_matches(name, known, 1)
            advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
            raise SettingsError(f"{name}: there is no such setting; {advice}")


def _env_file(path: str) -> dict[str, str]:
    from dotenv.parser import parse_stream  # only who uses it pays for it

    values: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for binding in parse_stream(file):
                if binding.error:
                    written = binding.original.string
                    line = binding.original.line + written[: -len(written.lstrip())].count("\n")
                    raise SettingsError(f"--env-file {path}: line {line} is not NAME=value")
                if binding.key and binding.value:
                    values[binding.key] = binding.value
            return values
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"--env-file {path}: {getattr(exc, 'strerror', None) or 'it is not UTF-8 text'}") from exc


def words(text: str) -> list[str]:
    """The items of a list that is separated by commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError


PARSERS: dict[type, Callable[[str], Any]] = {
    bool: _boolean,
    int: int,
    float: float,
    tuple: lambda text: tuple(words(text)),
    str: str,
}


def _parse(option: Field[Any], text: str) -> Any:
    try:
        return PARSERS[type(option.default)](text)
    except ValueError:
        kind = {bool: "yes or no", int: "a whole number", float: "a number"}[type(option.default)]
        raise SettingsError(f"{variable_of(option)}: {text!r} is not {kind}") from None


def _checked(option: Field[Any], value: Any, name: str) -> Any:
    choices = option.metadata["choices"]
    value = value.lower() if choices else value
    if choices and value not in choices:
        raise SettingsError(f"{name}: {value!r} is not one of {', '.join(choices)}")
    if option.name == "base_uri":
        for given in value:
            if not re.fullmatch(r"[^=]+=https?://.+", given):
                raise SettingsError(f"{name}: {given!r} is not NAMESPACE=URL, such as acme=https://api.acme.example")
    if option.name in {"port", "rest_port"}:
        if not 0 <= value <= 65_535:
            raise SettingsError(f"{name}: {value} is not a port")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 < value < float("inf"):
            raise SettingsError(f"{name}: {value} is not a number of more than 0")
        if value < option.metadata["least"]:
            raise SettingsError(f"{name}: {value} is less than {option.metadata['least']}")
    return tuple(value) if isinstance(value, list) else value
