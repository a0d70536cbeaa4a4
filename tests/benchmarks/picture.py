"""The README's picture: a terminal's text with its colours, as an SVG that loads nothing.

In tmux, while a search runs in the session ``s``::

    tmux capture-pane -t s -e -p | python -m tests.benchmarks.picture > .github/terminal.svg
"""

import io
import re
import sys

from rich.console import Console
from rich.text import Text

COLUMNS = 84


def picture(text: str, title: str) -> str:
    """Draw lines with ANSI colours.

    Args:
        text: what stood on the terminal.
        title: of the window that is drawn around it.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.rstrip()), no_wrap=True, crop=True)
    svg = console.export_svg(title=title, unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # from another host
    return svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")


def main() -> None:
    """Read the text from standard input."""
    sys.stdout.write(picture(sys.stdin.read(), "python -m tuner.run --study mnist --trials 100"))


if __name__ == "__main__":
    main()
