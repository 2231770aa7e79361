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
#define CUSTODIAN_STORE "websockets" /* what the service manager keeps over a restart */
#define CUSTODIAN_LINKS 256

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
    NOTE_CUSTODIAN,  /* the other way: number: enum custodian_says; text: its version, or why */
    NOTE_PACK,       /* the other way: what would it leave to another process? */
    NOTE_PACKED,     /* a descriptor: of that block; without one: text: why there is none */
    NOTE_HAND_OVER,  /* the other way; a descriptor: where to put all of it */
    NOTE_HANDED_OVER /* number: 0: all is there, and it ends; else text: why not */
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
    int listening[2];   /* sockets of runtime_dir; -1 */
    bool passed;        /* the first one is systemd's */
    int channel;        /* to the other process */
    uint32_t deaths;    /* of working processes, so far */
    uint64_t died_ms;   /* the last one */
    char death[96];     /* how, in words */
    bool give_up;       /* nothing can be taken up: what there is, is closed */
    bool draining;      /* is to stop */
    bool stop_notified; /* the working process of now has heard, or will */
    int signals;        /* the mask of this process, as a descriptor */
    pid_t pid;
    bool forked;   /* this is a working process that it has made */
    bool filtered; /* a filter of system calls applies to us */
    struct {
        pid_t pid; /* of the proof; 0: none */
        int pipe;  /* what it says */
        bool again;
        char why[200]; /* it has failed, which no process could be told; "" */
    } renewal;         /* another program in place of the custodian's (renew.c) */
    struct {
        enum { RESTART_NONE, RESTART_PACKING, RESTART_PROVING, RESTART_HANDING } state;
        bool failed, done; /* it is not tried again; all is handed over */
        int box;           /* what a process before us has left; -1: nothing */
        pid_t pid;         /* of the proof; 0: none */
        int pipe;
        uint64_t until_ms;
    } restart;             /* another process in place of all of us (restart.c) */
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
struct custodian *custodian_new(void);
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
/* To a new child: what the one before it was not told. */
void custodian_renew_tell(struct custodian *c);
/* In the child of the proof: 0, or -EPROTO and why. */
int custodian_check(int block, const char *runtime_dir, char *why, size_t size);
/* In that program: all that the one before it has left. NULL: why. */
struct custodian *custodian_take_over(int block, char *why, size_t size);
/* restart.c: it is to stop, and the process of the WebSockets is ready: it is told, or what it has is
 * left to another process. */
void custodian_stop(struct custodian *c, int signal_number);
void custodian_packed(struct custodian *c, int block, const char *why); /* takes block */
void custodian_handed_over(struct custodian *c, uint32_t failed, const char *why);
/* A child has ended: was it the proof? */
void custodian_restart_look(struct custodian *c);
void custodian_restart_due(struct custodian *c, uint64_t now_ms);
/* The process of the WebSockets has died. */
void custodian_restart_died(struct custodian *c);
/* What a process before us has left is there no longer. */
void custodian_restart_over(struct custodian *c);

/* One that holds nothing; there is one in a process. */
struct custodian *custodian_init(void);
void custodian_let_next(struct custodian *c);
/* False: no memory, or it keeps others for that slot. */
bool custodian_keep(struct custodian *c, uint32_t slot, const struct kept *kept);

/* fd: -1: none. False: it was not taken, and is not kept. */
bool note_send(int channel, const struct note *note, size_t len, int fd);
/* 1: one has come; 0: none now; -1: the other one is gone. *fd: -1: none came with it. */
int note_receive(int channel, struct note *note, int *fd);
#endif
