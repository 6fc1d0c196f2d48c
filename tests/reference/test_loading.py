"""Findings and routes of public capability files."""

from collections import Counter
from pathlib import Path

import pytest

from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.check import check_files
from mcp_taskruns.loading.loader import load
from mcp_taskruns.settings import Settings
from tests.reference.data import CORPUS


def test_public_files_have_known_errors() -> None:
    findings = check_files(CORPUS).findings
    errors = Counter((Path(one.file).name, one.code) for one in findings if one.severity == "error")
    assert errors == {
        ("airflow--workflow-orchestration.yaml", "unknown-operation"): 16,  # six of them over REST
        ("auth0--auth0-management-self-service-profiles.yaml", "no-tools"): 1,
        ("resend--email-delivery.yaml", "missing-placeholder"): 8,
    }


@pytest.mark.parametrize(
    ("file", "line", "code"),
    [
        ("dropbox--dropbox-contacts.yaml", 36, "duplicate-operation"),
        ("dropbox--dropbox-contacts.yaml", 99, "contradictory-hint"),
        ("jenkins--jenkins-computer.yaml", 35, "undeclared-credential"),
        ("supabase--storage-buckets.yaml", 19, "missing-base-uri"),
        ("auth0--auth0-management-self-service-profiles.yaml", 17, "no-tools"),
        ("airflow--workflow-orchestration.yaml", 25, "unsupported-feature"),
        ("netlify--netlify-site.yaml", 332, "numbered-tool-name"),
    ],
)
def test_public_files_have_findings_at_known_lines(file: str, line: int, code: str) -> None:
    findings = check_files([path for path in CORPUS if path.name == file]).findings
    assert (line, code) in {(finding.line, finding.code) for finding in findings}


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_public_files_have_a_catalog_with_routes(path: Path) -> None:
    loaded = load([path], rest=True)
    assert loaded.problems == ()
    catalog = build_catalog(loaded.tools, Settings(), loaded.rest_tools)
    assert list(catalog.tools.values()) == list(loaded.tools)
    assert len(catalog.operations) == len(loaded.tools) + len(loaded.rest_tools)
    exposed = {f"{tool.route[0].upper()} {tool.operation.name}" for tool in loaded.rest_tools if tool.route}
    assert {f"{route.method} {route.tool.operation.name}" for route in catalog.routes} == exposed
