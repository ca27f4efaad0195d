# %% [markdown]
# # Matching: the same feature in two models
#
# Few of BabyPython's features find a {term}`match` in its children. But not half find one in a
# second {term}`autoencoder` of BabyPython itself, and far fewer if that one learned from a child's
# text: only beside these two ceilings does a share say anything.
#
# Feature 152 of BabyPython and feature 152 of Lua were learned apart. The connection is made by
# behaviour. All models read the same text, and two {term}`features <feature>` that rise and fall
# together, {term}`token` by token, are taken to be the same.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
k: int = 16  # features active per token of the common text, on average (all but relu)
sae_seeds: int = 3  # autoencoders per model that differ in their seed only
stream_tokens: int = 40_000  # test tokens per domain in the common stream
threshold: float = 0.8  # correlation from which two features count as one
min_firings: int = 30  # tokens a feature must fire on to be testable
bootstrap: int = 200  # resamples of documents for an interval

# %%
import numpy as np
import pandas as pd

from featlib.chapter import prose, start_chapter
from featlib.controls.tables import WAYS
from featlib.dictionaries import features, recipes
from featlib.dictionaries.sae import load_autoencoder
from featlib.estimate import document_weights
from featlib.family import (
    BASE,
    CHILDREN,
    DOMAIN_NAMES,
    MODELS,
    PAIRS,
    PLACEBO,
    PRINT_NAMES,
    STEPS,
    step_name,
)  # fmt: skip
from featlib.matching import ceilings, steps, transfer
from featlib.matching.directions import LEADING, partner_cosines
from featlib.matching.fates import Rule, compare
from featlib.models import mistral as lm
from featlib.params import derive_seed
from featlib.run import needed, write_json
from featlib.show.figure import table
from featlib.show.hists import hist
from featlib.show.marks import bars, dots
from featlib.show.picks import match_histogram
from featlib.show.scales import Axis
from featlib.text.stream import make_stream, save_stream

chapter = start_chapter("06_matching", globals())
p, run_folder = chapter.params, chapter.run

# %% [markdown]
# ## One text for all
#
# The {term}`common stream` is made of test documents of all four kinds, in equal parts. Nothing of
# it was used in training. Every autoencoder reads it with a threshold set anew, such that exactly
# `k` features {term}`fire` on a token, on average: a longer description matches a shorter one less
# well, and now none is longer.

# %%
stream = make_stream(
    run_folder,
    lm.load_tokenizer(run_folder.tokenizer),
    p.stream_tokens,
    seed=derive_seed(p.seed, "stream"),
)
save_stream(stream, run_folder.folder / "features")
models = {m: lm.load_checkpoint(needed(run_folder.model(m))) for m in (*MODELS, PLACEBO)}
acts: dict[str, list[features.FeatureActivations]] = {}
saes, decoders, thresholds = {}, {}, {}
for name in MODELS:
    own = [load_autoencoder(needed(run_folder.autoencoder(name, n))) for n in range(p.sae_seeds)]
    acts[name] = recipes.read_common_text(models[name], own, stream, k=p.k)
    thresholds[name] = [sae.plain_threshold() for sae in own]
    decoders[name] = {n: sae.W_dec.detach().numpy() for n, sae in enumerate(own)}
    saes[name] = own[0]
    for n, found in enumerate(acts[name]):
        features.save_features(found, run_folder.features(name, n))
write_json(run_folder.folder / "features" / "thresholds.json", thresholds)
matrices = {m: {n: f.matrix for n, f in enumerate(acts[m])} for m in MODELS}

# %% [markdown]
# ## Correlation
#
# For features $i$ and $j$ with {term}`activations <activation>` $f_i$ and $g_j$ over the $n$ tokens
# of the stream,
#
# $$r_{ij} = \frac{\sum_t f_{it}\,g_{jt} - n\,\bar f_i\,\bar g_j}{n\,\sigma(f_i)\,\sigma(g_j)} .$$
#
# Zeros count. The authors' first script took only tokens on which both features fire, from two such
# tokens up; but over two tokens everything correlates perfectly, and with thousands of candidates
# something always does over ten. A feature that fires on too few tokens is set aside as
# *{term}`untestable`*. Since activations are sparse, the sum runs over the few tokens where both
# are not zero, and the result is exact for all pairs.

# %% tags=["hide-input"]
rng = np.random.default_rng(derive_seed(p.seed, "bootstrap"))
rule = Rule(p.threshold, p.min_firings)
common = {
    "documents": stream.documents,
    "weights": document_weights(stream.documents, p.bootstrap, rng),
    "rng": rng,
    "rule": rule,
}
own = {model: ceilings.over_pairs(matrices[model], **common) for model in MODELS}
crossed = {(a, b): ceilings.over_pairs(matrices[a], matrices[b], **common) for a, b in PAIRS}
best = [
    crossed[a, b].fates[0, 1].parents.query("fate != 'untestable'").assign(parent=a, child=b)
    for a, b in STEPS
]
best_r = pd.concat(best)[["parent", "child", "r"]]
own_r = pd.concat(
    own[m].fates[0, 1].parents.query("fate != 'untestable'")[["r"]].assign(model=m) for m in MODELS
)
passing = (best_r["r"] >= p.threshold).groupby([best_r["parent"], best_r["child"]]).mean()
chapter.figure(
    match_histogram(best_r, own_r, threshold=p.threshold),
    name="best-matches",
    caption="Best correlation of each testable feature of the parent with a feature of the child "
    "(bars) and with a feature of a second autoencoder of the parent itself (outline). Choose a "
    "bar to see its features.",
    alt="Share of features whose best match passes the threshold: "
    + "; ".join(f"{step_name(*pair)} {r:.0%}" for pair, r in passing.items()),
)

# %% [markdown]
# ## Two ceilings
#
# A second autoencoder of one model, from another seed, is the *seed ceiling*. It read the parent's
# text, though, and the child's did not. So the parent's autoencoders are trained once more, on the
# *child's* text: what they find of the parent's features is the most that a dictionary of that text
# finds when the model has not changed at all. Pairs of autoencoders differ in their seed; intervals
# come from resampling documents and seeds.

# %% tags=["hide-input"]
through, kinds = {}, []
for pair in PAIRS:
    read = recipes.read_through_text(run_folder, models[pair[0]], *pair, stream, k=p.k, seed=p.seed)
    other = {n: f.matrix for n, f in zip(recipes.TEXT_SEEDS, read, strict=True)}
    through[pair] = ceilings.over_pairs(matrices[pair[0]], other, **common)
    kinds.append(steps.shares_by_kind(pair, matrices, other, stream.kinds, rule))
by_random = {}
for child in MODELS:
    raw = transfer.read_neurons(models[child], stream.ids)
    parents = {(a, b): matrices[a] for a, b in (*PAIRS, (child, child)) if b == child}
    by_random |= steps.best_random_r(raw, acts[child][1].firings, parents, rng)
    del raw
equal = {(a, b): compare(matrices[a][0], matrices[b][0], rule) for a, b in PAIRS}
compared = steps.Compared(crossed, own, through, by_random, equal, decoders, rule)
pairs = run_folder.save_table("pairs", steps.summarize_steps(compared))
shown = pairs.set_index(["parent", "child"]).loc[list(STEPS)].reset_index()
shown = shown.assign(step=[step_name(*pair) for pair in STEPS])
reach = 2 * shown[["persist_high", "text_ceiling"]].max(axis=None)  # half for the words
chapter.figure(
    bars(
        shown.assign(said=[f"{r.persist:.0%} of {r.text_ceiling:.0%}" for r in shown.itertuples()]),
        x=Axis("persist", "share of testable features", "%", domain=(0, reach)),
        y="step",
        upto="text_ceiling",
        span=("persist_low", "persist_high"),
        text="said",
    ),
    name="persistence",
    caption="Share of a parent's testable features that persist in its child (dark bar; the line "
    "is its 95% interval), and the share that the parent itself shows through a dictionary of the "
    "child's text (pale bar, up to the mark).",
    alt="; ".join(
        f"{r.step}: {r.persist:.0%} persist, of {r.text_ceiling:.0%} through the child's text"
        for r in shown.itertuples()
    ),
    data=pairs,
)

# %% [markdown]
# The last three columns leave out features that random directions match as well, for their tokens
# excite a model so much that any direction picks them out.

# %% tags=["hide-input"]
columns = {
    "step": "step",
    "persist": "persist",
    "text_ceiling": "child's text",
    "ceiling": "other seed",
    "of_text": "persist / child's text",
    "persist_real": "persist, real",
    "ceiling_real": "other seed, real",
    "stable_persist": "of stable ones",
}
table(shown[[*columns]].rename(columns=columns), digits=3)

# %% [markdown]
# *Of stable ones* needs no ratio: of the parent's features that every other seed of the parent
# finds, the share that the child has. Such *stable* features {cite:p}`gerasimov2026stability` are
# part of the model rather than of one description of it.

# %% tags=["hide-input"]
matches = steps.list_matches(compared, matrices, stream.documents, rng)
run_folder.save_table("matches", matches)
run_folder.save_table("flows", steps.count_flows(compared))
run_folder.save_table("seed_pairs", steps.list_seed_pairs(compared))
metrics = steps.step_metrics(compared, pairs, matches)
table(
    pd.DataFrame(
        {
            "model": [PRINT_NAMES[m] for m in MODELS],
            "found again (other seed)": [own[m].share().estimate.value for m in MODELS],
            "stable": [metrics[f"sae.{m}.stable"] for m in MODELS],
            "PW-MCC": [metrics[f"sae.{m}.pwmcc"] for m in MODELS],
        }
    ),
    digits=2,
)

# %% [markdown]
# PW-MCC {cite:p}`song2025consistency` asks the same of directions: the mean cosine of decoder
# vectors of two seeds, paired one to one. About 0.80 has been reached with long training.
#
# ## Which text is read
#
# Three quarters of the common stream are foreign to each child. Kind by kind the answer differs.

# %% tags=["hide-input"]
ways = {column: way for way, column in WAYS.items() if way != "transfer"}
kinds = run_folder.save_table("kinds", pd.concat(kinds, ignore_index=True))
down = kinds[(kinds["parent"] == BASE) & kinds["child"].isin(CHILDREN)]
down = down.rename(columns=ways).melt(["kind", "parent", "child"], [*ways.values()], "way", "share")
down["label"] = [f"{PRINT_NAMES[r.child]}, on {DOMAIN_NAMES[r.kind]}" for r in down.itertuples()]
down = down.dropna(subset="share").sort_values("child", kind="stable")
chapter.figure(
    dots(
        down,
        x=Axis("share", "share of testable features", "%", zero=True),
        y="label",
        **dict.fromkeys(("color", "shape", "beside"), "way"),
        columns=1,
    ),
    name="kinds-of-text",
    caption="Share of BabyPython's features that persist in each child, with both ceilings, when "
    "only one kind of text is read. One pair of seeds.",
    alt="; ".join(f"{r.label}, {r.way}: {r.share:.0%}" for r in down.itertuples()),
    data=down,
)

# %% [markdown]
# ## Fires alike, writes alike
#
# A match says that two features fire alike. What a feature *does* is to write along its decoder
# vector. For each match the cosine of the two vectors tells whether they also write alike.

# %% tags=["hide-input"]
sides = matches[(matches["side"] == "parent") & (matches["fate"] == "persists")]
cosines = [
    part[["cosine"]].assign(of=step_name(BASE, child))
    for child, part in sides[sides["parent"] == BASE].groupby("child", sort=False)
    if child in CHILDREN
]
again = own[BASE].fates[0, 1]
between = partner_cosines(decoders[BASE][0], decoders[BASE][1], again.parents["best"].to_numpy())
seeds = f"{PRINT_NAMES[BASE]}, two seeds"
cosines.append(pd.DataFrame({"cosine": between[again.persisting], "of": seeds}))
cosines = pd.concat(cosines, ignore_index=True)
medians = cosines.groupby("of", sort=False)["cosine"].median()
chapter.figure(
    hist(
        cosines,
        x=Axis("cosine", "cosine of the two decoder vectors", ".1f", domain=(-0.5, 1)),
        edges=np.arange(-10, 21) / 20,
        color="of",
        columns=1,
    ),
    name="cosines",
    caption="Matched features by the cosine between their decoder vectors: parent and child, and "
    f"two seeds of {PRINT_NAMES[BASE]}. Every pair fires alike (r of {p.threshold:g} or more).",
    alt="Median cosine: " + "; ".join(f"{of} {cosine:.2f}" for of, cosine in medians.items()),
)

# %% [markdown]
# ## The parent's dictionary, read in the child
#
# The last measure needs no second dictionary. In *{term}`transfer`* the parent's autoencoder reads
# the child: activations scaled to the same length, the threshold set to as many features per token,
# the weights as they are. Each feature is then compared with itself. [Controls](11_controls) shows
# the shares, beside those of a placebo.

# %%
follow = {m: (saes[m], acts[m][0]) for m in MODELS}
moved, transfers = transfer.follow_family(models, follow, stream, common["weights"], rule)
run_folder.save_table("transfers", moved)
run_folder.save_table("transfer_shares", transfers)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
down = pairs[(pairs["parent"] == BASE) & pairs["child"].isin(CHILDREN)]
first = down.iloc[0]


def by_child(column: str, form: str = ".0%") -> list[str]:
    return [f"{row[column]:{form}} ({PRINT_NAMES[row['child']]})" for _, row in down.iterrows()]


prose(
    """\
Of {{ base }}'s testable features {{ persist | listed }} persist. Another seed of {{ base }} finds
{{ first.ceiling | pct }}, and through a dictionary of the child's text {{ base }} itself shows
{{ text | listed }}. Of what that text lets a dictionary find, the children have
{{ of_text | listed }}. Features that all seeds of {{ base }} find are in the child's dictionary in
{{ stable | listed }} of cases.

Matched features fire alike and write less alike: between parent and child their decoder vectors
have a median cosine of {{ cosine | listed }}, between two seeds {{ first.ceiling_cosine | num }}.
So a match says that the child has a feature for the same tokens, and not that it does the same
with them.

What finds no match may be there as a space. The leading subspace of features that neither the
child nor any seed of {{ base }} finds again overlaps with that of the child's new features by
{{ lost | listed }}, with that of another seed's by {{ first.ceiling_subspace | num }}; random
subspaces would by {{ chance | num }}.

With equal seeds, {{ first.same_index | pct }} of the matches from {{ base }} to {{ child }} have
the same index in both lists, where chance would give {{ (1 / d_sae) | pct(2) }}: the paper's
autoencoders shared one seed; ours, in the shares above, never do. And the threshold is a choice:
features that turn into near relatives of themselves fall below it.""",
    base=PRINT_NAMES[BASE],
    first=first,
    persist=by_child("persist"),
    text=by_child("text_ceiling"),
    of_text=by_child("of_text"),
    stable=by_child("stable_persist"),
    cosine=by_child("median_cosine", ".2f"),
    lost=by_child("lost_subspace", ".2f"),
    chance=LEADING,
    child=PRINT_NAMES[first["child"]],
    d_sae=acts[BASE][0].d_sae,
)

# %% tags=["remove-input"]
chapter.finish(metrics | transfer.transfer_metrics(transfers))
