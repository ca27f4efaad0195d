# %% [markdown]
# # Every feature, one by one
#
# The chapters so far counted {term}`features <feature>`. Counting says little about what a feature
# *is*; for that one has to look at it. This chapter gathers what is known of every feature of the
# four models, and [the feature atlas](../book/atlas) shows it.
#
# *What we ask here:* what are the features about, and how many of them does a simple {term}`label`
# explain?

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
threshold: float = 0.8  # correlation from which two features count as one
min_firings: int = 30  # tokens a feature must fire on to be testable
atlas_top: int = 8  # strongest examples shown of a feature
atlas_per_quantile: int = 2  # random examples shown from each quarter of its firings

# %%
from itertools import combinations

import numpy as np
import pandas as pd

from featlib.chapter import prose, start_chapter
from featlib.describe import atlas
from featlib.describe.atlas_files import BUDGET, write_atlas
from featlib.dictionaries import features
from featlib.dictionaries.sae import load_autoencoder
from featlib.family import BASE, DOMAIN_NAMES, DOMAINS, MODELS, PAIRS, PRINT_NAMES
from featlib.matching.correlation import pearson
from featlib.matching.fates import Rule, compare
from featlib.models import mistral as lm
from featlib.params import derive_seed
from featlib.run import needed
from featlib.show.figure import table
from featlib.show.marks import bars
from featlib.show.scales import Axis
from featlib.text import tokens
from featlib.text.stream import load_stream

chapter = start_chapter("12_atlas", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(run_folder.tokenizer)
stream = load_stream(run_folder.folder / "features")
acts = {m: [features.load_features(run_folder.features(m, n)) for n in (0, 1)] for m in MODELS}

# %% [markdown]
# ## What each token is
#
# The case studies decide from the source text which {term}`tokens <token>` belong to an exception
# or an assignment. The same was done for the {term}`common stream` when chapter 06 made it.

# %%
kinds = {DOMAIN_NAMES[d]: stream.kinds == number for number, d in enumerate(DOMAINS)}
masks = {**stream.labels, **stream.classes, **kinds}
table(
    pd.DataFrame(
        {
            "label": [name.replace("_", " ") for name in masks],
            "share of tokens": [f"{m.mean():.2%}" for m in masks.values()],
        }
    )
)

# %% [markdown]
# ## What a feature writes
#
# A feature's direction $d_j$ (row $j$ of $W_{\text{dec}}$) leaves the {term}`MLP` through its last
# matrix and, as there is one layer only, goes straight to the unembedding:
#
# $$e_j = W_U \left( \gamma \odot W_{\text{down}}\, d_j \right) .$$
#
# $\gamma$ is the gain of the final norm. What the norm does besides, dividing by the length of the
# residual stream, is left out: it is a positive number that differs from token to token and changes
# no order. The tokens with the largest $e_j$ are those that the feature promotes, the smallest
# those that it suppresses.

# %%
effects, fits = {}, {}
for m in MODELS:
    model = lm.load_checkpoint(run_folder.model(m))
    sae = load_autoencoder(needed(run_folder.autoencoder(m, 0)))
    effects[m] = atlas.token_effects(model, sae)[:, : len(tokenizer)]
    fits[m] = atlas.best_fits(acts[m][0], masks)

# %% [markdown]
# ## Relatives
#
# The atlas shows the features of the first {term}`autoencoder` of each model (seed 0). Whether a
# feature {term}`persists <persist>` or {term}`emerges <emerge>` is decided, as in the chapter on
# matching, against the other model's *second* autoencoder, so that a shared start proves nothing.
# The {term}`matches <match>` shown side by side are between first autoencoders, so that each has a
# page of its own.

# %%
rule = Rule(p.threshold, p.min_firings)
chosen = run_folder.read_table("matches")
chosen = chosen[chosen["side"] == "parent"].set_index(["parent", "child"])
fates: dict[str, dict[str, pd.DataFrame]] = {m: {} for m in MODELS}
for parent, child in PAIRS:
    found = compare(acts[parent][1].matrix, acts[child][0].matrix, rule)
    fates[parent][f"{parent}>{child}"] = chosen.loc[(parent, child)].sort_values("feature")
    fates[child][f"{parent}>{child}"] = found.children
twins = {m: pearson(acts[m][0].matrix, acts[m][1].matrix).max(axis=1) for m in MODELS}
near: dict[tuple[str, str], tuple] = {}
for a, b in combinations(MODELS, 2):
    r = pearson(acts[a][0].matrix, acts[b][0].matrix)
    near[a, b], near[b, a] = (atlas.nearest(one_way, atlas.MATCHES) for one_way in (r, r.T))
matches = {m: {b: near[m, b] for b in MODELS if b != m} for m in MODELS}

# %% [markdown]
# ## The atlas

# %%
levels = {m: atlas.Levels(acts[m][0]) for m in MODELS}
pages = {
    m: atlas.describe_features(
        acts[m][0],
        stream.ids,
        stream.documents,
        effects[m],
        matches=matches[m],
        others=levels,
        domains=stream.kinds,
        fits=fits[m],
        top=p.atlas_top,
        per_quantile=p.atlas_per_quantile,
        rng=np.random.default_rng(derive_seed(p.seed, "atlas", m)),
    )
    for m in MODELS
}
size = write_atlas(
    run_folder.folder / "atlas",
    about={
        "run": run_folder.name,
        "tokens": stream.n_tokens,
        "vocabulary": tokens.token_strings(tokenizer, range(len(tokenizer))),
        "domains": [DOMAIN_NAMES[d] for d in DOMAINS],
        "labels": list(masks),
        **vars(rule),
    },
    ids=stream.ids,
    models=pages,
    fates=fates,
    twins=twins,
    explanations=run_folder.read_table("explanations"),
)
n_features = sum(f[0].d_sae for f in acts.values())

# %% tags=["remove-input"]
prose(
    """\
The files of [the atlas](../book/atlas) take {{ (size / 1e6)|num(1) }} MB,
{{ (size / features)|num(0) }} bytes a feature. The most that we allow is {{ budget|num(0) }} bytes
a feature, here {{ (budget * features / 1e6)|num(1) }} MB.
{% if size > budget * features %}
**That is exceeded:** lower `atlas_top` or `atlas_per_quantile`.
{% endif %}""",
    size=size,
    features=n_features,
    budget=BUDGET,
)

# %% [markdown]
# ## What they are about
#
# A label fits a feature if "the feature {term}`fires <fire>` above a share of its maximum" and "the
# token has the label" agree, with an {term}`F1` of 0.5 or more. Most features are narrower than any
# of these labels: one that fires on half of all commas has no chance here, and is a feature all the
# same.

# %% tags=["hide-input"]
names = list(masks)
best = [(m, names[fit[0][0]], fit[0][3] / 100) for m in MODELS for fit in fits[m] if fit]
first = pd.DataFrame(best, columns=["model", "label", "f1"])
fitting = first[first["f1"] >= 0.5].groupby(["model", "label"], as_index=False).size()
fitting = fitting.rename(columns={"size": "features"})
share = {m: fitting.loc[fitting["model"] == m, "features"].sum() / acts[m][0].d_sae for m in MODELS}
chapter.figure(
    bars(
        fitting,
        x=Axis("features", "features", "d", zero=True),
        y="label",
        color="model",
        beside=True,
        order="-x",
        step=10,
    ),
    name="labels",
    caption="Features whose best label fits with an F1 of 0.5 or more, by label and model.",
    alt="Share of features that a simple label fits: "
    + ", ".join(f"{PRINT_NAMES[m]} {s:.1%}" for m, s in share.items())
    + ".",
    data=fitting,
)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
prose(
    """\
A simple label fits {{ least|pct(1) }} to {{ most|pct(1) }} of the features of a model, and
{{ dead|num(0) }} of {{ features|num(0) }} never fire on the common stream. The rest is narrower
than our labels, or about several things at once. Looking is the only way to know, and
[the atlas](../book/atlas) is made for it.

Beware of its examples. The strongest ones make nearly every feature look clean; the random ones
from the weaker quarters show what it mostly does. And a single feature is one autoencoder's
account: of BabyPython's testable features only {{ again|pct }} are found again, at
$r \\ge {{ threshold }}$, by the second autoencoder of the same model. Each page says whether its
feature is one of them.""",
    least=min(share.values()),
    most=max(share.values()),
    dead=sum((f[0].firings == 0).sum() for f in acts.values()),
    features=n_features,
    again=(twins[BASE] >= p.threshold)[acts[BASE][0].firings >= p.min_firings].mean(),
    threshold=f"{p.threshold:g}",
)

# %% tags=["remove-input"]
chapter.finish({"atlas.bytes_per_feature": size / n_features}, atlas_bytes=size)
