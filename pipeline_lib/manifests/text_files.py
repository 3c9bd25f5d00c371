"""Text lists as editors and spreadsheets leave them: byte order marks, UTF-16, any line end, either Unicode form."""

import codecs
import unicodedata
from collections.abc import Iterator
from pathlib import Path

# UTF-32's little-endian mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _encoding(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8-sig")


def composed(text: str) -> str:
    """Text with each accented letter as one character (Unicode's form NFC); macOS stores names in the other form."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def read_text(path: Path) -> str:
    r"""A whole text file, composed, with ``\n`` at each line's end.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8, and has no mark of UTF-16 or UTF-32.
    """
    return composed(path.read_text(encoding=_encoding(path)))


def csv_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, composed, with their ends as they are, as :mod:`csv` wants them.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8, and has no mark of UTF-16 or UTF-32.
    """
    with open(path, encoding=_encoding(path), newline="") as file:
        yield from map(composed, file)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold anything, composed, without blanks around them.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8, and has no mark of UTF-16 or UTF-32.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
