"""From numbers to words: does a feature survive? The rule is stated, the sentence is built.

Three words, decided by two ratios of child to parent: how well the feature still detects its label
(F1 on held-out text) and how much the model's predictions still depend on it (nats that ablating
it costs where it matters, beyond ablating random features of like density).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featlib import FeatlibError
from featlib.estimate import Estimate

PHRASES = {"survives": "survives", "weakened": "is weakened", "lost": "is lost"}


@dataclass(frozen=True)
class Bars:
    """Every number at which a word changes. Shares are of the parent's value."""

    keep_f1: float = 0.8  # survives: at least this share of the parent's F1 ...
    keep_effect: float = 0.5  # ... and this share of its causal effect, with an interval above 0
    lost_f1: float = 0.5  # lost: less than this share of the parent's F1 ...
    lost_effect: float = 0.1  # ... or an F1 not kept and less than this share of the effect
    least_f1: float = 0.5  # a parent below this F1 has no feature that could survive
    same_feature: float = 0.8  # correlation from which the paper counts two features as one
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


@dataclass(frozen=True)
class Evidence:
    """What is known about the feature in one model. `effect` in nats; intervals at 95 %."""

    f1: float
    f1_low: float
    f1_high: float
    effect: float = float("nan")  # NaN where no intervention was made
    effect_low: float = float("nan")
    effect_high: float = float("nan")
    r: float = float("nan")  # correlation with the parent's feature; NaN for the parent


@dataclass(frozen=True)
class Verdict:
    """`word`: survives, weakened or lost; absent where the parent has no such feature."""

    word: str
    sentence: str
    relative_f1: float
    relative_effect: float  # NaN where it cannot be told


def judge_survival(
    parent: Evidence,
    child: Evidence,
    *,
    model: str,
    parent_model: str = "BabyPython",
    feature: str = "feature",
) -> Verdict:
    """The verdict on a parent's feature in a child model, with a sentence of its numbers.

    survives: keeps `keep_f1` of the parent's F1 and `keep_effect` of its effect, whose interval
    lies above 0. lost: F1 below `lost_f1` of the parent's, or F1 not kept and effect below
    `lost_effect`. weakened: all between. If the parent's own effect cannot be told from 0 (or was
    not measured) F1 alone decides, and the sentence says so. `model` and `parent_model` are names
    in print.
    """
    if not (np.isfinite(parent.f1) and np.isfinite(child.f1)):
        raise FeatlibError(f"the F1 of {feature} in {parent_model} or {model} is missing")
    if parent.f1 < BARS.least_f1:
        sentence = (
            f"{parent_model} has no {feature} that could survive in {model}: its best feature "
            f"reaches F1 {_interval(parent.f1, parent.f1_low, parent.f1_high)}, below "
            f"{BARS.least_f1:.2f}."
        )
        return Verdict("absent", sentence, float("nan"), float("nan"))
    kept_f1 = child.f1 / parent.f1
    causal = parent.effect_low > 0 and np.isfinite(child.effect)
    kept_effect = child.effect / parent.effect if causal else float("nan")
    detects = kept_f1 >= BARS.keep_f1
    acts = not causal or (kept_effect >= BARS.keep_effect and child.effect_low > 0)
    if detects and acts:
        word = "survives"
    elif kept_f1 < BARS.lost_f1 or (not detects and causal and kept_effect < BARS.lost_effect):
        word = "lost"
    else:
        word = "weakened"
    phrase = PHRASES[word]
    found = (
        f"In {model} the {feature} {phrase}: it detects its label with F1 "
        f"{_interval(child.f1, child.f1_low, child.f1_high)}, {kept_f1:.0%} of the "
        f"{parent.f1:.2f} in {parent_model}"
    )
    if causal:
        cost = _interval(child.effect, child.effect_low, child.effect_high)
        effect = (
            f", and ablating it costs {cost} nats more than ablating random features, "
            f"{kept_effect:.0%} of the {parent.effect:.2f} in {parent_model}"
        )
        if not child.effect_low > 0:
            effect += ", an effect that cannot be told from none"
    else:
        effect = f"; its effect in {parent_model} cannot be told from none, so F1 alone decides"
        if child.effect_low > 0:
            cost = _interval(child.effect, child.effect_low, child.effect_high)
            effect += f", though in {model} ablating it costs {cost} nats more than random features"
    rule = ""
    if np.isfinite(child.r):
        counts = "counts" if child.r >= BARS.same_feature else "does not count"
        rule = (
            f" By correlation alone (r = {child.r:.2f}, the paper asks for "
            f"{BARS.same_feature:.1f}) it {counts} as the same feature."
        )
    return Verdict(word, f"{found}{effect}.{rule}", float(kept_f1), float(kept_effect))


def give_reasons(verdicts: Mapping[str, Verdict]) -> str:
    """A line for each child, and the rule; where the question does not arise, why."""
    absent = _absent(verdicts)
    if absent:
        return absent.sentence
    sentences = "\n".join(f"- {verdict.sentence}" for verdict in verdicts.values())
    rule = (
        f"Here a feature survives if it keeps {BARS.keep_f1:.0%} of its F1 and "
        f"{BARS.keep_effect:.0%} of its effect; it is lost below {BARS.lost_f1:.0%} of its F1, or "
        f"if its F1 is not kept and its effect falls below {BARS.lost_effect:.0%}; between them it "
        "is weakened."
    )
    return f"{sentences}\n\n{rule}"


def _absent(verdicts: Mapping[str, Verdict]) -> Verdict | None:
    """The verdict that the parent has no such feature, if it is one."""
    return next((verdict for verdict in verdicts.values() if verdict.word == "absent"), None)


def open_answer(verdicts: Mapping[str, Verdict], *, feature: str = "feature") -> str:
    """The first sentence of an answer: yes, no or in part, and which word holds for which child."""
    words = {verdict.word for verdict in verdicts.values()}
    if not words:
        raise FeatlibError("no verdict given: judge at least one model")
    if "absent" in words:
        return "The question does not arise."
    parts = []
    for word, phrase in PHRASES.items():
        models = [model for model, verdict in verdicts.items() if verdict.word == word]
        if models:
            parts.append(f"{phrase} in {listed(models)}")
    opening = "Yes" if words == {"survives"} else "No" if words == {"lost"} else "In part"
    return f"{opening}: the {feature} {listed(parts)}."


def half_life(t: Sequence[float], value: Sequence[float], start: float | None = None) -> float:
    """The first t at which `value` has fallen to half of `start` (its first entry unless told).

    Linear between points, in units of `t` counted from its first entry; NaN if it never falls
    that far, or if `start` is not positive: nothing can be halved then.
    """
    times, values = np.asarray(t, dtype=float), np.asarray(value, dtype=float)
    if len(times) != len(values) or len(times) < 2 or (np.diff(times) <= 0).any():
        raise FeatlibError("t and value must be two or more points of equal number, t ascending")
    begin = values[0] if start is None else start
    if not begin > 0:
        return float("nan")
    half = begin / 2
    if values[0] <= half:
        return 0.0
    for at in range(1, len(times)):
        if values[at] <= half:
            along = (values[at - 1] - half) / (values[at - 1] - values[at])
            return float(times[at - 1] + along * (times[at] - times[at - 1]) - times[0])
    return float("nan")


def _interval(value: float, low: float, high: float) -> str:
    if np.isfinite(low) and np.isfinite(high):
        return f"{value:.2f} ({low:.2f} to {high:.2f})"
    return f"{value:.2f}"


def listed(items: Sequence[str]) -> str:
    """One, two and three."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


# --- what stands of the paper's claims ------------------------------------------------------------

SURE, LIKELY, OPEN = "sure, in this run", "likely", "open"
EASY = "in part because such features are easy to find again"


@dataclass(frozen=True)
class Step:
    """The share of a parent's features that a child has, and what it is read against."""

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
        ceiling = self.ceiling.high if np.isfinite(self.ceiling.high) else self.ceiling.value
        return 1 - ceiling > BARS.most * (1 - self.matching.value)


@dataclass(frozen=True)
class Findings:
    """What the controls of a run measured, as far as a claim rests on it; shares of features."""

    steps: Sequence[Step]  # from the base to each of its children
    ends: Sequence[Estimate]  # of the base's, themselves in each of the merged children,
    merged: Estimate  # in the merge,
    recovered: int  # and the number that one of them had lost and the merge has
    shuffled: float  # that pass with tokens out of step, at most,
    random: float  # against random directions,
    matched: float  # and against the children
    everything: Estimate  # about punctuation and layout: of all testable features of the base,
    survivors: Estimate  # of those matched in a child,
    found_again: Estimate  # and of those that another of its own autoencoders finds
    equal_seeds: float  # of matches, under an equal index: with equal seeds,
    other_seeds: float  # with different ones,
    chance: float  # and by chance

    @property
    def few(self) -> bool:
        return all(s.transfer.high < BARS.most for s in self.steps)

    @property
    def more(self) -> bool:
        return self.survivors.low > self.everything.value

    @property
    def easy(self) -> bool:
        again = self.found_again
        return (again.low if np.isfinite(again.low) else again.value) > self.everything.value


# For each claim: condition, word, how sure. The first row whose condition holds is the verdict.
CLAIMS: dict[str, tuple[tuple[Callable[[Findings], bool], str, str], ...]] = {
    "few persist": (
        (lambda n: n.few and all(s.below for s in n.steps), "holds", SURE),
        (lambda n: n.few, "holds by transfer", LIKELY),
        (lambda n: all(s.below for s in n.steps), "lost, but not most", LIKELY),
        (lambda n: True, "not settled", OPEN),
    ),
    "no match, no feature": (
        (lambda n: all(s.noisy for s in n.steps), "most would be missing anyway", SURE),
        (lambda n: True, "holds in part", LIKELY),
    ),
    "alike is the same": (
        (lambda n: n.shuffled > BARS.false_alarms, "some by accident", OPEN),
        (lambda n: n.random > BARS.false_alarms and n.random > BARS.by_anything * n.matched,
         "some match anything", LIKELY),
        (lambda n: True, "no accident", SURE),
    ),
    "formatting persists": (
        (lambda n: not np.isfinite(n.survivors.value + n.everything.value), "no match", OPEN),
        (lambda n: n.more and n.survivors.value > BARS.most and n.easy, f"holds, {EASY}", LIKELY),
        (lambda n: n.more and n.survivors.value > BARS.most, "holds", LIKELY),
        (lambda n: n.more and n.easy, f"more than its part, {EASY}", LIKELY),
        (lambda n: n.more, "more than its part", LIKELY),
        (lambda n: n.survivors.value > BARS.most, "a majority, as everywhere", LIKELY),
        (lambda n: True, "not seen", OPEN),
    ),
    "merging dilutes": (
        (lambda n: all(n.merged.low > e.high for e in n.ends), "brings features back", SURE),
        (lambda n: all(n.merged.value > e.value for e in n.ends), "brings features back", LIKELY),
        (lambda n: n.recovered > 0, "holds, but some are back", LIKELY),
        (lambda n: True, "holds", LIKELY),
    ),
    "one seed for all": (
        (lambda n: not np.isfinite(n.equal_seeds + n.other_seeds), "too few matches", OPEN),
        (lambda n: n.equal_seeds > BARS.shared_start * max(n.other_seeds, n.chance),
         "not harmless", SURE),
        (lambda n: True, "no effect seen", LIKELY),
    ),
}  # fmt: skip


def judge_claim(claim: str, findings: Findings) -> tuple[str, str]:
    """What stands of one of `CLAIMS`, and how sure that is."""
    return next((word, sure) for holds, word, sure in CLAIMS[claim] if holds(findings))
