"""From numbers to words: the rules, and every number at which a word changes.

What became of a feature in another model? Four questions (`QUESTIONS`), each with a table of rules:
numbers in, a word out. They were set after trial runs of seed 0 had been seen; other seeds had no
say in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featlib.estimate import Estimate


@dataclass(frozen=True)
class Bars:
    """Every number at which a word changes."""

    keep_f1: float = 0.8  # readable: at least this share of the parent's F1 is kept ...
    lost_f1: float = 0.5  # ... and no longer below this one
    least_f1: float = 0.5  # a parent whose F1 may be below this has no feature to lose
    lost_r: float = 0.5  # found: a best match below this correlation is none, not even in part
    keep_effect: float = 0.5  # used: as much as in the parent from this share of its effect on
    few_labelled: int = 100  # fewer labelled tokens on which to judge cannot tell
    nearly_all: float = 0.9  # a test that this share of a feature's peers pass can hardly be failed
    # Of the controls (chapter 11)
    most: float = 0.5  # "most" and "mostly": more than this share
    false_alarms: float = 0.01  # a null that passes for a larger share puts matches in doubt ...
    by_anything: float = 0.25  # ... as do random directions that pass for this part of the matches
    writes_alike: float = 0.5  # median cosine from which matched features write alike
    shared_start: float = 5.0  # times as many matches of equal index show that the start was one


BARS = Bars()


# --- what became of a feature? --------------------------------------------------------------------

YES, PART, UNSURE, NO, NOTHING = "yes", "in part", "cannot tell", "no", "nothing to lose"
WORDS = (NO, UNSURE, PART, YES)  # from worse to better; `NOTHING` stands apart
CAN_FAIL, EASILY, NO_TEST = "could have failed", "as its peers", "no test"


@dataclass(frozen=True)
class Numbers:
    """What one question is judged by, in one model.

    readable: the share of the parent's F1 that is kept (of the parent: its F1). found: the best
    correlation in the model's own autoencoders (in the parent's others). used: nats that removing
    the feature costs, beyond removing as much along a random direction. concept: F1 less that of
    the best rule that sees the token alone.
    """

    child: Estimate
    parent: Estimate
    labelled: int  # labelled tokens on which it is judged
    same: float = 0.8  # correlation from which two features count as one


# For each question: condition, word. The first row whose condition holds is the verdict. The parent
# comes first: where it has nothing to lose, no child can lose it.
ANSWERS: dict[str, tuple[tuple[Callable[[Numbers], bool], str], ...]] = {
    "readable": (
        (lambda n: not n.parent.low >= BARS.least_f1, NOTHING),
        (lambda n: n.child.low >= BARS.keep_f1, YES),
        (lambda n: n.child.value < BARS.lost_f1, NO),
        (lambda n: True, PART),
    ),
    "found": (
        (lambda n: not n.parent.value >= n.same, NOTHING),
        (lambda n: n.child.low >= n.same, YES),
        (lambda n: n.child.value < BARS.lost_r, NO),
        (lambda n: True, PART),
    ),
    "used": (
        (lambda n: not n.parent.low > 0, NOTHING),
        (lambda n: n.child.low > 0 and n.child.value >= BARS.keep_effect * n.parent.value, YES),
        (lambda n: n.child.low > 0, PART),
        (lambda n: n.child.high < BARS.keep_effect * n.parent.value, NO),
        (lambda n: True, UNSURE),
    ),
    "concept": (
        (lambda n: not n.parent.low > 0, NOTHING),
        (lambda n: n.child.low > 0, YES),
        (lambda n: n.child.value <= 0, NO),
        (lambda n: True, UNSURE),
    ),
}
QUESTIONS = tuple(ANSWERS)


def judge(question: str, numbers: Numbers) -> str:
    """The answer to one of `QUESTIONS`: one of `WORDS`, or `NOTHING` where the parent has none."""
    assert np.isfinite([numbers.child.value, numbers.parent.value]).all(), "a value is missing"
    if numbers.labelled < BARS.few_labelled:
        return UNSURE
    return next(word for holds, word in ANSWERS[question] if holds(numbers))


def certainty(word: str, base_rate: float) -> str:
    """What an answer is worth, given the share of the feature's peers that pass the same bar."""
    if word in (UNSURE, NOTHING):
        return NO_TEST
    return EASILY if word == YES and base_rate >= BARS.nearly_all else CAN_FAIL


# --- what stands of the paper's claims ------------------------------------------------------------

SURE, LIKELY, OPEN = "sure, in this run", "likely", "open"
EASY = "in part because such features are easy to find again"


@dataclass(frozen=True)
class Step:
    """The share of a parent's features that a child has, and what to read it against."""

    matching: Estimate
    ceiling: Estimate  # what another autoencoder of the parent finds,
    other_text: Estimate  # and one that learned from the child's text
    transfer: Estimate  # with the parent's own dictionary in both
    cosine: float  # median, between decoder vectors of matched features

    @property
    def below(self) -> bool:
        """Whether matching finds fewer than can be laid to the dictionary and its text."""
        return self.matching.high < self.other_text.low


@dataclass(frozen=True)
class Findings:
    """What the claims rest on: shares of features, but for two numbers."""

    steps: Sequence[Step]  # from the base to each of its children
    placebo: Estimate  # of the base's, themselves after more of the base's own training,
    ends: Sequence[Estimate]  # in each of the merged children,
    merged: Estimate  # in the merge,
    recovered: int  # and the number that one of them had lost and the merge has
    shuffled: float  # that pass with tokens out of step,
    random: float  # against random directions,
    matched: float  # and against the children
    formatting: Mapping[str, Estimate]  # of everything, survivors and what is found_again
    same_index: Mapping[str, float]  # of matches: with equal seeds, with other ones, by chance

    @property
    def few(self) -> bool:
        return all(s.transfer.high < BARS.most * self.placebo.value for s in self.steps)

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
        # Of what finds no match, most finds none in the parent itself either.
        (lambda n: all(1 - s.ceiling.high > BARS.most * (1 - s.matching.value) for s in n.steps),
         "most would be missing anyway", SURE),
        (lambda n: True, "holds in part", LIKELY),
    ),
    "features that correlate are the same": (
        (lambda n: n.shuffled > BARS.false_alarms, "some by accident", OPEN),
        (lambda n: n.random > BARS.false_alarms and n.random > BARS.by_anything * n.matched,
         "some match anything", LIKELY),
        (lambda n: all(s.cosine < BARS.writes_alike for s in n.steps),
         "they fire alike and write elsewhere", LIKELY),
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
