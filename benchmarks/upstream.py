"""A provider with minimal overhead: Render's "retrieve task run" over keep-alive HTTP/1.1, with prepared responses.

It prints its port and serves until it is terminated:
    GET /v1/task-runs/<id>      a run, about 400 bytes; `trn-big`: 112 KB; 401 without the benchmark's key
    GET /requests               the number of runs that it has sent
"""

import asyncio
import json
from typing import Any, ClassVar

KEY = "rnd_bench"
SMALL_ID = "trn-d4kq5m6uk2gs73f3v0bg"
BIG_ID = "trn-big"
BIG_BYTES = 112 * 1024
RUNS = "/v1/task-runs/"


def describe_run(run_id: str) -> dict[str, Any]:
    """Return a small run."""
    return {
        "id": run_id,
        "taskId": "tsk-d4kq5m6uk2gs73f3v0ag",
        "status": "completed",
        "results": [{"ok": True, "rows": 1204}],
        "input": ["orders", 1204],
        "parentTaskRunId": "",
        "rootTaskRunId": run_id,
        "retries": 0,
        "startedAt": "2026-07-28T09:30:00.000Z",
        "completedAt": "2026-07-28T09:30:07.250Z",
        "attempts": [
            {
                "attempt": 0,
                "status": "completed",
                "startedAt": "2026-07-28T09:30:00.000Z",
                "completedAt": "2026-07-28T09:30:07.250Z",
            }
        ],
    }


def describe_big_run() -> dict[str, Any]:
    """Return a run with a list of summaries, so that its JSON is 112 KB."""
    run = describe_run(BIG_ID)
    summary = (
        "Compared the order with its invoice and shipment; totals agree, nothing is left to do for this customer. "
    )
    entry = {"order": 100_000, "status": "done", "summary": summary * 3}
    missing = BIG_BYTES - len(encode(run))
    run["results"] += [entry | {"order": 100_000 + n} for n in range(missing // (len(encode(entry)) + 1))]
    run["error"] = ""
    run["error"] = "x" * (BIG_BYTES - len(encode(run)))
    return run


def encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def build_response(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Upstream(asyncio.Protocol):
    """One connection. The counter and the prepared responses are shared by all connections."""

    runs_sent = 0
    responses: ClassVar[dict[str, bytes]] = {BIG_ID: build_response("200 OK", encode(describe_big_run()))}
    credential = f"authorization: bearer {KEY}\r\n".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.unread = b""

    def data_received(self, data: bytes) -> None:
        *heads, self.unread = (self.unread + data).split(b"\r\n\r\n")
        for head in heads:
            self.transport.write(self.respond(head + b"\r\n"))

    def respond(self, head: bytes) -> bytes:
        path = head.split(b" ", 2)[1].decode()
        if path == "/requests":
            return build_response("200 OK", encode(Upstream.runs_sent))
        if not path.startswith(RUNS):
            return build_response("404 Not Found", encode({"message": "not found"}))
        if self.credential not in head.lower():
            return build_response("401 Unauthorized", encode({"message": "unauthorized"}))
        Upstream.runs_sent += 1
        run_id = path.removeprefix(RUNS)
        if run_id not in self.responses:
            self.responses[run_id] = build_response("200 OK", encode(describe_run(run_id)))
        return self.responses[run_id]


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
