"""The source `files`: .txt, .py, .lua and .jsonl, each also as .zst, sampled in bounded memory."""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import zstandard

from featlib import FeatlibError
from featlib.text.documents import CODE, TOO_LARGE, Document, decode, largest_document, refuse

SUFFIXES = {
    "babylm": (".txt", ".jsonl"),
    "python": (".py", ".txt", ".jsonl"),
    "lua": (".lua", ".txt", ".jsonl"),
    "tinystories": (".txt", ".jsonl"),
}
KEYS = ("text", "content")
BLOCK = 1 << 20  # bytes read at a time
LONGEST_RECORD = 64 << 20  # bytes of one line: above it this is no file of lines
PIECE = 8_000  # bytes: a .txt without separators is cut into documents of about this size
SEPARATOR = b"<|endoftext|>"  # between the stories of the TinyStories text files
WINDOW = 40  # times the bytes asked for: what is read of an endless corpus, at least WINDOW_LEAST
WINDOW_LEAST = 400_000_000


def list_files(domain: str, path: str | Path) -> list[Path]:
    """List the files of a domain at `path`, sorted.

    Raises:
        FeatlibError: nothing is there, or nothing of a kind that the domain can use.
    """
    allowed = SUFFIXES[domain]
    kinds = ", ".join(f"{suffix}[.zst]" for suffix in allowed)
    if not str(path):
        raise FeatlibError(
            f"Domain {domain} has source `files` but no path: give a file or folder of {kinds}."
        )
    root = Path(path).expanduser()
    if not root.exists():
        raise FeatlibError(
            f"{root}, the corpus of domain {domain}, does not exist: give a file or folder of "
            f"{kinds}."
        )
    if root.is_file():
        if _suffix(root) not in allowed:
            raise FeatlibError(
                f"{root} is not a file that domain {domain} can use: allowed are {kinds}."
            )
        return [root]
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and _suffix(p) in allowed]
    if not files:
        raise FeatlibError(f"{root} holds no file for domain {domain}: put {kinds} there.")
    return files


def find_domain(folder: str | Path, domain: str) -> Path:
    """The file or folder of a domain inside the folder that holds all four: lua, lua.jsonl.zst ...

    Raises:
        FeatlibError: no such folder, nothing of that name in it, or more than one.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FeatlibError(
            f"corpora_folder {root} is no folder: give one that holds babylm, python, lua and "
            "tinystories, each a folder or a file (lua/, lua.jsonl.zst, ...)."
        )
    found = [p for p in sorted(root.iterdir()) if p.name.partition(".")[0] == domain]
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "nothing of that name"
        raise FeatlibError(
            f"corpora_folder {root} must hold one file or folder for domain {domain}, named "
            f"{domain} or {domain}.<ending>; it holds {names}."
        )
    return found[0]


def check_files(domain: str, path: str | Path) -> None:
    """Refuse a corpus that is missing, empty or unreadable, before work starts."""
    files = list_files(domain, path)
    if not any(file.stat().st_size for file in files):
        raise FeatlibError(f"{path}, the corpus of domain {domain}, is empty: give it some text.")
    for file in files:
        try:
            for _ in _blocks(file):
                break
        except OSError as error:
            raise FeatlibError(
                f"{file} cannot be read ({error.strerror}): mend its permissions."
            ) from error


def sample_files(
    domain: str, path: str | Path, budget: int, rng: random.Random, skipped: Counter[str]
) -> list[Document]:
    """Draw documents up to `budget` bytes, each record with the same chance, in random order.

    Every record draws a random number; those with the smallest stay, in memory of about the budget,
    and only those that may stay are parsed. The whole corpus is passed once where it is smaller
    than 400 MB or 40 times the budget (uncompressed); of a larger one, that much is read, the files
    in random order. Prose longer than `largest_document` is cut there, code is refused.

    Args:
        domain: says which files count and what is refused.
        path: file or folder.
        budget: bytes of UTF-8.
        rng: draws the sample.
        skipped: reasons are counted into it, of the records that were parsed.

    Raises:
        FeatlibError: see `list_files`; a .zst is damaged; JSON lines have none of the keys.
    """
    files = list_files(domain, path)
    rng.shuffle(files)
    window = max(WINDOW * budget, WINDOW_LEAST)
    largest = largest_document(budget)
    heap: list[tuple[float, int, int, Document]] = []  # minus the draw, number, bytes, document
    total = passed = number = 0
    for file in files:
        for name, raw in _records(file, domain):
            number += 1
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
            if passed >= window:
                break
        if passed >= window:
            break
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
    for end in ("\n", " "):
        if end in head[largest // 2 :]:
            return head[: head.rindex(end) + 1]
    return head


def _records(file: Path, domain: str) -> Iterator[tuple[str, bytes]]:
    """Cut a file into records: a line of .jsonl, a whole file of code, a story or piece of .txt."""
    kind = _suffix(file)
    if kind == ".jsonl":
        for number, line in enumerate(_lines(file), 1):
            if line.strip():
                yield f"line {number}", line
    elif kind == ".txt":
        for number, piece in enumerate(_pieces(file), 1):
            yield f"piece {number}", piece
    else:
        yield file.name, b"".join(_lines(file))


def _pieces(file: Path) -> Iterator[bytes]:
    """Cut plain text at its separators; where it has none, after a line, near `PIECE` bytes."""
    held: list[bytes] = []
    size, separated = 0, False
    for line in _lines(file):
        if SEPARATOR in line:
            before, *rest = line.split(SEPARATOR)
            separated = True
            for part in (b"".join([*held, before]), *rest[:-1]):
                if part.strip():
                    yield part
            held, size = [rest[-1]], len(rest[-1])
            continue
        held.append(line)
        size += len(line)
        blank = not line.strip()
        if not separated and (size >= 2 * PIECE or (size >= PIECE and blank)):
            yield b"".join(held)
            held, size = [], 0
    if b"".join(held).strip():
        yield b"".join(held)


def _lines(file: Path) -> Iterator[bytes]:
    rest = b""
    for block in _blocks(file):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if len(rest) > LONGEST_RECORD:
            raise FeatlibError(
                f"{file} has a line over {LONGEST_RECORD >> 20} MB: it is not a file of text lines."
            )
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _blocks(file: Path) -> Iterator[bytes]:
    """Read a file block by block, .zst unpacked (several frames too) and checked to its end."""
    with file.open("rb") as stream:
        if file.suffix != ".zst":
            yield from iter(lambda: stream.read(BLOCK), b"")
            return
        unpack = zstandard.ZstdDecompressor().decompressobj()
        begun = False
        try:
            while packed := stream.read(BLOCK // 8):
                while packed:
                    if unpack.eof:
                        unpack = zstandard.ZstdDecompressor().decompressobj()
                    yield unpack.decompress(packed)
                    begun, packed = True, unpack.unused_data if unpack.eof else b""
        except zstandard.ZstdError as error:
            raise FeatlibError(
                f"{file} is damaged or no zstd file ({error}): fetch or compress it again."
            ) from error
        if begun and not unpack.eof:
            raise FeatlibError(f"{file} is cut off before its end: fetch or compress it again.")
