"""Draw the output of `mcp-taskruns demo` as an SVG picture of a terminal: `make demo-svg`.

Usage: python docs/demo_svg.py FILE
"""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

COLUMNS = 80
STEPS = range(2, 6)
"""The numbers of the steps to show: the picture in the README should fit on a screen."""

FONT_SIZE, CHARACTER_WIDTH, LINE_HEIGHT = 13, 7.8, 18
MARGIN, TITLE_HEIGHT = 16, 32
COLOURS = {"1": "#f0f6fc", "2": "#8b949e", "31": "#ff7b72", "32": "#56d364"}
FOREGROUND, BACKGROUND, BORDER, EMPTY = "#c9d1d9", "#0d1117", "#30363d", "#30363d"
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
DESCRIPTION = "Output of mcp-taskruns demo: runs are started, awaited with progress bars, and cancelled."

SPAN = re.compile(r"(?:\x1b\[(\d+)m)?([^\x1b]+)(?:\x1b\[0m)?")
PIECE = re.compile("█+|░+|[^█░]+")


def run_demo() -> list[str]:
    """Return the coloured lines that the demo prints into a pipe."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "mcp_taskruns", "demo"]
    done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", env=environment)
    return done.stdout.splitlines()


def select_steps(lines: list[str]) -> list[str]:
    """Return the lines of STEPS."""
    starts = [index for index, line in enumerate(lines) if re.match(r"(?:\x1b\[1m)?\d/\d  ", line)]
    last = STEPS[-1]
    end = starts[last] if last < len(starts) else len(lines)
    return lines[starts[STEPS[0] - 1] : end - 1]


def draw_piece(text: str, column: int, baseline: float, style: str) -> str:
    """Draw one text, or one part of a bar as a rectangle, which no font can misalign."""
    x, width = MARGIN + column * CHARACTER_WIDTH, len(text) * CHARACTER_WIDTH
    if text[0] in "█░":
        fill = COLOURS["32"] if text[0] == "█" else EMPTY
        return f'<rect x="{x:.1f}" y="{baseline - 10:.1f}" width="{width:.1f}" height="12" fill="{fill}"/>'
    attributes = f'fill="{COLOURS.get(style, FOREGROUND)}"' + (' font-weight="bold"' if style == "1" else "")
    return f'<text x="{x:.1f}" y="{baseline:.1f}" textLength="{width:.1f}" {attributes}>{html.escape(text)}</text>'


def draw_line(line: str, baseline: float) -> list[str]:
    """Draw the spans of one line, each in its colour; spaces at their ends are left out."""
    pieces: list[str] = []
    column = 0
    for style, span in SPAN.findall(line):
        for piece in PIECE.findall(span):
            text = piece.strip()
            if text:
                pieces.append(draw_piece(text, column + len(piece) - len(piece.lstrip()), baseline, style))
            column += len(piece)
    return pieces


def draw(lines: list[str]) -> str:
    """Return the SVG document of a terminal window with these lines."""
    width = round(2 * MARGIN + COLUMNS * CHARACTER_WIDTH)
    height = TITLE_HEIGHT + MARGIN + len(lines) * LINE_HEIGHT
    buttons = [
        f'<circle cx="{MARGIN + 4 + 18 * index}" cy="{TITLE_HEIGHT / 2:g}" r="5" fill="{colour}"/>'
        for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    ]
    body = [
        piece
        for number, line in enumerate(lines, 1)
        for piece in draw_line(line, TITLE_HEIGHT + number * LINE_HEIGHT - 4)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{DESCRIPTION}" font-family="{FONT}" font-size="{FONT_SIZE}" xml:space="preserve">',
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" '
            f'fill="{BACKGROUND}" stroke="{BORDER}"/>',
            *buttons,
            f'<text x="{width / 2:g}" y="{TITLE_HEIGHT / 2 + 4:g}" text-anchor="middle" '
            f'fill="{COLOURS["2"]}">mcp-taskruns demo</text>',
            *body,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(select_steps(run_demo())), encoding="utf-8")
