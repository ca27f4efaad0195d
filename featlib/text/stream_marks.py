"""What each token of the common stream is: the kind of text it comes from, and its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from featlib import FeatlibError
from featlib.family import DOMAINS
from featlib.text.labels import LABELS, label_tokens
from featlib.text.tokens import TokenBlocks, mix_blocks, token_offsets

_KIND_BITS = 3  # a token's marks are one number: its domain, and one bit for each label


def mark_stream(
    tokenizer: PreTrainedTokenizerFast,
    parts: Mapping[str, TokenBlocks],
    texts: Mapping[str, Sequence[str]],
    stream: TokenBlocks,
    seed: int,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Kinds and labels of the tokens of `stream`, which `mix_blocks(parts, seed=seed)` made.

    `parts`: by domain (in the order of DOMAINS), the first blocks of its documents `texts`.
    Returns the index into DOMAINS, [blocks, context] int, and for each of `LABELS` a mask of that
    shape. A text that is not valid source has no labels. Raises where `stream` was made of others.
    """
    marked = []
    for kind, domain in enumerate(DOMAINS):
        marks = _labels_as_bits(tokenizer, parts[domain], texts[domain], domain) | np.uint16(kind)
        marked.append(TokenBlocks(marks, parts[domain].documents))
    mixed = mix_blocks(marked, seed=seed)
    if not np.array_equal(mixed.documents, stream.documents):
        raise FeatlibError(
            "the common stream was made with other parameters than these: give chapters 06 and 10 "
            "the same seed and stream_tokens, and run chapter 06 again"
        )
    bits = mixed.ids
    labels = {name: (bits >> (_KIND_BITS + i)) & 1 == 1 for i, name in enumerate(LABELS)}
    return (bits & (2**_KIND_BITS - 1)).astype(np.int64), labels


def _labels_as_bits(
    tokenizer: PreTrainedTokenizerFast, part: TokenBlocks, texts: Sequence[str], domain: str
) -> np.ndarray:
    bits = np.zeros(part.n_tokens, dtype=np.uint16)
    finders = [label.find.get(domain) for label in LABELS.values()]
    if not any(finders):
        return bits.reshape(part.ids.shape)
    ids, start = part.ids.reshape(-1), 0
    for text in texts:
        if start >= len(bits):
            break
        own, offsets = token_offsets(tokenizer, text, bos=True)
        here = slice(start, min(start + len(own), len(bits)))
        if not np.array_equal(ids[here], own[: here.stop - start]):
            raise FeatlibError(f"the texts of {domain} are not those of its tokens; run chapter 01")
        for i, find in enumerate(finders):
            spans = find(text) if find else None
            mask = label_tokens(spans or [], offsets)[: here.stop - start]
            bits[here] |= mask.astype(np.uint16) << (_KIND_BITS + i)
        start += len(own)
    return bits.reshape(part.ids.shape)
