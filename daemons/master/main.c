/* SPDX-License-Identifier: BSD-2-Clause */
/* polderd: the command line. */
#include "daemons/master/master.h"
#include "daemons/master/upgrade.h"
#include "polder/clock.h"
#include "polder/server_names.h"
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_CONFIG "/etc/polder/polder.conf"
#define EXIT_USAGE     2

static const char usage[] =
    "usage: polderd [-c FILE] [-t] [-V] [-h]\n"
    "  -c, --config FILE  configuration (default " DEFAULT_CONFIG ")\n"
    "  -t, --test         check it and what it needs of this machine, and exit\n"
    "  -V, --version      print the version\n"
    "  -h, --help         print this\n"
    "Exit status: 0 done, 1 failed, 2 command line or configuration wrong.\n"
    "Signals: TERM drains and stops, INT stops within a second, HUP reads the file again,\n"
    "USR1 opens the logs again, USR2 upgrades to the program that lies on disk now.\n";

static void error_print(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "%s\n", line);
}

static int config_test(const char *path)
{
    struct config_arena arena;
    void *memory =
        mmap(NULL, SHARED_REGION_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "polderd: no memory to read %s\n", path);
        return 1;
    }
    config_arena_init(&arena, memory, SHARED_REGION_SIZE);
    const struct config *config = config_load(&arena, path, error_print, NULL);
    for (uint32_t i = 0; config && i < config->n_warnings; i++)
        error_print(NULL, config->warnings[i]);
    const bool good = config && check_machine(config) == 0;
    if (config)
        server_names_check(config, error_print, NULL);
    munmap(memory, SHARED_REGION_SIZE);
    if (good)
        printf("%s: ok\n", path);
    return good ? 0 : EXIT_USAGE;
}

/* A descriptor that another polderd hands over; -1: it is none. */
static int descriptor_of(const char *text)
{
    char *end;
    const long fd = strtol(text, &end, 10);
    return *text && !*end && fd >= 0 && fd < INT_MAX && fcntl((int)fd, F_GETFD) >= 0 ? (int)fd : -1;
}

/* The hidden options of upgrades are not for people. */
static int no_descriptor(const char *text)
{
    fprintf(stderr, "polderd: \"%s\" is no open descriptor; polderctl upgrade does this\n", text);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    static char program[4096];
    const char *config_path = DEFAULT_CONFIG;
    bool test = false;
    int option, block = -1, answer = -1;
    /* a file that may not grow is an EFBIG, as a full disk is an ENOSPC */
    signal(SIGXFSZ, SIG_IGN);
    clock_open();
    program_path(argc > 0 ? argv[0] : NULL, program, sizeof program);
    process_title_init(argc, argv);
    static const struct option full[] = {{"config", required_argument, NULL, 'c'},
                                         {"test", no_argument, NULL, 't'},
                                         {"version", no_argument, NULL, 'V'},
                                         {"help", no_argument, NULL, 'h'},
                                         {"take-over", required_argument, NULL, 'B'},
                                         {"prove", required_argument, NULL, 'P'},
                                         {NULL, 0, NULL, 0}};
    while ((option = getopt_long(argc, argv, "c:tVh", full, NULL)) != -1) {
        switch (option) {
        case 'c':
            config_path = optarg;
            break;
        case 't':
            test = true;
            break;
        case 'V':
            puts("polderd " POLDER_VERSION);
            return 0;
        case 'B':
            if ((block = descriptor_of(optarg)) < 0)
                return no_descriptor(optarg);
            break;
        case 'P':
            if ((answer = descriptor_of(optarg)) < 0)
                return no_descriptor(optarg);
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "polderd: \"%s\" is one argument too many\n%s", argv[optind], usage);
        return EXIT_USAGE;
    }
    if (test)
        return config_test(config_path);
    if (answer >= 0)
        return take_over_prove(config_path, block, answer);
    static char path[4096]; /* argv becomes the process title */
    snprintf(path, sizeof path, "%s", config_path);
    return master_run(program, path, block);
}
