"""The `runs` of an overlay, compiled to the lifecycle of a provider's runs."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from mcp_taskruns.core.format import run_keywords, spec
from mcp_taskruns.core.format.authentication import TOKEN
from mcp_taskruns.core.format.inputs import DeclaredOperation
from mcp_taskruns.core.format.names import rename_tools, suggest_name
from mcp_taskruns.core.format.operations import compile_operation
from mcp_taskruns.core.format.policies import Policies
from mcp_taskruns.core.format.templates import references_of
from mcp_taskruns.core.format.tool_schemas import DEFAULT_TEXT, SECONDS_SCHEMA, output_schema
from mcp_taskruns.core.model.json_path import EACH, Condition, Path, parse_condition, parse_path
from mcp_taskruns.core.model.operation import Location, Operation
from mcp_taskruns.core.model.run import (
    ANY,
    Lifecycle,
    LongPoll,
    Part,
    ProgressFields,
    RequestEvent,
    RunActor,
    RunAgain,
    RunCall,
    RunCancel,
    RunCancelFirst,
    RunFailure,
    RunFields,
    RunFind,
    RunLog,
    RunRequest,
    RunRequests,
    RunResult,
    RunRetry,
    RunStart,
    RunStatus,
    RunStepParts,
    RunSteps,
    RunStream,
    Statuses,
)
from mcp_taskruns.core.model.tool import WAIT_SECONDS, Derived, Tool
from mcp_taskruns.errors import CapabilityError

_Parsed = TypeVar("_Parsed")


def run_arguments(consumed: spec.Consumed, operation: str, *, is_stream: bool) -> dict[str, Any]:
    """Return the schemas of the arguments that a tool has because its operation starts, follows or cancels runs."""
    runs = consumed.runs
    arguments: dict[str, Any] = {}
    if is_stream:
        arguments[WAIT_SECONDS] = {**SECONDS_SCHEMA, "description": f"How long to follow, {DEFAULT_TEXT}"}
    start = runs.start.get(operation) if runs else None
    if start is not None:
        description = "Maximum seconds to wait, for example 45, for the run to finish and return its result."
        if start.then is not None:
            description = f"Start the run too, if it can be started. {description}"
        arguments[WAIT_SECONDS] = {**SECONDS_SCHEMA, "description": description}
    cancel = runs.cancel.get(operation) if runs else None
    if cancel is not None and cancel.confirm_argument:
        schema = {"description": cancel.confirm_description} if cancel.confirm_description else {}
        arguments[cancel.confirm_argument] = {"type": "boolean", **schema}
    return arguments


def add_lifecycles(
    capability: spec.Capability, tools: Sequence[Tool], listed_names: Mapping[str, str]
) -> Iterator[Tool]:
    """Yield the tools, under their listed names, each with the lifecycle of the runs that its operation works on.

    `listed_names` maps the names that overlays use to the listed ones. Raises CapabilityError for `runs` that refer to
    something that does not exist.
    """
    lifecycles: dict[tuple[str, str], Lifecycle] = {}
    for consumed in capability.capability.consumes:
        if consumed.runs is not None:
            lifecycle = RunsCompiler(capability, consumed, tools).compile(consumed.runs, listed_names)
            operations = {lifecycle.read.operation.name, *lifecycle.starts, *lifecycle.runs_in}
            operations |= {cancel.call.operation.name for cancel in lifecycle.cancels}
            operations |= {lifecycle.stream.operation.name} if lifecycle.stream else set()
            operations |= lifecycle.requests.shown_by if lifecycle.requests else set()
            lifecycles |= dict.fromkeys(((consumed.namespace, name) for name in operations), lifecycle)
    for tool in tools:
        runs = lifecycles.get((tool.operation.namespace, tool.operation.name))
        schema = tool.output_schema or (output_schema(runs, tool) if runs else None)
        yield replace(tool, runs=runs, output_schema=schema)


def find_run_problems(capability: spec.Capability, tools: Sequence[Tool]) -> Iterator[CapabilityError]:
    """Yield what is wrong with each part of the `runs` of a capability, of which `tools` are compiled without them."""
    for consumed in capability.capability.consumes:
        if consumed.runs is not None:
            yield from RunsCompiler(capability, consumed, tools).problems(consumed.runs)


def retry_parts(runs: run_keywords.RunsKeywords) -> list[Part]:
    """Return what of a run can be run again, the default first."""
    parts: tuple[Part, ...] = ("whole", "failed")
    return [part for part in parts if part in runs.retry]


def takes_list(tool: Tool, argument: str) -> bool:
    """Return whether an argument of a tool is a list."""
    return bool(tool.input_schema["properties"].get(argument, {}).get("type") == "array")


class RunsCompiler:
    """Compiles the `runs` of one provider. All methods raise CapabilityError, with the place in `runs`."""

    def __init__(self, capability: spec.Capability, consumed: spec.Consumed, tools: Sequence[Tool]) -> None:
        self._tools = [tool for tool in tools if tool.operation.namespace == consumed.namespace]
        self._source = capability.source
        self._capability = capability
        self._consumed = consumed

    def compile(self, runs: run_keywords.RunsKeywords, listed_names: Mapping[str, str]) -> Lifecycle:
        fields = self._required_fields(runs.fields)
        read = self.call(runs.read, "read")
        return Lifecycle(
            provider=self.tool(runs.read.operation, "read").prefix,
            read=read,
            fields=fields,
            statuses=self._statuses(runs.statuses, len(fields.status)),
            wait_tool=self._derived(read, Derived.WAIT),
            explain_tool=self._derived(read, Derived.EXPLAIN),
            retry_tool=self._derived(read, Derived.RETRY),
            stream=self._stream(runs, fields) if runs.stream else None,
            starts={name: self._start(name, start, read) for name, start in runs.start.items()},
            cancels=tuple(self._cancel(name, cancel, read) for name, cancel in runs.cancel.items()),
            runs_in=self._runs_in(runs),
            result=self._result(runs.result, read) if runs.result else None,
            steps=self._steps(runs.steps, read) if runs.steps else None,
            logs=tuple(self._log(log, read) for log in runs.logs),
            retries={part: self._retry(part, runs.retry[part], read) for part in retry_parts(runs)},
            again=self._again(runs.again) if runs.again else None,
            failures=tuple(self._failure(failure, listed_names) for failure in runs.failures),
            requests=self._requests(runs.requests, listed_names) if runs.requests else None,
            long_poll=self._long_poll(runs.read.long_poll) if runs.read.long_poll else None,
            poll_seconds=runs.poll_seconds,
            max_age_seconds=runs.max_age_seconds,
            gone_after_cancel=runs.gone_after_cancel,
            retention_seconds=runs.retention_seconds,
            status_hints=self._status_hints(runs, listed_names),
        )

    def problems(self, runs: run_keywords.RunsKeywords) -> Iterator[CapabilityError]:
        """Yield what is wrong with each part, of which `compile` raises the first."""
        some = next((tool.operation for tool in self._tools), None)
        places = [runs.model_copy(update={"runs_in": {name: path}}) for name, path in runs.runs_in.items()]
        parts: list[Callable[[], object]] = [
            partial(self.call, runs.read, "read"),
            partial(self._fields, runs.fields, "fields"),
            partial(self._status_hints, runs, {}),
            *(partial(self._runs_in, place) for place in places),
        ]
        if runs.read.long_poll:
            parts.append(partial(self._long_poll, runs.read.long_poll))
        if runs.stream:
            parts.append(partial(self._stream, runs, RunFields((), ((),))))
        if some is not None:
            read = RunCall("", some, runs.read.run_id_argument)
            parts += [partial(self._start, name, start, read) for name, start in runs.start.items()]
            parts += [partial(self._cancel, name, cancel, read) for name, cancel in runs.cancel.items()]
            parts += [partial(self._result, runs.result, read)] if runs.result else []
            parts += [partial(self._steps, runs.steps, read)] if runs.steps else []
            parts += [partial(self._log, log, read) for log in runs.logs]
            parts += [partial(self._retry, part, retry, read) for part, retry in runs.retry.items()]
            parts += [partial(self._again, runs.again)] if runs.again else []
            parts += [partial(self._failure, failure, {}) for failure in runs.failures]
        if runs.requests:
            parts += self._parts_of_requests(runs.requests)
        for part in parts:
            try:
                part()
            except CapabilityError as exc:
                yield exc

    def _statuses(self, declared: Mapping[Any, tuple[str, ...]], parts: int, place: str = "statuses") -> Statuses:
        """Return the statuses; the native ones have at most so many parts."""
        statuses: dict[tuple[str, ...], RunStatus] = {}
        for status, natives in declared.items():
            for text in natives:
                native = tuple(text.split("/")) if parts > 1 else (text,)
                if native in statuses:
                    raise self._error(f"{place}.{status}", f"`{text}` is already {statuses[native]}")
                if len(native) > max(parts, 1):
                    reason = f"`{text}` has {len(native)} parts, and there are {parts} paths to the status"
                    raise self._error(f"{place}.{status}", reason)
                statuses[native] = RunStatus(status)
        is_pattern = {native: parts > 1 and ANY in native for native in statuses}
        return Statuses(
            {native: status for native, status in statuses.items() if not is_pattern[native]},
            tuple((native, status) for native, status in statuses.items() if is_pattern[native]),
        )

    def _status_hints(self, runs: run_keywords.RunsKeywords, listed_names: Mapping[str, str]) -> dict[str, str]:
        statuses = self._statuses(runs.statuses, len(runs.fields.status))
        for native in runs.status_hints:
            if not statuses.includes(native):
                known = [text for natives in runs.statuses.values() for text in natives]
                reason = f"`{native}` is not one of the provider's statuses in `statuses`"
                raise self._error("status_hints", reason, suggest_name(native, known))
        return {native: rename_tools(hint, listed_names) for native, hint in runs.status_hints.items()}

    def _runs_in(self, runs: run_keywords.RunsKeywords) -> dict[str, Path]:
        paths: dict[str, Path] = dict.fromkeys((runs.read.operation, *runs.start), ())
        without_tool = {cancel.first.operation for cancel in runs.cancel.values() if cancel.first}
        without_tool |= {start.find.operation for start in runs.start.values() if start.find}
        for operation, path in runs.runs_in.items():
            if operation not in without_tool:
                self.tool(operation, f"runs_in.{operation}")
            paths[operation] = self._path(path, f"runs_in.{operation}")
        return paths

    def _long_poll(self, declared: run_keywords.LongPollKeywords) -> LongPoll:
        location = Location(declared.location)
        if location is Location.HEADER and not TOKEN.fullmatch(declared.name):
            raise self._error("read.long_poll.name", f"`{declared.name}` is not a valid name of a header")
        if location is Location.HEADER and not (declared.value.isascii() and declared.value.isprintable()):
            raise self._error("read.long_poll.value", f"`{declared.value}` is not printable ASCII")
        return LongPoll(location, declared.name, declared.value, declared.max_seconds)

    def _stream(self, runs: run_keywords.RunsKeywords, fields: RunFields) -> RunStream:
        stream = runs.stream
        assert stream is not None
        tool = self.tool(stream.operation, "stream")
        self._check_argument(tool, stream.run_ids_argument, "stream.run_ids_argument")
        for name in stream.new_events_arguments:
            self._check_argument(tool, name, "stream.new_events_arguments")
        changed = {name: getattr(stream.fields, name) for name in stream.fields.model_fields_set}
        return RunStream(
            operation=tool.operation,
            run_ids_argument=stream.run_ids_argument,
            takes_many_runs=takes_list(tool, stream.run_ids_argument),
            fields=self._fields(runs.fields.model_copy(update=changed), "stream.fields") or fields,
            when=self._condition(stream.when, "stream.when"),
            new_events_arguments=stream.new_events_arguments,
            last_events=frozenset(stream.last_events),
            connection_events=frozenset(stream.connection_events),
        )

    def _start(self, operation: str, start: run_keywords.RunStartKeywords, read: RunCall) -> RunStart:
        key, then = start.idempotency_key_argument, start.then
        place = f"start.{operation}"
        return RunStart(
            tool=self.tool(operation, place).name,
            idempotency_key_argument=self._argument_path(key, f"{place}.idempotency_key_argument") if key else None,
            key_is_run_id=start.key_is_run_id,
            run_id=self._path(start.run_id, f"{place}.run_id") if start.run_id else None,
            find=self._find(start.find, f"{place}.find", read) if start.find else None,
            then=self.call(then, f"{place}.then", read.run_id_argument) if then else None,
            then_when=self._condition(then.when, f"{place}.then.when") if then else (),
        )

    def _cancel(self, operation: str, cancel: run_keywords.RunCancelKeywords, read: RunCall) -> RunCancel:
        place = f"cancel.{operation}"
        call = run_keywords.RunCallKeywords(operation=operation, run_id_argument=cancel.run_id_argument)
        return RunCancel(
            call=self.call(call, place, read.run_id_argument),
            when=self._condition(cancel.when, f"{place}.when"),
            confirm_argument=cancel.confirm_argument,
            confirm_effect=cancel.confirm_effect,
            ends_as=frozenset(cancel.ends_as),
            first=self._first(cancel.first, f"{place}.first", read) if cancel.first else None,
        )

    def _first(self, first: run_keywords.RunCancelFirstKeywords, place: str, read: RunCall) -> RunCancelFirst:
        operation, argument = self._call_without_tool(first, place, read)
        return RunCancelFirst(operation, argument, self._condition(first.when, f"{place}.when"))

    def _find(self, find: run_keywords.RunFindKeywords, place: str, read: RunCall) -> RunFind:
        operation = self._operation(find.operation, place, read)
        for name in (*find.arguments, *find.same):
            self._check_parameter(operation, name, place)
        return RunFind(
            operation=operation,
            created_at=self._path(find.created_at, f"{place}.created_at"),
            arguments=find.arguments,
            same={name: self._argument_path(path, f"{place}.same.{name}") for name, path in find.same.items()},
            actor=self._actor(find.actor, operation, f"{place}.actor", read) if find.actor else None,
        )

    def _actor(self, actor: run_keywords.RunActorKeywords, lists: Operation, place: str, read: RunCall) -> RunActor:
        self._check_parameter(lists, actor.argument, f"{place}.argument")
        name = self._path(actor.name, f"{place}.name")
        return RunActor(self._operation(actor.operation, place, read), name, actor.argument)

    def _result(self, result: run_keywords.RunResultKeywords, read: RunCall) -> RunResult:
        return RunResult(
            request=self._request(result, "result", read),
            result=self._path(result.result, "result.result"),
            when=self._condition(result.when, "result.when"),
            is_json_text=result.json_text,
            unwrap=result.unwrap,
            note=result.note,
        )

    def _steps(self, steps: run_keywords.RunStepsKeywords, read: RunCall) -> RunSteps:
        fields, place = steps.fields, "steps.fields"
        return RunSteps(
            request=self._request(steps, "steps", read),
            items=self._list_path(steps.items, "steps.items"),
            name=self._path(fields.name, f"{place}.name"),
            status=tuple(self._path(text, f"{place}.status") for text in fields.status),
            failed=self._statuses({"failed": steps.failed}, len(fields.status), "steps"),
            error=tuple(self._path(text, f"{place}.error") for text in fields.error),
            started_at=self._optional_path(fields.started_at, f"{place}.started_at"),
            ended_at=self._optional_path(fields.ended_at, f"{place}.ended_at"),
            attempts=self._optional_path(fields.attempts, f"{place}.attempts"),
            parts=self._step_parts(steps.parts) if steps.parts else None,
        )

    def _step_parts(self, parts: run_keywords.RunStepPartsKeywords) -> RunStepParts:
        place = "steps.parts"
        return RunStepParts(
            items=self._list_path(parts.items, f"{place}.items"),
            name=self._path(parts.name, f"{place}.name"),
            status=tuple(self._path(text, f"{place}.status") for text in parts.status),
            failed=self._statuses({"failed": parts.failed}, len(parts.status), place),
        )

    def _log(self, log: run_keywords.RunLogKeywords, read: RunCall) -> RunLog:
        return RunLog(
            request=self._request(log, "logs", read),
            is_of_step=log.of == "step",
            entries=self._optional_path(log.entries, "logs.entries"),
            time=self._optional_path(log.time, "logs.time"),
            message=tuple(self._path(text, "logs.message") for text in log.message),
            until=self._pattern(log.until, "logs.until") if log.until else None,
        )

    def _retry(self, part: str, retry: run_keywords.RunRetryKeywords, read: RunCall) -> RunRetry:
        place, then = f"retry.{part}", retry.then
        return RunRetry(
            request=self._request(retry, place, read),
            run_id=self._optional_path(retry.run_id, f"{place}.run_id"),
            refused=self._condition(retry.refused, f"{place}.refused"),
            reason=self._optional_path(retry.reason, f"{place}.reason"),
            then=self.call(then, f"{place}.then", read.run_id_argument) if then else None,
            then_when=self._condition(then.when, f"{place}.then.when") if then else (),
        )

    def _again(self, again: run_keywords.RunAgainKeywords) -> RunAgain:
        tool = self.tool(again.operation, "again")
        for name in again.arguments:
            self._check_argument(tool, name, "again.arguments")
        required = frozenset(tool.input_schema.get("required", ()))
        return RunAgain(tool.name, self._argument_tree(again.arguments, "again.arguments"), required)

    def _failure(self, failure: run_keywords.RunFailureKeywords, listed_names: Mapping[str, str]) -> RunFailure:
        pattern = self._pattern(failure.matches, "failures.matches")
        return RunFailure(pattern, rename_tools(failure.meaning, listed_names))

    def _pattern(self, text: str, place: str) -> re.Pattern[str]:
        try:
            return re.compile(text)
        except re.error as exc:
            raise self._error(place, f"is an invalid pattern: {exc}") from exc

    def _derived(self, read: RunCall, kind: Derived) -> str:
        """Return the name of a tool that is made of the description of runs; empty if there is none."""
        tools = (tool for tool in self._tools if tool.derived is kind and tool.operation == read.operation)
        return next((tool.name for tool in tools), "")

    def _request(self, request: run_keywords.RunRequestKeywords, place: str, read: RunCall) -> RunRequest:
        """Return an operation that needs no tool, with its arguments."""
        operation = self._operation(request.operation, place, read)
        known = {parameter.argument for parameter in operation.parameters} | set(references_of(operation.body))
        argument = request.run_id_argument
        if argument is None:
            argument = read.run_id_argument if read.run_id_argument in known else ""
        given = [*([argument] if argument else []), *request.arguments]
        for name in given:
            self._check_parameter(operation, name, f"{place}.arguments")
        self._check_path_arguments(operation, given, f"{place}.arguments")
        return RunRequest(
            operation=operation,
            run_id_argument=argument,
            arguments=self._argument_tree(request.arguments, f"{place}.arguments"),
        )

    def _argument_tree(self, tree: Any, place: str) -> Any:
        """Return a tree of arguments, in which texts that begin with `$` are parsed as paths."""
        if isinstance(tree, dict):
            return {name: self._argument_tree(item, f"{place}.{name}") for name, item in tree.items()}
        if isinstance(tree, list):
            return [self._argument_tree(item, place) for item in tree]
        return self._path(tree, place) if isinstance(tree, str) and tree.startswith("$") else tree

    def _requests(self, requests: run_keywords.RunRequestsKeywords, listed_names: Mapping[str, str]) -> RunRequests:
        for operation in requests.shown_by:
            self.tool(operation, "requests.shown_by")
        return RunRequests(
            asked=tuple(self._request_event(event, "requests.asked") for event in requests.asked),
            resolved=tuple(self._request_event(event, "requests.resolved") for event in requests.resolved),
            hint=rename_tools(requests.hint, listed_names),
            recent_seconds=requests.recent_seconds,
            settled_by=self._condition(requests.settled_by, "requests.settled_by"),
            recent_events_arguments=requests.recent_events_arguments,
            shown_by=frozenset(requests.shown_by),
        )

    def _parts_of_requests(self, requests: run_keywords.RunRequestsKeywords) -> Iterator[Callable[[], object]]:
        for operation in requests.shown_by:
            yield partial(self.tool, operation, "requests.shown_by")
        for key in ("asked", "resolved"):
            for event in getattr(requests, key):
                yield partial(self._request_event, event, f"requests.{key}")
        yield partial(self._condition, requests.settled_by, "requests.settled_by")

    def _request_event(self, event: run_keywords.RequestEventKeywords, place: str) -> RequestEvent:
        return RequestEvent(
            when=self._condition(event.when, f"{place}.when"),
            id=self._path(event.id, f"{place}.id"),
            text=self._path(event.text, f"{place}.text") if event.text else (),
            options=self._path(event.options, f"{place}.options") if event.options else (),
        )

    def _call_without_tool(
        self, call: run_keywords.RunCallKeywords, place: str, read: RunCall
    ) -> tuple[Operation, str]:
        """Return an operation that needs no tool, and its argument for the run's id."""
        operation = self._operation(call.operation, place, read)
        argument = call.run_id_argument or read.run_id_argument
        self._check_parameter(operation, argument, f"{place}.run_id_argument")
        return operation, argument

    def _check_parameter(self, operation: Operation, name: str, place: str) -> None:
        known = {parameter.argument for parameter in operation.parameters} | set(references_of(operation.body))
        if name not in known:
            raise self._error(place, f"the operation {operation.name} has no argument `{name}`")

    def _check_path_arguments(self, operation: Operation, given: Sequence[str], place: str) -> None:
        """Check that each argument in the path of an operation is among those `given`, or in calls that read a run."""
        reads = self._consumed.runs.read.operation if self._consumed.runs else ""
        known = {
            name for tool in self._tools if tool.operation.name == reads for name in tool.input_schema["properties"]
        }
        for parameter in operation.parameters:
            is_open = parameter.location is Location.PATH and parameter.argument and parameter.default is None
            if known and is_open and parameter.argument not in {*known, *given}:
                reason = (
                    f"the operation {operation.name} has `{parameter.argument}` in its path, which no argument sets"
                )
                raise self._error(place, reason, f"Add `{parameter.argument}` with its path to `arguments`.")

    def _required_fields(self, declared: run_keywords.RunFieldsKeywords) -> RunFields:
        fields = self._fields(declared, "fields")
        if fields is None:
            raise self._error("fields", "needs the paths `id` and `status`")
        return fields

    def _fields(self, fields: run_keywords.RunFieldsKeywords, place: str) -> RunFields | None:
        if not (fields.id and all(fields.status) and fields.status):
            return None
        names = ("stage", "result", "started_at", "ended_at", "attempts")
        paths = {name: self._path(text, f"{place}.{name}") for name in names if (text := getattr(fields, name))}
        return RunFields(
            id=self._path(fields.id, f"{place}.id"),
            status=tuple(self._path(text, f"{place}.status") for text in fields.status),
            progress=self._progress(fields.progress, f"{place}.progress") if fields.progress else None,
            error=tuple(self._path(text, f"{place}.error") for text in fields.error),
            **paths,
        )

    def _progress(self, declared: str | run_keywords.ProgressKeywords, place: str) -> ProgressFields:
        if isinstance(declared, str):
            return ProgressFields(ratio=self._path(declared, place))
        if not declared.percent and not (declared.done and declared.total):
            raise self._error(place, "needs `percent`, or `done` and `total`")
        return ProgressFields(
            percent=self._path(declared.percent, f"{place}.percent") if declared.percent else None,
            done=tuple(self._path(text, f"{place}.done") for text in declared.done),
            total=self._path(declared.total, f"{place}.total") if declared.total else None,
        )

    def _operation(self, name: str, place: str, read: RunCall) -> Operation:
        """Return an operation of the provider, which no tool has to call."""
        for resource in self._consumed.resources:
            for operation in resource.operations:
                if operation.name == name:
                    policies = Policies(self._source, self._consumed)
                    declared = DeclaredOperation(self._consumed, resource, operation, policies)
                    tool = spec.ExposedTool(name=name)  # without `with`, arguments have the names of parameters
                    compiled = compile_operation(self._capability, tool, read.operation.provider, declared)
                    # Its response is read as a whole, also if a tool follows it.
                    return replace(compiled.operation, base=read.operation.base, stream_format=None)
        known = {one.name for resource in self._consumed.resources for one in resource.operations}
        raise self._error(place, f"there is no operation `{name}`", suggest_name(name, known))

    def tool(self, operation: str, place: str) -> Tool:
        """Return the tool that calls an operation."""
        for tool in self._tools:
            if tool.operation.name == operation and not tool.derived:
                return tool
        known = {one.name for resource in self._consumed.resources for one in resource.operations}
        fix = "Add a tool that calls it."
        if operation not in known:
            fix = f"There is no operation `{operation}`. {suggest_name(operation, known)}".strip()
        raise self._error(place, f"no tool calls the operation `{operation}`", fix)

    def call(self, call: run_keywords.RunCallKeywords, place: str, default_argument: str = "") -> RunCall:
        """Return a compiled call on one run."""
        tool = self.tool(call.operation, place)
        argument = call.run_id_argument or default_argument
        self._check_argument(tool, argument, f"{place}.run_id_argument")
        return RunCall(tool.name, tool.operation, argument)

    def _check_argument(self, tool: Tool, name: str, place: str) -> None:
        if not name:
            raise self._error(place, "is missing")
        known = tool.input_schema["properties"]
        if name not in known:
            reason = f"the tool {tool.declared_name} has no argument `{name}`"
            raise self._error(place, reason, suggest_name(name, known))

    def _argument_path(self, text: str, place: str) -> Path:
        path = self._path(text, place)
        if not path or not all(isinstance(step, str) for step in path):
            raise self._error(place, f"`{text}` must consist of names only")
        return path

    def _path(self, text: str, place: str) -> Path:
        return self._parse(parse_path, text, place)

    def _list_path(self, text: str, place: str) -> Path:
        path = self._path(text, place)
        if EACH not in path:
            raise self._error(place, f"`{text}` leads to one value: write `{text}[*]` for the items of a list")
        return path

    def _optional_path(self, text: str, place: str) -> Path | None:
        return self._path(text, place) if text else None

    def _condition(self, when: Mapping[str, Any], place: str) -> Condition:
        return self._parse(parse_condition, when, place)

    def _parse(self, parse: Callable[[Any], _Parsed], written: Any, place: str) -> _Parsed:
        try:
            return parse(written)
        except ValueError as exc:
            raise self._error(place, str(exc)) from exc

    def _error(self, place: str, reason: str, fix: str = "") -> CapabilityError:
        steps = ("capability", "consumes", self._consumed.namespace, "runs", *place.split("."))
        return CapabilityError(self._source, f"capability.consumes.runs.{place}", reason, steps=steps, fix=fix)
