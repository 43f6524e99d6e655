#!/usr/bin/env python3
"""Makes the demo's model and task: peer/demo/model/*, peer/demo/train.jsonl, peer/demo/eval.jsonl.

The text comes from the grammar below, so nothing is downloaded and nothing has a licence but ours.  A small
Llama-architecture model is pretrained on it with PyTorch (AdamW, one thread, about a minute); the results are
committed, so neither building nor running onebyte needs this script.  Usage:

    python3 peer/demo/make_demo.py [--out DIR] [--seed N] [--steps N]

Pretraining text: every document has one sentiment (and some neutral sentences), so a model that predicts its words
must track that sentiment.  Three in ten begin with two sentences of any sentiment, "answer :" and an adjective that
fits the second one: the habit that the task needs, in other words than the task's.  "yes", "no" and "verdict" occur
too, but say nothing about sentiment.

Task: a distractor sentence, then the sentence that counts, then ". verdict :" and yes or no.  The base model
answers at chance.  A third of the sentiment words never occur in the training examples; the held-out examples
use them in half of all cases, so memorising words is not enough: the answer must come from what pretraining knows.

Fine-tuning, simulated in PyTorch with one-byte codes and four peers that lag a segment of 56 behind each other, eps
0.01, step per record lr / n0 = 3e-4, several seeds.  Rank-1, 7 directions + 1 shared pass: 50 % at the start, 99 % of
the held-out examples by 6,000-10,000 example passes, 99.3-100 % from 12,000 to 60,000; rademacher and gaussian the
same; two-sided 99 % by 6,000-10,000 (dense kinds 15,000-21,000), but with segments of 112 only 72 % by 30,000.  Half as
large a step takes twice as long, half as much again is fine, three times diverges.  Without the "answer :" habit
nothing reached 92 % reliably by 60,000.  Labels shuffled so that they agree with the true ones in exactly half of all
cases: 42-58 % at the end; drawn with a coin they agree a little more or less, and runs ended from 29 % to 65 %.

Gate: pretraining is accepted by a probe (does the model prefer words of the document's sentiment?), not by its
loss, and the task only if the zero-shot accuracy is between 45 % and 55 %.
"""
import argparse, json, math, os, random, struct, sys

PEOPLE = """anna boris carla david elena felix greta henry irene jacob karla lewis maria nigel olive peter quinn
rosa simon tilda uwe vera walter xenia yusuf zora adam berta conrad dora""".split()
THINGS = """film book meal song play show concert story poem novel soup cake bread dinner lunch album painting lecture
game match hotel room garden bridge lamp chair table coat bag phone""".split()
PLACES = """town village city station harbour market museum theatre library park school office kitchen valley
island""".split()
POSITIVE = """wonderful superb lovely delightful excellent brilliant charming splendid marvellous fantastic pleasant
graceful elegant fresh joyful inspiring radiant perfect admirable great beautiful impressive clever warm generous
tasteful funny thrilling refreshing magnificent""".split()
NEGATIVE = """awful terrible dreadful horrible boring dull ugly nasty bitter stale clumsy annoying disgusting miserable
pathetic broken shabby tedious gloomy bad painful disappointing stupid cold greedy tasteless sad tiresome depressing
hideous""".split()
NEUTRAL = """red blue green small large round square old new long short wooden yellow grey white""".split()
LIKED = "loved enjoyed praised admired adored recommended celebrated treasured".split()
HATED = "hated disliked criticised despised loathed rejected condemned regretted".split()
SAW = "saw found noticed described mentioned remembered visited bought".split()
HAPPY = "smiled laughed cheered applauded sang danced grinned rejoiced".split()
UNHAPPY = "frowned cried complained sighed groaned wept grumbled shouted".split()
DID = "waited walked sat stood slept arrived left worked".split()
VERY = "very really quite truly so rather".split()
TIMES = "today yesterday tonight later again once".split()
FUNCTION = """the a and it was is that this in at near because then when everyone nobody said thought felt looked seemed to
of with who every they""".split()
TASK = "verdict yes no question answer".split()
SYMBOLS = [".", ",", ":", "?"]
UNKNOWN = "<unk>"
VOCABULARY = [UNKNOWN] + SYMBOLS + TASK + FUNCTION + [w for group in (PEOPLE, THINGS, PLACES, POSITIVE, NEGATIVE, NEUTRAL, LIKED,
              HATED, SAW, HAPPY, UNHAPPY, DID, VERY, TIMES) for w in group]
assert len(VOCABULARY) == len(set(VOCABULARY)), "a word occurs twice"
ID = {w: i for i, w in enumerate(VOCABULARY)}

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(VOCABULARY), "hidden_size": 64,
    "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": None, "torch_dtype": "float32",
}
NEUTRAL_SHARE = 0.12
REVIEW_SHARE = 0.3


# ---- grammar ------------------------------------------------------------------------------------------------------

class Words:
    """The sentiment words a text may use: +1 and -1 adjectives, verbs, reactions; 0 is neutral."""

    def __init__(self, part):
        self.adjective = {1: part(POSITIVE), -1: part(NEGATIVE), 0: NEUTRAL}
        self.verb = {1: part(LIKED), -1: part(HATED), 0: SAW}
        self.reaction = {1: part(HAPPY), -1: part(UNHAPPY), 0: DID}


ALL = Words(lambda words: words)
SEEN = Words(lambda words: [w for i, w in enumerate(words) if i % 3 != 2])     # with labels in train.jsonl
UNSEEN = Words(lambda words: [w for i, w in enumerate(words) if i % 3 == 2])   # only in eval.jsonl


def sentence(rng, sentiment, words):
    """A list of words, without the full stop."""
    c = rng.choice
    adj, verb, react = words.adjective[sentiment], words.verb[sentiment], words.reaction[sentiment]
    very = [c(VERY)] if rng.random() < 0.4 else []
    place = ["in" if rng.random() < 0.5 else "near", "the", c(PLACES)] if rng.random() < 0.2 else []
    form = rng.randrange(8)
    if form == 0:
        return ["the", c(THINGS), "was"] + very + [c(adj)] + place
    if form == 1:
        return [c(PEOPLE), c(verb), "the", c(adj), c(THINGS)] + place
    if form == 2:
        return [c(PEOPLE), c(verb), "the", c(THINGS)] + place + ["and", c(react)]
    if form == 3:
        return [c(PEOPLE), c(react), "because", "the", c(THINGS), "was"] + very + [c(adj)]
    if form == 4:
        return ["it", "was", "a"] + very + [c(adj), "and", c(adj), c(THINGS)]
    if form == 5:
        return ["everyone", "in", "the", c(PLACES), c(react)]
    if form == 6:
        return [c(PEOPLE), c(["said", "thought", "felt"]), "that", "the", c(THINGS), "looked" if rng.random() < 0.5 else "seemed",
                c(adj)]
    return ["this", "is", "a", c(adj), c(THINGS), ",", c(PEOPLE), "said"]


def review(rng):
    """Two sentences and a summary of the second: the habit that the task will need, in other words than the task's."""
    mood = rng.choice([1, -1])
    return (sentence(rng, rng.choice([1, -1, 0]), ALL) + ["."] + sentence(rng, mood, ALL)
            + [".", "answer", ":", rng.choice(ALL.adjective[mood]), "."])


def document(rng, sentiment, n_words):
    """n_words words of one sentiment.  The task's own words occur at random places and say nothing."""
    out = review(rng) if rng.random() < REVIEW_SHARE else []
    while len(out) < n_words:
        s = sentence(rng, 0 if rng.random() < NEUTRAL_SHARE else sentiment, ALL)
        aside = rng.random()
        if aside < 0.06:
            s = [rng.choice(["yes", "no"]), ","] + s
        elif aside < 0.10:
            s = [rng.choice(["question", "answer", "verdict"]), ":"] + s
        elif aside < 0.14:
            s = s + [rng.choice(TIMES)]
        out += s + ["."]
    return out[:n_words]


# ---- task ---------------------------------------------------------------------------------------------------------

def example(rng, words, label, distractor):
    """label 0: yes (positive), 1: no (negative)."""
    counts = sentence(rng, 1 if label == 0 else -1, words)
    prompt = sentence(rng, distractor, words) + ["."] + counts + [".", "verdict", ":"]
    return {"prompt": " ".join(prompt), "choices": [" yes", " no"], "label": label}


def task(seed, n, half_unseen, taken):
    """n examples with equally many labels, none whose prompt is in `taken` (added to)."""
    rng, out = random.Random(seed), []
    while len(out) < n:
        words = UNSEEN if half_unseen and len(out) // 6 % 2 else SEEN
        e = example(rng, words, len(out) % 2, (1, -1, 0)[len(out) // 2 % 3])
        if e["prompt"] not in taken:
            taken.add(e["prompt"])
            out.append(e)
    rng.shuffle(out)
    return out


# ---- model: pure functions of a dictionary of tensors, names as in Hugging Face checkpoints ------------------------

def parameters(torch, seed):
    g = torch.Generator().manual_seed(seed)
    d, f, kv = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    n_layers = CONFIG["num_hidden_layers"]
    shapes = {"model.embed_tokens.weight": (len(VOCABULARY), d), "model.norm.weight": (d,)}
    for i in range(n_layers):
        p = f"model.layers.{i}."
        shapes |= {p + "self_attn.q_proj.weight": (d, d), p + "self_attn.k_proj.weight": (kv, d),
                   p + "self_attn.v_proj.weight": (kv, d), p + "self_attn.o_proj.weight": (d, d),
                   p + "mlp.gate_proj.weight": (f, d), p + "mlp.up_proj.weight": (f, d), p + "mlp.down_proj.weight": (d, f),
                   p + "input_layernorm.weight": (d,), p + "post_attention_layernorm.weight": (d,)}
    out = {}
    for name, shape in sorted(shapes.items()):
        if len(shape) == 1:
            out[name] = torch.ones(shape)
        else:
            deep = name.endswith(("o_proj.weight", "down_proj.weight"))
            out[name] = torch.randn(shape, generator=g) * (0.05 / math.sqrt(2 * n_layers) if deep else 0.05)
    return out


def forward(torch, p, ids):
    """logits (B, T, vocabulary) of ids (B, T)."""
    F = torch.nn.functional
    H, KV, D = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"], CONFIG["head_dim"]
    B, T = ids.shape

    def norm(x, w):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]) * w

    angle = torch.arange(T)[:, None] * (CONFIG["rope_theta"] ** (-torch.arange(0, D, 2) / D))[None]
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)

    def rotate(x):                                               # (B, heads, T, D), halves as Hugging Face does
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    x = F.embedding(ids, p["model.embed_tokens.weight"])
    for i in range(CONFIG["num_hidden_layers"]):
        w = lambda name: p[f"model.layers.{i}.{name}.weight"]
        h = norm(x, w("input_layernorm"))
        q = rotate((h @ w("self_attn.q_proj").T).view(B, T, H, D).transpose(1, 2))
        k = rotate((h @ w("self_attn.k_proj").T).view(B, T, KV, D).transpose(1, 2))
        v = (h @ w("self_attn.v_proj").T).view(B, T, KV, D).transpose(1, 2)
        k, v = k.repeat_interleave(H // KV, 1), v.repeat_interleave(H // KV, 1)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + a.transpose(1, 2).reshape(B, T, H * D) @ w("self_attn.o_proj").T
        h = norm(x, w("post_attention_layernorm"))
        x = x + (F.silu(h @ w("mlp.gate_proj").T) * (h @ w("mlp.up_proj").T)) @ w("mlp.down_proj").T
    return norm(x, p["model.norm.weight"]) @ p["model.embed_tokens.weight"].T


# ---- pretraining --------------------------------------------------------------------------------------------------

def batch_ids(torch, rng, n, n_words):
    return torch.tensor([[ID[w] for w in document(rng, rng.choice([1, -1]), n_words)] for _ in range(n)])


def probe(torch, p, seed):
    """Share of documents after which the model gives the words of their sentiment more probability than the others'."""
    rng, right, n = random.Random(seed), 0, 400
    good, bad = [ID[w] for w in POSITIVE], [ID[w] for w in NEGATIVE]
    for i in range(n):
        mood = 1 if i % 2 else -1
        words = sentence(rng, mood, ALL) + ["."] + ["the", rng.choice(THINGS), "was"]
        logp = forward(torch, p, torch.tensor([[ID[w] for w in words]]))[0, -1].log_softmax(-1)
        right += (logp[good].logsumexp(0) > logp[bad].logsumexp(0)).item() == (mood > 0)
    return right / n


def pretrain(torch, seed, steps, batch=32, n_words=32):
    rng, p = random.Random(seed), parameters(torch, seed)
    for w in p.values():
        w.requires_grad_(True)
    decay = [w for w in p.values() if w.dim() > 1]
    rest = [w for w in p.values() if w.dim() == 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=3e-3,
                            betas=(0.9, 0.98))
    for step in range(steps):
        rate = 3e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for g in opt.param_groups:
            g["lr"] = rate
        ids = batch_ids(torch, rng, batch, n_words)
        logits = forward(torch, p, ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        opt.step()
        if step % 200 == 0 or step == steps - 1:
            with torch.no_grad():
                print(f"step {step} loss {loss.item():.4f} probe {probe(torch, p, 7):.3f}", flush=True)
    return {k: w.detach() for k, w in p.items()}


def zero_shot(torch, p, examples):
    right = 0
    for e in examples:
        logits = forward(torch, p, torch.tensor([[ID[w] for w in e["prompt"].split()]]))[0, -1]
        right += int(logits[ID["no"]] > logits[ID["yes"]]) == e["label"]
    return right / len(examples)


# ---- files --------------------------------------------------------------------------------------------------------

def write_safetensors(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, t in sorted(tensors.items()):
        raw = struct.pack(f"<{t.numel()}f", *t.flatten().tolist())
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def write_tokenizer(path):
    """WordLevel over the vocabulary, split by the tokenizers library's Whitespace rule (\\w+ or other symbols)."""
    special = {"id": 0, "content": UNKNOWN, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
               "special": True}
    with open(path, "w") as f:
        json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special], "normalizer": None,
                   "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
                   "model": {"type": "WordLevel", "vocab": ID, "unk_token": UNKNOWN}}, f, indent=0)
        f.write("\n")


def write_lines(path, examples):
    with open(path, "w") as f:
        for e in examples:
            f.write(json.dumps(e) + "\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--out", default=here)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--steps", type=int, default=1800)
    a.add_argument("--train", type=int, default=3000)
    a.add_argument("--eval", type=int, default=600)
    a = a.parse_args()
    import torch
    torch.set_num_threads(1)
    os.makedirs(os.path.join(a.out, "model"), exist_ok=True)
    taken = set()
    held_out = task(a.seed + 1000, a.eval, True, taken)
    train = task(a.seed + 2000, a.train, False, taken)
    p = pretrain(torch, a.seed, a.steps)
    with torch.no_grad():
        seen, start = probe(torch, p, 8), zero_shot(torch, p, held_out)
    print(f"parameters {sum(t.numel() for t in p.values())} words {len(VOCABULARY)} probe {seen:.3f} zero-shot {start:.3f}")
    with open(os.path.join(a.out, "model", "config.json"), "w") as f:
        json.dump(CONFIG, f, indent=2)
        f.write("\n")
    write_safetensors(os.path.join(a.out, "model", "model.safetensors"), p)
    write_tokenizer(os.path.join(a.out, "model", "tokenizer.json"))
    write_lines(os.path.join(a.out, "train.jsonl"), train)
    write_lines(os.path.join(a.out, "eval.jsonl"), held_out)
    if seen < 0.95 or not 0.45 <= start <= 0.55:
        sys.exit("refused: the probe must be at least 0.95 and the zero-shot accuracy between 0.45 and 0.55; try another --seed")


if __name__ == "__main__":
    main()
