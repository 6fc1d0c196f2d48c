"""The demo as its readers run it: piped into a file or CI log, on a terminal, and left with Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_taskruns.settings import PREFIX
from mcp_taskruns.simulator.app import Simulator

# Starts the demo changed by the statements before it: with fewer steps, or with something that goes wrong.
CHANGED = (
    "import anyio; from mcp_taskruns import demo; from mcp_taskruns.cli import say; {}; "
    "raise SystemExit(anyio.run(demo.show, say))"
)


def environment(**changes: str) -> dict[str, str]:
    spoiling = ("NO_COLOR", "TERM", PREFIX)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(spoiling)}
    return {**kept, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **changes}


def run_changed(statements: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHANGED.format(statements)],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment(),
        timeout=40,
    )


@pytest.fixture(scope="module")
def piped() -> str:
    """What the demo writes into a pipe, whole; under a setting that would spoil it if it reached the server."""
    done = subprocess.run(
        [sys.executable, "-m", "mcp_taskruns", "demo"],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment(**{f"{PREFIX}READ_ONLY": "1"}),
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.mark.timeout(110)
def test_the_demo_shows_the_main_job_of_each_provider(piped: str) -> None:
    assert "35 tools: 4 Inngest, 20 PostHog, 8 Render, 3 Runway\n" in piped
    assert re.search(r"[░]{24}  started trn-\w+: queued\n", piped)
    assert "pipeline of [3, 4]: succeeded, result [25], 1 poll\n" in piped
    assert re.findall(r"[█░]{24} +([1-9]\d*%  (?:fail|square|flaky):.*)\n", piped) == [
        "33%  fail: failed, ValueError: no such customer",
        "67%  square: succeeded",
        "100%  flaky: succeeded",
    ]
    assert "running, then canceled: The run was cancelled.\n" in piped
    assert "succeeded: The run had already succeeded: nothing was cancelled.\n" in piped
    assert "taskRunID: is no argument of this tool; did you mean taskRunId?;" in piped


@pytest.mark.timeout(110)
def test_a_stream_that_is_cut_shows_every_event_once(piped: str) -> None:
    shown = piped[piped.index("6/7") : piped.index("7/7")]
    before, after = shown.split("-- the connection to the provider is cut --\n")
    assert before.count("console: Provisioning sandbox\n") == 1
    assert [after.count(line) for line in ("Running tests\n", "Pushed branch", "run: succeeded")] == [1, 1, 1]
    assert "17 events, each once; the run has succeeded\n" in after


@pytest.mark.timeout(110)
def test_the_bar_of_the_video_follows_its_real_progress_to_the_end(piped: str) -> None:
    bars = [(len(full), int(told)) for full, told in re.findall(r"   (█*)░*  +(\d+)%  video", piped)]
    assert len(bars) >= 3
    assert bars == sorted(bars)
    assert [length for length, _ in bars] == pytest.approx([told * 24 / 100 for _, told in bars], abs=1)
    assert bars[-1] == (24, 100)


@pytest.mark.timeout(110)
def test_in_a_pipe_there_are_no_control_characters_and_no_line_is_too_wide(piped: str) -> None:
    assert [line for line in piped.split("\n") if not line.isprintable() or len(line) > 80] == []


@pytest.mark.timeout(110)
def test_the_configuration_it_ends_with_names_every_credential_there_is(piped: str) -> None:
    begin = piped.index("\n{\n")
    configured = json.loads(piped[begin : piped.index("\n}\n", begin) + 2])["mcpServers"]["taskruns"]
    assert (configured["command"], configured["args"]) == ("uvx", ["mcp-taskruns"])
    names = Simulator().environment("http://simulated")
    assert set(configured["env"]) == {name for name in names if not name.endswith("_BASE_URL")}
    assert piped.endswith("\nclaude mcp add taskruns --env RENDER_API_KEY=rnd_... -- uvx mcp-taskruns\n")


def test_a_step_that_fails_is_named_and_ends_the_demo() -> None:
    done = run_changed("demo.INNGEST_RUN = {'runId': 'nope'}; demo.STEPS = demo.STEPS[4:]")
    assert done.returncode == 1
    told = "Step 1 failed (Cancel a run, and one that has ended already): the provider answered 400"
    assert told in " ".join(done.stdout.split())
    assert "2/3" not in done.stdout


def test_a_step_that_hangs_is_given_up() -> None:
    done = run_changed("demo.STEP_SECONDS = 0.2; demo.STEPS = demo.STEPS[1:]")
    assert done.returncode == 1
    told = "failed (Start a Render task and wait for its result, in one call): over 0.2 s"
    assert told in " ".join(done.stdout.split())


def test_a_server_that_does_not_start_is_a_failure_too() -> None:
    done = run_changed("demo.ARGUMENTS = ['-c', 'pass']")
    assert done.returncode == 1
    assert "The server cannot be reached" in done.stdout
    assert "claude mcp add" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(
    ("changes", "blocks", "is_coloured"),
    [({}, "█░", True), ({"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}, "#-", False)],
    ids=["as it is", "NO_COLOR and ASCII"],
)
def test_on_a_terminal_the_bar_is_drawn_in_place(changes: dict[str, str], blocks: str, is_coloured: bool) -> None:
    shown = "".join(run_on_terminal("demo.SPEED = 8; demo.STEPS = demo.STEPS[2:3]", changes))
    assert ("\x1b[" in shown) == is_coloured
    plain = re.sub(r"\x1b\[\d*m", "", shown)
    frames = next(line for line in plain.split("\r\n") if "\r" in line).split("\r")[1:]
    # Each covers the one before, and none reaches the margin, where terminals begin a new line.
    assert {len(frame) for frame in frames} == {57}
    full = [frame.count(blocks[0]) for frame in frames]
    assert full == sorted(full)
    assert set(full) == {0, 6, 13, 19}
    assert [frame.count(blocks[1]) for frame in frames] == [19 - drawn for drawn in full]


def run_on_terminal(statements: str, changes: dict[str, str]) -> Iterator[str]:
    """What a terminal of 60 columns is sent."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CHANGED.format(statements)],
        stdout=theirs,
        env=environment(COLUMNS="60", TERM="xterm", **changes),
    ) as process:
        os.close(theirs)
        with open(ours, "rb", buffering=0) as terminal:
            try:
                while data := terminal.read(65536):
                    yield data.decode()
            except OSError:  # Linux says so when the other side has closed
                pass
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
def test_ctrl_c_ends_the_demo_and_its_server_without_a_traceback(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mcp_taskruns", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
        cwd=tmp_path,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if "0%" in line:
                break
        process.send_signal(signal.SIGINT)
        # The server inherits standard error: its end is read only when both have ended.
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, "")
