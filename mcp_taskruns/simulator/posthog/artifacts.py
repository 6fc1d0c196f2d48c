"""The artifacts of a run: upload in a body or directly to storage, manifest, download."""

import base64
import re
from typing import Any

from starlette.responses import JSONResponse, Response

from mcp_taskruns.simulator.posthog.data import Run
from mcp_taskruns.simulator.posthog.errors import task_run_error, validation_error
from mcp_taskruns.simulator.posthog.operations import Call, Operation
from mcp_taskruns.simulator.posthog.project import Project
from mcp_taskruns.simulator.posthog.storage import EXPIRES_IN
from mcp_taskruns.simulator.posthog.validation import Field

MAX_SIZE = 31_457_280
TYPES = ("plan", "context", "reference", "output", "artifact", "tree_snapshot", "user_attachment", "skill_bundle")

_NAME_FIELDS = {
    "name": Field(required=True, blank=False, max_length=255),
    "type": Field(required=True, choices=TYPES),
    "source": Field(default="", max_length=64),
    "content_type": Field(default="", max_length=255),
}
_CONTENT_FIELDS = {
    "content": Field(required=True),
    "content_encoding": Field(default="utf-8", choices=("utf-8", "base64")),
}
_SIZE_FIELDS = {"size": Field("integer", required=True, minimum=1, maximum=MAX_SIZE)}
_LOCATION_FIELDS = {"id": Field(required=True, blank=False), "storage_path": Field(required=True, max_length=500)}


def _artifacts(*parts: dict[str, Field]) -> dict[str, Field]:
    items = {name: field for part in parts for name, field in part.items()}
    return {"artifacts": Field("list", required=True, items=items)}


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("\\", "/").rpartition("/")[2]) or "artifact"


def _new_location(project: Project, run: Run, name: str) -> tuple[str, str, str]:
    """Return a new id, the sanitized name and the storage path that contains both."""
    artifact_id, safe = project.new_id().hex, _safe_name(name)
    return artifact_id, safe, f"{run.artifact_prefix}{artifact_id[:8]}_{safe}"


def _manifest_entry(artifact_id: str, name: str, artifact: dict[str, Any], size: int, path: str) -> dict[str, Any]:
    return {
        "id": artifact_id,
        "name": name,
        "type": artifact["type"],
        "source": artifact["source"],
        "size": size,
        "content_type": artifact["content_type"],
        "storage_path": path,
    }


def missing_artifacts(run: Run, artifact_ids: list[str]) -> list[str]:
    """Return the ids that are not in the manifest of the run."""
    known = {entry["id"] for entry in run.artifacts}
    return [artifact_id for artifact_id in artifact_ids if artifact_id not in known]


def _size_error(name: str) -> str:
    return f"{name} exceeds the {MAX_SIZE // 1024**2}MB attachment limit"


def _decode(artifact: dict[str, Any], attr: str) -> bytes:
    """Return the content of an uploaded artifact. Raises a 400 that names `attr`."""
    try:
        if artifact["content_encoding"] == "base64":
            content = base64.b64decode(artifact["content"], validate=True)
        else:
            content = artifact["content"].encode()
    except ValueError as exc:
        raise validation_error("invalid_input", "Invalid base64 artifact content", attr) from exc
    if len(content) > MAX_SIZE:
        raise validation_error("invalid_input", _size_error(artifact["name"]), attr)
    return content


async def _upload(project: Project, call: Call) -> Response:
    """Add artifacts. The response is the whole manifest, not only the new artifacts."""
    artifacts, now = call.body["artifacts"], project.clock.timestamp()
    contents = [_decode(artifact, f"artifacts__{index}__content") for index, artifact in enumerate(artifacts)]
    for artifact, content in zip(artifacts, contents, strict=True):
        artifact_id, name, path = _new_location(project, call.run, artifact["name"])
        project.storage.put(path, content, artifact["content_type"])
        entry = _manifest_entry(artifact_id, name, artifact, len(content), path)
        call.run.artifacts.append(entry | {"uploaded_at": now})
    call.run.updated_at = now
    return JSONResponse({"artifacts": call.run.artifacts})


async def _prepare(project: Project, call: Call) -> Response:
    prepared = []
    for artifact in call.body["artifacts"]:
        artifact_id, name, path = _new_location(project, call.run, artifact["name"])
        form = project.storage.presigned_post(call.base, path, artifact["size"])
        entry = _manifest_entry(artifact_id, name, artifact, artifact["size"], path)
        prepared.append(entry | {"expires_in": EXPIRES_IN, "presigned_post": form})
    return JSONResponse({"artifacts": prepared})


async def _finalize(project: Project, call: Call) -> Response:
    """Add uploaded objects to the manifest. The response has the requested entries, new or existing, and no others."""
    run = call.run
    # PostHog saves the manifest at the end, so one invalid artifact leaves it unchanged.
    manifest = list(run.artifacts)
    finalized = []
    for artifact in call.body["artifacts"]:
        path = artifact["storage_path"]
        if not path.startswith(run.artifact_prefix) or f"/{artifact['id'][:8]}_" not in path:
            raise task_run_error(400, "Artifact storage path is invalid for this run")
        entry = next(
            (known for known in manifest if artifact["id"] == known["id"] or path == known["storage_path"]), None
        )
        if entry is None:
            entry = _uploaded_entry(project, artifact)
            manifest.append(entry)
        finalized.append(entry)
    run.artifacts[:] = manifest
    run.updated_at = project.clock.timestamp()
    return JSONResponse({"artifacts": finalized})


def _uploaded_entry(project: Project, artifact: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest entry of an object in storage. Raises a 400 if it is missing or too large."""
    path = artifact["storage_path"]
    if path not in project.storage.objects:
        raise task_run_error(400, "Artifact upload not found in object storage")
    stored, name = project.storage.objects[path], _safe_name(artifact["name"])
    if len(stored.content) > MAX_SIZE:
        raise task_run_error(400, _size_error(name))
    stored.content_type = artifact["content_type"] or stored.content_type
    entry = _manifest_entry(artifact["id"], name, artifact, len(stored.content), path)
    return entry | {"content_type": stored.content_type, "uploaded_at": project.clock.timestamp()}


def _find(runs: list[Run], path: str) -> dict[str, Any]:
    for run in runs:
        for entry in run.artifacts:
            if entry["storage_path"] == path:
                return entry
    raise task_run_error(404, "Artifact not found on this run")


async def _presign(project: Project, call: Call) -> Response:
    path = call.body["storage_path"]
    _find([call.run], path)
    return JSONResponse({"url": project.storage.presigned_url(call.base, path), "expires_in": EXPIRES_IN})


async def _download(project: Project, call: Call) -> Response:
    """Return the bytes of an artifact of this run or of one that it resumes from, with the artifact's content type."""
    path = call.body["storage_path"]
    entry = _find(project.resume_chain(call.run), path)
    if path not in project.storage.objects:
        raise task_run_error(404, "Artifact content not found")
    headers = {
        # Set the header directly, because Starlette adds a charset to the media type of text.
        "Content-Type": entry["content_type"] or "application/octet-stream",
        "Cache-Control": "no-cache",
        "Content-Disposition": f'attachment; filename="{entry["name"]}"',
    }
    return Response(project.storage.read(path), headers=headers)


_PATH_FIELDS = {"storage_path": Field(required=True, max_length=500)}

UPLOAD = Operation(_upload, body=_artifacts(_NAME_FIELDS, _CONTENT_FIELDS))
PREPARE_UPLOAD = Operation(_prepare, body=_artifacts(_NAME_FIELDS, _SIZE_FIELDS))
FINALIZE_UPLOAD = Operation(_finalize, body=_artifacts(_NAME_FIELDS, _LOCATION_FIELDS))
PRESIGN = Operation(_presign, "task:read", body=_PATH_FIELDS)
DOWNLOAD = Operation(_download, "task:read", body=_PATH_FIELDS)
