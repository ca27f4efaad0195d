"""The language models: Mistral of any size, its training loop, its scores, its checkpoints.

The model is `transformers.MistralForCausalLM`, unchanged; only the loss on top of it is ours (see
`NextTokenLoss`), because at this size more than half of all work is the output layer.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from featlib.runs import FeatlibError, atomic_path

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

REPORT_EVERY = 20  # steps between two looks at the loss: each look makes a GPU wait
# Logits made at a time, in elements: on a CPU they stay in its cache, on a GPU they bound memory.
LOGITS_AT_ONCE = {"cpu": 2**21, "cuda": 2**28}


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; without one, a CUDA GPU where there is one, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32.

    Without native support a CPU emulates bfloat16, which is slower than float32, not faster.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else torch.float32
    return torch.float32


def autocast_context(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision as `compute_dtype` says: bfloat16 products, float32 weights and sums."""
    dtype = compute_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def build_model(
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    heads: int,
    kv_heads: int,
    layers: int = 1,
    context: int,
    seed: int,
) -> MistralForCausalLM:
    """A fresh model with the paper's shape rules: SwiGLU, RMSNorm eps 1e-6, RoPE theta 1e4, untied.

    Weights are drawn from `seed` alone (the global generator is left as it was), float32, on the
    CPU. Biases do not exist. Paper: hidden 512, MLP 1024, 16 heads, 8 key-value heads, 1 layer,
    vocabulary 32,000.
    """
    if hidden_size % heads or (hidden_size // heads) % 2:
        raise FeatlibError(
            f"hidden_size {hidden_size} must be heads ({heads}) times an even number: rotary "
            "positions turn each head's dimensions in pairs"
        )
    if heads % kv_heads:
        raise FeatlibError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")
    config = MistralConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=layers,
        max_position_embeddings=context,
        sliding_window=None,  # the blocks are shorter than any window
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        hidden_act="silu",
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MistralForCausalLM(config)


class NextTokenLoss(torch.autograd.Function):
    """Mean cross-entropy of next tokens from hidden states, the logits never held all at once.

    loss = mean_n ( logsumexp_v z[n, v] - z[n, target_n] ),  z = hidden @ weight.T
    The gradient of z is softmax(z) - onehot(target), so each chunk of rows makes its own gradients
    right after its logits and forgets both. The three products run in hidden's dtype; softmax,
    loss and the sum over chunks in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # [rows, d_model]
        weight: Tensor,  # [vocab, d_model] float32
        targets: Tensor,  # [rows] int64
    ) -> Tensor:
        output = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        loss = torch.zeros((), device=hidden.device)
        for rows in _row_chunks(hidden, weight):
            chunk, target = hidden[rows], targets[rows]
            probability = torch.softmax(chunk @ output.T, 1, dtype=torch.float32)  # [chunk, vocab]
            at_target = probability.gather(1, target[:, None])
            loss -= at_target.clamp_min(1e-38).log().sum()
            # Assigned, not added: each row has one target, and scatter_add_ on a GPU has no order.
            probability.scatter_(1, target[:, None], at_target - 1)
            grad_logits = probability.to(hidden.dtype)
            torch.mm(grad_logits, output, out=grad_hidden[rows])
            grad_weight += grad_logits.T @ chunk
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss / len(hidden)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad / len(grad_hidden)
        return grad_hidden * scale, grad_weight * scale, None


def train(
    model: MistralForCausalLM,
    ids: np.ndarray,
    *,
    n_tokens: int,
    batch_size: int,
    lr: float,
    warmup_steps: int,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.99),
    clip: float = 1.0,
    seed: int,
    device: str | torch.device | None = None,
    label: str = "",
    snapshots: Sequence[float] = (),
    on_snapshot: Callable[[float, MistralForCausalLM], None] | None = None,
) -> pd.DataFrame:
    """Train `model` in place on blocks `ids` [blocks, context]; returns the loss curve.

    AdamW with linear warm-up, then cosine decay to 0; weight decay on matrices only. `n_tokens`
    are seen in all, in batches of `batch_size` blocks, each epoch in a new order drawn from
    `seed`: the same seed gives the same weights on the same machine. `ids` may be memory-mapped.
    `on_snapshot(fraction, model)` is called once `fraction` of the steps are done, for each
    fraction 0..1 in `snapshots`. The curve has one row a step: step, tokens (seen so far), loss
    (nats a token, of that step's batch before its update), lr, tokens_per_second.

    Deviation: betas (0.9, 0.99) and gradient clipping; the paper has (0.9, 0.999) and names none.
    """
    device = pick_device(device)
    _check_blocks(model, ids)
    if n_tokens < batch_size * ids.shape[1]:
        raise FeatlibError(
            f"n_tokens {n_tokens:,} is less than one batch ({batch_size} blocks of {ids.shape[1]} "
            "tokens); train on more tokens or use a smaller batch"
        )
    if any(not 0 <= fraction <= 1 for fraction in snapshots):
        raise FeatlibError(f"snapshots {list(snapshots)} must be fractions of training, 0 to 1")
    n_steps = n_tokens // (batch_size * ids.shape[1])
    at_step = sorted((round(fraction * n_steps), fraction) for fraction in snapshots)
    model.to(device).train()
    optimizer = torch.optim.AdamW(
        _decay_groups(model, weight_decay), lr=lr, betas=betas, fused=device.type in ("cpu", "cuda")
    )
    losses = torch.zeros(n_steps, device=device)  # stays on the device: no wait for it each step
    rates = np.zeros(n_steps)
    learning_rates = [lr * _schedule(step, n_steps, warmup_steps) for step in range(n_steps)]
    bar = tqdm(total=n_steps, desc=label or "training", unit="step", mininterval=0.5)
    seen, since, reported = 0, time.perf_counter(), 0
    # Eager attention trains 1.2 times faster than sdpa on a CPU (whose fused bfloat16 backward is
    # slow), and unlike the fused kernels of a GPU it adds up in a fixed order.
    with _attention(model, "eager"), bar:
        for step, batch in enumerate(_batches(ids, batch_size, n_steps, seed, device)):
            while at_step and at_step[0][0] <= step:
                _snapshot(model, at_step.pop(0)[1], on_snapshot)
            for group in optimizer.param_groups:
                group["lr"] = learning_rates[step]
            with autocast_context(device):
                hidden = _hidden_states(model, batch)
            loss = NextTokenLoss.apply(hidden, model.lm_head.weight, batch[:, 1:].reshape(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            losses[step] = loss.detach()
            seen += batch.numel()
            if (step + 1) % REPORT_EVERY == 0 or step + 1 == n_steps:
                value = _finite(losses[reported : step + 1].mean().item(), step, lr)
                now = time.perf_counter()
                rates[reported : step + 1] = (step + 1 - reported) * batch.numel() / (now - since)
                bar.set_postfix_str(f"loss {value:.3f}, {rates[step]:,.0f} tokens/s", refresh=False)
                bar.update(step + 1 - reported)
                since, reported = now, step + 1
        for _, fraction in at_step:
            _snapshot(model, fraction, on_snapshot)
    model.eval()
    steps = np.arange(1, n_steps + 1)
    return pd.DataFrame(
        {
            "step": steps,
            "tokens": steps * (seen // n_steps),
            "loss": losses.cpu().numpy(),
            "lr": learning_rates,
            "tokens_per_second": rates,
        }
    )


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts the next token."""

    loss: float  # mean cross-entropy, nats a token
    accuracy: float  # share of tokens that the model ranked first
    n_tokens: int  # tokens predicted: all but the first of each block


def evaluate(model: PreTrainedModel, ids: np.ndarray, batch_size: int = 32) -> Evaluation:
    """Loss and next-token accuracy on blocks `ids` [blocks, context], on the model's device.

    Arithmetic is mixed precision where the device has it (`autocast_context`).
    """
    losses, hits, n = 0.0, 0, 0
    for loss, hit in _score_batches(model, ids, batch_size):
        losses += loss.sum(dtype=torch.float64).item()
        hits += int(hit.sum())
        n += loss.numel()
    return Evaluation(loss=losses / n, accuracy=hits / n, n_tokens=n)


def token_losses(model: PreTrainedModel, ids: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Loss of each predicted token, nats, [blocks, context - 1] float32.

    Entry [b, p] is the loss of predicting ids[b, p + 1] from ids[b, :p + 1].
    """
    parts = [loss.cpu().numpy() for loss, _ in _score_batches(model, ids, batch_size)]
    return np.concatenate(parts)


def save_checkpoint(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: str | Path
) -> None:
    """Write an ordinary Hugging Face folder (safetensors, tokenizer included), all or nothing."""
    with atomic_path(folder) as tmp, _no_progress_bars():
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)


def load_checkpoint(folder: str | Path, device: str | torch.device | None = None) -> Any:
    """The model of a checkpoint folder, float32, in eval mode, on `device` (`pick_device`)."""
    with _no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(
            _checkpoint(folder), dtype=torch.float32, local_files_only=True
        )
    return model.to(pick_device(device)).eval()


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint folder (or of a folder that holds only a tokenizer)."""
    return AutoTokenizer.from_pretrained(
        _checkpoint(folder, "tokenizer.json"), local_files_only=True
    )


def open_bridge(folder: str | Path, device: str | torch.device | None = None) -> TransformerBridge:
    """TransformerLens around a checkpoint folder, offline, weights as they are, in eval mode.

    `no_processing` leaves the weights alone (nothing folded, nothing centred), so that
    `blocks.0.mlp.hook_post` is what the Hugging Face model feeds its `down_proj`.
    """
    from transformer_lens.model_bridge import TransformerBridge  # slow to import, seldom needed

    with _no_progress_bars():
        bridge = TransformerBridge.boot_transformers(
            _checkpoint(folder), device=str(pick_device(device))
        )
        bridge.enable_compatibility_mode(no_processing=True)
    return bridge.eval()


def _hidden_states(model: PreTrainedModel, batch: Tensor) -> Tensor:
    """Final hidden states that predict tokens 1.. of `batch` [batch, pos]: [batch*(pos-1), d]."""
    hidden = model.model(input_ids=batch, use_cache=False).last_hidden_state[:, :-1]
    return hidden.reshape(-1, hidden.shape[-1]).to(compute_dtype(batch.device))


def _score_batches(
    model: PreTrainedModel, ids: np.ndarray, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch of blocks: loss [batch, pos-1] and whether the best guess was right."""
    _check_blocks(model, ids)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    output = model.lm_head.weight.detach().to(compute_dtype(device))
    try:
        with torch.inference_mode():
            for start in range(0, len(ids), batch_size):
                batch = _to_device(ids[start : start + batch_size], device)
                with autocast_context(device):
                    hidden = _hidden_states(model, batch)
                targets = batch[:, 1:].reshape(-1)
                loss = torch.empty(len(targets), device=device)
                hit = torch.empty(len(targets), dtype=torch.bool, device=device)
                for rows in _row_chunks(hidden, output):
                    logp = torch.log_softmax(hidden[rows] @ output.T, 1, dtype=torch.float32)
                    loss[rows] = -logp.gather(1, targets[rows, None])[:, 0]
                    hit[rows] = logp.argmax(1) == targets[rows]
                yield loss.view(len(batch), -1), hit.view(len(batch), -1)
    finally:
        model.train(was_training)


def _row_chunks(hidden: Tensor, output: Tensor) -> Iterator[slice]:
    size = max(1, LOGITS_AT_ONCE.get(hidden.device.type, 2**21) // len(output))
    for start in range(0, len(hidden), size):
        yield slice(start, start + size)


def _batches(
    ids: np.ndarray, batch_size: int, n_steps: int, seed: int, device: torch.device
) -> Iterator[Tensor]:
    """`n_steps` batches [batch, context] int64; blocks in a new random order each epoch."""
    rng = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for _ in range(n_steps):
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(len(ids))])
        yield _to_device(ids[order[:batch_size]], device)
        order = order[batch_size:]


def _to_device(ids: np.ndarray, device: torch.device) -> Tensor:
    batch = torch.from_numpy(ids.astype(np.int64))
    # From pinned memory the copy runs beside the step before it.
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch


def _schedule(step: int, n_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at `step`: a line up, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, n_steps - warmup_steps)))


def _decay_groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},  # norms' gains
    ]


def _snapshot(model: MistralForCausalLM, fraction: float, on_snapshot: Callable | None) -> None:
    if on_snapshot is not None:
        model.eval()
        on_snapshot(fraction, model)
        model.train()


def _finite(loss: float, step: int, lr: float) -> float:
    if not math.isfinite(loss):
        raise FeatlibError(f"the loss is {loss} at step {step + 1}: lower lr (now {lr:g})")
    return loss


def _check_blocks(model: PreTrainedModel, ids: np.ndarray) -> None:
    if ids.ndim != 2 or ids.size == 0 or ids.shape[1] < 2:
        raise FeatlibError(
            f"ids have shape {ids.shape}; needed are one or more blocks [blocks, context >= 2]. "
            "Is the corpus shorter than one block?"
        )
    if (largest := int(ids.max())) >= model.config.vocab_size:
        raise FeatlibError(
            f"token id {largest} is outside the model's vocabulary of {model.config.vocab_size}; "
            "these ids were made with another tokenizer"
        )


def _checkpoint(folder: str | Path, needed: str = "config.json") -> str:
    if not (Path(folder) / needed).is_file():
        raise FeatlibError(f"{folder} is no checkpoint: it has no {needed}; train the model first")
    return str(folder)


@contextlib.contextmanager
def _attention(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers' bars for one-second loads out of the notebooks."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
