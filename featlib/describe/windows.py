"""Windows of text: whole documents go to a half to explain on, or to one to score on.

The text is cut into short windows, and every feature is scored on the same number of them: some in
which it fires, as many from each quantile of its strength, and as many in which it is silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from featlib import FeatlibError

QUANTILES = 4  # of a feature's strength; windows are drawn from each


@dataclass(frozen=True)
class Windows:
    """Token indices [windows, window] of both halves; no document lies in both."""

    explain: np.ndarray
    score: np.ndarray

    @property
    def size(self) -> int:
        return self.explain.shape[1]


def split_windows(
    documents: np.ndarray, window: int, *, kinds: np.ndarray | None = None, seed: int
) -> Windows:
    """Cut `documents` [blocks, context] into windows, and documents into two halves.

    Documents are dealt out in random order to the half that has fewer tokens so far, for each of
    `kinds` (same shape; a number for each kind of text) apart, so that both halves hold each kind.
    A window with documents of both halves belongs to none. Windows do not cross blocks.
    """
    blocks, context = documents.shape
    if window > context:
        raise FeatlibError(
            f"explain_window is {window} tokens; it must be {context}, one block, or less"
        )
    flat = documents.reshape(-1)
    known, first, place, size = np.unique(
        flat, return_index=True, return_inverse=True, return_counts=True
    )
    kind = np.zeros(len(known), int) if kinds is None else np.asarray(kinds).reshape(-1)[first]
    half = np.zeros(len(known), dtype=np.int8)
    rng = np.random.default_rng(seed)
    held = {int(k): [0, 0] for k in kind}
    for d in rng.permutation(len(known)):
        have = held[int(kind[d])]
        half[d] = int(have[1] < have[0])
        have[half[d]] += int(size[d])
    per_block = context // window
    index = np.arange(blocks * context).reshape(blocks, context)[:, : per_block * window]
    index = index.reshape(-1, window)
    side = half[place.reshape(-1)][index]
    out = [index[(side == s).all(axis=1)] for s in (0, 1)]
    if min(map(len, out)) == 0:
        raise FeatlibError(
            f"{len(known)} documents cannot be parted into one half to explain and one to score: "
            "give more text (stream_tokens)"
        )
    return Windows(*out)


def choose_windows(peaks: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """2n windows to score a feature on: n in which it fires, n in which it is silent.

    `peaks` [windows]: the feature's largest activation in each. As many windows (to within one)
    come from each quantile of the peaks above zero.
    """
    fires, silent = np.flatnonzero(peaks > 0), np.flatnonzero(peaks <= 0)
    assert min(len(fires), len(silent)) >= n, "choose_features leaves such features out"
    order = fires[np.argsort(peaks[fires], kind="stable")]
    parts = np.array_split(order, QUANTILES)
    wanted = [len(p) for p in np.array_split(np.arange(n), QUANTILES)]
    drawn = [
        rng.choice(p, min(k, len(p)), replace=False) for p, k in zip(parts, wanted, strict=True)
    ]
    drawn.append(rng.choice(silent, n, replace=False))
    return np.concatenate(drawn)


def window_firings(activations: sp.sparray, windows: np.ndarray) -> sp.csc_array:
    """[windows, features] on how many tokens of each of `windows` each feature fires."""
    fires = (sp.csr_array(activations)[windows.reshape(-1)] > 0).astype(np.int32)
    starts = np.arange(0, windows.size + 1, windows.shape[1])
    together = sp.csr_array((np.ones(windows.size, np.int32), np.arange(windows.size), starts))
    return (together @ fires).tocsc()


def choose_features(activations: sp.sparray, windows: Windows, n_windows: int) -> np.ndarray:
    """Features that can be explained and scored: in both halves they fire in at least `n_windows`
    windows, and are silent in as many."""
    ok = np.ones(activations.shape[1], dtype=bool)
    for half in (windows.explain, windows.score):
        firing = np.diff(window_firings(activations, half).indptr)
        ok &= (firing >= n_windows) & (len(half) - firing >= n_windows)
    return np.flatnonzero(ok)


def choose_examples(peaks: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Windows for the writer: the strongest half, then as many from each quarter of strength."""
    order = np.argsort(-peaks, kind="stable")
    order = order[peaks[order] > 0]
    assert len(order), "choose_features leaves out what never fires"
    top, rest = order[: n // 2], order[n // 2 :]
    each = -(-(n - len(top)) // QUANTILES)
    parts = np.array_split(rest, QUANTILES)
    drawn = [rng.choice(part, min(each, len(part)), replace=False) for part in parts]
    return np.concatenate([top, *drawn])[:n]
