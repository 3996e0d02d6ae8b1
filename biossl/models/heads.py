"""Small networks behind an encoder that are thrown away after pretraining.

What lives here: the projector of objectives that compare windows, with a batch norm that means the same thing on any number of
processes, and prototypes behind it. Heads that predict a label live with fine-tuning.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biossl.distributed import all_gather

Norm = Literal["batch", "layer", "none"]


@dataclass
class ProjectorConfig:
    """Settings of a :class:`Projector`.

    Attributes
    ----------
    hidden, out : int
        Widths of the hidden layers and of the output.
    layers : int
        Linear layers in all; 1 = a single linear map.
    norm : {"batch", "layer", "none"}
        After every hidden layer.
    """

    hidden: int = 256
    out: int = 128
    layers: int = 2
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.out < 2 or self.layers < 1:
            raise ValueError(
                f"hidden and layers must be at least 1 and out at least 2, not {self.hidden}, {self.layers} and {self.out}"
            )

    def build(self, dim: int) -> Projector:
        """The projector behind features of width ``dim``."""
        return Projector(dim, self.hidden, self.out, layers=self.layers, norm=self.norm)


class BatchNorm(nn.Module):
    """Batch normalisation of rows by the mean and (biased) variance of the rows of all processes, in float32.

    There are no running averages: a projector is never used in evaluation. ``torch.nn.SyncBatchNorm`` needs a GPU and has
    other gradients than one process with the whole batch when the loss itself gathers.

    Parameters
    ----------
    dim : int
    """

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, use: Tensor | None = None) -> Tensor:
        """(B, D) to (B, D) of the same dtype; ``use``, bool (B,): rows that enter mean and variance, None = all."""
        rows = all_gather(x.float())
        if use is None:
            var, mean = torch.var_mean(rows, dim=0, correction=0)
        else:
            weight = all_gather(use.to(rows.dtype))[:, None]
            n = weight.sum().clamp_min(1.0)
            mean = (rows * weight).sum(dim=0) / n
            var = ((rows - mean).square() * weight).sum(dim=0) / n
        return ((x.float() - mean) * (var + self.eps).rsqrt() * self.weight + self.bias).to(x.dtype)


class Projector(nn.Sequential):
    """MLP from pooled features to the space a loss compares: Linear, norm, ReLU, ..., Linear (SimCLR, arXiv 2002.05709).

    Parameters
    ----------
    dim, hidden, out : int
        Widths.
    layers : int
        Linear layers in all.
    norm : {"batch", "layer", "none"}
        After every hidden layer.

    Examples
    --------
    >>> Projector(8, 16, 4, layers=3)(torch.zeros(5, 8)).shape
    torch.Size([5, 4])
    """

    def __init__(self, dim: int, hidden: int, out: int, *, layers: int = 2, norm: Norm = "batch") -> None:
        norms: dict[str, type[nn.Module]] = {"batch": BatchNorm, "layer": nn.LayerNorm}
        parts: list[nn.Module] = []
        for _ in range(layers - 1):
            parts.append(nn.Linear(dim, hidden, bias=norm == "none"))
            parts += [norms[norm](hidden)] if norm != "none" else []
            parts.append(nn.ReLU())
            dim = hidden
        parts.append(nn.Linear(dim, out))
        super().__init__(*parts)

    def forward(self, x: Tensor, use: Tensor | None = None) -> Tensor:
        """(B, dim) to (B, out).

        Parameters
        ----------
        x : Tensor, (B, dim)
            Finite in every row.
        use : Tensor, bool, (B,), optional
            Rows that count, for the statistics of a batch norm; None on all processes or on none.

        Returns
        -------
        Tensor, (B, out)
            Of all rows.
        """
        for layer in self:
            x = layer(x, use) if isinstance(layer, BatchNorm) else layer(x)
        return x


class PrototypeHead(nn.Module):
    """A projector, and the cosines of its output with K learned prototypes (SwAV, arXiv 2006.09882; DINO, arXiv 2104.14294).

    Prototypes are brought to length 1 in every pass, so only their directions are learned.

    Parameters
    ----------
    dim : int
        Width of the features.
    projector : ProjectorConfig
    prototypes : int
        K.

    Examples
    --------
    >>> z, scores = PrototypeHead(8, ProjectorConfig(hidden=16, out=4), 5)(torch.randn(3, 8))
    >>> z.shape, scores.shape
    (torch.Size([3, 4]), torch.Size([3, 5]))
    """

    def __init__(self, dim: int, projector: ProjectorConfig, prototypes: int) -> None:
        super().__init__()
        self.projector = projector.build(dim)
        self.prototypes = nn.Parameter(torch.randn(prototypes, projector.out))

    def forward(self, x: Tensor, use: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Projections (B, E), and cosines (B, K) in float32; arguments as in :meth:`Projector.forward`."""
        z = self.projector(x, use)
        kind = z.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            return z, F.normalize(z.float(), dim=1, eps=_EPS) @ F.normalize(self.prototypes.float(), dim=1, eps=_EPS).T


_EPS = 1e-6  # a zero vector has cosine 0 with all others, and a gradient that is finite
