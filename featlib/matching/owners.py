"""What a crosscoder says of features: whose they are, by how much of them each model writes.

A crosscoder's feature has one length in every model, the norm of what it writes there
(`Crosscoder.decoder_norms`). For a parent and a child the child's part of the two lengths lies
between 0 (only the parent writes it) and 1 (only the child does); a half is both alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.cases.detectors import LabelledStream, evaluate_detector, feature_scores, rank_features
from featlib.dictionaries.crosscoder import Crosscoder
from featlib.dictionaries.features import FeatureActivations
from featlib.family import PRINT_NAMES
from featlib.matching.correlation import pearson

# A model's part of two models' decoder norms: up to the first it lacks the feature, between the
# other two both have it (bounds after Minder et al. 2025, arXiv 2504.02922).
ABSENT = 0.1
SHARED = (0.4, 0.6)
VERDICTS = ("absent", "weaker", "shared", "stronger", "only here")


@dataclass(frozen=True)
class SecondOpinion:
    """What the crosscoder says of one feature of `parent`.

    `latent`: the crosscoder's feature that stands for it, found by `route` ("correlation" with the
    parent's feature, or detection of a "label"), with r or F1 as `quality`. `models`, one row per
    model: model, length (relative to the largest), part (of it and the parent's; 0.5 for the
    parent), verdict (`VERDICTS`; "parent").
    """

    parent: str
    latent: int
    route: str
    quality: float
    models: pd.DataFrame

    def verdict(self, model: str) -> str:
        return str(self.models.set_index("model")["verdict"][model])

    def sentence(self, least: float) -> str:
        """The verdicts in words; `least`: the quality from which the latent counts as found."""
        measure = "r" if self.route == "correlation" else "F1"
        rows = self.models[self.models["model"] != self.parent]
        said = "; ".join(
            f"{PRINT_NAMES.get(row.model, row.model)}: {row.verdict} "
            f"({row.part:.0%} of the two lengths)"
            for row in rows.itertuples()
        )
        found = (
            f"Its feature {self.latent} stands for it ({measure} = {self.quality:.2f})"
            if self.quality >= least
            else f"No feature of the crosscoder is clearly this one; the closest, {self.latent}, "
            f"has {measure} = {self.quality:.2f}, below {least:g}"
        )
        return f"{found}. Beside {PRINT_NAMES.get(self.parent, self.parent)}, {said}."


def opinion_by_correlation(
    crosscoder: Crosscoder,
    read: FeatureActivations,
    own: FeatureActivations,
    feature: int,
    *,
    parent: str = "base",
) -> SecondOpinion:
    """The verdict on `feature` of the parent's autoencoder, through the latent closest to it.

    `read`: the crosscoder's features, `own`: the autoencoder's, over the same tokens. Chapter 11
    keeps `read` for the common stream (`Run.crosscoder_features`); `own` is chapter 06's.
    """
    if not 0 <= feature < own.d_sae:
        raise FeatlibError(f"feature {feature} is not one of the {own.d_sae} of the autoencoder")
    r = pearson(own.matrix[:, [feature]], read.matrix)[0]
    latent = int(np.argmax(r))
    return SecondOpinion(
        parent, latent, "correlation", float(r[latent]), lengths(crosscoder, latent, parent)
    )


def opinion_by_label(
    crosscoder: Crosscoder,
    read: FeatureActivations,
    stream: LabelledStream,
    *,
    parent: str = "base",
    seed: int = 0,
    n_boot: int = 20,
) -> SecondOpinion:
    """The verdict through the latent that detects a label best.

    Chosen on the selection half of `stream`, F1 measured on the other. `read`: the crosscoder's
    features over the stream's tokens (`crosscoder.read_stream`).
    """
    best = rank_features(read, stream, top=1)
    if not len(best):
        raise FeatlibError("no feature of the crosscoder fires on the text of this label")
    latent, cut = int(best.loc[0, "feature"]), float(best.loc[0, "threshold"])
    measured = evaluate_detector(
        feature_scores(read, latent), cut, stream, n_boot=n_boot, seed=seed
    )
    return SecondOpinion(
        parent, latent, "label", float(measured["f1"]), lengths(crosscoder, latent, parent)
    )


def lengths(crosscoder: Crosscoder, latent: int, parent: str) -> pd.DataFrame:
    """How long feature `latent` is in each model: the columns of `SecondOpinion.models`."""
    own = crosscoder.decoder_norms[latent]
    parts = [relative_norm(crosscoder, parent, name)[latent] for name in crosscoder.names]
    verdicts = [
        "parent" if name == parent else verdict_of(part)
        for name, part in zip(crosscoder.names, parts, strict=True)
    ]
    return pd.DataFrame(
        {
            "model": list(crosscoder.names),
            "length": own / own.max() if own.max() > 0 else own,
            "part": parts,
            "verdict": verdicts,
        }
    )


def verdict_of(part: float) -> str:
    """A child's part of two lengths in a word of `VERDICTS`."""
    steps = (part > ABSENT, part >= SHARED[0], part > SHARED[1], part >= 1 - ABSENT)
    return VERDICTS[sum(map(int, steps))]


def relative_norm(crosscoder: Crosscoder, parent: str, child: str) -> np.ndarray:
    """[d_sae] the child's part of the two models' decoder norms: 0 parent only, 1 child only."""
    norms = crosscoder.decoder_norms
    missing = [name for name in (parent, child) if name not in crosscoder.names]
    if missing:
        raise FeatlibError(
            f"the crosscoder does not read {' or '.join(missing)}; it reads "
            f"{', '.join(crosscoder.names)}"
        )
    a, b = (norms[:, crosscoder.names.index(name)] for name in (parent, child))
    return np.divide(b, a + b, out=np.full(len(a), 0.5), where=a + b > 0)


def classify(relative: np.ndarray) -> pd.Categorical:
    """What a feature is to a parent and its child, by `relative_norm`.

    parent only | shared | child only, and between: what is written in both, more in one of them.
    """
    words = {"absent": "parent only", "shared": "shared", "only here": "child only"}
    kind = [words.get(verdict_of(part), "between") for part in np.asarray(relative)]
    return pd.Categorical(kind, categories=["parent only", "shared", "between", "child only"])


def spread_over_models(crosscoder: Crosscoder) -> pd.DataFrame:
    """For each feature the norms divided by the largest (one column a model), and whose it is.

    `kind`: shared where every two of the models share it, exclusive where all others lack it, else
    partial; `most`: the model of the largest norm.
    """
    norms = crosscoder.decoder_norms
    top = norms.max(1, keepdims=True)
    ratio = np.divide(norms, top, out=np.zeros_like(norms), where=top > 0)
    ordered = np.sort(ratio, axis=1)
    kind = np.where(ordered[:, 0] >= SHARED[0] / SHARED[1], "shared", "partial").astype(object)
    kind[ordered[:, -2] <= ABSENT / (1 - ABSENT)] = "exclusive"
    table = pd.DataFrame(ratio, columns=list(crosscoder.names))
    table["kind"] = pd.Categorical(kind, categories=["shared", "partial", "exclusive"])
    table["most"] = np.array(crosscoder.names)[norms.argmax(1)]
    return table
