"""Leave out what readers of a response do not need."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from mcp_taskruns.core.model.json_path import replace_at, value_at
from mcp_taskruns.core.model.operation import Trim


def trim(value: Any, rules: Iterable[Trim]) -> Any:
    """Return the value without the members that the rules leave out, and with their flags."""
    for rule in rules:
        value = replace_at(value, rule.path, partial(_trim_object, rule))
    return value


def _trim_object(rule: Trim, item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    kept = {name: member for name, member in item.items() if name not in rule.drop}
    return kept | {name: value_at(item, path) not in (None, "") for name, path in rule.flags.items()}
