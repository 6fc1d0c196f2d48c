"""Matching of HTTP requests to routes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from mcp_taskruns.core.format.templates import literals_between_placeholders, placeholders_of
from mcp_taskruns.core.rest.routes import Route


@dataclass(frozen=True)
class Match:
    """A route and the values of the placeholders in its path."""

    route: Route
    variables: Mapping[str, str]


class Router:
    """Finds the route of a request by its path; each route is also found below the prefix of its capability."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._patterns: dict[int, list[_Pattern]] = {}
        """By the number of segments; literal segments before placeholders."""
        for route in routes:
            for path in dict.fromkeys((route.path, f"/{route.tool.prefix}{route.shared_path or route.path}")):
                pattern = _Pattern(route, path)
                self._patterns.setdefault(len(pattern.segments), []).append(pattern)
        for patterns in self._patterns.values():
            patterns.sort(key=lambda pattern: pattern.order)
        self._shared = [_Pattern(route, route.shared_path) for route in routes if route.shared_path]

    def find(self, method: str, path: str) -> Match | list[str]:
        """Return the route of a request, or the methods of the routes at this path."""
        allowed: list[str] = []
        segments = _split_path(path)
        for pattern in self._patterns.get(len(segments), ()):
            values = pattern.match(segments)
            if values is None:
                continue
            if pattern.route.method == method:
                return Match(pattern.route, dict(zip(pattern.names, values, strict=True)))
            allowed.append(pattern.route.method)
        return allowed

    def find_moved(self, method: str, path: str) -> list[str]:
        """Return the paths of the routes that are not served at this path because several files declare it."""
        segments = _split_path(path)
        routes = [pattern.route for pattern in self._shared if pattern.match(segments) is not None]
        return [route.path for route in routes if route.method == method]


class _Pattern:
    """A path with placeholders. It is matched segment by segment, so an encoded slash belongs to its segment."""

    def __init__(self, route: Route, path: str) -> None:
        self.route = route
        self.names = placeholders_of(path)
        self.segments = [literals_between_placeholders(segment) for segment in path.split("/")]
        self.order = [(len(pieces) > 1, -sum(map(len, pieces)), pieces) for pieces in self.segments]

    def match(self, segments: list[str]) -> list[str] | None:
        """Return the values of the placeholders, or None if the path does not match."""
        if len(segments) != len(self.segments):
            return None
        values: list[str] = []
        for pieces, text in zip(self.segments, segments, strict=True):
            found = _match_segment(pieces, text)
            if found is None:
                return None
            values += found
        return values


def _split_path(path: str) -> list[str]:
    return [unquote(segment) for segment in path.split("/")]


def _match_segment(pieces: list[str], text: str) -> list[str] | None:
    """Return the text between the literal pieces of a segment, or None if the segment does not match.

    Each value is as short as possible and not empty. The time is linear, unlike that of a regular expression.
    """
    first, *others = pieces
    if not others:
        return [] if text == first else None
    if not text.startswith(first):
        return None
    values: list[str] = []
    start = len(first)
    for piece in others[:-1]:
        end = text.find(piece, start + 1)
        if end < 0:
            return None
        values.append(text[start:end])
        start = end + len(piece)
    end = len(text) - len(others[-1])
    if end <= start or not text.endswith(others[-1]):
        return None
    return [*values, text[start:end]]
