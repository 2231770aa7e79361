/* SPDX-License-Identifier: BSD-2-Clause */
/* WebSocket frames, whole and cut anywhere; what each rule refuses. */
#include "daemons/supervisor/ws/frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Feeds bytes in parts of `step`, keeping what is left over as the relay does. Returns the code of
 * the refusal, 0: none; *passed: bytes of data and control frames that may pass; *ends: messages
 * that ended. */
static unsigned feed(const void *bytes, size_t len, size_t step, bool client, uint64_t most,
                     size_t *passed, unsigned *ends)
{
    struct frames f = {.from_client = client};
    struct frames_piece p;
    uint8_t *buf = malloc(len + 1);
    size_t have = 0, taken = 0;
    unsigned code = 0;
    *passed = 0, *ends = 0;
    while (taken < len && !code) {
        const size_t n = step < len - taken ? step : len - taken;
        memcpy(buf + have, (const uint8_t *)bytes + taken, n);
        have += n, taken += n;
        size_t at = 0;
        for (;;) {
            frames_next(&f, buf + at, have - at, most, &p);
            if (p.kind == FRAMES_NEED_MORE)
                break;
            if (p.kind == FRAMES_BAD) {
                code = p.code;
                break;
            }
            assert_true(p.len > 0 && p.len <= have - at);
            at += p.len;
            *passed += p.len;
            *ends += p.kind == FRAMES_DATA && p.message_end;
        }
        assert_true(code || have - at < FRAMES_CONTROL_MAX);
        memmove(buf, buf + at, have - at);
        have -= at;
    }
    free(buf);
    return code;
}

static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};

static size_t put(uint8_t *out, uint8_t first, const void *payload, size_t len)
{
    const size_t n = frames_write(out, FRAMES_TEXT, payload, len, mask);
    out[0] = first;
    return n;
}

static void messages_pass_however_they_are_cut(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536, 70000};
    uint8_t *text = malloc(70001), *wire = malloc(70100);
    for (size_t i = 0; i < 70000; i++)
        text[i] = (uint8_t) "ab\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"[i % 11];
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const size_t len = sizes[s] - sizes[s] % 11; /* whole characters */
        const size_t n = put(wire, 0x81, text, len);
        for (size_t step = 1; step < 40; step += 3) {
            size_t passed;
            unsigned ends;
            assert_int_equal(feed(wire, n, step, true, 1 << 20, &passed, &ends), 0);
            assert_int_equal(passed, n);
            assert_int_equal(ends, 1);
        }
    }
    free(text);
    free(wire);
}

static void control_frames_may_stand_between_fragments(void **state)
{
    (void)state;
    uint8_t wire[256];
    size_t n = put(wire, 0x01, "\xe2\x82", 2), passed; /* a character may be cut by frames */
    n += put(wire + n, 0x89, "probe", 5);
    n += put(wire + n, 0x00, "\xac", 1);
    n += put(wire + n, 0x8a, "", 0);
    n += put(wire + n, 0x80, "end", 3);
    n += put(wire + n, 0x88, "\x03\xe8 bye", 6);
    unsigned ends;
    for (size_t step = 1; step <= n; step++) {
        assert_int_equal(feed(wire, n, step, true, 0, &passed, &ends), 0);
        assert_int_equal(passed, n);
        assert_int_equal(ends, 1);
    }
    n += put(wire + n, 0x81, "x", 1); /* nothing may follow a close */
    assert_int_equal(feed(wire, n, n, true, 0, &passed, &ends), 1002);
}

static void each_broken_rule_has_its_code(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        bool client;
        unsigned code;
    } c[] = {
        {"\x81\x00", 2, true, 1002},
        {"\x81\x80\1\2\3\4", 6, false, 1002},
        {"\xc1\x80\1\2\3\4", 6, true, 1002},
        {"\xa1\x80\1\2\3\4", 6, true, 1002},
        {"\x91\x80\1\2\3\4", 6, true, 1002},
        {"\x83\x80\1\2\3\4", 6, true, 1002},
        {"\x8b\x80\1\2\3\4", 6, true, 1002},
        {"\x80\x80\1\2\3\4", 6, true, 1002},
        {"\x01\x80\1\2\3\4\x01\x80\1\2\3\4", 12, true, 1002},
        {"\x09\x80\1\2\3\4", 6, true, 1002},
        {"\x89\xfe\x00\x7e\1\2\3\4", 8, true, 1002},
        {"\x82\xfe\x00\x7d\1\2\3\4", 8, true, 1002},
        {"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff\1\2\3\4", 14, true, 1002},
        {"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\1\2\3\4", 14, true, 1002},
        {"\x88\x81\0\0\0\0\x03", 7, true, 1002},
        {"\x82\xfe\x10\x01\1\2\3\4", 8, true, 1009},
        {"\x82\x7e\x10\x01", 4, false, 1009},
        {"\x82\x00", 2, false, 0},
        {"\x81\x01\xff", 3, false, 0}, /* a backend's text is its own affair */
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        for (size_t step = 1; step <= c[i].len; step++) {
            size_t passed;
            unsigned ends;
            const unsigned code =
                feed(c[i].bytes, c[i].len, step, c[i].client, 4096, &passed, &ends);
            if (code != c[i].code)
                fail_msg("case %zu in steps of %zu: %u instead of %u", i, step, code, c[i].code);
        }
}

static void close_codes_are_checked(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 6000; code++) {
        const bool ok = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                        (code >= 3000 && code <= 4999);
        assert_int_equal(frames_code_valid(code), ok);
        uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code}, wire[32];
        size_t passed;
        unsigned ends;
        const size_t n = put(wire, 0x88, payload, 2);
        assert_int_equal(feed(wire, n, n, true, 0, &passed, &ends), ok ? 0 : 1002);
    }
}

static void text_must_be_utf8_wherever_it_is_cut(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
    } c[] = {{"plain ascii, longer than eight bytes", true},
             {"\xc2\x80", true},
             {"\xdf\xbf", true},
             {"\xe0\xa0\x80", true},
             {"\xed\x9f\xbf", true},
             {"\xee\x80\x80", true},
             {"\xf0\x90\x80\x80", true},
             {"\xf4\x8f\xbf\xbf", true},
             {"\x80", false},
             {"\xc0\x80", false},
             {"\xc1\xbf", false},
             {"\xe0\x9f\xbf", false},
             {"\xed\xa0\x80", false},
             {"\xf0\x8f\xbf\xbf", false},
             {"\xf4\x90\x80\x80", false},
             {"\xf5\x80\x80\x80", false},
             {"\xff", false},
             {"12345678\xff", false},
             {"1234567\xe2\x82", false},
             {"\xe2\x82", false},
             {"\xe2\x28\xa1", false}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        uint8_t wire[128];
        const size_t len = strlen(c[i].text), n = put(wire, 0x81, c[i].text, len);
        assert_int_equal(frames_utf8_valid((const uint8_t *)c[i].text, len), c[i].ok);
        for (size_t step = 1; step <= n; step++) {
            size_t passed;
            unsigned ends;
            assert_int_equal(feed(wire, n, step, true, 0, &passed, &ends), c[i].ok ? 0 : 1007);
        }
    }
}

static void a_message_may_be_as_long_as_allowed_and_no_longer(void **state)
{
    (void)state;
    uint8_t wire[600];
    static const char zeros[200];
    size_t passed;
    unsigned ends;
    size_t n = put(wire, 0x02, zeros, 100);
    n += put(wire + n, 0x80, zeros, 100);
    assert_int_equal(feed(wire, n, 7, true, 200, &passed, &ends), 0);
    assert_int_equal(feed(wire, n, 7, true, 199, &passed, &ends), 1009);
    assert_int_equal(feed(wire, n, 7, true, 99, &passed, &ends), 1009);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    uint8_t payload[125], wire[256];
    struct frames f = {.from_client = true};
    struct frames_piece p;
    const size_t len = frames_close_payload(payload, 1001, "going away");
    const size_t n = frames_write(wire, FRAMES_CLOSE, payload, len, mask);
    frames_next(&f, wire, n, 0, &p);
    assert_int_equal(p.kind, FRAMES_CONTROL);
    assert_int_equal(p.opcode, FRAMES_CLOSE);
    assert_int_equal(p.code, 1001);
    assert_memory_equal(p.payload + 2, "going away", 10);
    char endless[300];
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    assert_int_equal(frames_close_payload(payload, 1000, endless), 125);
}

static void places_for_our_own_frames_are_known(void **state)
{
    (void)state;
    struct frames f = {0};
    struct frames_piece p;
    assert_true(frames_between_messages(&f));
    frames_next(&f,
                (const uint8_t *)"\x01\x03"
                                 "ab",
                4, 0, &p);
    assert_false(frames_between(&f));
    frames_next(&f, (const uint8_t *)"c", 1, 0, &p);
    assert_true(frames_between(&f));
    assert_false(frames_between_messages(&f));
    frames_next(&f, (const uint8_t *)"\x80\x00", 2, 0, &p);
    assert_true(frames_between_messages(&f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_pass_however_they_are_cut),
        cmocka_unit_test(control_frames_may_stand_between_fragments),
        cmocka_unit_test(each_broken_rule_has_its_code),
        cmocka_unit_test(close_codes_are_checked),
        cmocka_unit_test(text_must_be_utf8_wherever_it_is_cut),
        cmocka_unit_test(a_message_may_be_as_long_as_allowed_and_no_longer),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(places_for_our_own_frames_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
