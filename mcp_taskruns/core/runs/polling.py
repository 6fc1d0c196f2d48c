"""When to read a run again."""

from dataclasses import replace
from datetime import datetime

from mcp_taskruns.core.model.operation import Parameter
from mcp_taskruns.core.model.run import Lifecycle, LongPoll
from mcp_taskruns.core.model.timestamps import is_zero_time, parse_timestamp
from mcp_taskruns.core.runs.reading import Reading

MAX_INTERVAL_S = 30.0
"""The longest time between two reads of a run, in seconds."""


AGE_PER_INTERVAL = 20
"""The time between two reads is a twentieth of the run's age: a delay matters less after a long run."""


def poll_interval_s(lifecycle: Lifecycle, age_s: float) -> float:
    """Return the seconds to wait before the next read of a run that started `age_s` seconds ago."""
    return max(lifecycle.poll_seconds, min(age_s / AGE_PER_INTERVAL, MAX_INTERVAL_S))


def with_long_poll(lifecycle: Lifecycle, poll: LongPoll, seconds: int, *, timeout_s: float) -> Lifecycle:
    """Return the lifecycle with a read that asks the provider to hold its response back for at most `seconds`.

    `timeout_s` is how long a response takes that is not held back.
    """
    operation = lifecycle.read.operation
    value = poll.value.replace("{seconds}", str(seconds))
    held = replace(
        operation,
        parameters=(*operation.parameters, Parameter(poll.name, poll.location, None, constant=(value,))),
        timeout_s=seconds + (operation.timeout_s or timeout_s),
        is_held=True,
    )
    return replace(lifecycle, read=replace(lifecycle.read, operation=held))


def run_age_s(reading: Reading, now: datetime) -> float:
    """Return the seconds since the run started; 0 if that is unknown or in the future."""
    started = parse_timestamp(reading.started)
    if started is None or is_zero_time(reading.started):
        return 0.0
    return max((now - started).total_seconds(), 0.0)
