// The observer's log: what the preloaded object writes inside the sandbox and consumer/run/witness.c reads outside.
//
// OBSERVER_DIR/log is a file of fixed size, mapped shared by every process of the job. Header, then entries packed one
// behind the other; a writer takes its room by an atomic add on `used`. The job can write anything here: the reader
// checks every bound and treats an overflow, a torn or a nonsensical entry as "dirty". All integers little-endian, as
// the machine has them.
#pragma once

#include <stdint.h>

#define KILN_OBSERVE_MAGIC 0x4b4f4253u /* "KOBS" */
#define KILN_OBSERVE_VERSION 1u
#define KILN_OBSERVE_LOG_BYTES (4u << 20)

struct kiln_observe_header {
    uint32_t magic, version;
    uint32_t capacity; // bytes for entries
    uint32_t used;     // atomic; may exceed capacity: then entries were lost
};

enum kiln_observe_kind {
    KILN_OBSERVE_OPEN = 1,  // a file opened for reading; result errno or 0
    KILN_OBSERVE_STAT = 2,  // stat, access, readlink, realpath of a path
    KILN_OBSERVE_LIST = 3,  // a directory opened for listing
    KILN_OBSERVE_EXEC = 4,  // a program run (path or name)
    KILN_OBSERVE_GETENV = 5,
    KILN_OBSERVE_CLOCK = 6, // wall clock read (text: which call)
    KILN_OBSERVE_WRITE = 7, // a file opened for writing or created, renamed, removed
    KILN_OBSERVE_DLOPEN = 8,
    KILN_OBSERVE_NET = 9,   // socket, connect, getaddrinfo
    KILN_OBSERVE_SYSCALL = 10, // syscall() with a number that is not harmless (text: number)
    KILN_OBSERVE_ENVIRON = 11, // clearenv, setenv, putenv, environ handed to exec by a macro
    KILN_OBSERVE_IDENTITY = 12, // getpwuid, gethostname, uname, getuid ... by a macro
};

// Who called, by the object that holds the return address.
enum kiln_observe_caller {
    KILN_CALLER_TOOL = 0,  // rustc, its libraries, libc, the linker and its helpers
    KILN_CALLER_MACRO = 1, // any other object: a proc macro
};

struct kiln_observe_entry {
    uint16_t length; // of the whole entry, multiple of 4
    uint8_t kind, caller;
    int32_t result;  // errno, 0 for success
    uint32_t text_length;
    // text follows, then padding
};
