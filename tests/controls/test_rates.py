"""What a fine-tune's rate buys, on models so small that each training takes no time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small import small_config
from small_models import FINE_TUNE, small_run

from featlib.controls.rates import sweep_rates
from featlib.controls.run import ControlRun
from featlib.dictionaries.activations import activation_scale
from featlib.dictionaries.features import encode_batches
from featlib.dictionaries.training import train_autoencoders
from featlib.family import BASE, CHILDREN
from featlib.models.forward import harvest
from featlib.models.mistral import load_checkpoint
from featlib.text.tokens import load_blocks


def test_a_higher_rate_moves_the_model_further(tmp_path):
    run = small_run(tmp_path)
    base, stream = load_checkpoint(run.model(BASE)), load_blocks(run.tokens, "babylm.train")
    config = small_config(d_in=24, d_sae=16, n_tokens=20 * stream.ids.size, batch_size=360)
    scale = activation_scale(base, stream.ids)
    epochs = [stream.ids] * 20
    rows = (scale * part for ids in epochs for part in harvest(base, ids))
    (sae,) = train_autoencoders(rows, config, [0], scale=scale)
    acts = encode_batches(harvest(base, stream.ids), sae)
    parts = {
        "run": run,
        "p": SimpleNamespace(threshold=0.8, min_firings=10),
        "stream": stream,
        "models": {BASE: base},
        "sae": sae,
        "base": acts,
    }
    c = ControlRun(**dict.fromkeys(ControlRun.__dataclass_fields__) | parts)
    p = SimpleNamespace(**{"seed": 0, **vars(FINE_TUNE), "bootstrap": 50})
    table = sweep_rates(c, p, rates=(1e-9, 3e-2))
    assert table[["model", "rate"]].to_numpy().tolist() == [
        [child, rate] for child in CHILDREN for rate in (1e-9, 3e-2)
    ]
    still, moved = table[table["rate"] == 1e-9], table[table["rate"] == 3e-2]
    for column in ("neurons", "features"):
        assert still[column].to_numpy() == pytest.approx(1)
    assert (moved["features"] < 0.9).all()
    assert still["gain"].to_numpy() == pytest.approx(0, abs=0.01)
    assert (table["features_low"] <= table["features"]).all()
