#!/usr/bin/env python3
"""MeZO's step in PyTorch, BF16, at OPT's shapes with random weights: what bench/gpu.sh compares with.

    torch_mezo.py 1.3b|13b|tiny [EXAMPLES TOKENS]      JSON lines; CUDA if there is one, else the CPU (tiny)

The step is MeZO's (arXiv 2305.17333, its trainer.py): perturb by seed, forward, perturb by -2, forward, restore, update; all
of a batch along one direction.  Attention is PyTorch's fused one; the loss is taken over every token.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

SHAPES = {"tiny": (64, 2, 4, 256, 512, 128), "1.3b": (2048, 24, 32, 8192, 50272, 2048),
          "13b": (5120, 40, 40, 20480, 50272, 2048)}
SHAPE = sys.argv[1]
D, LAYERS, HEADS, FFN, VOCAB, CONTEXT = SHAPES[SHAPE]
EXAMPLES, TOKENS = (int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 3 else (16, 400)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS, LR, REPEATS = 1e-3, 1e-7, 3
torch.manual_seed(0)


def matrix(rows, cols):
    return torch.randn(rows, cols, device=DEVICE, dtype=torch.bfloat16) * 0.02


def vector(n, value):
    return torch.full((n,), value, device=DEVICE, dtype=torch.bfloat16)


def linear(n_in, n_out):
    return matrix(n_out, n_in), vector(n_out, 0.0)


embed, positions = matrix(VOCAB, D), matrix(CONTEXT + 2, D)
layers = [{"n1": (vector(D, 1.0), vector(D, 0.0)), "q": linear(D, D), "k": linear(D, D), "v": linear(D, D),
           "o": linear(D, D), "n2": (vector(D, 1.0), vector(D, 0.0)), "up": linear(D, FFN), "down": linear(FFN, D)}
          for _ in range(LAYERS)]
last = (vector(D, 1.0), vector(D, 0.0))
parameters = [embed, positions, *last] + [t for layer in layers for pair in layer.values() for t in pair]


@torch.inference_mode()
def loss(ids):
    b, t = ids.shape[0], ids.shape[1] - 1
    x = F.embedding(ids[:, :-1], embed) + positions[2:t + 2]
    for w in layers:
        h = F.layer_norm(x, (D,), *w["n1"])
        q, k, v = (F.linear(h, *w[n]).view(b, t, HEADS, D // HEADS).transpose(1, 2) for n in "qkv")
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.linear(a.transpose(1, 2).reshape(b, t, D), *w["o"])
        x = x + F.linear(F.relu(F.linear(F.layer_norm(x, (D,), *w["n2"]), *w["up"])), *w["down"])
    logits = F.linear(F.layer_norm(x, (D,), *last), embed)
    return F.cross_entropy(logits.view(-1, VOCAB), ids[:, 1:].reshape(-1))


@torch.inference_mode()
def perturb(seed, scale):
    torch.manual_seed(seed)
    for p in parameters:
        p.add_(torch.normal(0.0, 1.0, p.shape, device=DEVICE, dtype=p.dtype), alpha=scale)


def step(ids, seed):
    perturb(seed, EPS)
    plus = loss(ids).item()
    perturb(seed, -2 * EPS)
    minus = loss(ids).item()
    perturb(seed, EPS)
    perturb(seed, -LR * (plus - minus) / (2 * EPS))


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def best(f):
    times = []
    for i in range(REPEATS + 1):
        wait()
        began = time.monotonic()
        f(i)
        wait()
        times.append(time.monotonic() - began)
    return min(times[1:])


def figure(name, value, unit):
    print(json.dumps({"figure": name, "shape": SHAPE, "batch": f"{EXAMPLES}x{TOKENS}", "value": value, "unit": unit}), flush=True)


tokens = torch.randint(0, VOCAB, (EXAMPLES, TOKENS), device=DEVICE)
figure("PyTorch forward pass", best(lambda i: loss(tokens).item()), "s")
figure("PyTorch MeZO step", best(lambda i: step(tokens, i)), "s")
if DEVICE == "cuda":
    figure("PyTorch device memory", torch.cuda.max_memory_allocated() * 1e-9, "GB")
figure("PyTorch", 0, f"{torch.__version__} on {torch.cuda.get_device_name() if DEVICE == 'cuda' else 'CPU'}")
