/* SPDX-License-Identifier: BSD-2-Clause */
/* text: a growing text, for answers of any length. */
#ifndef POLDER_CONTROL_TEXT_H
#define POLDER_CONTROL_TEXT_H
#include <stdbool.h>
#include <stddef.h>

/* {0}: empty. When memory runs out the text is marked as failed, and nothing is added any more. */
struct text {
    char *at; /* NULL: empty; else malloc'd and NUL-terminated */
    size_t len, size;
    bool failed;
};
void text_put(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_put_bytes(struct text *t, const char *bytes, size_t len);
void text_put_json(struct text *t, const char *string); /* what stands between the quotes */
void text_free(struct text *t);
#endif
