"""A streamable HTTP host reduced to the socket: keep-alive connections, both protocol eras, and no SDK."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

from harness import CLIENT, HANDSHAKE_VERSION, INITIALIZE, INITIALIZED, BenchmarkError, Json, encode_request

MODERN_VERSION = "2026-07-28"
ENVELOPE: Json = {
    "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": CLIENT,
}


@dataclass(frozen=True)
class HttpResponse:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One keep-alive connection to /mcp."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def post(self, headers: str, body: bytes) -> HttpResponse:
        head = (
            "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:1\r\ncontent-type: application/json\r\n"
            f"accept: application/json, text/event-stream\r\n{headers}content-length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answer_headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            answer_headers[name.lower()] = value.strip()
        if answer_headers.get("transfer-encoding") == "chunked":
            answer = await self.read_chunks()
        else:
            answer = await self.reader.readexactly(int(answer_headers.get("content-length", 0)))
        return HttpResponse(int(lines[0].split()[1]), answer_headers, answer)

    async def read_chunks(self) -> bytes:
        chunks: list[bytes] = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            chunks.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return b"".join(chunks)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass(frozen=True)
class Session:
    """How to call a tool at one server in one era: a session of 2025-11-25, or the envelope of 2026-07-28."""

    port: int
    era: str
    headers: str

    @classmethod
    async def open(cls, port: int, era: str, tool: str) -> "Session":
        if era == MODERN_VERSION:
            names = f"mcp-protocol-version: {era}\r\nmcp-method: tools/call\r\nmcp-name: {tool}\r\n"
            return cls(port, era, names)
        connection = await Connection.open(port)
        answer = await connection.post("", encode_request(0, "initialize", INITIALIZE))
        session_id = answer.headers.get("mcp-session-id")
        if answer.status != 200 or not session_id:
            raise BenchmarkError(f"initialize was answered with {answer}")
        headers = f"mcp-protocol-version: {HANDSHAKE_VERSION}\r\nmcp-session-id: {session_id}\r\n"
        if (answer := await connection.post(headers, INITIALIZED)).status != 202:
            raise BenchmarkError(f"notifications/initialized was answered with {answer}")
        await connection.close()
        return cls(port, era, headers)

    async def call(self, connection: Connection, request_id: int, params: Json) -> tuple[Json, int]:
        """Call the tool: the JSON-RPC answer, and the bytes of the body that it came in."""
        if self.era == MODERN_VERSION:
            params = params | {"_meta": ENVELOPE}
        answer = await connection.post(self.headers, encode_request(request_id, "tools/call", params))
        if answer.status != 200:
            raise BenchmarkError(f"tools/call was answered with {answer}")
        return self.read_message(answer, request_id), len(answer.body)

    def read_message(self, answer: HttpResponse, request_id: int) -> Json:
        if answer.headers["content-type"].startswith("application/json"):
            message: Any = json.loads(answer.body)
            if message.get("id") == request_id:
                return dict(message)
        for line in answer.body.splitlines():
            if line.startswith(b"data:") and (data := line[5:].strip()):
                message = json.loads(data)
                if message.get("id") == request_id:
                    return dict(message)
        raise BenchmarkError(f"no answer to {request_id} in {answer}")
