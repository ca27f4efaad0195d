"""What a fine-tune's rate buys: accuracy gained, against neurons and features that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from featlib.controls.run import ControlRun, compare_neurons
from featlib.dictionaries.activations import activation_scale
from featlib.estimate import document_weights
from featlib.family import BASE, CHILDREN, TRAINING_MIX
from featlib.matching.transfer import carry, transfer_share
from featlib.models import recipes
from featlib.models.forward import score_texts
from featlib.params import derive_seed
from featlib.text.tokens import TokenBlocks

RATES = (2e-5, 5e-5, 1e-4, 3e-4)  # the paper's, and up to fifteen times as high


def sweep_rates(c: ControlRun, p: SimpleNamespace, rates: Sequence[float] = RATES) -> pd.DataFrame:
    """Train each child of the base at each rate; `p` are the parameters of chapter 03.

    Columns: model, rate, gain (in accuracy on the child's own text, over the base's), neurons (the
    share that some neuron of the child matches), features with features_low and features_high (the
    share of testable features that stay themselves by transfer).
    """
    texts = recipes.validation_texts(c.run, p.evaluation_tokens, p.seed)
    rng = np.random.default_rng(derive_seed(p.seed, "rates"))
    weights = document_weights(c.stream.documents, p.bootstrap, rng)
    scale = activation_scale(c.models[BASE], c.stream.ids)
    rows = []
    for child in CHILDREN:
        own = {domain: texts[domain] for domain in TRAINING_MIX[child]}
        base = _accuracy(c.models[BASE], own, rng)
        for rate in rates:
            model, _ = recipes.fine_tune(c.run, child, p, lr=rate)
            _, after = carry(c.sae, scale, model, c.stream.ids, l0=c.base.l0)
            both = (c.base.matrix, after.matrix)
            _, share = transfer_share(*both, c.stream.documents, weights, c.rule)
            neurons = compare_neurons(c, {BASE: c.models[BASE], child: model}, [(BASE, child)])
            row = {"model": child, "rate": rate, "gain": _accuracy(model, own, rng) - base}
            rows.append(row | {"neurons": neurons[BASE, child]} | share.named("features"))
    return pd.DataFrame(rows)


def _accuracy(
    model: PreTrainedModel, texts: Mapping[str, TokenBlocks], rng: np.random.Generator
) -> float:
    return float(score_texts(model, texts, rng)["accuracy"].mean())
