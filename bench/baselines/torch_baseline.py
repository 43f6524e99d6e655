#!/usr/bin/env python3
"""PyTorch doing the same work, one order at a time; bench/run.py gives the orders.

    torch_baseline.py [--quick] [--threads N] < orders       (build/venv: newest CPU torch)

Orders "what EXAMPLESxTOKENS", answered with seconds:
    plain   loss of the batch: one forward pass, float32, inference mode, fused attention
    mezo    one MeZO step (arXiv 2305.17333): perturb by seed, forward, perturb back, forward, restore, update
    replay  one record of "Just One Byte" (arXiv 2306.10015): seed, normals, theta -= lr g z, parameter by parameter
    rss     peak resident MB so far
The shapes and the random weights' scale are bench_forward's.  Float32 throughout, as the engine's.
"""
import resource
import sys
import time

import torch
import torch.nn.functional as F

QUICK = "--quick" in sys.argv
THREADS = int(sys.argv[sys.argv.index("--threads") + 1]) if "--threads" in sys.argv else 2
D, KV, FFN, VOCAB, LAYERS, HEADS, KV_HEADS = \
    (192, 64, 512, 8192, 6, 3, 1) if QUICK else (576, 192, 1536, 49152, 30, 9, 3)
HEAD = D // HEADS
torch.set_num_threads(THREADS)
torch.set_flush_denormal(True)
torch.manual_seed(0)


def matrix(rows, cols):
    return torch.randn(rows, cols) * 0.02


embed, last_norm = matrix(VOCAB, D), torch.ones(D)
layers = [{"n1": torch.ones(D), "q": matrix(D, D), "k": matrix(KV, D), "v": matrix(KV, D), "o": matrix(D, D),
           "n2": torch.ones(D), "gate": matrix(FFN, D), "up": matrix(FFN, D), "down": matrix(D, FFN)}
          for _ in range(LAYERS)]
parameters = [embed, last_norm] + [w for layer in layers for w in layer.values()]
inv_freq = 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
angles = torch.outer(torch.arange(256), inv_freq).repeat(1, 2)
COS, SIN = angles.cos(), angles.sin()


def rotate(x):
    n, half = x.shape[2], HEAD // 2
    return x * COS[:n] + torch.cat((-x[..., half:], x[..., :half]), -1) * SIN[:n]


def loss(ids):
    b, t = ids.shape[0], ids.shape[1] - 1
    x = F.embedding(ids[:, :-1], embed)
    for w in layers:
        h = F.rms_norm(x, (D,), w["n1"], 1e-5)
        q = F.linear(h, w["q"]).view(b, t, HEADS, HEAD).transpose(1, 2)
        k = F.linear(h, w["k"]).view(b, t, KV_HEADS, HEAD).transpose(1, 2)
        v = F.linear(h, w["v"]).view(b, t, KV_HEADS, HEAD).transpose(1, 2)
        k, v = (y.repeat_interleave(HEADS // KV_HEADS, 1) for y in (rotate(k), v))
        a = F.scaled_dot_product_attention(rotate(q), k, v, is_causal=True)
        x = x + F.linear(a.transpose(1, 2).reshape(b, t, D), w["o"])
        h = F.rms_norm(x, (D,), w["n2"], 1e-5)
        x = x + F.linear(F.silu(F.linear(h, w["gate"])).mul_(F.linear(h, w["up"])), w["down"])
    logits = F.linear(F.rms_norm(x, (D,), last_norm, 1e-5), embed)
    return F.cross_entropy(logits.view(-1, VOCAB), ids[:, 1:].reshape(-1)).item()


def add_noise(seed, scale):
    g = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.add_(torch.randn(p.shape, generator=g), alpha=scale)


def mezo(ids, seed, eps=1e-3, lr=1e-7):
    add_noise(seed, eps)
    plus = loss(ids)
    add_noise(seed, -2 * eps)
    minus = loss(ids)
    add_noise(seed, eps)
    add_noise(seed, -lr * (plus - minus) / (2 * eps))


def main():
    print(f'{{"bench": "torch", "version": "{torch.__version__}", "threads": {THREADS}, '
          f'"parameters": {sum(p.numel() for p in parameters)}}}', flush=True)
    seed = 0
    for line in sys.stdin:
        what, shape = line.split()
        n, t = map(int, shape.split("x"))
        ids = torch.randint(VOCAB, (n, t + 1), generator=torch.Generator().manual_seed(7))
        seed += 1
        start = time.perf_counter()
        with torch.inference_mode():
            if what == "plain":
                loss(ids)
            elif what == "mezo":
                mezo(ids, seed)
            elif what == "replay":
                add_noise(seed, -1e-9)
        took = time.perf_counter() - start
        if what == "rss":
            took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{took:.6f}", flush=True)


main()
