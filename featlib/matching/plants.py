"""Features of known owners, added to activations: what an instrument makes of a known truth.

A crosscoder's verdict "exclusive" can be wrong in both directions, and how often depends on how it
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

from featlib import FeatlibError
from featlib.dictionaries.crosscoder import Crosscoder
from featlib.dictionaries.features import FeatureActivations
from featlib.matching.correlation import pearson
from featlib.matching.owners import spread_over_models

DENSITY = 0.005  # share of tokens on which a planted feature fires
TIMES = (1, 2, 4)  # how strong planted features are, beside an average one
EXCLUSIVE, COMMON = 3, 12  # of each strength: features planted in each model alone, and in all


@dataclass(frozen=True)
class Plants:
    """`directions` [n, models * d_in]: what each adds at activation 1, 0 in models that lack it.

    `owner` [n]: index of the only model that has it, -1 for all. `times` [n]: its strength.
    """

    directions: Tensor
    owner: np.ndarray
    times: np.ndarray
    density: float

    def draw(self, n_tokens: int, rng: np.random.Generator) -> sp.csr_array:
        """Activations [n_tokens, n]: on random tokens, at least a half, 1 on average."""
        n = len(self.owner)
        flat = np.flatnonzero(rng.random(n_tokens * n) < self.density)
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


def plant_features(
    n_models: int,
    d_in: int,
    strength: float,
    rng: np.random.Generator,
    *,
    exclusive: int = EXCLUSIVE,
    common: int = COMMON,
    density: float = DENSITY,
) -> Plants:
    """For each of `TIMES`, `exclusive` features in each model alone and `common` ones in all.

    `strength`: length of what an average feature adds where it fires (for scaled activations and a
    dictionary of unit rows, the mean activation). A planted one adds this, times its `times`, along
    a random direction in each model that has it.
    """
    if not strength > 0:
        raise FeatlibError(f"planted features need a strength above 0, not {strength}")
    owner = np.repeat(np.arange(-1, n_models), [common, *[exclusive] * n_models])
    times = np.repeat(TIMES, len(owner))
    owner = np.tile(owner, len(TIMES))
    directions = rng.standard_normal((len(owner), n_models, d_in))
    directions *= (
        strength * times[:, None, None] / np.linalg.norm(directions, axis=2, keepdims=True)
    )
    for m in range(n_models):
        directions[(owner >= 0) & (owner != m), m] = 0
    flat = directions.reshape(len(owner), -1).astype(np.float32)
    return Plants(torch.from_numpy(flat), owner, times, density)


def judge_plants(
    crosscoder: Crosscoder, plants: Plants, read: FeatureActivations, truth: sp.csr_array
) -> pd.DataFrame:
    """What the crosscoder made of each planted feature.

    `read`: its features on text with plants, `truth` [tokens, n] their activations there. Columns
    owner (a model, or "all"), times, latent (the closest feature), r, kind (`spread_over_models`),
    most.
    """
    r = pearson(truth, read.matrix)
    latent = r.argmax(axis=1)
    spread = spread_over_models(crosscoder).iloc[latent]
    owners = np.array([*crosscoder.names, "all"])
    return pd.DataFrame(
        {
            "owner": owners[plants.owner],  # -1, the last one, is "all"
            "times": plants.times,
            "latent": latent,
            "r": r.max(axis=1),
            "kind": spread["kind"].to_numpy(),
            "most": spread["most"].to_numpy(),
        }
    )


def count_plants(judged: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """How many were planted and found (r of `threshold` or more), and what those were called.

    One row for each strength and kind: times, own (in one model only), planted, found, exclusive
    (for own: and of the right model), shared.
    """
    own = judged["owner"] != "all"
    found = judged["r"] >= threshold
    right = ~own | (judged["most"] == judged["owner"])
    table = pd.DataFrame(
        {
            "times": judged["times"],
            "own": own,
            "planted": 1,
            "found": found,
            "exclusive": found & (judged["kind"] == "exclusive") & right,
            "shared": found & (judged["kind"] == "shared"),
        }
    )
    return table.groupby(["times", "own"], as_index=False).sum()
