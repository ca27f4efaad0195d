"""How this run's models are made: the text they read, and the base's training.

What chapter 02 and the control that trains the base a second time have in common; `p` are the
parameters of chapter 02.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
from transformers import MistralForCausalLM

from featlib.family import DOMAINS
from featlib.models.mistral import build_model
from featlib.models.training import train
from featlib.params import derive_seed
from featlib.run import Run
from featlib.text.tokens import TokenBlocks, load_blocks, mix_blocks, take_tokens


def training_text(run: Run, domains: Sequence[str], seed: int, *purpose: str) -> TokenBlocks:
    """Training blocks of these domains in equal parts, mixed in an order of `purpose`'s own."""
    parts = [load_blocks(run.tokens, f"{domain}.train") for domain in domains]
    return mix_blocks(parts, seed=derive_seed(seed, *purpose))


def validation_texts(run: Run, n_tokens: int) -> dict[str, np.ndarray]:
    """Some `n_tokens` of held-out text of every domain: blocks [blocks, context]."""
    return {
        domain: take_tokens(load_blocks(run.tokens, f"{domain}.validation"), n_tokens).ids
        for domain in DOMAINS
    }


def build_base(
    p: SimpleNamespace, *, vocab_size: int, context: int, seed: int
) -> MistralForCausalLM:
    """The base model before its training."""
    return build_model(
        vocab_size=vocab_size,
        hidden_size=p.hidden_size,
        intermediate_size=p.intermediate_size,
        heads=p.heads,
        kv_heads=p.kv_heads,
        context=context,
        embedding_std=p.embedding_std,
        seed=seed,
    )


def train_base(
    model: MistralForCausalLM, ids: np.ndarray, p: SimpleNamespace, *, seed: int, label: str
) -> pd.DataFrame:
    """Train the base in place on blocks `ids`; returns the curve of `train`."""
    return train(
        model,
        ids,
        n_tokens=p.base_tokens,
        batch_size=p.batch_size,
        lr=p.base_lr,
        warmup_steps=p.base_warmup_steps,
        weight_decay=p.base_weight_decay,
        beta2=p.adam_beta2,
        seed=seed,
        label=label,
    )
