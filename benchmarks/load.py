"""How long capability files take to load: a folder of 1,000 files with 7,000 tools, and one file of 740 tools.

    python benchmarks/load.py [--files 1000] [--check]

Each is loaded by us, and read by PyYAML's own safe loader, in turn and in one process; what is compared is CPU time.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import yaml

from mcp_taskruns.loading.loader import load

TOOLS = 7
"""Tools of a file, as many as public files have on average."""

LIMIT = 2.5
"""Times the time of PyYAML's safe loader, which checks and compiles nothing."""

ROUNDS = 3


def capability(provider: str, tools: int) -> str:
    """A file as generators write them: a consumed operation, a tool and a route for each of the provider's."""
    names = [f"get-thing-{number}" for number in range(tools)]
    resources = [
        {
            "name": name,
            "path": f"/v1/{name}/{{thing_id}}",
            "operations": [
                {
                    "name": name,
                    "method": "GET",
                    "description": f"Gets a thing of the kind {name}.",
                    "outputRawFormat": "json",
                    "outputParameters": [{"name": "result", "type": "object", "value": "$."}],
                    "inputParameters": [
                        {"name": "limit", "in": "query", "type": "integer", "description": "How many."},
                        {"name": "cursor", "in": "query", "type": "string", "description": "Where to go on."},
                    ],
                }
            ],
        }
        for name in names
    ]
    arguments = ("limit", "cursor", "thing_id")
    exposed = [
        {
            "name": name,
            "description": f"Gets a thing of the kind {name}.",
            "hints": {"readOnly": True, "destructive": False, "idempotent": True},
            "call": f"api.{name}",
            "with": {argument: f"tools.{argument}" for argument in arguments},
            "outputParameters": [{"type": "object", "mapping": "$."}],
        }
        for name in names
    ]
    routes = [
        {
            "path": f"/v1/{name}/{{thing-id}}",
            "name": name,
            "operations": [
                {
                    "method": "GET",
                    "name": name,
                    "call": f"api.{name}",
                    "with": {argument: f"rest.{argument}" for argument in arguments},
                }
            ],
        }
        for name in names
    ]
    consumed = {
        "type": "http",
        "namespace": "api",
        "baseUri": "https://api.example",
        "authentication": {"type": "bearer", "token": "{{env.API_KEY}}"},
        "resources": resources,
    }
    document = {
        "naftiko": "1.0.0-alpha2",
        "info": {"label": provider, "tags": [provider]},
        "binds": [{"namespace": "env", "keys": {"API_KEY": "API_KEY"}}],
        "capability": {
            "consumes": [consumed],
            "exposes": [
                {"type": "rest", "namespace": "api-rest", "port": 8080, "resources": routes},
                {"type": "mcp", "namespace": "api-mcp", "port": 9090, "transport": "http", "tools": exposed},
            ],
        },
    }
    return yaml.safe_dump(document, sort_keys=False)


def seconds(run: Callable[[], object]) -> float:
    """The CPU time that it takes."""
    started = time.process_time()
    run()
    return time.process_time() - started


def read_plainly(folder: Path) -> None:
    """What PyYAML needs for the same files."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(folder.iterdir()):
        yaml.load(path.read_bytes(), loader)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000, help="files in the folder (1,000)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a requirement is missed")
    flags = parser.parse_args()
    missed = False
    print(f"CPU time, medians of {ROUNDS}; theirs: yaml.load with its safe loader\n")
    for label, files, tools in (("folder", flags.files, TOOLS), ("one file", 1, 740)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number in range(files):
                (folder / f"provider-{number:04}.yaml").write_text(capability(f"Provider {number}", tools))
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(ROUNDS):
                ours.append(seconds(lambda folder=folder: load([folder])))  # type: ignore[misc]  # bound at once
                theirs.append(seconds(lambda folder=folder: read_plainly(folder)))  # type: ignore[misc]  # the same
        ratio = median(ours) / median(theirs)
        missed |= ratio > LIMIT
        print(
            f"{label}: {files:,} with {files * tools:,} tools, {median(ours) / files / tools * 1e4:.1f} ms for 10 tools"
        )
        print(f"  ours {median(ours):.2f} s, theirs {median(theirs):.2f} s, ratio {ratio:.2f} (at most {LIMIT})")
    return int(flags.check and missed)


if __name__ == "__main__":
    sys.exit(main())
