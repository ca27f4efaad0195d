# %% [markdown]
# # Controls: what the numbers can say
#
# A {term}`feature` without a {term}`match` may have left the model. Or the second
# {term}`autoencoder` has described the same model in other words. Or the match was there and fell
# short of a threshold that somebody had to choose. The share of features that {term}`persist` does
# not tell these apart, and the paper, which asked the question first, had no reason to expect how
# large the second possibility is.
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
from IPython.display import display

from featlib.chapter import prose, start_chapter
from featlib.controls import run as controls
from featlib.controls import tables, trained
from featlib.controls.tables import pct
from featlib.estimate import Estimate
from featlib.family import BASE, CHILDREN, MERGE_OF, MERGED, PAIRS, PRINT_NAMES, STEPS, step_name
from featlib.matching import ceilings, owners
from featlib.show.figure import table
from featlib.show.hists import hist
from featlib.show.marks import areas, bars, dots, lines
from featlib.show.scales import Axis, t_axis
from featlib.verdicts import BARS, CLAIMS, Findings, Step, judge_claim

chapter = start_chapter("11_controls", globals())
p, run_folder = chapter.params, chapter.run
c = controls.open_run(run_folder, p)
one = CHILDREN[0]  # where one child is looked at closely; any would do
BY_WAY = {
    "x": Axis("share", "share of testable features", "%", zero=True),
    "y": "label",
    **dict.fromkeys(("color", "shape", "beside"), "way"),
    "span": ("low", "high"),
    "columns": 2,
}


def say(template: str):
    """`prose` of this notebook's numbers."""
    return prose(template, **globals())


# %% [markdown]
# ## Equally sparse?
#
# A denser {term}`dictionary` {term}`fires <fire>` more alike. One of the paper's TinyStories
# autoencoders had an L1 penalty 27 times that of the others, so that persistence and sparsity could
# not be separated. Ours have a fixed number of features per {term}`token` in training, and
# thresholds [set anew](06_matching) for the common text. What counts is whether they end up equal
# there.

# %%
sparsity = controls.compare_dictionaries(c)
columns = {"own_l0": "L0, own text", "l0": "L0, common text", "own_fvu": "FVU, own text"}
by_model = sparsity.groupby("model", sort=False)[list(columns)].agg(tables.span)
table(by_model.rename(columns=columns, index=PRINT_NAMES).reset_index())

# %% tags=["remove-input"]
spread = sparsity["l0"].max() / sparsity["l0"].min() - 1
say("""\
On the common text, from which all shares are taken, L0 differs by {{ spread | pct }} between the
{{ sparsity | length }} autoencoders. Up to {{ BARS.equal_l0 | pct }} we call it equal, so
{{ "no share below is a share of sparsity." if spread <= BARS.equal_l0 else
   "the shares below mix persistence with sparsity." }}""")

# %% [markdown]
# ## The same model twice
#
# The *{term}`seed ceiling`* is the persisting share between two autoencoders of one model: same
# {term}`activations <activation>`, same order, another random start. Whatever they do not share is
# lost to the instrument. Others have measured it: 30% of features are shared at 131,000 features in
# an 8-billion model {cite:p}`paulo2025sparse`, and in a one-layer model the median best correlation
# was 0.72 {cite:p}`bricken2023monosemanticity`.

# %% tags=["hide-input"]
persist, ceiling, calibrated = (
    {pair: c.share(pair, kind) for pair in PAIRS} for kind in ("persist", "ceiling", "calibrated")
)
each = tables.every_seed_pair(c)
beside = tables.by_step({"matching": persist, tables.CEILING: ceiling})
chapter.figure(
    dots(beside, **BY_WAY, each=each),
    name="ceilings",
    caption="Share of the parent's testable features that persist in the child, and the share that "
    "a second autoencoder of the parent itself finds again. A tick is one pair of different seeds "
    f"of {p.sae_seeds} autoencoders per model, a dot their mean; 95% intervals over documents and "
    "pairs.",
    alt=tables.told(beside),
    data=each,
)

# %%
ratio = "calibrated: persist / ceiling"
table(tables.of_steps({"persist": persist, "seed ceiling": ceiling, ratio: calibrated}))

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
fates = controls.read_fates(c)
same_start = {(a, b): c.compare(a, 0, b, 0) for a, b in PAIRS}
itself = c.compare(BASE, 0, BASE, 1)
columns = {}
for how, by in (("equal seeds", same_start), ("different seeds", fates)):
    columns[f"persist, {how}"] = {pair: pct(f.persist, 1) for pair, f in by.items()}
    columns[f"same index, {how}"] = {pair: pct(f.same_index, 1) for pair, f in by.items()}
table(tables.of_steps(columns))

# %% [markdown]
# ## Nothing to find
#
# Three comparisons in which no feature can rightly persist. The child's activations are *shifted*
# around within each document, or its *documents are permuted*; or the child's dictionary is
# replaced by *random directions* that fire exactly as often. A feature that still passes the
# threshold is a false alarm. Beside them stands their opposite, a comparison in which all could
# persist and which needs no dictionary at all: the *{term}`neurons <neuron>`* of parent and child,
# which {term}`fine-tuning` moves but never reorders.

# %% tags=["hide-input"]
nothing = controls.run_nulls(c)
chapter.figure(
    lines(
        nothing.by_firings(),
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
neurons = controls.compare_neurons(c, c.models, PAIRS)
passing = nothing.by_step.map("{:.2%}".format)
by_null = {null: {x: passing.get((null, *x), "–") for x in STEPS} for null in controls.NULLS}
alike = {"neurons, for comparison": {x: f"{neurons[x]:.0%}" for x in STEPS}}
table(tables.of_steps(by_null | alike))

# %% tags=["remove-input"]
about = controls.classes_of_features(c)
matched = controls.persisting(fates[BASE, one])
anything = nothing.easy(one) & c.testable  # features that random directions match as well
formatting = controls.share_formatting(about, anything)
say("""\
{% if nothing.shuffled == 0 %}
Out of step, no feature passes: no match is a coincidence of tokens.
{% else %}
Out of step, {{ nothing.shuffled | pct(2) }} of the features pass at most, which is what coincidence
alone gives.
{% endif %}
{% if anything.any() %}
A feature that random directions match needs nothing learned: the tokens it fires on excite the
model so much that any direction picks them out, and it finds a partner everywhere. Of these
features {{ formatting.value | pct }} are about punctuation and layout, most often
{{ tables.common_token(c, anything) }}. Of the {{ matched.sum() | num(0) }} features with a match in
{{ PRINT_NAMES[one] }}, {{ (matched * nothing.easy(one)).sum() | num(0) }} are of this kind.
{% endif %}""")

# %% [markdown]
# ## One dictionary, two models
#
# The instrument's noise can be taken out altogether. The parent's own autoencoder is applied to the
# child's activations, and each feature is correlated with *itself*, before and after. There is no
# second dictionary, hence none that could have described things in other words. What is lost here
# is lost to the parent's own way of reading; how much of that any further training would cost,
# also one on the parent's own text, this book has not measured yet.

# %% tags=["hide-input"]
moved = controls.run_transfers(c)
by_neurons = {pair: Estimate(share) for pair, share in neurons.items()}
ways = {"matching": persist, tables.CEILING: ceiling, "transfer": moved.shares}
shares = run_folder.save_table("control_shares", tables.by_step(ways | {"neurons": by_neurons}))
chapter.figure(
    dots(shares, **BY_WAY),
    name="transfer",
    caption="Persisting shares measured in four ways. Transfer reads both models with the parent's "
    "own dictionary; the dot for neurons uses no dictionary.",
    alt=tables.told(shares),
    data=shares,
)

# %% tags=["remove-input"]
stayed = controls.persisting(moved.fates[BASE, one])
both, only_stayed, only_matched = (
    int(x.sum()) for x in (stayed & matched, stayed & ~matched, matched & ~stayed)
)
say("""\
Do the two ways name the same features? Of BabyPython's testable ones, {{ both | num(0) }} have a
match in {{ PRINT_NAMES[one] }} and are themselves there by transfer, {{ only_stayed | num(0) }}
stayed in the model while the second dictionary described them otherwise, and
{{ only_matched | num(0) }} have a match though their own encoder lost sight of them.""")

# %% [markdown]
# Transfer is strict in a way of its own. An encoder reads a direction, and where a child has moved
# a feature the encoder that stayed behind loses sight of it, though a newly trained one would have
# followed. Matching asks whether the child has such a feature; {term}`transfer` asks whether it has
# it in the same place. And a feature may stay in place and serve another purpose, which neither
# would notice: for that the case studies ablate.
#
# ## Through the merge, and back
#
# The same can be done at every t between the children: one dictionary, BabyPython's, read in every
# merged model. A feature that Lua or TinyStories had lost may be itself again in their merge.

# %% tags=["hide-input"]
kept = controls.follow_through_merge(c, moved)
ends = kept.set_index("t")["kept"]
ENDS = {"both": "both ends", "one": "one end", "none": "neither end"}
chapter.figure(
    areas(
        kept.rename(columns=ENDS).melt("t", list(ENDS.values()), "kept by", "share"),
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
    alt="; ".join(
        f"{ends[float(t)]:.0%} of the features are themselves in {PRINT_NAMES[end]}"
        for t, end in enumerate(MERGE_OF)
    )
    + f"; {ends.max():.0%} in the merge at t = {ends.idxmax():.2f}.",
    data=kept,
)

# %%
followed = run_folder.save_table("recovered", controls.find_recovered(c, moved))
groups = followed.groupby("kept_by", observed=True)["in_merged"].agg(["size", "sum", "mean"])
groups.columns = ["features", f"in {PRINT_NAMES[MERGED]}", "share"]
table(groups.rename(tables.in_print).reset_index(names="kept by"), digits=3)

# %% tags=["remove-input"]
recovered, moves = followed[followed["recovered"]], controls.moves_in_weights(c)
neither = (recovered["kept_by"] == "none").sum()
worst = followed[[f"r_{end}" for end in MERGE_OF]].min(axis=1)  # where it was worse off
lost = ~followed["in_merged"] & (worst < p.threshold)
back, gone = worst[followed["recovered"]].median(), worst[lost].median()
nearer = moves[MERGED] < min(moves[end] for end in MERGE_OF)
far = [f"{moves[end]:.1f} ({PRINT_NAMES[end]})" for end in MERGE_OF]
say("""\
{{ recovered | length }} of {{ followed | length }} testable features were lost in at least one
child and are themselves in their merge.
{% if neither %}
That {{ neither }} of them had been lost in both shows that merging is more than choosing.
{% endif %}
{% if recovered | length %}
In the space of weights the children moved away from BabyPython by {{ far | listed }}, in
{{ "much the same direction" if moves.cosine >= BARS.same_way else "largely different directions" }}
(cosine {{ moves.cosine | num }}), and the merge lies {{ moves[MERGED] | num(1) }} from it,
{{ "nearer than either child: the two moves cancel in part." if nearer else
   "not nearer than both, so the way back is no matter of distance alone." }}
In the child where they were worse off, recovered features had a median r of {{ back | num }}
{%- if gone >= 0 %}, those lost for good {{ gone | num }}{% endif %}
{%- if back > gone %}: what came back had changed by degrees, and the threshold of {{ p.threshold }}
made a loss of it{% endif %}.
{% endif %}""")

# %% [markdown]
# Which features come back? The clearest cases, by what they fire on in BabyPython, with their
# correlation with themselves in each model. All of them stand in the run's
# `tables/recovered.parquet`.

# %% tags=["hide-input"]
table(tables.recovered_examples(c, followed), digits=2)

# %% [markdown]
# ## Where the threshold lies
#
# The threshold is a convention. The next figure moves it.

# %% tags=["hide-input"]
down = [(BASE, child) for child in CHILDREN]
measures = {("BabyPython, two seeds", tables.CEILING): itself}
for pair in down:
    measures |= {
        (step_name(*pair), "matching"): fates[pair],
        (step_name(*pair), "transfer"): moved.fates[pair],
    }
curves = tables.by_threshold(measures)
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
matching, transfer = fates[BASE, one], moved.fates[BASE, one]
compared = {"matching": matching, tables.CEILING: itself, "transfer": transfer}
by_class = tables.by_group(compared, about)
chapter.figure(
    dots(by_class, **BY_WAY),
    name="persistence-by-class",
    caption=f"Share of BabyPython's testable features that persist in {PRINT_NAMES[one]}, by the "
    "class of token they are about, with the share that a second autoencoder of BabyPython finds "
    "again. One pair of seeds; 95% intervals take features as independent.",
    alt=tables.told(by_class),
    data=by_class,
)

# %% tags=["hide-input"]
by_density = tables.by_group(compared, ceilings.density_bins(c.firings, c.stream.n_tokens))
by_density["label"] = by_density["label"].astype(str) + " per token"
chapter.figure(
    dots(by_density, **BY_WAY),
    name="persistence-by-density",
    caption="The same by how often a feature fires, in firings per token.",
    alt=tables.told(by_density),
    data=by_density,
)

# %% tags=["remove-input"]
groups = {
    "everything": c.testable,
    "survivors": controls.persisting(*(fates[pair] for pair in down)),
    "found_again": controls.persisting(itself),
    "kept_by_transfer": controls.persisting(*(moved.fates[pair] for pair in down)),
}
kinds = {name: controls.share_formatting(about, features) for name, features in groups.items()}
say("""\
Punctuation, white space and marks of beginning and end make up {{ kinds.everything.value | pct }}
of all testable features, {{ kinds.survivors }} of those with a match in a child,
{{ kinds.found_again }} of those that a second autoencoder of BabyPython finds again, and
{{ kinds.kept_by_transfer }} of those that transfer keeps in a child. The third number is the
control for the second:
{% if kinds.found_again.low > kinds.everything.value %}
features of this kind are easier to find again in any model, so their excess among survivors says
something about dictionaries, and not about fine-tuning alone.
{% elif kinds.survivors.low > kinds.everything.value %}
they are no easier to find again than others, so the excess is the models' own.
{% else %}
here neither number shows an excess.
{% endif %}""")

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
OFF = "This run left it out; `params/controls.yaml` has it on, and so has `-p {} True`."
through = trained.train_on_other_text(c) if p.control_other_text else {}
say("""\
{% for pair, other in through.items() %}
{% set child, top, end = PRINT_NAMES[pair[1]], ceiling[pair], persist[pair] %}
- Through a dictionary that learned from the text of {{ child }}, BabyPython itself shows
  {{ other }} of its features, where its own text gives {{ top }} and {{ child }} has {{ end }}.
{% if top.value <= end.value or end.low > other.high %}
  {{ child }} has more of them than BabyPython itself under such a dictionary.
{% else %}
  So {{ [[(top.value - other.value) / (top.value - end.value), 0] | max, 1] | min | pct }} of the
  way from the ceiling down to {{ child }} is the text's doing, and
  {{ "the rest the model's" if end.high < other.low else "intervals leave room for all of it" }}.
{% endif %}
{% else %}{{ OFF.format("control_other_text") }}{% endfor %}""")

# %% [markdown]
# **The same recipe twice.** BabyPython is trained a second time, from another seed and with its
# text in another order, and gets autoencoders of its own. Features that even this twin lacks were
# never the recipe's to keep. A fine-tuned child that shares more with BabyPython than its twin does
# has kept something of its parent as an individual.

# %% tags=["remove-input"]
twin = trained.train_twin(c) if p.control_model else None
say("""\
{% if twin %}
{% set child, share, same = PRINT_NAMES[one], persist[BASE, one], neurons[BASE, one] %}
Of BabyPython's features {{ child }} has {{ share }}, and the twin {{ twin[0] }}.
{% if share.low > twin[0].high %}
{{ child }} keeps more than a second training of the same recipe brings: it still has something of
its parent as an individual.
{% elif share.high < twin[0].low %}
By this measure fine-tuning took {{ child }} further from its parent than another training of the
same recipe is; but its dictionary learned from another text, and the twin's from the same.
{% else %}
The two cannot be told apart by this measure.
{% endif %}
Of the neurons, {{ twin[1] | pct }} have a like one in the twin and {{ same | pct }} in
{{ child }}{% if same > 2 * twin[1] %}: two trainings agree on few neurons, and fine-tuning
leaves far more as they were{% endif %}.
{% else %}{{ OFF.format("control_model") }}{% endif %}""")

# %% [markdown]
# **A warm start.** A child's autoencoder that starts from its parent's, instead of from random
# numbers, can follow features that moved a little and need not invent a new description of those
# that did not. It is meant to be kind to persistence, and it may be too kind: a feature that the
# child no longer has leaves its direction behind for something similar to settle in.

# %% tags=["remove-input"]
led = trained.train_warm_starts(c) if p.control_warm_start else {}
warm = {pair: share for pair, (_, share) in led.items()}
more = sum(share.low > same_start[pair].persist for pair, share in warm.items())
index = [f.same_index for f, _ in led.values() if f.same_index >= 0]
say("""\
{% if warm %}
Beside an autoencoder that starts from scratch with the parent's seed, being led by the parent's
dictionary finds more in {{ more }} of {{ warm | length }} steps
{%- if index %}, and {{ index | min | pct }} to {{ index | max | pct }} of its matches stand under
the parent's own index{% endif %}.
{% else %}{{ OFF.format("control_warm_start") }}{% endif %}""")

# %% tags=["hide-input"]
beside = trained.beside_others(ways, twin, through, warm)
if len(beside):
    display(
        chapter.figure(
            dots(beside, **BY_WAY),
            name="trained-controls",
            caption="Shares by the controls that train a model or an autoencoder of their own, "
            "beside those from above.",
            alt=tables.told(beside),
            data=beside,
        )
    )

# %% [markdown]
# **A second opinion.** A *{term}`crosscoder`* {cite:p}`lindsey2024crosscoders` is one dictionary
# for all four models at once: it reads their activations on the same token together, and writes
# each feature back into each model with a length of its own. Nothing needs to be matched. A feature
# that a model lacks has length 0 there. Crosscoders trained with an L1 penalty are known to invent
# exclusive features, because the penalty shrinks a length to 0 where it could only be small
# {cite:p}`minder2025crosscoders`; with {term}`BatchTopK`, used here, there is no such penalty.
# There is an error on the other side. What a feature has at the start and does not need, it has to
# unlearn: a crosscoder that starts with every feature in all models, and is trained briefly, calls
# everything shared. Ours starts with half of its features in one model only. And features of known
# owners are planted into the activations, to see what becomes of them.

# %% tags=["hide-input"]
OWNERS = ["parent only", "more in one", "shared", "child only"]
joint = trained.train_joint(c) if p.control_crosscoder else None
if joint:
    whose = joint.kinds.rename(columns={"between": "more in one"}).fillna(0.0).reset_index()
    figure = chapter.figure(
        bars(
            whose.melt("label", OWNERS, "whose", "share"),
            x=Axis("share", "share of the crosscoder's testable features", "%", domain=(0, 1)),
            y="label",
            color="whose",
            columns=2,
        ),
        name="crosscoder",
        caption="What the crosscoder's features are to a parent and its child, by the child's part "
        f"of the two lengths: up to {owners.ABSENT:g} the parent's alone, between "
        f"{owners.SHARED[0]:g} and {owners.SHARED[1]:g} shared, from "
        f"{1 - owners.ABSENT:g} the child's alone.",
        alt="Shared by parent and child: "
        + "; ".join(f"{label} {row['shared']:.0%}" for label, row in joint.kinds.iterrows()),
        data=joint.kinds.reset_index(),
    )
    lengths = chapter.figure(
        hist(
            joint.norms,
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
            for label, part in joint.norms.groupby("label", sort=False)["relative"]
        ),
    )
    display(figure, lengths)

# %% tags=["remove-input"]
worse = joint and all(joint.fvu[m] > joint.own_fvu[m] for m in joint.fvu)
say("""\
{% if joint %}
{% set fvu, own = joint.fvu.values() | list, joint.own_fvu.values() | list %}
With {{ joint.read.l0 | num(1) }} features per token for all models together, the crosscoder leaves
{{ fvu | min | pct }} to {{ fvu | max | pct }} of each model's variance unexplained. The models' own
autoencoders, with as many for each but trained on their own text alone, leave {{ own | min | pct }}
to {{ own | max | pct }}{% if worse %}: a common list costs something{% endif %}. Of its testable
features {{ joint.overall.get("shared", 0) | pct }} are shared by all,
{{ joint.overall.get("exclusive", 0) | pct }} are exclusive to one, and the rest are longer in some
models than in others.

How far can these words be trusted? Here is what became of the planted features, whose owners are
known.
{% else %}{{ OFF.format("control_crosscoder") }}{% endif %}""")

# %% tags=["remove-input"]
if joint:
    owners_of = joint.planted["own"].map({True: "one model", False: "all four"})
    columns = {"times": "times an average feature", "own": "planted in", "planted": "how many"}
    own, common = joint.planted[joint.planted["own"]], joint.planted[~joint.planted["own"]]
    seen = own.loc[own["exclusive"] >= BARS.sees * own["planted"], "times"].sort_values().tolist()
    verdict = say("""\
So the crosscoder
{% if own["exclusive"].sum() >= BARS.sees * own["planted"].sum() %}
sees nearly all of what only one model has,
{% else %}
{{ "sees what only one model has from %g times the average on" % seen[0] if seen else
   "misses much of what only one model has" }}, and its share of exclusive features is a lower
bound,
{% endif %}
and it makes {{ "" if common["exclusive"].sum() else "no " }}exclusive features up.""")
    display(table(joint.planted.assign(own=owners_of).rename(columns=columns)), verdict)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
changed = [moved.shares[pair].high < BARS.unchanged for pair in down]
less = [f"{share.value:.0%} ({PRINT_NAMES[child]})" for (_, child), share in through.items()]
kept_in = [f"{moved.shares[pair].value:.0%} in {PRINT_NAMES[pair[1]]}" for pair in down]
top, width = ceiling[BASE, one].value, c.models[BASE].config.hidden_size
say("""\
The instrument finds {{ top | pct }} of BabyPython's features again when nothing has changed at all
{%- if less %}, and {{ less | listed }} through a dictionary that learned from the text of a child
{%- endif %}. A share that persists can only be read beside that, and a feature without a match has,
by itself, shown nothing. {{ "But the loss is not all noise." if changed | min else
"But not all of the loss is noise in every child." if changed | max else
"And the loss may be noise altogether." }}
With one dictionary for both models, {{ kept_in | listed }} of BabyPython's features stay
themselves, and the rest changed past the threshold.

These controls have limits of their own.
{% if top < BARS.low_ceiling %}
The ceiling is low in this run: two dictionaries of one model agree on few features, and a ratio of
two small shares says little about the many that no second seed finds.
{% endif %}
A child's autoencoder learns from the child's text, so matching counts as lost what its dictionary
never read. Transfer reads one encoder per parent, trained on its text alone, and calls changed what
that encoder no longer sees in its place. Most of the common text is foreign to a child, and a
feature may change there and nowhere else. The intervals account for texts and seeds, not for the
training of the models themselves, of which there is one each
{%- if twin %} and, for BabyPython, one twin{% endif %}. All of it was measured on one family of
models, of width {{ width }} where the paper's have 512.

The authors asked early which features live through adaptation, and built the pipeline that this
book repeats. What the controls add is a scale to read it by.""")

# %% tags=["remove-input"]
found = Findings(
    steps=[
        Step(persist[x], ceiling[x], calibrated[x], moved.shares[x], through.get(x)) for x in down
    ],
    ends=[moved.shares[BASE, end] for end in MERGE_OF],
    merged=moved.shares[BASE, MERGED],
    recovered=len(recovered),
    shuffled=nothing.shuffled,
    random=nothing.random,
    matched=sum(fates[pair].persist for pair in down) / len(down),
    formatting=kinds,
    same_index={
        "equal": pd.Series([f.same_index for f in same_start.values()]).mean(),
        "other": pd.Series([f.same_index for f in fates.values()]).mean(),
        "chance": 1 / len(c.firings),
    },
)


def by_child(text: str) -> str:
    """`text` for every child: its name, persist, transfer, the ceiling of its text, calibrated."""
    rows = ((persist[x], moved.shares[x], through.get(x, ceiling[x]), calibrated[x]) for x in down)
    return "; ".join(
        text.format(PRINT_NAMES[x[1]], *row) for x, row in zip(down, rows, strict=True)
    )


stay = [f"{moved.shares[BASE, model]} in {PRINT_NAMES[model]}" for model in (MERGED, *MERGE_OF)]
numbers = {
    "few features persist": by_child("{} {} by matching, {} by transfer, BabyPython itself {}"),
    "no match, no feature": by_child("{0} has {4} of what a second autoencoder of BabyPython has"),
    "features that correlate are the same": f"{found.shuffled:.2%} pass out of step, "
    f"{found.random:.1%} against random directions, {found.matched:.1%} against the children",
    "punctuation and formatting persist": "{survivors} of survivors, {everything.value:.0%} of "
    "all, {found_again.value:.0%} of what a second autoencoder finds".format(**kinds),
    "merging dilutes features": f"{', '.join(stay)} by transfer; {found.recovered:,} came back",
    "one seed serves all autoencoders": "the same index in {equal:.0%} of matches with equal "
    "seeds, {other:.1%} with different ones, {chance:.2%} by chance".format(**found.same_index),
}
columns = ["claim, or choice, in the paper", "what our controls say", "how sure", "numbers"]
rows = [(claim, *judge_claim(claim, found), numbers[claim]) for claim in CLAIMS]
table(run_folder.save_table("claims", pd.DataFrame(rows, columns=columns)))

# %% [markdown]
# *Few persist* holds for sure where two instruments agree in every child: matching finds fewer
# features than BabyPython itself shows through a dictionary of the child's text (or than its second
# seed, where that was not measured), and with the dictionary held fixed fewer than half stay. *By
# transfer*: only the second. *Lost, but not most*: only the first. *Missing anyway*: more than half
# of what finds no match finds none in a second autoencoder of the parent either, so a missing match
# alone shows no disappearance. *No accident*: next to nothing matches where nothing can. *Some
# match anything*: random directions match some, whose tokens stand out in any direction.
#
# *Formatting persists* where it is most of the survivors and more frequent among them than among
# all features; *more than its part* is only the latter. Where a second autoencoder of the parent
# finds such features more easily too, part of the excess is the instrument's. A merge *brings
# features back* if it holds more of BabyPython's than either child, for sure if the intervals are
# apart. One seed is *not harmless* if matches carry the same index far more often with equal seeds:
# then a shared start makes dictionaries agree beyond what the models share. Our shares come from
# different seeds.

# %% tags=["remove-input"]
chapter.finish(
    tables.control_metrics(found, moved, neurons, followed, twin, through, warm)
    | {"control.merged_kept": ends[p.merge_t]}
    | (joint.metrics() if joint else {})
)
