"""Tables for a terminal."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[int] = (0,)) -> str:
    """A table as lines of text: the columns at the positions ``left`` to the left, the others to the right."""
    sides = ["left" if column in set(left) else "right" for column in range(len(header))]
    table: str = tabulate(list(rows), header, tablefmt="simple", disable_numparse=True, colalign=sides)
    return table
