// The wall clock. Clocks that count from the machine's start are no input that anybody could name: not recorded.
#include <errno.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <sys/timeb.h>
#include <time.h>

#include "consumer/preload/observer.h"

OBSERVED int ftime(struct timeb *out); // the header calls it deprecated

static bool is_wall_clock(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_REALTIME_ALARM ||
           clock == CLOCK_TAI;
}

OBSERVED int clock_gettime(clockid_t clock, struct timespec *out) {
    if (is_wall_clock(clock))
        kiln_note_text(KILN_OBSERVE_CLOCK, CALLER, "clock_gettime");
    return REAL(clock_gettime)(clock, out);
}

OBSERVED int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    kiln_note_text(KILN_OBSERVE_CLOCK, CALLER, "gettimeofday");
    return REAL(gettimeofday)(out, zone);
}

OBSERVED time_t time(time_t *out) {
    kiln_note_text(KILN_OBSERVE_CLOCK, CALLER, "time");
    return REAL(time)(out);
}

OBSERVED int timespec_get(struct timespec *out, int base) {
    kiln_note_text(KILN_OBSERVE_CLOCK, CALLER, "timespec_get");
    return REAL(timespec_get)(out, base);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
OBSERVED int ftime(struct timeb *out) {
    kiln_note_text(KILN_OBSERVE_CLOCK, CALLER, "ftime");
    return REAL(ftime)(out);
}
#pragma GCC diagnostic pop

// Of the kernel's clock page no macro is told: reading the time there is no system call and nobody sees it. Programs do without
// on machines that have none.
OBSERVED unsigned long getauxval(unsigned long type) {
    if (type == AT_SYSINFO_EHDR && kiln_callers_find(CALLER) == KILN_CALLER_MACRO) {
        errno = ENOENT;
        return 0;
    }
    return REAL(getauxval)(type);
}
