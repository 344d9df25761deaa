// syscall(): the libc function that makes any system call by number. Instructions in the caller's own code are not seen
// here: lib/macro/macro_object.c looks for those.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "consumer/preload/asking.h"
#include "consumer/preload/observer.h"

static void note_number(const void *caller, long number) {
    char text[24], *digit = text + sizeof text;
    unsigned long rest = (unsigned long)number;
    *--digit = 0;
    do
        *--digit = (char)('0' + rest % 10);
    while (rest /= 10);
    kiln_note_text(KILN_OBSERVE_SYSCALL, caller, digit);
}

static bool is_wall_clock(long clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

static void note_call(const void *caller, long number, const long args[6], long rc) {
    const struct kiln_asking *asking = kiln_asking_find(number);
    if (!asking) {
        note_number(caller, number);
        return;
    }
    enum kiln_observe_kind kind = (enum kiln_observe_kind)asking->kind;
    switch ((enum kiln_asking_shape)asking->shape) {
    case KILN_ASKING_HARMLESS:
        break;
    case KILN_ASKING_FIRST:
        kiln_note_path(kind, caller, AT_FDCWD, (const char *)args[0], rc);
        break;
    case KILN_ASKING_SECOND:
        kiln_note_path(kind, caller, (int)args[0], (const char *)args[1], rc);
        break;
    case KILN_ASKING_OPEN:
        kiln_note_open(caller, AT_FDCWD, (const char *)args[0], (int)args[1], rc);
        break;
    case KILN_ASKING_OPENAT:
        kiln_note_open(caller, (int)args[0], (const char *)args[1], (int)args[2], rc);
        break;
    case KILN_ASKING_LISTED:
        kiln_note_listed(caller, (int)args[0], rc);
        break;
    case KILN_ASKING_CLOCK:
        if (!is_wall_clock(args[0]))
            break;
        __attribute__((fallthrough));
    case KILN_ASKING_NAMED:
        kiln_note_text(kind, caller, asking->name);
        break;
    }
}

static bool runs_program(long number) { return number == SYS_execve || number == SYS_execveat; }

// The kernel's answer as libc gives it.
static long deliver(long rc) {
    if (rc > -4096 && rc < 0) {
        errno = (int)-rc;
        return -1;
    }
    return rc;
}

OBSERVED long syscall(long number, ...) {
    long args[6];
    va_list list;
    va_start(list, number);
    for (size_t i = 0; i < 6; i++)
        args[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_getrandom && args[2] >= 0 && args[2] <= 7 &&
        kiln_seed_draw(CALLER, (void *)args[0], (size_t)args[1]))
        return args[1];
    if (runs_program(number))
        note_call(CALLER, number, args, 0);
    long rc = deliver(kiln_raw_call(number, args[0], args[1], args[2], args[3], args[4], args[5]));
    if (number != SYS_futex && !runs_program(number)) {
        int saved = errno;
        note_call(CALLER, number, args, rc);
        errno = saved;
    }
    return rc;
}
