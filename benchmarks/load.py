"""Measure the time to load capability files: a folder of 1,000 files with 7,000 tools, and one file of 740 tools.

    python benchmarks/load.py [--files 1000] [--check]

The loader and PyYAML's safe loader read the same files in turn in one process. Their CPU time is compared.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from mcp_taskruns.loading.loader import load

TOOLS = 7
"""Tools per file, the average of public files."""

LIMIT = 2.5
"""Ratio to PyYAML's safe loader, which neither checks nor compiles."""

ROUNDS = 3
ARGUMENTS = ("limit", "cursor", "thing_id")
Document = dict[str, Any]


def capability_file(provider: str, tools: int) -> str:
    """Return a capability file as generators write them: each operation is consumed and exposed as tool and route."""
    names = [f"get-thing-{number}" for number in range(tools)]
    consumed = {
        "type": "http",
        "namespace": "api",
        "baseUri": "https://api.example",
        "authentication": {"type": "bearer", "token": "{{env.API_KEY}}"},
        "resources": [describe_resource(name) for name in names],
    }
    routes = [describe_route(name) for name in names]
    exposed_tools = [describe_tool(name) for name in names]
    document = {
        "naftiko": "1.0.0-alpha2",
        "info": {"label": provider, "tags": [provider]},
        "binds": [{"namespace": "env", "keys": {"API_KEY": "API_KEY"}}],
        "capability": {
            "consumes": [consumed],
            "exposes": [
                {"type": "rest", "namespace": "api-rest", "port": 8080, "resources": routes},
                {"type": "mcp", "namespace": "api-mcp", "port": 9090, "transport": "http", "tools": exposed_tools},
            ],
        },
    }
    return yaml.safe_dump(document, sort_keys=False)


def describe_resource(name: str) -> Document:
    operation = {
        "name": name,
        "method": "GET",
        "description": f"Gets a thing of the kind {name}.",
        "outputRawFormat": "json",
        "outputParameters": [{"name": "result", "type": "object", "value": "$."}],
        "inputParameters": [
            {"name": "limit", "in": "query", "type": "integer", "description": "Maximum number of items."},
            {"name": "cursor", "in": "query", "type": "string", "description": "Cursor of the next page."},
        ],
    }
    return {"name": name, "path": f"/v1/{name}/{{thing_id}}", "operations": [operation]}


def describe_tool(name: str) -> Document:
    return {
        "name": name,
        "description": f"Gets a thing of the kind {name}.",
        "hints": {"readOnly": True, "destructive": False, "idempotent": True},
        "call": f"api.{name}",
        "with": {argument: f"tools.{argument}" for argument in ARGUMENTS},
        "outputParameters": [{"type": "object", "mapping": "$."}],
    }


def describe_route(name: str) -> Document:
    arguments = {argument: f"rest.{argument}" for argument in ARGUMENTS}
    operation = {"method": "GET", "name": name, "call": f"api.{name}", "with": arguments}
    return {"path": f"/v1/{name}/{{thing-id}}", "name": name, "operations": [operation]}


def cpu_seconds(function: Callable[[], object]) -> float:
    """Call a function and return its CPU time."""
    started = time.process_time()
    function()
    return time.process_time() - started


def read_with_pyyaml(folder: Path) -> None:
    """Parse the files with PyYAML's safe loader."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(folder.iterdir()):
        yaml.load(path.read_bytes(), loader)


def measure(files: int, tools: int) -> tuple[float, float]:
    """Return the median CPU seconds of the loader and of PyYAML for a folder of generated files."""
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(files):
            (folder / f"provider-{number:04}.yaml").write_text(capability_file(f"Provider {number}", tools))
        for _ in range(ROUNDS):
            ours.append(cpu_seconds(partial(load, [folder])))
            theirs.append(cpu_seconds(partial(read_with_pyyaml, folder)))
    return median(ours), median(theirs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000, help="files in the folder (default: 1,000)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a requirement is missed")
    flags = parser.parse_args()
    is_missed = False
    print(f"CPU time, medians of {ROUNDS}; theirs: yaml.load with its safe loader\n")
    for label, files, tools in (("folder", flags.files, TOOLS), ("one file", 1, 740)):
        ours, theirs = measure(files, tools)
        is_missed |= ours / theirs > LIMIT
        print(f"{label}: {files:,} with {files * tools:,} tools, {ours / files / tools * 1e4:.1f} ms for 10 tools")
        print(f"  ours {ours:.2f} s, theirs {theirs:.2f} s, ratio {ours / theirs:.2f} (at most {LIMIT})")
    return int(flags.check and is_missed)


if __name__ == "__main__":
    sys.exit(main())
