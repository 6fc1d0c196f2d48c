"""A provider that costs next to nothing: Render's "retrieve task run" over raw keep-alive HTTP/1.1.

It prints its port and answers until it is ended:
    GET /v1/task-runs/<id>      a run, about 400 bytes; `trn-big`: 112 KB; 401 without the benchmark's key
    GET /requests               how many of those it has answered
"""

import asyncio
import json
from typing import Any, ClassVar

KEY = "rnd_bench"
BIG_ID = "trn-big"
BIG_BYTES = 112 * 1024
RUNS = "/v1/task-runs/"


def describe_run(run_id: str) -> dict[str, Any]:
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
    """A run whose results are a list of summaries, as long as needed to make its JSON 112 KB."""
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


def write_answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Upstream(asyncio.Protocol):
    answered = 0
    answers: ClassVar[dict[str, bytes]] = {BIG_ID: write_answer("200 OK", encode(describe_big_run()))}
    credential = f"authorization: bearer {KEY}\r\n".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.unread = b""

    def data_received(self, data: bytes) -> None:
        *heads, self.unread = (self.unread + data).split(b"\r\n\r\n")
        for head in heads:
            self.transport.write(self.answer(head + b"\r\n"))

    def answer(self, head: bytes) -> bytes:
        path = head.split(b" ", 2)[1].decode()
        if path == "/requests":
            return write_answer("200 OK", encode(Upstream.answered))
        if not path.startswith(RUNS):
            return write_answer("404 Not Found", encode({"message": "not found"}))
        if self.credential not in head.lower():
            return write_answer("401 Unauthorized", encode({"message": "unauthorized"}))
        Upstream.answered += 1
        run_id = path.removeprefix(RUNS)
        if run_id not in self.answers:
            self.answers[run_id] = write_answer("200 OK", encode(describe_run(run_id)))
        return self.answers[run_id]


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
