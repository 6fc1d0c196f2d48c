"""The demo: an MCP client that starts the server and shows its main features in a terminal, offline."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from mcp import types
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError

from mcp_taskruns import __version__
from mcp_taskruns.signals import cancel_on_signal
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.server import serve

Print = Callable[..., None]
"""`print`, or a function with its signature."""

ARGUMENTS = ["-m", "mcp_taskruns"]
SPEED = 2
"""How many times faster than real time the simulated runs progress."""

PERCENT = 100
"""The total of the progress of a run that reports a ratio; that of other calls is in seconds."""

INTERRUPTED = 130
"""The exit code that shells report for a command stopped by Ctrl-C."""

STEP_SECONDS, DEMO_SECONDS = 60, 240
"""Timeouts of one step and of the whole demo."""

READING_SECONDS = 1
"""Pause after each step on a terminal."""

TICK_SECONDS = 0.5
BAR_LENGTH = 24

RENDER_TASKS: dict[str, list[int]] = {"square": [12], "flaky": [], "fail": []}
RENDER_RUN = "trn-d5im0000000000000001"
RUNWAY_TASK = {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"}
INNGEST_RUN = {"runId": "01JZDEM0RVN000000000000002"}
POSTHOG_TASK = {"task_id": "22222222-2222-4222-8222-222222222222"}
EVENTS_BEFORE_DROP = 5
DROPPED = "   -- the connection to PostHog drops, and the server reconnects --"

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32"}

KEYS = {
    "RENDER_API_KEY": "rnd_...",
    "INNGEST_SIGNING_KEY": "signkey-prod-...",
    "POSTHOG_API_KEY": "phx_...",
    "POSTHOG_PROJECT_ID": "12345",
    "RUNWAYML_API_SECRET": "key_...",
}

NEXT_STEPS = """
To use it with your own keys:

Claude Desktop, Cursor: copy this into the configuration file of the client.
Fill in the keys that you have and delete the lines of the others.

{configuration}

Claude Desktop reads claude_desktop_config.json, on macOS in
~/Library/Application Support/Claude, on Windows in %APPDATA%\\Claude.
Cursor reads ~/.cursor/mcp.json.

Claude Code:
claude mcp add taskruns --env RENDER_API_KEY=rnd_... -- {command}"""


class StepFailed(Exception):
    """A result that does not allow the demo to continue."""


def server_command() -> list[str]:
    """Return the command that starts this installation of the server from any folder."""
    name = "mcp-taskruns.exe" if os.name == "nt" else "mcp-taskruns"
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return [str(beside)]
    installed = shutil.which(name)
    return [installed] if installed else [sys.executable, *ARGUMENTS]


def client_configuration() -> dict[str, Any]:
    """Return the `mcpServers` object that Claude Desktop and Cursor read."""
    command, *arguments = server_command()
    return {"mcpServers": {"taskruns": {"command": command, "args": arguments, "env": KEYS}}}


class Screen:
    """Standard output: a terminal, on which a progress bar is redrawn, or a file or pipe, which gets plain lines.

    Colours follow NO_COLOR and FORCE_COLOR.
    """

    def __init__(self, write: Print) -> None:
        self._write = write
        self.is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        # The old Windows console shows colour codes as text; Windows Terminal sets WT_SESSION.
        supports_colour = self.is_live and (os.name != "nt" or "WT_SESSION" in os.environ)
        self._is_coloured = not os.environ.get("NO_COLOR") and bool(supports_colour or os.environ.get("FORCE_COLOR"))
        self._blocks = ("█", "░") if (sys.stdout.encoding or "").lower().startswith("utf") else ("#", "-")
        self._bar: tuple[float, str] | None = None
        self._bar_started = 0.0

    @property
    def width(self) -> int:
        """Usable columns. A full line wraps in some terminals, and Ctrl-C is echoed as ^C."""
        return max(shutil.get_terminal_size().columns - 3, 20)

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line, truncated to the width."""
        self.close_bar()
        self._write(self._paint(text if len(text) <= self.width else text[: self.width - 3] + "...", style))

    def paragraph(self, text: str, style: str = "") -> None:
        """Print indented text, wrapped to the width."""
        for line in textwrap.wrap(text, self.width, initial_indent="   ", subsequent_indent="   "):
            self.line(line, style)

    def draw_bar(self, fraction: float, text: str) -> None:
        """Draw the progress bar with a text beside it; on a terminal, over the previous one."""
        if self._bar is None:
            self._bar_started = anyio.current_time()
        has_changed, self._bar = self._bar != (fraction, text), (fraction, text)
        length = min(BAR_LENGTH, self.width // 3)
        filled = round(length * fraction)
        full, empty = self._blocks
        bar = self._paint(full * filled, "green") + self._paint(empty * (length - filled), "dim")
        columns = self.width - length - 5
        if self.is_live:
            elapsed = f"  {anyio.current_time() - self._bar_started:.0f} s"
            text = (text[: columns - len(elapsed)] + elapsed).ljust(columns)
            self._write(f"\r   {bar}  {text}", end="")
        elif has_changed:
            self._write(f"   {bar}  {text[:columns].rstrip()}")

    def close_bar(self) -> None:
        """Leave the bar as it is and continue on the next line."""
        if self._bar and self.is_live:
            self._write()
        self._bar = None

    async def count_seconds(self) -> None:
        """Update the seconds beside the bar until cancelled."""
        while True:
            await anyio.sleep(TICK_SECONDS)
            if self._bar is not None and self.is_live:
                self.draw_bar(*self._bar)

    def _paint(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self._is_coloured and text and style else text


@dataclass(frozen=True)
class Stage:
    """What every step uses: the connected client, the simulated providers and the screen."""

    client: Client
    simulator: Simulator
    screen: Screen

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: ProgressFnT | None = None) -> Any:
        """Call a tool, show the call, and return its JSON result, or its text if that is not JSON.

        Raises StepFailed with the error's text when the tool reports an error.
        """
        self.screen.line(f"   > {tool} {json.dumps(arguments, separators=(',', ':'))}", "dim")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.screen.count_seconds)
            result = await self.client.call_tool(tool, arguments, progress_callback=on_progress)
            tasks.cancel_scope.cancel()
        text = next((block.text for block in result.content if isinstance(block, types.TextContent)), "")
        if result.is_error:
            raise StepFailed(text)
        return json.loads(text) if text[:1] in ("{", "[") else text

    def bar(self, names: dict[str, str] | None = None) -> ProgressFnT:
        """Return a progress callback that draws a bar and shows `names` instead of run ids."""

        async def draw(progress: float, total: float | None, message: str | None) -> None:
            text = message or ""
            for run_id, name in (names or {}).items():
                text = text.replace(run_id, name)
            amount = f"{progress:3.0f}%" if total == PERCENT else f"{progress:2.0f} s"
            self.screen.draw_bar(progress / total if total else 0.0, f"{amount}  {text}")

        return draw


async def list_tools(stage: Stage) -> None:
    tools = (await stage.client.list_tools()).tools
    counts = Counter((tool.title or tool.name).partition(":")[0] for tool in tools)
    stage.screen.paragraph(f"{len(tools)} tools: {', '.join(f'{count} {name}' for name, count in counts.items())}")


async def start_and_wait(stage: Stage) -> None:
    body = {"task": "demo-workflow/pipeline", "input": [3, 4]}
    run = await stage.call("render-run-task", {"wait_seconds": 20, "body": body}, stage.bar())
    require_success(run)
    stage.screen.draw_bar(1.0, f"{run['run_id']}: {run['status']}")
    polls = f"{run['polls']} poll{'' if run['polls'] == 1 else 's'}"
    stage.screen.paragraph(f"pipeline {body['input']}: {run['status']} with {run['result']} after {polls}", "green")


async def wait_for_three_runs(stage: Stage) -> None:
    names: dict[str, str] = {}
    for task, arguments in RENDER_TASKS.items():
        started = await stage.call("render-run-task", {"body": {"task": f"demo-workflow/{task}", "input": arguments}})
        names[started["id"]] = task
    waited = await stage.call("render-wait-for-run", {"taskRunId": list(names), "until": "all"}, stage.bar(names))
    for run in waited["runs"]:
        outcome = run["error"] or json.dumps(run["result"])
        style = "red" if run["error"] else "green"
        stage.screen.line(f"   {names[run['run_id']]:<8} {run['status']:<10} {outcome}", style)


async def wait_for_video(stage: Stage) -> None:
    task = await stage.call("runway-wait-for-run", RUNWAY_TASK, stage.bar({RUNWAY_TASK["id"]: "video"}))
    require_success(task)
    stage.screen.line(f"   {task['polls']} polls, {task['result'][0]}", "green")


async def cancel_runs(stage: Stage) -> None:
    cancelled = await stage.call("inngest-cancel-function-run", INNGEST_RUN)
    stage.screen.paragraph(f"{cancelled['status_before']}, then {cancelled['status']}: {cancelled['next']}", "green")
    finished = await stage.call("render-cancel-task-run", {"taskRunId": RENDER_RUN})
    stage.screen.paragraph(f"{finished['status']}: {finished['next']}", "green")


async def follow_across_drop(stage: Stage) -> None:
    created = await stage.call("posthog-create-task-run", {**POSTHOG_TASK, "body": {"environment": "cloud"}})
    run = {**POSTHOG_TASK, "id": created["id"]}
    await stage.call("posthog-start-task-run", run)
    shown = 0

    async def show_event(progress: float, total: float | None, message: str | None) -> None:
        nonlocal shown
        shown += 1
        stage.screen.line(f"   {(message or '').replace(created['id'], 'run')}")
        if shown == EVENTS_BEFORE_DROP:
            stage.simulator.drop_connections("posthog")
            stage.screen.line(DROPPED, "red")

    followed = await stage.call("posthog-stream-task-run", run, show_event)
    ids = [event["id"] for event in followed["events"]]
    if len(ids) != len(set(ids)) or followed["ended"] != "terminal":
        raise StepFailed("events were lost or duplicated after the connection dropped")
    status = followed["runs"][created["id"]]
    stage.screen.paragraph(f"{len(ids)} events, none lost or duplicated; run {status}", "green")


def require_success(run: dict[str, Any]) -> None:
    if run["status"] != "succeeded":
        raise StepFailed(f"the run is {run['status']}: {run['error']}")


async def misspell_argument(stage: Stage) -> None:
    try:
        await stage.call("render-retrieve-task-run", {"taskRunID": RENDER_RUN})
    except StepFailed as exc:
        stage.screen.paragraph(str(exc).partition("\n")[0], "red")
    else:
        raise StepFailed("the misspelled argument was accepted")


STEPS: tuple[tuple[str, Callable[[Stage], Awaitable[None]]], ...] = (
    ("List the tools that a model sees", list_tools),
    ("Start a Render task and wait for its result in one call", start_and_wait),
    ("Wait for three runs at once", wait_for_three_runs),
    ("Wait for a video at Runway", wait_for_video),
    ("Cancel a running run, then try a finished one", cancel_runs),
    ("Follow a PostHog agent across a dropped connection", follow_across_drop),
    ("Misspell an argument", misspell_argument),
)


async def show(write: Print) -> int:
    """Run the demo and print it with `write`.

    Returns the exit code: 0, 1 when a step or the server failed, 130 after Ctrl-C.
    """
    screen = Screen(write)
    screen.line(f"mcp-taskruns {__version__}", "bold")
    screen.paragraph(
        "This demo is an MCP client. It starts the server as any MCP host does. The four providers are simulated, "
        f"at {SPEED} times their usual speed: no key is used, and nothing leaves this machine."
    )
    screen.line(f"   $ python {' '.join(ARGUMENTS)}", "dim")
    code = INTERRUPTED
    try:
        with cancel_on_signal(), anyio.fail_after(DEMO_SECONDS):
            code = await run_demo(screen)
    except* (MCPError, OSError, TimeoutError) as group:
        code = 1
        screen.paragraph(f"The server cannot be reached: {group.exceptions[0]!r}", "red")
    finally:
        screen.close_bar()
    if code == 0:
        configuration = json.dumps(client_configuration(), indent=2)
        join = subprocess.list2cmdline if os.name == "nt" else shlex.join
        write(NEXT_STEPS.format(configuration=configuration, command=join(server_command())))
    return code


async def run_demo(screen: Screen) -> int:
    """Start the simulated providers and the server, and run the steps. Returns the exit code."""
    simulator = Simulator(speed=SPEED)
    async with serve(simulator) as origin:
        # The SDK passes on PATH, HOME and the like only: no key, setting or proxy of the caller's environment.
        command = StdioServerParameters(command=sys.executable, args=ARGUMENTS, env=simulator.environment(origin))
        async with Client(stdio_client(command)) as client:
            return await run_steps(Stage(client, simulator, screen))


async def run_steps(stage: Stage) -> int:
    """Run the steps in order until one fails. Returns the exit code."""
    for number, (title, step) in enumerate(STEPS, 1):
        stage.screen.line()
        stage.screen.line(f"{number}/{len(STEPS)}  {title}", "bold")
        try:
            with anyio.fail_after(STEP_SECONDS):
                await step(stage)
        except (StepFailed, MCPError, TimeoutError, LookupError, ValueError) as exc:
            reason = str(exc) or f"no result within {STEP_SECONDS} s"
            stage.screen.paragraph(f"Step {number} ({title}) failed: {reason}", "red")
            return 1
        if stage.screen.is_live:
            await anyio.sleep(READING_SECONDS)
    return 0
