"""Splits of a corpus into parts, by subject unless marked (``within.py``). What lives here: making, joining, loading. The guard is ``identity.py``.

``splits/NAME.parquet`` holds one row a subject (or, for splits somebody else defined, a record): ``part`` and, for
cross-validation, ``fold``. Its content hash is stored with it and checked at load.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from biossl.config import nearest as nearest_key
from biossl.corpus.dealing import checked, dealt, in_blocks, strata
from biossl.corpus.labels import NAME
from biossl.corpus.within import MARK, WARNING, check_given, dealt_recordings, is_within_subject
from biossl.errors import DataError, RequestError

if TYPE_CHECKING:
    import pandas as pd

    from biossl.corpus.card import Card
    from biossl.corpus.index import Corpus

PARTS = ("train", "val", "test")


def split_names(corpus: Corpus) -> list[str]:
    """``official`` first when the card defines one, then the files of ``splits/``."""
    own = sorted(p.stem for p in (corpus.path / "splits").glob("*.parquet") if p.stem != "official")
    return [*(["official"] if corpus.facts["official_split"] else []), *own]


def load_split(corpus: Corpus, name: str = "official", fold: int | None = None) -> pd.Series:
    """Part of every row, aligned to the index; '' = in no part.

    Parameters
    ----------
    corpus : Corpus
    name : str
    fold : int, optional
        Of a split made with folds: this fold is ``test``, the next ``val``, the others ``train``. ``"NAME:2"`` as the
        name says the same.

    Raises
    ------
    DataError
        No such split (names the nearest), or its file was changed by hand.
    """
    if name not in split_names(corpus) and ":" in name:
        name, _, text = name.rpartition(":")
        if not text.isdigit():
            raise RequestError(f"split '{name}:{text}': write the fold as a number, {name}:0")
        fold = int(text)
    names = split_names(corpus)
    if name not in names:
        help_ = nearest_key(name, names) if names else "it has none"
        raise DataError(f"{corpus.path}: no split '{name}'; {help_}; make one with `biossl split {corpus.path} --name NAME`")
    if name == "official":
        if fold is not None:
            raise RequestError(f"{corpus.path}: split 'official' has no folds; make one with `biossl split ... --folds 5`")
        return corpus.index["split"].rename("split")
    frame, meta = read_split(corpus.path / "splits" / f"{name}.parquet")
    lookup = dict(zip(frame[meta["key"]].tolist(), _parts(corpus, name, frame, fold), strict=True))
    return corpus.index[meta["key"]].map(lookup).fillna("").astype(str).rename("split")


def default_split(corpus: Corpus) -> tuple[str | None, str]:
    """The split used when none is named: ``official``, else the only one; its fold is :func:`with_fold`'s. The one rule of pretrain, check and probe.

    Parameters
    ----------
    corpus : Corpus

    Returns
    -------
    name : str or None
        None = the corpus has no split.
    note : str
        What to tell a person: which split was taken when it is not ``official``; '' otherwise.

    Raises
    ------
    RequestError
        Several splits, none of them ``official``.

    Examples
    --------
    >>> default_split(corpus)  # doctest: +SKIP
    ('official', '')
    """
    names = corpus.split_names()
    if "official" in names or not names:
        return ("official" if names else None), ""
    if len(names) > 1:
        raise RequestError(
            f"{corpus.path}: it has several splits ({', '.join(names)}) and none is official; choose one with --splits NAME"
        )
    return names[0], f"{corpus.path.name}: split '{names[0]}' is used, the only one"


def chosen_split(corpus: Corpus, name: str | None) -> tuple[str | None, list[str]]:
    """The split that is meant by a name or by none, with its fold, and notes; raises as :func:`default_split` and :func:`with_fold`."""
    notes = []
    if name is None:
        name, said = default_split(corpus)
        notes += [said] if said else []
    if name is not None:
        name, said = with_fold(corpus, name)
        notes += [said] if said else []
    return name, notes


def n_folds(corpus: Corpus, name: str) -> int:
    """Number of folds of a split, 0 when it has none."""
    if name == "official":
        return 0
    frame, _ = read_split(corpus.path / "splits" / f"{name}.parquet")
    return int(frame["fold"].max()) + 1 if "fold" in frame else 0


def with_fold(corpus: Corpus, name: str) -> tuple[str, str]:
    """A split's name with the fold that is meant when none is given (``cv`` -> ``cv:0``), and a note that says so, '' without folds.

    Of a within-subject split the note says that too, so that every verb that asks here tells.

    Examples
    --------
    >>> with_fold(corpus, "cv")  # doctest: +SKIP
    ('cv:0', 'split cv: fold 0 of 5; --splits cv:1 is another')
    """
    stored = (corpus.path / "splits" / f"{name}.parquet").is_file()  # a split may also be in memory alone
    folds = n_folds(corpus, name) if stored else 0
    within = [WARNING] if is_within_subject(corpus, name) else []
    if not folds:
        return name, "".join(within)  # no folds, one is named already, or load_split says what is wrong
    return f"{name}:0", "; ".join([f"split {name}: fold 0 of {folds}; --splits {name}:1 is another", *within])


def _parts(corpus: Corpus, name: str, frame: pd.DataFrame, fold: int | None) -> list[str]:
    if "fold" not in frame:
        if fold is not None:
            raise RequestError(f"{corpus.path}: split '{name}' has no folds; make one with `biossl split ... --folds 5`")
        return frame["part"].tolist()
    number, count = frame["fold"].to_numpy(), int(frame["fold"].max()) + 1
    fold = 0 if fold is None else fold
    if not 0 <= fold < count:
        raise RequestError(f"{corpus.path}: split '{name}' has folds 0 to {count - 1}, not {fold}")
    after = (fold + 1) % count
    return ["test" if f == fold else "val" if f == after and count > 2 else "train" for f in number]


def make_split(
    corpus: Corpus,
    name: str,
    *,
    by: Literal["subject", "time", "site", "recording"] = "subject",
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    stratify: str | None = None,
    folds: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Part the subjects of a corpus and store ``splits/NAME.parquet``.

    Parameters
    ----------
    corpus : Corpus
    name : str
    by : str
        ``subject``: at random. ``time``: subjects first recorded earliest are ``train``, the latest ``test``. ``site``:
        one fold a site (covariate ``site``), for leave-one-site-out. ``recording``: the recordings of each subject, which makes the
        split within-subject (:mod:`~biossl.corpus.within`); ``folds`` as many as there are recordings leaves one out.
    fractions : three floats
        Of the subjects (or of each subject's recordings), for ``train``, ``val``, ``test``.
    seed : int
    stratify : str, optional
        A label whose classes are spread evenly over the parts (the most frequent class of a subject, or of a recording).
    folds : int, optional
        Cross-validation folds instead of fractions.

    Returns
    -------
    dict
        Subjects and windows per part or fold, the content hash, and ``notes``: sites, one line for every part that has
        one class only of a label or lacks a class that another part has, and what to do about it.

    Raises
    ------
    RequestError, DataError

    Examples
    --------
    >>> make_split(corpus, "cv", folds=5, stratify="superclass")  # doctest: +SKIP
    """
    if seed < 0:
        raise RequestError(f"--seed {seed}: give 0 or more")
    file = _free(corpus, name, overwrite)
    subjects = sorted(set(corpus.index["subject"]))
    frame: dict[str, list[Any]]
    notes: list[str] = []
    if by == "site":
        if folds is not None or stratify is not None:
            raise RequestError("--by site makes one fold a site; leave out --folds and --stratify")
        frame, notes = _by_site(corpus)
    elif by == "recording":
        frame, notes = _by_recording(corpus, fractions, seed, stratify, folds)
    else:
        if by == "time" and stratify is not None:
            raise RequestError("--by time orders subjects by date; leave out --stratify")
        order = _by_time(corpus) if by == "time" else _shuffled(corpus, subjects, seed, stratify)
        if folds is not None:
            if not 2 <= folds <= len(order):
                raise RequestError(f"--folds {folds}: choose 2 to {len(order)} (the number of subjects)")
            shares = [1 / folds] * folds
            fold_of = in_blocks(len(order), shares) if by == "time" else dealt(len(order), shares)
            frame = {"subject": order, "fold": fold_of}
        else:
            shares = checked(fractions, len(order))
            place = in_blocks(len(order), shares) if by == "time" else dealt(len(order), shares)
            frame = {"subject": order, "part": [PARTS[k] for k in place]}
    within = by == "recording"
    digest = _write(file, frame, "record" if within else "subject", within_subject=within)
    report = _summary(corpus, name, digest, notes)
    if by in ("subject", "time"):
        from biossl.corpus.tally import remedies

        lookup = dict(zip(frame["subject"], map(str, frame["fold" if folds else "part"]), strict=True))
        group = corpus.index["subject"].map(lookup).fillna("").to_numpy().astype(str)
        report["notes"] += remedies(corpus, group, list(report["counts"]), by=by, folds=folds)
    return report


def add_split(
    corpus: Corpus, csv: str | Path, *, name: str, key: Literal["record", "subject"] = "subject", within_subject: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Store a split somebody else defined: a CSV with a ``record`` or ``subject`` column and a ``part`` column.

    ``within_subject`` says that recordings of one person are in several parts, which is refused otherwise.

    Raises
    ------
    DataError
        A subject (by whatever name) would be in two parts, or nobody although ``within_subject`` says so; no id of the CSV is in the corpus.
    """
    from biossl.corpus.identity import Pseudonyms
    from biossl.corpus.label_csv import no_match, read_csv

    if within_subject and key != "record":
        raise RequestError("--by recording with --csv: give --key record, a person has no one part")
    file = _free(corpus, name, overwrite)
    rows, column = read_csv(Path(csv), key, "part", None)
    pseudonyms = Pseudonyms.of(corpus)
    parts_of: dict[str, set[str]] = {}
    for _, cells in rows:
        own = getattr(pseudonyms, key)(cells[key], corpus.card)
        parts_of.setdefault(own, set()).add(cells[column].strip())
    owner = dict(zip(corpus.index[key].tolist(), corpus.index["subject"].tolist(), strict=True))
    matched = {i: p for i, p in parts_of.items() if i in owner}
    if not matched:
        raise no_match(corpus, csv, key, [cells[key] for _, cells in rows])
    by_subject: dict[str, set[str]] = {}
    for i, parts in matched.items():
        by_subject.setdefault(owner[i], set()).update(parts - {""})
    shared = [s for s, parts in by_subject.items() if len(parts) > 1]
    if shared and not within_subject:
        raise DataError(
            f"{csv}: {len(shared)} of {len(by_subject)} subjects are in more than one part; "
            "give every subject one part, or let `biossl split --by subject` make it"
        )
    unknown = sorted({p for parts in matched.values() for p in parts} - {*PARTS, ""})
    if unknown:
        raise RequestError(f"{csv}: part '{unknown[0]}' is not known; write train, val or test")
    torn = [i for i, parts in matched.items() if len(parts - {""}) > 1]
    if torn:  # of a subject it was said above
        raise DataError(f"{csv}: {len(torn)} of {len(matched)} recordings are in more than one part; give every recording one")
    ids = sorted(matched)
    given = {i: max(matched[i]) for i in ids}
    if within_subject:
        check_given(given, owner, csv)
    digest = _write(file, {key: ids, "part": list(given.values())}, key, within_subject=within_subject)
    return _summary(corpus, name, digest, [WARNING] if within_subject else []) | {
        "matched": len(matched),
        "unmatched": len(parts_of) - len(matched),
    }


def official_parts(card: Card, subjects: list[str], records: list[str], covariates: dict[str, list[str]]) -> dict[str, list[str]]:
    """Part of every row by every split of a card: name -> parts ('' = none). Values are compared as text.

    Parameters
    ----------
    card : Card
    subjects, records : list of str
        Per row, as they stand in the card (before keying).
    covariates : dict of str to list of str
    """
    from biossl.corpus.identity import canonical_subject

    out = {}
    for name, split in card.splits.items():
        if split.by == "covariate" and split.column not in covariates:
            raise DataError(
                f"card {card.name}: split '{name}' needs covariate '{split.column}', which no record has; "
                "is the metadata table beside the recordings?"
            )
        cells = {"subject": subjects, "record": records}.get(split.by) or covariates.get(split.column, [])
        person = (lambda v: canonical_subject(v, card)) if split.by == "subject" else str
        lookup = {person(value): part for part, values in split.parts.items() for value in values}
        out[name] = [lookup.get(_text(c), "") for c in cells]
    return out


def _text(cell: str) -> str:
    """``7.0`` of a float column is ``7``."""
    return cell[:-2] if cell.endswith(".0") and cell[:-2].isdigit() else cell


def official_name(card: Card) -> str:
    """The split the index carries: the one named ``official``, else the first; '' when the card has none."""
    return "official" if "official" in card.splits else next(iter(card.splits), "")


# ---------------------------------------------------------------------- who goes where


def _shuffled(corpus: Corpus, subjects: list[str], seed: int, stratify: str | None) -> list[str]:
    order = [subjects[i] for i in np.random.default_rng(seed).permutation(len(subjects))]
    if stratify is None:
        return order
    stratum = strata(corpus, "subject", order, stratify)
    return sorted(order, key=lambda s: stratum[s])  # stable: random within a class


def _by_recording(
    corpus: Corpus, fractions: Sequence[float], seed: int, stratify: str | None, folds: int | None
) -> tuple[dict[str, list[Any]], list[str]]:
    records = sorted(set(corpus.index["record"]))
    stratum = {} if stratify is None else strata(corpus, "record", records, stratify)
    if folds is not None and folds < 2:
        raise RequestError(f"--folds {folds}: choose 2 or more")
    shares = checked(fractions, len(records)) if folds is None else [1 / folds] * folds
    n = sum(share > 0 for share in shares)
    names, places, notes = dealt_recordings(corpus, n, lambda k: dealt(k, shares), seed=seed, stratum=stratum)
    return {"record": names} | ({"part": [PARTS[k] for k in places]} if folds is None else {"fold": places}), notes


def _by_time(corpus: Corpus) -> list[str]:
    first = corpus.index.groupby("subject")["day"].min()
    if first.isna().any():
        raise DataError(f"{corpus.path}: {int(first.isna().sum())} subjects have no recording date, so --by time cannot be used")
    if corpus.facts["card"]["secret_id"]:
        raise DataError(
            f"{corpus.path}: days are shifted by an amount of their own for every patient, so subjects cannot be ordered in time"
        )
    return sorted(first.index, key=lambda s: (first[s], s))


def _by_site(corpus: Corpus) -> tuple[dict[str, list[Any]], list[str]]:
    if "site" not in corpus.index.columns:
        raise DataError(f"{corpus.path}: no covariate 'site'; map one in the card's tables, then convert again")
    table = corpus.index.groupby(["subject", "site"]).size().reset_index(name="n")
    table = table[table["site"].astype(str) != ""].sort_values(["subject", "n", "site"], ascending=[True, False, True])
    several = int((table.groupby("subject").size() > 1).sum())
    home = table.drop_duplicates("subject")
    sites = sorted(set(home["site"]))
    if len(sites) < 2:
        raise DataError(f"{corpus.path}: {len(sites)} site; leave-one-site-out needs two")
    notes = [f"fold {k}: site {s}" for k, s in enumerate(sites)]
    if several:
        notes.append(f"{several} subjects were seen at several sites and count for the one with most windows")
    return {"subject": home["subject"].tolist(), "fold": [sites.index(s) for s in home["site"]]}, notes


# ---------------------------------------------------------------------- files


def _free(corpus: Corpus, name: str, overwrite: bool) -> Path:
    if not NAME.fullmatch(name) or name == "official":
        raise RequestError(f"--name '{name}': use letters, digits, '_', '-' and '.'; 'official' is the card's")
    file = corpus.path / "splits" / f"{name}.parquet"
    if file.exists() and not overwrite:
        raise RequestError(f"{corpus.path}: split '{name}' exists; choose another name or add --overwrite")
    return file


def _content_hash(frame: pd.DataFrame) -> str:
    text = "\n".join("\t".join(str(v) for v in row) for row in frame.itertuples(index=False))
    return hashlib.sha256(("\t".join(frame.columns) + "\n" + text).encode()).hexdigest()


def _write(file: Path, columns: dict[str, list[Any]], key: str, *, within_subject: bool = False) -> str:
    import pandas as pd

    from biossl.atomic import write_parquet

    frame = pd.DataFrame(columns).sort_values(key, kind="stable").reset_index(drop=True)
    digest = _content_hash(frame)
    write_parquet(file, frame, {"key": key, "hash": digest} | ({MARK: "true"} if within_subject else {}))
    return digest


def read_split(file: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows and metadata (``key``, ``hash``, perhaps ``within_subject``) of a stored split; DataError where it is damaged or was changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: damaged ({str(error)[:60]}); make the split again with --overwrite") from None
    meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    frame = table.to_pandas()
    if meta.get("hash") != _content_hash(frame):
        raise DataError(f"{file}: its content differs from its hash; make the split again with --overwrite")
    return frame, meta


def write_record_split(file: Path, parts: dict[str, str]) -> str:
    """Store a split of records that a card defines; returns its content hash."""
    records = sorted(parts)
    return _write(file, {"record": records, "part": [parts[r] for r in records]}, "record")


def _summary(corpus: Corpus, name: str, digest: str, notes: list[str]) -> dict[str, Any]:
    from biossl.corpus.tally import poor_parts

    frame, meta = read_split(corpus.path / "splits" / f"{name}.parquet")
    by = "fold" if "fold" in frame else "part"
    lookup = {k: str(v) for k, v in zip(frame[meta["key"]], frame[by], strict=True)}
    group = corpus.index[meta["key"]].map(lookup).fillna("").astype(str)
    counts = {
        g: {"subjects": int(rows["subject"].nunique()), "recordings": int(rows["record"].nunique()), "windows": len(rows)}
        for g, rows in corpus.index.groupby(group)
        if g
    }
    order = sorted(counts, key=lambda g: (PARTS.index(g) if g in PARTS else -1, int(g) if g.isdigit() else 0))
    poor = poor_parts(corpus, group.to_numpy(), order, word=by)
    return {
        "name": name, "by": by, "within_subject": meta.get(MARK) == "true", "counts": {g: counts[g] for g in order}, "hash": digest,
        "notes": [*notes, *poor],
    }  # fmt: skip
