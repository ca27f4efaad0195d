# %% [markdown]
# # Every feature, one by one
#
# [The feature atlas](../book/atlas) has a page for every {term}`feature` of the four models, with
# the text it {term}`fires <fire>` on. Few features are as simple as the labels of the case studies:
# this chapter counts how many are, and gathers what the atlas shows.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
sae_seeds: int = 3  # autoencoders per model, with seeds 0, 1, ...; at least 2
threshold: float = 0.8  # correlation from which two features count as one
min_firings: int = 30  # tokens a feature must fire on to be testable
atlas_top: int = 8  # strongest examples shown of a feature
atlas_per_quantile: int = 2  # random examples shown from each quarter of its firings

# %% tags=["hide-input"]

import numpy as np
import pandas as pd

from featlib.chapter import prose, start_chapter
from featlib.describe import atlas
from featlib.describe.atlas_files import Pages, dictionary_name, read_named, write_atlas
from featlib.dictionaries import features
from featlib.dictionaries.activations import activation_scale
from featlib.dictionaries.sae import load_autoencoder
from featlib.family import BASE, DOMAIN_NAMES, DOMAINS, MODELS, PAIRS, PLACEBO
from featlib.matching.correlation import paired_pearson
from featlib.matching.fates import Rule, compare
from featlib.matching.transfer import carry
from featlib.models import mistral as lm
from featlib.params import derive_seed
from featlib.run import needed
from featlib.show.marks import bars
from featlib.show.scales import Axis
from featlib.text import tokens
from featlib.text.stream import load_stream

chapter = start_chapter("12_atlas", globals())
p, run_folder = chapter.params, chapter.run
rule = Rule(p.threshold, p.min_firings)
tokenizer = lm.load_tokenizer(run_folder.tokenizer)
stream = load_stream(run_folder.folder / "features")
keys = [(m, n) for n in range(p.sae_seeds) for m in MODELS]
acts = {key: features.load_features(run_folder.features(*key)) for key in keys}
masks = {
    **stream.labels,
    **stream.classes,
    **{DOMAIN_NAMES[d]: stream.kinds == number for number, d in enumerate(DOMAINS)},
}
fits = {key: atlas.best_fits(f, masks) for key, f in acts.items()}

# %% [markdown]
# ## What the features are about
#
# A {term}`label` fits a feature if "the feature fires above a share of its maximum" and "the token
# has the label" agree, with an {term}`F1` of 0.5 or more. Labels are read from the source text: the
# case studies' own, classes of tokens, and the kind of text.

# %% tags=["hide-input"]
names = list(masks)
best = [(m, names[fit[0][0]], fit[0][3] / 100) for m in MODELS for fit in fits[m, 0] if fit]
first = pd.DataFrame(best, columns=["model", "label", "f1"])
fitting = first[first["f1"] >= 0.5].groupby(["model", "label"], as_index=False).size()
fitting = fitting.rename(columns={"size": "features"})
total = sum(acts[m, 0].d_sae for m in MODELS)
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
    alt=f"A simple label fits {fitting['features'].sum():,} of {total:,} features.",
    data=fitting,
)

# %% tags=["hide-input"]
named = read_named(run_folder)
named = named.loc[[key in acts for key in zip(named["model"], named["seed"], strict=True)]]
relatives = atlas.seeds_by_models(named, acts, fits)
also = relatives[["other_model", "other_seed", "other"]].set_axis(
    ["model", "seed", "feature"], axis=1
)
shown = {(m, 0): np.arange(acts[m, 0].d_sae) for m in MODELS}
for key, own in pd.concat([named, also]).groupby(["model", "seed"])["feature"]:
    shown.setdefault(key, np.unique(own.to_numpy(dtype=int)))

# The features themselves, read in the models that came after.
models = {m: lm.load_checkpoint(needed(run_folder.model(m))) for m in (*MODELS, PLACEBO)}
saes = {key: load_autoencoder(needed(run_folder.autoencoder(*key))) for key in shown}
scales = {m: activation_scale(model, stream.ids) for m, model in models.items()}
beside: dict[atlas.Key, list[atlas.Counterparts]] = {key: [] for key in shown}
asked = {(m, 0) for m in MODELS} | set(zip(named["model"], named["seed"], strict=True))
for parent, child in (*PAIRS, (BASE, PLACEBO)):
    for key in shown.keys() & asked & {(parent, n) for n in range(p.sae_seeds)}:
        f, own = acts[key], shown[key]
        read = carry(saes[key], scales[parent], models[child], stream.ids, l0=f.l0)[1]
        r = paired_pearson(f.matrix, read.matrix)
        beside[key].append(atlas.Counterparts("transfer", child, own, r[own], atlas.Levels(read)))
for key, own in shown.items():
    for other in MODELS:
        if other != key[0]:
            beside[key].append(atlas.best_matches(acts[key], own, other, acts[other, 0]))

# %% tags=["hide-input"]
chosen = run_folder.read_table("matches")
chosen = chosen[chosen["side"] == "parent"].set_index(["parent", "child"])
fates: dict[atlas.Key, dict[str, pd.DataFrame]] = {key: {} for key in shown}
for parent, child in PAIRS:
    against = compare(acts[parent, 1].matrix, acts[child, 0].matrix, rule)
    fates[parent, 0][f"{parent}>{child}"] = chosen.loc[(parent, child)].sort_values("feature")
    fates[child, 0][f"{parent}>{child}"] = against.children


pages = {
    key: Pages(
        own,
        atlas.describe_features(
            acts[key],
            own,
            stream,
            atlas.token_effects(models[key[0]], saes[key])[own][:, : len(tokenizer)],
            beside=beside[key],
            fits=fits[key],
            top=p.atlas_top,
            per_quarter=p.atlas_per_quantile,
            rng=np.random.default_rng(derive_seed(p.seed, "atlas", dictionary_name(*key))),
        ),
        fates[key],
        # By another seed of the same model.
        atlas.best_matches(acts[key], own, "", acts[key[0], (key[1] + 1) % p.sae_seeds]).r,
    )
    for key, own in shown.items()
}
size = write_atlas(
    run_folder.folder / "atlas",
    about={
        "run": run_folder.name,
        "tokens": stream.n_tokens,
        "vocabulary": tokens.token_strings(tokenizer, range(len(tokenizer))),
        "domains": [DOMAIN_NAMES[d] for d in DOMAINS],
        "labels": names,
        "seeds": p.sae_seeds,
        **vars(rule),
    },
    ids=stream.ids,
    pages=pages,
    named=named,
    relatives=relatives,
    explanations=run_folder.read_table("explanations"),
)

# %% [markdown]
# ## How to look at them
#
# The strongest examples make nearly every feature look clean; the typical ones, drawn evenly from
# the quarters of its firings, show what it mostly does. And a single feature is one
# {term}`autoencoder`'s account: each page says whether another autoencoder of the same model finds
# the feature again.

# %% tags=["remove-input"]
testable = acts[BASE, 0].firings >= p.min_firings
prose(
    """\
A simple label fits {{ fit }} of {{ total }} features; the rest is narrower, or about several things
at once. Of BabyPython's testable features {{ again|pct }} are found again, at
$r \\ge {{ threshold }}$, by its second autoencoder.""",
    fit=f"{fitting['features'].sum():,}",
    total=f"{total:,}",
    again=(pages[BASE, 0].twins[testable] >= p.threshold).mean(),
    threshold=f"{p.threshold:g}",
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
# no order. The largest $e_j$ are tokens that the feature promotes, the smallest those that it
# suppresses.

# %% tags=["remove-input"]
n_pages = sum(map(len, shown.values()))
chapter.finish({"atlas.bytes_per_feature": size / n_pages}, atlas_bytes=size)
