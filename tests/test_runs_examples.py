"""Each example of docs/runs.md compiles, for a provider with the operations that the examples name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_taskruns.loading.check import check_files
from mcp_taskruns.loading.loader import load_tools
from tests.engine.runs.described import Json, capability

PAGE = (Path(__file__).parents[1] / "docs" / "runs.md").read_text(encoding="utf-8")
BLOCKS = re.compile(r"```yaml\n(.*?)```", re.DOTALL)

OF_A_PROVIDER = {"operations", "runs"}
"""Keywords of a provider. Examples without them are part of `runs`."""


def operation(method: str, path: str, *inputs: str) -> Json:
    """Return an operation of the provider with these inputs, in a query or a body."""
    place = "query" if method == "GET" else "body"
    return {"method": method, "path": path, "inputParameters": [{"name": name, "in": place} for name in inputs]}


OPERATIONS: Mapping[str, Json] = {
    "createjob": operation("POST", "/jobs", "body"),
    "triggerjob": operation("POST", "/jobs/trigger", "body"),
    "submitjob": operation("POST", "/jobs/submit", "body"),
    "listjobs": operation("GET", "/jobs", "branch", "actor"),
    "getjob": operation("GET", "/jobs/{job_id}"),
    "stopjob": operation("POST", "/jobs/{job_id}/stop"),
    "watchjob": operation("GET", "/jobs/{job_id}/watch", "interval"),
    "rerun": operation("POST", "/jobs/{job_id}/rerun"),
    "clear": operation("POST", "/jobs/{job_id}/clear", "only_failed"),
    "getjoblog": operation("GET", "/jobs/{job_id}/log"),
    "getlog": operation("GET", "/jobs/{job_id}/entries"),
    "getfile": operation("GET", "/files/{file_id}"),
    "getuser": operation("GET", "/user"),
}


def merged(base: Any, more: Any) -> Any:
    """Return a tree with what another tree changes; an overlay does the same."""
    if not (isinstance(base, dict) and isinstance(more, dict)):
        return more
    return base | {name: merged(base.get(name), item) for name, item in more.items()}


EXAMPLES = [yaml.safe_load(text) for text in BLOCKS.findall(PAGE)]
LEAST = EXAMPLES[0]
"""The first example, which the others extend."""


@pytest.mark.parametrize("example", EXAMPLES, ids=" ".join)
def test_example_compiles_without_findings(example: Json, tmp_path: Path) -> None:
    changed = example if example.keys() <= OF_A_PROVIDER else {"runs": example}
    if "statuses" in changed.get("runs", {}) and example is not LEAST:
        base = {"runs": {name: item for name, item in LEAST["runs"].items() if name != "statuses"}}
    else:
        base = LEAST
    overlay = {"overlay": 2, "capability": {"consumes": {"acme": merged(base, changed)}}}
    (tmp_path / "overlays").mkdir()
    (tmp_path / "acme.yaml").write_text(yaml.safe_dump(capability(OPERATIONS)), encoding="utf-8")
    (tmp_path / "overlays" / "acme.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    assert [finding.message for finding in check_files([tmp_path]).findings if finding.severity == "error"] == []
    (lifecycle,) = {tool.runs for tool in load_tools([tmp_path]) if tool.runs}
    assert lifecycle.wait_tool == "acme-wait-for-run"
