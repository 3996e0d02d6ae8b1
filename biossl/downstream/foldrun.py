"""The folder of a fine-tuning that was done once a fold, once a seed, or both, and the file that says what it is.

What lives here: :class:`FoldRun`, read from and written to ``RUN/folds.json``. Layout::

    RUN/folds.json                 label, split, folds, seeds, encoder, settings
    RUN/fold-K                     a run folder of `biossl finetune` a fold
    RUN/seed-S, RUN/seed-S/fold-K  the same, where several seeds were asked for

The trainings are ``folds.py``'s, judging them together is ``evaluate_folds.py``'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from biossl.atomic import write_text
from biossl.config import load_yaml
from biossl.corpus import Corpus
from biossl.errors import BiosslError, DataError, RequestError

FILE = "folds.json"
FORMAT = 1


@dataclass(frozen=True)
class Member:
    """One of the trainings: its ``folder`` below RUN, ``seed``, ``fold`` (None = the split has none), ``split`` with the fold."""

    folder: str
    seed: int
    fold: int | None
    split: str


@dataclass(frozen=True)
class FoldRun:
    """What such a folder is.

    Attributes
    ----------
    path : Path
    label, kind : str
    corpus : dict
        ``name`` and ``hash``.
    split : str
        Without a fold where every fold was trained.
    parts : str
        Hash of who is in which part of every fold.
    encoder : str
        Hash of its weights.
    members : list of Member
        Seed by seed.
    settings : dict
        What else the trainings share.
    """

    path: Path
    label: str
    kind: str
    corpus: dict[str, str]
    split: str
    parts: str
    encoder: str
    members: list[Member]
    settings: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        """In the order they were given."""
        return list(dict.fromkeys(m.seed for m in self.members))

    @property
    def folds(self) -> list[int]:
        """Rising; empty without any."""
        return sorted({m.fold for m in self.members if m.fold is not None})

    def trained(self, member: Member) -> bool:
        """Its model is there (a model folder is written whole)."""
        return (self.path / member.folder / "model" / "model.yaml").is_file()

    def to_dict(self) -> dict[str, Any]:
        """Plain values of ``folds.json``."""
        facts = asdict(self)
        facts.pop("path")
        return {"format": FORMAT, "folds": self.folds, "seeds": self.seeds, **facts}

    def write(self) -> None:
        """Write ``folds.json``."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / FILE, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def weights(self) -> str:
        """One hash of all members' weights.

        Raises
        ------
        RequestError
            A model is not there yet.
        """
        missing = [m.folder for m in self.members if not self.trained(m)]
        if missing:
            raise RequestError(
                f"{self.path}: {len(missing)} of {len(self.members)} models are not trained yet ({missing[0]}); "
                "give the command of `biossl finetune` again, it goes on there"
            )
        try:
            each = [load_yaml(self.path / m.folder / "model" / "model.yaml")["weights"]["sha256"] for m in self.members]
        except (KeyError, TypeError):
            raise DataError(f"{self.path}: a model.yaml below it is damaged; copy the folder again or fine-tune anew") from None
        return hashlib.sha256(" ".join(each).encode()).hexdigest()


def is_folds(run: str | Path) -> bool:
    """Whether a folder holds several trainings of one label."""
    return (Path(run) / FILE).is_file()


def require_one_model(run: str | Path) -> None:
    """RequestError for a folder of several models, where one is asked for.

    Examples
    --------
    >>> require_one_model("runs/hapt-6")
    """
    if is_folds(run):
        held = read_folds(run)
        what = "cross-validated: an estimate" if held.folds else "several seeds of one training: an estimate"
        raise RequestError(f"{run}: {what}, not a model; choose one of its models, e.g. {Path(run) / held.members[0].folder}")


def read_folds(run: str | Path) -> FoldRun:
    """Read ``RUN/folds.json``.

    Raises
    ------
    RequestError
        There is none.
    DataError
        Damaged, or of another format.

    Examples
    --------
    >>> read_folds("runs/eegmat-cv").members[0].folder  # doctest: +SKIP
    'seed-0/fold-0'
    """
    file = Path(run) / FILE
    if not file.is_file():
        raise RequestError(f"{run}: no {FILE} in it; give the --out of `biossl finetune ... --fold all` or `--seeds ...`")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise DataError(f"{file}: format {facts['format']}; this version reads {FORMAT}")
        members = [Member(m["folder"], int(m["seed"]), m["fold"], m["split"]) for m in facts["members"]]
        held = FoldRun(
            Path(run), facts["label"], facts["kind"], facts["corpus"], facts["split"], facts["parts"], facts["encoder"], members,
            facts["settings"],
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{file}: damaged; give the command of `biossl finetune` again with --overwrite") from None
    if not members:
        raise DataError(f"{file}: names no training; give the command of `biossl finetune` again with --overwrite")
    return held


def make_members(split: str, folds: Sequence[int], seeds: Sequence[int], *, by_seed: bool) -> list[Member]:
    """All trainings, seed by seed, so that one seed's estimate is whole first.

    Examples
    --------
    >>> [m.folder for m in make_members("cv", [0, 1], [3], by_seed=True)]
    ['seed-3/fold-0', 'seed-3/fold-1']
    >>> make_members("cv", [0, 1], [0], by_seed=False)[1]
    Member(folder='fold-1', seed=0, fold=1, split='cv:1')
    """
    out = []
    for seed in seeds:
        for fold in folds or [None]:  # type: ignore[list-item]
            names = [f"seed-{seed}"] * by_seed + ([] if fold is None else [f"fold-{fold}"])
            out.append(Member("/".join(names), seed, fold, split if fold is None else f"{split}:{fold}"))
    return out


def parts_hash(corpus: Corpus, members: Sequence[Member]) -> str:
    """Hash of the part of every row in the split of every member.

    Raises
    ------
    DataError
        The corpus no longer has the split.
    """
    digest = hashlib.sha256()
    for split in dict.fromkeys(m.split for m in members):
        digest.update("\n".join([split, *corpus.split(split).to_numpy().astype(str)]).encode())
    return digest.hexdigest()[:16]


def require_same_parts(held: FoldRun, corpus: Corpus) -> None:
    """Refuse folds that were made anew since: who was held out then is not who is held out now."""
    try:
        now = parts_hash(corpus, held.members)
    except BiosslError as error:
        raise DataError(f"{held.path}: the folds it was trained on cannot be read ({error})") from None
    if now != held.parts:
        raise DataError(
            f"{held.path}: split '{held.split}' of {corpus.path} was changed since the training; fine-tune again in another --out"
        )
