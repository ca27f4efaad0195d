"""The text of a case study: held-out documents in blocks, with what each token is.

Code comes from documents of the validation and test splits which the languages' own parsers
accept, English from the same splits. A label may be rare: blocks that hold one are read first, all
of them if there is room, and of the others a random few. Each block read stands for as many of its
kind as there are (`weights`), so that precision is what it would be over all of the held-out text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerFast

from featlib import FeatlibError
from featlib.family import CODE, TRAINING_MIX
from featlib.text.labels import Label, label_documents

LABELLED = 0.8  # of the tokens asked for: room for blocks that hold the label, at most


def languages_of(label: Label, model: str) -> tuple[str, ...]:
    """The code in which a case is studied: what `label` can read and `model` was trained on.

    A model trained on no such code (TinyStories) is studied on all that the label can read.
    """
    readable = tuple(domain for domain in CODE if domain in label.find)
    if not readable:
        raise FeatlibError(
            f"the label reads {', '.join(label.find) or 'no domain'}: give it a function for "
            f"{' or '.join(CODE)}"
        )
    return tuple(domain for domain in readable if domain in TRAINING_MIX[model]) or readable


@dataclass(frozen=True)
class LabelledStream:
    """Tokens in reading order, which of them have the label, and which half each belongs to."""

    selection: np.ndarray  # bool [tokens]; the others are the test half
    mask: np.ndarray  # bool [tokens], the label
    ids: np.ndarray  # int64 [tokens]
    documents: np.ndarray  # int64 [tokens]
    weights: np.ndarray  # float [tokens]: how many tokens of the held-out text each stands for
    inside: np.ndarray  # bool [tokens]: here the next token of the same document is predicted

    @property
    def test(self) -> np.ndarray:
        return ~self.selection

    def labelled(self, half: np.ndarray) -> np.ndarray:
        """Labelled tokens of a half, where an edit can be seen in what is predicted: [n]."""
        return np.flatnonzero(self.mask & half & self.inside)


@dataclass(frozen=True)
class CaseText:
    """Blocks of several domains one after another."""

    ids: np.ndarray  # int64 [blocks, context]
    documents: np.ndarray  # int64 [blocks, context]; documents of two domains stay distinct
    domains: np.ndarray  # str [blocks]
    weights: np.ndarray  # float [blocks]: how many blocks of the held-out text each stands for
    masks: dict[str, np.ndarray]  # by label: bool [blocks, context]
    read: dict[str, int]  # documents by domain, without those that do not parse

    def halves(self, label: str, seed: int) -> LabelledStream | None:
        """All tokens, with whole documents assigned to two halves.

        Documents are drawn in random order into the selection half until it holds half of the
        labelled tokens. None where the label is too rare: in fewer than four documents, or on no
        or all tokens of a half.
        """
        inside = np.zeros(self.ids.shape, dtype=bool)
        inside[:, :-1] = self.documents[:, 1:] == self.documents[:, :-1]
        weights = np.repeat(self.weights, self.ids.shape[1])
        arrays = (self.masks[label], self.ids, self.documents, weights, inside)
        flat = [array.reshape(-1) for array in arrays]
        mask, _, documents, *_ = flat
        labelled = np.bincount(documents, mask)
        order = np.random.default_rng(seed).permutation(len(labelled))
        # A document goes where its middle labelled token would go: neither has a head start.
        chosen, drawn = np.zeros(len(order), dtype=bool), labelled[order]
        chosen[order] = np.cumsum(drawn) - drawn / 2 < drawn.sum() / 2
        selection = chosen[documents]
        both = all(0 < mask[half].sum() < half.sum() for half in (selection, ~selection))
        if np.count_nonzero(labelled) < 4 or not both:
            return None
        return LabelledStream(selection, *flat)


def gather_text(
    documents: pd.DataFrame,
    tokenizer: PreTrainedTokenizerFast,
    labels: Mapping[str, Label],
    n_tokens: Mapping[str, int],
    *,
    context: int,
    seed: int,
) -> CaseText:
    """About `n_tokens` of each domain named there, or as many as there are.

    `documents` has the columns domain and text. Blocks that hold the first of `labels` come first,
    up to `LABELLED` of the tokens. In a domain that a label cannot read no token has it.
    """
    rng = np.random.default_rng(seed)
    parts, read, first = [], {}, 0
    for domain, wanted in n_tokens.items():
        texts = documents.loc[documents["domain"] == domain, "text"].tolist()
        found = label_documents(tokenizer, texts, domain, context, labels)
        blocks, holds = max(wanted // context, 2), next(iter(found.masks.values())).any(axis=1)
        weights = np.zeros(len(found.blocks))
        for kind, room in ((holds, max(1, int(LABELLED * blocks))), (~holds, blocks)):
            left = max(1, room - int(np.count_nonzero(weights)))
            some = rng.permutation(np.flatnonzero(kind))[:left]
            weights[some] = kind.sum() / max(len(some), 1)
        rows = np.flatnonzero(weights)
        ids = found.blocks.ids[rows].astype(np.int64)
        numbers = found.blocks.documents[rows].astype(np.int64) + first
        masks = [found.masks[name][rows] for name in labels]
        parts.append((ids, numbers, np.full(len(rows), domain), weights[rows], *masks))
        read[domain] = len(texts) - found.skipped
        first = int(numbers.max()) + 1
    ids, numbers, domains, weights, *masks = (np.concatenate(p) for p in zip(*parts, strict=True))
    return CaseText(ids, numbers, domains, weights, dict(zip(labels, masks, strict=True)), read)
