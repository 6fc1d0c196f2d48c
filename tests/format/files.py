"""The capability files of these tests, and what their tools send."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.core.calls.request import HttpRequest, build_request
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CallError
from mcp_taskruns.loading.loader import load_tools

FOLDER = Path(__file__).parent / "capabilities"

FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))

ENVIRONMENT = {
    "AUTH_TOKEN": "tok/en+1",
    "AUTH_VAULT_TOKEN": "from-the-vault",
    "AUTH_USER": "user",
    "AUTH_PASSWORD": "pa:ss",
    "AUTH_APP": "seven",
    "BASES_REGION": "eu-1",
    "CONSTANTS_ORGANISATION": "acme/org",
    "CONSTANTS_KEY": "constant-key",
    "HARBOUR_SECRET": "harbour-secret",
    "HARBOUR_API_VERSION": "2026-01",
    "KEYED_TOKEN": "keyed-token",
    "SEVERAL_SHOP_TOKEN": "shop-token",
    "SHOP_REGION": "eu 1",
    "TEMPLATES_REGION": "eu",
    "WITH_REGION": "eu",
}


@cache
def tools_of(file: str) -> Mapping[str, Tool]:
    """The tools of a file by their names in it."""
    return {tool.declared_name: tool for tool in load_tools([FOLDER / file])}


def sent(
    file: str, tool: str, arguments: Mapping[str, Any], environment: Mapping[str, str] = ENVIRONMENT
) -> HttpRequest:
    """The request of one call."""
    return build_request(tools_of(file)[tool].operation, arguments, environment)


def failure(
    file: str, tool: str, arguments: Mapping[str, Any], environment: Mapping[str, str] = ENVIRONMENT
) -> CallError:
    """Why a call is not sent."""
    with pytest.raises(CallError) as caught:
        sent(file, tool, arguments, environment)
    return caught.value
