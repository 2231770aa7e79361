/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * custodian: the process that holds what the working process of polder-supervisor works on: a
 * duplicate of each descriptor, and the shared memory. It parses nothing, reads no byte of a client
 * and is the one that others know as polder-supervisor: signals go to it, it shows the heartbeat
 * and talks to the service manager. The working process is its child. When that one dies, or hangs
 * and is aborted, the custodian forks another, which takes up what there is (recover.c). With the
 * custodian itself all goes.
 *
 * Signals are forwarded as messages: those that come to a whole group of processes at once, as a
 * service manager and a terminal send them, would come twice.
 */
#ifndef POLDER_SUPERVISOR_CUSTODIAN_H
#define POLDER_SUPERVISOR_CUSTODIAN_H
#include "daemons/supervisor/survive/segment.h"

#define CUSTODIAN_CHILD "polder-supervisor: WebSockets" /* its title */
#define CUSTODIAN_LINKS 256
#define CUSTODIAN_SLOTS (1u << 20) /* WebSockets that can be taken up, at most */

/* What the working process says, each in one message, with descriptors where that makes sense. */
enum note_kind {
    NOTE_KEEP_CLIENT = 1, /* number: of a slot; a descriptor */
    NOTE_KEEP_BACKEND,
    NOTE_LET_CLIENT,
    NOTE_LET_BACKEND,
    NOTE_LET,       /* the slot is GONE */
    NOTE_KEEP_LINK, /* number: of a link to polderd */
    NOTE_LET_LINK,
    NOTE_SERVERS, /* a descriptor: of the table of servers */
    NOTE_SEGMENT, /* number: its layout; a descriptor: another segment, which counts from READY on.
                     What is kept from here on belongs to it */
    NOTE_READY,
    NOTE_READ_AGAIN, /* the configuration was read again, and is in use */
    NOTE_SAY,        /* text: for the service manager */
    NOTE_SIGNAL,     /* the other way: number */
    NOTE_CUSTODIAN   /* the other way: number: enum custodian_says; text: its version, or why */
};
enum custodian_says { CUSTODIAN_IS, CUSTODIAN_STAYS, CUSTODIAN_TRIES };
struct note {
    uint32_t kind, number;
    char text[200];
};

struct kept {
    int fd[2]; /* client, backend; -1 */
};
struct custodian {
    struct segment *segment;
    int segment_fd;    /* its descriptor, for another program */
    struct kept *kept; /* by slot; n_kept of them */
    uint32_t n_kept;
    /* Of a program that replaces the working one in place, until it is ready. */
    struct segment *next_segment;
    int next_fd;
    struct kept *next_kept;
    uint32_t n_next_kept;
    bool replaced; /* by one that is not ready yet */
    bool
        blind; /* by one of which nothing is known: all goes with it, unless we are replaced, too */
    int link[CUSTODIAN_LINKS];
    int servers;
    int listening[2]; /* sockets of runtime_dir; -1 */
    bool passed;      /* the first one is systemd's */
    int channel;      /* to the other process */
    uint32_t deaths;  /* of working processes, so far */
    uint64_t died_ms; /* the last one */
    char death[96];   /* how, in words */
    bool give_up;     /* nothing can be taken up: what there is, is closed */
    bool draining;    /* is to stop */
    int signals;      /* the mask of this process, as a descriptor */
    pid_t pid;
    bool forked;   /* this is a working process that it has made */
    bool filtered; /* a filter of system calls applies to us */
    struct {
        pid_t pid; /* of the proof; 0: none */
        int pipe;  /* what it says */
        bool again;
    } renewal;             /* another program in place of the custodian's (renew.c) */
    uint32_t upgrades;     /* of working processes */
    bool ready;            /* the working process of now */
    bool was_ready;        /* one ever was */
    uint32_t failures;     /* deaths in a row before it was ready */
    uint32_t own_failures; /* but for kills */
    uint64_t killed_ms, heartbeat_seen_ms;
    uint64_t heartbeat_shown;
    int heartbeat; /* the file */
    bool watchdog; /* the service manager wants to hear, too */
    bool reread;
    void (*read_again)(void *arg);
    void *arg;
};

/* NULL: this process goes on alone; it is logged why. */
struct custodian *custodian_new(uint32_t n_slots);
/* In a program that has replaced the working one: is there a custodian at the other end? */
bool custodian_is_there(int channel);
/* Offers it another segment. NULL: there is none, or no memory. */
struct custodian *custodian_adopt(int channel);
/* Returns twice and more often: -1 in each working process, with its end of the channel; the exit
 * code in the custodian. */
int custodian_run(struct custodian *c, const char *runtime_dir);

/* renew.c: the program of the custodian itself is replaced by the one that its child has now. */
void custodian_renew(struct custodian *c, const char *runtime_dir);
/* A child has ended: was it the proof? Returns, or another program goes on in our place. */
void custodian_renew_look(struct custodian *c, const char *runtime_dir);
/* In the child of the proof: 0, or -EPROTO and why. */
int custodian_check(int block, const char *runtime_dir, char *why, size_t size);
/* In that program: all that the one before it has left. NULL: why. */
struct custodian *custodian_take_over(int block, char *why, size_t size);
/* One that holds nothing; there is one in a process. */
struct custodian *custodian_init(void);
void custodian_let_next(struct custodian *c);
/* False: no memory. */
bool custodian_keep(struct custodian *c, uint32_t slot, const struct kept *kept);

/* fd: -1: none. False: it was not taken, and is not kept. */
bool note_send(int channel, const struct note *note, size_t len, int fd);
/* 1: one has come; 0: none now; -1: the other one is gone. *fd: -1: none came with it. */
int note_receive(int channel, struct note *note, int *fd);
#endif
