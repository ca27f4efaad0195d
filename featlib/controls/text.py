"""What chapter 11 says of its controls: each sentence is built from numbers, and turns with them.

Shares are `Estimate`s; every threshold at which words change is named here or in `claims`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from featlib.claims import StepShares, possessive
from featlib.estimate import Estimate
from featlib.family import PRINT_NAMES

LOW_CEILING = 0.3  # below this, a ratio to the ceiling rests on few features
UNCHANGED = 0.95  # a share by transfer whose interval reaches this is as good as no change
PAPER_WIDTH = 512  # hidden size of the paper's models
ALONG = 0.5  # cosine from which two moves go largely the same way
SEES = 0.9  # share of planted features from which a crosscoder sees nearly all
BASE = PRINT_NAMES["base"]


def say_sparsity(table: pd.DataFrame, tolerance: float = 0.1) -> str:
    """From `control_run.compare_dictionaries`."""
    own, fvu = table["own_l0"], table["own_fvu"]
    verdict = (
        f"within the {tolerance:.0%} up to which we call it equal: no share below is a share of "
        "sparsity"
        if table["equal"].all()
        else f"more than the {tolerance:.0%} up to which we would call it equal, so shares mix "
        "persistence with sparsity"
    )
    return (
        f"On the common text, from which all shares are taken, L0 differs by "
        f"{table['ratio'].max() - 1:.0%} between the {len(table)} autoencoders, {verdict}. On the "
        f"text that each was trained for it differs by {own.max() / own.min() - 1:.0%}, and FVU "
        f"lies between {fvu.min():.2f} and {fvu.max():.2f}."
    )


def say_nulls(
    shuffled: float, random: float, matched: int, easy: int, formatting: Estimate, top: str
) -> str:
    """Of nulls that pass. `easy` of the `matched` features of the base are matched by random
    directions too; `formatting`: share of punctuation and layout among all that random directions
    match; `top`: the token that most of them fire on (a text in quotes; empty if there is none).
    """
    steps = (
        "no feature passes: no match is a coincidence of tokens"
        if shuffled == 0
        else f"{shuffled:.2%} of the features pass at most, which is what coincidence alone gives"
    )
    said = (
        f"Out of step, {steps}. Random directions that fire as often pass for {random:.1%} of "
        f"{BASE}'s features"
    )
    if not (random > 0 and np.isfinite(formatting.value)):
        return f"{said}."
    return (
        f"{said}. Such a feature needs nothing learned: the tokens it fires on excite the model so "
        f"much that any direction picks them out, and it finds a partner everywhere. Of these "
        f"features {formatting.value:.0%} are about punctuation and layout, most often {top}. Of "
        f"the {matched:,} features with a match in Lua, {easy:,} are of this kind."
    )


def say_transfer(kept: int, matched: int, both: int) -> str:
    """Numbers of the base's testable features kept in Lua by transfer, by matching, and by both."""
    said = (
        f"The two ways do not name the same features. Of {BASE}'s testable features, {kept:,} are "
        f"themselves in Lua by transfer and {matched:,} have a match there; {both:,} are in both "
        f"groups."
        if both < max(kept, matched)
        else f"The two ways name the same {both:,} of {BASE}'s testable features in Lua."
    )
    if kept > both:
        said += (
            f" So {kept - both:,} features stayed in the model while the second dictionary "
            "described them otherwise"
        )
        said += (
            f", and {matched - both:,} have a match though their own encoder lost sight of them."
            if matched > both
            else "."
        )
    return said


def say_recovered(followed: pd.DataFrame, moves: Mapping[str, float], threshold: float) -> str:
    """From `control_run.find_recovered` and `control_run.moves_in_weights`."""
    recovered = followed[followed["recovered"]]
    by = recovered["kept_by"].value_counts()
    neither = int(by.get("none", 0))
    lua, stories = (int(by.get(child, 0)) for child in ("lua", "tinystories"))
    said = (
        f"{len(recovered):,} of {len(followed):,} testable features were lost in at least one "
        f"child and are themselves in LuaStories: {lua:,} that Lua alone had kept, {stories:,} "
        f"that TinyStories alone had kept, and {neither:,} that both had lost."
    )
    if not len(recovered):
        return said
    if neither:
        said += " The last group shows that merging is more than choosing."
    far = {m: moves[m] for m in ("lua", "tinystories", "merged")}
    nearer = far["merged"] < min(far["lua"], far["tinystories"])
    cosine = moves["cosine"]
    ways = "in much the same direction" if cosine >= ALONG else "in largely different directions"
    said += (
        f" In the space of weights the children moved away from {BASE} by {far['lua']:.1f} (Lua) "
        f"and {far['tinystories']:.1f} (TinyStories), {ways} (cosine {cosine:.2f}), and LuaStories "
        f"lies {far['merged']:.1f} from it, "
        + (
            "nearer than either child: the two moves cancel in part."
            if nearer
            else "not nearer than both children, so the way back is no matter of distance alone."
        )
    )
    worst = recovered[["r_lua", "r_tinystories"]].min(axis=1).median()
    lost = followed[(followed["kept_by"] != "lua+tinystories") & ~followed["recovered"]]
    said += (
        f" In the child where they were worse off, recovered features had a median r of {worst:.2f}"
    )
    if len(lost):
        gone = lost[["r_lua", "r_tinystories"]].min(axis=1).median()
        said += f", those lost for good {gone:.2f}"
        if worst > gone:
            said += (
                f": what came back had changed by degrees, and the threshold of {threshold:g} made "
                "a loss of it"
            )
    return f"{said}."


def say_formatting(kinds: Mapping[str, Estimate]) -> str:
    """Shares of punctuation and layout among groups of features: everything, survivors,
    found_again, kept_by_transfer.
    """
    everything, again = kinds["everything"], kinds["found_again"]
    if again.low > everything.value:
        verdict = (
            "features of this kind are easier to find again in any model, so their excess among "
            "survivors says something about dictionaries, and not about fine-tuning alone"
        )
    elif kinds["survivors"].low > everything.value:
        verdict = "they are no easier to find again than others, so the excess is the models' own"
    else:
        verdict = "here neither number shows an excess"
    return (
        f"Punctuation, white space and marks of beginning and end make up {everything.value:.0%} "
        f"of all testable features, {kinds['survivors']} of those with a match in Lua or "
        f"TinyStories, {again} of those that a second autoencoder of {BASE} finds again, and "
        f"{kinds['kept_by_transfer']} of those that transfer keeps in either child. The third "
        f"number is the control for the second: {verdict}."
    )


# --- controls that train --------------------------------------------------------------------------


def say_off(what: str, parameter: str) -> str:
    return (
        f"This run left {what} out (`{parameter}` is off); `params/controls.yaml` has it on, and "
        "so has `-p " + parameter + " True`."
    )


def say_twin(
    twin: Estimate, ceiling: Estimate, child: Estimate, neurons: tuple[float, float], seconds: float
) -> str:
    """`twin`, `ceiling`, `child`: the base's features found in its twin, by its own second
    autoencoder, and in Lua. `neurons`: shares of neurons with a like one in the twin and in Lua.
    """
    said = (
        f"{BASE}'s features are found in its twin for {twin}, where its own second autoencoder "
        f"finds {ceiling} and Lua has {child}. "
    )
    if child.low > twin.high:
        said += (
            f"Lua keeps more of {BASE} than a second training of the same recipe brings: the child "
            "still has something of its parent as an individual. "
        )
    elif child.high < twin.low:
        said += (
            "By this measure fine-tuning took Lua further from its parent than another training "
            "of the same recipe is; but Lua's dictionary also learned from another text, where the "
            "twin's learned from the same. "
        )
    else:
        said += "Lua and the twin cannot be told apart by this measure. "
    said += (
        f"Of its neurons, {neurons[0]:.0%} have a like one in the twin and {neurons[1]:.0%} in Lua"
    )
    if neurons[1] > 2 * neurons[0]:
        said += ": two trainings agree on few neurons, and fine-tuning leaves far more as they were"
    return f"{said}. This control took {seconds:.0f} s."


def say_other_text(found: Mapping[str, tuple[Estimate, Estimate, Estimate]], seconds: float) -> str:
    """By child in print: the base's features found by the base's own autoencoder trained on the
    child's text, by one trained on its own text (the ceiling), and in the child.
    """
    parts = []
    for child, (other, ceiling, matched) in found.items():
        said = (
            f"Read through a dictionary that learned from {possessive(child)} text, {BASE} itself "
            f"shows {other} of its features, where its own text gives {ceiling} and {child} has "
            f"{matched}"
        )
        gap = ceiling.value - matched.value
        part = min(max((ceiling.value - other.value) / gap, 0.0), 1.0) if gap > 0 else 0.0
        if gap <= 0 or matched.low > other.high:
            verdict = f": {child} has more of them than {BASE} itself under such a dictionary"
        else:
            verdict = (
                f": {part:.0%} of the way from the ceiling down to {child} is the text's doing"
            )
            verdict += (
                ", and the rest the model's"
                if matched.high < other.low
                else ", and the intervals leave room for all of it"
            )
        parts.append(f"{said}{verdict}.")
    return f"{' '.join(parts)} This control took {seconds:.0f} s."


def say_warm(
    warm: Mapping[str, tuple[Estimate, float]], scratch: Mapping[str, float], seconds: float
) -> str:
    """By step in print: share and share of equal indices with a warm start, and the share from
    scratch with equal seeds.
    """
    said = "With a warm start, " + "; ".join(
        f"{step} {share} persist"
        + (f" ({index:.0%} of them under their own index)" if np.isfinite(index) else "")
        for step, (share, index) in warm.items()
    )
    said += ". From scratch and with equal seeds: "
    said += "; ".join(f"{step} {share:.0%}" for step, share in scratch.items())
    more = sum(share.low > scratch[step] for step, (share, _) in warm.items())
    verdict = {
        len(warm): "A dictionary that is led by the parent's finds more of it in every step",
        0: "Being led by the parent's dictionary brings nothing here",
    }.get(more, f"Being led by the parent's dictionary finds more in {more} of {len(warm)} steps")
    return f"{said}. {verdict}. This control took {seconds:.0f} s."


def say_crosscoder(
    overall: Mapping[str, float],
    kinds: pd.DataFrame,
    fvu: Mapping[str, float],
    own_fvu: Mapping[str, float],
    l0: float,
    seconds: float,
) -> str:
    """From `trained_controls.Joint`. `kinds`: shares by step (index) and kind."""
    worse = all(fvu[m] > own_fvu[m] for m in fvu)
    said = (
        f"With {l0:.1f} features per token for all four models together, the crosscoder leaves "
        f"{min(fvu.values()):.0%} to {max(fvu.values()):.0%} of each model's variance unexplained, "
        f"where the models' own autoencoders, with as many for each but trained on their own text "
        f"alone, leave {min(own_fvu.values()):.0%} to {max(own_fvu.values()):.0%}"
        f"{': a common list costs something' if worse else ''}. Of its testable features "
        f"{overall.get('shared', 0.0):.0%} are shared by all four, "
        f"{overall.get('exclusive', 0.0):.0%} are exclusive to one, and the rest are longer in "
        "some models than in others. By step: "
    )
    said += "; ".join(
        f"{step} {row.get('shared', 0.0):.0%} shared, {row.get('parent only', 0.0):.0%} the "
        f"parent's alone, {row.get('child only', 0.0):.0%} the child's alone"
        for step, row in kinds.iterrows()
    )
    return f"{said}. This control took {seconds:.0f} s."


def say_plants(planted: pd.DataFrame) -> str:
    """From `planted_features.count_plants`: how far the crosscoder's words can be trusted."""
    own, common = planted[planted["own"]], planted[~planted["own"]]
    said = (
        f"How far can these words be trusted? Into the activations that it learned from, "
        f"{own['planted'].sum()} features had been planted in one model only and "
        f"{common['planted'].sum()} in all four, from as strong as an average feature of {BASE} "
        f"to {planted['times'].max():g} times that. Of those in one model it found "
        f"{own['found'].sum()} and called {own['exclusive'].sum()} of these exclusive; of those in "
        f"all it found {common['found'].sum()} and called {common['shared'].sum()} of these "
        f"shared and {common['exclusive'].sum()} exclusive. "
    )
    seen = own.loc[own["exclusive"] >= SEES * own["planted"], "times"]
    missed = own["exclusive"].sum() < SEES * own["planted"].sum()
    if missed and len(seen):
        said += (
            f"So it sees what only one model has from {seen.min():g} times the average on, and "
            "its share of exclusive features is a lower bound: weaker ones escape it"
        )
    elif missed:
        said += (
            "So it misses much of what only one model has, and its share of exclusive features is "
            "a lower bound"
        )
    else:
        said += "So it sees nearly all of what only one model has"
    return said + (
        ", and it makes exclusive features up."
        if common["exclusive"].sum()
        else ", and it makes no exclusive feature up."
    )


# --- the end --------------------------------------------------------------------------------------


def say_verdict(
    steps: Mapping[str, StepShares],
    merged: Estimate,
    other_text: Mapping[str, Estimate] | None = None,
) -> str:
    """`steps`: children of the base by their print name; `merged`: by transfer in the merge;
    `other_text`: by child, as in `claims.judge_persistence`.
    """
    ceiling = next(iter(steps.values())).ceiling
    said = (
        f"The instrument finds {ceiling.value:.0%} of {BASE}'s features again when nothing has "
        "changed at all"
    )
    if other_text:
        less = " and ".join(
            f"{s.value:.0%} for {possessive(name)}" for name, s in other_text.items()
        )
        said += f", and when its dictionary learns from a child's text, {less}"
    said += (
        ". A share that persists can only be read beside that, and a feature without a match has, "
        "by itself, shown nothing. "
    )
    kept = " and ".join(f"{s.transfer.value:.0%} in {name}" for name, s in steps.items())
    changed = " and ".join(f"{1 - s.transfer.value:.0%}" for s in steps.values())
    real = [s.transfer.high < UNCHANGED for s in steps.values()]
    said += (
        "But the loss is not all noise. "
        if all(real)
        else "And the loss may be noise altogether. "
        if not any(real)
        else "But not all of the loss is noise in every child. "
    )
    return (
        f"{said}With one dictionary for both models, {kept} of {BASE}'s features stay themselves, "
        f"so {changed} changed past the threshold; in LuaStories {merged.value:.0%} are themselves."
    )


def say_limits(ceiling: float, hidden_size: int, twin: bool) -> str:
    said = "These controls have limits of their own. "
    if ceiling < LOW_CEILING:
        said += (
            "The ceiling is low in this run: two dictionaries of one model agree on few features, "
            "and a ratio of two small shares says little about the many that no second seed finds. "
        )
    said += (
        "A child's autoencoder learns from the child's text, so matching counts as lost what its "
        "dictionary never read. Transfer reads one encoder per parent, trained on its text alone, "
        "and calls changed what that encoder no longer sees in its place. Most of the common text "
        "is foreign to a child, and a feature may change there and nowhere else. The intervals "
        "account for texts and seeds, not for the training of the models themselves, of which "
        "there is one each"
    )
    said += f" and, for {BASE}, one twin. " if twin else ". "
    size = (
        "one small family of models, and the paper's own models are larger"
        if hidden_size < PAPER_WIDTH
        else "one family of models, of the paper's size"
        if hidden_size == PAPER_WIDTH
        else "one family of models, larger than the paper's"
    )
    return f"{said}All of it was measured on {size}."
