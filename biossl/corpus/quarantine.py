"""What of a folder could not be used, and how its holder finds it again: ``quarantine.csv``, ``private_paths.csv``, one note.

What lives here: writing of those. Why a record was refused is the readers' business, the words for sets that are not public
``privacy.py``'s.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from biossl import atomic
from biossl.corpus.card import Card

PRIVATE_PATHS = "private_paths.csv"  # of a set that is not public: which file a key stands for; as the secret, it never travels
NAMED = 5  # files that match no pattern which a note names


def stray_note(card: Card, stray: Sequence[str]) -> list[str]:
    """The finding on files that match no pattern; without their names where the card is not public."""
    if not stray:
        return []
    which = f"named in {PRIVATE_PATHS}"
    if card.public:
        which = ", ".join(stray[:NAMED]) + (" ..." if len(stray) > NAMED else "")
    what = (
        "1 file looks like a recording and matches" if len(stray) == 1 else f"{len(stray):,} files look like recordings and match"
    )
    return [f"{what} no pattern of the card ({which}), so not converted; add an entry under 'files', or leave out what is none"]


def write_private_paths(
    out: Path, keyed: Sequence[tuple[str, str]] | None, spoken: Sequence[str], stray: Sequence[str]
) -> Path | None:
    """Files that quarantine, findings and the note of unmatched files speak of: the only place that has both key and name.

    Mode 0600 beside the secret, with no line more than somebody needs who has to mend a file.

    Parameters
    ----------
    out : path
        The corpus folder.
    keyed : sequence of (key, path), or None
        Of every record; None = the set is public.
    spoken : sequence of str
        Texts that name keys.
    stray : sequence of str
        Paths that match no pattern.

    Returns
    -------
    path or None
        None = there is nothing to name, and no such file.
    """
    if keyed is None:
        return None
    keys = set(re.findall(r"\b[0-9a-f]{32}\b", " ".join(spoken)))
    rows = [[key, path] for key, path in keyed if key in keys] + [["matches no pattern", path] for path in stray]
    file = out / PRIVATE_PATHS
    if not rows:
        file.unlink(missing_ok=True)
        return None
    atomic.write_bytes(file, _csv(["record", "path"], rows).encode("utf-8", "backslashreplace"), mode=0o600)
    return file


def write_quarantine(out: Path, lines: list[list[str]]) -> None:
    """One line a record that could not be used: its stored name, a code, what to do."""
    atomic.write_text(out / "quarantine.csv", _csv(["record", "code", "message"], lines))


def _csv(head: list[str], lines: list[list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    # a cell that a spreadsheet would run as a formula is made text
    writer.writerows([["'" + c if c[:1] in "=+-@" else c for c in line] for line in lines])
    return text.getvalue()
