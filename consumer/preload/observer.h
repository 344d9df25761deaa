// Inside the preloaded object: how an interposed function finds the real one, says what it saw, and draws random bytes.
//
// An interposed function calls the real one, then kiln_note_*() with its own return address and the real function's
// outcome. Notes keep errno, allocate nothing, take no lock and never call an interposed function, so they may run in a
// constructor, in a signal handler and in the child of a vfork. What a tool does that cannot matter is dropped before
// it costs anything: see observe.c.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "consumer/preload/observe.h"

#define OBSERVED __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)

// The function that this object's `name` stands in front of.
#define REAL(name)                                                                                                     \
    ({                                                                                                                 \
        static void *found_;                                                                                           \
        void *real_ = __atomic_load_n(&found_, __ATOMIC_RELAXED);                                                      \
        if (!real_) {                                                                                                  \
            real_ = kiln_real_find(#name);                                                                             \
            __atomic_store_n(&found_, real_, __ATOMIC_RELAXED);                                                        \
        }                                                                                                              \
        (__typeof__(&name))real_;                                                                                      \
    })
void *kiln_real_find(const char *name);

// Where things are, found from this object's own path OBSERVER_DIR/libkiln-observe.so.
struct kiln_whereabouts {
    char observer_dir[256]; // "" when the object was not loaded by an absolute path: nothing is recorded then
    char sysroot[256];
    size_t sysroot_len;
    const char *program;    // as the kernel was given it
};
const struct kiln_whereabouts *kiln_whereabouts_get(void);
// Below the toolchain's places: the sysroot, /usr, /lib*, /bin, /sbin.
bool kiln_whereabouts_is_tool(const char *path);

// By the object that holds `address`; code that belongs to no object is a macro's.
enum kiln_observe_caller kiln_callers_find(const void *address);

// `rc` is the real function's: negative, then errno says why, or success. `path` may be whatever the caller passed: it
// is not read when it is NULL or the kernel found it unreadable. Relative paths are recorded from `dirfd` (AT_FDCWD:
// the current directory).
void kiln_note_path(enum kiln_observe_kind kind, const void *caller, int dirfd, const char *path, long rc);
// Opening with open(2) flags: read, listing, written, or several of them.
void kiln_note_open(const void *caller, int dirfd, const char *path, int flags, long rc);
// The directory that is open as `fd`, listed.
void kiln_note_listed(const void *caller, int fd, long rc);
// A name that is no path (of a variable, a call, a program to be looked for). Recorded for macros only, but for EXEC.
void kiln_note_text(enum kiln_observe_kind kind, const void *caller, const char *text);
// A program or library: a path when it has a slash, else a name.
void kiln_note_program(enum kiln_observe_kind kind, const void *caller, const char *file, long rc);

// The log itself (log.c).
void kiln_log_add(enum kiln_observe_kind kind, enum kiln_observe_caller caller, int result, const char *text,
                  size_t len);

// Reads the seed. Before there are threads: a fork must not happen halfway.
void kiln_seed_prepare(void);
// The next `len` bytes of the caller's stream; false when there is no seed.
bool kiln_seed_draw(const void *caller, void *out, size_t len);

// A system call made here, around libc; -errno on failure.
long kiln_raw_call(long number, long a, long b, long c, long d, long e, long f);
#define RAW3(number, a, b, c) kiln_raw_call(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)
