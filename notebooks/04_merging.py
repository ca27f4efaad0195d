# %% [markdown]
# # LuaStories, the merged model
#
# The fourth model is not trained: its weights lie between those of the two children, on the arc of
# a great circle from one to the other ({term}`slerp`). It reads both Lua and stories better than
# the model that its parents came from, and the straight line between them would do as well.

# %% tags=["parameters", "remove-cell"]
run: str = "mini"  # the run's name: its files lie in runs/<run>
seed: int = 0  # every random choice follows from it
merge_method: str = "slerp"  # slerp (the paper's) or linear
merge_t: float = 0.58  # where the merge lies: 0 is Lua, 1 is TinyStories
sweep_step: float = 0.05  # step of t in the sweep
sweep_tokens: int = 6_000  # validation tokens scored per domain at each point of the sweep
evaluation_tokens: int = 30_000  # validation tokens scored per domain for the merged model

# %%
import numpy as np
import pandas as pd

from featlib.chapter import prose, start_chapter
from featlib.family import BASE, DOMAIN_NAMES, MERGE_OF, MERGED, PRINT_NAMES, TRAINING_MIX
from featlib.models import merging, recipes
from featlib.models import mistral as lm
from featlib.models.forward import score_texts
from featlib.show.marks import dots, lines
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
# instead.

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
angles = merging.tensor_angles(*(model.state_dict() for model in children))
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
# ## What the five models read
#
# Beside the four models of the paper stands the reference of
# [the chapter before](03_fine_tuning), BabyPython trained on with its own text.

# %% tags=["hide-input"]
merged = merging.merge_models(*children, base, t=p.merge_t, method=p.merge_method)
lm.save_checkpoint(merged, lm.load_tokenizer(run_folder.tokenizer), run_folder.model(MERGED))
held_out = recipes.validation_texts(run_folder, p.evaluation_tokens, p.seed)
own = score_texts(merged, held_out, np.random.default_rng(p.seed), model=MERGED)
scores = pd.concat([run_folder.read_table("scores_fine_tunes"), own], ignore_index=True)
run_folder.save_table("scores", scores)
accuracy = scores.pivot(index="model", columns="domain", values="accuracy")
chapter.figure(
    dots(
        scores,
        x=Axis("accuracy", "next-token accuracy", ".0%", zero=True),
        y="domain",
        color="model",
        beside="model",
        span=("accuracy_low", "accuracy_high"),
    ),
    name="scores",
    caption="Next-token accuracy of all models on held-out text of all four kinds, with 95% "
    "intervals over documents.",
    alt="; ".join(
        f"{DOMAIN_NAMES[domain]}: "
        + ", ".join(f"{PRINT_NAMES[m]} {share:.2f}" for m, share in column.items())
        for domain, column in accuracy.loc[list(dict.fromkeys(scores["model"]))].items()
    ),
    data=scores,
)

# %% [markdown]
# ## The sweep
#
# The paper's Figure 5, on all four kinds of text: the merge is made anew at each $t$, by slerp and
# by straight line, and scored.

# %% tags=["hide-input"]
ts = [round(t, 6) for t in np.arange(0, 1 + p.sweep_step / 2, p.sweep_step) if t <= 1 + 1e-9]
texts = recipes.validation_texts(run_folder, p.sweep_tokens, p.seed)
sweep = pd.concat(
    [
        score_texts(
            merging.merge_models(*children, base, t=t, method=method),
            texts,
            np.random.default_rng(p.seed),
            method=method,
            t=t,
        )
        for method in merging.METHODS
        for t in ts
    ],
    ignore_index=True,
)
run_folder.save_table("merge_sweep", sweep)
own_method = sweep[sweep["method"] == p.merge_method]
best = own_method.pivot(index="t", columns="domain", values="accuracy")
chapter.figure(
    lines(
        own_method,
        x=t_axis(),
        y=Axis("accuracy", "next-token accuracy", "%"),
        color="domain",
        points=True,
        band=("accuracy_low", "accuracy_high"),
        levels=score_texts(base, texts, np.random.default_rng(p.seed)),
        rule=(p.merge_t, f"used: t = {p.merge_t:g}"),
        height=320,
    ),
    name="merge-sweep",
    caption="Accuracy of the merged model as t goes from Lua (0) to TinyStories (1), with 95% "
    "intervals over documents. Dashed: the base model. The rule marks the t of this run.",
    alt=f"Accuracy on Lua falls from {best['lua'].iloc[0]:.2f} to {best['lua'].iloc[-1]:.2f} and "
    f"on stories rises from {best['tinystories'].iloc[0]:.2f} to "
    f"{best['tinystories'].iloc[-1]:.2f} as t goes from 0 to 1.",
    data=sweep,
)

# %% tags=["remove-input"]
wide = sweep.pivot(index=["t", "domain"], columns="method", values="accuracy")
wider = own_method.eval("accuracy_high - accuracy_low").min() / 2
prose(
    """\
Half-way between two vectors of equal length with the angle $\\theta$ between them, the straight
line is shorter than the arc by $1 - \\cos(\\theta/2)$: here at most {{ shorter | pct(1) }}. The two
merges differ by at most {{ largest | pct(2) }} in accuracy at any $t$; the interval of a score is
{{ wider | pct(1) }} or more to either side. The mean accuracy on Lua and stories is highest at
$t$ = {{ top }}.

Accuracy says what the merged model can do, not how. Whether it does so with the features of its
parents is the question of the chapters that follow.
""",
    shorter=1 - np.cos(np.radians(angles["angle_degrees"].max()) / 2),
    largest=(wide["slerp"] - wide["linear"]).abs().max(),
    wider=wider,
    top=f"{best[list(TRAINING_MIX[MERGED])].mean(axis=1).idxmax():g}",
)

# %% tags=["remove-input"]
cosines = {f"merge.{row.tensor}.cosine": row.cosine for row in angles.itertuples()}
chapter.finish({**recipes.score_metrics(own), **cosines, "merge.t": p.merge_t})
