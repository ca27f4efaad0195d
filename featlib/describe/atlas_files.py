"""The feature atlas as files that a page reads without a server.

A browser refuses to fetch data beside a page that was opened from disk, but loads scripts. So each
shard is a script that hands its data over: `featlibAtlas("base-3", {...});`. There are

- `index.js`: models, domains, labels, vocabulary, and how the rest is cut;
- `stream.js`: the common stream's token ids;
- `list-<model>.js`: what the list of features shows, filters, sorts and searches, and with it the
  fate of each feature and its explanation;
- `<model>-<n>.js`: what else the pages of features n * SHARD to (n + 1) * SHARD - 1 show.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featlib.describe.atlas import thousandths
from featlib.family import MODEL_COLORS, PRINT_NAMES
from featlib.run import atomic_path

SHARD = 64  # features in one file: about 90 kB
BUDGET = 1800  # bytes a feature: 15 MB for four models of 2,048 features
SEARCHED = 6  # tokens fired on, and promoted, that the search knows


def write_atlas(
    folder: str | Path,
    *,
    about: Mapping[str, Any],
    ids: np.ndarray,
    models: Mapping[str, Sequence[Mapping[str, Any]]],
    fates: Mapping[str, Mapping[str, pd.DataFrame]],
    twins: Mapping[str, np.ndarray],
    explanations: pd.DataFrame,
) -> int:
    """Write all shards into `folder`, all or nothing; the number of bytes (see BUDGET).

    `about` goes into the index as it is (vocabulary, domains, labels, threshold, ...). `models`:
    by model what `atlas.describe_features` gave. `fates`: by model, by step ("base>lua"), columns
    fate, r and best of every feature. `twins` [d_sae] by model: the best correlation with
    a feature of another autoencoder of the same model. `explanations` as chapter 10 saves them; of
    several of one feature the last is told.
    """
    small = np.uint16 if ids.max(initial=0) < 2**16 else np.uint32
    packed = np.ascontiguousarray(ids.reshape(-1), dtype=np.dtype(small).newbyteorder("<"))
    with atomic_path(folder) as tmp:
        tmp.mkdir()
        index = {
            **about,
            "shard": SHARD,
            "models": [
                {"name": m, "print": PRINT_NAMES[m], "color": MODEL_COLORS[m]}
                | {"features": len(told)}
                for m, told in models.items()
            ],
        }
        stream = {
            "bytes": packed.itemsize,
            "ids": base64.b64encode(packed.tobytes()).decode("ascii"),
        }
        explanations = explanations.drop_duplicates(["model", "feature"], keep="last")
        _write(tmp, "index", index)
        _write(tmp, "stream", stream)
        for model, told in models.items():
            why = explanations[explanations["model"] == model].set_index("feature")
            _write(tmp, f"list-{model}", _columns(told, fates[model], twins[model], why))
            for start in range(0, len(told), SHARD):
                _write(tmp, f"{model}-{start // SHARD}", told[start : start + SHARD])
        return sum(path.stat().st_size for path in tmp.iterdir())


def _columns(
    told: Sequence[Mapping[str, Any]],
    fates: Mapping[str, pd.DataFrame],
    twins: np.ndarray,
    why: pd.DataFrame,
) -> dict[str, Any]:
    return {
        "firings": [page["firings"] for page in told],
        "peak": [page["peak"] for page in told],
        "on": [[token for token, _ in page["on"][:SEARCHED]] for page in told],
        "up": [[token for token, _ in page["up"][:SEARCHED]] for page in told],
        "labels": [[[fit[0], fit[3]] for fit in page["labels"]] for page in told],
        "twin": [thousandths(r) for r in twins],
        "match": {
            model: [page["matches"][model][0][1] for page in told] for model in told[0]["matches"]
        },
        "fates": {step: "".join(f[0] for f in table["fate"]) for step, table in fates.items()},
        # The best correlation of each step, in thousandths; null where nothing correlates.
        "r": {
            step: [
                thousandths(r) if best >= 0 else None
                for r, best in zip(table["r"], table["best"], strict=True)
            ]
            for step, table in fates.items()
        },
        "why": {
            # a score may be NaN
            str(n): {k: round(v, 3) if k != "explanation" else v for k, v in row.items() if v == v}
            for n, row in why[["explanation", "correlation", "detection"]].to_dict("index").items()
        },
    }


def _write(folder: Path, name: str, data: Any) -> None:
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    (folder / f"{name}.js").write_text(f'featlibAtlas("{name}",{text});\n', encoding="ascii")
