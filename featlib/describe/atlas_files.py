"""The feature atlas as files that a page reads without a server.

A browser refuses to fetch data beside a page that was opened from disk, but loads scripts. So each
shard is a script that hands its data over: `featlibAtlas("base-3", {...});`. There are

- `index.js`: models, dictionaries, kinds of text, labels, vocabulary, the features that pages of
  the book name, and how the rest is cut;
- `stream.js`: the common stream's token ids;
- `list-<dictionary>.js`: what the list of features shows, filters, sorts and searches, and with it
  the fate of each feature and its explanation;
- `<dictionary>-<n>.js`: what else the pages n * SHARD to (n + 1) * SHARD - 1 of it show.

A dictionary is called like its model, `base`, where it is of seed 0, else `base-s1`. Of seed 0 all
features have a page, of other seeds those that are named, and their counterparts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featlib.describe.atlas import Key, thousandths
from featlib.family import MODEL_COLORS, PRINT_NAMES
from featlib.run import Run, atomic_path

SHARD = 64  # features in one file: about 90 kB
SEARCHED = 6  # tokens fired on, and promoted, that the search knows
NAMED = ["model", "seed", "feature", "why"]  # why: a few words, such as "exception, by labels"


def dictionary_name(model: str, seed: int) -> str:
    """What files and scripts of the atlas call an autoencoder."""
    return model if seed == 0 else f"{model}-s{seed}"


def atlas_address(model: str, seed: int, feature: int) -> str:
    """Where the atlas shows a feature, from a page of a chapter: ../book/atlas.html#lua/s1/612."""
    return f"../book/atlas.html#{model}/s{seed}/{feature}"


def read_named(run: Run) -> pd.DataFrame:
    """The features that pages of the book name (`NAMED`), so that the atlas has a page of each.

    A chapter that names some saves them with `run.save_table("named_features_<chapter>", ...)`.
    """
    tables = sorted(run.table("").parent.glob("named_features_*.parquet"))
    named = [pd.read_parquet(path)[NAMED] for path in tables]
    every = pd.concat([pd.DataFrame(columns=NAMED), *named], ignore_index=True)
    return every.drop_duplicates(NAMED[:3], ignore_index=True)


@dataclass(frozen=True)
class Pages:
    """The pages of one dictionary; everything is in the order of `features`.

    `told` from `atlas.describe_features`; `fates` by step ("base>lua"): columns fate, r and best;
    `twins` the best correlation with another autoencoder of the same model.
    """

    features: np.ndarray
    told: Sequence[Mapping[str, Any]]
    fates: Mapping[str, pd.DataFrame]
    twins: np.ndarray


def write_atlas(
    folder: str | Path, *, about: Mapping[str, Any], ids: np.ndarray, pages: Mapping[Key, Pages],
    named: pd.DataFrame, relatives: pd.DataFrame, explanations: pd.DataFrame,
) -> int:  # fmt: skip
    """Write all shards into `folder`, all or nothing; the number of bytes.

    `about` goes into the index as it is (vocabulary, domains, labels, threshold, ...). `named` from
    `read_named`, `relatives` of them from `atlas.seeds_by_models`. `explanations` as chapter 10
    saves them, of seed 0; of several of one feature the last is told.
    """
    packed = ids.reshape(-1).astype("<u2" if ids.max(initial=0) < 2**16 else "<u4")
    names = {key: dictionary_name(*key) for key in pages}
    index = {
        **about,
        "shard": SHARD,
        "models": {m: {"print": PRINT_NAMES[m], "color": c} for m, c in MODEL_COLORS.items()},
        "dictionaries": [
            {"name": names[key], "model": key[0], "seed": key[1], "features": len(own.features)}
            | ({} if key[1] == 0 else {"numbers": own.features.tolist()})
            for key, own in pages.items()
        ],
        "named": [
            [dictionary_name(row.model, row.seed), int(row.feature), row.why]
            for row in named.itertuples()
        ],
        "relatives": {
            f"{dictionary_name(model, seed)}/{feature}": [
                [r.route, dictionary_name(r.other_model, r.other_seed), int(r.other), int(r.value)]
                for r in own.itertuples()
            ]
            for (model, seed, feature), own in relatives.groupby(["model", "seed", "feature"])
        },
    }
    stream = {"bytes": packed.itemsize, "ids": base64.b64encode(packed.tobytes()).decode("ascii")}
    explanations = explanations.drop_duplicates(["model", "feature"], keep="last")
    with atomic_path(folder) as tmp:
        tmp.mkdir()
        _write(tmp, "index", index)
        _write(tmp, "stream", stream)
        for (model, seed), own in pages.items():
            why = explanations[(explanations["model"] == model) & (seed == 0)]
            _write(tmp, f"list-{names[model, seed]}", _columns(own, why.set_index("feature")))
            for start in range(0, len(own.told), SHARD):
                part = own.told[start : start + SHARD]
                _write(tmp, f"{names[model, seed]}-{start // SHARD}", part)
        return sum(path.stat().st_size for path in tmp.iterdir())


def _columns(pages: Pages, why: pd.DataFrame) -> dict[str, Any]:
    told, why = pages.told, why[["explanation", "correlation", "detection"]].round(3)
    matches = [[b[3] for b in page["beside"] if b[0] == "match"] for page in told]
    return {
        **{key: [page[key] for page in told] for key in ("firings", "peak")},
        **{key: [[t for t, _ in page[key][:SEARCHED]] for page in told] for key in ("on", "up")},
        "labels": [[[fit[0], fit[3]] for fit in page["labels"]] for page in told],
        "twin": [thousandths(r) for r in pages.twins],
        "match": [max(own, default=0) for own in matches],
        "fates": {step: "".join(t["fate"].str[0]) for step, t in pages.fates.items()},
        # The best correlation of each step, in thousandths; null where nothing correlates.
        "r": {
            step: [thousandths(r) if best >= 0 else None for r, best in t[["r", "best"]].to_numpy()]
            for step, t in pages.fates.items()
        },
        # a score may be NaN
        "why": {str(n): row.dropna().to_dict() for n, row in why.iterrows()},
    }


def _write(folder: Path, name: str, data: Any) -> None:
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    (folder / f"{name}.js").write_text(f'featlibAtlas("{name}",{text});\n', encoding="ascii")
