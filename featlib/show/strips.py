"""Token strips: a text whose tokens are shaded by how strongly a feature fires on each."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from featlib.show.figure import Markup

EXCERPT_LINES, EXCERPT_WIDTH = 8, 96


def token_strips(
    tokens: Sequence[str], rows: Mapping[str, Sequence[float]], *,
    peak: Mapping[str, float] | None = None, notes: Sequence[str] | None = None,
) -> Markup:  # fmt: skip
    """One text under several features, a strip each: `rows` is label -> activation of each token.

    Tokens are shaded by how strongly the feature fires, and whitespace is shown as marks. All
    strips share one scale (the largest activation of all), with its legend, unless `peak` gives the
    deepest shade for each label: the units of two autoencoders differ. `notes` says more about
    tokens, such as their label ("" where there is nothing to say): it is read out with the
    activation, and the token is underlined. The table behind it has one row a token and one column
    a label.
    """
    shared = max([float(v) for row in rows.values() for v in row if v > 0], default=1.0)
    peaks = peak or dict.fromkeys(rows, shared)
    said = [""] * len(tokens) if notes is None else notes
    strips = [_strip(label, tokens, row, peaks[label], said) for label, row in rows.items()]
    legend = (
        '<div class="fl-legend" aria-hidden="true"><span>activation 0</span>'
        '<span class="fl-scale" style="display:inline-block;width:6em;height:.7em;background:'
        "linear-gradient(to right,transparent,rgb(var(--fl-heat,240 140 20)/.85))"
        f'"></span><span>{shared:.3g}</span></div>'
    )
    shown = Markup(f'<div class="fl-strips">{"".join(strips)}{"" if peak else legend}</div>')
    shown.data = pd.DataFrame({"token": list(tokens), **rows})
    if notes is not None:
        shown.data["note"] = list(notes)
    return shown


def explained_feature(
    label: str, explanation: str, tokens: Sequence[str], rows: Mapping[str, Sequence[float]],
    scores: Mapping[str, float], peaks: Mapping[str, float] | None = None, link: str = "",
) -> Markup:  # fmt: skip
    """One feature: its explanation as text, its scores, and strips of true and predicted values.

    `rows` is label -> activation of each of `tokens`; each strip is shaded up to its own largest
    value unless `peaks` gives one for its label. `link` is where the label leads.
    """
    own = {name: max([float(v) for v in row if v > 0], default=1.0) for name, row in rows.items()}
    told = ", ".join(f"{name} {value:.2f}" for name, value in scores.items()).replace("-", "−")
    deepest = {f"{name} (deepest: {v:.3g})": v for name, v in {**own, **(peaks or {})}.items()}
    shown = dict(zip(deepest, rows.values(), strict=True))
    name = html.escape(label)
    name = f'<a href="{html.escape(link)}">{name}</a>' if link else name
    return Markup(
        f'<section class="fl-explained"><p class="fl-strip-label">{name} '
        f"({html.escape(told)})</p><p>{html.escape(explanation)}</p>"
        f"{token_strips(tokens, shown, peak=deepest)}</section>"
    )


def _strip(
    label: str, tokens: Sequence[str], row: Sequence[float], peak: float, notes: Sequence[str]
) -> str:
    """One strip: a stop of the tab key; arrow keys walk along it, activations are read out."""
    values = [float(a) for a in row]
    assert len(tokens) == len(values) == len(notes), "one activation and one note a token"
    assert peak > 0 and all(map(math.isfinite, values)), "activations are finite"
    spans = "".join(_token(t, v, peak, n) for t, v, n in zip(tokens, values, notes, strict=True))
    finding = "no token fires"
    if firing := sum(v > 0 for v in values):
        best = tokens[values.index(max(values))]
        finding = f"{firing} of {len(values)} tokens fire, most on {best!r}"
    name = html.escape(label)
    return (
        f'<div class="fl-strip"><span class="fl-strip-label">{name}</span>'
        f'<div class="fl-tokens" tabindex="0" role="group" style="overflow-wrap:anywhere" '
        f'aria-label="{name}: {html.escape(finding)}">{spans}</div>'
        f'<div class="fl-readout" aria-live="polite"></div></div>'
    )


def _token(token: str, value: float, peak: float, note: str) -> str:
    strength = round(min(max(value / peak, 0.0), 1.0), 3)
    # A code host shows notebooks without our style sheet, hence the fallback colour.
    shade = f"--a:{strength};background:rgb(var(--fl-heat,240 140 20)/{strength * 0.85:.3g})"
    line = "text-decoration:underline" if note else ""
    styles = ";".join(part for part in (shade if strength > 0 else "", line) if part)
    style = f' style="{styles}"' if styles else ""
    title = html.escape(" · ".join([repr(token), f"{value:.3g}", *([note] * bool(note))]))
    # A line may break before a word; a mark for the space would otherwise glue words together.
    wrap = "<wbr>" if token[:1].isspace() else ""
    return f'{wrap}<span class="fl-tok"{style} title="{title}">{visible(token)}</span>'


def excerpts(texts: Mapping[str, str]) -> Markup:
    """The beginning of each text (`texts` is label -> text), shown as it stands and escaped."""
    shown = []
    for label, text in texts.items():
        lines = text.splitlines()[:EXCERPT_LINES]
        kept = [line[:EXCERPT_WIDTH] + "…" * (len(line) > EXCERPT_WIDTH) for line in lines]
        body = html.escape("\n".join(kept))
        name = html.escape(label)
        shown.append(
            f'<p class="fl-strip-label">{name}</p><div class="highlight">'
            f'<pre tabindex="0" aria-label="Beginning of one document: {name}">{body}</pre></div>'
        )
    return Markup("".join(shown))


# Letters and marks, by their class, that show nothing: they could hide in a word.
_NO_INK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {
    chr(code) for code in (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
_MARKS = {" ": "·", "\t": "⇥", "\n": "↵"}


def visible(token: str) -> str:
    """The token as HTML in which nothing is hidden: whitespace, controls and odd letters show."""
    out = []
    for character in token:
        if mark := _MARKS.get(character):
            brk = "<br>" if character == "\n" else ""
            out.append(f'<span class="fl-ws">{mark}</span>{brk}')
        elif not character.isprintable() or character in _NO_INK:  # controls, overrides, odd spaces
            out.append(f'<span class="fl-escape">\\u{ord(character):04x}</span>')
        else:
            out.append(html.escape(character))
    return "".join(out) or '<span class="fl-ws">∅</span>'
