"""Sparse autoencoders (SAEs) over MLP activations, several seeds trained in one pass.

    f(x) = act((x - b_dec) W_enc + b_enc)        [tokens, d_sae]
    x^   = f W_dec + b_dec                       [tokens, d_in]

`relu`: act = ReLU, loss ||x - x^||^2 + l1 sum_j f_j ||W_dec_j||, as in the paper.
`batchtopk`: act keeps the batch * k largest positive values of the whole batch (Bussmann et al.
2024, arXiv 2412.06410), loss ||x - x^||^2. Losses are sums over d_in and means over tokens.

Deviation: the paper has ReLU and an L1 penalty, 3e-4 or 8e-3; we take BatchTopK unless told
otherwise, because a penalty leaves open how sparse a dictionary becomes, and dictionaries of
different sparsity cannot be compared fairly.
Deviation: the authors' code normalises `W_dec` along the wrong axis; we give the row of each
feature, its direction in activation space, length one, because length and activation can otherwise
trade against each other.
Deviation: the authors' code revives dead features by ghost gradients, in a branch that cannot run;
we add an auxiliary loss on dead features (Gao et al. 2024, arXiv 2406.04093, appendix A.2), because
a feature that never fires describes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from featlib import FeatlibError
from featlib.dictionaries import sparse as codes
from featlib.dictionaries.activations import HOOK_NAME
from featlib.models.loss import compute_dtype
from featlib.run import atomic_path

MANTISSA_BITS = 20  # of trained weights: folding a scale into float32 can then be undone exactly
_ARCHITECTURES = {"batchtopk": "jumprelu", "relu": "standard"}  # ours -> SAELens's
_FORMAT = "6.0.0"  # the SAELens version whose folder format this is


@dataclass(frozen=True)
class AutoencoderConfig:
    """One SAE's training; the defaults are the `mini` profile's."""

    d_in: int  # width of the activations
    d_sae: int  # number of features
    architecture: Literal["batchtopk", "relu"] = "batchtopk"
    k: int = 16  # batchtopk: mean number of features active per token
    # relu: weight of the L1 norm, against a squared error summed over d_in. The paper's 3e-4 is
    # summed over a batch of 3,072 raw activations: here that is 0.92 * scale.
    l1: float = 4.0
    lr: float = 2e-3  # peak learning rate of Adam
    beta1: float = 0.9  # Adam
    beta2: float = 0.9999  # Adam; the paper's value
    warmup: float = 0.02  # share of the steps over which lr rises from 0
    decay: float = 0.3  # share of the steps, at the end, over which lr falls to 0
    n_tokens: int = 600_000  # activations to train on
    batch_size: int = 2048  # activations per step
    # Where b_dec starts, from the first batch. Deviation: the paper starts `b_dec` at the geometric
    # median; we start it at the mean, because that costs nothing and training moves it anyway.
    bias: Literal["mean", "geometric_median"] = "mean"
    aux_weight: float = 1 / 4  # weight of the auxiliary loss on dead features; 0 turns it off
    aux_k: int | None = None  # dead features that may rebuild one token's error; None: d_in / 2
    dead_after: int = 20_000  # a feature is dead once silent for this many activations

    def __post_init__(self) -> None:
        for name in ("d_in", "d_sae", "k", "n_tokens", "batch_size", "dead_after"):
            if getattr(self, name) < 1:
                raise FeatlibError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.architecture not in ("batchtopk", "relu"):
            raise FeatlibError(f"architecture must be batchtopk or relu, not {self.architecture}.")
        if self.bias not in ("mean", "geometric_median"):
            raise FeatlibError(f"bias must be mean or geometric_median, not {self.bias}.")
        if self.architecture == "batchtopk" and self.k > self.d_sae:
            raise FeatlibError(f"k = {self.k} is more than the d_sae = {self.d_sae} features.")
        if self.warmup < 0 or self.decay < 0 or self.warmup + self.decay > 1:
            raise FeatlibError("warmup and decay are shares of the steps; their sum is at most 1.")
        if self.aux_k is not None and self.aux_k < 1:
            raise FeatlibError(f"aux_k must be at least 1, or None for d_in / 2, not {self.aux_k}.")
        if self.lr <= 0 or self.l1 < 0 or self.aux_weight < 0:
            raise FeatlibError("lr must be positive; l1 and aux_weight must not be negative.")


class SparseAutoencoder(nn.Module):
    """One trained dictionary. `encode` and `decode` work on scaled activations, x_raw * scale.

    An activation depends on its own token only: `threshold` is a fixed number (batchtopk: the
    running estimate of training; relu: 0), and a feature is active where it is exceeded.
    """

    def __init__(
        self,
        W_enc: Tensor,  # [d_in, d_sae]
        b_enc: Tensor,  # [d_sae]
        W_dec: Tensor,  # [d_sae, d_in]
        b_dec: Tensor,  # [d_in]
        *,
        architecture: Literal["batchtopk", "relu"] = "batchtopk",
        threshold: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.W_enc, self.b_enc = nn.Parameter(W_enc), nn.Parameter(b_enc)
        self.W_dec, self.b_dec = nn.Parameter(W_dec), nn.Parameter(b_dec)
        self.architecture, self.threshold, self.scale = architecture, threshold, scale

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[1]

    def encode(self, x: Tensor) -> Tensor:
        """Dense features [..., d_sae] of scaled activations x [..., d_in]."""
        pre = (x - self.b_dec) @ self.W_enc + self.b_enc
        return pre * (pre > self.threshold)

    def decode(self, f: Tensor) -> Tensor:
        """Scaled activations [..., d_in] rebuilt from features f [..., d_sae]."""
        return f @ self.W_dec + self.b_dec

    def reconstruct(self, raw: Tensor) -> Tensor:
        """Raw activations [..., d_in] -> scaled -> features -> scaled -> raw."""
        flat = (raw * self.scale).reshape(-1, self.d_in)
        return (self.decode_sparse(self.encode_sparse(flat)) / self.scale).reshape(raw.shape)

    @torch.no_grad()
    def encode_sparse(self, x: Tensor) -> codes.Codes:
        """Features of scaled activations x [tokens, d_in], as `encode`, several times faster.

        A bfloat16 product with a margin for its largest possible error (Cauchy-Schwarz) rules out
        what cannot be active; the rest is computed in float32, each entry on its own, so that a
        feature has the same bits whatever the batch.
        """
        x = x.to(self.W_enc.device)
        if x.device.type != "cpu":
            return codes.from_dense(self.encode(x))
        xc, W = x - self.b_dec, self.W_enc.T.contiguous()
        rule_out = compute_dtype(x.device)
        u = codes.BF16_ROUNDING if rule_out is torch.bfloat16 else 2.0**-16
        size = xc.norm(dim=1) * W.norm(dim=1).max() + self.b_enc.abs().max()  # [tokens]
        floor = self.threshold - u * (3.0 * size + abs(self.threshold))
        pre = torch.nn.functional.linear(xc.to(rule_out), W.to(rule_out), self.b_enc.to(rule_out))
        mask = pre > floor.to(rule_out)[:, None]
        some = codes.pattern_at(np.flatnonzero(mask.numpy()), len(x), self.d_sae)
        values = codes.sampled_product(some, xc, W) + self.b_enc.detach().numpy()[some.cols]
        some = replace(some, values=values)
        return codes.keep(some, values > self.threshold)

    @torch.no_grad()
    def decode_sparse(self, f: codes.Codes) -> Tensor:
        """Scaled activations [tokens, d_in] rebuilt from sparse features."""
        return codes.product(f, self.W_dec.detach()) + self.b_dec


def save_autoencoder(
    sae: SparseAutoencoder, folder: str | Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a SAELens folder: `cfg.json` and `sae_weights.safetensors`, all or nothing.

    The activation scale is folded into the weights, so that SAELens reads raw activations from
    `HOOK_NAME` and gives the same features; a fixed threshold makes batchtopk SAELens's `jumprelu`
    (as SAELens itself saves it), relu is its `standard`. Scaled weights are first rounded to
    `MANTISSA_BITS` bits, which training has done already. `metadata`: model_name, training
    parameters and whatever else should travel with the weights (JSON).
    """
    parts = [round_mantissa(t.detach().cpu()) for t in (sae.W_enc, sae.W_dec, sae.b_dec)]
    weights = {
        "W_enc": (parts[0] * sae.scale).contiguous(),
        "W_dec": (parts[1] / sae.scale).contiguous(),
        "b_dec": (parts[2] / sae.scale).contiguous(),
        "b_enc": sae.b_enc.detach().cpu().contiguous(),
    }
    if sae.architecture == "batchtopk":
        weights["threshold"] = torch.full((sae.d_sae,), sae.threshold)
    cfg = {
        "architecture": _ARCHITECTURES[sae.architecture],
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _FORMAT,
            "hook_name": HOOK_NAME,
            "activation_scale": sae.scale,
            **(metadata or {}),
        },
    }
    with atomic_path(folder) as tmp:
        tmp.mkdir()
        save_file(weights, tmp / "sae_weights.safetensors")
        (tmp / "cfg.json").write_text(json.dumps(cfg, indent=2) + "\n", encoding="utf-8")


def load_autoencoder(folder: str | Path) -> SparseAutoencoder:
    """Read a folder of `save_autoencoder`, bit for bit; or one of SAELens itself (scale 1)."""
    folder = Path(folder)
    try:
        cfg = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "sae_weights.safetensors")
        architecture = {v: k for k, v in _ARCHITECTURES.items()}[cfg["architecture"]]
        scale = float(cfg.get("metadata", {}).get("activation_scale", 1.0))
        W_enc, W_dec, b_dec = weights["W_enc"] / scale, weights["W_dec"] * scale, weights["b_dec"]
        limits = weights.get("threshold", torch.zeros(1)).unique()
        sae = SparseAutoencoder(
            round_mantissa(W_enc),
            weights["b_enc"],
            round_mantissa(W_dec),
            round_mantissa(b_dec * scale),
            architecture=architecture,
            threshold=limits.item(),  # raises where thresholds differ
            scale=scale,
        )
    except FileNotFoundError as error:
        raise FeatlibError(
            f"{folder} holds no autoencoder ({Path(error.filename).name} is missing). "
            "Train it first: chapter 05."
        ) from error
    except (KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise FeatlibError(
            f"{folder} is not an autoencoder folder that can be read ({error!r}); delete it and "
            "run chapter 05 again. Read are SAELens's standard, and jumprelu with one threshold."
        ) from error
    return sae


def round_mantissa(x: Tensor) -> Tensor:
    """float32 x rounded to `MANTISSA_BITS` significant bits, a relative change under 1e-6."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**MANTISSA_BITS).round(), exponent - MANTISSA_BITS)
