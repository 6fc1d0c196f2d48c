"""The keywords in `runs`, with which an overlay describes the runs of a provider."""

from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_taskruns.core.format.strict_model import JsonPath, StrictModel, When
from mcp_taskruns.core.format.types import Names, without_nulls

RunStatusName = Literal["not started", "queued", "running", "paused", "succeeded", "failed", "canceled"]


class RunCallKeywords(StrictModel):
    """An operation on one run."""

    operation: str
    """The name of the operation."""
    run_id_argument: str = ""
    """The argument that takes the run's id; required for `read`, otherwise that of `read` by default."""


class LongPollKeywords(StrictModel):
    """A parameter of the read on which the provider holds its response back until the run has ended, or changed."""

    location: Literal["query", "header"] = Field(alias="in")
    """Where the parameter is sent."""
    name: str = Field(min_length=1)
    """Its name: `waitForFinish`, `Prefer`."""
    value: str = "{seconds}"
    """Its value; `{seconds}` is replaced by how long the response may be held back: `wait={seconds}`."""
    max_seconds: int = Field(gt=0)
    """The longest time that the provider accepts, in seconds."""


class RunReadKeywords(RunCallKeywords):
    """The operation that reads a run."""

    long_poll: LongPollKeywords | None = None
    """How a wait for one run is notified of its end; not used beside `stream`."""


class RunThenKeywords(RunCallKeywords):
    """An operation to call next, without which the run does not proceed."""

    when: When = Field({})
    """The condition on the response of the first operation."""


class ProgressKeywords(StrictModel):
    """Where a run reports how far it is, if not as a ratio: `percent`, or `done` and `total`."""

    percent: JsonPath = ""
    """A percentage from 0 to 100."""
    done: Names = ()
    """The number of parts that are done; several numbers are added."""
    total: JsonPath = ""
    """The number of all parts."""


class RunFieldsKeywords(StrictModel):
    """Paths to the fields of a run, from the run."""

    id: JsonPath = ""
    """The run's id, a text or an integer (required)."""
    status: Names = ()
    """The provider's status of the run (required). Several paths: see `statuses`."""
    stage: JsonPath = ""
    """A text that refines the status while the run is active."""
    progress: JsonPath | ProgressKeywords = ""
    """A ratio from 0 to 1, or a mapping."""
    result: JsonPath = ""
    """The output of a run that succeeded; with `[*]` in the path, a list."""
    error: Names = ()
    """The error of a run that failed: one or more paths, whose texts are joined."""
    started_at: JsonPath = ""
    """An ISO 8601 timestamp or a Unix time; older runs are polled less often."""
    attempts: JsonPath = ""
    """The attempts of a run that the provider retries: a number, or a list that is counted."""
    ended_at: JsonPath = ""
    """The time of the terminal status, in the same form."""


class RunStreamKeywords(StrictModel):
    """The operation whose events report changes of runs."""

    operation: str
    """The name of the operation."""
    run_ids_argument: str
    """The argument that takes the id of the run, or the list of ids."""
    when: When = Field({})
    """Which events hold a run; default: all."""
    fields: RunFieldsKeywords = RunFieldsKeywords()
    """Fields whose path differs from that in `fields` of `runs`; an empty path: the event does not have it."""
    new_events_arguments: dict[str, Any] = Field({})
    """Arguments that skip the events before the connection."""
    last_events: Names = ()
    """Names of events after which the stream is over: it is not opened again."""
    connection_events: Names = ()
    """Names of events about the connection, not about the run: they are not listed."""


class RunActorKeywords(StrictModel):
    """Who starts runs: the user of the credential."""

    operation: str
    """The operation whose response names the user."""
    name: JsonPath
    """Path to the name in the response."""
    argument: str
    """The argument of the list that takes the name."""


class RunFindKeywords(StrictModel):
    """A list in which the newest run since the start is the one that was started."""

    operation: str
    """The operation that lists runs; `runs_in` has the path to them. Arguments in its path come from the start."""
    created_at: JsonPath
    """Path from a run to the time of its creation, an ISO 8601 timestamp or a Unix time."""
    arguments: dict[str, Any] = Field({})
    """Further arguments of the list."""
    same: dict[str, JsonPath] = Field({})
    """Arguments of the list, each with the path to its value in the arguments of the start."""
    actor: RunActorKeywords | None = None


class RunStartKeywords(StrictModel):
    """An operation that creates or starts a run."""

    idempotency_key_argument: JsonPath = ""
    """Path to the argument by which the provider recognises a repeated call; the server sets it if it is absent."""
    key_is_run_id: bool = False
    """Whether that is the run's id: after an error of the kind `conflict`, a run that has it is the started one."""
    run_id: JsonPath = ""
    """Path to the run's id in the response, if that contains no run."""
    find: RunFindKeywords | None = None
    """How to find the run if the response does not name it."""
    then: RunThenKeywords | None = None


class RunCancelFirstKeywords(RunCallKeywords):
    """An operation to send first; the cancelling operation follows only if the provider does not have it (404)."""

    when: When = Field({})
    """The condition on the arguments of the call; default: all."""


class RunCancelKeywords(StrictModel):
    """An operation that cancels a run."""

    run_id_argument: str = ""
    """The argument that takes the run's id; default: that of `read`."""
    when: When = Field({})
    """The condition on the arguments under which the call cancels a run."""
    confirm_argument: str = ""
    """A boolean argument without which a run with a terminal status is left unchanged."""
    confirm_description: str = ""
    """The description of that argument."""
    confirm_effect: str = ""
    """What the call does to such a run, as a participle: `deleted together with its output`."""
    ends_as: Names = ()
    """The provider's statuses of canceled runs, if these are not among those of `canceled`."""
    first: RunCancelFirstKeywords | None = None


class RunRequestKeywords(StrictModel):
    """An operation on one run that needs no tool. It takes the arguments in its path from the call."""

    operation: str
    """The name of the operation."""
    run_id_argument: str | None = None
    """The argument that takes the run's id; default: that of `read`, if the operation has it."""
    arguments: dict[str, Any] = Field({})
    """Further arguments by name; texts in them that begin with `$` are paths from the run."""


class RunResultKeywords(RunRequestKeywords):
    """Another operation that has the result of a run that succeeded; it is called once, when the run has ended."""

    result: JsonPath = "$"
    """Path to the result in the response of the operation."""
    when: When = Field({})
    """The condition on the run; default: all that succeeded."""
    json_text: bool = False
    """Whether the result is JSON in a text; a text that is not JSON stays a text."""
    unwrap: str = ""
    """The only member of an object in which the provider wraps results that are not objects."""
    note: str = ""
    """What to report if the operation does not return the result; default: the reason."""


class RunStepFieldsKeywords(StrictModel):
    """Paths to the fields of a step, from the step."""

    name: JsonPath
    """The step's name."""
    status: Names
    """The provider's status of the step; several paths as in `fields.status` of `runs`."""
    error: Names = ()
    """Why the step failed: one or more paths, whose texts are joined."""
    started_at: JsonPath = ""
    """The ISO 8601 timestamp of its start."""
    ended_at: JsonPath = ""
    """The ISO 8601 timestamp of its end."""
    attempts: JsonPath = ""
    """How often the step was tried: a number, or a list that is counted."""


class RunStepPartsKeywords(StrictModel):
    """What a step is made of; the parts that failed are named in the error of the step. The paths start at the step."""

    items: JsonPath
    """Path to the parts, with `[*]`."""
    name: JsonPath
    """Path from a part to its name."""
    status: Names
    """Path from a part to its status, or several paths as in `fields.status` of `runs`."""
    failed: Names
    """The provider's statuses of parts that failed."""


class RunStepsKeywords(RunRequestKeywords):
    """The operation that lists the steps of a run. It needs no tool."""

    items: JsonPath
    """Path to the steps in its response, with `[*]`."""
    fields: RunStepFieldsKeywords
    failed: Names
    """The provider's statuses of steps that failed, as in `statuses` of `runs`."""
    parts: RunStepPartsKeywords | None = None


class RunLogKeywords(RunRequestKeywords):
    """An operation that returns the log of a run, or of one step. It needs no tool."""

    of: Literal["run", "step"] = "run"
    """What the log is of. For `step` it is called for failed steps, and paths in `arguments` start at the step."""
    entries: JsonPath = ""
    """Path to the entries in a JSON response, with `[*]`, or to one text with all lines; default: the response."""
    time: JsonPath = ""
    """Path from an entry to its time."""
    message: Names = ()
    """Paths from an entry to its texts, which are joined; default: as the operation's `log` says, or all of it."""
    until: str = ""
    """A regular expression: lines after the last one that matches, such as those of cleaning up, are left out."""


class RunRetryKeywords(RunRequestKeywords):
    """An operation that runs a run again. It needs no tool."""

    run_id: JsonPath = ""
    """Path to the id of the new run in the response; default: the run keeps its id."""
    refused: When = Field({})
    """The condition on a response of 2xx that nonetheless is a refusal."""
    reason: JsonPath = ""
    """Path to the reason of a refusal."""
    then: RunThenKeywords | None = None


class RunAgainKeywords(StrictModel):
    """How to start a run again with the same input, where the API cannot retry."""

    operation: str
    """The operation that starts it; a tool has to call it."""
    arguments: dict[str, Any]
    """Its arguments; texts in them that begin with `$` are paths from the run."""


class RunFailureKeywords(StrictModel):
    """The meaning of a failure."""

    matches: str
    """A regular expression that is searched in the error of a run or of a step."""
    meaning: str
    """What it means, and what to do."""


class RequestEventKeywords(StrictModel):
    """Events about something that a run asks its user; the paths start at the event."""

    when: When
    """The condition on the event."""
    id: JsonPath
    """The request's id."""
    text: JsonPath = ""
    """What the run asks for."""
    options: JsonPath = ""
    """The ids of the options, as a list."""


class RunRequestsKeywords(StrictModel):
    """How a run asks its user for something and waits for it; the events are on its stream."""

    asked: tuple[RequestEventKeywords, ...]
    """Events that ask."""
    resolved: tuple[RequestEventKeywords, ...]
    """Events that end a request."""
    hint: str
    """What to do; `{id}` and `{options}` are replaced by those of the request."""
    settled_by: When = Field({})
    """The condition on the last entry of a log after which no request is open; default: none."""
    recent_seconds: float = Field(3600.0, gt=0)
    """How old a request may be that is looked for, in seconds."""
    recent_events_arguments: dict[str, str] = Field({})
    """Arguments of the stream that skip older events; `{milliseconds}` is replaced by that time since 1970."""
    shown_by: Names = ()
    """Operations whose results mention the open requests of an active run; waits do it anyway."""


class RunsKeywords(StrictModel):
    """The lifecycle of the provider's runs."""

    noun: str = "run"
    """What the provider calls a run, for the names of the tools that wait, explain and retry: `wait-for-batch`."""
    read: RunReadKeywords
    """The operation that reads a run."""
    stream: RunStreamKeywords | None = None
    start: Annotated[dict[str, RunStartKeywords], without_nulls] = Field({})
    """By the name of the operation."""
    cancel: Annotated[dict[str, RunCancelKeywords], without_nulls] = Field({})
    """By the name of the operation."""
    runs_in: Annotated[dict[str, JsonPath], without_nulls] = Field({})
    """By the name of an operation, the path to the runs in its response; default for `read` and `start`: `$`."""
    result: RunResultKeywords | None = None
    steps: RunStepsKeywords | None = None
    logs: tuple[RunLogKeywords, ...] = ()
    """The first whose operation returns something counts."""
    retry: Annotated[dict[Literal["whole", "failed"], RunRetryKeywords], without_nulls] = Field({})
    """How to run the whole run again, or only what failed."""
    again: RunAgainKeywords | None = None
    failures: tuple[RunFailureKeywords, ...] = ()
    """The first that matches counts."""
    requests: RunRequestsKeywords | None = None
    fields: RunFieldsKeywords
    statuses: Annotated[dict[RunStatusName, Names], without_nulls]
    """The provider's statuses for each normalised status.

    With several paths in `fields.status`, their values are joined by slashes, without those that are absent or null:
    `completed/success`. There `*` stands for any value of one field: `completed/*`. A status without `*` counts first.
    """
    poll_seconds: float = Field(5.0, gt=0)
    """The shortest useful time between two reads of a run, in seconds."""
    max_age_seconds: float = Field(0.0, ge=0)
    """How old a response may be because the provider caches it, in seconds."""
    gone_after_cancel: bool = False
    """Whether a canceled run can no longer be read."""
    retention_seconds: float | None = Field(None, gt=0)
    """How long a run can be read after it was started, in seconds; default: unknown."""
    status_hints: Annotated[dict[str, str], without_nulls] = Field({})
    """By a status of the provider, as in `statuses` and with `*` as there, what to do about a run that has it."""
    redact: Names = ()
    """Paths to secrets, from the run."""
