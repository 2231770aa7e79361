/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of WebSockets whose working process is killed while one of their sides is going. */
#include "backend.h"
#include "daemons/supervisor/survive/segment.h"
#include "ws_client.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PART    16000
#define AT_ONCE 8 /* which polder reads while it waits for a backend */

struct rig {
    struct house h;
    struct scripted slow, quick; /* the backend of /slow takes little */
    pid_t supervisor;
};

static void rig_start(struct rig *r)
{
    const int small = 4096;
    scripted_open(&r->slow);
    scripted_open(&r->quick);
    setsockopt(r->slow.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    house_start(&r->h, 1,
                "websocket { heartbeat = off timeout = 60s }\n"
                "upstream \"slow\" { server \"127.0.0.1:%u\" { } }\n"
                "upstream \"quick\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/slow\" { upstream = \"slow\" websocket { } }\n"
                "route \"/quick\" { upstream = \"quick\" websocket { } }\n",
                r->slow.port, r->quick.port);
    wait_for_supervisor(&r->h);
    r->supervisor = supervisor_of(&r->h);
}

static void rig_end(struct rig *r)
{
    house_remove(&r->h);
    close(r->slow.fd);
    close(r->quick.fd);
}

static void kill_and_wait(struct rig *r)
{
    pid_t pid = 0;
    wait_until((pid = working_process(r->supervisor)) > 0, 10000);
    kill(pid, SIGKILL);
    wait_until(house_logged(&r->h, "taken up "), 10000);
}

static bool waits_for_backend(struct rig *r)
{
    const char *out, *line;
    unsigned long long queued = 0;
    assert_int_equal(ctl(&r->h, &out, "ws list"), 0);
    line = strstr(out, "/slow");
    return line && sscanf(line, "/slow %*s %*u %*s %*u %*s %llu", &queued) == 1 && queued;
}

static unsigned parts, taken; /* that the client below has said, and its backend has read */

/* Says more than the backend takes, begins another frame, and is gone. */
static int client_that_goes(struct rig *r)
{
    int client;
    static char text[PART];
    const int backend = scripted_agree(&r->slow, &client, r->h.port, "/slow", "");
    for (parts = taken = 0; parts % AT_ONCE || !waits_for_backend(r); parts++) {
        memset(text, (int)('a' + parts % 26), sizeof text);
        send_frame(client, 0x82, text, sizeof text);
    }
    client_send_bytes(client, "\x81", 1);
    close(client);
    return backend;
}

static bool is_gone(struct rig *r)
{
    const char *out;
    return ctl(&r->h, &out, "ws list") == 0 && strstr(out, "closing");
}

static void expect_part(int backend)
{
    static unsigned char bytes[PART + 8];
    assert_true(take(backend, bytes, sizeof bytes));
    assert_int_equal(bytes[0], 0x82);
    for (size_t k = 0; k < PART; k++)
        assert_int_equal(bytes[8 + k] ^ bytes[4 + (k & 3)], (int)('a' + taken % 26));
    taken++;
}

/* Its end is behind all that it has said: on a busy machine that may be more than is read at once. */
static void wait_until_gone(struct rig *r, int backend)
{
    for (unsigned i = 1; !is_gone(r); i++) {
        nap_ms(10);
        if (i % 50 == 0)
            expect_part(backend);
    }
}

/* All that a client has said comes to the backend, with word that it has gone, and the end. */
static void expect_all_and_the_end(int backend)
{
    unsigned char bytes[8 + 125];
    while (taken < parts)
        expect_part(backend);
    assert_true(take(backend, bytes, 8));
    assert_int_equal(bytes[0], 0x88);
    assert_int_equal((bytes[6] ^ bytes[2]) << 8 | (bytes[7] ^ bytes[3]), 1001);
    assert_true(take(backend, bytes, (size_t)(bytes[1] & 0x7f) - 2));
    struct pollfd p = {backend, POLLIN, 0};
    assert_int_equal(poll(&p, 1, (int)harness_patience(5000)), 1);
    assert_int_equal(recv(backend, bytes, 1, 0), 0);
}

static void a_client_that_has_gone_stays_gone(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r);
    const int backend = client_that_goes(&r);
    wait_until_gone(&r, backend);
    kill_and_wait(&r);
    expect_all_and_the_end(backend);
    close(backend);
    rig_end(&r);
}

/* Messages of 1000 bytes, until nothing moves any more; how many are whole. */
static unsigned say_all_that_fits(int fd)
{
    unsigned n = 0;
    size_t sent = 0;
    unsigned char f[4 + 1000] = {0x82, 126, 1000 >> 8, 1000 & 255};
    for (uint64_t last = mono_ms(); mono_ms() < last + 300;) {
        memset(f + 4, (int)('A' + n % 26), 1000);
        const ssize_t k = send(fd, f + sent, sizeof f - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (k <= 0) {
            poll(NULL, 0, 5);
            continue;
        }
        last = mono_ms();
        sent += (size_t)k;
        n += sent == sizeof f;
        sent %= sizeof f;
    }
    return n;
}

static void expect_messages(int client, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        assert_true(read_frame(client, &frame));
        assert_int_equal(frame.len, 1000);
        for (size_t k = 0; k < 1000; k++)
            if (frame.text[k] != (char)('A' + i % 26))
                fail_msg("byte %zu of message %u is %d", k, i, frame.text[k]);
    }
}

/* What a client that goes has left half said is nobody's, and its memory another one's by then. */
static void what_waits_for_others_is_theirs(void **state)
{
    (void)state;
    struct rig r;
    int client;
    rig_start(&r);
    const int gone = client_that_goes(&r);
    wait_until_gone(&r, gone);
    const int backend = scripted_agree(&r.quick, &client, r.h.port, "/quick", "");
    const unsigned n = say_all_that_fits(backend);
    kill_and_wait(&r);
    expect_messages(client, n);
    close(client);
    close(backend);
    close(gone);
    rig_end(&r);
}

/* The memory that it lies in is another program's by then, which has it elsewhere. */
static void what_waits_is_kept_behind_an_upgrade(void **state)
{
    (void)state;
    struct rig r;
    int client;
    rig_start(&r);
    const int backend = scripted_agree(&r.quick, &client, r.h.port, "/quick", "");
    const unsigned n = say_all_that_fits(backend);
    kill(r.supervisor, SIGUSR2);
    wait_until(house_logged(&r.h, " goes on in place of "), 20000);
    kill_and_wait(&r);
    expect_messages(client, n);
    close(client);
    close(backend);
    rig_end(&r);
}

/* The memory that the custodian holds. */
static struct segment *segment_of(pid_t custodian)
{
    char path[300], target[64];
    struct segment *g = MAP_FAILED;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)custodian);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; g == MAP_FAILED && (e = readdir(d));) {
        snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)custodian, e->d_name);
        const ssize_t n = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        const int fd = strstr(target, "polder-websockets") ? open(path, O_RDWR) : -1;
        if (fd >= 0)
            g = mmap(NULL, SEGMENT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    }
    closedir(d);
    assert_true(g != MAP_FAILED);
    return g;
}

#define BROKEN 6

/* In the slots of all but the first client and the last one. */
static void break_slots(struct segment *g)
{
    assert_true(segment_used(g) >= BROKEN + 2);
    for (uint32_t i = 1; i <= BROKEN; i++) {
        struct slot *slot = segment_slot(g, i);
        struct point *p = &slot->point[atomic_load(&slot->current) & 1];
        switch (i) {
        case 1:
            atomic_store(&slot->current, 77);
            break;
        case 2:
            p->leg[0].direct_len = p->leg[0].chain_len = UINT32_MAX;
            p->leg[0].written_at += 100000;
            break;
        case 3:
            p->leg[1].stash_len = 20;
            p->leg[1].stash_block = UINT32_MAX - 1;
            break;
        case 4:
            p->state = 200;
            break;
        case 5:
            memset(slot->client_id, 'x', sizeof slot->client_id);
            break;
        default:
            atomic_store(&slot->phase, 99);
        }
    }
    g->blocks_used = UINT32_MAX;
    atomic_store(&g->used, 50000);
    atomic_store(&g->missed, 1);
}

/* What a process that has gone wrong leaves ends what it is about, and nothing else. */
static void what_was_left_is_not_believed(void **state)
{
    (void)state;
    struct rig r;
    int client[BROKEN + 2], backend[BROKEN + 2];
    unsigned char got[6 + 2];
    rig_start(&r);
    for (int i = 0; i < BROKEN + 2; i++)
        backend[i] = scripted_agree(&r.quick, &client[i], r.h.port, "/quick", "");
    struct segment *g = segment_of(r.supervisor);
    wait_until(segment_used(g) >= BROKEN + 2, 10000);
    const pid_t working = working_process(r.supervisor);
    kill(working, SIGSTOP);
    break_slots(g);
    kill(working, SIGKILL);
    wait_until(house_logged(&r.h, "taken up "), 20000);
    assert_true(house_logged(&r.h, ": 2 WebSockets go on"));
    assert_true(house_logged(&r.h, ", 6 had ended"));
    assert_int_equal(supervisor_of(&r.h), r.supervisor);
    for (int i = 0; i < BROKEN + 2; i++) {
        if (i > 0 && i <= BROKEN) {
            assert_true(client_closed(client[i], 10000));
        } else {
            say(client[i], "ok");
            assert_true(take(backend[i], got, sizeof got));
        }
        close(client[i]);
        close(backend[i]);
    }
    munmap(g, SEGMENT_SIZE);
    rig_end(&r);
}

static char state_of(pid_t pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    const char *end = f && fgets(text, sizeof text, f) ? strrchr(text, ')') : NULL;
    const char state = end ? end[2] : 0;
    if (f)
        fclose(f);
    return state;
}

/* The one of its own that the custodian makes: not that of the WebSockets. 0: none. */
static pid_t proof_of(pid_t custodian, pid_t working)
{
    char path[64];
    int pid = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)custodian, (int)custodian);
    FILE *f = fopen(path, "r");
    while (f && fscanf(f, "%d", &pid) == 1 && pid == working)
        pid = 0;
    if (f)
        fclose(f);
    return pid;
}

/* An upgrade, and the custodian is stopped with the proof of its own under way. False: too late. */
static bool stop_in_the_proof(struct rig *r, pid_t working)
{
    const unsigned done = house_times_logged(&r->h, "custodian is ");
    const uint64_t end = mono_ms() + 1000;
    pid_t proof = 0;
    kill(r->supervisor, SIGUSR2);
    while (!(proof = proof_of(r->supervisor, working)) && mono_ms() < end)
        ;
    kill(r->supervisor, SIGSTOP);
    wait_until(state_of(r->supervisor) == 'T', 10000);
    if (proof && proof_of(r->supervisor, working) == proof) {
        wait_until(state_of(proof) == 'Z', 10000);
        return true;
    }
    kill(r->supervisor, SIGCONT);
    wait_until(house_times_logged(&r->h, "custodian is ") > done, 10000);
    return false;
}

/* Both ends are seen in one look: the new program would find nobody that works. */
static void a_death_beside_the_end_of_a_proof_is_survived(void **state)
{
    (void)state;
    struct rig r;
    int client;
    const char *out;
    rig_start(&r);
    const int backend = scripted_agree(&r.quick, &client, r.h.port, "/quick", "");
    const pid_t working = working_process(r.supervisor);
    bool stopped = false;
    for (unsigned i = 0; i < 50 && !stopped; i++)
        stopped = stop_in_the_proof(&r, working);
    assert_true(stopped);
    kill(working, SIGKILL);
    wait_until(state_of(working) == 'Z', 10000);
    kill(r.supervisor, SIGCONT);
    wait_until(house_logged(&r.h, "taken up "), 10000);
    assert_int_equal(supervisor_of(&r.h), r.supervisor);
    wait_until(ctl(&r.h, &out, "status") == 0 && strstr(out, "upgrade_failed"), 10000);
    client_send_bytes(backend, "\x81\5hello", 7);
    expect_text(client, "hello");
    close(client);
    close(backend);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_has_gone_stays_gone),
        cmocka_unit_test(what_waits_is_kept_behind_an_upgrade),
        cmocka_unit_test(what_waits_for_others_is_theirs),
        cmocka_unit_test(what_was_left_is_not_believed),
        cmocka_unit_test(a_death_beside_the_end_of_a_proof_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
