"""What is kept of capability files between starts."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns import cache
from mcp_taskruns.cache import MAX_KEPT, load_capabilities
from mcp_taskruns.settings import Settings

THING = """\
naftiko: 1.0.0-alpha2
info: {tags: [Thing]}
capability:
  consumes:
  - type: http
    namespace: things
    baseUri: https://api.example
    resources: [{path: /things, operations: [{name: list, method: GET}]}]
  exposes:
  - {type: mcp, tools: [{name: list-things, call: things.list, description: Lists things.}]}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def settings(tmp_path: Path, home: Path) -> Settings:
    folder = tmp_path / "capabilities"
    folder.mkdir()
    (folder / "thing.yaml").write_text(THING)
    return Settings(capabilities=(str(folder),), environment={"HOME": str(home)})


def kept(home: Path) -> list[Path]:
    return sorted(home.glob(".cache/mcp-taskruns/*"))


def names(settings: Settings) -> list[str]:
    return [tool.name for tool in load_capabilities(settings).tools]


def test_what_was_compiled_is_read_again_and_is_the_same(
    settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_capabilities(settings)
    assert len(kept(home)) == 1
    monkeypatch.setattr("mcp_taskruns.loader.load", None)  # nobody asks it again
    assert load_capabilities(settings) == first


def test_all_that_ships_is_kept_whole(home: Path) -> None:
    settings = Settings(rest=True, environment={"XDG_CACHE_HOME": str(home)})
    first = load_capabilities(settings)
    again = load_capabilities(settings)
    assert (again.tools, again.rest_tools) == (first.tools, first.rest_tools)
    for one, other in zip(again.tools, first.tools, strict=True):
        assert (one.input_schema, one.runs) == (other.input_schema, other.runs)
        assert one.operation.errors == other.operation.errors


def test_a_server_that_finds_its_tools_kept_reads_no_yaml(home: Path) -> None:
    program = (
        "import sys; from mcp_taskruns.cli import run; code = run(['tools']); "
        "sys.exit(code or ('yaml' in sys.modules) + 2 * ('mcp_taskruns.core.spec' in sys.modules))"
    )
    environment = {"XDG_CACHE_HOME": str(home), "PATH": os.environ["PATH"]}
    runs = [
        subprocess.run([sys.executable, "-c", program], check=False, env=environment, timeout=50, capture_output=True)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [3, 0]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda folder: (folder / "thing.yaml").write_text(THING.replace("list-things", "other")), id="file"
        ),
        pytest.param(lambda folder: (folder / "b.yaml").write_text(THING.replace("Thing]", "Other]")), id="another"),
        pytest.param(
            lambda folder: (
                (folder / "overlays").mkdir(),
                (folder / "overlays" / "thing.yaml").write_text("prefix: mine\n"),
            ),
            id="overlay",
        ),
    ],
)
def test_a_change_is_read_anew(settings: Settings, change: Any) -> None:
    before = names(settings)
    change(Path(settings.capabilities[0]))
    assert names(settings) != before


def test_other_settings_and_other_code_are_other_entries(
    settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in (
        settings,
        replace(settings, tool_names="spec"),
        replace(settings, no_overlays=True),
        replace(settings, rest=True),
        replace(settings, base_uri=("things=https://other.example",)),
    ):
        load_capabilities(other)
    assert len(kept(home)) == 5
    monkeypatch.setattr(cache, "__version__", "0.0.0")
    load_capabilities(settings)
    assert len(kept(home)) == 6


def test_an_address_of_the_operators_is_not_taken_from_another_start(settings: Settings) -> None:
    load_capabilities(settings)
    (tool,) = load_capabilities(replace(settings, base_uri=("things=https://other.example",))).tools
    assert tool.operation.base.default == ("https://other.example",)


def test_a_folder_with_a_bad_file_is_not_kept(settings: Settings, home: Path) -> None:
    (Path(settings.capabilities[0]) / "bad.yaml").write_text("- 1\n")
    assert [str(problem) for problem in load_capabilities(settings).problems] == [
        "bad.yaml: a capability file is a mapping, this is a list"
    ]
    assert kept(home) == []


@pytest.mark.parametrize("content", [b"", b"rubbish", pickle.dumps("a text")])
def test_an_entry_that_cannot_be_used_is_made_anew(settings: Settings, home: Path, content: bytes) -> None:
    load_capabilities(settings)
    (entry,) = kept(home)
    good = entry.read_bytes()
    entry.write_bytes(content)
    assert names(settings) == ["thing-list-things"]
    assert kept(home)[0].read_bytes() == good


@pytest.mark.parametrize("of_folder", [True, False])
def test_what_others_could_have_written_is_not_trusted(settings: Settings, home: Path, of_folder: bool) -> None:
    load_capabilities(settings)
    (entry,) = kept(home)
    entry.write_bytes(pickle.dumps(load_capabilities(Settings(environment=settings.environment))))
    (entry.parent if of_folder else entry).chmod(0o777)
    assert names(settings) == ["thing-list-things"]


@pytest.mark.parametrize("environment", [{}, {"HOME": "/dev/null"}])
def test_without_a_home_nothing_is_kept(settings: Settings, environment: dict[str, str]) -> None:
    assert names(replace(settings, environment=environment)) == ["thing-list-things"]


def test_nothing_is_kept_where_it_is_not_wanted(settings: Settings, home: Path) -> None:
    assert names(replace(settings, no_cache=True)) == ["thing-list-things"]
    assert kept(home) == []


def test_only_the_newest_entries_are_kept(settings: Settings, home: Path) -> None:
    file = Path(settings.capabilities[0]) / "thing.yaml"
    for number in range(MAX_KEPT + 2):
        file.write_text(THING.replace("list-things", f"list-{number}"))
        load_capabilities(settings)
        for place, entry in enumerate(kept(home)):
            os.utime(entry, (place, place))
    assert len(kept(home)) == MAX_KEPT


def test_no_key_is_kept(settings: Settings, home: Path) -> None:
    secret = "key-of-a-user-123456"
    load_capabilities(
        replace(settings, capabilities=(), environment={**settings.environment, "RENDER_API_KEY": secret})
    )
    (entry,) = kept(home)
    assert secret.encode() not in entry.read_bytes()
