/* zo/data/utf8.h -- UTF-8 and the character classes that tokenizers ask for.
 * Numbers, words and lower case follow utf8proc's tables (Unicode 15); punctuation, marks and control characters are
 * those of the `tokenizers` library, which are older (unicode_old.h): equal ids need equal classes. */
#ifndef ONEBYTE_ZO_DATA_UTF8_H
#define ONEBYTE_ZO_DATA_UTF8_H
#include "zo/data/buf.h"

/* *cp <- the code point at p [n > 0]; returns its length in bytes.  An invalid byte sequence gives U+FFFD and the
 * length of its longest valid beginning (at least 1), so that each such run becomes one U+FFFD: the policy of
 * Unicode 3.9 (D93b) and of Rust, Python and WHATWG decoders. */
size_t zo_utf8_get(uint32_t *cp, const char *p, size_t n);
/* p [at least 4] <- cp; returns its length. */
size_t zo_utf8_put(char p[4], uint32_t cp);
void zo_utf8_add(struct buf *b, uint32_t cp);
/* Is text [n] valid UTF-8 (no surrogates, nothing overlong)? */
bool zo_utf8_valid(const char *text, size_t n);
/* Appends text [n] with U+FFFD for what is invalid. */
void zo_utf8_add_lossy(struct buf *b, const char *text, size_t n);

bool zo_utf8_is_space(uint32_t cp);        /* White_Space */
bool zo_utf8_is_punct(uint32_t cp);        /* P* or ASCII punctuation (which includes symbols like $) */
bool zo_utf8_is_number(uint32_t cp);       /* N* */
bool zo_utf8_is_word(uint32_t cp);         /* \w: alphabetic, mark, decimal digit, connector */
bool zo_utf8_is_mark(uint32_t cp);         /* M* */
bool zo_utf8_is_mark_nonspacing(uint32_t cp); /* Mn */
bool zo_utf8_is_control(uint32_t cp);      /* what BERT removes: Cc, Cf, Co, U+FFFD, but not tab, CR, LF */
bool zo_utf8_is_undecomposed(uint32_t cp); /* has a compatibility form only in tables newer than the library's */
/* Appends the lower case of cp (one code point can become two). */
void zo_utf8_add_lower(struct buf *b, uint32_t cp);
#endif
