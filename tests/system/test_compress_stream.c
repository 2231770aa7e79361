/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of answers that are compressed for their client while they stream. */
#include "coded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static struct backend *backend;
static atomic_uint released; /* parts of /slow that the backend may send */

static const char *const codings[] = {"gzip", "br", "zstd"};

/* A text of that many bytes that is never twice the same in a row. */
static char *document(size_t size)
{
    char *s = malloc(size + 64);
    size_t n = 0;
    for (unsigned i = 0; n < size; i++)
        n += (size_t)sprintf(s + n, "{\"line\": %u, \"of\": \"a document\"}\n", i);
    s[size] = 0;
    return s;
}

static bool send_in_pieces(struct asked *a, const char *text, size_t size, size_t piece)
{
    bool ok = true;
    for (size_t at = 0; ok && at < size; at += piece) {
        const size_t n = size - at < piece ? size - at : piece;
        ok = reply(a, "%zx\r\n", n) && reply_bytes(a, text + at, n) && reply(a, "\r\n");
    }
    return ok;
}

/* Parts that come when the test says so. */
static bool send_slowly(struct asked *a)
{
    bool ok = reply(a, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                       "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (unsigned i = 0; ok && i < 3; i++) {
        const uint64_t end = mono_ms() + harness_patience(20000);
        while (atomic_load(&released) <= i && mono_ms() < end)
            nap_ms(2);
        ok = reply(a, "b\r\n{\"part\": %u}\r\n", i);
    }
    return ok && reply(a, "0\r\n\r\n");
}

static bool answers(struct asked *a)
{
    static const struct {
        const char *path, *lines;
    } kinds[] = {
        {"/private",
         "Content-Type: application/json\r\nCache-Control: private\r\nETag: \"v7\"\r\n"},
        {"/stored", "Content-Type: text/html\r\nCache-Control: max-age=60\r\nETag: \"v7\"\r\n"},
        {"/error", "Content-Type: text/html\r\nCache-Control: no-store\r\n"},
        {"/png", "Content-Type: image/png\r\nCache-Control: no-store\r\n"},
        {"/events", "Content-Type: text/event-stream\r\nCache-Control: no-store\r\n"},
        {"/fixed", "Content-Type: text/plain\r\nCache-Control: no-store, no-transform\r\n"},
        {"/digest", "Content-Type: text/plain\r\nCache-Control: no-store\r\n"
                    "Content-Digest: sha-256=:AAAA:\r\n"},
        {"/coded", "Content-Type: text/plain\r\nCache-Control: no-store\r\n"
                   "Content-Encoding: gzip\r\n"},
        {"/weak", "Content-Type: text/plain\r\nCache-Control: no-store\r\nETag: W/\"w7\"\r\n"},
        {"/accept", ""},
        {"/tagless", "Content-Type: text/plain\r\nCache-Control: max-age=60\r\n"},
    };
    const char *t = strncmp(a->target, "/plain", 6) ? a->target : a->target + 6;
    const char *last = strrchr(t, '/');
    const size_t size = last && last != t ? strtoul(last + 1, NULL, 10) : 4000;
    const bool head = !strcmp(a->method, "HEAD");
    if (!strncmp(t, "/slow", 5))
        return send_slowly(a);
    if (!strncmp(t, "/accept", 7)) {
        char lines[256];
        const char *said = field_of(&a->m, "Accept-Encoding");
        snprintf(lines, sizeof lines, "Cache-Control: no-store\r\nX-Asked: %.100s\r\n",
                 said ? said : "nothing");
        return reply_ok(a, lines, "short");
    }
    if (!strcmp(a->method, "PUT")) {
        const char *condition = field_of(&a->m, "If-Match");
        char lines[256];
        snprintf(lines, sizeof lines, "X-Condition: %.100s\r\n", condition ? condition : "none");
        return reply_ok(a, lines, "");
    }
    if (field_of(&a->m, "If-None-Match") && !strcmp(field_of(&a->m, "If-None-Match"), "\"v7\""))
        return reply(a, "HTTP/1.1 304 Not Modified\r\nETag: \"v7\"\r\n\r\n");
    char *text = document(size);
    bool ok = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !ok; i++) {
        if (strncmp(t, kinds[i].path, strlen(kinds[i].path)) != 0)
            continue;
        const char *status = strncmp(t, "/error", 6) ? "200 OK" : "500 Internal Server Error";
        if (strstr(t, "chunked")) {
            ok =
                reply(a, "HTTP/1.1 %s\r\n%sTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n",
                      status, kinds[i].lines) &&
                (head || (send_in_pieces(a, text, size, 777) && reply(a, "0\r\nX-Sum: 9\r\n\r\n")));
        } else if (strstr(t, "to-close") || strstr(t, "cut")) {
            ok = reply(a,
                       strstr(t, "cut") ? "HTTP/1.1 %s\r\n%sContent-Length: 900000\r\n\r\n"
                                        : "HTTP/1.1 %s\r\n%s\r\n",
                       status, kinds[i].lines) &&
                 reply_bytes(a, text, size);
            break;
        } else {
            ok = reply(a, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", status, kinds[i].lines,
                       size) &&
                 (head || reply_bytes(a, text, size));
        }
    }
    free(text);
    return ok && !strstr(t, "to-close") && !strstr(t, "cut");
}

static void start(struct house *h, const char *compress)
{
    house_start(h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/plain/*\" { upstream = \"u\" %s }\n"
                "route \"/off/*\" { upstream = \"u\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend), compress);
    backend_forget(backend);
    atomic_store(&released, 0);
}

static int ask(struct house *h, const char *target, const char *accept, struct message *m)
{
    char lines[256];
    snprintf(lines, sizeof lines, "Accept-Encoding: %s\r\n", accept);
    return get_with(h->port, target, lines, m);
}

static void expect_document(const struct message *m, size_t size)
{
    char *s = document(size);
    assert_true(m->complete);
    assert_string_equal(plain_of(m), s);
    free(s);
}

/* ---- stories ---- */

/* What a cache section must not take from a client, in all framings and sizes. */
static void what_is_not_stored_is_compressed_all_the_same(void **state)
{
    (void)state;
    static const char *const kinds[] = {"/private/%zu", "/private/chunked/%zu",
                                        "/private/to-close/%zu", "/plain/private/chunked/%zu",
                                        "/plain/private/%zu"};
    static const size_t sizes[] = {1024, 5000, 100000, 1500000};
    struct house h;
    struct message m;
    char target[64];
    start(&h, "compress = {\"zstd\", \"br\", \"gzip\"}");
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (size_t c = 0; c < 3; c++) {
                snprintf(target, sizeof target, kinds[k], sizes[i]);
                assert_int_equal(ask(&h, target, codings[c], &m), 200);
                assert_string_equal(coding_of(&m), codings[c]);
                assert_string_equal(field_of(&m, "Vary"), "Accept-Encoding");
                assert_string_equal(field_of(&m, "ETag"), "W/\"v7~polder\"");
                assert_null(field_of(&m, "Content-Length"));
                assert_true(m.body_len < sizes[i] / 2);
                expect_document(&m, sizes[i]);
                message_free(&m);
            }
    assert_int_equal(get(h.port, "/private/5000", &m), 200);
    assert_string_equal(coding_of(&m), "identity");
    assert_string_equal(field_of(&m, "Vary"), "Accept-Encoding");
    assert_string_equal(field_of(&m, "ETag"), "\"v7\"");
    assert_string_equal(field_of(&m, "Content-Length"), "5000");
    message_free(&m);
    house_remove(&h);
}

static void the_answer_on_its_way_to_the_store_is_compressed_too(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "");
    wait_until(get(h.port, "/stored/2000", NULL) == 200 &&
                   served_from_store(h.port, "/stored/2000"),
               20000);
    for (size_t c = 0; c < 3; c++) {
        char target[64];
        snprintf(target, sizeof target, "/stored/%s/30000", codings[c]);
        assert_int_equal(ask(&h, target, codings[c], &m), 200);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "stored"));
        assert_string_equal(coding_of(&m), codings[c]);
        expect_document(&m, 30000);
        message_free(&m);
        for (int i = 0; i < 20; i++) { /* hits too, from the first one on */
            assert_int_equal(ask(&h, target, codings[c], &m), 200);
            assert_string_equal(coding_of(&m), codings[c]);
            assert_string_equal(field_of(&m, "ETag"), "W/\"v7~polder\"");
            expect_document(&m, 30000);
            message_free(&m);
        }
        assert_int_equal(get(h.port, target, &m), 200); /* what is stored is plain */
        assert_string_equal(coding_of(&m), "identity");
        assert_string_equal(field_of(&m, "ETag"), "\"v7\"");
        expect_document(&m, 30000);
        message_free(&m);
    }
    house_remove(&h);
}

static void what_gains_nothing_is_left_alone(void **state)
{
    (void)state;
    static const char *const targets[] = {
        "/png/9000",         "/events/9000",       "/fixed/9000",     "/digest/9000",
        "/coded/9000",       "/private/1023",      "/plain/png/9000", "/plain/events/9000",
        "/plain/coded/9000", "/plain/private/1023"};
    struct house h;
    struct message m;
    start(&h, "compress = {\"gzip\"}");
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        assert_int_equal(ask(&h, targets[i], "gzip", &m), 200);
        if (!strstr(targets[i], "coded"))
            assert_null(field_of(&m, "Content-Encoding"));
        assert_null(field_of(&m, "Vary"));
        assert_non_null(field_of(&m, "Content-Length"));
        message_free(&m);
    }
    /* who wants it as it is, or only a part */
    static const char *const lines[] = {"Accept-Encoding: gzip;q=0\r\n", "",
                                        "Accept-Encoding: gzip\r\nCache-Control: no-transform\r\n",
                                        "Accept-Encoding: gzip\r\nRange: bytes=0-99\r\n"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(get_with(h.port, "/plain/private/9000", lines[i], &m), 200);
        assert_null(field_of(&m, "Content-Encoding"));
        assert_string_equal(field_of(&m, "Vary"), "Accept-Encoding");
        message_free(&m);
    }
    /* a weak tag is the backend's own already */
    assert_int_equal(ask(&h, "/weak/9000", "gzip", &m), 200);
    assert_string_equal(coding_of(&m), "gzip");
    assert_string_equal(field_of(&m, "ETag"), "W/\"w7\"");
    message_free(&m);
    /* an error page is as much text as any other */
    assert_int_equal(ask(&h, "/error/9000", "gzip", &m), 500);
    assert_string_equal(coding_of(&m), "gzip");
    expect_document(&m, 9000);
    message_free(&m);
    house_remove(&h);
}

static void bypassed_requests_carry_the_clients_accept_encoding(void **state)
{
    (void)state;
    static const char *const with[] = {"If-Match: \"x\"\r\n", "Content-Length: 1\r\n"};
    struct house h;
    struct message m;
    char lines[128];
    start(&h, "compress = {\"gzip\"}");
    for (size_t i = 0; i < 2; i++) {
        snprintf(lines, sizeof lines, "Accept-Encoding: br, x-own\r\n%s", with[i]);
        assert_int_equal(request(h.port, i ? "POST" : "GET", "/accept",
                                 i ? "Accept-Encoding: br, x-own\r\n" : lines, i ? "x" : "", &m),
                         200);
        assert_string_equal(field_of(&m, "X-Asked"), "br, x-own");
        message_free(&m);
    }
    static const char *const targets[] = {"/plain/accept", "/off/accept"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(ask(&h, targets[i] + (i ? 4 : 0), "br, x-own", NULL), 200);
    }
    assert_int_equal(ask(&h, "/plain/accept", "br, x-own", &m), 200);
    assert_string_equal(field_of(&m, "X-Asked"), "br, x-own"); /* the backend may do it as well */
    message_free(&m);
    house_remove(&h);
}

static void head_says_what_get_would(void **state)
{
    (void)state;
    static const char *const targets[] = {"/plain/private/9000", "/plain/private/chunked/9000",
                                          "/private/9000"};
    struct house h;
    struct message get_m, head_m;
    start(&h, "compress = {\"gzip\"}");
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ask(&h, targets[i], "gzip", &get_m), 200);
        int fd = client_connect(h.port);
        client_send(fd, "HEAD %s HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n", targets[i]);
        client_read(fd, &head_m, true);
        close(fd);
        static const char *const same[] = {"Content-Encoding", "Vary", "ETag", "Content-Length"};
        for (size_t k = 0; k < 4; k++) {
            char value[128] = "none";
            if (field_of(&get_m, same[k]))
                snprintf(value, sizeof value, "%s", field_of(&get_m, same[k]));
            const char *head = field_of(&head_m, same[k]);
            assert_string_equal(head ? head : "none", value);
        }
        message_free(&get_m);
        message_free(&head_m);
    }
    house_remove(&h);
}

static void conditions_name_the_backends_own_tags(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "compress = {\"gzip\"}");
    assert_int_equal(get_with(h.port, "/plain/private/9000",
                              "Accept-Encoding: gzip\r\nIf-None-Match: W/\"v7~polder\"\r\n", &m),
                     304);
    assert_string_equal(field_of(&m, "ETag"), "W/\"v7~polder\"");
    assert_null(field_of(&m, "Content-Encoding"));
    message_free(&m);
    static const char *const sent[][2] = {
        {"W/\"v7~polder\"", "\"v7\""},
        {"W/\"v7\"", "W/\"v7\""},
        {"\"v7~polder\"", "\"v7~polder\""},
        {"W/\"a\", W/\"b~polder\" , \"c\"", "W/\"a\", \"b\", \"c\""},
        {"*", "*"}};
    static const char *const targets[] = {"/plain/private/9000", "/private/9000"};
    for (size_t t = 0; t < 2; t++)
        for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
            char lines[128];
            snprintf(lines, sizeof lines, "If-Match: %s\r\n", sent[i][0]);
            assert_int_equal(request(h.port, "PUT", targets[t], lines, "x", &m), 200);
            assert_string_equal(field_of(&m, "X-Condition"), sent[i][1]);
            message_free(&m);
        }
    house_remove(&h);
}

/* The content of the chunks that are there; without the head. */
static size_t unchunk(const char *raw, size_t have, char *out)
{
    const char *at = memmem(raw, have, "\r\n\r\n", 4), *end = raw + have;
    size_t n = 0;
    at = at ? at + 4 : end;
    while (at < end) {
        char *behind;
        const size_t size = strtoul(at, &behind, 16);
        if (behind + 2 > end || !size)
            break;
        at = behind + 2;
        const size_t part = (size_t)(end - at) < size ? (size_t)(end - at) : size;
        memcpy(out + n, at, part);
        n += part;
        at += part + 2;
    }
    return n;
}

/* What a decoder can show of a stream that has not ended. */
static void decode_so_far(const char *coding, const char *raw, size_t have, char *plain,
                          size_t size)
{
    static char coded[65536];
    const size_t n = unchunk(raw, have, coded);
    size_t made = 0;
    if (!strcmp(coding, "gzip")) {
        z_stream z = {.next_in = (Bytef *)coded,
                      .avail_in = (uInt)n,
                      .next_out = (Bytef *)plain,
                      .avail_out = (uInt)size - 1};
        assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
        inflate(&z, Z_SYNC_FLUSH);
        made = z.total_out;
        inflateEnd(&z);
    } else if (!strcmp(coding, "br")) {
        BrotliDecoderState *d = BrotliDecoderCreateInstance(NULL, NULL, NULL);
        size_t in = n, room = size - 1;
        const uint8_t *from = (const uint8_t *)coded;
        uint8_t *to = (uint8_t *)plain;
        BrotliDecoderDecompressStream(d, &in, &from, &room, &to, NULL);
        made = size - 1 - room;
        BrotliDecoderDestroyInstance(d);
    } else {
        ZSTD_DStream *d = ZSTD_createDStream();
        ZSTD_inBuffer in = {coded, n, 0};
        ZSTD_outBuffer out = {plain, size - 1, 0};
        ZSTD_decompressStream(d, &out, &in);
        made = out.pos;
        ZSTD_freeDStream(d);
    }
    plain[made] = 0;
}

/* Has that part arrived, as a decoder sees it? */
static bool arrives(int fd, const char *coding, char *raw, size_t *have, const char *part)
{
    char plain[4096];
    const ssize_t n = recv(fd, raw + *have, 65535 - *have, MSG_DONTWAIT);
    *have += n > 0 ? (size_t)n : 0;
    raw[*have] = 0;
    decode_so_far(coding, raw, *have, plain, sizeof plain);
    return strstr(plain, part);
}

/* Nothing waits for more to come. */
static void a_stream_is_not_held_back(void **state)
{
    (void)state;
    struct house h;
    char part[32];
    start(&h, "compress = {\"zstd\", \"br\", \"gzip\"}");
    for (size_t c = 0; c < 3; c++) {
        int fd = client_connect(h.port);
        static char raw[65536];
        size_t have = 0;
        atomic_store(&released, 0);
        client_send(fd, "GET %s/slow HTTP/1.1\r\nHost: h\r\nAccept-Encoding: %s\r\n\r\n",
                    c == 1 ? "" : "/plain", codings[c]);
        for (unsigned i = 0; i < 3; i++) {
            atomic_store(&released, i + 1);
            snprintf(part, sizeof part, "{\"part\": %u}", i);
            wait_until(arrives(fd, codings[c], raw, &have, part), 5000);
        }
        close(fd);
    }
    house_remove(&h);
}

static bool gzip_ends(const struct message *m)
{
    z_stream z = {.next_in = (Bytef *)m->body,
                  .avail_in = (uInt)m->body_len,
                  .next_out = (Bytef *)decoded,
                  .avail_out = BODY_MOST};
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    const bool ends = inflate(&z, Z_FINISH) == Z_STREAM_END;
    inflateEnd(&z);
    return ends;
}

static void a_body_that_is_cut_never_looks_whole(void **state)
{
    (void)state;
    static const char *const lines[] = {"HTTP/1.1\r\nHost: h", "HTTP/1.0"};
    struct house h;
    struct message m;
    start(&h, "compress = {\"gzip\"}");
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 2; k++) {
            int fd = client_connect(h.port);
            client_send(fd, "GET %s/private/cut/300000 %s\r\nAccept-Encoding: gzip\r\n\r\n",
                        k ? "/plain" : "", lines[i]);
            client_read(fd, &m, false);
            assert_string_equal(coding_of(&m), "gzip");
            if (m.chunked)
                assert_false(m.complete);
            assert_false(gzip_ends(&m)); /* without chunks the reset, and this, tell */
            message_free(&m);
            close(fd);
        }
    assert_int_equal(ask(&h, "/private/5000", "gzip", &m), 200); /* and the worker goes on */
    expect_document(&m, 5000);
    message_free(&m);
    house_remove(&h);
}

static void an_http10_client_gets_it_to_the_end_of_the_connection(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "compress = {\"gzip\"}");
    int fd = client_connect(h.port);
    client_send(fd, "GET /plain/private/9000 HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    client_read(fd, &m, false);
    assert_string_equal(coding_of(&m), "gzip");
    assert_false(m.chunked);
    assert_string_equal(plain_of(&m), ({
                            char *s = document(9000);
                            static char copy[9001];
                            memcpy(copy, s, 9001);
                            free(s);
                            copy;
                        }));
    message_free(&m);
    close(fd);
    /* one that wants to keep its connection gets the length, and so the plain body */
    fd = client_connect(h.port);
    client_send(fd, "GET /plain/private/9000 HTTP/1.0\r\nConnection: keep-alive\r\n"
                    "Accept-Encoding: gzip\r\n\r\n");
    client_read(fd, &m, false);
    assert_string_equal(coding_of(&m), "identity");
    assert_string_equal(field_of(&m, "Content-Length"), "9000");
    assert_string_equal(field_of(&m, "Connection"), "keep-alive");
    message_free(&m);
    close(fd);
    house_remove(&h);
}

static bool is_coded(struct house *h, const char *target, const char *coding)
{
    struct message m;
    assert_int_equal(ask(h, target, coding, &m), 200);
    const bool yes = !strcmp(coding_of(&m), coding);
    expect_document(&m, 9000);
    message_free(&m);
    return yes;
}

/* Answers that do not end hold their encoders; beyond the bound others go plain, and when those
 * have left there are encoders again. */
static void encoders_are_bounded_and_come_back(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    int fd[64];
    start(&h, "compress = {\"gzip\", \"br\"}");
    assert_true(is_coded(&h, "/plain/private/9000", "gzip"));
    for (size_t i = 0; i < 64; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /plain/slow HTTP/1.1\r\nHost: h\r\nAccept-Encoding: %s\r\n\r\n",
                    i % 2 ? "br" : "gzip");
    }
    wait_until(!is_coded(&h, "/plain/private/9000", "gzip"), 20000);
    for (size_t i = 0; i < 64; i++)
        close(fd[i]);
    wait_until(is_coded(&h, "/plain/private/9000", "gzip"), 20000);
    atomic_store(&released, 3);
    assert_int_equal(ctl(&h, &out, "status"), 0);
    house_remove(&h);
}

/* A client that reads slowly gets every byte, and one beside it is not kept waiting. */
static void slow_clients_and_large_bodies_pass(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const int small = 4096;
    start(&h, "compress = {\"gzip\"}");
    int fd = client_connect(h.port);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    client_send(fd, "GET /plain/private/4000000 HTTP/1.1\r\nHost: h\r\nAccept-Encoding: "
                    "gzip\r\n\r\n");
    assert_int_equal(ask(&h, "/plain/private/9000", "gzip", &m), 200);
    message_free(&m);
    client_read(fd, &m, false);
    assert_string_equal(coding_of(&m), "gzip");
    expect_document(&m, 4000000);
    message_free(&m);
    close(fd);
    house_remove(&h);
}

/* More than a turn of the loop may take on: each gets its turn, and every byte. */
static void many_at_once_share_the_worker(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[24];
    start(&h, "compress = {\"gzip\", \"br\", \"zstd\"}");
    for (size_t i = 0; i < 24; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i],
                    "GET /plain/private/%s1500000 HTTP/1.1\r\nHost: h\r\nAccept-Encoding: "
                    "%s\r\n\r\n",
                    i % 2 ? "chunked/" : "", codings[i % 3]);
    }
    for (size_t i = 0; i < 24; i++) {
        client_read(fd[i], &m, false);
        assert_string_equal(coding_of(&m), codings[i % 3]);
        expect_document(&m, 1500000);
        message_free(&m);
        close(fd[i]);
    }
    house_remove(&h);
}

/* Where the backend gives no entity tag, clients have Polder's, and changes go by it. */
static void changes_by_a_tag_of_polders_own_are_judged_here(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char tag[64], lines[160];
    start(&h, "");
    wait_until(get(h.port, "/tagless", NULL) == 200 && served_from_store(h.port, "/tagless"),
               20000);
    assert_int_equal(get(h.port, "/tagless", &m), 200);
    snprintf(tag, sizeof tag, "%s", field_of(&m, "ETag"));
    message_free(&m);
    assert_int_equal(strncmp(tag, "\"p-", 3), 0);
    snprintf(lines, sizeof lines, "If-Match: %s\r\n", tag);
    static const char wrong[] = "If-Match: \"p-0123456789abcdef\"\r\n";
    assert_int_equal(request(h.port, "PUT", "/tagless", wrong, "x", &m), 412);
    assert_string_equal(field_of(&m, "Content-Type"), "application/problem+json");
    message_free(&m);
    assert_int_equal(request(h.port, "PUT", "/tagless", lines, "x", &m), 200);
    assert_string_equal(field_of(&m, "X-Condition"), "none"); /* the backend knows no such tag */
    message_free(&m);
    /* that was a change: who had the same tag comes too late */
    assert_int_equal(request(h.port, "PUT", "/tagless", lines, "x", NULL), 412);
    /* what the backend can judge is its own */
    snprintf(lines, sizeof lines, "If-Match: %s, \"v1\"\r\n", tag);
    assert_int_equal(request(h.port, "PUT", "/tagless", lines, "x", &m), 200);
    assert_string_equal(field_of(&m, "X-Condition"), "\"v1\"");
    message_free(&m);
    house_remove(&h);
}

static int set_up(void **state)
{
    (void)state;
    decoded = malloc(BODY_MOST + 1);
    backend = backend_start(answers, NULL);
    return decoded && backend ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    backend_stop(backend);
    free(decoded);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_stored_is_compressed_all_the_same),
        cmocka_unit_test(the_answer_on_its_way_to_the_store_is_compressed_too),
        cmocka_unit_test(what_gains_nothing_is_left_alone),
        cmocka_unit_test(bypassed_requests_carry_the_clients_accept_encoding),
        cmocka_unit_test(head_says_what_get_would),
        cmocka_unit_test(conditions_name_the_backends_own_tags),
        cmocka_unit_test(a_stream_is_not_held_back),
        cmocka_unit_test(a_body_that_is_cut_never_looks_whole),
        cmocka_unit_test(an_http10_client_gets_it_to_the_end_of_the_connection),
        cmocka_unit_test(encoders_are_bounded_and_come_back),
        cmocka_unit_test(slow_clients_and_large_bodies_pass),
        cmocka_unit_test(many_at_once_share_the_worker),
        cmocka_unit_test(changes_by_a_tag_of_polders_own_are_judged_here),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
