"""Ray Jobs, with a script instead of a command. Responses are those of a Ray 2.60.0 cluster; tracebacks are shorter."""

import json
from time import time_ns
from typing import Any, ClassVar
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.more.provider import Json, ScriptedProvider, advance

TOKEN = "0123456789abcdef0123456789abcdef"
SCRIPTS = {
    "ok": ["PENDING", "RUNNING", "SUCCEEDED"],
    "fail": ["PENDING", "RUNNING", "FAILED"],
    "slow": ["PENDING", "RUNNING"],
    "waiting": ["PENDING"],
}
"""The statuses of a job by its command; that of another command is that of `ok`. `waiting` waits for resources."""
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
LOG = "2026-11-30 17:09:17,215\tINFO job_manager.py:581 -- Runtime env is setting up.\nhi\nerr\n"
MESSAGES = {
    "PENDING": "Job has not started yet.",
    "RUNNING": "Job is currently running.",
    "SUCCEEDED": "Job finished successfully.",
    "FAILED": f"Job entrypoint command failed with exit code 3, last available logs (truncated ...):\n{LOG}",
    "STOPPED": "Job was intentionally stopped.",
}
MEMBERS = {"entrypoint", "submission_id", "job_id", "runtime_env", "metadata", "entrypoint_num_cpus"} | {
    *("entrypoint_num_gpus", "entrypoint_memory", "entrypoint_resources")
}
TRACEBACK = 'Traceback (most recent call last):\n  File "/srv/ray/dashboard/modules/job/job_head.py", line 419, in '


class Ray(ScriptedProvider):
    """The cluster, whose nodes have a token. `bodies` are the received JSON bodies."""

    name = "ray"
    environment: ClassVar = {"RAY_ADDRESS": "{origin}", "RAY_AUTH_TOKEN": TOKEN}
    authorization = f"Bearer {TOKEN}"

    def __init__(self) -> None:
        self.jobs: dict[str, Json] = {}
        self.bodies: list[Any] = []
        self._has_token = False
        super().__init__(
            [
                ("POST", "/api/jobs/", self._submit),
                ("GET", "/api/jobs/", self._list),
                ("GET", "/api/jobs/{job_id}", self._get),
                ("DELETE", "/api/jobs/{job_id}", self._delete),
                ("POST", "/api/jobs/{job_id}/stop", self._stop),
                ("GET", "/api/jobs/{job_id}/logs", self._get_logs),
                ("GET", "/api/version", self._get_version),
            ]
        )

    async def _respond(self, request: Request) -> Response:
        self._has_token = "authorization" in request.headers
        is_browser = {"origin", "sec-fetch-site"} & {*request.headers}
        is_browser |= {"user-agent"} if request.headers.get("user-agent", "").startswith("Mozilla") else set()
        if is_browser and request.method != "GET":
            return self.error(405, f"'{request.method}' method not allowed for browser traffic.")
        if content := await request.body():
            self.bodies.append(json.loads(content))
        return await super()._respond(request)

    def error(self, status: int, message: str) -> Response:
        return PlainTextResponse(message, status)

    def unauthorized(self) -> Response:
        if self._has_token:
            return self.error(403, "Forbidden: Invalid authentication token")
        return self.error(401, "Unauthorized: Missing authentication token")

    def not_found(self) -> Response:
        return self.error(404, "404: Not Found")

    async def _submit(self, _: Request) -> Response:
        body = self.bodies[-1]
        for name in body.keys() - MEMBERS:
            text = f"TypeError: JobSubmitRequest.__init__() got an unexpected keyword argument '{name}'"
            return self.error(400, f"{TRACEBACK}parse_and_validate_request\n{text}\n")
        job_id = body.get("submission_id") or f"raysubmit_{len(self.jobs):016}"
        if job_id in self.jobs:
            text = f"ValueError: Job with submission_id {job_id} already exists. Please use a different submission_id."
            return self.error(500, f"{TRACEBACK}submit_job\n{text}\n.\n")
        job = {"type": "SUBMISSION", "job_id": None, "submission_id": job_id, "entrypoint": body["entrypoint"]}
        job |= {
            "metadata": body.get("metadata"),
            "runtime_env": body.get("runtime_env"),
            "start_time": time_ns() // 1_000_000,
        }
        self.jobs[job_id] = {**job, "script": [*SCRIPTS.get(body["entrypoint"], SCRIPTS["ok"])]}
        return JSONResponse({"job_id": job_id, "submission_id": job_id})

    async def _list(self, _: Request) -> Response:
        return JSONResponse([_show(job) for job in self.jobs.values()])  # all: filters and pages are ignored

    async def _get(self, _: Request, job_id: str) -> Response:
        job = self._find(job_id)
        if job is None:
            return self._unknown(job_id)
        shown = _show(job)
        advance(job["script"])
        return JSONResponse(shown)

    async def _stop(self, _: Request, job_id: str) -> Response:
        """Ask a job to stop. It is stopped when it is read for the second time; one that waits never is."""
        job = self._find(job_id)
        if job is None:
            return self._unknown(job_id)
        if job["script"][0] in ENDED:
            return JSONResponse({"stopped": False})
        if job["entrypoint"] != "waiting":
            job["script"][1:] = ["RUNNING", "STOPPED"]
        return JSONResponse({"stopped": True})

    async def _delete(self, _: Request, job_id: str) -> Response:
        job = self._find(job_id)
        if job is None:
            return self._unknown(job_id)
        if (status := job["script"][0]) not in ENDED:
            text = f"RuntimeError: Attempted to delete job '{job_id}', but it is in a non-terminal state {status}."
            return self.error(500, f"{TRACEBACK}delete_job\n{text}\n.\n")
        del self.jobs[unquote(job_id)]
        return JSONResponse({"deleted": True})

    async def _get_logs(self, _: Request, job_id: str) -> Response:
        job = self._find(job_id)
        if job is None:
            return self._unknown(job_id)
        return JSONResponse({"logs": "" if job["script"][0] == "PENDING" else LOG})

    async def _get_version(self, _: Request) -> Response:
        return JSONResponse({"version": "4", "ray_version": "2.60.0"})

    def _find(self, job_id: str) -> Json | None:
        return self.jobs.get(unquote(job_id))

    def _unknown(self, job_id: str) -> Response:
        return self.error(404, f"Job {unquote(job_id)} does not exist")


def _show(job: Json) -> Json:
    status = job["script"][0]
    failed = {"error_type": "JOB_ENTRYPOINT_COMMAND_ERROR", "driver_exit_code": 3}
    ended: Json = failed if status == "FAILED" else {"driver_exit_code": 0 if status == "SUCCEEDED" else None}
    ended |= {"end_time": job.setdefault("end_time", time_ns() // 1_000_000) if status in ENDED else None}
    shown = {name: value for name, value in job.items() if name != "script"}
    return {**shown, "status": status, "message": MESSAGES[status], "error_type": None, **ended}
