"""The one forward pass: blocks of tokens through a model that is read, edited or scored on the way.

The place is `blocks.0.mlp.hook_post` of TransformerLens: the input of the MLP's output matrix,
silu(gate(x)) * up(x), width d_mlp. A plain forward pass of the Hugging Face model with one hook
reads it four times faster than the bridge and gives the same numbers (the tests compare them).

Everything here runs in eval mode and without gradients, in float32 unless `low_precision`: mixed
precision where the device has it (`autocast_context`), for rows that are off by up to 1 % of their
size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from featlib import FeatlibError
from featlib.estimate import over_documents
from featlib.models.loss import autocast_context, compute_dtype, score_targets
from featlib.text.tokens import TokenBlocks

HOOK_NAME = "blocks.0.mlp.hook_post"
BATCH = 32  # blocks in one forward pass

Read = TypeVar("Read")
Change = Callable[[Tensor], Tensor]  # activations [batch, pos, d_mlp] into others


def hooked_module(model: PreTrainedModel) -> nn.Linear:
    """The module whose input is `HOOK_NAME`: the first block's `down_proj`."""
    return model.model.layers[0].mlp.down_proj


def run_blocks(
    model: Any, ids: np.ndarray, read: Callable[[Tensor], Read], *, low_precision: bool = False
) -> Iterator[Read]:
    """`read(batch)` of each batch [batch, pos] int64 of blocks `ids` [blocks, context], in order.

    `read` runs the model on the batch and returns what is wanted of that.
    """
    check_blocks(model, ids)
    device = next(model.parameters()).device
    precision = autocast_context(device) if low_precision else contextlib.nullcontext()
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(ids), BATCH):
            batch = to_device(ids[start : start + BATCH], device)
            with torch.no_grad(), precision:
                part = read(batch)
            yield part
    finally:
        model.train(was_training)


def hidden_states(model: PreTrainedModel, batch: Tensor) -> Tensor:
    """Final hidden states that predict tokens 1.. of `batch` [batch, pos]: [batch*(pos-1), d]."""
    hidden = model.model(input_ids=batch, use_cache=False).last_hidden_state[:, :-1]
    return hidden.reshape(-1, hidden.shape[-1]).to(compute_dtype(batch.device))


def to_device(ids: np.ndarray, device: torch.device) -> Tensor:
    """Ids [batch, pos] of any integer type, on the device as int64."""
    batch = torch.from_numpy(ids.astype(np.int64))
    # From pinned memory the copy runs beside the step before it.
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch


def check_blocks(model: PreTrainedModel, ids: np.ndarray) -> None:
    """Refuse what is no block of token ids, or not of this model's vocabulary."""
    if ids.ndim != 2 or ids.size == 0 or ids.shape[1] < 2:
        raise FeatlibError(
            f"ids have shape {ids.shape}; needed are one or more blocks [blocks, context >= 2]. "
            "Is the corpus shorter than one block?"
        )
    if (largest := int(ids.max())) >= model.config.vocab_size:
        raise FeatlibError(
            f"token id {largest} is outside the model's vocabulary of {model.config.vocab_size}; "
            "these ids were made with another tokenizer"
        )


class _AllReadError(Exception):
    """Ends a forward pass that need not go on."""


def read_inputs(model: PreTrainedModel, batch: Tensor, *modules: nn.Module) -> list[Tensor]:
    """First input [batch, pos, width] of each of `modules`; nothing after the last of them runs."""
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[module] = args[0]
        if len(found) == len(modules):
            raise _AllReadError

    with contextlib.ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(keep).remove)
        with contextlib.suppress(_AllReadError):
            model.model(input_ids=batch, use_cache=False)
    return [found[module] for module in modules]


def harvest(
    model: PreTrainedModel, ids: np.ndarray, *, low_precision: bool = False
) -> Iterator[Tensor]:
    """Activations [batch * pos, d_mlp] at `HOOK_NAME`, batch by batch, in reading order."""
    site = hooked_module(model)

    def read(batch: Tensor) -> Tensor:
        return read_inputs(model, batch, site)[0].flatten(0, 1)

    return run_blocks(model, ids, read, low_precision=low_precision)


@contextlib.contextmanager
def edited(model: Any, change: Change | None) -> Iterator[None]:
    """Within, `model` goes on with change(activations) in place of those at `HOOK_NAME`.

    A Hugging Face model gets a plain hook; in a TransformerBridge the hook point is used by name.
    """
    if change is None:
        yield
    elif hasattr(model, "run_with_hooks"):
        with model.hooks(fwd_hooks=[(HOOK_NAME, lambda hidden, hook: change(hidden))]):
            yield
    else:
        handle = hooked_module(model).register_forward_pre_hook(lambda _, args: change(args[0]))
        try:
            yield
        finally:
            handle.remove()


def score_tokens(
    model: PreTrainedModel,
    ids: np.ndarray,
    *,
    change: Change | None = None,
    low_precision: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss (nats) and hit (was it ranked first) of each token of blocks `ids`, `change` made.

    Both [blocks, context - 1]: the first token of a block is not predicted. The products of the
    output layer are of low precision in any case.
    """
    output = model.lm_head.weight.detach()
    output = output.to(compute_dtype(output.device))

    def read(batch: Tensor) -> tuple[Tensor, Tensor]:
        with edited(model, change):
            return hidden_states(model, batch), batch[:, 1:].reshape(-1)

    scores = [
        score_targets(hidden, output, targets)
        for hidden, targets in run_blocks(model, ids, read, low_precision=low_precision)
    ]
    loss, hit = (torch.cat(part).cpu().numpy() for part in zip(*scores, strict=True))
    shape = (len(ids), ids.shape[1] - 1)
    return loss.astype(np.float64).reshape(shape), hit.reshape(shape)


def score_texts(
    model: PreTrainedModel,
    texts: Mapping[str, TokenBlocks],
    rng: np.random.Generator,
    /,
    **columns: Any,
) -> pd.DataFrame:
    """Loss and accuracy on each text, by domain, with intervals over its documents.

    Columns: those given, domain, and loss and accuracy with their `_low` and `_high`.
    """
    rows = []
    for domain, blocks in texts.items():
        documents = np.unique(blocks.documents[:, 1:], return_inverse=True)[1].reshape(-1)
        row = {**columns, "domain": domain}
        for name, scores in zip(("loss", "accuracy"), score_tokens(model, blocks.ids), strict=True):
            sums = np.bincount(documents, scores.reshape(-1))
            row |= over_documents(sums, np.bincount(documents), rng).named(name)
        rows.append(row)
    return pd.DataFrame(rows)
