/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check: what polderd -t can know beyond the file: the users and groups of this machine, whether
 * the user may write what it will have to, ports that others have, and what a polderd that runs
 * really listens on. Nothing is made or changed.
 */
#include "daemons/master/master.h"
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct check {
    const struct config *config;
    unsigned errors;
};

/* line 0: what is meant stands nowhere in the file. */
static void __attribute__((format(printf, 4, 5)))
say(struct check *c, int line, bool error, const char *fmt, ...)
{
    va_list ap;
    fputs(c->config->path, stderr);
    if (line)
        fprintf(stderr, ":%d", line);
    fputs(error ? ": " : ": warning: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    c->errors += error;
}

/* ---- users ---- */

static void check_names(struct check *c)
{
    const struct config *config = c->config;
    if (config->user[0] && !getpwnam(config->user))
        say(c, config->line.user, geteuid() == 0, "user: there is no user \"%s\" on this machine",
            config->user);
    if (config->admin_group[0] && !getgrnam(config->admin_group))
        say(c, config->line.admin_group, false,
            "admin.group: there is no group \"%s\" on this machine: only root and the service's "
            "user have access",
            config->admin_group);
}

/* As the user that the service will run as; the code of access(). Of another user nothing is known
 * but to root. */
static int access_as(const char *user, const char *path, int mode)
{
    const struct passwd *own = geteuid() != 0 && user[0] ? getpwnam(user) : NULL;
    if (own && own->pw_uid != geteuid())
        return 0;
    const struct passwd *pw = geteuid() == 0 && user[0] ? getpwnam(user) : NULL;
    if (!pw)
        return access(path, mode) < 0 ? errno : 0;
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0) {
        if (initgroups(pw->pw_name, pw->pw_gid) < 0 || setgid(pw->pw_gid) < 0 ||
            setuid(pw->pw_uid) < 0)
            _exit(0);
        _exit(access(path, mode) < 0 ? errno : 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return 0;
    return WEXITSTATUS(status);
}

static void check_log(struct check *c)
{
    const struct config *config = c->config;
    char directory[PATH_MAX];
    if (!config->access_log_path[0])
        return;
    int code = access_as(config->user, config->access_log_path, W_OK);
    if (code == ENOENT) {
        snprintf(directory, sizeof directory, "%s", config->access_log_path);
        char *slash = strrchr(directory, '/');
        if (slash)
            slash[slash == directory] = 0;
        code = access_as(config->user, slash ? directory : ".", W_OK | X_OK);
    }
    if (code)
        say(c, config->line.access_log, true, "access_log: user %s cannot write %s: %s",
            config->user[0] ? config->user : "this one", config->access_log_path, strerror(code));
}

/* One that is not there yet is made at the start, as root if started by root. */
static void check_directory(struct check *c, int line, const char *key, const char *path)
{
    const int code = access_as(c->config->user, path, W_OK | X_OK);
    if (code && code != ENOENT)
        say(c, line, code != EROFS, "%s: user %s cannot write %s: %s", key,
            c->config->user[0] ? c->config->user : "this one", path, strerror(code));
}

/* ---- addresses ---- */

static bool somebody_answers(const char *runtime_dir)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (snprintf(un.sun_path, sizeof un.sun_path, "%s/admin.sock", runtime_dir) >=
        (int)sizeof un.sun_path)
        return false;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const bool answers = fd >= 0 && (connect(fd, (const struct sockaddr *)&un, sizeof un) == 0 ||
                                     errno == EAGAIN || errno == EACCES);
    if (fd >= 0)
        close(fd);
    return answers;
}

/* What the polderd of this runtime_dir listens on, one a line; false: none runs. */
static bool running_listeners(const struct config *config, bool *systemd, char *out, size_t size)
{
    char path[PATH_MAX], line[256];
    snprintf(path, sizeof path, "%.4000s/listeners", config->runtime_dir);
    FILE *f = somebody_answers(config->runtime_dir) ? fopen(path, "re") : NULL;
    *out = 0;
    if (!f)
        return false;
    *systemd = fgets(line, sizeof line, f) && !strcmp(line, "systemd\n");
    const size_t n = fread(out, 1, size - 1, f);
    out[n] = 0;
    fclose(f);
    return true;
}

static bool is_among(const char *lines, const char *text)
{
    const size_t len = strlen(text);
    for (const char *at = lines; (at = strstr(at, text)); at += len)
        if ((at == lines || at[-1] == '\n') && (at[len] == '\n' || !at[len]))
            return true;
    return false;
}

static void check_port(struct check *c, int line, const char *key, const struct config_address *a)
{
    const int on = 1;
    if (a->sa.ss_family == AF_UNIX)
        return;
    const int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->sa.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&a->sa, a->len) < 0 && errno != EACCES &&
        !(a->may_lack && errno == EADDRNOTAVAIL))
        say(c, line, false, "%s: %s cannot be bound now: %s", key, a->text, strerror(errno));
    close(fd);
}

static void one_line(char *lines)
{
    size_t n = strlen(lines);
    while (n && lines[n - 1] == '\n')
        lines[--n] = 0;
    for (char *at = lines; (at = strchr(at, '\n'));)
        *at = ' ';
}

static void check_addresses(struct check *c)
{
    const struct config *config = c->config;
    char lines[2048];
    bool systemd = false;
    const bool runs = running_listeners(config, &systemd, lines, sizeof lines);
    for (uint32_t i = 0; i < config->n_listen && !systemd; i++)
        if (!is_among(lines, config->listen[i].text))
            check_port(c, config->line.listen, "listen", &config->listen[i]);
    if (config->ops_listen.len && !runs) /* one that runs has it, or tells of it */
        check_port(c, config->line.ops_listen, "ops.listen", &config->ops_listen);
    if (!systemd)
        return;
    one_line(lines);
    say(c, config->line.listen, false,
        "listen is not used: systemd passes the sockets, and polderd listens on %s; "
        "ListenStream= of the socket unit decides",
        lines);
}

int check_machine(const struct config *config)
{
    struct check c = {.config = config};
    check_names(&c);
    check_log(&c);
    check_directory(&c, config->line.state_dir, "state_dir", config->state_dir);
    check_directory(&c, config->line.runtime_dir, "runtime_dir", config->runtime_dir);
    check_addresses(&c);
    return c.errors ? -1 : 0;
}
