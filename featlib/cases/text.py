"""The text of a case study: held-out documents in blocks, with what each token is.

Code comes from documents of the validation and test splits which the languages' own parsers
accept, English from the same splits. A label may be rare: blocks that hold one are read first, all
of them if there is room, and of the others a random few. Each block read stands for as many of its
kind as there are (`weights`), so that precision is what it would be over all of the held-out text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerFast

from featlib import FeatlibError
from featlib.cases.detectors import LabelledStream, labelled_stream
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
class CaseText:
    """Blocks of several domains one after another."""

    ids: np.ndarray  # int64 [blocks, context]
    documents: np.ndarray  # int64 [blocks, context]; documents of two domains stay distinct
    domains: np.ndarray  # str [blocks]
    weights: np.ndarray  # float [blocks]: how many blocks of the held-out text each stands for
    masks: dict[str, np.ndarray]  # by label: bool [blocks, context]
    read: dict[str, int]  # documents, by domain
    skipped: dict[str, int]  # documents left out because they do not parse, by domain

    def inside(self, chosen: np.ndarray) -> np.ndarray:
        """Tokens [tokens] of `chosen` at which the next token of the same document is predicted."""
        blocks, docs = chosen.reshape(self.ids.shape), self.documents
        found = np.zeros(self.ids.shape, dtype=bool)
        found[:, :-1] = blocks[:, :-1] & (docs[:, 1:] == docs[:, :-1])
        return found.reshape(-1)


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
    up to `LABELLED` of the tokens. A label marks tokens in the domains that it can read; elsewhere
    no token has it.
    """
    rng = np.random.default_rng(seed)
    parts, masks, read, skipped, first = [], [], {}, {}, 0
    for domain, wanted in n_tokens.items():
        texts = documents.loc[documents["domain"] == domain, "text"].tolist()
        found = label_documents(tokenizer, texts, domain, context, labels)
        blocks, holds = max(wanted // context, 2), next(iter(found.masks.values())).any(axis=1)
        kept: list[np.ndarray] = []
        stands_for: list[np.ndarray] = []
        for kind, room in ((holds, max(1, int(LABELLED * blocks))), (~holds, blocks)):
            some = rng.permutation(np.flatnonzero(kind))[: max(1, room - sum(map(len, kept)))]
            kept.append(some)
            stands_for.append(np.full(len(some), kind.sum() / max(len(some), 1)))
        rows = np.concatenate(kept)
        order = np.argsort(rows)
        rows, weights = rows[order], np.concatenate(stands_for)[order]
        numbers = found.blocks.documents[rows].astype(np.int64) + first
        names = np.full(len(rows), domain)
        parts.append((found.blocks.ids[rows].astype(np.int64), numbers, names, weights))
        masks.append({name: mask[rows] for name, mask in found.masks.items()})
        read[domain], skipped[domain] = len(texts), found.skipped
        first = int(numbers.max()) + 1
    ids, numbers, names, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    marks = {name: np.concatenate([part[name] for part in masks]) for name in labels}
    return CaseText(ids, numbers, names, weights, marks, read, skipped)


def split_halves(text: CaseText, labels: Sequence[str], *, seed: int) -> dict[str, LabelledStream]:
    """A selection and a test half for each label; labels too rare to have both are left out."""
    streams = {}
    for label in labels:
        if len(np.unique(text.documents[text.masks[label]])) < 4:
            continue
        try:
            streams[label] = labelled_stream(
                text.masks[label], text.ids, text.documents, seed=seed, weights=text.weights
            )
        except FeatlibError:  # all labelled tokens in one document
            continue
    return streams
