# %% [markdown]
# # LuaStories, the merged model
#
# The fourth model is not trained at all. Its weights lie between those of the two children, on the
# arc of a great circle from one to the other. Such *merging* by spherical linear interpolation,
# {term}`slerp`, is popular because it is free and often keeps a little of both parents.
#
# *What we ask here:* how far apart are the two children, how well does a model between them read
# Lua and stories, and does the arc matter, or would a straight line do?

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
merge_method: str = "slerp"  # slerp (the paper's), linear, or slerp_rows
merge_t: float = 0.58  # where the merge lies: 0 is Lua, 1 is TinyStories
sweep_step: float = 0.05  # step of t in the sweep
sweep_tokens: int = 6_000  # validation tokens scored per domain at each point of the sweep
evaluation_tokens: int = 30_000  # validation tokens scored per domain for the merged model

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from featlib.chapter import start_chapter
from featlib.family import BASE, MERGE_OF, MERGED, TRAINING_MIX
from featlib.models import merging, recipes
from featlib.models import mistral as lm
from featlib.models.forward import score_texts
from featlib.show.marks import bars, dots, lines
from featlib.show.scales import Axis, t_axis

chapter = start_chapter("04_merging", globals())
p, run_folder = chapter.params, chapter.run
base, *children = (lm.load_checkpoint(run_folder.model(name)) for name in (BASE, *MERGE_OF))

# %% [markdown]
# ## How far apart the children are
#
# Each weight tensor, laid out as one long vector, has a direction. For tensors $w_0$ (Lua) and
# $w_1$ (TinyStories) with angle $\theta$ between them, slerp is
#
# $$\mathrm{slerp}(w_0, w_1; t) = \frac{\sin((1-t)\theta)}{\sin\theta}\,w_0
# + \frac{\sin(t\theta)}{\sin\theta}\,w_1 .$$
#
# At $t = 0$ this is Lua, at $t = 1$ TinyStories. The paper's $t = 0.58$ leans to TinyStories. When
# the two directions are nearly the same (cosine above 0.9995) the formula divides by almost
# nothing, and mergekit {cite:p}`goddard2024arcee`, whose rule we follow, takes the straight line
# instead. The figure says tensor by tensor how large the angle is and where that fallback was
# taken.

# %% tags=["hide-input"]
SHORT = {
    r"model\.layers\.0\.|\.weight|_proj": "",
    r"self_attn\.": "attention ",
    r"mlp\.": "MLP ",
    "input_layernorm": "norm before attention",
    "post_attention_layernorm": "norm before MLP",
    r"model\.norm": "final norm",
    r"model\.embed_tokens": "embedding",
    "lm_head": "unembedding",
}
angles = merging.tensor_angles(*(model.state_dict() for model in (*children, base)))
chapter.figure(
    dots(
        angles.assign(
            tensor=angles["tensor"].replace(SHORT, regex=True),
            way=np.where(angles["fallback"], "linear (fallback)", "spherical"),
        ).sort_values("angle_degrees"),
        x=Axis("angle_degrees", "angle between the two (degrees)", zero=True),
        y="tensor",
        color="way",
        order="-x",
        rule=np.degrees(np.arccos(merging.DOT_THRESHOLD)),
    ),
    name="tensor-angles",
    caption="Angle between the two children, tensor by tensor. Left of the dashed line it is so "
    "small that the merge falls back to a straight line.",
    alt=f"Angles between the children range from {angles['angle_degrees'].min():.1f} to "
    f"{angles['angle_degrees'].max():.1f} degrees; {int(angles['fallback'].sum())} of "
    f"{len(angles)} tensors take the linear fallback.",
    data=angles,
)

# %% [markdown]
# ## The merge

# %% tags=["hide-input"]
merged = merging.merge_models(*children, base, t=p.merge_t, method=p.merge_method)
lm.save_checkpoint(merged, lm.load_tokenizer(run_folder.tokenizer), run_folder.model(MERGED))
held_out = recipes.validation_texts(run_folder, p.evaluation_tokens)
own = score_texts(merged, held_out, model=MERGED)
before = run_folder.read_table("scores_fine_tunes")
scores = pd.concat([before, own], ignore_index=True)
run_folder.save_table("scores", scores)
accuracy = scores.pivot(index="model", columns="domain", values="accuracy")
chapter.figure(
    bars(
        scores,
        x=Axis("accuracy", "next-token accuracy", ".0%", zero=True),
        y="domain",
        color="model",
        beside=True,
        text="accuracy",
    ),
    name="scores",
    caption="Next-token accuracy of all four models on held-out text of all four kinds.",
    alt=f"LuaStories reaches {accuracy.loc['merged', 'lua']:.2f} on Lua (its parents "
    f"{accuracy.loc['lua', 'lua']:.2f} and {accuracy.loc['tinystories', 'lua']:.2f}) and "
    f"{accuracy.loc['merged', 'tinystories']:.2f} on stories.",
    data=scores,
)

# %% [markdown]
# ## The sweep
#
# The paper's Figure 5, on all four kinds of text: the merge is made anew at each $t$, by slerp and
# by straight line, and scored.

# %% tags=["hide-input"]
ts = [round(t, 6) for t in np.arange(0, 1 + p.sweep_step / 2, p.sweep_step) if t <= 1 + 1e-9]
texts = recipes.validation_texts(run_folder, p.sweep_tokens)
sweep = pd.concat(
    [
        score_texts(
            merging.merge_models(*children, base, t=t, method=method), texts, method=method, t=t
        )
        for method in merging.METHODS
        for t in ts
    ],
    ignore_index=True,
)
run_folder.save_table("merge_sweep", sweep)
base_scores = score_texts(base, texts)
own_method = sweep[sweep["method"] == p.merge_method]
best = own_method.pivot(index="t", columns="domain", values="accuracy")
balance = best[list(TRAINING_MIX[MERGED])].mean(axis=1)
chapter.figure(
    lines(
        own_method,
        x=t_axis(),
        y=Axis("accuracy", "next-token accuracy", "%"),
        color="domain",
        points=True,
        levels=base_scores,
        rule=(p.merge_t, f"used: t = {p.merge_t:g}"),
        height=320,
    ),
    name="merge-sweep",
    caption="Accuracy of the merged model as t goes from Lua (0) to TinyStories (1). Dashed: the "
    "base model. The rule marks the t of this run.",
    alt=f"Accuracy on Lua falls from {best['lua'].iloc[0]:.2f} to {best['lua'].iloc[-1]:.2f} and "
    f"on stories rises from {best['tinystories'].iloc[0]:.2f} to "
    f"{best['tinystories'].iloc[-1]:.2f} as t goes from 0 to 1.",
    data=sweep,
)

# %% [markdown]
# ## Does the arc matter?
#
# The straight line passes inside the sphere. Half-way between two vectors of equal length with the
# angle $\theta$ between them, its vector is shorter by $1 - \cos(\theta/2)$, and so are the weights
# of the merged model. Does the model notice?

# %% tags=["hide-input"]
wide = sweep.pivot(index=["t", "domain"], columns="method", values="accuracy")
gap = 100 * (wide["slerp"] - wide["linear"])
largest = gap.abs().max() / 100
reach = max(2.0, 1.05 * gap.abs().max())  # two points at least: what is noise looks like noise
chapter.figure(
    lines(
        gap.rename("points").reset_index(),
        x=t_axis(),
        y=Axis("points", "accuracy minus linear (points)", domain=(-reach, reach)),
        color="domain",
        points=True,
        level=0,
    ),
    name="slerp-minus-linear",
    caption="Accuracy of the slerp merge minus that of the linear merge, in percentage points. "
    "Slerp row by row is in the table.",
    alt=f"Slerp and linear merges differ by at most {largest:.4f} in accuracy at any t.",
    data=wide.reset_index(),
)

# %% [markdown]
# ## What was found, and what could be wrong

# %% tags=["remove-input"]
top = balance.idxmax()
widest = angles["angle_degrees"].max()
error = 1 / p.sweep_tokens**0.5  # two standard errors of an accuracy, at most
same = largest <= error
Markdown(
    f"""\
At $t$ = {p.merge_t:g} the merged model reaches {accuracy.loc["merged", "lua"]:.1%} on Lua, where
BabyPython has {accuracy.loc["base", "lua"]:.1%} and the Lua model {accuracy.loc["lua", "lua"]:.1%},
and {accuracy.loc["merged", "tinystories"]:.1%} on stories, where BabyPython has
{accuracy.loc["base", "tinystories"]:.1%} and the TinyStories model
{accuracy.loc["tinystories", "tinystories"]:.1%}. The mean of the two is highest at $t$ = {top:g}.

Slerp and the straight line never differ by more than {largest:.4f} in accuracy; on
{p.sweep_tokens:,} tokens a point, a score is known to within {error:.3f}. The largest angle between
two tensors of the children is {widest:.0f} degrees, where the middle of the chord is
{1 - np.cos(np.radians(widest) / 2):.1%} shorter than that of the arc. {
        "On so short a way arc and chord are the same to the model: what the merge keeps it owes "
        "to interpolation, not to the sphere. Children that have gone further apart may differ."
        if same
        else "So the way between the children matters, and not only how far along it one goes."
    }

Accuracy says what the merged model can do, not how. Whether it does so with the features of its
parents is the question of the chapters that follow."""
)

# %% tags=["remove-input"]
chapter.finish(
    {
        **{
            f"lm.{MERGED}.{row.domain}.{key}": getattr(row, key)
            for row in own.itertuples()
            for key in ("loss", "accuracy")
        },
        **{f"merge.{row.tensor}.cosine": row.cosine for row in angles.itertuples()},
        "merge.t": p.merge_t,
    }
)
