#include "verifier/plan_timer.h"

#include <stdlib.h>

#include "lib/core/list.h"

void kiln_timers_release(struct kiln_timers *timers) {
    free(timers->heap);
    *timers = (struct kiln_timers){0};
}

static bool is_before(const struct kiln_timer *a, const struct kiln_timer *b) {
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->number < b->number;
}

static void put(struct kiln_timers *timers, struct kiln_timer *timer, size_t place) {
    timers->heap[place - 1] = timer;
    timer->place = place;
}

static void rise(struct kiln_timers *timers, struct kiln_timer *timer) {
    size_t place = timer->place;
    for (; place > 1 && is_before(timer, timers->heap[place / 2 - 1]); place /= 2)
        put(timers, timers->heap[place / 2 - 1], place);
    put(timers, timer, place);
}

static void sink(struct kiln_timers *timers, struct kiln_timer *timer) {
    size_t place = timer->place;
    for (;;) {
        size_t child = place * 2;
        if (child < timers->count && is_before(timers->heap[child], timers->heap[child - 1]))
            child++;
        if (child > timers->count || !is_before(timers->heap[child - 1], timer))
            break;
        put(timers, timers->heap[child - 1], place);
        place = child;
    }
    put(timers, timer, place);
}

bool kiln_timers_set(struct kiln_timers *timers, struct kiln_timer *timer, uint64_t at_ms) {
    if (!timer->place) {
        struct kiln_timer **heap = kiln_list_grow(timers->heap, timers->count, sizeof(struct kiln_timer *));
        if (!heap)
            return false;
        timers->heap = heap;
        put(timers, timer, ++timers->count);
    }
    timer->at_ms = at_ms;
    timer->number = timers->number++;
    rise(timers, timer);
    sink(timers, timer);
    return true;
}

void kiln_timers_clear(struct kiln_timers *timers, struct kiln_timer *timer) {
    size_t place = timer->place;
    if (!place)
        return;
    struct kiln_timer *last = timers->heap[--timers->count];
    timer->place = 0;
    if (last == timer)
        return;
    put(timers, last, place);
    rise(timers, last);
    sink(timers, last);
}

struct kiln_timer *kiln_timers_first(const struct kiln_timers *timers) {
    return timers->count ? timers->heap[0] : NULL;
}
