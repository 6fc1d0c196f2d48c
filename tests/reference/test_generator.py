"""Files that are generated from API descriptions of other providers."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_taskruns.generator.build import Generator
from mcp_taskruns.loading.check import check_files
from tests.reference.data import MORE

# The terminal statuses, as the providers document them in these descriptions
TERMINAL = {
    "airflow": {"succeeded": {"success"}, "failed": {"failed"}},
    "fal": {"succeeded": {"COMPLETED"}, "failed": {"FAILED"}, "canceled": {"CANCELED"}},
    "openai-batches": {"succeeded": {"completed"}, "failed": {"failed", "expired"}, "canceled": {"cancelled"}},
    "openai-responses": {"succeeded": {"completed"}, "failed": {"failed", "incomplete"}, "canceled": {"cancelled"}},
    "prefect": {"succeeded": {"COMPLETED"}, "failed": {"FAILED", "CRASHED"}, "canceled": {"CANCELLED"}},
    "replicate": {"succeeded": {"succeeded"}, "failed": {"failed"}, "canceled": {"canceled"}},
    "trigger-dev": {
        "succeeded": {"COMPLETED"},
        "failed": {"FAILED", "CRASHED", "INTERRUPTED", "SYSTEM_FAILURE"},
        "canceled": {"CANCELED"},
    },
    "github-actions": {
        "succeeded": {"completed/success"},
        "failed": {"completed/failure", "completed/timed_out", "completed/action_required"},
        "canceled": {"completed/cancelled", "completed/skipped", "completed/neutral", "completed/stale"},
    },
}


def generate(folder: Path, name: str, *operations: str) -> Any:
    """Write the files for a provider; return what the overlay has about it."""
    generator = Generator.of(json.loads(MORE[name].read_text(encoding="utf-8")))
    chosen = generator.named_operations(operations) if operations else generator.default_operations()
    files = generator.build(name, chosen, date(2026, 1, 2))
    (folder / "overlays").mkdir()
    (folder / f"{name}.yaml").write_text(files.capability, encoding="utf-8")
    (folder / "overlays" / f"{name}.yaml").write_text(files.overlay, encoding="utf-8")
    return yaml.safe_load(files.overlay)["capability"]["consumes"][name]


@pytest.mark.parametrize("name", TERMINAL)
def test_guessed_terminal_statuses_are_right(tmp_path: Path, name: str) -> None:
    statuses = generate(tmp_path, name)["runs"]["statuses"]
    terminal = {status: set(natives) for status, natives in statuses.items() if status in TERMINAL["fal"]}
    assert terminal == TERMINAL[name]


@pytest.mark.parametrize("operations", [(), ("all",)], ids=["runs", "all"])
@pytest.mark.parametrize("name", MORE)
def test_generated_files_have_no_errors(tmp_path: Path, name: str, operations: tuple[str, ...]) -> None:
    generate(tmp_path, name, *operations)
    result = check_files([tmp_path])
    assert not result.count("error")
    assert result.count("note")
