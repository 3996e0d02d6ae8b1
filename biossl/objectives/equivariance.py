"""Soft equivariance: tokens of a transformed window are the tokens of the window, moved as the transformation moves them.

What lives here: the regulariser SER (soft equivariance regularisation, arXiv 2603.06693) "after" its source, for
transformations whose effect on the grid of tokens is exactly known: circular shift by whole patches, time reversal, exchanged
leads, turned sensor axes. The loss is in ``losses_moments.py``. Which objective takes it, and who the teacher is, is the
objective's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.augment.spatial import triad_table
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.models.heads import ProjectorConfig
from biossl.models.transformer import take_tokens
from biossl.objectives.base import Outcome
from biossl.objectives.losses_moments import equivariance_nce

Transform = Literal["shift", "reverse", "leads", "turn"]

_FIRST_DRAW = 6_200_000  # draw numbers of this term, away from those of augmentations and masks


def _projector() -> ProjectorConfig:
    return ProjectorConfig(hidden=128, out=64, layers=2, norm="layer")


@dataclass
class EquivarianceConfig:
    """Settings of :class:`Equivariance`.

    Attributes
    ----------
    transforms : list
        All of them, one after the other, each with a draw for every window. ``shift``: by whole patches, round the window.
        ``reverse``: backwards, for half of the windows; EEG only, for a heartbeat or a step backwards is none. ``leads``:
        channels of one type exchanged at random. ``turn``: the axes of every sensor exchanged in a circle (x to y to z), the
        only rotations that move axes without changing a sign. The last two need a token a channel.
    layer : int
        Block whose output is compared, from 0; before the last, so that the end of the encoder stays free to become invariant.
        Published: the third of 12.
    weight : float
        Published: 0.3 beside DINO, 1.0 beside Barlow Twins.
    temperature : float
        Published: 0.4 to 0.5.
    share : float
        Part of the batch that enters, at least two windows: the term costs two more passes over these.
    projector : ProjectorConfig
        Token by token.
    """

    transforms: list[Transform] = field(default_factory=lambda: ["shift"])
    layer: int = 0
    weight: float = 0.3
    temperature: float = 0.4
    share: float = 0.125
    projector: ProjectorConfig = field(default_factory=_projector)

    def __post_init__(self) -> None:
        if not self.transforms or len(set(self.transforms)) != len(self.transforms):
            raise ValueError(f"transforms must name each once, of shift, reverse, leads, turn, not {self.transforms}")
        if not self.temperature > 0 or not self.weight > 0:
            raise ValueError(f"temperature and weight must be above 0, not {self.temperature:g} and {self.weight:g}")
        if not 0.0 < self.share <= 1.0 or self.layer < 0:
            raise ValueError(f"share must be above 0 and at most 1 and layer at least 0, not {self.share:g} and {self.layer}")
        if self.projector.norm == "batch":
            raise ValueError("projector.norm: batch would mix tokens of different places; take layer or none")


class Equivariance(nn.Module):
    """The term, and the projector it needs.

    With h the output of one block, P the permutation of tokens that transformation T means, g the projector and h' the teacher:

        L = InfoNCE over tokens i of g(h(T x))_i against g(P h'(x))_i and all tokens of the other windows

    Parameters
    ----------
    encoder : Encoder
        Whose tokens are meant; not kept.
    config : EquivarianceConfig

    Raises
    ------
    RequestError
        A layer the encoder has not, or its last; a transformation that has no meaning for these windows or tokens.
    """

    def __init__(self, encoder: Encoder, config: EquivarianceConfig) -> None:
        super().__init__()
        spec, depth, where = encoder.spec, len(encoder.blocks), "objective.equivariance"
        if not encoder.maskable:
            raise RequestError(
                f"{where}: it moves tokens that stand for the same patch in every block, which those of a {encoder.architecture} do not; "
                "take model.name: transformer, or leave it out"
            )
        if config.layer > depth - 2:
            raise RequestError(
                f"{where}.layer: {config.layer}, but it must be before the last of {depth} blocks; take at most {depth - 2}"
            )
        if "shift" in config.transforms and encoder.grid[1] < 2:
            raise RequestError(f"{where}.transforms: shift moves nothing in a window of one patch; take a smaller model.patch_s")
        if "reverse" in config.transforms and spec.modality != "eeg":
            raise RequestError(f"{where}.transforms: reverse is for eeg, not for {spec.modality}; leave it out")
        for name in ("leads", "turn"):
            if name in config.transforms and encoder.config.tokenizer == "joint":
                raise RequestError(f"{where}.transforms: {name} moves no token of a joint tokenizer; take shift")
        if "leads" in config.transforms and len(set(spec.ch_types)) == len(spec.ch_types):
            raise RequestError(f"{where}.transforms: leads needs two channels of one type; leave it out")
        if "turn" in config.transforms:
            table, _, _, lonely = triad_table(spec.ch_names)
            if not len(table) or lonely:
                raise RequestError(f"{where}.transforms: turn needs the x, y and z axes of every sensor; leave it out")
        self.config = config
        self.projector = config.projector.build(encoder.dim)

    def forward(self, encoder: Encoder, batch: Batch, keys: Keys, *, teacher: Encoder | None = None) -> Tensor:
        """The unweighted term, scalar float32, the same on every process.

        Parameters
        ----------
        encoder : Encoder
        batch : Batch
            ``share`` of its windows, evenly spaced, are used.
        keys : Keys
        teacher : Encoder, optional
            Gives the tokens of the windows as they are, without gradient; default the encoder itself.
        """
        n = len(batch)
        count = min(n, max(2, round(self.config.share * n)))
        rows = torch.arange(count, device=batch.x.device) * (n // count)  # halves of a batch give the halves of the whole's
        batch, keys = _ordered(batch, rows, encoder), replace(keys, position=keys.position[rows])
        channel, patch, back = self._moves(encoder, batch, keys)
        tokens = encoder.tokenize(_moved(batch, channel, patch, back))
        place = patch
        if encoder.config.tokenizer == "channel":
            place = (channel[:, :, None] * patch.shape[1] + patch[:, None]).flatten(1)
        student = encoder.encode(tokens, layers=(self.config.layer,)).hidden[0]
        with torch.no_grad():
            net = encoder if teacher is None else teacher
            was = net.training
            net.eval()
            try:
                whole = net.encode(net.tokenize(batch), layers=(self.config.layer,)).hidden[0]
            finally:
                net.train(was)
            target = self._project(take_tokens(whole, place))
        return equivariance_nce(
            self._project(student), target, temperature=self.config.temperature,
            valid=None if tokens.complete else tokens.observed,
        )  # fmt: skip

    def _project(self, x: Tensor) -> Tensor:
        return self.projector(x.flatten(0, 1)).view(*x.shape[:2], -1)  # type: ignore[no-any-return]

    def _moves(self, encoder: Encoder, batch: Batch, keys: Keys) -> tuple[Tensor, Tensor, Tensor]:
        """Which channel (n, C) and which patch (n, P) comes to each place, and which windows run backwards (n,)."""
        n, device, wanted = len(batch), batch.x.device, self.config.transforms
        C, P = len(batch.channels), encoder.grid[1]
        patch, channel = torch.arange(P, device=device).expand(n, P), torch.arange(C, device=device).expand(n, C)
        back = torch.zeros(n, dtype=torch.bool, device=device)
        if "shift" in wanted:
            patch = (patch - 1 - (keys.uniform((1,), _FIRST_DRAW) * (P - 1)).long()) % P
        if "reverse" in wanted:
            back = keys.uniform((), _FIRST_DRAW + 1) < 0.5
            patch = torch.where(back[:, None], patch.flip(1), patch)
        if "leads" in wanted:
            types = dict(zip(encoder.spec.ch_names, encoder.spec.ch_types, strict=True))
            known = sorted(set(types.values()))
            kind = torch.tensor([known.index(types[c]) for c in batch.channels], device=device)
            mixed = (kind + keys.uniform((C,), _FIRST_DRAW + 2)).argsort(dim=1)  # by type, at random within one
            channel = torch.empty_like(mixed).scatter(1, kind.argsort(stable=True).expand(n, C), mixed)
        if "turn" in wanted:
            circle = list(range(C))
            for x, y, z in triad_table(batch.channels)[0].argmax(dim=2).tolist():
                circle[x], circle[y], circle[z] = y, z, x
            turns = torch.tensor([list(range(C)), circle, [circle[c] for c in circle]], device=device)
            channel = channel.gather(1, turns[(keys.uniform((), _FIRST_DRAW + 3) * 3).long()])
        return channel, patch, back


def _ordered(batch: Batch, rows: Tensor, encoder: Encoder) -> Batch:
    """Some windows of a batch, with the channels in the encoder's order, as its tokens are."""
    order = sorted(range(len(batch.channels)), key=lambda c: encoder.spec.ch_names.index(batch.channels[c]))
    observed = None if batch.observed is None else batch.observed[rows][:, order]
    return Batch(batch.x[rows][:, order], tuple(batch.channels[c] for c in order), batch.sfreq, observed=observed)


def _moved(batch: Batch, channel: Tensor, patch: Tensor, back: Tensor) -> Batch:
    """The windows with channels and patches moved, and run backwards where ``back``."""

    def move(x: Tensor) -> Tensor:
        n, C, T = x.shape
        x = x.gather(1, channel[:, :, None].expand(n, C, T)).unflatten(2, (patch.shape[1], -1))
        x = x.gather(2, patch[:, None, :, None].expand_as(x))
        return torch.where(back[:, None, None, None], x.flip(3), x).flatten(2)

    return replace(batch, x=move(batch.x), observed=None if batch.observed is None else move(batch.observed))


def build_equivariance(encoder: Encoder, config: EquivarianceConfig | None) -> Equivariance | None:
    """The term of an objective's settings; None where there are none."""
    return None if config is None else Equivariance(encoder, config)


def with_equivariance(
    outcome: Outcome, part: Equivariance | None, encoder: Encoder, batch: Batch, keys: Keys,
    *, teacher: Encoder | None = None,
) -> Outcome:  # fmt: skip
    """The weighted term on top of the loss."""
    if part is not None:
        term = part(encoder, batch, keys, teacher=teacher)
        outcome.loss = outcome.loss + part.config.weight * term
        outcome.terms["equivariance"] = term.detach()
    return outcome
