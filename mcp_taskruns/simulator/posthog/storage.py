"""The object storage beside PostHog: presigned GET and POST requests as in S3."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mcp_taskruns.simulator.lifecycle import Clock

EXPIRES_IN = 3600
# PostHog allows this much more than the announced size, for the form fields (products/tasks/backend/api.py).
FORM_OVERHEAD = 64 * 1024
# S3 stores this type if the policy has no Content-Type field. It ignores the Content-Type of the file part.
DEFAULT_CONTENT_TYPE = "binary/octet-stream"


def parse_timestamp(timestamp: str) -> datetime:
    """Parse ISO 8601."""
    return datetime.fromisoformat(timestamp)


@dataclass
class StoredObject:
    """An object and its content type."""

    content: bytearray = field(default_factory=bytearray)
    content_type: str = DEFAULT_CONTENT_TYPE


class Storage:
    """Objects by key, and the two routes that presigned URLs lead to.

    Requests are checked for the signature, the age and, for uploads, the key and length of the policy. Other
    conditions of S3 are not checked. The signatures only detect a changed URL; they protect nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.objects: dict[str, StoredObject] = {}

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the storage."""
        return [
            Route("/storage/", self._accept_upload, methods=["POST"]),
            Route("/storage/{key:path}", self._serve, methods=["GET"]),
        ]

    def put(self, key: str, content: bytes, content_type: str) -> None:
        """Store an object."""
        self.objects[key] = StoredObject(bytearray(content), content_type or DEFAULT_CONTENT_TYPE)

    def append(self, key: str, line: bytes) -> None:
        """Append a line to a JSON Lines object."""
        self.objects.setdefault(key, StoredObject(content_type="application/jsonl")).content += line

    def read(self, key: str) -> bytes:
        """Return the bytes of an object, or no bytes if it does not exist."""
        return bytes(self.objects[key].content) if key in self.objects else b""

    def presigned_url(self, base: str, key: str) -> str:
        """Return a URL that allows a GET of an object for an hour."""
        date = self._clock.timestamp()
        signature = _sign(f"{key} {date}")
        query = f"X-Amz-Date={quote(date)}&X-Amz-Expires={EXPIRES_IN}&X-Amz-Signature={signature}"
        return f"{base}/storage/{quote(key)}?{query}"

    def presigned_post(self, base: str, key: str, size: int) -> dict[str, Any]:
        """Return the URL and form fields that allow an upload of `size` bytes for an hour."""
        conditions = [["content-length-range", 0, size + FORM_OVERHEAD], {"key": key}]
        document = json.dumps({"issued": self._clock.timestamp(), "conditions": conditions})
        policy = base64.b64encode(document.encode()).decode()
        fields = {
            "key": key,
            "x-amz-algorithm": "AWS4-HMAC-SHA256",
            "policy": policy,
            "x-amz-signature": _sign(policy),
        }
        return {"url": f"{base}/storage/", "fields": fields}

    def _expired(self, issued: str) -> bool:
        return (parse_timestamp(self._clock.timestamp()) - parse_timestamp(issued)).total_seconds() > EXPIRES_IN

    async def _serve(self, request: Request) -> Response:
        key = request.path_params["key"]
        date = request.query_params.get("X-Amz-Date", "")
        if request.query_params.get("X-Amz-Signature") != _sign(f"{key} {date}"):
            return _xml_error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        if self._expired(date):
            return _xml_error(403, "AccessDenied", "Request has expired")
        if key not in self.objects:
            return _xml_error(404, "NoSuchKey", "The specified key does not exist.")
        stored = self.objects[key]
        # S3 returns the type as stored. Set the header directly, because Starlette adds a charset to text.
        return Response(bytes(stored.content), headers={"Content-Type": stored.content_type})

    async def _accept_upload(self, request: Request) -> Response:
        fields: dict[str, str] = {}
        async with request.form() as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    return self._store(fields, await value.read())
                # S3 ignores form fields after the file.
                fields[name.lower()] = value
        return _xml_error(400, "InvalidArgument", "POST requires exactly one file upload per request.")

    def _store(self, fields: dict[str, str], content: bytes) -> Response:
        if "key" not in fields:
            return _xml_error(400, "InvalidArgument", "Bucket POST must contain a field named 'key'.")
        policy = fields.get("policy", "")
        if fields.get("x-amz-signature") != _sign(policy):
            return _xml_error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        document = json.loads(base64.b64decode(policy))
        (_, _, max_length), target = document["conditions"]
        if target["key"] != fields["key"] or self._expired(document["issued"]):
            return _xml_error(403, "AccessDenied", "Invalid according to Policy.")
        if len(content) > max_length:
            return _xml_error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        self.put(fields["key"], content, DEFAULT_CONTENT_TYPE)
        return Response(status_code=204)


def _sign(text: str) -> str:
    return hashlib.sha256(f"simulated {text}".encode()).hexdigest()


def _xml_error(status: int, code: str, message: str) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(body, status, media_type="application/xml")
