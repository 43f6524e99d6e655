#!/usr/bin/env python3
"""Compares token ids with the `tokenizers` library over mixed text: every text, every id.

Usage: python tests/check_tokenizers.py [--tool build/release/tests/zo/encode_texts] [--all] [--time]
Needs the PyPI package `tokenizers`; real tokenizers come from ../shared/data when it is there, and small ones of
every kind are trained here on the spot.  --all: every text of the corpus, a minute; without it every eighth.
Exit code 0: all equal, or skipped (no library).
"""
import argparse
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

try:
    import tokenizers
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers, processors, trainers
except ImportError as e:
    own = pathlib.Path(__file__).resolve().parent.parent / "build/venv/bin/python"
    if own.exists() and pathlib.Path(sys.prefix) != own.parent.parent:  # the test runner's Python is the system's
        os.execv(own, [str(own), *sys.argv])
    print(f"skip check_tokenizers: needs the PyPI packages of tests/reference/requirements.txt: {e}")
    sys.exit(0)

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
HAND = [
    "", " ", "  ", "\n", "a", "Hello, world!", "It's they're WE'LL I'd 'S 'ſ don't", "x" * 500, " " * 300,
    "tabs\tand\nnew\r\nlines \r \n\n  end  ", "12345 6 78 9.10 1,000,000 ½ ² ٣ 三 Ⅷ", "naïve café e\u0301 Å \u212b ﬁ ﬀ",
    "日本語のテキスト、中文文本。한국어 텍스트 ไทย हिन्दी বাংলা עברית العربية Ελληνικά ΣΑΣ Русский", "İstanbul ıI ß ẞ Ǆ",
    "😀👍🏽👨‍👩‍👧‍👦🇩🇪 ❤️ \u200b\u200d\ufeff", "\x00\x01\x02 \x7f \x85 \u00a0 \u180e \u2028 \u3000", "<s> </s> <|endoftext|> [CLS][SEP] <unk>",
    "a<s>b  <s>  c<mask> d", "▁under ▁ ▁▁x", "Ġ Ċ ĉ", "def f(x):\n    return x**2 + 3 # comment\n\n\nclass A(B): pass",
    "https://example.com/a?b=c&d=%20#frag user@host --flag=1 $HOME/~x", "\ufffd \ufffe \U000f0000 \U0010ffff",
    "ⓐⓑ 🅰 _under_score__ a_b ‿ x·y", "don 't do not isn't I 'm ' s .. , ! ?", "A\u0300\u0301B\u0328 \u0344 \u1e9b\u0323",
]


def corpus(seed=1):
    """Texts of many kinds.  Only characters that were assigned before Unicode 14, which all tables know."""
    rng = random.Random(seed)
    texts = list(HAND)
    for name in ("peer", "zo", "net", "include", "tests"):
        for path in sorted((ROOT / name).rglob("*.[chp]*"))[:40]:
            text = path.read_text(errors="replace")
            texts += [text[:3000], text[len(text) // 2:][:1500]]
    for path, count in (("tinystories/eval40.jsonl", 40), ("gsm8k/test.jsonl", 300), ("sst2/dev.tsv", 300),
                        ("rte/dev.tsv", 100), ("cb/val.jsonl", 40)):
        if (SHARED / path).exists():
            texts += (SHARED / path).read_text().splitlines()[:count]
    old = [chr(c) for c in range(0x30000) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"]
    assert unicodedata.unidata_version <= "15.1"
    old = [c for c in old if not 0x2FF0 <= ord(c) <= 0x2FFF and not 0x11F00 <= ord(c) <= 0x11F59
           and not 0x1E030 <= ord(c) <= 0x1E08F and not 0x2EBF0 <= ord(c) <= 0x2EE5D]
    words = ["the", "of", "Hello", "'s", "'ll", " ", "  ", "\n", "\t", "123", "4", ".", ",", "!!", "<s>", "▁", "é", "中"]
    for _ in range(1500):
        n = rng.randrange(1, 40)
        texts.append("".join(rng.choice(old) if rng.random() < 0.3 else
                             rng.choice(words) if rng.random() < 0.7 else chr(rng.randrange(32, 0x2FF))
                             for _ in range(n)))
    return texts


def byte_level_from(folder, pattern=None, normalizer=None):
    tok = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    if pattern:
        tok.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer:
        tok.normalizer = normalizer
    tok.decoder = decoders.ByteLevel()
    return tok


QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def real():
    """(name, folder, reference)"""
    out = []
    for name in ("gpt2", "falcon"):
        if (SHARED / "tokenizers" / name).exists():
            ref = Tokenizer.from_file(str(SHARED / "tokenizers" / name / "tokenizer.json"))
            ref.no_truncation()
            out.append((name, SHARED / "tokenizers" / name, ref))
    folder = SHARED / "models" / "stories260k"
    if folder.exists():
        out.append(("stories260k", folder, Tokenizer.from_file(str(folder / "tokenizer.json"))))
    folder = SHARED / "tokenizers" / "opt"
    if folder.exists():
        ref = byte_level_from(folder)
        ref.add_special_tokens([AddedToken(t, normalized=False) for t in ("<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>")])
        ref.add_special_tokens([AddedToken("<mask>", normalized=False, lstrip=True)])
        out.append(("opt (vocab.json + merges.txt)", folder, ref))
    folder = SHARED / "tokenizers" / "qwen2"
    if folder.exists():
        ref = byte_level_from(folder, QWEN, normalizers.NFC())
        ref.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        out.append(("qwen2 (vocab.json + merges.txt)", folder, ref))
    return out


def protobuf_field(data, want):
    """The first length-delimited field `want` of a protobuf message."""
    def varint(i):
        value = shift = 0
        while True:
            value |= (data[i] & 127) << shift
            shift += 7
            i += 1
            if data[i - 1] < 128:
                return value, i
    i = 0
    while i < len(data):
        key, i = varint(i)
        if key & 7 == 2:
            n, i = varint(i)
            if key >> 3 == want:
                return data[i:i + n]
            i += n
        elif key & 7 == 0:
            _, i = varint(i)
        else:
            i += 4 if key & 7 == 5 else 8
    raise ValueError("no such field")


def charsmaps():
    """SentencePiece's compiled normalizers: the usual one, and a small one of our own rules."""
    try:
        import sentencepiece
    except ImportError:
        print("no sentencepiece: its compiled normalizer is not compared")
        return {}
    out = {}
    with tempfile.TemporaryDirectory() as tmp:
        rules = pathlib.Path(tmp) / "rules.tsv"
        rules.write_text("41\t61\n42 43\t78 79 7A\n300\t\nE9\t65\n65 301\t45 45\n3042\t4E2D 56FD\nA0\t20\nFB01\t66 69\n")
        for name, options in (("nmt_nfkc", dict(normalization_rule_name="nmt_nfkc")),
                              ("own", dict(normalization_rule_tsv=str(rules)))):
            sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["abcd efgh", "e f a b"] * 9), model_prefix=f"{tmp}/m",
                                                     vocab_size=40, hard_vocab_limit=False, minloglevel=2, **options)
            spec = protobuf_field(pathlib.Path(f"{tmp}/m.model").read_bytes(), 3)  # normalizer_spec
            out[name] = protobuf_field(spec, 2)                                   # precompiled_charsmap
    return out


def trained(texts, size=1200, alphabet_size=80):
    """Small tokenizers of every kind, trained here."""
    out = []

    def make(name, model, trainer, **parts):
        tok = Tokenizer(model)
        for key in ("normalizer", "pre_tokenizer", "decoder"):
            if key in parts:
                setattr(tok, key, parts[key])
        tok.train_from_iterator(texts, trainer)
        if "added" in parts:
            tok.add_tokens(parts["added"])
        if "post" in parts:
            tok.post_processor = parts["post"](tok)
        out.append((name, tok))

    def template(tok):
        return processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[
            ("<s>", tok.token_to_id("<s>")), ("</s>", tok.token_to_id("</s>"))])

    special = ["<unk>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe = dict(vocab_size=size, special_tokens=special, show_progress=False)
    make("llama3-like", models.BPE(ignore_merges=True), trainers.BpeTrainer(initial_alphabet=alphabet, **bpe),
         pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                                pre_tokenizers.ByteLevel(False, use_regex=False)]),
         decoder=decoders.ByteLevel(), post=template)
    make("byte-level with prefix space", models.BPE(), trainers.BpeTrainer(initial_alphabet=alphabet, **bpe),
         pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True), decoder=decoders.ByteLevel(),
         added=[AddedToken("<mask>", lstrip=True), AddedToken("ing", single_word=True),
                AddedToken("<r>", rstrip=True), AddedToken("HELLO", normalized=True)])
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            make(f"metaspace {scheme} split={split}", models.BPE(unk_token="<unk>", fuse_unk=split),
                 trainers.BpeTrainer(limit_alphabet=alphabet_size, **bpe),
                 pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split),
                 decoder=decoders.Metaspace(prepend_scheme=scheme, split=split), post=template)
    make("suffix </w>", models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"),
         trainers.BpeTrainer(end_of_word_suffix="</w>", limit_alphabet=alphabet_size, **bpe), normalizer=normalizers.Lowercase(),
         pre_tokenizer=pre_tokenizers.WhitespaceSplit(), decoder=decoders.BPEDecoder("</w>"))
    make("prefix ##", models.BPE(unk_token="<unk>", continuing_subword_prefix="##"),
         trainers.BpeTrainer(continuing_subword_prefix="##", limit_alphabet=alphabet_size, **bpe),
         pre_tokenizer=pre_tokenizers.Whitespace())
    cls = ["[UNK]", "[CLS]", "[SEP]"]
    for lower in (True, False):
        make(f"bert lowercase={lower}", models.WordPiece(unk_token="[UNK]"),
             trainers.WordPieceTrainer(vocab_size=size + 300, limit_alphabet=alphabet_size * 5, special_tokens=cls, show_progress=False),
             normalizer=normalizers.BertNormalizer(lowercase=lower), pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
             decoder=decoders.WordPiece(),
             post=lambda t: processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]"))))
    forms = {"NFC": normalizers.NFC, "NFD": normalizers.NFD, "NFKC": normalizers.NFKC, "NFKD": normalizers.NFKD}
    for form, cls_ in forms.items():
        make(f"word level {form}", models.WordLevel(unk_token="<unk>"),
             trainers.WordLevelTrainer(vocab_size=size * 2, special_tokens=special, show_progress=False),
             normalizer=normalizers.Sequence([cls_(), normalizers.StripAccents(), normalizers.Lowercase(),
                                              normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]),
             pre_tokenizer=pre_tokenizers.Whitespace(),
             post=lambda t: processors.RobertaProcessing(("</s>", 2), ("<s>", 1)))
    uni = dict(vocab_size=size + 300, special_tokens=special, unk_token="<unk>", show_progress=False)
    make("unigram", models.Unigram(), trainers.UnigramTrainer(**uni), normalizer=normalizers.NFKC(),
         pre_tokenizer=pre_tokenizers.Metaspace(), decoder=decoders.Metaspace(), post=template)
    chars = [(chr(c), -5.0) for c in range(97, 123)] + [("the", -3.0), ("▁", -2.0)]
    byte = [(f"<0x{i:02X}>", -9.0) for i in range(256)]
    for fallback in (True, False):
        tok = Tokenizer(models.Unigram([("<unk>", 0.0)] + chars + byte, 0, byte_fallback=fallback))
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        out.append((f"unigram byte_fallback={fallback}", tok))
    for name, charsmap in charsmaps().items():
        make(f"unigram precompiled {name}", models.Unigram(), trainers.UnigramTrainer(**uni),
             normalizer=normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]),
             pre_tokenizer=pre_tokenizers.Metaspace(), decoder=decoders.Metaspace(), post=template)
    behaviors = ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
    for b in behaviors:
        make(f"split {b}", models.BPE(unk_token="<unk>"), trainers.BpeTrainer(limit_alphabet=alphabet_size, **bpe),
             pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\s+|\w{2}|\d"), b),
                                                    pre_tokenizers.Split("e", b, invert=b == "isolated"),
                                                    pre_tokenizers.Punctuation(b),
                                                    pre_tokenizers.Digits(b == "removed")]))
    return out


def run(tool, folder, texts, *args):
    data = b"".join(struct.pack("<I", len(t)) + t for t in (x if isinstance(x, bytes) else x.encode() for x in texts))
    p = subprocess.run([str(tool), str(folder), *args], input=data, capture_output=True)
    if p.returncode:
        raise SystemExit(f"FAIL: {folder}: {p.stderr.decode()}")
    return p.stdout.decode().split("\n")[:-1], p.stderr.decode()


def compare(tool, name, folder, ref, texts):
    bad = total = 0
    for special in (False, True):
        lines, _ = run(tool, folder, texts, "special" if special else "plain", "decode")
        for i, text in enumerate(texts):
            want = ref.encode(text, add_special_tokens=special).ids
            got = lines[2 * i]
            total += len(want)
            text_want = ref.decode(want, skip_special_tokens=False).split("\0")[0]
            text_got = bytes.fromhex(lines[2 * i + 1]).decode()
            same = got == " ".join(map(str, want))
            if same and text_want == text_got:
                continue
            bad += 1
            if bad <= 3:
                what = ("ids", want, got) if not same else ("decoded", text_want, text_got)
                print(f"  {name}: {text[:80]!r}\n    {what[0]} want {str(what[1])[:300]}\n    {what[0]} got  {what[2][:300]}")
    print(f"{'ok' if not bad else 'FAIL'} check_tokenizers {name.replace(':', ' ')}: {len(texts)} texts, {total} ids, {bad} differ",
          flush=True)
    return bad == 0


def timing(tool, real_ones, rounds=3):
    """Throughput of one thread by CPU time, alternating; each side encodes every text by a call of its own."""
    texts = (SHARED / "gsm8k" / "train.jsonl").read_text().splitlines()[:1000] if SHARED.exists() else corpus()
    mb = sum(len(t.encode()) for t in texts) / 1e6
    out = []
    for name, folder, ref in real_ones:
        ratios, best = [], [0.0, 0.0]
        for t in texts[:50]:
            ref.encode(t)
        for _ in range(rounds):
            a = time.process_time()
            for t in texts:
                ref.encode(t)
            theirs = time.process_time() - a
            ours = float(run(tool, folder, texts, "plain", "time")[1])
            ratios.append(theirs / ours)
            best = [max(best[0], mb / ours), max(best[1], mb / theirs)]
        out.append((name, sorted(ratios)[rounds // 2], *best))
        print(f"time {name}: ours {best[0]:.1f} MB/s, tokenizers {tokenizers.__version__} {best[1]:.1f} MB/s, "
              f"ratio {out[-1][1]:.1f}", flush=True)
    return out


def write_vectors(path):
    """Small tokenizers with the library's answers, so that the C tests check ids in every clone."""
    rng = random.Random(3)
    texts = HAND + ["".join(rng.choice(sum((t.split(" ") for t in HAND), [])) + rng.choice([" ", "", "\n", "  "])
                            for _ in range(8)) for _ in range(12)]
    cases = []
    for name, tok in trained([t.replace("\0", "") for t in HAND] * 3, size=330, alphabet_size=40):
        if "nmt_nfkc" in name:
            continue  # its table alone has 320 kB
        cases.append({"name": name, "tokenizer": json.loads(tok.to_str()),
                      "ids": [tok.encode(t, add_special_tokens=False).ids for t in texts],
                      "special": [tok.encode(t).ids for t in texts],
                      "decoded": [tok.decode(tok.encode(t).ids, skip_special_tokens=True) for t in texts]})
    lines = ",\n".join(json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in cases)
    head = json.dumps({"library": f"tokenizers {tokenizers.__version__}", "texts": texts}, separators=(",", ":"))
    path.write_text(head[:-1] + ',\n"cases":[\n' + lines + "\n]}\n")
    print(f"{path}: {len(cases)} tokenizers, {len(texts)} texts, {path.stat().st_size} bytes")
    return 0


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tool", default=ROOT / "build/release/tests/zo/encode_texts")
    ap.add_argument("--time", action="store_true")
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--write-vectors", metavar="FILE", help="write tests/vectors/tokenizers.json anew")
    args = ap.parse_args()
    if args.write_vectors:
        return write_vectors(pathlib.Path(args.write_vectors))
    texts = corpus()
    training = [t.replace("\0", "") for t in texts[:400]]  # jansson refuses a NUL in a key, which a vocabulary of words would have
    if not args.all:
        texts, training = HAND + texts[len(HAND)::8], training[:len(HAND)] + training[len(HAND)::4]
    real_ones = real()
    if not real_ones:
        print("skip check_tokenizers real: ../shared/data is not there: only the tokenizers trained here are compared")
    if args.time:
        timing(args.tool, real_ones)
        return 0
    ok = all([compare(args.tool, name, folder, ref, texts) for name, folder, ref in real_ones])
    with tempfile.TemporaryDirectory() as tmp:
        for i, (name, tok) in enumerate(trained(training)):
            folder = pathlib.Path(tmp) / str(i)
            folder.mkdir()
            tok.save(str(folder / "tokenizer.json"))
            ok &= compare(args.tool, name, folder, tok, texts)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
