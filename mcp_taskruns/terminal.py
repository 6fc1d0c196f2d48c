"""Text for a terminal."""

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move the cursor, change the terminal or reorder the text around them; not tabs and line breaks."""


def escape_controls(text: str) -> str:
    r"""Write the characters that control a terminal as `\u001b`, as JSON does: text of a provider may hold some."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
