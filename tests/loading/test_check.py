"""`mcp-taskruns check`: the command and `check_files`."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.cli import run
from mcp_taskruns.core.checks.codes import RULES
from mcp_taskruns.core.model.tool import Hints
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.check import CheckResult, check_files, codes_page
from mcp_taskruns.loading.files import builtin_capabilities
from mcp_taskruns.loading.loader import load
from tests.core.checks.test_checks import CASES, OVERLAYS
from tests.timing import PATIENCE

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
      description: Returns the status of a run.
      call: things.get
    - name: cancel-run
      description: Cancels a run permanently.
      hints: {destructive: true}
      call: things.cancel
"""


def written(folder: Path, text: str, name: str = "thing.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def lines(result: CheckResult) -> list[str]:
    """The findings without their fixes."""
    return [f"{one.file}:{one.line}: {one.code}: {one.message}" for one in result.findings]


@pytest.fixture(autouse=True)
def _work_in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Built-in and public files


def test_builtin_files_with_overlays_have_no_findings() -> None:
    result = check_files([])
    assert lines(result) == []
    assert result.summary() == "4 files, 44 tools: no problems"


REPEATED_NAMES = [
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
BODIES_WITHOUT_SCHEMA = [
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


def test_builtin_files_without_overlays_have_known_findings() -> None:
    result = check_files([], overlays=False)
    by_code: dict[str, list[str]] = {}
    for finding in result.findings:
        by_code.setdefault(finding.code, []).append(f"{Path(finding.file).name}:{finding.line}: {finding.message}")
    repeated, opaque = by_code.pop("missing-description"), by_code.pop("missing-body-schema")
    assert sorted(line.split()[1].rstrip(":") for line in repeated) == REPEATED_NAMES
    assert sorted(line.split()[1].rstrip(":") for line in opaque) == BODIES_WITHOUT_SCHEMA
    suffix = "so its argument has no description"
    assert by_code == {
        "contradictory-hint": [
            "inngest-runs.yaml:143: inngest-cancel-function-run is not destructive, but its name suggests it (cancel)"
        ],
        "missing-base-uri": ["posthog-task-runs.yaml:20: `baseUri` is empty"],
        "undeclared-placeholder": [
            "posthog-task-runs.yaml:24: {project_id} in /api/projects/{project_id}/tasks/{task_id}/runs/ is not "
            f"declared (in 19 operations), {suffix}",
            f"render-workflow-tasks-beta.yaml:75: {{taskRunId}} in /task-runs/{{taskRunId}} is not declared (in 2 "
            f"operations), {suffix}",
            f"render-workflow-tasks-beta.yaml:105: {{taskId}} in /tasks/{{taskId}} is not declared, {suffix}",
            f"video-generation-tasks.yaml:24: {{id}} in /tasks/{{id}} is not declared (in 2 operations), {suffix}",
        ],
        "undeclared-event-stream": [
            "posthog-task-runs.yaml:476: posthog-api-managing-task-runs-each-2 seems to return an event stream (its "
            "path is /api/projects/{project_id}/tasks/{task_id}/runs/{id}/stream/), but accepts application/json"
        ],
        "numbered-tool-name": [
            "posthog-task-runs.yaml:1037: posthog-api-managing-task-runs-each-2 differs from "
            "posthog-api-managing-task-runs-each by a number only"
        ],
        "duplicate-description": [
            "posthog-task-runs.yaml:1038: posthog-api-managing-task-runs-each-2 has the same description as "
            "posthog-api-managing-task-runs-each"
        ],
    }
    assert result.summary() == "4 files, 31 tools: 39 warnings"


# Where a finding is located


def test_valid_file_has_no_findings(tmp_path: Path) -> None:
    written(tmp_path, THING)
    result = check_files([tmp_path])
    assert (result.files, result.tools, result.findings) == (("thing.yaml",), 2, ())
    assert result.summary() == "1 file, 2 tools: no problems"


def test_finding_has_its_line_in_the_file(tmp_path: Path) -> None:
    written(tmp_path, THING.replace("description: Cancels a run permanently.", "description: Cancel run"))
    assert lines(check_files([tmp_path])) == [
        "thing.yaml:29: missing-description: thing-cancel-run: the description 'Cancel run' only repeats the name"
    ]


def test_file_path_is_relative_to_the_working_directory_if_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
            "overlay: 2\ncapability:\n  exposes:\n    mcp:\n      tools:\n        cancel-run:\n          hints:\n"
            "            destructive: false\n",
            f"{OVERLAID}:8: contradictory-hint: thing-cancel-run is not destructive, but its name suggests it (cancel)",
            id="value set by the overlay",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  exposes:\n    mcp:\n      tools:\n        cancel-run:\n"
            "          label: Cancel\n          hints: null\n  consumes:\n    things:\n      operations:\n"
            "        cancel: {method: POST}\n",
            f"{OVERLAID}:8: contradictory-hint: thing-cancel-run is not destructive, but its name suggests it (cancel)",
            id="value deleted by the overlay",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  consumes:\n    things:\n      operations:\n        get:\n"
            "          path: /run/{run}\n          inputParameters: null\n",
            f"{OVERLAID}:7: undeclared-placeholder: {{run}} in /run/{{run}} is not declared, so its argument has no "
            "description",
            id="path set by the overlay",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  consumes:\n    things:\n      baseUri: null\n",
            f"{OVERLAID}:5: missing-base-uri: `baseUri` is missing",
            id="base URI deleted by the overlay",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  exposes:\n    mcp:\n      tools:\n        get-run:\n          label: Run\n"
            "        again: {call: things.get}\n",
            f"{OVERLAID}:8: missing-description: thing-again has no description",
            id="tool added by the overlay",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  consumes:\n    things:\n      operations:\n        get:\n"
            "          accept: null\n",
            f"{OVERLAID}:7: unused-overlay-entry: accept of get is null, but there is nothing to delete",
            id="overlay entry without effect",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  exposes:\n    mcp:\n      tools:\n        get-runs:\n          label: Run\n",
            f"{OVERLAID}:6: unused-overlay-entry: `tools` of the capability file has no get-runs, and the entry is "
            "not a complete new item",
            id="unused overlay entry without its consequences",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  consumes:\n    things:\n      errors:\n        one: {status: 404}\n"
            "        two:\n          message_matches: (?P<root>.)\n          hint: Use {rot}.\n",
            f"{OVERLAID}:9: unknown-hint-placeholder: the hint has a placeholder {{rot}}, but the pattern has no group "
            "of that name",
            id="error rule",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  consumes:\n    things:\n      runs:\n        read: {operation: nothing}\n"
            "        fields: {}\n        statuses: {}\n",
            f"{OVERLAID}:6: invalid-file: capability.consumes.runs.read: no tool calls the operation `nothing`",
            id="compile error",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  consumes:\n    things:\n      max_concurrent_requests: 0\n",
            f"{OVERLAID}:5: invalid-file: capability.consumes.things.max_concurrent_requests: must be greater than 0",
            id="invalid value",
        ),
        pytest.param(
            "overlay: 2\ncapability:\n  consumes:\n    things:\n      operations:\n        get: {timeout: 5}\n",
            f"{OVERLAID}:6: invalid-file: capability.consumes.things.operations.get: unknown key `timeout`; did you "
            "mean `timeout_seconds`?",
            id="unknown key",
        ),
        pytest.param(
            "overlay: 2\nprefix: a\nprefix: b\n",
            f"{OVERLAID}:3: invalid-file: duplicate key 'prefix'",
            id="duplicate key",
        ),
        pytest.param("", f"{OVERLAID}:1: invalid-file: the file is empty", id="empty overlay"),
        pytest.param(
            "overlay: 2\ninfo: {label: Thing}\n",
            "thing.yaml:29: missing-description: thing-cancel-run: the description 'Cancel run' only repeats the name",
            id="value set by the capability file",
        ),
    ],
)
def test_finding_is_located_where_its_value_is_set(tmp_path: Path, overlay: str, finding: str) -> None:
    is_of_file = finding.startswith("thing.yaml")
    written(tmp_path, THING.replace("Cancels a run permanently.", "Cancel run") if is_of_file else THING)
    written(tmp_path, overlay, "overlays/thing.yaml")
    assert lines(check_files([tmp_path])) == [finding]


def test_finding_of_an_item_without_a_name_is_never_located_in_the_overlay(tmp_path: Path) -> None:
    text = THING.replace("    - name: runs\n      path:", "    - path:").replace(", description: Which run.", "")
    written(tmp_path, text.replace("{name: id, in: path}", "{name: other, in: query}"))
    overlay = "overlay: 2\ncapability: {consumes: {things: {operations: {s: {path: /s, method: GET}}}}}"
    written(tmp_path, overlay, "overlays/thing.yaml")
    (line,) = lines(check_files([tmp_path]))
    assert line.startswith("thing.yaml:11: undeclared-placeholder: {id} in /runs/{id}")


# Which files are checked


def test_invalid_file_does_not_stop_the_check_of_others(tmp_path: Path) -> None:
    written(tmp_path, "- wrong", "a.yaml")
    written(tmp_path, THING, "b.yaml")
    written(tmp_path, "naftiko: 1.0.0-alpha2\ncapability:\n  consumes:\n  - resources: 5\n", "c.yaml")
    written(tmp_path, "label: no capability\n", "d.yaml")
    written(tmp_path, "a: b: c\n", "e.yaml")
    result = check_files([tmp_path])
    assert lines(result) == [
        "a.yaml:1: invalid-file: a capability file must be a mapping, not a list",
        "c.yaml:4: invalid-file: capability.consumes[0].resources: must be a list, or a mapping keyed by name",
        "d.yaml:1: invalid-file: naftiko: the format's version is missing; is this a capability file?",
        "e.yaml:1: invalid-file: mapping values are not allowed in this context",
    ]
    assert result.findings[-1].fix == "Correct the YAML syntax."
    assert result.files == ("a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml")
    assert result.summary() == "5 files, 2 tools: 4 errors"


def test_overlay_without_a_capability_file_is_an_error(tmp_path: Path) -> None:
    written(tmp_path, THING)
    path = written(tmp_path, "overlay: 2\nprefix: b\n", "overlays/other.yaml")
    finding = (
        f"{Path('overlays', 'other.yaml')}:1: unused-overlay-entry: there is no capability file other.yaml for "
        "this overlay"
    )
    assert lines(check_files([tmp_path])) == [finding]
    assert lines(check_files([path])) == [finding]
    assert lines(check_files([tmp_path], overlays=False)) == []


def test_overlay_is_checked_with_its_capability_file(tmp_path: Path) -> None:
    base = written(tmp_path, THING)
    overlay = written(tmp_path, "overlay: 2\ncapability: {exposes: {mcps: {port: 1}}}", "overlays/thing.yaml")
    found = lines(check_files([base]))
    assert len(found) == 1
    assert found[0].startswith(f"{OVERLAID}:2: unused-overlay-entry: `exposes` of the capability file has no mcps")
    assert lines(check_files([overlay])) == lines(check_files([overlay, base, tmp_path])) == found
    # An overlay that is listed itself is checked even with --no-overlays.
    assert lines(check_files([overlay], overlays=False)) == found
    assert lines(check_files([base], overlays=False)) == []


def test_duplicate_tool_names_across_files_are_reported(tmp_path: Path) -> None:
    written(tmp_path, THING, "a.yaml")
    written(tmp_path, THING, "b.yaml")
    assert lines(check_files([tmp_path])) == [
        f"b.yaml:{line}: duplicate-tool-name: a.yaml has a tool thing-{name} too; this one is listed as "
        f"thing-{name}-{hashlib.sha256(b'b.yaml').hexdigest()[:6]}"
        for line, name in ((25, "get-run"), (28, "cancel-run"))
    ]


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_missing_file_and_empty_folder_are_usage_errors(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CapabilityError):
        check_files([tmp_path / name])
    written(tmp_path, THING)
    assert run(["check", "thing.yaml", name]) == 2


# The command


def test_output_has_one_line_per_finding_and_a_summary(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, THING.replace("DELETE", "FETCH").replace("naftiko: 1.0.0-alpha2", "naftiko: 9.9"))
    assert run(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "thing.yaml:1: warning: the version 9.9 is unknown; known versions: 1.0.0-alpha1, 1.0.0-alpha2, 1.0.0-alpha3 "
        "[unknown-version] Set `naftiko` to the version of the format in which the file is written.",
        "thing.yaml:18: error: things.cancel: the method FETCH is not supported [unknown-method] Use one of DELETE, "
        "GET, HEAD, OPTIONS, PATCH, POST, PUT.",
        "1 file, 2 tools: 1 error, 1 warning",
    ]


def test_exit_status_of_warnings_is_0_or_1_with_strict(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, THING.replace("naftiko: 1.0.0-alpha2", "naftiko: 9.9"))
    assert run(["check", str(tmp_path)]) == 0
    assert run(["check", "--strict", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("1 file, 2 tools: 1 warning\n")
    written(tmp_path, THING)
    assert run(["check", "--strict", str(tmp_path)]) == 0


def test_json_output(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, THING.replace("DELETE", "FETCH"))
    assert run(["check", "--json", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "files": ["thing.yaml"],
        "findings": [
            {
                "file": "thing.yaml",
                "line": 18,
                "path": "capability.consumes[0].resources[0].operations[1].method",
                "code": "unknown-method",
                "severity": "error",
                "message": "things.cancel: the method FETCH is not supported",
                "fix": "Use one of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT.",
            }
        ],
        "errors": 1,
        "warnings": 0,
        "notes": 0,
    }


def test_json_output_without_findings_lists_the_files(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, THING)
    assert run(["check", "--json", "thing.yaml"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "files": ["thing.yaml"],
        "findings": [],
        "errors": 0,
        "warnings": 0,
        "notes": 0,
    }


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, ["thing.yaml:4: unset-credential: THING_KEY is not set in the environment"]),
        ("", ["thing.yaml:4: unset-credential: THING_KEY is not set in the environment"]),
        ("key-123456", []),
    ],
)
def test_unset_credentials_are_reported_with_env_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, value: Any, found: list[str]
) -> None:
    monkeypatch.delenv("THING_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("THING_KEY", value)
    written(tmp_path, THING)
    assert run(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert run(["check", "--env", "--json", str(tmp_path)]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [f"{one['file']}:{one['line']}: {one['code']}: {one['message']}" for one in findings] == found


def test_checks_the_configured_files_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert run(["check", "--no-overlays", "--json"]) == 0
    names = [Path(name).name for name in json.loads(capsys.readouterr().out)["files"]]
    assert names == sorted(path.name for path in builtin_capabilities().glob("*.yaml"))
    written(tmp_path, THING)
    monkeypatch.setenv("MCP_TASKRUNS_CAPABILITIES", str(tmp_path))
    assert run(["check"]) == 0
    assert capsys.readouterr().out == "1 file, 2 tools: no problems\n"


def test_messages_use_listed_tool_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    written(tmp_path, THING.replace("Cancels a run permanently.", ""))
    monkeypatch.setenv("MCP_TASKRUNS_TOOL_NAMES", "spec")
    run(["check", str(tmp_path)])
    assert "warning: cancel-run has no description" in capsys.readouterr().out


# The rule codes


def test_each_rule_code_has_a_test_case() -> None:  # `to-confirm`: tests/test_new.py
    of_cases = {case.code for case in (*CASES, *OVERLAYS)}
    assert of_cases | {"invalid-file", "to-confirm"} == set(RULES)


def test_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "checks.md").read_text()
    assert page == codes_page(), "run: python -m mcp_taskruns.loading.check > docs/checks.md"
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == sorted(RULES)


def test_reference_page_is_printed_by_the_documented_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mcp_taskruns.loading.check"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    assert done.stdout == codes_page()
    assert done.stderr == ""


def test_server_does_not_import_checks() -> None:
    code = (
        "import sys, mcp_taskruns.cli, mcp_taskruns.app; "
        "print([name for name in sys.modules if name.startswith('mcp_taskruns.') and 'check' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == "[]\n"


def test_hints_of_rest_operations_are_checked_and_used(tmp_path: Path) -> None:
    adapter = """  - type: rest
    resources:
    - path: /v1/runs/{id}
      operations:
      - {name: get, method: GET, call: things.get, hints: {readOnly: true, openWorld: false}}
      - {name: cancel, method: DELETE, call: things.cancel, hints: {idempotent: false}}
"""
    path = written(tmp_path, THING + adapter)
    assert lines(check_files([path])) == []
    get, cancel = load([path], rest=True).rest_tools
    assert get.hints == Hints(read_only=True, destructive=False, idempotent=True, open_world=False)
    assert cancel.hints == Hints(read_only=False, destructive=True, idempotent=False, open_world=True)


@pytest.mark.parametrize("extra", ["hint: 1", "rename: 1", "label: [a]", "input_parameters: 1", "inputParameters: []"])
def test_unknown_key_of_a_rest_operation_is_a_warning(tmp_path: Path, extra: str) -> None:
    operation = f"{{name: get, method: GET, call: things.get, {extra}}}"
    adapter = f"  - type: rest\n    resources:\n    - {{path: '/v1/runs/{{id}}', operations: [{operation}]}}\n"
    path = written(tmp_path, THING + adapter)
    assert [one.code for one in check_files([path]).findings] == ["unknown-key"]
    assert len(load([path], rest=True).rest_tools) == 1


JOBS = """\
naftiko: 1.0.0-alpha2
info: {tags: [Acme]}
capability:
  consumes:
  - {namespace: other, baseUri: 'https://other.example'}
  - namespace: acme
    baseUri: https://api.example
    resources:
    - path: /jobs
      operations:
      - name: listjobs
        method: GET
        inputParameters: [{name: limit, in: query, type: integer}, {name: after, in: query}]
      - {name: startjob, method: POST}
    - path: /jobs/{job_id}
      operations:
      - name: getjob
        method: GET
        inputParameters: [{name: job_id, in: path, description: Id.}]
  exposes:
  - type: mcp
    namespace: mcp
    tools:
    - {name: list-jobs, description: Lists all jobs there are., call: acme.listjobs}
    - {name: get-job, description: Gets a job with its log., call: acme.getjob}
    - {name: start-job, description: Starts some job., call: acme.startjobb}
"""

WRONG_OVERLAY = """\
overlay: 2
prefx: acme                                                      #: prefx
capability:
  consumes:
    acme:
      timeout: 5                                                 #: timeout
      errors:
        one:
          operations: [getjobb, listjobs]                        #: getjobb
          message_matches: "(unclosed"                           #: unterminated
        two:
          status: high                                           #: integer
          when: {status: x}                                      #: status
      error_body: {status: code, message: $.message}             #: code
      base_uri_rules:
      - {env: ACME_DEV, base_uri: 'https://{value}'}
      - {env: ACME_DEV, matches: "[a", base_uri: '{value}'}      #: unterminated
      runs:
        read: {operation: getjb, run_id_argument: job_id}        #: getjb
        fields: {id: id, status: $.status}                       #: $.id
        statuses: {running: [on], queued: [on]}                  #: already
        stream: {operation: listjobs, run_ids_argument: ids}     #: ids
        start:
          startjobx: {}                                          #: startjobx
        cancel:
          getjob: {run_id_argument: jobid}                       #: jobid
        result: {operation: getjbb, when: {$.a: 1}}              #: getjbb
        requests:
          hint: Respond.
          asked: [{id: $.id, when: {'$.a[': 1}}]                 #: $.a[
          resolved: [{id: '$.id[', when: {$.b: 1}}]              #: $.id[
          settled_by: {$.done.: true}                            #: $.done.
          shown_by: [listjobs, showjob]                          #: showjob
        runs_in: {nope: $.x, never: $.y}                         #: nope; never
      operations:
        listjobs:
          paging:                                                #: next_cursor
            items: jobs                                          #: $.jobs
            default_page_size: 5
            cursor_argument: after
            total: total                                         #: $.total
          log: {time_path: at, message_paths: [$.ok, bad]}       #: $.at; $.bad
          redact: [secret, $.ok]                                 #: $.secret
          echo: {argument: changes, text: Unchanged.}            #: changes
        getjob:
          paging: {default_page_size: 10}                        #: offset_argument
          timeout_seconds: soon                                  #: number
          trim:
          - {path: data, drop: [raw], flags: {late: is_late}}    #: $.data; $.is_late
          notes:
          - {text: fine}
          - {when: {no: 1}, text: x}                             #: $.no
        nosuch: {timeout_seconds: 5}                             #: nosuch
  exposes:
    mcp:
      tools:
        list-jbs: {description: Lists.}                          #: list-jbs
        get-job: {hints: {readonly: true}}                       #: readOnly
"""


def test_all_mistakes_of_an_overlay_are_reported_with_those_of_its_file(tmp_path: Path) -> None:
    written(tmp_path, JOBS, "acme.yaml")
    written(tmp_path, WRONG_OVERLAY, "overlays/acme.yaml")
    found = check_files([tmp_path]).findings
    expected = [
        (number, word)
        for number, line in enumerate(WRONG_OVERLAY.splitlines(), 1)
        for word in line.partition("#: ")[2].split("; ")
        if word
    ]
    of_overlay = [one for one in found if one.file == "overlays/acme.yaml"]
    assert len(of_overlay) == len(expected) == 36
    for line, word in expected:
        assert any(one.line == line and word in one.message for one in of_overlay), (line, word)
    assert [one for one in lines(CheckResult((), 0, found)) if not one.startswith("overlays")] == [
        "acme.yaml:26: unknown-operation: acme-start-job calls acme.startjobb, which does not exist"
    ]


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("capability: {consumes: {acme: {timeot: 5}}}", ["1: invalid-file", "1: invalid-file"]),
        ("overlay: 1\nprefx: a\n", ["1: invalid-file", "2: invalid-file"]),
        ("overlay: 2\nprefix: [a\n", ["3: invalid-file"]),
        # pydantic uses the name `str` too, so the place of this mistake is not exact.
        ("overlay: 2\ncapability: {consumes: {acme: {errors: {str: {status: x}}}}}\n", ["2: invalid-file"]),
        ("[a]", ["1: invalid-file"]),
    ],
)
def test_overlay_without_version_or_valid_yaml_does_not_hide_mistakes_of_its_file(
    tmp_path: Path, overlay: str, expected: list[str]
) -> None:
    written(tmp_path, JOBS, "acme.yaml")
    written(tmp_path, overlay, "overlays/acme.yaml")
    found = [f"{one.file}:{one.line}: {one.code}" for one in check_files([tmp_path]).findings]
    assert found == ["acme.yaml:26: unknown-operation", *(f"overlays/acme.yaml:{one}" for one in expected)]


def test_mistakes_of_an_overlay_are_reported_if_its_file_is_invalid(tmp_path: Path) -> None:
    written(tmp_path, "naftiko: 1.0.0-alpha2\ncapability:\n  consumes: none\n  exposes: {a: {tools: 5}}\n", "acme.yaml")
    written(tmp_path, "overlay: 2\nprefx: a\n", "overlays/acme.yaml")
    assert [(one.file, one.line) for one in check_files([tmp_path]).findings] == [
        ("acme.yaml", 3),
        ("acme.yaml", 4),
        ("acme.yaml", 4),
        ("overlays/acme.yaml", 2),
    ]
    written(tmp_path, "naftiko: [", "acme.yaml")
    assert [(one.file, one.line) for one in check_files([tmp_path]).findings] == [
        ("acme.yaml", 2),
        ("overlays/acme.yaml", 2),
    ]


OPERATIONS_OVERLAY = """\
overlay: 2
capability:
  consumes:
    acme:
      operations:
"""


def test_entry_for_operations_of_one_name_does_not_hide_other_mistakes(tmp_path: Path) -> None:
    written(tmp_path, JOBS.replace("name: startjob,", "name: listjobs,"), "acme.yaml")
    overlay = """\
        getjob: {timeout: 5}
        listjobs: {timeout_seconds: 5}
"""
    written(tmp_path, OPERATIONS_OVERLAY + overlay, "overlays/acme.yaml")
    found = [f"{one.file}:{one.line}: {one.code}" for one in check_files([tmp_path]).findings]
    assert found[-2:] == ["overlays/acme.yaml:6: invalid-file", "overlays/acme.yaml:7: invalid-file"]
    assert "acme.yaml:26: unknown-operation" in found


def test_wrong_operation_in_runs_has_a_fix(tmp_path: Path) -> None:
    written(tmp_path, JOBS, "acme.yaml")
    runs = "fields: {id: $.id, status: $.s}, statuses: {running: [on]}"
    overlay = (
        "overlay: 2\ncapability: {{consumes: {{acme: {{runs: {{read: {{operation: {}, run_id_argument: {}}}, {}}}}}}}}}"
    )
    for operation, argument, fix in (
        ("getjb", "job_id", "There is no operation `getjb`. Did you mean `getjob`?"),
        ("other", "job_id", "There is no operation `other`."),
        ("startjob", "job_id", "Add a tool that calls it."),
        ("getjob", "job-id", "Did you mean `job_id`?"),
    ):
        written(tmp_path, overlay.format(operation, argument, runs), "overlays/acme.yaml")
        assert fix in [one.fix for one in check_files([tmp_path]).findings]


def test_fault_of_an_operation_that_an_overlay_changes_is_located_in_its_file(tmp_path: Path) -> None:
    written(tmp_path, THING.replace("/runs/{id}", "'https://api.example/runs/{id}'"), "thing.yaml")
    overlay = "overlay: 2\ncapability: {consumes: {things: {operations: {get: {timeout_seconds: 5}}}}}\n"
    written(tmp_path, overlay, "overlays/thing.yaml")
    found = [f"{one.file}:{one.line}: {one.code}" for one in check_files([tmp_path]).findings]
    assert found == ["thing.yaml:14: unsupported-operation", "thing.yaml:17: unsupported-operation"]


def test_missing_keyword_of_an_overlay_is_located_beside_its_other_keywords(tmp_path: Path) -> None:
    written(tmp_path, JOBS.replace("startjobb", "startjob"), "acme.yaml")
    overlay = """\
        startjob:
          description: Starts some job.
          paging: {offset_argument: skip, default_page_size: 5}
"""
    written(tmp_path, OPERATIONS_OVERLAY + overlay, "overlays/acme.yaml")
    found = [one for one in check_files([tmp_path]).findings if one.code == "unknown-argument"]
    # `page_size_argument` is not written: its default is the argument that the tool does not have.
    assert [(one.file, one.line) for one in found] == [("overlays/acme.yaml", 8)] * 2


def test_wrong_runs_of_a_provider_without_tools_are_reported(tmp_path: Path) -> None:
    overlay = """\
overlay: 2
capability:
  consumes:
    acme:
      runs:
        read: {operation: getjob, run_id_argument: job_id}
        start: {startjob: {}}
        fields: {id: $.id, status: status}
        statuses: {running: [on]}
"""
    written(tmp_path, overlay, "overlays/acme.yaml")
    written(tmp_path, JOBS.replace("call: acme.", "call: other."), "acme.yaml")
    found = [(one.line, one.code) for one in check_files([tmp_path]).findings if one.file.startswith("overlays")]
    assert found == [(6, "invalid-file"), (8, "invalid-file")]


def test_operations_without_a_name_do_not_hide_an_entry_of_an_overlay(tmp_path: Path) -> None:
    written(tmp_path, JOBS.replace("- {name: startjob, method: POST}", "- {method: POST}"), "acme.yaml")
    overlay = "overlay: 2\ncapability: {consumes: {acme: {operations: {getjob: {timeout: 5}}}}}\n"
    written(tmp_path, overlay, "overlays/acme.yaml")
    found = [(one.file, one.line) for one in check_files([tmp_path]).findings]
    assert found == [("acme.yaml", 14), ("overlays/acme.yaml", 2)]
