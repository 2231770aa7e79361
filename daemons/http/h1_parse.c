/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * h1_parse: heads of requests and responses. llhttp (strict) reads the bytes; what it would let
 * through or does not look at is checked here: line ends, the request line's parts, the target's
 * form, Host, the framing fields, every size limit.
 */
#include "daemons/http/h1.h"
#include "daemons/http/h1_fields.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Where problem is kept while llhttp calls back. */
struct parse {
    struct h1_head *head;
    enum problem problem; /* PROBLEMS: none yet */
};

size_t h1_skip_blank(const char *buf, size_t len)
{
    size_t n = 0;
    while (len - n >= 2 && buf[n] == '\r' && buf[n + 1] == '\n')
        n += 2;
    return n;
}

/* ---- the end of the head --------------------------------------------------------------------- */

/* Looks for the blank line from *scanned on. Every LF must follow a CR (RFC 9112 2.2 lets us refuse
 * a bare one) and no line may begin with white space (obs-fold, 5.2). H1_DONE: *end is behind it.
 */
static enum h1_result find_end(const char *buf, size_t len, size_t *scanned, size_t *end,
                               size_t *bad_at)
{
    const char *stop = buf + len;
    const char *at = buf + *scanned;
    while ((at = memchr(at, '\n', (size_t)(stop - at)))) {
        *bad_at = (size_t)(at - buf);
        if (at == buf || at[-1] != '\r')
            return H1_BAD;
        if (at - buf >= 3 && at[-2] == '\n') {
            *end = (size_t)(at + 1 - buf);
            return H1_DONE;
        }
        if (at + 1 == stop) { /* the next line's first byte must be seen: look at this LF again */
            *scanned = (size_t)(at - buf);
            return H1_MORE;
        }
        at++;
        if (*at == ' ' || *at == '\t')
            return H1_BAD;
    }
    *scanned = len;
    return H1_MORE;
}

/* Is the target of this unfinished head already longer than any we take? */
static bool target_is_too_long(const char *buf, size_t len)
{
    const char *target = memchr(buf, ' ', len < 64 ? len : 64);
    if (!target++)
        return false;
    size_t rest = len - (size_t)(target - buf);
    if (rest <= H1_TARGET_MAX)
        return false;
    return !memchr(target, ' ', H1_TARGET_MAX + 1) && !memchr(target, '\r', H1_TARGET_MAX + 1);
}

/* ---- llhttp's callbacks ---------------------------------------------------------------------- */

static int on_field(llhttp_t *p, const char *at, size_t len)
{
    struct parse *parse = p->data;
    struct h1_head *h = parse->head;
    if (h->n_fields == H1_FIELDS_MAX) {
        parse->problem = PROBLEM_HEAD_TOO_LARGE;
        return HPE_USER;
    }
    if (len == 0)
        return HPE_USER;
    struct h1_field *f = &h->field[h->n_fields++];
    f->name = (struct str){at, len};
    f->value = (struct str){at + len, 0};
    f->id = h1_field_id_of(f->name);
    if (f->id != H1_OTHER && !h->first[f->id])
        h->first[f->id] = (uint16_t)h->n_fields;
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t len)
{
    struct h1_head *h = ((struct parse *)p->data)->head;
    if (h->n_fields == 0)
        return HPE_USER;
    h->field[h->n_fields - 1].value = h1_trim((struct str){at, len});
    return 0;
}

static int on_complete(llhttp_t *p)
{
    (void)p;
    return HPE_PAUSED; /* the body is h1_body's */
}

static const llhttp_settings_t callbacks = {
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_complete,
};

/* Only what is read before it is written is cleared: not the 5 KB of field[]. */
static void clear_head(struct h1_head *h)
{
    memset(h, 0, offsetof(struct h1_head, field));
}

/* Methods that llhttp does not know, and one of the same kind that it does (safe, with a body): it
 * gets that for a name. */
static const struct {
    const char *method, *stands_in;
} newer_methods[] = {{"QUERY ", "REPORT "}};

/* True if llhttp took exactly the len bytes as one head. */
static bool run_llhttp(llhttp_t *p, llhttp_type_t type, struct parse *parse, const char *buf,
                       size_t len)
{
    size_t skip = 0;
    llhttp_init(p, type, &callbacks);
    p->data = parse;
    for (size_t i = 0; type == HTTP_REQUEST && i < sizeof newer_methods / sizeof *newer_methods;
         i++) {
        const size_t n = strlen(newer_methods[i].method);
        const char *name = newer_methods[i].stands_in;
        if (len > n && !memcmp(buf, newer_methods[i].method, n) &&
            llhttp_execute(p, name, strlen(name)) == HPE_OK)
            skip = n;
    }
    if (llhttp_execute(p, buf + skip, len - skip) != HPE_PAUSED)
        return false;
    parse->head->head_len = (uint32_t)len;
    return true;
}

/* ---- fields that both kinds of message have ---- */

static void nominate(struct h1_head *h, struct str name)
{
    for (uint32_t i = 0; i < h->n_fields; i++) {
        const struct h1_field *f = &h->field[i];
        if (f->id != H1_OTHER || f->name.len != name.len)
            continue;
        if (strncasecmp(f->name.at, name.at, name.len) == 0)
            h->nominated[i / 64] |= UINT64_C(1) << (i % 64);
    }
}

/* More options than any client sends: looking each of them up would be wasted work. */
#define OPTIONS_MAX 64

/* Connection: persistence, upgrade, and the fields that are for us alone (RFC 9110 7.6.1). False
 * where there are too many options, or (strict) one is no token. */
static bool read_connection(struct h1_head *h, bool strict)
{
    bool close = false, keep = false, upgrade = false, bad = false;
    unsigned n = 0;
    for (uint32_t i = h->first[H1_CONNECTION] ? h->first[H1_CONNECTION] - 1u : h->n_fields;
         i < h->n_fields; i++) {
        struct str rest = h->field[i].value, token;
        if (h->field[i].id != H1_CONNECTION)
            continue;
        while (field_list_next(&rest, &token)) {
            if (++n > OPTIONS_MAX)
                return false;
            if (!field_is_token(token))
                bad = true;
            else if (field_is(token, "close"))
                close = true;
            else if (field_is(token, "keep-alive"))
                keep = true;
            else if (field_is(token, "upgrade"))
                upgrade = true;
            else
                nominate(h, token);
        }
    }
    h->keep_alive = !close && (h->minor == 1 || keep);
    h->asks_upgrade = upgrade && h->minor == 1 && h->first[H1_UPGRADE];
    return !bad || !strict;
}

/* Digits only, once: several lines or a list are refused even where they agree. */
static bool read_length(struct h1_head *h)
{
    struct str v = h1_find(h, H1_CONTENT_LENGTH)->value;
    uint64_t n = 0;
    for (uint32_t i = h->first[H1_CONTENT_LENGTH]; i < h->n_fields; i++)
        if (h->field[i].id == H1_CONTENT_LENGTH)
            return false;
    if (v.len == 0)
        return false;
    for (size_t i = 0; i < v.len; i++) {
        unsigned digit = (unsigned char)v.at[i] - (unsigned)'0';
        if (digit > 9 || n > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    h->length = n;
    return true;
}

/* Errors for other codings (RFC 9112 6.1, 6.3): without chunked as the last one the end of the body
 * is unknown; with it, we just do not decode the others. */
static enum problem judge_codings(const struct h1_head *h)
{
    bool tokens = true, last_is_chunked = false;
    unsigned chunked = 0;
    for (uint32_t i = h->first[H1_TRANSFER_ENCODING] - 1u; i < h->n_fields; i++) {
        struct str rest = h->field[i].value, coding;
        while (h->field[i].id == H1_TRANSFER_ENCODING && field_list_next(&rest, &coding)) {
            last_is_chunked = field_is(coding, "chunked");
            chunked += last_is_chunked;
            tokens = tokens && field_is_token(coding);
        }
    }
    return tokens && last_is_chunked && chunked == 1 ? PROBLEM_NOT_IMPLEMENTED
                                                     : PROBLEM_BAD_REQUEST;
}

/* The one coding we take is "chunked", once, in one line, in HTTP/1.1 (RFC 9112 6.1). True, or
 * which problem the codings are. */
static bool read_codings(const struct h1_head *h, enum problem *problem)
{
    const unsigned first = h->first[H1_TRANSFER_ENCODING];
    unsigned lines = 0;
    *problem = PROBLEM_BAD_REQUEST;
    if (h->minor == 0 || h->first[H1_CONTENT_LENGTH])
        return false;
    for (uint32_t i = first - 1; i < h->n_fields; i++)
        lines += h->field[i].id == H1_TRANSFER_ENCODING;
    if (lines == 1 && field_is(h->field[first - 1].value, "chunked"))
        return true;
    struct str rest = h->field[first - 1].value, coding;
    if (lines == 1 && field_list_next(&rest, &coding) && coding.len == 7 && !rest.len &&
        field_is(coding, "chunked"))
        return false; /* "chunked,": an empty one more */
    *problem = judge_codings(h);
    return false;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* ":" and up to five digits; nothing at all; or a ":" alone (RFC 3986 3.2.3). */
static bool port_is_valid(const char *at, const char *end)
{
    unsigned port = 0;
    if (at == end)
        return true;
    if (*at++ != ':' || end - at > 5)
        return false;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9')
            return false;
        port = port * 10 + (unsigned)(*at - '0');
    }
    return port <= 65535;
}

/* A name, an IPv4 address, or an IPv6 address in brackets, of which only the form is checked. */
static bool host_is_valid(struct str host)
{
    const char *at = host.at, *end = host.at + host.len;
    if (host.len == 0 || host.len > 261)
        return false;
    if (*at == '[') {
        const char *close = memchr(at, ']', host.len);
        if (!close || close - at < 3)
            return false;
        for (at++; at < close; at++)
            if (!memchr("0123456789abcdefABCDEF:.", *at, 24))
                return false;
        return port_is_valid(close + 1, end);
    }
    while (at < end && h1_is_host_byte((unsigned char)*at))
        at++;
    return at > host.at && port_is_valid(at, end);
}

static bool split_path(struct h1_head *h, struct str t)
{
    const char *query = memchr(t.at, '?', t.len);
    h->path = (struct str){t.at, query ? (size_t)(query - t.at) : t.len};
    if (query)
        h->query = (struct str){query + 1, t.len - h->path.len - 1};
    if (h->path.len == 0)
        h->path = (struct str){"/", 1};
    return h->path.at[0] == '/';
}

static bool starts_with(struct str t, const char *lower)
{
    size_t n = strlen(lower);
    return t.len >= n && field_is((struct str){t.at, n}, lower);
}

/* Without the port that is meant anyhow, or an empty one (RFC 3986 6.2.3). */
static struct str without_port(struct str host, const char *port)
{
    size_t n = strlen(port);
    if (host.len > n && memcmp(host.at + host.len - n, port, n) == 0)
        host.len -= n;
    else if (host.len > 1 && host.at[host.len - 1] == ':')
        host.len--;
    return host;
}

/* http://host/path?query: the authority is the host (RFC 9112 3.2.2); a different Host field might
 * be used by a server behind us, so it is refused. */
static bool split_absolute(struct h1_head *h, const struct h1_field *host, bool options)
{
    bool tls = starts_with(h->target, "https://");
    if (!tls && !starts_with(h->target, "http://"))
        return false;
    struct str t = {h->target.at + (tls ? 8 : 7), h->target.len - (tls ? 8 : 7)};
    size_t n = 0;
    while (n < t.len && t.at[n] != '/' && t.at[n] != '?')
        n++;
    h->host = (struct str){t.at, n};
    if (!host_is_valid(h->host))
        return false;
    if (host) {
        struct str a = without_port(h->host, tls ? ":443" : ":80");
        struct str b = without_port(host->value, tls ? ":443" : ":80");
        if (a.len != b.len || strncasecmp(a.at, b.at, a.len) != 0)
            return false;
    }
    if (options && n == t.len) { /* OPTIONS * in absolute form (RFC 9112 3.2.4) */
        h->path = (struct str){"*", 1};
        return true;
    }
    return split_path(h, (struct str){t.at + n, t.len - n});
}

/* Host and the target's form (RFC 9112 3.2). */
static bool read_target(struct h1_head *h, llhttp_method_t method)
{
    const struct h1_field *host = h1_find(h, H1_HOST);
    if (host) {
        for (uint32_t i = h->first[H1_HOST]; i < h->n_fields; i++)
            if (h->field[i].id == H1_HOST)
                return false;
        if (!host_is_valid(host->value))
            return false;
        h->host = host->value;
    } else if (h->minor == 1) {
        return false;
    } else {
        h->host = (struct str){"", 0};
    }
    if (memchr(h->target.at, '#', h->target.len))
        return false;
    if (h->target.at[0] == '/')
        return split_path(h, h->target);
    if (h->target.len == 1 && h->target.at[0] == '*') {
        h->path = h->target;
        return method == HTTP_OPTIONS;
    }
    return split_absolute(h, host, method == HTTP_OPTIONS);
}

/* METHOD SP target SP HTTP/1.x CRLF, one space each (RFC 9112 3). PROBLEMS: it is one. */
static enum problem split_request_line(struct h1_head *h, const char *buf, size_t len)
{
    const char *end = memchr(buf, '\r', len);
    const char *sp = memchr(buf, ' ', (size_t)(end - buf));
    if (!sp)
        return PROBLEM_BAD_REQUEST;
    h->method = (struct str){buf, (size_t)(sp - buf)};
    const char *target = sp + 1;
    sp = memchr(target, ' ', (size_t)(end - target));
    size_t target_len = (size_t)((sp ? sp : end) - target);
    if (target_len > H1_TARGET_MAX)
        return PROBLEM_URI_TOO_LONG;
    if (!sp || target_len == 0 || !field_is_token(h->method))
        return PROBLEM_BAD_REQUEST;
    h->target = (struct str){target, target_len};
    const char *v = sp + 1;
    if (end - v != 8 || memcmp(v, "HTTP/", 5) != 0 || v[6] != '.' || v[5] < '0' || v[5] > '9' ||
        v[7] < '0' || v[7] > '9')
        return PROBLEM_BAD_REQUEST;
    if (v[5] != '1' || v[7] > '1')
        return PROBLEM_VERSION;
    h->minor = (uint8_t)(v[7] - '0');
    return PROBLEMS;
}

static enum problem judge_method(struct h1_head *h, llhttp_method_t method)
{
    switch (method) {
    case HTTP_CONNECT: /* we are no tunnel */
    case HTTP_TRACE:   /* would show what the gateway adds, and cookies to scripts */
    case HTTP_PRI:
        return PROBLEM_NOT_IMPLEMENTED;
    case HTTP_GET:
    case HTTP_HEAD:
    case HTTP_OPTIONS:
    case HTTP_PROPFIND:
    case HTTP_REPORT:
    case HTTP_SEARCH:
        h->is_safe = true;
        break;
    default:
        break;
    }
    h->is_get = method == HTTP_GET;
    h->is_head = method == HTTP_HEAD;
    h->is_idempotent = h->is_safe || method == HTTP_PUT || method == HTTP_DELETE;
    return PROBLEMS;
}

static enum problem read_request_framing(struct h1_head *h)
{
    enum problem problem;
    if (h->first[H1_TRANSFER_ENCODING]) {
        if (!read_codings(h, &problem))
            return problem;
        h->framing = H1_CHUNKED;
    } else if (h->first[H1_CONTENT_LENGTH]) {
        if (!read_length(h))
            return PROBLEM_BAD_REQUEST;
        h->framing = H1_LENGTH;
    }
    return PROBLEMS;
}

static enum problem read_expect(struct h1_head *h)
{
    if (!h->first[H1_EXPECT] ||
        h->minor == 0) /* HTTP/1.0 clients do not know it: RFC 9110 10.1.1 */
        return PROBLEMS;
    for (uint32_t i = h->first[H1_EXPECT] - 1u; i < h->n_fields; i++)
        if (h->field[i].id == H1_EXPECT && !field_is(h->field[i].value, "100-continue"))
            return PROBLEM_EXPECTATION_FAILED;
    h->expect_continue = h->framing == H1_CHUNKED || h->length > 0;
    return PROBLEMS;
}

static enum problem read_request(struct parse *parse, const char *buf, size_t len)
{
    struct h1_head *h = parse->head;
    enum problem problem = split_request_line(h, buf, len);
    llhttp_t p;
    if (problem != PROBLEMS)
        return problem;
    if (!run_llhttp(&p, HTTP_REQUEST, parse, buf, len)) {
        if (parse->problem != PROBLEMS)
            return parse->problem;
        /* A method that llhttp does not know, or knows as RTSP's: well-formed, but not ours. */
        if (p.error == HPE_INVALID_METHOD || p.method >= HTTP_PRI)
            return PROBLEM_NOT_IMPLEMENTED;
        return PROBLEM_BAD_REQUEST;
    }
    problem = judge_method(h, p.method);
    if (problem != PROBLEMS)
        return problem;
    if (!read_connection(h, true) || !read_target(h, p.method))
        return PROBLEM_BAD_REQUEST;
    problem = read_request_framing(h);
    return problem != PROBLEMS ? problem : read_expect(h);
}

enum h1_result h1_parse_request(const char *buf, size_t len, size_t *scanned, struct h1_head *head,
                                enum problem *problem)
{
    size_t end = 0, bad_at;
    struct parse parse = {.head = head, .problem = PROBLEMS};
    *problem = PROBLEM_BAD_REQUEST;
    if (len == 0 || (len == 1 && *buf == '\r'))
        return H1_MORE;
    if (!h1_is_token_byte((unsigned char)*buf)) /* TLS on the wrong port, a scanner */
        return H1_BAD;
    enum h1_result r = find_end(buf, len, scanned, &end, &bad_at);
    if (r == H1_BAD)
        return H1_BAD;
    if (r == H1_MORE || end > H1_HEAD_MAX) {
        if (len > H1_TARGET_MAX && target_is_too_long(buf, len))
            *problem = PROBLEM_URI_TOO_LONG;
        else if (r == H1_DONE || len > H1_HEAD_MAX)
            *problem = PROBLEM_HEAD_TOO_LARGE;
        else
            return H1_MORE;
        return H1_BAD;
    }
    clear_head(head);
    *problem = read_request(&parse, buf, end);
    return *problem == PROBLEMS ? H1_DONE : H1_BAD;
}

/* ---- responses ------------------------------------------------------------------------------- */

/* HTTP/1.x SP 3DIGIT [SP reason] CRLF. The space behind the status is often forgotten. */
static bool split_status_line(struct h1_head *h, const char *buf, size_t len)
{
    const char *end = memchr(buf, '\r', len);
    size_t n = (size_t)(end - buf);
    if (n < 12 || memcmp(buf, "HTTP/1.", 7) != 0 || buf[8] != ' ' || (n > 12 && buf[12] != ' '))
        return false;
    if (buf[7] != '0' && buf[7] != '1')
        return false;
    h->minor = (uint8_t)(buf[7] - '0');
    for (int i = 9; i < 12; i++) {
        if (buf[i] < '0' || buf[i] > '9')
            return false;
        h->status = (uint16_t)(h->status * 10 + (buf[i] - '0'));
    }
    h->reason = n > 13 ? (struct str){buf + 13, n - 13} : (struct str){"", 0};
    for (size_t i = 0; i < h->reason.len; i++)
        if (!h1_is_value_byte((unsigned char)h->reason.at[i]))
            return false;
    return h->status >= 100;
}

static bool read_response_framing(struct h1_head *h, bool to_head)
{
    enum problem ignored;
    if (h->first[H1_TRANSFER_ENCODING] && !read_codings(h, &ignored))
        return false;
    if (h->first[H1_CONTENT_LENGTH] && !read_length(h))
        return false;
    if (to_head || h->status < 200 || h->status == 204 || h->status == 304)
        h->framing = H1_NO_BODY;
    else if (h->first[H1_TRANSFER_ENCODING])
        h->framing = H1_CHUNKED;
    else if (h->first[H1_CONTENT_LENGTH])
        h->framing = H1_LENGTH;
    else
        h->framing = H1_TO_CLOSE;
    if (h->framing == H1_TO_CLOSE)
        h->keep_alive = false;
    return true;
}

/* Why the head is refused, with the place. */
static enum h1_result flawed(struct h1_head *head, const char *what, size_t at)
{
    static _Thread_local char text[96];
    snprintf(text, sizeof text, "%s at byte %zu", what, at);
    head->flaw = text;
    return H1_BAD;
}

static enum h1_result too_large(struct h1_head *head, const char *flaw)
{
    head->flaw = flaw;
    head->flaw_is_size = true;
    return H1_BAD;
}

enum h1_result h1_parse_response(const char *buf, size_t len, size_t *scanned, bool to_head,
                                 struct h1_head *head)
{
    size_t end = 0, bad_at = 0;
    enum h1_result r = find_end(buf, len, scanned, &end, &bad_at);
    struct parse parse = {.head = head, .problem = PROBLEMS};
    llhttp_t p;
    if (r == H1_MORE && len <= H1_HEAD_MAX)
        return H1_MORE;
    clear_head(head);
    if (r == H1_BAD)
        return flawed(head, "with a malformed line", bad_at);
    if (r == H1_MORE || end > H1_HEAD_MAX)
        return too_large(head, "over 16 KiB");
    if (!split_status_line(head, buf, end))
        return flawed(head, "with a malformed status line", 0);
    if (!run_llhttp(&p, HTTP_RESPONSE, &parse, buf, end)) {
        if (parse.problem == PROBLEM_HEAD_TOO_LARGE)
            return too_large(head, "with over 128 fields");
        const char *at = llhttp_get_error_pos(&p);
        return flawed(head, "with a malformed field", at ? (size_t)(at - buf) : 0);
    }
    if (!read_connection(head, false) || !read_response_framing(head, to_head)) {
        head->flaw = "with a malformed Connection, Transfer-Encoding or Content-Length";
        return H1_BAD;
    }
    return H1_DONE;
}
