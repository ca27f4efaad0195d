"""The reader's own files: every record has its chance, and what is damaged is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import zstandard
from small_texts import program, prose

from featlib import FeatlibError
from featlib.text.documents import corpus_hash
from featlib.text.files import find_files
from featlib.text.sources import check_corpus, read_corpus


def write_jsonl(path: Path, texts: list[str], key: str = "text") -> Path:
    raw = "".join(json.dumps({key: text, "source": f"s{i}"}) + "\n" for i, text in enumerate(texts))
    data = raw.encode()
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if path.suffix == ".zst" else data)
    return path


def load_files(folder: Path, domain: str = "babylm", megabytes: float = 1.0, seed: int = 0):
    return read_corpus(domain, "files", folder, megabytes, seed)[0]


def load_texts(folder: Path, domain: str = "babylm", megabytes: float = 1.0) -> list[str]:
    return sorted(one.text for one in load_files(folder, domain, megabytes))


@pytest.mark.parametrize("name", ["babylm.jsonl", "babylm.jsonl.zst"])
@pytest.mark.parametrize("key", ["text", "content"])
def test_jsonl_gives_every_record(tmp_path, name, key) -> None:
    texts = [prose(i) for i in range(50)]
    write_jsonl(tmp_path / name, texts, key)
    taken = load_files(tmp_path)
    assert sorted(one.text for one in taken) == sorted(texts)
    assert [one.text for one in taken] != texts  # shuffled
    assert {one.license for one in taken} == {"unknown"}
    assert taken[0].source == f"s{texts.index(taken[0].text)}"


def test_several_frames_and_small_blocks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("featlib.text.files.BLOCK", 64)
    texts = [prose(i) for i in range(40)]
    one = write_jsonl(tmp_path / "one.jsonl.zst", texts[:20]).read_bytes()
    two = write_jsonl(tmp_path / "two.jsonl.zst", texts[20:]).read_bytes()
    (tmp_path / "babylm.jsonl.zst").write_bytes(one + two)
    assert load_texts(tmp_path) == sorted(texts)


def test_sample_reaches_the_whole_file_with_equal_chances(tmp_path) -> None:
    texts = [f"{i:05d} " + prose(i, 30) for i in range(400)]
    write_jsonl(tmp_path / "babylm.jsonl", texts)
    samples = [load_files(tmp_path, megabytes=0.008, seed=seed) for seed in range(25)]
    drawn = np.array([int(one.text[:5]) for sample in samples for one in sample])
    assert 900 <= len(drawn) <= 1500  # about a tenth of 400 each time
    assert abs((drawn < 200).mean() - 0.5) < 4 * 0.5 / len(drawn) ** 0.5
    assert 8_000 <= sum(len(one.text) for one in samples[0]) < 8_000 + max(map(len, texts))


def test_text_files_become_pieces_and_stories(tmp_path) -> None:
    lines = [prose(i, 30) + "\n" for i in range(300)]
    (tmp_path / "babylm.txt").write_text("".join(lines))
    taken = load_files(tmp_path)
    by_number = sorted(taken, key=lambda one: int(one.name.split()[1]))
    assert "".join(one.text for one in by_number) == "".join(lines)
    assert len(taken) > 2

    stories = [prose(i, 40) + "\n\n" + prose(-i, 40) for i in range(1, 31)]
    end = "<|endoftext|>"
    text = f"\n{end}\n".join(stories[:15]) + end + end.join(stories[15:])
    (tmp_path / "tinystories.txt").write_text(text)
    assert sorted(map(str.strip, load_texts(tmp_path, "tinystories"))) == sorted(stories)


def test_folder_gives_the_files_of_the_domain(tmp_path) -> None:
    (tmp_path / "python/deep").mkdir(parents=True)
    (tmp_path / "python/deep/a.py").write_bytes(program(1).replace("\n", "\r\n").encode())
    (tmp_path / "python/b.py").write_text("\ufeff" + program(2), encoding="utf-8")
    (tmp_path / "python/c.lua").write_text("local x = 1\n" * 30)
    (tmp_path / "python/d.bin").write_bytes(b"\0\1")
    assert load_texts(tmp_path, "python") == sorted([program(1), program(2)])


def test_long_prose_is_cut_and_long_code_refused_in_a_small_corpus(tmp_path) -> None:
    write_jsonl(tmp_path / "babylm.jsonl", [prose(1, 5_000), prose(2)])
    texts = load_texts(tmp_path, megabytes=0.1)
    assert max(map(len, texts)) <= 4_000 and prose(1, 5_000).startswith(max(texts, key=len))
    write_jsonl(tmp_path / "python.jsonl", [program(1, 500), program(2)])
    assert load_texts(tmp_path, "python", 0.1) == [program(2)]


def test_hostile_text_survives_unharmed(tmp_path) -> None:
    texts = [
        "<script>alert('x')</script><b>bold</b> &amp; {{ jinja }} <|endoftext|> </s> [INST]",
        "right \u202eto left\u202c, zero\u200bwidth, \u2066isolate\u2069, \ufeff inside",
        "e\u0301 and \U0001f9d1\u200d\U0001f680 and \x1b[31m red \x7f",
    ]
    write_jsonl(tmp_path / "babylm.jsonl", texts)
    assert load_texts(tmp_path) == sorted(texts)
    assert len(corpus_hash(load_files(tmp_path))) == 64


def test_what_no_utf8_can_hold_is_refused_and_counted(tmp_path) -> None:
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
    (tmp_path / "babylm.jsonl").write_bytes(b"\n".join(lines))
    read, skipped = read_corpus("babylm", "files", tmp_path, megabytes=1, seed=0)
    assert [one.text for one in read] == [prose(1)]
    assert skipped.set_index("reason")["count"].to_dict() == {
        "lone surrogates": 1,
        "NUL bytes": 1,
        "empty": 1,
        "no key text or content": 2,
        "not JSON": 2,
        "not UTF-8": 1,
    }


def test_damaged_zst_is_named(tmp_path) -> None:
    path = write_jsonl(tmp_path / "babylm.jsonl.zst", [prose(i) for i in range(200)])
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 1):  # read_across_frames would take it for the end
        path.write_bytes(whole + whole[:cut])
        with pytest.raises(FeatlibError, match=r"babylm\.jsonl\.zst is cut off"):
            load_files(tmp_path)
    path.write_bytes(b"not zstd at all")
    with pytest.raises(FeatlibError, match=r"babylm\.jsonl\.zst is damaged or no zstd"):
        check_corpus("babylm", "files", tmp_path)


@pytest.mark.parametrize(
    ("tree", "domain", "expected"),
    [
        (["lua/a.lua", "lua/b/c.lua.zst", "lua/no.csv"], "lua", "a.lua c.lua.zst"),
        (["python.jsonl.zst", "python-old.py"], "python", "python.jsonl.zst"),
        (["tinystories.a.txt"], "tinystories", "tinystories.a.txt"),
        (["lua/a.lua"], "babylm", "! nothing of that name"),
        (["lua/a.lua", "lua.jsonl"], "lua", "! it holds lua, lua.jsonl"),
        (["lua/a.py"], "lua", "! put .lua[.zst]"),
        (["lua/empty.lua"], "lua", "! no text for domain lua"),
    ],
)
def test_files_of_a_domain(tmp_path, tree, domain, expected) -> None:
    for name in tree:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        data = b"" if "empty" in name else b"x = 1\n"
        packed = zstandard.ZstdCompressor().compress(data) if name.endswith("zst") else data
        (tmp_path / name).write_bytes(packed)
    if expected.startswith("! "):
        with pytest.raises(FeatlibError, match=re.escape(expected[2:])):
            check_corpus(domain, "files", tmp_path)
    else:
        assert " ".join(path.name for path in find_files(domain, tmp_path)) == expected


@pytest.mark.parametrize("folder", ["", "no/such/folder"])
def test_source_files_needs_a_folder(folder) -> None:
    with pytest.raises(FeatlibError, match="is no folder"):
        check_corpus("lua", "files", folder)
