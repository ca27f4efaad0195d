# %% [markdown]
# # Autoencoders: from neurons to features
#
# A {term}`neuron` of a language model rarely means one thing. A *sparse {term}`autoencoder`*
# ({term}`SAE`) rewrites the neurons' {term}`activations <activation>` as a sum of a few directions,
# chosen from a list several times longer than there are neurons. Each direction that it learns is
# called a {term}`feature`, and a feature often does mean one thing: a closing bracket, a line that
# raises an exception.
#
# *What we ask here:* does each of the four models get an autoencoder that describes it well, and
# equally sparsely, so that the four lists of features can be compared?

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
from IPython.display import Markdown

from featlib.chapter import start_chapter
from featlib.dictionaries import card, recipes
from featlib.dictionaries.sae import save_autoencoder
from featlib.family import MODELS, PRINT_NAMES, TRAINING_MIX
from featlib.models import mistral as lm
from featlib.run import needed
from featlib.show.hists import hist
from featlib.show.marks import dots, stack
from featlib.show.scales import Axis
from featlib.text import tokens

chapter = start_chapter("05_autoencoders", globals())
p, run_folder = chapter.params, chapter.run

# %% [markdown]
# ## What an autoencoder computes
#
# Let $x$ be a vector of activations, scaled by one fixed number per model so that its mean length
# is $\sqrt{d_\text{in}}$. The autoencoder computes
#
# $$f = \mathrm{act}\big((x - b_\text{dec})\,W_\text{enc} + b_\text{enc}\big), \qquad
# \hat{x} = f\,W_\text{dec} + b_\text{dec},$$
#
# where $f$ has one entry per feature and the rows of $W_\text{dec}$ have length one. It is trained
# to make $\lVert x - \hat{x} \rVert^2$ small. The paper takes $\mathrm{act} = \mathrm{ReLU}$ and
# adds a penalty $\ell_1 \sum_j f_j$ to keep $f$ sparse. How sparse $f$ becomes then depends on the
# model, and two models with different sparsity are hard to compare. We take *{term}`BatchTopK`*
# {cite:p}`bussmann2024batchtopk` by default: of all entries in a batch, the largest are kept, $k$
# per {term}`token` on average. So every model uses the same number of features per token. Set
# `sae_architecture` to `relu` for the paper's, with $\ell_1$ as the parameter `l1`; to `topk`,
# which keeps the $k$ largest of each token; or to `jumprelu`, where each feature learns from which
# value on it is active. An architecture of your own is a class in
# `featlib/dictionaries/architectures.py`.
#
# Each model's autoencoders read the text which that model was trained on. Several are trained at
# once on the very same activations, from different seeds: how far *they* agree is the ceiling for
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
# Four questions are asked of every autoencoder, on validation text. *{term}`L0`*: how many features
# are active per token? *{term}`FVU`*, the fraction of variance unexplained: how much of the
# activation is lost? *{term}`CE recovered`*: when the reconstruction takes the activation's place
# inside the model, how much of the {term}`MLP`'s effect on the {term}`loss` remains (1: all of it;
# 0: as if the MLP were cut out)? *Alive*: which share of the features {term}`fires <fire>` at all?

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
spread = first["l0"].max() / first["l0"].min() - 1
Markdown(
    f"""\
Each model's autoencoder keeps {first["ce_recovered"].min():.0%} to
{first["ce_recovered"].max():.0%} of what the MLP does for the loss, with
{first["l0"].min():.1f} to {first["l0"].max():.1f} features per token, and
{first["alive"].min():.1%} or more of its features fire. L0 differs by {spread:.0%} between models,
{
        "so a difference between their features is not a difference of sparsity"
        if spread < 0.1
        else "which is more than the 10% up to which we would call it equal"
    }.

For comparison: a one-layer model with 512 neurons gave 79% recovered loss at 8 times as many
features as neurons, and 94.5% at 256 times {{cite:p}}`bricken2023monosemanticity`. A high
recovered loss is not proof that the features are the ones that the model uses. Two autoencoders can
reconstruct equally well with different lists, which is why each model has more than one."""
)

# %% tags=["remove-input"]
chapter.finish(
    {
        f"sae.{row.model}.{row.seed}.{key}": getattr(row, key)
        for row in cards.itertuples()
        for key in ("l0", "fvu", "ce_recovered", "ce_delta", "alive")
    }
)
