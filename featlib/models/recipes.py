"""How this run's models are made: the text they read, the base's training and the fine-tunes.

`p` are the parameters of chapters 02 and 03.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from transformers import MistralForCausalLM

from featlib.family import BASE, DOMAINS, PRINT_NAMES, TRAINING_MIX
from featlib.models.mistral import load_checkpoint
from featlib.models.training import train
from featlib.params import derive_seed
from featlib.run import Run
from featlib.text.tokens import TokenBlocks, load_blocks, mix_blocks, take_tokens


def training_text(run: Run, domains: Sequence[str], seed: int, *purpose: str) -> TokenBlocks:
    """Training blocks of these domains in equal parts, mixed in an order of `purpose`'s own."""
    parts = [load_blocks(run.tokens, f"{domain}.train") for domain in domains]
    return mix_blocks(parts, seed=derive_seed(seed, *purpose))


def validation_texts(run: Run, n_tokens: int, seed: int) -> dict[str, TokenBlocks]:
    """Some `n_tokens` of held-out text of every domain, blocks drawn from all its documents."""
    return {
        domain: take_tokens(
            load_blocks(run.tokens, f"{domain}.validation"),
            n_tokens,
            seed=derive_seed(seed, "evaluation", domain),
        )
        for domain in DOMAINS
    }


def score_metrics(scores: pd.DataFrame) -> dict[str, float]:
    """The numbers of `score_texts` (with a column `model`) as metrics.json has them."""
    long = scores.melt(["model", "domain"]).dropna()
    keys = "lm." + long["model"] + "." + long["domain"] + "." + long["variable"]
    return dict(zip(keys, long["value"], strict=True))


def train_base(model: MistralForCausalLM, ids: np.ndarray, p: SimpleNamespace) -> pd.DataFrame:
    """Train the base in place on blocks `ids`; returns the curve of `train`."""
    return _train(model, ids, p, "base", BASE)


def fine_tune(
    run: Run, name: str, p: SimpleNamespace, **given: Any
) -> tuple[MistralForCausalLM, pd.DataFrame]:
    """Train the run's base on with the text of model `name`, and its curve; seeds are `name`'s own.

    A child and the placebo differ in their text and its order, and in nothing else. What is `given`
    to `train` (lr, snapshots) stands in for the run's own.
    """
    model = load_checkpoint(run.model(BASE))
    ids = training_text(run, TRAINING_MIX[name], p.seed, "mix", name).ids
    return model, _train(model, ids, p, "fine_tune", name, **given)


def _train(
    model: MistralForCausalLM, ids: np.ndarray, p: Any, stage: str, name: str, **given: Any
) -> pd.DataFrame:
    own = {key: getattr(p, f"{stage}_{key}") for key in ("lr", "warmup_steps", "weight_decay")}
    return train(
        model,
        ids,
        n_tokens=getattr(p, f"{stage}_tokens"),
        batch_size=p.batch_size,
        beta2=p.adam_beta2,
        seed=derive_seed(p.seed, "order", name),
        label=PRINT_NAMES[name],
        **own | given,
    )
