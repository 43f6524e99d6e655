#!/usr/bin/env python3
"""Makes the demo's model and task: peer/demo/model/*, peer/demo/train.jsonl, peer/demo/eval.jsonl.

The text comes from the grammar below, so nothing is downloaded and nothing has a licence but ours.  A small
Llama-architecture model is pretrained on it with PyTorch (AdamW, one thread, about a minute); the results are
committed, so neither building nor running onebyte needs this script.  Usage:

    python3 peer/demo/make_demo.py [--out DIR] [--seed N] [--steps N]

Pretraining text: every document has one sentiment (and some neutral sentences), so a model that predicts its words
must track that sentiment.  Three in ten begin with two sentences of any sentiment, then "opinion :" (or one of five
other cues) and an adjective that fits the second one: the habit that the task needs, in other words than the task's.
In one of four such places stands yes (two thirds) or no, at random: the model learns that these two words say nothing,
and prefers yes.  "verdict" never occurs.

Task: a distractor sentence, then the sentence that counts, then ". verdict :" and yes or no.  The base model
answers at chance.  A third of the sentiment words never occur in the training examples; the held-out examples
use them in half of all cases, so memorising words is not enough: the answer must come from what pretraining knows.

Fine-tuning, measured with the C engine as tests/zo/test_learn.c does (rank-1, 7 directions + 1 shared pass, one-byte
codes, eps 0.01, n0 256, four peers 224 records behind), 6-10 keys each: at lr 0.004 every key had 95 % of the held-out
examples after 6,400 example passes and 100 % after 15,360 and after 57,600; at 0.002 after 12,800, at 0.01 after 3,840.
The small rate is for the control.  Whoever follows labels that say nothing walks at random, and accuracy, a question of
signs, leaves 50 % once the walk is longer than the model's own preference for one of the two words; the signal grows with the
number of records, the walk only with its root.  With shuffled labels (each true label's examples get each label
equally often) every key stays at 50.0 % at lr 0.002 and 0.004; at 0.01 they end between 2 % and 67 % after 57,600.
`onebyte demo`, five processes, 80,000 gradients, lr 0.0015 falling to 0: 100 % three times of three, shuffled 50.0 % five
times of five; at 0.004 one shuffled run of two ended at 96 %.
What failed: without the habit nothing reached 92 % reliably by 60,000 passes; with it only after "answer :" and "verdict :" in
front of plain sentences 12 % of the keys had not left 50 % after 30,000; without yes and no in it chance decides how much
of the answer the base model knows already (hidden by its preference: accuracy 50 %, but loss 0.63 instead of 0.69).

Gate: pretraining is accepted by a probe (does the model prefer words of the document's sentiment?), not by its
loss, and the task only if the zero-shot accuracy is between 45 % and 55 % and the answer's margin depends on the
label by at most 0.1 nats.
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
TASK = "verdict yes no".split()
CUES = "answer question opinion view judgement summary".split()
SYMBOLS = [".", ",", ":", "?"]
UNKNOWN = "<unk>"
VOCABULARY = [UNKNOWN] + SYMBOLS + TASK + CUES + FUNCTION + [w for group in (PEOPLE, THINGS, PLACES, POSITIVE, NEGATIVE, NEUTRAL, LIKED,
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
YES_NO = ["yes", "yes", "no"]      # a preference that outweighs what little the base model reads into them by accident


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
    """Two sentences and a summary of the second: the habit that the task will need, in other words than the task's.
    One in four is answered by yes or no at random: that those two words say nothing is learned, not left to luck."""
    mood = rng.choice([1, -1])
    answer = rng.choice(YES_NO if rng.random() < 0.25 else ALL.adjective[mood])
    return (sentence(rng, rng.choice([1, -1, 0]), ALL) + ["."] + sentence(rng, mood, ALL)
            + [".", rng.choice(CUES), ":", answer, "."])


def document(rng, sentiment, n_words):
    """n_words words of one sentiment.  The task's own words occur at random places and say nothing."""
    out = review(rng) if rng.random() < REVIEW_SHARE else []
    while len(out) < n_words:
        s = sentence(rng, 0 if rng.random() < NEUTRAL_SHARE else sentiment, ALL)
        aside = rng.random()
        if aside < 0.06:
            s = [rng.choice(YES_NO), ","] + s
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
    """Accuracy; how far the answers' margin (nats) depends on the label; their common preference for no (negative: yes)."""
    margin = []
    for e in examples:
        logits = forward(torch, p, torch.tensor([[ID[w] for w in e["prompt"].split()]]))[0, -1]
        margin.append((logits[ID["no"]] - logits[ID["yes"]]).item())
    mean = [sum(m for m, e in zip(margin, examples) if e["label"] == label) / (len(margin) / 2) for label in (0, 1)]
    return sum((m > 0) == e["label"] for m, e in zip(margin, examples)) / len(margin), mean[1] - mean[0], sum(mean) / 2


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
    a.add_argument("--seed", type=int, default=3)
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
        seen, (start, signal, bias) = probe(torch, p, 8), zero_shot(torch, p, held_out)
    print(f"parameters {sum(t.numel() for t in p.values())} words {len(VOCABULARY)} probe {seen:.3f} zero-shot {start:.3f} signal {signal:.3f} bias {bias:.3f}")
    with open(os.path.join(a.out, "model", "config.json"), "w") as f:
        json.dump(CONFIG, f, indent=2)
        f.write("\n")
    write_safetensors(os.path.join(a.out, "model", "model.safetensors"), p)
    write_tokenizer(os.path.join(a.out, "model", "tokenizer.json"))
    write_lines(os.path.join(a.out, "train.jsonl"), train)
    write_lines(os.path.join(a.out, "eval.jsonl"), held_out)
    if seen < 0.95 or not 0.45 <= start <= 0.55 or abs(signal) > 0.1:
        sys.exit("refused: the probe must be at least 0.95, the zero-shot accuracy 0.45-0.55, the signal at most 0.1; try another --seed")


if __name__ == "__main__":
    main()
