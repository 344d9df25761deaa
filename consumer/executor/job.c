#include "consumer/executor/job.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "consumer/executor/collect.h"
#include "consumer/executor/toolchain_root.h"
#include "consumer/executor/upload.h"
#include "consumer/preload/observe.h"
#include "consumer/run/client.h"
#include "consumer/run/watch.h"
#include "consumer/run/witness.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/core/profile.h"
#include "lib/core/result.h"
#include "lib/rustc/environment.h"
#include "lib/rustc/paths.h"
#include "lib/wire/attested.h"

#define WALLS_MS 20000
#define BINDS_MAX (KILN_ACTION_INPUTS_MAX + 8u)
#define OBSERVATIONS_MAX 64u

// The limits of a job, in one place; the memory is also bounded by three quarters of the host's.
static const struct kiln_job_limits usual_limits = {
    .wall_ms = 20 * 60 * 1000, .memory_bytes = 8ull << 30, .out_bytes = 8ull << 30, .tmp_bytes = 4ull << 30,
    .file_bytes = 4ull << 30, .text_bytes = 64u << 20, .inodes = 100000, .processes = 2048};

struct job {
    const struct kiln_job_context *context;
    const struct kiln_work *work;
    struct kiln_candidate *candidate;
    struct kiln_action action;
    struct kiln_stage stage;
    struct kiln_run_session session;
    struct kiln_run_report report;
    int toolchain;
    int watch; // a memfd for what the second observer sees; -1: the job is not watched
    struct kiln_digest text_digests[2];
    char *places[5]; // target, observer, sysroot, object, preload text
};

enum { TARGET, OBSERVER, SYSROOT, OBJECT, PRELOAD };

static int add_text(char ***list, size_t *count, const char *text, struct kiln_err *err) {
    for (size_t i = 0; i < *count; i++)
        if (!strcmp((*list)[i], text))
            return 0;
    if (*count == OBSERVATIONS_MAX)
        return 0;
    char **grown = realloc(*list, (*count + 1) * sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "candidate");
    *list = grown;
    grown[*count] = strdup(text);
    if (!grown[*count])
        return kiln_fail(err, KILN_E_NOMEM, "candidate");
    (*count)++;
    return 0;
}

static int observe(struct job *job, const char *text, struct kiln_err *err) {
    return add_text(&job->candidate->observations, &job->candidate->observations_count, text, err);
}

// Ends the job with a status and a reason; the run itself is not at fault for INFRA.
static int conclude(struct job *job, enum kiln_run_status status, const char *word, const char *text, struct kiln_err *err) {
    char reason[640];
    snprintf(reason, sizeof reason, "%s: %s", word, text);
    job->candidate->status = status;
    return add_text(&job->candidate->reasons, &job->candidate->reasons_count, reason, err);
}

static const struct kiln_job_limits *limits_of(const struct job *job) {
    return job->context->limits ? job->context->limits : &usual_limits;
}

static uint64_t memory_limit(const struct kiln_job_limits *limits) {
    uint64_t host_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return host_bytes / 4 * 3 < limits->memory_bytes ? host_bytes / 4 * 3 : limits->memory_bytes;
}

static int make_places(struct job *job, struct kiln_err *err) {
    job->places[TARGET] = kiln_place(KILN_PLACE_TARGET, NULL);
    job->places[OBSERVER] = kiln_place(KILN_PLACE_OBSERVER, NULL);
    job->places[SYSROOT] = kiln_place(KILN_PLACE_SYSROOT, NULL);
    job->places[OBJECT] = kiln_place(KILN_PLACE_OBSERVER, "libkiln-observe.so");
    if (job->places[OBJECT] && asprintf(&job->places[PRELOAD], "%s\n", job->places[OBJECT]) < 0)
        job->places[PRELOAD] = NULL;
    for (int i = 0; i < 5; i++)
        if (!job->places[i])
            return kiln_fail(err, KILN_E_NOMEM, "job");
    return 0;
}

static int open_action(struct job *job, struct kiln_err *err) {
    struct kiln_digest digest;
    kiln_digest_of(job->work->action, job->work->action_len, &digest);
    if (!kiln_digest_equal(&digest, &job->work->action_digest))
        return kiln_fail(err, KILN_E_CORRUPT, "the work names another action than it carries");
    int rc = kiln_action_decode(job->work->action, job->work->action_len, &job->action, err);
    if (rc == 0 && strcmp(job->action.profile, KILN_PROFILE))
        rc = kiln_fail(err, KILN_E_DENIED, "the action is for sandbox %.100s, this executor has " KILN_PROFILE, job->action.profile);
    return rc;
}

static int bind_path(int dir, const char *path, const char *dest, bool file, struct kiln_run_spec *spec, int *opened,
                     struct kiln_err *err) {
    int fd = openat(dir, path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "open %s", path);
    *opened = fd;
    spec->binds[spec->binds_count++] = (struct kiln_run_bind){.fd = (uint32_t)fd, .dest = (char *)dest, .file = file};
    return 0;
}

static int fill_environment(const struct kiln_action *action, struct kiln_run_spec *spec, struct kiln_err *err) {
    spec->env = calloc(action->env_count + 1, sizeof *spec->env);
    if (!spec->env)
        return kiln_fail(err, KILN_E_NOMEM, "job");
    for (size_t i = 0; i < action->env_count; i++)
        if (action->env[i].present &&
            asprintf(&spec->env[spec->env_count++], "%s=%s", action->env[i].name, action->env[i].value) < 0)
            return kiln_fail(err, KILN_E_NOMEM, "job");
    return 0;
}

static void release_environment(struct kiln_run_spec *spec) {
    for (size_t i = 0; i < spec->env_count; i++)
        free(spec->env[i]);
    free(spec->env);
}

// Starts the job behind its walls. KILN_E_DENIED: a wall cannot be raised.
static int start(struct job *job, struct kiln_err *err) {
    struct kiln_run_bind binds[BINDS_MAX];
    struct kiln_run_link links[] = {{(char *)"/lib", (char *)"usr/lib"}, {(char *)"/lib64", (char *)"usr/lib64"},
                                    {(char *)"/bin", (char *)"usr/bin"}};
    struct kiln_run_file files[] = {{(char *)"/etc/ld.so.preload", (unsigned char *)job->places[PRELOAD],
                                     strlen(job->places[PRELOAD])}};
    kiln_autofree char *tmp = NULL;
    if (kiln_environment_fixed("TMPDIR", &tmp) && !tmp)
        return kiln_fail(err, KILN_E_NOMEM, "job");
    const struct kiln_job_limits *limits = limits_of(job);
    struct kiln_run_spec spec = {
        .binds = binds, .links = links, .links_count = 3, .files = files, .files_count = 1,
        .argv = job->action.argv, .argc = job->action.argc, .cwd = job->action.cwd, .out_dir = job->places[TARGET],
        .observer_dir = job->places[OBSERVER], .tmp_dir = tmp, .out_bytes = limits->out_bytes, .tmp_bytes = limits->tmp_bytes,
        .observer_bytes = 2 * KILN_OBSERVE_LOG_BYTES, .inodes = limits->inodes, .wall_ms = limits->wall_ms,
        .memory_bytes = memory_limit(limits), .file_bytes = limits->file_bytes, .text_bytes = limits->text_bytes,
        .processes = limits->processes, .watch_fd = job->watch < 0 ? 0 : (uint32_t)job->watch,
    };
    struct kiln_digest seed;
    kiln_action_seed(&job->action, &seed);
    memcpy(spec.seed, seed.bytes, sizeof spec.seed);
    kiln_autofd int usr = -1, sysroot = -1, object = -1;
    int rc = bind_path(job->toolchain, "usr", "/usr", false, &spec, &usr, err);
    if (rc == 0)
        rc = bind_path(job->toolchain, job->places[SYSROOT] + 1, job->places[SYSROOT], false, &spec, &sysroot, err);
    if (rc == 0)
        rc = bind_path(AT_FDCWD, job->context->observer, job->places[OBJECT], true, &spec, &object, err);
    for (size_t i = 0; i < job->stage.count; i++)
        binds[spec.binds_count++] = (struct kiln_run_bind){.fd = (uint32_t)job->stage.inputs[i].fd,
                                                           .dest = (char *)job->stage.inputs[i].mount};
    if (rc == 0)
        rc = fill_environment(&job->action, &spec, err);
    const struct kiln_run_options options = {.program = job->context->run_program, .arguments = job->context->run_arguments,
                                             .deadline_ms = kiln_clock_ms() + WALLS_MS};
    if (rc == 0)
        rc = kiln_run_start(&options, &spec, &job->session, err);
    release_environment(&spec);
    return rc;
}

static bool is_package_place(const char *mount) {
    static const char *const places[] = {KILN_PLACE_WORKSPACE, KILN_PLACE_REGISTRY, KILN_PLACE_GIT, KILN_PLACE_PATH};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        kiln_autofree char *place = kiln_place(places[i], NULL);
        if (place && kiln_path_beneath(mount, place))
            return true;
    }
    return false;
}

// What the job was told, for the witness. Everything is borrowed from the job but the lists themselves.
struct world {
    struct kiln_witness_world told;
    struct kiln_witness_mount *mounts;
    char **withheld;
    const char **names, **path_names;
    const char *tools[6];
};

static void release_world(struct world *world) {
    for (size_t i = 0; i < world->told.withheld_count; i++)
        free(world->withheld[i]);
    free(world->withheld);
    free(world->mounts);
    free(world->names);
    free(world->path_names);
}

static int tell_withheld(const struct job *job, struct world *world, struct kiln_err *err) {
    size_t count = 0;
    for (size_t i = 0; i < job->stage.count; i++)
        for (size_t k = 0; k < job->stage.inputs[i].tree.count; k++)
            count += job->stage.inputs[i].tree.entries[k].kind == KILN_TREE_WITHHELD;
    if (!(world->withheld = calloc(count + 1, sizeof *world->withheld)))
        return kiln_fail(err, KILN_E_NOMEM, "witness");
    for (size_t i = 0; i < job->stage.count; i++)
        for (size_t k = 0; k < job->stage.inputs[i].tree.count; k++) {
            const struct kiln_tree_entry *entry = &job->stage.inputs[i].tree.entries[k];
            if (entry->kind != KILN_TREE_WITHHELD)
                continue;
            char *path = kiln_path_join(job->stage.inputs[i].mount, entry->path);
            if (!path)
                return kiln_fail(err, KILN_E_NOMEM, "witness");
            world->withheld[world->told.withheld_count++] = path;
        }
    world->told.withheld = (const char *const *)world->withheld;
    return 0;
}

// The client hands these to every unit that it has them for; only OUT_DIR is kept from units whose sources do not name it.
static bool is_carried(const char *name) {
    return (kiln_environment_is_unit(name) && strcmp(name, "OUT_DIR") != 0) || kiln_environment_is_carried(name);
}

static int tell_world(const struct job *job, struct world *world, struct kiln_err *err) {
    const struct kiln_action *action = &job->action;
    world->mounts = calloc(job->stage.count + 1, sizeof *world->mounts);
    world->names = calloc(action->env_count + 1, sizeof *world->names);
    world->path_names = calloc(action->env_count + 1, sizeof *world->path_names);
    if (!world->mounts || !world->names || !world->path_names)
        return kiln_fail(err, KILN_E_NOMEM, "witness");
    const char *const tools[] = {"/usr", "/lib", "/lib64", "/bin", job->places[SYSROOT]};
    memcpy(world->tools, tools, sizeof tools);
    struct kiln_witness_world *told = &world->told;
    told->mounts = world->mounts;
    told->tool_prefixes = world->tools;
    told->tool_prefixes_count = 5;
    told->env_names = world->names;
    told->env_path_values = world->path_names;
    told->env_is_carried = is_carried;
    told->out_dir = job->places[TARGET];
    told->observer_dir = job->places[OBSERVER];
    told->tmp_dir = "/tmp";
    told->cwd = action->cwd;
    for (size_t i = 0; i < job->stage.count; i++) {
        bool package = is_package_place(job->stage.inputs[i].mount);
        world->mounts[told->mounts_count++] = (struct kiln_witness_mount){
            .path = job->stage.inputs[i].mount, .root_names_withheld = package, .partial = !package};
    }
    for (size_t i = 0; i < action->env_count; i++) {
        const struct kiln_action_env *variable = &action->env[i];
        if (kiln_environment_is_fixed(variable->name))
            continue;
        world->names[told->env_count++] = variable->name;
        if (variable->present && strstr(variable->value, kiln_sandbox_root()))
            world->path_names[told->env_path_count++] = variable->name;
    }
    return tell_withheld(job, world, err);
}

// Maps the observer's log; NULL when it is not the file any more that kiln-run made. The job could do anything to it, but its
// processes are gone, so it does not change or shrink now.
static const void *map_log(const struct job *job) {
    kiln_autofd int fd = -1;
    struct stat st;
    if (kiln_fs_open_beneath(job->session.observer_dir, "log", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, &fd, NULL) || fstat(fd, &st) ||
        !S_ISREG(st.st_mode) || st.st_size != KILN_OBSERVE_LOG_BYTES)
        return NULL;
    void *log = mmap(NULL, KILN_OBSERVE_LOG_BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
    return log == MAP_FAILED ? NULL : log;
}

static int read_log(struct job *job, const void *log, size_t len, struct kiln_err *err) {
    struct world world __attribute__((cleanup(release_world))) = {0};
    struct kiln_witness_report report = {0};
    int rc = tell_world(job, &world, err);
    if (rc == 0)
        rc = kiln_witness_read(log, len, &world.told, &report, err);
    for (size_t i = 0; rc == 0 && i < report.count; i++)
        rc = observe(job, report.observations[i], err);
    kiln_witness_report_release(&report);
    return rc;
}

static int read_witness(struct job *job, struct kiln_err *err) {
    const void *log = map_log(job);
    if (!log)
        return observe(job, "observer_missing: the log could not be read", err);
    int rc = read_log(job, log, KILN_OBSERVE_LOG_BYTES, err);
    munmap((void *)log, KILN_OBSERVE_LOG_BYTES);
    return rc;
}

static int read_watch(struct job *job, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf log = KILN_BUF_INIT(2 * KILN_OBSERVE_LOG_BYTES);
    int rc = lseek(job->watch, 0, SEEK_SET) < 0 ? kiln_fail_errno(err, KILN_E_IO, "what was watched") : 0;
    if (rc == 0)
        rc = kiln_fs_read_fd(job->watch, &log, err);
    return rc ? rc : read_log(job, log.data, log.len, err);
}

// Watched are jobs with macros whose system calls the preloaded observer may not see, and where the operator says so all.
static int settle_watch(struct job *job, struct kiln_err *err) {
    const char *unseen = NULL;
    int rc = job->context->watch_all ? 0 : kiln_macros_find_unseen(job->context->macros, &job->stage, &unseen, err);
    if (rc || (!unseen && !job->context->watch_all))
        return rc;
    job->watch = memfd_create("kiln-watch", MFD_CLOEXEC);
    return job->watch < 0 ? kiln_fail_errno(err, KILN_E_IO, "a memfd for what is watched") : 0;
}

static int add_output(struct job *job, enum kiln_output_kind kind, const char *name, bool executable, uint64_t size,
                      const struct kiln_digest *digest, struct kiln_err *err) {
    struct kiln_candidate *candidate = job->candidate;
    struct kiln_candidate_output *grown = realloc(candidate->outputs, (candidate->outputs_count + 1) * sizeof *grown);
    char *copy = strdup(name);
    if (grown)
        candidate->outputs = grown;
    if (!grown || !copy) {
        free(copy);
        return kiln_fail(err, KILN_E_NOMEM, "upload");
    }
    grown[candidate->outputs_count++] = (struct kiln_candidate_output){
        .kind = kind, .executable = executable, .name = copy, .size = size, .digest = *digest};
    return 0;
}

static int send_text(struct job *job, enum kiln_output_kind kind, int fd, struct kiln_upload *upload, struct kiln_err *err) {
    struct kiln_digest *digest = &job->text_digests[kind == KILN_OUTPUT_STDERR];
    uint64_t size;
    int rc = kiln_digest_of_fd(fd, limits_of(job)->text_bytes + 1, digest, &size, err);
    if (rc == 0)
        rc = add_output(job, kind, "", false, size, digest, err);
    return rc ? rc : kiln_upload_add(upload, fd, size, digest, err);
}

static int take_file(struct job *job, const struct kiln_collected *file, struct kiln_upload *upload, struct kiln_err *err) {
    char text[512];
    snprintf(text, sizeof text, "path_value: the sandbox's path is in %s", file->name);
    int rc = file->holds_sandbox_path ? observe(job, text, err) : 0;
    if (rc == 0)
        rc = add_output(job, KILN_OUTPUT_FILE, file->name, file->executable, file->size, &file->digest, err);
    return rc ? rc : kiln_upload_add(upload, file->fd, file->size, &file->digest, err);
}

static int take_outputs(struct job *job, struct kiln_err *err) {
    struct kiln_collection collection __attribute__((cleanup(kiln_collection_release))) = {0};
    int rc = kiln_collect(job->session.out_dir, &job->action, &collection, err);
    if (rc == KILN_E_DENIED || rc == KILN_E_NOTFOUND)
        return conclude(job, KILN_RUN_LIMIT, "job_outputs", err->text, err);
    if (rc)
        return rc;
    kiln_auto(kiln_upload_release) struct kiln_upload upload = {0};
    for (size_t i = 0; rc == 0 && i < collection.count; i++)
        rc = take_file(job, &collection.files[i], &upload, err);
    if (rc == 0)
        rc = send_text(job, KILN_OUTPUT_STDOUT, job->session.stdout_text, &upload, err);
    if (rc == 0)
        rc = send_text(job, KILN_OUTPUT_STDERR, job->session.stderr_text, &upload, err);
    const struct kiln_upload_place place = {job->context->store, job->context->executor, job->work, job->context->scratch_dir};
    return rc ? rc : kiln_upload_send(&upload, &place, err);
}

static int judge_end(struct job *job, struct kiln_err *err) {
    struct kiln_candidate *candidate = job->candidate;
    const struct kiln_run_report *report = &job->report;
    candidate->wall_ms = report->wall_ms;
    switch (report->end) {
    case KILN_END_EXIT:
        candidate->status = KILN_RUN_EXITED;
        candidate->exit_code = (int32_t)report->value;
        return 0;
    case KILN_END_SIGNAL:
        candidate->exit_code = (int32_t)report->value;
        return conclude(job, KILN_RUN_SIGNALED, "job_signal", report->text, err);
    case KILN_END_WALL:
    case KILN_END_MEMORY:
    case KILN_END_TEXT:
    case KILN_END_SPACE:
        return conclude(job, KILN_RUN_LIMIT, "job_limit", report->text, err);
    default:
        return conclude(job, KILN_RUN_INFRA, "sandbox_unavailable", report->text, err);
    }
}

// Why a job could not be staged: what the fleet lacks has names of its own.
static int conclude_unstaged(struct job *job, int rc, const char *lacking, struct kiln_err *err) {
    bool lacks = rc == KILN_E_NOTFOUND || rc == KILN_E_DENIED || rc == KILN_E_IO;
    bool fleet = job->context->record_key != NULL;
    return conclude(job, KILN_RUN_INFRA, fleet && lacks ? lacking : "staging", err->text, err);
}

static int run_sandbox(struct job *job, struct kiln_err *err) {
    static const char unwatched[] = KILN_WATCH_UNAVAILABLE ": ";
    int rc = start(job, err);
    if (rc && !strncmp(err->text, unwatched, sizeof unwatched - 1))
        return conclude(job, KILN_RUN_INFRA, KILN_WATCH_UNAVAILABLE, err->text + sizeof unwatched - 1, err);
    if (rc)
        return conclude(job, KILN_RUN_INFRA, "sandbox_unavailable", err->text, err);
    rc = kiln_run_wait(&job->session, kiln_clock_ms() + limits_of(job)->wall_ms + WALLS_MS, &job->report, err);
    if (rc)
        return conclude(job, KILN_RUN_INFRA, "sandbox_lost", err->text, err);
    return judge_end(job, err);
}

static int work_on(struct job *job, struct kiln_err *err) {
    int rc = make_places(job, err);
    if (rc == 0)
        rc = open_action(job, err);
    if (rc)
        return conclude(job, KILN_RUN_INFRA, "staging", err->text, err);
    rc = kiln_toolchain_root_open(job->context->toolchains, &job->action, &job->toolchain, err);
    if (rc)
        return conclude_unstaged(job, rc, "toolchain_unpublished", err);
    rc = kiln_stage_make(job->context->stages, &job->action, job->work->scope, &job->stage, err);
    if (rc)
        return conclude_unstaged(job, rc, "content_unavailable", err);
    rc = settle_watch(job, err);
    if (rc)
        return conclude(job, KILN_RUN_INFRA, "staging", err->text, err);
    rc = run_sandbox(job, err);
    if (rc || job->candidate->status != KILN_RUN_EXITED || job->candidate->exit_code != 0)
        return rc;
    rc = read_witness(job, err);
    if (rc == 0 && job->watch >= 0)
        rc = read_watch(job, err);
    if (rc == 0)
        rc = take_outputs(job, err);
    return rc ? conclude(job, KILN_RUN_INFRA, "collecting", err->text, err) : 0;
}

static int introduce(struct job *job, struct kiln_err *err) {
    struct kiln_candidate *candidate = job->candidate;
    *candidate = (struct kiln_candidate){.job = job->work->job, .incarnation = job->context->incarnation,
                                         .attempt = job->work->attempt, .action_digest = job->work->action_digest,
                                         .at_ms = kiln_clock_wall_ms()};
    candidate->executor = strdup(job->context->executor);
    candidate->pool = strdup(job->context->pool);
    candidate->backend = strdup(job->context->backend);
    return candidate->executor && candidate->pool && candidate->backend ? 0 : kiln_fail(err, KILN_E_NOMEM, "candidate");
}

int kiln_job_run(const struct kiln_job_context *context, const struct kiln_work *work, struct kiln_candidate *candidate,
                 struct kiln_err *err) {
    struct job job = {.context = context, .work = work, .candidate = candidate, .session = KILN_RUN_SESSION_INIT, .toolchain = -1,
                      .watch = -1};
    int rc = introduce(&job, err);
    if (rc == 0)
        rc = work_on(&job, err);
    if (rc == 0 && context->record_key) // whatever came of it: a verifier believes only what is signed
        rc = kiln_candidate_sign(candidate, context->record_key, err);
    kiln_run_release(&job.session);
    kiln_run_report_release(&job.report);
    kiln_stage_release(&job.stage);
    kiln_action_release(&job.action);
    if (job.toolchain >= 0)
        close(job.toolchain);
    if (job.watch >= 0)
        close(job.watch);
    for (int i = 0; i < 5; i++)
        free(job.places[i]);
    return rc;
}
