"""Weights kept along a training, as half-precision files named by the share of steps done."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import MistralForCausalLM

from featlib import FeatlibError
from featlib.run import atomic_path


def keep_snapshots(folder: Path) -> Callable[[float, MistralForCausalLM], None]:
    """What to give `train` as `on_snapshot`: writes `<folder>/<fraction>.safetensors`.

    Files of an earlier training are removed first. bfloat16: half the size, and the range of
    float32; a feature's activation moves by less than a percent.
    """
    shutil.rmtree(folder, ignore_errors=True)

    def keep(fraction: float, model: MistralForCausalLM) -> None:
        weights = {
            name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
            for name, tensor in model.state_dict().items()
        }
        with atomic_path(folder / f"{fraction:.6f}.safetensors") as path:
            save_file(weights, path)

    return keep


def read_snapshots(
    folder: Path, like: MistralForCausalLM
) -> Iterator[tuple[float, MistralForCausalLM]]:
    """(fraction, model) of each file in `folder`, in order; one model at a time, reused."""
    files = sorted(folder.glob("[0-9]*.safetensors"))
    if not files:
        raise FeatlibError(
            f"{folder} holds no checkpoints: chapter 03_fine_tuning keeps them. Run it again."
        )
    model = copy.deepcopy(like)
    for path in files:
        model.load_state_dict({name: t.float() for name, t in load_file(path).items()})
        yield float(path.stem), model.eval()
