"""The checks that every request to an HTTP server passes, in their order."""

from starlette.types import ASGIApp

from mcp_taskruns.servers.access import BearerTokens, HostCheck, Refuse, SafeHeaders, refuse_as_text
from mcp_taskruns.servers.bodies import BodyBudget, BodyLimit
from mcp_taskruns.settings import Settings


def guard(app: ASGIApp, settings: Settings, bodies: BodyBudget | None, refuse: Refuse = refuse_as_text) -> ASGIApp:
    """Return an app that refuses what the settings do not allow. No body is received before the token is checked.

    Servers of one process pass the same budget for bodies. Raises SettingsError as `HostCheck` does.
    """
    guarded: ASGIApp = BodyLimit(app, bodies or BodyBudget(), refuse)
    if settings.tokens:
        guarded = BearerTokens(guarded, settings.tokens, refuse)
    return SafeHeaders(HostCheck(guarded, settings, refuse))
