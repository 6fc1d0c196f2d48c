"""Tools that are made of the `runs` of an overlay: they wait for, explain and retry a run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.format import run_keywords, spec
from mcp_taskruns.core.format.names import legal_name, slug
from mcp_taskruns.core.format.runs import RunsCompiler, retry_parts, takes_list
from mcp_taskruns.core.format.tool_schemas import SECONDS_SCHEMA, wait_input_schema
from mcp_taskruns.core.model.tool import (
    DEFAULT_LINES,
    LINES,
    MAX_LINES,
    PART,
    UNTIL,
    WAIT_SECONDS,
    Derived,
    Hints,
    Tool,
)
from mcp_taskruns.core.runs.results import WAIT_SCHEMA

_ABOUT_RUN = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("run_id", "status", "next")},
}
"""The output schema of tools that explain and retry a run."""

_READS = Hints(read_only=True, destructive=False, idempotent=True, open_world=True)
_RUNS_AGAIN = Hints(read_only=False, destructive=False, idempotent=False, open_world=True)


def compile_run_tools(capability: spec.Capability, tools: Sequence[Tool]) -> Iterator[Tool]:
    """Yield the tools that wait for, explain and retry a run, for each provider with `runs`."""
    for consumed in capability.capability.consumes:
        runs = consumed.runs
        if runs is None:
            continue
        compiler = RunsCompiler(capability, consumed, tools)
        read = compiler.call(runs.read, "read")
        tool = replace(
            compiler.tool(runs.read.operation, "read"), output_schema=None, hints=_READS, server_arguments=frozenset()
        )
        stream = runs.stream
        takes_many = stream is not None and takes_list(
            compiler.tool(stream.operation, "stream"), stream.run_ids_argument
        )
        yield _wait_tool(tool, runs, read.run_id_argument, takes_many=takes_many)
        yield _explain_tool(tool, runs)
        if runs.retry:
            yield _retry_tool(tool, runs)


def _derive(tool: Tool, kind: Derived, verb: str, runs: run_keywords.RunsKeywords) -> Tool:
    """Return the tool that reads a run under another name and title."""
    label = tool.title.partition(": ")[0] if ": " in tool.title else tool.prefix
    action = f"{verb} {runs.noun}"
    name = slug(action)
    return replace(
        tool,
        name=legal_name(f"{tool.prefix}-{name}"),
        declared_name=name,
        title=f"{label}: {action}",
        derived=kind,
    )


def _a_run(tool: Tool, runs: run_keywords.RunsKeywords) -> str:
    """Return what the tool reads, with its provider: `a Render task run`."""
    label, _, action = tool.title.partition(": ")
    verb, _, noun = action.partition(" ")
    is_known = verb in {"get", "read", "retrieve"} and noun and runs.noun == "run"
    text = f"{label} {noun}" if is_known else f"{label if action else tool.prefix} {runs.noun}"
    return f"{'an' if text[:1].lower() in 'aeio' else 'a'} {text}"


def _wait_tool(tool: Tool, runs: run_keywords.RunsKeywords, run_id: str, *, takes_many: bool) -> Tool:
    many = f" For several runs pass an array of ids, with {UNTIL} all or any." if takes_many else ""
    return replace(
        _derive(tool, Derived.WAIT, "wait for", runs),
        description=(
            f"Waits for {_a_run(tool, runs)} to finish and returns its status, result or error: one call instead "
            f"of repeated polling.{many} A timeout is not an error and cancels nothing: the result then has timed_out."
        ),
        input_schema=wait_input_schema(tool.input_schema, run_id, takes_many=takes_many),
        output_schema=WAIT_SCHEMA,
        server_arguments=frozenset({WAIT_SECONDS, UNTIL} if takes_many else {WAIT_SECONDS}),
    )


def _explain_tool(tool: Tool, runs: run_keywords.RunsKeywords) -> Tool:
    parts = ["status", "times", "error", "attempts"]
    parts += ["failed steps"] if runs.steps else []
    parts += ["the end of the log"] if runs.logs else []
    arguments: dict[str, Any] = {}
    if runs.logs:
        arguments[LINES] = {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LINES,
            "description": f"How many log lines; default {DEFAULT_LINES}.",
        }
    return replace(
        _derive(tool, Derived.EXPLAIN, "explain", runs),
        description=(
            f"Explains {_a_run(tool, runs)} in one call, for example why it failed: {', '.join(parts)}, and what "
            "to do next."
        ),
        input_schema=_with_arguments(tool, arguments),
        output_schema=_ABOUT_RUN,
        server_arguments=frozenset(arguments),
    )


def _retry_tool(tool: Tool, runs: run_keywords.RunsKeywords) -> Tool:
    parts = retry_parts(runs)
    what = {"whole": "all of it", "failed": "only what failed"}
    is_choice = len(parts) > 1
    arguments: dict[str, Any] = {}
    if is_choice:
        description = "; ".join(f"{part}: {what[part]}" for part in parts)
        arguments[PART] = {"type": "string", "enum": list(parts), "description": f"{description}. Default {parts[0]}."}
    arguments[WAIT_SECONDS] = {
        **SECONDS_SCHEMA,
        "description": "Wait for the result too, at most so many seconds, for example 45; default: not at all.",
    }
    only = "" if is_choice or parts[0] == "whole" else ", only what failed,"
    return replace(
        _derive(tool, Derived.RETRY, "retry", runs),
        description=(
            f"Retries {_a_run(tool, runs)} that has ended{only} with the same input, and returns the id of the "
            "run to wait for. A run that is active is not changed."
        ),
        hints=_RUNS_AGAIN,
        input_schema=_with_arguments(tool, arguments),
        output_schema=_ABOUT_RUN,
        server_arguments=frozenset(arguments),
    )


def _with_arguments(tool: Tool, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the input schema of the tool with arguments that the server handles itself."""
    own = {name: schema for name, schema in arguments.items() if name not in tool.input_schema["properties"]}
    return {**tool.input_schema, "properties": {**tool.input_schema["properties"], **own}}
