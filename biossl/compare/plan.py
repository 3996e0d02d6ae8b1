"""What is compared: recipes made comparable, folds of subjects, and the settings heads are trained under.

What lives here: the refusals, the budget written into a recipe, the folds, the draws of scarce labels. Nothing is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from biossl import protocol
from biossl.corpus import Corpus
from biossl.corpus.splits import default_split
from biossl.corpus.within import refuse_within_subject
from biossl.errors import DataError, RequestError
from biossl.judging import Rows
from biossl.probe import check_rows, labelled_rows
from biossl.recipe.schema import Part, Recipe

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]
FRACTIONS = (0.01, 0.1, 1.0)
SUBJECTS = (1, 2, 5)
N_DRAWS = 20
FOLD_SEED = 0  # folds and draws are the same whatever seeds are compared


# ---------------------------------------------------------------------------------------------- recipes


def agree(recipes: Sequence[Recipe], model_from: Recipe | None = None, *, own_batch: bool = False) -> list[Recipe]:
    """The recipes, found to differ in objective, mask, augmentation and optimisation only.

    Parameters
    ----------
    recipes : sequence of Recipe
    model_from : Recipe, optional
        Its ``model`` section replaces that of every recipe.
    own_batch : bool
        Batch sizes may differ: a budget in operations or seconds weighs them, one in steps does not.

    Raises
    ------
    RequestError
        Two of one name; another ``modality``, ``model`` or ``data``: the first key that differs is named.
    """
    if not recipes:
        raise RequestError("no recipe given; name one or more before the corpus")
    names = [r.name for r in recipes]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise RequestError(f"two recipes are named '{twice[0]}'; change the key 'name' of one")
    if model_from is not None:
        recipes = [dataclasses.replace(r, model=model_from.model) for r in recipes]
    for recipe in recipes[1:]:
        if recipe.modality != recipes[0].modality:
            raise RequestError(
                f"{recipe.source or recipe.name}: for {recipe.modality}, {recipes[0].source or recipes[0].name} is for {recipes[0].modality}; "
                "compare recipes of one signal"
            )
    first = _sections(recipes[0], own_batch)
    for recipe in recipes[1:]:
        there = _sections(recipe, own_batch)
        for section in ("model", "data"):
            key = _first_difference(first[section], there[section], section)
            if key:
                help_ = " or add --model-from RECIPE" if section == "model" else ""
                help_ = " or a budget that weighs it, --flops or --seconds" if key == "data.batch_size" else help_
                raise RequestError(
                    f"{recipe.source or recipe.name}: '{key}' is {_at(there, key)}, in {recipes[0].source or recipes[0].name} it is "
                    f"{_at(first, key)}; a comparison needs the same: give --{key} VALUE for all{help_}"
                )
    return list(recipes)


def _sections(recipe: Recipe, own_batch: bool) -> dict[str, Any]:
    """What must be equal, as plain values; loader processes change nothing."""
    plain = recipe.to_dict()
    plain["data"] = {k: v for k, v in plain["data"].items() if k != "workers" and not (own_batch and k == "batch_size")}
    return plain


def for_budget(recipe: Recipe, steps: int, seed: int) -> Recipe:
    """The recipe over ``steps`` steps: numbers of steps in its schedule are scaled with it, collapse is noted, never stops.

    Examples
    --------
    >>> from biossl.recipe import load_recipe
    >>> r = for_budget(load_recipe("imu/jepa_small"), 1200, 3)
    >>> r.train.steps, r.train.schedule.config.warmup_steps, r.seed
    (1200, 120, 3)
    """
    share = steps / recipe.train.steps
    schedule, config = recipe.train.schedule, recipe.train.schedule.config
    scaled = {
        f.name: round(getattr(config, f.name) * share)
        for f in dataclasses.fields(config)
        if f.name.endswith("_steps") and getattr(config, f.name) is not None
    }
    train = dataclasses.replace(recipe.train, steps=steps, schedule=Part(schedule.name, dataclasses.replace(config, **scaled)))
    monitor = dataclasses.replace(recipe.monitor, stop_target_variance=0.0, stop_prediction_variance=0.0)
    checkpoint = dataclasses.replace(recipe.checkpoint, keep=1)
    return dataclasses.replace(recipe, train=train, monitor=monitor, checkpoint=checkpoint, seed=seed)


def own_steps(recipes: Sequence[Recipe]) -> int:
    """Steps of the recipes where no budget is given; RequestError when they differ."""
    steps = {r.name: r.train.steps for r in recipes}
    if len(set(steps.values())) > 1:
        text = ", ".join(f"{n} {s}" for n, s in steps.items())
        raise RequestError(f"train.steps differs ({text}); give the budget: --steps N, --flops X or --seconds S")
    return recipes[0].train.steps


def _first_difference(a: Any, b: Any, key: str) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted({*a, *b}):
            found = _first_difference(a.get(name), b.get(name), f"{key}.{name}")
            if found:
                return found
        return ""
    return "" if a == b else key


def _at(plain: Any, key: str) -> Any:
    for name in key.split("."):
        plain = plain.get(name) if isinstance(plain, dict) else None
    return plain


# ---------------------------------------------------------------------------------------------- folds


class SplitCorpus(Corpus):
    """A corpus with one split more, which is in memory only."""

    def __init__(self, corpus: Corpus, name: str, part: Array) -> None:
        super().__init__(corpus.path, corpus.facts)
        self.index = corpus.index
        self._name, self._part = name, part

    def split_names(self) -> list[str]:
        """The corpus's own and the one in memory."""
        return [*super().split_names(), self._name]

    def split(self, name: str = "official") -> pd.Series:
        """As of :class:`Corpus`."""
        if name != self._name:
            return super().split(name)
        import pandas as pd

        return pd.Series(self._part, index=self.index.index, name="split")

    def __reduce__(self) -> tuple[Any, ...]:
        return SplitCorpus, (Corpus(self.path, self.facts), self._name, self._part)


@dataclass(frozen=True)
class Fold:
    """One training and judging of everything.

    ``number``; ``split`` name of the split in ``corpus`` whose part ``train`` is pretrained on; ``train`` and ``judged``
    positions in :class:`Rows`.
    """

    number: int
    split: str
    corpus: Corpus
    train: Array
    judged: Array


def make_folds(
    corpus: Corpus, label: str, *, split: str | None, folds: int | None, within: str | None
) -> tuple[Rows, list[Fold], list[str]]:
    """Who is trained on and who is judged.

    Parameters
    ----------
    corpus : Corpus
    label : str
    split : str, optional
        Default: ``official`` or the only one. A split made with folds gives all of them, one after the other.
    folds : int, optional
        Grouped folds over the subjects instead (classes spread evenly), each pretrained on its own training subjects.
    within : str, optional
        With ``folds``: only subjects of this part of the split, so that nothing else is opened.

    Returns
    -------
    Rows, list of Fold, list of str
        Labelled rows, the folds, notes.

    Raises
    ------
    RequestError, DataError
    """
    name = split if split is not None else default_split(corpus)[0]
    if within is not None and (folds is None or name is None):
        raise RequestError(f"--within {within}: needs a split and --folds K: its subjects are parted into K folds")
    if name is None and folds is None:
        raise RequestError(f"{corpus.path}: it has no split; give --folds K, or make one with `biossl split`")
    own = 0
    if name is not None:
        corpus.split(name)  # one that is not there is told by its name
        if folds is None or within is not None:
            refuse_within_subject(corpus, name, "a comparison")
    if folds is None and name is not None and ":" not in name:
        from biossl.corpus.splits import n_folds

        own = n_folds(corpus, name)
    rows, notes = labelled_rows(corpus, label, name if folds is None and not own else None)
    if folds is None and not own:
        assert name is not None
        fold = Fold(0, name, corpus, rows.where("train"), rows.where("test"))
        check_rows(corpus, rows, fold.train, fold.judged, label, name, "test")
        return rows, [fold], notes
    subject = corpus.index["subject"].to_numpy().astype(str)
    if own:
        assert name is not None
        parts = []
        for k in range(own):
            part = corpus.split(f"{name}:{k}").to_numpy().astype(str)
            parts.append(np.where(part == "val", "train", part))  # nothing is chosen by it
        base = name
    else:
        parts, base = _grouped(corpus, rows, cast(int, folds), name, within, subject), f"cv{folds}"
        if within is not None and name is not None:
            base += f"-{name.replace(':', '-')}-{within}"
    out = []
    for k, part in enumerate(parts):
        mine = part[rows.index]
        held = SplitCorpus(corpus, f"{base}-fold{k}", part)
        fold = Fold(k, f"{base}-fold{k}", held, np.flatnonzero(mine == "train"), np.flatnonzero(mine == "test"))
        check_rows(held, rows, fold.train, fold.judged, label, fold.split, "test")
        out.append(fold)
    return rows, out, notes


def _grouped(corpus: Corpus, rows: Rows, folds: int, split: str | None, within: str | None, subject: Array) -> list[Array]:
    """Part of every row of the corpus for each fold; subjects without a label are trained on, those outside are in none."""
    inside = np.ones(len(subject), bool)
    if within is not None:
        assert split is not None
        part = corpus.split(split).to_numpy().astype(str)
        inside = part == within
        if not inside.any():
            raise RequestError(f"--within {within}: no part of split '{split}'; its parts: {', '.join(sorted(set(part) - {''}))}")
    used = np.flatnonzero(inside[rows.index])
    people = len(np.unique(rows.subject[used]))
    if not 2 <= folds <= people:
        raise RequestError(f"--folds {folds}: choose 2 to {people} (the labelled subjects{f' of {within}' if within else ''})")
    if rows.target.kind == "multiclass" and len(np.unique(rows.target.y[used])) < 2:
        raise DataError(f"{corpus.path}: the label has one class only among these subjects; two are needed")
    out = []
    for _, test in protocol.grouped_folds(rows.target.take(used), rows.subject[used], folds, FOLD_SEED):
        held = set(rows.subject[used][test])
        part = np.where(np.isin(subject, list(held)), "test", "train")
        out.append(np.where(inside, part, ""))
    return out


# ---------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Setting:
    """How many labels a head is trained with: ``axis`` ``windows`` (a share) or ``subjects`` (a number)."""

    axis: str
    amount: float

    @property
    def key(self) -> str:
        """``windows-0.01``."""
        return f"{self.axis}-{self.amount:g}"

    @property
    def text(self) -> str:
        """``1 % of windows``, ``2 subjects``, ``all labels``."""
        if self.axis == "subjects":
            return f"{self.amount:g} subject{'s' if self.amount > 1 else ''}"
        return "all labels" if self.amount == 1 else f"{100 * self.amount:g} % of windows"


ALL = Setting("windows", 1.0)


def make_settings(
    rows: Rows, folds: Sequence[Fold], fractions: Sequence[float] | None, n_subjects: Sequence[int] | None
) -> list[Setting]:
    """All labels first, then the shares of windows, then the numbers of subjects.

    Raises
    ------
    RequestError
        A share outside (0, 1]; more subjects than a fold's training part has.
    """
    fewest = min(len(np.unique(rows.subject[f.train])) for f in folds)
    for share in fractions or ():
        if not 0 < share <= 1:
            raise RequestError(f"--fractions {share:g}: give shares above 0 and up to 1, e.g. 0.01 0.1 1")
    for n in n_subjects or ():
        if not 1 <= n <= fewest:
            raise RequestError(f"--n-subjects {n}: the training part has {fewest} labelled subjects; give 1 to {fewest}")
    shares = sorted({float(f) for f in (FRACTIONS if fractions is None else fractions)} - {1.0})
    people = sorted(set(n_subjects)) if n_subjects is not None else [n for n in SUBJECTS if n < fewest]
    return [ALL, *(Setting("windows", f) for f in shares), *(Setting("subjects", float(n)) for n in people)]


def draw(rows: Rows, fold: Fold, setting: Setting, n_draws: int) -> list[Array]:
    """Positions in :class:`Rows` of the labelled training rows of each draw; one draw of all labels.

    Every fold has the same number of draws, so that folds can be joined draw by draw: where the subjects asked for are all
    that a fold has, its draws are alike.
    """
    train = fold.train
    if setting.axis == "subjects":
        picks = protocol.draw_subjects(rows.subject[train], int(setting.amount), n_draws, FOLD_SEED)
    elif setting.amount < 1:
        picks = protocol.draw_windows(rows.target.take(train), setting.amount, n_draws, FOLD_SEED)
    else:
        return [train]
    return [train[p] for p in picks]


def pairs(n_draws: int, seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Which seed judges which draw, the same for every model: (place of the seed, number of the draw).

    Every draw and every seed is used; 20 draws under 5 seeds are 20 fits, not 100.

    Examples
    --------
    >>> pairs(3, [7, 8])
    [(0, 0), (1, 1), (0, 2)]
    >>> pairs(1, [7, 8])
    [(0, 0), (1, 0)]
    """
    n = max(n_draws, len(seeds))
    return [(i % len(seeds), i % n_draws) for i in range(n)]
