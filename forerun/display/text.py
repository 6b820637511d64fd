"""Makes text that is safe to print and lines up: no control characters, columns as wide as they need to be."""

from collections.abc import Iterable, Sequence

from service.spec.names import printable


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with columns as wide as they need to be, one line a row whatever the width, so that grep and cut can read
    it. What does not print is replaced: a cell has no line ends and commands no terminal."""
    lines = [list(map(printable, line)) for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def clean(text: str) -> str:
    """`text` without what could command a terminal: users name jobs as they like, and errors repeat what they wrote."""
    return printable(text, keep="\n\t")
