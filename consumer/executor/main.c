// kiln-executor: runs jobs that a verifier dispatches, each in a sandbox of its own, and publishes candidates.
//
// In a fleet (--config) it is a service of its own; SIGTERM drains: no new work, running jobs end, at most executor.drain;
// a second one ends it. Without a configuration the agent starts it (embedded default) with the bus as descriptor 3, and
// running jobs get a few seconds. What still runs at the end is taken along: the sandboxes die with their starter.
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "consumer/executor/backend.h"
#include "consumer/executor/host.h"
#include "consumer/executor/settings.h"
#include "consumer/executor/slots.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/base/path.h"
#include "lib/fleet/fleet.h"

#define BUS_FD 3
#define EMBEDDED_DRAIN_MS 2000
#define DRAIN_TICK_MS 20
#define CONNECT_AGAIN_MS 1000
#define REFUSED_MS 5000u // between two lines about records that were refused

struct options {
    const char *dir, *libexec, *config; // config NULL: embedded
    const char *docker; // the socket of dockerd; NULL: bubblewrap
    unsigned slots;
    bool watch_all;
};

struct executor {
    int signals; // SIGTERM and SIGINT, which all threads block
    int lock;
    struct kiln_job_context context;
    struct kiln_conf *conf;   // NULL: embedded
    struct kiln_fleet *fleet; // NULL: embedded
    struct kiln_store *store; // embedded: its own; else the fleet's
    struct kiln_bus *bus;
    struct kiln_slots *slots;
    struct kiln_backend backend;
    char *observer;
    uint64_t drain_ms;
    unsigned drains; // signals that came
    struct {
        uint64_t count, told, told_ms; // of what this program could not read, beside what the bus has refused; of both, as last told
        char why[200];
    } refused;
};

static int name_programs(const struct options *options, struct executor *executor, struct kiln_err *err) {
    executor->observer = kiln_path_join(options->libexec, "libkiln-observe.so");
    if (!executor->observer)
        return kiln_fail(err, KILN_E_NOMEM, "executor");
    executor->context = (struct kiln_job_context){.observer = executor->observer, .executor = "local", .pool = "local"};
    return 0;
}

static int open_backend(const struct options *options, struct executor *executor, struct kiln_err *err) {
    const struct kiln_conf *conf = executor->conf;
    const char *docker = options->docker;
    if (conf && !strcmp(kiln_conf_text(conf, "executor.backend"), "docker"))
        docker = kiln_conf_text(conf, "executor.docker_socket");
    int rc = kiln_backend_open(&executor->backend, options->libexec, options->dir, docker, err);
    if (rc)
        return rc;
    // Embedded, the job's author and the host's user are the same: there it is said and no more.
    rc = kiln_executor_check_limits(executor->backend.program, executor->backend.arguments,
                                    !conf || kiln_conf_bool(conf, "executor.insecure_limits"), err);
    executor->context.run_program = executor->backend.program;
    executor->context.run_arguments = executor->backend.arguments;
    executor->context.backend = executor->backend.name;
    return rc;
}

static int open_embedded(const struct options *options, struct executor *executor, struct kiln_err *err) {
    struct kiln_job_context *context = &executor->context;
    kiln_autofree char *store = kiln_path_join(options->dir, "store");
    executor->drain_ms = EMBEDDED_DRAIN_MS;
    int rc = store ? kiln_bus_open_fd(BUS_FD, &executor->bus, err) : kiln_fail(err, KILN_E_NOMEM, "executor");
    if (rc == 0 && getrandom(&context->incarnation, sizeof context->incarnation, 0) != sizeof context->incarnation)
        rc = kiln_fail_errno(err, KILN_E_IO, "random bytes");
    return rc ? rc : kiln_store_open_dir(store, KILN_ROLE_EXECUTOR, &executor->store, err);
}

static int take_lock(const char *dir, int *lock, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(dir, "executor.lock");
    int rc = path ? kiln_fs_make_dirs(AT_FDCWD, dir, 0700, err) : kiln_fail(err, KILN_E_NOMEM, "executor");
    if (rc)
        return rc;
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*lock < 0)
        return kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    return flock(*lock, LOCK_EX | LOCK_NB) ? kiln_fail(err, KILN_E_EXISTS, "another executor works in %s", dir) : 0;
}

static int open_fleet(const struct options *options, struct executor *executor, struct kiln_err *err) {
    struct kiln_job_context *context = &executor->context;
    int rc = take_lock(options->dir, &executor->lock, err);
    if (rc == 0)
        rc = kiln_fleet_open(executor->conf, KILN_ROLE_OF_EXECUTOR, options->dir, &executor->fleet, err);
    if (rc)
        return rc;
    executor->store = kiln_fleet_store(executor->fleet);
    executor->drain_ms = kiln_conf_number(executor->conf, "executor.drain");
    context->executor = kiln_fleet_principal(executor->fleet);
    context->pool = kiln_fleet_pool(executor->fleet);
    context->incarnation = *kiln_fleet_incarnation(executor->fleet);
    context->record_key = kiln_fleet_record_key(executor->fleet);
    return 0;
}

static int open_rooms(const struct options *options, struct executor *executor, struct kiln_err *err) {
    struct kiln_job_context *context = &executor->context;
    context->store = executor->store;
    context->watch_all = executor->fleet ? kiln_conf_bool(executor->conf, "executor.watch_all") : options->watch_all;
    uint64_t cache_bytes = executor->fleet ? kiln_conf_number(executor->conf, "executor.cache") : 0;
    int rc = kiln_fs_open_dir(options->dir, &context->scratch_dir, err);
    if (rc == 0)
        rc = kiln_stages_open(options->dir, context->store, cache_bytes, &context->stages, err);
    if (rc == 0)
        rc = kiln_macros_open(options->dir, &context->macros, err);
    if (rc == 0)
        rc = kiln_toolchain_roots_new(options->dir, &context->toolchains, err);
    if (rc == 0 && executor->fleet)
        kiln_toolchain_roots_fetch_from(context->toolchains, executor->store);
    return rc;
}

static bool is_told(struct executor *executor, int wait_ms) {
    struct pollfd watch = {.fd = executor->signals, .events = POLLIN};
    struct signalfd_siginfo info;
    if (poll(&watch, 1, wait_ms) <= 0 || read(executor->signals, &info, sizeof info) != sizeof info)
        return false;
    executor->drains++;
    return true;
}

// The brokers of a fleet may come later than its executors, and a handle that could not subscribe is of no use any more.
// KILN_E_CLOSED: told to end meanwhile.
static int subscribe(struct executor *executor, struct kiln_err *err) {
    const struct kiln_bus_subscription work = {.topic = KILN_TOPIC_WORK, .from_end = true};
    for (;;) {
        int rc = executor->bus ? 0 : kiln_fleet_open_bus(executor->fleet, &executor->bus, err);
        if (rc == 0)
            rc = kiln_bus_subscribe(executor->bus, &work, 1, err);
        if (rc == 0 || !executor->fleet)
            return rc;
        kiln_log(KILN_LOG_WARN, "fleet_unreachable", "error", err->text, NULL);
        kiln_bus_close(executor->bus);
        executor->bus = NULL;
        if (is_told(executor, CONNECT_AGAIN_MS))
            return kiln_fail(err, KILN_E_CLOSED, "told to end");
    }
}

static int open_executor(const struct options *options, struct executor *executor, struct kiln_err *err) {
    int rc = name_programs(options, executor, err);
    if (rc == 0)
        rc = open_backend(options, executor, err);
    if (rc == 0)
        rc = executor->conf ? open_fleet(options, executor, err) : open_embedded(options, executor, err);
    if (rc == 0)
        rc = open_rooms(options, executor, err);
    if (rc == 0)
        kiln_backend_sweep(&executor->backend); // with the directory's lock: another executor of it may be at work
    if (rc == 0)
        rc = subscribe(executor, err);
    return rc ? rc : kiln_slots_new(&executor->context, executor->bus, options->slots, &executor->slots, err);
}

// Before any thread starts, so that all inherit the mask.
static int watch_signals(int *signals, struct kiln_err *err) {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    if (sigprocmask(SIG_BLOCK, &watched, NULL) == 0 && (*signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK)) >= 0)
        return 0;
    return kiln_fail_errno(err, KILN_E_IO, "watch signals");
}

static void close_executor(struct executor *executor) {
    kiln_slots_free(executor->slots);
    kiln_stages_close(executor->context.stages);
    kiln_macros_close(executor->context.macros);
    kiln_toolchain_roots_free(executor->context.toolchains);
    kiln_bus_close(executor->bus);
    if (!executor->fleet)
        kiln_store_close(executor->store);
    kiln_fleet_close(executor->fleet);
    kiln_conf_free(executor->conf);
    kiln_backend_close(&executor->backend);
    free(executor->observer);
    if (executor->signals >= 0)
        close(executor->signals);
    if (executor->lock >= 0)
        close(executor->lock);
}

static int take_work(struct executor *executor, const struct kiln_record *record, struct kiln_err *err) {
    struct kiln_work work = {0};
    int rc = kiln_work_decode(record->value, record->value_len, &work, err);
    if (rc == 0) {
        kiln_slots_give(executor->slots, &work);
        kiln_work_release(&work);
    }
    return rc;
}

static int take_demand(struct executor *executor, const struct kiln_record *record, struct kiln_err *err) {
    struct kiln_demand demand = {0};
    int rc = kiln_demand_decode(record->value, record->value_len, &demand, err);
    // Credits that do not go out now go out with the next tick.
    if (rc == 0)
        kiln_slots_demand(executor->slots, &demand, NULL);
    kiln_demand_release(&demand);
    return rc;
}

// Work, or a call for credits: from verifiers only, whatever the topic's ACL would have let in.
static void take_record(struct executor *executor, const struct kiln_record *record) {
    enum kiln_record_type type;
    struct kiln_err err = {0};
    int rc = record->author.role == KILN_ROLE_OF_VERIFIER
                 ? kiln_record_type_of(record->value, record->value_len, &type, &err)
                 : kiln_fail(&err, KILN_E_DENIED, "role: %s is no verifier", record->author.principal);
    if (rc == 0)
        rc = type == KILN_RECORD_demand ? take_demand(executor, record, &err) : take_work(executor, record, &err);
    if (rc) {
        executor->refused.count++;
        snprintf(executor->refused.why, sizeof executor->refused.why, "%.60s: %.130s", record->author.principal, err.text);
    }
}

// One line for many: whoever can write the topic must not fill this machine's log.
static void tell_refused(struct executor *executor) {
    char why[KILN_BUS_WHY_BYTES], count[24];
    uint64_t now_ms = kiln_clock_ms(), sum = executor->refused.count + kiln_bus_refused(executor->bus, why);
    if (sum == executor->refused.told || now_ms - executor->refused.told_ms < REFUSED_MS)
        return;
    executor->refused.told = sum;
    executor->refused.told_ms = now_ms;
    snprintf(count, sizeof count, "%llu", (unsigned long long)sum);
    kiln_log(KILN_LOG_WARN, "records_refused", "count", count, "bus", why, "form", executor->refused.why, NULL);
}

static int take_records(struct executor *executor, struct kiln_err *err) {
    for (;;) {
        struct kiln_record record = {0};
        int rc = kiln_bus_poll(executor->bus, kiln_clock_ms(), &record, err);
        if (rc)
            return rc == KILN_E_TIMEOUT ? 0 : rc;
        if (record.news == KILN_NEWS_RECORD)
            take_record(executor, &record);
        kiln_bus_ack(executor->bus, &record, NULL);
        kiln_record_release(&record);
    }
}

// A service outlives the troubles of its brokers; in the embedded default the end of the bus is the end of the agent.
static bool is_fatal(const struct executor *executor, int rc, const struct kiln_err *err) {
    return rc && !err->retriable && (!executor->fleet || rc == KILN_E_CLOSED);
}

static int turn(struct executor *executor, int wait_ms, struct kiln_err *err) {
    int rc = kiln_slots_tick(executor->slots, err);
    if (is_fatal(executor, rc, err)) // else the next tick tries again
        return rc;
    struct pollfd watch[] = {{.fd = kiln_bus_fd(executor->bus), .events = POLLIN}, {.fd = executor->signals, .events = POLLIN}};
    poll(watch, 2, wait_ms);
    *err = (struct kiln_err){0};
    rc = take_records(executor, err);
    tell_refused(executor);
    if (is_fatal(executor, rc, err))
        return rc;
    if (rc) {
        kiln_log(KILN_LOG_WARN, "bus", "error", err->text, NULL);
        poll(watch + 1, 1, CONNECT_AGAIN_MS); // a bus that fails at once must not make this a busy loop
    }
    return 0;
}

// Until told to end; then until the running jobs have ended, the drain is over, or it is told so again.
static int run(struct executor *executor, struct kiln_err *err) {
    uint64_t end_ms = UINT64_MAX;
    while (end_ms == UINT64_MAX || (kiln_slots_running(executor->slots) && kiln_clock_ms() < end_ms)) {
        int rc = turn(executor, end_ms == UINT64_MAX ? (int)KILN_SLOTS_TICK_MS : DRAIN_TICK_MS, err);
        if (rc)
            return rc;
        while (is_told(executor, 0)) {
            kiln_slots_drain(executor->slots);
            end_ms = executor->drains == 1 ? kiln_clock_ms() + executor->drain_ms : 0;
            kiln_log(KILN_LOG_INFO, executor->drains == 1 ? "draining" : "ending", NULL);
        }
    }
    return 0;
}

static int parse_options(int argc, char **argv, struct options *options) {
    static const struct option long_options[] = {{"dir", required_argument, NULL, 'd'},
                                                 {"config", required_argument, NULL, 'c'},
                                                 {"libexec", required_argument, NULL, 'l'},
                                                 {"slots", required_argument, NULL, 's'},
                                                 {"docker", required_argument, NULL, 'D'},
                                                 {"watch-all", no_argument, NULL, 'w'},
                                                 {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 'd')
            options->dir = optarg;
        else if (option == 'c')
            options->config = optarg;
        else if (option == 'l')
            options->libexec = optarg;
        else if (option == 'w')
            options->watch_all = true;
        else if (option == 'D')
            options->docker = optarg;
        else if (option == 's')
            options->slots = (unsigned)strtoul(optarg, NULL, 10);
        else
            return -1;
    }
    return options->dir && options->libexec && optind == argc ? 0 : -1;
}

static void settle_slots(struct options *options, const struct kiln_conf *conf) {
    if (options->slots == 0 && conf)
        options->slots = (unsigned)kiln_conf_number(conf, "executor.slots");
    if (options->slots == 0)
        options->slots = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    if (options->slots > KILN_SLOTS_MAX)
        options->slots = KILN_SLOTS_MAX;
}

static void begin_log(const struct kiln_conf *conf) {
    enum kiln_log_level level = KILN_LOG_INFO;
    if (conf)
        kiln_log_level_parse(kiln_conf_text(conf, "log.level"), &level);
    kiln_log_init(STDERR_FILENO, "executor", level, conf && kiln_conf_bool(conf, "log.json"));
}

int main(int argc, char **argv) {
    struct options options = {0};
    if (parse_options(argc, argv, &options)) {
        fprintf(stderr, "usage: kiln-executor --config FILE --dir DIR --libexec DIR [--slots N]\n"
                        "       (without --config: started by kiln-agent)\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    struct executor executor = {.signals = -1, .lock = -1};
    struct kiln_err err = {0};
    int rc = options.config ? kiln_executor_settings_load(options.config, &executor.conf, &err) : 0;
    begin_log(executor.conf);
    settle_slots(&options, executor.conf);
    if (rc == 0)
        rc = watch_signals(&executor.signals, &err);
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
