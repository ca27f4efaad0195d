"""The charts of the book: tidy tables in, Altair charts out.

Every model, domain and fate keeps one colour throughout. A chart carries no theme and no fixed
width: `featlib.figures.figure` and the page around it decide both. Charts of many values are
summarised here (binned, averaged), so that a page stays light.
"""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.family import DOMAIN_NAMES, DOMAINS, MODEL_COLORS, MODELS, PRINT_NAMES
from featlib.show.feature_charts import (
    autoencoder_cards,
    chance_by_firings,
    correlation_by_firings,
    density_histogram,
    domain_scale,
    fate_bars,
    match_histogram,
    model_scale,
    need,
)
from featlib.show.figure import (
    FATE_COLORS,
    Figure,
    Layered,
    Markup,
    figure,
    fold,
    table,
)
from featlib.show.flow import design_diagram, flow
from featlib.show.strips import excerpts, token_strip, token_strips

__all__ = [
    "FATE_COLORS", "Figure", "Markup", "autoencoder_cards",
    "chance_by_firings",
    "corpus_bars", "correlation_by_firings", "density_histogram", "design_diagram",
    "domain_scores", "excerpts", "fate_bars", "figure", "flow", "fold", "loss_curves",
    "match_histogram", "merge_difference", "merge_sweep", "table", "tensor_angles", "token_strip",
    "token_strips",
]  # fmt: skip

# --- corpora and language models --------------------------------------------------------------


def corpus_bars(documents: pd.DataFrame) -> alt.Chart:
    """Text per domain and split. Columns: domain, split, documents, characters."""
    need(documents, ["domain", "split", "documents", "characters"], "corpus_bars")
    data = documents.assign(
        Domain=documents["domain"].map(DOMAIN_NAMES), millions=documents["characters"] / 1e6
    )
    return (
        alt.Chart(data)
        .mark_bar(height={"band": 0.62})
        .encode(
            x=alt.X("sum(millions):Q", title="millions of characters"),
            y=alt.Y("Domain:N", sort=[DOMAIN_NAMES[d] for d in DOMAINS], title=None),
            color=alt.Color("Domain:N", scale=domain_scale(data["domain"]), legend=None),
            opacity=alt.Opacity(
                "split:N",
                legend=alt.Legend(symbolType="square"),
                scale=alt.Scale(domain=["train", "validation", "test"], range=[0.95, 0.55, 0.25]),
            ),
            order=alt.Order("rank:Q"),
            tooltip=[
                "Domain:N",
                "split:N",
                alt.Tooltip("documents:Q", format=","),
                alt.Tooltip("characters:Q", format=","),
            ],
        )
        .transform_calculate(rank="indexof(['train','validation','test'], datum.split)")
        .properties(width="container", height=150)
    )


def loss_curves(curve: pd.DataFrame, points: int = 80) -> Layered:
    """Training loss over tokens seen. Columns: model, tokens, loss [nats per token].

    Each curve is averaged into at most `points` stretches.
    """
    need(curve, ["model", "tokens", "loss"], "loss_curves")
    parts = []
    for model, part in curve.sort_values("tokens").groupby("model"):
        stretch = np.minimum(np.arange(len(part)) * points // max(len(part), 1), points - 1)
        mean = part[["tokens", "loss"]].groupby(stretch).mean()
        parts.append(mean.assign(model=model, Model=PRINT_NAMES[model]))
    data = pd.concat(parts, ignore_index=True).assign(millions=lambda d: d["tokens"] / 1e6)
    base = alt.Chart(data).encode(
        x=alt.X("millions:Q", title="millions of tokens seen"),
        y=alt.Y("loss:Q", title="loss (nats per token)", scale=alt.Scale(zero=False)),
        color=alt.Color("Model:N", scale=model_scale(data["model"])),
    )
    ends = data.loc[data.groupby("model")["millions"].idxmax()]
    tips = ["Model:N", alt.Tooltip("millions:Q", format=".2f"), alt.Tooltip("loss:Q", format=".3f")]
    return alt.layer(
        base.mark_line(interpolate="monotone"),
        base.mark_point(size=60).encode(tooltip=tips, opacity=alt.value(0)),
        base.mark_point(size=45).properties(data=ends),
        data=data,
    ).properties(width="container", height=280)


def domain_scores(scores: pd.DataFrame) -> Layered:
    """Next-token accuracy of each model on each domain. Columns: model, domain, accuracy, loss."""
    need(scores, ["model", "domain", "accuracy", "loss"], "domain_scores")
    data = scores.assign(
        Model=scores["model"].map(PRINT_NAMES), Domain=scores["domain"].map(DOMAIN_NAMES)
    )
    order = [PRINT_NAMES[m] for m in MODELS]
    base = alt.Chart(data).encode(
        x=alt.X("accuracy:Q", title="next-token accuracy", axis=alt.Axis(format="%")),
        y=alt.Y("Domain:N", title=None, sort=[DOMAIN_NAMES[d] for d in DOMAINS]),
        yOffset=alt.YOffset("Model:N", sort=order, scale=alt.Scale(paddingInner=0.2)),
        tooltip=[
            "Model:N",
            "Domain:N",
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("loss:Q", format=".3f"),
        ],
    )
    return alt.layer(
        base.mark_bar().encode(
            color=alt.Color("Model:N", scale=model_scale(data["model"]), sort=order)
        ),
        base.mark_text(align="left", baseline="middle", dx=4, style="muted").encode(
            text=alt.Text("accuracy:Q", format=".0%")
        ),
        data=data,
    ).properties(width="container", height=alt.Step(17))


# --- merging ----------------------------------------------------------------------------------


def _t_axis() -> alt.X:
    ends = "datum.value == 0 ? ['0', 'Lua'] : datum.value == 1 ? ['1', 'TinyStories'] : datum.label"
    return alt.X(
        "t:Q",
        title="t (0 = Lua, 1 = TinyStories)",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(
            values=[0, 0.25, 0.5, 0.75, 1], format=".2~f", labelExpr=ends, labelFlush=True
        ),
    )


def merge_sweep(
    sweep: pd.DataFrame, base: pd.DataFrame, *, t: float | None = None, method: str = "slerp"
) -> Layered:
    """Accuracy of the merged model per domain as t goes from Lua to TinyStories (Figure 5).

    `sweep`: method, t, domain, accuracy. `base`: domain, accuracy of the base model, drawn dashed.
    `t` marks the merge that the other chapters use.
    """
    need(sweep, ["method", "t", "domain", "accuracy"], "merge_sweep")
    need(base, ["domain", "accuracy"], "merge_sweep (base)")
    data = sweep[sweep["method"] == method]
    if data.empty:
        known = sorted(set(sweep["method"]))
        raise FeatlibError(f"merge_sweep: no rows of method {method!r}; the table has {known}")
    data = data.assign(Domain=data["domain"].map(DOMAIN_NAMES))
    dashes = base.assign(Domain=base["domain"].map(DOMAIN_NAMES))
    colour = alt.Color("Domain:N", scale=domain_scale(data["domain"]))
    y = alt.Y(
        "accuracy:Q",
        title="next-token accuracy",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(zero=False, nice=True),
    )
    tips = [
        "Domain:N",
        alt.Tooltip("t:Q", format=".2f"),
        alt.Tooltip("accuracy:Q", format=".1%"),
    ]
    lines = alt.Chart(data).encode(x=_t_axis(), y=y, color=colour)
    layers = [
        alt.Chart(dashes)
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.5)
        .encode(
            y=y,
            color=colour,
            tooltip=["Domain:N", alt.Tooltip("accuracy:Q", format=".1%", title="base model")],
        ),
        lines.mark_line(),
        lines.mark_point(size=28).encode(tooltip=tips),
    ]
    if t is not None:
        used = alt.Chart(pd.DataFrame({"t": [t], "text": [f"used: t = {t:g}"]})).encode(x=_t_axis())
        layers.insert(0, used.mark_rule(style="ink", opacity=0.5))
        layers.append(
            used.mark_text(align="left", dx=5, style="muted").encode(text="text:N", y=alt.value(6))
        )
    return alt.layer(*layers, data=data).properties(width="container", height=320)


def merge_difference(sweep: pd.DataFrame, against: str = "linear") -> Layered:
    """Accuracy of the other merging methods minus `against`, in points. Columns as merge_sweep."""
    need(sweep, ["method", "t", "domain", "accuracy"], "merge_difference")
    wide = sweep.pivot_table(index=["t", "domain"], columns="method", values="accuracy")
    others = [m for m in wide.columns if m != against]
    if against not in wide.columns or not others:
        raise FeatlibError(f"merge_difference: needs {against!r} and one other method")
    data = (
        (wide[others].sub(wide[against], axis=0) * 100)
        .reset_index()
        .melt(["t", "domain"], var_name="method", value_name="points")
        .dropna()
    )
    data = data.assign(
        Domain=data["domain"].map(DOMAIN_NAMES), Method=data["method"].str.replace("_", " by ")
    )
    reach = max(2.0, float(data["points"].abs().max()) * 1.05)
    lines = alt.Chart(data).encode(
        x=_t_axis(),
        # Never narrower than two points each way, so that noise looks as small as it is.
        y=alt.Y(
            "points:Q",
            title=f"accuracy minus {against} (points)",
            scale=alt.Scale(domain=[-reach, reach], nice=False),
        ),
        color=alt.Color("Domain:N", scale=domain_scale(data["domain"])),
        strokeDash=alt.StrokeDash(
            "Method:N", legend=None if len(others) == 1 else alt.Legend(symbolType="stroke")
        ),
        tooltip=[
            "Domain:N",
            "Method:N",
            alt.Tooltip("t:Q", format=".2f"),
            alt.Tooltip("points:Q", format="+.2f"),
        ],
    )
    zero = alt.Chart(pd.DataFrame({"points": [0]})).mark_rule(style="ink").encode(y="points:Q")
    return alt.layer(zero, lines.mark_line(), lines.mark_point(size=25), data=data).properties(
        width="container", height=260
    )


def tensor_angles(angles: pd.DataFrame, dot_threshold: float = 0.9995) -> Layered:
    """Angle between the two fine-tunes, tensor by tensor. Columns: tensor, angle_degrees, fallback.

    Left of the dashed line slerp falls back to linear interpolation (cosine above the threshold).
    """
    need(angles, ["tensor", "angle_degrees", "fallback"], "tensor_angles")
    data = angles.assign(
        Tensor=angles["tensor"].map(short_tensor),
        how=np.where(angles["fallback"], "linear (fallback)", "spherical"),
    )
    limit = pd.DataFrame({"angle_degrees": [math.degrees(math.acos(dot_threshold))]})
    x = alt.X("angle_degrees:Q", title="angle between the two (degrees)")
    dots = alt.Chart(data).encode(
        x=x,
        y=alt.Y("Tensor:N", sort="-x", title=None, axis=alt.Axis(grid=True, labelLimit=150)),
        color=alt.Color(
            "how:N",
            scale=alt.Scale(
                domain=["spherical", "linear (fallback)"],
                range=[MODEL_COLORS["merged"], FATE_COLORS["untestable"]],
            ),
        ),
        tooltip=[alt.Tooltip(c) for c in angles.columns],
    )
    rule = alt.Chart(limit).mark_rule(strokeDash=[4, 3]).encode(x=x)
    return alt.layer(rule, dots.mark_point(size=90), data=data).properties(
        width="container", height=alt.Step(22)
    )


def short_tensor(name: str) -> str:
    """model.layers.0.self_attn.q_proj.weight -> attention q; other names lose the common parts."""
    short = name.removesuffix(".weight").removeprefix("model.").removeprefix("layers.0.")
    for long, brief in {
        "self_attn.": "attention ",
        "mlp.": "MLP ",
        "_proj": "",
        "embed_tokens": "embedding",
        "lm_head": "unembedding",
        "input_layernorm": "norm before attention",
        "post_attention_layernorm": "norm before MLP",
    }.items():
        short = short.replace(long, brief)
    return "final norm" if short == "norm" else short
