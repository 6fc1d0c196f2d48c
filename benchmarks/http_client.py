"""A minimal MCP client on streamable HTTP, without an SDK: keep-alive connections, both protocol versions."""

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
    """A response with header names in lower case."""

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
        """Send a request and read its whole response."""
        head = (
            "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:1\r\ncontent-type: application/json\r\n"
            f"accept: application/json, text/event-stream\r\n{headers}content-length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        response_headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            response_headers[name.lower()] = value.strip()
        if response_headers.get("transfer-encoding") == "chunked":
            content = await self.read_chunks()
        else:
            content = await self.reader.readexactly(int(response_headers.get("content-length", 0)))
        return HttpResponse(int(lines[0].split()[1]), response_headers, content)

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
    """A session of protocol version 2025-11-25, or the envelope of 2026-07-28, for calls of one tool."""

    port: int
    version: str
    headers: str

    @classmethod
    async def open(cls, port: int, version: str, tool: str) -> "Session":
        if version == MODERN_VERSION:
            names = f"mcp-protocol-version: {version}\r\nmcp-method: tools/call\r\nmcp-name: {tool}\r\n"
            return cls(port, version, names)
        connection = await Connection.open(port)
        response = await connection.post("", encode_request(0, "initialize", INITIALIZE))
        session_id = response.headers.get("mcp-session-id")
        if response.status != 200 or not session_id:
            raise BenchmarkError(f"unexpected response to initialize: {response}")
        headers = f"mcp-protocol-version: {HANDSHAKE_VERSION}\r\nmcp-session-id: {session_id}\r\n"
        if (response := await connection.post(headers, INITIALIZED)).status != 202:
            raise BenchmarkError(f"unexpected response to notifications/initialized: {response}")
        await connection.close()
        return cls(port, version, headers)

    async def call(self, connection: Connection, request_id: int, params: Json) -> tuple[Json, int]:
        """Call the tool. Return the JSON-RPC message and the size of the response body in bytes."""
        if self.version == MODERN_VERSION:
            params = params | {"_meta": ENVELOPE}
        response = await connection.post(self.headers, encode_request(request_id, "tools/call", params))
        if response.status != 200:
            raise BenchmarkError(f"unexpected response to tools/call: {response}")
        return self.read_message(response, request_id), len(response.body)

    def read_message(self, response: HttpResponse, request_id: int) -> Json:
        """Return the response message from a JSON or SSE body."""
        if response.headers["content-type"].startswith("application/json"):
            message: Any = json.loads(response.body)
            if message.get("id") == request_id:
                return dict(message)
        for line in response.body.splitlines():
            if line.startswith(b"data:") and (data := line[5:].strip()):
                message = json.loads(data)
                if message.get("id") == request_id:
                    return dict(message)
        raise BenchmarkError(f"no message with id {request_id} in {response}")
