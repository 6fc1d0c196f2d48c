"""Progress notifications: one for each event up to 100 per second, pooled ones beyond that, and heartbeats."""

import itertools
import re

import anyio
import pytest

from mcp_taskruns.engine.progress import ALMOST_ALL, Progress, ProgressReporter, reporting
from tests.clock import pass_time

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


class Listener:
    """A client that reads each notification at once and records its time."""

    def __init__(self) -> None:
        self.received: list[Progress] = []
        self.times: list[float] = []

    async def report(self, progress: Progress) -> None:
        self.received.append(progress)
        self.times.append(anyio.current_time())

    @property
    def lines(self) -> list[str]:
        return [progress.message for progress in self.received]

    @property
    def event_count(self) -> int:
        """The number of events that the notifications report, pooled or not."""
        pooled = (re.match(r"([\d,]+) events, the last: ", line) for line in self.lines)
        return sum(int(match[1].replace(",", "")) if match else 1 for match in pooled)

    def assert_increasing(self) -> None:
        amounts = [progress.progress for progress in self.received]
        assert all(earlier < later for earlier, later in itertools.pairwise(amounts)), amounts


async def report_events(reporter: ProgressReporter, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await reporter.report(f"event {number}", number)


async def test_each_event_is_a_notification_up_to_100_events_per_second() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        for number in range(1, 501):
            await reporter.report(f"event {number}", number)
            await pass_time(0.01)
    assert client.lines == [f"event {number}" for number in range(1, 501)]
    client.assert_increasing()


async def test_progress_is_the_seconds_of_the_call_with_their_limit_as_total() -> None:
    client = Listener()
    async with reporting(client.report, 45) as reporter:
        for number in range(4):
            await pass_time(5)
            await reporter.report(f"event {number}")
    assert [progress.progress for progress in client.received] == [5, 10, 15, 20]
    assert {progress.total for progress in client.received} == {45}


async def test_progress_does_not_reach_its_total_when_the_time_is_used() -> None:
    client = Listener()
    async with reporting(client.report, 10) as reporter:
        for number in range(30):
            await reporter.report(f"event {number}")
            await pass_time(1)
    client.assert_increasing()
    assert 10 * ALMOST_ALL <= client.received[-1].progress < 10


async def test_heartbeat_contains_the_status_as_last_read() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await reporter.report("started run-1: queued")
        reporter.status = "run-1: running"
        await pass_time(10)
        await reporter.report("run-1: running")
        await pass_time(10)
    assert client.lines == [
        "started run-1: queued",
        'run-1: running; no change for 9 s; last: "started run-1: queued"',
        "run-1: running",
        "run-1: running; no change for 9 s",
    ]


async def test_faster_events_are_pooled_into_notifications_with_a_count() -> None:
    client = Listener()
    async with reporting(client.report, is_timed=False) as reporter:
        await report_events(reporter, 1, 1_000)
    assert client.lines[:100] == [f"event {number}" for number in range(1, 101)]
    assert 1 <= len(client.lines[100:]) < 10
    assert re.fullmatch(r"[\d,]+ events, the last: \"event 1000\"", client.lines[-1])
    assert client.event_count == 1_000
    assert client.received[-1].progress == 1_000
    client.assert_increasing()


async def test_1000_events_per_second_are_about_100_notifications_per_second() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        for tenth in range(50):
            await report_events(reporter, tenth * 100 + 1, tenth * 100 + 100)
            await pass_time(0.1)
    assert client.event_count == 5_000
    assert len(client.received) < 5 * 100 + 100 + 100
    client.assert_increasing()


async def test_pooled_events_are_sent_soon_after_the_last_event() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await report_events(reporter, 1, 150)
        await pass_time(0.5)
        assert client.event_count == 150
        assert client.lines[-1].endswith('the last: "event 150"')


async def test_single_pooled_event_is_sent_with_its_own_message() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await report_events(reporter, 1, 101)
    assert client.lines[-1] == "event 101"


async def test_pooled_events_are_sent_before_the_block_exits() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await report_events(reporter, 1, 150)
        assert 100 <= client.event_count < 150  # includes the time that the machine needs
    assert client.event_count == 150


async def test_heartbeat_is_sent_at_least_every_10_seconds() -> None:
    client = Listener()
    began = anyio.current_time()
    async with reporting(client.report):
        await pass_time(65)
    intervals = [later - earlier for earlier, later in itertools.pairwise([began, *client.times])]
    assert len(intervals) == 7
    assert all(8 < interval < 10 for interval in intervals)
    seconds = [int(line.removesuffix(" s")) for line in client.lines]
    assert seconds == pytest.approx(list(range(9, 65, 9)), abs=2)  # includes the time that the machine needs
    client.assert_increasing()


async def test_heartbeat_of_a_stream_without_events_names_the_events() -> None:
    client = Listener()
    async with reporting(client.report, is_stream=True):
        await pass_time(10)
    assert client.lines == ["no events for 9 s"]


async def test_heartbeat_counts_from_the_last_event() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await reporter.report("one", 1)
        await pass_time(5)
        await reporter.report("two", 2)
        await pass_time(10)
    assert client.lines == ["one", "two", 'no change for 9 s; last: "two"']


async def test_heartbeat_repeats_the_last_message() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await reporter.report("run-1: running", 1)
        await pass_time(20)
    assert client.lines == [
        "run-1: running",
        'no change for 9 s; last: "run-1: running"',
        'no change for 18 s; last: "run-1: running"',
    ]
    client.assert_increasing()


async def test_no_heartbeat_while_events_arrive() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        for number in range(1, 31):
            await reporter.report(f"event {number}", number)
            await pass_time(1)
    assert client.lines == [f"event {number}" for number in range(1, 31)]


async def test_progress_increases_and_reaches_its_total_only_with_the_last_event() -> None:
    client = Listener()
    async with reporting(client.report, 2, is_timed=False) as reporter:
        await reporter.report("no run has ended", 0)
        await pass_time(3_600)
        await reporter.report("one run has ended", 1)
        await pass_time(3_600)
        assert client.received[-1].progress < 2
        await reporter.report("both runs have ended", 2)
    assert len(client.received) > 600
    assert {progress.total for progress in client.received} == {2}
    assert client.received[-1].progress == 2
    client.assert_increasing()


async def test_each_message_is_one_line_of_at_most_180_characters() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await reporter.report("two\nlines", 1)
        for number in range(2, 200):
            await reporter.report("x" * 1_000, number)
        await pass_time(20)
    assert client.lines[0] == "two lines"
    assert all(len(line) <= 180 and "\n" not in line for line in client.lines)
    assert any(line.startswith('99 events, the last: "xxx') for line in client.lines)
    assert re.match(r'no change for \d+ s; last: "xxx', client.lines[-1])


async def test_slow_client_blocks_the_caller_of_report() -> None:
    client = Listener()
    client_reads = anyio.Event()
    reported = 0

    async def slow(progress: Progress) -> None:
        await client_reads.wait()
        await client.report(progress)

    async with reporting(slow, is_timed=False) as reporter, anyio.create_task_group() as tasks:

        async def report_all() -> None:
            nonlocal reported
            for number in range(1, 1_001):
                await reporter.report(f"event {number}", number)
                reported = number

        tasks.start_soon(report_all)
        await pass_time(100)
        assert reported == 0
        client_reads.set()
    assert client.event_count >= 1_000
    assert client.received[-1].progress >= 1_000
    client.assert_increasing()


async def test_block_exits_although_the_client_never_reads() -> None:
    async def never_read(_: Progress) -> None:
        await anyio.sleep_forever()

    exited = anyio.Event()

    async def report_one() -> None:
        async with reporting(never_read) as reporter:
            with anyio.move_on_after(5):
                await reporter.report("event 1", 1)
        exited.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(report_one)
        await pass_time(7)
        assert exited.is_set()


async def test_exception_in_the_block_propagates_unchanged() -> None:
    client = Listener()
    with pytest.raises(ZeroDivisionError):
        async with reporting(client.report):
            raise ZeroDivisionError


@pytest.mark.parametrize("notification", ["event", "heartbeat"])
async def test_exception_of_the_client_propagates_unchanged(notification: str) -> None:
    async def disconnected(_: Progress) -> None:
        raise BrokenPipeError

    async def report() -> None:
        async with reporting(disconnected) as reporter:
            if notification == "event":
                await reporter.report("event 1", 1)
            else:
                await pass_time(10)

    with pytest.raises(BrokenPipeError):
        await report()
