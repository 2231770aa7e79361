/* SPDX-License-Identifier: BSD-2-Clause */
/* bash completes command lines of polderctl as it would for a user: with its own complete function. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", "here");
}

/* What bash offers for the last word of the line, between spaces; "" where it offers nothing. */
static const char *offered(const char *line)
{
    static char out[8192];
    char command[2048], bin[512];
    size_t n;
    snprintf(bin, sizeof bin, "%s", built("polderctl"));
    *strrchr(bin, '/') = 0;
    snprintf(command, sizeof command,
             "PATH=%s:$PATH bash --norc -c 'eval \"$(polderctl --completion bash)\"; "
             "COMP_WORDS=(%s); [[ \"%s\" != *\" \" ]] || COMP_WORDS+=(\"\"); "
             "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _polderctl; echo \" ${COMPREPLY[*]} \"' 2>&1",
             bin, line, line);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    assert_int_equal(pclose(f), 0);
    out[strcspn(out, "\n")] = 0;
    return out;
}

static void offers(const char *line, const char *word)
{
    char padded[128];
    snprintf(padded, sizeof padded, " %s ", word);
    if (!strstr(offered(line), padded))
        fail_msg("\"%s\" does not offer \"%s\" but \"%s\"", line, word, offered(line));
}

static void offers_not(const char *line, const char *word)
{
    char padded[128];
    snprintf(padded, sizeof padded, " %s ", word);
    if (strstr(offered(line), padded))
        fail_msg("\"%s\" offers \"%s\"", line, word);
}

static void commands_options_and_keys_are_completed(void **state)
{
    (void)state;
    assert_string_equal(offered("polderctl cac"), " cache ");
    offers("polderctl ", "limit");
    offers("polderctl ", "watch");
    offers("polderctl --json ", "top");
    offers("polderctl -s /x/y --timeout 3s ", "status");
    assert_string_equal(offered("polderctl -s "), "  "); /* a file: bash's own */
    assert_string_equal(offered("polderctl cache inv"), " invalidate ");
    offers("polderctl cache ", "why");
    offers_not("polderctl cache ", "show-all");
    offers_not("polderctl cache ", "broadcast");
    offers("polderctl cache invalidate --", "--tag");
    offers("polderctl cache invalidate --", "--soft");
    offers_not("polderctl cache invalidate --", "--persist");
    offers("polderctl cache set ", "max_bytes=");
    offers_not("polderctl cache set ", "store_set_cookie="); /* a reload changes it */
    offers("polderctl ws set ", "max_connections=");
    offers("polderctl watch ", "conditions");
    offers("polderctl log level d", "debug");
}

static void names_are_asked_of_the_daemon(void **state)
{
    struct house h;
    char line[400];
    (void)state;
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"tenants\" { requests = 2 window = 1m key = \"global\" }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"tenants\"} }\n",
                backend_port(backend));
    snprintf(line, sizeof line, "polderctl -s %s limit set te", h.sock);
    assert_string_equal(offered(line), " tenants ");
    snprintf(line, sizeof line, "polderctl -s %s limit set tenants ", h.sock);
    offers(line, "requests=");
    snprintf(line, sizeof line, "polderctl -s %s history hitR", h.sock);
    assert_string_equal(offered(line), " hitRate ");
    house_remove(&h);
}

/* What the daemon calls things is text for the shell, not commands. */
static void names_are_not_run(void **state)
{
    static const char made[] = "polder-completion-ran";
    struct house h;
    char line[400];
    (void)state;
    unlink(made);
    house_start(&h, 1,
                "upstream \"u\" { server \"unix:/nowhere/$(>%s)*\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                made);
    snprintf(line, sizeof line, "polderctl -s %s history server", h.sock);
    wait_until(strstr(offered(line), "\\$\\(\\>polder-completion-ran\\)\\*") != NULL, 15000);
    assert_int_not_equal(access(made, F_OK), 0);
    house_remove(&h);
}

/* Where there is a zsh, it can at least read its script. */
static void both_scripts_are_read_without_complaint(void **state)
{
    char command[1024];
    (void)state;
    snprintf(command, sizeof command, "%s --completion bash | bash -n", built("polderctl"));
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "! command -v zsh >/dev/null || %s --completion zsh | zsh -n",
             built("polderctl"));
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s --completion fish 2>/dev/null", built("polderctl"));
    assert_int_equal(WEXITSTATUS(system(command)), 2);
}

/* zsh's own compadd is there only while a line is edited. */
static void zsh_sets_no_space_before_a_value(void **state)
{
    char command[1024], out[1024];
    (void)state;
    if (system("command -v zsh >/dev/null"))
        return;
    snprintf(command, sizeof command,
             "zsh -f -c 'compadd() { print -r -- \"$@\" }; words=(polderctl cache set \"\"); "
             "CURRENT=4; source <(%s --completion zsh)' 2>&1",
             built("polderctl"));
    FILE *f = popen(command, "r");
    assert_non_null(f);
    out[fread(out, 1, sizeof out - 1, f)] = 0;
    assert_int_equal(pclose(f), 0);
    assert_string_equal(out, "-S  -- ttl= ttl_negative= max_items= max_bytes= max_body= "
                             "stale_while_revalidate= stale_if_error=\n"
                             "-- --persist --json --help\n");
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(commands_options_and_keys_are_completed),
        cmocka_unit_test(names_are_asked_of_the_daemon),
        cmocka_unit_test(names_are_not_run),
        cmocka_unit_test(both_scripts_are_read_without_complaint),
        cmocka_unit_test(zsh_sets_no_space_before_a_value),
    };
    return run_with_backend(stories, &backend, answers);
}
