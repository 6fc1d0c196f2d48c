"""Files in arguments: extraction and the result after the upload."""

import base64
from typing import Any

import pytest

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.core.calls.request import File
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.uploads import extract_files, upload_forms, upload_result
from mcp_taskruns.core.model.json import parse
from mcp_taskruns.core.model.operation import Upload
from mcp_taskruns.errors import InvalidArguments
from mcp_taskruns.loading.loader import load_tools
from tests.core.documents import Json

TOOL = next(tool for tool in load_tools([]) if tool.name == "posthog-prepare-direct-uploads-task-run")
MAX_SIZE = 31_457_280
"""PostHog products/tasks/backend/serializers.py: TaskRunArtifactsPrepareUploadRequestSerializer"""


def upload() -> Upload:
    assert TOOL.operation.upload is not None
    return TOOL.operation.upload


def artifacts_argument(*artifacts: Json) -> Json:
    return {"task_id": "t", "body": {"artifacts": list(artifacts)}}


def extract(**artifact: Any) -> tuple[Json, File | None]:
    """Return the entry that is sent for one file, and the file."""
    arguments, (file,) = extract_files(
        upload(), artifacts_argument({"name": "report.md", "type": "output", **artifact})
    )
    assert arguments["task_id"] == "t"
    (sent,) = arguments["body"]["artifacts"]
    return sent, file


@pytest.mark.parametrize(
    ("artifact", "content"),
    [
        ({"content": "# Report"}, b"# Report"),
        ({"content": "# Report", "content_encoding": "utf-8"}, b"# Report"),
        ({"content": "naïve — 漢字\n"}, "naïve — 漢字\n".encode()),
        ({"content": "half \ud83d a pair"}, b"half ? a pair"),
        ({"content": "aGk="}, b"aGk="),
        ({"content": ""}, b""),
        ({"content": "aGk=", "content_encoding": "base64"}, b"hi"),
        ({"content": "AP/+/w==", "content_encoding": "base64"}, b"\x00\xff\xfe\xff"),
        # MIME wraps base64 at 76 characters, and tools end it with a line break: RFC 2045 section 6.8
        ({"content": "YWJj\r\nZGVm\n", "content_encoding": "base64"}, b"abcdef"),
        ({"content": " YWJj ZGVm\t", "content_encoding": "base64"}, b"abcdef"),
        ({"content": base64.encodebytes(bytes(range(256))).decode(), "content_encoding": "base64"}, bytes(range(256))),
        ({"content": "", "content_encoding": "base64"}, b""),
    ],
)
def test_content_is_replaced_by_its_size_in_bytes(artifact: Json, content: bytes) -> None:
    sent, file = extract(**artifact)
    assert file == File("report.md", "", content)
    assert sent == {"name": "report.md", "type": "output", "size": len(content)}


def test_other_fields_of_a_file_are_sent() -> None:
    sent, file = extract(content="hi", content_type="text/markdown", source="agent", newer="field")
    assert sent == {
        "name": "report.md",
        "type": "output",
        "content_type": "text/markdown",
        "source": "agent",
        "newer": "field",
        "size": 2,
    }
    assert file == File("report.md", "text/markdown", b"hi")


def test_size_of_the_content_overrides_the_given_size() -> None:
    assert extract(content="hello", size=3)[0]["size"] == 5


def test_file_without_content_is_sent_unchanged() -> None:
    assert extract(size=3, content_type="image/png") == (
        {"name": "report.md", "type": "output", "size": 3, "content_type": "image/png"},
        None,
    )


def test_several_files_are_extracted_in_order() -> None:
    named = [{"name": name, "type": "output"} for name in "abc"]
    arguments = artifacts_argument(named[0] | {"content": "a"}, named[1] | {"size": 2}, named[2] | {"content": "ccc"})
    before = repr(arguments)
    sent, files = extract_files(upload(), arguments)
    assert sent["body"]["artifacts"] == [item | {"size": size} for item, size in zip(named, (1, 2, 3), strict=True)]
    assert files == [File("a", "", b"a"), None, File("c", "", b"ccc")]
    assert repr(arguments) == before


@pytest.mark.parametrize(
    "content",
    [
        "no base64!",
        "aGk",  # without its padding
        "aGk==",
        "aGk=aGk=",
        "aGk=\x00",
        "data:text/plain;base64,aGk=",
        "-_8=",  # the URL-safe alphabet: RFC 4648 section 5
        "é",
        "\ud800",
    ],
)
def test_invalid_base64_is_refused_with_the_file_name(content: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        extract(content=content, content_encoding="base64")
    assert caught.value.to_json() == {
        "kind": "validation",
        "message": "the content of `report.md` is not valid base64",
        "retryable": False,
        "hint": "Nothing was sent. Encode the content as standard base64 with padding.",
    }


def test_repr_of_a_file_hides_its_content() -> None:
    assert "secret" not in repr(File("report.md", "text/plain", b"secret"))


def size_problems(size: int) -> list[str]:
    """Return the problems of the arguments for a file of this size."""
    arguments = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
    body = {"artifacts": [{"name": "a", "type": "output", "size": size}]}
    problems = explain_problems(TOOL.input_schema, {**arguments, "body": body})
    assert compile_validator(TOOL.input_schema)({**arguments, "body": body}) is (problems == [])
    return problems


def test_file_size_is_from_1_to_31457280_bytes() -> None:
    assert size_problems(MAX_SIZE) == size_problems(1) == []
    assert size_problems(MAX_SIZE + 1) == ["body.artifacts[0].size: 31457281 is greater than the maximum of 31457280"]
    assert size_problems(0) == ["body.artifacts[0].size: 0 is less than the minimum of 1"]


FORM = {"url": "https://bucket.s3.amazonaws.com/", "fields": {"key": "tasks/a", "policy": "p"}}


def prepared(*names: str) -> CallResult:
    """Return PostHog's response to preparing these files. products/tasks/backend/api.py (artifacts_prepare_upload)"""
    artifacts = [{"id": name * 32, "name": name, "expires_in": 3600, "presigned_post": FORM} for name in names]
    return CallResult.from_value({"artifacts": artifacts})


def test_each_file_has_its_presigned_form() -> None:
    result = CallResult.from_value({"artifacts": [{"presigned_post": FORM}, {"presigned_post": {"url": "other"}}]})
    assert upload_forms(upload(), result) == [FORM, {"url": "other"}]


@pytest.mark.parametrize(
    ("value", "forms"),
    [
        ({"artifacts": []}, []),
        ({"artifacts": [{"id": "a"}, "text", None]}, [None, None, None]),
        ({"artifacts": {}}, []),
        ({"detail": "moved"}, []),
        ([], []),
        (None, []),
    ],
)
def test_file_that_was_not_prepared_has_no_form(value: Any, forms: list[Any]) -> None:
    assert upload_forms(upload(), CallResult.from_value(value)) == forms


def test_used_form_is_replaced_by_uploaded() -> None:
    files = [File("a", "", b"a" * 1234), None, File("c", "", b"cc")]
    result = upload_result(upload(), prepared("a", "b", "c").with_notes("An earlier note."), files)
    assert result.value == {
        "artifacts": [
            {"id": "a" * 32, "name": "a", "expires_in": 3600, "uploaded": True},
            {"id": "b" * 32, "name": "b", "expires_in": 3600, "presigned_post": FORM},
            {"id": "c" * 32, "name": "c", "expires_in": 3600, "uploaded": True},
        ]
    }
    assert parse(result.text) == result.value
    assert result.notes == (
        "Uploaded: a (1,234 bytes), c (2 bytes). Now attach the uploaded files to the run: call "
        "posthog-finalize-direct-uploads-task-run with id, name, type and storage_path of each.",
        "An earlier note.",
    )


def test_other_items_of_the_response_are_unchanged() -> None:
    result = CallResult.from_value({"artifacts": [None, "text"]})
    assert upload_result(upload(), result, [None, None]).value == result.value


def test_note_without_hint_lists_the_uploaded_files() -> None:
    plain = Upload(("f",), "content", "encoding", "size", "name", "type", ("f",), "form")
    assert upload_result(plain, CallResult.from_value({"f": {"form": FORM}}), [File("a", "", b"abc")]).notes == (
        "Uploaded: a (3 bytes).",
    )
    assert upload_result(plain, CallResult.from_value({"f": {"form": FORM}}), [File("a", "", b"a")]).notes == (
        "Uploaded: a (1 byte).",
    )


@pytest.mark.parametrize("names", ["prefixed", "spec"])
def test_upload_hint_names_a_listed_tool(names: Any) -> None:
    tools = load_tools([], names=names)
    (tool,) = [tool for tool in tools if tool.operation.upload]
    assert tool.operation.upload is not None
    finalize = "finalize-direct-uploads-task-run"
    wanted = finalize if names == "spec" else f"posthog-{finalize}"
    assert f"call {wanted} with" in tool.operation.upload.hint
    assert wanted in {listed.name for listed in tools}
