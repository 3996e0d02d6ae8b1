"""Weights and input by closed formulas, and the one run of the original model that made ``golden_ecg_jepa.json``.

    git clone https://github.com/sehunfromdaegu/ECG_JEPA && git -C ECG_JEPA checkout d937ad2      (MIT)
    python tests/importers/golden_ecg_jepa.py ECG_JEPA tests/importers/golden_ecg_jepa.json

The formulas are whole-number arithmetic, so the same numbers come out everywhere. Weights are large enough that attention
matters: with the usual initialisation a wrong head split would change the features by less than the tolerance.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

LEADS, PATCHES, PATCH, DIM, DEPTH = 8, 50, 50, 768, 12


def pseudo(n, name):
    """n numbers in [-1, 1): a quadratic sequence modulo 2**32 that starts from the tensor's name."""
    i = np.arange(n, dtype=np.uint64)
    seed = np.uint64(sum((k + 1) * ord(c) for k, c in enumerate(name)))
    h = (i * np.uint64(2654435761) + i * i * np.uint64(40503) + seed * np.uint64(97561)) % np.uint64(2**32)
    h = (h ^ (h >> np.uint64(13))) * np.uint64(2246822519) % np.uint64(2**32)
    return h.astype(np.float64) / 2**31 - 1.0


def shapes():
    """Published key table: name -> shape."""
    out = {"W_P.weight": (DIM, PATCH), "W_P.bias": (DIM,), "norm.weight": (DIM,), "norm.bias": (DIM,)}
    for b in range(DEPTH):
        at = f"encoder_blocks.blocks.{b}."
        for norm in ("norm1", "norm2"):
            out |= {f"{at}{norm}.weight": (DIM,), f"{at}{norm}.bias": (DIM,)}
        out |= {f"{at}attn.qkv.weight": (3 * DIM, DIM), f"{at}attn.proj.weight": (DIM, DIM), f"{at}attn.proj.bias": (DIM,)}
        out |= {f"{at}mlp.fc1.weight": (4 * DIM, DIM), f"{at}mlp.fc1.bias": (4 * DIM,)}
        out |= {f"{at}mlp.fc2.weight": (DIM, 4 * DIM), f"{at}mlp.fc2.bias": (DIM,)}
    return out


def amplitude(name):
    for part, value in (("qkv", 0.08), ("proj.weight", 0.08), ("fc1.weight", 0.05), ("fc2.weight", 0.04), ("W_P.weight", 0.5)):
        if part in name:
            return value
    return 0.2


def weights():
    """State dict without the position table, float32."""
    out = {}
    for name, shape in shapes().items():
        value = amplitude(name) * pseudo(int(np.prod(shape)), name).reshape(shape)
        if "norm" in name and name.endswith("weight"):
            value = 1.0 + value
        out[name] = torch.from_numpy(value.astype(np.float32))
    return out


def window(n):
    """(n, 8, 2500) mV: beats of unequal distance and height, baseline and noise, different in every lead."""
    t = np.arange(2500) / 250.0
    x = np.empty((n, LEADS, 2500))
    for b in range(n):
        for lead in range(LEADS):
            beat = np.exp(-(((t * (1.1 + 0.2 * b) + 0.02 * t * t) % 1.0 - 0.4) ** 2) / 0.001)
            noise = pseudo(2500, f"window {b} {lead}")
            x[b, lead] = (1.0 - 0.25 * lead) * beat + 0.1 * np.sin(2 * np.pi * 0.3 * t + lead) + 0.05 * noise
    return torch.from_numpy(x.astype(np.float32))


def original(root, leads):
    """The original encoder with these weights; timm is stood in for by what the model file asks of it."""
    layers = types.ModuleType("timm.models.layers")
    layers.DropPath, layers.trunc_normal_ = torch.nn.Identity, torch.nn.init.trunc_normal_  # evaluation mode drops nothing
    sys.modules |= {
        "timm": types.ModuleType("timm"),
        "timm.models": types.ModuleType("timm.models"),
        "timm.models.layers": layers,
    }
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    from ecg_jepa import ecg_jepa

    model = ecg_jepa(
        encoder_embed_dim=768, encoder_depth=12, encoder_num_heads=16, predictor_embed_dim=384, predictor_depth=6,
        predictor_num_heads=12, c=8, pos_type="sincos", mask_scale=(0, 0), leads=leads,
    )  # fmt: skip
    encoder = model.encoder.eval()
    state = encoder.state_dict()
    table = {**weights(), "pos_embed": state["pos_embed"]}
    encoder.load_state_dict(table, strict=True)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return encoder, table["pos_embed"], trainable


def main(root, out):
    root = Path(root).resolve()
    x = window(2)
    encoder, position, trainable = original(root, list(range(8)))
    with torch.no_grad():
        full = encoder.representation(x).double()
        encoder.leads = [1, 2]
        reduced = encoder.representation(x[:, 1:3]).double()
    numbers = lambda v: [float(f"{a:.8g}") for a in v.flatten()]  # noqa: E731
    golden = {
        "origin": "sehunfromdaegu/ECG_JEPA d937ad2 (MIT), MaskTransformer.representation, float32 on a CPU",
        "trainable_parameters_with_predictor": trainable,
        "embedding": [numbers(row) for row in full],
        "leads_II_V1": [numbers(row[::16]) for row in reduced],
        "position_rows": {str(r): numbers(position[r, ::48]) for r in (0, 1, 49, 50, 399)},
    }
    Path(out).write_text(json.dumps(golden, indent=None, separators=(", ", ": ")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
