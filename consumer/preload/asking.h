// What a system call asks for, as far as the observers care: the one table of the preloaded observer, for calls that go through
// libc's syscall(), and of the one that watches from outside (consumer/run/watch.h), for calls that code makes by itself.
#pragma once

#include "consumer/preload/observe.h"

enum kiln_asking_shape {
    KILN_ASKING_HARMLESS, // says nothing about the host, or only by what another call has opened
    KILN_ASKING_FIRST,    // its path is the first argument
    KILN_ASKING_SECOND,   // or the second, behind a directory's descriptor
    KILN_ASKING_OPEN,     // the same two, with flags behind the path
    KILN_ASKING_OPENAT,
    KILN_ASKING_LISTED,   // of the directory that is open as its first argument
    KILN_ASKING_NAMED,    // recorded by name
    KILN_ASKING_CLOCK,    // by name, when its first argument is a clock of the wall's time
};

struct kiln_asking {
    short number;
    unsigned char shape, kind; // enum kiln_asking_shape, enum kiln_observe_kind
    const char *name;          // NAMED, CLOCK
};

extern const struct kiln_asking kiln_askings[];
extern const unsigned kiln_askings_count;

// NULL: a call that nobody has looked at; recorded by its number.
const struct kiln_asking *kiln_asking_find(long number);
