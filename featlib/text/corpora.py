"""The four domains of text, from pinned archives (`embedded`) or from the reader's own `files`.

`python -m featlib.corpora` fetches the pinned archives. Everything about single documents
(refusals, duplicates, splits) stands in `documents`, and is offered here too.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from featlib import FeatlibError
from featlib.family import DOMAINS
from featlib.text.archives import check_archives, fetch_archives, read_list
from featlib.text.documents import Document, corpus_hash, deduplicate, describe, split_documents
from featlib.text.embedded import sample_embedded
from featlib.text.files import check_files, find_domain, sample_files

__all__ = [
    "Corpus",
    "Document",
    "check_corpus",
    "corpus_hash",
    "deduplicate",
    "describe",
    "fetch_embedded",
    "find_domain",
    "load_documents",
    "read_corpus",
    "split_documents",
]

SOURCES = ("embedded", "files")


@dataclass(frozen=True)
class Corpus:
    """What was read of one domain, and what was passed over."""

    documents: list[Document]
    skipped: pd.DataFrame  # columns domain, reason, count; of what was looked at


def fetch_embedded(cache: str | Path | None = None, *, verbose: bool = False) -> list[Path]:
    """Bring all pinned archives into the cache; see `archives.fetch_archives` for the errors."""
    return fetch_archives(read_list(), cache, verbose=verbose)


def check_corpus(
    domain: str, *, source: str, path: str | Path = "", cache: str | Path | None = None
) -> None:
    """Refuse now what `load_documents` would refuse later: for use before any work starts.

    Raises:
        FeatlibError: unknown domain or source, a missing or damaged archive, a path that is
            missing or holds no file of the domain.
    """
    if domain not in DOMAINS:
        raise FeatlibError(f"Unknown domain {domain!r}: it is one of {', '.join(DOMAINS)}.")
    if source not in SOURCES:
        raise FeatlibError(
            f"Unknown source {source!r} of domain {domain}: it is one of {', '.join(SOURCES)}."
        )
    if source == "files":
        check_files(domain, path)
    else:
        check_archives([a for a in read_list() if a.domain == domain], cache)


def load_documents(
    domain: str,
    *,
    source: str,
    path: str | Path = "",
    megabytes: float,
    seed: int,
    cache: str | Path | None = None,
) -> list[Document]:
    """Read the documents of one domain in an order drawn by the seed; see `read_corpus`."""
    corpus = read_corpus(
        domain, source=source, path=path, megabytes=megabytes, seed=seed, cache=cache
    )
    return corpus.documents


def read_corpus(
    domain: str,
    *,
    source: str,
    path: str | Path = "",
    megabytes: float,
    seed: int,
    cache: str | Path | None = None,
) -> Corpus:
    """Read about `megabytes` of one domain, and count what was passed over and why.

    embedded: out of the pinned archives (tinystories: out of `stories`). The files of each source
    come in an order drawn by the seed; the source that has given least so far gives the next one,
    so no package dominates, and only what is taken is unpacked.
    files: a sample of the file or folder at `path`, see `textfiles.sample_files`.

    Args:
        domain: babylm, python, lua or tinystories.
        source: embedded or files.
        path: file or folder, for `files` only.
        megabytes: 10^6 bytes of UTF-8 to stop at; less comes where there is less.
        seed: draws the sample and its order.
        cache: see `archives.cache_folder`.

    Raises:
        FeatlibError: see `check_corpus`; or no document is left after the refusals.
    """
    if not megabytes > 0:
        raise FeatlibError(f"megabytes = {megabytes} for domain {domain}: it must be above 0.")
    budget = max(1, int(megabytes * 1e6))
    skipped: Counter[str] = Counter()
    if source == "files":
        check_corpus(domain, source=source, path=path)
        documents = sample_files(domain, path, budget, random.Random(f"{seed} {domain}"), skipped)
    else:
        check_corpus(domain, source=source, cache=cache)
        documents = sample_embedded(domain, budget, seed, skipped, cache)
    rows = [(domain, reason, count) for reason, count in skipped.most_common()]
    table = pd.DataFrame(rows, columns=["domain", "reason", "count"])
    if not documents:
        raise FeatlibError(
            f"No document of domain {domain} is left from {path or source}: "
            + (", ".join(f"{n} {why}" for _, why, n in rows) or "the source is empty")
            + ". Give it text of that domain."
        )
    return Corpus(documents, table)


if __name__ == "__main__":
    try:
        paths = fetch_embedded(verbose=True)
    except FeatlibError as error:
        sys.exit(f"error: {error}")
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} archives, {size / 1e6:.1f} MB, all whole: {paths[0].parent}")
