"""The source `files`: the reader's own .txt, .jsonl and sources, sampled in bounded memory."""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import zstandard

from featlib import FeatlibError
from featlib.family import CODE, DOMAINS, KINDS
from featlib.text.documents import TOO_LARGE, Document, decode, largest_document, refuse

SUFFIXES = {kind.name: (*kind.suffixes, ".txt", ".jsonl") for kind in KINDS}  # each also as .zst
KEYS = ("text", "content")
BLOCK = 1 << 17  # bytes read at a time
LONGEST_RECORD = 64 << 20  # bytes of one line: above it this is no file of lines
PIECE = 8_000  # bytes: a .txt without separators is cut into documents of about this size
SEPARATOR = b"<|endoftext|>"  # between the stories of the TinyStories text files
WINDOW = 40  # times the bytes asked for: what is read of an endless corpus, at least WINDOW_LEAST
WINDOW_LEAST = 400_000_000


def find_files(domain: str, folder: str | Path) -> list[Path]:
    """Files of a domain in the folder that holds all of them as lua/, lua.jsonl.zst, ...

    Raises FeatlibError for no such folder, nothing of that name in it or more than one, nothing
    that the domain can use, or a file that cannot be read.
    """
    root = Path(folder).expanduser()
    if not str(folder) or not root.is_dir():
        raise FeatlibError(
            f"corpora_folder {str(folder)!r} is no folder: source files needs one that holds "
            f"{', '.join(DOMAINS)}, each a folder or a file (lua/, lua.jsonl.zst, ...)."
        )
    named = [path for path in sorted(root.iterdir()) if path.name.partition(".")[0] == domain]
    if len(named) != 1:
        names = ", ".join(path.name for path in named) or "nothing of that name"
        raise FeatlibError(
            f"corpora_folder {root} must hold one file or folder for domain {domain}, named "
            f"{domain} or {domain}.<ending>; it holds {names}."
        )
    inside = sorted(named[0].rglob("*")) if named[0].is_dir() else named
    files = [path for path in inside if path.is_file() and _suffix(path) in SUFFIXES[domain]]
    try:
        if not any(file.stat().st_size for file in files):
            kinds = ", ".join(f"{suffix}[.zst]" for suffix in SUFFIXES[domain])
            raise FeatlibError(f"{named[0]} holds no text for domain {domain}: put {kinds} there.")
        for file in files:
            next(_blocks(file), None)
    except OSError as error:
        raise FeatlibError(f"{named[0]} cannot be read ({error}): mend its permissions.") from error
    return files


def sample_files(
    domain: str, folder: str | Path, budget: int, rng: random.Random, skipped: Counter[str]
) -> list[Document]:
    """Draw documents up to `budget` bytes, each record with the same chance, in random order.

    Every record draws a random number; those with the smallest stay, in memory of about the budget,
    and only those that may stay are parsed. The whole corpus is passed once where it is smaller
    than 400 MB or 40 times the budget (uncompressed); of a larger one, that much is read, the files
    in random order. Prose longer than `largest_document` is cut there, code is refused.

    Why parsed records were left is counted into `skipped`. Raises FeatlibError for a damaged .zst,
    and see `find_files`.
    """
    files = find_files(domain, folder)
    rng.shuffle(files)
    window = max(WINDOW * budget, WINDOW_LEAST)
    largest = largest_document(budget)
    heap: list[tuple[float, int, int, Document]] = []  # minus the draw, number, bytes, document
    total = passed = 0
    records = ((file, *record) for file in files for record in _records(file))
    for number, (file, name, raw) in enumerate(records):
        if passed >= window:
            break
        passed += len(raw)
        draw = rng.random()
        if total < budget or draw < -heap[0][0]:
            document = _parse(file, name, raw, domain, largest)
            if isinstance(document, str):
                skipped[document] += 1
                continue
            size = len(document.text.encode("utf-8"))
            heapq.heappush(heap, (-draw, number, size, document))
            total += size
            while total - heap[0][2] >= budget:
                total -= heapq.heappop(heap)[2]
    return [document for *_, document in sorted(heap, key=lambda item: (-item[0], item[1]))]


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix == ".zst" else path.name).suffix.lower()


def _parse(file: Path, name: str, raw: bytes, domain: str, largest: int) -> Document | str:
    """Make a document of a record, or say why there is none."""
    text, source, license_name = decode(raw), file.name, "unknown"
    if text is None:
        return "not UTF-8"
    if _suffix(file) == ".jsonl":
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return "not JSON"
        values = [record[key] for key in KEYS if key in record] if isinstance(record, dict) else []
        if not values or not isinstance(values[0], str):
            return f"no key {' or '.join(KEYS)}"
        text = values[0].replace("\r\n", "\n").replace("\r", "\n")
        source = str(record.get("source") or source)
        license_name = str(record.get("license") or license_name)
    if reason := refuse(text, domain, shortest=1):
        return reason
    if len(text) > largest:
        if domain in CODE:  # half a program does not parse; prose can be cut
            return TOO_LARGE
        text = _cut(text, largest)
    return Document(text, source, license_name, name)


def _cut(text: str, largest: int) -> str:
    """Return the start of a text up to the last line, else the last word, that fits."""
    head = text[:largest]
    end = next((end for end in "\n " if end in head[largest // 2 :]), "")
    return head[: head.rindex(end) + len(end)]


def _records(file: Path) -> Iterator[tuple[str, bytes]]:
    """Cut a file into records: a line of .jsonl, a whole file of code, a story or piece of .txt."""
    kind = _suffix(file)
    if kind not in (".jsonl", ".txt"):
        yield file.name, b"".join(_blocks(file))
        return
    what, parts = ("line", _lines(file)) if kind == ".jsonl" else ("piece", _pieces(file))
    yield from ((f"{what} {number}", raw) for number, raw in enumerate(parts, 1) if raw.strip())


def _pieces(file: Path) -> Iterator[bytes]:
    """Cut plain text at its separators; where it has none, after a line, near `PIECE` bytes."""
    held: list[bytes] = []
    separated = False
    for line in _lines(file):
        *ends, rest = line.split(SEPARATOR)
        separated |= bool(ends)
        for end in ends:
            yield b"".join([*held, end])
            held = []
        held.append(rest)
        size = 0 if separated else sum(map(len, held))
        if size >= 2 * PIECE or (size >= PIECE and not line.strip()):
            yield b"".join(held)
            held = []
    yield b"".join(held)


def _lines(file: Path) -> Iterator[bytes]:
    rest = b""
    for block in _blocks(file):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > LONGEST_RECORD:
            raise FeatlibError(
                f"{file} has a line over {LONGEST_RECORD >> 20} MB: it is not a file of text lines."
            )
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _blocks(file: Path) -> Iterator[bytes]:
    """Read a file block by block, .zst unpacked frame by frame and checked to its end."""
    with file.open("rb") as stream:
        if file.suffix != ".zst":
            yield from iter(lambda: stream.read(8 * BLOCK), b"")
            return
        frame = None  # one at a time: `read_across_frames` ends without a word where one is cut off
        try:
            while packed := stream.read(BLOCK):
                while packed:
                    if frame is None or frame.eof:
                        frame = zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(packed)
                    packed = frame.unused_data
        except zstandard.ZstdError as error:
            raise FeatlibError(
                f"{file} is damaged or no zstd file ({error}): fetch or compress it again."
            ) from error
        if frame is not None and not frame.eof:
            raise FeatlibError(f"{file} is cut off before its end: fetch or compress it again.")
