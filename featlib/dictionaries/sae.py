"""A sparse autoencoder (SAE) over MLP activations: how it is made, what it computes, its folder.

    f(x) = act((x - b_dec) W_enc + b_enc)        [tokens, d_sae]
    x^   = f W_dec + b_dec                       [tokens, d_in]

`architectures` says what act is. The loss is ||x - x^||^2 and what the architecture adds, a sum
over d_in and a mean over tokens.

Deviation: the paper has ReLU and an L1 penalty, 3e-4 or 8e-3; we take BatchTopK unless told
otherwise, because a penalty leaves open how sparse a dictionary becomes, and dictionaries of
different sparsity cannot be compared fairly.
Deviation: the authors' code normalises `W_dec` along the wrong axis; we give the row of each
feature, its direction in activation space, length one, because length and activation can otherwise
trade against each other.
Deviation: the authors' code revives dead features by ghost gradients, in a branch that cannot run;
we add an auxiliary loss on dead features (Gao et al. 2024, arXiv 2406.04093, appendix A.2), because
a feature that never fires describes nothing.
Deviation: the paper starts `b_dec` at the geometric median; we start it at the mean, because that
costs nothing and training moves it anyway.
Deviation: the paper trains at a rate of 1e-4 in batches of 3,072, with 0.9999 as Adam's second
decay rate; we choose all three by the length of training (in `mini` 6e-3, 1,024 and 0.99), because
a mean over 10,000 steps never forgets the first gradients when there are 800 steps in all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array
from torch import Tensor, nn

from featlib import FeatlibError
from featlib.dictionaries import sparse as codes
from featlib.dictionaries.architectures import ARCHITECTURES
from featlib.models.forward import HOOK_NAME
from featlib.models.loss import compute_dtype
from featlib.run import atomic_path, needed

MANTISSA_BITS = 20  # of trained weights: folding a scale into float32 can then be undone exactly
FEW = 64  # features: for so few a plain float32 product is much faster than the sparse encoder
_NORMS = "rescale_acts_by_decoder_norm"  # SAELens ranks by decoder norms too, which we do not
_FORMAT = "6.0.0"  # the SAELens version whose folder format this is


@dataclass(frozen=True)
class AutoencoderConfig:
    """One SAE's training; the defaults are the `mini` profile's."""

    d_in: int  # width of the activations
    d_sae: int  # number of features
    architecture: str = "batchtopk"  # a name in `ARCHITECTURES`
    k: int = 16  # features active per token, where the architecture counts them
    # relu: weight of the L1 norm, against a squared error summed over d_in. The paper's 3e-4 is
    # summed over a batch of 3,072 raw activations: here that is 0.92 * scale.
    l1: float = 4.0
    lr: float = 6e-3  # peak learning rate of Adam
    beta2: float = 0.99  # second decay rate of Adam
    warmup: float = 0.02  # share of the steps over which lr rises from 0
    decay: float = 0.3  # share of the steps, at the end, over which lr falls to 0
    n_tokens: int = 800_000  # activations to train on
    batch_size: int = 1024  # activations per step
    aux_weight: float = 1 / 4  # weight of the auxiliary loss on dead features; 0 turns it off
    dead_after: int = 20_000  # a feature is dead once silent for this many activations


class SparseAutoencoder(nn.Module):
    """One trained dictionary. It reads and rebuilds scaled activations, x_raw * scale.

    An activation depends on its own token only: a feature is active where it exceeds its
    `threshold`, with topk where it is among the token's k largest positive ones.
    """

    threshold: Tensor  # [d_sae]

    def __init__(
        self,
        W_enc: Tensor,  # [d_in, d_sae]
        b_enc: Tensor,  # [d_sae]
        W_dec: Tensor,  # [d_sae, d_in]
        b_dec: Tensor,  # [d_in]
        *,
        architecture: str = "batchtopk",
        threshold: float | Tensor = 0.0,  # one for all features, or [d_sae]
        k: int = 0,  # of topk; no other asks for it
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.W_enc, self.b_enc = nn.Parameter(W_enc), nn.Parameter(b_enc)
        self.W_dec, self.b_dec = nn.Parameter(W_dec), nn.Parameter(b_dec)
        self.register_buffer("threshold", None)
        self.set_threshold(threshold)
        self.architecture, self.k, self.scale = architecture, k, scale
        self._whole: tuple[SparseAutoencoder, Tensor] | None = None

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[1]

    def set_threshold(self, threshold: float | Tensor | Sequence[float]) -> None:
        """Make features active above `threshold` from now on: one for all, or [d_sae]."""
        value = torch.as_tensor(threshold, dtype=torch.float32, device=self.b_enc.device)
        self.threshold = value.expand_as(self.b_enc).clone()

    def plain_threshold(self) -> float | list[float]:
        """One number where all features have the same, else one for each."""
        first = self.threshold[0]
        return first.item() if (self.threshold == first).all() else self.threshold.tolist()

    def only(self, features: Sequence[int] | np.ndarray) -> SparseAutoencoder:
        """The autoencoder with these features alone, in that order, as active as they were."""
        rows = torch.as_tensor(np.asarray(features, dtype=np.int64))
        part = SparseAutoencoder(
            self.W_enc.detach()[:, rows],
            self.b_enc.detach()[rows],
            self.W_dec.detach()[rows],
            self.b_dec.detach(),
            architecture=self.architecture,
            threshold=self.threshold[rows],
            k=self.k,
            scale=self.scale,
        )
        if ARCHITECTURES[self.architecture].ranks_tokens:
            part._whole = (self, rows)  # which are the largest depends on the others too
        return part

    def encode(self, x: Tensor) -> Tensor:
        """Dense features [..., d_sae] of scaled activations x [..., d_in]."""
        if self._whole is not None:
            sae, rows = self._whole
            return sae.encode(x)[..., rows]
        pre = (x - self.b_dec) @ self.W_enc + self.b_enc
        rule = ARCHITECTURES[self.architecture]
        if rule.ranks_tokens:
            return pre.relu() * (pre >= rule.limit(pre, self.k, None))
        return pre * (pre > self.threshold)

    @torch.no_grad()
    def encode_sparse(self, x: Tensor) -> csr_array:
        """Features of scaled activations x [tokens, d_in], as `encode`, several times faster.

        A bfloat16 product with a margin for its largest possible error (Cauchy-Schwarz) rules out
        what cannot be active; the rest is computed in float32, each entry on its own, so that a
        feature has the same bits whatever the batch.
        """
        x = x.to(self.W_enc.device)
        if x.device.type != "cpu" or self.d_sae <= FEW:
            return codes.from_dense(self.encode(x))
        rule = ARCHITECTURES[self.architecture]
        xc, W = x - self.b_dec, self.W_enc.T.contiguous()
        rule_out = compute_dtype(x.device)
        u = codes.BF16_ROUNDING if rule_out is torch.bfloat16 else 2.0**-16
        size = xc.norm(dim=1) * W.norm(dim=1).max() + self.b_enc.abs().max()  # [tokens]
        margin = u * 3.0 * (size + self.threshold.abs().max())[:, None]
        above = self.b_enc - self.threshold
        pre = torch.nn.functional.linear(xc.to(rule_out), W.to(rule_out), above.to(rule_out))
        floor = -margin
        if rule.ranks_tokens:
            floor = (rule.limit(pre, self.k, None).float() - 2 * margin).clamp_min(-margin)
        some = codes.pattern_at(codes.positions_above(pre, floor), pre.shape)
        some.data = codes.sampled_product(some, xc, W) + self.b_enc.detach().numpy()[some.indices]
        active = some.data > self.threshold.numpy()[some.indices]
        if rule.ranks_tokens:
            active &= codes.among_largest(some, self.k)
        return codes.keep(some, active)

    @torch.no_grad()
    def decode_sparse(self, f: csr_array) -> Tensor:
        """Scaled activations [tokens, d_in] rebuilt from sparse features."""
        return codes.product(f, self.W_dec.detach()) + self.b_dec


def save_autoencoder(
    sae: SparseAutoencoder, folder: str | Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a SAELens folder: `cfg.json` and `sae_weights.safetensors`, all or nothing.

    The activation scale is folded into the weights, so that SAELens reads raw activations from
    `HOOK_NAME` and gives the same features, under the architecture's name there (`Architecture`).
    Scaled weights are first rounded to `MANTISSA_BITS` bits, which training has done already.
    `metadata`: model_name, training parameters and whatever else should travel along (JSON).
    """
    parts = [round_mantissa(t.detach().cpu()) for t in (sae.W_enc, sae.W_dec, sae.b_dec)]
    weights = {
        "W_enc": (parts[0] * sae.scale).contiguous(),
        "W_dec": (parts[1] / sae.scale).contiguous(),
        "b_dec": (parts[2] / sae.scale).contiguous(),
        "b_enc": sae.b_enc.detach().cpu().contiguous(),
    }
    kind = ARCHITECTURES[sae.architecture].saelens
    if kind == "jumprelu":
        weights["threshold"] = sae.threshold.cpu()
    cfg = {
        "architecture": kind,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        **({"k": sae.k, _NORMS: False} if kind == "topk" else {}),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _FORMAT,
            "hook_name": HOOK_NAME,
            "activation_scale": sae.scale,
            "trained_as": sae.architecture,
            **(metadata or {}),
        },
    }
    with atomic_path(folder) as tmp:
        tmp.mkdir()
        save_file(weights, tmp / "sae_weights.safetensors")
        (tmp / "cfg.json").write_text(json.dumps(cfg, indent=2) + "\n", encoding="utf-8")


def load_autoencoder(folder: str | Path) -> SparseAutoencoder:
    """Read a folder of `save_autoencoder`, bit for bit; or one of SAELens itself (scale 1)."""
    files = [needed(Path(folder) / name) for name in ("cfg.json", "sae_weights.safetensors")]
    try:
        cfg, weights = json.loads(files[0].read_text(encoding="utf-8")), load_file(files[1])
        about = cfg.get("metadata", {})
        if cfg.get(_NORMS):
            raise ValueError(f"{_NORMS} is true")
        alike = [a for a, rule in ARCHITECTURES.items() if rule.saelens == cfg["architecture"]]
        scale = float(about.get("activation_scale", 1.0))
        return SparseAutoencoder(
            round_mantissa(weights["W_enc"] / scale),
            weights["b_enc"],
            round_mantissa(weights["W_dec"] * scale),
            round_mantissa(weights["b_dec"] * scale),
            architecture=about.get("trained_as", alike[-1]),
            threshold=weights.get("threshold", 0.0),
            k=cfg.get("k", 0),
            scale=scale,
        )
    except (LookupError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise FeatlibError(
            f"{folder} is not an autoencoder folder that can be read ({error!r}); delete it and "
            "run chapter 05 again. Read are SAELens's standard, jumprelu and topk."
        ) from error


def round_mantissa(x: Tensor) -> Tensor:
    """float32 x rounded to `MANTISSA_BITS` significant bits, a relative change under 1e-6."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**MANTISSA_BITS).round(), exponent - MANTISSA_BITS)
