"""Small autoencoders and rows of known directions, for the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from featlib.dictionaries.gradients import Weights
from featlib.dictionaries.sae import AutoencoderConfig, SparseAutoencoder
from featlib.dictionaries.training import train_autoencoders
from featlib.models.mistral import build_model

D_IN, D_SAE, K = 32, 64, 3


def random_weights(seed: int = 0, d_sae: int = D_SAE, learned: bool = False) -> Weights:
    """W_dec of unit rows, and near its transpose W_enc; with thresholds about 1 where `learned`."""
    draw = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, D_IN, generator=draw), dim=1)
    return Weights(
        W_dec + 0.1 * torch.randn(d_sae, D_IN, generator=draw),
        0.1 * torch.randn(d_sae, generator=draw),
        W_dec,
        torch.randn(D_IN, generator=draw),
        0.5 + torch.rand(d_sae, generator=draw) if learned else None,
    )


def random_rows(n: int, seed: int = 1) -> torch.Tensor:
    return 2 * torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed))


def planted(n: int, seed: int = 0, n_features: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that are sums of K known directions each, and the directions [n_features, d_in]."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n_features, D_IN))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = np.zeros((n, n_features))
    chosen = rng.random((n, n_features)).argsort(1)[:, :K]
    np.put_along_axis(codes, chosen, rng.uniform(1, 2, size=chosen.shape), 1)
    rows = codes @ directions + 0.3
    rows *= D_IN**0.5 / np.linalg.norm(rows, axis=1).mean()
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(directions, dtype=torch.float32)


def small_config(**changes) -> AutoencoderConfig:
    small = {"d_in": D_IN, "d_sae": 32, "k": K, "n_tokens": 4096, "batch_size": 256, "lr": 2e-3}
    return AutoencoderConfig(**{**small, "dead_after": 2000, **changes})


def trained(n: int = 20_000, **changes) -> tuple[SparseAutoencoder, torch.Tensor]:
    """An autoencoder after a short training, and the rows that it saw."""
    x, _ = planted(n)
    config = small_config(n_tokens=n, **changes)
    return train_autoencoders(x.split(256), config, [0], scale=1.7)[0], x


def tiny_model(seed: int = 0, context: int = 16, width: int = 24) -> PreTrainedModel:
    sizes = {"vocab_size": 300, "hidden_size": 16, "heads": 2, "kv_heads": 1}
    return build_model(**sizes, intermediate_size=width, context=context, seed=seed)


def random_ids(blocks: int, context: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 300, (blocks, context)).astype(np.uint16)


def with_scale(sae: SparseAutoencoder, x: torch.Tensor) -> torch.Tensor:
    """What `sae` makes of raw activations x [tokens, d_in]: scaled, coded, rebuilt, raw again."""
    return sae.decode_sparse(sae.encode_sparse(x * sae.scale)) / sae.scale
