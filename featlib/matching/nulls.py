"""Nulls: how many features "persist" when there is nothing in common to find.

Matrices are [tokens, features] CSR over one token stream, `documents` holds one entry per token
(any shape), and every random choice comes out of the generator passed in. What they return is
compared as a child is, by `fates.compare`.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

_BLOCK = 256  # random directions at a time


def shift_within_documents(
    b: sp.csr_array, documents: np.ndarray, rng: np.random.Generator
) -> sp.csr_array:
    """`b` with the tokens of each document rotated by a random amount (1 .. length - 1).

    Keeps every feature's density, values, runs and document, and breaks which token it fires on.
    A document of one token cannot move.
    """
    flat = documents.reshape(-1)
    order = np.argsort(flat, kind="stable")  # the tokens of each document, in order
    groups = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1)
    lengths = np.array([len(group) for group in groups])
    shift = np.where(lengths > 1, rng.integers(1, np.maximum(lengths, 2)), 0)
    source = np.empty(len(flat), dtype=np.int64)
    for group, by in zip(groups, shift, strict=True):
        source[group] = np.roll(group, -by)
    return b[source]


def random_dictionary(
    activations: np.ndarray, firings: np.ndarray, rng: np.random.Generator
) -> sp.csr_array:
    """Features along random directions that fire exactly as often as given: [tokens, d_sae] CSR.

    `activations` [tokens, d_in] of the model, `firings` [d_sae]. Feature j is the
    activation along a random unit direction, kept on its `firings[j]` largest tokens and reduced
    by the largest value left out (a threshold, as in an encoder's bias). What this shares with a
    real dictionary comes from the space's geometry and the density alone.
    """
    n, d_in = activations.shape
    directions = rng.standard_normal((d_in, len(firings))).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    x = torch.from_numpy(np.asarray(activations, dtype=np.float32))
    rows, columns, values = [], [], []
    for start in range(0, len(firings), _BLOCK):
        along = (torch.from_numpy(directions[:, start : start + _BLOCK]).T @ x.T).numpy()
        for j, k in enumerate(firings[start : start + _BLOCK]):
            k = min(int(k), n - 1)
            if k > 0:
                # The k + 1 largest; a copy, for a view would keep all n indices of every feature.
                order = np.argpartition(along[j], n - k - 1)[n - k - 1 :].copy()
                value = along[j, order[1:]] - along[j, order[0]]  # the first is the smallest
                rows.append(order[1:])
                columns.append(np.full(k, start + j))
                values.append(np.maximum(value, np.finfo(np.float32).tiny))
    where = (np.concatenate(rows), np.concatenate(columns))
    shape = (n, len(firings))
    return sp.coo_array((np.concatenate(values), where), shape=shape, dtype=np.float32).tocsr()
