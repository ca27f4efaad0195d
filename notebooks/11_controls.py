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
stream_tokens: int = 40_000  # test tokens per domain in the common stream
threshold: float = 0.8  # correlation from which two features count as one
min_firings: int = 30  # tokens a feature must fire on to be testable
bootstrap: int = 200  # resamples of documents for an interval
merge_method: str = "slerp"  # how the two children were merged
merge_t: float = 0.58  # where LuaStories lies between them
control_step: float = 0.25  # step of t at which features are followed
control_model: bool = False  # train BabyPython a second time, from another seed
control_warm_start: bool = False  # train children's autoencoders from their parent's
control_crosscoder: bool = False  # train a crosscoder over all four models
crosscoder_tokens: int = 500_000  # tokens the crosscoder is trained on

# %%
import json

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from featlib import (
    activations,
    charts,
    claims,
    control_charts,
    controls,
    correlation,
    features,
    labels,
    matching,
    nulls,
    tokens,
    transfer,
)
from featlib import autoencoder as sae_lib
from featlib import crosscoder as cross
from featlib import language_model as lm
from featlib.chapters import needed, start_chapter
from featlib.params import DOMAINS, MODELS, PAIRS, PRINT_NAMES, TRAINING_MIX, derive_seed
from featlib.runs import atomic_path

chapter = start_chapter("11_controls", globals())
p, run_folder = chapter.params, chapter.run
rule = {"threshold": p.threshold, "min_firings": p.min_firings}
rng = np.random.default_rng(derive_seed(p.seed, "controls"))

pairs = pd.read_parquet(needed(run_folder.table("pairs"), "06_matching"))
pairs = pairs.set_index(["parent", "child"])
stream = tokens.load_blocks(run_folder.folder / "features", "stream", mmap=False)
acts = {
    m: [features.load_features(run_folder.features(m, n)) for n in range(p.sae_seeds)]
    for m in MODELS
}
models = {m: lm.load_checkpoint(run_folder.model(m)) for m in MODELS}
weights = matching.document_weights(stream.documents, p.bootstrap, rng)
STEPS = [pair for pair in PAIRS if pair != ("base", "merged")]  # parent to child, no grandchild


def named(parent: str, child: str) -> str:
    return f"{PRINT_NAMES[parent]} → {PRINT_NAMES[child]}"


def fates_of(parent: str, i: int, child: str, j: int) -> matching.Fates:
    a, b = acts[parent][i], acts[child][j]
    r = matching.pearson(a.matrix, b.matrix)
    return matching.assign_fates(r, features.firing_counts(a), features.firing_counts(b), **rule)


def save_table(name: str, table: pd.DataFrame) -> None:
    with atomic_path(run_folder.table(name)) as path:
        table.to_parquet(path)


# %% [markdown]
# ## Equally sparse?
#
# A denser dictionary fires more alike. One of the paper's TinyStories autoencoders had an L1
# penalty 27 times that of the others, so that persistence and sparsity could not be separated.
# Ours have a fixed number of features per token in training, and thresholds [set anew](06_matching)
# for the common text. What counts is whether they end up equal there.

# %%
sparsity = controls.compare_sparsity({m: acts[m][0].matrix for m in MODELS})
cards = pd.read_parquet(run_folder.table("autoencoder_cards"))
fvu = cards[cards["seed"] == 0].set_index("model")["fvu"]
own_l0 = cards[cards["seed"] == 0].set_index("model")["l0"]
charts.table(
    pd.DataFrame(
        {
            "model": [PRINT_NAMES[m] for m in MODELS],
            "L0, own text": own_l0.loc[list(MODELS)].to_numpy(),
            "L0, common text": sparsity["l0"],
            "FVU, own text": fvu.loc[list(MODELS)].to_numpy(),
        }
    ),
    digits=3,
)

# %% tags=["remove-input"]
Markdown(
    f"""\
On the common text, from which all shares are taken, L0 differs by {sparsity["ratio"].max() - 1:.0%}
between the models, {
        "within the 10 % up to which we call it equal: no share below is a share of sparsity"
        if sparsity["equal"].all()
        else "more than the 10 % up to which we would call it equal, so shares mix persistence "
        "with sparsity"
    }. On the text that each was trained for it differs by {
        own_l0.max() / own_l0.min() - 1:.0%}, and
FVU lies between {fvu.min():.2f} and {fvu.max():.2f}: some text is easier to describe."""
)

# %% [markdown]
# ## The same model twice
#
# The *seed ceiling* is the persisting share between two autoencoders of one model: same
# activations, same order, another random start. Whatever they do not share is lost to the
# instrument. Others have measured it: 30 % of features are shared at 131,000 features in an
# 8-billion model {cite:p}`paulo2025sparse`, and in a one-layer model the median best correlation
# was 0.72 {cite:p}`bricken2023monosemanticity`.

# %% tags=["hide-input"]
ceiling = pairs.reset_index().drop_duplicates("parent").set_index("parent")
shown = pd.DataFrame(
    [
        row
        for (a, b), x in pairs.iterrows()
        for row in (
            (named(a, b), "matching", x["persist"], x["persist_low"], x["persist_high"]),
            (named(a, b), "ceiling: other seed", x["ceiling"], x["ceiling_low"], x["ceiling_high"]),
        )
    ],
    columns=["label", "way", "share", "low", "high"],
)
charts.figure(
    control_charts.share_dots(shown),
    name="ceilings",
    made_by=chapter.made_by,
    caption="Share of the parent's testable features that persist in the child, and the share that "
    "a second autoencoder of the parent itself finds again. Means over all pairs of different "
    f"seeds of {p.sae_seeds} autoencoders per model; 95 % intervals over documents and pairs.",
    alt="; ".join(
        f"{named(a, b)}: {x['persist']:.0%} of at most {x['ceiling']:.0%}"
        for (a, b), x in pairs.iterrows()
    ),
    data=shown,
)

# %%
charts.table(
    pd.DataFrame(
        [
            (
                named(a, b),
                f"{x['persist']:.1%}",
                f"{x['ceiling']:.1%}",
                f"{x['calibrated']:.2f} ({x['calibrated_low']:.2f} to {x['calibrated_high']:.2f})",
            )
            for (a, b), x in pairs.iterrows()
        ],
        columns=["step", "persist", "seed ceiling", "calibrated: persist / ceiling"],
    )
)

# %% [markdown]
# A calibrated ratio of 1 says that the child is no further from its parent than a second
# description of the parent is. It does not say that nothing changed: where the ceiling is low, the
# ratio rests on the few features that any dictionary finds.
#
# ## One start for all
#
# The paper's autoencoders all begin with the same random numbers. If that helps them to agree, then
# matches carry the same *index* in both dictionaries more often than chance. The table has one pair
# of autoencoders for each step.

# %% tags=["hide-input"]
fates = {pair: fates_of(pair[0], 0, pair[1], 1) for pair in PAIRS}
same_start = {pair: fates_of(pair[0], 0, pair[1], 0) for pair in PAIRS}
itself = {m: fates_of(m, 0, m, 1) for m in MODELS}
index = {
    how: {pair: controls.index_effect(f) for pair, f in table.items()}
    for how, table in (("equal", same_start), ("different", fates))
}
charts.table(
    pd.DataFrame(
        [
            (
                named(*pair),
                f"{same_start[pair].persist:.1%}",
                f"{fates[pair].persist:.1%}",
                f"{index['equal'][pair]['same_index']:.0%}",
                f"{index['different'][pair]['same_index']:.1%}",
            )
            for pair in PAIRS
        ],
        columns=[
            "step",
            "persist, equal seeds",
            "persist, different seeds",
            "same index, equal seeds",
            "same index, different seeds",
        ],
    )
)

# %% [markdown]
# ## Nothing to find
#
# Four comparisons in which no feature can rightly persist. The child's activations are *shifted*
# around within each document, or its *documents are permuted*; or the child's dictionary is
# replaced by *random directions* that fire exactly as often. A feature that still passes the
# threshold is a false alarm. The fourth needs no dictionary at all and belongs here for the
# opposite reason: the *neurons* of parent and child, which fine-tuning moves but never reorders.

# %% tags=["hide-input"]
ways = {"shifted within documents": nulls.shift_within_documents}
ways["documents permuted"] = nulls.permute_documents
part = rng.permutation(len(stream))
found = []
for share in (1 / 64, 1 / 8, 1):  # on less text features fire less often
    chosen = np.sort(part[: max(2, round(share * len(stream)))])
    row = (chosen[:, None] * stream.context + np.arange(stream.context)).reshape(-1)
    documents = stream.documents[chosen].reshape(-1)
    if len(np.unique(documents)) < 2:
        continue
    for parent, child in STEPS if share == 1 else STEPS[:2]:
        a, b = acts[parent][0].matrix[row], acts[child][min(1, p.sae_seeds - 1)].matrix[row]
        for name, shuffle in ways.items():
            f = nulls.null_fates(a, shuffle(b, documents, rng), **rule).parents
            found.append(f.assign(null=name, parent=parent, child=child, whole=share == 1))
for child in ("lua", "tinystories"):
    raw = transfer.read_neurons(models[child], stream.ids)
    counts = features.firing_counts(acts[child][0])
    random = nulls.random_dictionary(raw, counts, rng)
    f = nulls.null_fates(acts["base"][0].matrix, random, **rule).parents
    found.append(f.assign(null="random dictionary", parent="base", child=child, whole=True))
    del raw, random
found = pd.concat(found, ignore_index=True)
found["passes"] = found["r"] >= p.threshold
whole = found[found["whole"] & (found["fate"] != "untestable")]
null_share = whole.groupby(["null", "parent", "child"], sort=False)["passes"].mean()
shuffled_share = float(null_share.drop("random dictionary", level="null").max())
random_share = float(null_share["random dictionary"].mean())
easy = found[(found["null"] == "random dictionary") & found["passes"] & (found["child"] == "lua")]
easy = np.isin(np.arange(acts["base"][0].d_sae), easy["feature"])  # what random directions find
alive = found[found["firings"] > 0]
level = 2.0 ** np.floor(np.log2(alive["firings"].to_numpy(float)))
by_firings = alive.groupby(["null", level], sort=False)["passes"].agg(["size", "mean"])
by_firings = by_firings.reset_index().set_axis(["null", "firings", "features", "share"], axis=1)
by_firings = by_firings[by_firings["features"] >= 20].sort_values(["null", "firings"])
charts.figure(
    control_charts.null_by_firings(by_firings, min_firings=p.min_firings),
    name="nulls-by-firings",
    made_by=chapter.made_by,
    caption="Share of features whose best correlation passes the threshold though nothing real can "
    "match, by the number of tokens on which the feature fires (bins of a factor of two; the rare "
    "end comes from an eighth and a sixty-fourth of the text). The rule is where features become "
    "testable.",
    alt=f"Of testable features {shuffled_share:.2%} pass at most where tokens are out of step, and "
    f"{random_share:.1%} against random directions.",
    data=by_firings,
)

# %% [markdown]
# Counted over shared tokens only, as in the authors' first script, a correlation would pass by
# chance with near certainty at ten tokens: see the figure in [Matching](06_matching). Counted over
# all tokens, zeros included, coincidences of that kind all but vanish.

# %% tags=["hide-input"]
neurons = {}
for parent, child in PAIRS:
    r = correlation.pearson_dense(
        *(transfer.read_neurons(models[m], stream.ids) for m in (parent, child))
    )
    neurons[parent, child] = float((r.max(axis=1) >= p.threshold).mean())
null_table = null_share.rename("passes").reset_index()
charts.table(
    pd.DataFrame(
        [
            (named(a, b), *(f"{x:.2%}" if np.isfinite(x) else "" for x in row), f"{n:.0%}")
            for (a, b), n in neurons.items()
            if (a, b) in STEPS
            for row in [
                [null_share.get((name, a, b), np.nan) for name in control_charts.NULL_COLORS]
            ]
        ],
        columns=["step", *control_charts.NULL_COLORS, "neurons, for comparison"],
    )
)

# %% tags=["remove-input"]
matched_lua = (fates["base", "lua"].parents["fate"] == "persists").to_numpy()
Markdown(
    f"""\
Out of step, {
        "no feature passes" if shuffled_share == 0 else f"{shuffled_share:.2%} pass at most"
    }: no match is a coincidence of tokens. Random directions are another matter, and they pass for
{random_share:.1%} of BabyPython's features. Some tokens, line breaks above all, excite the model so
much that any direction picks them out, and a feature that does no more than that finds a partner
everywhere. Of the {int(matched_lua.sum()):,} features with a match in Lua,
{int((matched_lua & easy).sum()):,} are of this kind."""
)

# %% [markdown]
# ## One dictionary, two models
#
# The instrument's noise can be taken out altogether. The parent's own autoencoder is applied to the
# child's activations, and each feature is correlated with *itself*, before and after. There is no
# second dictionary, hence none that could have described things in other words. What is lost here
# is lost in the model.

# %% tags=["hide-input"]
saes = {m: sae_lib.load_autoencoder(run_folder.autoencoder(m, 0)) for m in MODELS}
thresholds = json.loads((run_folder.folder / "features" / "thresholds.json").read_text())
for m, sae in saes.items():  # as chapter 06 read the common text with them
    sae.threshold = thresholds[m][0]
scales = {m: activations.activation_stats(models[m], stream.ids).scale for m in MODELS}
moved, own = {}, {}
for parent, child in PAIRS:
    after = transfer.read_with(
        saes[parent], scales[parent], models[child], stream.ids, scales[child]
    )
    fate, interval = transfer.transfer_share(
        acts[parent][0], after, stream.documents, weights, **rule
    )
    moved[parent, child] = claims.Share(fate.persist, *interval)
    own[parent, child] = fate
shares = pd.DataFrame(
    [
        row
        for pair in PAIRS
        for x, t in [(pairs.loc[pair], moved[pair])]
        for row in (
            (*pair, "matching", x["persist"], x["persist_low"], x["persist_high"]),
            (*pair, "ceiling: other seed", x["ceiling"], x["ceiling_low"], x["ceiling_high"]),
            (*pair, "transfer", t.value, t.low, t.high),
            (*pair, "neurons", neurons[pair], np.nan, np.nan),
        )
    ],
    columns=["parent", "child", "way", "share", "low", "high"],
)
shares.insert(
    2, "label", [named(a, b) for a, b in zip(shares["parent"], shares["child"], strict=True)]
)
save_table("control_shares", shares)
charts.figure(
    control_charts.share_dots(shares),
    name="transfer",
    made_by=chapter.made_by,
    caption="Persisting shares measured in four ways. Transfer reads both models with the parent's "
    "own dictionary; the dot for neurons uses no dictionary.",
    alt="; ".join(
        f"{named(*pair)}: {pairs.loc[pair, 'persist']:.0%} by matching, {t.value:.0%} by transfer"
        for pair, t in moved.items()
    ),
    data=shares.drop(columns=["parent", "child"]),
)

# %% tags=["remove-input"]
both = pd.DataFrame(
    {
        "matched": fates["base", "lua"].parents["fate"] == "persists",
        "kept": own["base", "lua"].parents["fate"] == "persists",
    }
)[(fates["base", "lua"].parents["fate"] != "untestable").to_numpy()]
n_kept, n_matched = int(both["kept"].sum()), int(both["matched"].sum())
n_both = int((both["kept"] & both["matched"]).sum())
Markdown(
    f"""\
The two ways differ where it matters. Of BabyPython's testable features, {n_kept:,} are themselves
in Lua by transfer and {n_matched:,} have a match there; {n_both:,} are in both groups. So
{n_kept - n_both:,} features stayed in the model while the second dictionary described them
otherwise{
        f", and {n_matched - n_both:,} have a match though their own encoder lost sight of them"
        if n_matched > n_both
        else ""
    }.

Transfer is strict in a way of its own. An encoder reads a direction, and where a child has moved a
feature the encoder that stayed behind loses sight of it, though a newly trained one would have
followed. Matching asks whether the child has such a feature; transfer asks whether it has it in the
same place. And a feature may stay in place and serve another purpose, which neither would notice:
for that the case studies ablate."""
)

# %% [markdown]
# ## Through the merge, and back
#
# The same can be done at every t between the children: one dictionary, BabyPython's, read in every
# merged model. A feature that Lua or TinyStories had lost may be itself again in their merge.

# %% tags=["hide-input"]
itself_r = {child: own["base", child].parents["r"].to_numpy() for child in MODELS[1:]}
firings = features.firing_counts(acts["base"][0])
inner = np.arange(p.control_step, 1 - 1e-9, p.control_step)
along = transfer.follow_merges(
    saes["base"],
    scales["base"],
    acts["base"][0],
    (models["lua"], models["tinystories"]),
    stream.ids,
    inner,
    method=p.merge_method,
)
along |= {
    0.0: itself_r["lua"],
    1.0: itself_r["tinystories"],
    p.merge_t: itself_r["merged"],
}
kept = transfer.share_by_t(along, firings, **rule)
ends = kept.set_index("t")["kept"]
charts.figure(
    control_charts.kept_along_t(kept, t=p.merge_t),
    name="kept-along-t",
    made_by=chapter.made_by,
    caption="Share of BabyPython's testable features that are themselves in the merge at t, by how "
    "many of the two children had kept them. What both children lost and the merge has again is "
    "marked as kept by neither end.",
    alt=f"{ends[0.0]:.0%} of the features are themselves in Lua, {ends[1.0]:.0%} in TinyStories, "
    f"and {ends.max():.0%} in the merge at t = {ends.idxmax():.2f}.",
    data=kept,
)


# %%
def list_models(kept_by: str) -> str:
    return " and ".join(PRINT_NAMES.get(m, "neither") for m in kept_by.split("+"))


followed = controls.recovered_features(itself_r, firings, **rule)
save_table("recovered", followed)
recovered = followed[followed["recovered"]]
by_children = recovered["kept_by"].value_counts()
charts.table(
    followed.groupby("kept_by", observed=True)
    .agg(
        features=("feature", "size"),
        in_LuaStories=("in_merged", "sum"),
        share=("in_merged", "mean"),
    )
    .reset_index()
    .assign(kept_by=lambda d: d["kept_by"].map(list_models))
    .rename(columns={"kept_by": "kept by", "in_LuaStories": "in LuaStories"}),
    digits=3,
)  # fmt: skip

# %% [markdown]
# Which features come back? The clearest cases, by what they fire on in BabyPython, with their
# correlation with themselves in each model:

# %% tags=["hide-input"]
texts = tokens.token_strings(
    lm.load_tokenizer(run_folder.tokenizer), range(models["base"].config.vocab_size)
)
gain = recovered["r_merged"] - recovered[["r_lua", "r_tinystories"]].min(axis=1)
clear = recovered.assign(gain=gain).sort_values("gain", ascending=False)
clear = clear.groupby("kept_by", observed=True, sort=False).head(6)
charts.table(
    pd.DataFrame(
        {
            "feature": clear["feature"],
            "fires on": transfer.top_tokens(acts["base"][0], stream.ids, clear["feature"], texts),
            "firings": clear["firings"],
            **{f"r in {PRINT_NAMES[m]}": clear[f"r_{m}"] for m in MODELS[1:]},
            "kept by": clear["kept_by"].map(list_models),
        }
    ),
    digits=2,
)


# %% tags=["remove-input"]
def distance(a: str, b: str) -> float:
    x, y = (models[m].state_dict() for m in (a, b))
    return float(sum((x[k] - y[k]).double().square().sum() for k in x) ** 0.5)


far = {m: distance("base", m) for m in MODELS[1:]}
none_kept = int(by_children.get("none", 0))
one_kept = len(recovered) - none_kept
Markdown(
    f"""\
{len(recovered):,} of {len(followed):,} testable features were lost in at least one child and are
themselves in LuaStories: {one_kept:,} that one child had kept, and {
        none_kept:,} that both had lost.
The second group shows that merging is more than choosing. A plain reason is at hand. The children
moved away from BabyPython by {far["lua"]:.1f} (Lua) and {far["tinystories"]:.1f} (TinyStories) in
the space of weights, in largely different directions; between them these moves cancel in part, and
LuaStories lies {far["merged"]:.1f} from BabyPython, {
        "nearer than either child"
        if far["merged"] < min(far["lua"], far["tinystories"])
        else "not nearer than both"
    }. A feature that drifted past the threshold in a child comes back within it. Such a feature had
changed by degrees, and the threshold made a loss of it."""
)

# %% [markdown]
# ## Where the threshold lies
#
# The number 0.8 is a convention. The next figure moves it.

# %% tags=["hide-input"]
curves = []
for parent, child in (("base", "lua"), ("base", "tinystories")):
    for way, f in (
        ("matching", fates[parent, child]),
        ("transfer", own[parent, child]),
    ):
        curves.append(
            controls.persistence_by_threshold(f).assign(label=named(parent, child), way=way)
        )
curves.append(
    controls.persistence_by_threshold(itself["base"]).assign(
        label="BabyPython, two seeds", way="ceiling: other seed"
    )
)
curves = pd.concat(curves, ignore_index=True).rename(columns={"persist": "share"})
charts.figure(
    control_charts.threshold_curves(curves, threshold=p.threshold),
    name="thresholds",
    made_by=chapter.made_by,
    caption="Share of BabyPython's testable features that persist, for thresholds from 0.5 to "
    "0.95, with the ceiling of two seeds beside it. One pair of seeds.",
    alt="Share that persists at 0.5 and at 0.95: "
    + "; ".join(
        f"{label} ({way}) {c['share'].iloc[0]:.0%} and {c['share'].iloc[-1]:.0%}"
        for (label, way), c in curves.groupby(["label", "way"], sort=False)
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
parts = [
    tokens.take_tokens(tokens.load_blocks(run_folder.tokens, f"{d}.test"), p.stream_tokens)
    for d in DOMAINS
]
last = np.cumsum([int(part.documents.max()) + 1 for part in parts])
domain = np.searchsorted(last, stream.documents, side="right")  # as `mix_blocks` numbers documents
class_of = np.array(
    [[labels.TOKEN_CLASSES.index(labels.token_class(t, d)) for t in texts] for d in DOMAINS]
)
classes = class_of[domain, stream.ids].astype(np.uint8)
about = labels.feature_classes(acts["base"][0], classes).set_index("feature")["token_class"]
about = about.reindex(range(acts["base"][0].d_sae))
compared = {
    "matching": fates["base", "lua"],
    "ceiling: other seed": itself["base"],
    "transfer": own["base", "lua"],
}
by_class = pd.concat(
    [controls.persistence_by(f, about.to_numpy()).assign(way=way) for way, f in compared.items()],
    ignore_index=True,
)
by_class = by_class[by_class["testable"] >= 5].sort_values("testable", ascending=False)
charts.figure(
    control_charts.share_dots(by_class.rename(columns={"group": "label"})),
    name="persistence-by-class",
    made_by=chapter.made_by,
    caption="Share of BabyPython's testable features that persist in Lua, by the class of token "
    "they are about, with the share that a second autoencoder of BabyPython finds again. One pair "
    "of seeds; 95 % intervals take features as independent.",
    alt="Persist in Lua by matching: "
    + "; ".join(
        f"{x.group} {x.share:.0%} of {x.testable}"
        for x in by_class[by_class["way"] == "matching"].itertuples()
    ),
    data=by_class,
)

# %% tags=["hide-input"]
bins = controls.density_bins(firings, acts["base"][0].n_tokens)
by_density = pd.concat(
    [controls.persistence_by(f, bins).assign(way=way) for way, f in compared.items()],
    ignore_index=True,
)
by_density = by_density[by_density["testable"] >= 5]
charts.figure(
    control_charts.share_dots(
        by_density.assign(label=by_density["group"].astype(str) + " per token")
    ),
    name="persistence-by-density",
    made_by=chapter.made_by,
    caption="The same by how often a feature fires, in firings per token.",
    alt="Persist in Lua by matching: "
    + "; ".join(
        f"density {x.group} {x.share:.0%}"
        for x in by_density[by_density["way"] == "matching"].itertuples()
    ),
    data=by_density,
)

# %% tags=["remove-input"]
formatting = about.isin(claims.FORMATTING).to_numpy()


def formatting_among(chosen: np.ndarray) -> claims.Share:
    return claims.proportion(int((formatting & chosen).sum()), int(chosen.sum()))


def persisting(*tables: matching.Fates) -> np.ndarray:
    return np.any([(f.parents["fate"] == "persists").to_numpy() for f in tables], axis=0)


testable = firings >= p.min_firings
kinds = {
    "everything": formatting_among(testable),
    "survivors": formatting_among(persisting(fates["base", "lua"], fates["base", "tinystories"])),
    "found_again": formatting_among(persisting(itself["base"])),
    "kept_by_transfer": formatting_among(
        persisting(own["base", "lua"], own["base", "tinystories"])
    ),
}
by_random = formatting_among(easy & testable)
Markdown(
    f"""\
Punctuation, white space and marks of beginning and end make up {kinds["everything"].value:.0%} of
all testable features, {kinds["survivors"]} of those with a match in Lua or TinyStories,
{kinds["found_again"]} of those that a second autoencoder of BabyPython finds again, and
{kinds["kept_by_transfer"]} of those that transfer keeps in either child. The third number is the
control for the second: {
        "features of this kind are easy to find again in any model, so their excess among "
        "survivors says something about dictionaries, and not about fine-tuning alone"
        if kinds["found_again"].value > kinds["everything"].value
        else "they are no easier to find again than others, so an excess comes from the models"
    }.{
        f" Of the features that random directions find, {by_random} are of this kind."
        if np.isfinite(by_random.value)
        else ""
    }"""
)

# %% [markdown]
# ## More controls, at the price of more training
#
# Three further controls train something of their own. They are off by default, to keep the whole
# book within minutes; the run `params/controls.yaml` has them all.
#
# **The same recipe twice.** BabyPython is trained a second time, from another seed and with its
# text in another order, and gets autoencoders of its own. Features that even this twin lacks were
# never the recipe's to keep. A fine-tuned child that shares more with BabyPython than its twin does
# has kept something of its parent as an individual.

# %% tags=["hide-input"]
recipe = {
    name: run_folder.provenance()["chapters"][name]["parameters"]
    for name in ("02_base_model", "05_autoencoders")
}
sae_recipe = recipe["05_autoencoders"]
config = sae_lib.AutoencoderConfig(
    d_in=saes["base"].d_in,
    d_sae=saes["base"].d_sae,
    architecture=sae_recipe["sae_architecture"],
    k=sae_recipe["k"],
    l1=sae_recipe["l1"],
    lr=sae_recipe["sae_lr"],
    n_tokens=sae_recipe["sae_tokens"],
    batch_size=sae_recipe["sae_batch_size"],
)


calibration = tokens.take_tokens(  # sets the thresholds for the common text, as in chapter 06
    stream, min(12_000, stream.n_tokens), seed=derive_seed(p.seed, "calibration")
)


def training_text(mix: tuple[str, ...], *purpose: str) -> tokens.TokenBlocks:
    parts = [tokens.load_blocks(run_folder.tokens, f"{d}.train") for d in mix]
    return tokens.mix_blocks(parts, seed=derive_seed(p.seed, *purpose))


def read_features(
    model: torch.nn.Module, mix: tuple[str, ...], name: str, seeds: range, **start: object
) -> list[features.FeatureActivations]:
    """Train autoencoders as chapter 05 does and encode the common stream."""
    blocks = training_text(mix, "sae mix", name)
    scale = activations.activation_stats(model, blocks.ids[:512]).scale
    batches = activations.shuffled_batches(
        model,
        blocks.ids,
        n_tokens=config.n_tokens,
        batch_size=config.batch_size,
        seed=derive_seed(p.seed, "sae order", name),
        scale=scale,
    )
    trained, _ = sae_lib.train_autoencoders(batches, config, seeds=seeds, scale=scale, **start)
    if config.architecture == "batchtopk":
        for sae in trained:
            sae.threshold = features.threshold_for_l0(model, sae, calibration.ids, config.k)
    return [features.encode_stream(model, sae, stream.ids) for sae in trained]


draw = {"weights": weights, "n_boot": p.bootstrap, "rng": rng, **rule}
twin_share, twin_neurons, extra = None, None, []
if p.control_model:
    old = recipe["02_base_model"]
    blocks = training_text(TRAINING_MIX["base"], "mix", "twin")
    twin = lm.build_model(
        vocab_size=models["base"].config.vocab_size,
        hidden_size=old["hidden_size"],
        intermediate_size=old["intermediate_size"],
        heads=old["heads"],
        kv_heads=old["kv_heads"],
        context=blocks.context,
        embedding_std=old["embedding_std"],
        seed=derive_seed(p.seed, "init", "twin"),
    )
    lm.train(
        twin,
        blocks.ids,
        n_tokens=old["base_tokens"],
        batch_size=old["batch_size"],
        lr=old["base_lr"],
        warmup_steps=old["base_warmup_steps"],
        weight_decay=old["base_weight_decay"],
        betas=(0.9, old["adam_beta2"]),
        seed=derive_seed(p.seed, "order", "twin"),
    )
    twin_acts = read_features(twin, TRAINING_MIX["base"], "twin", range(p.sae_seeds))
    twin_share = controls.cross_share(
        [f.matrix for f in acts["base"]], [f.matrix for f in twin_acts], stream.documents, **draw
    )
    r = correlation.pearson_dense(
        *(transfer.read_neurons(m, stream.ids) for m in (models["base"], twin))
    )
    twin_neurons = float((r.max(axis=1) >= p.threshold).mean())
    extra.append(
        ("BabyPython", "ceiling: other model", twin_share.share, twin_share.low, twin_share.high)
    )
    extra.append(("BabyPython", "neurons", twin_neurons, np.nan, np.nan))
    said = (
        f"BabyPython's features are found in its twin for {twin_share.share:.1%} "
        f"({twin_share.low:.1%} to {twin_share.high:.1%}), where its own second autoencoder finds "
        f"{ceiling.loc['base', 'ceiling']:.1%} and Lua has "
        f"{pairs.loc[('base', 'lua'), 'persist']:.1%}. Of its neurons, {twin_neurons:.0%} have a "
        f"like one in the twin and {neurons['base', 'lua']:.0%} in Lua: two trainings agree on few "
        "neurons, and fine-tuning leaves most where they were."
    )
else:
    said = "This run left the twin out (`control_model` is off)."
Markdown(said)

# %% [markdown]
# **A warm start.** A child's autoencoder that starts from its parent's, instead of from random
# numbers, can follow features that moved a little and need not invent a new description of those
# that did not. It is the kindest of all measures to persistence, and it may be too kind: a feature
# that the child no longer has leaves its direction behind for something similar to settle in.

# %% tags=["hide-input"]
warm = {}
if p.control_warm_start:
    for parent, child in STEPS:
        (started,) = read_features(
            models[child], TRAINING_MIX[child], child, range(1), init=saes[parent]
        )
        a = acts[parent][0]
        f = matching.assign_fates(
            matching.pearson(a.matrix, started.matrix),
            firings if parent == "base" else features.firing_counts(a),
            features.firing_counts(started),
            **rule,
        )
        interval = matching.persistence_draws(
            a.matrix, started.matrix, stream.documents, f, weights
        )
        low, high = matching.bootstrap_interval(f.persist, interval)
        warm[parent, child] = (f.persist, low, high, controls.index_effect(f)["same_index"])
        extra.append((named(parent, child), "warm start", f.persist, low, high))
    for pair in STEPS:
        x = pairs.loc[pair]
        extra.append((named(*pair), "matching", x["persist"], x["persist_low"], x["persist_high"]))
        extra.append((named(*pair), "transfer", *vars(moved[pair]).values()))
    said = "With a warm start, " + "; ".join(
        f"{named(*pair)} {share:.0%} persist"
        + (f" ({index:.0%} of them under their own index)" if np.isfinite(index) else "")
        for pair, (share, _, _, index) in warm.items()
    )
    said += ". From scratch and with equal seeds: " + "; ".join(
        f"{named(*pair)} {same_start[pair].persist:.0%}" for pair in STEPS
    )
    said += "."
else:
    said = "This run left the warm start out (`control_warm_start` is off)."
Markdown(said)

# %% tags=["hide-input"]
if extra:
    extra = pd.DataFrame(extra, columns=["label", "way", "share", "low", "high"])
    shown = charts.figure(
        control_charts.share_dots(extra),
        name="trained-controls",
        made_by=chapter.made_by,
        caption="Shares by the controls that train a model or an autoencoder of their own, beside "
        "those from above.",
        alt="; ".join(f"{x.label}, {x.way}: {x.share:.0%}" for x in extra.itertuples()),
        data=extra,
    )
else:
    shown = Markdown("")
shown

# %% [markdown]
# **A second opinion.** A *crosscoder* {cite:p}`lindsey2024crosscoders` is one dictionary for
# all four models at once: it reads their activations on the same token together, and writes each
# feature back into each model with a length of its own. Nothing needs to be matched. A feature that
# a model lacks has length 0 there. Crosscoders trained with an L1 penalty are known to invent
# exclusive features, because the penalty shrinks a length to 0 where it could only be small
# {cite:p}`minder2025crosscoders`; with BatchTopK, used here, there is no such penalty.

# %% tags=["hide-input"]
if p.control_crosscoder:
    blocks = training_text(DOMAINS, "crosscoder")
    own_scale = {
        m: activations.activation_stats(model, blocks.ids[:512]).scale
        for m, model in models.items()
    }
    joint = cross.train_crosscoder(
        cross.joint_batches(
            models,
            blocks.ids,
            own_scale,
            n_tokens=p.crosscoder_tokens,
            batch_size=config.batch_size,
            seed=derive_seed(p.seed, "crosscoder"),
        ),
        MODELS,
        sae_lib.AutoencoderConfig(
            d_in=config.d_in * len(MODELS),
            d_sae=config.d_sae,
            k=config.k,
            lr=config.lr,
            n_tokens=p.crosscoder_tokens,
            batch_size=config.batch_size,
        ),
        seed=0,
    )
    read, joint_fvu = cross.read_stream(joint, models, stream.ids, own_scale)
    fires = features.firing_counts(read) >= p.min_firings
    spread = cross.spread_over_models(joint)[fires]
    norms = pd.concat(
        [
            pd.DataFrame(
                {
                    "label": named(*pair),
                    "relative": cross.relative_norm(joint, *pair)[fires],
                }
            )
            for pair in STEPS
        ],
        ignore_index=True,
    )
    kind = norms.assign(kind=cross.classify(norms["relative"]))
    kind = kind.groupby("label", sort=False)["kind"].value_counts(normalize=True).unstack()
    crosscoder_figure = charts.figure(
        control_charts.norm_histogram(norms),
        name="crosscoder",
        made_by=chapter.made_by,
        caption="How the crosscoder's features divide their length between a parent and its child: "
        "0 is written in the parent only, 1 in the child only, a half in both alike.",
        alt="Shared by parent and child: "
        + "; ".join(f"{label} {row['shared']:.0%}" for label, row in kind.iterrows()),
        data=kind.reset_index(),
    )
    overall = spread["kind"].value_counts(normalize=True)
    said = (
        f"The crosscoder explains all but {min(joint_fvu.values()):.0%} to "
        f"{max(joint_fvu.values()):.0%} of the variance of the four models. Of its features, "
        f"{overall['shared']:.0%} are shared by all four and {overall['exclusive']:.0%} are "
        "exclusive to one. Between BabyPython and Lua it calls "
        f"{kind.loc[named('base', 'lua'), 'shared']:.0%} shared and "
        f"{kind.loc[named('base', 'lua'), 'parent only']:.0%} BabyPython's alone."
    )
else:
    crosscoder_figure = Markdown("This run left the crosscoder out (`control_crosscoder` is off).")
    said = ""
crosscoder_figure

# %% tags=["remove-input"]
Markdown(said)

# %% [markdown]
# ## What was found, and what could be wrong


# %% tags=["remove-input"]
def measured(pair: tuple[str, str]) -> claims.StepShares:
    x = pairs.loc[pair]
    return claims.StepShares(
        matching=claims.Share(x["persist"], x["persist_low"], x["persist_high"]),
        ceiling=claims.Share(x["ceiling"], x["ceiling_low"], x["ceiling_high"]),
        ratio=claims.Share(x["calibrated"], x["calibrated_low"], x["calibrated_high"]),
        transfer=moved[pair],
    )


down = {PRINT_NAMES[c]: measured(("base", c)) for c in ("lua", "tinystories")}
into = {PRINT_NAMES[c]: measured((c, "merged")) for c in ("lua", "tinystories")}
mean_index = {
    how: pd.Series({pair: x["same_index"] for pair, x in table.items()}).mean()
    for how, table in index.items()
}
table = claims.claims_table(
    {
        "Few features persist through fine-tuning.": claims.judge_persistence(down),
        "A feature without a match has disappeared.": claims.judge_loss(down),
        f"Features that correlate at {p.threshold:g} or more are the same.": (
            claims.judge_matches(
                shuffled_share, random_share, float(np.mean([fates[x].persist for x in STEPS[:2]]))
            )
        ),
        "What persists is mostly punctuation and formatting.": claims.judge_formatting(**kinds),
        "Merging dilutes features.": claims.judge_merge(
            into,
            float(ends[p.merge_t]),
            {"Lua": float(ends[0.0]), "TinyStories": float(ends[1.0])},
            len(recovered),
            len(followed),
        ),
        "One seed serves all autoencoders (a choice, not a claim).": claims.judge_index(
            mean_index["equal"], mean_index["different"], 1 / acts["base"][0].d_sae
        ),
    }
)
save_table("claims", table)
Markdown(
    f"""\
The instrument finds {
        ceiling.loc["base", "ceiling"]:.0%} of BabyPython's features again when nothing
has changed at all. A share that persists can only be read beside that number, and a feature without
a match has, by itself, shown nothing. But the loss is not all noise. With one dictionary for
both models, {moved["base", "lua"].value:.0%} of BabyPython's features stay themselves in Lua and
{moved["base", "tinystories"].value:.0%} in TinyStories, so {1 - moved["base", "lua"].value:.0%} and
{1 - moved["base", "tinystories"].value:.0%} changed past the threshold, and in LuaStories
{ends[p.merge_t]:.0%} are themselves.

These controls have limits of their own. {
        "The ceiling is low in this run: small dictionaries trained for so short a time are far "
        "from settled, and a ratio of two small shares says little about the features that no "
        "second seed finds. "
        if ceiling.loc["base", "ceiling"] < 0.3
        else ""
    }Transfer reads one encoder per parent, trained on its text alone, and calls changed what that
encoder no longer sees in its place. Most of the common text is foreign to a child, and a
feature may change there and nowhere else. The intervals account for texts and seeds, not for the
training of the models themselves, of which there is one each{
        " and, for BabyPython, one twin" if p.control_model else ""
    }. All of it was measured on one small family of models, and the paper's own models are larger.

The authors asked early which features live through adaptation, and built the pipeline that this
book repeats. What the controls add is a scale to read it by."""
)

# %% tags=["remove-input"]
charts.table(table)

# %% tags=["remove-input"]
metrics = {
    f"transfer.{a}.{b}.{key}": value
    for (a, b), share in moved.items()
    for key, value in zip(
        ("persist", "persist_low", "persist_high"), vars(share).values(), strict=True
    )
}
metrics |= {f"neurons.{a}.{b}.persist": share for (a, b), share in neurons.items()}
metrics |= {
    "control.null.shuffled": shuffled_share,
    "control.null.random": random_share,
    "control.recovered.features": float(len(recovered)),
    "control.recovered.by_neither": float(none_kept),
    "control.recovered.testable": float(len(followed)),
    "control.merged_kept": float(ends[p.merge_t]),
    "control.formatting.all": kinds["everything"].value,
    "control.formatting.survivors": kinds["survivors"].value,
}
if twin_share is not None:
    metrics |= {
        "control.twin.persist": twin_share.share,
        "control.twin.persist_low": twin_share.low,
        "control.twin.persist_high": twin_share.high,
        "control.twin.neurons": twin_neurons,
    }
metrics |= {f"warm.{a}.{b}.persist": share for (a, b), (share, *_) in warm.items()}
if p.control_crosscoder:
    metrics |= {f"crosscoder.{m}.fvu": value for m, value in joint_fvu.items()}
    metrics |= {f"crosscoder.{kind}": float(share) for kind, share in overall.items()}
chapter.finish({key: value for key, value in metrics.items() if np.isfinite(value)})
