"""What the simulated providers have in common on the wire: bearer keys and list parameters."""

from typing import Any, TypeAlias

from starlette.requests import Request

# JSON whose shape is the provider's.
Json: TypeAlias = Any

ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def key_of(request: Request) -> str:
    """The bearer key, empty where there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def has_key(request: Request, *prefixes: str) -> bool:
    """Whether the request carries a key we take: any that looks like the provider's, unless it says it is wrong."""
    key = key_of(request)
    return key.startswith(prefixes) and "wrong" not in key


def values(request: Request, name: str) -> list[str]:
    """A list parameter in both of its spellings, `a=1&a=2` and `a=1,2`."""
    return [value for given in request.query_params.getlist(name) for value in given.split(",") if value]
