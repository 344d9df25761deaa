#include "producer/agent/compile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/base/path.h"
#include "producer/agent/history.h"
#include "producer/agent/replay.h"
#include "producer/agent/request_env.h"
#include "producer/agent/scope.h"

#define PLACED_TIMEOUT_MS 120000
#define UPLOADS_AT_ONCE 32u // made and open at the same time
#define SCOPE_DOUBT_MS (10 * 60 * 1000)

// What is being served; the reason is set once the unit is to be compiled locally.
struct serving {
    const struct kiln_compile_context *context;
    struct kiln_conversation *conversation;
    const struct kiln_compile_request *request;
    const char *build_id;
    struct kiln_unit unit;
    struct kiln_lookup lookup; // with what is of this request
    struct kiln_fetched fetched;
    struct kiln_digest kind; // fleet: of unit, for the history
    uint64_t started_us;
    bool missed;
};

static int answer_local(const struct serving *serving, const struct kiln_err *err) {
    struct kiln_stats *stats = serving->context->stats;
    char reason[512];
    if (err->code == KILN_E_UNSUPPORTED)
        snprintf(reason, sizeof reason, "%s", err->text);
    else
        snprintf(reason, sizeof reason, "error_%s: %s", kiln_code_name(err->code), err->text);
    if (!strncmp(reason, "pass_through", 12)) {
        kiln_stats_add(stats, serving->build_id, KILN_STAT_PASSED_THROUGH);
    } else {
        if (err->code != KILN_E_UNSUPPORTED)
            kiln_stats_add(stats, serving->build_id, KILN_STAT_ERRORS);
        kiln_stats_add_local(stats, serving->build_id, reason);
        kiln_log(KILN_LOG_INFO, "local", "crate", serving->unit.call.crate_name, "reason", reason, NULL);
    }
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(4096);
    int rc = kiln_local_encode(reason, &payload, NULL);
    return rc ? rc
              : kiln_conversation_send(serving->conversation, KILN_FRAME_LOCAL, payload.data, payload.len, NULL, 0, NULL);
}

static int reference(struct kiln_content_ref **refs, size_t *count, enum kiln_content_kind kind,
                     const struct kiln_digest *digest, uint64_t size, struct kiln_err *err) {
    for (size_t i = 0; i < *count; i++)
        if ((*refs)[i].kind == kind && kiln_digest_equal(&(*refs)[i].digest, digest))
            return 0;
    if (*count % 64 == 0) {
        struct kiln_content_ref *grown = realloc(*refs, (*count + 64) * sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "job contents");
        *refs = grown;
    }
    (*refs)[(*count)++] = (struct kiln_content_ref){.kind = kind, .digest = *digest, .size = size};
    return 0;
}

static int reference_pack(const struct kiln_unit_dir *dir, struct kiln_content_ref **refs, size_t *count, struct kiln_err *err) {
    return reference(refs, count, KILN_CONTENT_PACK, &dir->tree, 0, err);
}

// All that the action needs: packs, the list of libraries, the libraries.
static int list_contents(const struct kiln_unit *unit, struct kiln_content_ref **refs, size_t *count, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < unit->dirs_count; i++)
        rc = reference_pack(&unit->dirs[i], refs, count, err);
    for (size_t i = 0; rc == 0 && i < unit->natives_count; i++)
        rc = reference_pack(&unit->natives[i], refs, count, err);
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    struct kiln_digest digest;
    if (rc == 0)
        rc = kiln_unit_libraries_tree(&unit->closure, &tree, err);
    if (rc == 0)
        rc = kiln_tree_encode(&tree, &encoding, err);
    if (rc == 0) {
        kiln_digest_of(encoding.data, encoding.len, &digest);
        rc = reference(refs, count, KILN_CONTENT_LIST, &digest, encoding.len, err);
    }
    for (size_t i = 0; rc == 0 && i < unit->closure.count; i++)
        rc = reference(refs, count, KILN_CONTENT_BLOB, &unit->closure.libraries[i].digest, unit->closure.libraries[i].size, err);
    return rc;
}

static int make_pack(const struct serving *serving, const struct kiln_unit_dir *dir, int *fd, struct kiln_err *err) {
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autofd int root = open(dir->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autofd int pack = memfd_create("kiln-pack", MFD_CLOEXEC);
    if (pack < 0)
        return kiln_fail_errno(err, KILN_E_IO, "pack %s", dir->dir);
    int rc = root < 0 ? kiln_tree_finish(&tree, err) : kiln_dir_tree(serving->context->unit.memo, dir->dir, dir->rule, &tree, err);
    struct kiln_digest digest;
    if (rc == 0)
        rc = kiln_tree_digest(&tree, &digest, err);
    if (rc == 0 && !kiln_digest_equal(&digest, &dir->tree)) {
        // A native directory that the action has empty, or inputs that changed since the action was made.
        kiln_tree_release(&tree);
        tree = (struct kiln_tree){0};
        rc = kiln_tree_finish(&tree, err);
        if (rc == 0)
            rc = kiln_tree_digest(&tree, &digest, err);
        if (rc == 0 && !kiln_digest_equal(&digest, &dir->tree))
            rc = kiln_fail(err, KILN_E_UNSUPPORTED, "changing_inputs: %s changed during the build", dir->dir);
    }
    if (rc == 0)
        rc = kiln_pack_write(&tree, root, pack, err);
    if (rc == KILN_E_CORRUPT)
        return kiln_wrap(err, KILN_E_UNSUPPORTED, "changing_inputs");
    if (rc == 0)
        *fd = kiln_steal_fd(&pack);
    return rc;
}

static int open_blob(const struct serving *serving, const struct kiln_content_ref *content, int *fd, struct kiln_err *err) {
    const struct kiln_closure *closure = &serving->unit.closure;
    for (size_t i = 0; i < closure->count; i++) {
        const struct kiln_library *library = &closure->libraries[i];
        if (!kiln_digest_equal(&library->digest, &content->digest))
            continue;
        *fd = open(library->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        return *fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "open %s", library->path) : 0;
    }
    return kiln_fail(err, KILN_E_INVAL, "a content was wanted that the job does not have");
}

static int make_list(const struct serving *serving, int *fd, struct kiln_err *err) {
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    kiln_autofd int list = memfd_create("kiln-list", MFD_CLOEXEC);
    if (list < 0)
        return kiln_fail_errno(err, KILN_E_IO, "list of libraries");
    int rc = kiln_unit_libraries_tree(&serving->unit.closure, &tree, err);
    if (rc == 0)
        rc = kiln_tree_encode(&tree, &encoding, err);
    if (rc == 0)
        rc = kiln_fs_write_all(list, encoding.data, encoding.len, err);
    if (rc == 0)
        *fd = kiln_steal_fd(&list);
    return rc;
}

static int open_content(const struct serving *serving, const struct kiln_content_ref *content, int *fd, struct kiln_err *err) {
    const struct kiln_unit *unit = &serving->unit;
    if (content->kind == KILN_CONTENT_LIST)
        return make_list(serving, fd, err);
    if (content->kind == KILN_CONTENT_BLOB)
        return open_blob(serving, content, fd, err);
    for (size_t i = 0; i < unit->dirs_count; i++)
        if (kiln_digest_equal(&unit->dirs[i].tree, &content->digest))
            return make_pack(serving, &unit->dirs[i], fd, err);
    for (size_t i = 0; i < unit->natives_count; i++)
        if (kiln_digest_equal(&unit->natives[i].tree, &content->digest))
            return make_pack(serving, &unit->natives[i], fd, err);
    return kiln_fail(err, KILN_E_INVAL, "a pack was wanted that the job does not have");
}

// Some of the wanted contents at once.
static int upload_some(const struct serving *serving, const struct kiln_content_ref *contents, char *const *keys, size_t count,
                       struct kiln_err *err) {
    struct kiln_store_offer offers[UPLOADS_AT_ONCE];
    size_t opened = 0;
    int rc = 0;
    for (; rc == 0 && opened < count; opened++) {
        offers[opened] = (struct kiln_store_offer){.space = KILN_SPACE_QUARANTINE, .key = keys[opened], .fd = -1,
                                                   .max_bytes = KILN_PACK_CONTENT_MAX};
        // A pack bears the name of its tree, whose bytes were just hashed.
        if (contents[opened].kind != KILN_CONTENT_PACK)
            offers[opened].expected = &contents[opened].digest;
        rc = open_content(serving, &contents[opened], &offers[opened].fd, err);
    }
    if (rc == 0)
        rc = kiln_store_put_many(serving->lookup.store, offers, count, err);
    for (size_t i = 0; i < opened; i++)
        kiln_cleanup_fd(&offers[i].fd);
    return rc == KILN_E_CORRUPT ? kiln_wrap(err, KILN_E_UNSUPPORTED, "changing_inputs") : rc;
}

static int upload(void *argument, const struct kiln_content_ref *contents, char *const *keys, size_t count,
                  struct kiln_err *err) {
    const struct serving *serving = argument;
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < count; at += UPLOADS_AT_ONCE) {
        size_t some = count - at < UPLOADS_AT_ONCE ? count - at : UPLOADS_AT_ONCE;
        rc = upload_some(serving, contents + at, keys + at, some, err);
    }
    if (rc && serving->lookup.link && err)
        kiln_link_store_failed(serving->lookup.link, err);
    return rc && err ? err->code : rc;
}

// Infrastructure that cannot run jobs is not asked for each unit again.
static int refuse(const struct kiln_compile_context *context, const struct kiln_verdict *verdict, struct kiln_err *err) {
    if (!strncmp(verdict->reason, "sandbox_unavailable", 19) || !strncmp(verdict->reason, "store_unusable", 14))
        kiln_breaker_trip(context->breaker, kiln_clock_ms(), verdict->reason);
    return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", verdict->reason);
}

static int take_envelope(const struct serving *serving, const struct kiln_verdict *verdict, struct kiln_result *result,
                         struct kiln_err *err) {
    const struct kiln_compile_context *context = serving->context;
    const struct kiln_digest *action = &serving->unit.action_digest;
    if (context->tenant && !verdict->shared)
        kiln_history_record(context->lookup.l0, &serving->kind, verdict->waited_ms);
    return kiln_lookup_take_answer(&serving->lookup, action, verdict->envelope.data, verdict->envelope.len, result, err);
}

// Why a submission had no verdict, in the words of a fleet.
static int explain_silence(const struct serving *serving, struct kiln_submitter *submitter, uint64_t asked_ms, uint64_t wait_ms,
                           int rc, struct kiln_err *err) {
    if (rc == KILN_E_LIMIT && !err->retriable)
        return kiln_wrap(err, KILN_E_UNSUPPORTED, "record_too_large");
    if (!serving->context->tenant)
        return rc;
    if (rc == KILN_E_TIMEOUT && !strncmp(err->text, "fleet_silent", 12)) {
        if (kiln_submitter_heard_ms(submitter) < asked_ms) // else one verifier is, and its neighbour's work is on its way to it
            kiln_link_silent(serving->context->lookup.link, err->text);
        err->code = KILN_E_UNSUPPORTED;
        return KILN_E_UNSUPPORTED;
    }
    if (rc == KILN_E_TIMEOUT)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "late: no result within %llu ms; it is kept when it comes",
                         (unsigned long long)wait_ms);
    return rc == KILN_E_IO || rc == KILN_E_CLOSED || rc == KILN_E_LIMIT ? kiln_wrap(err, KILN_E_UNSUPPORTED, "fleet_unreachable") : rc;
}

static uint64_t choose_wait(const struct serving *serving) {
    const struct kiln_compile_context *context = serving->context;
    if (!context->tenant)
        return context->wait_ms;
    struct kiln_history history;
    kiln_history_load(context->lookup.l0, &serving->kind, &history);
    return kiln_history_wait_ms(&history, context->wait_ms);
}

static int ask_verifier(struct serving *serving, struct kiln_submitter *submitter, struct kiln_verdict *verdict,
                        struct kiln_err *err) {
    const struct kiln_compile_context *context = serving->context;
    kiln_autofree struct kiln_content_ref *contents = NULL;
    size_t contents_count = 0;
    int rc = list_contents(&serving->unit, &contents, &contents_count, err);
    if (rc)
        return rc;
    const struct kiln_submission submission = {
        .action_digest = serving->unit.action_digest,
        .action = serving->unit.action_bytes.data, .action_len = serving->unit.action_bytes.len,
        .contents = contents, .contents_count = contents_count,
        .closure = serving->unit.closure.stems, .closure_count = serving->unit.closure.stems_count,
        .build_id = serving->build_id, .scope = serving->lookup.scope, .upload = upload, .context = serving,
    };
    const uint64_t asked_ms = kiln_clock_ms(), wait_ms = choose_wait(serving);
    rc = kiln_submit(submitter, &submission, asked_ms + wait_ms, verdict, err);
    if (rc)
        return explain_silence(serving, submitter, asked_ms, wait_ms, rc, err);
    if (verdict->executed && (verdict->status == KILN_ANSWER_RESULT || !strncmp(verdict->reason, "job_", 4)))
        kiln_stats_add(context->stats, serving->build_id, KILN_STAT_EXECUTIONS);
    return 0;
}

static int submit_in_scope(struct serving *serving, struct kiln_submitter *submitter, struct kiln_result *result,
                           struct kiln_err *err) {
    struct kiln_verdict verdict __attribute__((cleanup(kiln_verdict_release))) = {0};
    int rc = ask_verifier(serving, submitter, &verdict, err);
    if (rc)
        return rc;
    if (verdict.status != KILN_ANSWER_RESULT)
        return refuse(serving->context, &verdict, err);
    kiln_breaker_succeed(serving->context->breaker);
    return take_envelope(serving, &verdict, result, err);
}

static int submit_miss(struct serving *serving, struct kiln_result *result, struct kiln_err *err) {
    const struct kiln_compile_context *context = serving->context;
    struct kiln_submitter *submitter = context->submitter;
    char reason[256];
    if (kiln_breaker_open(context->breaker, kiln_clock_ms(), reason, sizeof reason))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", reason);
    int rc = context->lookup.link ? kiln_link_submitter(context->lookup.link, &submitter, err) : 0;
    if (rc)
        return rc;
    rc = submit_in_scope(serving, submitter, result, err);
    // What this host takes for public a verifier may not (a library of long ago, a toolchain that is not published).
    bool refused_scope = rc == KILN_E_UNSUPPORTED && !strncmp(err->text, "scope", 5);
    if (!refused_scope || strcmp(serving->lookup.scope, KILN_SCOPE_PUBLIC))
        return rc;
    kiln_log(KILN_LOG_INFO, "not_public", "crate", serving->unit.call.crate_name, "reason", err->text, NULL);
    if (strstr(err->text, "toolchain"))
        context->doubts->public_after_ms = kiln_clock_ms() + SCOPE_DOUBT_MS;
    serving->lookup.scope = context->tenant;
    rc = kiln_lookup_result(&serving->lookup, &serving->unit.action_digest, result, err);
    return rc == KILN_E_NOTFOUND ? submit_in_scope(serving, submitter, result, err) : rc;
}

static int send_order(const struct serving *serving, const struct kiln_replay *replay, struct kiln_err *err) {
    size_t at = 0;
    int rc;
    do {
        size_t count = replay->count - at > KILN_FRAME_FDS_MAX ? KILN_FRAME_FDS_MAX : replay->count - at;
        bool more = at + count < replay->count;
        struct kiln_place_order order = {.more = more, .files = replay->files + at, .files_count = count};
        if (!more) {
            order.out = replay->out.data;
            order.out_len = replay->out.len;
            order.errout = replay->errout.data;
            order.errout_len = replay->errout.len;
        }
        kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(KILN_FRAME_BYTES_MAX);
        rc = kiln_place_order_encode(&order, &payload, err);
        if (rc == KILN_E_LIMIT)
            return kiln_wrap(err, KILN_E_UNSUPPORTED, "messages_too_large");
        if (rc == 0)
            rc = kiln_conversation_send(serving->conversation, KILN_FRAME_PLACE, payload.data, payload.len,
                                        replay->fds + at, count, err);
        at += count;
    } while (rc == 0 && at < replay->count);
    return rc;
}

static void learn_placed(const struct serving *serving, const struct kiln_replay *replay, const struct kiln_result *result,
                         const struct kiln_placed *placed) {
    // A proc macro is complete in itself: whoever uses it needs nothing of what it was made from.
    bool is_macro = serving->unit.call.crate_types == KILN_CRATE_PROC_MACRO;
    for (size_t i = 0; i < replay->count && i < placed->count; i++) {
        const struct kiln_placed_file *file = &placed->files[i];
        if (kiln_digest_is_zero(&replay->digests[i]) || file->size != replay->files[i].size)
            continue;
        kiln_memo_record_placed(serving->context->unit.memo, file->dev, file->ino, file->size, file->mtime_ns,
                                file->ctime_ns, &replay->digests[i]);
        const char *name = kiln_path_base(replay->files[i].path), *dot = strrchr(name, '.');
        if (dot && (!strcmp(dot, ".rlib") || !strcmp(dot, ".rmeta") || !strcmp(dot, ".so"))) {
            kiln_closure_remember(serving->context->unit.l0, &replay->digests[i], result->closure,
                                  is_macro ? 0 : result->closure_count);
            kiln_scope_remember_library(serving->context->unit.l0, result, &replay->digests[i]);
        }
    }
}

// true: the wrapper placed the files. false: it compiles locally and said why.
static bool await_placed(const struct serving *serving, const struct kiln_replay *replay, const struct kiln_result *result) {
    kiln_autoframe struct kiln_frame frame = {0};
    if (kiln_conversation_receive(serving->conversation, kiln_clock_ms() + PLACED_TIMEOUT_MS, &frame, NULL))
        return true; // killed, or gone after it had what it needs: nothing to learn
    if (frame.type != KILN_FRAME_PLACED) {
        kiln_autofree char *reason = NULL;
        if (frame.type != KILN_FRAME_LOCAL || kiln_local_decode(frame.payload, frame.len, &reason, NULL))
            reason = strdup("placing: no reason given");
        kiln_stats_add_local(serving->context->stats, serving->build_id, reason ? reason : "placing");
        return false;
    }
    struct kiln_placed placed = {0};
    if (kiln_placed_decode(frame.payload, frame.len, &placed, NULL) == 0) {
        learn_placed(serving, replay, result, &placed);
        kiln_placed_release(&placed);
    }
    return true;
}

static int replay_result(struct serving *serving, const struct kiln_result *result, struct kiln_replay *replay,
                         struct kiln_err *err) {
    int rc = kiln_lookup_bring(&serving->lookup, result, err);
    if (rc == 0)
        rc = kiln_replay_build(&serving->lookup, &serving->unit, result, replay, err);
    if (rc == 0 || rc == KILN_E_UNSUPPORTED || !serving->lookup.keeper)
        return rc;
    // A file of the cache that was damaged is gone now: the vault has it.
    rc = kiln_lookup_bring(&serving->lookup, result, err);
    return rc ? rc : kiln_replay_build(&serving->lookup, &serving->unit, result, replay, err);
}

static int find_result(struct serving *serving, struct kiln_result *result, struct kiln_replay *replay, struct kiln_err *err) {
    const struct kiln_compile_context *context = serving->context;
    if (context->prefetch)
        kiln_prefetch_await(context->prefetch, &serving->unit.action_digest);
    int rc = kiln_lookup_result(&serving->lookup, &serving->unit.action_digest, result, err);
    if (rc == 0) {
        rc = replay_result(serving, result, replay, err);
        if (rc == 0 || rc == KILN_E_UNSUPPORTED)
            return rc;
        // Content that is gone or damaged: make it again.
        kiln_l0_drop_result(context->lookup.l0, &serving->unit.action_digest);
        kiln_result_release(result);
        *result = (struct kiln_result){0};
    } else if (rc != KILN_E_NOTFOUND) {
        return rc;
    }
    serving->missed = true;
    rc = submit_miss(serving, result, err);
    return rc ? rc : replay_result(serving, result, replay, err);
}

// Where the result is looked for, and what of a fleet a request needs.
static void begin_lookup(struct serving *serving) {
    const struct kiln_compile_context *context = serving->context;
    serving->lookup = context->lookup;
    serving->lookup.scope = KILN_SCOPE;
    if (!context->tenant)
        return;
    bool may_be_public = kiln_clock_ms() >= context->doubts->public_after_ms;
    serving->lookup.scope = may_be_public && kiln_scope_is_public(context->lookup.keeper, context->lookup.l0, &serving->unit)
                                ? KILN_SCOPE_PUBLIC : context->tenant;
    serving->lookup.fetched = &serving->fetched;
    kiln_history_key(&serving->unit.action, &serving->kind);
}

static int serve(struct serving *serving, struct kiln_err *err) {
    const struct kiln_compile_context *context = serving->context;
    const pid_t wrapper = kiln_conversation_pid(serving->conversation);
    struct kiln_prefetch_build *build = context->prefetch ? kiln_prefetch_begin(context->prefetch, wrapper) : NULL;
    int rc = kiln_unit_prepare(&context->unit, serving->request, wrapper, &serving->unit, err);
    if (rc)
        return rc;
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_replay replay __attribute__((cleanup(kiln_replay_release))) = {0};
    begin_lookup(serving);
    rc = find_result(serving, &result, &replay, err);
    if (rc == KILN_E_UNSUPPORTED && (!strncmp(err->text, "path_value", 10) || !strncmp(err->text, "foreign_path", 12)))
        kiln_lookup_mark_local(&context->lookup, &serving->unit.action_digest, err->text);
    kiln_conversation_end_work(serving->conversation);
    if (rc)
        return rc;
    if (build)
        kiln_prefetch_used(context->prefetch, build, result.scope, &serving->unit.action_digest);
    // Counted before it is sent: whoever looks at the counters after a build finds all of it.
    enum kiln_stat stat = serving->missed ? KILN_STAT_MISSES : KILN_STAT_HITS;
    kiln_stats_add(context->stats, serving->build_id, stat);
    rc = send_order(serving, &replay, err);
    if (rc == 0 && !serving->missed)
        kiln_stats_hit_time(context->stats, kiln_clock_us() - serving->started_us);
    if (rc || !await_placed(serving, &replay, &result))
        kiln_stats_take_back(context->stats, serving->build_id, stat);
    return rc;
}

// How long it took counts too, or the next unit of its kind would not be waited for either.
static void record_late(const struct kiln_compile_context *context, const struct kiln_late_result *late) {
    struct kiln_job_submitted submission = {0};
    kiln_autoaction struct kiln_action action = {0};
    struct kiln_digest kind;
    if (kiln_job_submitted_decode(late->submission, late->submission_len, &submission, NULL) == 0 &&
        kiln_action_decode(submission.action, submission.action_len, &action, NULL) == 0) {
        kiln_history_key(&action, &kind);
        kiln_history_record(context->lookup.l0, &kind, late->waited_ms);
    }
    kiln_job_submitted_release(&submission);
}

void kiln_compile_late(const struct kiln_compile_context *context, const struct kiln_late_result *late) {
    struct kiln_lookup lookup = context->lookup;
    struct kiln_fetched fetched = {0};
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_err err = {0};
    lookup.scope = late->scope;
    lookup.fetched = &fetched;
    int rc = kiln_lookup_accept(&lookup, late->action, late->envelope, late->len, &result, &err);
    if (rc == 0)
        record_late(context, late);
    if (rc == 0)
        rc = kiln_lookup_bring(&lookup, &result, &err);
    kiln_log(KILN_LOG_INFO, "late_result", "kept", rc ? "no" : "yes", "error", rc ? err.text : "", NULL);
    kiln_fetched_release(&fetched);
}

void kiln_compile_serve(const struct kiln_compile_context *context, struct kiln_conversation *conversation,
                        const struct kiln_compile_request *request) {
    const char *build_id = kiln_request_env(request->env, request->env_count, "KILN_BUILD_ID");
    struct serving serving = {.context = context, .conversation = conversation, .request = request,
                              .build_id = build_id ? build_id : "", .started_us = kiln_clock_us()};
    struct kiln_err err = {0};
    kiln_stats_add(context->stats, serving.build_id, KILN_STAT_REQUESTS);
    kiln_conversation_begin_work(conversation);
    int rc = serve(&serving, &err);
    kiln_conversation_end_work(conversation);
    if (rc)
        answer_local(&serving, &err);
    kiln_fetched_release(&serving.fetched);
    kiln_unit_release(&serving.unit);
}
