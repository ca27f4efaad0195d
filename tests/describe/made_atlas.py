"""A small atlas of random features, and what it was made of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from test_figures import HOSTILE

from featlib.describe import atlas
from featlib.describe.atlas_files import Pages, write_atlas
from featlib.dictionaries.features import FeatureActivations, feature_activations
from featlib.family import MODELS
from featlib.text.stream import Stream

EXTRA = ("merged", 1)
N_FEATURES, CONTEXT, BLOCKS, VOCAB = 70, 16, 40, 50
ROOT = Path(__file__).resolve().parents[2]
WORDS = ["try", ":", "\n", " raise", HOSTILE, "</script><script>alert(2)</script>", "\u202e"]


def read(path: Path) -> Any:
    """The data of a shard."""
    found = re.fullmatch(r'featlibAtlas\("([^"]+)",(.*)\);\n', path.read_text(), re.DOTALL)
    assert found is not None and found.group(1) == path.stem
    return json.loads(found.group(2))


def write_page(page: Path, body: str, made: Made | None = None, head: str = "") -> Path:
    """A page in the book's own style and scripts, without the theme around it."""
    static = page.parents[1] / "_static"
    static.mkdir(parents=True)
    for path in (ROOT / "book" / "_static").glob("*.*s"):
        (static / path.name).write_bytes(path.read_bytes())
    if made:
        (static / "atlas").symlink_to(made.folder)
    page.parent.mkdir()
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Page</title>'
        '<meta name="viewport" content="width=device-width">'
        f'{head}<link rel="stylesheet" href="../_static/featlib.css">'
        '<script src="../_static/featlib.js" defer></script></head>'
        f"<body><main class='bd-article'><h1>Page</h1>{body}</main></body></html>"
    )
    return page


def random_features(rng: np.random.Generator) -> FeatureActivations:
    dense = rng.exponential(3, (BLOCKS * CONTEXT, N_FEATURES))
    dense *= rng.random(dense.shape) < np.geomspace(0.005, 0.4, N_FEATURES)
    dense[:, 7:9] = 0  # silent
    dense[100, 8] = 2.5  # fires once
    return feature_activations(dense)


class Made:
    """Four dictionaries of seed 0, a page for each feature, and some pages of merged, seed 1."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        self.folder = folder
        documents = np.sort(rng.integers(0, 25, BLOCKS * CONTEXT)).reshape(BLOCKS, CONTEXT)
        ids = rng.integers(0, VOCAB, (BLOCKS, CONTEXT)).astype(np.uint16)
        kinds = rng.integers(0, 4, (BLOCKS, CONTEXT))
        self.stream = Stream(ids, documents, kinds, labels={}, classes={})
        self.vocabulary = WORDS + [f" word{n}" for n in range(VOCAB - len(WORDS))]
        self.acts = {(m, 0): random_features(rng) for m in MODELS} | {EXTRA: random_features(rng)}
        self.masks = {f"label {n}": rng.random(BLOCKS * CONTEXT) < 0.1 for n in range(3)}
        tokens, values = self.acts["base", 0].of(69)
        planted = np.zeros(BLOCKS * CONTEXT, dtype=bool)
        planted[tokens[values > 0.5 * values.max()]] = True
        self.masks["exception"] = planted
        self.fits = {key: atlas.best_fits(f, self.masks) for key, f in self.acts.items()}
        named = {"model": ["merged", "base"], "seed": [1, 0], "feature": [66, 69]}
        self.named = pd.DataFrame(named | {"why": ["the case", HOSTILE]})
        self.relatives = atlas.seeds_by_models(self.named, self.acts, self.fits)
        also = self.relatives.query("other_model == 'merged' and other_seed == 1")["other"]
        self.shown = dict.fromkeys([(m, 0) for m in MODELS], np.arange(N_FEATURES))
        self.shown[EXTRA] = np.union1d([66], also)
        self.effects = {key: rng.normal(size=(len(own), VOCAB)) for key, own in self.shown.items()}
        self.pages = {key: self.page(key) for key in self.shown}
        fate = {"fate": ["persists", "disappears", "untestable"], "r": [0.9, 0.3, 0.0]}
        fate = pd.concat([pd.DataFrame(fate | {"best": [4, 5, -1]})] * 24)[:N_FEATURES]
        steps = {("base", 0): ["base>lua"], ("lua", 0): ["base>lua", "lua>merged"]}
        why = {"model": "base", "feature": 3, "explanation": HOSTILE, "correlation": 0.5}
        why["detection"] = np.nan
        self.size = write_atlas(
            folder,
            about={
                "run": "tiny",
                "tokens": BLOCKS * CONTEXT,
                "vocabulary": self.vocabulary,
                "domains": ["BabyLM", "Python", "Lua", "TinyStories"],
                "labels": list(self.masks),
                "seeds": 2,
                "threshold": 0.8,
                "min_firings": 3,
            },
            ids=ids,
            pages={
                key: Pages(own, told, dict.fromkeys(steps.get(key, []), fate), twins)
                for (key, own), told in zip(self.shown.items(), self.pages.values(), strict=True)
                for twins in [np.linspace(0, 1, len(own))]
            },
            named=self.named,
            relatives=self.relatives,
            explanations=pd.DataFrame([why | {"explanation": "an older one"}, why]),
        )

    def page(self, key: tuple[str, int]) -> list:
        own, f = self.shown[key], self.acts[key]
        beside = [atlas.best_matches(f, own, m, self.acts[m, 0]) for m in MODELS if m != key[0]]
        if key[0] == "base":
            read = self.acts["lua", 0]
            r = np.linspace(-1, 1, len(own))
            beside.append(atlas.Counterparts("transfer", "lua", own, r, atlas.Levels(read)))
        also = {"fits": self.fits[key], "top": 5, "per_quarter": 2}
        rng = np.random.default_rng(0)
        return atlas.describe_features(
            f, own, self.stream, self.effects[key], beside=beside, rng=rng, **also
        )

    def dense(self, model: str, seed: int = 0) -> np.ndarray:
        return self.acts[model, seed].matrix.toarray()
