"""Progress: a bar on a terminal, a line every ten seconds in a log."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

SHAPES_NO_ARTEFACT = True

LOG_INTERVAL_SECONDS = 10.0


class Progress:
    """Counts finished items of a long job and shows how it goes.

    On a terminal a tqdm bar; elsewhere one line about every ten seconds and one at the end, so that a
    log stays readable.

    Args:
        label: what is being done, in a few words.
        total: how many items there are.
        unit: the plural name of an item (``videos``, ``steps``).
        initial: items already finished by an earlier, interrupted run.
    """

    def __init__(self, label: str, total: int, unit: str, initial: int = 0) -> None:
        self.label, self.total, self.unit, self.count = label, total, unit, initial
        self._initial = initial
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=total, desc=label, unit=f" {unit}", initial=initial) if sys.stderr.isatty() else None

    def advance(self, num_items: int = 1, note: str = "") -> None:
        """Count ``num_items`` more; ``note`` is shown behind the rate (losses, memory, …)."""
        self.count += num_items
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(num_items)
        elif time.monotonic() - self._last >= LOG_INTERVAL_SECONDS:
            self._line(note)

    def _line(self, note: str = "") -> None:
        self._last = time.monotonic()
        elapsed = max(self._last - self._start, 1e-9)
        rate = (self.count - self._initial) / elapsed
        left = f", {(self.total - self.count) / rate:.0f} s left" if rate > 0 and self.count < self.total else ""
        tail = f" | {note}" if note else ""
        print(
            f"{self.label}: {self.count}/{self.total} {self.unit}, {rate:.2f} {self.unit}/s{left}{tail}",
            file=sys.stderr,
            flush=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            self._line()
