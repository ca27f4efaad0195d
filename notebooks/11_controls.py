# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Controls: what the numbers can say
#
# A feature without a match may have left the model. Or the second autoencoder has described the
# same model in other words. Or the match was there and fell short of a threshold that somebody had
# to choose. The share of features that persist does not tell these apart, and the paper, which
# asked the question first, had no reason to expect how large the second possibility is.
#
# *What we ask here:* how much of "disappearing" is real, and what of the paper's picture stands
# once everything that can be held fixed is held fixed?

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
sae_seeds: int = 3  # autoencoders per model that differ in their seed only
threshold: float = 0.8  # correlation from which two features count as one
min_firings: int = 30  # tokens a feature must fire on to be testable
bootstrap: int = 200  # resamples of documents for an interval
merge_method: str = "slerp"  # how the two children were merged
merge_t: float = 0.58  # where LuaStories lies between them
control_step: float = 0.25  # step of t at which features are followed
control_model: bool = False  # train BabyPython a second time, from another seed
control_other_text: bool = True  # train the base's autoencoder on its children's text
control_warm_start: bool = False  # train children's autoencoders from their parent's
control_crosscoder: bool = False  # train a crosscoder over all four models
crosscoder_tokens: int = 500_000  # tokens the crosscoder is trained on

# %%
import pandas as pd
from IPython.display import Markdown

from featlib import claims
from featlib.chapter import start_chapter
from featlib.controls import (
    joint as crosscoder_run,
)
from featlib.controls import run as cr
from featlib.controls import tables as ct
from featlib.controls import (
    text as control_text,
)
from featlib.controls import (
    trained as trained_controls,
)
from featlib.family import PAIRS, PRINT_NAMES
from featlib.matching import ceilings as controls
from featlib.matching import owners as crosscoder_verdicts
from featlib.run import needed
from featlib.show.figure import Markup, table
from featlib.show.hists import hist
from featlib.show.marks import areas, bars, dots, lines
from featlib.show.scales import Axis, t_axis

chapter = start_chapter("11_controls", globals())
p, run_folder = chapter.params, chapter.run
c = cr.open_run(run_folder, p)

# %% [markdown]
# ## Equally sparse?
#
# A denser dictionary fires more alike. One of the paper's TinyStories autoencoders had an L1
# penalty 27 times that of the others, so that persistence and sparsity could not be separated.
# Ours have a fixed number of features per token in training, and thresholds [set anew](06_matching)
# for the common text. What counts is whether they end up equal there.

# %%
sparsity = cr.compare_dictionaries(c)
table(ct.sparsity_table(sparsity))

# %% tags=["remove-input"]
Markdown(control_text.say_sparsity(sparsity))

# %% [markdown]
# ## The same model twice
#
# The *seed ceiling* is the persisting share between two autoencoders of one model: same
# activations, same order, another random start. Whatever they do not share is lost to the
# instrument. Others have measured it: 30% of features are shared at 131,000 features in an
# 8-billion model {cite:p}`paulo2025sparse`, and in a one-layer model the median best correlation
# was 0.72 {cite:p}`bricken2023monosemanticity`.

# %% tags=["hide-input"]
seed_pairs = pd.read_parquet(needed(run_folder.table("seed_pairs")))
each = ct.every_seed_pair(c, seed_pairs)
chapter.figure(
    dots(
        ct.beside_ceilings(c),
        x=Axis("share", "share of testable features", "%", zero=True),
        y="label",
        color="way",
        shape="way",
        beside="way",
        span=("low", "high"),
        each=each,
        columns=2,
    ),
    name="ceilings",
    caption="Share of the parent's testable features that persist in the child, and the share that "
    "a second autoencoder of the parent itself finds again. A tick is one pair of different seeds "
    f"of {p.sae_seeds} autoencoders per model, a dot their mean; 95% intervals over documents and "
    "pairs.",
    alt="; ".join(
        f"{cr.named(*pair)}: {c.share(pair).value:.0%} of at most "
        f"{c.share(pair, 'ceiling').value:.0%}"
        for pair in PAIRS
    ),
    data=each,
)

# %%
table(ct.calibrated_table(c))

# %% [markdown]
# A calibrated ratio of 1 says that the child is no further from its parent than a second
# description of the parent is. It does not say that nothing changed: where the ceiling is low, the
# ratio rests on the few features that any dictionary finds. Nor does a ratio below 1 say that the
# model changed, for the child's dictionary learned from the child's text: how much that alone does
# is measured [below](#the-same-model-other-text).
#
# ## One start for all
#
# The paper's autoencoders all begin with the same random numbers. If that helps them to agree, then
# matches carry the same *index* in both dictionaries more often than chance. The table has one pair
# of autoencoders for each step.

# %% tags=["hide-input"]
fates = {(a, b): c.fates(a, 0, b, 1) for a, b in PAIRS}
same_start = {(a, b): c.fates(a, 0, b, 0) for a, b in PAIRS}
itself = c.fates("base", 0, "base", 1)
table(ct.index_table(c, same_start, fates))

# %% [markdown]
# ## Nothing to find
#
# Three comparisons in which no feature can rightly persist. The child's activations are *shifted*
# around within each document, or its *documents are permuted*; or the child's dictionary is
# replaced by *random directions* that fire exactly as often. A feature that still passes the
# threshold is a false alarm. Beside them stands their opposite, a comparison in which all could
# persist and which needs no dictionary at all: the *neurons* of parent and child, which fine-tuning
# moves but never reorders.

# %% tags=["hide-input"]
nothing = cr.run_nulls(c)
chapter.figure(
    lines(
        nothing.by_firings().query("firings > 0"),
        x=Axis("firings", "tokens on which the feature fires", "~s", log=True),
        y=Axis("share", "passes by chance", "%", zero=True),
        color="null",
        points=True,
        rule=(p.min_firings, f"testable from {p.min_firings} on"),
        columns=1,
        height=220,
    ),
    name="nulls-by-firings",
    caption="Share of features whose best correlation passes the threshold though nothing real can "
    "match, by the number of tokens on which the feature fires (bins of a factor of two; the rare "
    "end comes from an eighth and a sixty-fourth of the text). The rule is where features become "
    "testable.",
    alt=f"Of testable features {nothing.shuffled:.2%} pass at most where tokens are out of step, "
    f"and {nothing.random:.1%} against random directions.",
    data=nothing.by_firings(),
)

# %% [markdown]
# Counted over shared tokens only, as in the authors' first script, a correlation would pass by
# chance with near certainty at ten tokens: see the figure in [Matching](06_matching). Here it is
# counted over all tokens, zeros included.

# %% tags=["hide-input"]
neurons = {(a, b): cr.compare_neurons(c, c.models[a], c.models[b]) for a, b in PAIRS}
table(ct.null_table(nothing, neurons))

# %% tags=["remove-input"]
about = cr.classes_of_features(c)
matched_lua = cr.persisting(fates["base", "lua"])
Markdown(
    control_text.say_nulls(
        nothing.shuffled,
        nothing.random,
        int(matched_lua.sum()),
        int((matched_lua & nothing.easy).sum()),
        cr.share_formatting(about, nothing.easy & c.testable),
        ct.common_token(c, nothing.easy & c.testable),
    )
)

# %% [markdown]
# ## One dictionary, two models
#
# The instrument's noise can be taken out altogether. The parent's own autoencoder is applied to the
# child's activations, and each feature is correlated with *itself*, before and after. There is no
# second dictionary, hence none that could have described things in other words. What is lost here
# is lost in the model.

# %% tags=["hide-input"]
moved = cr.run_transfers(c)
shares = c.save("control_shares", ct.four_ways(c, moved, neurons))
chapter.figure(
    dots(
        shares,
        x=Axis("share", "share of testable features", "%", zero=True),
        y="label",
        color="way",
        shape="way",
        beside="way",
        span=("low", "high"),
        columns=2,
    ),
    name="transfer",
    caption="Persisting shares measured in four ways. Transfer reads both models with the parent's "
    "own dictionary; the dot for neurons uses no dictionary.",
    alt="; ".join(
        f"{cr.named(*pair)}: {c.share(pair).value:.0%} by matching, {t.value:.0%} by transfer"
        for pair, t in moved.shares.items()
    ),
    data=shares.drop(columns=["parent", "child"]),
)

# %% tags=["remove-input"]
Markdown(control_text.say_transfer(*ct.both_ways(fates["base", "lua"], moved.fates["base", "lua"])))

# %% [markdown]
# Transfer is strict in a way of its own. An encoder reads a direction, and where a child has moved
# a feature the encoder that stayed behind loses sight of it, though a newly trained one would have
# followed. Matching asks whether the child has such a feature; transfer asks whether it has it in
# the same place. And a feature may stay in place and serve another purpose, which neither would
# notice: for that the case studies ablate.
#
# ## Through the merge, and back
#
# The same can be done at every t between the children: one dictionary, BabyPython's, read in every
# merged model. A feature that Lua or TinyStories had lost may be itself again in their merge.

# %% tags=["hide-input"]
kept = cr.follow_through_merge(c, moved)
ends = kept.set_index("t")["kept"]
ENDS = {"both": "both ends", "one": "one end", "none": "neither end"}
by_ends = kept.rename(columns=ENDS).melt("t", list(ENDS.values()), "kept by", "share")
chapter.figure(
    areas(
        by_ends,
        x=t_axis(),
        y=Axis("share", "share of testable features", "%"),
        color="kept by",
        rule=(p.merge_t, f"used: t = {p.merge_t:g}"),
        columns=3,
    ),
    name="kept-along-t",
    caption="Share of BabyPython's testable features that are themselves in the merge at t, by how "
    "many of the two children had kept them. What both children lost and the merge has again is "
    "marked as kept by neither end.",
    alt=f"{ends[0.0]:.0%} of the features are themselves in Lua, {ends[1.0]:.0%} in TinyStories, "
    f"and {ends.max():.0%} in the merge at t = {ends.idxmax():.2f}.",
    data=kept,
)

# %%
followed = c.save("recovered", cr.find_recovered(c, moved))
table(ct.recovered_table(followed), digits=3)

# %% tags=["remove-input"]
Markdown(control_text.say_recovered(followed, cr.moves_in_weights(c), p.threshold))

# %% [markdown]
# Which features come back? The clearest cases, by what they fire on in BabyPython, with their
# correlation with themselves in each model. All of them stand in the run's
# `tables/recovered.parquet`.

# %% tags=["hide-input"]
table(ct.recovered_examples(c, followed), digits=2)

# %% [markdown]
# ## Where the threshold lies
#
# The threshold is a convention. The next figure moves it.

# %% tags=["hide-input"]
measures = {("BabyPython, two seeds", ct.CEILING): itself}
for pair in cr.STEPS[:2]:
    measures |= {
        (cr.named(*pair), "matching"): fates[pair],
        (cr.named(*pair), "transfer"): moved.fates[pair],
    }
curves = ct.by_threshold(measures)
chapter.figure(
    lines(
        curves,
        x=Axis("threshold", "correlation from which two features count as one", ".1f"),
        y=Axis("share", "share of testable features", "%", zero=True),
        color="way",
        dash="label",
        rule=(p.threshold, f"in use: {p.threshold:g}"),
        columns=1,
    ),
    name="thresholds",
    caption="Share of BabyPython's testable features that persist, for thresholds from 0.5 to "
    "0.95, with the ceiling of two seeds beside it. One pair of seeds.",
    alt="Share that persists at 0.5 and at 0.95: "
    + "; ".join(
        f"{label} ({way}) {curve['share'].iloc[0]:.0%} and {curve['share'].iloc[-1]:.0%}"
        for (label, way), curve in curves.groupby(["label", "way"], sort=False)
    ),
    data=curves,
)

# %% [markdown]
# ## What survivors are about
#
# The paper reads the features that persist and finds mostly punctuation and formatting. Here every
# feature is given the class of token on which most of its activation lies. Classes follow from the
# token and the kind of text around it: in Python and Lua a word is a keyword or an identifier, also
# inside strings and comments.

# %% tags=["hide-input"]
compared = {
    "matching": fates["base", "lua"],
    ct.CEILING: itself,
    "transfer": moved.fates["base", "lua"],
}
by_class = ct.by_group(compared, about)
chapter.figure(
    dots(
        by_class,
        x=Axis("share", "share of testable features", "%", zero=True),
        y="label",
        color="way",
        shape="way",
        beside="way",
        span=("low", "high"),
        columns=2,
    ),
    name="persistence-by-class",
    caption="Share of BabyPython's testable features that persist in Lua, by the class of token "
    "they are about, with the share that a second autoencoder of BabyPython finds again. One pair "
    "of seeds; 95% intervals take features as independent.",
    alt="Persist in Lua by matching: "
    + "; ".join(
        f"{x.label} {x.share:.0%} of {x.testable}"
        for x in by_class[by_class["way"] == "matching"].itertuples()
    ),
    data=by_class,
)

# %% tags=["hide-input"]
by_density = ct.by_group(compared, controls.density_bins(c.firings, c.stream.n_tokens))
by_density["label"] = by_density["label"].astype(str) + " per token"
chapter.figure(
    dots(
        by_density,
        x=Axis("share", "share of testable features", "%", zero=True),
        y="label",
        color="way",
        shape="way",
        beside="way",
        span=("low", "high"),
        columns=2,
    ),
    name="persistence-by-density",
    caption="The same by how often a feature fires, in firings per token.",
    alt="Persist in Lua by matching: "
    + "; ".join(
        f"density {x.label} {x.share:.0%}"
        for x in by_density[by_density["way"] == "matching"].itertuples()
    ),
    data=by_density,
)

# %% tags=["remove-input"]
chosen = {
    "everything": c.testable,
    "survivors": cr.persisting(*(fates[pair] for pair in cr.STEPS[:2])),
    "found_again": cr.persisting(itself),
    "kept_by_transfer": cr.persisting(*(moved.fates[pair] for pair in cr.STEPS[:2])),
}
kinds = {name: cr.share_formatting(about, features) for name, features in chosen.items()}
Markdown(control_text.say_formatting(kinds))

# %% [markdown]
# ## More controls, at the price of more training
#
# Four further controls train something of their own. All but the first are off by default, to keep
# the whole book within minutes; the run `params/controls.yaml` has them, and says what they cost.
#
# (the-same-model-other-text)=
# **The same model, other text.** A child's autoencoder learns from the child's text, as in the
# paper. So a feature of Python may be missing from Lua's dictionary because Lua lost it, or because
# the dictionary never read Python. Here the model stays BabyPython, and only its autoencoder is
# trained on each child's text.

# %% tags=["remove-input"]
other_text = trained_controls.train_on_other_text(c) if p.control_other_text else {}
Markdown(
    control_text.say_other_text(
        {
            PRINT_NAMES[child]: (
                found.share,
                c.share(("base", child), "ceiling"),
                c.share(("base", child)),
            )
            for child, found in other_text.items()
        },
        sum(found.seconds for found in other_text.values()),
    )
    if other_text
    else control_text.say_off("other text", "control_other_text")
)

# %% [markdown]
# **The same recipe twice.** BabyPython is trained a second time, from another seed and with its
# text in another order, and gets autoencoders of its own. Features that even this twin lacks were
# never the recipe's to keep. A fine-tuned child that shares more with BabyPython than its twin does
# has kept something of its parent as an individual.

# %% tags=["remove-input"]
twin = trained_controls.train_twin(c) if p.control_model else None
Markdown(
    control_text.say_twin(
        twin.share,
        c.share(("base", "lua"), "ceiling"),
        c.share(("base", "lua")),
        (twin.neurons, neurons["base", "lua"]),
        twin.seconds,
    )
    if twin
    else control_text.say_off("the twin", "control_model")
)

# %% [markdown]
# **A warm start.** A child's autoencoder that starts from its parent's, instead of from random
# numbers, can follow features that moved a little and need not invent a new description of those
# that did not. It is meant to be kind to persistence, and it may be too kind: a feature that the
# child no longer has leaves its direction behind for something similar to settle in.

# %% tags=["remove-input"]
warm = trained_controls.train_warm_starts(c) if p.control_warm_start else {}
Markdown(
    control_text.say_warm(
        {cr.named(*pair): (w.share, w.same_index) for pair, w in warm.items()},
        {cr.named(*pair): same_start[pair].persist for pair in warm},
        sum(w.seconds for w in warm.values()),
    )
    if warm
    else control_text.say_off("the warm start", "control_warm_start")
)

# %% tags=["hide-input"]
trained = trained_controls.trained_shares(c, moved, twin, other_text, warm)
shown = None  # nothing to show
if len(trained):
    shown = chapter.figure(
        dots(
            trained,
            x=Axis("share", "share of testable features", "%", zero=True),
            y="label",
            color="way",
            shape="way",
            beside="way",
            span=("low", "high"),
            columns=2,
        ),
        name="trained-controls",
        caption="Shares by the controls that train a model or an autoencoder of their own, beside "
        "those from above.",
        alt="; ".join(f"{x.label}, {x.way}: {x.share:.0%}" for x in trained.itertuples()),
        data=trained,
    )
shown

# %% [markdown]
# **A second opinion.** A *crosscoder* {cite:p}`lindsey2024crosscoders` is one dictionary for
# all four models at once: it reads their activations on the same token together, and writes each
# feature back into each model with a length of its own. Nothing needs to be matched. A feature that
# a model lacks has length 0 there. Crosscoders trained with an L1 penalty are known to invent
# exclusive features, because the penalty shrinks a length to 0 where it could only be small
# {cite:p}`minder2025crosscoders`; with BatchTopK, used here, there is no such penalty. There is an
# error on the other side. What a feature has at the start and does not need, it has to unlearn: a
# crosscoder that starts with every feature in all models, and is trained briefly, calls everything
# shared. Ours starts with half of its features in one model only. And features of known owners are
# planted into the activations, to see what becomes of them.

# %% tags=["hide-input"]
OWNERS = ["parent only", "more in one", "shared", "child only"]
joint = crosscoder_run.train_joint(c) if p.control_crosscoder else None
if joint:
    owners = joint.kinds().rename(columns={"between": "more in one"}).fillna(0.0).reset_index()
    owners = owners.melt("label", OWNERS, "whose", "share")
    shown = chapter.figure(
        bars(
            owners,
            x=Axis("share", "share of the crosscoder's testable features", "%", domain=(0, 1)),
            y="label",
            color="whose",
            columns=2,
        ),
        name="crosscoder",
        caption="What the crosscoder's features are to a parent and its child, by the child's part "
        f"of the two lengths: up to {crosscoder_verdicts.ABSENT:g} the parent's alone, between "
        f"{crosscoder_verdicts.SHARED[0]:g} and {crosscoder_verdicts.SHARED[1]:g} shared, from "
        f"{1 - crosscoder_verdicts.ABSENT:g} the child's alone.",
        alt="Shared by parent and child: "
        + "; ".join(f"{label} {row['shared']:.0%}" for label, row in joint.kinds().iterrows()),
        data=joint.kinds().reset_index(),
    )
else:
    shown = Markdown(control_text.say_off("the crosscoder", "control_crosscoder"))
shown

# %% tags=["remove-input"]
said = ""
if joint:
    said = control_text.say_crosscoder(
        joint.overall(), joint.kinds(), joint.fvu, joint.own_fvu, joint.l0, joint.seconds
    )
    said += "\n\n" + control_text.say_plants(joint.planted)
Markdown(said) if said else None

# %% tags=["remove-input"]
table(ct.plants_table(joint.planted)) if joint else None

# %% tags=["hide-input"]
shown = None  # nothing to show
if joint:
    shown = chapter.figure(
        hist(
            joint.norms(),
            x=Axis(
                "relative",
                "child's part of the two decoder norms",
                ".2~f",
                domain=(0, 1),
                values=(0, 0.25, 0.5, 0.75, 1),
                words={0: "parent only", 1: "child only"},
            ),
            edges=[n / 20 for n in range(21)],
            color="label",
            columns=1,
        ),
        name="crosscoder-lengths",
        caption="The same features by how they divide their length between a parent and its child: "
        "0 is written in the parent only, 1 in the child only, a half in both alike.",
        alt="Median part of the child: "
        + "; ".join(
            f"{label} {part.median():.2f}"
            for label, part in joint.norms().groupby("label", sort=False)["relative"]
        ),
    )
shown

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
down = {PRINT_NAMES[child]: ct.step_shares(c, moved, ("base", child)) for child in cr.CHILDREN}
into = {PRINT_NAMES[child]: ct.step_shares(c, moved, (child, "merged")) for child in cr.CHILDREN}
through_text = {PRINT_NAMES[child]: found.share for child, found in other_text.items()}
hidden_size = c.models["base"].config.hidden_size
ceiling = c.share(("base", "lua"), "ceiling")
Markdown(
    "\n\n".join(
        [
            control_text.say_verdict(down, moved.shares["base", "merged"], through_text),
            control_text.say_limits(ceiling.value, hidden_size, twin is not None),
            "The authors asked early which features live through adaptation, and built the "
            "pipeline that this book repeats. What the controls add is a scale to read it by.",
        ]
    )
)

# %% tags=["remove-input"]
mean_index = {
    how: pd.Series([f.same_index for f in table.values()]).mean()
    for how, table in (("equal", same_start), ("different", fates))
}
matched = sum(fates[pair].persist for pair in cr.STEPS[:2]) / 2
recovered = int(followed["recovered"].sum())
children = {PRINT_NAMES[child]: moved.shares["base", child] for child in cr.CHILDREN}
verdicts = {
    "Few features persist through fine-tuning.": claims.judge_persistence(down, through_text),
    "A feature without a match has disappeared.": claims.judge_loss(down),
    f"Features that correlate at {p.threshold:g} or more are the same.": claims.judge_matches(
        nothing.shuffled, nothing.random, matched
    ),
    "What persists is mostly punctuation and formatting.": claims.judge_formatting(**kinds),
    "Merging dilutes features.": claims.judge_merge(
        into, moved.shares["base", "merged"], children, recovered, len(followed)
    ),
    "One seed serves all autoencoders (a choice, not a claim).": claims.judge_index(
        **mean_index, chance=1 / len(c.firings)
    ),
}
Markup(claims.claims_html(c.save("claims", claims.claims_table(verdicts))))

# %% tags=["remove-input"]
chapter.finish(
    ct.control_metrics(moved, neurons, nothing, followed, kinds, float(ends[p.merge_t]))
    | trained_controls.trained_metrics(twin, other_text, warm)
    | (joint.metrics() if joint else {})
)
