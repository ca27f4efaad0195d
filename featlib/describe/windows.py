"""Windows of text: whole documents go to a half to explain on, or to one to score on.

The text is cut into short windows, and every feature is scored on the same number of them: some in
which it fires, as many from each quarter of its strength, and as many in which it is silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from featlib import FeatlibError

QUARTERS = 4  # of a feature's strength; windows are drawn from each


@dataclass(frozen=True)
class Windows:
    """Token indices [windows, window] of both halves; no document lies in both."""

    explain: np.ndarray
    score: np.ndarray


def split_windows(documents: np.ndarray, window: int, *, kinds: np.ndarray, seed: int) -> Windows:
    """Cut `documents` [blocks, context] into windows, and documents into two halves.

    Of every two documents of one kind (`kinds`, same shape) and about one length, chance sends one
    to each half, so that both hold as much of each kind. A window with documents of both halves
    belongs to none. Windows do not cross blocks.
    """
    context = documents.shape[1]
    assert window <= context, "params refuses explain_window over context"
    known, first, size = np.unique(documents, return_index=True, return_counts=True)
    alike = np.lexsort((size, kinds.reshape(-1)[first]))
    pairs = alike[: len(alike) // 2 * 2].reshape(-1, 2)
    half = np.zeros(len(known), dtype=bool)
    half[np.random.default_rng(seed).permuted(pairs, axis=1)[:, 0]] = True
    index: np.ndarray = np.arange(documents.size).reshape(documents.shape)
    index = index[:, : context // window * window].reshape(-1, window)
    side = half[np.searchsorted(known, documents.reshape(-1))][index]
    out = Windows(index[side.all(axis=1)], index[~side.any(axis=1)])
    if not (len(out.explain) and len(out.score)):
        raise FeatlibError(
            f"{len(known)} documents cannot be parted into one half to explain and one to score: "
            "give more text (stream_tokens)"
        )
    return out


def choose_features(activations: sp.sparray, windows: Windows, n_windows: int) -> np.ndarray:
    """Features that can be explained and scored: in both halves they fire in at least `n_windows`
    windows, and are silent in as many."""
    ok = np.ones(activations.shape[1], dtype=bool)
    for half in (windows.explain, windows.score):
        fires = (sp.csr_array(activations)[half.reshape(-1)] > 0).astype(np.int32)
        starts = np.arange(0, half.size + 1, half.shape[1])  # a row adds up the tokens of a window
        together = sp.csr_array((np.ones(half.size, np.int32), np.arange(half.size), starts))
        firing = np.diff((together @ fires).tocsc().indptr)
        ok &= (firing >= n_windows) & (len(half) - firing >= n_windows)
    return np.flatnonzero(ok)


def from_each_quarter(peaks: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n windows in which a feature fires, as many (to within one) from each quarter of strength.

    `peaks` [windows]: its largest activation in each. Fewer where it fires in fewer.
    """
    order = np.argsort(peaks, kind="stable")[np.count_nonzero(peaks <= 0) :]
    wanted = [len(part) for part in np.array_split(np.arange(min(n, len(order))), QUARTERS)]
    parts = np.array_split(order, QUARTERS)
    return np.concatenate(
        [rng.choice(part, k, replace=False) for part, k in zip(parts, wanted, strict=True)]
    )


def choose_windows(peaks: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """2n windows to score a feature on: n in which it fires, n in which it is silent."""
    fires, silent = from_each_quarter(peaks, n, rng), np.flatnonzero(peaks <= 0)
    assert min(len(fires), len(silent)) >= n, "choose_features leaves such features out"
    return np.concatenate([fires, rng.choice(silent, n, replace=False)])


def choose_examples(peaks: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Windows for a writer: the strongest, half of n, and the rest from each quarter of others."""
    strongest = np.argsort(-peaks, kind="stable")[: n // 2]
    others = peaks.copy()
    others[strongest] = 0
    return np.concatenate([strongest, from_each_quarter(others, n - n // 2, rng)])
