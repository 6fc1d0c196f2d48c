"""Which operation a tool calls if several operations of the file have the name in its `call`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.inputs import DeclaredOperation
from mcp_taskruns.core.format.templates import placeholders_of

Caller = spec.ExposedTool | spec.RestOperation
"""What calls an operation of the provider: a tool of the MCP side, or an operation of the REST side."""

AnyOperation = TypeVar("AnyOperation", bound=DeclaredOperation)


def pair_operations(
    callers: Sequence[Caller], operations: Mapping[str, Sequence[AnyOperation]]
) -> Iterator[Sequence[AnyOperation]]:
    """Yield for each caller the operations that it may mean: one, none if the name is unknown, or several.

    `operations` are those of the file by the name that `call` uses. If a name has as many callers as operations, the
    first caller means the first operation, and so on: generators write both in this order. Otherwise `with` decides.
    """
    numbers = Counter(caller.call for caller in callers)
    seen: Counter[str] = Counter()
    for caller in callers:
        candidates = operations.get(caller.call, ())
        if len(candidates) == numbers[caller.call]:
            yield candidates[seen[caller.call] :][:1]
        elif len(candidates) == 1:
            yield candidates
        else:
            fitting = fitting_operations(caller, candidates)
            yield fitting if len(fitting) == 1 else candidates
        seen[caller.call] += 1


def fitting_operations(caller: Caller, candidates: Sequence[AnyOperation]) -> Sequence[AnyOperation]:
    """Return the operations whose inputs are the names in `with`, by the strictest rule that any of them satisfies."""
    exact = [declared for declared in candidates if _fits_exactly(caller, declared)]
    if len(exact) == 1:
        return exact
    except_path = [declared for declared in candidates if _fits_except_path(caller, declared)]
    return except_path or [declared for declared in candidates if _fits_with_omissions(caller, declared)]


def _fits_exactly(caller: Caller, declared: DeclaredOperation) -> bool:
    placeholders, inputs = _input_names(declared)
    return caller.with_.keys() == inputs | placeholders


def _fits_except_path(caller: Caller, declared: DeclaredOperation) -> bool:
    placeholders, inputs = _input_names(declared)
    return caller.with_.keys() | placeholders == inputs | placeholders


def _fits_with_omissions(caller: Caller, declared: DeclaredOperation) -> bool:
    placeholders, inputs = _input_names(declared)
    return placeholders <= caller.with_.keys() <= inputs | placeholders


def _input_names(declared: DeclaredOperation) -> tuple[set[str], set[str]]:
    """Return the placeholders of an operation's path, and its inputs that are not constants."""
    inputs = (*declared.resource.input_parameters, *declared.operation.input_parameters)
    return set(placeholders_of(declared.path)), {item.name for item in inputs if item.value is None}
