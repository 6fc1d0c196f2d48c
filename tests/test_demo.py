"""The demo in a pipe and on a terminal, when it succeeds, fails and is interrupted."""

import html
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from mcp_taskruns import demo
from mcp_taskruns.cli import echo
from mcp_taskruns.settings import PREFIX
from mcp_taskruns.simulator.app import Simulator
from tests.timing import PATIENCE, TEST_TIMEOUT

# Runs the demo after the given statements, which select steps or cause a failure.
MODIFIED_DEMO = (
    "import anyio; from mcp_taskruns import demo; from mcp_taskruns.cli import echo; {}; "
    "raise SystemExit(anyio.run(demo.show, echo))"
)


def environment(**changes: str) -> dict[str, str]:
    dropped = ("NO_COLOR", "FORCE_COLOR", "TERM", PREFIX)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **changes}


@dataclass(frozen=True)
class ModifiedDemo:
    """Runs the demo in this process after changes that select steps or cause a failure."""

    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def run(self, changes: Mapping[str, object], **variables: str) -> tuple[int, str]:
        """Return the exit status and the output."""
        for name, value in changes.items():
            self.patch.setattr(demo, name, value)
        for name, value in variables.items():
            self.patch.setenv(name, value)
        status = anyio.run(demo.show, echo)
        return status, self.capture.readouterr().out


@pytest.fixture
def modified(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> ModifiedDemo:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    return ModifiedDemo(monkeypatch, capfd)


@pytest.fixture(scope="module")
def output() -> str:
    """The complete output in a pipe, with a variable set that would break the demo if it reached the server."""
    done = subprocess.run(
        [sys.executable, "-m", "mcp_taskruns", "demo"],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment(**{f"{PREFIX}READ_ONLY": "1"}),
        timeout=TEST_TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_output_shows_each_provider(output: str) -> None:
    assert "40 tools: 5 Inngest, 22 PostHog, 9 Render, 4 Runway\n" in output
    assert re.search(r"[█░]{24} +\d s  started trn-\w+: queued\n", output)
    assert re.search(r"pipeline \[3, 4\]: succeeded with \[25\] after \d+ polls?\n", output)
    seconds = [int(number) for number in re.findall(r"[█░]{24} +(\d+) s  (?:fail|square|flaky):", output)]
    assert len(seconds) >= 3
    assert seconds == sorted(seconds)
    assert "   square   succeeded  [144]\n" in output
    assert "   fail     failed     ValueError: no such customer\n" in output
    assert "running, then canceled: The run was cancelled.\n" in output
    assert "succeeded: The run had already succeeded: nothing was cancelled. It ended" in output
    assert "did you mean taskRunId?" in output


def test_events_are_neither_lost_nor_duplicated_when_the_connection_drops(output: str) -> None:
    step = output[output.index("6/7") : output.index("7/7")]
    before, after = step.split(demo.DROPPED)
    assert before.count("console: Provisioning sandbox\n") == 1
    assert [after.count(line) for line in ("Running tests\n", "Pushed branch", "run: succeeded")] == [1, 1, 1]
    assert "17 events, none lost or duplicated; run succeeded\n" in after


def test_video_bar_follows_its_progress(output: str) -> None:
    bars = [(len(full), int(percent)) for full, percent in re.findall(r"   (█*)░*  +(\d+)%  video", output)]
    assert len(bars) >= 2
    assert bars == sorted(bars)
    assert [length for length, _ in bars] == pytest.approx([percent * 24 / 100 for _, percent in bars], abs=1)
    assert bars[-1] == (24, 100)


def test_piped_output_has_no_control_characters_and_fits_the_width(output: str) -> None:
    steps = output[: output.index("To use it with your own keys")]
    assert [line for line in steps.split("\n") if not line.isprintable() or len(line) > 80] == []


def test_printed_configuration_starts_this_server_and_names_every_credential(output: str) -> None:
    start = output.index("\n{\n")
    server = json.loads(output[start : output.index("\n}\n", start) + 2])["mcpServers"]["taskruns"]
    assert os.path.isabs(server["command"])
    done = subprocess.run(
        [server["command"], *server["args"], "--version"], capture_output=True, check=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.startswith("mcp-taskruns ")
    names = Simulator().environment("http://simulated")
    assert set(server["env"]) == {name for name in names if not name.endswith("_BASE_URL")}
    assert output.endswith(f"\nclaude mcp add taskruns --env RENDER_API_KEY=rnd_... -- {server['command']}\n")


def test_picture_of_the_demo_is_up_to_date(output: str) -> None:
    picture = (Path(__file__).parents[1] / "docs" / "demo.svg").read_text(encoding="utf-8")
    texts = [html.unescape(text) for text in re.findall(r"<text [^>]*textLength[^>]*>([^<]+)</text>", picture)]
    assert len(texts) > 20
    # Percentages and the number of polls depend on the speed of the machine.
    stable = [re.sub(r"\d+ polls?", "N polls", text) for text in texts if not re.match(r"\d+%", text)]
    output = re.sub(r"\d+ polls?", "N polls", output)
    assert [text for text in stable if text not in output] == []


def test_configuration_without_an_installed_command_runs_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/python/bin/python")
    monkeypatch.setenv("PATH", "")
    assert demo.server_command() == ["/opt/python/bin/python", "-m", "mcp_taskruns"]


def test_failed_step_is_named_and_stops_the_demo(modified: ModifiedDemo) -> None:
    status, output = modified.run({"INNGEST_RUN": {"runId": "nope"}, "STEPS": demo.STEPS[4:]})
    assert status == 1
    message = "Step 1 (Cancel a running run, then try a finished one) failed: "
    assert message in " ".join(output.split())
    assert "2/3" not in output


def test_hanging_step_times_out(modified: ModifiedDemo) -> None:
    status, output = modified.run({"STEP_SECONDS": 0.2, "STEPS": demo.STEPS[1:]})
    assert status == 1
    message = "(Start a Render task and wait for its result in one call) failed: no result within 0.2 s"
    assert message in " ".join(output.split())


def test_server_that_does_not_start_fails_the_demo(modified: ModifiedDemo) -> None:
    status, output = modified.run({"ARGUMENTS": ["-c", "pass"]})
    assert status == 1
    assert "The server cannot be reached" in output
    assert "claude mcp add" not in output


def test_force_color_colours_piped_output_and_no_color_wins(modified: ModifiedDemo) -> None:
    steps = {"STEPS": demo.STEPS[:1]}
    assert "\x1b[1m1/1" in modified.run(steps, FORCE_COLOR="1")[1]
    assert "\x1b[" not in modified.run(steps, FORCE_COLOR="1", NO_COLOR="1")[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize(
    ("changes", "blocks", "is_coloured"),
    [({}, "█░", True), ({"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}, "#-", False)],
    ids=["UTF-8 with colour", "ASCII with NO_COLOR"],
)
def test_terminal_redraws_the_bar(changes: dict[str, str], blocks: str, is_coloured: bool) -> None:
    output = "".join(run_on_terminal("demo.STEPS = demo.STEPS[2:3]", changes))
    assert ("\x1b[" in output) == is_coloured
    plain = re.sub(r"\x1b\[\d*m", "", output)
    frames = next(line for line in plain.split("\r\n") if "\r" in line).split("\r")[1:]
    # Each frame covers the previous one, and none reaches the margin, where terminals wrap.
    assert {len(frame) for frame in frames} == {57}
    filled = [frame.count(blocks[0]) for frame in frames]
    assert filled == sorted(filled)
    assert [frame.count(blocks[1]) for frame in frames] == [19 - drawn for drawn in filled]


def run_on_terminal(statements: str, changes: dict[str, str]) -> Iterator[str]:
    """Yield what the demo writes to a terminal of 60 columns."""
    controller, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", MODIFIED_DEMO.format(statements)],
        stdout=terminal,
        env=environment(COLUMNS="60", TERM="xterm", **changes),
    ) as process:
        os.close(terminal)
        with open(controller, "rb", buffering=0) as reader:
            try:
                while data := reader.read(65536):
                    yield data.decode()
            except OSError:  # Linux raises EIO when the other side has closed
                pass
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not send SIGINT for Ctrl-C")
def test_ctrl_c_stops_the_demo_and_the_server_without_a_traceback(tmp_path: Path) -> None:
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
        # The server inherits standard error, so this returns only after both processes have exited.
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, "")
