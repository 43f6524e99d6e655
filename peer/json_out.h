/* peer/json_out.h -- one JSON object per line on stdout, and the small conversions every command needs. */
#ifndef PEER_JSON_OUT_H
#define PEER_JSON_OUT_H
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Prints the object as one line with enough digits for every double, flushes, releases it; returns the exit code
 * (PEER_EXIT_FAILED when stdout is gone or the object is NULL). */
int peer_json_print(json_t *o);
json_t *peer_json_real(double x);                   /* null if not finite */
json_t *peer_json_hex(const uint8_t *p, size_t n);
#endif
