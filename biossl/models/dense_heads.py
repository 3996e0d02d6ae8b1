"""A head for labels of every sample behind an encoder whose stages halve the time.

What lives here: the U-Net decoder (after Ronneberger et al., arXiv 1505.04597) over the stage outputs of a
:class:`~biossl.models.convnets.ConvEncoder`. The dense head of any encoder's tokens is in ``task_heads.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biossl.batch import Encoded
from biossl.errors import RequestError
from biossl.models.convnets import GROUPS, STRIDE, ConvEncoder, ResBlock, TimeConv, TimeNorm, along_time
from biossl.models.encoder import Encoder
from biossl.models.task_heads import TaskHead, output_layer


@dataclass
class UNetHeadConfig:
    """Outputs for every sample of each channel, or of all channels together where the encoder's tokens are: from the last stage back.

    Attributes
    ----------
    hidden : int
        Features of a sample, a multiple of 8; on the way there a stage has its encoder's width.
    kernel : int
        Of the convolutions; odd.
    """

    hidden: int = 16
    kernel: int = 7

    def __post_init__(self) -> None:
        if self.hidden < GROUPS or self.hidden % GROUPS or self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"hidden must be a multiple of {GROUPS} and kernel odd, not {self.hidden} and {self.kernel}")

    def build(self, encoder: Encoder, n_outputs: int) -> TaskHead:
        """The head behind an encoder; RequestError where it has no stages."""
        if not isinstance(encoder, ConvEncoder):
            raise RequestError(
                f"--head unet: it needs the stages of a convnet, this encoder is a {encoder.architecture}; take --head dense"
            )
        return UNetHead(encoder, self, n_outputs)


class UNetHead(TaskHead):
    """Stage outputs to (B, C, n_outputs, T), or (B, n_outputs, T) of a joint tokenizer.

    From stage to stage the features are stretched to the length of the one before, put beside its output and convolved; last of all
    beside the normalised signal itself, so that an edge can be told to the sample.
    """

    def __init__(self, encoder: ConvEncoder, config: UNetHeadConfig, n_outputs: int) -> None:
        super().__init__()
        widths = encoder.layer_dims
        self.joint = encoder.config.tokenizer == "joint"
        self.layers = tuple(range(len(widths) - 1))
        self.first = encoder.config.stem_stride * STRIDE  # from the first stage to samples
        kernel = config.kernel
        self.ups = nn.ModuleList(
            ResBlock(deep + wide, wide, kernel, stride=1, drop_path=0.0) for wide, deep in zip(widths, widths[1:], strict=False)
        )
        self.signal = TimeConv(encoder.stem.in_channels, config.hidden, kernel, padding=kernel // 2)
        self.last = ResBlock(widths[0] + config.hidden, config.hidden, kernel, stride=1, drop_path=0.0)
        self.norm = TimeNorm(config.hidden)
        self.out = output_layer(config.hidden, n_outputs, ordinal=False)

    def forward(self, encoded: Encoded) -> Tensor:
        """See :class:`TaskHead`."""
        assert encoded.grid is not None and encoded.tokens is not None and encoded.tokens.grid is not None
        C, T = encoded.tokens.grid

        def along(x: Tensor) -> Tensor:
            """(B, C * P, D) to (B * C, D, 1, P)."""
            return along_time(x.reshape(len(x) * C, -1, x.shape[-1]))

        h = along(encoded.x)
        for up, skip in zip(reversed(self.ups), reversed(encoded.hidden), strict=True):
            beside = along(skip)
            h = up(torch.cat([_stretched(h, STRIDE, beside.shape[-1]), beside], dim=1))
        h = self.last(torch.cat([_stretched(h, self.first, T), self.signal(along(encoded.tokens.x))], dim=1))
        out = self.out(F.relu(self.norm(h)).squeeze(2).transpose(1, 2)).transpose(1, 2)
        return out if self.joint else out.view(-1, C, *out.shape[1:])


def _stretched(h: Tensor, times: int, length: int) -> Tensor:
    """Every time repeated, cut to a length: (B, D, 1, P) to (B, D, 1, length)."""
    return F.interpolate(h, scale_factor=(1.0, float(times)), mode="nearest")[..., :length]
