"""The charts of the book: tidy tables in, Altair charts out.

Every model, domain and fate keeps one colour throughout. A chart carries no theme and no fixed
width: `featlib.figures.figure` and the page around it decide both. Charts of many values are
summarised here (binned, averaged), so that a page stays light.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import altair as alt
import numpy as np
import pandas as pd

from featlib.diagrams import design_diagram, flow
from featlib.figures import (
    DOMAIN_COLORS,
    FATE_COLORS,
    MODEL_COLORS,
    Figure,
    Markup,
    figure,
    table,
    token_strip,
    token_strips,
)
from featlib.params import DOMAIN_NAMES, DOMAINS, MODELS, PRINT_NAMES, FeatlibError

__all__ = [
    "DOMAIN_COLORS", "FATE_COLORS", "MODEL_COLORS", "Figure", "Markup", "autoencoder_cards",
    "corpus_bars", "correlation_by_firings", "density_histogram", "design_diagram",
    "domain_scores", "fate_bars", "figure", "flow", "loss_curves", "match_histogram",
    "merge_difference", "merge_sweep", "table", "tensor_angles", "token_strip", "token_strips",
]  # fmt: skip

_PANEL_GUTTER = 104  # pixels left of stacked panels, for their axis labels


def _need(data: pd.DataFrame, columns: Iterable[str], chart: str) -> pd.DataFrame:
    missing = [c for c in columns if c not in data.columns]
    if missing:
        raise FeatlibError(f"{chart}: the table lacks {missing}; it has {list(data.columns)}")
    if data.empty:
        raise FeatlibError(f"{chart}: the table has no rows")
    return data


def _model_scale(models: Iterable[str]) -> alt.Scale:
    present = [m for m in MODELS if m in set(models)]
    return alt.Scale(
        domain=[PRINT_NAMES[m] for m in present], range=[MODEL_COLORS[m] for m in present]
    )


def _domain_scale(domains: Iterable[str]) -> alt.Scale:
    present = [d for d in DOMAINS if d in set(domains)]
    return alt.Scale(
        domain=[DOMAIN_NAMES[d] for d in present], range=[DOMAIN_COLORS[d] for d in present]
    )


def _pair(parent: str, child: str) -> str:
    return f"{PRINT_NAMES[parent]} → {PRINT_NAMES[child]}"


def _pairs(data: pd.DataFrame) -> list[tuple[str, str]]:
    seen = set(zip(data["parent"], data["child"], strict=True))
    return sorted(seen, key=lambda pair: (MODELS.index(pair[0]), MODELS.index(pair[1])))


# --- corpora and language models --------------------------------------------------------------


def corpus_bars(documents: pd.DataFrame) -> alt.Chart:
    """Text per domain and split. Columns: domain, split, documents, characters."""
    _need(documents, ["domain", "split", "documents", "characters"], "corpus_bars")
    data = documents.assign(
        Domain=documents["domain"].map(DOMAIN_NAMES), millions=documents["characters"] / 1e6
    )
    return (
        alt.Chart(data)
        .mark_bar(height={"band": 0.62})
        .encode(
            x=alt.X("sum(millions):Q", title="millions of characters"),
            y=alt.Y("Domain:N", sort=[DOMAIN_NAMES[d] for d in DOMAINS], title=None),
            color=alt.Color("Domain:N", scale=_domain_scale(data["domain"]), legend=None),
            opacity=alt.Opacity(
                "split:N",
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


def loss_curves(curve: pd.DataFrame, points: int = 80) -> alt.LayerChart:
    """Training loss over tokens seen. Columns: model, tokens, loss [nats per token].

    Each curve is averaged into at most `points` stretches; its end carries the model's name.
    """
    _need(curve, ["model", "tokens", "loss"], "loss_curves")
    parts = []
    for model, part in curve.sort_values("tokens").groupby("model"):
        stretch = np.minimum(np.arange(len(part)) * points // max(len(part), 1), points - 1)
        mean = part[["tokens", "loss"]].groupby(stretch).mean()
        parts.append(mean.assign(model=model, Model=PRINT_NAMES[model]))
    data = pd.concat(parts, ignore_index=True).assign(millions=lambda d: d["tokens"] / 1e6)
    base = alt.Chart(data).encode(
        x=alt.X("millions:Q", title="millions of tokens seen"),
        y=alt.Y("loss:Q", title="loss (nats per token)", scale=alt.Scale(zero=False)),
        color=alt.Color("Model:N", scale=_model_scale(data["model"])),
    )
    ends = data.loc[data.groupby("model")["millions"].idxmax()]
    tips = ["Model:N", alt.Tooltip("millions:Q", format=".2f"), alt.Tooltip("loss:Q", format=".3f")]
    return alt.layer(
        base.mark_line(interpolate="monotone"),
        base.mark_point(size=60).encode(tooltip=tips, opacity=alt.value(0)),
        base.mark_point(size=45).properties(data=ends),
        base.mark_text(align="center", dy=-12, fontWeight=600)
        .encode(text=alt.Text("loss:Q", format=".2f"), color=alt.value(None))
        .properties(data=ends),
        data=data,
    ).properties(width="container", height=280)


def domain_scores(scores: pd.DataFrame) -> alt.LayerChart:
    """Next-token accuracy of each model on each domain. Columns: model, domain, accuracy, loss."""
    _need(scores, ["model", "domain", "accuracy", "loss"], "domain_scores")
    data = scores.assign(
        Model=scores["model"].map(PRINT_NAMES), Domain=scores["domain"].map(DOMAIN_NAMES)
    )
    order = [PRINT_NAMES[m] for m in MODELS]
    base = alt.Chart(data).encode(
        x=alt.X("accuracy:Q", title="next-token accuracy", axis=alt.Axis(format="%")),
        y=alt.Y("Domain:N", title=None, sort=[DOMAIN_NAMES[d] for d in DOMAINS]),
        yOffset=alt.YOffset("Model:N", sort=order),
        tooltip=[
            "Model:N",
            "Domain:N",
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("loss:Q", format=".3f"),
        ],
    )
    return alt.layer(
        base.mark_bar(height={"band": 0.8}).encode(
            color=alt.Color("Model:N", scale=_model_scale(data["model"]), sort=order)
        ),
        base.mark_text(align="left", dx=4, style="muted").encode(
            text=alt.Text("accuracy:Q", format=".0%")
        ),
        data=data,
    ).properties(width="container", height=alt.Step(17))


# --- merging ----------------------------------------------------------------------------------


def _t_axis() -> alt.X:
    ends = "datum.value == 0 ? ['0', 'Lua'] : datum.value == 1 ? ['1', 'TinyStories'] : datum.label"
    return alt.X(
        "t:Q",
        title="t of the merge: 0 = Lua, 1 = TinyStories",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], labelExpr=ends),
    )


def merge_sweep(
    sweep: pd.DataFrame, base: pd.DataFrame, *, t: float | None = None, method: str = "slerp"
) -> alt.LayerChart:
    """Accuracy of the merged model per domain as t goes from Lua to TinyStories (Figure 5).

    `sweep`: method, t, domain, accuracy. `base`: domain, accuracy of the base model, drawn dashed.
    `t` marks the merge that the other chapters use.
    """
    _need(sweep, ["method", "t", "domain", "accuracy"], "merge_sweep")
    _need(base, ["domain", "accuracy"], "merge_sweep (base)")
    data = sweep[sweep["method"] == method]
    if data.empty:
        known = sorted(set(sweep["method"]))
        raise FeatlibError(f"merge_sweep: no rows of method {method!r}; the table has {known}")
    data = data.assign(Domain=data["domain"].map(DOMAIN_NAMES))
    dashes = base.assign(Domain=base["domain"].map(DOMAIN_NAMES))
    colour = alt.Color("Domain:N", scale=_domain_scale(data["domain"]))
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
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.5, opacity=0.8)
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


def merge_difference(sweep: pd.DataFrame, against: str = "linear") -> alt.LayerChart:
    """Accuracy of the other merging methods minus `against`, in points. Columns as merge_sweep."""
    _need(sweep, ["method", "t", "domain", "accuracy"], "merge_difference")
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
    lines = alt.Chart(data).encode(
        x=_t_axis(),
        y=alt.Y("points:Q", title=f"accuracy minus {against} (points)"),
        color=alt.Color("Domain:N", scale=_domain_scale(data["domain"])),
        strokeDash=alt.StrokeDash("Method:N", legend=None if len(others) == 1 else alt.Legend()),
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


def tensor_angles(angles: pd.DataFrame, dot_threshold: float = 0.9995) -> alt.LayerChart:
    """Angle between the two fine-tunes, tensor by tensor. Columns: tensor, angle_degrees, fallback.

    Left of the dashed line slerp falls back to linear interpolation (cosine above the threshold).
    """
    _need(angles, ["tensor", "angle_degrees", "fallback"], "tensor_angles")
    data = angles.assign(
        Tensor=angles["tensor"].map(_short_tensor),
        how=np.where(angles["fallback"], "linear (fallback)", "spherical"),
    )
    limit = pd.DataFrame({"angle_degrees": [math.degrees(math.acos(dot_threshold))]})
    x = alt.X("angle_degrees:Q", title="angle between Lua and TinyStories (degrees)")
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


def _short_tensor(name: str) -> str:
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


# --- autoencoders -----------------------------------------------------------------------------


def autoencoder_cards(cards: pd.DataFrame) -> alt.VConcatChart:
    """One dot per autoencoder and measure. Columns: model, seed, l0, fvu, ce_recovered, alive."""
    measures = {
        "l0": ("features active per token (L0)", ".1f"),
        "fvu": ("variance left unexplained (FVU, lower is better)", ".3f"),
        "ce_recovered": ("loss recovered (higher is better)", ".1%"),
        "alive": ("features alive", ".1%"),
    }
    _need(cards, ["model", "seed", *measures], "autoencoder_cards")
    data = cards.assign(Model=cards["model"].map(PRINT_NAMES))
    panels = []
    for column, (title, form) in measures.items():
        axis = alt.Axis(format=form.replace(".1%", "%").replace(".1f", ""), tickCount=5, grid=True)
        panels.append(
            alt.Chart(title=title)
            .mark_point(size=80, opacity=0.75)
            .encode(
                x=alt.X(f"{column}:Q", title=None, axis=axis, scale=alt.Scale(zero=False)),
                y=alt.Y("Model:N", title=None, sort=[PRINT_NAMES[m] for m in MODELS], axis=_left()),
                color=alt.Color("Model:N", scale=_model_scale(data["model"]), legend=None),
                tooltip=["Model:N", "seed:N", alt.Tooltip(f"{column}:Q", format=form)],
            )
            .properties(width=500, height=alt.Step(17))
        )
    return _stack(panels, data)


def _left() -> alt.Axis:
    # Fixed, so that the panels of a stack line up and their widths can be set from the page's.
    return alt.Axis(minExtent=_PANEL_GUTTER - 14, maxExtent=_PANEL_GUTTER - 14)


def _stack(panels: list[alt.Chart] | list[alt.LayerChart], data: pd.DataFrame) -> alt.VConcatChart:
    return alt.vconcat(*panels, data=data, spacing=18, usermeta={"gutter": _PANEL_GUTTER})


def density_histogram(densities: pd.DataFrame, step: float = 0.25) -> alt.Chart:
    """How often features fire, one outline per model. Columns: model, log10_density."""
    _need(densities, ["model", "log10_density"], "density_histogram")
    finite = densities[np.isfinite(densities["log10_density"])]
    low, high = -6.0, 0.0
    edges = np.arange(low, high + step / 2, step)
    rows = []
    for model, part in finite.groupby("model"):
        counts, _ = np.histogram(np.clip(part["log10_density"], low, high - 1e-9), edges)
        for left, count in zip(edges, [*counts, 0], strict=True):
            rows.append((model, PRINT_NAMES[model], left, count, count / len(part)))
    data = pd.DataFrame(rows, columns=["model", "Model", "log10_density", "features", "share"])
    names = (
        "datum.value == 0 ? 'always' : datum.value == -1 ? '1 in 10'"
        " : datum.value == -2 ? '1 in 100' : datum.value == -3 ? '1 in 1,000'"
        " : datum.value == -4 ? '1 in 10⁴' : datum.value == -5 ? '1 in 10⁵' : 'rarer'"
    )
    return (
        alt.Chart(data)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X(
                "log10_density:Q",
                title="fires on one token in so many",
                scale=alt.Scale(domain=[low, high], nice=False),
                axis=alt.Axis(values=[-6, -5, -4, -3, -2, -1, 0], labelExpr=names),
            ),
            y=alt.Y("share:Q", title="share of features", axis=alt.Axis(format="%")),
            color=alt.Color("Model:N", scale=_model_scale(data["model"])),
            tooltip=["Model:N", "features:Q", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width="container", height=240)
    )


# --- matching ---------------------------------------------------------------------------------


def match_histogram(
    best: pd.DataFrame, ceiling: pd.DataFrame | None = None, *, threshold: float = 0.8
) -> alt.VConcatChart:
    """Best correlation of every parent feature in the child, one panel per pair.

    `best`: parent, child, r. `ceiling`: model, r, the same between two autoencoders of one model;
    drawn as an outline over the panels of that parent. Bars from `threshold` on count as a match.
    """
    _need(best, ["parent", "child", "r"], "match_histogram")
    edges = np.linspace(-0.05, 1.0, 22)
    tables, panels = [], []
    x = alt.X(
        "left:Q",
        title="best correlation in the child",
        scale=alt.Scale(domain=[edges[0], 1.0], nice=False),
        axis=alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    )
    y = alt.Y("share:Q", title=None, axis=_percent_left())
    fates = alt.Scale(domain=list(FATE_COLORS), range=list(FATE_COLORS.values()))
    tips = [
        alt.Tooltip("left:Q", title="r from", format=".2f"),
        alt.Tooltip("features:Q", format=","),
        alt.Tooltip("share:Q", format=".1%"),
    ]
    rule = alt.Chart(pd.DataFrame({"left": [threshold]})).mark_rule(style="ink", strokeDash=[4, 3])
    for parent, child in _pairs(best):
        name = _pair(parent, child)
        r = best.loc[(best["parent"] == parent) & (best["child"] == child), "r"].to_numpy(float)
        bars = _bins(r, edges)
        reaches = np.where(bars["left"] >= threshold - 1e-9, "persists", "disappears")
        tables.append(bars.assign(pair=name, of="best match", fate=reaches))
        note = f"{(r >= threshold).mean():.0%} reach {threshold:g}"
        own = ceiling[ceiling["model"] == parent] if ceiling is not None else None
        if own is not None and len(own):
            other = own["r"].to_numpy(float)
            line = _bins(other, edges)
            line = pd.concat([line, line.tail(1).assign(left=1.0)])  # closes the last step
            tables.append(line.assign(pair=name, of="ceiling", fate=""))
            note += f"; {(other >= threshold).mean():.0%} between two autoencoders of one model"
        of = f"datum.pair == '{name}' && datum.of == "
        layers = [
            alt.Chart()
            .transform_filter(of + "'best match'")
            .mark_bar(opacity=0.8, binSpacing=1)
            .encode(
                x=x,
                x2="right:Q",
                y=y,
                color=alt.Color("fate:N", scale=fates, legend=None),
                tooltip=tips,
            ),
            rule.encode(x=x),
            alt.Chart()
            .transform_filter(of + "'ceiling'")
            .mark_line(interpolate="step-after", style="ink", strokeWidth=1.6)
            .encode(x=x, y=y),
        ]
        title = alt.TitleParams(name, subtitle=note)
        panels.append(alt.layer(*layers).properties(width=500, height=105, title=title))
    return _stack(panels, pd.concat(tables, ignore_index=True))


def _percent_left() -> alt.Axis:
    return alt.Axis(format="%", tickCount=4, minExtent=30, maxExtent=30)


def _bins(values: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return pd.DataFrame(
        {
            "left": edges[:-1],
            "right": edges[1:],
            "features": counts,
            "share": counts / max(len(values), 1),
        }
    )


def fate_bars(pairs: pd.DataFrame) -> alt.LayerChart:
    """Share of testable features that persist, against the ceiling of two seeds.

    Columns: parent, child, persist, persist_low, persist_high, ceiling. The pale bar reaches to
    the ceiling, the tick is the ceiling itself, the thin line is the confidence interval.
    """
    columns = ["parent", "child", "persist", "persist_low", "persist_high", "ceiling"]
    _need(pairs, columns, "fate_bars")
    data = pairs.assign(
        pair=[_pair(p, c) for p, c in zip(pairs["parent"], pairs["child"], strict=True)],
        text=[f"{p:.0%} of {c:.0%}" if np.isfinite(c) else f"{p:.0%}"
              for p, c in zip(pairs["persist"], pairs["ceiling"], strict=True)],
        far=np.fmax(pairs["ceiling"], pairs["persist_high"]),
    )  # fmt: skip
    order = [_pair(p, c) for p, c in _pairs(pairs)]
    tips = ["pair:N", *[alt.Tooltip(f"{c}:Q", format=".1%") for c in columns[2:]]]
    y = alt.Y("pair:N", sort=order, title=None, axis=alt.Axis(labelLimit=190))
    x_axis = alt.Axis(format="%")
    scale = alt.Scale(domain=[0, 1], nice=False)

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title="share of testable features", axis=x_axis, scale=scale)

    base = alt.Chart(data).encode(y=y, tooltip=tips)
    persists = FATE_COLORS["persists"]
    return alt.layer(
        base.mark_bar(height={"band": 0.5}, color=persists, opacity=0.2).encode(x=x("ceiling")),
        base.mark_bar(height={"band": 0.5}, color=persists).encode(x=x("persist")),
        base.mark_rule(style="ink", strokeWidth=1.6).encode(
            x=x("persist_low"), x2="persist_high:Q"
        ),
        base.mark_tick(thickness=3, bandSize=24).encode(x=x("ceiling")),
        base.mark_text(align="left", dx=9, fontWeight=600).encode(x=x("far"), text="text:N"),
        data=data,
    ).properties(width="container", height=alt.Step(42))


def correlation_by_firings(
    features: pd.DataFrame, *, threshold: float = 0.8, min_firings: int = 30
) -> alt.LayerChart:
    """Best correlation against how often a feature fires: median and middle half, by pair.

    Columns: parent, child, firings, r. Features left of `min_firings` are untestable.
    """
    _need(features, ["parent", "child", "firings", "r"], "correlation_by_firings")
    alive = features[features["firings"] > 0]
    level = np.floor(np.log2(alive["firings"].to_numpy(float)))
    groups = alive.assign(firings=2.0 ** (level + 0.5)).groupby(["parent", "child", "firings"])
    data = groups["r"].quantile([0.25, 0.5, 0.75]).unstack().set_axis(["low", "r", "high"], axis=1)
    data = data.assign(features=groups.size()).reset_index()
    data = data[data["features"] >= 5]  # quartiles of fewer say nothing
    if data.empty:
        raise FeatlibError("correlation_by_firings: no group of five features; use more tokens")
    data["pair"] = [_pair(p, c) for p, c in zip(data["parent"], data["child"], strict=True)]
    order = [_pair(p, c) for p, c in _pairs(data)]
    # A line has the colour of the model that it leads to; dashes tell the two ways into one.
    x = alt.X(
        "firings:Q",
        title="tokens on which the feature fires",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~s", tickCount=6),
    )
    base = alt.Chart(data).encode(
        x=x,
        color=alt.Color(
            "pair:N", sort=order, scale=alt.Scale(domain=order, range=_pair_colours(data))
        ),
    )
    y = alt.Y("r:Q", title="best correlation", scale=alt.Scale(domain=[0, 1]))
    marks = pd.DataFrame({"r": [threshold], "firings": [float(min_firings)]})
    return alt.layer(
        base.mark_area(opacity=0.14).encode(
            y=alt.Y("low:Q", title="best correlation"), y2="high:Q"
        ),
        base.mark_line().encode(y=y),
        base.mark_point(size=40).encode(
            y=y,
            tooltip=[
                "pair:N",
                alt.Tooltip("firings:Q", format=",.0f"),
                "features:Q",
                alt.Tooltip("r:Q", format=".2f", title="median r"),
            ],
        ),
        alt.Chart(marks).mark_rule(strokeDash=[4, 3]).encode(y=y),
        alt.Chart(marks).mark_rule(strokeDash=[4, 3]).encode(x=x),
        data=data,
    ).properties(width="container", height=300)


def _pair_colours(data: pd.DataFrame) -> list[str]:
    """The fine-tune's colour, whether the features lead into it or out of it."""
    return [MODEL_COLORS[c if p == "base" else p] for p, c in _pairs(data)]
