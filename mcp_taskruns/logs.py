"""Logging to standard error, with secrets redacted."""

import logging

from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.terminal import escape_controls

# At lower levels these libraries log arguments, responses and possibly credentials.
_QUIET_LOGGERS = ("httpx", "httpcore", "sse_starlette")


class RedactingFormatter(logging.Formatter):
    """Format records with their time, level and logger, and redact secrets in the result.

    For a terminal, control characters are escaped.
    """

    def __init__(self, redactor: Redactor, *, is_for_terminal: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._redactor = redactor
        self._is_for_terminal = is_for_terminal

    def format(self, record: logging.LogRecord) -> str:
        """Return the redacted line or lines of a record."""
        text = self._redactor.redact_text(super().format(record))
        return escape_controls(text) if self._is_for_terminal else text


def configure_logging(level: str, redactor: Redactor) -> None:
    """Log to standard error from this level on, replacing earlier configuration."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(redactor, is_for_terminal=handler.stream.isatty()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
