"""The language models: Mistral of any size, its scores, its checkpoints, TransformerLens.

`train` is here too (from `featlib.training`). The model is `transformers.MistralForCausalLM`,
unchanged: checkpoints are ordinary Hugging Face folders.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from featlib import FeatlibError
from featlib.models.loss import (
    autocast_context,
    check_blocks,
    compute_dtype,
    hidden_states,
    pick_device,
    score_targets,
    to_device,
)
from featlib.models.training import train
from featlib.run import atomic_path

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

__all__ = [
    "Evaluation",
    "autocast_context",
    "build_model",
    "evaluate",
    "load_checkpoint",
    "load_tokenizer",
    "open_bridge",
    "pick_device",
    "save_checkpoint",
    "token_losses",
    "train",
]


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
    embedding_std: float = 0.02,
) -> MistralForCausalLM:
    """A fresh model with the paper's shape rules: SwiGLU, RMSNorm eps 1e-6, RoPE theta 1e4, untied.

    Weights are drawn from `seed` alone (the global generator is left as it was), float32, on the
    CPU, with standard deviation 0.02, the token embeddings with `embedding_std`. Biases do not
    exist. Paper: hidden 512, MLP 1024, 16 heads, 8 key-value heads, 1 layer, vocabulary 32,000.

    Deviation: the paper starts embeddings at Mistral's standard deviation, 0.02; we start those of
    small models at 0.1, because short trainings with large steps then learn faster.
    A step of Adam moves every entry by about the learning rate, and the first RMSNorm sees only
    directions: at 0.02 and width 192 a step of 3e-3 turns a token by up to nine degrees.
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
        model = MistralForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(embedding_std / config.initializer_range)
    return model


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
    return model.to(pick_device(device)).eval()  # type: ignore[arg-type]


def load_tokenizer(folder: str | Path) -> Any:
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


def _score_batches(
    model: PreTrainedModel, ids: np.ndarray, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch of blocks: loss [batch, pos-1] and whether the best guess was right."""
    check_blocks(model, ids)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    output = model.lm_head.weight.detach().to(compute_dtype(device))
    try:
        with torch.inference_mode():
            for start in range(0, len(ids), batch_size):
                batch = to_device(ids[start : start + batch_size], device)
                with autocast_context(device):
                    hidden = hidden_states(model, batch)
                loss, hit = score_targets(hidden, output, batch[:, 1:].reshape(-1))
                yield loss.view(len(batch), -1), hit.view(len(batch), -1)
    finally:
        model.train(was_training)


def _checkpoint(folder: str | Path, needed: str = "config.json") -> str:
    if not (Path(folder) / needed).is_file():
        raise FeatlibError(f"{folder} is no checkpoint: it has no {needed}; train the model first")
    return str(folder)


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
