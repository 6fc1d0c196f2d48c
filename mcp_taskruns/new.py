"""The command `new`: a capability file and an overlay from an OpenAPI document."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mcp_taskruns.core.format.names import slug
from mcp_taskruns.errors import SettingsError
from mcp_taskruns.generator.build import Generator
from mcp_taskruns.generator.choice import Choice
from mcp_taskruns.generator.document import InvalidDocument, Operation
from mcp_taskruns.loading.yaml import read_document

MAX_DOCUMENT_BYTES = 50_000_000
"""The size above which a document in JSON is rejected; GitHub's has 12 MB."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAX_NAME = 30
"""The length limit of a name, which all tools begin with: these have 64 characters at most."""


@dataclass(frozen=True)
class Written:
    """What was written: the two files, and the number of tools."""

    capability: Path
    overlay: Path
    tools: int


def write_files(
    name: str,
    document: Path,
    *,
    operations: Sequence[str],
    folder: Path,
    force: bool = False,
    choose: Callable[[Choice], None] | None = None,
) -> Written:
    """Write `NAME.yaml` and `overlays/NAME.yaml` for a provider.

    `operations` are ids of operations; without any, those that look like runs are chosen, and `choose` may change that.
    Raises SettingsError, and CapabilityError for a document that is not valid YAML.
    """
    _check_name(name)
    capability, overlay = folder / f"{name}.yaml", folder / "overlays" / f"{name}.yaml"
    existing = [str(path) for path in (capability, overlay) if path.exists()]
    if existing and not force:
        raise SettingsError(f"{' and '.join(existing)} exists already; choose another name, or overwrite with --force")
    try:
        generator = Generator.of(_read(document))
        chosen = generator.named_operations(operations) if operations else _choose(generator, choose)
    except InvalidDocument as exc:
        raise SettingsError(f"--openapi {document}: {exc}") from exc
    files = generator.build(name, chosen, date.today())
    _write(capability, files.capability)
    _write(overlay, files.overlay)
    return Written(capability, overlay, files.tools)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        suggestion = slug(name)[:_MAX_NAME].strip("-")
        hint = f", such as {suggestion}" if _NAME.fullmatch(suggestion) else ""
        raise SettingsError(
            f"{name!r} is not a valid name; use at most {_MAX_NAME} lower-case letters, digits and hyphens{hint}"
        )


def _choose(generator: Generator, choose: Callable[[Choice], None] | None) -> list[Operation]:
    choice = Choice(generator.document.operations, set(generator.default_operations()))
    if choose is not None:
        choose(choice)
    chosen = choice.result()
    if not chosen:
        raise InvalidDocument("no operation is chosen, or none looks like a run; name some with --operations")
    return chosen


def _read(path: Path) -> Any:
    """Return the parsed document. JSON is parsed as such, because YAML readers are slow and have lower limits."""
    try:
        size = path.stat().st_size
        if size > MAX_DOCUMENT_BYTES:
            raise SettingsError(f"--openapi {path}: the file is larger than {MAX_DOCUMENT_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as exc:
        raise SettingsError(f"--openapi {path}: {exc.strerror or 'the file cannot be read'}") from exc
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return read_document(path)
    try:
        return json.loads(data)
    except RecursionError as exc:
        raise SettingsError(f"--openapi {path}: too deeply nested values") from exc
    except ValueError:
        return read_document(path)  # YAML may begin with a brace too; its error names the line


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as exc:
        raise SettingsError(f"cannot write {path}: {exc.strerror or exc}") from exc
