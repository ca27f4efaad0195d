"""From the numbers of the controls to words: what stands of each claim, and how sure that is.

Every rule is stated here, so that a run with other numbers gets other words. Functions `judge_*`
return a `Judgement`: the verdict in a sentence, the numbers behind it, and how sure it is.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from featlib.estimate import Estimate
from featlib.family import PRINT_NAMES

MOST = 0.5  # "most" and "mostly": more than this share
FALSE_ALARMS = 0.01  # a null that passes for more than this share puts matches in doubt
FORMATTING = ("punctuation", "whitespace", "special")  # classes of punctuation and layout
SURE, LIKELY, OPEN = "sure, in this run", "likely", "open"


class Judgement(NamedTuple):
    """What the controls say of one claim."""

    said: str
    numbers: str
    sure: str


@dataclass(frozen=True)
class StepShares:
    """One step from a parent to a child, measured in three ways."""

    matching: Estimate
    ceiling: Estimate
    ratio: Estimate  # matching / ceiling, the calibrated share
    transfer: Estimate


def judge_persistence(
    steps: Mapping[str, StepShares], other_text: Mapping[str, Estimate] | None = None
) -> Judgement:
    """Few features persist through fine-tuning. `steps`: children of the base by their print name.

    `other_text`: by child, what the base itself shows through a dictionary that learned from the
    child's text. Sure only if it holds both by matching (the interval lies below this, or where it
    was not measured, the ratio's below 1) and with the dictionary held fixed (transfer's interval
    below `MOST`); likely if by one of the two.
    """
    other_text = other_text or {}
    parts, below = [], []
    for name, s in steps.items():
        part = (
            f"{name}: {s.matching} by matching, where a second seed of the parent finds "
            f"{s.ceiling.value:.0%}, so {s.ratio} of what could be found; {s.transfer} by transfer"
        )
        if name in other_text:
            other = other_text[name]
            text = f"{possessive(name)} text"
            part += f"; {other} in the parent itself, if its dictionary learns from {text}"
            below.append(s.matching.high < other.low)
        else:
            below.append(s.ratio.high < 1)
        parts.append(part)
    numbers = ". ".join(parts)
    few_by_transfer = [s.transfer.high < MOST for s in steps.values()]
    if all(below) and all(few_by_transfer):
        return Judgement("It holds, though the bare share overstates the loss.", numbers, SURE)
    if all(few_by_transfer):
        said = (
            "It holds by transfer. Matching cannot tell the child from its parent read through a "
            "dictionary that learned from other text."
            if other_text
            else "It holds by transfer; matching cannot tell the child from a second seed."
        )
        return Judgement(said, numbers, LIKELY)
    if all(below):
        said = "Features are lost, but not most of them once the dictionary is held fixed."
        return Judgement(said, numbers, LIKELY)
    return Judgement("Not settled: the measures disagree.", numbers, OPEN)


def judge_loss(steps: Mapping[str, StepShares]) -> Judgement:
    """Features without a match have disappeared. How much of that is the instrument's own loss.

    Sure if in every step more than half of the loss (`MOST`) also occurs between two seeds of the
    parent, at the upper end of the ceiling's interval.
    """
    parts, noisy = [], []
    for name, s in steps.items():
        lost, own = 1 - s.matching.value, 1 - s.ceiling.value
        noise = min(own / lost, 1.0) if lost > 0 else float("nan")
        drift = 1 - s.transfer.value
        parts.append(
            f"{name}: {lost:.0%} find no match, and {own:.0%} find none in a second seed of the "
            f"parent ({noise:.0%} of the loss); with one dictionary {drift:.0%} change"
        )
        highest = s.ceiling.high if np.isfinite(s.ceiling.high) else s.ceiling.value
        noisy.append(1 - highest > MOST * lost)
    said = (
        "A missing match alone shows no disappearance: most would be missing anyway."
        if all(noisy)
        else "Part of it: the instrument loses some by itself."
    )
    return Judgement(said, ". ".join(parts), SURE if all(noisy) else LIKELY)


def judge_formatting(
    everything: Estimate, survivors: Estimate, found_again: Estimate, kept_by_transfer: Estimate
) -> Judgement:
    """Survivors are mostly punctuation and formatting: the share of `FORMATTING` among features.

    Of all testable features, of those matched in a child, of those that a second seed of the parent
    finds again, and of those that transfer keeps.
    """
    numbers = (
        f"{everything.value:.0%} of all testable features are of that kind, {survivors} of those "
        f"matched in a child, {found_again.value:.0%} of those that a second seed of the parent "
        f"finds again, {kept_by_transfer.value:.0%} of those kept by transfer"
    )
    if not np.isfinite(survivors.value) or not np.isfinite(everything.value):
        return Judgement("No feature was matched, so nothing can be said.", numbers, OPEN)
    mostly = survivors.value > MOST
    enriched = np.isfinite(survivors.low) and survivors.low > everything.value
    if mostly and enriched:
        said = "It holds here too"
    elif enriched:
        said = "Such features are over-represented among the survivors, but they are no majority"
    elif mostly:
        said = "A majority, but no larger than among all features"
    else:
        said = "Not seen here"
    again = found_again.low if np.isfinite(found_again.low) else found_again.value
    if enriched and again > everything.value:
        said += ", and partly because they are the easiest to find again in any model"
    return Judgement(f"{said}.", numbers, LIKELY if enriched or mostly else OPEN)


def judge_matches(shuffled: float, random: float, matched: float) -> Judgement:
    """Two features with r of at least the threshold are the same. Shares of features that pass.

    `shuffled`: the most in any comparison whose tokens were shifted or permuted; `random`: the most
    against random directions of the same densities; `matched`: in the real children, on average.
    """
    numbers = (
        f"With the tokens out of step {shuffled:.2%} pass at most; against random directions that "
        f"fire as often {random:.1%} do, and {matched:.1%} against the child's own features"
    )
    if shuffled > FALSE_ALARMS:
        return Judgement("Some matches are accidents.", numbers, OPEN)
    if random > FALSE_ALARMS and random > matched / 4:
        said = (
            "A match is no coincidence of tokens, but some need no learned feature: the tokens "
            "they fire on stand out in any direction."
        )
        return Judgement(said, numbers, LIKELY)
    return Judgement("A match is no accident. What errs is the other side.", numbers, SURE)


def judge_index(equal: float, different: float, chance: float) -> Judgement:
    """One seed for all autoencoders is harmless: shares of matches with equal index."""
    numbers = (
        f"{equal:.0%} of matches carry the same index with equal seeds, {different:.1%} with "
        f"different ones; chance gives {chance:.2%}"
    )
    if not (np.isfinite(equal) and np.isfinite(different)):
        return Judgement("Too few matches to tell.", numbers, OPEN)
    if equal > 5 * max(different, chance):
        said = (
            "A shared start makes dictionaries agree beyond what the models share. Our shares come "
            "from different seeds."
        )
        return Judgement(said, numbers, SURE)
    return Judgement("No effect seen.", numbers, LIKELY)


def judge_merge(
    into: Mapping[str, StepShares],
    merged: Estimate,
    children: Mapping[str, Estimate],
    recovered: int,
    testable: int,
) -> Judgement:
    """Merging dilutes features. `into`: the two steps into the merge; the rest is by transfer.

    `merged`, `children`: shares of the base's features that are themselves in the merge and in each
    child; `recovered`: how many that a child lost are themselves in the merge. Sure if the merge
    holds more than either child with intervals apart.
    """
    steps = "; ".join(
        f"from {name} {s.matching} persist by matching (ceiling {s.ceiling.value:.0%}, so "
        f"{s.ratio} of what could be found), {s.transfer} by transfer"
        for name, s in into.items()
    )
    kept = ", ".join(f"{share} in {name}" for name, share in children.items())
    numbers = (
        f"Of the base's features {merged} are themselves in {PRINT_NAMES['merged']}, {kept}; of "
        f"{testable:,}, {recovered:,} that at least one child lost are there. "
        f"{steps[0].upper()}{steps[1:]}"
    )
    if merged.value > max(share.value for share in children.values()):
        apart = merged.low > max(share.high for share in children.values())
        said = "It also brings features back: the merge holds more of the base's than either child."
        return Judgement(said, numbers, SURE if apart else LIKELY)
    if recovered:
        said = "The merge has fewer of the base's than one child, but some that were lost are back."
        return Judgement(said, numbers, LIKELY)
    return Judgement("It holds: no feature came back.", numbers, LIKELY)


def possessive(name: str) -> str:
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def claims_table(rows: Mapping[str, Judgement]) -> pd.DataFrame:
    """Columns: claim in the paper, what our controls say, numbers, how sure."""
    return pd.DataFrame(
        [(claim, j.said, f"{j.numbers}.", j.sure) for claim, j in rows.items()],
        columns=["claim in the paper", "what our controls say", "numbers", "how sure"],
    )


def claims_html(table: pd.DataFrame) -> str:
    """`claims_table` for a page: the numbers stand small under what they say."""
    heads = [column for column in table.columns if column != "numbers"]
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in heads)
    rows = []
    for claim, said, numbers, sure in table.itertuples(index=False, name=None):
        claim, said, numbers, sure = map(html.escape, (claim, said, numbers, sure))
        cells = (claim, f"<strong>{said}</strong><br><small>{numbers}</small>", sure)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
