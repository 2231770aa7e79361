/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes in any text of a line of the access log: it stays one line of ASCII, within its bound,
 * and its readers can read it. */
#include "polder/access_log.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct str cut(const char **at, size_t *len, size_t want)
{
    const size_t n = want < *len ? want : *len;
    const struct str t = {*at, n};
    *at += n;
    *len -= n;
    return t;
}

static void check_line(const char *line, size_t n)
{
    check(n > 0 && n <= ACCESS_LOG_LINE_MAX && line[n - 1] == '\n');
    for (size_t i = 0; i + 1 < n; i++)
        check(line[i] >= 0x20 && line[i] < 0x7f);
}

static void check_combined(const char *line, size_t n)
{
    unsigned quotes = 0;
    for (size_t i = 0; i < n; i++)
        quotes += line[i] == '"';
    check(quotes == 6);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char json[ACCESS_LOG_LINE_MAX], combined[ACCESS_LOG_LINE_MAX],
        again[ACCESS_LOG_LINE_MAX];
    static char guessed[ACCESS_LOG_LINE_MAX];
    struct access_line l = {.status = 200, .cache = "hit"};
    const char *at = (const char *)data;
    size_t part, len = size;
    if (size < 2)
        return 0;
    part = (size_t)(data[0] << 4 | data[1]) + 1;
    at += 2, len -= 2;
    struct str *const texts[] = {&l.method,     &l.target,  &l.host,       &l.protocol,
                                 &l.user_agent, &l.referer, &l.request_id, &l.route};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        *texts[i] = cut(&at, &len, part);
    l.websocket = size & 1;
    const size_t n = access_log_format(CONFIG_LOG_JSON, &l, json, sizeof json);
    check_line(json, n);
    json_error_t error;
    json_t *parsed = json_loadb(json, n, JSON_REJECT_DUPLICATES, &error);
    check(parsed != NULL);
    json_decref(parsed);
    const size_t m = access_log_format(CONFIG_LOG_COMBINED, &l, combined, sizeof combined);
    check_line(combined, m);
    check_combined(combined, m);
    struct access_line *copy = access_line_copy(&l);
    check(access_log_format(CONFIG_LOG_JSON, copy, again, sizeof again) == n);
    check(!memcmp(again, json, n));
    free(copy);
    access_line_guess(&l, (const char *)data, size);
    check_line(guessed, access_log_format(CONFIG_LOG_JSON, &l, guessed, sizeof guessed));
    return 0;
}
