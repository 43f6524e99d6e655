#!/usr/bin/env python3
"""Writes zo/data/unicode_old.h: the character classes in which the `tokenizers` library is older than utf8proc.

Its Punctuation, StripAccents and BertNormalizer come from tables of Unicode 8 to 9, its compatibility
decompositions likewise; equal ids need the same classes.  Each is measured by asking the library about every
code point.  Usage: python tests/make_unicode_tables.py > zo/data/unicode_old.h
"""
import unicodedata
import tokenizers
from tokenizers import normalizers, pre_tokenizers

points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
punctuation = pre_tokenizers.Punctuation("isolated")
accents = normalizers.StripAccents()
bert = dict(handle_chinese_chars=False, lowercase=False)
bert_accents = normalizers.BertNormalizer(clean_text=False, strip_accents=True, **bert)
bert_clean = normalizers.BertNormalizer(clean_text=True, strip_accents=False, **bert)
nfkd = normalizers.NFKD()
classes = (
    ("punct", "Punctuation, BertPreTokenizer", lambda c: len(punctuation.pre_tokenize_str("a" + c)) == 2),
    ("mark", "StripAccents", lambda c: accents.normalize_str(c) == ""),
    ("mark_nonspacing", "BertNormalizer strip_accents", lambda c: bert_accents.normalize_str(c) == ""),
    ("control", "BertNormalizer clean_text", lambda c: bert_clean.normalize_str(c) == ""),
    ("undecomposed", "NFKC, NFKD: unchanged there, decomposed by utf8proc (Unicode 15)",
     lambda c: nfkd.normalize_str(c) == c != unicodedata.normalize("NFKD", c)
     and unicodedata.normalize("NFD", c) == c),
)


def ranges(members):
    out = []
    for c in members:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


print(f"/* zo/data/unicode_old.h -- written by tests/make_unicode_tables.py from tokenizers {tokenizers.__version__}.\n"
      " * Sorted ranges, first and last code point. */")
for name, user, test in classes:
    items = [f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(c for c in points if test(chr(c)))]
    print(f"\n/* {user} */\nstatic const struct unicode_range unicode_{name}[] = {{")
    line = "   "
    for item in items:
        if len(line) + len(item) > 98:
            print(line)
            line = "   "
        line += " " + item
    print(line + "\n};")
