"""Which route a request leads to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from mcp_taskruns.core.format.templates import placeholders_of
from mcp_taskruns.core.rest.routes import Route

_HOLE = re.compile(r"\{\{[^{}]*\}\}|\{[^{}]*\}")


@dataclass(frozen=True)
class Match:
    """A route, and what stands in the path for its variables."""

    route: Route
    variables: Mapping[str, str]


class Router:
    """Routes by their paths; each is also found below its capability's prefix."""

    def __init__(self, routes: Sequence[Route]) -> None:
        # By the number of their segments; what stands in a path is closer than a variable.
        self._patterns: dict[int, list[_Pattern]] = {}
        for route in routes:
            for path in dict.fromkeys((route.path, f"/{route.tool.prefix}{route.claimed or route.path}")):
                pattern = _Pattern(route, path)
                self._patterns.setdefault(len(pattern.segments), []).append(pattern)
        for patterns in self._patterns.values():
            patterns.sort(key=lambda pattern: pattern.order)
        self._claims = [_Pattern(route, route.claimed) for route in routes if route.claimed]

    def find(self, method: str, path: str) -> Match | list[str]:
        """The route of a request, or the methods that there are at its path."""
        allowed: list[str] = []
        segments = _segments(path)
        for pattern in self._patterns.get(len(segments), ()):
            values = pattern.match(segments)
            if values is None:
                continue
            if pattern.route.method == method:
                return Match(pattern.route, dict(zip(pattern.names, values, strict=True)))
            allowed.append(pattern.route.method)
        return allowed

    def claims(self, method: str, path: str) -> list[str]:
        """Where the routes are that several files have at this path."""
        segments = _segments(path)
        found = [pattern.route for pattern in self._claims if pattern.match(segments) is not None]
        return [route.path for route in found if route.method == method]


class _Pattern:
    """A path with variables, segment by segment: what is encoded in a segment belongs to it."""

    def __init__(self, route: Route, path: str) -> None:
        self.route = route
        self.names = placeholders_of(path)
        self.segments = [_HOLE.split(segment) for segment in path.split("/")]
        self.order = [(len(pieces) > 1, -sum(map(len, pieces)), pieces) for pieces in self.segments]

    def match(self, segments: list[str]) -> list[str] | None:
        """What stands for the variables, None where the path is another one."""
        if len(segments) != len(self.segments):
            return None
        values: list[str] = []
        for pieces, text in zip(self.segments, segments, strict=True):
            found = _match_segment(pieces, text)
            if found is None:
                return None
            values += found
        return values


def _segments(path: str) -> list[str]:
    return [unquote(segment) for segment in path.split("/")]


def _match_segment(pieces: list[str], text: str) -> list[str] | None:
    """What stands between the literal pieces of a segment: as little as can be, and not nothing; in one go."""
    first, *others = pieces
    if not others:
        return [] if text == first else None
    if not text.startswith(first):
        return None
    values: list[str] = []
    place = len(first)
    for piece in others[:-1]:
        at = text.find(piece, place + 1)
        if at < 0:
            return None
        values.append(text[place:at])
        place = at + len(piece)
    end = len(text) - len(others[-1])
    if end <= place or not text.endswith(others[-1]):
        return None
    return [*values, text[place:end]]
