# %% [markdown]
# # Matching: the same feature in two models
#
# We now have lists of {term}`features <feature>`, one list per model, and nothing that connects
# them: feature 152 of BabyPython and feature 152 of Lua were learned apart. The connection is made
# by behaviour. All models read the same text, and two features that rise and fall together,
# {term}`token` by token, are taken to be the same feature.
#
# *What we ask here:* which share of a parent's features has a {term}`match` in its child, and how
# large could that share be at best?

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
from featlib.dictionaries import features
from featlib.dictionaries.recipes import read_common_text, read_through_text
from featlib.dictionaries.sae import load_autoencoder
from featlib.estimate import document_weights
from featlib.family import BASE, MERGED, MODELS, PAIRS, PRINT_NAMES, SKIPPED, step_name
from featlib.matching import ceilings, nulls
from featlib.matching.correlation import pearson
from featlib.matching.fates import Rule, one_to_one
from featlib.models import mistral as lm
from featlib.params import derive_seed
from featlib.run import needed, write_json
from featlib.show.figure import table
from featlib.show.marks import areas, bars
from featlib.show.picks import match_histogram
from featlib.show.scales import Axis
from featlib.text.stream import make_stream, save_stream

chapter = start_chapter("06_matching", globals())
p, run_folder = chapter.params, chapter.run

# %% [markdown]
# ## One text for all
#
# The {term}`common stream` is made of test documents of all four kinds, in equal parts, so that no
# model is at home in it more than another. Nothing of it was used in training. Every
# {term}`autoencoder` of every model reads it; what is kept is which features {term}`fire` on which
# token, and how strongly.

# %%
stream = make_stream(
    run_folder,
    lm.load_tokenizer(run_folder.tokenizer),
    p.stream_tokens,
    seed=derive_seed(p.seed, "stream"),
)
save_stream(stream, run_folder.folder / "features")
acts: dict[str, list[features.FeatureActivations]] = {}
thresholds: dict[str, list] = {}
for name in MODELS:
    model = lm.load_checkpoint(needed(run_folder.model(name)))
    saes = [load_autoencoder(needed(run_folder.autoencoder(name, n))) for n in range(p.sae_seeds)]
    acts[name] = read_common_text(model, saes, stream, k=p.k)
    thresholds[name] = [sae.plain_threshold() for sae in saes]
    for n, found in enumerate(acts[name]):
        features.save_features(found, run_folder.features(name, n))
write_json(run_folder.folder / "features" / "thresholds.json", thresholds)
on_other_text = {
    (parent, child): read_through_text(
        run_folder,
        lm.load_checkpoint(run_folder.model(parent)),
        parent,
        child,
        stream,
        k=p.k,
        seed=p.seed,
    )
    for parent, child in PAIRS
}
sizes = pd.DataFrame(
    {
        "model": [PRINT_NAMES[m] for m in MODELS],
        "tokens": [acts[m][0].n_tokens for m in MODELS],
        "features": [acts[m][0].d_sae for m in MODELS],
        "active per token": [acts[m][0].l0 for m in MODELS],
        "silent": [int((acts[m][0].firings == 0).sum()) for m in MODELS],
    }
)
table(sizes)

# %% [markdown]
# Each autoencoder decides by a threshold which features are active, and that threshold fits the
# text of its own model. On the common text an autoencoder meets what its model was not adapted to,
# and would describe it with more features than elsewhere. A longer description matches a shorter
# one less well, so the thresholds are set anew, on a random part of the common text, such that
# every autoencoder uses the same number of features per token here.

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
# something always does over ten. With all tokens counted, and a feature that fires on too few of
# them set aside as *{term}`untestable`*, chance stays out. Since activations are sparse, the sum
# runs over the few tokens where both are not zero, and the result is exact for all pairs.
#
# The next figure shows how easily chance alone would reach the threshold.

# %% tags=["hide-input"]
firings = np.unique(np.geomspace(4, 100, 60).astype(int))
chance = pd.DataFrame(
    {
        "firings": firings,
        "chance": nulls.chance_of_match(firings, acts[BASE][0].d_sae, p.threshold),
    }
)
at_rule = float(nulls.chance_of_match(p.min_firings, acts[BASE][0].d_sae, p.threshold))
chapter.figure(
    areas(
        chance,
        x=Axis("firings", "tokens that the correlation rests on", zero=True),
        y=Axis("chance", "chance of a spurious match", "%"),
        rule=(p.min_firings, f"testable from {p.min_firings} on"),
    ),
    name="chance-of-match",
    caption="Probability that the best of all candidates passes the threshold by chance, when "
    "correlation is taken over so many tokens (Gaussian null). The rule marks where we begin to "
    "call a feature testable.",
    alt=f"Chance of a spurious match is near 1 at 10 tokens and {at_rule:.4f} at {p.min_firings}.",
    data=chance,
)

# %% [markdown]
# ## Best matches
#
# For every testable feature of a parent, its best match in the child. Beside it, as an outline, the
# same for the parent against *itself*: a second autoencoder of the same model, trained on the same
# activations from another seed.


# %% tags=["hide-input"]
rng = np.random.default_rng(derive_seed(p.seed, "bootstrap"))
rule = Rule(p.threshold, p.min_firings)
common = {
    "documents": stream.documents,
    "weights": document_weights(stream.documents, p.bootstrap, rng),
    "rng": rng,
    "rule": rule,
}
matrices = {model: [f.matrix for f in acts[model]] for model in MODELS}
own = {model: ceilings.over_pairs(matrices[model], **common) for model in MODELS}
crossed = {
    (parent, child): ceilings.over_pairs(matrices[parent], matrices[child], **common)
    for parent, child in PAIRS
}
fates = {pair: share.fates[0, 1] for pair, share in crossed.items()}
itself = {model: ceiling.fates[0, 1] for model, ceiling in own.items()}


def testable_r(table: pd.DataFrame, **names: str) -> pd.DataFrame:
    return table.loc[table["fate"] != "untestable", ["r"]].assign(**names)


best_r = pd.concat(
    [testable_r(f.parents, parent=a, child=b) for (a, b), f in fates.items() if (a, b) != SKIPPED]
)
own_r = pd.concat([testable_r(f.parents, model=model) for model, f in itself.items()])
passing = (best_r["r"] >= p.threshold).groupby([best_r["parent"], best_r["child"]]).mean()
chapter.figure(
    match_histogram(best_r, own_r, threshold=p.threshold),
    name="best-matches",
    caption="Best correlation of each testable feature of the parent with a feature of the child "
    "(bars) and with a feature of a second autoencoder of the parent itself (outline). Choose a "
    "bar to see its features.",
    alt="Share of features whose best match passes the threshold: "
    + "; ".join(f"{PRINT_NAMES[a]} to {PRINT_NAMES[b]} {r:.0%}" for (a, b), r in passing.items()),
)

# %% [markdown]
# Two features of the parent may have the same best match. Two stricter ways of pairing rule that
# out: *mutual* matches, each the other's best, and the *one-to-one* pairing that has the largest
# sum of correlations and uses no feature twice. The paper, and this book from here on, counts best
# matches.

# %% tags=["hide-input"]
ways = []
for (parent, child), share in crossed.items():
    f = fates[parent, child]
    r = pearson(matrices[parent][0], matrices[child][1])
    tested = f.parents[f.parents["fate"] != "untestable"]
    passing_r = tested["r"] >= p.threshold
    paired = one_to_one(r, floor=p.threshold)["parent"]
    ways.append(
        {
            "step": step_name(parent, child),
            "best": f"{passing_r.mean():.1%}",
            "mutual": f"{(passing_r & tested['mutual']).mean():.1%}",
            "one-to-one": f"{tested['feature'].isin(paired).mean():.1%}",
            "seed ceiling (best)": f"{own[parent].share.value:.1%}",
            "calibrated (best)": f"{ceilings.calibrate(share, own[parent]).value:.2f}",
        }
    )
table(pd.DataFrame(ways))

# %% [markdown]
# ## Shares, ceilings and what remains
#
# For each step from parent to child: the share of testable features that {term}`persist`; the *seed
# ceiling*, which is the same share between two autoencoders of the parent; and the calibrated
# share, one divided by the other. Shares are means over all pairs of autoencoders with different
# seeds, with 95% intervals from resampling the documents. A {term}`null`, in which the child's
# activations are shifted within each document, shows what is left when nothing real can match.

# %% tags=["hide-input"]
pairs = ceilings.summarize_steps(matrices, own, crossed, stream.documents, rng, rule)
reach = 2 * pairs[["persist_high", "ceiling"]].max(axis=None)  # half for the words at the right
chapter.figure(
    bars(
        pairs.assign(
            step=pairs["parent"].map(PRINT_NAMES) + " → " + pairs["child"].map(PRINT_NAMES),
            said=[f"{r.persist:.0%} of {r.ceiling:.0%}" for r in pairs.itertuples()],
        ),
        x=Axis("persist", "share of testable features", "%", domain=(0, reach)),
        y="step",
        upto="ceiling",
        span=("persist_low", "persist_high"),
        text="said",
    ),
    name="persistence",
    caption="Share of a parent's testable features that persist in its child (dark bar; the line "
    "is its 95% interval), and the seed ceiling of the parent (pale bar, up to the mark).",
    alt="; ".join(
        f"{PRINT_NAMES[r.parent]} to {PRINT_NAMES[r.child]}: {r.persist:.0%} persist, of at most "
        f"{r.ceiling:.0%}"
        for r in pairs.itertuples()
    ),
    data=pairs,
)

# %% [markdown]
# ## Every feature has one fate

# %%
listed = []
for (parent, child), f in fates.items():
    for side, part in (("parent", f.parents), ("child", f.children)):
        listed.append(part.assign(parent=parent, child=child, side=side))
matches = pd.concat(listed, ignore_index=True)
run_folder.save_table("matches", matches)
run_folder.save_table("pairs", pairs)
run_folder.save_table("flows", ceilings.count_flows(own, crossed))
by_pair = {(model, model): ceiling for model, ceiling in own.items()} | crossed
every = [share.pairs.assign(parent=a, child=b) for (a, b), share in by_pair.items()]
run_folder.save_table("seed_pairs", pd.concat(every, ignore_index=True))
counts = (
    matches.groupby(["parent", "child", "side", "fate"], observed=True, sort=False)
    .size()
    .unstack("fate", fill_value=0)
)
assert (counts.sum(axis=1) == acts[BASE][0].d_sae).all()
counts = counts.reset_index()
table(
    counts.assign(parent=counts["parent"].map(PRINT_NAMES), child=counts["child"].map(PRINT_NAMES))
)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
down = pairs[(pairs["parent"] == BASE) & (pairs["child"] != MERGED)]
first = down.iloc[0]
prose(
    """\
From {{ base }} {{ persist | listed }} of the testable features persist. Read alone, these numbers
say that {{ lost | listed }} disappear. But of {{ base }}'s features a second autoencoder of
*{{ base }} itself* finds {{ first.ceiling | pct }} again. Measured against that ceiling,
{{ calibrated | listed }} of what could persist does.

With equal seeds, {{ first.same_index | pct }} of the matches from {{ base }} to {{ child }} have
the same index in both lists, where chance would give {{ (1 / d_sae) | pct(2) }}. Autoencoders that
start from the same random numbers stay near each other. The paper's all did; ours, in the shares
above, never do.

The null passes the threshold for {{ null | pct(1) }} of the features at most, so chance is not
what we count. Two things remain uncertain. The child's autoencoder learned from the child's text,
so part of a loss may be the text's, and [Controls](11_controls) measures how much. And the
threshold is a choice: {{ threshold }} is a convention, and features that turn into near relatives
of themselves fall below it.""",
    base=PRINT_NAMES[BASE],
    persist=[f"to {PRINT_NAMES[step.child]} {step.persist:.0%}" for step in down.itertuples()],
    lost=[f"{1 - share:.0%}" for share in down["persist"]],
    calibrated=[f"{share:.0%}" for share in down["calibrated"]],
    first=first,
    child=PRINT_NAMES[first["child"]],
    d_sae=acts[BASE][0].d_sae,
    null=pairs["null"].max(),
    threshold=f"{p.threshold:g}",
)

# %% tags=["remove-input"]
chapter.finish(ceilings.step_metrics(pairs))
