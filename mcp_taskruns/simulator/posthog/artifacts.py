"""The files of a run: uploaded in a body or straight to storage, listed in the run's manifest, read back."""

import base64
import re
from typing import Any

from starlette.responses import JSONResponse, Response

from mcp_taskruns.simulator.posthog.data import Call, Operation, Run, World
from mcp_taskruns.simulator.posthog.http import Field, business_error, invalid
from mcp_taskruns.simulator.posthog.storage import EXPIRES_IN

MAX_SIZE = 31_457_280
TYPES = ("plan", "context", "reference", "output", "artifact", "tree_snapshot", "user_attachment")

_NAMED = {
    "name": Field(required=True, blank=False, max_length=255),
    "type": Field(required=True, choices=TYPES),
    "source": Field(default="", max_length=64),
    "content_type": Field(default="", max_length=255),
}
_CONTENT = {
    "content": Field(required=True),
    "content_encoding": Field(default="utf-8", choices=("utf-8", "base64")),
}
_SIZE = {"size": Field("integer", required=True, minimum=1, maximum=MAX_SIZE)}
_PLACE = {"id": Field(required=True, blank=False), "storage_path": Field(required=True, max_length=500)}


def _artifacts(*parts: dict[str, Field]) -> dict[str, Field]:
    items = {name: field for part in parts for name, field in part.items()}
    return {"artifacts": Field("list", required=True, items=items)}


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("\\", "/").rpartition("/")[2]) or "artifact"


def _new_place(world: World, run: Run, name: str) -> tuple[str, str, str]:
    """A new id, the name as stored, and the storage path made of both."""
    artifact_id, safe = world.new_id().hex, _safe_name(name)
    return artifact_id, safe, f"{run.artifact_prefix}{artifact_id[:8]}_{safe}"


def _entry(artifact_id: str, name: str, given: dict[str, Any], size: int, path: str) -> dict[str, Any]:
    return {
        "id": artifact_id,
        "name": name,
        "type": given["type"],
        "source": given["source"],
        "size": size,
        "content_type": given["content_type"],
        "storage_path": path,
    }


def missing_artifacts(run: Run, artifact_ids: list[str]) -> list[str]:
    known = {entry["id"] for entry in run.artifacts}
    return [artifact_id for artifact_id in artifact_ids if artifact_id not in known]


def _size_error(name: str) -> str:
    return f"{name} exceeds the {MAX_SIZE // 1024**2}MB attachment limit"


async def _upload(world: World, call: Call) -> Response:
    """Answers with the whole manifest, not with what was uploaded now."""
    contents: list[bytes] = []
    for index, given in enumerate(call.body["artifacts"]):
        attr = f"artifacts__{index}__content"
        try:
            is_base64 = given["content_encoding"] == "base64"
            content = base64.b64decode(given["content"], validate=True) if is_base64 else given["content"].encode()
        except ValueError as exc:
            raise invalid("invalid_input", "Invalid base64 artifact content", attr) from exc
        if len(content) > MAX_SIZE:
            raise invalid("invalid_input", _size_error(given["name"]), attr)
        contents.append(content)
    now = world.clock.timestamp()
    for given, content in zip(call.body["artifacts"], contents, strict=True):
        artifact_id, name, path = _new_place(world, call.run, given["name"])
        world.storage.put(path, content, given["content_type"])
        call.run.artifacts.append(_entry(artifact_id, name, given, len(content), path) | {"uploaded_at": now})
    call.run.updated_at = now
    return JSONResponse({"artifacts": call.run.artifacts})


async def _prepare(world: World, call: Call) -> Response:
    prepared = []
    for given in call.body["artifacts"]:
        artifact_id, name, path = _new_place(world, call.run, given["name"])
        form = world.storage.presigned_post(call.base, path, given["size"])
        entry = _entry(artifact_id, name, given, given["size"], path)
        prepared.append(entry | {"expires_in": EXPIRES_IN, "presigned_post": form})
    return JSONResponse({"artifacts": prepared})


async def _finalize(world: World, call: Call) -> Response:
    """Answers with the entries asked for, new or already there, and not with the whole manifest."""
    run, now = call.run, world.clock.timestamp()
    # PostHog saves the manifest at the end: one bad artifact in the list leaves it as it was.
    added: list[dict[str, Any]] = []
    finalized = []
    for given in call.body["artifacts"]:
        path = given["storage_path"]
        if not path.startswith(run.artifact_prefix) or f"/{given['id'][:8]}_" not in path:
            raise business_error(400, "Artifact storage path is invalid for this run")
        existing = next(
            (one for one in run.artifacts + added if one["id"] == given["id"] or one["storage_path"] == path), None
        )
        if existing is None:
            if path not in world.storage.objects:
                raise business_error(400, "Artifact upload not found in object storage")
            stored, name = world.storage.objects[path], _safe_name(given["name"])
            if len(stored.content) > MAX_SIZE:
                raise business_error(400, _size_error(name))
            stored.content_type = given["content_type"] or stored.content_type
            entry = _entry(given["id"], name, given, len(stored.content), path)
            existing = entry | {"content_type": stored.content_type, "uploaded_at": now}
            added.append(existing)
        finalized.append(existing)
    run.artifacts.extend(added)
    run.updated_at = now
    return JSONResponse({"artifacts": finalized})


def _find(runs: list[Run], path: str) -> dict[str, Any]:
    for run in runs:
        for entry in run.artifacts:
            if entry["storage_path"] == path:
                return entry
    raise business_error(404, "Artifact not found on this run")


async def _presign(world: World, call: Call) -> Response:
    path = call.body["storage_path"]
    _find([call.run], path)
    return JSONResponse({"url": world.storage.presigned_url(call.base, path), "expires_in": EXPIRES_IN})


async def _download(world: World, call: Call) -> Response:
    """Raw bytes under the artifact's own content type; looks in the runs that this one resumes from, too."""
    path = call.body["storage_path"]
    entry = _find(world.resume_chain(call.run), path)
    if path not in world.storage.objects:
        raise business_error(404, "Artifact content not found")
    headers = {
        # As a header, because Starlette would add a charset to text.
        "Content-Type": entry["content_type"] or "application/octet-stream",
        "Cache-Control": "no-cache",
        "Content-Disposition": f'attachment; filename="{entry["name"]}"',
    }
    return Response(world.storage.read(path), headers=headers)


_PATH = {"storage_path": Field(required=True, max_length=500)}

UPLOAD = Operation(_upload, body=_artifacts(_NAMED, _CONTENT))
PREPARE_UPLOAD = Operation(_prepare, body=_artifacts(_NAMED, _SIZE))
FINALIZE_UPLOAD = Operation(_finalize, body=_artifacts(_NAMED, _PLACE))
PRESIGN = Operation(_presign, "task:read", body=_PATH)
DOWNLOAD = Operation(_download, "task:read", body=_PATH)
