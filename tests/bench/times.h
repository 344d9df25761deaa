// What the bench's drivers measure with: milliseconds.
#pragma once

#include <sys/resource.h>
#include <time.h>

static inline double bench_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

// Processor time of all children that have been waited for, which a job's own processes are not: on a busy machine it says more
// than the clock.
static inline double bench_children_cpu_ms(void) {
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}

static inline int bench_by_value(const void *a, const void *b) { // for qsort, of double
    const double *left = a, *right = b;
    return (*left > *right) - (*left < *right);
}
