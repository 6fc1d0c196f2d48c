"""What runs ask their users."""

from typing import Any

from mcp_taskruns.core.model.json_path import EACH
from mcp_taskruns.core.model.run import RequestEvent, RunRequests
from mcp_taskruns.core.runs.requests import OpenRequests

REQUESTS = RunRequests(
    asked=(RequestEvent(((("type",), ("ask",)),), ("id",), ("text",), ("options", EACH)),),
    resolved=(RequestEvent(((("type",), ("done",)),), ("id",)),),
    hint="Pick one of {options} for {id}.",
    recent_seconds=60,
)
BARE = RunRequests((RequestEvent(((("type",), ("ask",)),), ("id",)),), (), "Do it.", 60)


def after(*events: Any, requests: RunRequests = REQUESTS) -> list[str]:
    found = OpenRequests(requests)
    for event in events:
        found.update(event)
    return list(found.describe())


def ask(request_id: Any, **more: Any) -> dict[str, Any]:
    return {"type": "ask", "id": request_id, **more}


def test_request_is_open_until_it_is_resolved() -> None:
    asked = ask("r1", text="push", options=["yes", "no"])
    assert after(asked) == ["The run waits for a response to its request r1: push. Pick one of yes, no for r1."]
    assert after(asked, {"type": "done", "id": "r2"}) == after(asked)
    assert after(asked, {"type": "done", "id": "r1"}) == []
    assert after(ask(7), "text", None) == []


def test_request_without_text_and_options_is_described() -> None:
    assert after(ask("r1")) == ["The run waits for a response to its request r1. Pick one of unknown for r1."]
    assert after(ask("r1", text="x"), requests=BARE) == ["The run waits for a response to its request r1. Do it."]


def test_latest_requests_are_described_and_others_counted() -> None:
    sentences = after(*(ask(f"r{number}") for number in range(5)))
    assert ["r4" in sentences[0], "r3" in sentences[1], "r2" in sentences[2]] == [True, True, True]
    assert sentences[3] == "2 older requests are open, too."


def test_requests_of_an_ended_run_are_forgotten() -> None:
    found = OpenRequests(REQUESTS)
    found.update(ask("r1"))
    found.clear()
    assert list(found.describe()) == []
