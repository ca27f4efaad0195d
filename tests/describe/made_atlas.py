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
from featlib.describe.atlas_files import write_atlas
from featlib.dictionaries.features import FeatureActivations, feature_activations
from featlib.family import MODELS

N_FEATURES, CONTEXT, BLOCKS, VOCAB = 70, 16, 40, 50
WORDS = ["try", ":", "\n", " raise", HOSTILE, "</script><script>alert(2)</script>", "\u202e"]


def read(path: Path) -> Any:
    """The data of a shard."""
    found = re.fullmatch(r'featlibAtlas\("([^"]+)",(.*)\);\n', path.read_text(), re.DOTALL)
    assert found is not None and found.group(1) == path.stem
    return json.loads(found.group(2))


def random_features(rng: np.random.Generator) -> FeatureActivations:
    dense = rng.exponential(3, (BLOCKS * CONTEXT, N_FEATURES))
    dense *= rng.random(dense.shape) < np.geomspace(0.005, 0.4, N_FEATURES)
    dense[:, 7:9] = 0  # silent
    dense[100, 8] = 2.5  # fires once
    return feature_activations(dense)


class Made:
    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        self.folder = folder
        self.ids = rng.integers(0, VOCAB, (BLOCKS, CONTEXT)).astype(np.uint16)
        self.documents = np.sort(rng.integers(0, 25, BLOCKS * CONTEXT)).reshape(BLOCKS, CONTEXT)
        self.domains = rng.integers(0, 4, (BLOCKS, CONTEXT))
        self.vocabulary = WORDS + [f" word{n}" for n in range(VOCAB - len(WORDS))]
        self.acts = {m: random_features(rng) for m in MODELS}
        self.masks = {f"label {n}": rng.random(BLOCKS * CONTEXT) < 0.1 for n in range(3)}
        tokens, values = self.acts["base"].of(69)
        planted = np.zeros(BLOCKS * CONTEXT, dtype=bool)
        planted[tokens[values > 0.5 * values.max()]] = True
        self.masks["exception"] = planted
        self.effects = {m: rng.normal(size=(N_FEATURES, VOCAB)) for m in MODELS}
        pairs = [(a, b) for a in MODELS for b in MODELS if a != b]
        self.r = {pair: rng.random((N_FEATURES, N_FEATURES)) for pair in pairs}
        self.fits = {m: atlas.best_fits(self.acts[m], self.masks) for m in MODELS}
        levels = {m: atlas.Levels(self.acts[m]) for m in MODELS}
        self.pages = {
            m: atlas.describe_features(
                self.acts[m],
                self.ids,
                self.documents,
                self.effects[m],
                matches={b: atlas.nearest(self.r[m, b], 3) for a, b in pairs if a == m},
                others=levels,
                domains=self.domains,
                fits=self.fits[m],
                top=5,
                per_quantile=2,
                rng=np.random.default_rng(0),
            )
            for m in MODELS
        }
        fate = {
            "fate": ["persists", "disappears", "untestable"] * 24,
            "r": [0.9, 0.3, 0.0] * 24,
            "best": [4, 5, -1] * 24,
        }
        fate = pd.DataFrame(fate)[:N_FEATURES]
        steps = {"base": ["base>lua"], "lua": ["base>lua", "lua>merged"]}
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
                "threshold": 0.8,
                "min_firings": 3,
            },
            ids=self.ids,
            models=self.pages,
            fates={m: dict.fromkeys(steps.get(m, []), fate) for m in MODELS},
            twins={m: np.linspace(0, 1, N_FEATURES) for m in MODELS},
            explanations=pd.DataFrame([why | {"explanation": "an older one"}, why]),
        )

    def dense(self, model: str) -> np.ndarray:
        return self.acts[model].matrix.toarray()
