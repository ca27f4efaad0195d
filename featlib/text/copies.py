"""What counts as the same text: copies within a corpus, and held-out text that train has too."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from featlib import FeatlibError
from featlib.text.documents import Document, fingerprint

COPY = 0.8  # of a document's runs of words in a longer one: it counts as a copy
WORDS = 5  # in one run
SAMPLE_EVERY = 4  # one run in so many is looked up; what that finds is checked on all
NEAR_COPY = 0.5  # of a held-out document's runs of characters in train: above it, it goes
CHARACTERS = 50  # in one run
FILTER_BITS = 24  # of a hash, by which most of train is passed over unsorted
BASE = 0x9E3779B97F4A7C15  # of the hashes, odd


def deduplicate(documents: Sequence[Document]) -> tuple[list[Document], int]:
    """Drop copies and near copies; the longest of a family stays, the order stays.

    A document goes if it equals another after whitespace is normalised, or if `COPY` of its
    distinct runs of five words (shingles; Broder, 1997) are in one longer document that stays.
    One shingle in four, chosen by hash, finds the candidates; the decision uses all of them.
    Returns what stays, and how many went.
    """
    shingles = [_word_runs(document.text) for document in documents]
    longest_first = sorted(range(len(documents)), key=lambda i: (-len(documents[i].text), i))
    seen: set[bytes] = set()
    holders: dict[int, list[int]] = {}  # sampled shingle -> kept documents that have it
    kept = []
    for i in longest_first:
        key = fingerprint(documents[i].text)
        if key in seen:
            continue
        mine = shingles[i]
        sample = mine[mine % SAMPLE_EVERY == 0].tolist()
        shared = Counter(holder for shingle in sample for holder in holders.get(shingle, ()))
        # Half of the threshold on the sample: the sample errs, the count below does not.
        likely = [j for j, n in shared.items() if n >= COPY / 2 * len(sample)]
        if any(np.isin(mine, shingles[j], assume_unique=True).mean() >= COPY for j in likely):
            continue
        seen.add(key)
        kept.append(i)
        for shingle in sample:
            holders.setdefault(shingle, []).append(i)
    return [documents[i] for i in sorted(kept)], len(documents) - len(kept)


def drop_near_copies(splits: Mapping[str, Sequence[Document]]) -> dict[str, list[Document]]:
    """The splits without the held-out documents that are mostly in train.

    A document goes if more than half of its distinct runs of 50 characters stand in the training
    text, in whichever documents. Every run of train is looked up; memory goes with the held-out
    text alone. Raises FeatlibError where nothing is left of a split.
    """
    runs = {
        name: [np.unique(_character_runs(document.text)) for document in documents]
        for name, documents in splits.items()
        if name != "train"
    }
    wanted = np.unique(np.concatenate([part for parts in runs.values() for part in parts]))
    shift = np.uint64(64 - FILTER_BITS)
    likely = np.zeros(1 << FILTER_BITS, bool)
    likely[wanted >> shift] = True
    found = np.zeros(len(wanted), bool)
    for document in splits["train"]:
        there = _character_runs(document.text)
        there = there[likely[there >> shift]]
        place = np.searchsorted(wanted[:-1], there)
        found[place[wanted[place] == there]] = True
    kept = {"train": list(splits["train"])}
    for name, parts in runs.items():
        copied = [
            found[np.searchsorted(wanted, part)].sum() > NEAR_COPY * len(part) for part in parts
        ]
        kept[name] = [d for d, gone in zip(splits[name], copied, strict=True) if not gone]
        if not kept[name]:
            raise FeatlibError(
                f"all {len(parts)} documents held out for {name} are near-copies of training text: "
                "give the corpus more, and more varied, files"
            )
    return kept


def _word_runs(text: str) -> np.ndarray:
    """Hash each run of `WORDS` words: the distinct hashes, sorted, [runs] uint64."""
    words = text.split()
    codes = {word: zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in set(words)}
    ids = np.fromiter((codes[word] for word in words), np.uint64, len(words))
    n = max(len(words) - WORDS + 1, 0)
    mixed = np.zeros(n, np.uint64)
    for offset in range(WORDS):
        mixed = (mixed + ids[offset : offset + n] + np.uint64(1)) * np.uint64(BASE)
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def _character_runs(text: str) -> np.ndarray:
    """Hash each run of `CHARACTERS` characters, in order, [characters - 49] uint64.

    sum_i code[start + i] BASE^i modulo 2^64 (Karp & Rabin, 1987), from one running sum.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    powers, inverses = (
        np.cumprod(np.full(len(codes) + 1, base, np.uint64))
        for base in (BASE, pow(BASE, -1, 2**64))
    )
    sums = np.concatenate([[np.uint64(0)], np.cumsum(codes * powers[1:])])
    n = max(len(codes) - CHARACTERS + 1, 0)
    return (sums[CHARACTERS:] - sums[:n]) * inverses[:n]
