"""Files in the arguments of a call, to be sent to where its answer says."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.calls.request import File
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import replace_at, values_at
from mcp_taskruns.core.model.operation import Upload
from mcp_taskruns.errors import InvalidArguments


def extract_files(upload: Upload, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[File | None]]:
    """The arguments without the contents of files, with their sizes instead, and the files; None for one without.

    Raises InvalidArguments for a content that is not what it is said to be.
    """
    files: list[File | None] = []

    def take(given: Any) -> Any:
        content = given.get(upload.content_field)
        if content is None:
            files.append(None)
            return given
        data = _decoded(content, given.get(upload.encoding_field), f"the content of {given.get(upload.name_field)}")
        files.append(File(str(given.get(upload.name_field)), str(given.get(upload.media_type_field) or ""), data))
        kept = {
            name: value for name, value in given.items() if name not in (upload.content_field, upload.encoding_field)
        }
        return {**kept, upload.size_field: len(data)}

    return replace_at(arguments, upload.files, take), files


def _decoded(content: str, encoding: str | None, what: str) -> bytes:
    if encoding != "base64":
        return content.encode("utf-8", "replace")
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidArguments(f"{what}: is not base64", hint="Nothing was sent.") from exc


def upload_forms(upload: Upload, outcome: CallResult) -> list[Any]:
    """The forms to which the files are sent, in the order of the files."""
    prepared = values_at(outcome.value, upload.prepared)
    return [item.get(upload.form) if isinstance(item, Mapping) else None for item in prepared]


def _size(count: int) -> str:
    return "1 byte" if count == 1 else f"{count:,} bytes"


def upload_result(upload: Upload, outcome: CallResult, files: Sequence[File | None]) -> CallResult:
    """The answer once the files are where they belong: without the forms, which are used up."""
    left = iter(files)

    def mark(item: Any) -> Any:
        if next(left, None) is None:
            return item
        return {name: value for name, value in item.items() if name != upload.form} | {"uploaded": True}

    value = replace_at(outcome.value, upload.prepared, mark)
    sent = ", ".join(f"{file.name} ({_size(len(file.content))})" for file in files if file)
    note = f"Uploaded: {sent}. {upload.hint}".strip()
    return replace(outcome, text=dump(value), value=value, notes=(note, *outcome.notes))
