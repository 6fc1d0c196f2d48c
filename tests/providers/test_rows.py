"""That each of the 31 operations has a test here of where its file and its provider differ."""

import inspect
import re

from tests.providers import (
    test_inngest,
    test_posthog,
    test_posthog_agent,
    test_posthog_artifacts,
    test_posthog_logs,
    test_render,
    test_runway,
)

MODULES = (
    test_inngest,
    test_posthog,
    test_posthog_agent,
    test_posthog_artifacts,
    test_posthog_logs,
    test_render,
    test_runway,
)
COUNTS = {"r": 7, "i": 3, "p": 19, "w": 2}
"""Operations of Render, Inngest, PostHog and Runway."""


def test_every_operation_has_a_test_that_is_named_for_it() -> None:
    names = [name for module in MODULES for name, _ in inspect.getmembers(module, inspect.iscoroutinefunction)]
    tested = {found.group(1) for name in names if (found := re.match(r"test_([a-z]\d+)_", name))}
    wanted = {f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)}
    assert len(wanted) == 31
    assert tested == wanted
