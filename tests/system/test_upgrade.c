/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * polderd gets another program in the same process, under load: nothing fails, limits and cache go on;
 * and a program that cannot take over changes nothing.
 */
#include "block_maker.h"
#include "harness.h"
#include "release.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;
static struct release release;
static atomic_bool let_go; /* of /hold */

static bool answers(struct asked *a)
{
    if (!strcmp(a->target, "/hold"))
        while (!atomic_load(&let_go))
            nap_ms(5);
    return reply_ok(a, strncmp(a->target, "/cached/", 8) ? "" : "Cache-Control: max-age=600\r\n",
                    a->target);
}

static void start(struct house *h, unsigned workers)
{
    house_start(h, workers,
                "access_log = \"json:%s/access.log\"\n"
                "limit \"hundred\" { requests = 100 window = 1h }\n"
                "limit \"other\" { requests = 100 window = 1h }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/cached/*\" { upstream = \"u\" cache { } }\n"
                "route \"/counted\" { upstream = \"u\" limits = {\"hundred\"} }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                release.dir, backend_port(backend));
}

/* ---- programs ---- */

static void install(const char *version, enum release_damage damage)
{
    release_install(&release, "polderd", version, damage);
}

static const char *next_version(void)
{
    static char next[64];
    snprintf(next, sizeof next, "%s", release_real_version(&release));
    next[strlen(next) - 1] = next[strlen(next) - 1] == '9' ? '8' : '9';
    return next;
}

/* The file `from` of the build, in which `word` (NULL: none) becomes another word. */
static void install_file(const char *from, const char *word)
{
    char path[400], temporary[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", release.built, from);
    snprintf(temporary, sizeof temporary, "%s/polderd.new", release.dir);
    const int in = open(path, O_RDONLY | O_CLOEXEC);
    const int out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    assert_true(in >= 0 && out >= 0);
    assert_int_equal(fstat(in, &st), 0);
    char *bytes = malloc((size_t)st.st_size);
    assert_non_null(bytes);
    assert_int_equal(read(in, bytes, (size_t)st.st_size), st.st_size);
    char *at = word ? memmem(bytes, (size_t)st.st_size, word, strlen(word)) : NULL;
    assert_true(!word || at);
    if (at)
        at[strlen(word) - 1] ^= 1;
    assert_int_equal(write(out, bytes, (size_t)st.st_size), st.st_size);
    free(bytes);
    close(in);
    close(out);
    snprintf(path, sizeof path, "%s/polderd", release.dir);
    assert_int_equal(rename(temporary, path), 0);
}

static void upgrade(struct house *h, const char *version)
{
    const char *out;
    char text[64];
    if (ctl(h, &out, "upgrade") != 0)
        fail_msg("upgrade: %s", out);
    assert_non_null(strstr(out, "upgrade  ok"));
    snprintf(text, sizeof text, "to %s", version ? version : release_real_version(&release));
    assert_non_null(strstr(out, text));
}

/* ---- load ---- */

struct load {
    unsigned port;
    bool keeps; /* its connection, as long as it may */
    pthread_t thread;
    atomic_bool stop;
    atomic_uint done, failed;
};

/* Whole, with status 200; *closes: it was the last one of this connection. */
static bool one_answer(int fd, bool *closes)
{
    char in[4096];
    size_t used = 0;
    static const char request[] = "GET /x HTTP/1.1\r\nHost: test.example\r\n\r\n";
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)sizeof request - 1)
        return false;
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 20000) != 1)
            return false;
        const ssize_t n = recv(fd, in + used, sizeof in - 1 - used, 0);
        if (n <= 0)
            return false;
        used += (size_t)n;
        in[used] = 0;
        const char *end = strstr(in, "\r\n\r\n");
        if (end && !strcmp(end + 4, "/x"))
            break;
    }
    *closes = strcasestr(in, "\r\nconnection: close") != NULL;
    return !strncmp(in, "HTTP/1.1 200 ", 13);
}

static void *load_run(void *arg)
{
    struct load *l = arg;
    int fd = -1;
    while (!atomic_load(&l->stop)) {
        bool closes = true;
        if (fd < 0)
            fd = client_connect(l->port);
        const bool good = fd >= 0 && one_answer(fd, &closes);
        atomic_fetch_add(good ? &l->done : &l->failed, 1);
        if ((!l->keeps || closes || !good) && fd >= 0) {
            close(fd);
            fd = -1;
        }
        nap_ms(2);
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

#define CLIENTS 6
static struct load load[CLIENTS];

static void load_start(const struct house *h)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        load[i] = (struct load){.port = h->port, .keeps = i % 2};
        pthread_create(&load[i].thread, NULL, load_run, &load[i]);
    }
}

static void load_stop(void)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        atomic_store(&load[i].stop, true);
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(load[i].thread, NULL);
        assert_int_equal(load[i].failed, 0);
        assert_true(load[i].done > 10);
    }
}

struct fetch {
    unsigned port;
    const char *target;
    int status;
    bool complete;
    pthread_t thread;
};

static void *fetch_run(void *arg)
{
    struct fetch *f = arg;
    struct message m;
    f->status = get(f->port, f->target, &m);
    f->complete = m.complete;
    message_free(&m);
    return NULL;
}

/* One that an old worker has under way until fetch_end(). */
static void fetch_begin(struct fetch *f, const struct house *h)
{
    *f = (struct fetch){.port = h->port, .target = "/hold"};
    atomic_store(&let_go, false);
    const unsigned before = backend_calls(backend);
    pthread_create(&f->thread, NULL, fetch_run, f);
    wait_until(backend_calls(backend) > before, 5000);
}

static void fetch_end(struct fetch *f)
{
    atomic_store(&let_go, true);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->status, 200);
    assert_true(f->complete);
}

/* How many of n are admitted. */
static unsigned admitted(const struct house *h, unsigned n)
{
    unsigned good = 0;
    for (unsigned i = 0; i < n; i++) {
        const int status = get(h->port, "/counted", NULL);
        assert_true(status == 200 || status == 429);
        good += status == 200;
    }
    return good;
}

/* ---- stories ---- */

static unsigned descriptors_of(pid_t pid)
{
    char path[64];
    unsigned n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void there_and_back_under_load_nothing_fails(void **state)
{
    (void)state;
    struct house h;
    struct fetch slow;
    const char *out;
    char text[64];
    install(NULL, RELEASE_WHOLE);
    start(&h, 2);
    assert_int_equal(get(h.port, "/cached/a", NULL), 200);
    wait_until(served_from_store(h.port, "/cached/a"), 5000);
    assert_int_equal(ctl(&h, NULL, "limit set other requests=7"), 0);
    load_start(&h);
    unsigned good = admitted(&h, 40);
    fetch_begin(&slow, &h);

    install(next_version(), RELEASE_WHOLE);
    upgrade(&h, next_version());
    assert_int_equal(ctl(&h, &out, "status"), 0);
    snprintf(text, sizeof text, "version            %s", next_version());
    assert_non_null(strstr(out, text));
    assert_true(served_from_store(h.port, "/cached/a"));
    good += admitted(&h, 40);

    install(NULL, RELEASE_WHOLE);
    assert_int_equal(ctl(&h, &out, "reload"), 0); /* finds another program: the one before */
    assert_non_null(strstr(out, "upgrade  ok"));
    snprintf(text, sizeof text, "from %s to %s", next_version(), release_real_version(&release));
    assert_non_null(strstr(out, text));
    assert_true(served_from_store(h.port, "/cached/a"));
    good += admitted(&h, 40);
    assert_int_equal(good, 100);
    assert_int_equal(ctl(&h, &out, "limit list"), 0);
    assert_non_null(strstr(out, " 7 "));              /* as it was set */
    assert_int_equal(ctl(&h, &out, "log reopen"), 0); /* old workers change to the new one too */
    fetch_end(&slow);                                 /* its worker is of two programs ago */
    load_stop();
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 200);
    assert_false(house_logged(&h, "died"));
    house_remove(&h);
}

static void twenty_in_a_row_leave_nothing_behind(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    install(NULL, RELEASE_WHOLE);
    start(&h, 1);
    upgrade(&h, NULL);
    const unsigned before = descriptors_of(h.pid);
    const uint64_t began = mono_ms();
    for (unsigned i = 2; i <= 18; i++)
        upgrade(&h, NULL);
    /* while one is under way, more are asked for: they follow as one */
    kill(h.pid, SIGUSR2);
    wait_until(house_times_logged(&h, "upgrade: executing") == 19, 20000);
    kill(h.pid, SIGUSR2);
    kill(h.pid, SIGUSR2);
    wait_until(house_times_logged(&h, " has become ") == 20, 20000);
    assert_true(mono_ms() - began < harness_patience(60000));
    wait_until(descriptors_of(h.pid) <= before, 10000); /* old workers leave */
    assert_int_equal(get(h.ops_port, "/metrics", &m), 200);
    assert_non_null(strstr(m.body, "polder_upgrades_total{result=\"ok\"} 20\n"));
    message_free(&m);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_int_equal(house_times_logged(&h, "died"), 0);
    house_remove(&h);
}

static void refused(struct house *h, const char *why)
{
    const char *out;
    assert_int_equal(ctl(h, &out, "upgrade"), 1);
    if (!strstr(out, why))
        fail_msg("\"%s\" does not say \"%s\"", out, why);
    assert_int_equal(get(h->port, "/x", NULL), 200);
}

/* It is killed in time, of which it is told that it has come. */
static void refused_for_hanging(struct house *h)
{
    const char *out;
    install(NULL, RELEASE_HANGS);
    assert_int_equal(ctl(h, &out, "upgrade --no-wait"), 0);
    wait_until(house_times_logged(h, "proves that it could") > 6, 10000);
    house_advance(h, 16000);
    wait_until(ctl(h, &out, "upgrade --state") == 0 && strstr(out, "did not prove itself within"),
               20000);
}

static void a_program_that_cannot_take_over_changes_nothing(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    char path[128];
    pid_t before[2], after[2];
    install(NULL, RELEASE_WHOLE);
    start(&h, 2);
    assert_int_equal(house_children(&h, "polderd: worker", before, 2), 2);
    install(NULL, RELEASE_CRASHES);
    refused(&h, "was ended by signal 4");
    install(NULL, RELEASE_FOREIGN);
    refused(&h, "Exec format error");
    install(NULL, RELEASE_NO_PROGRAM);
    refused(&h, "Exec format error");
    install(NULL, RELEASE_UNREADABLE);
    refused(&h, "Permission denied");
    install(NULL, RELEASE_TRUNCATED);
    refused(&h, "");
    install_file("polderd", "liblmdb.so.0");
    refused(&h, "cannot open shared object file");
    snprintf(path, sizeof path, "%s/polderd", release.dir);
    assert_int_equal(unlink(path), 0);
    refused(&h, "there is no program");
    refused_for_hanging(&h);
    assert_int_equal(house_children(&h, "polderd: worker", after, 2), 2);
    assert_memory_equal(before, after, sizeof before);
    assert_int_equal(ctl(&h, &out, "status"), 0);
    assert_non_null(strstr(out, "upgrade_failed"));
    assert_int_equal(ctl(&h, &out, "reload"), 0); /* not by that program */
    assert_non_null(strstr(out, "reloaded    yes"));
    install(next_version(), RELEASE_WHOLE);
    house_write_conf(&h, 2, "route \"/*\" { upstream = \"nobody\" }\n");
    refused(&h, "polder.conf:6: ");
    assert_int_equal(house_times_logged(&h, "upgrade: executing"), 0);
    assert_int_equal(house_times_logged(&h, "died"), 0);
    house_remove(&h);
}

/* As a reload would be; but after execve() nothing could be taken back. */
static void what_a_reload_would_refuse_is_refused(void **state)
{
    (void)state;
    struct house h;
    char conf[512], pipe[128];
    install(NULL, RELEASE_WHOLE);
    start(&h, 1);
    snprintf(pipe, sizeof pipe, "%s/pipe", release.dir);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    snprintf(conf, sizeof conf,
             "access_log = \"json:%s\"\n"
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
             pipe, backend_port(backend));
    house_write_conf(&h, 1, conf);
    refused(&h, "no process reads that pipe");
    snprintf(conf, sizeof conf,
             "limit_entries = 4096\n"
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
             backend_port(backend));
    house_write_conf(&h, 1, conf);
    refused(&h, "limit_entries cannot change in an upgrade");
    assert_int_equal(house_times_logged(&h, "upgrade: executing"), 0);
    unlink(pipe);
    house_remove(&h);
}

static rlim_t open_files(pid_t pid)
{
    char path[32];
    rlim_t highest = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if ((rlim_t)atoi(e->d_name) > highest)
            highest = (rlim_t)atoi(e->d_name);
    closedir(d);
    return highest + 1;
}

/* Room for no more or hardly any descriptor in the master: what then fails is said, and nothing is
 * lost; with room it is done. */
static void with_a_full_descriptor_table_it_goes_on(void **state)
{
    static const rlim_t room[] = {0, 1, 2, 5, 9};
    struct rlimit before;
    struct house h;
    const char *out;
    (void)state;
    install(NULL, RELEASE_WHOLE);
    start(&h, 2);
    assert_int_equal(prlimit(h.pid, RLIMIT_NOFILE, NULL, &before), 0);
    for (unsigned i = 0; i < sizeof room / sizeof *room; i++) {
        const struct rlimit few = {open_files(h.pid) + room[i], before.rlim_max};
        assert_int_equal(prlimit(h.pid, RLIMIT_NOFILE, &few, NULL), 0);
        const int upgraded = ctl(&h, &out, "upgrade"), reloaded = ctl(&h, &out, "reload");
        assert_in_range(upgraded, 0, 1);
        assert_in_range(reloaded, 0, 1);
        assert_int_equal(get(h.port, "/x", NULL), 200);
        assert_int_equal(prlimit(h.pid, RLIMIT_NOFILE, &before, NULL), 0);
    }
    upgrade(&h, NULL);
    assert_int_equal(ctl(&h, &out, "reload"), 0);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_int_equal(house_times_logged(&h, "died"), 0);
    house_remove(&h);
}

/* Between execve() and the end of the control of before, a change would reach neither of them. */
static void a_change_on_the_way_is_refused_and_not_lost(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    pid_t keeper;
    install(NULL, RELEASE_WHOLE);
    start(&h, 1);
    assert_int_equal(house_children(&h, "polderd: keeper", &keeper, 1), 1);
    assert_int_equal(kill(keeper, SIGSTOP), 0); /* it takes its time to leave */
    assert_int_equal(ctl(&h, &out, "upgrade --no-wait"), 0);
    wait_until(house_times_logged(&h, " has taken over from ") == 1, 20000);
    assert_int_equal(ctl(&h, &out, "limit set other requests=7"), 1);
    assert_non_null(strstr(out, "an upgrade is under way"));
    assert_int_equal(ctl(&h, &out, "upstream weight u 127.0.0.1:%u 5", backend_port(backend)), 1);
    assert_int_equal(ctl(&h, &out, "limit show other"), 0); /* it is only asked */
    assert_int_equal(kill(keeper, SIGCONT), 0);
    wait_until(house_times_logged(&h, " has become ") == 1, 20000);
    assert_int_equal(ctl(&h, &out, "limit set other requests=7"), 0);
    assert_int_equal(ctl(&h, &out, "limit list"), 0);
    assert_non_null(strstr(out, " 7 (file: 100) "));
    house_remove(&h);
}

struct file_writer {
    const char *path; /* a pipe: each reading gets what is written just then */
    const char *good, *bad;
    const struct house *house;
    atomic_bool stop;
    pthread_t thread;
};

static void file_put(const struct file_writer *f, const char *text)
{
    const int fd = open(f->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) /* nobody reads */
        return;
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* Good for the proof, bad from then on. */
static void *file_write(void *arg)
{
    struct file_writer *f = arg;
    const int fd = open(f->path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(write(fd, f->good, strlen(f->good)), (ssize_t)strlen(f->good));
    close(fd);
    while (!atomic_load(&f->stop)) {
        if (house_times_logged(f->house, "upgrade: executing"))
            file_put(f, f->bad);
        nap_ms(1);
    }
    return NULL;
}

/* The new program goes on with what was proven; its reload is refused as any. */
static void a_file_that_turns_bad_after_the_proof_ends_nothing(void **state)
{
    (void)state;
    struct house h;
    char good[4096] = "", bad[4096], kept[176];
    const char *out;
    install(NULL, RELEASE_WHOLE);
    start(&h, 1);
    FILE *file = fopen(h.conf, "r");
    assert_non_null(file);
    assert_true(fread(good, 1, sizeof good - 1, file) > 0);
    fclose(file);
    snprintf(bad, sizeof bad, "%.4000s\nnonsense = 1\n", good);
    snprintf(kept, sizeof kept, "%s.kept", h.conf);
    assert_int_equal(rename(h.conf, kept), 0);
    assert_int_equal(mkfifo(h.conf, 0600), 0);
    struct file_writer f = {.path = h.conf, .good = good, .bad = bad, .house = &h};
    pthread_create(&f.thread, NULL, file_write, &f);
    refused(&h, "nonsense");
    atomic_store(&f.stop, true);
    pthread_join(f.thread, NULL);
    assert_true(house_logged(&h, " has taken over from "));
    assert_int_equal(rename(kept, h.conf), 0);
    assert_int_equal(ctl(&h, &out, "upgrade"), 0);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_false(house_logged(&h, "died"));
    house_remove(&h);
}

static void shared_memory_of_another_layout_is_made_anew(void **state)
{
    (void)state;
    struct house h;
    struct fetch slow;
    install(NULL, RELEASE_WHOLE);
    start(&h, 2);
    assert_int_equal(get(h.port, "/cached/a", NULL), 200);
    wait_until(served_from_store(h.port, "/cached/a"), 5000);
    load_start(&h);
    unsigned good = admitted(&h, 40);
    fetch_begin(&slow, &h);
    install_file("test/polderd-other", NULL);
    upgrade(&h, NULL);
    assert_true(house_logged(&h, "made anew without what was in them: polder-proc, "));
    assert_false(served_from_store(h.port, "/cached/a")); /* nobody knows what was invalidated */
    wait_until(served_from_store(h.port, "/cached/a"), 5000);
    good += admitted(&h, 40); /* the limiter's table is the same */
    install(NULL, RELEASE_WHOLE);
    upgrade(&h, NULL);
    good += admitted(&h, 40);
    assert_int_equal(good, 100);
    fetch_end(&slow);
    load_stop();
    wait_until(get(h.ops_port, "/readyz", NULL) == 200, 5000);
    assert_false(house_logged(&h, "died"));
    house_remove(&h);
}

/* Killed before and after each step, it comes back as after any kill. */
static void a_master_that_is_killed_on_the_way_is_started_again(void **state)
{
    (void)state;
    static const char *const moments[] = {"proves that it could", "upgrade: executing",
                                          "has taken over", "left with exit code"};
    struct house h;
    install(NULL, RELEASE_WHOLE);
    start(&h, 1);
    unsigned good = admitted(&h, 60);
    for (unsigned i = 0; i < sizeof moments / sizeof *moments; i++) {
        const unsigned before = house_times_logged(&h, moments[i]);
        kill(h.pid, SIGUSR2);
        wait_until(house_times_logged(&h, moments[i]) > before, 20000);
        house_kill(&h);
        house_run(&h);
        assert_int_equal(get(h.port, "/x", NULL), 200);
    }
    good += admitted(&h, 60); /* what a restart keeps */
    assert_int_equal(good, 100);
    upgrade(&h, NULL);
    house_remove(&h);
}

/* polderctl upgrade in the background; what it prints comes at the end. */
static FILE *upgrade_begin(struct house *h, const char *options)
{
    char command[400];
    const unsigned before = house_times_logged(h, "proves that it could");
    snprintf(command, sizeof command, "%s -s %s %s upgrade 2>&1", built("polderctl"), h->sock,
             options);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    wait_until(house_times_logged(h, "proves that it could") > before, 20000);
    return p;
}

static void upgrade_ends(FILE *p, int status, const char *why)
{
    char text[4096];
    text[fread(text, 1, sizeof text - 1, p)] = 0;
    const int code = pclose(p);
    if (!WIFEXITED(code) || WEXITSTATUS(code) != status || !strstr(text, why))
        fail_msg("status %x, \"%s\" is not in: %s", (unsigned)code, why, text);
}

/* Neither ends by itself: the answer never comes. */
static void polderctl_says_that_polderd_has_died_on_the_way(void **state)
{
    (void)state;
    struct house h;
    install(NULL, RELEASE_WHOLE);
    start(&h, 1);
    install(NULL, RELEASE_HANGS);
    FILE *p = upgrade_begin(&h, "");
    install(NULL, RELEASE_WHOLE);
    house_kill(&h);
    house_run(&h);
    upgrade_ends(p, 1, "polderd was started anew before the upgrade was over");
    install(NULL, RELEASE_HANGS);
    p = upgrade_begin(&h, "--json -t 2s"); /* 10 s without it */
    house_kill(&h);
    upgrade_ends(p, 3, "polderd has not answered for 2 s on the way of the upgrade");
    install(NULL, RELEASE_WHOLE);
    house_run(&h);
    upgrade(&h, NULL);
    house_remove(&h);
}

/* ---- by hand ---- */

/* What the program says of that block, as one that would take over. */
static int prove(int block, char *out, size_t size)
{
    int ends[2], status;
    char block_text[16], answer_text[16];
    size_t used = 0;
    ssize_t n;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        fcntl(ends[1], F_SETFD, 0);
        fcntl(block, F_SETFD, 0);
        dup2(ends[1], STDERR_FILENO);
        snprintf(block_text, sizeof block_text, "%d", block);
        snprintf(answer_text, sizeof answer_text, "%d", ends[1]);
        execl(built("polderd"), "polderd", "-c", "/nonexistent", "--take-over", block_text,
              "--prove", answer_text, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    while ((n = read(ends[0], out + used, size - 1 - used)) > 0)
        used += (size_t)n;
    out[used] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void proves_not(int block, const char *why)
{
    char out[1024];
    assert_int_equal(prove(block, out, sizeof out), 1);
    if (!strstr(out, why))
        fail_msg("\"%s\" does not say \"%s\"", out, why);
    close(block);
}

static void a_block_that_is_none_is_refused(void **state)
{
    (void)state;
    uint8_t header[BLOCK_HEADER];
    /* a service whose first value, a number, is of another kind */
    const uint8_t service[24] = {1, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0, 1};
    const uint8_t child[8] = {4};
    const uint8_t later[8] = {99};
    char out[1024];
    install(NULL, RELEASE_WHOLE);
    proves_not(open("/dev/null", O_RDONLY | O_CLOEXEC), "is no sealed memory");
    proves_not(block_seal("", 0, "", 0), "fewer than its header");
    block_header_make(header, 1, 1, service, sizeof service);
    proves_not(block_seal(header, sizeof header, service, 8), "and says 104");
    proves_not(block_seal(header, sizeof header, service, sizeof service),
               "record 1 (type 1), value 1: expected a number, found a text");
    block_header_make(header, 2, 1, "", 0);
    proves_not(block_seal(header, sizeof header, "", 0), "it has format 2");
    block_header_make(header, 1, 2, "", 0);
    proves_not(block_seal(header, sizeof header, "", 0), "it is of another daemon");
    block_header_make(header, 1, 1, "", 0);
    proves_not(block_seal(header, sizeof header, "", 0), "is not that of the service");
    block_header_make(header, 1, 1, child, sizeof child);
    proves_not(block_seal(header, sizeof header, child, sizeof child),
               "is not that of the service");
    block_header_make(header, 1, 1, later, sizeof later);
    proves_not(block_seal(header, sizeof header, later, sizeof later),
               "which only a later version knows");
    assert_int_equal(prove(1000, out, sizeof out), 2);
    assert_non_null(strstr(out, "is no open descriptor"));
}

static int set_up(void **state)
{
    release_open(&release);
    return harness_set_up(state);
}

static int tear_down(void **state)
{
    char path[128];
    snprintf(path, sizeof path, "%s/access.log", release.dir);
    unlink(path);
    release_close(&release);
    return harness_tear_down(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back_under_load_nothing_fails),
        cmocka_unit_test(twenty_in_a_row_leave_nothing_behind),
        cmocka_unit_test(a_program_that_cannot_take_over_changes_nothing),
        cmocka_unit_test(what_a_reload_would_refuse_is_refused),
        cmocka_unit_test(with_a_full_descriptor_table_it_goes_on),
        cmocka_unit_test(a_change_on_the_way_is_refused_and_not_lost),
        cmocka_unit_test(a_file_that_turns_bad_after_the_proof_ends_nothing),
        cmocka_unit_test(shared_memory_of_another_layout_is_made_anew),
        cmocka_unit_test(a_master_that_is_killed_on_the_way_is_started_again),
        cmocka_unit_test(polderctl_says_that_polderd_has_died_on_the_way),
        cmocka_unit_test(a_block_that_is_none_is_refused),
    };
    harness_share(&backend, answers);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
