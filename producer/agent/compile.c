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
#include "producer/agent/replay.h"
#include "producer/agent/request_env.h"

#define PLACED_TIMEOUT_MS 120000

// What is being served; the reason is set once the unit is to be compiled locally.
struct serving {
    const struct kiln_compile_context *context;
    struct kiln_conversation *conversation;
    const struct kiln_compile_request *request;
    const char *build_id;
    struct kiln_unit unit;
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

static int upload_pack(const struct serving *serving, const struct kiln_unit_dir *dir, const char *key, struct kiln_err *err) {
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
    return rc ? rc
              : kiln_store_put_fd(serving->context->lookup.store, KILN_SPACE_QUARANTINE, key, pack, KILN_PACK_CONTENT_MAX,
                                  NULL, err);
}

static int upload_blob(const struct serving *serving, const struct kiln_content_ref *content, const char *key,
                       struct kiln_err *err) {
    const struct kiln_closure *closure = &serving->unit.closure;
    for (size_t i = 0; i < closure->count; i++) {
        const struct kiln_library *library = &closure->libraries[i];
        if (!kiln_digest_equal(&library->digest, &content->digest))
            continue;
        kiln_autofd int fd = open(library->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            return kiln_fail_errno(err, KILN_E_IO, "open %s", library->path);
        int rc = kiln_store_put_fd(serving->context->lookup.store, KILN_SPACE_QUARANTINE, key, fd, library->size,
                                   &library->digest, err);
        return rc == KILN_E_CORRUPT ? kiln_wrap(err, KILN_E_UNSUPPORTED, "changing_inputs") : rc;
    }
    return kiln_fail(err, KILN_E_INVAL, "a content was wanted that the job does not have");
}

static int upload_list(const struct serving *serving, const char *key, struct kiln_err *err) {
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    int rc = kiln_unit_libraries_tree(&serving->unit.closure, &tree, err);
    if (rc == 0)
        rc = kiln_tree_encode(&tree, &encoding, err);
    return rc ? rc
              : kiln_store_put_bytes(serving->context->lookup.store, KILN_SPACE_QUARANTINE, key, encoding.data, encoding.len,
                                     NULL, err);
}

static int upload(void *argument, const struct kiln_content_ref *content, const char *key, struct kiln_err *err) {
    const struct serving *serving = argument;
    const struct kiln_unit *unit = &serving->unit;
    if (content->kind == KILN_CONTENT_LIST)
        return upload_list(serving, key, err);
    if (content->kind == KILN_CONTENT_BLOB)
        return upload_blob(serving, content, key, err);
    for (size_t i = 0; i < unit->dirs_count; i++)
        if (kiln_digest_equal(&unit->dirs[i].tree, &content->digest))
            return upload_pack(serving, &unit->dirs[i], key, err);
    for (size_t i = 0; i < unit->natives_count; i++)
        if (kiln_digest_equal(&unit->natives[i].tree, &content->digest))
            return upload_pack(serving, &unit->natives[i], key, err);
    return kiln_fail(err, KILN_E_INVAL, "a pack was wanted that the job does not have");
}

// Infrastructure that cannot run jobs is not asked for each unit again.
static int refuse(const struct kiln_compile_context *context, const struct kiln_verdict *verdict, struct kiln_err *err) {
    if (!strncmp(verdict->reason, "sandbox_unavailable", 19) || !strncmp(verdict->reason, "store_unusable", 14))
        kiln_breaker_trip(context->breaker, kiln_clock_ms(), verdict->reason);
    return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", verdict->reason);
}

static int submit_miss(struct serving *serving, struct kiln_result *result, struct kiln_err *err) {
    const struct kiln_compile_context *context = serving->context;
    char reason[256];
    if (kiln_breaker_open(context->breaker, kiln_clock_ms(), reason, sizeof reason))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", reason);
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
        .build_id = serving->build_id, .upload = upload, .context = serving,
    };
    uint64_t submitted_ms = kiln_clock_wall_ms();
    struct kiln_verdict verdict __attribute__((cleanup(kiln_verdict_release))) = {0};
    rc = kiln_submit(context->submitter, &submission, kiln_clock_ms() + context->wait_ms, &verdict, err);
    if (rc == KILN_E_LIMIT)
        return kiln_wrap(err, KILN_E_UNSUPPORTED, "record_too_large");
    if (rc)
        return rc;
    bool failed = verdict.status != KILN_ANSWER_RESULT;
    if (failed && !verdict.shared && !strncmp(verdict.reason, "job_", 4))
        kiln_stats_add(context->stats, serving->build_id, KILN_STAT_EXECUTIONS);
    if (failed)
        return refuse(context, &verdict, err);
    kiln_breaker_succeed(context->breaker);
    struct kiln_result fresh = {0};
    rc = kiln_result_open(verdict.envelope.data, verdict.envelope.len, context->lookup.trust, &serving->unit.action_digest,
                          &fresh, err);
    if (rc == 0 && !verdict.shared && fresh.issued_ms >= submitted_ms)
        kiln_stats_add(context->stats, serving->build_id, KILN_STAT_EXECUTIONS);
    if (rc == 0)
        kiln_result_release(&fresh);
    return rc ? rc
              : kiln_lookup_accept(&context->lookup, &serving->unit.action_digest, verdict.envelope.data,
                                   verdict.envelope.len, result, err);
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
        if (dot && (!strcmp(dot, ".rlib") || !strcmp(dot, ".rmeta") || !strcmp(dot, ".so")))
            kiln_closure_remember(serving->context->unit.l0, &replay->digests[i], result->closure,
                                  is_macro ? 0 : result->closure_count);
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

static int find_result(struct serving *serving, struct kiln_result *result, struct kiln_replay *replay, struct kiln_err *err) {
    const struct kiln_compile_context *context = serving->context;
    int rc = kiln_lookup_result(&context->lookup, &serving->unit.action_digest, result, err);
    if (rc == 0) {
        rc = kiln_replay_build(&context->lookup, &serving->unit, result, replay, err);
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
    return rc ? rc : kiln_replay_build(&context->lookup, &serving->unit, result, replay, err);
}

static int serve(struct serving *serving, struct kiln_err *err) {
    const struct kiln_compile_context *context = serving->context;
    int rc = kiln_unit_prepare(&context->unit, serving->request, kiln_conversation_pid(serving->conversation),
                               &serving->unit, err);
    if (rc)
        return rc;
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_replay replay __attribute__((cleanup(kiln_replay_release))) = {0};
    rc = find_result(serving, &result, &replay, err);
    if (rc == KILN_E_UNSUPPORTED && (!strncmp(err->text, "path_value", 10) || !strncmp(err->text, "foreign_path", 12)))
        kiln_lookup_mark_local(&context->lookup, &serving->unit.action_digest, err->text);
    kiln_conversation_end_work(serving->conversation);
    if (rc)
        return rc;
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
    kiln_unit_release(&serving.unit);
}
