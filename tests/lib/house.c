/* SPDX-License-Identifier: BSD-2-Clause */
/* house: see house.h. */
#include "house.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *built(const char *program)
{
    static char path[8][512];
    static unsigned turn;
    char *p = path[turn++ % 8];
    const char *dir = getenv("POLDER_BUILD");
    snprintf(p, sizeof path[0], "%s/%s", dir ? dir : "build", program);
    return p;
}

/* Below what the kernel gives to clients, so that no connection of another program takes a port
 * between here and its use; test programs that run side by side begin at places of their own. */
#define PORT_FIRST 10000
#define PORT_LAST  32000

static bool port_is_free(unsigned port)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const struct sockaddr_in sa = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const bool is_free = bind(fd, (const struct sockaddr *)&sa, sizeof sa) == 0;
    close(fd);
    return is_free;
}

unsigned free_port(void)
{
    static unsigned next;
    if (!next) {
        uint32_t at = 0;
        assert_int_equal(getrandom(&at, sizeof at, 0), sizeof at);
        next = PORT_FIRST + at % (PORT_LAST - PORT_FIRST);
    }
    do
        next = next + 1 < PORT_LAST ? next + 1 : PORT_FIRST;
    while (!port_is_free(next));
    return next;
}

void house_write_conf(struct house *h, unsigned workers, const char *routes)
{
    FILE *f = fopen(h->conf, "w");
    assert_non_null(f);
    fprintf(f,
            "listen = {\"127.0.0.1:%u\"}\nworkers = %u\nstate_dir = \"%s/state\"\n"
            "runtime_dir = \"%s/run\"\nops { listen = \"127.0.0.1:%u\" hosts = {\"test.example\"} "
            "}\n%s",
            h->port, workers, h->dir, h->dir, h->ops_port, routes);
    fclose(f);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

/* A supervisor outlives a killed master, and is then nobody's child. Whoever listens is told. */
static void end_supervisor(const char *dir)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct ucred peer = {0};
    socklen_t len = sizeof peer;
    /* where nobody accepts any more, a connect would wait for ever */
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.85s/run/supervisor.sock", dir);
    if (!connect(fd, (struct sockaddr *)&sa, sizeof sa) &&
        !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.pid > 1)
        kill(peer.pid, SIGKILL);
    close(fd);
}

/* Daemons that run. A story that fails leaves its own behind: they end with the program, and what
 * takes room of theirs goes; configuration and log stay to be read. */
#define RUNNING_MAX 64
static struct {
    pid_t pid, owner;
    char dir[128];
} running[RUNNING_MAX];

static void end_running(void)
{
    char state[160];
    for (unsigned i = 0; i < RUNNING_MAX; i++) {
        if (!running[i].pid || running[i].owner != getpid())
            continue;
        kill(running[i].pid, SIGKILL);
        waitpid(running[i].pid, NULL, 0);
        end_supervisor(running[i].dir);
        snprintf(state, sizeof state, "%s/state", running[i].dir);
        if (!getenv("POLDER_TEST_KEEP"))
            nftw(state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
}

static void note_running(const struct house *h)
{
    static bool registered;
    if (!registered)
        atexit(end_running);
    registered = true;
    for (unsigned i = 0; i < RUNNING_MAX; i++)
        if (!running[i].pid) {
            running[i].pid = h->pid;
            running[i].owner = getpid();
            snprintf(running[i].dir, sizeof running[i].dir, "%s", h->dir);
            return;
        }
}

static void note_ended(pid_t pid)
{
    for (unsigned i = 0; i < RUNNING_MAX; i++)
        if (running[i].pid == pid)
            running[i].pid = 0;
}

static void (*prepare)(void *arg);
static void *prepare_arg;

void house_spawned_by(void (*in_child)(void *arg), void *arg)
{
    prepare = in_child;
    prepare_arg = arg;
}

void house_spawn(struct house *h)
{
    fflush(NULL);
    h->pid = fork();
    assert_true(h->pid >= 0);
    if (h->pid == 0) {
        int log = open(h->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(log, 1);
        dup2(log, 2);
        setenv("POLDER_CLOCK", h->clock, 1);
        if (prepare)
            prepare(prepare_arg);
        execl(built("polderd"), "polderd", "-c", h->conf, (char *)NULL);
        _exit(127);
    }
    note_running(h);
}

bool house_ready(struct house *h)
{
    int status;
    pid_t gone = waitpid(h->pid, &status, WNOHANG);
    if (gone == h->pid) {
        note_ended(h->pid);
        h->pid = 0;
        fail_msg("polderd ended with status %d; see %s", status, h->log);
    }
    return get(h->ops_port, "/readyz", NULL) == 200;
}

void house_advance(struct house *h, unsigned ms)
{
    int64_t offset_ms = 0;
    const int fd = open(h->clock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_true(pread(fd, &offset_ms, sizeof offset_ms, 0) >= 0);
    offset_ms += ms;
    assert_int_equal(pwrite(fd, &offset_ms, sizeof offset_ms, 0), sizeof offset_ms);
    close(fd);
}

void house_run(struct house *h)
{
    house_spawn(h);
    wait_until(house_ready(h), 10000);
}

void house_start(struct house *h, unsigned workers, const char *routes_fmt, ...)
{
    const char *tmp = getenv("TMPDIR");
    char routes[16384];
    va_list ap;
    va_start(ap, routes_fmt);
    vsnprintf(routes, sizeof routes, routes_fmt, ap);
    va_end(ap);
    memset(h, 0, sizeof *h);
    snprintf(h->dir, sizeof h->dir, "%.80s/polder-test.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(h->dir));
    chmod(h->dir, 0755); /* for a daemon that changes to another user */
    snprintf(h->conf, sizeof h->conf, "%s/polder.conf", h->dir);
    snprintf(h->log, sizeof h->log, "%s/log", h->dir);
    snprintf(h->sock, sizeof h->sock, "%s/run/admin.sock", h->dir);
    snprintf(h->clock, sizeof h->clock, "%s/clock", h->dir);
    house_advance(h, 0);
    h->port = free_port();
    h->ops_port = free_port();
    house_write_conf(h, workers, routes);
    house_run(h);
}

static int reap(struct house *h, unsigned ms)
{
    const pid_t pid = h->pid;
    uint64_t end = mono_ms() + harness_patience(ms);
    int status = 0;
    while (waitpid(h->pid, &status, WNOHANG) != h->pid) {
        if (mono_ms() > end) {
            kill(h->pid, SIGKILL);
            waitpid(h->pid, &status, 0);
            note_ended(pid);
            h->pid = 0;
            fail_msg("polderd did not stop within %u ms; see %s", ms, h->log);
        }
        nap_ms(5);
    }
    note_ended(pid);
    h->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int house_stop(struct house *h)
{
    if (!h->pid)
        return 0;
    kill(h->pid, SIGTERM);
    return reap(h, 40000);
}

static bool title_of(pid_t pid, char *title, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, title, size - 1);
    close(fd);
    title[n > 0 ? n : 0] = 0;
    return n > 0;
}

void house_kill(struct house *h)
{
    pid_t child[64];
    char title[256];
    const size_t n = house_children(h, "", child, 64);
    for (size_t i = 0; i < n; i++)
        if (title_of(child[i], title, sizeof title) && !strcmp(title, "polder-supervisor"))
            child[i] = 0;
    kill(h->pid, SIGKILL);
    waitpid(h->pid, NULL, 0);
    note_ended(h->pid);
    h->pid = 0;
    for (size_t i = 0; i < n; i++)
        wait_until(!child[i] || (kill(child[i], 0) != 0 && errno == ESRCH), 5000);
}

/* What a sanitizer has said: a process that it ends is replaced, and a story may not notice. Not of
 * fetches that are under way when a worker leaves, nor of memory that a story cuts short. */
static bool has_finding(const char *log, char *line, int size)
{
    FILE *f = fopen(log, "r");
    bool found = false;
    while (f && !found && fgets(line, size, f))
        found = strstr(line, "runtime error:") ||
                (strstr(line, "ERROR: AddressSanitizer") && !strstr(line, ": BUS on"));
    if (f)
        fclose(f);
    return found;
}

void house_remove(struct house *h)
{
    char line[512];
    if (h->pid) {
        kill(h->pid, SIGINT);
        reap(h, 20000);
    }
    end_supervisor(h->dir);
    const bool found = harness_sanitized() && h->dir[0] && has_finding(h->log, line, sizeof line);
    if (h->dir[0] && !getenv("POLDER_TEST_KEEP"))
        nftw(h->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (found)
        fail_msg("%s", line);
}

#define CHILDREN_MAX 256

static size_t children_once(pid_t parent, pid_t *pids)
{
    char path[64];
    size_t n = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *f = fopen(path, "r");
    while (f && n < CHILDREN_MAX && fscanf(f, "%d", &pids[n]) == 1)
        n++;
    if (f)
        fclose(f);
    return n;
}

/* The kernel leaves out children while another one ends (proc(5)): what was read twice alike counts. */
static size_t children_of(pid_t parent, pid_t *pids)
{
    pid_t again[CHILDREN_MAX];
    size_t n = children_once(parent, pids);
    for (unsigned i = 0; i < 50; i++) {
        const size_t m = children_once(parent, again);
        if (m == n && !memcmp(again, pids, n * sizeof *pids))
            break;
        n = m;
        memcpy(pids, again, m * sizeof *pids);
    }
    return n;
}

size_t house_children(struct house *h, const char *title, pid_t *pids, size_t max)
{
    pid_t all[CHILDREN_MAX];
    char line[256];
    size_t n = 0;
    const size_t count = children_of(h->pid, all);
    for (size_t i = 0; i < count && n < max; i++)
        if (title_of(all[i], line, sizeof line) && !strncmp(line, title, strlen(title)))
            pids[n++] = all[i];
    return n;
}

unsigned house_times_logged(const struct house *h, const char *text)
{
    char line[4096];
    unsigned n = 0;
    FILE *f = fopen(h->log, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    fclose(f);
    return n;
}

bool house_logged(struct house *h, const char *text)
{
    FILE *f = fopen(h->log, "r");
    char line[4096];
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = strstr(line, text) != NULL;
    if (f)
        fclose(f);
    return found;
}

long resident_kib(pid_t pid)
{
    char path[64], line[256];
    long sum = 0, kib;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %ld", &kib) == 1 || sscanf(line, "RssFile: %ld", &kib) == 1)
            sum += kib;
    if (f)
        fclose(f);
    return sum;
}

int ctl(struct house *h, const char **out, const char *fmt, ...)
{
    static char text[1 << 20];
    char command[4096];
    int n = snprintf(command, sizeof command, "%s -s %s ", built("polderctl"), h->sock);
    va_list ap;
    va_start(ap, fmt);
    n += vsnprintf(command + n, sizeof command - (size_t)n, fmt, ap);
    va_end(ap);
    snprintf(command + n, sizeof command - (size_t)n, " 2>&1");
    FILE *p = popen(command, "re");
    assert_non_null(p);
    size_t len = fread(text, 1, sizeof text - 1, p);
    text[len] = 0;
    int status = pclose(p);
    if (out)
        *out = text;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* ---- other programs ---- */

pid_t peer_start(const char *program, const char *script, unsigned port)
{
    char text[16];
    snprintf(text, sizeof text, "%u", port);
    const pid_t pid = fork();
    if (pid == 0) {
        execl(program, program, script ? script : text, script ? text : NULL, (char *)NULL);
        _exit(127);
    }
    int fd = -1;
    wait_until((fd = client_connect(port)) >= 0, 10000);
    close(fd);
    return pid;
}

void peer_stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int house_admin_connect(const struct house *h)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.107s", h->sock);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}
