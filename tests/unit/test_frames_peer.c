/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames as wslay, an independent reader and writer, sees them: the corpus of the fuzz target and
 * many made-up streams get the same verdict from both, and what the supervisor writes is what wslay
 * reads.
 */
#include "tests/fuzz/fuzz_frames.c"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void the_corpus_gets_the_same_verdicts(void **state)
{
    (void)state;
    static const char dir[] = "tests/fuzz/corpus/frames";
    unsigned n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        static uint8_t bytes[65536];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *f = *e->d_name == '.' ? NULL : fopen(path, "r");
        if (!f)
            continue;
        LLVMFuzzerTestOneInput(bytes, fread(bytes, 1, sizeof bytes, f));
        fclose(f);
        n++;
    }
    closedir(d);
    assert_true(n > 55);
}

static uint32_t seed = 1;
static uint32_t any(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(seed >> 4) * below >> 28);
}

/* Mostly right, so that mistakes stand behind something. */
static size_t make_frame(uint8_t *out, bool masked)
{
    static const uint8_t opcodes[] = {FRAMES_TEXT, FRAMES_BINARY, FRAMES_CONTINUATION,
                                      FRAMES_PING, FRAMES_PONG,   FRAMES_CLOSE};
    static const char *const texts[] = {"plain", "\xe2\x82\xac", "\xf0\x9f\x8c\x8a", "\xe2\x82",
                                        "\xac",  "\x03\xe8",     "\x03\xf3 why",     ""};
    uint8_t payload[400], mask[4];
    const char *text = texts[any(8)];
    size_t len = strlen(text);
    for (unsigned i = 0; i < 4; i++)
        mask[i] = (uint8_t)any(256);
    memcpy(payload, text, len);
    for (const size_t more = any(4) ? 0 : any(300); len < more;)
        payload[len++] = (uint8_t)any(any(8) ? 128 : 256);
    const size_t n =
        frames_write(out, opcodes[any(any(4) ? 5 : 6)], payload, len, masked ? mask : NULL);
    if (!any(3))
        out[0] &= 0x7f; /* FIN */
    if (!any(200))
        out[any(2)] ^= (uint8_t)(1u << any(8));
    return n;
}

static void made_up_streams_get_the_same_verdicts(void **state)
{
    (void)state;
    static uint8_t bytes[8192];
    for (unsigned round = 0; round < 40000; round++) {
        const bool backend = round & 1;
        size_t len = 2;
        bytes[0] = (uint8_t)(round >> 1);
        bytes[1] = backend ? 4 : 0;
        for (unsigned k = 1 + any(8); k-- && len < 4000;)
            len += make_frame(bytes + len, !backend);
        LLVMFuzzerTestOneInput(bytes, len - any(any(2) ? 1 : 8));
    }
}

/* A frame of each length form, on both sides of where it changes, and one that is too long. */
static void every_length_gets_the_same_verdict(void **state)
{
    (void)state;
    static const size_t lens[] = {0, 1, 125, 126, 127, 65535, 65536, MOST_LONG, MOST_LONG + 1};
    static const uint8_t mask[4] = {1, 2, 3, 4};
    static uint8_t payload[MOST_LONG + 1], bytes[MOST_LONG + 100];
    static struct taken t;
    memset(payload, 'z', sizeof payload);
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++)
        for (int backend = 0; backend < 2; backend++) {
            const struct peer peer = {false, backend, MOST_LONG};
            bytes[0] = 5;
            bytes[1] = (uint8_t)(2 | (backend ? 4 : 0));
            size_t n =
                frames_write(bytes + 2, FRAMES_TEXT, payload, lens[i], backend ? NULL : mask);
            n += frames_write(bytes + 2 + n, FRAMES_PING, "p", 1, backend ? NULL : mask);
            LLVMFuzzerTestOneInput(bytes, 2 + n);
            by_wslay(bytes + 2, n, &peer, &t);
            assert_int_equal(t.n, lens[i] > MOST_LONG ? 0 : 2);
            assert_int_equal(t.code, lens[i] > MOST_LONG ? 1009 : 0);
        }
}

/* ---- what we write ---- */

struct mail {
    const uint8_t *at;
    size_t left;
    unsigned n;
    struct {
        uint8_t opcode, msg[3000];
        size_t len;
        uint16_t code;
    } got[16];
};

static ssize_t deliver(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, int flags, void *arg)
{
    struct mail *m = arg;
    (void)flags;
    if (!m->left) {
        wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    const size_t n = m->left < len ? m->left : len;
    memcpy(buf, m->at, n);
    m->at += n, m->left -= n;
    return (ssize_t)n;
}

static void got(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *a, void *arg)
{
    struct mail *m = arg;
    (void)ctx;
    assert_true(m->n < 16 && a->msg_length <= sizeof m->got[0].msg);
    m->got[m->n].opcode = a->opcode;
    m->got[m->n].len = a->msg_length;
    m->got[m->n].code = a->status_code;
    if (a->msg_length)
        memcpy(m->got[m->n].msg, a->msg, a->msg_length);
    m->n++;
}

static void what_we_write_is_read_by_wslay(void **state)
{
    (void)state;
    static const struct {
        enum frames_opcode opcode;
        size_t len;
    } f[] = {{FRAMES_TEXT, 0},   {FRAMES_TEXT, 125}, {FRAMES_TEXT, 126}, {FRAMES_BINARY, 2048},
             {FRAMES_PING, 125}, {FRAMES_PONG, 8},   {FRAMES_CLOSE, 20}};
    const size_t n = sizeof f / sizeof *f;
    for (int to_client = 0; to_client < 2; to_client++) {
        static uint8_t bytes[16384];
        static struct mail m;
        uint8_t payload[2048], mask[4] = {7, 200, 0, 99}, reason[125];
        size_t len = 0;
        memset(payload, 'q', sizeof payload);
        for (size_t i = 0; i < n; i++) {
            const bool closes = f[i].opcode == FRAMES_CLOSE;
            const size_t size =
                closes ? frames_close_payload(reason, 1012, "the service restarts") : f[i].len;
            /* 1001: wslay does not know 1012 */
            if (closes)
                reason[0] = 0x03, reason[1] = 0xe9;
            len += frames_write(bytes + len, f[i].opcode, closes ? reason : payload, size,
                                to_client ? NULL : mask);
        }
        const struct wslay_event_callbacks calls = {.recv_callback = deliver,
                                                    .on_msg_recv_callback = got};
        wslay_event_context_ptr ctx;
        memset(&m, 0, sizeof m);
        m.at = bytes, m.left = len;
        assert_int_equal(to_client ? wslay_event_context_client_init(&ctx, &calls, &m)
                                   : wslay_event_context_server_init(&ctx, &calls, &m),
                         0);
        assert_int_equal(wslay_event_recv(ctx), 0);
        assert_int_equal(m.n, n);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(m.got[i].opcode, f[i].opcode);
            if (f[i].opcode == FRAMES_CLOSE) {
                assert_int_equal(m.got[i].code, 1001);
                assert_memory_equal(m.got[i].msg + 2, "the service restarts", 20);
            } else {
                assert_int_equal(m.got[i].len, f[i].len);
                assert_memory_equal(m.got[i].msg, payload, f[i].len);
            }
        }
        wslay_event_context_free(ctx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_corpus_gets_the_same_verdicts),
        cmocka_unit_test(every_length_gets_the_same_verdict),
        cmocka_unit_test(made_up_streams_get_the_same_verdicts),
        cmocka_unit_test(what_we_write_is_read_by_wslay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
