"""A value with its interval, and the resampling of documents behind most of them.

Tokens of one document are no independent draws, so intervals here resample whole documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featlib import FeatlibError

LEVEL = 0.95  # of every interval in the book
RESAMPLES = 1_000  # of documents, for the mean over tokens
NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; the ends are NaN where none was measured.

    It prints itself with its interval, in any number format: f"{share:.0%}" gives
    "12% (10% to 14%)". A plain `str` is in whole per cent.
    """

    value: float
    low: float = NAN
    high: float = NAN

    def __format__(self, spec: str) -> str:
        said = format(self.value, spec or ".0%")
        if not np.isfinite([self.low, self.high]).all():
            return said
        return f"{said} ({format(self.low, spec or '.0%')} to {format(self.high, spec or '.0%')})"

    def __str__(self) -> str:
        return format(self, "")

    def named(self, name: str) -> dict[str, float]:
        """The columns or keys `name`, `name`_low, `name`_high, as tables and metrics have them."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    @classmethod
    def read(cls, row: Mapping[str, float], name: str) -> Estimate:
        """What `named` wrote into a row of a table."""
        return cls(*(float(row[name + end]) for end in ("", "_low", "_high")))


def document_weights(documents: np.ndarray, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """[n_boot, n_documents] counts: how often each document is drawn, with replacement.

    Columns follow `np.unique(documents)`. Use one set of weights for all shares that will be
    compared or divided, so that they see the same resampled texts.
    """
    n = len(np.unique(documents))
    if n < 2:
        raise FeatlibError("an interval over documents needs at least 2 documents in the stream")
    return rng.multinomial(n, np.full(n, 1 / n), size=n_boot).astype(np.float64)


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The middle `LEVEL` of resampled `values`; undefined ones left out, NaN if none is left."""
    values = values[np.isfinite(values)]
    if not len(values):
        return NAN, NAN
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def over_documents(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> Estimate:
    """A mean over tokens, from each document's sum and count [documents], with its interval.

    The ends are NaN where there is one document only.
    """
    mean = float(sums.sum() / counts.sum())
    if len(counts) < 2:
        return Estimate(mean)
    weights = document_weights(np.arange(len(counts)), RESAMPLES, rng)
    return Estimate(mean, *percentile_interval((weights @ sums) / (weights @ counts)))


def bootstrap_estimate(value: float, draws: np.ndarray, upper: float = 1.0) -> Estimate:
    """`value` with an interval from resampled `draws`, within 0..upper.

    A share of features above a threshold is biased under resampling: noise is added to
    correlations that hold noise already, and features cross the threshold out of the more crowded
    side. The draws' spread is right, their centre may not be. So this is the hull of two intervals,
    the draws' percentiles as they are and the same moved to have their mean at the value, which
    on planted data covers the truth at least about as often as it says; either alone may not.
    """
    tail = (1 - LEVEL) / 2
    ends = np.quantile(draws, [tail, 1 - tail])
    moved = ends - draws.mean() + value
    low, high = min(ends[0], moved[0], value), max(ends[1], moved[1], value)
    return Estimate(value, float(np.clip(low, 0, upper)), float(np.clip(high, 0, upper)))


def over_trainings(values: Sequence[float]) -> Estimate:
    """The mean of independent trainings with Student's interval; none of fewer than two."""
    from scipy import stats  # slow to import, and few who import this module need it

    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Estimate(mean)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / n**0.5
    return Estimate(mean, mean - half, mean + half)


def proportion(k: int, n: int) -> Estimate:
    """k of n, with Wilson's interval (features taken as independent); NaN of none."""
    if not n:
        return Estimate(NAN)
    from scipy import stats

    ci = stats.binomtest(k, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(k / n, float(ci.low), float(ci.high))
