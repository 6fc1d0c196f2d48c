"""`mcp-taskruns providers`: what the runs of each provider can do, and the environment variables of its tools."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.format.names import prefix_of
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.files import capability_files, files_on_request
from mcp_taskruns.loading.loader import load
from mcp_taskruns.loading.sources import relative_path

WIDTH = 100
"""The width of the table in characters, as far as names permit."""

RUNS_WIDTH = 21
"""The width of the column with what runs can do."""

MAX_NAME = 60
"""The number of characters to which a name is truncated."""


@dataclass(frozen=True)
class Variables:
    """Environment variables for one value; the first that is set counts."""

    names: tuple[str, ...]
    first_set: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the variables, and whether one of them is set, as a JSON object."""
        return {"variables": list(self.names), "set": self.first_set is not None}


@dataclass(frozen=True)
class Provider:
    """A capability file and the tools that it has in this environment."""

    name: str
    file: str
    served: str
    """`default`, or the option that serves it."""
    tools: int
    runs: tuple[str, ...]
    """What its runs can do."""
    credentials: tuple[Variables, ...]
    base_url: Variables

    def to_json(self) -> dict[str, Any]:
        """Return the provider as a JSON object with the names of the fields."""
        credentials = [variables.to_json() for variables in self.credentials]
        return vars(self) | {"credentials": credentials, "base_url": self.base_url.to_json()}


def list_providers(
    folders: Sequence[str | Path],
    environment: Mapping[str, str],
    report: Callable[[CapabilityError], None],
    *,
    overlays: bool = True,
) -> list[Provider]:
    """Return the providers that are served by default, and the built-in ones that are served on request.

    `folders` replace the default files. `report` gets the reason why a file cannot be served. Raises CapabilityError
    for a folder that does not exist or has no capability files.
    """
    on_request = files_on_request()
    paths = dict.fromkeys([*capability_files(folders), *on_request])
    providers = []
    for path in paths:
        loaded = load([path], overlays=overlays)
        for problem in loaded.problems:
            report(problem)
        for capability in loaded.capabilities.values():
            name = path.stem if path in on_request else prefix_of(capability)
            served = f"--with {name}" if path in on_request else "default"
            providers.append(_describe(name, path, served, loaded.tools, environment))
    return providers


def _describe(name: str, path: Path, served: str, loaded: Iterable[Tool], environment: Mapping[str, str]) -> Provider:
    tools = [tool for tool in loaded if tool.is_available(environment)]
    operations = [tool.operation for tool in tools]
    credentials = dict.fromkeys(
        variable.names
        for operation in operations
        for variable in (
            *chain.from_iterable(one.variables() for one in operation.authentications),
            *operation.credentials(),
        )
    )
    addresses = dict.fromkeys(
        name
        for base in dict.fromkeys(operation.base for operation in operations)
        for name in (*base.variables, *(rule.variable for rule in base.rules))
    )
    return Provider(
        name=name,
        file=relative_path(path),
        served=served,
        tools=len(tools),
        runs=tuple(_abilities(tools)),
        credentials=tuple(_read(names, environment) for names in credentials),
        base_url=_read(tuple(addresses), environment),
    )


def _abilities(tools: Sequence[Tool]) -> Iterator[str]:
    """Yield what the tools can do with runs."""
    yield from dict.fromkeys(tool.derived.value for tool in tools if tool.derived)
    if any(tool.runs and tool.runs.cancels for tool in tools):
        yield "cancel"
    if any(tool.operation.log or (tool.runs and tool.runs.logs) for tool in tools):
        yield "logs"


def _read(names: tuple[str, ...], environment: Mapping[str, str]) -> Variables:
    return Variables(names, next((name for name in names if environment.get(name)), None))


def format_table(providers: Sequence[Provider]) -> Iterator[str]:
    """Yield the lines of a table that is 100 characters wide, except where longer names need more."""
    header = ("PROVIDER", "SERVED", "TOOLS", "RUNS", "VARIABLES")
    names = [one_line(provider.name, MAX_NAME) for provider in providers]
    width = max(map(len, (*names, header[0])))
    row = f"{{:<{width}}}  {{:<7}}  {{:>5}}  {{:<{RUNS_WIDTH}}}  {{}}"
    left = WIDTH - len(row.format(*[""] * len(header)))
    yield row.format(*header)
    for name, provider in zip(names, providers, strict=True):
        first = [name, provider.served.partition(" ")[0], str(provider.tools)]
        runs = wrap(", ".join(provider.runs), RUNS_WIDTH) or [""]
        variables = list(chain.from_iterable(wrap(text, left) for text in _describe_variables(provider)))
        for number, (run, variable) in enumerate(zip_longest(runs, variables, fillvalue="")):
            yield row.format(*(first if number == 0 else [""] * len(first)), run, variable).rstrip()


def _describe_variables(provider: Provider) -> Iterator[str]:
    """Yield a text for each credential, and one for the base URL; never a value."""
    for variables in provider.credentials:
        yield f"{variables.first_set} (set)" if variables.first_set else f"{' or '.join(variables.names)} (not set)"
    address = provider.base_url
    if address.names:
        yield f"{address.first_set} (base URL, set)" if address.first_set else f"{address.names[0]} (base URL)"
