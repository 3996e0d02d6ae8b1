"""What is pretrained on: the corpus that is judged, another one, or several with weights.

What lives here: :class:`Mixture` and who of its corpora may be trained on in a fold. Of a judged person nothing is: not by
name, recording or window, in whichever view or card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biossl.compare.corrupt import Seen
from biossl.compare.plan import Fold, SplitCorpus
from biossl.corpus import Corpus, seen_subjects, subject_keys
from biossl.corpus.splits import default_split
from biossl.errors import DataError, RequestError

Sources = list[tuple[Corpus, float]]


@dataclass(frozen=True)
class Mixture:
    """Corpora and the weights they have in a pretraining; none = the corpus that is judged."""

    corpora: tuple[tuple[Corpus, float], ...] = ()

    @property
    def text(self) -> str:
        """``hapt_continuous`` or ``hapt_continuous=1 wisdm=0.5``."""
        if len(self.corpora) == 1:
            return self.corpora[0][0].path.resolve().name
        return " ".join(f"{c.path.resolve().name}={w:g}" for c, w in self.corpora) or "the judged corpus"

    def sources(self, fold: Fold) -> Sources:
        """The corpora of one fold, each with a split of the fold's name whose part ``train`` may be trained on.

        In the judged corpus that is the fold's training part. In another one: people who are in that part; of people the
        judged corpus does not know, those of the other's own part ``train`` (all where it has no split). Never anybody who is,
        or may be, somebody of the judged corpus outside the training part.

        Raises
        ------
        DataError
            A corpus has nobody left.
        """
        if not self.corpora:
            return [(fold.corpus, 1.0)]
        part = fold.corpus.split(fold.split).to_numpy().astype(str)
        ours, held = (subject_keys(fold.corpus, np.flatnonzero(some)) for some in (part == "train", part != "train"))
        return [(_source(corpus, fold, ours, held), weight) for corpus, weight in self.corpora]


def _source(corpus: Corpus, fold: Fold, ours: set[str], held: set[str]) -> Corpus:
    if corpus.hash == fold.corpus.hash:
        return fold.corpus
    everything = np.arange(len(corpus))
    name = default_split(corpus)[0]
    own = np.ones(len(corpus), bool) if name is None else corpus.split(name).to_numpy().astype(str) == "train"
    part = np.where(own, "train", "").astype(object)
    for rows in seen_subjects(corpus, everything, _no_overlaps(ours)).values():
        part[rows] = "train"
    for rows in seen_subjects(corpus, everything, held).values():
        part[rows] = ""
    if not (part == "train").any():
        raise DataError(
            f"{corpus.path}: nobody is left to pretrain on: all of its people are, or may be, among those judged (by name, "
            "recording, or a card that overlaps); leave it out of --pretrain-on"
        )
    return SplitCorpus(corpus, fold.split, part.astype(str))


def _no_overlaps(marks: set[str]) -> set[str]:
    """Names, recordings and windows alone: a doubt about a whole card gives nobody leave."""
    return {m for m in marks if m[:2] in ("s:", "r:", "w:")}


def check_mixtures(mixtures: Sequence[Mixture], judged: Corpus, channels: Sequence[str]) -> None:
    """RequestError unless all corpora have windows of the judged one's kind and weights above 0."""
    wanted = tuple(channels) or judged.spec.ch_names
    ours = Seen(judged, wanted).spec
    texts = [m.text for m in mixtures]
    twice = sorted({t for t in texts if texts.count(t) > 1})
    if twice:
        raise RequestError(f"--pretrain-on {twice[0]}: given twice; leave one out")
    for corpus, weight in (pair for m in mixtures for pair in m.corpora):
        name, there = corpus.path.resolve().name, corpus.spec.ch_names
        if not weight > 0:
            raise RequestError(f"--pretrain-on {name}={weight:g}: a weight must be above 0; leave the corpus out instead")
        if (set(wanted) - set(there)) if channels else there != wanted:
            raise RequestError(
                f"--pretrain-on {name}: it has channels {' '.join(there)}, wanted are {' '.join(wanted)}; name those that all "
                "corpora have with --data.channels"
            )
        for line in ours.differences(Seen(corpus, wanted).spec):
            raise RequestError(f"--pretrain-on {name}: {line}; convert it with a view of the same windows as {judged.path.name}")
