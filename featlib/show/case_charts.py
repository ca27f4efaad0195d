"""Charts of the case studies: detectors, routes, ablation, steering, dose and response."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from featlib.family import DOMAIN_NAMES, MODEL_COLORS, MODELS, PRINT_NAMES
from featlib.show.feature_charts import GUTTER, _left, _stack, domain_scale, model_scale, need
from featlib.show.figure import (
    FATE_COLORS,
)

__all__ = [
    "ablation_dots", "detector_dots", "dose_response", "fading", "label_dots", "route_dots",
    "steering_lines",
]  # fmt: skip

DETECTORS = ("feature", "feature set", "token rule", "neuron", "probe", "random feature")
ROUTE_NAMES = {
    "labels": "labels",
    "correlation": "correlation",
    "transfer": "transfer",
    "crosscoder": "crosscoder",
}
REGION_NAMES = {
    "at": "at labelled tokens",
    "labelled": "predicting labelled tokens",
    "elsewhere": "elsewhere",
}
# Chapter 11 has the same shapes for matching and transfer.
ROUTE_SHAPES = {
    "labels": "triangle-up",
    "correlation": "circle",
    "transfer": "square",
    "crosscoder": "cross",
}
WHO_NAMES = {"feature": "the feature", "random": "random features"}
_GREY = FATE_COLORS["untestable"]
_NAMES = [PRINT_NAMES[model] for model in MODELS]


def _named(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(Model=data["model"].map(PRINT_NAMES))


def _spans(
    data: pd.DataFrame, value: str, *, y: alt.Y, title: str, color: alt.Color, domain: list | None,
    offset: alt.YOffset | None = None, shape: alt.Shape | None = None, tips: tuple[str, ...] = (),
) -> alt.LayerChart:  # fmt: skip
    """Dots with their intervals `value`_low to `value`_high."""
    scale = alt.Scale(domain=domain, clamp=True) if domain else alt.Scale(zero=True)
    columns = (value, f"{value}_low", f"{value}_high")
    tooltip = [*tips, *(alt.Tooltip(f"{column}:Q", format=".3f") for column in columns)]
    base = alt.Chart(data).encode(
        x=alt.X(f"{value}:Q", title=title, scale=scale), y=y, color=color, tooltip=tooltip
    )
    if offset is not None:
        base = base.encode(yOffset=offset)
    ends = base.encode(x=alt.X(f"{value}_low:Q", scale=scale, title=title), x2=f"{value}_high:Q")
    dots = base.mark_point(size=70)
    if shape is not None:
        dots = dots.encode(shape=shape)
    return alt.layer(ends.mark_rule(strokeWidth=2), dots)


def detector_dots(table: pd.DataFrame, order: Sequence[str] = DETECTORS) -> alt.LayerChart:
    """F1 of each kind of detector in each model, in the `order` given from the top.

    Columns: model, detector, f1, f1_low, f1_high.
    """
    need(table, ["model", "detector", "f1", "f1_low", "f1_high"], "detector_dots")
    data = _named(table)
    two_lines = alt.Axis(**_left().to_dict(), labelExpr="split(datum.label, ', ')")
    chart = _spans(
        data, "f1", title="F1 on the test half", domain=[0, 1],
        y=alt.Y("detector:N", title=None, sort=list(order), axis=two_lines),
        color=alt.Color("Model:N", scale=model_scale(data["model"]), sort=_NAMES),
        offset=alt.YOffset("Model:N", sort=_NAMES, scale=alt.Scale(paddingInner=0.3)),
        tips=("Model:N", "detector:N"),
    )  # fmt: skip
    return chart.properties(data=data, width="container", height=alt.Step(13))


def label_dots(table: pd.DataFrame) -> alt.LayerChart:
    """F1 of the best feature for each label in each model. Columns: label, model, f1 and ends."""
    need(table, ["model", "label", "f1", "f1_low", "f1_high"], "label_dots")
    data = _named(table).assign(Label=table["label"].str.replace("_", " "))
    chart = _spans(
        data, "f1", title="F1 of the best feature, on the test half", domain=[0, 1],
        y=alt.Y("Label:N", title=None, axis=alt.Axis(labelLimit=160)),
        color=alt.Color("Model:N", scale=model_scale(data["model"]), sort=_NAMES),
        offset=alt.YOffset("Model:N", sort=_NAMES, scale=alt.Scale(paddingInner=0.3)),
        tips=("Model:N", "Label:N"),
    )  # fmt: skip
    return chart.properties(data=data, width="container", height=alt.Step(13))


def route_dots(fates: pd.DataFrame) -> alt.VConcatChart:
    """Where a feature is found again, by every route: F1 above, effect of ablating below.

    Columns: model, route, again, r, and f1 and effect with their ends.
    """
    ends = [f"{value}{end}" for value in ("f1", "effect") for end in ("", "_low", "_high")]
    need(fates, ["model", "route", "again", "r", *ends], "route_dots")
    data = _named(fates).assign(Route=fates["route"].map(ROUTE_NAMES))
    data["Own"] = data["Model"]  # whose colour it has
    data["Model"] += np.where(data["again"], ", again", "")
    two_lines = alt.Axis(**_left().to_dict(), labelExpr="split(datum.label, ', ')")
    order = sorted(set(data["Model"]), key=lambda name: (_NAMES.index(name.split(",")[0]), name))
    panels = []
    for value, title, domain in (
        ("f1", "F1 on the test half", [0, 1]),
        ("effect", "nats lost, beyond random features", None),
    ):
        panels.append(
            _spans(
                data, value, title=title, domain=domain,
                y=alt.Y("Model:N", title=None, sort=order, axis=two_lines),
                color=alt.Color("Own:N", scale=model_scale(data["model"]), legend=None),
                shape=alt.Shape("Route:N", scale=_route_shapes(fates)),
                offset=alt.YOffset("Route:N", sort=list(ROUTE_NAMES.values())),
                tips=("Model:N", "Route:N"),
            ).properties(width=500, height=alt.Step(14))
        )  # fmt: skip
    return _stack(panels, data)


def _route_shapes(table: pd.DataFrame) -> alt.Scale:
    present = [route for route in ROUTE_NAMES if route in set(table["route"])]
    return alt.Scale(
        domain=[ROUTE_NAMES[r] for r in present], range=[ROUTE_SHAPES[r] for r in present]
    )


def ablation_dots(effects: pd.DataFrame) -> alt.VConcatChart:
    """What ablating costs by region, the feature beside random ones, all to one scale.

    Columns: model, who (feature, random), region, delta, low, high [nats a token].
    """
    need(effects, ["model", "who", "region", "delta", "low", "high"], "ablation_dots")
    kept = effects[effects["who"].isin(WHO_NAMES) & effects["region"].isin(REGION_NAMES)]
    kept = kept.dropna(subset=["delta"])
    data = _named(kept).rename(columns={"low": "delta_low", "high": "delta_high"})
    data["Who"] = data["who"].map(WHO_NAMES)
    data["Own"] = data["Model"].where(data["who"] == "feature", WHO_NAMES["random"])
    models = model_scale(data["model"])
    colors = alt.Scale(
        domain=[*models.domain, WHO_NAMES["random"]],
        range=[*models.range, _GREY],
    )
    shapes = alt.Scale(domain=list(WHO_NAMES.values()), range=["circle", "diamond"])
    # One scale: what is nothing beside the effect at labelled tokens has to look like nothing.
    ends = data[["delta", "delta_low", "delta_high"]].to_numpy()
    low, high = min(float(np.nanmin(ends)), 0.0), max(float(np.nanmax(ends)), 1e-3)
    domain = [low - 0.03 * (high - low), high + 0.03 * (high - low)]
    panels = []
    for region, title in REGION_NAMES.items():
        part = data[data["region"] == region]
        if part.empty:
            continue
        panels.append(
            _spans(
                part, "delta", title=f"nats lost, {title}", domain=domain,
                y=alt.Y("Model:N", title=None, sort=_NAMES, axis=_left()),
                color=alt.Color("Own:N", scale=colors, legend=None),
                shape=alt.Shape("Who:N", scale=shapes),
                offset=alt.YOffset("Who:N", sort=list(WHO_NAMES.values())),
                tips=("Model:N", "Who:N"),
            ).properties(width=500, height=alt.Step(11))
        )  # fmt: skip
    return alt.vconcat(*panels, spacing=18, usermeta={"gutter": GUTTER})


def steering_lines(table: pd.DataFrame) -> alt.LayerChart:
    """Change of the probability of related words as the feature is added, in points.

    Columns: model, who (feature, random), dose, probability, low, high.
    """
    need(table, ["model", "who", "dose", "probability", "low", "high"], "steering_lines")
    data = _named(table).assign(Who=table["who"].map(WHO_NAMES)).sort_values("dose")
    rest = data.groupby(["model", "who"])["probability"].transform("first")
    data["points"] = 100 * (data["probability"] - rest)
    dashes = alt.Scale(domain=list(WHO_NAMES.values()), range=[[1, 0], [4, 3]])
    base = alt.Chart(data).encode(
        x=alt.X("dose:Q", title=["amount added", "(1 = where the feature fires, on average)"]),
        y=alt.Y("points:Q", title="change of probability (points)"),
        color=alt.Color("Model:N", scale=model_scale(data["model"]), sort=_NAMES),
        strokeDash=alt.StrokeDash(
            "Who:N", scale=dashes, legend=alt.Legend(symbolType="stroke", orient="bottom")
        ),
        tooltip=[
            "Model:N",
            "Who:N",
            "dose:Q",
            alt.Tooltip("probability:Q", format=".3%"),
            alt.Tooltip("points:Q", format="+.2f", title="change, points"),
        ],
    )
    dots = base.mark_point(size=35).encode(strokeDash=alt.StrokeDashValue([1, 0]))
    return alt.layer(base.mark_line(), dots, data=data).properties(width="container", height=280)


def dose_response(
    followed: pd.DataFrame, accuracy: pd.DataFrame, *, t: float | None = None
) -> alt.VConcatChart:
    """F1, effect and accuracy as t goes from Lua to TinyStories.

    `followed`: x (t), route, f1 and effect with their ends. `accuracy`: t, domain, accuracy.
    """
    need(accuracy, ["t", "domain", "accuracy"], "dose_response (accuracy)")
    data = followed.assign(Route=followed["route"].map(ROUTE_NAMES))
    axis = alt.X(
        "x:Q", title="t (0 = Lua, 1 = TinyStories)",
        scale=alt.Scale(domain=[0, 1], nice=False), axis=alt.Axis(format=".2~f"),
    )  # fmt: skip
    # What is followed by transfer has the colour of the merge; the search by labels, grey and drawn
    # last with gaps in it, lets that line be seen where both give the same.
    looks = {"transfer": (MODEL_COLORS["merged"], [1, 0]), "labels": (_GREY, [4, 4])}
    routes = sorted(set(followed["route"]), key=lambda r: [*looks, r].index(r))
    names = [ROUTE_NAMES[r] for r in routes]
    look = [looks.get(r, (_GREY, [8, 3])) for r in routes]
    data = data.assign(order=data["route"].map(routes.index)).sort_values(["order", "x"])
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1)
    color = alt.Color(
        "Route:N", scale=alt.Scale(domain=names, range=[c for c, _ in look]), legend=legend
    )
    dash = alt.StrokeDash(
        "Route:N", scale=alt.Scale(domain=names, range=[d for _, d in look]), legend=legend
    )
    panels = [_band_panel(data, value, axis, color, t=t, dash=dash) for value in ("f1", "effect")]
    scores = accuracy.rename(columns={"t": "x"}).assign(Domain=accuracy["domain"].map(DOMAIN_NAMES))
    lines = alt.Chart(scores).encode(
        x=axis,
        y=alt.Y("accuracy:Q", title="accuracy", axis=alt.Axis(format="%", **_GUTTER)),
        color=alt.Color("Domain:N", scale=domain_scale(scores["domain"])),
        tooltip=["Domain:N", "x:Q", alt.Tooltip("accuracy:Q", format=".1%")],
    )
    panels.append(lines.mark_line().properties(width=500, height=130))
    return alt.vconcat(*panels, spacing=14, usermeta={"gutter": GUTTER}).resolve_scale(
        color="independent", strokeDash="independent"
    )


def fading(followed: pd.DataFrame) -> alt.VConcatChart:
    """F1 and effect along each fine-tune. Columns: model, x (share of steps), route, ..."""
    need(followed, ["model", "x", "route", "f1", "effect"], "fading")
    kept = followed[followed["route"] == "transfer"]
    data = _named(kept)
    axis = alt.X(
        "x:Q", title="share of the fine-tune's steps done",
        scale=alt.Scale(domain=[0, 1], nice=False), axis=alt.Axis(format="%"),
    )  # fmt: skip
    solid = alt.Legend(symbolType="stroke", symbolOpacity=1)
    color = alt.Color("Model:N", scale=model_scale(data["model"]), legend=solid)
    panels = [_band_panel(data, value, axis, color, points=True) for value in ("f1", "effect")]
    return alt.vconcat(*panels, spacing=14, usermeta={"gutter": GUTTER})


# Labels of the upright axis get the same room in every panel, so that the panels line up.
_GUTTER = {"minExtent": 46, "maxExtent": 46}


def _band_panel(
    data: pd.DataFrame, value: str, axis: alt.X, color: alt.Color, *,
    t: float | None = None, points: bool = False, dash: alt.StrokeDash | None = None,
) -> alt.LayerChart:  # fmt: skip
    need(data, ["x", value, f"{value}_low", f"{value}_high"], "dose and response")
    title = {"f1": "F1", "effect": "nats lost when ablated"}[value]
    scale = alt.Scale(domain=[0, 1]) if value == "f1" else alt.Scale(zero=True)
    y = alt.Y(f"{value}:Q", title=title, scale=scale, axis=alt.Axis(**_GUTTER))
    columns = (value, f"{value}_low", f"{value}_high")
    base = alt.Chart(data).encode(
        x=axis, y=y, color=color,
        tooltip=["x:Q", *(alt.Tooltip(f"{c}:Q", format=".3f") for c in columns)],
    )  # fmt: skip
    bands = base.encode(y=alt.Y(f"{value}_low:Q", title=title, scale=scale), y2=f"{value}_high:Q")
    lines = base.mark_line()
    if dash is not None:
        lines = lines.encode(strokeDash=dash)
    layers = [bands.mark_area(opacity=0.18), lines]
    if points:
        layers.append(base.mark_point(size=40))
    if t is not None:
        rule = alt.Chart(pd.DataFrame({"x": [t]})).mark_rule(style="ink", opacity=0.5)
        layers.insert(0, rule.encode(x=axis))
    return alt.layer(*layers).properties(width=500, height=170)
