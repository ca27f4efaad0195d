"""Training speed of a sparse autoencoder: ours against the loop one would write, in one run.

    python benchmarks/bench_autoencoder.py [--threads 2] [--tokens 60000] [--rounds 3] [--paper]

All contenders train the same BatchTopK dictionary with Adam on the same activations (sums of a few
planted directions), from the same weights, take turns in one process, and are compared by the
fastest of their rounds. Ratios are what to read; the last column says that all learn the same.
  ours         featlib.dictionaries.training.train_autoencoders
  plain fp32   autograd through dense float32 products, torch.topk over the batch
  plain bf16   the same under autocast
The second table is the encoder alone, on the trained dictionary: ours rules out in bfloat16 and
computes the rest exactly.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable

import torch
from torch import Tensor

from featlib.dictionaries.sae import AutoencoderConfig, SparseAutoencoder
from featlib.dictionaries.training import train_autoencoders
from featlib.models.loss import autocast_context, pick_device


def activations(n: int, d_in: int, n_directions: int, seed: int = 0) -> Tensor:
    """Rows [n, d_in] of mean norm sqrt(d_in): ten random directions each, and some noise."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(
        torch.randn(n_directions, d_in, generator=draw), dim=1
    )
    chosen = torch.randint(n_directions, (n, 10), generator=draw)
    weights = 1 + torch.rand(n, 10, generator=draw)
    rows = torch.nn.functional.embedding_bag(
        chosen, directions, per_sample_weights=weights, mode="sum"
    )
    rows += 0.02 * torch.randn(n, d_in, generator=draw)
    return rows * (d_in**0.5 / rows.norm(dim=1).mean())


def plain(x: Tensor, config: AutoencoderConfig, *, mixed: bool) -> tuple[Tensor, Tensor]:
    """The same mathematics by autograd: W_enc, W_dec."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(config.d_sae, config.d_in, generator=draw).to(x.device)
    W_dec = torch.nn.Parameter(torch.nn.functional.normalize(start, dim=1))
    W_enc = torch.nn.Parameter(W_dec.detach().T.clone())
    b_enc = torch.nn.Parameter(x.new_zeros(config.d_sae))
    b_dec = torch.nn.Parameter(x[: config.batch_size].mean(0))
    weights = [W_enc, b_enc, W_dec, b_dec]
    optimizer = torch.optim.Adam(weights, lr=config.lr, betas=(0.9, config.beta2))
    for batch in x.split(config.batch_size):
        with autocast_context(x.device) if mixed else contextlib.nullcontext():
            f = torch.relu((batch - b_dec) @ W_enc + b_enc)
            limit = f.detach().flatten().topk(config.k * len(batch), sorted=False).values.min()
            rebuilt = (f * (f >= limit)) @ W_dec + b_dec
        ((rebuilt.float() - batch).square().sum() / len(batch)).backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            optimizer.step()
            W_dec /= W_dec.norm(dim=1, keepdim=True)
        optimizer.zero_grad()
    return W_enc.detach(), W_dec.detach()


def ours(x: Tensor, config: AutoencoderConfig) -> SparseAutoencoder:
    return train_autoencoders(x.split(config.batch_size), config, [0])[0]


def fastest(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each contender's fastest round; they take turns."""
    seconds = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, work in contenders.items():
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def report(seconds: dict[str, float], n: int, notes: dict[str, str]) -> None:
    first = seconds["ours"]
    for name, s in seconds.items():
        print(f"{name:12s} {s:7.2f} s {n / s:11,.0f} tok/s {s / first:6.2f} x ours  {notes[name]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default=None)
    parser.add_argument("--paper", action="store_true", help="16,384 features of width 1,024")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    d_in, d_sae, batch = (1024, 16_384, 3072) if args.paper else (384, 2048, 2048)
    config = AutoencoderConfig(
        d_in=d_in, d_sae=d_sae, n_tokens=args.tokens, batch_size=batch, warmup=0, decay=0
    )
    device = torch.device(args.device) if args.device else pick_device()
    x = activations(args.tokens, d_in, d_sae).to(device)
    print(f"{args.tokens:,} tokens, {d_sae:,} features of width {d_in}, k {config.k}")
    print(f"batch {batch:,}, {device.type}, {args.threads} threads, torch {torch.__version__}")

    learned: dict[str, Tensor] = {}

    def keep(name: str, W_dec: Tensor) -> None:
        learned[name] = W_dec.detach().cpu()

    contenders = {
        "ours": lambda: keep("ours", ours(x, config).W_dec),
        "plain fp32": lambda: keep("plain fp32", plain(x, config, mixed=False)[1]),
        "plain bf16": lambda: keep("plain bf16", plain(x, config, mixed=True)[1]),
    }
    seconds = fastest(contenders, args.rounds)
    notes = {
        name: f"cosine of directions with ours {(W * learned['ours']).sum(1).mean():.4f}"
        for name, W in learned.items()
    }
    print("training")
    report(seconds, args.tokens, notes)

    sae = ours(x, config)
    rows = x[:20_000].cpu()
    with torch.no_grad():
        same = torch.from_numpy(sae.encode_sparse(rows).toarray())
        error = (same - sae.encode(rows)).abs().max()
        seconds = fastest(
            {
                "ours": lambda: sae.encode_sparse(rows),
                "plain fp32": lambda: sae.encode(rows).to_sparse_csr(),
            },
            args.rounds,
        )
    print("encoding")
    report(
        seconds, len(rows), {"ours": "", "plain fp32": f"largest difference from ours {error:.1e}"}
    )


if __name__ == "__main__":
    main()
