"""From numbers to words: the rules, and every number at which a word changes.

Does a feature survive? Two ratios of child to parent decide: how well the feature still detects its
label (F1 on held-out text) and how much the model's predictions still depend on it (nats that
ablating it costs where it matters, beyond ablating random features of like density).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featlib.estimate import NAN, Estimate


@dataclass(frozen=True)
class Bars:
    """Every number at which a word changes. Shares are of the parent's value."""

    keep_f1: float = 0.8  # survives: at least this share of the parent's F1 ...
    keep_effect: float = 0.5  # ... and this share of its causal effect, with an interval above 0
    lost_f1: float = 0.5  # lost: less than this share of the parent's F1 ...
    lost_effect: float = 0.1  # ... or an F1 not kept and less than this share of the effect
    least_f1: float = 0.5  # a parent below this F1 has no feature that could survive
    as_well: float = 0.95  # a rule that reaches this share of a feature's F1 does as well
    few_labelled: int = 100  # fewer labelled tokens in the test half give a hint, no more
    # Of the controls (chapter 11)
    most: float = 0.5  # "most" and "mostly": more than this share
    false_alarms: float = 0.01  # a null that passes for a larger share puts matches in doubt ...
    by_anything: float = 0.25  # ... as do random directions that pass for this part of the matches
    shared_start: float = 5.0  # times as many matches of equal index show that the start was one
    equal_l0: float = 0.1  # sparsity that differs by less is equal
    low_ceiling: float = 0.3  # below this, a ratio to the ceiling rests on few features
    unchanged: float = 0.95  # a share by transfer that may be this is as good as no change
    same_way: float = 0.5  # cosine from which two moves in weights go largely the same way
    sees: float = 0.9  # share of planted features from which a crosscoder sees nearly all


BARS = Bars()


# --- does a feature survive? ----------------------------------------------------------------------

WORDS = ("survives", "weakened", "lost", "absent")


@dataclass(frozen=True)
class Evidence:
    """What is known of a feature in one model."""

    f1: Estimate  # how well it detects its label, on held-out text
    effect: Estimate  # nats that ablating it costs where it matters, beyond random features


@dataclass(frozen=True)
class Verdict:
    """One of `WORDS`, and the child's shares of the parent's F1 and effect."""

    word: str
    kept_f1: float = NAN
    kept_effect: float = NAN  # NaN where the parent's own effect cannot be told from 0


def judge_survival(parent: Evidence, child: Evidence) -> Verdict:
    """What became of a parent's feature in a child.

    absent: the parent's F1 is below `least_f1`, so there is nothing that could survive. survives:
    the child keeps `keep_f1` of the F1 and `keep_effect` of the effect, whose interval lies above
    0. lost: F1 below `lost_f1` of the parent's, or F1 not kept and effect below `lost_effect`.
    weakened: all between. Where the parent's own effect cannot be told from 0, F1 alone decides.
    """
    assert np.isfinite([parent.f1.value, child.f1.value]).all(), "an F1 is missing"
    if parent.f1.value < BARS.least_f1:
        return Verdict("absent")
    f1 = child.f1.value / parent.f1.value
    causal = parent.effect.low > 0 and np.isfinite(child.effect.value)
    effect = child.effect.value / parent.effect.value if causal else NAN
    detects = f1 >= BARS.keep_f1
    if f1 < BARS.lost_f1 or (not detects and effect < BARS.lost_effect):
        return Verdict("lost", f1, effect)
    acts = not causal or (effect >= BARS.keep_effect and child.effect.low > 0)
    return Verdict("survives" if detects and acts else "weakened", f1, effect)


def half_life(t: Sequence[float], value: Sequence[float]) -> float:
    """The first t at which `value` has fallen to half of its first entry.

    Linear between points, in units of `t` (ascending) counted from its first entry; NaN if it
    never falls that far, or does not begin above 0: nothing can be halved then.
    """
    times, values = np.asarray(t, dtype=float), np.asarray(value, dtype=float)
    half = values[0] / 2
    below = np.flatnonzero(values <= half)
    if not half > 0 or not len(below):
        return NAN
    at = below[0]
    along = (values[at - 1] - half) / (values[at - 1] - values[at])
    return float(times[at - 1] + along * (times[at] - times[at - 1]) - times[0])


# --- what stands of the paper's claims ------------------------------------------------------------

SURE, LIKELY, OPEN = "sure, in this run", "likely", "open"
EASY = "in part because such features are easy to find again"


@dataclass(frozen=True)
class Step:
    """The share of a parent's features that a child has, and what to read it against."""

    matching: Estimate
    ceiling: Estimate  # what another autoencoder of the parent finds
    ratio: Estimate  # matching / ceiling
    transfer: Estimate  # with the parent's own dictionary in both
    other_text: Estimate | None = None  # the ceiling, of a dictionary made of the child's text

    @property
    def below(self) -> bool:
        """Whether matching finds fewer than can be laid to the dictionary."""
        other = self.other_text
        return self.matching.high < other.low if other else self.ratio.high < 1

    @property
    def noisy(self) -> bool:
        """Whether most of what finds no match finds none in the parent itself either."""
        return 1 - self.ceiling.high > BARS.most * (1 - self.matching.value)


@dataclass(frozen=True)
class Findings:
    """What the claims rest on: shares of features, but for one number."""

    steps: Sequence[Step]  # from the base to each of its children
    ends: Sequence[Estimate]  # of the base's, themselves in each of the merged children,
    merged: Estimate  # in the merge,
    recovered: int  # and the number that one of them had lost and the merge has
    shuffled: float  # that pass with tokens out of step, at most,
    random: float  # against random directions,
    matched: float  # and against the children
    formatting: Mapping[str, Estimate]  # of everything, survivors and what is found_again
    same_index: Mapping[str, float]  # of matches: with equal seeds, with other ones, by chance

    @property
    def few(self) -> bool:
        return all(s.transfer.high < BARS.most for s in self.steps)

    @property
    def more(self) -> bool:
        return self.formatting["survivors"].low > self.formatting["everything"].value

    @property
    def easy(self) -> bool:
        return self.formatting["found_again"].low > self.formatting["everything"].value

    @property
    def majority(self) -> bool:
        return self.formatting["survivors"].value > BARS.most


# For each claim: condition, word, how sure. The first row whose condition holds is the verdict.
CLAIMS: dict[str, tuple[tuple[Callable[[Findings], bool], str, str], ...]] = {
    "few features persist": (
        (lambda n: n.few and all(s.below for s in n.steps), "holds", SURE),
        (lambda n: n.few, "holds by transfer", LIKELY),
        (lambda n: all(s.below for s in n.steps), "lost, but not most", LIKELY),
        (lambda n: True, "not settled", OPEN),
    ),
    "no match, no feature": (
        (lambda n: all(s.noisy for s in n.steps), "most would be missing anyway", SURE),
        (lambda n: True, "holds in part", LIKELY),
    ),
    "features that correlate are the same": (
        (lambda n: n.shuffled > BARS.false_alarms, "some by accident", OPEN),
        (lambda n: n.random > BARS.false_alarms and n.random > BARS.by_anything * n.matched,
         "some match anything", LIKELY),
        (lambda n: True, "no accident", SURE),
    ),
    "punctuation and formatting persist": (
        (lambda n: not np.isfinite(n.formatting["survivors"].value), "no match", OPEN),
        (lambda n: n.more and n.majority and n.easy, f"holds, {EASY}", LIKELY),
        (lambda n: n.more and n.majority, "holds", LIKELY),
        (lambda n: n.more and n.easy, f"more than its part, {EASY}", LIKELY),
        (lambda n: n.more, "more than its part", LIKELY),
        (lambda n: n.majority, "a majority, as everywhere", LIKELY),
        (lambda n: True, "not seen", OPEN),
    ),
    "merging dilutes features": (
        (lambda n: all(n.merged.low > e.high for e in n.ends), "brings features back", SURE),
        (lambda n: all(n.merged.value > e.value for e in n.ends), "brings features back", LIKELY),
        (lambda n: n.recovered > 0, "holds, but some are back", LIKELY),
        (lambda n: True, "holds", LIKELY),
    ),
    "one seed serves all autoencoders": (
        (lambda n: not np.isfinite([*n.same_index.values()]).all(), "too few matches", OPEN),
        (lambda n: n.same_index["equal"] > BARS.shared_start
         * max(n.same_index["other"], n.same_index["chance"]), "not harmless", SURE),
        (lambda n: True, "no effect seen", LIKELY),
    ),
}  # fmt: skip


def judge_claim(claim: str, findings: Findings) -> tuple[str, str]:
    """What stands of one of `CLAIMS`, and how sure that is."""
    return next((word, sure) for holds, word, sure in CLAIMS[claim] if holds(findings))
