"""What a feature does to the model: ablate it, replace it by its mean, add more of it.

A feature j acts on the MLP's activations h (`blocks.0.mlp.hook_post`, raw) along its decoder row:
its contribution is a_j W_dec[j] / scale, with a_j its activation on scaled input. Every edit moves
h along that row alone, so that the autoencoder's error stays as it is:

    ablate   h - a_j W_dec[j] / scale
    replace  h + (value - a_j) W_dec[j] / scale
    add      h + value W_dec[j] / scale

Two ways to the same numbers. `edited_losses` runs the whole model with one hook function, through
TransformerBridge or on the plain Hugging Face model (4 times faster): it assumes nothing about the
model. All the rest uses that in a model of one layer nothing reads h but the residual stream of
the same position: the edit adds a multiple of one fixed vector there, W_down W_dec[j] / scale, and
only the tokens on which the feature fires need new predictions. That makes an ablation cost
milliseconds instead of a forward pass, so that controls and dose-response curves are affordable.
The tests hold all three against one another.

An edit at position p changes the prediction made at p, of token p + 1, and no other. A feature
that fires on ` raise` therefore cannot change how well ` raise` itself is predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MistralForCausalLM

from featlib import FeatlibError
from featlib.cases.detectors import feature_scores
from featlib.dictionaries.activations import HOOK_NAME, check_ids, hooked_module
from featlib.dictionaries.features import FeatureActivations
from featlib.dictionaries.sae import SparseAutoencoder

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

LOGITS_AT_ONCE = 2**23  # elements: bounds memory


@dataclass(frozen=True)
class Edit:
    """One change to one feature; `value` in units of its activation (scaled input)."""

    feature: int
    kind: Literal["ablate", "replace", "add"] = "ablate"
    value: float = 0.0


def edit_activations(hidden: Tensor, sae: SparseAutoencoder, edit: Edit) -> Tensor:
    """The one hook function: raw activations [..., d_in] with `edit` made, same shape."""
    only = sae.only([edit.feature])
    if edit.kind == "add":
        change = torch.full_like(hidden[..., :1], edit.value)
    else:
        value = edit.value if edit.kind == "replace" else 0.0
        change = value - only.encode(hidden * sae.scale)
    return hidden + change @ only.W_dec / sae.scale


@torch.no_grad()
def edited_losses(
    model: TransformerBridge | MistralForCausalLM,
    ids: np.ndarray,
    sae: SparseAutoencoder,
    edit: Edit | None = None,
    *,
    batch_size: int = 16,
) -> np.ndarray:
    """Loss of each predicted token with `edit` made at every position: [blocks, context - 1] nats.

    `model` is a TransformerBridge (`featlib.language_model.open_bridge`), whose hook point is
    used by name, or a Hugging Face model, whose module there gets a plain hook. No edit: the
    model's own losses. float32; a model of any depth.
    """
    check_ids(ids)
    parts = []
    for start in range(0, len(ids), batch_size):
        batch = torch.from_numpy(ids[start : start + batch_size].astype(np.int64))
        batch = batch.to(next(model.parameters()).device)
        logits = _run_hooked(model, batch, sae, edit)[:, :-1].float()
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none"
        )
        parts.append(loss.view(len(batch), -1).cpu().numpy())
    return np.concatenate(parts)


def _run_hooked(model: Any, batch: Tensor, sae: SparseAutoencoder, edit: Edit | None) -> Tensor:
    """Logits [batch, pos, vocab] with the hook in place."""

    def change(hidden: Tensor) -> Tensor:
        return hidden if edit is None else edit_activations(hidden, sae, edit)

    if hasattr(model, "run_with_hooks"):
        hooks = [(HOOK_NAME, lambda hidden, hook: change(hidden))]
        return model.run_with_hooks(batch, return_type="logits", fwd_hooks=hooks)
    handle = hooked_module(model).register_forward_pre_hook(lambda _, args: (change(args[0]),))
    try:
        return model(input_ids=batch, use_cache=False).logits
    finally:
        handle.remove()


# ------------------------------------------------------------------------------ one layer


@dataclass(frozen=True)
class Sites:
    """What a model of one layer computes on each token of a stream, read in one pass."""

    ids: np.ndarray  # [blocks, context]
    neurons: Tensor  # [tokens, d_in], raw activations at HOOK_NAME
    residual: Tensor  # [tokens, d_model], what the last norm reads

    @property
    def n_tokens(self) -> int:
        return len(self.residual)


@torch.no_grad()
def read_sites(model: MistralForCausalLM, ids: np.ndarray, *, batch_size: int = 32) -> Sites:
    """Neurons and final residual stream of blocks `ids` [blocks, context], in reading order.

    Both are also what `featlib.cases.fit_label` takes its baselines from (as `.cpu().numpy()`).
    """
    check_ids(ids)
    if len(model.model.layers) != 1:
        raise FeatlibError(
            f"the model has {len(model.model.layers)} layers: what an edit does in the first is "
            "then changed by the others; use edited_losses"
        )
    found: dict[str, list[Tensor]] = {"neurons": [], "residual": []}
    places = {"neurons": hooked_module(model), "residual": model.model.norm}
    handles = [
        place.register_forward_pre_hook(
            lambda _, args, into=found[name]: into.append(args[0].detach().flatten(0, 1).float())
        )
        for name, place in places.items()
    ]
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(ids), batch_size):
            batch = torch.from_numpy(ids[start : start + batch_size].astype(np.int64))
            model.model(input_ids=batch.to(next(model.parameters()).device), use_cache=False)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return Sites(ids, torch.cat(found["neurons"]), torch.cat(found["residual"]))


def feature_direction(model: MistralForCausalLM, sae: SparseAutoencoder, feature: int) -> Tensor:
    """What one unit of a feature's activation adds to the residual stream: [d_model]."""
    row = sae.W_dec.detach()[feature].to(hooked_module(model).weight.device)
    return hooked_module(model).weight.detach().float() @ row / sae.scale


@torch.no_grad()
def read_predictions(
    model: MistralForCausalLM, residual: Tensor, read: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """`read(log-probabilities [n, vocab], rows)` for residual streams [tokens, d_model], joined."""
    size = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    parts = []
    for start in range(0, len(residual), size):
        rows = slice(start, start + size)
        logits = model.lm_head(model.model.norm(residual[rows])).float()
        parts.append(read(torch.log_softmax(logits, dim=1), rows))
    return torch.cat(parts) if parts else residual.new_zeros(0)


def loss_changes(
    model: MistralForCausalLM,
    sae: SparseAutoencoder,
    sites: Sites,
    f: FeatureActivations,
    edit: Edit,
) -> np.ndarray:
    """Change of each predicted token's loss under `edit`: nats, [blocks, context - 1] float32.

    `f` are the activations of `sae` on the model that `sites` was read from, of the same tokens.
    Equals `edited_losses` with the edit less that without. Where the feature is silent, ablating
    it changes nothing: exactly 0.
    """
    blocks, context = sites.ids.shape
    if f.n_tokens != sites.n_tokens:
        raise FeatlibError(
            f"features of {f.n_tokens} tokens, but sites of {sites.n_tokens}: encode the same ids"
        )
    active = feature_scores(f, edit.feature)
    change = {"ablate": -active, "replace": edit.value - active}.get(
        edit.kind, np.full_like(active, edit.value)
    )
    change.reshape(blocks, context)[:, -1] = 0  # predicts what lies outside the block
    rows = np.flatnonzero(change)
    result = np.zeros((blocks, context), dtype=np.float32)
    if len(rows):
        before = sites.residual[torch.from_numpy(rows).to(sites.residual.device)]
        step = torch.from_numpy(change[rows].astype(np.float32)).to(before.device)
        after = before + step[:, None] * feature_direction(model, sae, edit.feature)
        targets = torch.from_numpy(sites.ids.reshape(-1)[rows + 1].astype(np.int64))
        targets = targets.to(before.device)[:, None]

        def read(logp: Tensor, at: slice) -> Tensor:
            return -logp.gather(1, targets[at])[:, 0]

        delta = read_predictions(model, after, read) - read_predictions(model, before, read)
        result.reshape(-1)[rows] = delta.cpu().numpy()
    return result[:, :-1]
