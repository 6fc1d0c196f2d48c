"""`mcp-taskruns check`, from the command line and beneath it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.cli import run
from mcp_taskruns.core.checks.codes import CODES
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.check import Checked, check_files, codes_page
from mcp_taskruns.loading.files import shipped_capabilities
from tests.core.checks.test_checks import CASES, OVERLAYS
from tests.reference.test_corpus import FILES

Captured = pytest.CaptureFixture[str]

ROOT = Path(__file__).parents[2]

THING = """\
naftiko: 1.0.0-alpha2
info: {tags: [Thing]}
binds:
- keys: {THING_KEY: THING_KEY}
capability:
  consumes:
  - namespace: things
    baseUri: https://api.example
    authentication: {type: bearer, token: '{{env.THING_KEY}}'}
    resources:
    - name: runs
      path: /runs/{id}
      operations:
      - name: get
        method: GET
        inputParameters: [{name: id, in: path, description: Which run.}]
      - name: cancel
        method: DELETE
        inputParameters:
        - {name: id, in: path, description: Which run.}
  exposes:
  - type: mcp
    namespace: mcp
    tools:
    - name: get-run
      description: Tells how a run is.
      call: things.get
    - name: cancel-run
      description: Ends a run for good.
      hints: {destructive: true}
      call: things.cancel
"""


def written(folder: Path, text: str, name: str = "thing.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def told(checked: Checked) -> list[str]:
    """The findings without their mends."""
    return [f"{one.file}:{one.line}: {one.code}: {one.message}" for one in checked.reports]


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# The files as they are


def test_the_shipped_files_with_their_overlays_have_no_findings() -> None:
    checked = check_files([])
    assert told(checked) == []
    assert checked.summary() == "4 files, 35 tools: no problems"


NOTHING_KNOWN = "nothing is known of its body but that it is an object"
REPEATED = [
    "inngest-get-function-run-status",
    "posthog-append-log-entries",
    "posthog-create-task-run",
    "posthog-get-sandbox-connection-token",
    "posthog-get-task-run-logs",
    "posthog-list-task-runs",
    "posthog-set-run-output",
    "posthog-start-task-run",
    "posthog-update-task-run",
    "render-cancel-task-run",
    "render-list-task-runs",
    "render-list-tasks",
    "render-retrieve-task",
    "render-retrieve-task-run",
    "render-run-task",
    "render-stream-realtime-events-sse",
    "runway-retrieve-task-status-and-output",
]
OPAQUE = [
    "posthog-append-log-entries",
    "posthog-create-task-run",
    "posthog-download-artifact-through-backend",
    "posthog-finalize-direct-uploads-task-run",
    "posthog-generate-presigned-url-artifact",
    "posthog-prepare-direct-uploads-task-run",
    "posthog-relay-run-message-slack",
    "posthog-send-command-agent-server",
    "posthog-set-run-output",
    "posthog-start-task-run",
    "posthog-update-task-run",
    "posthog-upload-artifacts-task-run",
    "render-run-task",
]


def test_the_shipped_files_alone_have_the_findings_that_a_reader_has() -> None:
    checked = check_files([], overlays=False)
    by_code: dict[str, list[str]] = {}
    for report in checked.reports:
        by_code.setdefault(report.code, []).append(f"{Path(report.file).name}:{report.line}: {report.message}")
    repeated, opaque = by_code.pop("description-missing"), by_code.pop("body-without-schema")
    assert sorted(line.split()[1].rstrip(":") for line in repeated) == REPEATED
    assert sorted(line.split()[1].rstrip(":") for line in opaque) == OPAQUE
    nobody = "the caller gets no description of it"
    assert by_code == {
        "contradicting-hint": [
            "inngest-runs.yaml:142: inngest-cancel-function-run is not destructive, and its name says that it is "
            "(cancel)"
        ],
        "empty-base-uri": ["posthog-task-runs.yaml:19: baseUri is empty"],
        "undeclared-placeholder": [
            "posthog-task-runs.yaml:23: {project_id} in /api/projects/{project_id}/tasks/{task_id}/runs/ is not "
            f"declared (in 19 operations): {nobody}",
            f"render-workflow-tasks-beta.yaml:74: {{taskRunId}} in /task-runs/{{taskRunId}} is not declared (in 2 "
            f"operations): {nobody}",
            f"render-workflow-tasks-beta.yaml:104: {{taskId}} in /tasks/{{taskId}} is not declared: {nobody}",
            f"video-generation-tasks.yaml:23: {{id}} in /tasks/{{id}} is not declared (in 2 operations): {nobody}",
        ],
        "event-stream-suspected": [
            "posthog-task-runs.yaml:475: posthog-api-managing-task-runs-each-2 seems to be a stream of events (its "
            "path is /api/projects/{project_id}/tasks/{task_id}/runs/{id}/stream/), and asks for application/json"
        ],
        "useless-name": [
            "posthog-task-runs.yaml:1036: posthog-api-managing-task-runs-each-2 differs from "
            "posthog-api-managing-task-runs-each by a number only"
        ],
        "description-repeated": [
            "posthog-task-runs.yaml:1037: posthog-api-managing-task-runs-each-2 has the same description as "
            "posthog-api-managing-task-runs-each"
        ],
    }
    assert checked.summary() == "4 files, 31 tools: 39 warnings"


needs_corpus = pytest.mark.skipif(not FILES, reason="no corpus: set CAPABILITY_CORPUS to a folder of capability files")


@needs_corpus
def test_public_files_have_the_errors_that_a_reader_has() -> None:
    errors: dict[tuple[str, str], int] = {}
    for report in check_files(FILES).reports:
        if report.severity == "error":
            key = (Path(report.file).name, report.code)
            errors[key] = errors.get(key, 0) + 1
    assert errors == {
        ("airflow--workflow-orchestration.yaml", "call-to-nothing"): 16,  # of which six over REST
        ("auth0--auth0-management-self-service-profiles.yaml", "no-tools"): 1,
        ("resend--email-delivery.yaml", "absent-placeholder"): 8,
    }


@needs_corpus
@pytest.mark.parametrize(
    ("file", "line", "code"),
    [
        ("dropbox--dropbox-contacts.yaml", 36, "duplicate-operation"),
        ("dropbox--dropbox-contacts.yaml", 99, "contradicting-hint"),
        ("jenkins--jenkins-computer.yaml", 35, "unbound-credential"),
        ("supabase--storage-buckets.yaml", 19, "empty-base-uri"),
        ("auth0--auth0-management-self-service-profiles.yaml", 17, "no-tools"),
        ("airflow--workflow-orchestration.yaml", 25, "unsupported-kind"),
        ("netlify--netlify-site.yaml", 332, "useless-name"),
    ],
)
def test_public_files_have_their_findings_at_their_lines(file: str, line: int, code: str) -> None:
    assert (line, code) in {
        (report.line, report.code) for report in check_files([path for path in FILES if path.name == file]).reports
    }


# Where a finding is told


def test_a_sound_file_has_no_findings(tmp_path: Path) -> None:
    written(tmp_path, THING)
    checked = check_files([tmp_path])
    assert (checked.files, checked.tools, checked.reports) == (("thing.yaml",), 2, ())
    assert checked.summary() == "1 file, 2 tools: no problems"


def test_a_finding_has_the_line_of_the_file(tmp_path: Path) -> None:
    written(tmp_path, THING.replace("description: Ends a run for good.", "description: Cancel run"))
    assert told(check_files([tmp_path])) == [
        "thing.yaml:29: description-missing: thing-cancel-run: its description, 'Cancel run', only repeats its name"
    ]


def test_a_file_elsewhere_is_named_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a", THING)
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    assert check_files([path]).files == (str(path),)
    monkeypatch.chdir(tmp_path)
    assert check_files([path]).files == (str(Path("a", "thing.yaml")),)


OVERLAID = str(Path("overlays", "thing.yaml"))


@pytest.mark.parametrize(
    ("overlay", "finding"),
    [
        pytest.param(
            "capability:\n  exposes:\n  - namespace: mcp\n    tools:\n    - name: cancel-run\n      hints:\n"
            "        destructive: false\n",
            f"{OVERLAID}:7: contradicting-hint: thing-cancel-run is not destructive, and its name says that it is "
            "(cancel)",
            id="of what the overlay says",
        ),
        pytest.param(
            "capability:\n  exposes:\n  - namespace: mcp\n    tools:\n    - name: cancel-run\n      label: Cancel\n"
            "      hints: null\n  consumes:\n  - namespace: things\n    resources:\n    - name: runs\n"
            "      operations:\n      - {name: cancel, method: POST}\n",
            f"{OVERLAID}:7: contradicting-hint: thing-cancel-run is not destructive, and its name says that it is "
            "(cancel)",
            id="of what the overlay deletes",
        ),
        pytest.param(
            "capability:\n  consumes:\n  - namespace: things\n    resources:\n    - name: runs\n      operations:\n"
            "      - name: get\n        path: /run/{run}\n        inputParameters: null\n",
            f"{OVERLAID}:8: undeclared-placeholder: {{run}} in /run/{{run}} is not declared: the caller gets no "
            "description of it",
            id="of a path of the overlay",
        ),
        pytest.param(
            "capability:\n  consumes:\n  - namespace: things\n    baseUri: null\n",
            f"{OVERLAID}:4: empty-base-uri: there is no baseUri",
            id="of what is not there any more",
        ),
        pytest.param(
            "capability:\n  exposes:\n  - namespace: mcp\n    tools:\n    - name: get-run\n      label: Run\n"
            "    - {name: again, call: things.get}\n",
            f"{OVERLAID}:7: description-missing: thing-again has no description",
            id="of a tool that the overlay adds",
        ),
        pytest.param(
            "capability:\n  consumes:\n    things:\n      baseUri: ''\n",
            f"{OVERLAID}:4: empty-base-uri: baseUri is empty",
            id="of a keyed map",
        ),
        pytest.param(
            "capability:\n  consumes:\n  - namespace: things\n    resources:\n    - name: runs\n      operations:\n"
            "      - name: get\n        accept: null\n",
            f"{OVERLAID}:8: overlay-matches-nothing: accept of get is null, and there is nothing to delete",
            id="of the overlay itself",
        ),
        pytest.param(
            "capability:\n  exposes:\n  - namespace: mcp\n    tools:\n    - name: get-runs\n      label: Run\n",
            f"{OVERLAID}:5: overlay-matches-nothing: there is no get-runs among the tools of the file, and this is no "
            "whole new one",
            id="of an entry for nothing, without what follows from that",
        ),
        pytest.param(
            "capability:\n  consumes:\n  - namespace: things\n    errors:\n    - status: 404\n"
            "    - says: (?P<root>.)\n      hint: Use {rot}.\n",
            f"{OVERLAID}:7: unfilled-hole: the hint has a hole {{rot}}, and `says` has no group of that name",
            id="of an item without a name",
        ),
        pytest.param(
            "capability:\n  consumes:\n  - namespace: things\n    runs:\n      read: {operation: nothing}\n"
            "      shape: {}\n      states: {}\n",
            f"{OVERLAID}:5: invalid-file: capability.consumes.runs.read: no tool calls the operation 'nothing'",
            id="of what cannot be compiled",
        ),
        pytest.param(
            "capability:\n  consumes:\n  - namespace: things\n    limits: {concurrency: 0}\n",
            f"{OVERLAID}:4: invalid-file: capability.consumes[0].limits.concurrency: Input should be greater than 0",
            id="of what has a wrong value",
        ),
        pytest.param(
            "prefix: a\nprefix: b\n",
            f"{OVERLAID}:2: invalid-file: the key 'prefix' is there twice",
            id="of what is no YAML of ours",
        ),
        pytest.param("", f"{OVERLAID}:1: invalid-file: the file is empty", id="of what is not there"),
        pytest.param(
            "info: {label: Thing}\n",
            "thing.yaml:29: description-missing: thing-cancel-run: its description, 'Cancel run', only repeats its "
            "name",
            id="of what the file says",
        ),
    ],
)
def test_a_finding_is_told_where_it_is_said(tmp_path: Path, overlay: str, finding: str) -> None:
    is_of_file = finding.startswith("thing.yaml")
    written(tmp_path, THING.replace("Ends a run for good.", "Cancel run") if is_of_file else THING)
    written(tmp_path, overlay, "overlays/thing.yaml")
    assert told(check_files([tmp_path])) == [finding]


def test_a_part_without_a_name_is_never_told_of_the_overlay(tmp_path: Path) -> None:
    text = THING.replace("    - name: runs\n      path:", "    - path:").replace(", description: Which run.", "")
    written(tmp_path, text.replace("{name: id, in: path}", "{name: other, in: query}"))
    added = "{name: s, path: /s, operations: [{name: s, method: GET}]}"
    overlay = f"capability: {{consumes: [{{namespace: things, resources: [{added}]}}]}}"
    written(tmp_path, overlay, "overlays/thing.yaml")
    (line,) = told(check_files([tmp_path]))
    assert line.startswith("thing.yaml:11: undeclared-placeholder: {id} in /runs/{id}")


# Which files are checked


def test_one_wrong_file_does_not_stop_the_others(tmp_path: Path) -> None:
    written(tmp_path, "- wrong", "a.yaml")
    written(tmp_path, THING, "b.yaml")
    written(tmp_path, "naftiko: 1.0.0-alpha2\ncapability:\n  consumes:\n  - resources: 5\n", "c.yaml")
    written(tmp_path, "label: no capability\n", "d.yaml")
    written(tmp_path, "a: b: c\n", "e.yaml")
    checked = check_files([tmp_path])
    assert told(checked) == [
        "a.yaml:1: invalid-file: a capability file is a mapping, this is a list",
        "c.yaml:4: invalid-file: capability.consumes[0].resources: has to be a list, or a mapping keyed by name",
        "d.yaml:1: invalid-file: naftiko: the format's version is missing; is this a capability file?",
        "e.yaml:1: invalid-file: mapping values are not allowed in this context",
    ]
    assert checked.files == ("a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml")
    assert checked.summary() == "5 files, 2 tools: 4 errors"


def test_an_overlay_that_refines_no_file_is_an_error(tmp_path: Path) -> None:
    written(tmp_path, THING)
    path = written(tmp_path, "prefix: b\n", "overlays/other.yaml")
    finding = (
        f"{Path('overlays', 'other.yaml')}:1: overlay-matches-nothing: there is no capability file other.yaml that "
        "this overlay refines"
    )
    assert told(check_files([tmp_path])) == [finding]
    assert told(check_files([path])) == [finding]
    assert told(check_files([tmp_path], overlays=False)) == []


def test_an_overlay_is_checked_with_its_file(tmp_path: Path) -> None:
    base = written(tmp_path, THING)
    overlay = written(tmp_path, "capability: {exposes: [{namespace: mcps, port: 1}]}", "overlays/thing.yaml")
    found = told(check_files([base]))
    assert len(found) == 1
    assert found[0].startswith(f"{OVERLAID}:1: overlay-matches-nothing: there is no mcps among the exposes")
    assert told(check_files([overlay])) == told(check_files([overlay, base, tmp_path])) == found
    # Whoever names an overlay wants it to be looked at.
    assert told(check_files([overlay], overlays=False)) == found
    assert told(check_files([base], overlays=False)) == []


def test_files_with_tools_of_one_name_are_told_of_it(tmp_path: Path) -> None:
    written(tmp_path, THING, "a.yaml")
    written(tmp_path, THING, "b.yaml")
    assert told(check_files([tmp_path])) == [
        f"b.yaml:{line}: name-collision: thing-{name} is a tool of a.yaml too: this one is listed with a mark of its "
        "file"
        for line, name in ((25, "get-run"), (28, "cancel-run"))
    ]


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_what_holds_no_files_is_wrong_usage(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CapabilityError):
        check_files([tmp_path / name])
    written(tmp_path, THING)
    assert run(["check", "thing.yaml", name]) == 2


# The command


def test_findings_are_lines_and_a_summary(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, THING.replace("DELETE", "FETCH").replace("naftiko: 1.0.0-alpha2", "naftiko: 9.9"))
    assert run(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "thing.yaml:1: warning: version 9.9 is not known here; known are 1.0.0-alpha1, 1.0.0-alpha2, 1.0.0-alpha3 "
        "[unknown-version] Write the version whose format the file has.",
        "thing.yaml:18: error: things.cancel: FETCH is no HTTP method here [unknown-method] Use one of DELETE, GET, "
        "HEAD, OPTIONS, PATCH, POST, PUT.",
        "1 file, 2 tools: 1 error, 1 warning",
    ]


def test_warnings_end_with_0_unless_they_are_to_be_taken_for_errors(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, THING.replace("naftiko: 1.0.0-alpha2", "naftiko: 9.9"))
    assert run(["check", str(tmp_path)]) == 0
    assert run(["check", "--strict", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("1 file, 2 tools: 1 warning\n")
    written(tmp_path, THING)
    assert run(["check", "--strict", str(tmp_path)]) == 0


def test_programs_get_json(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, THING.replace("DELETE", "FETCH"))
    assert run(["check", "--json", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "files": ["thing.yaml"],
        "findings": [
            {
                "file": "thing.yaml",
                "line": 18,
                "place": "capability.consumes[0].resources[0].operations[1].method",
                "code": "unknown-method",
                "severity": "error",
                "message": "things.cancel: FETCH is no HTTP method here",
                "mend": "Use one of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT.",
            }
        ],
        "errors": 1,
        "warnings": 0,
    }


def test_json_of_no_findings_says_which_files_were_checked(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, THING)
    assert run(["check", "--json", "thing.yaml"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": ["thing.yaml"], "findings": [], "errors": 0, "warnings": 0}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, ["thing.yaml:4: unset-credential: THING_KEY is not set in the environment"]),
        ("", ["thing.yaml:4: unset-credential: THING_KEY is not set in the environment"]),
        ("key-123456", []),
    ],
)
def test_the_environment_is_looked_at_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, value: Any, found: list[str]
) -> None:
    monkeypatch.delenv("THING_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("THING_KEY", value)
    written(tmp_path, THING)
    assert run(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert run(["check", "--env", "--json", str(tmp_path)]) == 0
    reports = json.loads(capsys.readouterr().out)["findings"]
    assert [f"{one['file']}:{one['line']}: {one['code']}: {one['message']}" for one in reports] == found


def test_the_files_that_are_served_are_checked_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert run(["check", "--no-overlays", "--json"]) == 0
    names = [Path(name).name for name in json.loads(capsys.readouterr().out)["files"]]
    assert names == sorted(path.name for path in shipped_capabilities().glob("*.yaml"))
    written(tmp_path, THING)
    monkeypatch.setenv("MCP_TASKRUNS_CAPABILITIES", str(tmp_path))
    assert run(["check"]) == 0
    assert capsys.readouterr().out == "1 file, 2 tools: no problems\n"


def test_names_are_those_that_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    written(tmp_path, THING.replace("Ends a run for good.", ""))
    monkeypatch.setenv("MCP_TASKRUNS_TOOL_NAMES", "spec")
    run(["check", str(tmp_path)])
    assert "warning: cancel-run has no description" in capsys.readouterr().out


# The codes


def test_each_code_is_produced_by_a_test() -> None:
    of_cases = {case.code for case in (*CASES, *OVERLAYS)}
    assert of_cases | {"invalid-file"} == set(CODES)


def test_the_page_of_the_codes_is_up_to_date() -> None:
    page = (ROOT / "docs" / "checks.md").read_text()
    assert page == codes_page(), "run: python -m mcp_taskruns.check > docs/checks.md"
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == sorted(CODES)


def test_the_page_is_written_by_the_command_that_it_names() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mcp_taskruns.loading.check"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=30,
    )
    assert done.stdout == codes_page()
    assert done.stderr == ""


def test_a_server_does_not_load_what_checks() -> None:
    code = (
        "import sys, mcp_taskruns.cli, mcp_taskruns.app; "
        "print([name for name in sys.modules if name.startswith('mcp_taskruns.') and 'check' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"
