"""Who calls a tool: what distinguishes the callers of one server."""

from typing import Any

from mcp.server.context import ServerRequestContext

from mcp_taskruns.engine.runs.start_keys import Caller
from mcp_taskruns.servers.access import CLIENT


def caller_of(context: ServerRequestContext[None, Any]) -> Caller:
    """Return the caller of a request.

    Over HTTP the token, the address and the name of the client distinguish callers. A session does not: a client that
    connects again has another one.
    """
    request = context.request
    if request is None:
        return Caller()
    params = context.session.client_params
    client = f"{params.client_info.name} {params.client_info.version}" if params else ""
    host = request.client.host if request.client else ""
    return Caller("\n".join([str(request.scope.get(CLIENT)), host, client]))
