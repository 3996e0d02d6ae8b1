"""Who is who: pseudonyms of sets that are not public, subject keys an encoder remembers, and the leak guard.

What lives here: keyed names and day shifts, :func:`subject_keys`, :func:`seen` and :func:`guard_split`. Matching of
one person's names happens before keying, so that two names of one person get one key.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biossl.corpus.within import is_within_subject
from biossl.errors import DataError, RequestError

if TYPE_CHECKING:
    from biossl.corpus.card import Card
    from biossl.corpus.index import Corpus

SECRET_FILE = "secret.key"
WINDOW_SAMPLE = 1024  # windows of a corpus that an encoder remembers: those with the smallest hashes, so that two
#                       corpora of the same windows keep the same ones
RECORDING_SAMPLE = 65_536  # recordings it remembers, chosen likewise
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def canonical_subject(subject: str, card: Card) -> str:
    """The one name of a person: spaces trimmed, Unicode composed, aliases of ``card.same_person`` resolved."""
    name = unicodedata.normalize("NFC", subject).strip()
    for names in card.same_person:
        if name in names:
            return names[0]
    return name


@dataclass(frozen=True)
class Pseudonyms:
    """Names as a corpus stores them: unchanged for a public set, keyed for any other.

    Attributes
    ----------
    secret : bytes or None
        None = public.
    """

    secret: bytes | None

    @classmethod
    def of(cls, corpus: Corpus) -> Pseudonyms:
        """Those of a corpus; RequestError when its secret is not in the folder."""
        if corpus.facts["card"]["public"]:
            return cls(None)
        found = cls.read(corpus.path)
        if found is None:
            raise RequestError(
                f"{corpus.path / SECRET_FILE}: not here; names can only be joined where the corpus was made (the secret never travels)"
            )
        return found

    @classmethod
    def read(cls, folder: Path) -> Pseudonyms | None:
        """From the folder's secret file, or None when it has none."""
        try:
            return cls(bytes.fromhex((folder / SECRET_FILE).read_text(encoding="ascii").strip()))
        except FileNotFoundError:
            return None
        except ValueError:
            raise RequestError(f"{folder / SECRET_FILE}: damaged; put the right one back, or choose a new folder") from None

    @classmethod
    def make(cls, folder: Path) -> Pseudonyms:
        """The folder's secret, made (mode 0600, ignored by git) when it is absent."""
        from biossl.atomic import write_bytes, write_text

        found = cls.read(folder)
        if found is not None:
            return found
        write_text(folder / ".gitignore", "# patient-derived data never belongs in a repository\n*\n")
        secret = secrets.token_bytes(32)
        write_bytes(folder / SECRET_FILE, (secret.hex() + "\n").encode(), mode=0o600)
        return cls(secret)

    def _key(self, kind: str, text: str) -> str:
        assert self.secret is not None
        return hmac.new(self.secret, f"{kind}\x1f{text}".encode(), hashlib.sha256).hexdigest()[:32]

    def subject(self, subject: str, card: Card) -> str:
        """Stored name of a subject."""
        name = canonical_subject(subject, card)
        return name if self.secret is None else self._key("subject", name)

    def record(self, record: str, card: Card) -> str:
        """Stored name of a record."""
        name = unicodedata.normalize("NFC", record).strip()
        return name if self.secret is None else self._key("record", name)

    def value(self, column: str, text: str) -> str:
        """Key of a text of a covariate: equal texts stay equal, within a column."""
        return text if self.secret is None else "k" + self._key(f"value {column}", text)[:12]

    def day(self, number: float, subject_key: str) -> float:
        """Stored day of a day number: whole and shifted by one amount a patient unless public, so order is kept."""
        if self.secret is None:
            return number
        shift = int(self._key("shift", subject_key)[:8], 16) % 36525
        return float(np.floor(number) - shift)

    def id(self) -> str:
        """A name of the secret that does not give it away; '' for a public set."""
        return "" if self.secret is None else self._key("id", "")[:16]


_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?)?\s*(?:Z|[+-]\d{2}:?\d{2})?")
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_DOTTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?: (\d{2}):(\d{2})(?::(\d{2}))?)?")
_DATE_LIKE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}|\d{1,2}[- /.](?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)", re.IGNORECASE
)


def day_number(text: str) -> float | None:
    """Days since 1970-01-01, local time as written, or None when the text is not a date without doubt.

    ``2020-03-01``, ``2020-03-01 12:00:00``, ``20200301`` and ``1.3.2020`` are dates; ``03/01/2020`` may be March or
    January, so it is not.

    Examples
    --------
    >>> day_number("1970-01-02 12:00")
    1.5
    """
    text = str(text).strip()
    for pattern, order in ((_ISO, (0, 1, 2)), (_COMPACT, (0, 1, 2)), (_DOTTED, (2, 1, 0))):
        match = pattern.fullmatch(text)
        if match:
            parts = match.groups()
            try:
                day = datetime.date(*(int(parts[i]) for i in order)).toordinal() - _EPOCH
            except ValueError:
                return None
            clock = [int(p) if p else 0 for p in parts[3:6]] + [0, 0, 0]
            return day + (clock[0] * 3600 + clock[1] * 60 + clock[2]) / 86400
    return None


def looks_like_date(text: str) -> bool:
    """True also for dates in a doubtful order, which must not be stored for a set that is not public."""
    return day_number(text) is not None or bool(_DATE_LIKE.search(text))


# ---------------------------------------------------------------------- what an encoder remembers


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def _group(corpus: Corpus) -> str:
    """Short name of a card and, for a set that is not public, of its secret: names of people mean something inside it."""
    return _hash(corpus.card.name, corpus.facts["card"]["secret_id"])[:8]


def _by_subject(corpus: Corpus, rows: Any) -> dict[str, np.ndarray]:
    """Key of a subject's name -> its rows among ``rows``. The same person has the same key in every view of a card."""
    rows = np.asarray(rows, dtype=np.int64)
    names = corpus.index["subject"].to_numpy()[rows]
    unique, inverse = np.unique(names.astype(str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(rows[order], np.cumsum(np.bincount(inverse, minlength=len(unique)))[:-1])
    keys = [_hash("subject", canonical_subject(str(n), corpus.card)) for n in unique]
    return dict(zip(keys, parts, strict=True))


def _recordings(corpus: Corpus) -> np.ndarray:
    """Of every row the hash of its whole recording, '' = nothing varies, or a corpus converted before it was taken."""
    index = corpus.index
    return index["record_sha256"].to_numpy() if "record_sha256" in index else np.full(len(index), "", object)


def subject_keys(corpus: Corpus, rows: Any) -> set[str]:
    """What an encoder trained on these rows remembers: hashes, no names.

    Parameters
    ----------
    corpus : Corpus
    rows : sequence of int

    Returns
    -------
    set of str
        ``s:`` subjects and ``r:`` recordings (whatever the view), each within a group, which is a card; ``w:`` a sample of
        windows; ``c:`` the card and, for a set that is not public, its secret's id; ``o:`` the cards it overlaps.
    """
    where, group = np.asarray(rows, dtype=np.int64), _group(corpus)
    windows = sorted(set(corpus.index["sha256"].to_numpy()[where]) - {""})[:WINDOW_SAMPLE]  # "" = flat or unobserved
    recordings = sorted(set(_recordings(corpus)[where]) - {""})[:RECORDING_SAMPLE]
    return (
        {f"c:{corpus.card.name}:{corpus.facts['card']['secret_id']}"}
        | {f"o:{name}" for name in corpus.card.overlaps}
        | {f"s:{group}:{k}" for k in _by_subject(corpus, where)}
        | {f"r:{group}:{r[:16]}" for r in recordings}
        | {f"w:{w[:32]}" for w in windows}
    )


def seen(corpus: Corpus, rows: Any, encoder_seen: set[str] | Sequence[str], *, split: str | None = None) -> int:
    """Number of subjects among ``rows`` that the encoder has (or may have) been trained on: of :func:`seen_subjects`."""
    return len(seen_subjects(corpus, rows, encoder_seen, split=split))


def seen_subjects(
    corpus: Corpus, rows: Any, marks: set[str] | Sequence[str], *, split: str | None = None
) -> dict[str, np.ndarray]:
    """Subjects among ``rows`` that stand, or may stand, behind the marks of :func:`subject_keys`: key -> rows.

    A subject counts by its name, by a recording or by a window it shares. Names count within a card, and between two
    cards that share a recording: those are one data set under two names. All count when they cannot be told apart: the
    marks are of a card that overlaps this one, or of the same private set converted under another secret. Where the card says which of its
    recordings an overlap is of (``overlap_where``), those alone count.

    Under a within-subject ``split`` the name alone does not count, for other recordings of the person may be known: only a judged
    recording or window that is remembered does. Where recordings cannot be told apart (a corpus or marks without their hashes, or
    marks that are a sample because there were too many), the name counts there too.
    """
    remembered = set(marks)
    people = _by_subject(corpus, rows)
    own, secret = corpus.card.name, corpus.facts["card"]["secret_id"]
    before = [mark[2:].rpartition(":")[::2] for mark in remembered if mark.startswith("c:")]
    others = {name for name, _ in before} - {own}
    both = others & set(corpus.card.overlaps)
    if (own, True) in {(name, key != secret) for name, key in before}:
        return people
    if f"o:{own}" in remembered and (not both or others - both):  # said by a card of which this one does not say what is shared
        return people
    doubtful = np.zeros(len(corpus.index), bool)
    for name in both:
        doubtful |= _overlapping(corpus, name)
    recordings = _recordings(corpus).astype("U16")
    held = {r for r in remembered if r.startswith("r:")}
    here = set(recordings) - {""}
    shared = {mark for mark in held if mark[11:] in here}
    groups = {_group(corpus)} | {mark[2:10] for mark in shared}
    heard = {mark[11:] for mark in shared}
    sha = corpus.index["sha256"].to_numpy()
    windows = {m[2:] for m in remembered if m.startswith("w:")}
    if is_within_subject(corpus, split) and "record_sha256" in corpus.index:
        told = [sum(mark[2:10] == group for mark in held) for group in groups]
        groups = {group for group, n in zip(groups, told, strict=True) if not 0 < n < RECORDING_SAMPLE}

    def known(key: str, where: np.ndarray) -> bool:
        named = any(f"s:{group}:{key}" in remembered for group in groups)
        return named or any(doubtful[r] or recordings[r] in heard or sha[r][:32] in windows for r in where)

    return {key: where for key, where in people.items() if known(key, where)}


def _overlapping(corpus: Corpus, name: str) -> np.ndarray:
    """Rows that may be recordings of another card, bool (n_index,): all, unless the card says which."""
    out = np.ones(len(corpus.index), bool)
    for column, values in corpus.card.overlap_where.get(name, {}).items():
        if column in corpus.index:
            cells = corpus.index[column]
            out &= (cells.astype(str).isin(values) | cells.isin(["", None])).to_numpy()  # of no known value: it may be
    return out


# ---------------------------------------------------------------------- the leak guard


def guard_split(corpora: Sequence[Corpus], split: str | Sequence[str] = "official") -> None:
    """Refuse a split in which somebody, or some window, is in two parts.

    Of a within-subject split (:mod:`~biossl.corpus.within`) a person may be, a recording may not; a person whom an ordinary split
    holds as well may not either.

    Parameters
    ----------
    corpora : sequence of Corpus
        Judged together: a subject may not be in ``train`` of one and ``test`` of another.
    split : str or sequence of str
        Name of the split, or one name a corpus.

    Raises
    ------
    DataError
        A subject, a same-person alias, identical samples or overlapping cards across parts.
    """
    parts_of: dict[str, set[str]] = {}
    windows: dict[str, set[str]] = {}
    parts_of_card: dict[tuple[str, str], set[str]] = {}
    overlaps: dict[str, set[str]] = {}
    recordings: dict[str, set[str]] = {}
    parts_of_record: dict[str, set[str]] = {}
    ordinary: set[str] = set()  # subjects whom a split by subject holds
    names = [split] * len(corpora) if isinstance(split, str) else list(split)
    split = "', '".join(dict.fromkeys(names))
    for corpus, name, group in zip(corpora, names, _one_set(corpora), strict=True):
        part = corpus.split(name).to_numpy().astype(str)
        rows = np.flatnonzero(part != "")
        people = _by_subject(corpus, rows)
        for key, where in people.items():
            parts_of.setdefault(f"{group}:{key}", set()).update(part[where])
        if is_within_subject(corpus, name):
            record = corpus.index["record"].to_numpy().astype(str)
            for row in rows:
                parts_of_record.setdefault(f"{group}:{record[row]}", set()).add(part[row])
        else:
            ordinary |= {f"{group}:{key}" for key in people}
        for held, sha in ((windows, corpus.index["sha256"].to_numpy()), (recordings, _recordings(corpus))):
            for row in rows:
                if sha[row]:  # "" = flat or unobserved, which says nothing about who was recorded
                    held.setdefault(sha[row], set()).add(part[row])
        card = (corpus.card.name, corpus.facts["card"]["secret_id"])
        parts_of_card.setdefault(card, set()).update(part[rows])
        overlaps.setdefault(card[0], set()).update(corpus.card.overlaps)
    remedy = "make another with `biossl split CORPUS --name NAME --by subject`"
    shared = [parts for key, parts in parts_of.items() if len(parts) > 1 and key in ordinary]
    if shared:
        raise DataError(
            f"split '{split}': {len(shared)} {_subjects(len(shared))} in more than one part ({_and(shared)}); {remedy}"
        )
    torn = [parts for parts in parts_of_record.values() if len(parts) > 1]
    if torn:
        raise DataError(
            f"split '{split}': {len(torn)} recordings are in more than one part ({_and(torn)}); make it with --by recording"
        )
    _guard_cards(parts_of_card, overlaps, split)
    for what, held in (("windows", windows), ("recordings", recordings)):
        same = [parts for parts in held.values() if len(parts) > 1]
        if same:
            raise DataError(
                f"split '{split}': {len(same)} {what} with identical samples are in more than one part "
                f"({_and(same)}): the same recording under two subjects; name them in the card's same_person"
            )


def _one_set(corpora: Sequence[Corpus]) -> list[str]:
    """A group for each corpus: its card's, and one for cards that share a recording, a data set under several names."""
    groups = [_group(corpus) for corpus in corpora]
    first: dict[str, int] = {}  # recording -> the first corpus that holds it
    for i, corpus in enumerate(corpora):
        for other in {first.setdefault(r, i) for r in set(_recordings(corpus)) - {""}}:
            groups = [groups[i] if group == groups[other] else group for group in groups]
    return groups


def _guard_cards(parts_of_card: dict[tuple[str, str], set[str]], overlaps: dict[str, set[str]], split: str) -> None:
    cards = sorted(parts_of_card)
    for i, a in enumerate(cards):
        for b in cards[i + 1 :]:
            together = parts_of_card[a] | parts_of_card[b]
            if len(together) < 2:
                continue
            if a[0] == b[0]:
                raise DataError(
                    f"split '{split}': two corpora of '{a[0]}' were keyed with different secrets, so their subjects cannot "
                    f"be compared; copy {SECRET_FILE} of the first into the second's empty folder and convert that again"
                )
            if b[0] in overlaps[a[0]] or a[0] in overlaps[b[0]]:
                raise DataError(
                    f"split '{split}': cards '{a[0]}' and '{b[0]}' share recordings and are in different parts "
                    f"({_and([together])}); use one of them, or both in one part"
                )


def _subjects(n: int) -> str:
    return "subject is" if n == 1 else "subjects are"


def _and(groups: Sequence[set[str]]) -> str:
    return " and ".join(sorted(set().union(*groups)))


def secret_is_private(folder: Path) -> bool:
    """True when only the owner can read the folder's secret (always on Windows, which has no such bits)."""
    return os.name == "nt" or not (folder / SECRET_FILE).stat().st_mode & 0o077
