"""Features in words, without a language model: sentences that a reader can test on new text.

A sentence names at most a dozen *cues*, each something that can be seen in a text (a token, a token
after another, what precedes or follows, a class of tokens, a kind of text, a label of
`featlib.labels`), with a strength from 1 to 9:

    Fires on “·raise” (9), “·except” (7) and “Error” after “Value” (2); less on anything after “.”
    (3). Read 4 and more as firing.

`explain` finds the cues on one half of the text; `simulate` predicts activations on any text from
the sentence and nothing else, by adding up the strengths of the cues that hold there. What stands
behind that part of the sentence (promoted tokens, fits of labels) is for people only.

Whitespace in tokens is shown by marks (·, ↵, ⇥), as in token strips.

Deviation: the paper has a language model write explanations and predict from them; we do both by
arithmetic, and by a chat model only where one is named, because everyone can then have the same
result without a service.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from featlib import FeatlibError
from featlib.family import DOMAIN_NAMES, DOMAINS
from featlib.text.labels import TOKEN_CLASSES, token_class
from featlib.text.tokens import visible

STRONGEST = 9  # strengths are whole numbers from 0 to 9, as in the paper's scheme
FAMILIES = ("on", "pair", "after", "before", "class", "kind", "label")
_FAMILY = 2**50  # a cue is one number: family * _FAMILY + what it is about
_FEATURES_AT_ONCE = 256  # bounds the memory of the search


@dataclass(frozen=True)
class Text:
    """What a reader can see of each token of a stream; every array is [tokens]."""

    ids: np.ndarray  # of tokens that look alike, the first one's id
    previous: np.ndarray  # id of the token before it in its document and block, -1: none
    following: np.ndarray  # id of the token after it, -1: none
    kinds: np.ndarray  # index into DOMAINS, -1: unknown
    labels: np.ndarray  # bool [tokens, labels]
    label_names: tuple[str, ...]
    vocabulary: tuple[str, ...]  # how each id is shown
    classes: np.ndarray  # of each id of the vocabulary, index into TOKEN_CLASSES

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Rules:
    """What a sentence says: cues with their strengths, and from where on to say yes."""

    cues: dict[int, int]  # cue -> strength, -9..9, not 0
    cut: int = 1  # simulated strength from which the feature is taken to fire


def read_text(
    ids: np.ndarray,
    documents: np.ndarray,
    vocabulary: Sequence[str],
    kinds: np.ndarray | None = None,
    labels: dict[str, np.ndarray] | None = None,
) -> Text:
    """Prepare a stream for `explain` and `simulate`.

    `ids`, `documents` [blocks, context]; `vocabulary` the text of each id
    (`featlib.tokens.token_strings`); `kinds` (index into DOMAINS) and each of `labels` (bool) have
    the shape of `ids`.
    """
    shown = [visible(text) for text in vocabulary]
    first = {text: i for i, text in reversed(list(enumerate(shown)))}
    same = np.array([first[text] for text in shown])[np.asarray(ids, dtype=np.int64)]
    joined = np.asarray(documents)[:, 1:] == np.asarray(documents)[:, :-1]
    previous, following = np.full(same.shape, -1), np.full(same.shape, -1)
    previous[:, 1:] = np.where(joined, same[:, :-1], -1)
    following[:, :-1] = np.where(joined, same[:, 1:], -1)
    labels = labels or {}
    masks = [np.asarray(mask, dtype=bool).reshape(-1) for mask in labels.values()]
    return Text(
        ids=same.reshape(-1),
        previous=previous.reshape(-1),
        following=following.reshape(-1),
        kinds=np.full(same.size, -1) if kinds is None else np.asarray(kinds).reshape(-1),
        labels=np.stack(masks, axis=1) if masks else np.zeros((same.size, 0), dtype=bool),
        label_names=tuple(labels),
        vocabulary=tuple(shown),
        classes=np.array([TOKEN_CLASSES.index(token_class(t)) for t in vocabulary]),
    )


# --- search -----------------------------------------------------------------------------------


def explain(
    activations: sp.sparray,
    text: Text,
    rows: np.ndarray,
    *,
    max_cues: int = 10,
    min_count: int = 5,
    min_share: float = 0.002,
    shrink: float = 5.0,
) -> list[Rules]:
    """The cues that best explain each feature on the tokens `rows`: one `Rules` a feature.

    `activations` [tokens, features] over all of `text`, of which only `rows` are looked at. Cues
    are chosen one by one, each the one that removes most of the squared error that is left
    (matching pursuit), then weighed together by ridge regression and rounded to 0..9. `shrink` is
    the ridge: so many silent sightings count against every cue, which keeps rare coincidences out.
    A cue must occur `min_count` times, and remove `min_share` of the feature's sum of squares.
    """
    codes = _codes(text, rows)
    found, counts = np.unique(codes[codes >= 0], return_counts=True)
    cues = found[counts >= min_count]
    held = _incidence(codes, cues)
    n = np.asarray(held.sum(axis=0)).reshape(-1)[:, None]  # [cues, 1]
    gram = (held.T @ held).tocsc()
    chosen = sp.csr_array(activations)[rows].tocsc()
    out: list[Rules] = []
    for start in range(0, chosen.shape[1], _FEATURES_AT_ONCE):
        part = chosen[:, start : start + _FEATURES_AT_ONCE]
        moments = (held.T @ part).toarray()  # [cues, features]
        picked, gains = _pursue(moments, gram, n, min(max_cues, len(cues)), shrink)
        squares = np.asarray(part.multiply(part).sum(axis=0)).reshape(-1)
        kept = np.maximum(min_share * squares[:, None], 1e-9) <= gains.T
        for j, (columns, worth) in enumerate(zip(picked.T, kept, strict=True)):
            columns = columns[worth]
            g = gram[columns][:, columns].toarray() + shrink * np.eye(len(columns))
            out.append(_rounded(cues[columns], np.linalg.solve(g, moments[columns, j])))
    return out


def _pursue(
    moments: np.ndarray, gram: sp.csc_array, n: np.ndarray, steps: int, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """[steps, features] columns of `gram` in the order of choice, and the squares each removes."""
    left, each = moments.copy(), np.arange(moments.shape[1])
    picked = np.zeros((steps, len(each)), dtype=np.int64)
    gains = np.zeros((steps, len(each)))
    for k in range(steps):
        gain = left**2 / (n + shrink)
        np.put_along_axis(gain, picked[:k], -1.0, axis=0)
        picked[k] = gain.argmax(axis=0)
        gains[k] = gain[picked[k], each]
        effect = left[picked[k], each] / (n[picked[k], 0] + shrink)
        left -= (gram[:, picked[k]] * effect[None, :]).toarray()
    return picked, gains


def _rounded(cues: np.ndarray, effects: np.ndarray) -> Rules:
    top = effects.max(initial=0.0)
    if not top > 0:
        return Rules({})
    strengths = np.clip(np.rint(STRONGEST * effects / top), -STRONGEST, STRONGEST).astype(int)
    order = np.lexsort((cues, -strengths))
    return Rules({int(cues[i]): int(strengths[i]) for i in order if strengths[i]})


# --- prediction -------------------------------------------------------------------------------


def simulate(rules: Sequence[Rules], text: Text, rows: np.ndarray) -> np.ndarray:
    """Activations that `rules` predict on tokens `rows`, 0..9: [rows, rules] float32.

    The strengths of all cues that hold at a token are added up, and the sum is cut at 0 and 9.
    """
    cues = np.unique(np.array([cue for r in rules for cue in r.cues], dtype=np.int64))
    if not len(cues):
        return np.zeros((len(rows), len(rules)), dtype=np.float32)
    entries = [
        (float(strength), int(np.searchsorted(cues, cue)), j)
        for j, r in enumerate(rules)
        for cue, strength in r.cues.items()
    ]
    values, cue, feature = zip(*entries, strict=True)
    weights = sp.csr_array(
        (np.array(values, np.float32), (cue, feature)), shape=(len(cues), len(rules))
    )
    total = (_incidence(_codes(text, rows), cues) @ weights).toarray()
    return np.clip(total, 0, STRONGEST, out=total)


def _codes(text: Text, rows: np.ndarray) -> np.ndarray:
    """[rows, families] the cues that hold at each token, -1 where one does not."""
    ids, previous, following = text.ids[rows], text.previous[rows], text.following[rows]
    size = len(text.vocabulary)
    columns = [
        _code("on", ids),
        _code("pair", np.where(previous >= 0, previous * size + ids, -1)),
        _code("after", previous),
        _code("before", following),
        _code("class", text.classes[ids]),
        _code("kind", text.kinds[rows]),
    ]
    for i in range(text.labels.shape[1]):
        columns.append(_code("label", np.where(text.labels[rows, i], i, -1)))
    return np.stack(columns, axis=1)


def _code(family: str, what: np.ndarray | int) -> np.ndarray:
    what = np.asarray(what, dtype=np.int64)
    return np.where(what >= 0, FAMILIES.index(family) * _FAMILY + what, -1)


def _incidence(codes: np.ndarray, cues: np.ndarray) -> sp.csr_array:
    """[rows, cues] 1 where a cue holds; `cues` ascending."""
    place = np.searchsorted(cues, codes)
    here = (place < len(cues)) & (cues[np.minimum(place, len(cues) - 1)] == codes)
    indptr = np.concatenate([[0], here.sum(axis=1).cumsum()])
    ones = np.ones(int(indptr[-1]), dtype=np.float32)
    return sp.csr_array((ones, place[here], indptr), shape=(len(codes), len(cues)))


# --- words ------------------------------------------------------------------------------------

_TOKEN = "“([^”]+)”"
_CUE = re.compile(
    rf"{_TOKEN} after {_TOKEN} \((\d)\)|{_TOKEN} \((\d)\)|anything after {_TOKEN} \((\d)\)"
    rf"|anything before {_TOKEN} \((\d)\)|any (\w+) token \((\d)\)|all (\w+) text \((\d)\)"
    r"|what is an? ([\w ]+?) \((\d)\)"
)
_JOINTS = (", and less on ", "; less on ", ", ", " and ")


def write_sentence(
    rules: Rules, text: Text, promoted: Sequence[str] = (), fits: dict[str, float] | None = None
) -> str:
    """`rules` in words. `promoted` (shown tokens) and `fits` (label -> F1) follow for people."""
    more = [_name(c, text) + f" ({s})" for c, s in rules.cues.items() if s > 0]
    less = [_name(c, text) + f" ({-s})" for c, s in rules.cues.items() if s < 0]
    if not more:
        return "Fires on nothing that could be told."
    sentence = "Fires on " + _listed(more) + (f"; less on {_listed(less)}" if less else "")
    sentence += f". Read {rules.cut} and more as firing."
    for label, f1 in (fits or {}).items():
        sentence += f" Fits the label {label.replace('_', ' ')} with F1 {f1:.2f}."
    if promoted:
        sentence += " Makes " + _listed([f"“{t}”" for t in promoted]) + " likelier next."
    return sentence


def read_sentence(sentence: str, text: Text) -> Rules:
    """The rules that a sentence states: all that `simulate` may know of a feature.

    Raises `FeatlibError` where the sentence is not in the form of `write_sentence`.
    """
    if sentence.startswith("Fires on nothing"):
        return Rules({})
    at, sign = len("Fires on "), 1
    cues: dict[int, int] = {}
    ids = {shown: i for i, shown in reversed(list(enumerate(text.vocabulary)))}
    while sentence.startswith("Fires on ") and (match := _CUE.match(sentence, at)):
        cue, strength = _cue_of(match, text, ids)
        cues[cue], at = sign * strength, match.end()
        joint = next((j for j in _JOINTS if sentence.startswith(j, at)), None)
        if joint is None:
            break
        sign, at = (-1 if "less" in joint else sign), at + len(joint)
    ending = re.compile(r"\. Read (\d) and more as firing\.").match(sentence, at)
    if not cues or ending is None:
        raise FeatlibError(
            f"not an explanation of this kind, from {sentence[at : at + 40]!r} on; it must read "
            "'Fires on “token” (9), ...; less on ... . Read 4 and more as firing.'"
        )
    return Rules(cues, int(ending[1]))


def _cue_of(match: re.Match[str], text: Text, ids: dict[str, int]) -> tuple[int, int]:
    parts = [part for part in match.groups() if part is not None]
    name, strength = parts[0], int(parts[-1])
    start = match[0]
    try:
        if start.startswith("any "):
            cue = _code("class", TOKEN_CLASSES.index(name))
        elif start.startswith("all "):
            cue = _code("kind", [DOMAIN_NAMES[d] for d in DOMAINS].index(name))
        elif start.startswith("what is"):
            cue = _code("label", text.label_names.index(name.replace(" ", "_")))
        elif start.startswith("anything"):
            cue = _code("after" if "after" in start[:15] else "before", ids[name])
        elif len(parts) == 3:
            cue = _code("pair", ids[parts[1]] * len(text.vocabulary) + ids[name])
        else:
            cue = _code("on", ids[name])
    except (KeyError, ValueError):
        raise FeatlibError(f"explanation names {name!r}, which this text does not know") from None
    return int(cue), strength


def _name(cue: int, text: Text) -> str:
    family, what = FAMILIES[cue // _FAMILY], cue % _FAMILY
    if family == "class":
        return f"any {TOKEN_CLASSES[what]} token"
    if family == "kind":
        return f"all {DOMAIN_NAMES[DOMAINS[what]]} text"
    if family == "label":
        label = text.label_names[what].replace("_", " ")
        return f"what is a{'n' if label[0] in 'aeiou' else ''} {label}"
    if family == "pair":
        before, token = divmod(what, len(text.vocabulary))
        return f"“{text.vocabulary[token]}” after “{text.vocabulary[before]}”"
    quoted = f"“{text.vocabulary[what]}”"
    return quoted if family == "on" else f"anything {family} {quoted}"


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + items[-1]


# --- for people -------------------------------------------------------------------------------


@torch.no_grad()
def promoted_tokens(
    model: Any, decoder: torch.Tensor, features: np.ndarray, n: int = 3
) -> np.ndarray:
    """Ids [features, n] of the next tokens that each feature makes likelier, strongest first.

    `decoder` [d_sae, d_in]. The direct path alone: through the MLP's output matrix, the final
    norm's gain and the unembedding; a constant for all tokens is taken off.
    """
    down = model.model.layers[-1].mlp.down_proj.weight  # [d_model, d_in]
    rows = torch.as_tensor(decoder)[torch.as_tensor(features)].to(down)
    logits = (rows @ down.T * model.model.norm.weight) @ model.lm_head.weight.T
    return logits.topk(n, dim=1).indices.cpu().numpy()


def label_fits(
    activations: sp.sparray, text: Text, rows: np.ndarray, *, at_least: float = 0.5
) -> list[dict[str, float]]:
    """For each feature the labels that its firing tells with this F1 or more."""
    fires = (sp.csr_array(activations)[rows] > 0).astype(np.float32)
    truth = text.labels[rows].astype(np.float32)  # [rows, labels]
    both = fires.T @ truth
    total = np.asarray(fires.sum(axis=0)).reshape(-1, 1) + truth.sum(axis=0)
    f1 = np.divide(2 * both, total, out=np.zeros_like(total), where=total > 0)
    return [
        {text.label_names[i]: float(row[i]) for i in np.flatnonzero(row >= at_least)} for row in f1
    ]
