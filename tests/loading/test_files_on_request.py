"""Built-in files that are loaded only on request, by name."""

from pathlib import Path

import pytest

from mcp_taskruns.errors import SettingsError
from mcp_taskruns.loading import files
from mcp_taskruns.loading.files import (
    builtin_capabilities,
    capability_files,
    capability_folders,
    files_on_request,
    paths_to_load,
)


@pytest.fixture
def more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of built-in files, of which `default.yaml` is loaded by default."""
    folder = tmp_path / "more"
    (folder / "overlays").mkdir(parents=True)
    names = ["acme-jobs.yaml", "acme-tasks.yaml", "acmeville.yml", "other.yaml", "notes.txt", "overlays/other.yaml"]
    for path in [tmp_path / "default.yaml", *(folder / name for name in names)]:
        path.write_text("", encoding="utf-8")
    monkeypatch.setattr(files, "builtin_capabilities", lambda: tmp_path)
    return folder


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["other"], ["other"]),
        (["Other"], ["other"]),
        (["acme"], ["acme-jobs", "acme-tasks"]),
        (["acme-tasks"], ["acme-tasks"]),
        (["other", "acme-jobs", "acme-jobs"], ["acme-jobs", "other"]),
        (["acmeville"], ["acmeville"]),
        (["all"], ["acme-jobs", "acme-tasks", "acmeville", "other"]),
        (["all", "other"], ["acme-jobs", "acme-tasks", "acmeville", "other"]),
        ([], []),
    ],
)
def test_name_is_that_of_a_file_or_its_first_words(more: Path, names: list[str], found: list[str]) -> None:
    assert [path.stem for path in files_on_request(names)] == found


@pytest.mark.parametrize("name", ["acm", "jobs", "default", "other.yaml", "notes", "../default", "*", ""])
def test_unknown_name_is_an_error_that_lists_the_names(more: Path, name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        files_on_request(["other", name])
    assert str(caught.value) == (
        f"--with: no built-in provider has the name {name!r}; names: acme-jobs, acme-tasks, acmeville, other, all"
    )


def test_default_files_are_loaded_before_those_on_request(more: Path) -> None:
    assert capability_files(paths_to_load((), ["other"])) == [more.parent / "default.yaml", more / "other.yaml"]
    assert capability_files(paths_to_load((), ())) == [more.parent / "default.yaml"]


def test_files_on_request_are_loaded_with_the_folders_of_the_user(more: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "my.yaml").write_text("", encoding="utf-8")
    assert capability_files(paths_to_load([mine], ["other"])) == [mine / "my.yaml", more / "other.yaml"]
    # A file is loaded once, also if its folder is loaded.
    assert len(capability_files(paths_to_load([more], ["all"]))) == 4


def test_files_on_request_are_not_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(files, "files_on_request")
    assert paths_to_load((), ()) == [builtin_capabilities()]


def test_watched_folders_include_that_of_the_files_on_request(more: Path) -> None:
    assert capability_folders(paths_to_load((), ["other"])) == [more.parent, more]
    assert capability_folders(paths_to_load((), ())) == [more.parent]
