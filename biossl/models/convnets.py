"""The convolutional encoder: a residual network along time, whose stages halve it.

What lives here: ConvConfig, the residual block and :class:`ConvEncoder`. Pre-activation blocks after He et al. (arXiv 1603.05027), along
time after Wang et al. (arXiv 1611.06455). A token that goes in is one sample, one that comes out stands for ``patch`` samples; what it
sees overlaps with its neighbours', so parts of a window cannot be hidden from it. No loss, no file access.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biossl.batch import Batch, Encoded, TimeKeep, Tokens
from biossl.errors import RequestError
from biossl.models.encoder import Encoder
from biossl.models.transformer import DropPath
from biossl.signal import InputSpec

STRIDE = 2  # of every stage
GROUPS = 8  # of the group norms


@dataclass(frozen=True)
class ConvConfig:
    """Architecture of a :class:`ConvEncoder`; the defaults have 176,000 parameters on six joint channels.

    Attributes
    ----------
    widths : list of int
        Features of each stage, multiples of 8. Every stage halves the time.
    blocks : int
        Residual blocks of a stage, of two convolutions each.
    kernel : int
        Samples of every convolution; odd.
    stem_stride : int
        Of the first convolution, before the stages; above 1 for signals sampled far faster than their waves need.
    tokenizer : {"channel", "joint"}
        The same weights for every channel alone, any number of them; or one network that mixes all channels.
    drop_path : float
        Stochastic depth of the last block; linear from 0.
    normalise : {"none", "window", "fixed"}
        Amplitudes as they are; z-score per window and channel; divided by ``scale``.
    scale : dict
        Channel type -> divisor in canonical units, for ``fixed``.
    """

    widths: list[int] = field(default_factory=lambda: [32, 64, 96])
    blocks: int = 1
    kernel: int = 7
    stem_stride: int = 1
    tokenizer: Literal["channel", "joint"] = "channel"
    drop_path: float = 0.0
    normalise: Literal["none", "window", "fixed"] = "none"
    scale: dict[str, float] = field(default_factory=dict)

    @property
    def patch(self) -> int:
        """Samples from one token that comes out to the next."""
        return self.stem_stride * STRIDE ** len(self.widths)

    def describe(self) -> str:
        """One sentence for the model card."""
        return (
            f"Residual convolutions along time, stages of width {', '.join(map(str, self.widths))} that halve it, {self.blocks} blocks "
            f"each, kernel {self.kernel}, first stride {self.stem_stride} ({self.tokenizer})"
        )

    def size(self, spec: InputSpec) -> tuple[int, int, float]:
        """See :class:`~biossl.models.encoder.EncoderSettings`."""
        channels = 1 if self.tokenizer == "joint" else len(spec.ch_names)
        return max(self.widths), len(self.widths) * self.blocks, channels * spec.n_samples * self.widths[0] / self.stem_stride


def conv_grid(spec: InputSpec, config: ConvConfig) -> tuple[int, int]:
    """Grid (C, P) of the tokens that come out for one window, the last one shorter where ``patch`` does not divide it.

    Raises
    ------
    RequestError
        A setting that cannot be meant, or a window shorter than a patch.

    Examples
    --------
    >>> conv_grid(InputSpec("ecg", 250.0, 2500, ("I", "II"), ("ecg",) * 2, ("mV",) * 2), ConvConfig())
    (2, 313)
    """
    if not config.widths or any(w < GROUPS or w % GROUPS for w in config.widths):
        raise RequestError(f"encoder.widths: {config.widths} must be multiples of {GROUPS}, one for each stage")
    if config.kernel < 1 or config.kernel % 2 == 0:
        raise RequestError(
            f"encoder.kernel: {config.kernel} must be odd; take {max(1, config.kernel - 1)} or {config.kernel + 1}"
        )
    if config.blocks < 1 or config.stem_stride < 1 or not 0.0 <= config.drop_path < 1.0:
        raise RequestError("encoder: blocks and stem_stride must be at least 1, drop_path in [0, 1)")
    if config.patch > spec.n_samples:
        raise RequestError(
            f"encoder.widths: {len(config.widths)} stages make one token of {config.patch} samples, the window has {spec.n_samples}; "
            "take fewer stages or a smaller encoder.stem_stride"
        )
    return (1 if config.tokenizer == "joint" else len(spec.ch_names)), -(-spec.n_samples // config.patch)


class TimeConv(nn.Conv1d):
    """A convolution along time of (B, inputs, 1, T), the same weights and numbers as ``nn.Conv1d``'s.

    As an image of height 1 it can be kept with the features of a sample next to each other (:func:`along_time`), in which CPU kernels go
    back through it two to three times as fast, and on every device tokens (B, P, D) are a view of it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 1, T) to (B, outputs, 1, T')."""
        pad, stride = int(self.padding[0]), int(self.stride[0])
        if self.kernel_size == (1,):  # torch 2.13's CPU kernel of such images writes past its memory in the backward pass
            x = x[..., ::stride]
            return F.linear(x.permute(0, 2, 3, 1), self.weight[..., 0], self.bias).permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight.unsqueeze(2), self.bias, stride=(1, stride), padding=(0, pad))


class TimeNorm(nn.GroupNorm):
    """Group norm of (B, D, 1, T), in :data:`GROUPS` groups."""

    def __init__(self, width: int) -> None:
        super().__init__(GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        """See ``nn.GroupNorm``."""
        if torch.is_grad_enabled() and not x.requires_grad:
            # torch 2.13's CPU kernel for features next to each other fails in the backward pass where no gradient of x is wanted
            x = x.contiguous()
        return super().forward(x)


def along_time(x: Tensor) -> Tensor:
    """Tokens (B, T, D) as (B, D, 1, T) for :class:`TimeConv`; no copy of contiguous ones."""
    return x.transpose(1, 2).unsqueeze(2)


class ResBlock(nn.Module):
    """Norm, ReLU, convolution, twice, beside a shortcut that nothing bends.

    Group norm takes its statistics from one window: a batch of one, another site's batch and evaluation give what training gave, and
    averaged copies of an encoder have no running statistics to keep. The shortcut carries amplitudes past it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, drop_path: float) -> None:
        super().__init__()
        half = kernel // 2
        self.norm1 = TimeNorm(inputs)
        self.conv1 = TimeConv(inputs, outputs, kernel, stride=stride, padding=half, bias=False)
        self.norm2 = TimeNorm(outputs)
        self.conv2 = TimeConv(outputs, outputs, kernel, padding=half, bias=False)
        # the mean of the samples that become one: a convolution with a stride would skip every other
        self.pool = nn.AvgPool2d((1, stride), ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        self.short = TimeConv(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 1, T) to (B, outputs, 1, ceil(T / stride))."""
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        short: Tensor = self.short(self.pool(x))
        return short + self.drop_path(h)


class ConvEncoder(Encoder):
    """A convolution, stages of residual blocks, final norm.

    Parameters
    ----------
    spec : InputSpec
        What one window is: channel names and order, rate, length.
    config : ConvConfig

    Examples
    --------
    >>> spec = InputSpec("ecg", 250.0, 2500, ("I", "II"), ("ecg",) * 2, ("mV",) * 2)
    >>> ConvEncoder(spec, ConvConfig(widths=[8, 16])).embed(torch.zeros(3, 2, 2500)).shape
    torch.Size([3, 16])
    """

    architecture, maskable = "convnet", False
    config: ConvConfig

    def __init__(self, spec: InputSpec, config: ConvConfig) -> None:
        grid = conv_grid(spec, config)
        super().__init__(spec, config, config.widths[-1])
        self.grid, self.patch, self.layer_dims = grid, config.patch, tuple(config.widths)
        inputs = len(spec.ch_names) if config.tokenizer == "joint" else 1
        self.stem = TimeConv(inputs, config.widths[0], config.kernel, stride=config.stem_stride, padding=config.kernel // 2)
        number, last = 0, max(1, len(config.widths) * config.blocks - 1)
        stages, width = [], config.widths[0]
        for wide in config.widths:
            blocks = []
            for i in range(config.blocks):
                rate = config.drop_path * number / last
                blocks.append(ResBlock(width, wide, config.kernel, stride=STRIDE if i == 0 else 1, drop_path=rate))
                width, number = wide, number + 1
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.ModuleList(stages)
        self.norm = TimeNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.stem.bias)  # type: ignore[arg-type]

    def tokenize(self, batch: Batch) -> Tokens:
        """See :meth:`~biossl.models.encoder.Encoder.tokenize`: one token a sample, its normalised amplitudes (1 or C numbers)."""
        x, observed, channel = self.windows(batch)
        x = x.to(self.stem.weight.dtype)
        B, C, T = x.shape
        if self.config.tokenizer == "joint":
            x = x.transpose(1, 2)
            observed = None if observed is None else observed.any(dim=1)
            C = 1
        time = torch.arange(T, device=x.device, dtype=torch.float32) / self.spec.sfreq
        return Tokens(
            x=x if self.config.tokenizer == "joint" else x.reshape(B, C * T, 1),
            time_s=time.repeat(C).expand(B, C * T),
            channel=channel.repeat_interleave(T).expand(B, C * T),
            observed=(
                torch.ones(1, 1, dtype=torch.bool, device=x.device).expand(B, C * T)
                if observed is None
                else observed.reshape(B, C * T)
            ),
            grid=(C, T),
            complete=observed is None,
        )

    def encode(self, tokens: Tokens, *, keep: TimeKeep | Tensor | None = None, layers: Sequence[int] = ()) -> Encoded:
        """Run the stages.

        Parameters
        ----------
        tokens : Tokens
            From :meth:`tokenize`.
        keep : None
            Whole windows only.
        layers : sequence of int
            Stages whose outputs are wanted in ``hidden`` (0 = first, -1 = last), each (B, C * P_i, widths[i]) with P_i tokens a
            channel, half as many from stage to stage.

        Returns
        -------
        Encoded
            A token counts as observed when any of its ``patch`` samples was; ``tokens`` are those that went in.

        Raises
        ------
        RequestError
            ``keep``.
        """
        if keep is not None:
            raise RequestError(
                "keep: a convnet encodes whole windows only, since what its tokens see overlaps; take a transformer"
            )
        if tokens.grid is None:
            raise ValueError("ConvEncoder needs tokens on a (C, T) grid")
        C, T = tokens.grid
        B = len(tokens.x)
        h = self.stem(along_time(tokens.x.reshape(B * C, T, -1))).contiguous(memory_format=torch.channels_last)
        wanted = [self._layer(n) for n in layers]
        hidden: dict[int, Tensor] = {}
        stride = self.config.stem_stride
        strides = []
        for i, stage in enumerate(self.blocks):
            h = stage(h)
            stride *= STRIDE
            strides.append(stride)
            if i in wanted:
                hidden[i] = _tokens(h, B)
        x = _tokens(self.norm(h), B)
        return Encoded(
            x=x,
            registers=x.new_zeros(B, 0, self.dim),
            observed=_seen(tokens, self.patch),
            hidden=tuple(hidden[i] for i in wanted),
            hidden_observed=tuple(_seen(tokens, strides[i]) for i in wanted),
            grid=(C, x.shape[1] // C),
            tokens=tokens,
        )


def _tokens(h: Tensor, n: int) -> Tensor:
    """(B * C, D, 1, P) to (B, C * P, D)."""
    return h.squeeze(2).transpose(1, 2).reshape(n, -1, h.shape[1])


def _seen(tokens: Tokens, patch: int) -> Tensor:
    """Which tokens of ``patch`` samples hold an observed one, (B, C * P)."""
    assert tokens.grid is not None
    C, T = tokens.grid
    B, P = len(tokens.x), math.ceil(T / patch)
    if tokens.complete:
        return tokens.observed[:, :1].expand(B, C * P)
    padded = F.pad(tokens.observed.reshape(B, C, T), (0, P * patch - T), value=False)
    return padded.view(B, C, P, patch).any(dim=-1).flatten(1)
