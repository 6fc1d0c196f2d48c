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

SPEED = 2
STEP_SECONDS, DEMO_SECONDS = 25, 90
READING_SECONDS = 1  # what a person at a terminal gets before the next step begins
RUNWAY_SECONDS = 5 / SPEED  # "Consumers should not expect updates more frequent than once every five seconds"
INNGEST_SECONDS = 3 / SPEED  # for which it answers from a cache
RENDER_TASKS: dict[str, list[int]] = {"pipeline": [3, 4], "flaky": [], "square": [12], "fail": []}
RUNWAY_TASK = {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"}
INNGEST_RUN = {"runId": "01JZDEM0RVN000000000000002"}
POSTHOG_RUN = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}

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

    async def hold_bar(self, fraction: float, text: str, seconds: float) -> None:
        """Draw the bar and wait, while it counts the seconds."""
        end = anyio.current_time() + seconds
        while (left := end - anyio.current_time()) > 0:
            self.draw_bar(fraction, text)
            await anyio.sleep(min(left, 0.5))

    def _paint(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self._is_coloured and text and style else text


@dataclass(frozen=True)
class Stage:
    """What each step has: the connected client, and the screen."""

    client: Client
    screen: Screen

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: ProgressFnT | None = None) -> Any:
        """What a tool answers, its JSON or the text in its place; told on the screen, unless that would end a bar."""
        if not self.screen.bar:
            self.screen.line(f"   > {tool} {json.dumps(arguments, separators=(',', ':'))}", "dim")
        if on_progress:
            await on_progress(0, None, None)
        result = await self.client.call_tool(tool, arguments, progress_callback=on_progress)
        text = next((block.text for block in result.content if isinstance(block, types.TextContent)), "")
        if result.is_error:
            raise StepFailed(text)
        return json.loads(text) if text[:1] in ("{", "[") else text


async def list_tools(stage: Stage) -> None:
    tools = (await stage.client.list_tools()).tools
    counted = Counter((tool.title or tool.name).partition(":")[0] for tool in tools)
    stage.screen.tell(f"{len(tools)} tools: {', '.join(f'{count} {name}' for name, count in counted.items())}")


async def follow_runs(stage: Stage) -> None:
    names: dict[str, str] = {}
    for task, given in RENDER_TASKS.items():
        started = await stage.call("render-run-task", {"body": {"task": f"demo-workflow/{task}", "input": given}})
        names[started["id"]] = task

    async def show_event(progress: float, total: float | None, message: str | None) -> None:
        run_id, _, said = (message or "").partition(": ")
        stage.screen.draw_bar(progress / len(names), f"{progress:g}/{len(names)}  {names.get(run_id, run_id)} {said}")

    followed = {"taskRunIds": list(names)}
    streamed = await stage.call("render-stream-realtime-events-sse", followed, show_event)
    for run in (event["data"] for event in streamed["events"]):
        told = run.get("error") or f"{json.dumps(run['results'])}, attempts: {len(run['attempts'])}"
        stage.screen.line(f"   {names[run['id']]:<9} {run['status']:<10} {told}", "red" if run.get("error") else "")
    run = await stage.call("render-retrieve-task-run", {"taskRunId": followed["taskRunIds"][0]})
    stage.screen.tell(f"pipeline of {run['input']}: {run['status']}, results {run['results']}", "green")


async def wait_for_video(stage: Stage) -> None:
    tool = "runway-retrieve-task-status-and-output"
    task = await stage.call(tool, RUNWAY_TASK)
    while task["status"] in ("PENDING", "THROTTLED", "RUNNING"):
        progress = task.get("progress", 0.0)
        await stage.screen.hold_bar(progress, f"{progress:>4.0%}  {task['status']}", RUNWAY_SECONDS)
        task = await stage.call(tool, RUNWAY_TASK)
    if task["status"] != "SUCCEEDED":
        raise StepFailed(f"the task has ended as {task['status']}")
    stage.screen.draw_bar(1.0, "100%  SUCCEEDED")
    stage.screen.line(f"   {task['cost']['credits']} credits, {task['output'][0]}", "green")


async def cancel_run(stage: Stage) -> None:
    before = await stage.call("inngest-get-function-run-status", INNGEST_RUN)
    stage.screen.tell(f"before: {before['data']['status']}")
    stage.screen.tell(await stage.call("inngest-cancel-function-run", INNGEST_RUN))
    await anyio.sleep(INNGEST_SECONDS)
    after = await stage.call("inngest-get-function-run-status", INNGEST_RUN)
    stage.screen.tell(f"after: {after['data']['status']}", "green")


async def read_log(stage: Stage) -> None:
    entries = await stage.call("posthog-get-task-run-logs", POSTHOG_RUN)
    stage.screen.tell(f"{len(entries)} entries, the last five:")
    for entry in entries[-5:]:
        said = entry["notification"]["params"]
        said = {**said, **said.get("update", {}), **said.get("update", {}).get("content", {})}
        kind = said.get("sessionUpdate") or entry["notification"]["method"].rpartition("/")[2]
        words = [said[key] for key in ("message", "text", "title", "toolCallId", "status", "stopReason") if key in said]
        stage.screen.line(f"   {entry['timestamp'][11:19]}  {kind:<16}  {' '.join(words)}")


async def misspell_argument(stage: Stage) -> None:
    try:
        await stage.call("render-retrieve-task-run", {"taskRunID": "trn-d5im0000000000000001"})
    except StepFailed as exc:
        stage.screen.tell(str(exc).partition("\n")[0], "red")
    else:
        raise StepFailed("a misspelled argument was taken")


STEPS: tuple[tuple[str, Callable[[Stage], Awaitable[None]]], ...] = (
    ("What a model finds", list_tools),
    ("Start four Render task runs and wait for all of them", follow_runs),
    ("Wait for a video that Runway is making", wait_for_video),
    ("Cancel an Inngest run", cancel_run),
    ("Read the log of a PostHog agent", read_log),
    ("What a model reads when its call is wrong", misspell_argument),
)


async def show(say: Callable[..., None]) -> int:
    """Show the demo with `say`, which is print or like it; the exit code is 0, or 1 when a step failed."""
    screen = Screen(say)
    arguments = ["-m", "mcp_taskruns", "serve", "--simulate", "--speed", str(SPEED)]
    screen.line(f"mcp-taskruns {__version__}: start, watch and cancel long-running tasks over MCP", "bold")
    screen.tell(f"The providers are simulated, {SPEED} times as fast: no key is used, nothing leaves this machine.")
    screen.tell("What you see is an MCP client; it starts the server as any host does:")
    screen.line(f"   $ python {' '.join(arguments)}", "dim")
    try:
        with anyio.fail_after(DEMO_SECONDS):
            # The server inherits PATH, HOME and the like, and nothing else: no key, no setting, no proxy.
            async with Client(stdio_client(StdioServerParameters(command=sys.executable, args=arguments))) as client:
                code = await show_steps(Stage(client, screen))
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
