// kiln-executor: runs jobs that the verifier dispatches, each in a sandbox of its own, and publishes candidates.
//
// Started by the agent (embedded default) with the bus as descriptor 3. SIGTERM drains: no new work, running jobs get a few
// seconds, then the process ends and takes their sandboxes with it.
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "consumer/executor/slots.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/path.h"

#define BUS_FD 3
#define DRAIN_MS 2000
#define DRAIN_TICK_MS 20

struct options {
    const char *dir, *libexec;
    unsigned slots;
};

struct executor {
    int signals; // SIGTERM and SIGINT, which all threads block
    struct kiln_job_context context;
    struct kiln_bus *bus;
    struct kiln_slots *slots;
    char *run_program, *observer, *store_path;
};

static int open_executor(const struct options *options, struct executor *executor, struct kiln_err *err) {
    const struct kiln_bus_subscription work = {.topic = KILN_TOPIC_WORK, .from_end = true};
    executor->run_program = kiln_path_join(options->libexec, "kiln-run");
    executor->observer = kiln_path_join(options->libexec, "libkiln-observe.so");
    executor->store_path = kiln_path_join(options->dir, "store");
    if (!executor->run_program || !executor->observer || !executor->store_path)
        return kiln_fail(err, KILN_E_NOMEM, "executor");
    struct kiln_job_context *context = &executor->context;
    *context = (struct kiln_job_context){.run_program = executor->run_program, .observer = executor->observer,
                                         .executor = "local", .pool = "local"};
    int rc = kiln_bus_open_fd(BUS_FD, &executor->bus, err);
    if (rc == 0 && getrandom(&context->incarnation, sizeof context->incarnation, 0) != sizeof context->incarnation)
        rc = kiln_fail_errno(err, KILN_E_IO, "random bytes");
    if (rc == 0)
        rc = kiln_store_open_dir(executor->store_path, KILN_ROLE_EXECUTOR, &context->store, err);
    if (rc == 0)
        rc = kiln_stages_open(options->dir, context->store, &context->stages, err);
    if (rc == 0)
        rc = kiln_toolchain_roots_new(options->dir, &context->toolchains, err);
    if (rc == 0)
        rc = kiln_bus_subscribe(executor->bus, &work, 1, err);
    return rc ? rc : kiln_slots_new(context, executor->bus, options->slots, &executor->slots, err);
}

// Before any thread starts, so that all inherit the mask.
static int watch_signals(int *signals, struct kiln_err *err) {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    if (sigprocmask(SIG_BLOCK, &watched, NULL) == 0 && (*signals = signalfd(-1, &watched, SFD_CLOEXEC)) >= 0)
        return 0;
    return kiln_fail_errno(err, KILN_E_IO, "watch signals");
}

static void close_executor(struct executor *executor) {
    kiln_slots_free(executor->slots);
    kiln_stages_close(executor->context.stages);
    kiln_toolchain_roots_free(executor->context.toolchains);
    kiln_store_close(executor->context.store);
    kiln_bus_close(executor->bus);
    free(executor->run_program);
    free(executor->observer);
    free(executor->store_path);
    if (executor->signals >= 0)
        close(executor->signals);
}

static int take_work(struct executor *executor, const struct kiln_record *record) {
    struct kiln_work work = {0};
    struct kiln_err err = {0};
    if (kiln_work_decode(record->value, record->value_len, &work, &err)) {
        kiln_log(KILN_LOG_WARN, "work_refused", "error", err.text, NULL);
    } else if (!kiln_slots_give(executor->slots, &work)) {
        kiln_log(KILN_LOG_INFO, "work_ignored", "why", "its credit is not one of this incarnation's", NULL);
        kiln_work_release(&work);
    }
    return kiln_bus_ack(executor->bus, record, NULL);
}

static int take_records(struct executor *executor, struct kiln_err *err) {
    for (;;) {
        struct kiln_record record = {0};
        int rc = kiln_bus_poll(executor->bus, kiln_clock_ms(), &record, err);
        if (rc)
            return rc == KILN_E_TIMEOUT ? 0 : rc;
        take_work(executor, &record);
        kiln_record_release(&record);
    }
}

// Until told to end; then until the running jobs have ended, or DRAIN_MS have passed.
static int run(struct executor *executor, struct kiln_err *err) {
    uint64_t end_ms = UINT64_MAX;
    while (end_ms == UINT64_MAX || (kiln_slots_running(executor->slots) && kiln_clock_ms() < end_ms)) {
        int rc = kiln_slots_tick(executor->slots, err);
        if (rc && !err->retriable) // a full topic: the next tick tries again
            return rc;
        struct pollfd watch[] = {{.fd = kiln_bus_fd(executor->bus), .events = POLLIN},
                                 {.fd = end_ms == UINT64_MAX ? executor->signals : -1, .events = POLLIN}};
        int ready = poll(watch, 2, end_ms == UINT64_MAX ? (int)KILN_SLOTS_TICK_MS : DRAIN_TICK_MS);
        if (ready > 0 && watch[1].revents) {
            kiln_slots_drain(executor->slots);
            end_ms = kiln_clock_ms() + DRAIN_MS;
        }
        rc = take_records(executor, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int parse_options(int argc, char **argv, struct options *options) {
    static const struct option long_options[] = {{"dir", required_argument, NULL, 'd'},
                                                 {"libexec", required_argument, NULL, 'l'},
                                                 {"slots", required_argument, NULL, 's'},
                                                 {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 'd')
            options->dir = optarg;
        else if (option == 'l')
            options->libexec = optarg;
        else if (option == 's')
            options->slots = (unsigned)strtoul(optarg, NULL, 10);
        else
            return -1;
    }
    if (options->slots == 0)
        options->slots = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    if (options->slots > KILN_SLOTS_MAX)
        options->slots = KILN_SLOTS_MAX;
    return options->dir && options->libexec && optind == argc ? 0 : -1;
}

int main(int argc, char **argv) {
    struct options options = {0};
    if (parse_options(argc, argv, &options)) {
        fprintf(stderr, "usage: kiln-executor --dir DIR --libexec DIR [--slots N]   (started by kiln-agent)\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    kiln_log_init(STDERR_FILENO, "executor", KILN_LOG_INFO, false);
    struct executor executor = {.signals = -1};
    struct kiln_err err = {0};
    int rc = watch_signals(&executor.signals, &err);
    if (rc == 0)
        rc = open_executor(&options, &executor, &err);
    if (rc == 0)
        rc = run(&executor, &err);
    if (rc && rc != KILN_E_CLOSED)
        kiln_log(KILN_LOG_ERROR, "ended", "error", err.text, NULL);
    if (executor.slots && kiln_slots_running(executor.slots))
        _exit(rc ? 1 : 0); // jobs that did not end in time die with their starter
    close_executor(&executor);
    return rc && rc != KILN_E_CLOSED ? 1 : 0;
}
