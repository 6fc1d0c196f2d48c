"""An overlay with the runs of an API, as far as its OpenAPI document shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_taskruns.generator.capability import Provider, ToolPlan, path_name
from mcp_taskruns.generator.document import Operation
from mcp_taskruns.generator.emit import Comment, Flow, mark
from mcp_taskruns.generator.family import RunFamily, is_log_of
from mcp_taskruns.generator.run_fields import Run, Step, find_result, find_step
from mcp_taskruns.generator.schemas import Schemas, jsonpath
from mcp_taskruns.generator.statuses import CANCELED, FAILED, STATUSES, SUCCEEDED, TERMINAL
from mcp_taskruns.generator.words import split_words

_KEY_WORDS = frozenset({("idempotency", "key"), ("idempotency", "token"), ("request", "token")})


def build_overlay(provider: Provider, plans: Sequence[ToolPlan], family: RunFamily | None) -> dict[Any, Any]:
    """Return the overlay as a mapping, with comments. Without a family it has no `runs`."""
    consumed: dict[Any, Any] = {}
    names = {plan.operation: plan for plan in plans}
    runs = _Runs(provider, names, family).build() if family is not None and family.read in names else None
    if runs is None:
        text = "no operation was found that reads a run with its status; describe `runs`, see docs/runs.md"
        consumed[mark(text)] = None
    else:
        consumed |= runs
    operations = {plan.name: found for plan in plans if (found := _refine_operation(plan))}
    consumed |= {"operations": operations} if operations else {}
    head = (
        "Guessed from the OpenAPI description. Comments that begin with `check` name what to confirm; then remove them."
    )
    document: dict[Any, Any] = {Comment(head): None, "overlay": 2, "prefix": provider.name}
    if any(not isinstance(key, Comment) for key in consumed):
        return document | {"capability": {"consumes": {provider.name: consumed}}}
    return document | consumed


def _refine_operation(plan: ToolPlan) -> dict[Any, Any]:
    """Return what the overlay adds to an operation."""
    inputs = {one.name: Flow(added) for one in plan.inputs if (added := one.refinement())}
    refined: dict[Any, Any] = {}
    if plan.operation.redirects:
        refined[mark("the response is a redirect to a file")] = None
        refined["follow_redirect"] = True
    if "event-stream" in plan.operation.media_type:
        refined["accept"] = "text/event-stream"
    return refined | ({"inputParameters": inputs} if inputs else {})


class _Runs:
    """Builds the `runs` of an overlay."""

    def __init__(self, provider: Provider, plans: Mapping[Operation, ToolPlan], family: RunFamily | None) -> None:
        assert family is not None
        self._plans = plans
        self._family = family
        self._run: Run = family.run
        self._schemas = Schemas(provider.document)
        self._argument = _run_id_argument(family)
        self._step: Step | None = None

    def build(self) -> dict[Any, Any] | None:
        """Return `runs` with comments, or None if a run has no id."""
        if not self._run.id or not self._argument:
            return None
        runs: dict[Any, Any] = {
            mark("this is the operation that reads one run, and its argument for the run's id"): None
        }
        runs["read"] = Flow({"operation": self._name(self._family.read), "run_id_argument": self._argument})
        for part in (
            self._starts,
            self._cancels,
            self._runs_in,
            self._fields,
            self._statuses,
            self._result,
            self._steps,
        ):
            runs |= part()
        for part in (self._logs, self._retries, self._last):  # logs of steps need the steps
            runs |= part()
        return {"runs": runs}

    def _name(self, operation: Operation) -> str:
        return self._plans[operation].name

    def _chosen(self, operations: Sequence[Operation]) -> list[Operation]:
        return [one for one in operations if one in self._plans]

    def _starts(self) -> dict[Any, Any]:
        starts: dict[Any, Any] = {}
        for operation in self._chosen(self._family.starts):
            found = self._start(operation)
            if found is None and not operation.returns_nothing and operation.response is None:
                name = self._name(operation)
                starts[mark(f"the document does not describe the response of {name}; a run is expected")] = None
                starts[name] = Flow()
            elif found is None:
                text = (
                    f"{self._name(operation)} may start a run, but its response has no id; see `find` in docs/runs.md"
                )
                starts[mark(text)] = None
            else:
                starts[self._name(operation)] = found
        if not any(isinstance(key, str) for key in starts):
            return starts or {mark("no operation was found that starts a run"): None}
        return {
            mark("these operations start one run each, and the id is where `run_id` shows, else as in `fields`"): None,
            "start": starts,
        }

    def _start(self, operation: Operation) -> dict[str, Any] | None:
        """Return how an operation starts a run; None if its response does not name the run."""
        start: dict[str, Any] = {}
        fields = self._schemas.response_fields(operation)
        paths = {field.path for field in fields}
        if not self._is_run(paths, self._run.root):
            words = {split_words(self._argument), split_words(self._run.id)}
            found = [one for one in fields if one.words in words or (len(one.path) == 1 and one.words == ("id",))]
            if not found:
                return None
            start["run_id"] = found[0].jsonpath()
        keys = [one.name for one in self._plans[operation].inputs if split_words(one.name)[-2:] in _KEY_WORDS]
        if keys:
            start["idempotency_key_argument"] = jsonpath((keys[0],))
        return Flow(start)

    def _is_run(self, paths: set[tuple[str, ...]], root: tuple[str, ...]) -> bool:
        """Whether a response has the id and the status of a run at a path."""
        written = {jsonpath(path[len(root) :]) for path in paths if path[: len(root)] == root}
        return {self._run.id, self._run.status[0]} <= written

    def _cancels(self) -> dict[Any, Any]:
        chosen = self._chosen(self._family.cancels)
        if not chosen:
            return {mark("no operation was found that cancels a run; some APIs set its status instead"): None}
        cancels: dict[Any, Any] = {self._name(one): Flow(self._own_argument(one)) for one in chosen}
        return {mark("these operations cancel a run"): None, "cancel": cancels}

    def _own_argument(self, operation: Operation) -> dict[str, str]:
        names = [one.name for one in self._plans[operation].inputs]
        if self._argument in names:
            return {}
        own = [path_name(name) for name in operation.placeholders[-1:]]
        return {"run_id_argument": own[0]} if own else {}

    def _runs_in(self) -> dict[Any, Any]:
        places = {self._name(one): path for one, path in self._family.lists if one in self._plans}
        if self._run.root:
            places[self._name(self._family.read)] = jsonpath(self._run.root)
        for operation in (*self._chosen(self._family.starts), *self._chosen(self._family.cancels)):
            paths = {field.path for field in self._schemas.response_fields(operation)}
            is_start = operation in self._family.starts
            if self._is_run(paths, self._run.root) and (self._run.root or not is_start):
                places[self._name(operation)] = jsonpath(self._run.root)
        if not places:
            return {mark("no operation was found that lists runs"): None}
        return {mark("the paths to the runs in the responses of these operations"): None, "runs_in": places}

    def _fields(self) -> dict[Any, Any]:
        run = self._run
        fields: dict[Any, Any] = {}
        if run.id_source:
            text = f"the response that reads a run does not have this id in the document; {run.id_source} has it"
            fields[mark(text)] = None
        fields["id"] = run.id
        fields["status"] = run.status[0] if len(run.status) == 1 else list(run.status)
        for name in ("progress", "result", "error", "started_at", "ended_at", "attempts"):
            value = getattr(run, name)
            if name == "progress" and run.percent:
                value = Flow({"percent": run.percent})
            elif isinstance(value, tuple):
                value = Flow({"done": list(value[0]), "total": value[1]})
            if value:
                fields[name] = value
        missing = [name for name in ("result", "error", "started_at", "ended_at") if name not in fields]
        marks: dict[Any, Any] = {mark("these fields were recognised by their names"): None}
        if missing:
            marks[mark(f"no field was found for {', '.join(missing)}; add those that a run has")] = None
        return {**marks, "fields": fields}

    def _statuses(self) -> dict[Any, Any]:
        guess = self._run.statuses
        text = f"what each status means was guessed from its words; the statuses are those of {self._run.status_source}"
        marks: dict[Any, Any] = {mark(text): None}
        if doubtful := [native for native in guess.doubtful if native in guess.known]:
            marks[mark(f"the meaning of {_join(doubtful)} is the least certain")] = None
        if guess.unclear:
            marks[mark(f"add these statuses, whose meaning is unknown: {_join(guess.unclear)}")] = None
        missing = [status for status in (SUCCEEDED, FAILED, CANCELED) if status not in guess.found]
        if missing:
            marks[mark(f"no status was found for {_join(missing)}; a run may end without a known one")] = None
        grouped = {status: [n for n, one in guess.known.items() if one == status] for status in STATUSES}
        return {**marks, "statuses": {status: natives for status, natives in grouped.items() if natives}}

    def _result(self) -> dict[Any, Any]:
        for operation in self._chosen(self._family.results):
            if not self._run.result and (request := self._request(operation)) is not None:
                request["result"] = find_result(self._schemas, operation)
                return {mark("this operation has the result of a run that succeeded"): None, "result": Flow(request)}
        return {}

    def _request(self, operation: Operation, *, of_step: bool = False) -> dict[str, Any] | None:
        """Return the call of an operation on a run, or on one of its steps; None if its path has other arguments."""
        known = {path_name(name) for name in self._family.read.placeholders} | {self._argument}
        names = {one.name for one in self._plans[operation].inputs}
        own = [path_name(name) for name in operation.placeholders if path_name(name) not in known]
        request: dict[str, Any] = {"operation": self._name(operation)}
        if of_step:
            if len(own) != 1 or self._step is None or not self._step.id:
                return None
            return request | {"of": "step", "arguments": {own[0]: self._step.id}}
        if self._argument in names and not own:
            return request
        is_renamed = len(own) == 1 and len(operation.placeholders) == len(self._family.read.placeholders)
        return request | {"run_id_argument": own[0]} if is_renamed else None

    def _steps(self) -> dict[Any, Any]:
        for operation, path in self._family.steps:
            request = self._request(operation) if operation in self._plans else None
            step = find_step(self._schemas, self._schemas.item(operation, path), operation)
            if request is not None and step is not None:
                self._step = step
                fields: dict[str, Any] = {"name": step.name}
                fields["status"] = step.status[0] if len(step.status) == 1 else list(step.status)
                fields |= {key: getattr(step, key) for key in ("error", "started_at", "ended_at") if getattr(step, key)}
                steps = {**request, "items": path, "fields": Flow(fields), "failed": list(step.failed)}
                return {mark("the steps of a run, and the statuses of those that failed"): None, "steps": steps}
        found = [self._name(operation) for operation, _ in self._family.steps if operation in self._plans]
        return {mark(f"{_join(found)} may list the steps of a run; see `steps` in docs/runs.md"): None} if found else {}

    def _logs(self) -> dict[Any, Any]:
        chosen = self._chosen(self._family.logs)
        of_steps = [one for one in chosen if is_log_of(one, self._family.steps)]
        logs = [log for one in of_steps if (log := self._request(one, of_step=True)) is not None]
        logs = logs or [log for one in chosen if (log := self._request(one)) is not None]
        if logs:
            text = "the log of a run or of its failed steps; for a log in JSON add `entries`, `time` and `message`"
            return {mark(text): None, "logs": [Flow(log) for log in logs]}
        names = _join([self._name(one) for one in chosen])
        return {mark(f"{names} may have the log of a run; see `logs` in docs/runs.md"): None} if names else {}

    def _retries(self) -> dict[Any, Any]:
        retries: dict[Any, Any] = {}
        for operation in self._chosen(self._family.retries):
            request = self._request(operation)
            fields = self._schemas.response_fields(operation)
            words = {split_words(self._run.id), split_words(self._argument)}
            found = [one.jsonpath() for one in fields if one.words in words and one.path[:-1] in {(), self._run.root}]
            part = "failed" if "failed" in split_words(f"{operation.path} {operation.id}") else "whole"
            if request is not None and part not in retries:
                retries[part] = Flow(request | ({"run_id": found[0]} if found else {}))
        if not retries:
            return {}
        text = "how a run is run again; without `run_id` it keeps its id, with `run_id` the response names a new one"
        return {mark(text): None, "retry": dict(sorted(retries.items(), reverse=True))}

    def _last(self) -> dict[Any, Any]:
        if self._run.statuses.found & TERMINAL:
            return {}
        return {mark("no status is terminal, so waits end only when their time has passed"): None}


def _run_id_argument(family: RunFamily) -> str:
    """Return the argument that takes the id of a run; empty if there is none."""
    if family.read.placeholders:
        return path_name(family.read.placeholders[-1])
    names = [
        one.name for one in family.read.parameters if split_words(one.name)[-1:] in {("id",), ("uuid",), ("number",)}
    ]
    return names[0] if names else ""


def _join(names: Sequence[str]) -> str:
    return ", ".join(names)
