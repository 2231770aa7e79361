/* SPDX-License-Identifier: BSD-2-Clause */
/* What one program of polder-supervisor leaves to the next: each kind of session comes out as it
 * went in, and a block that is not whole is refused before anything has begun. */
#include "daemons/supervisor/carry/carry.h"
#include "daemons/supervisor/carry/process.h"
#include "polder/sandbox.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

static const struct config config = {.runtime_dir = "/run/polder"};
static char why[400];

/* ---- blocks ---- */

static struct session_record session(uint8_t state)
{
    return (struct session_record){.client = {.fd = 100, .in.from_client = true},
                                   .backend = {.fd = 101},
                                   .route = "/ws/*",
                                   .id = 7,
                                   .state = state,
                                   .client_id = ""};
}

static void put_process(struct state_writer *w, const char *dir, const char *calls)
{
    static const uint64_t none[LEAKED_NUMBERS];
    state_record(w, CARRY_PROCESS, 0);
    carry_put_numbers(w, none, PROCESS_NUMBERS);
    state_put_text(w, dir);
    state_put_text(w, calls);
    state_put_fd(w, 90, STATE_FD_LISTENER);
    state_put_fd(w, 91, STATE_FD_LISTENER);
    state_put_fd(w, -1, STATE_FD_SEGMENT);
    carry_put_numbers(w, none, LIFETIME_NUMBERS);
    carry_put_numbers(w, none, LEAKED_NUMBERS);
}

static void begin(struct state_writer *w)
{
    char calls[SANDBOX_CALLS_MAX];
    sandbox_calls(SANDBOX_SUPERVISOR, calls, sizeof calls);
    state_writer_open(w, STATE_OF_SUPERVISOR, "1.2.3");
    put_process(w, "/run/polder", calls);
}

static int end(struct state_writer *w)
{
    const int fd = state_writer_close(w);
    assert_true(fd >= 0);
    return fd;
}

static void expect_refused(int fd, const char *text)
{
    assert_int_not_equal(carry_check(fd, CARRY_PROGRAM, &config, why, sizeof why), 0);
    if (!strstr(why, text))
        fail_msg("\"%s\" does not say \"%s\"", why, text);
    close(fd);
}

/* Reads back the first session. */
static bool read_back(const struct session_record *x, struct carry_session *to,
                      struct state_reader *r)
{
    struct state_writer w;
    state_writer_open(&w, STATE_OF_SUPERVISOR, "1");
    carry_put_session(&w, x);
    const int fd = end(&w);
    assert_int_equal(state_reader_open(r, fd, STATE_OF_SUPERVISOR, CARRY_HIGHEST), 0);
    close(fd);
    r->copy = true;
    assert_int_equal(state_next(r), CARRY_SESSION);
    return carry_get_session(r, to);
}

/* ---- sessions ---- */

static void a_session_comes_out_as_it_went_in(void **state)
{
    (void)state;
    static struct carry_session c;
    struct state_reader r;
    struct session_record x = session(SESSION_OPEN);
    x.probe = x.untold = true;
    x.opened_ms = 11, x.to_client_ms = 12, x.from_client_ms = 13, x.deadline_ms = 14;
    x.moved_ms = 15, x.due_ms = 16, x.undelivered = 17, x.begun_ns = 18, x.requested_ns = 19;
    x.bytes = UINT64_MAX, x.messages_in = 21, x.messages_out = 22, x.close_code = 4999;
    x.client_id = "me";
    x.ip.addr[15] = 9;
    x.client.in = (struct frames){.left = 5,
                                  .message = 6,
                                  .mask = {1, 0xff, 3, 4},
                                  .phase = 3,
                                  .opcode = FRAMES_TEXT,
                                  .fin = true,
                                  .compressed = true,
                                  .from_client = true,
                                  .rsv1_allowed = true,
                                  .started = true,
                                  .utf8 = 7};
    x.client.pinged_ms = 30, x.client.pings_out = 255;
    x.client.out = (struct bytes){"waits", 5};
    x.backend.stash = (struct bytes){"\x81", 1};
    x.backend.fin = x.backend.cut = true;
    assert_true(read_back(&x, &c, &r));
    const struct session_record *y = &c.record;
    assert_memory_equal(&y->client.in, &x.client.in, sizeof x.client.in);
    assert_memory_equal(&y->backend.in, &x.backend.in, sizeof x.backend.in);
    assert_memory_equal(y->client.out.at, "waits", 5);
    assert_int_equal(y->client.out.len, 5);
    assert_int_equal(y->backend.stash.len, 1);
    assert_true(y->backend.fin && y->backend.cut && !y->client.fin);
    assert_true(y->probe && y->untold && !y->goodbye);
    assert_memory_equal(&y->opened_ms, &x.opened_ms,
                        offsetof(struct session_record, refused_with) -
                            offsetof(struct session_record, opened_ms));
    assert_int_equal(y->close_code, 4999);
    assert_int_equal(y->client.pings_out, 255);
    assert_string_equal(y->client_id, "me");
    assert_memory_equal(&y->ip, &x.ip, sizeof x.ip);
    assert_int_equal(y->client.fd, 100);
    state_reader_close(&r);
}

static void handshakes_subscriptions_and_lines_are_part_of_it(void **state)
{
    (void)state;
    static struct carry_session c;
    struct state_reader r;
    struct pending_record p = {.servers = 1,
                               .tried = 2,
                               .server = 3,
                               .address = 4,
                               .place = 5,
                               .anyway = true,
                               .failed_attempts = 1,
                               .until_ms = 6,
                               .lease_ms = 7,
                               .failed_with = PROBLEM_GATEWAY_TIMEOUT,
                               .failed_why = "late",
                               .limits = {"A: b\r\n", 6},
                               .head = {"GET", 3},
                               .pipelined = {"xy", 2},
                               .answer = {"HTTP", 4}};
    const struct access_line line = {
        .target = {"/ws/x", 5}, .upstream = {"u", 1}, .upstream_us = 3};
    memset(p.accept_key, 'k', sizeof p.accept_key);
    struct session_record x = session(SESSION_ASKING);
    x.pending = &p;
    x.line = &line;
    assert_true(read_back(&x, &c, &r));
    const struct pending_record *q = c.record.pending;
    assert_non_null(q);
    assert_memory_equal(q->accept_key, p.accept_key, sizeof p.accept_key);
    assert_int_equal(q->failed_with, PROBLEM_GATEWAY_TIMEOUT);
    assert_string_equal(q->failed_why, "late");
    assert_int_equal(q->place, 5);
    assert_true(q->anyway);
    assert_memory_equal(q->head.at, "GET", 3);
    assert_memory_equal(c.record.line->target.at, "/ws/x", 5);
    assert_int_equal(c.record.line->upstream_us, 3);
    state_reader_close(&r);

    const struct subscription_record b = {
        .prefix = "/api", .tags = {"a", "b"}, .n_tags = 2, .text = (const uint8_t *)"{", .len = 1};
    x = session(SESSION_OPEN);
    x.backend.fd = -1;
    x.subscription = &b;
    assert_true(read_back(&x, &c, &r));
    assert_string_equal(c.record.subscription->tags[1], "b");
    assert_string_equal(c.record.subscription->prefix, "/api");
    assert_int_equal(c.record.subscription->len, 1);
    state_reader_close(&r);
}

static void expect_unsound(struct session_record x)
{
    static struct carry_session c;
    struct state_reader r;
    assert_false(read_back(&x, &c, &r));
    state_reader_close(&r);
}

static void what_no_session_comes_to_is_refused(void **state)
{
    (void)state;
    struct inflate_packed bad = {.state = 99};
    struct session_record x = session(SESSION_ENDED);
    expect_unsound(x);
    x = session(SESSION_OPEN), x.end = END_REASONS, expect_unsound(x);
    x = session(SESSION_OPEN), x.id = 0, expect_unsound(x);
    x = session(SESSION_OPEN), x.client.fd = -1, expect_unsound(x);
    x = session(SESSION_OPEN), x.backend.fd = -1, expect_unsound(x);
    x = session(SESSION_ASKING), expect_unsound(x);
    x = session(SESSION_OPEN), x.client.in.phase = 4, expect_unsound(x);
    x = session(SESSION_OPEN), x.client.in.utf8 = 8, expect_unsound(x);
    x = session(SESSION_OPEN), x.client.in.opcode = 3, expect_unsound(x);
    x = session(SESSION_OPEN), x.backend.in.from_client = true, expect_unsound(x);
    x = session(SESSION_OPEN), x.client.expanded = &bad, expect_unsound(x);
    char long_one[FRAMES_CONTROL_MAX] = "";
    x = session(SESSION_OPEN), x.client.stash = (struct bytes){long_one, sizeof long_one};
    expect_unsound(x);
}

/* ---- whole blocks ---- */

static int good_block(void)
{
    struct state_writer w;
    struct session_record x = session(SESSION_OPEN);
    begin(&w);
    carry_put_session(&w, &x);
    x.id = 8, x.client.fd = 102, x.backend.fd = 103;
    carry_put_session(&w, &x);
    state_record(&w, CARRY_TYPES + 40, STATE_SKIPPABLE); /* of a later version */
    state_put_u64(&w, 1);
    return end(&w);
}

static void a_whole_block_is_understood(void **state)
{
    (void)state;
    const int fd = good_block();
    assert_int_equal(carry_check(fd, CARRY_PROGRAM, &config, why, sizeof why), 0);
    assert_int_not_equal(carry_check(fd, CARRY_SUCCESSOR, &config, why, sizeof why), 0);
    assert_non_null(strstr(why, "made for another program of its process"));
    close(fd);
}

static void what_is_wrong_with_a_block_is_said(void **state)
{
    (void)state;
    struct state_writer w;
    struct session_record x = session(SESSION_OPEN);
    begin(&w);
    state_record(&w, CARRY_TYPES, 0);
    state_put_u64(&w, 1);
    expect_refused(end(&w), "later version");
    begin(&w);
    carry_put_session(&w, &x), carry_put_session(&w, &x);
    expect_refused(end(&w), "belongs to two");
    state_writer_open(&w, STATE_OF_SUPERVISOR, "1");
    carry_put_session(&w, &x);
    expect_refused(end(&w), "first");
    state_writer_open(&w, STATE_OF_SUPERVISOR, "1");
    expect_refused(end(&w), "record of the process");
    state_writer_open(&w, STATE_OF_SUPERVISOR, "1");
    put_process(&w, "/elsewhere", "");
    expect_refused(end(&w), "runtime_dir");
    state_writer_open(&w, STATE_OF_SUPERVISOR, "1");
    put_process(&w, "/run/polder", "brk mmap");
    expect_refused(end(&w), "system calls");
    state_writer_open(&w, STATE_OF_POLDERD, "1");
    expect_refused(end(&w), "another daemon");
}

/* Sealed, with len of these bytes. */
static int sealed(const uint8_t *bytes, size_t len)
{
    const int fd = memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
    return fd;
}

static void truncated_and_damaged_blocks_are_refused(void **state)
{
    (void)state;
    static uint8_t bytes[65536];
    const int fd = good_block();
    const ssize_t len = pread(fd, bytes, sizeof bytes, 0);
    assert_in_range(len, 1000, sizeof bytes - 1);
    close(fd);
    for (ssize_t cut = 0; cut < len; cut += 31) {
        const int part = sealed(bytes, (size_t)cut);
        assert_int_not_equal(carry_check(part, CARRY_PROGRAM, &config, why, sizeof why), 0);
        close(part);
        bytes[cut] ^= 0x10;
        const int damaged = sealed(bytes, (size_t)len);
        assert_int_not_equal(carry_check(damaged, CARRY_PROGRAM, &config, why, sizeof why), 0);
        close(damaged);
        bytes[cut] ^= 0x10;
    }
}

/* ---- counts under way ---- */

static size_t compressed(uint8_t *out, size_t size, int strategy)
{
    static uint8_t text[20000];
    z_stream z = {0};
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i % 7 ? "abcdefgh"[i * i % 8] : (int)(i >> 3));
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 8, strategy), Z_OK);
    z.next_in = text, z.avail_in = sizeof text, z.next_out = out, z.avail_out = (uInt)size;
    assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
    const size_t len = size - z.avail_out;
    deflateEnd(&z);
    return len;
}

/* Taken over by another program at each byte, it comes to the same. */
static void a_count_goes_on_wherever_it_was(void **state)
{
    (void)state;
    static uint8_t out[40000];
    static const int strategy[] = {Z_DEFAULT_STRATEGY, Z_FIXED, Z_HUFFMAN_ONLY};
    static const uint8_t mask[4];
    for (size_t k = 0; k < sizeof strategy / sizeof *strategy; k++) {
        const size_t len = compressed(out, sizeof out, strategy[k]);
        struct inflate_count *c = inflate_count_new();
        uint64_t sum = 0;
        for (size_t i = 0; i < len; i++) {
            struct inflate_packed p;
            inflate_count_pack(c, &p);
            inflate_count_free(c);
            assert_true(inflate_packed_sound(&p));
            c = inflate_count_unpack(&p);
            assert_non_null(c);
            sum = inflate_count_feed(c, out + i, 1, mask, 0, UINT64_MAX);
        }
        assert_int_equal(sum, 20000);
        inflate_count_free(c);
    }
}

static void a_body_goes_on_wherever_it_was(void **state)
{
    (void)state;
    static const char text[] = "5;a=\"b\"\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n";
    struct h1_body b, next;
    struct str part;
    uint64_t sum = 0;
    h1_body_init(&b, H1_CHUNKED, 0);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        size_t used;
        assert_true(h1_body_resume(&next, &b));
        b = next;
        assert_int_equal(h1_body_read(&b, text + i, 1, &used, &part), 0);
        sum += part.len;
    }
    assert_true(b.done);
    assert_int_equal(sum, 21);
    b.state = 200;
    assert_false(h1_body_resume(&next, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_comes_out_as_it_went_in),
        cmocka_unit_test(handshakes_subscriptions_and_lines_are_part_of_it),
        cmocka_unit_test(what_no_session_comes_to_is_refused),
        cmocka_unit_test(a_whole_block_is_understood),
        cmocka_unit_test(what_is_wrong_with_a_block_is_said),
        cmocka_unit_test(truncated_and_damaged_blocks_are_refused),
        cmocka_unit_test(a_count_goes_on_wherever_it_was),
        cmocka_unit_test(a_body_goes_on_wherever_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
