"""Which operation a tool calls if several operations of the file have the name in its `call`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TypeVar

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.inputs import DeclaredOperation
from mcp_taskruns.core.format.templates import placeholders_of

Caller = spec.ExposedTool | spec.RestOperation
"""What calls an operation of the provider: a tool of the MCP side, or an operation of the REST side."""

_Inputs = tuple[Set[str], Set[str]]
"""The placeholders of an operation's path, and its inputs."""

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
    inputs: dict[str, list[_Inputs]] = {}
    for caller in callers:
        candidates = operations.get(caller.call, ())
        if len(candidates) == numbers[caller.call]:
            yield candidates[seen[caller.call] :][:1]
        elif len(candidates) == 1:
            yield candidates
        else:
            if caller.call not in inputs:
                inputs[caller.call] = [_inputs_of(candidate) for candidate in candidates]
            fitting = _find_fitting(caller, inputs[caller.call])
            yield [candidates[fitting[0]]] if len(fitting) == 1 else candidates
        seen[caller.call] += 1


def count_fitting(caller: Caller, candidates: Sequence[DeclaredOperation]) -> int:
    """Return the number of operations whose inputs are the names in `with`."""
    return len(_find_fitting(caller, [_inputs_of(candidate) for candidate in candidates]))


def _find_fitting(caller: Caller, candidates: Sequence[_Inputs]) -> list[int]:
    """Return the indexes of the candidates that fit `with`, by the strictest rule that any of them satisfies."""
    given = caller.with_.keys()
    exact = [index for index, (placeholders, names) in enumerate(candidates) if given == names | placeholders]
    if len(exact) == 1:
        return exact
    except_path = [
        index for index, (placeholders, names) in enumerate(candidates) if given | placeholders == names | placeholders
    ]
    return except_path or [
        index for index, (placeholders, names) in enumerate(candidates) if placeholders <= given <= names | placeholders
    ]


def _inputs_of(declared: DeclaredOperation) -> _Inputs:
    """Return the placeholders of an operation's path, and its inputs that are not constants."""
    inputs = (*declared.resource.input_parameters, *declared.operation.input_parameters)
    return frozenset(placeholders_of(declared.path)), frozenset(item.name for item in inputs if item.value is None)
