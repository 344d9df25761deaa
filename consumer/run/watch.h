// The second observer: system calls that code of the job makes by itself, where the preloaded observer cannot stand in between.
//
// A filter before the job's own (consumer/run/filter.h) makes each call that asks for something wait until kiln-run has seen it.
// Calls from the toolchain's objects go on: what they are for the preloaded observer knows. All others, from a macro's own code, a
// static program or memory that is no file, are recorded in the form of consumer/preload/observe.h, in a log that the job cannot
// reach. Evidence of what honest code asks for, and no wall: a path lies in memory that another thread may change before the
// kernel reads it. What is refused stays refused, by the kernel or, where nobody could see it then, by this.
//
// Order: prepare (before the host's /proc is hidden); in the child begin and send; receive; serve whenever `listener` is readable;
// write. One thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

// The first word of an error when this host cannot watch a job.
#define KILN_WATCH_UNAVAILABLE "observer_unavailable"

struct kiln_watch {
    int listener;   // -1 until received
    int proc;       // the host's /proc
    int root;       // borrowed: the job's root directory
    char *observer; // the observer's directory in the sandbox
    char *sysroot;
    bool started;   // the job's program has been executed; before that all calls are bwrap's
    struct kiln_buf log; // entries only
    struct kiln_watch_range {
        uint32_t thread;
        bool tool;
        uint64_t start, end;
    } *ranges;      // code seen before
    size_t ranges_next;
    uint64_t *seen; // hashes of what has been recorded
    void *request, *answer;
};

#define KILN_WATCH_INIT ((struct kiln_watch){.listener = -1, .proc = -1, .root = -1})

int kiln_watch_prepare(struct kiln_watch *watch, const char *observer_dir, struct kiln_err *err);
// In the process that becomes the job. KILN_E_UNSUPPORTED: this host cannot.
int kiln_watch_begin(int *listener, struct kiln_err *err);
// One byte, and the listener unless it is -1.
int kiln_watch_send(int socket, int listener, struct kiln_err *err);
// What the other side sent: its bytes, and a listener in *listener if one came. The number of bytes, or -1.
long kiln_watch_receive(int socket, void *bytes, size_t room, int *listener);
// Answers the calls that wait, at most so many that the caller can look after other things.
void kiln_watch_serve(struct kiln_watch *watch);
// The whole log, to an empty file.
int kiln_watch_write(const struct kiln_watch *watch, int fd, struct kiln_err *err);
void kiln_watch_release(struct kiln_watch *watch);
