/* SPDX-License-Identifier: BSD-2-Clause */
/* The ring believes nobody and loses nothing that was pushed, whoever is killed. */
#include "polder/ring.h"
#include "polder/clock.h"
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static struct ring *ring;
static char buffer[RING_RECORD_MAX];

static int setup(void **state)
{
    (void)state;
    ring = mmap(NULL, ring_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(ring, MAP_FAILED);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(ring, ring_size());
    return 0;
}

static int push(const void *data, size_t len, uint64_t stream)
{
    const struct ring_record record = {
        .type = RING_STORE, .stream = stream, .incarnation = 3, .permit = FETCH_LOCK_NONE};
    const struct iovec iov[2] = {{(void *)data, len / 2},
                                 {(char *)(uintptr_t)data + len / 2, len - len / 2}};
    return ring_push(ring, &record, iov, 2, -1);
}

static void a_record_comes_out_as_it_went_in(void **state)
{
    (void)state;
    struct ring_record head;
    uint64_t cursor = ring_tail(ring);
    assert_int_equal(ring_peek(ring, &cursor, &head, buffer), 0);
    assert_int_equal(push("hello dyke", 10, 42), 0);
    assert_int_equal(push("", 0, 43), 0);
    assert_int_equal(ring_peek(ring, &cursor, &head, buffer), 1);
    assert_int_equal(head.len, 10);
    assert_int_equal(head.stream, 42);
    assert_int_equal(head.incarnation, 3);
    assert_int_equal(head.permit.slot, UINT32_MAX);
    assert_memory_equal(buffer, "hello dyke", 10);
    assert_int_equal(ring_peek(ring, &cursor, &head, buffer), 1);
    assert_int_equal(head.len, 0);
    assert_int_equal(ring_peek(ring, &cursor, &head, buffer), 0);
    /* not consumed: a keeper that dies now reads both again */
    uint64_t again = ring_tail(ring);
    assert_int_equal(ring_peek(ring, &again, &head, buffer), 1);
    ring_consume(ring, cursor);
    assert_int_equal(ring_tail(ring), ring_head(ring));
}

static void it_wraps_and_a_full_ring_refuses(void **state)
{
    (void)state;
    static char data[40001];
    struct ring_record head;
    uint64_t cursor = ring_tail(ring), pushed = 0, read = 0;
    for (int turn = 0; turn < 500; turn++) {
        memset(data, turn & 0xff, sizeof data);
        const size_t room = ring_room(ring);
        const int rc = push(data, sizeof data, pushed);
        assert_int_equal(rc, room < sizeof data + sizeof head ? -ENOSPC : 0);
        pushed += rc == 0;
        if (rc == 0 && turn % 3)
            continue;
        assert_int_equal(ring_peek(ring, &cursor, &head, buffer), 1);
        assert_int_equal(head.stream, read++);
        for (size_t i = 1; i < head.len; i++)
            assert_int_equal(buffer[i], buffer[0]);
        ring_consume(ring, cursor);
    }
    assert_true(pushed > 200 && pushed < 500);
    assert_int_equal(push(buffer, RING_RECORD_MAX + 1, 0), -EMSGSIZE);
}

/* Where the consumer looks for the next record: found by its payload. */
static char *payload_find(const char *text)
{
    return memmem(ring, ring_size(), text, strlen(text));
}

static void damage_is_noticed_and_dropped(void **state)
{
    (void)state;
    struct ring_record head;
    static const size_t fields[] = {
        offsetof(struct ring_record, len), offsetof(struct ring_record, len) + 2,
        offsetof(struct ring_record, type), offsetof(struct ring_record, check),
        sizeof(struct ring_record)};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char text[32];
        snprintf(text, sizeof text, "payload number %zu", i);
        assert_int_equal(push(text, strlen(text), 1), 0);
        char *record = payload_find(text) - sizeof head;
        record[fields[i]] ^= 0x55;
        uint64_t cursor = ring_tail(ring);
        assert_int_equal(ring_peek(ring, &cursor, &head, buffer), -EPROTO);
        assert_int_equal(cursor, ring_tail(ring));
        ring_consume(ring, ring_head(ring));
        assert_int_equal(push("sound", 5, 2), 0);
        cursor = ring_tail(ring);
        assert_int_equal(ring_peek(ring, &cursor, &head, buffer), 1);
        ring_consume(ring, cursor);
    }
}

static void a_head_from_nowhere_is_damage(void **state)
{
    (void)state;
    struct ring_record head;
    for (unsigned i = 0; i < 4; i++) {
        static const uint64_t tails[] = {1, 1000, UINT64_MAX / 2, UINT64_MAX - 10};
        uint64_t cursor = tails[i];
        assert_int_equal(ring_peek(ring, &cursor, &head, buffer), -EPROTO);
    }
}

/* A mad producer may write anything anywhere in its ring; head is its first word after the header.
 */
static void random_damage_never_leads_outside(void **state)
{
    (void)state;
    unsigned seed = 7;
    struct ring_record head;
    char *bytes = (char *)ring;
    for (int turn = 0; turn < 3000; turn++) {
        for (int i = 0; i < 4; i++)
            assert_int_equal(push(bytes, 1 + (size_t)((unsigned)rand_r(&seed) % 300), 1), 0);
        char *data = bytes + ring_size() - RING_BYTES;
        for (int i = rand_r(&seed) % 4; i >= 0; i--)
            data[(ring_tail(ring) + (unsigned)rand_r(&seed) % 1000) % RING_BYTES] =
                (char)rand_r(&seed);
        if (turn % 5 == 0)
            bytes[sizeof(struct shm_header) + (unsigned)rand_r(&seed) % 8] = (char)rand_r(&seed);
        uint64_t cursor = ring_tail(ring);
        int rc, records = 0;
        while ((rc = ring_peek(ring, &cursor, &head, buffer)) == 1)
            assert_true(++records < 200000 && head.len <= RING_RECORD_MAX);
        assert_true(rc == 0 || rc == -EPROTO);
        ring_consume(ring, ring_head(ring));
    }
}

static void only_a_sleeping_keeper_is_rung(void **state)
{
    (void)state;
    const int event = eventfd(0, EFD_NONBLOCK);
    const struct ring_record record = {.type = RING_ABORT, .permit = FETCH_LOCK_NONE};
    const struct iovec iov = {(void *)"x", 1};
    uint64_t n;
    assert_int_equal(ring_push(ring, &record, &iov, 1, event), 0);
    assert_int_equal(read(event, &n, sizeof n), -1);
    ring_sleep(ring, true);
    assert_int_equal(ring_push(ring, &record, &iov, 1, event), 0);
    assert_int_equal(read(event, &n, sizeof n), sizeof n);
    ring_sleep(ring, false);
    assert_int_equal(ring_push(ring, &record, &iov, 1, event), 0);
    assert_int_equal(read(event, &n, sizeof n), -1);
    close(event);
}

static _Noreturn void producer_run(int event, uint32_t incarnation)
{
    static char data[20000];
    unsigned seed = incarnation;
    for (uint64_t n = 0;; n++) {
        const size_t len = 1 + (size_t)((unsigned)rand_r(&seed) % sizeof data);
        memset(data, (int)(n & 0xff), len);
        const struct ring_record record = {
            .type = RING_CHUNK, .stream = n, .incarnation = incarnation, .permit = FETCH_LOCK_NONE};
        const struct iovec iov = {data, len};
        while (ring_push(ring, &record, &iov, 1, event) == -ENOSPC)
            poll(NULL, 0, 1);
    }
}

/* Each producer's records arrive in order, whole, and without a gap, up to where it was killed. */
static void killed_producers_leave_only_whole_records(void **state)
{
    (void)state;
    const int event = eventfd(0, EFD_NONBLOCK);
    uint32_t incarnation = 1, seen = 0;
    uint64_t next = 0, records = 0, kills = 0;
    pid_t pid = fork();
    if (pid == 0)
        producer_run(event, incarnation);
    const uint64_t end = clock_mono_ms() + 1000;
    uint64_t kill_at = clock_mono_ms() + 5;
    uint64_t cursor = ring_tail(ring);
    while (clock_mono_ms() < end) {
        struct ring_record head;
        const int rc = ring_peek(ring, &cursor, &head, buffer);
        assert_true(rc >= 0);
        if (rc == 1) {
            if (head.incarnation != seen) {
                seen = head.incarnation;
                next = 0;
            }
            assert_int_equal(head.stream, next++);
            assert_int_equal((unsigned char)buffer[head.len - 1], head.stream & 0xff);
            ring_consume(ring, cursor);
            records++;
        } else {
            ring_sleep(ring, true);
            struct pollfd p = {event, POLLIN, 0};
            uint64_t n;
            if (ring_head(ring) == cursor && poll(&p, 1, 50) > 0)
                assert_true(read(event, &n, sizeof n) > 0);
            ring_sleep(ring, false);
        }
        if (clock_mono_ms() >= kill_at) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            kills++;
            incarnation++;
            pid = fork();
            if (pid == 0)
                producer_run(event, incarnation);
            kill_at = clock_mono_ms() + 5;
        }
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(event);
    assert_true(records > 1000 && kills > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_record_comes_out_as_it_went_in, setup, teardown),
        cmocka_unit_test_setup_teardown(it_wraps_and_a_full_ring_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_noticed_and_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_head_from_nowhere_is_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(random_damage_never_leads_outside, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_sleeping_keeper_is_rung, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_producers_leave_only_whole_records, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
