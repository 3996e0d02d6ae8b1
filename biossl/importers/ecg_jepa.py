"""Published ECG-JEPA weights (sehunfromdaegu/ECG_JEPA, MIT; arXiv 2410.08559) to an encoder folder.

The checkpoint is ``{encoder: state dict, epoch}`` for 8 leads of 2500 samples at 250 Hz in mV, unfiltered. Its frozen
position table is recomputed and compared, not stored. Neither predictor nor target encoder is published.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from biossl.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from biossl.models.transformer import EncoderConfig, TransformerEncoder
    from biossl.signal import InputSpec

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
_REMEDY = "give the published random_epoch100.pth or multiblock_epoch100.pth, downloaded again"
_POSITION_TOLERANCE = 1e-5
# As the authors state; which subjects is not published, so a corpus of these cards, or one that overlaps them, counts as
# seen as a whole (see biossl.corpus.seen).
_SEEN = (
    "PhysioNet ecg-arrhythmia (Chapman-Shaoxing and Ningbo), 43,240 recordings",
    "CODE-15, 130,900 recordings",
)
_SEEN_MARKS = ["c:ecg_arrhythmia:published", "c:code15:published"]


def ecg_jepa_spec() -> InputSpec:
    """What the published encoder expects: 10 s at 250 Hz, mV as recorded, no filter."""
    from biossl.signal import InputSpec

    return InputSpec("ecg", 250.0, 2500, LEADS, ("ecg",) * 8, ("mV",) * 8)


def ecg_jepa_config() -> EncoderConfig:
    """Architecture of the published base encoder (85.1 M parameters)."""
    from biossl.models.transformer import EncoderConfig

    return EncoderConfig(
        dim=768, depth=12, heads=16, patch_s=0.2, attention="cropa", position="every_block", drop_path=0.1, qkv_bias=False
    )


def published_name(name: str) -> str:
    """Our tensor name to the published one.

    Examples
    --------
    >>> published_name("blocks.3.attn.qkv.weight")
    'encoder.encoder_blocks.blocks.3.attn.qkv.weight'
    """
    if name.startswith("tokenizer.proj."):
        return "encoder.W_P." + name.removeprefix("tokenizer.proj.")
    return "encoder.encoder_blocks." + name if name.startswith("blocks.") else "encoder." + name


def import_ecg_jepa(checkpoint: str | Path, out: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Convert a published ECG-JEPA checkpoint to an encoder folder.

    Parameters
    ----------
    checkpoint : path
        The ``.pth`` file.
    out : path
        Encoder folder to write; ``biossl.load_encoder(out).embed(x)`` with x (B, 8, 2500) in mV is then the published
        representation (mean of all tokens after the final norm).
    overwrite : bool

    Returns
    -------
    dict
        ``encoder``, ``tensors``, ``parameters``, ``epoch``, ``source_sha256``.

    Raises
    ------
    RequestError
        No such file, ``out`` exists.
    DataError
        Not that layout: a tensor missing, unexpected, of another shape, or another position table.

    Examples
    --------
    >>> import_ecg_jepa("missing.pth", "encoders/ecg_jepa")
    Traceback (most recent call last):
    ...
    biossl.errors.RequestError: missing.pth: no such checkpoint; check the path
    """
    import torch

    from biossl.checkpoint import empty_encoder, refuse_existing, require_tensors, save_encoder, sha256
    from biossl.importers.pth import read_pth

    checkpoint, out = Path(checkpoint), Path(out)
    refuse_existing(out, overwrite)
    found, plain = read_pth(checkpoint)
    encoder = cast("TransformerEncoder", empty_encoder("transformer", ecg_jepa_spec(), ecg_jepa_config()))
    names = {name: published_name(name) for name in encoder.state_dict()}
    expected = {names[k]: tuple(v.shape) for k, v in encoder.state_dict().items()}
    expected["encoder.pos_embed"] = tuple(encoder.position.shape)
    require_tensors(str(checkpoint), expected, {k: tuple(v.shape) for k, v in found.items()}, _REMEDY)
    _check_position(checkpoint, found["encoder.pos_embed"], encoder.position)
    encoder.load_state_dict({ours: found[theirs].to(torch.float32) for ours, theirs in names.items()}, assign=True)
    source = sha256(checkpoint)
    epoch = plain.get("epoch")
    save_encoder(
        encoder,
        out,
        seen={"corpora": list(_SEEN), "subjects": _SEEN_MARKS},
        provenance=(
            f"ECG-JEPA base encoder of sehunfromdaegu/ECG_JEPA (MIT; arXiv 2410.08559), converted from {checkpoint.name} "
            f"(SHA-256 {source}, epoch {epoch if epoch is not None else 'not stated'}). Predictor and target encoder are not "
            "published, so its pretraining cannot be resumed; it can start a new one."
        ),
        overwrite=overwrite,
    )
    return {
        "encoder": str(out),
        "tensors": len(expected),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "epoch": epoch,
        "source_sha256": source,
    }


def _check_position(checkpoint: Path, found: Tensor, ours: Tensor) -> None:
    worst = float((found.double() - ours.double()).abs().max())
    if not worst <= _POSITION_TOLERANCE:
        raise DataError(
            f"{checkpoint}: tensor encoder.pos_embed differs from the published sine-cosine table by {worst:.2g}; {_REMEDY}"
        )
