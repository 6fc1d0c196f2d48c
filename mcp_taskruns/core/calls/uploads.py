"""Files in the arguments of a call, which are uploaded to the addresses that the provider's response names."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.calls.request import File
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Path, replace_at, values_at
from mcp_taskruns.core.model.operation import Upload
from mcp_taskruns.errors import InvalidArguments


def extract_files(upload: Upload, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[File | None]]:
    """Take the files out of the arguments.

    Return the arguments with the size of each file instead of its content, and the files in order; None stands for an
    entry without content. Raises InvalidArguments for content that does not have the declared encoding.
    """
    entries = list(values_at(arguments, upload.files))
    files = [_read_file(upload, entry) for entry in entries]
    described = [_describe_entry(upload, entry, file) for entry, file in zip(entries, files, strict=True)]
    return _replace_values(arguments, upload.files, described), files


def _read_file(upload: Upload, entry: Mapping[str, Any]) -> File | None:
    content = entry.get(upload.content_field)
    if content is None:
        return None
    data = _decode_content(content, entry.get(upload.encoding_field), entry.get(upload.name_field))
    return File(str(entry.get(upload.name_field)), str(entry.get(upload.media_type_field) or ""), data)


def _describe_entry(upload: Upload, entry: Mapping[str, Any], file: File | None) -> Mapping[str, Any]:
    """Return the entry as it is sent: with the size of the content instead of the content."""
    if file is None:
        return entry
    kept = {name: value for name, value in entry.items() if name not in (upload.content_field, upload.encoding_field)}
    return {**kept, upload.size_field: len(file.content)}


def _replace_values(value: Any, path: Path, replacements: Iterable[Any]) -> Any:
    """Replace the values at a path, one replacement for each in order."""
    remaining = iter(replacements)
    return replace_at(value, path, lambda _: next(remaining))


def _decode_content(content: str, encoding: str | None, name: Any) -> bytes:
    if encoding != "base64":
        return content.encode("utf-8", "replace")
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidArguments(
            f"the content of `{name}` is not valid base64",
            hint="Nothing was sent. Encode the content as standard base64 with padding.",
        ) from exc


def upload_forms(upload: Upload, result: CallResult) -> list[Any]:
    """Return the presigned form of each file, in the order of the files; None where the response has none."""
    prepared = values_at(result.value, upload.prepared)
    return [item.get(upload.form_field) if isinstance(item, Mapping) else None for item in prepared]


def upload_result(upload: Upload, result: CallResult, files: Sequence[File | None]) -> CallResult:
    """Return the response after the uploads: `uploaded: true` replaces the form of each uploaded file."""
    marked = [
        _mark_uploaded(upload, item) if file else item
        for item, file in zip(values_at(result.value, upload.prepared), files, strict=True)
    ]
    value = _replace_values(result.value, upload.prepared, marked)
    sent = ", ".join(f"{file.name} ({_format_size(len(file.content))})" for file in files if file)
    return replace(result, text=dump(value), value=value).with_notes(f"Uploaded: {sent}. {upload.hint}".strip())


def _mark_uploaded(upload: Upload, item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != upload.form_field} | {"uploaded": True}


def _format_size(count: int) -> str:
    return "1 byte" if count == 1 else f"{count:,} bytes"
