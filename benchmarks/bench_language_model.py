"""Training speed of a language model: ours against what one would write or take instead.

    python benchmarks/bench_language_model.py [--threads 2] [--steps 20] [--batch 8]

All contenders train the same model on the same random blocks, take turns in one process, and are
compared by the fastest of their rounds; ratios are what to read, tokens/s depend on the machine.
  ours         featlib.models.training.train
  plain bf16   the same model under autocast, its own loss, fused AdamW
  plain fp32   the usual loop: float32, Hugging Face's loss, AdamW
  Trainer      transformers.Trainer, float32, its defaults but for the batch size
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from featlib.models.loss import autocast_context, pick_device
from featlib.models.mistral import build_model
from featlib.models.training import train

VOCAB, CONTEXT = 4096, 128


def mini_model(seed: int = 0):
    """The language model of params/mini.yaml."""
    return build_model(
        vocab_size=VOCAB,
        hidden_size=192,
        intermediate_size=384,
        heads=6,
        kv_heads=3,
        context=CONTEXT,
        seed=seed,
    )


def ours(ids: np.ndarray, batch_size: int) -> None:
    options = {"lr": 1e-3, "warmup_steps": 0, "weight_decay": 0.1, "beta2": 0.99, "seed": 0}
    train(mini_model(), ids, n_tokens=ids.size, batch_size=batch_size, **options)


def plain(ids: np.ndarray, batch_size: int, *, mixed: bool) -> None:
    device = pick_device()
    model = mini_model().to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=mixed)
    for start in range(0, len(ids), batch_size):
        batch = torch.from_numpy(ids[start : start + batch_size].astype(np.int64)).to(device)
        with autocast_context(device) if mixed else contextlib.nullcontext():
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def trainer(ids: np.ndarray, batch_size: int) -> None:
    rows = [{"input_ids": torch.from_numpy(row.astype(np.int64))} for row in ids]
    data = [{**row, "labels": row["input_ids"]} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        Trainer(model=mini_model(), args=arguments, train_dataset=data).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    contenders: dict[str, Callable[[np.ndarray, int], None]] = {
        "ours": ours,
        "plain bf16": lambda ids, batch: plain(ids, batch, mixed=True),
        "plain fp32": lambda ids, batch: plain(ids, batch, mixed=False),
        "Trainer": trainer,
    }
    shape = (options.steps * options.batch, CONTEXT)
    ids = np.random.default_rng(0).integers(3, VOCAB, size=shape).astype(np.uint16)
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            silence = io.StringIO()
            start = time.perf_counter()
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                contender(ids, options.batch)
            best[name] = min(best[name], time.perf_counter() - start)
    for name, seconds in best.items():
        rate = ids.size / seconds
        print(f"{name:12s} {rate:10,.0f} tokens/s   {seconds / best['ours']:5.2f} x our time")


if __name__ == "__main__":
    main()
