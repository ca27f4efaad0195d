# %% [markdown]
# # Autoencoders: from neurons to features
#
# Every model gets {term}`autoencoders <autoencoder>` that keep nearly all of what its {term}`MLP`
# does for the {term}`loss`, with the same number of {term}`features <feature>` per {term}`token`.
# How many of these features a second autoencoder finds again depends on how long and how fast both
# were trained, so every share in this book is read against its instrument.
#
# *What we ask here:* are the four models described equally well and equally sparsely, so that their
# lists of features can be compared, and what would a better instrument have shown?

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
sae_architecture: str = "batchtopk"  # batchtopk, topk, jumprelu; or relu as in the paper
d_sae: int = 2048  # features of an autoencoder
k: int = 16  # features active per token, on average (all but relu)
l1: float = 4.0  # weight of the L1 penalty (relu), on scaled activations
sae_lr: float = 0.006  # learning rate
sae_adam_beta2: float = 0.99  # second decay rate of Adam
sae_tokens: int = 800_000  # activations each autoencoder is trained on
sae_batch_size: int = 1024  # activations in one batch
sae_seeds: int = 3  # autoencoders per model that differ in their seed only
card_tokens: int = 20_000  # validation tokens per domain for the scores

# %%
from dataclasses import asdict

import numpy as np
import pandas as pd

from featlib.chapter import prose, start_chapter
from featlib.dictionaries import card, recipes
from featlib.dictionaries.sae import save_autoencoder
from featlib.family import MODELS, PRINT_NAMES, TRAINING_MIX
from featlib.models import mistral as lm
from featlib.run import needed
from featlib.show.hists import hist
from featlib.show.marks import dots, lines, stack
from featlib.show.scales import Axis
from featlib.text import tokens

chapter = start_chapter("05_autoencoders", globals())
p, run_folder = chapter.params, chapter.run

# %% [markdown]
# ## What an autoencoder computes
#
# A {term}`neuron` rarely means one thing. A *sparse autoencoder* ({term}`SAE`) rewrites the
# {term}`activations <activation>` $x$ of all neurons, scaled to a mean length of
# $\sqrt{d_\text{in}}$, as a sum of few directions out of a list several times longer than there
# are neurons:
#
# $$f = \mathrm{act}\big((x - b_\text{dec})\,W_\text{enc} + b_\text{enc}\big), \qquad
# \hat{x} = f\,W_\text{dec} + b_\text{dec}.$$
#
# Each entry of $f$ is a feature, and its row of $W_\text{dec}$ has length one. Training makes
# $\lVert x - \hat{x} \rVert^2$ small. The paper's $\mathrm{act}$ is ReLU with a penalty
# $\ell_1 \sum_j f_j$, which leaves open how sparse $f$ becomes. We take *{term}`BatchTopK`*
# {cite:p}`bussmann2024batchtopk`, which keeps the largest entries of a batch, $k$ per token on
# average; `sae_architecture` names the others. Each model's autoencoders read the text that the
# model learned from, several at once from different seeds: how far *they* agree is the ceiling for
# any agreement between models.

# %%
d_in = lm.load_checkpoint(needed(run_folder.model("base"))).config.intermediate_size
config = recipes.autoencoder_config(p, d_in)
cards, densities = [], []
for name in MODELS:
    model = lm.load_checkpoint(needed(run_folder.model(name)))
    mix = TRAINING_MIX[name]
    saes = recipes.train_dictionaries(
        model,
        run_folder,
        mix,
        config,
        name=name,
        seeds=range(p.sae_seeds),
        seed=p.seed,
        progress=PRINT_NAMES[name],
    )
    scored = tokens.mix_blocks(
        [tokens.load_blocks(run_folder.tokens, f"{d}.validation") for d in mix],
        p.card_tokens * len(mix),
        seed=0,
    )
    baselines = card.score_baselines(model, scored.ids)
    for n, sae in enumerate(saes):
        made = {"model_name": name, "seed": n, "training": asdict(config)}
        save_autoencoder(sae, run_folder.autoencoder(name, n), made)
        scores, density = card.score_autoencoder(sae, model, scored.ids, baselines)
        cards.append({"model": name, "seed": n, **scores})
        densities.append(pd.DataFrame({"model": name, "seed": n, "density": density}))
cards = pd.DataFrame(cards)
densities = pd.concat(densities, ignore_index=True)
shown = densities[(densities["seed"] == 0) & (densities["density"] > 0)]

# %% [markdown]
# ## A card for each
#
# *{term}`L0`* counts the features active per token. *{term}`FVU`* is the fraction of variance left
# unexplained. *{term}`CE recovered`* is how much of the MLP's effect on the loss remains when the
# reconstruction takes the activation's place (1: all; 0: as if the MLP were cut out). *Alive* is
# the share of features that {term}`fire` at all.

# %% tags=["hide-input"]
run_folder.save_table("autoencoder_cards", cards)
chapter.figure(
    stack(
        *[
            dots(cards, x=Axis(column, None, form), y="model", color="model", title=title)
            for column, title, form in [
                ("l0", "features active per token (L0)", ""),
                ("fvu", "variance left unexplained (FVU)", ".3f"),
                ("ce_recovered", "loss recovered", "%"),
                ("alive", "features alive", "%"),
            ]
        ],
        left=90,
    ),
    name="autoencoder-cards",
    caption="Scores of all autoencoders on validation text. Dots of one colour are seeds of one "
    "model.",
    alt=f"L0 lies between {cards['l0'].min():.1f} and {cards['l0'].max():.1f}, FVU between "
    f"{cards['fvu'].min():.2f} and {cards['fvu'].max():.2f}, CE recovered between "
    f"{cards['ce_recovered'].min():.2f} and {cards['ce_recovered'].max():.2f}.",
    data=cards,
)

# %% [markdown]
# ## A share is only as good as its instrument
#
# Two autoencoders of BabyPython, from different seeds, were trained anew for each dot below. What
# they leave unexplained falls slowly; what they agree on, the {term}`seed ceiling`, grows several
# times over, and has not stopped growing at the longest training here. Nothing in the language
# model changed.

# %% tags=["hide-input"]
curve = chapter.published("training_curve")
curve["setting"] = [f"{r.lr:g}, {r.beta2:g}, {r.batch:,}" for r in curve.itertuples()]
grown = curve.groupby("setting", sort=False)["ceiling"].agg(["first", "last"])
chapter.figure(
    stack(
        *[
            lines(
                curve,
                Axis("activations", "activations read in training", "~s"),
                Axis(column, title, form, zero=True),
                color="setting",
                points=True,
                height=190,
                columns=1,
                legend=column == "ceiling",
            )
            for column, title, form in [
                ("ceiling", "found again by the other seed", "%"),
                ("fvu", "variance left unexplained", ".2f"),
            ]
        ],
        left=40,
    ),
    name="training-curve",
    caption="A share is read against its instrument: the same model has another ceiling when its "
    "autoencoders are trained longer or otherwise. A line's name is its learning rate, Adam's "
    "second decay rate and its batch.",
    alt="; ".join(
        f"{row.Index}: ceiling {row.first:.0%} after the shortest training, {row.last:.0%} after "
        "the longest"
        for row in grown.itertuples()
    ),
    data=curve,
    made_by=curve.attrs["made_by"],
)

# %% [markdown]
# ## How often features fire
#
# Most features are rare. The {term}`density` of a feature is the share of tokens on which it fires.

# %% tags=["hide-input"]
chapter.figure(
    hist(
        shown.assign(log10_density=np.log10(shown["density"])),
        x=Axis(
            "log10_density",
            "fires on one token in so many",
            domain=(-6, 0),
            values=range(-6, 1),
            words={-6: "rarer", -4: "1 in 10⁴", -3: "1 in 1,000", -2: "1 in 100", 0: "always"},
        ),
        edges=np.arange(-6, 0.1, 0.25),
        color="model",
    ),
    name="densities",
    caption="How often features fire, on a logarithmic scale, first seed of each model. Features "
    "that never fire on the validation text are left out.",
    alt="Median density of features: "
    + ", ".join(
        f"{PRINT_NAMES[m]} {d.median():.4f}"
        for m, d in shown.groupby("model", sort=False)["density"]
    ),
)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
first = cards[cards["seed"] == 0].set_index("model")
prose(
    """\
Each model's autoencoder keeps {{ kept.min() | pct }} to {{ kept.max() | pct }} of what the MLP does
for the loss, with {{ l0.min() | num(1) }} to {{ l0.max() | num(1) }} features per token, and
{{ alive | pct(1) }} or more of its features fire. A one-layer model with 512 neurons once
gave 79% at 8 times as many features as neurons, and 94.5% at 256 times
{cite:p}`bricken2023monosemanticity`. Two autoencoders can reconstruct equally well with different
lists, and a high recovered loss is no proof that the model uses these features.""",
    kept=first["ce_recovered"],
    l0=first["l0"],
    alive=first["alive"].min(),
)

# %% tags=["remove-input"]
chapter.finish(
    {
        f"sae.{row.model}.{row.seed}.{key}": getattr(row, key)
        for row in cards.itertuples()
        for key in ("l0", "fvu", "ce_recovered", "ce_delta", "alive")
    }
)
