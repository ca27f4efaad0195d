"""What a crosscoder says of features: whose they are, by how much of them each model writes.

A crosscoder's feature has one length in every model, the norm of what it writes there
(`Crosscoder.decoder_norms`). For a parent and a child the child's part of the two lengths lies
between 0 (only the parent writes it) and 1 (only the child does); a half is both alike.

A verdict "exclusive" can be wrong in both directions, and how often depends on how the crosscoder
was trained. So a few features are planted into the activations it reads, some in one model only and
some in all, each along a random direction of its own in every model that has it. What it calls them
in the end says how far its other verdicts can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from featlib.dictionaries.crosscoder import Crosscoder
from featlib.dictionaries.features import FeatureActivations
from featlib.matching.correlation import pearson

# A model's part of two models' decoder norms: up to the first it lacks the feature, between the
# other two both have it (bounds after Minder et al. 2025, arXiv 2504.02922).
ABSENT = 0.1
SHARED = (0.4, 0.6)
VERDICTS = ("absent", "weaker", "shared", "stronger", "only here")
DENSITY = 0.005  # share of tokens on which a planted feature fires
TIMES = (1, 2, 4)  # how strong planted features are, beside an average one
EXCLUSIVE, COMMON = 3, 12  # of each strength: features planted in each model alone, and in all


@dataclass(frozen=True)
class SecondOpinion:
    """What the crosscoder says of one feature of `parent`.

    `latent`: the crosscoder's feature that stands for it, with a correlation of `quality`.
    `models`, one row per model: model, length (relative to the largest), part (of it and the
    parent's; 0.5 for the parent), verdict (`VERDICTS`; "parent").
    """

    parent: str
    latent: int
    quality: float
    models: pd.DataFrame

    def verdict(self, model: str) -> str:
        return str(self.models.set_index("model")["verdict"][model])


def opinion_by_correlation(
    crosscoder: Crosscoder,
    read: FeatureActivations,
    own: FeatureActivations,
    feature: int,
    parent: str,
) -> SecondOpinion:
    """The verdict on `feature` of the parent's autoencoder, through the latent closest to it.

    `read`: the crosscoder's features, `own`: the autoencoder's, over the same tokens.
    """
    r = pearson(own.matrix[:, [feature]], read.matrix)[0]
    latent = int(np.argmax(r))
    return SecondOpinion(parent, latent, float(r[latent]), lengths(crosscoder, latent, parent))


def lengths(crosscoder: Crosscoder, latent: int, parent: str) -> pd.DataFrame:
    """How long feature `latent` is in each model: the columns of `SecondOpinion.models`."""
    own = crosscoder.decoder_norms[latent]
    models = pd.DataFrame({"model": crosscoder.names, "length": own / (own.max() or 1)})
    models["part"] = [relative_norm(crosscoder, parent, m)[latent] for m in crosscoder.names]
    said = models["part"].map(verdict_of)
    return models.assign(verdict=said.where(models["model"] != parent, "parent"))


def verdict_of(part: float) -> str:
    """A child's part of two lengths in a word of `VERDICTS`."""
    steps = (part > ABSENT, part >= SHARED[0], part > SHARED[1], part >= 1 - ABSENT)
    return VERDICTS[sum(map(int, steps))]


def relative_norm(crosscoder: Crosscoder, parent: str, child: str) -> np.ndarray:
    """[d_sae] the child's part of the two models' decoder norms: 0 parent only, 1 child only."""
    norms = crosscoder.decoder_norms
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


# --- features of known owners ---------------------------------------------------------------------


@dataclass(frozen=True)
class Plants:
    """`directions` [n, models * d_in]: what each adds at activation 1, 0 in models that lack it.

    `owner` [n]: index of the only model that has it, -1 for all. `times` [n]: its strength.
    """

    directions: Tensor
    owner: np.ndarray
    times: np.ndarray

    def draw(self, n_tokens: int, rng: np.random.Generator) -> sp.csr_array:
        """Activations [n_tokens, n]: on random tokens, at least a half, 1 on average."""
        n = len(self.owner)
        flat = np.flatnonzero(rng.random(n_tokens * n) < DENSITY)
        values = 0.5 + 0.5 * rng.exponential(size=len(flat))
        shape = (n_tokens, n)
        return sp.csr_array((values.astype(np.float32), np.unravel_index(flat, shape)), shape=shape)

    def add(self, x: Tensor, activations: sp.csr_array) -> Tensor:
        """x [tokens, models * d_in] with the planted features of `activations` [tokens, n]."""
        dense = torch.from_numpy(activations.toarray()).to(x)
        return x + dense @ self.directions.to(x)

    def add_to(self, batches: Iterable[Tensor], rng: np.random.Generator) -> Iterator[Tensor]:
        """The same batches with freshly drawn planted features in each."""
        for x in batches:
            yield self.add(x, self.draw(len(x), rng))


def plant_features(n_models: int, d_in: int, strength: float, rng: np.random.Generator) -> Plants:
    """For each of `TIMES`, `EXCLUSIVE` features in each model alone and `COMMON` ones in all.

    `strength`: length of what an average feature adds where it fires (for scaled activations and a
    dictionary of unit rows, the mean activation). A planted one adds this, times its `times`, along
    a random direction in each model that has it.
    """
    owner = np.repeat(np.arange(-1, n_models), [COMMON, *[EXCLUSIVE] * n_models])
    times = np.repeat(TIMES, len(owner))
    owner = np.tile(owner, len(TIMES))
    directions = rng.standard_normal((len(owner), n_models, d_in))
    directions *= (
        strength * times[:, None, None] / np.linalg.norm(directions, axis=2, keepdims=True)
    )
    for m in range(n_models):
        directions[(owner >= 0) & (owner != m), m] = 0
    flat = directions.reshape(len(owner), -1).astype(np.float32)
    return Plants(torch.from_numpy(flat), owner, times)


def judge_plants(
    crosscoder: Crosscoder,
    plants: Plants,
    read: FeatureActivations,
    truth: sp.csr_array,
    threshold: float,
) -> pd.DataFrame:
    """How many planted features the crosscoder found (r of `threshold` or more), and called what.

    `read`: its features on text with plants, `truth` [tokens, n] their activations there. Each is
    judged by the latent closest to it. One row for each strength and kind: times, own (in one model
    only), planted, found, exclusive (for own: and of the right model), shared.
    """
    r = pearson(truth, read.matrix)
    judged = spread_over_models(crosscoder).iloc[r.argmax(axis=1)]
    kind, most = judged["kind"].to_numpy(), judged["most"].to_numpy()
    own, found = plants.owner >= 0, r.max(axis=1) >= threshold
    right = ~own | (most == np.array(crosscoder.names)[plants.owner])
    counted = {
        "times": plants.times,
        "own": own,
        "planted": 1,
        "found": found,
        "exclusive": found & (kind == "exclusive") & right,
        "shared": found & (kind == "shared"),
    }
    return pd.DataFrame(counted).groupby(["times", "own"], as_index=False).sum()
