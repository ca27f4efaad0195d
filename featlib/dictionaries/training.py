"""Training sparse autoencoders: several seeds in one pass over the same activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from featlib import FeatlibError
from featlib.dictionaries import gradients as sae
from featlib.dictionaries.sae import AutoencoderConfig, SparseAutoencoder, round_mantissa

THRESHOLD_MEMORY = 0.95  # per step, of the running threshold that inference uses


def train_autoencoders(
    batches: Iterable[Tensor],
    config: AutoencoderConfig,
    seeds: Sequence[int],
    init: SparseAutoencoder | Sequence[SparseAutoencoder] | None = None,
    *,
    scale: float = 1.0,
    progress: str | None = None,
) -> tuple[list[SparseAutoencoder], pd.DataFrame]:
    """Train one SAE per seed on the same batches [tokens, d_in] of scaled activations.

    A seed draws the starting dictionary and nothing else; trained with others it ends bit for bit
    as it does alone. `init` (one for all seeds, or one each) starts from trained weights instead.
    `scale` is what the batches were multiplied by; the SAEs carry it. `progress` labels a bar.
    Returns the SAEs, in the order of `seeds`, and the curve: seed, step, tokens, fvu, l0,
    threshold, dead (share), lr.

    Deviation: the paper has one autoencoder per model, all from one seed; we train several per
    model and compare those of different seeds, because without a second there is no ceiling, and a
    shared start makes indices agree.
    """
    if len(set(seeds)) != len(seeds) or not seeds:
        raise FeatlibError(f"seeds must be different numbers, at least one; got {list(seeds)}.")
    starts = list(init) if isinstance(init, Sequence) else [init] * len(seeds)
    if len(starts) != len(seeds):
        raise FeatlibError(f"{len(starts)} SAEs to start from for {len(seeds)} seeds.")
    n_steps = math.ceil(config.n_tokens / config.batch_size)
    trainees: list[_Trainee] = []
    curve: list[dict[str, float]] = []
    bar = tqdm(total=config.n_tokens, unit="tok", desc=progress, disable=progress is None)
    step = tokens = 0
    with bar, torch.no_grad():
        for x in batches:
            if step == n_steps:
                break
            if x.ndim != 2 or x.shape[1] != config.d_in:
                raise FeatlibError(f"Batches are {tuple(x.shape)}, not [tokens, {config.d_in}].")
            trainees = trainees or [
                _Trainee(config, x, s, i) for s, i in zip(seeds, starts, strict=True)
            ]
            lr = config.lr * _lr_shape(step, n_steps, config)
            record = step % max(1, n_steps // 100) == 0 or step == n_steps - 1
            for trainee in trainees:
                row = trainee.update(x, lr, record)
                if record:
                    curve.append({"step": step, "tokens": tokens + len(x), "lr": lr, **row})
            step, tokens = step + 1, tokens + len(x)
            bar.update(len(x))
    if step < n_steps:
        raise FeatlibError(
            f"The activations ended after {tokens:,} of n_tokens = {config.n_tokens:,}; "
            "give more, or lower n_tokens."
        )
    columns = ["seed", "step", "tokens", "fvu", "l0", "threshold", "dead", "lr"]
    return [trainee.finish(scale) for trainee in trainees], pd.DataFrame(curve)[columns]


class _Trainee:
    """Weights, optimiser and counters of one seed."""

    def __init__(
        self, config: AutoencoderConfig, x: Tensor, seed: int, init: SparseAutoencoder | None
    ) -> None:
        self.config, self.seed = config, seed
        if init is None:
            draw = torch.Generator().manual_seed(seed)
            W_dec = torch.randn(config.d_sae, config.d_in, generator=draw).to(x.device)
            W_dec /= W_dec.norm(dim=1, keepdim=True)
            centre = x.mean(0) if config.bias == "mean" else geometric_median(x)
            # The encoder starts as the decoder transposed: a feature reads what it writes.
            self.w = sae.Weights(W_dec.clone(), x.new_zeros(config.d_sae), W_dec, centre)
        else:
            if (init.d_in, init.d_sae) != (config.d_in, config.d_sae):
                raise FeatlibError(
                    f"The SAE to start from is {init.d_in} x {init.d_sae}, the configuration "
                    f"says {config.d_in} x {config.d_sae}."
                )
            parts = [init.W_enc.T, init.b_enc, init.W_dec, init.b_dec]
            self.w = sae.Weights(
                *(p.detach().to(x).clone(memory_format=torch.contiguous_format) for p in parts)
            )
        self.optimizer = torch.optim.Adam(
            self.w.tensors(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True
        )
        self.silent = torch.zeros(config.d_sae, dtype=torch.int64, device=x.device)
        self.threshold: float | None = None  # the last batch's
        self.running = self.weight = 0.0  # its exponential mean, and the mean's weight so far

    def update(self, x: Tensor, lr: float, record: bool) -> dict[str, float]:
        c, w = self.config, self.w
        k = c.k if c.architecture == "batchtopk" else None
        l1 = 0.0 if k is not None else c.l1
        step = sae.take_step(w, x, k=k, l1=l1, threshold=self.threshold)
        self.silent = torch.where(step.counts > 0, 0, self.silent + len(x))
        dead = (self.silent >= c.dead_after).nonzero().flatten()
        if len(dead) and c.aux_weight:
            aux_k = c.aux_k or max(1, c.d_in // 2)
            sae.add_dead_gradients(w, x, step, dead, aux_k=aux_k, aux_weight=c.aux_weight)
        g = step.gradients
        # Rows of W_dec live on the unit sphere: a gradient along the row would only change its
        # length, and would still enter Adam's moments.
        g.W_dec -= torch.linalg.vecdot(g.W_dec, w.W_dec)[:, None] * w.W_dec
        for tensor, gradient in zip(w.tensors(), g.tensors(), strict=True):
            tensor.grad = gradient
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        w.W_dec /= torch.linalg.vector_norm(w.W_dec, dim=1, keepdim=True)
        if k is not None and math.isfinite(step.threshold):
            self.threshold = step.threshold
            self.running += (1 - THRESHOLD_MEMORY) * (step.threshold - self.running)
            self.weight += (1 - THRESHOLD_MEMORY) * (1 - self.weight)
        if not record:
            return {}
        spread = (x - x.mean(0)).square().sum().item()
        return {
            "seed": self.seed,
            "fvu": step.error.square().sum().item() / spread if spread else math.nan,
            "l0": step.counts.sum().item() / len(x),
            "threshold": step.threshold,
            "dead": len(dead) / c.d_sae,
        }

    def finish(self, scale: float) -> SparseAutoencoder:
        W_enc, b_enc, W_dec, b_dec = (t.detach().cpu() for t in self.w.tensors())
        return SparseAutoencoder(
            round_mantissa(W_enc.T.contiguous()),
            b_enc,
            round_mantissa(W_dec),
            round_mantissa(b_dec),
            architecture=self.config.architecture,
            threshold=float(np.float32(self.running / self.weight)) if self.weight else 0.0,
            scale=scale,
        )


def _lr_shape(step: int, n_steps: int, config: AutoencoderConfig) -> float:
    """Share of the peak learning rate: a linear rise, a plateau, a linear fall to 0."""
    rise = (step + 1) / max(1.0, config.warmup * n_steps)
    fall = (n_steps - step) / max(1.0, config.decay * n_steps)
    return min(1.0, rise, fall)


def geometric_median(x: Tensor, *, n_iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """The point [d_in] with the least summed distance to x [tokens, d_in] (Weiszfeld 1937)."""
    centre = x.mean(0)
    for _ in range(n_iterations):
        weights = 1 / (x - centre).norm(dim=1).clamp_min(1e-8)
        moved = (weights @ x) / weights.sum()
        if (moved - centre).norm() <= tolerance * moved.norm():
            return moved
        centre = moved
    return centre
