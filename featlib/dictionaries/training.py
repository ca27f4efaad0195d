"""Training sparse autoencoders: several seeds in one pass over the same activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from featlib.dictionaries.architectures import ARCHITECTURES, BatchTopK
from featlib.dictionaries.gradients import Weights, add_dead_gradients, take_step
from featlib.dictionaries.sae import AutoencoderConfig, SparseAutoencoder, round_mantissa

THRESHOLD_MEMORY = 0.95  # per step, of the running threshold that inference uses


def train_autoencoders(
    batches: Iterable[Tensor],
    config: AutoencoderConfig,
    seeds: Sequence[int],
    init: SparseAutoencoder | None = None,
    *,
    scale: float = 1.0,
    progress: str | None = None,
) -> list[SparseAutoencoder]:
    """Train one SAE per seed on the same batches [tokens, d_in] of scaled activations.

    A seed draws the starting dictionary and nothing else; trained with others it ends bit for bit
    as it does alone. `init` starts from trained weights instead. `scale` is what the batches were
    multiplied by; the SAEs carry it. `progress` labels a bar.

    Deviation: the paper has one autoencoder per model, all from one seed; we train several per
    model and compare those of different seeds, because without a second there is no ceiling, and a
    shared start makes indices agree.
    """
    assert seeds and len(set(seeds)) == len(seeds), seeds
    n_steps = math.ceil(config.n_tokens / config.batch_size)
    trainees: list[_Trainee] = []
    bar = tqdm(total=config.n_tokens, unit="tok", desc=progress, disable=progress is None)
    with bar, torch.no_grad():
        for step, x in zip(range(n_steps), batches, strict=False):
            trainees = trainees or [_Trainee(config, x, seed, init) for seed in seeds]
            rise = (step + 1) / max(1.0, config.warmup * n_steps)
            fall = (n_steps - step) / max(1.0, config.decay * n_steps)
            for trainee in trainees:
                trainee.update(x, config.lr * min(1.0, rise, fall))
            bar.update(len(x))
    assert step == n_steps - 1, f"the activations ended before n_tokens = {config.n_tokens:,}"
    return [trainee.finish(scale) for trainee in trainees]


class _Trainee:
    """Weights, optimiser and counters of one seed."""

    def __init__(
        self, config: AutoencoderConfig, x: Tensor, seed: int, init: SparseAutoencoder | None
    ) -> None:
        self.config, self.rule = config, ARCHITECTURES[config.architecture]
        if init is None:
            draw = torch.Generator().manual_seed(seed)
            W_dec = torch.randn(config.d_sae, config.d_in, generator=draw).to(x.device)
            W_dec /= W_dec.norm(dim=1, keepdim=True)
            # The encoder starts as the decoder transposed: a feature reads what it writes.
            self.w = Weights(W_dec.clone(), x.new_zeros(config.d_sae), W_dec, x.mean(0))
        else:
            assert (init.d_in, init.d_sae) == (config.d_in, config.d_sae)
            parts = [init.W_enc.T, init.b_enc, init.W_dec, init.b_dec]
            self.w = Weights(
                *(p.detach().to(x).clone(memory_format=torch.contiguous_format) for p in parts)
            )
        # Adam moves every number by about lr a step. A threshold is of the size of an activation,
        # which is as a row of d_in weights to one of them.
        paces = [(self.w.tensors(), 1.0)]
        if self.rule.learns_threshold:
            # That of `init`, or one with which k features per token are active on x.
            pre = (x - self.w.b_dec) @ self.w.W_enc.T
            first = init.threshold if init else BatchTopK().limit(pre, config.k, None)
            self.w.threshold = first.to(x).expand(config.d_sae).clone()
            paces.append(([self.w.threshold], config.d_in**0.5))
        self.optimizer = torch.optim.Adam(
            [{"params": tensors, "pace": pace} for tensors, pace in paces],
            lr=config.lr,
            betas=(0.9, config.beta2),
            fused=True,
        )
        self.silent = torch.zeros(config.d_sae, dtype=torch.int64, device=x.device)
        self.last: float | None = None  # smallest active value of the last batch
        self.running = self.weight = 0.0  # its exponential mean, and the mean's weight so far

    def update(self, x: Tensor, lr: float) -> None:
        c, w = self.config, self.w
        l1 = c.l1 if self.rule.has_l1 else 0.0
        step = take_step(w, x, self.rule, k=c.k, l1=l1, hint=self.last)
        self.silent = torch.where(step.counts > 0, 0, self.silent + len(x))
        dead = (self.silent >= c.dead_after).nonzero().flatten()
        if len(dead) and c.aux_weight:
            aux_k = max(1, c.d_in // 2)
            add_dead_gradients(w, x, step, dead, aux_k=aux_k, aux_weight=c.aux_weight)
        g = step.gradients
        # Rows of W_dec live on the unit sphere: a gradient along the row would only change its
        # length, and would still enter Adam's moments.
        g.W_dec -= torch.linalg.vecdot(g.W_dec, w.W_dec)[:, None] * w.W_dec
        for tensor, gradient in zip(w.tensors(), g.tensors(), strict=True):
            tensor.grad = gradient
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["pace"]
        self.optimizer.step()
        w.W_dec /= torch.linalg.vector_norm(w.W_dec, dim=1, keepdim=True)
        if w.threshold is not None:
            w.threshold.clamp_(min=0)
        if math.isfinite(step.threshold):
            self.last = step.threshold
            self.running += (1 - THRESHOLD_MEMORY) * (step.threshold - self.running)
            self.weight += (1 - THRESHOLD_MEMORY) * (1 - self.weight)

    def finish(self, scale: float) -> SparseAutoencoder:
        W_enc, b_enc, W_dec, b_dec, *learned = (t.detach().cpu() for t in self.w.tensors())
        threshold = 0.0
        if self.rule.calibrated:
            threshold = learned[0] if learned else self.running / max(self.weight, 1e-9)
        return SparseAutoencoder(
            round_mantissa(W_enc.T.contiguous()),
            b_enc,
            round_mantissa(W_dec),
            round_mantissa(b_dec),
            architecture=self.config.architecture,
            threshold=threshold,
            k=self.config.k if self.rule.ranks_tokens else 0,
            scale=scale,
        )
