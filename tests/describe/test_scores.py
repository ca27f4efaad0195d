"""Scores of explanations: halves that share nothing, windows drawn evenly, planted features."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from planted import csr, even_documents
from sklearn.metrics import roc_auc_score

from featlib import FeatlibError
from featlib.describe import cues as ex
from featlib.describe import scores as es
from featlib.describe import windows as ew

N_WORDS, BLOCKS, CONTEXT = 60, 240, 32


@pytest.fixture(scope="module")
def world() -> tuple[ex.Text, ew.Windows, sp.csr_array]:
    """A Zipf-like text, and features that fire on two tokens each; the last one is noise."""
    rng = np.random.default_rng(0)
    p = 1 / np.arange(2, N_WORDS + 2)
    ids = rng.choice(N_WORDS, (BLOCKS, CONTEXT), p=p / p.sum())
    documents = even_documents(ids.size, 2 * CONTEXT).reshape(ids.shape)
    text = ex.read_text(ids, documents, [f" w{i}" for i in range(N_WORDS)], 0 * ids - 1, {})
    flat = ids.reshape(-1)
    firsts = range(5, 45, 4)
    columns = [np.select([flat == i, flat == i + 1], [4.0, 2.0], 0) for i in firsts]
    columns = [c * rng.uniform(0.7, 1.3, len(flat)) for c in columns]
    columns.append(np.where(rng.random(len(flat)) < 0.03, rng.exponential(size=len(flat)), 0))
    windows = ew.split_windows(documents, 8, kinds=0 * documents, seed=0)
    return text, windows, csr(np.stack(columns, 1))


def score(world, features, matrix: sp.csr_array | None = None):
    text, windows, own = world
    matrix = own if matrix is None else matrix
    return es.explain_and_score(
        matrix, np.asarray(features), text, windows, n_windows=20, max_cues=10, seed=0
    )


def test_planted_features_are_told_from_any_other_and_noise_is_not(world) -> None:
    table = score(world, np.arange(11))
    planted, noise = table.iloc[:10], table.iloc[10]
    assert (planted[["correlation", "detection"]] > 0.9).all(axis=None)
    assert (planted["correlation"] > planted["other"] + 0.3).all()
    # Each fires on two tokens, whatever stands around them: the table of tokens knows that too.
    np.testing.assert_allclose(planted["lookup"], planted["correlation"], atol=0.05)
    assert abs(noise["correlation"]) < 0.25  # nothing can be learned, and nothing is claimed
    assert abs(noise["detection"] - 0.5) < 0.2


def test_scores_do_not_depend_on_the_company(world) -> None:
    """Equal treatment: a feature is scored on the same windows whatever group it is in."""
    alone, among = score(world, [3, 4]), score(world, [0, 3, 4, 9, 10])
    columns = ["feature", "correlation", "detection", "explanation"]
    kept = among[among["feature"].isin([3, 4])].reset_index(drop=True)
    assert alone[columns].equals(kept[columns])


def test_the_scoring_half_is_never_read_when_explaining(world) -> None:
    _, windows, matrix = world
    changed = matrix.toarray()
    rows = windows.score.reshape(-1)
    changed[rows] = np.roll(changed[rows], 1, axis=1)  # every feature means something else there
    before, after = score(world, np.arange(10)), score(world, np.arange(10), csr(changed))
    assert before["explanation"].equals(after["explanation"])
    assert after["correlation"].max() < 0.5


def test_halves_share_no_document_and_hold_each_kind() -> None:
    rng = np.random.default_rng(0)
    documents = np.sort(rng.integers(0, 40, 6400))
    blocks = documents.reshape(-1, 64)
    windows = ew.split_windows(blocks, 16, kinds=blocks % 4, seed=1)
    halves = windows.explain, windows.score
    assert not np.intersect1d(*(documents[half] for half in halves)).size
    tokens = [np.bincount(documents[half].ravel() % 4) for half in halves]
    assert (np.min(tokens, axis=0) > 0.5 * np.max(tokens, axis=0)).all()
    for half in halves:  # in a row, inside one block
        assert (np.diff(half, axis=1) == 1).all()
        assert (half[:, 0] // 64 == half[:, -1] // 64).all()
    with pytest.raises(FeatlibError, match="documents"):  # a single one cannot be parted
        ew.split_windows(0 * blocks, 8, kinds=0 * blocks, seed=0)


def test_windows_come_evenly_from_the_quarters_and_from_silence() -> None:
    peaks = np.concatenate([np.zeros(300), np.arange(1, 401)])
    chosen = ew.choose_windows(peaks, 20, np.random.default_rng(0))
    drawn, _ = np.histogram(peaks[chosen], [0, 0.5, 100.5, 200.5, 300.5, 400.5])
    assert drawn.tolist() == [20, 5, 5, 5, 5]
    assert len(set(chosen)) == 40
    shown = peaks[ew.choose_examples(peaks, 24, np.random.default_rng(0))]  # to a writer
    assert sorted(shown[:12]) == list(range(389, 401)) and len(set(shown)) == 24
    assert np.histogram(shown[12:], [0.5, 97.5, 194.5, 291.5, 388.5])[0].tolist() == [3, 3, 3, 3]


def test_features_that_are_too_rare_or_too_common_are_left_out() -> None:
    documents = even_documents(640, 16).reshape(40, 16)
    windows = ew.split_windows(documents, 16, kinds=0 * documents, seed=0)
    values = np.zeros((640, 3))
    values[::16, 0] = 1  # in every window
    values[windows.explain[:6, 0], 1:] = 1  # the last one in this half alone
    values[windows.score[:6, 0], 1] = 1
    assert ew.choose_features(csr(values), windows, 5).tolist() == [1]


def test_scores_are_those_of_numpy_and_sklearn() -> None:
    rng = np.random.default_rng(0)
    guess, true = rng.integers(0, 4, (30, 5)), rng.random((30, 5)) * (rng.random((30, 1)) < 0.5)
    expected = np.corrcoef(guess.ravel(), true.ravel())[0, 1]
    np.testing.assert_allclose(es.correlate(guess, true), expected)
    assert es.correlate(np.ones(5), np.arange(5)) == 0
    area = roc_auc_score(true.max(axis=1) > 0, guess.max(axis=1))
    np.testing.assert_allclose(es.detect(guess, true), area)


def test_the_interval_of_a_median_covers_it_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [es.median_estimate(pd.Series(rng.exponential(size=60)), rng) for _ in range(200)]
    hits = sum(e.low <= np.log(2) <= e.high for e in found)
    assert 180 <= hits <= 199


def test_look_alikes_in_firings_are_distinct_and_near() -> None:
    rng = np.random.default_rng(0)
    among = rng.integers(20, 5000, 300)
    firings = among[:40] + 1
    chosen = es.alike_in_firings(firings, among)
    assert len(set(chosen)) == 40
    assert np.abs(np.log(among[chosen] / firings)).max() < 0.1
