"""The text of a case study: held-out documents in blocks, with what each token is.

Code comes from documents of the validation and test splits which the languages' own parsers
accept, English from the same splits. Blocks are drawn at random, so that many documents take
part: an interval from resampling documents needs many.
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

# Characters of documents read for each token asked for: blocks are drawn from several times the
# text that is needed, so that many documents take part.
CHARACTERS = 20


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
    masks: dict[str, np.ndarray]  # by label: bool [blocks, context]
    read: dict[str, int]  # documents read, by domain
    skipped: dict[str, int]  # documents left out because they do not parse, by domain


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

    `documents` has the columns domain and text. A label marks tokens in the domains that it can
    read; elsewhere no token has it.
    """
    rng = np.random.default_rng(seed)
    ids, numbers, domains, masks, read, skipped = [], [], [], [], {}, {}
    first = 0
    for domain, wanted in n_tokens.items():
        texts = documents.loc[documents["domain"] == domain, "text"].to_numpy()
        texts = texts[rng.permutation(len(texts))]
        sizes = np.cumsum([len(text) for text in texts])
        texts = list(texts[: int(np.searchsorted(sizes, CHARACTERS * wanted)) + 1])
        found = label_documents(tokenizer, texts, domain, context, labels)
        kept = np.sort(rng.permutation(len(found.blocks))[: max(wanted // context, 1)])
        ids.append(found.blocks.ids[kept].astype(np.int64))
        numbers.append(found.blocks.documents[kept].astype(np.int64) + first)
        domains.append(np.full(len(kept), domain))
        masks.append({name: mask[kept] for name, mask in found.masks.items()})
        read[domain], skipped[domain] = len(texts), found.skipped
        first = int(numbers[-1].max()) + 1
    return CaseText(
        np.concatenate(ids),
        np.concatenate(numbers),
        np.concatenate(domains),
        {name: np.concatenate([part[name] for part in masks]) for name in labels},
        read,
        skipped,
    )


def split_halves(text: CaseText, labels: Sequence[str], *, seed: int) -> dict[str, LabelledStream]:
    """A selection and a test half for each label; labels too rare to have both are left out."""
    streams = {}
    for label in labels:
        if len(np.unique(text.documents[text.masks[label]])) < 4:
            continue
        try:
            streams[label] = labelled_stream(text.masks[label], text.ids, text.documents, seed=seed)
        except FeatlibError:  # all labelled tokens in one document
            continue
    return streams
