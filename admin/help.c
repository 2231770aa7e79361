/* SPDX-License-Identifier: BSD-2-Clause */
/* help: written from the table of methods. */
#include "admin/polderctl.h"

#include <string.h>

static void usage_line(FILE *to, enum rpc_method method, int width)
{
    char name[64], line[256];
    command_name(method, name, sizeof name);
    snprintf(line, sizeof line, "%s%s%s", name, *rpc_methods[method].args ? " " : "",
             rpc_methods[method].args);
    fprintf(to, "  %-*s", width, line);
}

static void commands(FILE *to, const char *noun)
{
    for (int i = 0; i < RPC_METHODS; i++) {
        if (noun && strcmp(rpc_methods[i].noun, noun))
            continue;
        usage_line(to, (enum rpc_method)i, 0);
        fprintf(to, "\n      %s\n", rpc_methods[i].help);
    }
}

void help_all(FILE *to)
{
    fputs("usage: polderctl [-s SOCKET] [--timeout T] [--json] COMMAND\n\n"
          "  -s, --socket PATH  the admin socket; default $POLDER_SOCKET, then "
          "/run/polder/admin.sock\n"
          "  -t, --timeout T    how long to wait for an answer; default 10s\n"
          "  --json             one JSON document instead of tables\n"
          "  -h, --help         this; after a command: about it\n"
          "  -V, --version\n"
          "  --completion SHELL bash or zsh: the script by which it completes these commands;\n"
          "                     make install puts both in place\n\ncommands:\n",
          to);
    commands(to, NULL);
    fputs("\nexit status: 0 done, 1 it failed, 2 the command line is wrong, 3 no daemon answers\n",
          to);
}

void help_noun(FILE *to, const char *noun)
{
    fputs("usage: polderctl COMMAND\n\ncommands:\n", to);
    commands(to, noun);
}

static const char *example(enum rpc_method method)
{
    switch (method) {
    case RPC_METHOD_CACHE_INVALIDATE:
        return "  polderctl cache invalidate http://api.example/items/1\n"
               "  polderctl cache invalidate /items/1           # on every host\n"
               "  polderctl cache invalidate --prefix /items/\n"
               "  polderctl cache invalidate --tag item-1 --soft\n";
    case RPC_METHOD_CACHE_SET:
        return "  polderctl cache set ttl=10m max_bytes=512M\n";
    case RPC_METHOD_LIMIT_SET:
        return "  polderctl limit set status requests=40 window=60s\n"
               "  polderctl limit set status dry_run=true --persist\n"
               "  polderctl limit set status exempt=10.0.0.0/8,partner-key\n";
    case RPC_METHOD_LIMIT_TRY:
        return "  polderctl limit try status requests=10 --for 5m   # waits, then reports\n"
               "  polderctl limit try status                        # how it is going, or went\n";
    case RPC_METHOD_LIMIT_RESET:
        return "  polderctl limit reset status 192.0.2.7\n";
    case RPC_METHOD_WS_SET:
        return "  polderctl ws set max_connections=100 interval=15s\n";
    case RPC_METHOD_VERIFY:
        return "  polderctl verify\n"
               "  polderctl verify http://10.0.0.7:8000 --only caching,polling\n"
               "  polderctl --json verify --threshold 100\n";
    case RPC_METHOD_UPSTREAM_WEIGHT:
        return "  polderctl upstream weight api 127.0.0.1:8002 100\n";
    case RPC_METHOD_UPSTREAM_SHIFT:
        return "  polderctl upstream shift api 127.0.0.1:8002 10 --guard\n"
               "  polderctl upstream shift api 127.0.0.1:8002 --auto --smoke /health --hold 10m\n"
               "  polderctl upstream shift api 127.0.0.1:8002 0    # all of it back\n";
    default:
        return NULL;
    }
}

void help_method(FILE *to, enum rpc_method method)
{
    fputs("usage: polderctl", to);
    char name[64];
    fprintf(to, " %s%s%s\n\n%s.\n", command_name(method, name, sizeof name),
            *rpc_methods[method].args ? " " : "", rpc_methods[method].args,
            rpc_methods[method].help);
    if (example(method))
        fprintf(to, "\n%s", example(method));
}
