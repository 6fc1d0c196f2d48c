"""The object storage beside PostHog: presigned GET and POST, as S3 answers them."""

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
# PostHog leaves room for the form around the file (products/tasks/backend/api.py).
FORM_OVERHEAD = 64 * 1024
# What S3 stores when the policy allows no Content-Type field; it ignores the part's own.
DEFAULT_CONTENT_TYPE = "binary/octet-stream"


def as_moment(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp)


@dataclass
class StoredObject:
    content: bytearray = field(default_factory=bytearray)
    content_type: str = DEFAULT_CONTENT_TYPE


class Storage:
    """Objects by key, and the two routes that presigned URLs point at.

    Checks the signature, the age and, for uploads, the policy's key and length. Does NOT check any other
    condition of S3, and the signatures protect nothing: they only tell a whole URL from a mangled one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.objects: dict[str, StoredObject] = {}

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/storage/", self._accept_upload, methods=["POST"]),
            Route("/storage/{key:path}", self._serve, methods=["GET"]),
        ]

    def put(self, key: str, content: bytes, content_type: str) -> None:
        self.objects[key] = StoredObject(bytearray(content), content_type or DEFAULT_CONTENT_TYPE)

    def append(self, key: str, line: bytes) -> None:
        self.objects.setdefault(key, StoredObject(content_type="application/jsonl")).content += line

    def read(self, key: str) -> bytes:
        """The object's bytes; none when there is no such object."""
        return bytes(self.objects[key].content) if key in self.objects else b""

    def presigned_url(self, base: str, key: str) -> str:
        date = self._clock.timestamp()
        signature = _sign(f"{key} {date}")
        query = f"X-Amz-Date={quote(date)}&X-Amz-Expires={EXPIRES_IN}&X-Amz-Signature={signature}"
        return f"{base}/storage/{quote(key)}?{query}"

    def presigned_post(self, base: str, key: str, size: int) -> dict[str, Any]:
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
        return (as_moment(self._clock.timestamp()) - as_moment(issued)).total_seconds() > EXPIRES_IN

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
        # As a header, because Starlette would add a charset to text: S3 gives back what was stored.
        return Response(bytes(stored.content), headers={"Content-Type": stored.content_type})

    async def _accept_upload(self, request: Request) -> Response:
        fields: dict[str, str] = {}
        async with request.form() as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    return self._store(fields, await value.read())
                # S3 ignores every field that follows the file.
                fields[name.lower()] = value
        return _xml_error(400, "InvalidArgument", "POST requires exactly one file upload per request.")

    def _store(self, fields: dict[str, str], content: bytes) -> Response:
        if "key" not in fields:
            return _xml_error(400, "InvalidArgument", "Bucket POST must contain a field named 'key'.")
        policy = fields.get("policy", "")
        if fields.get("x-amz-signature") != _sign(policy):
            return _xml_error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        document = json.loads(base64.b64decode(policy))
        (_, _, largest), target = document["conditions"]
        if target["key"] != fields["key"] or self._expired(document["issued"]):
            return _xml_error(403, "AccessDenied", "Invalid according to Policy.")
        if len(content) > largest:
            return _xml_error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        self.put(fields["key"], content, DEFAULT_CONTENT_TYPE)
        return Response(status_code=204)


def _sign(text: str) -> str:
    return hashlib.sha256(f"simulated {text}".encode()).hexdigest()


def _xml_error(status: int, code: str, message: str) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(body, status, media_type="application/xml")
