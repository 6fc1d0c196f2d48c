"""HTTP helpers that the simulated providers share: bearer keys and list parameters."""

from typing import Any, TypeAlias

from starlette.requests import Request

# JSON in the provider's own shape.
Json: TypeAlias = Any

ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def bearer_key(request: Request) -> str:
    """Return the bearer key, or an empty string if the request has none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def has_valid_key(request: Request, *prefixes: str) -> bool:
    """Check for a bearer key with one of the prefixes. Keys that contain `wrong` are invalid."""
    key = bearer_key(request)
    return key.startswith(prefixes) and "wrong" not in key


def list_parameter(request: Request, name: str) -> list[str]:
    """Return the values of a list parameter in either of its two forms, `a=1&a=2` and `a=1,2`."""
    return [value for item in request.query_params.getlist(name) for value in item.split(",") if value]
