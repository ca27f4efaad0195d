"""Text to token ids and back: a byte-level BPE tokenizer, and documents cut into token blocks.

Every document starts with `<s>`; documents are joined end to end and cut into blocks of `context`
tokens, as the paper does. Each token remembers the document that it came from, so that later
statistics can resample whole documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from featlib import FeatlibError
from featlib.run import atomic_path

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
SPECIAL_TOKENS = (UNK, BOS, EOS)  # ids 0, 1, 2, as in Mistral's own tokenizer
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)  # one entry for every byte: no text is unknown
BATCH_CHARACTERS = 2_000_000  # tokenized at a time: bounds the memory of the encodings


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2
) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from `texts`; the same texts give the same tokenizer.

    Any text can be encoded and decoded without loss, since all 256 bytes are entries. Text that
    merely looks like a special token ("<s>" in a document) stays text. Calling the tokenizer
    prepends `<s>`, as Mistral's does. Few texts may yield fewer entries than `vocab_size`: a
    model must be built with `len(tokenizer)` entries or more.

    Deviation: the paper uses Mistral's tokenizer of 32,000 entries; we train one on the run's own
    text, because a small corpus would never show most of those entries to the model.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise FeatlibError(
            f"vocab_size is {vocab_size}; a byte-level tokenizer needs {SMALLEST_VOCABULARY} or "
            f"more (256 bytes and {len(SPECIAL_TOKENS)} special tokens)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_encodable(text) for text in texts), trainer=trainer)
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

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.shape != self.documents.shape:
            raise FeatlibError(
                f"ids {self.ids.shape} and documents {self.documents.shape} of token blocks "
                "must be two arrays of one shape, [blocks, context]"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_tokens(self) -> int:
        return int(self.ids.size)

    @property
    def context(self) -> int:
        return int(self.ids.shape[1])


def tokenize_documents(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int
) -> TokenBlocks:
    """`<s>` + document, one after the other, cut into blocks of `context` tokens; tail dropped.

    The order of the documents is kept. Fewer tokens than one block give no block at all.
    """
    if context < 2:
        raise FeatlibError(f"context is {context}; a block needs 2 tokens or more to predict one")
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    bos = tokenizer.bos_token_id
    ids: list[np.ndarray] = []
    documents: list[np.ndarray] = []
    n_documents = 0
    for batch in _batches(texts):
        for encoded in _encode(tokenizer, batch)["input_ids"]:
            ids.append(np.array([bos, *encoded], dtype=dtype))
            documents.append(np.full(len(encoded) + 1, n_documents, dtype=np.int32))
            n_documents += 1
    joined = np.concatenate(ids) if ids else np.empty(0, dtype)
    origin = np.concatenate(documents) if documents else np.empty(0, np.int32)
    kept = len(joined) // context * context
    return TokenBlocks(joined[:kept].reshape(-1, context), origin[:kept].reshape(-1, context))


def save_blocks(blocks: TokenBlocks, folder: str | Path, name: str) -> None:
    """Write `<name>.ids.npy` and `<name>.documents.npy` into `folder`, each all or nothing."""
    for part in ("documents", "ids"):  # ids last: where they are, the pair is complete
        with atomic_path(Path(folder) / f"{name}.{part}.npy") as tmp, tmp.open("wb") as file:
            np.save(file, getattr(blocks, part), allow_pickle=False)


def load_blocks(folder: str | Path, name: str, mmap: bool = True) -> TokenBlocks:
    """Read what `save_blocks` wrote; `mmap` leaves the arrays on disk until they are indexed."""
    arrays = []
    for part in ("ids", "documents"):
        path = Path(folder) / f"{name}.{part}.npy"
        try:
            arrays.append(np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False))
        except FileNotFoundError:
            raise FeatlibError(
                f"{path} is missing; the corpora chapter writes it: run that first"
            ) from None
        except (ValueError, EOFError, OSError) as error:
            raise FeatlibError(
                f"{path} cannot be read ({error}); delete it and run the corpora chapter again"
            ) from error
    return TokenBlocks(*arrays)


def take_tokens(blocks: TokenBlocks, n_tokens: int, seed: int | None = None) -> TokenBlocks:
    """The first blocks that hold `n_tokens` (whole blocks, rounded down), or random ones.

    Random blocks (`seed` given) are drawn without replacement, in random order. Asking for more
    than there is, is an error: repeating text is the training loop's business.
    """
    n_blocks = n_tokens // blocks.context
    if not 0 < n_blocks <= len(blocks):
        raise FeatlibError(
            f"{n_tokens:,} tokens asked for, but there are {blocks.n_tokens:,} in blocks of "
            f"{blocks.context}; ask for {blocks.context} to {blocks.n_tokens}, or give more text"
        )
    if seed is None:
        return TokenBlocks(blocks.ids[:n_blocks], blocks.documents[:n_blocks])
    chosen = np.random.default_rng(seed).permutation(len(blocks))[:n_blocks]
    return _pick(blocks, chosen)


def mix_blocks(
    parts: Sequence[TokenBlocks],
    n_tokens: int | None = None,
    *,
    seed: int,
    shares: Sequence[float] | None = None,
) -> TokenBlocks:
    """Blocks of several domains in one shuffled array, `shares` of each (equal unless told).

    Every block is used at most once. `n_tokens` None takes as much as the shares allow. Documents
    are renumbered, the parts' one after the other, so that those of two domains stay distinct.
    """
    weights = np.ones(len(parts)) if shares is None else np.asarray(shares, dtype=float)
    if len(parts) == 0 or len(weights) != len(parts) or (weights < 0).any() or weights.sum() == 0:
        raise FeatlibError(
            f"{len(parts)} parts and shares {list(weights)}: one share of 0 or more for each part, "
            "not all of them 0"
        )
    if len({part.context for part in parts}) > 1:
        raise FeatlibError(f"parts have contexts {[part.context for part in parts]}; use one")
    weights = weights / weights.sum()
    available = np.array([len(part) for part in parts])
    if n_tokens is None:
        total = int(min(n / w for n, w in zip(available, weights, strict=True) if w > 0))
    else:
        total = n_tokens // parts[0].context
    wanted = _apportion(total, weights)
    if (wanted > available).any():
        short = int(np.argmax(wanted - available))
        raise FeatlibError(
            f"part {short} has {parts[short].n_tokens:,} tokens, but its share is "
            f"{int(wanted[short]) * parts[0].context:,}; give more text of it, or ask for fewer "
            "tokens"
        )
    rng = np.random.default_rng(seed)
    chosen, first_document = [], 0
    for part, n_blocks in zip(parts, wanted, strict=True):
        picked = _pick(part, rng.permutation(len(part))[:n_blocks])
        chosen.append(TokenBlocks(picked.ids, picked.documents + np.int32(first_document)))
        if len(part):
            first_document += int(part.documents.max()) + 1
    order = rng.permutation(sum(len(part) for part in chosen))
    return TokenBlocks(
        np.concatenate([part.ids for part in chosen])[order],
        np.concatenate([part.documents for part in chosen])[order],
    )


def token_strings(tokenizer: PreTrainedTokenizerFast, ids: Iterable[int]) -> list[str]:
    r"""Text of each token on its own, byte-level code undone.

    Bytes that are no whole character (a character cut in two by the tokenizer) and control
    characters other than tab and newline are shown as `\xNN`; special tokens as `<s>`.
    """
    return [
        token if token in SPECIAL_TOKENS else _printable(token_bytes(token))
        for token in tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    ]


def token_bytes(token: str) -> bytes:
    """The bytes that a byte-level vocabulary entry stands for ("Ġthe" -> b" the")."""
    table = _byte_of_character()
    return bytes(table[character] for character in token)


def token_offsets(
    tokenizer: PreTrainedTokenizerFast, text: str, *, bos: bool = False
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of `text` and, for each, the (start, end) of its characters in `text`.

    A token that holds only some bytes of a character gets that whole character: two tokens that
    share a character have overlapping offsets. All others follow one another without a gap.
    With `bos` the list starts with `<s>` at (0, 0), as a document in `tokenize_documents` does.
    """
    encoded = _encode(tokenizer, [text], return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"][0], [tuple(pair) for pair in encoded["offset_mapping"][0]]
    return ([tokenizer.bos_token_id, *ids], [(0, 0), *offsets]) if bos else (ids, offsets)


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str], **options: bool) -> dict:
    """Token ids of each text without `<s>`, whatever the tokenizer's own defaults are."""
    return tokenizer(
        [_encodable(text) for text in texts],
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no warning about texts longer than the model's context
        **options,
    )


def _encodable(text: str) -> str:
    """`text`; lone surrogates, which no UTF-8 can hold, become "?" (one for one: offsets hold)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pick(blocks: TokenBlocks, chosen: np.ndarray) -> TokenBlocks:
    """Rows `chosen`, read in ascending order (a memory-mapped file is read once, forwards)."""
    order = np.argsort(chosen)
    ids = np.empty((len(chosen), blocks.context), blocks.ids.dtype)
    documents = np.empty((len(chosen), blocks.context), blocks.documents.dtype)
    ids[order] = blocks.ids[chosen[order]]
    documents[order] = blocks.documents[chosen[order]]
    return TokenBlocks(ids, documents)


def _apportion(total: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers near `total * weights` that add up to `total` (largest remainders)."""
    exact = total * weights
    counts = np.floor(exact + 1e-9).astype(int)
    for index in np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return counts


def _printable(data: bytes) -> str:
    text = data.decode(errors="backslashreplace")
    return "".join(
        character
        if (character >= " " and character != "\x7f") or character in "\n\t"
        else f"\\x{ord(character):02x}"
        for character in text
    )


@cache
def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE's alphabet: printable Latin-1 stands for itself, the rest from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if chr(byte) not in table]
    table.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return table
