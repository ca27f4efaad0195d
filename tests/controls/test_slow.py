"""The slow controls: joint dictionaries of known owners, and the paper's way of comparing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from planted import sparse_features

from featlib.controls.slow import SEEDS, part_written, pearson_where_both_fire, train_equally_sparse
from featlib.dictionaries.sae import AutoencoderConfig
from featlib.dictionaries.training import train_autoencoders

MODELS, D, SHARED, OWN = 3, 24, 8, 4  # width of a model; features in all three, and in one alone


def test_a_joint_dictionary_tells_shared_features_from_exclusive_ones():
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(-1, MODELS), [SHARED, *[OWN] * MODELS])
    truth = sparse_features(15_000, len(owner), 0.1, rng)
    writes = rng.standard_normal((MODELS, len(owner), D))
    for m in range(MODELS):
        writes[m, (owner >= 0) & (owner != m)] = 0
    writes /= np.linalg.norm(writes, axis=(0, 2), keepdims=True)
    x = truth @ np.concatenate(list(writes), axis=1)
    x = torch.from_numpy((x + 0.003 * rng.standard_normal(x.shape)).astype("f4"))
    config = AutoencoderConfig(
        d_in=D * MODELS, d_sae=40, k=2, n_tokens=20 * len(x), batch_size=250, lr=3e-3,
        beta2=0.999, dead_after=5_000,
    )  # fmt: skip
    batches = (x[s : s + 250] for _ in range(20) for s in range(0, len(x), 250))
    (sae,) = train_autoencoders(batches, config, [1])
    directions = torch.from_numpy(np.concatenate(list(writes), axis=1)).float()
    cosine, latent = (directions @ sae.W_dec.detach().T).max(dim=1)
    assert (cosine > 0.9).float().mean() > 0.9
    part = part_written(sae, MODELS, 0, 1)[latent]
    assert (np.abs(part[owner == -1] - 0.5) < 0.1).mean() > 0.9
    right = [part[owner == 0] < 0.1, part[owner == 1] > 0.9, np.isnan(part[owner == 2])]
    assert np.mean(right) > 0.8, "one's own, the other's, and neither's"
    assert not (part[owner == 0] > 0.5).any() and not (part[owner == 1] < 0.5).any()


def test_correlation_where_both_fire_is_that_of_the_tokens_in_common():
    rng = np.random.default_rng(1)
    a, b = (sparse_features(400, 6, 0.2, rng) for _ in range(2))
    a[:, 0], b[:, 0] = (a[:, 0] > 0) * 3.0, b[:, 1] * 2  # a constant one, and a twin of another
    for least in (2, 20):
        found = pearson_where_both_fire(sp.csr_array(a), sp.csr_array(b), least)
        for i, j in np.ndindex(found.shape):
            both = (a[:, i] > 0) & (b[:, j] > 0)
            known = both.sum() >= least and i > 0
            theirs = np.corrcoef(a[both, i], b[both, j])[0, 1] if known else 0
            assert found[i, j] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("power", [1.2, 4.0])
def test_the_search_ends_where_a_penalty_leaves_k_features(power):
    """A model whose L0 follows a power of the penalty that the search does not know."""
    asked = []

    class Known:
        p = SimpleNamespace(k=16)
        config = staticmethod(lambda **changes: SimpleNamespace(**changes))

        def train(self, name, config, seeds):
            asked.append((config.l1, seeds))
            return [config.l1 for _ in seeds]

        def read(self, name, saes):
            return [], 16 * (saes[0] / 2.2) ** -power, 0.0

    saes, l1 = train_equally_sparse(Known(), "base", 4.0)
    assert 16 * (l1 / 2.2) ** -power == pytest.approx(16, rel=0.03)
    assert saes == [l1, l1] and asked[-1] == (l1, SEEDS[1:]) and len(asked) <= 6
