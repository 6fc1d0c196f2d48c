"""Regular expressions that take exponential time on some texts.

A pattern such as `^(a+)+$` matches a text in many ways, and a search tries all of them before it fails. The check
builds the automaton of the pattern (Glushkov's construction: one state for each character or set) and looks for two
ways that lead from a state back to it on the same text: Weber and Seidl, "On the degree of ambiguity of finite
automata".
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

from mcp_taskruns.core.model.patterns import InvalidPattern, PatternTooLarge, compile_pattern

MAX_STATES = 120
"""States of an automaton that is examined; longer patterns are left to the time limit of searches."""

MAX_STEPS = 200_000
"""Steps from a pair of states to another that are examined."""

MAX_REPEATS = 8
"""How often a part of variable length may be repeated without counting as repeated without end."""

MAX_QUOTED = 100
"""Characters of a pattern that a message quotes."""

AMBIGUOUS = "can match the same text in exponentially many ways"
TOO_LARGE = "is too large to be compiled"
INVALID = "is not a regular expression"

_SAMPLES = "".join(map(chr, range(0x20, 0x7F))) + "\t\n\xa0\xe9\u0663\u03a9\u6f22"
"""Characters that stand for all others: ASCII, and a space, a letter, a digit and an ideograph beyond."""

_ATOM = re.compile(
    r"(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<nothing>\^|\$|\\[bBAZzGmM]|\(\?#[^)]*\)|\(\?[a-zA-Z0-9-]+\))"
    r"|(?P<any>\\[1-9]\d?|\\[gk]<\w+>|\(\?P=\w+\))"
    r"|(?P<around>\(\?<?[=!])"
    r"|(?P<group>\((?:\?(?:P?<\w+>|[a-zA-Z0-9-]*:|>|\|))?)"
    r"|(?P<character>\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[pP]\{[^}]*\}|N\{[^}]*\}|0[0-7]{0,2}|.)|[^()|])",
    re.DOTALL,
)
_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d*)(,?)(\d*)\})[?+]?")

_State = int
_Pair = tuple[_State, _State]


@lru_cache(maxsize=2_000)
def find_pattern_problem(pattern: str) -> str | None:
    """Return what is wrong with a pattern, as the end of a sentence about it; None for a safe one."""
    try:
        compile_pattern(pattern)
        return AMBIGUOUS if _Automaton(pattern).is_ambiguous() else None
    except PatternTooLarge:
        return TOO_LARGE
    except InvalidPattern:
        return INVALID
    except _TooLong:
        return None


class _TooLong(Exception):
    """The automaton has more than MAX_STATES, or more than MAX_STEPS from one pair of states to another."""


@dataclass(frozen=True)
class _Part:
    """A part of a pattern: the states with which it can begin and end, and whether it matches the empty text.

    `is_fixed`: it has no alternatives, and each of its repetitions has one number. So it matches a text in one way.
    """

    first: frozenset[_State] = frozenset()
    last: frozenset[_State] = frozenset()
    is_empty: bool = True
    is_fixed: bool = True


class _Automaton:
    """The automaton of a pattern: the characters of each state, and which states can follow each other."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._position = 0
        self._flags = "(?i)" if re.search(r"\(\?[a-zA-Z]*i", pattern) else ""
        self._samples = {*_SAMPLES, *pattern}
        self._characters: list[frozenset[str]] = []
        self._next: dict[_State, set[_State]] = {}
        self._doubled: set[_Pair] = set()
        self._alternatives()

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._pattern.startswith("|", self._position):
            self._position += 1
            parts.append(self._sequence())
        return _Part(
            frozenset().union(*(part.first for part in parts)),
            frozenset().union(*(part.last for part in parts)),
            any(part.is_empty for part in parts),
            len(parts) == 1 and parts[0].is_fixed,
        )

    def _sequence(self) -> _Part:
        whole = _Part()
        while (atom := _ATOM.match(self._pattern, self._position)) is not None:
            self._position = atom.end()
            part = self._repeat(self._atom(atom))
            self._connect(whole.last, part.first)
            whole = _Part(
                whole.first | part.first if whole.is_empty else whole.first,
                whole.last | part.last if part.is_empty else part.last,
                whole.is_empty and part.is_empty,
                whole.is_fixed and part.is_fixed,
            )
        return whole

    def _atom(self, atom: re.Match[str]) -> _Part:
        kind, text = atom.lastgroup, atom.group()
        if kind == "nothing":
            return _Part()
        if kind in {"group", "around"}:
            inner = self._alternatives()
            self._position += 1  # the closing parenthesis
            return inner if kind == "group" else _Part()
        if len(self._characters) == MAX_STATES:
            raise _TooLong
        state = frozenset({len(self._characters)})
        self._characters.append(frozenset(self._samples) if kind == "any" else self._matched_by(text))
        return _Part(state, state, is_empty=False)

    def _matched_by(self, text: str) -> frozenset[str]:
        single = compile_pattern(self._flags + (re.escape(text) if text in "*+?{}" else text))
        return frozenset(character for character in self._samples if single.fullmatch(character))

    def _repeat(self, part: _Part) -> _Part:
        """Return the part with the quantifiers that follow it."""
        while (quantifier := _QUANTIFIER.match(self._pattern, self._position)) is not None:
            sign, least, comma, most = quantifier.groups()
            if sign is None and not (least or most):
                break  # braces that are ordinary characters
            self._position = quantifier.end()
            minimum = {"*": 0, "?": 0, "+": 1}.get(sign or "", int(least or 0))
            has_one_number = sign is None and (not comma or least == most)
            if _is_loop(part, sign, most if comma else least, has_one_number=has_one_number):
                self._connect(part.last, part.first)
            is_fixed = part.is_fixed and has_one_number
            part = _Part(part.first, part.last, part.is_empty or minimum == 0, is_fixed)
        return part

    def _connect(self, states: Iterable[_State], following: Iterable[_State]) -> None:
        for state, other in product(states, following):
            known = self._next.setdefault(state, set())
            if other in known:
                self._doubled.add((state, other))
            known.add(other)

    def is_ambiguous(self) -> bool:
        """Return whether two ways lead from a state back to it on the same text."""
        if any(map(self._has_two_ways_back, self._next)):
            return True
        components = _components({(state, state) for state in self._next}, self._following)
        diagonal = {component for (one, other), component in components.items() if one == other}
        if any(component in diagonal for (one, other), component in components.items() if one != other):
            return True
        return any(components.get((one, one)) == components.get((two, two)) for one, two in self._doubled)

    def _has_two_ways_back(self, state: _State) -> bool:
        ways = [other for other in self._next[state] if state in self._next.get(other, ())]
        return any(not self._characters[one].isdisjoint(self._characters[two]) for one, two in combinations(ways, 2))

    def _following(self, pair: _Pair) -> Iterator[_Pair]:
        for one, other in product(self._next.get(pair[0], ()), self._next.get(pair[1], ())):
            if not self._characters[one].isdisjoint(self._characters[other]):
                yield one, other


def _is_loop(part: _Part, sign: str | None, most: str, *, has_one_number: bool) -> bool:
    """Return whether a part that is repeated up to `most` times counts as repeated without end."""
    if sign is not None:
        return sign != "?"
    if has_one_number:
        return not part.is_fixed and int(most) > MAX_REPEATS
    return most not in {"0", "1"}


def _components(starts: Iterable[_Pair], following: Callable[[_Pair], Iterator[_Pair]]) -> dict[_Pair, int]:
    """Return the number of the strongly connected component of each pair that can be reached."""
    order: list[_Pair] = []
    seen: set[_Pair] = set()
    backward: dict[_Pair, list[_Pair]] = {}
    steps = 0
    for start in starts:
        pending = [(start, False)]
        while pending:
            pair, is_done = pending.pop()
            if steps > MAX_STEPS:
                raise _TooLong
            if is_done:
                order.append(pair)
            elif pair not in seen:
                seen.add(pair)
                pending.append((pair, True))
                for other in following(pair):
                    steps += 1
                    backward.setdefault(other, []).append(pair)
                    pending.append((other, False))
    components: dict[_Pair, int] = {}
    for number, root in enumerate(reversed(order)):
        found = [root] if root not in components else []
        while found:
            pair = found.pop()
            if pair not in components:
                components[pair] = number
                found += backward.get(pair, ())
    return components
