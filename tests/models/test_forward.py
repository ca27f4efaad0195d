"""The forward pass: scores are Hugging Face's, readings and edits are those of a plain hook."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import CONTEXT, VOCAB, small_model

from featlib import FeatlibError
from featlib.models import forward
from featlib.models import loss as next_token
from featlib.models.forward import harvest, hooked_module, read_inputs, run_blocks, score_tokens
from featlib.models.recipes import score_metrics
from featlib.text.tokens import TokenBlocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_hugging_faces(dtype, trained, ids, monkeypatch):
    for module in (next_token, forward):
        monkeypatch.setattr(module, "compute_dtype", lambda device: dtype)
    batch = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        logits, targets = trained(batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()
    expected = F.cross_entropy(logits, targets, reduction="none").view(len(ids), -1)
    loss, hit = score_tokens(trained, ids)
    assert loss.shape == hit.shape == expected.shape
    if dtype == torch.bfloat16:
        assert loss.mean() == pytest.approx(expected.mean().item(), abs=0.01)
        assert (loss != score_tokens(trained, ids, low_precision=False)[0]).any()
        return
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(hit.ravel(), logits.argmax(-1) == targets)
    assert 0.05 < hit.mean() < 1


def test_scores_of_texts_are_means_with_intervals_over_documents(trained, ids):
    """Oracle: documents resampled one by one, their tokens joined and averaged."""
    documents = np.repeat(np.sort(np.arange(len(ids)) % 9), CONTEXT).reshape(ids.shape) * 7
    texts = {"lua": TokenBlocks(ids, documents), "python": TokenBlocks(ids[:5], documents[:5] * 0)}
    rng = np.random.default_rng(0)
    table = forward.score_texts(trained, texts, rng, model="base").set_index("domain")
    scores = dict(zip(("loss", "accuracy"), score_tokens(trained, ids), strict=True))
    for name, per_token in scores.items():
        row = table.loc["lua", [name, f"{name}_low", f"{name}_high"]].to_numpy(float)
        parts = [per_token[documents[:, 0] == n].ravel() for n in np.unique(documents)]
        draws = [
            np.concatenate([parts[n] for n in rng.integers(0, 9, 9)]).mean() for _ in range(2000)
        ]
        expected = [per_token.mean(), *np.quantile(draws, [0.025, 0.975])]
        np.testing.assert_allclose(row, expected, atol=0.3 * np.std(draws))
    assert table.loc["python", ["loss_low", "accuracy_high"]].isna().all(), "one document alone"
    assert score_metrics(table.reset_index()).keys() == {
        *(f"lm.base.lua.{n}{end}" for n in scores for end in ("", "_low", "_high")),
        *(f"lm.base.python.{n}" for n in scores),
    }


def test_readings_are_the_gated_product_and_leave_no_trace(trained, ids):
    mlp, seen = trained.model.layers[0].mlp, []
    handle = mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    trained.train()
    rows = torch.cat(list(harvest(trained, ids)))
    handle.remove()
    x = torch.cat(seen)
    with torch.no_grad():
        expected = F.silu(mlp.gate_proj(x)) * mlp.up_proj(x)
    torch.testing.assert_close(rows, expected.flatten(0, 1))
    assert trained.training, "the mode is put back"
    trained.eval()
    stopped = harvest(trained, ids)
    next(stopped)
    stopped.close()
    assert not hooked_module(trained)._forward_pre_hooks
    assert not rows.requires_grad


def test_two_modules_are_read_in_one_pass_and_nothing_runs_after_the_last(trained, ids):
    batch = torch.from_numpy(ids[:3].astype(np.int64))
    norm, ran = trained.model.norm, []
    handle = norm.register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        neurons, residual = read_inputs(trained, batch, hooked_module(trained), norm)
        assert not ran and neurons.shape == (3, CONTEXT, 24)
        torch.testing.assert_close(norm(residual), trained.model(batch).last_hidden_state)
    handle.remove()


def test_batches_are_in_order_and_their_size_does_not_matter(trained, ids, monkeypatch):
    every = torch.cat(list(harvest(trained, ids)))
    monkeypatch.setattr(forward, "BATCH", 7)
    parts = list(run_blocks(trained, ids, lambda batch: batch))
    assert [len(part) for part in parts] == [7] * 9 + [1]
    np.testing.assert_array_equal(torch.cat(parts).numpy(), ids)
    torch.testing.assert_close(torch.cat(list(harvest(trained, ids))), every)


def test_an_edit_stands_in_for_what_the_hook_reads(float32, trained, ids):
    plain = score_tokens(trained, ids)[0].mean()
    assert score_tokens(trained, ids, change=lambda x: x)[0].mean() == plain
    without = score_tokens(trained, ids, change=torch.zeros_like)[0].mean()
    cut = small_model()
    cut.load_state_dict(trained.state_dict())
    hooked_module(cut).weight.data.zero_()
    assert without == pytest.approx(score_tokens(cut, ids)[0].mean(), rel=1e-5)
    assert abs(without / plain - 1) > 1e-4
    with pytest.raises(ZeroDivisionError), forward.edited(trained, lambda x: 1 / 0):
        trained(torch.from_numpy(ids[:1].astype(np.int64)))
    assert score_tokens(trained, ids)[0].mean() == plain, "a failed edit leaves no hook behind"


def test_what_is_no_text_of_the_model_is_refused(trained, ids):
    with pytest.raises(FeatlibError, match="vocabulary"):
        score_tokens(trained, np.full((1, CONTEXT), VOCAB))
    for bad in (ids[:0], ids[0], ids[:, :1]):
        with pytest.raises(FeatlibError, match="shorter than one block"):
            next(harvest(trained, bad))
