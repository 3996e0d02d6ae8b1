"""What keeps the features of a batch apart, beside any objective or in place of an averaged copy.

What lives here: the settings and the module that turn encoded tokens or pooled windows into VICReg's variance and covariance
terms, SIGReg or KoLeo. The terms themselves are pure functions in ``losses.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.batch import Encoded
from biossl.errors import RequestError
from biossl.keys import Keys, hash_ints
from biossl.models.encoder import pool_tokens
from biossl.models.heads import ProjectorConfig
from biossl.objectives.base import Outcome
from biossl.objectives.losses import decorrelation, koleo, sigreg, unit_directions, variance_hinge

_DIRECTIONS_DRAW = 0x516E  # keeps the directions of a step apart from every other use of its keys


@dataclass
class RegularizerConfig:
    """Settings of a :class:`Regularizer`.

    Attributes
    ----------
    name : {"none", "vicreg", "sigreg", "koleo"}
        ``vicreg``: hinge on the standard deviation of every feature, and their covariances (arXiv 2105.04906). ``sigreg``:
        distance from an isotropic Gaussian in random directions (LeJEPA, arXiv 2511.08544). ``koleo``: every window away from
        its nearest one on the sphere (arXiv 1806.03198; weight 0.1 in DINOv2, arXiv 2304.07193).
    of : {"tokens", "pooled"}
        Rows whose spread is meant: visible tokens as they are (their positions alone make them differ), or windows, by the
        mean of their visible tokens. ``sigreg`` and ``koleo`` need windows.
    weight : float
        Of all terms. SIGReg grows with the batch size.
    covariance : float
        ``vicreg``: weight of the covariance term beside the variance term; published 1 / 25. 0 = the hinge alone.
    directions : int
        ``sigreg``: random directions of a step.
    projector : ProjectorConfig or None
        A small network before the terms, so that windows need not differ in every feature of the encoder itself.
    """

    name: Literal["none", "vicreg", "sigreg", "koleo"] = "none"
    of: Literal["tokens", "pooled"] = "tokens"
    weight: float = 1.0
    covariance: float = 0.04
    directions: int = 256
    projector: ProjectorConfig | None = None

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.covariance < 0 or self.directions < 1:
            raise ValueError(
                f"weight must be above 0, covariance at least 0, directions at least 1, not {self.weight:g}, {self.covariance:g}, "
                f"{self.directions}; name: none switches the regularizer off"
            )
        if self.name in ("sigreg", "koleo") and self.of != "pooled":
            raise ValueError(f"{self.name} compares windows; set of: pooled")


class Regularizer(nn.Module):
    """Terms against collapse on the encoded visible tokens of one step.

    Parameters
    ----------
    dim : int
        Width D of the encoder.
    config : RegularizerConfig
        ``name`` is not ``none``.
    """

    def __init__(self, dim: int, config: RegularizerConfig) -> None:
        super().__init__()
        self.config = config
        self.projector = None if config.projector is None else config.projector.build(dim)

    def forward(self, context: Encoded, keys: Keys) -> dict[str, Tensor]:
        """Unweighted terms by name, float32, the same on every process.

        Parameters
        ----------
        context : Encoded
            R = n_masks * B rows of visible tokens. Of pooled features each mask's B rows are one view; terms are the mean over
            views.
        keys : Keys
        """
        B = len(keys.position)
        if self.config.of == "tokens":
            return self.of_rows(context.x.flatten(0, 1)[None], context.observed.flatten()[None], keys)
        there = context.observed.any(dim=1)
        pooled = torch.where(there[:, None], pool_tokens(context), 0.0)
        return self.of_rows(pooled.view(-1, B, pooled.shape[-1]), there.view(-1, B), keys)

    def of_rows(self, views: Tensor, use: Tensor, keys: Keys) -> dict[str, Tensor]:
        """Unweighted terms of V views of n rows, their mean over views.

        Parameters
        ----------
        views : Tensor, (V, n, D)
            Finite in every row.
        use : Tensor, bool, (V, n)
            Rows that count.
        keys : Keys
        """
        if self.projector is not None:
            views = self.projector(views.flatten(0, 1), use.flatten()).view(*views.shape[:2], -1)
        terms: dict[str, list[Tensor]] = {}
        for z, seen in zip(views, use, strict=True):
            for name, value in self._terms(z, seen, keys).items():
                terms.setdefault(name, []).append(value)
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """Sum of the terms with the weights of the settings: what is added to a loss."""
        scale = {"covariance": self.config.covariance}
        return self.config.weight * torch.stack([scale.get(name, 1.0) * value for name, value in terms.items()]).sum()

    def _terms(self, z: Tensor, seen: Tensor, keys: Keys) -> dict[str, Tensor]:
        if self.config.name == "sigreg":
            return {"sigreg": sigreg(z, step_directions(keys, self.config.directions, z), weight=seen)}
        if self.config.name == "koleo":
            return {"koleo": koleo(z, weight=seen)}
        out = {"variance": variance_hinge(z, weight=seen)}
        if self.config.covariance > 0:
            out["covariance"] = decorrelation(z, weight=seen)
        return out


def window_regularizer(dim: int, config: RegularizerConfig, *, objective: str) -> Regularizer | None:
    """The regularizer of an objective that knows windows only; None for ``none``.

    Raises
    ------
    RequestError
        ``of: tokens``.
    """
    if config.name == "none":
        return None
    if config.of != "pooled":
        raise RequestError(f"objective.regularizer.of: {config.of}, but {objective} compares windows; set of: pooled")
    return Regularizer(dim, config)


def with_spread(outcome: Outcome, regularizer: Regularizer | None, h: Tensor, valid: Tensor | None, keys: Keys) -> Outcome:
    """The terms of pooled features (B, D) on top of the loss; ``valid`` (B,) says which windows count, None = all."""
    if regularizer is not None:
        use = torch.ones(len(h), dtype=torch.bool, device=h.device) if valid is None else valid
        terms = regularizer.of_rows(h[None], use[None], keys)
        outcome.loss = outcome.loss + regularizer.weighted(terms)
        outcome.terms |= {name: value.detach() for name, value in terms.items()}
    return outcome


def step_directions(keys: Keys, count: int, like: Tensor) -> Tensor:
    """Random unit directions (count, D) of a step for rows ``like`` (n, D): new each step, the same on every process."""
    directions = unit_directions(count, like.shape[-1], hash_ints(keys.seed, keys.step, _DIRECTIONS_DRAW))
    return directions.to(like.device, non_blocking=True)
