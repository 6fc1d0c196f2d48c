"""The `runs` of an overlay to the life cycle of a provider's runs, and to what its tools get of that."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.names import legal_name, renamed
from mcp_taskruns.core.model.json_path import EACH, Condition, Path, parse_condition, parse_path
from mcp_taskruns.core.model.run import Lifecycle, RunCall, RunCancel, RunFields, RunStart, RunStatus, RunStream
from mcp_taskruns.core.model.tool import UNTIL, WAIT_SECONDS, Hints, Tool
from mcp_taskruns.core.runs.messages import WAIT_SCHEMA
from mcp_taskruns.errors import CapabilityError

WAIT_TOOL = "wait-for-run"

MAX_RUNS = 50
"""How many runs one call waits for at most."""

_SECONDS = {"type": "number", "minimum": 0}
_DEFAULT = ", 45 unless the server is set otherwise."


def own_arguments(consumed: spec.Consumed, operation: str, *, is_stream: bool) -> dict[str, Any]:
    """The arguments that a tool of this operation takes beside the operation's own, with their schemas."""
    runs = consumed.runs
    added: dict[str, Any] = {}
    if is_stream:
        added[WAIT_SECONDS] = {**_SECONDS, "description": f"How long to follow{_DEFAULT}"}
    start = next((one for one in runs.start if one.operation == operation), None) if runs else None
    if start is not None:
        told = "Wait for the run's end for so long (try 45) and return its result."
        if start.then is not None:
            told = f"Start the run as well, if it can be started. {told}"
        added[WAIT_SECONDS] = {**_SECONDS, "description": told}
    for cancel in runs.cancel if runs else ():
        if cancel.operation == operation and cancel.guard:
            told = "Delete it together with its output if it has ended."
            added[cancel.guard] = {"type": "boolean", "description": told}
    return added


def wait_tools(capability: spec.Capability, tools: Sequence[Tool]) -> Iterator[Tool]:
    """One more tool for each `runs`: it waits for a run."""
    for consumed in capability.capability.consumes:
        if consumed.runs is None:
            continue
        place = _Place(capability, consumed, tools)
        read = place.call(consumed.runs.read, "read")
        tool = place.tool(consumed.runs.read.operation, "read")
        stream = consumed.runs.stream
        is_many = stream is not None and _is_many(place.tool(stream.operation, "stream"), stream.ids)
        label = tool.title.partition(": ")[0] if ": " in tool.title else tool.prefix
        many = f" Several ids at once: an array, with {UNTIL} all or any." if is_many else ""
        yield replace(
            tool,
            name=legal_name(f"{tool.prefix}-{WAIT_TOOL}"),
            declared_name=WAIT_TOOL,
            title=f"{label}: wait for run",
            description=(
                "Waits until a run has ended and returns its status, result or error: one call in place of asking "
                f"again and again.{many} When the time is over it returns timed_out, which is no error and cancels "
                "nothing."
            ),
            hints=Hints(read_only=True, destructive=False, idempotent=True, open_world=True),
            input_schema=_wait_input(tool.input_schema, read.run_id_argument, is_many=is_many),
            output_schema=WAIT_SCHEMA,
            is_wait_tool=True,
            server_arguments=frozenset({WAIT_SECONDS, UNTIL} if is_many else {WAIT_SECONDS}),
        )


def _wait_input(schema: Mapping[str, Any], run_id: str, *, is_many: bool) -> dict[str, Any]:
    properties = dict(schema["properties"])
    if is_many:
        one = dict(properties[run_id])
        told = one.pop("description", "Run id.")
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_RUNS}
        properties[run_id] = {"anyOf": [one, several], "description": f"{told} Or an array of them."}
        properties[UNTIL] = {"type": "string", "enum": ["all", "any"], "description": "Of several, default all."}
    properties[WAIT_SECONDS] = {**_SECONDS, "description": f"How long to wait{_DEFAULT}"}
    return {**schema, "properties": properties}


def with_lifecycles(capability: spec.Capability, tools: Sequence[Tool], listed: Mapping[str, str]) -> Iterator[Tool]:
    """The tools, named as they are listed, each with the life cycle of the runs that it is about.

    `listed` are the names of tools as they are listed, by those that overlays use. Raises CapabilityError for `runs`
    that name what is not there.
    """
    lifecycles: dict[tuple[str, str], Lifecycle] = {}
    for consumed in capability.capability.consumes:
        if consumed.runs is not None:
            lifecycle = _compile(_Place(capability, consumed, tools), consumed.runs, listed)
            about = {lifecycle.read.operation.name, *lifecycle.starts, *lifecycle.runs_in}
            about |= {cancel.call.operation.name for cancel in lifecycle.cancels}
            about |= {lifecycle.stream.operation.name} if lifecycle.stream else set()
            lifecycles |= dict.fromkeys(((consumed.namespace, name) for name in about), lifecycle)
    for tool in tools:
        runs = lifecycles.get((tool.operation.namespace, tool.operation.name))
        schema = tool.output_schema or (_answer_schema(runs, tool) if runs else None)
        yield replace(tool, runs=runs, output_schema=schema)


def _answer_schema(lifecycle: Lifecycle, tool: Tool) -> dict[str, Any] | None:
    """The schema of an answer that is about one run: where the run's id and state stand, if it has them.

    It forbids nothing and requires nothing: providers change their answers, and strict clients refuse what does not
    fit. `text` is what is there instead of an answer that does not.
    """
    operation = tool.operation.name
    cancels = any(cancel.call.operation == tool.operation and not cancel.when for cancel in lifecycle.cancels)
    place = lifecycle.runs_in.get(operation)
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    if cancels:
        _declare(schema, ("run_id",))
        _declare(schema, ("status",))
        schema["properties"]["cancelled"] = {"type": "boolean"}
    elif place is not None and EACH not in place:
        _declare(schema, (*place, *lifecycle.fields.id))
        _declare(schema, (*place, *lifecycle.fields.status))
    if not schema["properties"]:
        return None
    schema["properties"]["text"] = {"type": "string"}
    return schema


def _declare(schema: dict[str, Any], path: Path) -> None:
    for name in path:
        schema["type"] = "object"
        schema = schema.setdefault("properties", {}).setdefault(name, {})
    schema["type"] = "string"


def _compile(place: "_Place", runs: spec.Runs, listed: Mapping[str, str]) -> Lifecycle:
    shape = place.shape(runs.shape, "shape")
    read = place.call(runs.read, "read")
    if shape is None:
        raise place.wrong("shape", "needs the paths of a run's id and state")
    states: dict[str, RunStatus] = {}
    for state, natives in runs.states.items():
        for native in natives:
            if native in states:
                raise place.wrong(f"states.{state}", f"{native!r} is {states[native]} already")
            states[native] = place.state(state, f"states.{state}")
    found: dict[str, Path] = dict.fromkeys((runs.read.operation, *(s.operation for s in runs.start)), ())
    for operation, path in runs.found.items():
        place.tool(operation, f"found.{operation}")
        found[operation] = place.path(path, f"found.{operation}")
    return Lifecycle(
        provider=place.tool(runs.read.operation, "read").prefix,
        read=read,
        fields=shape,
        statuses=states,
        wait_tool=next(tool.name for tool in place.tools if tool.is_wait_tool and tool.operation == read.operation),
        stream=_stream(place, runs, shape),
        starts={start.operation: _start(place, start, read) for start in runs.start},
        cancels=tuple(_cancel(place, cancel, read) for cancel in runs.cancel),
        runs_in=found,
        poll_seconds=runs.interval,
        max_age_seconds=runs.cached,
        gone_after_cancel=runs.forgotten,
        retention_seconds=runs.lifetime,
        status_hints={native: renamed(advice, listed) for native, advice in runs.advice.items()},
    )


def _stream(place: "_Place", runs: spec.Runs, shape: RunFields) -> RunStream | None:
    stream = runs.stream
    if stream is None:
        return None
    tool = place.tool(stream.operation, "stream")
    for name in (stream.ids, *stream.arguments):
        place.argument(tool, name, "stream.ids" if name == stream.ids else "stream.arguments")
    elsewhere = {name: getattr(stream.shape, name) for name in stream.shape.model_fields_set}
    return RunStream(
        operation=tool.operation,
        run_ids_argument=stream.ids,
        takes_many_runs=_is_many(tool, stream.ids),
        fields=place.shape(runs.shape.model_copy(update=elsewhere), "stream.shape") or shape,
        when=place.condition(stream.when, "stream.when"),
        new_events_arguments=stream.arguments,
        ends_not_streamed=frozenset(place.state(state, "stream.untold") for state in stream.untold),
    )


def _is_many(tool: Tool, ids: str) -> bool:
    return bool(tool.input_schema["properties"].get(ids, {}).get("type") == "array")


def _start(place: "_Place", start: spec.RunStart, read: RunCall) -> RunStart:
    return RunStart(
        tool=place.tool(start.operation, "start").name,
        idempotency_key_argument=place.names(start.key, "start.key") if start.key else None,
        then=place.call(start.then, "start.then", read.run_id_argument) if start.then else None,
        then_when=place.condition(start.when, "start.when"),
    )


def _cancel(place: "_Place", cancel: spec.RunCancel, read: RunCall) -> RunCancel:
    call = place.call(spec.RunCall(operation=cancel.operation, id=cancel.id), "cancel", read.run_id_argument)
    return RunCancel(call, place.condition(cancel.when, "cancel.when"), cancel.guard)


class _Place:
    """Where `runs` stand: what they name is looked up there, and what is wrong with them is told with it."""

    def __init__(self, capability: spec.Capability, consumed: spec.Consumed, tools: Sequence[Tool]) -> None:
        self.tools = [tool for tool in tools if tool.operation.namespace == consumed.namespace]
        self._capability = capability

    def wrong(self, key: str, reason: str) -> CapabilityError:
        return CapabilityError(self._capability.source, f"capability.consumes.runs.{key}", reason)

    def tool(self, operation: str, key: str) -> Tool:
        for tool in self.tools:
            if tool.operation.name == operation and not tool.is_wait_tool:
                return tool
        raise self.wrong(key, f"no tool calls the operation {operation!r}")

    def call(self, call: spec.RunCall, key: str, default_id: str = "") -> RunCall:
        tool = self.tool(call.operation, key)
        run_id = call.id or default_id
        self.argument(tool, run_id, f"{key}.id")
        return RunCall(tool.name, tool.operation, run_id)

    def argument(self, tool: Tool, name: str, key: str) -> None:
        if name not in tool.input_schema["properties"]:
            raise self.wrong(key, f"{tool.declared_name} has no argument {name!r}")

    def state(self, text: str, key: str) -> RunStatus:
        states = [state for state in RunStatus if state is not RunStatus.UNKNOWN]
        if text not in states:
            raise self.wrong(key, f"is not one of {', '.join(states)}")
        return RunStatus(text)

    def names(self, text: str, key: str) -> Path:
        path = self.path(text, key)
        if not path or not all(isinstance(step, str) for step in path):
            raise self.wrong(key, f"{text!r} is not a path of names")
        return path

    def path(self, text: str, key: str) -> Path:
        return self._read(parse_path, text, key)

    def _read(self, read: Callable[[Any], Path], written: Any, key: str) -> Path:
        try:
            return read(written)
        except ValueError as exc:
            raise self.wrong(key, str(exc)) from exc

    def condition(self, when: Mapping[str, Any], key: str) -> Condition:
        return self._read(parse_condition, when, key)

    def shape(self, shape: spec.RunFields, key: str) -> RunFields | None:
        if not (shape.id and shape.state):
            return None
        names = ("stage", "progress", "result")
        paths = {name: self.path(text, f"{key}.{name}") for name in names if (text := getattr(shape, name))}
        return RunFields(
            id=self.path(shape.id, f"{key}.id"),
            status=self.path(shape.state, f"{key}.state"),
            error=tuple(self.path(text, f"{key}.error") for text in shape.error),
            started_at=self.path(shape.started, f"{key}.started") if shape.started else None,
            **paths,
        )
