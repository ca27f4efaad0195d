"""A language model so small that training it takes no time."""

from __future__ import annotations

from featlib.models.mistral import build_model

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
