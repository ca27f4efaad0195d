"""The common stream: test text of all kinds in equal parts, and what each of its tokens is.

Chapter 06 makes it; every model reads it. Beside the tokens it knows, by overlap with the source,
which of them have each of `labels.LABELS` and hold something of each class of `labels.INK`. In a
file that is no valid source no token has any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from featlib.family import DOMAINS
from featlib.run import Run, atomic_path, needed
from featlib.text.labels import INK, LABELS, classify_tokens, label_text
from featlib.text.tokens import (
    TokenBlocks,
    load_blocks,
    mix_blocks,
    save_blocks,
    take_tokens,
    token_offsets,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Stream(TokenBlocks):
    """Blocks of all domains, and what their tokens are. Masks are bool [blocks, context]."""

    kinds: np.ndarray  # [blocks, context] uint8, index into DOMAINS
    labels: dict[str, np.ndarray]  # by label: its mask
    classes: dict[str, np.ndarray]  # by token class: its mask


def make_stream(run: Run, tokenizer: PreTrainedTokenizerFast, n_tokens: int, seed: int) -> Stream:
    """The first `n_tokens` of each domain's test documents, in blocks that the seed shuffles."""
    parts = [take_tokens(load_blocks(run.tokens, f"{d}.test"), n_tokens) for d in DOMAINS]
    mix = mix_blocks(parts, seed=seed)
    held_out = pd.read_parquet(needed(run.tokens / "documents.parquet"))
    texts = held_out[held_out["split"] == "test"].groupby("domain")["text"]
    marks = [
        _mark_part(tokenizer, part, texts.get_group(domain), domain)
        for part, domain in zip(parts, DOMAINS, strict=True)
    ]

    def gather(name: str) -> np.ndarray:
        return np.stack([found[name] for found in marks])[mix.part, mix.row]

    return Stream(
        ids=mix.ids,
        documents=mix.documents,
        kinds=np.repeat(mix.part.astype(np.uint8)[:, None], mix.context, axis=1),
        labels={name: gather(name) for name in LABELS},
        classes={name: gather(name) for name in INK},
    )


def _mark_part(
    tokenizer: PreTrainedTokenizerFast, part: TokenBlocks, texts: Iterable[str], domain: str
) -> dict[str, np.ndarray]:
    """Masks over the blocks of one domain, which begin with the first of its `texts`."""
    masks = {name: np.zeros(part.n_tokens, dtype=bool) for name in (*LABELS, *INK)}
    ids, start = part.ids.reshape(-1), 0
    for text in texts:
        if start >= len(ids):
            break
        own, offsets = token_offsets(tokenizer, text)
        here = slice(start, min(start + len(own), len(ids)))
        assert np.array_equal(ids[here], own[: here.stop - start]), f"other texts of {domain}"
        for read in (label_text, classify_tokens):
            for name, mask in (read(text, domain, offsets) or {}).items():
                masks[name][here] = mask[: here.stop - start]
        start += len(own)
    return {name: mask.reshape(part.ids.shape) for name, mask in masks.items()}


def save_stream(stream: Stream, folder: str | Path) -> None:
    """Write the stream's tokens and what they are into `folder`."""
    save_blocks(stream, folder, "stream")
    with atomic_path(Path(folder) / "stream.marks.npz") as tmp, tmp.open("wb") as file:
        labels = {f"label/{name}": mask for name, mask in stream.labels.items()}
        classes = {f"class/{name}": mask for name, mask in stream.classes.items()}
        marks = {"kinds": stream.kinds, **labels, **classes}
        np.savez_compressed(file, **marks)  # type: ignore[arg-type]


def load_stream(folder: str | Path) -> Stream:
    """Read what `save_stream` wrote."""
    blocks = load_blocks(folder, "stream")
    with np.load(needed(Path(folder) / "stream.marks.npz"), allow_pickle=False) as marks:
        return Stream(
            blocks.ids,
            blocks.documents,
            marks["kinds"],
            labels={name[6:]: marks[name] for name in marks if name.startswith("label/")},
            classes={name[6:]: marks[name] for name in marks if name.startswith("class/")},
        )
