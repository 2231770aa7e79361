/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_h1: heads and bodies. Beside not crashing: an input gives the same result however it is cut;
 * what is accepted holds what the header promises (spans inside the head, no control bytes, one
 * framing); what is written from it is read back the same; and the chunked decoder agrees with
 * llhttp's wherever it accepts. The first byte chooses: request, response, response to HEAD,
 * chunked.
 */
#include "daemons/http/h1.h"
#include "daemons/http/h1_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum kind { REQUEST, RESPONSE, TO_HEAD, CHUNKED };

static enum h1_result parse(enum kind kind, const char *buf, size_t len, size_t *scanned,
                            struct h1_head *head)
{
    enum problem problem = PROBLEMS;
    if (kind != REQUEST)
        return h1_parse_response(buf, len, scanned, kind == TO_HEAD, head);
    enum h1_result r = h1_parse_request(buf, len, scanned, head, &problem);
    must(r != H1_BAD || (problem < PROBLEMS && problem_status(problem) >= 400));
    return r;
}

static void check_text(struct str t, const char *buf, size_t len)
{
    must(t.at >= buf && t.at + t.len <= buf + len);
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = (unsigned char)t.at[i];
        must(c == '\t' || (c >= 0x20 && c != 0x7f));
    }
}

/* Every byte of the head is in a field or is framing: nothing was skipped between two parsers. */
static void check_lines(const struct h1_head *h, const char *buf)
{
    const char *line = (const char *)memchr(buf, '\n', h->head_len) + 1;
    for (uint32_t i = 0; i < h->n_fields; i++) {
        const struct h1_field *f = &h->field[i];
        must(f->name.at == line && f->name.len > 0 && field_is_token(f->name));
        must(line[f->name.len] == ':');
        const char *end = memchr(line, '\r', (size_t)(buf + h->head_len - line));
        must(end && end[1] == '\n');
        const char *at = line + f->name.len + 1;
        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        const char *stop = end;
        while (stop > at && (stop[-1] == ' ' || stop[-1] == '\t'))
            stop--;
        must(f->value.len == (size_t)(stop - at) && (stop == at || f->value.at == at));
        must(f->id == h1_field_id_of(f->name));
        must(f->id == H1_OTHER || (h->first[f->id] && h->first[f->id] <= i + 1));
        line = end + 2;
    }
    must(line + 2 == buf + h->head_len && line[0] == '\r' && line[1] == '\n');
}

static void check_head(enum kind kind, const struct h1_head *h, const char *buf, size_t len)
{
    must(h->head_len <= len && h->head_len <= H1_HEAD_MAX && h->n_fields <= H1_FIELDS_MAX);
    must(memcmp(buf + h->head_len - 4, "\r\n\r\n", 4) == 0);
    for (uint32_t i = 0; i < h->n_fields; i++) {
        check_text(h->field[i].name, buf, h->head_len);
        check_text(h->field[i].value, buf, h->head_len);
        h1_is_hop_by_hop(h, &h->field[i]);
    }
    check_lines(h, buf);
    must(!h1_find(h, H1_CONTENT_LENGTH) || !h1_find(h, H1_TRANSFER_ENCODING));
    must(h->framing != H1_CHUNKED || h->minor == 1);
    if (kind == REQUEST) {
        check_text(h->method, buf, h->head_len);
        check_text(h->target, buf, h->head_len);
        must(h->target.len <= H1_TARGET_MAX && h->framing != H1_TO_CLOSE);
        must(h->path.len && (h->path.at[0] == '/' || h->path.at[0] == '*'));
        const bool bare = h->path.at < buf || h->path.at >= buf + len; /* "http://host?query" */
        must(!h->query.at || bare || h->query.at == h->path.at + h->path.len + 1);
        must(h->host.len || h->minor == 0);
        must(!memchr(h->target.at, ' ', h->target.len));
    } else {
        must(h->status >= 100 && h->status <= 999);
    }
}

static void check_meaning(enum kind kind, const struct h1_head *h)
{
    static char scratch[H1_CACHE_SCRATCH];
    if (kind == REQUEST) {
        struct policy_request req;
        h1_policy_request(h, &req);
        for (uint32_t i = 0; i < h->n_fields; i++) {
            struct h1_out o = {scratch, scratch + sizeof scratch, false};
            bool hop = h1_is_hop_by_hop(h, &h->field[i]);
            must(h1_selecting(h, h->field[i].name, &o) || hop);
        }
        return;
    }
    struct policy_response resp;
    struct policy_settings settings = {.value = {.ttl_ms = 1000, .max_body = 1000}};
    struct policy_request get = {.is_get = true};
    struct policy_freshness fresh;
    h1_policy_response(h, 1800000000, scratch, &resp);
    policy_freshness_of(&get, &resp, &settings, UINT64_C(1800000000000), UINT64_C(1800000000100),
                        &fresh);
    must(fresh.swr_until_ms >= fresh.fresh_until_ms && fresh.sie_until_ms >= fresh.fresh_until_ms);
    must(policy_may_store(&get, &resp, &settings) != POLICY_STORE ||
         !(resp.has_cdn_cc ? resp.cdn_cc : resp.cc).flags ||
         !((resp.has_cdn_cc ? resp.cdn_cc : resp.cc).flags & FIELD_CC_PRIVATE));
}

/* Written as a gateway would, a request reads back as the same request. */
static void check_rewritten(const struct h1_head *h)
{
    static char out[H1_HEAD_MAX * 2];
    static struct h1_head back;
    struct h1_out o = {out, out + sizeof out, false};
    enum problem problem;
    size_t scanned = 0;
    h1_put(&o, h->method.at, h->method.len);
    h1_puts(&o, " ");
    h1_put(&o, h->path.at, h->path.len);
    if (h->query.at)
        h1_puts(&o, "?"), h1_put(&o, h->query.at, h->query.len);
    h1_puts(&o, " HTTP/1.1\r\n");
    h1_put_field(&o, "Host", h->host.len ? h->host : (struct str){"h", 1});
    for (uint32_t i = 0; i < h->n_fields; i++) {
        const struct h1_field *f = &h->field[i];
        if (f->id == H1_HOST || f->id == H1_CONTENT_LENGTH || f->id == H1_EXPECT ||
            h1_is_hop_by_hop(h, f))
            continue;
        h1_put(&o, f->name.at, f->name.len);
        h1_puts(&o, ": ");
        h1_put(&o, f->value.at, f->value.len);
        h1_puts(&o, "\r\n");
    }
    if (h->framing == H1_CHUNKED)
        h1_puts(&o, "Transfer-Encoding: chunked\r\n");
    if (h->framing == H1_LENGTH) {
        h1_puts(&o, "Content-Length: ");
        h1_put_u64(&o, h->length);
        h1_puts(&o, "\r\n");
    }
    h1_puts(&o, "\r\n");
    if (o.overflow || o.at - out > H1_HEAD_MAX || h->n_fields == H1_FIELDS_MAX)
        return;
    must(h1_parse_request(out, (size_t)(o.at - out), &scanned, &back, &problem) == H1_DONE);
    must(back.framing == h->framing && back.length == h->length);
    must(back.path.len == h->path.len && memcmp(back.path.at, h->path.at, h->path.len) == 0);
    must(back.head_len == (size_t)(o.at - out));
}

static void fuzz_head(enum kind kind, const char *buf, size_t len)
{
    static struct h1_head head, dripped;
    size_t scanned = 0;
    enum h1_result whole = parse(kind, buf, len, &scanned, &head), r = H1_MORE;
    if (whole == H1_DONE) {
        check_head(kind, &head, buf, len);
        check_meaning(kind, &head);
        if (kind == REQUEST)
            check_rewritten(&head);
    }
    scanned = 0;
    for (size_t n = 0; n <= len && r == H1_MORE; n += n < 600 ? 1 : 97)
        r = parse(kind, buf, n, &scanned, &dripped);
    if (r == H1_MORE)
        r = parse(kind, buf, len, &scanned, &dripped);
    must((r == H1_DONE) == (whole == H1_DONE));
    must(r != H1_DONE || (dripped.head_len == head.head_len && dripped.n_fields == head.n_fields));
    must(whole != H1_MORE || r == H1_MORE);
}

/* ---- chunked bodies ---- */

struct decoded {
    char *at;
    size_t len, used;
    bool done, bad;
};

static struct decoded decode(const char *buf, size_t len, size_t step)
{
    static char trailer[H1_TRAILER_MAX];
    struct decoded d = {.at = malloc(len + 1)};
    struct h1_body body;
    h1_body_init(&body, H1_CHUNKED, 0);
    h1_body_keep_trailer(&body, trailer, step == 1 ? 40 : sizeof trailer);
    while (!body.done && d.used < len) {
        struct str content;
        size_t used, n = len - d.used < step ? len - d.used : step;
        if (h1_body_read(&body, buf + d.used, n, &used, &content) != 0) {
            d.bad = true;
            break;
        }
        must(used > 0 && used <= n && content.len <= used);
        must(!content.len ||
             (content.at >= buf + d.used && content.at + content.len <= buf + d.used + used));
        memcpy(d.at + d.len, content.at, content.len);
        d.len += content.len;
        d.used += used;
    }
    d.done = body.done;
    must(body.total == d.len && body.kept_len <= body.kept_size);
    must(!body.kept_len || memcmp(trailer + body.kept_len - 2, "\r\n", 2) == 0);
    return d;
}

/* The same, gathered in place. */
static struct decoded gather(const char *buf, size_t len, unsigned max)
{
    struct decoded d = {.at = malloc(len + 1)};
    char *copy = malloc(len + 1);
    struct iovec iov[3];
    struct h1_spans spans = {.iov = iov, .max = max};
    struct h1_body body;
    memcpy(copy, buf, len);
    h1_body_init(&body, H1_CHUNKED, 0);
    while (!body.done && !d.bad && d.used < len) {
        size_t used;
        d.bad = h1_body_gather(&body, copy + d.used, len - d.used, &used, &spans) != 0;
        must(used <= len - d.used && spans.n <= max);
        d.used += used;
        for (unsigned i = 0; i < spans.n; i++) {
            must((char *)iov[i].iov_base + iov[i].iov_len <= copy + d.used);
            memcpy(d.at + d.len, iov[i].iov_base, iov[i].iov_len);
            d.len += iov[i].iov_len;
        }
    }
    d.done = body.done;
    free(copy);
    return d;
}

static int collect(llhttp_t *p, const char *at, size_t len)
{
    struct decoded *d = p->data;
    memcpy(d->at + d->len, at, len);
    d->len += len;
    return 0;
}

static int complete(llhttp_t *p)
{
    ((struct decoded *)p->data)->done = true;
    return HPE_PAUSED;
}

static void fuzz_chunks(const char *buf, size_t len)
{
    static const char start[] = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const llhttp_settings_t settings = {.on_body = collect, .on_message_complete = complete};
    struct decoded a = decode(buf, len, len + 1), b = decode(buf, len, 1),
                   c = {.at = malloc(len + 1)};
    for (unsigned max = 1; max <= 3; max += 2) {
        const struct decoded g = gather(buf, len, max);
        must(a.done == g.done && a.bad == g.bad && a.len == g.len);
        must(memcmp(a.at, g.at, a.len) == 0);
        free(g.at);
    }
    must(a.done == b.done && a.bad == b.bad && a.len == b.len && memcmp(a.at, b.at, a.len) == 0);
    if (a.done) {
        llhttp_t p;
        must(a.used == b.used);
        llhttp_init(&p, HTTP_REQUEST, &settings);
        p.data = &c;
        must(llhttp_execute(&p, start, sizeof start - 1) == HPE_OK);
        llhttp_execute(&p, buf, a.used);
        /* llhttp 8.1 refuses quoted extension values and some trailers that are well-formed; as far
         * as it goes it must see the same. */
        must(c.len <= a.len && memcmp(c.at, a.at, c.len) == 0);
        must(!c.done || c.len == a.len);
    }
    free(a.at);
    free(b.at);
    free(c.at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    /* a copy that ends where the input ends */
    char *buf = malloc(size);
    must(buf);
    memcpy(buf, data + 1, size - 1);
    char *exact = realloc(buf, size - 1 ? size - 1 : 1);
    if ((data[0] & 3) == CHUNKED)
        fuzz_chunks(exact, size - 1);
    else
        fuzz_head(data[0] & 3, exact, size - 1);
    free(exact);
    return 0;
}
