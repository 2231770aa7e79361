/* SPDX-License-Identifier: BSD-2-Clause */
/* What a program leaves to its successor: whole, readable by an older and a newer one, or refused
 * with the place that is wrong. */
#include "polder/state_block.h"
#include "block_maker.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { ONE = 1, TWO, THREE };

static struct state_reader reader;

static int open_block(int fd, uint16_t highest)
{
    return state_reader_open(&reader, fd, STATE_OF_POLDERD, highest);
}

static int simple_block(void)
{
    struct state_writer w;
    state_writer_open(&w, STATE_OF_POLDERD, "1.2.3");
    state_record(&w, ONE, 0);
    state_put_u64(&w, 42);
    state_put_text(&w, "forty-two");
    state_put_bytes(&w, "\0\1\2", 3);
    state_record(&w, TWO, 0);
    state_put_u64(&w, UINT64_MAX);
    return state_writer_close(&w);
}

static void what_was_put_comes_back(void **state)
{
    (void)state;
    size_t len;
    const int fd = simple_block();
    assert_true(fd >= 0);
    assert_int_equal(open_block(fd, TWO), 0);
    assert_string_equal(reader.version, "1.2.3");
    assert_int_equal(state_next(&reader), ONE);
    assert_int_equal(state_get_u64(&reader), 42);
    assert_string_equal(state_get_text(&reader), "forty-two");
    const void *bytes = state_get_bytes(&reader, &len);
    assert_int_equal(len, 3);
    assert_memory_equal(bytes, "\0\1\2", 3);
    assert_false(state_more(&reader));
    assert_int_equal(state_next(&reader), TWO);
    assert_true(state_get_u64(&reader) == UINT64_MAX);
    assert_int_equal(state_next(&reader), 0);
    assert_true(state_good(&reader));
    state_reader_close(&reader);
    close(fd);
}

/* A later version appends values and writes types that can be skipped; and the other way round. */
static void other_versions_understand_each_other(void **state)
{
    (void)state;
    struct state_writer w;
    state_writer_open(&w, STATE_OF_POLDERD, "2");
    state_record(&w, ONE, 0);
    state_put_u64(&w, 1);
    state_put_text(&w, "a value of version 2");
    state_record(&w, THREE, STATE_SKIPPABLE);
    state_put_u64(&w, 3);
    state_record(&w, TWO, 0);
    state_put_u64(&w, 2);
    const int fd = state_writer_close(&w);
    assert_int_equal(open_block(fd, TWO), 0);
    assert_int_equal(state_next(&reader), ONE);
    assert_int_equal(state_get_u64(&reader), 1);
    assert_true(state_more(&reader));
    assert_int_equal(state_next(&reader), TWO);
    assert_int_equal(state_get_u64(&reader), 2);
    assert_false(state_more(&reader)); /* a version 3 would have its initial value */
    assert_int_equal(state_next(&reader), 0);
    assert_true(state_good(&reader));
    state_reader_close(&reader);
    close(fd);
}

static void a_type_that_must_be_known_is_refused(void **state)
{
    (void)state;
    struct state_writer w;
    state_writer_open(&w, STATE_OF_POLDERD, "2");
    state_record(&w, THREE, 0);
    state_put_u64(&w, 3);
    const int fd = state_writer_close(&w);
    assert_int_equal(open_block(fd, TWO), 0);
    assert_int_equal(state_next(&reader), 0);
    assert_string_equal(reader.why, "record 1 has type 3, which only a later version knows");
    state_reader_close(&reader);
    close(fd);
}

static void a_wrong_value_is_named_with_its_place(void **state)
{
    (void)state;
    const int fd = simple_block();
    assert_int_equal(open_block(fd, TWO), 0);
    assert_int_equal(state_next(&reader), ONE);
    state_get_u64(&reader);
    assert_int_equal(state_get_u64(&reader), 0);
    assert_string_equal(reader.why, "record 1 (type 1), value 2: expected a number, found a text "
                                    "of 10 bytes");
    assert_string_equal(state_get_text(&reader), ""); /* nothing after an error */
    assert_int_equal(state_next(&reader), 0);
    state_reader_close(&reader);

    assert_int_equal(open_block(fd, TWO), 0);
    state_next(&reader);
    assert_int_equal(state_get_number(&reader, 41), 0);
    assert_non_null(strstr(reader.why, "value 1: is 42, expected at most 41"));
    state_reader_close(&reader);

    assert_int_equal(open_block(fd, TWO), 0);
    state_next(&reader);
    state_next(&reader);
    state_get_u64(&reader);
    state_get_u64(&reader);
    assert_string_equal(reader.why, "record 2 (type 2), value 2: is missing");
    state_reader_close(&reader);
    close(fd);
}

/* ---- larger than any socket buffer ---- */

#define SESSIONS      3000
#define SESSION_BYTES 20000u

static void thousands_of_large_records_pass(void **state)
{
    (void)state;
    static uint8_t bytes[SESSION_BYTES];
    struct state_writer w;
    struct stat st;
    size_t len;
    state_writer_open(&w, STATE_OF_POLDERD, "1");
    for (uint32_t i = 0; i < SESSIONS; i++) {
        memset(bytes, (int)i, sizeof bytes);
        state_record(&w, ONE, 0);
        state_put_u64(&w, i);
        state_put_bytes(&w, bytes, i % SESSION_BYTES + 1);
    }
    state_record(&w, TWO, 0); /* and a large one */
    uint8_t *large = calloc(1, 5 << 20);
    assert_non_null(large);
    state_put_bytes(&w, large, 5 << 20);
    const int fd = state_writer_close(&w);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size > 9 << 20);
    assert_int_equal(open_block(fd, TWO), 0);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        assert_int_equal(state_next(&reader), ONE);
        assert_int_equal(state_get_u64(&reader), i);
        const uint8_t *got = state_get_bytes(&reader, &len);
        assert_int_equal(len, i % SESSION_BYTES + 1);
        assert_true(got[0] == (uint8_t)i && got[len - 1] == (uint8_t)i);
    }
    assert_int_equal(state_next(&reader), TWO);
    assert_non_null(state_get_bytes(&reader, &len));
    assert_int_equal(len, 5 << 20);
    assert_true(state_good(&reader));
    state_reader_close(&reader);
    free(large);
    close(fd);
}

static void a_writer_keeps_its_first_error(void **state)
{
    (void)state;
    struct state_writer w;
    state_writer_open(&w, STATE_OF_POLDERD, "1");
    state_put_u64(&w, 1); /* outside of a record */
    state_record(&w, ONE, 0);
    state_put_u64(&w, 1);
    assert_int_equal(state_writer_close(&w), -EINVAL);
}

/* ---- descriptors ---- */

static bool lives_on(int fd)
{
    return !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void descriptors_are_inherited_only_when_asked(void **state)
{
    (void)state;
    struct state_writer w;
    const int event = open("/dev/null", O_RDWR | O_CLOEXEC);
    state_writer_open(&w, STATE_OF_POLDERD, "1");
    state_record(&w, ONE, 0);
    state_put_fd(&w, event, STATE_FD_EVENT);
    state_put_u64(&w, 0);
    state_put_fd(&w, -1, STATE_FD_EVENT);
    const int fd = state_writer_close(&w);
    assert_false(lives_on(event) || lives_on(fd));
    assert_int_equal(state_block_inherit(fd, true), 0);
    assert_true(lives_on(event) && lives_on(fd));
    assert_int_equal(state_block_inherit(fd, false), 0);
    assert_false(lives_on(event) || lives_on(fd));

    assert_int_equal(state_block_inherit(fd, true), 0);
    assert_int_equal(open_block(fd, ONE), 0);
    state_next(&reader);
    assert_int_equal(state_get_fd(&reader, STATE_FD_EVENT), event);
    assert_false(lives_on(event)); /* once taken it is not leaked */
    state_get_u64(&reader);
    assert_int_equal(state_get_fd(&reader, STATE_FD_EVENT), -1);
    assert_true(state_good(&reader));
    state_reader_close(&reader);

    assert_int_equal(open_block(fd, ONE), 0);
    state_next(&reader);
    assert_int_equal(state_get_fd(&reader, STATE_FD_LISTENER), -1);
    assert_non_null(strstr(reader.why, "is a descriptor of kind 3, expected kind 1"));
    state_reader_close(&reader);

    close(event);
    assert_int_equal(open_block(fd, ONE), 0);
    state_next(&reader);
    assert_int_equal(state_get_fd(&reader, STATE_FD_EVENT), -1);
    assert_non_null(strstr(reader.why, "Bad file descriptor"));
    state_reader_close(&reader);
    assert_int_equal(state_block_inherit(fd, true), -EBADF);
    close(fd);
}

/* ---- blocks that are no blocks ---- */

static void refused(int fd, const char *why)
{
    assert_true(fd >= 0);
    assert_int_equal(open_block(fd, TWO), -EPROTO);
    if (!strstr(reader.why, why))
        fail_msg("\"%s\" does not say \"%s\"", reader.why, why);
    close(fd);
}

static void a_block_that_is_none_is_refused(void **state)
{
    (void)state;
    uint8_t header[BLOCK_HEADER];
    const uint8_t body[16] = {1, 0, 0, 0, 8};
    block_header_make(header, STATE_FORMAT, STATE_OF_POLDERD, body, sizeof body);
    refused(block_seal(header, sizeof header, body, 8), "it has 88 bytes, and says 96");
    refused(block_seal(header, 79, "", 0), "it has 79 bytes, fewer than its header");
    refused(block_seal("", 0, "", 0), "it has 0 bytes");
    header[50]++;
    refused(block_seal(header, sizeof header, body, sizeof body), "its checksum is wrong");
    block_header_make(header, STATE_FORMAT + 1, STATE_OF_POLDERD, body, sizeof body);
    refused(block_seal(header, sizeof header, body, sizeof body),
            "it has format 2, and this program reads format 1");
    block_header_make(header, STATE_FORMAT, STATE_OF_SUPERVISOR, body, sizeof body);
    refused(block_seal(header, sizeof header, body, sizeof body), "it is of another daemon");
    header[0]++;
    refused(block_seal(header, sizeof header, body, sizeof body), "it is no state block");
    refused(memfd_create("unsealed", MFD_CLOEXEC), "its seals are missing");
    refused(open("/dev/null", O_RDONLY | O_CLOEXEC), "is no sealed memory");
    assert_int_equal(open_block(-1, TWO), -EPROTO);
}

/* The header fits; the records do not. */
static void records_that_are_none_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint8_t body[24];
        size_t len;
        const char *why;
    } bad[] = {
        {{1, 0, 0, 0, 16}, 16, "record 1 has type 1 and 16 bytes, where 8 are left"},
        {{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 16, "4294967295 bytes"},
        {{0, 0, 0, 0, 8}, 16, "has type 0"},
        {{1, 0, 0, 0, 4}, 12, "and 4 bytes"},
        {{1, 0, 0, 0}, 4, "record 1 is truncated"},
        {{1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 8}, 16, "value 1: has 8 bytes, where 0 are left"},
        {{1, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0}, 16, "found something unknown"},
        {{1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff}, 24, "4294967292 bytes"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t header[BLOCK_HEADER];
        block_header_make(header, STATE_FORMAT, STATE_OF_POLDERD, bad[i].body, bad[i].len);
        const int fd = block_seal(header, sizeof header, bad[i].body, bad[i].len);
        assert_int_equal(open_block(fd, TWO), 0);
        if (state_next(&reader))
            state_get_u64(&reader);
        if (!strstr(reader.why, bad[i].why))
            fail_msg("%zu: \"%s\" does not say \"%s\"", i, reader.why, bad[i].why);
        state_reader_close(&reader);
        close(fd);
    }
}

/* Whatever byte is another one, whatever is cut off: nothing is read as if it were right. */
static void no_damage_goes_unnoticed(void **state)
{
    (void)state;
    uint8_t all[512];
    const int fd = simple_block();
    const ssize_t n = pread(fd, all, sizeof all, 0);
    assert_true(n > BLOCK_HEADER && n < (ssize_t)sizeof all);
    for (ssize_t i = 0; i < n; i++) {
        all[i] ^= 0x10;
        refused(block_seal(all, (size_t)n, "", 0), "it");
        all[i] ^= 0x10;
        refused(block_seal(all, (size_t)i, "", 0), "it");
    }
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_comes_back),
        cmocka_unit_test(other_versions_understand_each_other),
        cmocka_unit_test(a_type_that_must_be_known_is_refused),
        cmocka_unit_test(a_wrong_value_is_named_with_its_place),
        cmocka_unit_test(thousands_of_large_records_pass),
        cmocka_unit_test(a_writer_keeps_its_first_error),
        cmocka_unit_test(descriptors_are_inherited_only_when_asked),
        cmocka_unit_test(a_block_that_is_none_is_refused),
        cmocka_unit_test(records_that_are_none_are_refused),
        cmocka_unit_test(no_damage_goes_unnoticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
