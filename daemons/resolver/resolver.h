/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * resolver: the process that resolves the names of servers again when their records expire. Private
 * to daemons/resolver.
 *
 *   main.c   the loop: what is due, and what was answered
 *   files.c  have the files of the system that say how to resolve changed?
 *
 * The master runs it where a server is given by name. It writes the addresses into the table of
 * servers (polder/server_names.h), and when the next lookup is due too, so a successor goes on
 * where it was; nothing waits for it. It takes nothing from the network but answers of name
 * servers, which c-ares reads.
 */
#ifndef POLDER_RESOLVER_H
#define POLDER_RESOLVER_H
#include <stdbool.h>
#include <sys/stat.h>

#define RESOLVER_FILES 4
struct resolver_files {
    struct stat seen[RESOLVER_FILES];
};
/* Looks at them; true: one is another than at the last look. */
bool files_changed(struct resolver_files *files);
#endif
