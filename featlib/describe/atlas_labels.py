"""What each token of the common stream is, and which of these labels each feature fits.

Beside the labels of the case studies (`featlib.labels.LABELS`) a token has a class (keyword,
punctuation, ...) and a domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from featlib import FeatlibError
from featlib.family import DOMAIN_NAMES, DOMAINS
from featlib.text.labels import LABELS, classify_text, label_tokens
from featlib.text.tokens import TokenBlocks, mix_blocks, token_offsets

CLASSES = (
    *("punctuation", "keyword", "identifier", "number", "string", "comment", "word"),
)  # of `featlib.labels.TOKEN_CLASSES`, those that are read from the source


def trace_stream(
    parts: Sequence[TokenBlocks], stream: TokenBlocks, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where each token of a stream came from: its part and its place there, [blocks, context].

    `parts` and `seed` are those that `tokens.mix_blocks` made the stream of. Raises FeatlibError
    where they do not give that stream.
    """
    numbered = [
        TokenBlocks(part.ids, np.arange(part.n_tokens, dtype=np.int32).reshape(part.ids.shape))
        for part in parts
    ]
    again = mix_blocks(numbered, seed=seed)
    if not np.array_equal(again.ids, stream.ids):
        raise FeatlibError(
            "the common stream is not made of these test documents with this seed; run chapter 06 "
            "again"
        )
    # mix_blocks moves the numbers of each part beyond those of the parts before it.
    sizes = np.array([part.n_tokens for part in parts])
    ends = np.cumsum(sizes)
    part_of = np.searchsorted(ends, again.documents.reshape(-1), side="right")
    place = again.documents.reshape(-1) - (ends - sizes)[part_of]
    return part_of.reshape(stream.ids.shape), place.reshape(stream.ids.shape)


def label_stream(
    tokenizer: PreTrainedTokenizerFast,
    stream: TokenBlocks,
    origin: tuple[np.ndarray, np.ndarray],
    texts: Mapping[str, Sequence[str]],
) -> dict[str, np.ndarray]:
    """Masks over the stream, bool [tokens] each, by label, in the order in which they are shown.

    `origin` from `trace_stream`, its parts in the order of DOMAINS; `texts` are the test documents
    of each domain, in order. Labels and classes come from the source, by overlap; in a file that is
    no valid source no token has any.
    """
    part_of, place = (a.reshape(-1) for a in origin)
    masks = {name: np.zeros(len(part_of), dtype=bool) for name in (*LABELS, *CLASSES)}
    for number, domain in enumerate(DOMAINS):
        here = np.flatnonzero(part_of == number)
        if not len(here):
            continue
        found = _label_texts(tokenizer, texts[domain], domain, int(place[here].max()) + 1)
        for name, mask in found.items():
            masks[name][here] = mask[place[here]]
    return masks | {DOMAIN_NAMES[d]: part_of == number for number, d in enumerate(DOMAINS)}


def _label_texts(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], domain: str, needed: int
) -> dict[str, np.ndarray]:
    """Masks of the first `needed` tokens of `texts`, in the order of `tokenize_documents`."""
    finders = {name: label.find[domain] for name, label in LABELS.items() if domain in label.find}
    masks: dict[str, list[np.ndarray]] = {name: [] for name in (*finders, *CLASSES)}
    total = 0
    for text in texts:
        if total >= needed:
            break
        offsets = token_offsets(tokenizer, text, bos=True)[1]
        total += len(offsets)
        classified = classify_text(text, domain)
        spans = {name: [] if classified is None else find(text) for name, find in finders.items()}
        for name in CLASSES:
            spans[name] = [(start, end) for start, end, kind in classified or () if kind == name]
        for name, found in spans.items():
            masks[name].append(label_tokens(found or [], offsets))
    if total < needed:
        raise FeatlibError(f"the test documents of {domain} have {total} tokens, not {needed}")
    return {name: np.concatenate(parts) for name, parts in masks.items()}
