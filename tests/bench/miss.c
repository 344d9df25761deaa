// Misses without a compiler, for the fleet's bench: the agent's submitter and the executor's slots against a real verifier, Kafka
// and MinIO, with a job in between that answers at once with prepared outputs (kiln_job_run of this file stands in for the
// executor's). Usage: kiln-bench-miss execute CONFIG DIR SLOTS | submit CONFIG DIR
//
// `submit` waits for lines "COUNT THREADS known|new|hit" on standard input: each is a round of submissions, and its answer a line
// of JSON with the milliseconds of each. `hit` submits the actions of the round before again: the verifier has their results. The end of input
// ends both.
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "consumer/executor/settings.h"
#include "consumer/executor/slots.h"
#include "consumer/executor/upload.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/bus/bus_kafka.h"
#include "lib/core/action.h"
#include "lib/core/profile.h"
#include "lib/core/tree.h"
#include "lib/fleet/fleet.h"
#include "lib/rustc/paths.h"
#include "lib/wire/attested.h"
#include "producer/agent/settings.h"
#include "producer/agent/submit.h"
#include "tests/bench/times.h"

#define WAIT_MS 60000u
#define RLIB_BYTES 100000u
#define RMETA_BYTES 20000u
#define SOURCE_BYTES 10000u
#define COUNT_MAX 100000u

static int complain(const char *what, const struct kiln_err *err) {
    fprintf(stderr, "%s: %s\n", what, err->text);
    return 1;
}

// --- the executor's side

struct prepared {
    const char *name;
    enum kiln_output_kind kind;
    size_t size; // 0: the text
    const char *text;
};
static const struct prepared prepared[] = {{"libdemo-0123.rlib", KILN_OUTPUT_FILE, RLIB_BYTES, NULL},
                                           {"libdemo-0123.rmeta", KILN_OUTPUT_FILE, RMETA_BYTES, NULL},
                                           {"demo-0123.d", KILN_OUTPUT_FILE, 0, "/t/libdemo-0123.rlib: src/lib.rs\n\nsrc/lib.rs:\n"},
                                           {"", KILN_OUTPUT_STDOUT, 0, ""},
                                           {"", KILN_OUTPUT_STDERR, 0, ""}};
#define PREPARED (sizeof prepared / sizeof *prepared)

// Bytes that no other action gives, and that compress to a third, as a compiler's do.
static int fill(const struct prepared *one, const struct kiln_digest *action, int fd) {
    unsigned char bytes[RLIB_BYTES] = {0};
    uint32_t state;
    memcpy(&state, action, sizeof state);
    if (!one->size)
        return write(fd, one->text, strlen(one->text)) == (ssize_t)strlen(one->text) ? 0 : -1;
    for (size_t i = 0; i < one->size; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = i % 3 ? 0 : (unsigned char)(state >> 24);
    }
    return write(fd, bytes, one->size) == (ssize_t)one->size ? 0 : -1;
}

static int make_outputs(const struct kiln_job_context *context, const struct kiln_work *work, struct kiln_candidate *candidate,
                        int *fds, struct kiln_err *err) {
    kiln_auto(kiln_upload_release) struct kiln_upload upload = {0};
    const struct kiln_upload_place place = {context->store, context->executor, work, -1};
    int rc = 0;
    for (size_t i = 0; !rc && i < PREPARED; i++) {
        struct kiln_candidate_output *output = &candidate->outputs[i];
        output->kind = prepared[i].kind;
        output->name = strdup(prepared[i].name);
        candidate->outputs_count = i + 1;
        fds[i] = memfd_create("output", MFD_CLOEXEC);
        if (!output->name || fds[i] < 0 || fill(&prepared[i], &work->action_digest, fds[i]))
            return kiln_fail(err, KILN_E_IO, "an output could not be made");
        rc = kiln_digest_of_fd(fds[i], RLIB_BYTES * 2, &output->digest, &output->size, err);
        if (!rc)
            rc = kiln_upload_add(&upload, fds[i], output->size, &output->digest, err);
    }
    return rc ? rc : kiln_upload_send(&upload, &place, err);
}

int kiln_job_run(const struct kiln_job_context *context, const struct kiln_work *work, struct kiln_candidate *candidate,
                 struct kiln_err *err) {
    *candidate = (struct kiln_candidate){.job = work->job, .incarnation = context->incarnation, .attempt = work->attempt,
                                         .action_digest = work->action_digest, .at_ms = kiln_clock_wall_ms(), .wall_ms = 1,
                                         .status = KILN_RUN_EXITED, .executor = strdup(context->executor),
                                         .pool = strdup(context->pool), .backend = strdup("bwrap"),
                                         .outputs = calloc(PREPARED, sizeof *candidate->outputs)};
    int fds[PREPARED];
    for (size_t i = 0; i < PREPARED; i++)
        fds[i] = -1;
    int rc = candidate->executor && candidate->pool && candidate->backend && candidate->outputs
                 ? make_outputs(context, work, candidate, fds, err)
                 : kiln_fail(err, KILN_E_NOMEM, "candidate");
    for (size_t i = 0; i < PREPARED; i++)
        kiln_cleanup_fd(&fds[i]);
    return rc ? rc : kiln_candidate_sign(candidate, context->record_key, err);
}

static void take_record(struct kiln_slots *slots, const struct kiln_record *record) {
    enum kiln_record_type type;
    struct kiln_work work = {0};
    struct kiln_demand demand = {0};
    if (record->news != KILN_NEWS_RECORD || kiln_record_type_of(record->value, record->value_len, &type, NULL))
        return;
    if (type == KILN_RECORD_demand && kiln_demand_decode(record->value, record->value_len, &demand, NULL) == 0)
        kiln_slots_demand(slots, &demand, NULL);
    else if (type == KILN_RECORD_work && kiln_work_decode(record->value, record->value_len, &work, NULL) == 0)
        kiln_slots_give(slots, &work);
    kiln_demand_release(&demand);
    kiln_work_release(&work);
}

static bool input_ended(int fd) {
    char byte;
    struct pollfd watch = {.fd = fd, .events = POLLIN};
    return poll(&watch, 1, 0) > 0 && read(fd, &byte, 1) <= 0;
}

static int serve(struct kiln_slots *slots, struct kiln_bus *bus, struct kiln_err *err) {
    while (!input_ended(STDIN_FILENO)) {
        struct kiln_record record = {0};
        int rc = kiln_slots_tick(slots, err);
        if (!rc)
            rc = kiln_bus_poll(bus, kiln_clock_ms() + KILN_SLOTS_TICK_MS, &record, err);
        if (rc && rc != KILN_E_TIMEOUT && !err->retriable)
            return rc;
        if (rc)
            continue;
        take_record(slots, &record);
        kiln_bus_ack(bus, &record, NULL);
        kiln_record_release(&record);
    }
    return 0;
}

static int execute(const char *config, const char *dir, unsigned count) {
    struct kiln_err err = {0};
    struct kiln_conf *conf = NULL;
    struct kiln_fleet *fleet = NULL;
    struct kiln_bus *bus = NULL;
    struct kiln_slots *slots = NULL;
    struct kiln_job_context context = {0};
    const struct kiln_bus_subscription work = {.topic = KILN_TOPIC_WORK, .from_end = true};
    int rc = kiln_executor_settings_load(config, &conf, &err);
    if (!rc)
        rc = kiln_fleet_open(conf, KILN_ROLE_OF_EXECUTOR, dir, &fleet, &err);
    if (!rc)
        rc = kiln_fleet_open_bus(fleet, &bus, &err);
    if (!rc)
        rc = kiln_bus_subscribe(bus, &work, 1, &err);
    if (!rc) {
        context = (struct kiln_job_context){.executor = kiln_fleet_principal(fleet), .pool = kiln_fleet_pool(fleet),
                                            .incarnation = *kiln_fleet_incarnation(fleet), .store = kiln_fleet_store(fleet),
                                            .record_key = kiln_fleet_record_key(fleet)};
        rc = kiln_slots_new(&context, bus, count, &slots, &err);
    }
    if (!rc)
        rc = serve(slots, bus, &err);
    kiln_slots_free(slots);
    kiln_bus_close(bus);
    kiln_fleet_close(fleet);
    kiln_conf_free(conf);
    return rc ? complain("execute", &err) : 0;
}

// --- the agent's side

struct one { // a submission, and what it uploads
    struct kiln_tree tree;
    int pack;
    struct kiln_buf action;
    struct kiln_content_ref content;
    struct kiln_digest digest;
    double took_ms;
};

struct round {
    struct kiln_submitter *submitter;
    struct kiln_store *store;
    const char *tenant;
    struct one *all;
    size_t count, next;
    pthread_mutex_t lock;
    bool failed;
};

static uint64_t serial; // of actions, from a random start: nobody has compiled them

static void release_one(struct one *one) {
    kiln_tree_release(&one->tree);
    kiln_cleanup_fd(&one->pack);
    kiln_buf_release(&one->action);
    *one = (struct one){.pack = -1};
}

// A package of one file, which differs with the salt.
static int make_pack(const char *dir, uint64_t salt, struct one *one, struct kiln_err *err) {
    kiln_autofree char *path = NULL;
    char source[SOURCE_BYTES] = {0};
    struct kiln_digest digest;
    snprintf(source, sizeof source, "// %" PRIu64 "\n", salt);
    memset(source + strlen(source), '\n', sizeof source - strlen(source));
    kiln_digest_of(source, sizeof source, &digest);
    if (asprintf(&path, "%s/package/src", dir) < 0)
        return kiln_fail(err, KILN_E_NOMEM, "package");
    kiln_autofd int src = -1, package = -1, file = -1;
    int rc = kiln_fs_make_dirs(AT_FDCWD, path, 0700, err);
    if (rc)
        return rc;
    src = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    package = openat(src, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    file = openat(src, "lib.rs", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    one->pack = memfd_create("pack", MFD_CLOEXEC);
    if (file < 0 || one->pack < 0 || write(file, source, sizeof source) != sizeof source)
        return kiln_fail_errno(err, KILN_E_IO, "package");
    rc = kiln_tree_add_file(&one->tree, "src/lib.rs", false, sizeof source, &digest, err);
    if (!rc)
        rc = kiln_tree_finish(&one->tree, err);
    if (!rc)
        rc = kiln_pack_write(&one->tree, package, one->pack, err);
    one->content.kind = KILN_CONTENT_PACK;
    return rc ? rc : kiln_tree_digest(&one->tree, &one->content.digest, err);
}

static int add_argument(struct kiln_action *action, const char *before, const char *place, const char *rest, struct kiln_err *err) {
    kiln_autofree char *path = place ? kiln_place(place, rest) : NULL, *text = NULL;
    if (asprintf(&text, "%s%s", before, path ? path : "") < 0)
        return kiln_fail(err, KILN_E_NOMEM, "argument");
    return kiln_action_add_arg(action, text, err);
}

static int make_action(uint64_t number, struct one *one, struct kiln_err *err) {
    kiln_autoaction struct kiln_action action = {
        .profile = strdup(KILN_PROFILE), .package = strdup("demo-1.0.0"), .crate_name = strdup("demo"),
        .cwd = kiln_place(KILN_PLACE_REGISTRY, "demo-1.0.0"), .out_dir = kiln_place(KILN_PLACE_TARGET, NULL),
        .toolchain_rustc.bytes[0] = 1};
    char metadata[40];
    snprintf(metadata, sizeof metadata, "metadata=%016" PRIx64, number);
    const char *const plain[] = {"--crate-name", "demo", "--edition=2021", "src/lib.rs", "--crate-type", "lib",
                                 "--emit=dep-info,metadata,link", "-C", metadata, "-C", "extra-filename=-0123"};
    int rc = add_argument(&action, "", KILN_PLACE_SYSROOT, "bin/rustc", err);
    for (size_t i = 0; !rc && i < sizeof plain / sizeof *plain; i++)
        rc = add_argument(&action, plain[i], NULL, NULL, err);
    if (!rc)
        rc = add_argument(&action, "--out-dir=", KILN_PLACE_TARGET, NULL, err);
    if (!rc)
        rc = kiln_action_add_env(&action, "CARGO_PKG_NAME", "demo", err);
    if (!rc)
        rc = kiln_action_add_env(&action, "CARGO_MANIFEST_DIR", action.cwd, err);
    if (!rc)
        rc = kiln_action_add_input(&action, action.cwd, KILN_INPUT_PACK, &one->content.digest, err);
    if (!rc)
        rc = kiln_action_finish(&action, err);
    one->action = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    if (!rc)
        rc = kiln_action_encode(&action, &one->action, err);
    if (!rc)
        kiln_digest_of(one->action.data, one->action.len, &one->digest);
    return rc;
}

static int upload(void *context, const struct kiln_content_ref *contents, char *const *keys, size_t count, struct kiln_err *err) {
    void *const *both = context;
    struct kiln_store *store = both[0];
    const struct one *one = both[1];
    (void)contents;
    for (size_t i = 0; i < count; i++) {
        int rc = kiln_store_put_fd(store, KILN_SPACE_QUARANTINE, keys[i], one->pack, 1u << 20, NULL, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int submit_one(struct round *round, struct one *one) {
    struct kiln_err err = {0};
    void *both[] = {round->store, one};
    const struct kiln_submission submission = {
        .action_digest = one->digest, .action = one->action.data, .action_len = one->action.len, .contents = &one->content,
        .contents_count = 1, .build_id = "", .scope = round->tenant, .upload = upload, .context = both};
    struct kiln_verdict verdict = {0};
    double begin = bench_now_ms();
    int rc = kiln_submit(round->submitter, &submission, kiln_clock_ms() + WAIT_MS, &verdict, &err);
    one->took_ms = bench_now_ms() - begin;
    if (!rc && verdict.status != KILN_ANSWER_RESULT)
        rc = kiln_fail(&err, KILN_E_IO, "no result: %s", verdict.reason ? verdict.reason : "");
    kiln_verdict_release(&verdict);
    return rc ? complain("submit", &err) : 0;
}

static void *submit_some(void *argument) {
    struct round *round = argument;
    for (;;) {
        pthread_mutex_lock(&round->lock);
        size_t at = round->failed ? round->count : round->next++;
        pthread_mutex_unlock(&round->lock);
        if (at >= round->count)
            return NULL;
        if (submit_one(round, &round->all[at]))
            round->failed = true;
    }
}

static int prepare(struct round *round, const char *dir, bool fresh, uint64_t salt, struct kiln_err *err) {
    for (size_t i = 0; i < round->count; i++) {
        release_one(&round->all[i]);
        uint64_t number = ++serial;
        int rc = make_pack(dir, fresh ? number : salt, &round->all[i], err);
        if (!rc)
            rc = make_action(number, &round->all[i], err);
        if (rc)
            return rc;
    }
    return 0;
}

static int fly(struct round *round, unsigned threads) {
    pthread_t ids[64];
    unsigned started = 0;
    double begin = bench_now_ms();
    round->next = 0;
    while (started < threads && pthread_create(&ids[started], NULL, submit_some, round) == 0)
        started++;
    for (unsigned i = 0; i < started; i++)
        pthread_join(ids[i], NULL);
    if (round->failed || !started)
        return 1;
    printf("{\"wall_ms\": %.3f, \"ms\": [", bench_now_ms() - begin);
    for (size_t i = 0; i < round->count; i++)
        printf("%s%.3f", i ? ", " : "", round->all[i].took_ms);
    printf("]}\n");
    return fflush(stdout);
}

static int rounds(struct round *round, const char *dir, struct kiln_err *err) {
    char line[100], mode[10];
    unsigned threads;
    uint64_t salt;
    if (getrandom(&serial, sizeof serial, 0) != sizeof serial || getrandom(&salt, sizeof salt, 0) != sizeof salt)
        return kiln_fail_errno(err, KILN_E_IO, "random bytes");
    while (fgets(line, sizeof line, stdin)) {
        size_t count;
        if (sscanf(line, "%zu %u %9s", &count, &threads, mode) != 3 || count > COUNT_MAX || !threads || threads > 64)
            return kiln_fail(err, KILN_E_INVAL, "not COUNT THREADS MODE: %s", line);
        int rc = 0;
        if (strcmp(mode, "hit") != 0) {
            for (size_t i = 0; i < round->count; i++)
                release_one(&round->all[i]);
            free(round->all);
            round->count = count;
            round->all = calloc(count, sizeof *round->all);
            if (!round->all)
                return kiln_fail(err, KILN_E_NOMEM, "round");
            for (size_t i = 0; i < count; i++)
                round->all[i].pack = -1;
            rc = prepare(round, dir, strcmp(mode, "new") == 0, salt, err);
        }
        if (rc || fly(round, threads))
            return rc ? rc : kiln_fail(err, KILN_E_IO, "a submission failed");
    }
    return 0;
}

static int submit(const char *config, const char *dir) {
    struct kiln_err err = {0};
    struct kiln_conf *conf = NULL;
    struct kiln_fleet *fleet = NULL;
    struct kiln_bus *bus = NULL;
    struct round round = {.lock = PTHREAD_MUTEX_INITIALIZER};
    int rc = kiln_settings_load(config, NULL, &conf, &err);
    if (!rc)
        rc = kiln_fleet_open(conf, KILN_ROLE_OF_AGENT, dir, &fleet, &err);
    if (!rc)
        rc = kiln_fleet_open_bus(fleet, &bus, &err);
    if (!rc) {
        uint32_t partitions = (uint32_t)kiln_conf_number(conf, "fleet.result_partitions");
        const struct kiln_submitter_options options = {
            .agent = kiln_fleet_principal(fleet), .tenant = kiln_fleet_tenant(fleet),
            .waiter_partition = kiln_kafka_result_partition(kiln_fleet_principal(fleet), kiln_fleet_incarnation(fleet), partitions)};
        round.tenant = options.tenant;
        round.store = kiln_fleet_store(fleet);
        rc = kiln_submitter_new(bus, &options, &round.submitter, &err);
    }
    if (!rc)
        rc = rounds(&round, dir, &err);
    for (size_t i = 0; i < round.count; i++)
        release_one(&round.all[i]);
    free(round.all);
    kiln_submitter_free(round.submitter);
    kiln_fleet_close(fleet);
    kiln_conf_free(conf);
    return rc ? complain("submit", &err) : 0;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    kiln_log_init(STDERR_FILENO, "bench", KILN_LOG_WARN, false);
    if (argc == 5 && !strcmp(argv[1], "execute"))
        return execute(argv[2], argv[3], (unsigned)strtoul(argv[4], NULL, 10));
    if (argc == 4 && !strcmp(argv[1], "submit"))
        return submit(argv[2], argv[3]);
    fprintf(stderr, "usage: kiln-bench-miss execute CONFIG DIR SLOTS | submit CONFIG DIR\n");
    return 2;
}
