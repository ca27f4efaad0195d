# %% [markdown]
# # Two children: Lua and TinyStories
#
# BabyPython is adapted twice, each time from the same starting point: one copy reads Lua, a close
# relative of what it knows, the other reads stories for small children, a long way from Python.
# Each child gains on its own text and forgets some of the text that its parent was raised on.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
batch_size: int = 8  # blocks in one training batch
adam_beta2: float = 0.99  # second decay rate of AdamW
fine_tune_tokens: int = 700_000  # tokens each fine-tune sees
fine_tune_lr: float = 0.0003  # highest learning rate
fine_tune_warmup_steps: int = 40  # steps of linear warm-up
fine_tune_weight_decay: float = 0.01  # weight decay
snapshots: int = 8  # checkpoints kept along each fine-tune
evaluation_tokens: int = 30_000  # validation tokens scored per domain

# %%
import altair as alt
import numpy as np
import pandas as pd

from featlib.chapter import start_chapter
from featlib.family import BASE, CHILDREN, DOMAIN_NAMES, DOMAINS, PLACEBO, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.models import recipes
from featlib.models.forward import score_texts
from featlib.models.training import keep_snapshots
from featlib.show.figure import table
from featlib.show.marks import averaged, lines
from featlib.show.scales import Axis

chapter = start_chapter("03_fine_tuning", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(run_folder.tokenizer)

# %% [markdown]
# ## Training
#
# All weights are free to move, at a tenth of the base model's learning rate. Some checkpoints are
# kept on the way, closer together at the beginning, where most happens.
#
# Beside them stands a reference: BabyPython trained on with its own English and Python, for as many
# steps at the same rate. What changes there, no new text has changed.

# %% tags=["hide-input"]
fractions = [round((n / p.snapshots) ** 2, 6) for n in range(1, p.snapshots + 1)]
models, curves = {}, []
for name in (*CHILDREN, PLACEBO):
    keep = {}
    if name in CHILDREN:
        folder = run_folder.checkpoints(name)
        keep = {"snapshots": fractions, "on_snapshot": keep_snapshots(folder)}
    models[name], curve = recipes.fine_tune(run_folder, name, p, **keep)
    lm.save_checkpoint(models[name], tokenizer, run_folder.model(name))
    curves.append(curve.assign(model=name))
curves = pd.concat(curves, ignore_index=True)
chapter.figure(
    lines(
        averaged(curves, "tokens", by="model").eval("millions = tokens / 1e6"),
        x=Axis("millions", "millions of tokens seen"),
        y=Axis("loss", "loss (nats per token)"),
        color="model",
    ),
    name="loss-fine-tunes",
    caption="Training loss of the two fine-tunes and of their reference, each on its own text.",
    alt="Training loss at the start and the end: "
    + ", ".join(
        f"{PRINT_NAMES[m]} from {c['loss'].iloc[0]:.2f} to {c['loss'].tail(20).mean():.2f}"
        for m, c in curves.groupby("model", sort=False)
    ),
    data=curves,
)

# %% [markdown]
# ## Gained and forgotten
#
# {term}`Accuracy <accuracy>` of each model on held-out text of each kind; the figure of
# [the next chapter](04_merging) has the intervals. Forgetting is part of the question: features of
# Python have less reason to stay in a model that no longer reads Python.

# %% tags=["hide-input"]
held_out = recipes.validation_texts(run_folder, p.evaluation_tokens, p.seed)
own = pd.concat(
    [
        score_texts(model, held_out, np.random.default_rng(p.seed), model=name)
        for name, model in models.items()
    ],
    ignore_index=True,
)
scores = pd.concat([run_folder.read_table("scores_base"), own], ignore_index=True)
run_folder.save_table("scores_fine_tunes", scores)
accuracy = scores.pivot(index="domain", columns="model", values="accuracy")
shown = accuracy.loc[list(DOMAINS), [BASE, *models]].map("{:.1%}".format)
table(shown.rename(index=DOMAIN_NAMES, columns=PRINT_NAMES).rename_axis("text").reset_index())

# %% [markdown]
# ## The price of learning
#
# How much a child learns and how much of its parent it keeps hang on one number, the learning rate.
# The paper's, 2e-5, is the lowest here. This run takes a higher one, so that its children learn
# from as little text; its shares of features that persist are shares at that rate. The points are
# of the run named below the figure; `make controls` measures them on any.

# %% tags=["hide-input"]
rates = chapter.published("rates")
at_rate = alt.Chart(rates.assign(word=rates["rate"].map("{:.0e}".format)))
words = at_rate.mark_text(style="muted", dx=8, align="left").encode(text="word:N")
chart = lines(
    rates,
    x=Axis("features", "BabyPython's features that stay, by transfer", ".0%"),
    y=Axis("gain", "accuracy gained on the child's text", ".1%", zero=True),
    color="model",
    points=True,
)
chapter.figure(
    chart + words.encode(x="features:Q", y="gain:Q"),
    name="rates",
    caption="What each child learns against what it keeps, at four learning rates.",
    alt="; ".join(
        f"{PRINT_NAMES[r.model]} at {r.rate:.0e}: {r.features:.0%} stay, accuracy {r.gain:+.2f}"
        for r in rates.itertuples()
    ),
    data=rates,
    made_by=rates.attrs["made_by"],
)

# %% tags=["remove-input"]
chapter.finish(recipes.score_metrics(own))
