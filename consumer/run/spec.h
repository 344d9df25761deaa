// What kiln-run is told and what it tells back. Links lib/base only.
//
// bwrap adds one variable of its own to the job's environment: PWD, the value of `cwd`.
// The starter passes: descriptor 3, a socket (SOCK_SEQPACKET); descriptor 4, a memfd with the encoded spec; and one
// descriptor per bind and for what is watched, at the numbers the spec names. kiln-run answers on the socket with two messages:
//   1. KILN_RUN_READY + 4 descriptors: out directory, observer directory, stdout memfd, stderr memfd; sent when all walls
//      stand, before the job starts;  or KILN_RUN_REFUSED + text: a wall could not be set up, nothing was run.
//   2. KILN_RUN_DONE + struct kiln_run_report: every process of the job is gone.
// When the starter dies, the job dies (PR_SET_PDEATHSIG, --die-with-parent). kiln-run leaves nothing on the host: all its
// mounts are in its own mount namespace; its cgroup, where it makes one, is removed.
// Encoding: "kiln-run-2\0", then fields and integers in the order below (lib/base/buf.h forms).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define KILN_RUN_SOCKET_FD 3
#define KILN_RUN_SPEC_FD 4
#define KILN_RUN_SPEC_MAX (8u << 20)

struct kiln_run_bind {
    uint32_t fd;   // of a directory or a regular file, in kiln-run
    char *dest;    // canonical absolute path in the sandbox; mounted read-only, nosuid, nodev
    bool file;     // a regular file is bound, not a directory
};

struct kiln_run_link {
    char *path, *target; // a symlink made in the sandbox's root before anything runs: "/lib64" -> "usr/lib64"
};

struct kiln_run_file {
    char *path;          // a small read-only file made in the sandbox: "/etc/ld.so.preload"
    unsigned char *data;
    size_t len;
};

struct kiln_run_spec {
    struct kiln_run_bind *binds; // parents before children
    size_t binds_count;
    struct kiln_run_link *links;
    size_t links_count;
    struct kiln_run_file *files;
    size_t files_count;
    char **argv;
    size_t argc;
    char **env; // NAME=VALUE; the job's whole environment
    size_t env_count;
    char *cwd;          // must exist through binds; else made
    char *out_dir;      // writable, a tmpfs of its own
    char *observer_dir; // writable, a tmpfs of its own: seed and log
    char *tmp_dir;      // writable scratch
    uint64_t out_bytes, tmp_bytes, observer_bytes, inodes; // of the tmpfs
    uint64_t wall_ms, memory_bytes, file_bytes, text_bytes; // text: stdout and stderr each
    uint32_t processes;
    uint8_t seed[32];   // written to OBSERVER_DIR/seed and as /dev/urandom content
    uint32_t watch_fd;  // of an empty file: the job is watched (consumer/run/watch.h), and what was seen is written there; 0: not
};

enum kiln_run_message { KILN_RUN_READY = 1, KILN_RUN_REFUSED = 2, KILN_RUN_DONE = 3 };

enum kiln_run_end {
    KILN_END_EXIT = 1,     // value = exit code
    KILN_END_SIGNAL = 2,   // value = signal
    KILN_END_WALL = 3,     // the wall-clock limit
    KILN_END_MEMORY = 4,
    KILN_END_TEXT = 5,     // stdout or stderr cap
    KILN_END_BROKEN = 6,   // bwrap itself failed; text says how
    KILN_END_SPACE = 7,    // a file too large; or it failed, and a directory it may write to is full: of bytes or of names
};

struct kiln_run_report {
    uint32_t end;   // enum kiln_run_end
    uint32_t value;
    uint64_t wall_ms, peak_bytes; // peak 0 when not known
    uint64_t cpu_ms;              // at least: what the kernel had added up when the job's init was killed
    char *text;     // for people; "" when nothing to say
};

int kiln_run_spec_encode(const struct kiln_run_spec *spec, struct kiln_buf *out, struct kiln_err *err);
int kiln_run_spec_decode(const void *data, size_t len, struct kiln_run_spec *spec, struct kiln_err *err);
void kiln_run_spec_release(struct kiln_run_spec *spec);
int kiln_run_report_encode(const struct kiln_run_report *report, struct kiln_buf *out, struct kiln_err *err);
int kiln_run_report_decode(const void *data, size_t len, struct kiln_run_report *report, struct kiln_err *err);
void kiln_run_report_release(struct kiln_run_report *report);
