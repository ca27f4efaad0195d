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

Deviation: Minder et al. rank features by `f` times the sum of the models' decoder norms; we rank
them by `f` where the rows of all models, laid end to end, have length one, because that is how much
squared error they save over all models, while the sum prefers shared features among equals.

What a row of W_dec has at the start and does not need must be unlearned. So that no verdict follows
from the start, half of the rows begin in all models and half in one only. Too little training, or
more active features than the data have, leave exclusive features looking partly shared (the tests
show both); neither makes a shared feature look exclusive.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from featlib import FeatlibError
from featlib.dictionaries.activations import shuffled_batches
from featlib.dictionaries.features import FeatureActivations, feature_activations
from featlib.dictionaries.sae import (
    AutoencoderConfig,
    SparseAutoencoder,
    load_autoencoder,
    save_autoencoder,
)
from featlib.dictionaries.training import train_autoencoders
from featlib.models.forward import HOOK_NAME, harvest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


BEGIN_SHARED = 0.5  # share of the rows of W_dec that start in all models
BUFFER = 32_768  # tokens of each model that are shuffled at a time


@dataclass(frozen=True)
class Crosscoder:
    """A trained dictionary over the models `names`; `sae` reads their activations side by side.

    `scales`: what each model's raw activations are multiplied by before they are read.
    """

    names: tuple[str, ...]
    sae: SparseAutoencoder
    scales: tuple[float, ...]

    @property
    def decoder_norms(self) -> np.ndarray:
        """[d_sae, models] float64: length of what each feature writes in each model."""
        W = self.sae.W_dec.detach().double().reshape(self.sae.d_sae, len(self.names), -1)
        return torch.linalg.vector_norm(W, dim=2).numpy()


def joint_batches(
    models: Mapping[str, PreTrainedModel],
    ids: np.ndarray,
    scales: Mapping[str, float],
    config: AutoencoderConfig,
    seed: int,
) -> Iterator[Tensor]:
    """`config`'s batches [tokens, models * d_in]: row i holds all models' activations of one token.

    `ids` [blocks, context] are read by every model. The order of rows depends on sizes and `seed`
    alone (`activations.shuffled_batches`), so the models' streams stay in step.
    """
    streams = [
        shuffled_batches(
            model,
            ids,
            n_tokens=config.n_tokens,
            batch_size=config.batch_size,
            buffer_tokens=BUFFER,
            seed=seed,
            scale=scales[name],
        )
        for name, model in models.items()
    ]
    for parts in zip(*streams, strict=True):
        yield torch.cat(parts, dim=1)


def train_crosscoder(
    batches: Iterable[Tensor], scales: Mapping[str, float], config: AutoencoderConfig, *, seed: int
) -> Crosscoder:
    """Fit a crosscoder to batches [tokens, models * d_in] (`joint_batches`).

    `scales`: the models by name, in the order in which the batches hold them, and what their
    activations were multiplied by. `config.d_in` is that of all models together, `config.k` the
    features per token for all of them.
    """
    assert config.d_in % len(scales) == 0 and config.architecture == "batchtopk", config
    batches = iter(batches)
    first = next(batches)
    start = _start(first, len(scales), config, seed)
    (sae,) = train_autoencoders(itertools.chain([first], batches), config, [seed], start)
    return Crosscoder(tuple(scales), sae, tuple(scales.values()))


def _start(x: Tensor, n_models: int, config: AutoencoderConfig, seed: int) -> SparseAutoencoder:
    """Random rows of W_dec, of length 1: `BEGIN_SHARED` of them in all models, the rest in one.

    x [tokens, models * d_in] is the first batch; its mean is where b_dec starts.
    """
    draw = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(config.d_sae, n_models, config.d_in // n_models, generator=draw)
    alone = torch.arange(config.d_sae) >= round(BEGIN_SHARED * config.d_sae)
    owner = torch.arange(config.d_sae) % n_models
    W_dec[alone[:, None] & (owner[:, None] != torch.arange(n_models))] = 0
    W_dec = (W_dec.flatten(1) / W_dec.flatten(1).norm(dim=1, keepdim=True)).to(x)
    return SparseAutoencoder(W_dec.T.clone(), x.new_zeros(config.d_sae), W_dec, x.mean(0))


def side_by_side(
    crosscoder: Crosscoder, models: Mapping[str, PreTrainedModel], ids: np.ndarray
) -> Iterator[Tensor]:
    """Scaled activations [tokens, models * d_in] of blocks `ids` [blocks, context], in order."""
    streams = [harvest(models[name], ids) for name in crosscoder.names]
    for rows in zip(*streams, strict=True):
        parts = zip(rows, crosscoder.scales, strict=True)
        yield torch.cat([x * scale for x, scale in parts], dim=1)


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
    spread = square - (total**2).sum(1) / n
    fvu = np.divide(error, spread, out=np.full(m, np.nan), where=spread > 0)
    by_name = dict(zip(crosscoder.names, fvu.tolist(), strict=True))
    return feature_activations(sp.vstack(parts, format="csr")), by_name


def save_crosscoder(
    crosscoder: Crosscoder, folder: str | Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`, all or nothing; `metadata` goes beside."""
    about = {
        "hook_name": f"{HOOK_NAME} of {', '.join(crosscoder.names)}, scaled, side by side",
        "models": list(crosscoder.names),
        "model_scales": list(crosscoder.scales),
    }
    save_autoencoder(crosscoder.sae, folder, {**(metadata or {}), **about})


def load_crosscoder(folder: str | Path) -> Crosscoder:
    """Read a folder of `save_crosscoder`, bit for bit."""
    folder = Path(folder)
    if not (folder / "cfg.json").exists():
        raise FeatlibError(
            f"{folder} holds no crosscoder: chapter 11 trains one where the parameter "
            "control_crosscoder is true. Set it, and run that chapter first"
        )
    about = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))["metadata"]
    return Crosscoder(
        tuple(about["models"]), load_autoencoder(folder), tuple(map(float, about["model_scales"]))
    )
