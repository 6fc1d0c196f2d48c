"""Progress while a call runs: each event up to a hundred a second, pooled beyond that, and never silence."""

import itertools
import re

import anyio
import pytest

from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.engine.progress import ProgressReporter, reporting
from tests.clock import pass_time

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


class Listener:
    """A client that takes each notification at once, and knows when."""

    def __init__(self) -> None:
        self.told: list[Progress] = []
        self.moments: list[float] = []

    async def report(self, progress: Progress) -> None:
        self.told.append(progress)
        self.moments.append(anyio.current_time())

    @property
    def lines(self) -> list[str]:
        return [progress.message for progress in self.told]

    @property
    def stands_for(self) -> int:
        """How many events the notifications stand for, by their own word."""
        counts = (re.match(r"([\d,]+) events, the last: ", line) for line in self.lines)
        return sum(int(found[1].replace(",", "")) if found else 1 for found in counts)

    def assert_growing(self) -> None:
        amounts = [progress.progress for progress in self.told]
        assert all(earlier < later for earlier, later in itertools.pairwise(amounts)), amounts


async def tell(reporter: ProgressReporter, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await reporter.report(f"event {number}", number)


async def test_a_hundred_events_a_second_are_a_hundred_notifications_a_second() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        for number in range(1, 501):
            await reporter.report(f"event {number}", number)
            await pass_time(0.01)
    assert [(progress.progress, progress.message) for progress in client.told] == [
        (number, f"event {number}") for number in range(1, 501)
    ]


async def test_what_comes_faster_is_pooled_and_says_how_many_it_stands_for() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await tell(reporter, 1, 1_000)
    assert client.lines[:100] == [f"event {number}" for number in range(1, 101)]
    assert 1 <= len(client.lines[100:]) < 10
    assert re.fullmatch(r"[\d,]+ events, the last: event 1000", client.lines[-1])
    assert client.stands_for == 1_000
    assert client.told[-1].progress == 1_000
    client.assert_growing()


async def test_a_thousand_events_a_second_are_about_a_hundred_notifications_a_second() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        for tenth in range(50):
            await tell(reporter, tenth * 100 + 1, tenth * 100 + 100)
            await pass_time(0.1)
    assert client.stands_for == 5_000
    assert len(client.told) < 5 * 100 + 100 + 100
    client.assert_growing()


async def test_what_was_pooled_is_told_at_once_when_nothing_more_comes() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await tell(reporter, 1, 150)
        await pass_time(0.5)
        assert client.stands_for == 150
        assert client.lines[-1].endswith("the last: event 150")


async def test_one_event_that_was_pooled_alone_is_told_as_itself() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await tell(reporter, 1, 101)
    assert client.lines[-1] == "event 101"


async def test_what_is_pooled_at_the_end_is_told_before_the_block_is_left() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await tell(reporter, 1, 150)
        assert 100 <= client.stands_for < 150  # the machine's own time is part of it
    assert client.stands_for == 150


async def test_silence_is_broken_every_ten_seconds_at_the_latest() -> None:
    client = Listener()
    began = anyio.current_time()
    async with reporting(client.report):
        await pass_time(65)
    gaps = [later - earlier for earlier, later in itertools.pairwise([began, *client.moments])]
    assert len(gaps) == 7
    assert all(8 < gap < 10 for gap in gaps)
    told = [int(line.removesuffix(" s")) for line in client.lines]
    assert told == pytest.approx(list(range(9, 65, 9)), abs=2)  # the machine's own time is part of it
    client.assert_growing()


async def test_a_sign_of_life_repeats_what_was_told_last() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await reporter.report("run-1: running", 1)
        await pass_time(20)
    assert client.lines == ["run-1: running", "9 s, no news: run-1: running", "18 s, no news: run-1: running"]
    client.assert_growing()


async def test_there_are_no_signs_of_life_while_something_happens() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        for number in range(1, 31):
            await reporter.report(f"event {number}", number)
            await pass_time(1)
    assert client.lines == [f"event {number}" for number in range(1, 31)]


async def test_progress_grows_and_does_not_reach_its_total_before_the_end() -> None:
    client = Listener()
    async with reporting(client.report, 2) as reporter:
        await reporter.report("none has ended", 0)
        await pass_time(3_600)
        await reporter.report("one has ended", 1)
        await pass_time(3_600)
        assert client.told[-1].progress < 2
        await reporter.report("both have ended", 2)
    assert len(client.told) > 600
    assert {progress.total for progress in client.told} == {2}
    assert client.told[-1].progress == 2
    client.assert_growing()


async def test_each_message_is_one_line_of_at_most_180_characters() -> None:
    client = Listener()
    async with reporting(client.report) as reporter:
        await reporter.report("two\nlines", 1)
        for number in range(2, 200):
            await reporter.report("x" * 1_000, number)
        await pass_time(20)
    assert client.lines[0] == "two lines"
    assert all(len(line) <= 180 and "\n" not in line for line in client.lines)
    assert any(line.startswith("99 events, the last: xxx") for line in client.lines)
    assert re.match(r"\d+ s, no news: xxx", client.lines[-1])


async def test_a_client_that_does_not_read_holds_up_who_reports() -> None:
    client = Listener()
    reads = anyio.Event()
    count = 0

    async def slow(progress: Progress) -> None:
        await reads.wait()
        await client.report(progress)

    async with reporting(slow) as reporter, anyio.create_task_group() as tasks:

        async def play() -> None:
            nonlocal count
            for number in range(1, 1_001):
                await reporter.report(f"event {number}", number)
                count = number

        tasks.start_soon(play)
        await pass_time(100)
        assert count == 0
        reads.set()
    assert client.stands_for >= 1_000
    assert client.told[-1].progress >= 1_000
    client.assert_growing()


async def test_a_client_that_never_reads_does_not_keep_the_block_open() -> None:
    async def deaf(_: Progress) -> None:
        await anyio.sleep_forever()

    left = anyio.Event()

    async def play() -> None:
        async with reporting(deaf) as reporter:
            with anyio.move_on_after(5):
                await reporter.report("event 1", 1)
        left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(play)
        await pass_time(7)
        assert left.is_set()


async def test_an_error_of_the_block_leaves_it_as_it_is() -> None:
    client = Listener()
    with pytest.raises(ZeroDivisionError):
        async with reporting(client.report):
            raise ZeroDivisionError


@pytest.mark.parametrize("moment", ["an event", "a sign of life"])
async def test_an_error_of_the_client_leaves_the_block_as_it_is(moment: str) -> None:
    async def gone(_: Progress) -> None:
        raise BrokenPipeError

    async def report() -> None:
        async with reporting(gone) as reporter:
            if moment == "an event":
                await reporter.report("event 1", 1)
            else:
                await pass_time(10)

    with pytest.raises(BrokenPipeError):
        await report()
