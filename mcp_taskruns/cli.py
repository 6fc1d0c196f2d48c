"""The command line. Only this module prints."""

import argparse
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import Field
from difflib import get_close_matches
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import anyio

from mcp_taskruns import __version__, app
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.errors import CallError, CapabilityError, SettingsError, UnknownTool
from mcp_taskruns.loading.files import paths_to_load
from mcp_taskruns.loading.schemas import format_schema
from mcp_taskruns.logs import configure_logging
from mcp_taskruns.servers.mcp.wire import tool_to_wire
from mcp_taskruns.settings import PREFIX, Settings, flag_of, options, read_settings, split_list
from mcp_taskruns.signals import call_on_signal, cancel_on_signal
from mcp_taskruns.terminal import escape_controls

if TYPE_CHECKING:
    from mcp_taskruns.generator.choice import Choice

COMMANDS = {
    "serve": "Serve the tools over MCP (default)",
    "tools": "List the tools",
    "call": "Call a tool",
    "providers": "List the providers, their abilities and their environment variables",
    "new": "Write a capability file and an overlay from an OpenAPI document",
    "check": "Check capability files and overlays",
    "schema": "Print the JSON Schema of capability files or overlays",
    "simulate": "Run simulated providers on a loopback port",
    "demo": "Run an offline demo",
}

SIMULATOR_PORT = 9091

_LIST_METAVARS = {
    "allowed_hosts": "HOST[,HOST]",
    "base_uri": "NAMESPACE=URL",
    "capabilities": "DIR[,DIR]",
    "only": "PREFIX[,PREFIX]",
    "with_": "NAME[,NAME]",
}
"""What the values of list options are called in the help; other lists hold patterns."""

T = TypeVar("T")

echo = partial(print, flush=True)
"""Prints the demo, which colours its text itself."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 1 for a failure, 2 for invalid usage or configuration."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in {"-h", "--help", "--version"}):
        given.insert(0, "serve")
    parsed = vars(build_parser().parse_args(given))
    command = parsed.pop("command")
    if isinstance(sys.stdout, TextIOWrapper):
        # For encodings that lack a character of a provider's text. Standard error does so by default.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        settings = read_settings(parsed, os.environ)
        return _RUN[command](settings, parsed)
    except (SettingsError, CapabilityError) as exc:
        _echo_error(f"mcp-taskruns: {exc}")
        return 2
    except BrokenPipeError:  # the reader of standard output exited, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. Its options have no defaults, so that environment variables can set them."""
    parser = argparse.ArgumentParser(
        prog="mcp-taskruns",
        description="MCP server to start, watch and cancel long-running tasks at Render, Inngest, PostHog and Runway.",
        epilog=f"Options can also be set as environment variables, such as {PREFIX}READ_ONLY=1 for --read-only.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mcp-taskruns {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, description in COMMANDS.items():
        command = commands.add_parser(name, help=description, description=f"{description}.", allow_abbrev=False)
        _add_arguments(command, name)
        for option in options():
            if name in option.metadata["commands"]:
                _add_option(command, option)
    return parser


def _add_arguments(command: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments that only one command has."""
    if name == "tools":
        command.add_argument("--json", action="store_true", help="Print the tools as MCP lists them")
    elif name == "providers":
        command.add_argument("--json", action="store_true", help="Print the providers as JSON")
    elif name == "call":
        command.add_argument("tool", metavar="TOOL", help="Name of the tool; `mcp-taskruns tools` lists them")
        command.add_argument("arguments", metavar="JSON", nargs="?", default="{}", help="Arguments as a JSON object")
    elif name == "new":
        _add_arguments_of_new(command)
    elif name == "check":
        command.add_argument(
            "files", metavar="PATH", nargs="*", help="Files or folders to check (default: the files that are served)"
        )
        command.add_argument("--json", action="store_true", help="Print the findings as JSON")
        command.add_argument("--env", action="store_true", help="Also report environment variables that are not set")
    elif name == "schema":
        command.add_argument(
            "schema", choices=("capability", "overlay"), metavar="KIND", help="Kind of file: capability or overlay"
        )
    elif name == "simulate":
        command.add_argument(
            "--port",
            type=int,
            metavar="PORT",
            default=SIMULATOR_PORT,
            help=f"Port to listen on; 0 selects a free port (default: {SIMULATOR_PORT})",
        )


def _add_arguments_of_new(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="Name of the provider, the prefix of its tools")
    command.add_argument("--openapi", metavar="FILE", type=Path, required=True, help="OpenAPI 3 document, JSON or YAML")
    command.add_argument(
        "--operations",
        metavar="ID[,ID]",
        type=split_list,
        default=[],
        help="Ids of the operations, or all (default: those that look like runs, to choose from in a terminal)",
    )
    command.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("my-capabilities"),
        help="Folder to write to (default: my-capabilities)",
    )
    command.add_argument("--force", action="store_true", help="Overwrite existing files")


def _add_option(command: argparse.ArgumentParser, option: Field[Any]) -> None:
    description = option.metadata["help"]
    keywords: dict[str, Any] = {"dest": option.name, "default": None, "help": description}
    match option.default:
        case bool():
            keywords |= {"action": "store_true"}
        case tuple():
            keywords |= {
                "action": "extend",
                "type": split_list,
                "metavar": _LIST_METAVARS.get(option.name, "PATTERN[,PATTERN]"),
            }
        case default:
            choices = option.metadata["choices"] or None
            keywords |= {"type": type(default), "choices": choices}
            keywords |= {} if choices else {"metavar": option.name.upper()}
            keywords |= {"help": f"{description} (default: {default})"} if default != "" else {}
    command.add_argument(flag_of(option), **keywords)


def _serve(settings: Settings, _: dict[str, Any]) -> int:
    if settings.transport == "stdio":
        if sys.stdin is None or sys.stdout is None:
            raise SettingsError("--transport stdio needs standard input and output, and one of them is closed")
        if sys.stdin.isatty():
            hint = "try `mcp-taskruns demo`, or press Ctrl-C to stop"
            _echo_error(f"Waiting for an MCP client on standard input; {hint}.")
    _run_async(app.serve, settings, _echo_error)
    return 0


def _echo_error(line: str) -> None:
    _show(line, sys.stderr)


def _show(text: str, stream: TextIO | None = None) -> None:
    """Print text, by default to standard output. On a terminal, control characters are escaped."""
    stream = stream or sys.stdout
    echo(escape_controls(text) if stream.isatty() else text, file=stream)


def _run_async(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run a function on an event loop; raise the error of an exception group that has only one."""
    try:
        return anyio.run(function, *arguments)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


def _tools(settings: Settings, parsed: dict[str, Any]) -> int:
    tools = list(app.build_gateway(settings, _echo_error).tools.values())
    if parsed["json"]:
        _show(json.dumps({"tools": [tool_to_wire(tool) for tool in tools]}, indent=2, ensure_ascii=False))
        return 0
    width = max((len(tool.name) for tool in tools), default=0)
    for tool in tools:
        _show(f"{tool.name:<{width}}  {_describe_hints(tool):<11}  {tool.title}")
    _echo_error(f"{len(tools)} tool" if len(tools) == 1 else f"{len(tools)} tools")
    return 0


def _describe_hints(tool: Tool) -> str:
    return "read-only" if tool.hints.read_only else "destructive" if tool.hints.destructive else "writes"


def _call(settings: Settings, parsed: dict[str, Any]) -> int:
    try:
        arguments = json.loads(parsed["arguments"])
    except (ValueError, RecursionError) as exc:
        raise SettingsError(f"the arguments are not valid JSON: {exc}") from exc
    if not isinstance(arguments, dict):
        raise SettingsError("the arguments must be a JSON object, such as '{\"limit\": 5}'")
    return _run_async(_call_tool, settings, parsed["tool"], arguments)


class _Interruption:
    """Ends a call when a signal arrives, so that the error shows what may have been done."""

    def __init__(self, gateway: Gateway) -> None:
        self.status = 0
        self._gateway = gateway

    def __call__(self, number: int) -> None:
        self.status = 128 + number
        self._gateway.stop("interrupted")


async def _call_tool(settings: Settings, name: str, arguments: dict[str, Any]) -> int:
    async with app.simulate_if_requested(settings) as effective:
        gateway = app.build_gateway(effective, _echo_error)
        for note in app.notes_for_operator(gateway, effective):
            _echo_error(note)
        configure_logging(effective.log_level, gateway.redactor)
        interruption = _Interruption(gateway)
        try:
            with call_on_signal(interruption):
                result = await gateway.call(name, arguments, _print_progress)
        except UnknownTool:
            raise SettingsError(_describe_unknown(name, gateway)) from None
        except CallError as exc:
            _echo_error(gateway.redactor.redact_text(f"{exc.to_line()}\n{dump(exc.to_json())}"))
            return interruption.status or 1
        finally:
            await gateway.aclose()
    _print_result(result)
    return 0


def _describe_unknown(name: str, gateway: Gateway) -> str:
    if name in gateway.catalog.missing:
        return f"the tool {name!r} is not served; set {gateway.catalog.missing[name]}"
    close = get_close_matches(name, gateway.tools, 1)
    hint = f"did you mean {close[0]}?" if close else "run `mcp-taskruns tools` to list them"
    return f"there is no tool {name!r}; {hint}"


async def _print_progress(progress: Progress) -> None:
    total = f" of {progress.total:.0f}" if progress.total else ""
    _echo_error(f"{progress.progress:.0f}{total}  {progress.message}")


def _print_result(result: CallResult) -> None:
    for note in result.notes:
        _echo_error(note)
    if result.data is not None and sys.stdout.isatty():
        kind = quote_name(result.media_type)
        _echo_error(f"The result is {len(result.data):,} bytes of {kind}; redirect it to a file with >")
    elif result.data is not None:
        sys.stdout.buffer.write(result.data)
        sys.stdout.buffer.flush()
    else:
        _show(result.text)


def _providers(settings: Settings, parsed: dict[str, Any]) -> int:
    from mcp_taskruns.loading import providers  # no other command needs it

    def report(problem: CapabilityError) -> None:
        _echo_error(f"{problem} (this file is not served)")

    found = providers.list_providers(
        settings.capabilities, settings.environment, report, overlays=not settings.no_overlays
    )
    if parsed["json"]:
        _show(json.dumps({"providers": [provider.to_json() for provider in found]}, indent=2, ensure_ascii=False))
        return 0
    for line in providers.format_table(found):
        _show(line)
    _echo_error("Providers marked --with are served on request: mcp-taskruns --with NAME")
    return 0


def _new(_: Settings, parsed: dict[str, Any]) -> int:
    from mcp_taskruns import new  # the generator, which no other command needs

    is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    written = new.write_files(
        parsed["name"],
        parsed["openapi"],
        operations=parsed["operations"],
        folder=parsed["output"],
        force=parsed["force"],
        choose=_choose_operations if is_terminal else None,
    )
    _show(f"{written.capability}: {written.tools} tools")
    _show(f"{written.overlay}: what was guessed about runs is marked `# check:`")
    folder = written.capability.parent
    _echo_error(f"Next: mcp-taskruns check {folder}, then mcp-taskruns serve --capabilities {folder}")
    return 0


def _choose_operations(choice: "Choice") -> None:
    """Let the user choose operations in the terminal."""
    is_accepted = False
    while not is_accepted:
        for line in choice.lines():
            _show(line)
        try:
            is_accepted = choice.apply(input("> "))
        except (EOFError, KeyboardInterrupt):
            raise SettingsError("nothing was chosen, and nothing written") from None


def _check(settings: Settings, parsed: dict[str, Any]) -> int:
    from mcp_taskruns.loading.check import check_files  # the checks and jsonschema, which no other command needs

    variables = [name for name, value in settings.environment.items() if value]
    result = check_files(
        paths_to_load(parsed["files"] or settings.capabilities, settings.with_),
        overlays=not settings.no_overlays,
        names=settings.tool_names,
        environment=variables if parsed["env"] else None,
    )
    if parsed["json"]:
        _show(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        for finding in result.findings:
            _show(finding.to_line())
        _show(result.summary())
    return int(bool(result.findings if settings.strict else result.count("error")))


def _schema(_: Settings, parsed: dict[str, Any]) -> int:
    sys.stdout.write(format_schema(parsed["schema"]))
    return 0


def _simulate(settings: Settings, parsed: dict[str, Any]) -> int:
    try:
        _run_async(_run_simulator, settings.speed, parsed["port"])
    except OSError as exc:
        raise SettingsError(
            f"cannot listen on port {parsed['port']}: {os.strerror(exc.errno) if exc.errno else exc}"
        ) from exc
    return 0


async def _run_simulator(speed: float, port: int) -> None:
    with cancel_on_signal():
        async with app.run_simulator(speed, port) as (_, environment):
            for name, value in environment.items():
                _show(f"export {name}={value}")
            _echo_error("Simulated providers are running (press Ctrl-C to stop).")
            await anyio.sleep_forever()


def _demo(_: Settings, __: dict[str, Any]) -> int:
    from mcp_taskruns.demo import show  # an MCP client, which no other command needs

    return _run_async(show, echo)


_RUN = {
    "serve": _serve,
    "tools": _tools,
    "call": _call,
    "providers": _providers,
    "new": _new,
    "check": _check,
    "schema": _schema,
    "simulate": _simulate,
    "demo": _demo,
}
