#include "verifier/serve.h"

#include <poll.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

#define TICK_GRACE_MS 20u     // for records that are on their way when a tick is due
#define RECORDS_PER_TICK 256u // and the tick comes anyway
#define BUS_PAUSE_MS 200      // after an error that may pass

static uint64_t wait_until(const struct kiln_serve *serve, uint64_t now_ms) {
    uint64_t due_ms = kiln_docket_next_ms(serve->docket);
    if (due_ms < now_ms + TICK_GRACE_MS)
        return now_ms + TICK_GRACE_MS;
    return due_ms - now_ms < serve->poll_ms_max ? due_ms : now_ms + serve->poll_ms_max;
}

// Records that are there, up to a bound, and what tasks have done. *any tells whether there was a record.
static int take_some(const struct kiln_serve *serve, bool *any, struct kiln_err *err) {
    *any = false;
    for (unsigned taken = 0; taken < RECORDS_PER_TICK; taken++) {
        struct kiln_record record = {0};
        int rc = kiln_docket_finish(serve->docket, err);
        if (rc)
            return rc;
        rc = kiln_bus_poll(serve->bus, kiln_clock_ms(), &record, err);
        if (rc == KILN_E_TIMEOUT)
            return 0;
        if (rc)
            return rc;
        *any = true;
        rc = kiln_docket_take(serve->docket, &record, err);
        kiln_record_release(&record);
        if (rc)
            return rc;
    }
    return 0;
}

// true: told to stop.
static bool wait(const struct kiln_serve *serve, uint64_t deadline_ms) {
    struct pollfd watch[] = {{.fd = serve->stop_fd, .events = POLLIN},
                             {.fd = kiln_docket_fd(serve->docket), .events = POLLIN},
                             {.fd = kiln_bus_fd(serve->bus), .events = POLLIN}};
    return poll(watch, 3, kiln_clock_left_ms(deadline_ms)) > 0 && watch[0].revents;
}

int kiln_serve(const struct kiln_serve *serve, struct kiln_err *err) {
    uint64_t record_ms = kiln_clock_ms(), tick_ms = 0;
    for (;;) {
        bool any = false;
        uint64_t now_ms = kiln_clock_ms();
        uint64_t until_ms = wait_until(serve, now_ms);
        *err = (struct kiln_err){0};
        int rc = take_some(serve, &any, err);
        if (any)
            record_ms = kiln_clock_ms();
        if (rc && err->retriable && rc != KILN_E_CLOSED) {
            kiln_log(KILN_LOG_WARN, "bus", "error", err->text, NULL);
            poll(NULL, 0, BUS_PAUSE_MS);
            rc = 0;
        }
        now_ms = kiln_clock_ms();
        if (!rc && (!any || now_ms >= until_ms || now_ms - tick_ms >= TICK_GRACE_MS)) {
            tick_ms = now_ms;
            rc = kiln_docket_tick(serve->docket, err);
            if (!rc && serve->idle)
                serve->idle(serve->context, record_ms);
        }
        if (rc)
            return rc;
        if (wait(serve, any ? now_ms : wait_until(serve, kiln_clock_ms())))
            return 0;
    }
}

void kiln_serve_drain(const struct kiln_serve *serve, uint64_t deadline_ms) {
    struct kiln_err err;
    while (kiln_docket_tasks(serve->docket) && kiln_clock_ms() < deadline_ms) {
        struct pollfd watch = {.fd = kiln_docket_fd(serve->docket), .events = POLLIN};
        poll(&watch, 1, kiln_clock_left_ms(deadline_ms));
        if (kiln_docket_finish(serve->docket, &err))
            return;
    }
}
