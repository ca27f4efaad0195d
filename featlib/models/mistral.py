"""The language models: Mistral of any size, built, saved and loaded; TransformerLens around it.

The model is `transformers.MistralForCausalLM`, unchanged: checkpoints are ordinary Hugging Face
folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM
from transformers.utils import logging as transformers_logging

from featlib.models.loss import pick_device
from featlib.run import atomic_path, needed

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel

transformers_logging.disable_progress_bar()  # loads take a second: no bars in notebooks


def build_model(
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    heads: int,
    kv_heads: int,
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
    config = MistralConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=1,
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


def save_checkpoint(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write an ordinary Hugging Face folder (safetensors, tokenizer included), all or nothing."""
    with atomic_path(folder) as tmp:
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)


def load_checkpoint(folder: Path) -> Any:
    """The model of a checkpoint folder, float32, in eval mode, on the device of `pick_device`."""
    model = AutoModelForCausalLM.from_pretrained(
        needed(folder), dtype=torch.float32, local_files_only=True
    )
    return model.to(pick_device()).eval()  # type: ignore[arg-type]


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint folder (or of a folder that holds only a tokenizer)."""
    return AutoTokenizer.from_pretrained(needed(folder), local_files_only=True)


def open_bridge(folder: Path) -> TransformerBridge:
    """TransformerLens around a checkpoint folder, offline, weights as they are, in eval mode.

    `no_processing` leaves the weights alone (nothing folded, nothing centred), so that
    `blocks.0.mlp.hook_post` is what the Hugging Face model feeds its `down_proj`.
    """
    from transformer_lens.model_bridge import TransformerBridge  # slow to import, seldom needed

    bridge = TransformerBridge.boot_transformers(str(folder), device=str(pick_device()))
    bridge.enable_compatibility_mode(no_processing=True)
    return bridge.eval()
