"""Labelled streams, features and models that are known beforehand."""

from __future__ import annotations

import numpy as np
import torch
from small_models import small_model

from featlib.cases.text import CaseText, LabelledStream
from featlib.dictionaries.features import FeatureActivations, feature_activations


def labelled_stream(mask, ids, documents, seed=0) -> LabelledStream | None:
    """Of arrays [blocks, context], or [tokens], which are one block."""
    mask, ids, documents = map(np.atleast_2d, (mask, ids, documents))
    ones = np.ones(len(ids))
    return CaseText(ids, documents, ones, ones, {"": mask}, {}).halves("", seed)


def random_stream(rng, n=600, n_documents=12, n_ids=20, rate=0.15) -> LabelledStream:
    documents = np.sort(rng.integers(0, n_documents, n))
    mask = rng.random(n) < rate
    mask[[0, -1]] = True
    return labelled_stream(mask, rng.integers(0, n_ids, n), documents, seed=int(rng.integers(99)))


def random_features(rng, n=600, d_sae=30, density=0.2, levels=4) -> FeatureActivations:
    """Few distinct values, so that ties are common."""
    dense = rng.integers(1, levels + 1, (n, d_sae)) * (rng.random((n, d_sae)) < density)
    return feature_activations(dense)


def planted(rng, n=6000, n_documents=60):
    """Label decided half by the token, half by context; features that know one, both or nothing."""
    documents = np.repeat(np.arange(n_documents), n // n_documents)
    ids = rng.integers(0, 40, n)
    context = rng.random(n) < 0.5
    mask = (ids < 4) & context
    dense = np.zeros((n, 12))
    dense[:, 5] = mask * rng.uniform(1, 2, n)  # knows the label
    dense[:, 7] = (ids < 4) * rng.uniform(1.0, 1.1, n)  # knows the token
    dense[:, 3] = (rng.random(n) < mask.mean()) * rng.uniform(1, 2, n)  # knows nothing
    dense[:, 8:] = (rng.random((n, 4)) < 0.05) * rng.uniform(1, 2, (n, 4))
    stream = labelled_stream(mask, ids, documents, seed=1)
    return feature_activations(dense), stream, dense


def lively_model(factor: float, **sizes):
    """A fresh model predicts alike everywhere: this one cares."""
    model = small_model(**sizes)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(factor)
    return model.eval()
