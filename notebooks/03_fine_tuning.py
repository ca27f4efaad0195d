# %% [markdown]
# # Two children: Lua and TinyStories
#
# BabyPython is now adapted twice, each time from the same starting point. One copy reads Lua, a
# close relative of what it knows. The other reads stories for small children: plain English, and a
# long way from Python.
#
# *What we ask here:* what does each child gain on its own text, and what does it forget of the
# text that its parent was raised on?

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
import pandas as pd
from IPython.display import Markdown

from featlib.chapter import start_chapter
from featlib.family import BASE, CHILDREN, PLACEBO, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.models import recipes
from featlib.models.forward import score_texts
from featlib.models.training import keep_snapshots
from featlib.show.marks import averaged, bars, lines
from featlib.show.scales import Axis

chapter = start_chapter("03_fine_tuning", globals())
p, run_folder = chapter.params, chapter.run
tokenizer = lm.load_tokenizer(run_folder.tokenizer)

# %% [markdown]
# ## Training
#
# All weights are free to move; nothing is frozen. The learning rate is a tenth of the base model's,
# with a short warm-up, so that the first steps do not destroy what is there. Some checkpoints are
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

# %% tags=["hide-input"]
held_out = recipes.validation_texts(run_folder, p.evaluation_tokens)
own = pd.concat(
    [score_texts(model, held_out, model=name) for name, model in models.items()],
    ignore_index=True,
)
before = run_folder.read_table("scores_base")
scores = pd.concat([before, own], ignore_index=True)
run_folder.save_table("scores_fine_tunes", scores)
accuracy = scores.pivot(index="model", columns="domain", values="accuracy")
gain = accuracy - accuracy.loc[BASE]
chapter.figure(
    bars(
        scores,
        x=Axis("accuracy", "next-token accuracy", ".0%", zero=True),
        y="domain",
        color="model",
        beside=True,
        text="accuracy",
    ),
    name="scores-fine-tunes",
    caption="Next-token accuracy of the base model, its children and its reference, on held-out "
    "text.",
    alt=f"After Lua fine-tuning, accuracy on Lua changes by {gain.loc['lua', 'lua']:+.2f}; after "
    f"TinyStories, accuracy on stories by {gain.loc['tinystories', 'tinystories']:+.2f}.",
    data=scores,
)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
Markdown(
    f"""\
Reading Lua moves accuracy on Lua by {gain.loc["lua", "lua"]:+.3f} and accuracy on Python by
{gain.loc["lua", "python"]:+.3f}. Reading stories moves accuracy on stories by
{gain.loc["tinystories", "tinystories"]:+.3f} and accuracy on Python by
{gain.loc["tinystories", "python"]:+.3f}. A minus sign there is forgetting, and it is part of the
question: features of Python have less reason to stay in a model that no longer reads Python.

One caution. Each child reads fewer tokens than its parent did and at a lower learning rate, so its
weights stay near the parent's. Features that persist may do so because nobody pushed them, not
because the child still needs them. The case studies test that by ablation."""
)

# %% tags=["remove-input"]
chapter.finish(
    {
        f"lm.{row.model}.{row.domain}.{key}": getattr(row, key)
        for row in own.itertuples()
        for key in ("loss", "accuracy")
    }
)
