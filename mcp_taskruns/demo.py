"""The demo: a client that starts the server as any host does, and shows in a terminal what it is for, offline."""

import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from mcp import types
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError

from mcp_taskruns import __version__
from mcp_taskruns.app import until_signalled
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.server import serve

ARGUMENTS = ["-m", "mcp_taskruns"]
SPEED = 2
INTERRUPTED = 130  # as shells say it of a command that was ended by Ctrl-C
STEP_SECONDS, DEMO_SECONDS = 25, 90
READING_SECONDS = 1  # what a person at a terminal gets before the next step begins
TICK_SECONDS = 0.5
RENDER_TASKS: dict[str, list[int]] = {"square": [12], "flaky": [], "fail": []}
RENDER_RUN = "trn-d5im0000000000000001"
RUNWAY_TASK = {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"}
INNGEST_RUN = {"runId": "01JZDEM0RVN000000000000002"}
POSTHOG_TASK = {"task_id": "22222222-2222-4222-8222-222222222222"}
CUT_AFTER = 5  # events

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32"}
KEYS = {
    "RENDER_API_KEY": "rnd_...",
    "INNGEST_SIGNING_KEY": "signkey-prod-...",
    "POSTHOG_API_KEY": "phx_...",
    "POSTHOG_PROJECT_ID": "12345",
    "RUNWAYML_API_SECRET": "key_...",
}
CLAUDE_DESKTOP = {"mcpServers": {"taskruns": {"command": "uvx", "args": ["mcp-taskruns"], "env": KEYS}}}
CONFIGURATION = f"""
Now with your own keys:

Claude Desktop: put this, with the keys that you have, into its file,
~/Library/Application Support/Claude/claude_desktop_config.json on macOS,
%APPDATA%\\Claude\\claude_desktop_config.json on Windows:

{json.dumps(CLAUDE_DESKTOP, indent=2)}

Claude Code:
claude mcp add taskruns --env RENDER_API_KEY=rnd_... -- uvx mcp-taskruns"""


class StepFailed(Exception):
    """An answer that the demo cannot go on with."""


class Screen:
    """A terminal, where a progress bar is drawn in place; or a file or pipe, which gets plain lines alone."""

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self.is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        # The old Windows console shows colour codes as text; Windows Terminal sets WT_SESSION.
        colourless = os.environ.get("NO_COLOR") or (os.name == "nt" and "WT_SESSION" not in os.environ)
        self._is_coloured = self.is_live and not colourless
        self._blocks = ("█", "░") if (sys.stdout.encoding or "").lower().startswith("utf") else ("#", "-")
        self.bar: tuple[float, str] | None = None
        self._bar_began = 0.0

    @property
    def width(self) -> int:
        """A little less than there is: a full line wraps in some terminals, and Ctrl-C is shown as ^C."""
        return max(shutil.get_terminal_size().columns - 3, 20)

    def line(self, text: str = "", style: str = "") -> None:
        self.close_bar()
        self._say(self._paint(text if len(text) <= self.width else text[: self.width - 3] + "...", style))

    def tell(self, text: str, style: str = "") -> None:
        """Text between the margins, on as many lines as it takes."""
        for line in textwrap.wrap(text, self.width, initial_indent="   ", subsequent_indent="   "):
            self.line(line, style)

    def draw_bar(self, fraction: float, text: str) -> None:
        if self.bar is None:
            self._bar_began = anyio.current_time()
        changed, self.bar = self.bar != (fraction, text), (fraction, text)
        length = min(24, self.width // 3)
        full = round(length * fraction)
        done, left = self._blocks[0] * full, self._blocks[1] * (length - full)
        room = self.width - length - 5
        if self.is_live:
            elapsed = f"  {anyio.current_time() - self._bar_began:.0f} s"
            text = (text[: room - len(elapsed)] + elapsed).ljust(room)
            self._say(f"\r   {self._paint(done, 'green')}{self._paint(left, 'dim')}  {text}", end="")
        elif changed:
            self._say(f"   {done}{left}  {text[:room].rstrip()}")

    def close_bar(self) -> None:
        if self.bar and self.is_live:
            self._say()
        self.bar = None

    async def keep_time(self) -> None:
        """Count the seconds on the bar, until cancelled."""
        while True:
            await anyio.sleep(TICK_SECONDS)
            if self.bar is not None and self.is_live:
                self.draw_bar(*self.bar)

    def _paint(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self._is_coloured and text and style else text


@dataclass(frozen=True)
class Stage:
    """What each step has: the connected client, the providers that it reaches, and the screen."""

    client: Client
    simulator: Simulator
    screen: Screen

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: ProgressFnT | None = None) -> Any:
        """What a tool answers, its JSON or the text in its place; the call is told on the screen."""
        self.screen.line(f"   > {tool} {json.dumps(arguments, separators=(',', ':'))}", "dim")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.screen.keep_time)
            result = await self.client.call_tool(tool, arguments, progress_callback=on_progress)
            tasks.cancel_scope.cancel()
        text = next((block.text for block in result.content if isinstance(block, types.TextContent)), "")
        if result.is_error:
            raise StepFailed(text)
        return json.loads(text) if text[:1] in ("{", "[") else text

    def bar(self, names: dict[str, str] | None = None) -> ProgressFnT:
        """Draws progress as a bar; runs are called by their `names`."""

        async def draw(progress: float, total: float | None, message: str | None) -> None:
            told = message or ""
            for run_id, name in (names or {}).items():
                told = told.replace(run_id, name)
            share = progress / total if total else 0.0
            self.screen.draw_bar(share, f"{share:>4.0%}  {told}" if total else told)

        return draw


async def list_tools(stage: Stage) -> None:
    tools = (await stage.client.list_tools()).tools
    counted = Counter((tool.title or tool.name).partition(":")[0] for tool in tools)
    stage.screen.tell(f"{len(tools)} tools: {', '.join(f'{count} {name}' for name, count in counted.items())}")


async def start_and_wait(stage: Stage) -> None:
    body = {"task": "demo-workflow/pipeline", "input": [3, 4]}
    run = await stage.call("render-run-task", {"wait_seconds": 20, "body": body}, stage.bar())
    expect_state(run, "succeeded")
    stage.screen.draw_bar(1.0, f"{run['run_id']}: {run['status']}")
    told = f"pipeline of {body['input']}: {run['status']}, result {run['result']}, {run['polls']} poll"
    stage.screen.tell(told, "green")


async def wait_for_several(stage: Stage) -> None:
    names: dict[str, str] = {}
    for task, given in RENDER_TASKS.items():
        started = await stage.call("render-run-task", {"body": {"task": f"demo-workflow/{task}", "input": given}})
        names[started["id"]] = task
    waited = await stage.call("render-wait-for-run", {"taskRunId": list(names), "until": "all"}, stage.bar(names))
    for run in waited["runs"]:
        told = run["error"] or json.dumps(run["result"])
        style = "red" if run["error"] else ""
        stage.screen.line(f"   {names[run['run_id']]:<8} {run['status']:<10} {told}", style)


async def wait_for_video(stage: Stage) -> None:
    task = await stage.call("runway-wait-for-run", RUNWAY_TASK, stage.bar({RUNWAY_TASK["id"]: "video"}))
    expect_state(task, "succeeded")
    stage.screen.line(f"   {task['polls']} polls, {task['result'][0]}", "green")


async def cancel_runs(stage: Stage) -> None:
    cancelled = await stage.call("inngest-cancel-function-run", INNGEST_RUN)
    stage.screen.tell(f"{cancelled['status_before']}, then {cancelled['status']}: {cancelled['next']}", "green")
    ended = await stage.call("render-cancel-task-run", {"taskRunId": RENDER_RUN})
    stage.screen.tell(f"{ended['status']}: {ended['next']}", "green")


async def survive_a_cut(stage: Stage) -> None:
    made = await stage.call("posthog-create-task-run", {**POSTHOG_TASK, "body": {"environment": "cloud"}})
    run = {**POSTHOG_TASK, "id": made["id"]}
    await stage.call("posthog-start-task-run", run)
    told = 0

    async def show_event(progress: float, total: float | None, message: str | None) -> None:
        nonlocal told
        told += 1
        stage.screen.line(f"   {(message or '').replace(made['id'], 'run')}")
        if told == CUT_AFTER:
            stage.simulator.drop_connections("posthog")
            stage.screen.line("   -- the connection to the provider is cut --", "red")

    followed = await stage.call("posthog-stream-task-run", run, show_event)
    ids = [event["id"] for event in followed["events"]]
    if len(ids) != len(set(ids)) or followed["ended"] != "terminal":
        raise StepFailed("the stream did not survive the cut")
    stage.screen.tell(f"{len(ids)} events, each once; the run has {followed['runs'][made['id']]}", "green")


def expect_state(run: dict[str, Any], state: str) -> None:
    if run["status"] != state:
        raise StepFailed(f"the run is {run['status']}: {run['error']}")


async def misspell_argument(stage: Stage) -> None:
    try:
        await stage.call("render-retrieve-task-run", {"taskRunID": "trn-d5im0000000000000001"})
    except StepFailed as exc:
        stage.screen.tell(str(exc).partition("\n")[0], "red")
    else:
        raise StepFailed("a misspelled argument was taken")


STEPS: tuple[tuple[str, Callable[[Stage], Awaitable[None]]], ...] = (
    ("What a model finds", list_tools),
    ("Start a Render task and wait for its result, in one call", start_and_wait),
    ("Wait for several runs at once", wait_for_several),
    ("Wait for a video that Runway is making", wait_for_video),
    ("Cancel a run, and one that has ended already", cancel_runs),
    ("Follow a PostHog agent over a connection that breaks", survive_a_cut),
    ("What a model reads when its call is wrong", misspell_argument),
)


async def show(say: Callable[..., None]) -> int:
    """Show the demo with `say`, which is print or like it; the exit code is 0, 1 when a step failed, 130 on Ctrl-C."""
    screen = Screen(say)
    screen.line(f"mcp-taskruns {__version__}: start, watch and cancel long-running tasks over MCP", "bold")
    screen.tell(f"The providers are simulated, {SPEED} times as fast: no key is used, nothing leaves this machine.")
    screen.tell("What you see is an MCP client; it starts the server as any host does:")
    screen.line(f"   $ python {' '.join(ARGUMENTS)}", "dim")
    code = INTERRUPTED
    try:
        with until_signalled(), anyio.fail_after(DEMO_SECONDS):
            simulator = Simulator(speed=SPEED)
            async with serve(simulator) as origin:
                # The server inherits PATH, HOME and the like, and nothing else: no key, no setting, no proxy.
                command = StdioServerParameters(
                    command=sys.executable, args=ARGUMENTS, env=simulator.environment(origin)
                )
                async with Client(stdio_client(command)) as client:
                    code = await show_steps(Stage(client, simulator, screen))
    except* (MCPError, OSError, TimeoutError) as group:
        code = 1
        screen.tell(f"The server cannot be reached: {group.exceptions[0]!r}", "red")
    finally:
        screen.close_bar()
    if code == 0:
        say(CONFIGURATION)
    return code


async def show_steps(stage: Stage) -> int:
    for number, (title, step) in enumerate(STEPS, 1):
        stage.screen.line()
        stage.screen.line(f"{number}/{len(STEPS)}  {title}", "bold")
        try:
            with anyio.fail_after(STEP_SECONDS):
                await step(stage)
        except (StepFailed, MCPError, TimeoutError, LookupError, ValueError) as exc:
            stage.screen.tell(f"Step {number} failed ({title}): {str(exc) or f'over {STEP_SECONDS} s'}", "red")
            return 1
        if stage.screen.is_live:
            await anyio.sleep(READING_SECONDS)
    return 0
