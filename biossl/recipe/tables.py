"""The named choices a recipe may make: plain tables of ``"module:Class"`` strings, one line a method.

What lives here: the tables, and the two functions that turn a name into its dataclass and a recipe into its objective.
A recipe can name nothing outside these tables, so a shared file runs no foreign code. Adding a method is one line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from biossl.config import nearest
from biossl.errors import DataError, RequestError
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.objectives.base import Objective
    from biossl.recipe.schema import Recipe

# section -> name -> dataclass of its settings
CONFIGS: dict[str, dict[str, str]] = {
    "model": {
        "transformer": "biossl.models.transformer:EncoderConfig",
        "convnet": "biossl.models.convnets:ConvConfig",
    },
    "mask": {
        "random": "biossl.objectives.masking:RandomMask",
        "multi_block": "biossl.objectives.masking:MultiBlockMask",
        "span": "biossl.objectives.masking:SpanMask",
        "disjoint": "biossl.objectives.masking:DisjointMask",
        "partition": "biossl.objectives.masking:PartitionMask",
        "channel": "biossl.objectives.masking:ChannelMask",
        "spatial": "biossl.objectives.masking:SpatialMask",
        "stdm": "biossl.objectives.masking:STDMMask",
        "tube": "biossl.objectives.masking:TubeMask",
    },
    "augment": {
        "gain": "biossl.augment.amplitude:Gain",
        "sign_flip": "biossl.augment.amplitude:SignFlip",
        "jitter": "biossl.augment.amplitude:Jitter",
        "magnitude_warp": "biossl.augment.amplitude:MagnitudeWarp",
        "quantise": "biossl.augment.amplitude:Quantise",
        "time_reverse": "biossl.augment.timing:TimeReverse",
        "permutation": "biossl.augment.timing:Permutation",
        "time_warp": "biossl.augment.timing:TimeWarp",
        "crop_resize": "biossl.augment.timing:CropResize",
        "rate_jitter": "biossl.augment.timing:RateJitter",
        "time_mask": "biossl.augment.timing:TimeMask",
        "fourier_surrogate": "biossl.augment.frequency:FourierSurrogate",
        "frequency_shift": "biossl.augment.frequency:FrequencyShift",
        "band_stop": "biossl.augment.frequency:BandStop",
        "batch_style": "biossl.augment.style:BatchStyle",
        "fda": "biossl.augment.frequency:FDAConfig",
        "fda_free": "biossl.augment.frequency:FDAFree",
        "baseline_wander": "biossl.augment.contacts:BaselineWander",
        "mains": "biossl.augment.contacts:Mains",
        "electrode_motion": "biossl.augment.contacts:ElectrodeMotion",
        "lead_dropout": "biossl.augment.montage:LeadDropout",
        "lead_reversal": "biossl.augment.montage:LeadReversal",
        "rereference": "biossl.augment.montage:Rereference",
        "side_swap_eeg": "biossl.augment.montage:SideSwapEEG",
        "rotation": "biossl.augment.orientation:Rotation",
        "tilt": "biossl.augment.orientation:Tilt",
        "side_swap_imu": "biossl.augment.orientation:SideSwapIMU",
    },
    "objective": {
        "jepa": "biossl.objectives.jepa:JEPAConfig",
        "lejepa": "biossl.objectives.lejepa:LeJEPAConfig",
        "simclr": "biossl.objectives.simclr:SimCLRConfig",
        "clocs": "biossl.objectives.clocs:CLOCSConfig",
        "spcl": "biossl.objectives.spcl:SPCLConfig",
        "moco": "biossl.objectives.moco:MoCoConfig",
        "byol": "biossl.objectives.byol:BYOLConfig",
        "dino": "biossl.objectives.clustering:DINOConfig",
        "swav": "biossl.objectives.clustering:SwAVConfig",
        "vicreg": "biossl.objectives.redundancy:VICRegConfig",
        "barlow_twins": "biossl.objectives.redundancy:BarlowTwinsConfig",
        "reconstruction": "biossl.objectives.reconstruction:ReconstructionConfig",
        "hybrid": "biossl.objectives.hybrid:HybridConfig",
        "transformations": "biossl.objectives.transformations:TransformationsConfig",
        "cpc": "biossl.objectives.cpc:CPCConfig",
        "ts2vec": "biossl.objectives.ts2vec:TS2VecConfig",
    },
    "head": {
        "linear": "biossl.models.task_heads:LinearHeadConfig",
        "attention": "biossl.models.task_heads:AttentionHeadConfig",
        "mlp": "biossl.models.task_heads:MLPHeadConfig",
        "dense": "biossl.models.task_heads:DenseHeadConfig",
        "unet": "biossl.models.dense_heads:UNetHeadConfig",
        "sequence": "biossl.models.group_heads:SequenceHeadConfig",
        "pooling": "biossl.models.group_heads:PoolingHeadConfig",
    },
    "schedule": {
        "warmup_cosine": "biossl.schedules:WarmupCosine",
        "constant_cooldown": "biossl.schedules:ConstantCooldown",
        "infinite": "biossl.schedules:Infinite",
    },
}

# name -> class built from (spec, config)
ENCODERS: dict[str, str] = {
    "transformer": "biossl.models.transformer:TransformerEncoder",
    "convnet": "biossl.models.convnets:ConvEncoder",
}

# dict of name -> list of {"name": ..., **settings}: what `augment: NAME` in a file stands for
POLICIES = "biossl.augment.policies:POLICIES"

# name -> class built from (encoder, config, mask=..., augment=..., steps=...)
OBJECTIVES: dict[str, str] = {
    "jepa": "biossl.objectives.jepa:JEPA",
    "lejepa": "biossl.objectives.lejepa:LeJEPA",
    "simclr": "biossl.objectives.simclr:SimCLR",
    "clocs": "biossl.objectives.clocs:CLOCS",
    "spcl": "biossl.objectives.spcl:SPCL",
    "moco": "biossl.objectives.moco:MoCo",
    "byol": "biossl.objectives.byol:BYOL",
    "dino": "biossl.objectives.clustering:DINO",
    "swav": "biossl.objectives.clustering:SwAV",
    "vicreg": "biossl.objectives.redundancy:RedundancyReduction",
    "barlow_twins": "biossl.objectives.redundancy:RedundancyReduction",
    "reconstruction": "biossl.objectives.reconstruction:Reconstruction",
    "hybrid": "biossl.objectives.hybrid:Hybrid",
    "transformations": "biossl.objectives.transformations:Transformations",
    "cpc": "biossl.objectives.cpc:CPC",
    "ts2vec": "biossl.objectives.ts2vec:TS2Vec",
}

_INIT_DRAW = 0x1417  # keeps the initialisation apart from every other use of the seed


def resolve(target: str) -> Any:
    """The object a ``"module:Class"`` string of these tables names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def config_class(section: str, name: Any, *, where: str) -> Any:
    """Dataclass of a named choice; RequestError with the nearest name when there is none."""
    table = CONFIGS[section]
    if not isinstance(name, str) or name not in table:
        raise RequestError(f"{where}: {section} '{name}' is not known; {nearest(str(name), table)}")
    return resolve(table[name])


def build_encoder(recipe: Recipe, spec: InputSpec) -> Any:
    """The randomly initialised encoder of a recipe: the same weights for the same seed, whatever ran before."""
    import torch

    from biossl.keys import hash_ints

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_ints(recipe.seed, _INIT_DRAW))
        try:
            return resolve(ENCODERS[recipe.model.name])(spec, recipe.model.config)
        except RequestError as error:  # names keys as encoder.dim; in a recipe they stand under model
            raise RequestError(f"{_where(recipe)}: {str(error).replace('encoder.', 'model.')}") from None


def build_objective(recipe: Recipe, spec: InputSpec) -> Objective:
    """See :meth:`biossl.recipe.schema.Recipe.build`."""
    import torch

    from biossl.augment.base import build_pipeline
    from biossl.keys import hash_ints

    _require_spec(recipe, spec)
    encoder = build_encoder(recipe, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_ints(recipe.seed, _INIT_DRAW, 1))
        cls = resolve(OBJECTIVES[recipe.objective.name])
        mask = None if recipe.mask is None else recipe.mask.config
        try:
            augment = build_pipeline(recipe.augment, spec) if recipe.augment else None
            objective: Objective = cls(encoder, recipe.objective.config, mask=mask, augment=augment, steps=recipe.train.steps)
        except RequestError as error:
            raise RequestError(f"{_where(recipe)}: {error}") from None
    return objective


def _require_spec(recipe: Recipe, spec: InputSpec) -> None:
    """The windows are of the kind the recipe states."""
    data, where = recipe.data, _where(recipe)
    if spec.modality != recipe.modality:
        raise RequestError(
            f"{where}: the recipe is for {recipe.modality}, the corpus is {spec.modality}; "
            f"take one of {spec.modality}/ from `biossl list recipes`"
        )
    if data.sfreq is not None and abs(data.sfreq - spec.sfreq) > 1e-6:
        raise DataError(
            f"{where}: data.sfreq is {data.sfreq:g} Hz, the corpus has {spec.sfreq:g} Hz; convert with a view of that rate"
        )
    if data.window_s is not None and abs(data.window_s - spec.window_s) > 0.5 / spec.sfreq:
        raise DataError(
            f"{where}: data.window_s is {data.window_s:g} s, the corpus has {spec.window_s:g} s; convert with a view of that length"
        )


def _where(recipe: Recipe) -> str:
    return recipe.source or recipe.name
