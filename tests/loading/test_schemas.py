"""The published JSON Schemas of capability files and overlays."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mcp_taskruns.cli import run
from mcp_taskruns.core.format.overlay_spec import validate_overlay
from mcp_taskruns.core.format.spec import parse_capability
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.files import builtin_capabilities, capability_files
from mcp_taskruns.loading.schemas import SchemaName, build_schema, format_schema, keyword_table
from mcp_taskruns.loading.yaml import read_document
from tests.core.documents import document

Json = dict[str, Any]
NAMES: tuple[SchemaName, ...] = ("capability", "overlay")
VALIDATORS = {name: Draft202012Validator(build_schema(name)) for name in NAMES}
TESTS = Path(__file__).parents[1]
OVERLAYS = sorted([*builtin_capabilities().glob("overlays/*.yaml"), *TESTS.glob("**/capabilities/overlays/*.yaml")])
CAPABILITIES = sorted([*builtin_capabilities().glob("*.yaml"), *TESTS.glob("**/capabilities/*.yaml")])


@pytest.mark.parametrize("name", NAMES)
def test_committed_schema_is_up_to_date(name: SchemaName) -> None:
    path = builtin_capabilities() / "schemas" / f"{name}.schema.json"
    command = f"mcp-taskruns schema {name} > capabilities/schemas/{path.name}"
    assert path.read_text(encoding="utf-8") == format_schema(name), f"run `{command}`"


@pytest.mark.parametrize("name", NAMES)
def test_command_prints_the_schema(name: SchemaName, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", name]) == 0
    assert json.loads(capsys.readouterr().out) == build_schema(name)


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_valid_and_describes_every_model(name: SchemaName) -> None:
    schema = build_schema(name)
    Draft202012Validator.check_schema(schema)
    assert [key for key, part in schema["$defs"].items() if "properties" in part and not part.get("description")] == []


def test_schemas_folder_is_not_a_capability_folder() -> None:
    assert [path.parent.name for path in capability_files([]) if path.parent.name == "schemas"] == []


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: f"{path.parts[-4]} {path.stem}")
def test_overlay_matches_the_schema(path: Path) -> None:
    assert [error.message for error in VALIDATORS["overlay"].iter_errors(read_document(path))] == []


@pytest.mark.parametrize("path", CAPABILITIES, ids=lambda path: f"{path.parts[-3]} {path.stem}")
def test_capability_file_matches_the_schema(path: Path) -> None:
    read = read_document(path)
    parse_capability(read, path.name)
    assert [error.message for error in VALIDATORS["capability"].iter_errors(read)] == []


@pytest.mark.parametrize("path", capability_files([]), ids=lambda path: path.stem)
def test_builtin_files_reference_their_schemas(path: Path) -> None:
    comment = "# yaml-language-server: $schema="
    for file, schema in (
        (path, "schemas/capability.schema.json"),
        (path.parent / "overlays" / path.name, "../schemas/overlay.schema.json"),
    ):
        assert file.read_text(encoding="utf-8").partition("\n")[0] == f"{comment}{schema}"
        assert (file.parent / schema).is_file()


def test_keyword_table_has_key_type_and_meaning() -> None:
    rows = keyword_table("PagingKeywords").splitlines()
    assert rows[0] == "| keyword | type | meaning |"
    assert "| `default_page_size` (required) | integer | The page size without that argument, in items. |" in rows
    assert "| `total` | string or `{header: name}` | The number of items of all pages. |" in rows
    assert "| `when` | mapping | Which events hold a run; default: all. |" in keyword_table("RunStreamKeywords")
    assert "| `applies_to` | `reads`, `writes`, `all` |" in keyword_table("RateLimit")
    assert "| `start` | mapping of mapping | By the name of the operation. |" in keyword_table("RunsKeywords")


def consumes(**keys: Any) -> Json:
    return {"overlay": 2, "capability": {"consumes": {"things": keys}}}


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param({"prefix": "a"}, id="no version"),
        pytest.param({"overlay": 1}, id="other version"),
        pytest.param({"overlay": 2, "prefx": "a"}, id="misspelled key"),
        pytest.param({"overlay": 2, "capability": {"consumes": [{"namespace": "things"}]}}, id="list"),
        pytest.param(consumes(resources={}), id="resources"),
        pytest.param(consumes(operations={"get": {"timeout": 5}}), id="old keyword"),
        pytest.param(consumes(operations={"get": {"timeout_seconds": 0}}), id="timeout of 0"),
        pytest.param(consumes(operations={"get": {"paging": {}}}), id="missing keyword"),
        pytest.param(consumes(errors=[{"status": 404}]), id="list of error rules"),
        pytest.param(consumes(errors={"a": {"kind": "odd"}}), id="unknown kind"),
        pytest.param(consumes(rate_limits=[{"requests": 1}]), id="rate limit without period"),
        pytest.param(
            consumes(runs={"read": {"operation": "get"}, "fields": {}, "statuses": {"cancelled": ["x"]}}),
            id="unknown status",
        ),
    ],
)
def test_mistake_in_an_overlay_is_rejected_by_schema_and_loader(overlay: Json) -> None:
    assert list(VALIDATORS["overlay"].iter_errors(overlay))
    with pytest.raises(CapabilityError):
        validate_overlay(overlay, "overlays/f.yaml")


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param({"overlay": 2}, id="empty"),
        pytest.param(consumes(authentication=None, runs=None, operations={"get": None}, errors={"a": None}), id="null"),
        pytest.param(consumes(operations={"get": {"redact": "$.token", "notes": [{"text": "x"}]}}), id="keywords"),
        pytest.param({"overlay": 2, "binds": {"env": {"keys": {"A": ["B", "C"], "D": "E"}}}}, id="binds"),
    ],
)
def test_valid_overlay_is_accepted_by_schema_and_loader(overlay: Json) -> None:
    assert [error.message for error in VALIDATORS["overlay"].iter_errors(overlay)] == []
    validate_overlay(overlay, "overlays/f.yaml")


def without_version() -> Json:
    return {key: value for key, value in document().items() if key != "naftiko"}


def with_consumes(value: Any) -> Json:
    return {**document(), "capability": {"consumes": value}}


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(without_version(), id="no version"),
        pytest.param(with_consumes("none"), id="text instead of a list"),
        pytest.param(with_consumes([{"baseUri": ["https://a.example"]}]), id="list instead of text"),
        pytest.param(
            with_consumes([{"resources": [{"operations": [{"method": "GET"}]}]}]), id="operation without name"
        ),
        pytest.param(document(tool={"hints": ["readOnly"]}), id="list of hints"),
        pytest.param({**document(), "binds": [{"keys": 5}]}, id="number instead of keys"),
        pytest.param({**document(), "capability": {"exposes": [{"namespace": "mcp"}]}}, id="adapter without type"),
    ],
)
def test_mistake_in_a_capability_file_is_rejected_by_schema_and_loader(given: Json) -> None:
    assert list(VALIDATORS["capability"].iter_errors(given))
    with pytest.raises(CapabilityError):
        parse_capability(given, "f.yaml")
