"""What is too slow for every run, measured on a finished one: notebooks/controls.py keeps it.

Everything here trains autoencoders by the recipe of chapter 05 with one thing changed (how long,
how, from where, over which models), and reads the common text by that of chapter 06.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor
from transformers import PreTrainedModel

from featlib.dictionaries import card, features, recipes
from featlib.dictionaries.activations import shuffled_batches
from featlib.dictionaries.sae import AutoencoderConfig, SparseAutoencoder, load_autoencoder
from featlib.dictionaries.training import train_autoencoders
from featlib.family import BASE, CHILDREN, DOMAINS, MODELS, STEPS, TRAINING_MIX
from featlib.matching.correlation import CONSTANT, pearson
from featlib.matching.fates import Rule, compare
from featlib.models.forward import harvest
from featlib.models.mistral import load_checkpoint
from featlib.models.recipes import training_text
from featlib.params import check_params, derive_seed
from featlib.run import Run
from featlib.text.tokens import load_blocks

SEEDS = (0, 1)  # of which the second gives the ceiling
TRIES = 6  # trainings in the search for an L1 penalty
NEAR = 0.03  # of k: then L0 is called equal
STEEPNESS = 2.5  # where that search starts: L0 falls as l1 to this power (measured in `mini`)
EDGES = np.linspace(0, 1, 21)  # of bins of a child's part of two decoder norms


class Finished:
    """A run whose chapters 01 to 06 are done."""

    def __init__(self, run: Run) -> None:
        self.run, self.p = run, check_params(run.recorded_params(), where=f"run {run.name}")
        self.stream = load_blocks(run.folder / "features", "stream")
        self.models = {name: load_checkpoint(run.model(name)) for name in MODELS}
        self.rule = Rule(self.p.threshold, self.p.min_firings)

    def config(self, **changes: Any) -> AutoencoderConfig:
        width = self.models[BASE].config.intermediate_size
        return replace(recipes.autoencoder_config(self.p, width), **changes)

    def train(
        self, name: str, config: AutoencoderConfig, seeds: Sequence[int], **more: Any
    ) -> list[SparseAutoencoder]:
        """Autoencoders of model `name`, on its own text."""
        more |= {"name": name, "seeds": seeds, "seed": self.p.seed}
        mix = TRAINING_MIX[name]
        return recipes.train_dictionaries(self.models[name], self.run, mix, config, **more)

    def read(
        self, name: str, saes: Sequence[SparseAutoencoder]
    ) -> tuple[list[sp.csr_array], float, float]:
        """What `saes` find in model `name` on the common text, and their mean L0 and FVU there."""
        model, ids = self.models[name], self.stream.ids
        read = recipes.read_common_text(model, saes, self.stream, k=self.p.k)
        fvu = [card.unexplained(sae, (x * sae.scale for x in harvest(model, ids))) for sae in saes]
        return [f.matrix for f in read], float(np.mean([f.l0 for f in read])), float(np.mean(fvu))


def training_curve(
    c: Finished, shares: Sequence[float], settings: Sequence[tuple[float, float, int]]
) -> pd.DataFrame:
    """Two autoencoders of the base after trainings of other lengths and settings.

    `shares` of the run's `sae_tokens`, each trained anew, since the rate falls towards the end of
    a training; `settings`: (sae_lr, sae_adam_beta2, sae_batch_size). Columns lr, beta2, batch,
    activations, l0, fvu (both on the common text) and ceiling.
    """
    rows = []
    for lr, beta2, batch in settings:
        for share in shares:
            n = max(batch, round(share * c.p.sae_tokens))
            config = c.config(lr=lr, beta2=beta2, batch_size=batch, n_tokens=n)
            (a, b), l0, fvu = c.read(BASE, c.train(BASE, config, SEEDS))
            ceiling = (compare(a, b, c.rule).persist + compare(b, a, c.rule).persist) / 2
            rows.append((lr, beta2, batch, n, l0, fvu, ceiling))
    columns = ["lr", "beta2", "batch", "activations", "l0", "fvu", "ceiling"]
    return pd.DataFrame(rows, columns=columns)


def pearson_where_both_fire(a: sp.csr_array, b: sp.csr_array, least: int) -> np.ndarray:
    """[d_a, d_b] correlations over the tokens where both fire; 0 where those are under `least`.

    So the authors' first script has it, with `least` 2.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    fires_a, fires_b = a.sign(), b.sign()

    def total(u: sp.csr_array, v: sp.csr_array) -> np.ndarray:
        return (u.T @ v).toarray()

    n, x, y = total(fires_a, fires_b), total(a, fires_b), total(fires_a, b)
    var_x, var_y = n * total(a.power(2), fires_b) - x**2, n * total(fires_a, b.power(2)) - y**2
    known = (n >= least) & (var_x > CONSTANT * x**2) & (var_y > CONSTANT * y**2)
    spread = np.sqrt(np.where(known, var_x * var_y, 1))
    return np.where(known, (n * total(a, b) - x * y) / spread, 0)


def paper_instrument(c: Finished) -> pd.DataFrame:
    """This book's way of comparing turned into the paper's, one choice at a time.

    Columns instrument, matching, least (tokens on which both must fire), l0 and fvu (means over
    models and seeds, on the common text), ceiling (missing where there is one seed only), and for
    each child the share of the base's features that have a match in it.
    """
    names, least = (BASE, *CHILDREN), c.rule.min_firings
    own = {m: [load_autoencoder(c.run.autoencoder(m, seed)) for seed in SEEDS] for m in names}
    theirs, l1 = {}, c.p.l1
    for m in names:  # the penalty of one model is where the next model's search begins
        theirs[m], l1 = train_equally_sparse(c, m, l1)
    rows = []
    for instrument, saes in ((c.p.sae_architecture, own), ("relu", theirs)):
        read, l0, fvu = zip(*(c.read(m, saes[m]) for m in names), strict=True)
        first = read[0][0]
        for matching, n, seed in (
            ("all tokens, another seed", least, 1),
            ("where both fire, another seed", least, 1),
            ("where both fire, another seed", 2, 1),
            ("where both fire, one seed", 2, 0),
        ):
            everywhere = matching.startswith("all")
            testable = features.count_firings(first) >= n
            shares = []
            for b in (found[seed] for found in read):
                r = pearson(first, b) if everywhere else pearson_where_both_fire(first, b, n)
                shares.append(float((r.max(axis=1)[testable] >= c.rule.threshold).mean()))
            ceiling = shares[0] if seed else np.nan
            rows.append((instrument, matching, n, np.mean(l0), np.mean(fvu), ceiling, *shares[1:]))
    columns = ["instrument", "matching", "least", "l0", "fvu", "ceiling", *CHILDREN]
    return pd.DataFrame(rows, columns=columns)


def train_equally_sparse(
    c: Finished, name: str, l1: float
) -> tuple[list[SparseAutoencoder], float]:
    """ReLU autoencoders of a model with k features per token of the common text, and their l1.

    The search goes from one training to the next along a power of l1, which it corrects.
    """
    tried: list[tuple[float, float]] = []
    slope = STEEPNESS
    while True:
        config = c.config(architecture="relu", l1=l1)
        saes = c.train(name, config, SEEDS[:1])
        l0 = max(c.read(name, saes)[1], 1e-3)
        tried.append((l1, l0))
        if abs(l0 / c.p.k - 1) < NEAR or len(tried) == TRIES:
            return saes + c.train(name, config, SEEDS[1:]), l1
        if len(tried) > 1:
            (x0, y0), (x1, y1) = np.log(tried[-2:])
            slope = float(np.clip((y0 - y1) / (x1 - x0), STEEPNESS / 3, STEEPNESS * 3))
        l1 *= (l0 / c.p.k) ** (1 / slope)


def warm_starts(c: Finished) -> pd.DataFrame:
    """What persists where the child's autoencoder starts from its parent's weights.

    Columns parent, child, start (own or warm), persist, same_index. First comes the base's own
    autoencoder trained on in the base: nothing happened to that model.
    """
    rows = []
    for parent, child in ((BASE, BASE), *STEPS):
        init = load_autoencoder(c.run.autoencoder(parent, 0))
        a = features.load_features(c.run.features(parent, 0)).matrix
        own = features.load_features(c.run.features(child, 1)).matrix
        (warm,), _, _ = c.read(child, c.train(child, c.config(), SEEDS[:1], init=init))
        for start, b in (("own", own), ("warm", warm)):
            found = compare(a, b, c.rule)
            rows.append((parent, child, start, found.persist, found.same_index))
    return pd.DataFrame(rows, columns=["parent", "child", "start", "persist", "same_index"])


def crosscoder(c: Finished, share: float) -> pd.DataFrame:
    """One dictionary over the activations of all models side by side: who writes its features?

    After Lindsey et al. 2024, without their L1 penalty, which invents exclusive features (Minder et
    al. 2025, arXiv 2504.02922). It reads `share` of the run's `sae_tokens`, all kinds of text in
    equal parts. Columns parent, child, part (`part_written`: lower edge of a bin of `EDGES`),
    features (of those that fire often enough), fvu (of all models, on the common text).
    """
    text = training_text(c.run, DOMAINS, c.p.seed, "crosscoder")
    scales = [recipes.training_scale(model, text) for model in c.models.values()]

    def joint(read: Callable[[PreTrainedModel], Iterator[Tensor]]) -> Iterator[Tensor]:
        for parts in zip(*map(read, c.models.values()), strict=True):
            yield torch.cat([x * scale for x, scale in zip(parts, scales, strict=True)], dim=1)

    def common(model: PreTrainedModel) -> Iterator[Tensor]:
        return harvest(model, c.stream.ids)

    n, own = len(MODELS), c.config(architecture="batchtopk", n_tokens=round(share * c.p.sae_tokens))
    # A row of W_dec starts in every model: to unlearn that takes more and smaller steps.
    config = replace(own, d_in=n * own.d_in, batch_size=max(1, own.batch_size // n))
    how = {"n_tokens": config.n_tokens, "batch_size": config.batch_size, "buffer_tokens": 2**15}
    seed = derive_seed(c.p.seed, "crosscoder")  # the same for all, so that they stay in step
    batches = joint(lambda model: shuffled_batches(model, text.ids, seed=seed, scale=1.0, **how))
    (sae,) = train_autoencoders(batches, config, [0])
    features.calibrate(sae, joint(lambda model: harvest(model, c.stream.ids[::8])), c.p.k)
    often = features.encode_batches(joint(common), sae).firings >= c.rule.min_firings
    fvu, parts = card.unexplained(sae, joint(common)), []
    for parent, child in STEPS:
        part = part_written(sae, n, MODELS.index(parent), MODELS.index(child))
        counts, _ = np.histogram(part[often], EDGES)  # NaN is in no bin
        table = pd.DataFrame({"part": EDGES[:-1], "features": counts})
        parts.append(table.assign(parent=parent, child=child, fvu=fvu))
    return pd.concat(parts, ignore_index=True)


def part_written(sae: SparseAutoencoder, n_models: int, parent: int, child: int) -> np.ndarray:
    """[d_sae] how much of a joint dictionary's feature is the child's, of the two models'.

    The length of what it writes in the child over that and the same in the parent: 0 parent only,
    1/2 both alike, 1 child only; NaN where neither writes a tenth of its row.
    """
    W = sae.W_dec.detach().double().reshape(sae.d_sae, n_models, -1)
    norms = torch.linalg.vector_norm(W, dim=2).numpy()
    a, b = norms[:, parent], norms[:, child]
    return np.where(np.hypot(a, b) >= 0.1, b / np.maximum(a + b, 1e-9), np.nan)
