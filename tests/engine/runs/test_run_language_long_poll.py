"""Waits that read a run by long polls: each test has a provider that holds responses back, or should.

Apify: `waitForFinish`, 0 to 60 seconds, in the query. Replicate: the header `Prefer: wait=n`, 1 to 60 seconds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from mcp_taskruns.core.runs.watch import MAX_FAILED_READS
from mcp_taskruns.errors import CapabilityError
from tests.clock import pass_time
from tests.engine.runs.described import OPERATIONS, RUNS, Acme, Call, acme

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock, pytest.mark.usefixtures("longest_backoff")]

QUERY = {"in": "query", "name": "waitForFinish", "max_seconds": 60}
PREFER = {"in": "header", "name": "Prefer", "value": "wait={seconds}", "max_seconds": 60}
IGNORES: list[tuple[float, str]] = [(0, "working")]


def described(long_poll: Any = QUERY, **changes: Any) -> dict[str, Any]:
    return {**RUNS, "read": {**RUNS["read"], "long_poll": long_poll}, "poll_seconds": 5, **changes}


class Provider:
    """Responds to long polls after so many seconds with this status; the last pair is repeated.

    An ordinary read is responded to at once, with the status of the last long poll. A status may be a status code.
    """

    def __init__(self, held: list[tuple[float, str]], first: str = "working") -> None:
        self.asked: list[str] = []
        self.times: list[float] = []
        self.state = first
        self._held = list(held)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/jobs"):
            return httpx.Response(200, json={"jobs": []})
        asked = request.url.params.get("waitForFinish", "") or request.headers.get("Prefer", "")
        self.asked.append(asked)
        self.times.append(anyio.current_time())
        state = self.state
        if asked:
            seconds, state = self._held.pop(0) if len(self._held) > 1 else self._held[0]
            await anyio.sleep(seconds)
        if state.isdigit():
            return httpx.Response(int(state), json={"detail": "no"})
        self.state = state
        return httpx.Response(200, json={"id": "7", "state": state})

    @property
    def pauses(self) -> Iterator[float]:
        """The seconds between two requests."""
        return (later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False))


async def wait(folder: Path, provider: Provider, runs: Any, seconds: float, **more: Any) -> Call:
    calls: list[Call] = []

    async def run(tools: Acme) -> None:
        calls.append(await tools.call("wait-for-run", job="7", wait_seconds=seconds))

    async with acme(folder, provider, runs=runs, **more) as tools, anyio.create_task_group() as tasks:
        tasks.start_soon(run, tools)
        await pass_time(seconds + 20)
    return calls[0]


async def test_wait_reads_once_and_then_by_long_polls(tmp_path: Path) -> None:
    provider = Provider([(60, "working"), (10, "done")])
    call = await wait(tmp_path, provider, described(), 120)
    assert provider.asked == ["", "60", "59"]
    assert (call.value["status"], call.value["polls"]) == ("succeeded", 3)
    assert call.value["elapsed_seconds"] == pytest.approx(70.5, abs=1)
    assert call.messages[0] == "7: running"
    assert call.messages[-1] == "7: succeeded"


async def test_long_poll_may_be_a_header_and_ends_with_the_wait(tmp_path: Path) -> None:
    provider = Provider([(20, "working")])
    call = await wait(tmp_path, provider, described(PREFER), 20)
    assert provider.asked[:2] == ["", "wait=19"]
    assert (call.value["status"], call.value["timed_out"]) == ("running", True)
    assert call.value["elapsed_seconds"] == pytest.approx(20, abs=1)


async def test_provider_that_ignores_the_parameter_is_read_at_intervals(tmp_path: Path) -> None:
    provider = Provider(IGNORES)
    call = await wait(tmp_path, provider, described(), 43)
    assert call.value["timed_out"]
    assert list(provider.pauses)[1:] == [pytest.approx(5, abs=0.1)] * 8


async def test_response_that_is_held_back_too_long_ends_with_the_wait(tmp_path: Path) -> None:
    provider = Provider([(500, "done")])
    call = await wait(tmp_path, provider, described(), 30)
    assert provider.asked == ["", "29", ""]
    assert (call.value["status"], call.value["timed_out"]) == ("running", True)
    assert call.value["elapsed_seconds"] < 36


async def test_long_poll_times_out_later_than_an_ordinary_read(tmp_path: Path) -> None:
    provider = Provider([(85, "done")])  # --timeout is 30 seconds
    call = await wait(tmp_path, provider, described(), 200)
    assert (provider.asked, call.value["status"]) == (["", "60"], "succeeded")


async def test_ordinary_read_follows_a_failed_long_poll(tmp_path: Path) -> None:
    provider = Provider([*[(10.0, "504")] * 8, (1, "done")])
    call = await wait(tmp_path, provider, described(), 300)
    assert call.value["status"] == "succeeded"
    assert [bool(asked) for asked in provider.asked] == [*[False, True] * 9]


async def test_failures_are_counted_as_those_of_ordinary_reads(tmp_path: Path) -> None:
    provider = Provider([(0, "503")])

    async def respond(request: httpx.Request) -> httpx.Response:
        response = await provider(request)
        return response if len(provider.asked) == 1 else httpx.Response(503, json={})

    call = await wait(tmp_path, respond, described(), 300)  # type: ignore[arg-type]  # behaves like a provider
    assert (call.value["status"], call.value["timed_out"]) == ("running", False)
    assert "503" in call.value["reason"]
    assert len(provider.asked) == 1 + MAX_FAILED_READS + 1
    assert min(list(provider.pauses)[2:]) > 1


async def test_long_polls_leave_room_for_other_requests(tmp_path: Path) -> None:
    provider = Provider([(40, "working"), (0, "done")])
    listed: list[float] = []

    async def list_jobs(tools: Acme) -> None:
        await anyio.sleep(10)
        await tools.call("listjobs")
        listed.append(anyio.current_time())

    async with (
        acme(tmp_path, provider, runs=described(), consumed={"max_concurrent_requests": 1}) as tools,
        anyio.create_task_group() as tasks,
    ):
        began = anyio.current_time()
        tasks.start_soon(lambda: tools.call("wait-for-run", job="7"))
        tasks.start_soon(list_jobs, tools)
        await pass_time(60)
    assert listed[0] - began < 12


async def test_long_polls_are_not_sent_beside_a_stream(tmp_path: Path) -> None:
    watch = {"method": "GET", "path": "/teams/{team}/jobs/{job}/watch"}
    runs = described(stream={"operation": "watchjob", "run_ids_argument": "job"})
    provider = Provider(IGNORES)
    await wait(tmp_path, provider, runs, 12, operations={**OPERATIONS, "watchjob": watch})
    assert set(provider.asked) == {""}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "wait for"}, "read.long_poll.name: `wait for` is not a valid name of a header"),
        ({"value": "wait=\u00e4"}, "read.long_poll.value: `wait=\u00e4` is not printable ASCII"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"in": "cookie"}, "in"),
    ],
)
async def test_long_poll_that_cannot_be_sent_is_reported(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(CapabilityError, match=message):
        async with acme(tmp_path, Provider(IGNORES), runs=described({**PREFER, **changes})):
            pass
