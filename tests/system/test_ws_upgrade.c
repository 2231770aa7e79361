/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * polder-supervisor gets another program while it holds WebSockets: nothing is lost, repeated or
 * reordered, in whatever state each one is; and a program that cannot take over changes nothing.
 */
#include "release.h"
#include "ws_client.h"
#include "ws_storm.h"

#include <pthread.h>
#include <signal.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct release release;
static const char yes[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n";

/* ---- upgrades ---- */

static unsigned upgrades(struct house *h)
{
    return house_times_logged(h, " goes on in place of ");
}

static void upgrade_by(struct house *h, pid_t supervisor, int signal_number)
{
    const unsigned before = upgrades(h), refused = house_times_logged(h, "error supervisor");
    assert_true(supervisor > 0);
    assert_int_equal(kill(supervisor, signal_number), 0);
    wait_until(upgrades(h) > before || house_times_logged(h, "error supervisor") > refused, 20000);
    assert_int_equal(upgrades(h), before + 1);
}

static void upgrade_to(struct house *h, pid_t supervisor, const char *version)
{
    char text[128];
    release_install(&release, "polder-supervisor", version, RELEASE_WHOLE);
    upgrade_by(h, supervisor, SIGUSR2);
    snprintf(text, sizeof text, "polder-supervisor %s goes on in place of",
             version ? version : release_real_version(&release));
    wait_until(house_logged(h, text),
               20000); /* one that was tried before may have ended meanwhile */
}

static char next[64];
static const char *next_version(void)
{
    snprintf(next, sizeof next, "%s", release_real_version(&release));
    next[strlen(next) - 1] = next[strlen(next) - 1] == '9' ? '8' : '9';
    return next;
}

static void start(struct house *h, unsigned port, const char *more)
{
    house_start(h, 1,
                "websocket { max_connections = 500 max_per_client = 500 heartbeat = \"off\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws/*\" { upstream = \"u\" websocket { } }\n%s",
                port, more);
    wait_for_supervisor(h);
}

/* ---- echo under load ---- */

#define CLIENTS 60

static long filters_of(pid_t pid)
{
    char path[64], line[256];
    long n = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        sscanf(line, "Seccomp_filters: %ld", &n);
    fclose(f);
    return n;
}

/* Does this kernel seal memory? */
static bool seals(void)
{
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return syscall(462, page, 4096, 0) == 0;
}

/* What a process may execute is found in memory that nothing changes, at the place of all versions. */
static void expect_pinned(pid_t pid)
{
    char path[64], line[512], modes[8] = "";
    bool there = false, sealed = false;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%*x-%*x %7[rwxsp-]", modes) == 1)
            there = !strncmp(line, "1000000000-", 11);
        else if (there && !strncmp(line, "VmFlags:", 8))
            sealed = strstr(line, " sl") != NULL;
        if (there && *modes)
            assert_string_equal(modes, "r--p");
    }
    fclose(f);
    if (filters_of(pid) > filters_of(getpid()) && seals())
        assert_true(sealed);
}

static void upgrades_under_load_lose_nothing(void **state)
{
    (void)state;
    struct house h;
    static struct ws_storm storm; /* its thread outlives a failed story */
    const unsigned port = free_port();
    char echo[300];
    snprintf(echo, sizeof echo, "%s/bench/ws_echo", release.built);
    const pid_t backend = peer_start(echo, NULL, port);
    start(&h, port, "");
    const pid_t pid = supervisor_of(&h);
    const size_t before_all = descriptors(pid);
    ws_storm_begin(&storm, h.port, "/ws/x", CLIENTS, 4);
    wait_until(descriptors(pid) >= before_all + 2 * CLIENTS, 20000); /* it is told of each */
    const size_t files = descriptors(pid);
    const long filters = filters_of(pid);
    for (int i = 0; i < 6; i++) {
        const unsigned before = atomic_load(&storm.messages);
        upgrade_to(&h, pid, i % 2 ? NULL : next_version());
        wait_until(atomic_load(&storm.messages) > before + CLIENTS, 20000);
        assert_int_equal(supervisor_of(&h), pid);
    }
    wait_until(descriptors(pid) <= files + 2, 20000); /* the custodian is replaced meanwhile */
    assert_in_range(descriptors(pid), files - 2, files + 2);
    assert_int_equal(filters_of(pid), filters); /* they do not pile up */
    ws_storm_end(&storm);
    print_message("%u messages, 6 upgrades; the longest silence of a client: %llu ms\n",
                  atomic_load(&storm.messages), (unsigned long long)storm.longest_ms);
    house_remove(&h);
    peer_stop(backend);
}

/* ---- WebSockets in each state ---- */

static void half_a_frame_is_completed_behind_an_upgrade(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    scripted_open(&b);
    start(&h, b.port, "");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/x", "");
    const unsigned char from_client[] = {0x81,    0x85,    1,       2,       3,      4,
                                         'h' ^ 1, 'e' ^ 2, 'l' ^ 3, 'l' ^ 4, 'o' ^ 1},
                        from_backend[] = {0x81, 0x05, 'w', 'o', 'r', 'l', 'd'};
    unsigned char got[32];
    /* cut within the header, and within the payload */
    static const size_t cut[] = {1, 4, 8};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        const size_t back = cut[i] < 7 ? cut[i] : 6;
        client_send_bytes(client, from_client, cut[i]);
        client_send_bytes(backend, from_backend, back);
        upgrade_to(&h, supervisor_of(&h), i % 2 ? NULL : next_version());
        client_send_bytes(client, from_client + cut[i], sizeof from_client - cut[i]);
        client_send_bytes(backend, from_backend + back, sizeof from_backend - back);
        assert_true(take(backend, got, sizeof from_client));
        assert_memory_equal(got, from_client, sizeof from_client);
        expect_text(client, "world");
    }
    close(backend);
    close(client);
    house_remove(&h);
    close(b.fd);
}

#define QUEUED (4u << 20)
#define PIECE  65536u

static void *send_queue(void *arg)
{
    static unsigned char f[10 + PIECE] = {
        0x82, 127, 0, 0, 0, 0, 0, PIECE >> 16 & 0xff, PIECE >> 8 & 0xff, PIECE & 0xff};
    for (unsigned i = 0; i < QUEUED / PIECE; i++) {
        memset(f + 10, (int)i + 1, PIECE);
        client_send_bytes(*(int *)arg, f, sizeof f);
    }
    return NULL;
}

static void what_a_slow_reader_has_not_taken_is_kept(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    pthread_t thread;
    static unsigned char in[10 + PIECE];
    scripted_open(&b);
    start(&h, b.port, "");
    const int client = client_connect_small(h.port, 4096);
    client_send(client,
                "GET /ws/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n");
    int backend = scripted_answer(&b, yes, sizeof yes - 1);
    client_read(client, &m, false);
    assert_int_equal(m.status, 101);
    message_free(&m);
    assert_int_equal(pthread_create(&thread, NULL, send_queue, &backend), 0);
    const char *out;
    wait_until(ctl(&h, &out, "ws list --json") == 0 && !strstr(out, "\"queued\": 0"), 10000);
    for (unsigned i = 0; i < QUEUED / PIECE; i++) {
        if (i % 20 == 0)
            upgrade_to(&h, supervisor_of(&h), i % 40 ? NULL : next_version());
        assert_true(take(client, in, sizeof in));
        assert_int_equal(in[0], 0x82);
        for (unsigned k = 0; k < PIECE; k += 997)
            assert_int_equal(in[10 + k], (unsigned char)(i + 1));
    }
    pthread_join(thread, NULL);
    close(client);
    close(backend);
    house_remove(&h);
    close(b.fd);
}

static void a_handshake_is_answered_behind_an_upgrade(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    scripted_open(&b);
    start(&h, b.port, "");
    const int client = ask_only(h.port, "/ws/x", "");
    const int backend = scripted_accept(&b);
    client_send_bytes(backend, yes, 40); /* part of the head */
    upgrade_to(&h, supervisor_of(&h), next_version());
    client_send_bytes(backend, yes + 40, sizeof yes - 1 - 40);
    client_read(client, &m, false);
    assert_int_equal(m.status, 101);
    message_free(&m);
    say(client, "later");
    unsigned char got[6 + 5];
    assert_true(take(backend, got, sizeof got));

    /* and a refusal in the middle of its body */
    const int refused = ask_only(h.port, "/ws/x", "");
    const int other = scripted_accept(&b);
    client_send(other, "HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf ");
    const char *out;
    wait_until(ctl(&h, &out, "ws list --json") == 0 && strstr(out, "refusing"), 10000);
    upgrade_to(&h, supervisor_of(&h), NULL);
    client_send(other, "whole");
    client_read(refused, &m, false);
    assert_int_equal(m.status, 403);
    assert_true(m.complete);
    assert_string_equal(m.body, "half whole");
    message_free(&m);
    close(refused);
    close(other);
    close(client);
    close(backend);
    house_remove(&h);
    close(b.fd);
}

static void a_close_handshake_goes_on(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    unsigned char got[6 + 2];
    scripted_open(&b);
    start(&h, b.port, "");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/x", "");
    const unsigned char code[] = {4000 >> 8, 4000 & 0xff};
    send_frame(client, 0x88, code, sizeof code);
    assert_true(take(backend, got, sizeof got));
    upgrade_to(&h, supervisor_of(&h), next_version());
    const unsigned char answer[] = {0x88, 2, 4000 >> 8, 4000 & 0xff};
    client_send_bytes(backend, answer, sizeof answer);
    assert_int_equal(expect_close(client), 4000);
    assert_true(client_closed(client, 10000));
    const char *out;
    wait_until(ctl(&h, &out, "ws list --json") == 0 && strstr(out, "\"total\": 0"), 10000);
    close(client);
    close(backend);
    house_remove(&h);
    close(b.fd);
}

static const char local[] = "route \"/live/*\" { websocket { heartbeat = \"json\" interval = "
                            "\"40s\" } }\n";

static void heartbeats_and_subscriptions_go_on(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 1, local);
    const int fd = open_ws(h.port, "/live/x");
    say(fd, "{\"type\":\"subscribe\",\"tags\":[\"item-7\"]}");
    expect_text(fd, "{\"type\":\"subscribed\"}");
    house_advance(&h, 30000);
    upgrade_to(&h, supervisor_of(&h), next_version());
    house_advance(&h, 30000); /* one that began anew would be due after 35 s at least */
    assert_true(read_frame(fd, &frame));
    assert_non_null(strstr(frame.text, "\"heartbeat\""));
    assert_int_equal(ctl(&h, &out, "cache invalidate --tag other"), 0);
    assert_int_equal(ctl(&h, &out, "cache invalidate --tag item-7"), 0);
    assert_true(read_frame(fd, &frame));
    assert_non_null(strstr(frame.text, "item-7"));
    close(fd);
    house_remove(&h);
}

static void counts_and_values_that_were_set_stay(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 1, local);
    const int fd = open_ws(h.port, "/live/x");
    assert_int_equal(ctl(&h, &out, "ws set timeout=77s"), 0);
    assert_int_equal(ctl(&h, &out, "ws set route=/live/* max_connections=1"), 0);
    upgrade_to(&h, supervisor_of(&h), next_version());
    assert_int_equal(status_of(h.port, "/live/y"), 503);
    assert_int_equal(ctl(&h, &out, "ws stats --json"), 0);
    assert_non_null(strstr(out, "\"opened\": 1"));
    assert_non_null(strstr(out, "\"timeout_ms\": 77000"));
    assert_non_null(strstr(out, next_version()));
    assert_non_null(strstr(out, "\"upgrades\": 1"));
    close(fd);
    house_remove(&h);
}

/* ---- the custodian gets it, too ---- */

static void upgrade_both_to(struct house *h, pid_t pid, const char *version)
{
    const unsigned before = house_times_logged(h, "upgrade: polder-supervisor's custodian is");
    upgrade_to(h, pid, version);
    wait_until(house_times_logged(h, "upgrade: polder-supervisor's custodian is") > before, 20000);
}

/* The process of the WebSockets dies, and its successor is of that version. */
static void expect_successor(struct house *h, pid_t pid, const char *version)
{
    const char *out;
    const unsigned before = house_times_logged(h, "custodian: taken up");
    const pid_t dies = working_process(pid);
    assert_true(dies > 0);
    assert_int_equal(kill(dies, SIGKILL), 0);
    wait_until(house_times_logged(h, "custodian: taken up") > before, 20000);
    assert_int_equal(supervisor_of(h), pid);
    wait_until(ctl(h, &out, "ws stats --json") == 0 && strstr(out, "\"custodian\""), 20000);
    assert_non_null(strstr(out, version));
}

static void a_death_behind_an_upgrade_is_survived_by_the_new_program(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    static struct ws_storm storm;
    const unsigned port = free_port();
    char echo[300];
    snprintf(echo, sizeof echo, "%s/bench/ws_echo", release.built);
    const pid_t backend = peer_start(echo, NULL, port);
    start(&h, port, "");
    const pid_t pid = supervisor_of(&h);
    const size_t before_all = descriptors(pid);
    ws_storm_begin(&storm, h.port, "/ws/x", 20, 4);
    wait_until(descriptors(pid) >= before_all + 2 * 20, 20000); /* it is told of each */
    const size_t files = descriptors(pid);
    const long filters = filters_of(pid);
    for (int i = 0; i < 3; i++) {
        const unsigned before = atomic_load(&storm.messages);
        const char *version = i % 2 ? release_real_version(&release) : next_version();
        const unsigned read = house_times_logged(&h, "config: read again");
        assert_int_equal(kill(pid, SIGHUP), 0);
        wait_until(house_times_logged(&h, "config: read again") > read, 10000);
        upgrade_both_to(&h, pid, i % 2 ? NULL : next_version());
        expect_successor(&h, pid, version);
        wait_until(atomic_load(&storm.messages) > before + 20, 20000);
        expect_pinned(pid);
        expect_pinned(working_process(pid));
    }
    /* what lies on disk is no matter: what runs is in memory */
    release_install(&release, "polder-supervisor", NULL, RELEASE_NO_PROGRAM);
    expect_successor(&h, pid, next_version());
    assert_int_equal(ctl(&h, &out, "ws stats --json"), 0);
    assert_non_null(strstr(out, "\"deaths\": 4"));
    assert_non_null(strstr(out, "\"upgrades\": 3"));
    wait_until(descriptors(pid) <= files + 2, 20000);
    assert_in_range(descriptors(pid), files - 2, files + 2);
    assert_int_equal(filters_of(pid), filters);
    ws_storm_end(&storm);
    house_remove(&h);
    peer_stop(backend);
}

static bool is_stopped(pid_t pid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d (%*[^)]) %c", &state), 1);
    fclose(f);
    return state == 'T';
}

static pid_t proof_of(pid_t custodian, pid_t working)
{
    char path[64];
    int pid, found = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)custodian, (int)custodian);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fscanf(f, "%d", &pid) == 1)
        if (pid != working)
            found = pid;
    fclose(f);
    return found;
}

/* A program that says in its proof that it understands all, as soon as there is that file. */
static void install_one_that_waits_for(const char *file)
{
    char path[128], temporary[160];
    snprintf(path, sizeof path, "%s/polder-supervisor", release.dir);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *f = fopen(temporary, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/bash\nuntil [ -e %s ]; do :; done\necho ok %s >&11\n", file, next_version());
    fclose(f);
    assert_int_equal(chmod(temporary, 0755), 0);
    assert_int_equal(rename(temporary, path), 0);
}

static void stop_process(pid_t pid)
{
    kill(pid, SIGSTOP);
    wait_until(is_stopped(pid), 10000);
}

/* The process of the WebSockets is the new program, its custodian is not yet. */
static void upgrade_half(struct house *h, pid_t pid)
{
    const char *out;
    const unsigned before = house_times_logged(h, "ready; at most");
    stop_process(pid);
    assert_int_equal(ctl(h, &out, "ws upgrade"), 0);
    wait_until(house_times_logged(h, "ready; at most") > before, 20000);
}

/* The custodian hears at once that its next program understands it, and that its child is dead. */
static void a_death_while_the_custodian_is_proven_is_survived(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    char file[200];
    unsigned char got[6 + 2];
    scripted_open(&b);
    start(&h, b.port, "");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/x", "");
    const pid_t pid = supervisor_of(&h), working = working_process(pid);
    upgrade_half(&h, pid);
    snprintf(file, sizeof file, "%s/go", h.dir);
    install_one_that_waits_for(file);
    kill(pid, SIGCONT);
    wait_until(proof_of(pid, working), 20000);
    const pid_t proof = proof_of(pid, working);
    stop_process(pid);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fclose(f);
    wait_until(has_ended(proof), 20000);
    kill(working, SIGKILL);
    wait_until(has_ended(working), 20000);
    kill(pid, SIGCONT);
    wait_until(house_logged(&h, "custodian: taken up"), 20000);
    assert_true(house_logged(&h, "the process of the WebSockets has died before that"));
    assert_int_equal(supervisor_of(&h), pid);
    say(client, "ok");
    assert_true(take(backend, got, sizeof got));
    close(client);
    close(backend);
    house_remove(&h);
    close(b.fd);
}

static void a_custodian_that_cannot_be_replaced_stays(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 1, local);
    const pid_t pid = supervisor_of(&h);
    const int fd = open_ws(h.port, "/live/x");
    upgrade_half(&h, pid);
    release_install(&release, "polder-supervisor", next_version(), RELEASE_CRASHES);
    kill(pid, SIGCONT);
    wait_until(house_logged(&h, "polder-supervisor's custodian stays"), 20000);
    assert_true(house_logged(&h, "the proof died of signal 4"));
    wait_until(ctl(&h, &out, "status") == 0 && strstr(out, "upgrade_failed"), 10000);
    assert_non_null(strstr(out, "the custodian stays as it is"));
    say(fd, "{}");
    assert_true(read_frame(fd, &frame));
    release_install(&release, "polder-supervisor", next_version(), RELEASE_WHOLE);
    upgrade_both_to(&h, pid, next_version());
    wait_until(ctl(&h, &out, "status") == 0 && !strstr(out, "upgrade_failed"), 10000);
    expect_successor(&h, pid, next_version());
    close(fd);
    house_remove(&h);
}

static void install_other_layout(void)
{
    char from[320], temporary[128], to[128];
    snprintf(from, sizeof from, "%s/test/polder-supervisor-other", release.built);
    snprintf(temporary, sizeof temporary, "%s/other", release.dir);
    snprintf(to, sizeof to, "%s/polder-supervisor", release.dir);
    char command[640];
    snprintf(command, sizeof command, "cp %s %s", from, temporary);
    assert_int_equal(system(command), 0);
    assert_int_equal(rename(temporary, to), 0);
}

/* The program before cannot read the memory of the new one: what is there goes by the block alone,
 * and from then on the new one survives a death. And back. */
static void memory_of_another_layout_is_no_matter(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    unsigned char got[6 + 4];
    scripted_open(&b);
    start(&h, b.port, "");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/x", "");
    const pid_t pid = supervisor_of(&h);
    for (int i = 0; i < 3; i++) {
        const unsigned before = house_times_logged(&h, "polder-supervisor's custodian is");
        if (i % 2)
            release_install(&release, "polder-supervisor", NULL, RELEASE_WHOLE);
        else
            install_other_layout();
        upgrade_by(&h, pid, SIGUSR2);
        wait_until(house_times_logged(&h, "polder-supervisor's custodian is") > before, 20000);
        assert_int_equal(house_times_logged(&h, "keeps its state otherwise"), i + 1);
        say(client, "ever");
        assert_true(take(backend, got, sizeof got));
        expect_successor(&h, pid, release_real_version(&release));
        say(client, "more");
        assert_true(take(backend, got, sizeof got));
    }
    close(client);
    close(backend);
    house_remove(&h);
    close(b.fd);
}

/* The new program finds that it is to stop, and is not told so a second time, which would cut. */
static void a_stop_on_the_way_of_an_upgrade_comes_once(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, local);
    const pid_t pid = supervisor_of(&h), working = working_process(pid);
    const int fd = open_ws(h.port, "/live/x");
    kill(pid, SIGUSR2);
    while (!house_logged(&h, "understands what it would be left"))
        ;
    stop_process(working);
    kill(pid, SIGTERM);
    nap_ms(50); /* the custodian passes it on; later, it is passed on once in any case */
    kill(working, SIGCONT);
    assert_int_equal(expect_close(fd), 1012);
    close(fd);
    wait_until(has_ended(pid), 20000);
    house_remove(&h);
}

/* ---- who asks for it, and when not ---- */

static void a_reload_upgrades_if_there_is_another_program(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, local);
    const pid_t pid = supervisor_of(&h);
    const int fd = open_ws(h.port, "/live/x");
    assert_int_equal(kill(pid, SIGHUP), 0);
    wait_until(house_logged(&h, "config: read again"), 10000);
    assert_int_equal(upgrades(&h), 0);
    release_install(&release, "polder-supervisor", next_version(), RELEASE_WHOLE);
    house_write_conf(&h, 1, "route \"/new/*\" { websocket { } }\n");
    upgrade_by(&h, pid, SIGHUP); /* and reads the file; the route of the client is gone */
    assert_int_equal(expect_close(fd), 1012);
    assert_int_equal(kill(h.pid, SIGHUP), 0);
    wait_until(status_of(h.port, "/new/x") == 101, 10000);
    close(fd);
    house_remove(&h);
}

static void expect_refused(struct house *h, pid_t pid, int fd, enum release_damage damage,
                           const char *why)
{
    const char *out;
    const unsigned before = house_times_logged(h, "upgrade: polder-supervisor");
    release_install(&release, "polder-supervisor", next_version(), damage);
    assert_int_equal(kill(pid, SIGUSR2), 0);
    wait_until(house_times_logged(h, "upgrade: polder-supervisor") > before, 20000);
    if (!house_logged(h, why))
        fail_msg("not logged: %s", why);
    wait_until(ctl(h, &out, "status") == 0 && strstr(out, "upgrade_failed"), 10000);
    say(fd, "{}");
    assert_true(read_frame(fd, &frame));
    assert_int_equal(frame.opcode, 1);
    assert_int_equal(supervisor_of(h), pid);
}

static void a_program_that_cannot_take_over_changes_nothing(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 1, local);
    const pid_t pid = supervisor_of(&h);
    const int fd = open_ws(h.port, "/live/x");
    expect_refused(&h, pid, fd, RELEASE_NO_PROGRAM, "Exec format error");
    expect_refused(&h, pid, fd, RELEASE_FOREIGN, "Exec format error");
    expect_refused(&h, pid, fd, RELEASE_UNREADABLE, "Permission denied");
    expect_refused(&h, pid, fd, RELEASE_CRASHES, "died of signal 4");
    expect_refused(&h, pid, fd, RELEASE_TRUNCATED, "died of signal");
    expect_refused(&h, pid, fd, RELEASE_HANGS, "said nothing within 5 s");
    assert_int_equal(upgrades(&h), 0);
    upgrade_to(&h, pid, next_version());
    wait_until(ctl(&h, &out, "status") == 0 && !strstr(out, "upgrade_failed"), 10000);
    close(fd);
    house_remove(&h);
}

static void a_wrong_file_refuses_the_upgrade(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, local);
    const pid_t pid = supervisor_of(&h);
    const int fd = open_ws(h.port, "/live/x");
    house_write_conf(&h, 1, "route \"/live/*\" { websocket { interval = \"never\" } }\n");
    assert_int_equal(kill(pid, SIGUSR2), 0);
    wait_until(house_logged(&h, "goes on: "), 20000);
    assert_true(house_logged(&h, "interval"));
    say(fd, "{}");
    assert_true(read_frame(fd, &frame));
    close(fd);
    house_remove(&h);
}

static rlim_t descriptors_end(pid_t pid)
{
    char path[32];
    rlim_t end = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if ((rlim_t)atoi(e->d_name) + 1 > end)
            end = (rlim_t)atoi(e->d_name) + 1;
    closedir(d);
    return end;
}

static unsigned tried(struct house *h)
{
    return house_times_logged(h, "upgrade: polder-supervisor") +
           house_times_logged(h, "goes on in place of");
}

/* Room for no more or hardly any descriptor: it upgrades or says why not, and loses nothing. */
static void with_a_full_descriptor_table_it_goes_on(void **state)
{
    static const rlim_t room[] = {0, 1, 2, 4};
    struct rlimit whole;
    struct house h;
    (void)state;
    start(&h, 1, local);
    const pid_t pid = supervisor_of(&h), working = working_process(pid);
    const int fd = open_ws(h.port, "/live/x");
    assert_int_equal(prlimit(working, RLIMIT_NOFILE, NULL, &whole), 0);
    for (unsigned i = 0; i < sizeof room / sizeof *room; i++) {
        const struct rlimit few = {descriptors_end(working) + room[i], whole.rlim_max};
        const unsigned before = tried(&h);
        assert_int_equal(prlimit(working, RLIMIT_NOFILE, &few, NULL), 0);
        assert_int_equal(kill(pid, SIGUSR2), 0);
        wait_until(tried(&h) > before, 20000);
        assert_int_equal(prlimit(working, RLIMIT_NOFILE, &whole, NULL), 0);
        say(fd, "{}");
        assert_true(read_frame(fd, &frame));
        assert_int_equal(frame.opcode, 1);
        assert_int_equal(working_process(pid), working);
    }
    upgrade_to(&h, pid, next_version());
    close(fd);
    house_remove(&h);
}

static void polderctl_upgrades_both(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    char text[128];
    start(&h, 1, local);
    const pid_t pid = supervisor_of(&h);
    const int fd = open_ws(h.port, "/live/x");
    release_install(&release, "polder-supervisor", next_version(), RELEASE_WHOLE);
    if (ctl(&h, &out, "upgrade"))
        fail_msg("upgrade: %s", out);
    snprintf(text, sizeof text, "polder-supervisor  ok, from %s to %s",
             release_real_version(&release), next_version());
    assert_non_null(strstr(out, text));
    assert_non_null(strstr(out, "upgrade  ok"));
    assert_true(house_logged(&h, "upgrade: polder-supervisor's custodian is"));
    release_install(&release, "polder-supervisor", NULL, RELEASE_NO_PROGRAM);
    assert_int_equal(ctl(&h, &out, "upgrade"), 1);
    snprintf(text, sizeof text, "polder-supervisor  failed, %s goes on", next_version());
    if (!strstr(out, text) || !strstr(out, "Exec format error"))
        fail_msg("not said: %s: %s", text, out);
    assert_int_equal(ctl(&h, &out, "ws upgrade"), 1);
    assert_int_equal(ctl(&h, &out, "upgrade --json"), 1);
    const char *supervisor = strstr(out, "\"supervisor\": {");
    assert_true(strstr(out, "\"upgrade\": \"ok\"") < supervisor); /* polderd's own */
    assert_non_null(strstr(supervisor, "\"upgrade\": \"failed\""));
    assert_non_null(strstr(supervisor, "Exec format error"));
    release_install(&release, "polder-supervisor", NULL, RELEASE_WHOLE);
    assert_int_equal(ctl(&h, &out, "upgrade --no-wait"), 0);
    if (!strstr(out, "polder-supervisor  asked"))
        fail_msg("not asked: %s", out);
    wait_until(upgrades(&h) == 2, 20000);
    assert_int_equal(supervisor_of(&h), pid);
    wait_until(ctl(&h, &out, "--json upgrade --state") == 0 && /* polderd's is over */
                   strstr(out, "\"upgrade\": \"ok\""),
               20000);
    wait_until(ctl(&h, &out, "--json ws stats") == 0 &&
                   strstr(out, "\"custodianPending\": false") &&
                   strstr(out, "\"programDiffers\": false"),
               20000);
    assert_int_equal(ctl(&h, &out, "--json upgrade"), 0);
    if (!strstr(strstr(out, "\"supervisor\": {"), "\"upgrade\": \"same\""))
        fail_msg("not said: same: %s", out);
    say(fd, "{}");
    assert_true(read_frame(fd, &frame));
    close(fd);
    house_remove(&h);
}

static int set_up(void **state)
{
    (void)state;
    release_open(&release);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    release_close(&release);
    return 0;
}

static int set_back(void **state)
{
    (void)state;
    release_install(&release, "polder-supervisor", NULL, RELEASE_WHOLE);
    return 0;
}

#define story(name) cmocka_unit_test_setup(name, set_back)

int main(void)
{
    const struct CMUnitTest tests[] = {
        story(upgrades_under_load_lose_nothing),
        story(half_a_frame_is_completed_behind_an_upgrade),
        story(what_a_slow_reader_has_not_taken_is_kept),
        story(a_handshake_is_answered_behind_an_upgrade),
        story(a_close_handshake_goes_on),
        story(heartbeats_and_subscriptions_go_on),
        story(counts_and_values_that_were_set_stay),
        story(a_death_behind_an_upgrade_is_survived_by_the_new_program),
        story(a_death_while_the_custodian_is_proven_is_survived),
        story(a_custodian_that_cannot_be_replaced_stays),
        story(a_stop_on_the_way_of_an_upgrade_comes_once),
        story(memory_of_another_layout_is_no_matter),
        story(a_reload_upgrades_if_there_is_another_program),
        story(a_program_that_cannot_take_over_changes_nothing),
        story(a_wrong_file_refuses_the_upgrade),
        story(polderctl_upgrades_both),
        story(with_a_full_descriptor_table_it_goes_on),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
