"""A language model so small that training it takes no time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from featlib.family import BASE, DOMAINS
from featlib.models.mistral import build_model, save_checkpoint
from featlib.run import Run
from featlib.text.tokens import TokenBlocks, save_blocks, train_tokenizer

VOCAB, CONTEXT = 300, 12
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 24,
    "heads": 4, "kv_heads": 2, "context": CONTEXT,
}  # fmt: skip
TRAINING = {
    "batch_size": 4, "lr": 1e-2, "warmup_steps": 2, "weight_decay": 0.1, "beta2": 0.99, "seed": 0,
}  # fmt: skip


def small_model(seed: int = 0, **changes):
    return build_model(**{**SIZES, **changes}, seed=seed)


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


FINE_TUNE = SimpleNamespace(  # parameters of chapter 03 for a run of `small_run`
    seed=0, fine_tune_tokens=20 * 4 * CONTEXT, batch_size=4, fine_tune_lr=1e-2, adam_beta2=0.99,
    fine_tune_warmup_steps=2, fine_tune_weight_decay=0.01, evaluation_tokens=20 * CONTEXT,
)  # fmt: skip


def small_run(folder: Path) -> Run:
    """A run after chapter 02, all of it tiny; domain n has the token ids from 10 + 50 n on."""
    run = Run("tiny", folder)
    for number, domain in enumerate(DOMAINS):
        rng = np.random.default_rng(number)
        for split in ("train", "validation"):
            ids = 10 + 50 * number + rng.integers(0, 50, (60, CONTEXT))
            documents = np.repeat(np.arange(60) // 3, CONTEXT).reshape(ids.shape)
            blocks = TokenBlocks(ids.astype(np.uint16), documents.astype(np.int32))
            save_blocks(blocks, run.tokens, f"{domain}.{split}")
    save_checkpoint(small_model(), train_tokenizer(["a boat"], VOCAB), run.model(BASE))
    return run
