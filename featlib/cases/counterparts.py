"""Where a feature lives, and its counterparts in other models by every route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from transformers import MistralForCausalLM

from featlib import FeatlibError
from featlib.cases.answers import Match, best_match
from featlib.cases.detectors import Draws, LabelledStream, feature_scores
from featlib.cases.fit import LabelFit, evaluate_feature
from featlib.cases.subjects import Subject, find_best
from featlib.dictionaries.activations import activation_scale
from featlib.dictionaries.features import load_features
from featlib.dictionaries.recipes import TEXT_SEEDS
from featlib.dictionaries.sae import SparseAutoencoder, load_autoencoder
from featlib.family import PRINT_NAMES, on_text
from featlib.matching.transfer import carry
from featlib.run import Run, needed
from featlib.text.tokens import TokenBlocks

COMMON = 16_000  # tokens of the common stream on which scales and thresholds are set


@dataclass(frozen=True)
class Home:
    """The feature where it was found, and all that carrying it into another model takes."""

    model: str
    seed: int  # of the autoencoder
    feature: int
    sae: SparseAutoencoder
    scale: float  # of the model's activations on `common`
    l0: float  # of the autoencoder there
    common: np.ndarray  # [blocks, context]

    @property
    def row(self) -> torch.Tensor:
        """What it writes: its row of `W_dec`, [d_in]."""
        return self.sae.W_dec.detach()[self.feature]

    def carry_into(self, model: MistralForCausalLM) -> SparseAutoencoder:
        """The autoencoder made ready for another model, as `matching.transfer.carry` does."""
        return carry(self.sae, self.scale, model, self.common, l0=self.l0)[0]


def settle(
    run: Run,
    fit: LabelFit | None,
    name: str,
    saes: Mapping[int, SparseAutoencoder],
    model: MistralForCausalLM,
    common: TokenBlocks,
) -> Home:
    if fit is None:
        raise FeatlibError(f"no feature of {PRINT_NAMES[name]} fires in the text of the label")
    some = common.ids[: max(1, COMMON // common.context)]
    read = load_features(needed(run.features(name, fit.seed))).matrix[: some.size]
    scale = activation_scale(model, some)
    return Home(name, fit.seed, fit.feature, saes[fit.seed], scale, read.nnz / some.size, some)


def find_matches(
    run: Run,
    home: Home,
    mine: sp.csr_array,
    name: str,
    seeds: Sequence[int],
    common: TokenBlocks,
    draws: Draws,
) -> list[Match]:
    """The best match by correlation in each of a model's autoencoders on the common stream.

    And in those through which the home was read that learned from the model's text, if any.
    """
    searched = [(name, seed, "") for seed in seeds]
    through = on_text(home.model, name)
    searched += [(through, s, name) for s in TEXT_SEEDS if run.features(through, s).exists()]
    found = []
    for whose, seed, text in searched:
        if text and seed == home.seed:
            continue
        other = load_features(needed(run.features(whose, seed))).matrix
        decoder = load_autoencoder(needed(run.autoencoder(whose, seed))).W_dec.detach()
        match = best_match(mine, other, home.row, decoder, common.documents, draws)
        found.append(Match(name, text, seed, *match))
    return found


def compare_routes(
    home: Home,
    here: Subject,
    others: Sequence[Subject],
    matches: Sequence[Match],
    stream: LabelledStream,
    draws: Draws,
) -> tuple[np.ndarray, pd.DataFrame]:
    """How well a model's counterpart by each route detects the label: (best match's scores, rows).

    Columns route, seed, feature, measures with intervals.
    """
    rows = []
    match = max((m for m in matches if not m.text), key=lambda m: m.r.value)
    matched = next(s for s in others if s.seed == match.seed)
    routes = [("transfer", here, home.feature), ("correlation", matched, match.feature)]
    if best := find_best(others, stream):
        routes.append(("labels", *best[:2]))
    for route, subject, feature in routes:
        measured = evaluate_feature(subject.features, feature, stream, draws)
        seed = home.seed if route == "transfer" else subject.seed
        rows.append({"route": route, "seed": seed, "feature": feature, **measured})
    return feature_scores(matched.features, match.feature), pd.DataFrame(rows)
