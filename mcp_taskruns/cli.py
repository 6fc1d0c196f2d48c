"""The command line. The only module that prints."""

import argparse
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.errors import CallError, CapabilityError, SettingsError, UnknownTool
from mcp_taskruns.settings import PREFIX, Settings, flag_of, options, read_settings, words

COMMANDS = {
    "serve": "serve MCP on standard input and output, or over HTTP (the default command)",
    "tools": "list the tools",
    "call": "call one tool",
    "check": "check capability files",
    "schema": "print the JSON Schema of capability files or overlays",
    "simulate": "run the four simulated providers on one loopback port",
    "demo": "show the main job offline",
}

SIMULATOR_PORT = 9091

say = partial(print, flush=True)

T = TypeVar("T")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 for a failure, 2 for wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in {"-h", "--help", "--version"}):
        given.insert(0, "serve")
    parsed = vars(build_parser().parse_args(given))
    command = parsed.pop("command")
    try:
        settings = read_settings(parsed, os.environ)
        return _RUN[command](settings, parsed)
    except (SettingsError, CapabilityError) as exc:
        say(f"mcp-taskruns: {exc}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; flags without a default here, so that variables can give one."""
    parser = argparse.ArgumentParser(
        prog="mcp-taskruns",
        description="One MCP server to start, watch and cancel long-running tasks at the providers that run them.",
        epilog=f"Each flag is also an environment variable: --read-only is {PREFIX}READ_ONLY=1.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mcp-taskruns {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, told in COMMANDS.items():
        command = commands.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".", allow_abbrev=False)
        if name == "tools":
            command.add_argument("--json", action="store_true", help="the tools as MCP lists them")
        elif name == "call":
            command.add_argument("tool", metavar="TOOL", help="a tool's name, as `mcp-taskruns tools` lists it")
            command.add_argument("arguments", metavar="JSON", nargs="?", default="{}", help="its arguments, an object")
        elif name == "check":
            command.add_argument("files", metavar="FILE", nargs="*", help="files or folders; none: those served")
            command.add_argument("--json", action="store_true", help="the findings as JSON")
            command.add_argument("--env", action="store_true", help="say which variables are not set, too")
        elif name == "schema":
            command.add_argument("schema", choices=("capability", "overlay"), help="the kind of file")
        elif name == "simulate":
            command.add_argument("--port", type=int, default=SIMULATOR_PORT, help=f"default: {SIMULATOR_PORT}; 0: any")
        _add_options(command, name)
    return parser


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    for option in options():
        if name not in option.metadata["commands"] or (name == "simulate" and option.name == "port"):
            continue
        told = option.metadata["help"]
        keywords: dict[str, Any] = {"dest": option.name, "default": None}
        match option.default:
            case bool():
                keywords |= {"action": "store_true", "help": told}
            case tuple():
                keywords |= {"action": "extend", "type": words, "metavar": "A[,B]", "help": told}
            case default:
                shown = f" (default: {default})" if default != "" else ""
                choices = option.metadata["choices"] or None
                metavar = None if choices else option.name.upper()
                keywords |= {"type": type(default), "choices": choices, "metavar": metavar, "help": told + shown}
        command.add_argument(flag_of(option), **keywords)


def _serve(settings: Settings, _: dict[str, Any]) -> int:
    from mcp_taskruns.app import serve

    if settings.transport == "stdio" and (sys.stdin is None or sys.stdout is None):
        raise SettingsError("there is no standard input or no standard output to serve on")
    if settings.transport == "stdio" and sys.stdin.isatty():
        say("An MCP server speaks with a client, not a person: see `mcp-taskruns demo`. Ctrl-C stops.", file=sys.stderr)
    _run_async(serve, settings, partial(say, file=sys.stderr))
    return 0


def _run_async(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run on an event loop; of a group of one error, that error."""
    try:
        return anyio.run(function, *arguments)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


def _tools(settings: Settings, parsed: dict[str, Any]) -> int:
    from mcp_taskruns.app import build_gateway, not_served

    gateway = build_gateway(settings, lambda problem: say(not_served(problem), file=sys.stderr))
    tools = list(gateway.tools.values())
    if parsed["json"]:
        from mcp_taskruns.servers.mcp.server import list_tool

        say(json.dumps({"tools": [list_tool(tool) for tool in tools]}, indent=2, ensure_ascii=False))
        return 0
    width = max((len(tool.name) for tool in tools), default=0)
    for tool in tools:
        say(f"{tool.name:<{width}}  {_hint_words(tool):<11}  {tool.title}")
    say(_count(tools), file=sys.stderr)
    return 0


def _schema(_: Settings, parsed: dict[str, Any]) -> int:
    from mcp_taskruns.loading.schemas import format_schema

    sys.stdout.write(format_schema(parsed["schema"]))
    return 0


def _count(tools: Sequence[Tool]) -> str:
    return f"{len(tools)} tool" if len(tools) == 1 else f"{len(tools)} tools"


def _hint_words(tool: Tool) -> str:
    return "read-only" if tool.hints.read_only else "destructive" if tool.hints.destructive else "writes"


def _call(settings: Settings, parsed: dict[str, Any]) -> int:
    try:
        arguments = json.loads(parsed["arguments"])
    except (ValueError, RecursionError) as exc:
        raise SettingsError(f"the arguments are not JSON: {exc}") from exc
    if not isinstance(arguments, dict):
        raise SettingsError("the arguments must be a JSON object, such as '{\"limit\": 5}'")
    return _run_async(_call_tool, settings, parsed["tool"], arguments)


async def _call_tool(settings: Settings, name: str, arguments: dict[str, Any]) -> int:
    from mcp_taskruns.app import build_gateway, configure_logging, not_served, simulated

    async def report(progress: Progress) -> None:
        share = f"{progress.progress / progress.total:4.0%}  " if progress.total else ""
        say(share + progress.message, file=sys.stderr)

    async with simulated(settings) as effective:
        gateway = build_gateway(effective, lambda problem: say(not_served(problem), file=sys.stderr))
        configure_logging(effective, gateway.redactor)
        try:
            outcome = await gateway.call(name, arguments, report)
        except UnknownTool:
            from difflib import get_close_matches  # for this alone

            close = get_close_matches(name, gateway.tools, 1)
            advice = f"did you mean {close[0]}?" if close else "`mcp-taskruns tools` lists them"
            raise SettingsError(f"there is no tool {name!r} among those chosen; {advice}") from None
        except CallError as exc:
            say(gateway.redactor.redact_text(f"{exc.to_line()}\n{dump(exc.to_json())}"), file=sys.stderr)
            return 1
        finally:
            await gateway.aclose()
    _print_result(outcome)
    return 0


def _print_result(outcome: CallResult) -> None:
    for note in outcome.notes:
        say(note, file=sys.stderr)
    if outcome.data is not None and sys.stdout.isatty():
        say(f"{len(outcome.data):,} bytes of {outcome.media_type}: send them to a file with >", file=sys.stderr)
    elif outcome.data is not None:
        sys.stdout.buffer.write(outcome.data)
        sys.stdout.buffer.flush()
    else:
        say(outcome.text)


def _check(settings: Settings, parsed: dict[str, Any]) -> int:
    from mcp_taskruns.loading.check import check_files  # a server has no use for it

    variables = [name for name, value in settings.environment.items() if value]
    checked = check_files(
        parsed["files"] or settings.capabilities,
        overlays=not settings.no_overlays,
        names=settings.tool_names,
        environment=variables if parsed["env"] else None,
    )
    if parsed["json"]:
        say(json.dumps(checked.to_json(), indent=2, ensure_ascii=False))
    else:
        for report in checked.findings:
            say(report.to_line())
        say(checked.summary())
    return int(bool(checked.findings if settings.strict else checked.count("error")))


def _simulate(settings: Settings, parsed: dict[str, Any]) -> int:
    async def simulate() -> None:
        from mcp_taskruns.app import until_signalled
        from mcp_taskruns.simulator.app import Simulator
        from mcp_taskruns.simulator.server import serve

        simulator = Simulator(speed=settings.speed)
        with until_signalled():
            async with serve(simulator, port=parsed["port"]) as origin:
                for name, value in simulator.environment(origin).items():
                    say(f"export {name}={value}")
                say("Simulated providers are running (Ctrl-C stops).", file=sys.stderr)
                await anyio.sleep_forever()

    try:
        _run_async(simulate)
    except OSError as exc:
        raise SettingsError(f"cannot listen on port {parsed['port']}: {exc.strerror or exc}") from exc
    return 0


def _demo(_: Settings, __: dict[str, Any]) -> int:
    from mcp_taskruns.demo import show

    return _run_async(show, say)


_RUN = {
    "serve": _serve,
    "tools": _tools,
    "call": _call,
    "check": _check,
    "schema": _schema,
    "simulate": _simulate,
    "demo": _demo,
}
