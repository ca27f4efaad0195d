"""One dictionary for several models at once: which features are shared, and which are one's own.

A crosscoder (Lindsey et al. 2024) reads the activations x_m of all models on the same token, and
rebuilds all of them from one list of features,

    f = act( sum_m (x_m - b_m) W_enc^m + b_enc ),     x_m^ = f W_dec^m + b_m ,

so that row j of W_dec^m is what feature j writes in model m. Where its norm is near 0, the feature
is of no use in that model. No matching is needed, and no threshold on correlations.

With an L1 penalty crosscoders invent exclusive features: the penalty can shrink a decoder row to 0
though the feature is there (Minder et al. 2025, arXiv 2504.02922). So this one is BatchTopK, which
has no penalty at all. It is an autoencoder over the activations laid side by side, and is trained
as one.

Deviation: features are ranked by f with ||[W_dec^1_j ... W_dec^M_j]|| = 1, hence by how much
squared error they save over all models. Minder et al. rank by f times the sum of the models' norms,
which prefers shared features among those that save as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from featlib.activations import harvest, shuffled_batches
from featlib.features import FeatureActivations, feature_activations
from featlib.runs import FeatlibError
from featlib.sae_model import AutoencoderConfig, SparseAutoencoder
from featlib.sae_training import train_autoencoders

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A model's share of two models' decoder norms: up to the first it lacks the feature, between the
# other two both have it (bounds after Minder et al.).
ABSENT = 0.1
SHARED = (0.4, 0.6)


@dataclass(frozen=True)
class Crosscoder:
    """A trained dictionary over the models `names`; `sae` reads their activations side by side."""

    names: tuple[str, ...]
    sae: SparseAutoencoder

    @property
    def decoder_norms(self) -> np.ndarray:
        """[d_sae, models] float64: length of what each feature writes in each model."""
        W = self.sae.W_dec.detach().double().reshape(self.sae.d_sae, len(self.names), -1)
        return torch.linalg.vector_norm(W, dim=2).numpy()


def joint_batches(
    models: Mapping[str, PreTrainedModel],
    ids: np.ndarray,
    scales: Mapping[str, float],
    *,
    n_tokens: int,
    batch_size: int,
    seed: int,
    buffer_tokens: int = 32_768,
) -> Iterator[Tensor]:
    """Batches [batch_size, models * d_in]: row i holds all models' scaled activations of one token.

    `ids` [blocks, context] are read by every model. The order of rows depends on sizes and `seed`
    alone (`activations.shuffled_batches`), so the models' streams stay in step.
    """
    streams = [
        shuffled_batches(
            model,
            ids,
            n_tokens=n_tokens,
            batch_size=batch_size,
            buffer_tokens=buffer_tokens,
            seed=seed,
            scale=scales[name],
        )
        for name, model in models.items()
    ]
    for parts in zip(*streams, strict=True):
        yield torch.cat(parts, dim=1)


def train_crosscoder(
    batches: Iterable[Tensor],
    names: Iterable[str],
    config: AutoencoderConfig,
    *,
    seed: int,
    progress: str | None = None,
) -> Crosscoder:
    """Fit a crosscoder to batches [tokens, models * d_in] (`joint_batches`).

    `config.d_in` is that of all models together, `config.k` the features per token for all of them.
    """
    names = tuple(names)
    if config.d_in % len(names):
        raise FeatlibError(
            f"d_in = {config.d_in} cannot be shared out equally among {len(names)} models "
            f"({', '.join(names)}); give the width of all their activations side by side"
        )
    if config.architecture != "batchtopk":
        raise FeatlibError(
            "a crosscoder must be batchtopk: with an L1 penalty it invents exclusive features"
        )
    (sae,), _ = train_autoencoders(batches, config, seeds=[seed], progress=progress)
    return Crosscoder(names, sae)


@torch.no_grad()
def read_stream(
    crosscoder: Crosscoder,
    models: Mapping[str, PreTrainedModel],
    ids: np.ndarray,
    scales: Mapping[str, float],
) -> tuple[FeatureActivations, dict[str, float]]:
    """Features of every token of `ids` [blocks, context], and each model's FVU."""
    streams = [harvest(model, ids) for model in models.values()]
    joint = (
        torch.cat([x * scales[n] for n, x in zip(models, rows, strict=True)], dim=1)
        for rows in zip(*streams, strict=True)
    )
    return encode_joint(crosscoder, joint)


@torch.no_grad()
def encode_joint(
    crosscoder: Crosscoder, batches: Iterable[Tensor]
) -> tuple[FeatureActivations, dict[str, float]]:
    """Features of batches [tokens, models * d_in], and the variance unexplained in each model."""
    sae, m = crosscoder.sae, len(crosscoder.names)
    parts, n = [], 0
    error, square, total = np.zeros(m), np.zeros(m), np.zeros((m, sae.d_in // m))
    for x in batches:
        f = sae.encode_sparse(x)
        parts.append(f.to_csr())
        by_model = (len(x), m, -1)
        left = (x - sae.decode_sparse(f)).reshape(by_model).double()
        error += left.square().sum((0, 2)).cpu().numpy()
        rows = x.reshape(by_model).double()
        square += rows.square().sum((0, 2)).cpu().numpy()
        total += rows.sum(0).cpu().numpy()
        n += len(x)
    if not n:
        raise FeatlibError("no activations to encode: the token stream is empty")
    spread = square - (total**2).sum(1) / n
    fvu = np.divide(error, spread, out=np.full(m, np.nan), where=spread > 0)
    return feature_activations(sp.vstack(parts, format="csr")), dict(
        zip(crosscoder.names, fvu.tolist(), strict=True)
    )


def relative_norm(crosscoder: Crosscoder, parent: str, child: str) -> np.ndarray:
    """[d_sae] the child's share of the two models' decoder norms: 0 parent only, 1 child only."""
    norms = crosscoder.decoder_norms
    a, b = (norms[:, crosscoder.names.index(name)] for name in (parent, child))
    return np.divide(b, a + b, out=np.full(len(a), 0.5), where=a + b > 0)


def classify(relative: np.ndarray) -> pd.Categorical:
    """What a feature is to a parent and its child, by `relative_norm`.

    parent only | shared | child only, and between: what is written in both, more in one of them.
    """
    relative = np.asarray(relative)
    kind = np.full(len(relative), "between", dtype=object)
    kind[(relative >= SHARED[0]) & (relative <= SHARED[1])] = "shared"
    kind[relative <= ABSENT] = "parent only"
    kind[relative >= 1 - ABSENT] = "child only"
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
