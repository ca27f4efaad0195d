"""The common stream: test text of all kinds in equal parts, and what each of its tokens is.

Chapter 06 makes it; every model reads it. Beside the tokens it knows, by overlap with the source,
which of them have each of `labels.LABELS` and hold something of each class of `labels.INK`. In a
file that is no valid source no token has any.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from featlib.family import DOMAINS
from featlib.run import Run, atomic_path, needed
from featlib.text.labels import INK, LABELS, classify_tokens, label_text
from featlib.text.tokens import TokenBlocks, load_blocks, mix_blocks, save_blocks, token_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Stream(TokenBlocks):
    """Blocks of all domains, and what their tokens are. Masks are bool [blocks, context]."""

    kinds: np.ndarray  # [blocks, context] uint8, index into DOMAINS
    labels: dict[str, np.ndarray]  # by label: its mask
    classes: dict[str, np.ndarray]  # by token class: its mask


def make_stream(run: Run, tokenizer: PreTrainedTokenizerFast, n_tokens: int, seed: int) -> Stream:
    """`n_tokens` of each domain's test text, in blocks drawn from all documents by the seed."""
    parts = [load_blocks(run.tokens, f"{domain}.test") for domain in DOMAINS]
    mix = mix_blocks(parts, n_tokens // parts[0].context * parts[0].context * len(parts), seed=seed)
    held_out = pd.read_parquet(needed(run.tokens / "documents.parquet"))
    texts = held_out[held_out["split"] == "test"].groupby("domain")["text"].agg(list)
    masks = {name: np.zeros(mix.ids.shape, bool) for name in (*LABELS, *INK)}
    for number, (domain, part) in enumerate(zip(DOMAINS, parts, strict=True)):
        place = np.full(len(part), -1)  # of each of its blocks in the mix
        here = np.flatnonzero(mix.part == number)
        place[mix.row[here]] = here
        origin, ids = part.documents.reshape(-1), part.ids.reshape(-1)
        for document in np.unique(part.documents[mix.row[here]]):
            text = texts[domain][document]
            own, offsets = token_offsets(tokenizer, text)
            start, end = np.searchsorted(origin, [document, document + 1])
            assert np.array_equal(ids[start:end], own[: end - start]), f"other texts of {domain}"
            row, position = np.divmod(np.arange(start, end), part.context)
            chosen = place[row] >= 0
            for read in (label_text, classify_tokens):
                for name, mask in (read(text, domain, offsets) or {}).items():
                    masks[name][place[row][chosen], position[chosen]] = mask[: end - start][chosen]
    return Stream(
        ids=mix.ids,
        documents=mix.documents,
        kinds=np.repeat(mix.part.astype(np.uint8)[:, None], mix.context, axis=1),
        labels={name: masks[name] for name in LABELS},
        classes={name: masks[name] for name in INK},
    )


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
