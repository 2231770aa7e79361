/* SPDX-License-Identifier: BSD-2-Clause */
/* access_log_format: a struct access_line as a line of JSON or of the combined format. */
#include "polder/access_log.h"
#include "polder/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct writer {
    char *at, *end;
    bool full;
};

static void put(struct writer *o, const char *bytes, size_t len)
{
    if ((size_t)(o->end - o->at) < len) {
        o->full = true;
        return;
    }
    memcpy(o->at, bytes, len);
    o->at += len;
}

static void puts_text(struct writer *o, const char *text)
{
    put(o, text, strlen(text));
}

static void put_u64(struct writer *o, uint64_t n)
{
    char digits[20];
    size_t i = sizeof digits;
    do
        digits[--i] = (char)('0' + n % 10);
    while (n /= 10);
    put(o, digits + i, sizeof digits - i);
}

/* ---- text from outside ---- */

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static size_t plain_run(struct str t)
{
    size_t n = 0;
    while (n < t.len && is_plain((unsigned char)t.at[n]))
        n++;
    return n;
}

/* The character at the start, and its length in UTF-8; 0: these bytes are none (RFC 3629). */
static size_t utf8_read(const unsigned char *at, size_t len, uint32_t *code)
{
    static const struct {
        unsigned char mask, mark;
        uint32_t min;
    } form[] = {{0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t i = 0; i < 3; i++) {
        const size_t n = i + 2;
        if ((at[0] & form[i].mask) != form[i].mark)
            continue;
        if (len < n)
            return 0;
        *code = at[0] & (0xffu >> (n + 1));
        for (size_t k = 1; k < n; k++) {
            if ((at[k] & 0xc0) != 0x80)
                return 0;
            *code = *code << 6 | (at[k] & 0x3f);
        }
        return *code < form[i].min || *code > 0x10ffff || (*code >> 11) == 0x1b ? 0 : n;
    }
    return 0;
}

static void put_unit(struct writer *o, uint32_t unit)
{
    static const char hex[] = "0123456789abcdef";
    const char text[6] = {
        '\\', 'u', hex[unit >> 12 & 15], hex[unit >> 8 & 15], hex[unit >> 4 & 15], hex[unit & 15]};
    put(o, text, sizeof text);
}

/* One character that is not plain; returns its bytes. ASCII alone is written, so that no terminal
 * takes a part of it for a command; bytes that are no UTF-8 become U+FFFD. */
static size_t escape_json(struct writer *o, struct str t)
{
    const unsigned char *at = (const unsigned char *)t.at;
    uint32_t code;
    if (*at == '"' || *at == '\\') {
        put(o, "\\", 1);
        put(o, t.at, 1);
        return 1;
    }
    if (*at < 0x80) {
        put_unit(o, *at ? *at : 0xfffd); /* many readers take no NUL, in whatever form */
        return 1;
    }
    const size_t n = utf8_read(at, t.len, &code);
    if (!n) {
        put_unit(o, 0xfffd);
        return 1;
    }
    if (code >= 0x10000) {
        put_unit(o, 0xd800 + ((code - 0x10000) >> 10));
        put_unit(o, 0xdc00 + ((code - 0x10000) & 0x3ff));
    } else {
        put_unit(o, code);
    }
    return n;
}

/* As nginx does it, quotes and backslashes too: readers split at quotes. */
static size_t escape_combined(struct writer *o, struct str t)
{
    static const char hex[] = "0123456789ABCDEF";
    const unsigned char c = (unsigned char)*t.at;
    const char text[4] = {'\\', 'x', hex[c >> 4], hex[c & 15]};
    put(o, text, sizeof text);
    return 1;
}

static void put_escaped(struct writer *o, struct str t, size_t max, bool json)
{
    const bool cut = t.len > max;
    if (cut)
        t.len = max;
    while (t.len) {
        size_t n = plain_run(t);
        if (n)
            put(o, t.at, n);
        else
            n = json ? escape_json(o, t) : escape_combined(o, t);
        t.at += n;
        t.len -= n;
    }
    if (cut)
        put(o, "...", 3);
}

/* ---- JSON ---- */

static void put_name(struct writer *o, const char *name)
{
    put(o, ",\"", 2);
    puts_text(o, name);
    put(o, "\":", 2);
}

static void put_text(struct writer *o, const char *name, struct str t, size_t max)
{
    if (!t.len)
        return;
    put_name(o, name);
    put(o, "\"", 1);
    put_escaped(o, t, max, true);
    put(o, "\"", 1);
}

static void put_word(struct writer *o, const char *name, const char *word)
{
    if (word)
        put_text(o, name, (struct str){word, strlen(word)}, ACCESS_LOG_TEXT_MAX);
}

static void put_number(struct writer *o, const char *name, uint64_t n)
{
    put_name(o, name);
    put_u64(o, n);
}

static void put_two(struct writer *o, unsigned n, char after)
{
    const char text[3] = {(char)('0' + n / 10 % 10), (char)('0' + n % 10), after};
    put(o, text, sizeof text);
}

static void put_time(struct writer *o, uint64_t real_ms)
{
    const time_t s = (time_t)(real_ms / 1000);
    const unsigned ms = (unsigned)(real_ms % 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    put_u64(o, (uint64_t)tm.tm_year + 1900);
    put(o, "-", 1);
    put_two(o, (unsigned)tm.tm_mon + 1, '-');
    put_two(o, (unsigned)tm.tm_mday, 'T');
    put_two(o, (unsigned)tm.tm_hour, ':');
    put_two(o, (unsigned)tm.tm_min, ':');
    put_two(o, (unsigned)tm.tm_sec, '.');
    put_two(o, ms / 10, (char)('0' + ms % 10));
    put(o, "Z", 1);
}

static struct str client_of(const struct access_line *l, char ip[46])
{
    return (struct str){ip, clientip_format(&l->client, ip)};
}

static void put_timing(struct writer *o, const struct access_line *l)
{
    if (l->websocket)
        put_number(o, "ms", l->us / 1000);
    else if (l->us)
        put_number(o, "us", l->us);
    put_text(o, "upstream", l->upstream, ACCESS_LOG_TEXT_MAX);
    if (l->upstream.len && l->upstream_us)
        put_number(o, "upstream_us", l->upstream_us);
}

static void put_websocket(struct writer *o, const struct access_line *l)
{
    put_number(o, "messages_in", l->messages_in);
    put_number(o, "messages_out", l->messages_out);
    if (l->close_code)
        put_number(o, "close_code", l->close_code);
    put_word(o, "reason", l->reason);
}

static void line_json(struct writer *o, const struct access_line *l)
{
    char ip[46];
    puts_text(o, "{\"time\":\"");
    put_time(o, l->real_ms);
    put(o, "\"", 1);
    put_text(o, "client", client_of(l, ip), sizeof ip);
    put_text(o, "method", l->method, ACCESS_LOG_TEXT_MAX);
    put_text(o, "host", l->host, ACCESS_LOG_TEXT_MAX);
    put_text(o, "target", l->target, ACCESS_LOG_TARGET_MAX);
    put_text(o, "protocol", l->protocol, ACCESS_LOG_TEXT_MAX);
    put_number(o, "status", l->status);
    put_number(o, "bytes", l->bytes);
    put_timing(o, l);
    put_word(o, "cache", l->cache);
    put_text(o, "limit", l->limit, ACCESS_LOG_TEXT_MAX);
    put_text(o, "route", l->route, ACCESS_LOG_TEXT_MAX);
    put_text(o, "request_id", l->request_id, ACCESS_LOG_TEXT_MAX);
    put_text(o, "user_agent", l->user_agent, ACCESS_LOG_USER_AGENT_MAX);
    put_text(o, "referer", l->referer, ACCESS_LOG_REFERER_MAX);
    if (l->websocket)
        put_websocket(o, l);
    put_word(o, "cut", l->cut);
    puts_text(o, "}\n");
}

/* ---- combined ---- */

static void put_quoted(struct writer *o, struct str t, size_t max)
{
    put(o, " \"", 2);
    put_escaped(o, t.len ? t : (struct str){"-", 1}, max, false);
    put(o, "\"", 1);
}

static void put_request(struct writer *o, const struct access_line *l)
{
    const struct str part[] = {l->method, l->target, l->protocol};
    const size_t max[] = {ACCESS_LOG_TEXT_MAX, ACCESS_LOG_TARGET_MAX, ACCESS_LOG_TEXT_MAX};
    bool first = true;
    for (size_t i = 0; i < 3; i++) {
        if (!part[i].len)
            continue;
        if (!first)
            put(o, " ", 1);
        first = false;
        put_escaped(o, part[i], max[i], false);
    }
    if (first)
        put(o, "-", 1);
}

static void line_combined(struct writer *o, const struct access_line *l)
{
    char ip[46], when[64];
    struct tm tm;
    const time_t s = (time_t)(l->real_ms / 1000);
    const struct str client = client_of(l, ip);
    localtime_r(&s, &tm);
    put(o, client.at, client.len);
    put(o, when, strftime(when, sizeof when, " - - [%d/%b/%Y:%H:%M:%S %z] \"", &tm));
    put_request(o, l);
    put(o, "\" ", 2);
    put_u64(o, l->status);
    put(o, " ", 1);
    put_u64(o, l->bytes);
    put_quoted(o, l->referer, ACCESS_LOG_REFERER_MAX);
    put_quoted(o, l->user_agent, ACCESS_LOG_USER_AGENT_MAX);
    put(o, "\n", 1);
}

size_t access_log_format(enum config_access_log format, const struct access_line *line, char *out,
                         size_t size)
{
    struct writer o = {out, out + size, false};
    if (format == CONFIG_LOG_COMBINED)
        line_combined(&o, line);
    else
        line_json(&o, line);
    return o.full ? 0 : (size_t)(o.at - out);
}

/* ---- lines that outlive what they borrow ---- */

static struct {
    size_t at, max; /* offset of the text in struct access_line */
} const texts[] = {
    {offsetof(struct access_line, method), ACCESS_LOG_TEXT_MAX},
    {offsetof(struct access_line, host), ACCESS_LOG_TEXT_MAX},
    {offsetof(struct access_line, target), ACCESS_LOG_TARGET_MAX},
    {offsetof(struct access_line, protocol), ACCESS_LOG_TEXT_MAX},
    {offsetof(struct access_line, user_agent), ACCESS_LOG_USER_AGENT_MAX},
    {offsetof(struct access_line, referer), ACCESS_LOG_REFERER_MAX},
    {offsetof(struct access_line, request_id), ACCESS_LOG_TEXT_MAX},
    {offsetof(struct access_line, upstream), ACCESS_LOG_TEXT_MAX},
    {offsetof(struct access_line, route), ACCESS_LOG_TEXT_MAX},
    {offsetof(struct access_line, limit), ACCESS_LOG_TEXT_MAX},
};
#define TEXTS (sizeof texts / sizeof *texts)

static struct str *text_of(struct access_line *line, size_t i)
{
    return (struct str *)(void *)((char *)line + texts[i].at);
}

struct access_line *access_line_copy(const struct access_line *line)
{
    struct access_line whole = *line;
    size_t sum = 0;
    for (size_t i = 0; i < TEXTS; i++) {
        struct str *t = text_of(&whole, i);
        t->len = t->len > texts[i].max ? texts[i].max + 1 : t->len; /* one more shows the cut */
        sum += t->len;
    }
    struct access_line *copy = malloc(sizeof *copy + sum);
    if (!copy)
        return NULL;
    *copy = whole;
    char *at = (char *)(copy + 1);
    for (size_t i = 0; i < TEXTS; i++) {
        struct str *t = text_of(copy, i);
        if (t->len)
            memcpy(at, t->at, t->len);
        t->at = at;
        at += t->len;
    }
    return copy;
}

void access_line_guess(struct access_line *line, const char *bytes, size_t len)
{
    const char *end = bytes + len;
    while (bytes < end && (*bytes == '\r' || *bytes == '\n'))
        bytes++;
    const char *stop = bytes;
    while (stop < end && *stop != '\r' && *stop != '\n')
        stop++;
    const char *space = memchr(bytes, ' ', (size_t)(stop - bytes));
    const char *last = space ? memrchr(bytes, ' ', (size_t)(stop - bytes)) : NULL;
    line->method = line->protocol = (struct str){0};
    line->target = (struct str){bytes, (size_t)(stop - bytes)};
    if (!space)
        return;
    line->method = (struct str){bytes, (size_t)(space - bytes)};
    if (last > space && stop - last > 6 && !memcmp(last + 1, "HTTP/", 5))
        line->protocol = (struct str){last + 1, (size_t)(stop - last) - 1};
    const char *target_end = line->protocol.len ? last : stop;
    line->target = (struct str){space + 1, (size_t)(target_end - space) - 1};
}
