"""The built package: what it contains, and that it works without the checkout."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.timing import PATIENCE

ROOT = Path(__file__).parents[1]


def run_python(*arguments: str, folder: Path, **environment: str) -> str:
    """Run Python in a folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that is built from it, as package indexes do."""
    folder = tmp_path_factory.mktemp("dist")
    run_python("-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), folder=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(folder / "sources", filter="data")
    (sources_folder,) = (folder / "sources").iterdir()
    run_python("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), folder=sources_folder)
    return folder


def capability_files() -> set[str]:
    """Return the paths of all built-in files in the checkout: capability files, overlays and schemas."""
    folder = ROOT / "capabilities"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_wheel_and_sdist_have_all_capability_files(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        names = [name.partition("/")[2] for name in sources.getnames()]
    in_sdist = {name.removeprefix("capabilities/") for name in names if name.startswith("capabilities/")}
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    folder = "mcp_taskruns/capabilities/"
    in_wheel = {name.removeprefix(folder) for name in names if name.startswith(folder)}
    assert {"more/replicate.yaml", "more/overlays/replicate.yaml"} <= in_wheel
    assert in_wheel == capability_files() == in_sdist


def test_installed_package_serves_the_files_on_request(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    providers = run_python("-m", "mcp_taskruns", "providers", "--json", folder=tmp_path, PYTHONPATH=str(tmp_path))
    files = [Path(provider["file"]) for provider in json.loads(providers)["providers"]]
    assert Path("mcp_taskruns/capabilities/more/replicate.yaml") in files
    command = ("-m", "mcp_taskruns", "tools", "--with", "all", "--strict", "--only", "replicate")
    assert "replicate-wait-for-run" in run_python(*command, folder=tmp_path, PYTHONPATH=str(tmp_path))
