"""Features in words, without a language model: sentences that can be tested on new text.

A sentence names at most a dozen *cues*, each something that can be seen in a text (a token, a token
after another, what precedes or follows, a class of tokens, a kind of text, a label of
`featlib.text.labels`), with a strength from 1 to 9:

    Fires on “·raise” (9), “·except” (7) and “Error” after “Value” (2); less on anything after “.”
    (3).

`explain` finds the cues on one half of the text; `simulate` predicts activations on any text from
the cues and their strengths, which is all that the sentence says, by adding up the strengths of
those that hold there.

Deviation: the paper has a language model write explanations and predict from them; we do both by
arithmetic, and by a chat model only where one is named, because everyone can then have the same
result without a service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from featlib.chapter import listed
from featlib.family import DOMAIN_NAMES, DOMAINS
from featlib.text.labels import TOKEN_CLASSES, token_class
from featlib.text.tokens import visible

PHRASES = {  # how each family of cues is named
    "on": "“{}”",
    "pair": "“{}” after “{}”",
    "after": "anything after “{}”",
    "before": "anything before “{}”",
    "class": "any {} token",
    "kind": "all {} text",
    "label": "what is {}",
}
FAMILIES = tuple(PHRASES)
STRONGEST = 9  # strengths are whole numbers from 0 to 9, as in the paper's scheme
MIN_COUNT = 5  # times that a cue must occur
MIN_SHARE = 0.002  # of the feature's sum of squares, which a cue must remove
SHRINK = 5.0  # the ridge: so many silent sightings count against every cue; see `explain`
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

    @cached_property
    def names(self) -> dict[str, Sequence[str]]:
        """By family of cues, what each cue of it is about, in words."""
        labels = [name.replace("_", " ") for name in self.label_names]
        return dict.fromkeys(FAMILIES, self.vocabulary) | {
            "class": TOKEN_CLASSES,
            "kind": [DOMAIN_NAMES[d] for d in DOMAINS],
            "label": [f"a{'n' if name[0] in 'aeiou' else ''} {name}" for name in labels],
        }


Rules = dict[int, int]  # what a sentence says: cue -> strength, -9..9, not 0


def read_text(
    ids: np.ndarray, documents: np.ndarray, vocabulary: Sequence[str], kinds: np.ndarray,
    labels: dict[str, np.ndarray],
) -> Text:  # fmt: skip
    """Prepare a stream for `explain` and `simulate`.

    `ids`, `documents` [blocks, context]; `vocabulary` the text of each id; `kinds` (index into
    DOMAINS, -1: unknown) and each of `labels` (bool) have the shape of `ids`.
    """
    shown = [visible(text) for text in vocabulary]
    first = {text: i for i, text in reversed(list(enumerate(shown)))}
    same = np.array([first[text] for text in shown])[np.asarray(ids, dtype=np.int64)]
    # Whether a token goes on from the one before it; the first of a block never does.
    joined = np.pad(documents[:, 1:] == documents[:, :-1], ((0, 0), (1, 0)))
    following = np.where(np.roll(joined, -1, axis=1), np.roll(same, -1, axis=1), -1)
    masks = np.array([mask.reshape(-1) for mask in labels.values()], dtype=bool)
    return Text(
        ids=same.reshape(-1),
        previous=np.where(joined, np.roll(same, 1, axis=1), -1).reshape(-1),
        following=following.reshape(-1),
        kinds=kinds.reshape(-1),
        labels=np.ascontiguousarray(masks.reshape(len(labels), same.size).T),
        label_names=tuple(labels),
        vocabulary=tuple(shown),
        classes=np.array([TOKEN_CLASSES.index(token_class(t)) for t in vocabulary]),
    )


def explain(activations: sp.sparray, text: Text, rows: np.ndarray, max_cues: int) -> list[Rules]:
    """The cues that best explain each feature on the tokens `rows`: one `Rules` a feature.

    `activations` [tokens, features] over all of `text`, of which only `rows` are looked at. Cues
    are chosen one by one, each the one that removes most of the squared error that is left
    (matching pursuit), then weighed together by ridge regression and rounded to 0..9. The ridge
    keeps rare coincidences out.
    """
    codes = _codes(text, rows)
    found, counts = np.unique(codes[codes >= 0], return_counts=True)
    cues = found[counts >= MIN_COUNT]
    held = _incidence(codes, cues)
    n = np.asarray(held.sum(axis=0)).reshape(-1)[:, None]  # [cues, 1]
    gram = (held.T @ held).tocsc()
    chosen = sp.csr_array(activations)[rows].tocsc()
    out: list[Rules] = []
    for start in range(0, chosen.shape[1], _FEATURES_AT_ONCE):
        part = chosen[:, start : start + _FEATURES_AT_ONCE]
        moments = (held.T @ part).toarray()  # [cues, features]
        picked, gains = _pursue(moments, gram, n, min(max_cues, len(cues)))
        squares = np.asarray(part.multiply(part).sum(axis=0)).reshape(-1)
        kept = np.maximum(MIN_SHARE * squares[:, None], 1e-9) <= gains.T
        for j, (columns, worth) in enumerate(zip(picked.T, kept, strict=True)):
            columns = columns[worth]
            g = gram[columns][:, columns].toarray() + SHRINK * np.eye(len(columns))
            out.append(_rounded(cues[columns], np.linalg.solve(g, moments[columns, j])))
    return out


def _pursue(
    moments: np.ndarray, gram: sp.csc_array, n: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """[steps, features] columns of `gram` in the order of choice, and the squares each removes."""
    left, each = moments.copy(), np.arange(moments.shape[1])
    picked = np.zeros((steps, len(each)), dtype=np.int64)
    gains = np.zeros((steps, len(each)))
    for k in range(steps):
        gain = left**2 / (n + SHRINK)
        np.put_along_axis(gain, picked[:k], -1.0, axis=0)
        picked[k] = gain.argmax(axis=0)
        gains[k] = gain[picked[k], each]
        effect = left[picked[k], each] / (n[picked[k], 0] + SHRINK)
        left -= (gram[:, picked[k]] * effect[None, :]).toarray()
    return picked, gains


def _rounded(cues: np.ndarray, effects: np.ndarray) -> Rules:
    top = effects.max(initial=0.0)
    if not top > 0:
        return {}
    strengths = np.rint(STRONGEST * effects / top).clip(-STRONGEST, STRONGEST).astype(int)
    order = np.lexsort((cues, -strengths))
    return {int(cues[i]): int(strengths[i]) for i in order if strengths[i]}


def simulate(rules: Sequence[Rules], text: Text, rows: np.ndarray) -> np.ndarray:
    """Activations that `rules` predict on tokens `rows`, cut at 0 and 9: [rows, rules] float32."""
    cues = np.unique(np.array([cue for r in rules for cue in r], dtype=np.int64))
    if not len(cues):
        return np.zeros((len(rows), len(rules)), dtype=np.float32)
    weights = np.zeros((len(cues), len(rules)), dtype=np.float32)
    for j, r in enumerate(rules):
        weights[np.searchsorted(cues, list(r)), j] = list(r.values())
    return (_incidence(_codes(text, rows), cues) @ weights).clip(0, STRONGEST)


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
        *(_code("label", np.where(has, i, -1)) for i, has in enumerate(text.labels[rows].T)),
    ]
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


def write_sentence(rules: Rules, text: Text) -> str:
    """`rules` in words; other rules make another sentence, so nothing is lost."""
    more: list[str] = []
    less: list[str] = []
    for cue, strength in rules.items():
        family, what = FAMILIES[cue // _FAMILY], cue % _FAMILY
        names = text.names[family]
        about = reversed(divmod(what, len(names))) if family == "pair" else [what]
        said = PHRASES[family].format(*(names[i] for i in about))
        (more if strength > 0 else less).append(f"{said} ({abs(strength)})")
    if not more:
        return "Fires on nothing that could be told."
    return "Fires on " + listed(more) + (f"; less on {listed(less)}." if less else ".")
