"""Progress on long work: a bar on a terminal, a plain line every few seconds otherwise, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
PLAIN_EVERY_S = 10.0


class Progress:
    """Counts work and shows rate and time left.

    Parameters
    ----------
    total : int or None
    desc, unit : str
        E.g. ``"convert"``, ``"records"``.
    """

    def __init__(self, total: int | None, desc: str, unit: str = "it") -> None:
        self.total, self.desc, self.unit, self.n = total, desc, unit, 0
        self.note = ""
        self._start = self._shown = time.monotonic()
        self._shown_n = 0
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=desc, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)

    def update(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more; ``note`` is shown after the rate (e.g. ``loss 0.31``)."""
        self.n += n
        self.note = note or self.note
        if self._bar is not None:
            self._bar.set_postfix_str(self.note, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._shown > PLAIN_EVERY_S:
            self._line()

    def _line(self) -> None:
        self._shown, self._shown_n = time.monotonic(), self.n
        spent = self._shown - self._start
        rate = self.n / spent if spent else 0.0
        speed = f"{rate:.1f} {self.unit}/s" if rate >= 0.95 or not rate else f"{1 / rate:.1f} s each"
        of = f"/{self.total}" if self.total else ""
        left = f", {(self.total - self.n) / rate:.0f} s left" if self.total and rate else ""
        note = f", {self.note}" if self.note else ""
        print(f"{self.desc}: {self.n}{of} {self.unit}, {speed}{left}{note}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar or print the last line."""
        if self._bar is not None:
            self._bar.close()
        elif self.n != self._shown_n:
            self._line()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def track(items: Iterable[T], total: int | None, desc: str, unit: str = "it") -> Iterator[T]:
    """Iterate with progress."""
    with Progress(total, desc, unit) as bar:
        for item in items:
            yield item
            bar.update()
