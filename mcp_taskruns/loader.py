"""The only reader of capability files: folders of YAML to compiled tools."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from mcp_taskruns.core.compiler import ToolNames, compile_tools
from mcp_taskruns.core.operation import Tool
from mcp_taskruns.core.overlay import apply_overlay
from mcp_taskruns.core.spec import Capability, parse_capability
from mcp_taskruns.errors import CapabilityError

MAX_FILE_BYTES = 10_000_000
MAX_NODES = 1_000_000
"""Nodes of a file with its aliases written out: a few lines of aliases can stand for billions."""

MAX_DEPTH = 100


def shipped_capabilities() -> Path:
    """The folder of the capability files that come with the package."""
    package = Path(__file__).parent
    installed = package / "capabilities"
    return installed if installed.is_dir() else package.parent / "capabilities"


def load_tools(
    folders: Sequence[str | Path], *, overlays: bool = True, names: ToolNames = "prefixed"
) -> tuple[Tool, ...]:
    """The tools of all capability files in the folders; no folders: the shipped ones.

    Raises CapabilityError naming the first file that cannot be served.
    """
    return compile_tools([load_capability(path, overlays=overlays) for path in capability_files(folders)], names=names)


def capability_files(folders: Sequence[str | Path]) -> list[Path]:
    """The capability files of the folders, in name order; a file stands for itself.

    Raises CapabilityError for a folder that is not there or holds none.
    """
    files: list[Path] = []
    for folder in _folders(folders):
        if not folder.exists():
            raise CapabilityError(str(folder), "", "there is no such file or folder")
        found = [folder] if folder.is_file() else sorted(_yaml_files(folder))
        if not found:
            raise CapabilityError(str(folder), "", "no capability files (*.yaml) here")
        files += found
    return files


def orphan_overlays(folders: Sequence[str | Path]) -> list[Path]:
    """The overlays that refine no file."""
    overlays = [path for folder in _folders(folders) for path in _yaml_files(folder / "overlays")]
    return sorted(path for path in overlays if not (path.parent.parent / path.name).is_file())


def _folders(folders: Sequence[str | Path]) -> list[Path]:
    return [Path(folder).expanduser() for folder in folders] or [shipped_capabilities()]


def load_capability(path: Path, *, overlays: bool = True) -> Capability:
    """One capability file, refined by `overlays/<the same name>` beside it.

    Raises CapabilityError naming the file and the place in it.
    """
    document = _read(path)
    overlay = path.parent / "overlays" / path.name
    source = path.name
    if overlays and overlay.is_file():
        source = f"{path.name} with overlays/{path.name}"
        document = apply_overlay(document, _read(overlay), f"overlays/{path.name}")
    return parse_capability(document, source)


def _yaml_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*") if path.suffix in {".yaml", ".yml"} and path.is_file())


_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it was built


class _Loader(_SafeLoader):  # type: ignore[misc, valid-type]  # one of two classes
    """Safe YAML with the scalars of YAML 1.2: `on`, `yes` and dates are text."""


# YAML 1.1 has more scalars than a person means: `on`, `12:30` (750), `010` (8), dates.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$|^0x[0-9a-fA-F]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))


def _read(path: Path) -> Any:
    name = f"{path.parent.name}/{path.name}" if path.parent.name == "overlays" else path.name
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CapabilityError(name, "", f"larger than {MAX_FILE_BYTES:,} bytes")
        loader = _Loader(path.read_bytes())
        try:
            node = loader.get_single_node()
            if node is None:
                raise CapabilityError(name, "", "the file is empty")
            _check(node, name)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except OSError as exc:
        raise CapabilityError(name, "", exc.strerror or "cannot be read") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise CapabilityError(name, place, getattr(exc, "problem", None) or "is not YAML") from exc
    except (
        RecursionError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
    ) as exc:  # an explicit tag on what it does not fit
        raise CapabilityError(name, "", "is not YAML that a person would write") from exc


def _check(root: yaml.Node, name: str) -> None:
    """Refuse what safe loading lets through: duplicate keys, and aliases or nesting without bound."""
    pending = [(root, 0)]
    nodes = 0
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise CapabilityError(name, f"line {node.start_mark.line + 1}", "too many or too deeply nested values")
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    place = f"line {key.start_mark.line + 1}"
                    raise CapabilityError(name, place, "a key must be text; a value that begins with {{ needs quotes")
                if key.value in seen:
                    raise CapabilityError(
                        name, f"line {key.start_mark.line + 1}", f"the key {key.value!r} is there twice"
                    )
                seen.add(key.value)
                pending.append((value, depth + 1))
        elif isinstance(node, yaml.SequenceNode):
            pending.extend((item, depth + 1) for item in node.value)
