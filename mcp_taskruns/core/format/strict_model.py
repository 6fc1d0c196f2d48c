"""The base of the models of overlays, and the types of their fields."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from mcp_taskruns.core.format.problems import UNKNOWN_KEY

JsonPath = str
When = dict[str, Any]
"""Paths with the value, or the list of accepted values, that has to be there."""


class Keywords(BaseModel):
    """Keywords that the models of capability files and of overlays inherit; nothing is validated against them alone."""

    model_config = ConfigDict(defer_build=True)


class StrictModel(BaseModel):
    """A mapping that accepts known keys only; a key with the value null counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for key in value:
            if key not in known:
                close = get_close_matches(str(key), known, 1, 0.6)
                suggestion = f"; did you mean `{close[0]}`?" if close else ""
                message = "unknown key `{key}`{suggestion}"
                raise PydanticCustomError(UNKNOWN_KEY, message, {"key": str(key), "suggestion": suggestion})
        return {key: item for key, item in value.items() if item is not None}
