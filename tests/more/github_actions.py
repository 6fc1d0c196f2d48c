"""GitHub's REST API for Actions, with one repository.

Literals are from the OpenAPI description github-repo-actions-api 1.1.4 (components/schemas) and docs.github.com/rest.
"""

import math
import time
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from tests.more.provider import Json, NotFound, ScriptedProvider, advance, now

KEY = "ghp_simulated"
REPOSITORY = "/repos/octocat/hello-world/actions"
RUN = 30433642  # of the first run; the next ones follow, and the only job of a run has its id and a zero
SCRIPTS = {
    "main.yaml": ["queued", "in_progress", "success"],
    "fail.yaml": ["queued", "in_progress", "failure"],
    "slow.yaml": ["queued", "in_progress"],
}
"""By the file of a workflow, the statuses of its runs and then the conclusion."""
ACTIVE = {"queued", "in_progress"}
LOG = "\n".join(
    [
        *(f"2026-04-17T12:00:00.{number:07}Z ok {number}" for number in range(1, 61)),
        "2026-04-17T12:00:01.0000000Z \x1b[31mnot ok 61 adds numbers\x1b[0m",
        "2026-04-17T12:00:01.1000000Z ##[error]Process completed with exit code 1.",
        "2026-04-17T12:00:02.0000000Z Post job cleanup.",
        *(f"2026-04-17T12:00:03.{number:07}Z [command]/usr/bin/git config {number}" for number in range(50)),
        "2026-04-17T12:00:04.0000000Z Cleaning up orphan processes",
        "",
    ]
)
"""A failed job's log, which ends with what the runner cleans up. docs.github.com/actions: Workflow commands"""


class GitHubActions(ScriptedProvider):
    """Runs by workflow: one that succeeds, one that fails, one that goes on.

    Older servers have no `returns_run_details`. `limited` are the headers of a response to reads when the rate limit is
    used up.
    """

    name = "github-actions"
    environment: ClassVar = {"GITHUB_TOKEN": KEY, "GITHUB_API_URL": "{origin}"}
    authorization = f"Bearer {KEY}"
    error_member = "message"
    messages = ("Bad credentials", "Not Found")
    public = ("/signedlogcontent",)

    def __init__(self, *, returns_run_details: bool = True) -> None:
        self.limited: list[dict[str, str]] = []
        self._returns_run_details = returns_run_details
        self.runs: list[Json] = []
        self._scripts: dict[str, list[str]] = {}
        run, job = f"{REPOSITORY}/runs/{{run_id}}", f"{REPOSITORY}/jobs/{{run_id}}0"
        super().__init__(
            [
                ("GET", "/user", self._get_user),
                ("GET", f"{REPOSITORY}/workflows", self._list_workflows),
                ("POST", f"{REPOSITORY}/workflows/{{workflow}}/dispatches", self._dispatch),
                ("GET", f"{REPOSITORY}/workflows/{{workflow}}/runs", self._list_runs),
                ("GET", f"{REPOSITORY}/runs", self._list_runs),
                ("GET", run, self._get_run),
                ("GET", f"{run}/jobs", self._list_jobs),
                ("POST", f"{run}/cancel", self._cancel),
                ("POST", f"{run}/rerun", self._rerun),
                ("POST", f"{run}/rerun-failed-jobs", self._rerun),
                ("GET", job, self._get_job),
                ("GET", f"{job}/logs", self._get_log),
                ("POST", f"{job}/rerun", self._rerun),
                ("GET", "/signedlogcontent", self._signed_log),
            ]
        )

    def add(self, workflow: str, user: str = "octocat") -> str:
        """Add a queued run of a workflow that a user has started, and return its id as text."""
        run_id = RUN + len(self.runs)
        url = f"https://github.com/octocat/hello-world/actions/runs/{run_id}"
        run = {
            "id": run_id,
            "path": f".github/workflows/{workflow}",
            "run_attempt": 1,
            "html_url": url,
            "node_id": "MDE",
            "actor": {"login": user, "id": 1},
        }
        times = dict.fromkeys(("created_at", "updated_at", "run_started_at"), now())
        self.runs.insert(0, {**run, **times, "event": "workflow_dispatch", "head_branch": "main"})
        self._scripts[str(run_id)] = [*SCRIPTS[workflow]]
        return str(run_id)

    def end(self, run_id: str, conclusion: str) -> None:
        """End a run."""
        self._scripts[run_id] = [conclusion]

    def end_after_read(self, run_id: str, conclusion: str) -> None:
        """End a run after it was read once more."""
        self._scripts[run_id] = ["in_progress", conclusion]

    def limit(self, headers: dict[str, str], seconds: float) -> None:
        """Refuse the next read of a run for so long."""
        reset = math.ceil(time.time() + seconds)
        self.limited.append({name: text.format(reset=reset) for name, text in headers.items()})

    def _show(self, run: Json) -> Json:
        """Return a run with its status and its conclusion."""
        status = self._scripts[str(run["id"])][0]
        is_active = status in ACTIVE
        return {**run, "status": status if is_active else "completed", "conclusion": None if is_active else status}

    def _find(self, run_id: str) -> Json:
        for run in self.runs:
            if str(run["id"]) == run_id:
                return self._show(run)
        raise NotFound

    def _page(self, request: Request, name: str, items: list[Json]) -> Response:
        size, page = (int(request.query_params.get(key, default)) for key, default in (("per_page", 30), ("page", 1)))
        next_url = request.url.include_query_params(page=page + 1)
        headers = {"Link": f'<{next_url}>; rel="next"'} if len(items) > size * page else {}
        return JSONResponse({"total_count": len(items), name: items[size * (page - 1) : size * page]}, headers=headers)

    async def _get_user(self, _: Request) -> Response:
        return JSONResponse({"login": "octocat", "id": 1})

    async def _list_workflows(self, request: Request) -> Response:
        named = enumerate(SCRIPTS, 161335)
        workflows: list[Json] = [{"id": n, "path": f".github/workflows/{name}", "state": "active"} for n, name in named]
        return self._page(request, "workflows", workflows)

    async def _dispatch(self, request: Request, workflow: str) -> Response:
        body = await request.json()
        if workflow not in SCRIPTS:
            return self.not_found()
        if body["ref"] != "main":
            return self.error(422, f"No ref found for: {body['ref']}")
        run_id = int(self.add(workflow))
        if not (body.get("return_run_details") and self._returns_run_details):
            return Response(status_code=204)
        return JSONResponse({"workflow_run_id": run_id, "html_url": self.runs[0]["html_url"]})

    async def _list_runs(self, request: Request, workflow: str = "") -> Response:
        if workflow and workflow not in SCRIPTS:
            return self.not_found()
        query = request.query_params
        status, actor = query.get("status"), query.get("actor")
        runs = [self._show(run) for run in self.runs if run["path"].endswith(workflow)]
        runs = [run for run in runs if status in (None, run["status"], run["conclusion"])]
        return self._page(request, "workflow_runs", [run for run in runs if actor in (None, run["actor"]["login"])])

    async def _get_run(self, _: Request, run_id: str) -> Response:
        if self.limited:
            body = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}
            return JSONResponse(body, 403, headers=self.limited.pop(0))
        run = self._find(run_id)
        advance(self._scripts[run_id])
        return JSONResponse(run)

    def _job(self, run: Json) -> Json:
        conclusion = run["conclusion"]
        results = ["success", conclusion, "skipped" if conclusion == "failure" else conclusion]
        names = enumerate(["Set up job", "Run npm test", "Upload"])
        steps = [{"number": n + 1, "name": t, "status": run["status"], "conclusion": results[n]} for n, t in names]
        shared = {name: run[name] for name in ("status", "conclusion", "run_attempt")}
        return {"id": run["id"] * 10, "run_id": run["id"], "name": "test-coverage", "steps": steps, **shared}

    async def _list_jobs(self, request: Request, run_id: str) -> Response:
        return self._page(request, "jobs", [self._job(self._find(run_id))])

    async def _get_job(self, _: Request, run_id: str) -> Response:
        return JSONResponse(self._job(self._find(run_id)))

    async def _get_log(self, _: Request, run_id: str) -> Response:
        return RedirectResponse(f"/signedlogcontent?urlSignature={run_id}", 302)

    async def _signed_log(self, request: Request) -> Response:
        has_credential = "authorization" in request.headers
        return PlainTextResponse("InvalidAuthenticationInfo", 400) if has_credential else PlainTextResponse(LOG)

    async def _cancel(self, _: Request, run_id: str) -> Response:
        run = self._find(run_id)
        if run["status"] == "completed":
            return self.error(409, "Cannot cancel a workflow run that is completed.")
        self._scripts[run_id] = [run["status"], "cancelled"]  # asynchronous: the next read still shows it active
        return JSONResponse({}, 202)

    async def _rerun(self, _: Request, run_id: str) -> Response:
        run = self._find(run_id)
        if run["status"] != "completed":
            return self.error(403, "This workflow is already running")
        next(item for item in self.runs if str(item["id"]) == run_id)["run_attempt"] += 1
        self._scripts[run_id] = [run["conclusion"], *SCRIPTS["main.yaml"]]  # leaves its status a moment later
        return JSONResponse({}, 201)
