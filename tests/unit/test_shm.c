/* SPDX-License-Identifier: BSD-2-Clause */
/* Segments: sealed, recognised, and never trusted half finished. Log lines: one each. */
#include "polder/shm.h"
#include "polder/log.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define SIZE 8192

static char dir[64], path[96];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/polder-shm-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/page", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    rmdir(dir);
    return 0;
}

static void a_segment_cannot_be_truncated(void **state)
{
    (void)state;
    struct shm_segment seg;
    assert_int_equal(shm_create(&seg, "test", SHM_PROC, 1, 77, SIZE), 0);
    assert_int_equal(ftruncate(seg.fd, 10), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(seg.fd, SIZE * 2), -1);
    assert_int_equal(fcntl(seg.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    shm_close(&seg);
    assert_null(seg.base);
}

static void only_a_published_segment_of_the_same_layout_passes(void **state)
{
    (void)state;
    struct shm_segment seg;
    assert_int_equal(shm_create(&seg, "test", SHM_PROC, 1, 77, SIZE), 0);
    assert_int_equal(shm_check(&seg, SHM_PROC, 1, 77), -EPROTO);
    shm_publish(&seg);
    assert_int_equal(shm_check(&seg, SHM_PROC, 1, 77), 0);
    assert_int_equal(shm_check(&seg, SHM_STATS, 1, 77), -EPROTO);
    assert_int_equal(shm_check(&seg, SHM_PROC, 2, 77), -EPROTO);
    assert_int_equal(shm_check(&seg, SHM_PROC, 1, 78), -EPROTO);
    shm_close(&seg);
}

static void file_make(struct shm_segment *seg, uint64_t layout, size_t size, int reused)
{
    int got = -1;
    assert_int_equal(shm_create_file(seg, path, SHM_INVAL, 1, layout, size, &got), 0);
    assert_int_equal(got, reused);
}

static void a_file_segment_is_found_again(void **state)
{
    (void)state;
    struct shm_segment seg;
    struct stat st;
    file_make(&seg, 5, SIZE, 0);
    strcpy((char *)seg.base + 100, "remember");
    shm_publish(&seg);
    shm_close(&seg);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(st.st_blocks * 512 >= SIZE); /* allocated, not sparse */
    file_make(&seg, 5, SIZE, 1);
    assert_string_equal((char *)seg.base + 100, "remember");
    shm_close(&seg);
}

static void an_unfinished_foreign_or_short_file_starts_anew(void **state)
{
    (void)state;
    struct shm_segment seg;
    file_make(&seg, 5, SIZE, 0);
    strcpy((char *)seg.base + 100, "half done");
    shm_close(&seg); /* never published */
    file_make(&seg, 5, SIZE, 0);
    assert_int_equal(((char *)seg.base)[100], 0);
    shm_publish(&seg);
    shm_close(&seg);
    file_make(&seg, 6, SIZE, 0); /* another layout */
    shm_publish(&seg);
    shm_close(&seg);
    assert_int_equal(truncate(path, 100), 0);
    file_make(&seg, 6, SIZE, 0);
    shm_publish(&seg);
    shm_close(&seg);
    file_make(&seg, 6, SIZE * 2, 0); /* another size */
    shm_close(&seg);
}

static void a_link_or_a_directory_is_refused(void **state)
{
    (void)state;
    struct shm_segment seg;
    int reused;
    assert_int_equal(symlink("/dev/null", path), 0);
    assert_int_equal(shm_create_file(&seg, path, SHM_INVAL, 1, 1, SIZE, &reused), -ELOOP);
    assert_int_equal(shm_create_file(&seg, dir, SHM_INVAL, 1, 1, SIZE, &reused), -EISDIR);
}

static void log_capture(char *out, size_t size, const char *text)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    const int saved = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    log_write(LOG_LEVEL_WARNING, "%s", text);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fds[1]);
    const ssize_t n = read(fds[0], out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    close(fds[0]);
}

static void a_log_line_stays_one_line(void **state)
{
    (void)state;
    static char out[8192], text[5000];
    unsetenv("JOURNAL_STREAM");
    log_open("worker 3");
    log_capture(out, sizeof out, "one\ntwo\r\x1b[31mred");
    assert_non_null(strstr(out, "warning worker 3["));
    assert_non_null(strstr(out, "]: one two  [31mred\n"));
    memset(text, 'x', sizeof text - 1);
    log_capture(out, sizeof out, text);
    assert_true(strlen(out) <= 2048);
    assert_int_equal(out[strlen(out) - 1], '\n');
    struct stat st;
    char stream[64];
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino + 1);
    setenv("JOURNAL_STREAM", stream, 1); /* stderr was sent elsewhere */
    log_open("keeper");
    log_capture(out, sizeof out, "hello");
    assert_non_null(strstr(out, "Z warning keeper["));
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_open("keeper");
    log_capture(out, sizeof out, "hello");
    assert_memory_equal(out, "<4>keeper[", 10);
    unsetenv("JOURNAL_STREAM");
    log_open("test");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_segment_cannot_be_truncated),
        cmocka_unit_test(only_a_published_segment_of_the_same_layout_passes),
        cmocka_unit_test_setup_teardown(a_file_segment_is_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unfinished_foreign_or_short_file_starts_anew, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_link_or_a_directory_is_refused, setup, teardown),
        cmocka_unit_test(a_log_line_stays_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
