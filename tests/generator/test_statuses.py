"""The meaning of statuses, guessed from their words."""

import pytest

from mcp_taskruns.generator.statuses import guess_statuses

# Statuses of public APIs, with their meaning as documented by each: render.com/docs/workflows, docs.apify.com,
# buildkite.com/docs/apis/rest-api/builds, docs.temporal.io, docs.runpod.io, vercel.com/docs/rest-api,
# www.assemblyai.com/docs, elevenlabs.io/docs, docs.celeryq.dev, docs.aws.amazon.com (Step Functions, Batch)
KNOWN = {
    "apify": {
        "queued": "READY",
        "running": "RUNNING TIMING-OUT ABORTING",
        "succeeded": "SUCCEEDED",
        "failed": "FAILED TIMED-OUT",
        "canceled": "ABORTED",
    },
    "buildkite": {
        "queued": "scheduled waiting",
        "running": "running failing canceling",
        "paused": "blocked",
        "succeeded": "passed",
        "failed": "failed waiting_failed",
        "canceled": "canceled skipped not_run",
    },
    "temporal": {
        "running": "STATUS_RUNNING STATUS_CONTINUED_AS_NEW",
        "succeeded": "STATUS_COMPLETED",
        "failed": "STATUS_FAILED STATUS_TIMED_OUT",
        "canceled": "STATUS_CANCELED STATUS_TERMINATED",
    },
    "runpod": {
        "queued": "IN_QUEUE",
        "running": "IN_PROGRESS RUNNING",
        "succeeded": "COMPLETED",
        "failed": "FAILED TIMED_OUT",
        "canceled": "CANCELLED",
    },
    "vercel": {
        "queued": "QUEUED INITIALIZING",
        "running": "BUILDING",
        "succeeded": "READY",
        "failed": "ERROR",
        "canceled": "CANCELED",
    },
    "assemblyai": {"queued": "queued", "running": "processing", "succeeded": "completed", "failed": "error"},
    "elevenlabs": {"running": "dubbing", "succeeded": "dubbed", "failed": "failed"},
    "celery": {
        "queued": "PENDING RECEIVED",
        "running": "STARTED RETRY",
        "succeeded": "SUCCESS",
        "failed": "FAILURE",
        "canceled": "REVOKED",
    },
    "step functions": {
        "running": "RUNNING",
        "succeeded": "SUCCEEDED",
        "failed": "FAILED TIMED_OUT ABORTED",
        "canceled": "CANCELED",
    },
    "batch": {
        "queued": "SUBMITTED PENDING STARTING",
        "running": "RUNNING",
        "succeeded": "SUCCEEDED",
        "failed": "FAILED",
    },
}


@pytest.mark.parametrize("name", KNOWN)
def test_statuses_of_public_apis(name: str) -> None:
    expected = {native: status for status, natives in KNOWN[name].items() for native in natives.split()}
    guess = guess_statuses(tuple(expected))
    assert dict(guess.known) == expected
    assert guess.unclear == ()
    assert guess.describes_runs


@pytest.mark.parametrize(
    ("native", "status"),
    [
        ("not-started", "queued"),
        ("waitingForResources", "queued"),
        ("PENDING_VERSION", "queued"),
        ("InProgress", "running"),
        ("cancellation_requested", "running"),
        ("up_for_retry", "running"),
        ("failed_retrying", "running"),
        ("uploading", "running"),
        ("requires_action", "paused"),
        ("CompletedSuccessfully", "succeeded"),
        ("upstreamFailed", "failed"),
        ("UserCancelled", "canceled"),
        ("partially_succeeded", None),
        ("completed_with_errors", None),
        ("upload_text", None),
        ("archived", None),
        ("42", None),
    ],
)
def test_status_in_any_spelling(native: str, status: str | None) -> None:
    assert guess_statuses((native,)).known.get(native) == status


def test_statuses_without_meaning_are_not_unclear() -> None:
    guess = guess_statuses(("STATE_UNSPECIFIED", "STATE_RUNNING", "STATE_ODD"))
    assert guess.unclear == ("STATE_ODD",)


def test_common_prefix_that_is_a_whole_status_is_kept() -> None:
    assert dict(guess_statuses(("failed", "failed_softly")).known) == {"failed": "failed", "failed_softly": "failed"}


def test_doubtful_statuses_depend_on_the_others() -> None:
    assert guess_statuses(("ready", "aborted", "failed")).doubtful == ("aborted",)
    assert guess_statuses(("ready", "aborted", "done")).doubtful == ("ready", "aborted")


def test_outcomes_are_terminal() -> None:
    guess = guess_statuses(("success", "failure", "action_required", "cancelled"), are_outcomes=True)
    assert guess.known["action_required"] == "failed"
    assert guess.describes_outcomes
    assert not guess_statuses(("success", "failure", "running")).describes_outcomes


@pytest.mark.parametrize(
    ("natives", "ended"),
    [
        (("queued", "in_progress", "completed"), ("completed",)),
        (("RUNNING", "TERMINATED", "INTERNAL_ERROR"), ("TERMINATED",)),
        (("queued", "completed", "success", "failure"), ("completed",)),
        (("queued", "completed", "failed"), ()),
        (("running", "?"), ()),
    ],
)
def test_statuses_that_only_show_an_end(natives: tuple[str, ...], ended: tuple[str, ...]) -> None:
    assert guess_statuses(natives).ended == ended
