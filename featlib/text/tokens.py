"""Text to token ids and back: a byte-level BPE tokenizer, and documents cut into token blocks.

Every document starts with `<s>`; documents are joined end to end and cut into blocks of `context`
tokens, as the paper does. Each token remembers the document that it came from, so that later
statistics can resample whole documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from featlib import FeatlibError
from featlib.run import atomic_path, damaged, needed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
SPECIAL_TOKENS = (UNK, BOS, EOS)  # ids 0, 1, 2, as in Mistral's own tokenizer
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)  # one entry for every byte: no text is unknown
MIN_FREQUENCY = 2  # of a pair that becomes an entry
BATCH = 64  # documents tokenized at a time: bounds the memory of the encodings

# Byte-level BPE's alphabet: printable Latin-1 stands for itself, the rest from U+0100 on.
_PRINTABLE = (*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = (byte for byte in range(256) if byte not in _PRINTABLE)
_BYTES = {chr(b): b for b in _PRINTABLE} | {chr(0x100 + i): b for i, b in enumerate(_OTHERS)}

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127) if chr(code) not in "\n\t"}
_MARKS = {" ": "·", "\n": "↵", "\t": "⇥"}
_VISIBLE = str.maketrans(
    {c: f"\\u{ord(c):04x}" for c in (*_MARKS.values(), "“", "”")} | _MARKS | {"\\": "\\\\"}
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from `texts`; the same texts give the same tokenizer.

    Any text can be encoded and decoded without loss, since all 256 bytes are entries. Text that
    merely looks like a special token ("<s>" in a document) stays text. Calling the tokenizer
    prepends `<s>`, as Mistral's does. Few texts may yield fewer entries than `vocab_size`: a
    model must be built with `len(tokenizer)` entries or more.

    Deviation: the paper uses Mistral's tokenizer of 32,000 entries; we train one on the run's own
    text, because a small corpus would never show most of those entries to the model.
    """
    from transformers import PreTrainedTokenizerFast

    assert vocab_size >= SMALLEST_VOCABULARY, vocab_size
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        split_special_tokens=True,  # "<s>" inside a document is three characters, not a token
        clean_up_tokenization_spaces=False,  # decoding gives the text back, not a prettier one
    )


@dataclass(frozen=True)
class TokenBlocks:
    """Token ids in blocks, and where each came from. Both arrays may be memory-mapped."""

    ids: np.ndarray  # [blocks, context] uint16, or uint32 for vocabularies above 65,536 entries
    documents: np.ndarray  # [blocks, context] int32, index of the token's document

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_tokens(self) -> int:
        return int(self.ids.size)

    @property
    def context(self) -> int:
        return int(self.ids.shape[1])


@dataclass(frozen=True)
class MixedBlocks(TokenBlocks):
    """Blocks of several parts in one, and which block of which part each of them is."""

    part: np.ndarray  # [blocks]
    row: np.ndarray  # [blocks], the block's place in its part


def tokenize_documents(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int
) -> TokenBlocks:
    """`<s>` + document, one after the other, cut into blocks of `context` tokens; tail dropped."""
    assert context >= 2, "a block needs two tokens to predict one"
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    ids = [np.empty(0, dtype)]
    for start in range(0, len(texts), BATCH):
        encoded = _encode(tokenizer, texts[start : start + BATCH])["input_ids"]
        ids += [np.array([tokenizer.bos_token_id, *document], dtype) for document in encoded]
    joined = np.concatenate(ids)
    origin = np.repeat(np.arange(-1, len(texts), dtype=np.int32), [len(part) for part in ids])
    kept = len(joined) // context * context
    return TokenBlocks(joined[:kept].reshape(-1, context), origin[:kept].reshape(-1, context))


def save_blocks(blocks: TokenBlocks, folder: str | Path, name: str) -> None:
    """Write `<name>.ids.npy` and `<name>.documents.npy` into `folder`, each all or nothing."""
    for part in ("documents", "ids"):  # ids last: where they are, the pair is complete
        with atomic_path(Path(folder) / f"{name}.{part}.npy") as tmp, tmp.open("wb") as file:
            np.save(file, getattr(blocks, part), allow_pickle=False)


def load_blocks(folder: str | Path, name: str) -> TokenBlocks:
    """Read what `save_blocks` wrote; the arrays stay on disk until they are indexed."""
    arrays = []
    for path in (needed(Path(folder) / f"{name}.{part}.npy") for part in ("ids", "documents")):
        try:
            arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise damaged(path, error) from None
    return TokenBlocks(*arrays)


def take_tokens(blocks: TokenBlocks, n_tokens: int, *, seed: int) -> TokenBlocks:
    """Random blocks that hold `n_tokens` (whole blocks, rounded down), of whichever documents.

    They are drawn without replacement, in random order; asking for more than there is, is an error.
    """
    n_blocks = n_tokens // blocks.context
    if not 0 < n_blocks <= len(blocks):
        raise FeatlibError(
            f"{n_tokens:,} tokens asked for, but there are {blocks.n_tokens:,} in blocks of "
            f"{blocks.context}; ask for {blocks.context} to {blocks.n_tokens}, or give more text"
        )
    return _pick(blocks, np.random.default_rng(seed).permutation(len(blocks))[:n_blocks])


def mix_blocks(
    parts: Sequence[TokenBlocks], n_tokens: int | None = None, *, seed: int
) -> MixedBlocks:
    """Blocks of several domains in one shuffled array, as many of each (to the block), none twice.

    `n_tokens` None takes as much as the smallest part allows. Documents are renumbered, the parts'
    one after the other, so that those of two domains stay distinct.
    """
    assert len({part.context for part in parts}) == 1, "parts of one context"
    total = min(map(len, parts)) * len(parts)
    if n_tokens is not None:
        total = n_tokens // parts[0].context
    each, more = divmod(total, len(parts))
    rng = np.random.default_rng(seed)
    ids, documents, origin, first_document = [], [], [], 0
    for number, part in enumerate(parts):
        wanted = each + (number < more)
        if wanted > len(part):
            raise FeatlibError(
                f"one of {len(parts)} kinds of text has {part.n_tokens:,} tokens, but its share is "
                f"{wanted * part.context:,}; give more text of it, or ask for fewer tokens"
            )
        row = rng.permutation(len(part))[:wanted]
        picked = _pick(part, row)
        ids.append(picked.ids)
        documents.append(picked.documents + np.int32(first_document))
        origin.append(np.stack([np.full(wanted, number), row]))
        first_document += int(part.documents.max(initial=-1)) + 1
    order = rng.permutation(total)
    return MixedBlocks(
        np.concatenate(ids)[order],
        np.concatenate(documents)[order],
        *np.concatenate(origin, axis=1)[:, order],
    )


def token_strings(tokenizer: PreTrainedTokenizerFast, ids: Iterable[int]) -> list[str]:
    r"""Text of each token on its own, byte-level code undone.

    Bytes that are no whole character (a character cut in two by the tokenizer) and control
    characters other than tab and newline are shown as `\xNN`; special tokens as `<s>`.
    """
    return [
        token
        if token in SPECIAL_TOKENS
        else token_bytes(token).decode(errors="backslashreplace").translate(_CONTROL)
        for token in tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    ]


def token_bytes(token: str) -> bytes:
    """The bytes that a byte-level vocabulary entry stands for ("Ġthe" -> b" the")."""
    return bytes(_BYTES[character] for character in token)


def visible(text: str) -> str:
    """A token as plain text shows it, whitespace by marks; different texts stay different."""
    return text.translate(_VISIBLE) or "∅"


def token_offsets(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a document and, for each, the (start, end) of its characters in `text`.

    A token that holds only some bytes of a character gets that whole character, so offsets may
    overlap; they leave no gap. The first is `<s>` at (0, 0), as in `tokenize_documents`.
    """
    encoded = _encode(tokenizer, [text], return_offsets_mapping=True)
    offsets = [(start, end) for start, end in encoded["offset_mapping"][0]]
    return [tokenizer.bos_token_id, *encoded["input_ids"][0]], [(0, 0), *offsets]


def _encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], **options: bool) -> dict:
    """Token ids of each text without `<s>`, whatever the tokenizer's own defaults are."""
    return tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no warning about texts longer than the model's context
        **options,
    )


def _pick(blocks: TokenBlocks, chosen: np.ndarray) -> TokenBlocks:
    """Rows `chosen`, read in ascending order (a memory-mapped file is read once, forwards)."""
    order, back = np.argsort(chosen), np.argsort(np.argsort(chosen))
    return TokenBlocks(*(rows[chosen[order]][back] for rows in (blocks.ids, blocks.documents)))
