/* zo/data/tok.h -- the inside of a tokenizer: the same stages, in the same order, as Hugging Face's library.
 *
 *   text -> [added tokens cut out] -> normalizer -> pre-tokenizer -> model -> post-processor -> ids
 *   ids  -> token texts -> decoder -> text
 *
 * Each stage is a tree read from tokenizer.json once, then only read.  Every text between stages is valid UTF-8.
 * A type or option that is not known is refused by name when the file is opened, never ignored. */
#ifndef ONEBYTE_ZO_DATA_TOK_H
#define ONEBYTE_ZO_DATA_TOK_H
#include "zo/data/buf.h"
#include "zo/data/json.h"
#include "zo/data/regex.h"
#include "zo/data/template.h"
#include "zo/data/vocab.h"
#include <onebyte/zo/tokenizer.h>
#include <stdatomic.h>

/* A list of strings in one buffer. */
struct piece {
    size_t off, n;
    bool first; /* starts where the whole text starts */
};
struct pieces {
    struct buf text;
    struct piece *v;
    size_t n, cap;
    bool oom;
};
void zo_pieces_free(struct pieces *p);
void zo_pieces_add(struct pieces *p, const char *text, size_t n, bool first); /* empty: not added */
void zo_pieces_clear(struct pieces *p);

enum tok_behavior { TOK_REMOVED, TOK_ISOLATED, TOK_MERGED_PREVIOUS, TOK_MERGED_NEXT, TOK_CONTIGUOUS };

/* ---- normalize.c ---- */
struct norm;
NODISCARD enum err zo_norm_new(struct norm **n, const json_t *config, struct err_why *why);
void zo_norm_free(struct norm *n);
/* Appends the normal form of text [k] to out.  n may be NULL: a copy. */
NODISCARD enum err zo_norm_apply(const struct norm *n, struct buf *out, const char *text, size_t k);

/* ---- charsmap.c: SentencePiece's own normalizer, a compiled table ---- */
struct charsmap;
NODISCARD enum err zo_charsmap_new(struct charsmap **c, const char *base64, struct err_why *why);
void zo_charsmap_free(struct charsmap *c);
void zo_charsmap_apply(const struct charsmap *c, struct buf *out, const char *text, size_t n);

/* ---- pretokenize.c ---- */
struct pretok;
NODISCARD enum err zo_pretok_new(struct pretok **p, const json_t *config, struct err_why *why);
void zo_pretok_free(struct pretok *p);
/* *pieces <- its pieces split further.  p may be NULL: nothing changes. */
NODISCARD enum err zo_pretok_apply(const struct pretok *p, struct pieces *pieces);
/* GPT-2's alphabet: the code point that stands for a byte, and back (-1: none). */
uint32_t zo_byte_char(uint8_t byte);
int zo_char_byte(uint32_t cp);

/* ---- model.c: bpe.c, unigram.c, wordpiece.c ---- */
struct bpe;
struct unigram;
NODISCARD enum err zo_bpe_new(struct bpe **b, const struct vocab *v, const json_t *model,
                              struct err_why *why);
void zo_bpe_free(struct bpe *b);
/* Working memory of one encoding, kept between words. */
struct bpe_work;
struct bpe_work *zo_bpe_work_new(void);
void zo_bpe_work_free(struct bpe_work *w);
NODISCARD enum err zo_bpe_encode(const struct bpe *b, struct bpe_work *w, struct ids *out,
                                 const char *word, size_t n);

NODISCARD enum err zo_unigram_new(struct unigram **u, const struct vocab *v, const json_t *model,
                                  struct err_why *why);
void zo_unigram_free(struct unigram *u);
NODISCARD enum err zo_unigram_encode(const struct unigram *u, struct ids *out, const char *word,
                                     size_t n);

enum tok_kind { TOK_BPE, TOK_WORDPIECE, TOK_WORDLEVEL, TOK_UNIGRAM };
struct model {
    enum tok_kind kind;
    struct vocab vocab;
    struct bpe *bpe;
    struct unigram *unigram;
    char *unk_text; /* WordPiece, WordLevel */
    char *prefix;   /* WordPiece */
    size_t word_chars_max;
};
/* A JSON object or, for Unigram, a list of [text, score]. */
NODISCARD enum err zo_tok_model_new(struct model *m, const json_t *config, struct err_why *why);
void zo_tok_model_free(struct model *m);
NODISCARD enum err zo_tok_model_encode(const struct model *m, struct bpe_work *w, struct ids *out,
                                   const char *word, size_t n);

/* ---- added.c: tokens that are found before everything else ---- */
struct added_token {
    char *text;
    size_t n;
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
struct added {
    struct added_token *v;
    size_t n, cap;
    struct trie raw, normal; /* over the text, and over the normalised text; their ids are places in v */
    struct vocab vocab;      /* id <-> text */
};
void zo_added_free(struct added *a);
/* config: one entry of "added_tokens" (or of added_tokens_decoder, whose key is the id). */
NODISCARD enum err zo_added_add(struct added *a, const char *text, size_t n, uint32_t id,
                                const json_t *config);
NODISCARD enum err zo_added_ready(struct added *a, const struct norm *norm); /* after the last add */
/* *s <- the tokens in text [n] (match = true, and where[i] <- the place in v) and what lies between them. */
NODISCARD enum err zo_added_spans(const struct added *a, const struct trie *t, struct spans *s,
                                  struct ids *where, const char *text, size_t n);
bool zo_added_special(const struct added *a, uint32_t id);

/* ---- post.c ---- */
struct post {
    struct ids before, after; /* what `special` puts around one text */
};
NODISCARD enum err zo_post_new(struct post *p, const json_t *config, struct err_why *why);

/* ---- decode.c ---- */
struct decoder;
NODISCARD enum err zo_decoder_new(struct decoder **d, const json_t *config, struct err_why *why);
void zo_decoder_free(struct decoder *d);
NODISCARD enum err zo_decoder_apply(const struct decoder *d, struct pieces *tokens);

/* ---- legacy.c: a folder with vocab.json and merges.txt alone ---- */
struct zo_tokenizer;
/* *config <- the tokenizer.json that the folder's files amount to. */
NODISCARD enum err zo_legacy_config(json_t **config, const char *dir, struct err_why *why);

/* ---- chat.c ---- */
struct chat {
    struct chat_template *template; /* NULL: none, or one that cannot be used (why) */
    json_t *variables;              /* bos_token, eos_token, .. */
    struct err_why why;             /* in words, what the folder lacks */
};
/* A folder without a usable template is not an error until a conversation is to be rendered. */
NODISCARD enum err zo_chat_open(struct chat *c, const char *dir);
void zo_chat_free(struct chat *c);
/* Appends the text of messages 0 .. n-1 to out. */
NODISCARD enum err zo_chat_render(const struct chat *c, struct buf *out, const json_t *messages, size_t n,
                                  bool generation_prompt, struct err_why *why);

struct zo_tokenizer {
    struct norm *norm;
    struct pretok *pretok;
    struct model model;
    struct added added;
    struct post post;
    struct decoder *decoder;
    struct chat chat;
};
#endif
