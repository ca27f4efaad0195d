"""All correlations between two dictionaries: ours against what one would take instead, in one run.

    python benchmarks/bench_matching.py                 # mini: 2,048 x 2,048, 200,000 tokens, L0 16
    python benchmarks/bench_matching.py --paper         # 16,384 x 16,384, 300,000 tokens, L0 32
    python benchmarks/bench_matching.py --paper --device cuda

Ours goes to a GPU by itself, where there is one and the product is large; `--device` is for the
dense product in torch. The peers get the same activations on the same machine: `numpy.corrcoef` and
a dense product in torch (float32, standardised by chunks), both timed on fewer tokens if asked
(`--peer-tokens`; their time is linear in tokens, and scaled up) since the whole takes minutes, and
SciPy's sparse product.
Each line says how far its result is from ours over the tokens that it read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from featlib.dictionaries.features import count_firings
from featlib.estimate import document_weights
from featlib.matching.correlation import pearson
from featlib.matching.fates import assign_fates
from featlib.matching.resampling import resampled_matches


def dictionary(n: int, d: int, l0: float, rng: np.random.Generator) -> sp.csr_array:
    """Activations [n, d] whose densities fall off as a power law, as those of real features do."""
    weight = 1 / np.arange(1, d + 1) ** 0.7
    lengths = rng.poisson(l0, n)
    columns = rng.choice(d, size=lengths.sum(), p=rng.permutation(weight) / weight.sum())
    rows = np.repeat(np.arange(n), lengths)
    values = rng.exponential(size=len(rows)).astype(np.float32) + np.float32(0.1)
    m = sp.coo_array((values, (rows, columns)), shape=(n, d)).tocsr()
    m.sum_duplicates()
    return m


def with_common_part(a: sp.csr_array, b: sp.csr_array, rng: np.random.Generator) -> sp.csr_array:
    """`b` with half of its features replaced by permuted ones of `a`, so that half persists."""
    half = a.shape[1] // 2
    from_a = rng.permutation(a.shape[1])[:half]
    return sp.hstack([a[:, from_a], b[:, half:]], format="csr").astype(np.float32)


def by_numpy(a: sp.csr_array, b: sp.csr_array) -> np.ndarray:
    return np.corrcoef(a.toarray(), b.toarray(), rowvar=False)[: a.shape[1], a.shape[1] :]


def by_torch(a: sp.csr_array, b: sp.csr_array, device: str | None, chunk: int = 8192) -> np.ndarray:
    def moments(m: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
        mean = np.asarray(m.sum(axis=0, dtype=np.float64)) / m.shape[0]
        square = np.asarray(m.multiply(m).sum(axis=0, dtype=np.float64)) / m.shape[0]
        spread = np.sqrt(np.maximum(square - mean**2, 0) * m.shape[0])
        inverse = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        return mean.astype(np.float32), inverse.astype(np.float32)

    sides = [(m, *moments(m)) for m in (a, b)]
    out = torch.zeros(a.shape[1], b.shape[1], device=device)
    for s in range(0, a.shape[0], chunk):
        x, y = (
            torch.from_numpy((m[s : s + chunk].toarray() - mean) * inverse).to(device)
            for m, mean, inverse in sides
        )
        out.addmm_(x.T, y)
    return out.cpu().numpy()


def by_scipy(a: sp.csr_array, b: sp.csr_array) -> np.ndarray:
    n = a.shape[0]
    a, b = a.astype(np.float64), b.astype(np.float64)
    product = (a.T.tocsr() @ b).toarray()
    mean_a, mean_b = (np.asarray(m.sum(axis=0)) / n for m in (a, b))
    var_a, var_b = (
        np.asarray(m.multiply(m).sum(axis=0)) / n - mean**2
        for m, mean in ((a, mean_a), (b, mean_b))
    )
    cov = product / n - np.outer(mean_a, mean_b)
    norm = np.sqrt(np.outer(var_a, var_b))
    return np.divide(cov, norm, out=np.zeros_like(cov), where=norm > 0)


def seconds(
    run: Callable[[], np.ndarray], repeats: int, device: str | None
) -> tuple[float, object]:
    best, result = np.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        if device and device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paper", action="store_true", help="the paper's width")
    parser.add_argument("--device", default=None, help="for the dense product in torch, e.g. cuda")
    parser.add_argument("--peer-tokens", type=int, default=20_000, help="tokens for dense peers")
    parser.add_argument("--skip-numpy", action="store_true")
    args = parser.parse_args()
    n, d, l0 = (300_000, 16_384, 32) if args.paper else (200_000, 2048, 16)
    rng = np.random.default_rng(0)
    a = dictionary(n, d, l0, rng)
    b = with_common_part(a, dictionary(n, d, l0, rng), rng)
    few = min(args.peer_tokens, n)
    print(f"{d:,} x {d:,} features, {n:,} tokens, L0 {a.nnz / n:.1f} and {b.nnz / n:.1f}")

    ours, r = seconds(lambda: pearson(a, b), 3, args.device)
    short = pearson(a[:few], b[:few])
    print(f"{'ours':28} {ours:9.2f} s")

    def report(name: str, run: Callable[..., np.ndarray], tokens: int, against: np.ndarray) -> None:
        x, y = a[:tokens], b[:tokens]
        took, result = seconds(lambda: run(x, y), 1, args.device)
        took *= n / tokens
        gap = np.nanmax(np.abs(result - against))  # numpy gives NaN for a silent feature
        scaled = "" if tokens == n else f" (scaled from {tokens:,} tokens)"
        print(f"{name:28} {took:9.2f} s = {took / ours:6.1f} x ours, apart by {gap:.0e}{scaled}")

    report("scipy sparse product", by_scipy, n, r)
    report("torch dense product", lambda x, y: by_torch(x, y, args.device), few, short)
    if not args.skip_numpy:
        report("numpy.corrcoef", by_numpy, few, short)

    firings = [count_firings(m) for m in (a, b)]
    took, fates = seconds(lambda: assign_fates(r, *firings), 1, None)
    print(f"{'fates':28} {took:9.2f} s, {fates.persist:.3f} persist (planted: 0.500)")
    documents = np.arange(n) // 300
    weights = document_weights(documents, 200, rng)
    took, _ = seconds(lambda: resampled_matches(a, b, documents, fates, weights), 1, None)
    print(f"{'interval, 200 draws':28} {took:9.2f} s")


if __name__ == "__main__":
    main()
