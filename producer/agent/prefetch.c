#include "producer/agent/prefetch.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "producer/agent/ancestor.h"
#include "producer/agent/hints.h"
#include "producer/agent/scope.h"

#define BUILDS_MAX 32u
#define QUIET_MS 3000u
#define AWAIT_MS 10000u
#define LOCK_FILE_BYTES_MAX (64u << 20)
#define TASKS_MAX (KILN_HINTS_MAX * 2u)

struct kiln_prefetch_build {
    pid_t pid; // 0: free
    unsigned long long started;
    bool keyed;                // there is a Cargo.lock
    struct kiln_digest key;
    struct kiln_hints used, known; // by this build; from before, in the fleet
    unsigned objects;          // that the fleet has
    bool loaded, dirty;
    uint64_t touched_ms;
};

enum task_kind { TASK_LOAD, TASK_FETCH, TASK_LATE, TASK_SAVE };

struct task {
    enum task_kind kind;
    struct kiln_prefetch_build *build; // LOAD
    struct kiln_hint hint;             // FETCH
    struct kiln_digest action;         // LATE
    char *scope;
    unsigned char *envelope, *submission;
    size_t len, submission_len;
    uint64_t waited_ms;
    struct task *next;
};

struct kiln_prefetch {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct kiln_prefetch_options options;
    pthread_t threads[KILN_PREFETCH_THREADS];
    unsigned threads_count, idle;
    struct kiln_digest fetching[KILN_PREFETCH_THREADS]; // zero: that thread fetches nothing
    struct task *first, **last;
    size_t tasks;
    struct kiln_prefetch_build builds[BUILDS_MAX];
    bool stopping, saving;
};

static void free_task(struct task *task) {
    free(task->scope);
    free(task->envelope);
    free(task->submission);
    free(task);
}

static void fetch(struct kiln_prefetch *prefetch, const struct kiln_hint *hint) {
    struct kiln_lookup lookup = prefetch->options.lookup;
    struct kiln_fetched fetched = {0};
    struct kiln_result result = {0};
    lookup.scope = hint->is_public ? KILN_SCOPE_PUBLIC : prefetch->options.tenant;
    lookup.fetched = &fetched;
    if (kiln_lookup_result(&lookup, &hint->action, &result, NULL) == 0) {
        kiln_lookup_bring(&lookup, &result, NULL);
        kiln_result_release(&result);
    }
    kiln_fetched_release(&fetched);
}

static void *work(void *argument);

// With the lock held. Takes ownership of the task.
static void push(struct kiln_prefetch *prefetch, struct task *task) {
    if (prefetch->stopping || prefetch->tasks == TASKS_MAX) {
        free_task(task);
        return;
    }
    *prefetch->last = task;
    prefetch->last = &task->next;
    prefetch->tasks++;
    if (!prefetch->idle && prefetch->threads_count < KILN_PREFETCH_THREADS &&
        pthread_create(&prefetch->threads[prefetch->threads_count], NULL, work, prefetch) == 0)
        prefetch->threads_count++;
    pthread_cond_broadcast(&prefetch->changed);
}

static void push_hint(struct kiln_prefetch *prefetch, const struct kiln_hint *hint) { // with the lock held
    struct task *task = calloc(1, sizeof *task);
    if (!task)
        return;
    task->kind = TASK_FETCH;
    task->hint = *hint;
    push(prefetch, task);
}

static char *object_key(const struct kiln_prefetch *prefetch, const struct kiln_digest *key, unsigned number) {
    char hex[KILN_DIGEST_HEX_LEN + 1], name[16];
    kiln_digest_format(key, hex);
    snprintf(name, sizeof name, "%u", number);
    return kiln_key_quarantine_in(prefetch->options.tenant, "hints", hex, name);
}

static bool read_object(struct kiln_prefetch *prefetch, const struct kiln_digest *build, unsigned number, struct kiln_hints *hints) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_HINTS_BYTES_MAX);
    kiln_autofree char *key = object_key(prefetch, build, number);
    if (!key || kiln_store_get_bytes(prefetch->options.lookup.store, KILN_SPACE_QUARANTINE, key, &bytes, NULL))
        return false;
    if (kiln_hints_decode(bytes.data, bytes.len, hints, NULL))
        kiln_log(KILN_LOG_WARN, "hints_refused", "key", key, NULL);
    return true;
}

static void read_local(struct kiln_prefetch *prefetch, const struct kiln_digest *build, struct kiln_hints *hints) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_HINTS_BYTES_MAX);
    if (kiln_l0_memo_get(prefetch->options.lookup.l0, KILN_MEMO_HINTS, build->bytes, sizeof build->bytes, &bytes, NULL) == 0)
        kiln_hints_decode(bytes.data, bytes.len, hints, NULL);
}

// What is in the local cache needs no fetching; one read of its index says so.
static void push_missing(struct kiln_prefetch *prefetch, const struct kiln_hints *hints) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    for (size_t i = 0; i < hints->count; i++) {
        kiln_buf_reset(&bytes);
        if (kiln_l0_get_result(prefetch->options.lookup.l0, &hints->all[i].action, &bytes, NULL) == 0)
            continue;
        pthread_mutex_lock(&prefetch->lock);
        push_hint(prefetch, &hints->all[i]);
        pthread_mutex_unlock(&prefetch->lock);
    }
}

static void load(struct kiln_prefetch *prefetch, struct kiln_prefetch_build *build) {
    pthread_mutex_lock(&prefetch->lock);
    const struct kiln_digest key = build->key;
    pthread_mutex_unlock(&prefetch->lock);
    struct kiln_hints known = {0}, local = {0};
    unsigned objects = 0;
    read_local(prefetch, &key, &local);
    push_missing(prefetch, &local);
    for (; objects < KILN_HINTS_OBJECTS && kiln_link_store(prefetch->options.lookup.link, NULL) == 0; objects++) {
        struct kiln_hints one = {0};
        if (!read_object(prefetch, &key, objects, &one))
            break;
        push_missing(prefetch, &one);
        for (size_t i = 0; i < one.count; i++)
            kiln_hints_add(&known, &one.all[i], NULL);
        kiln_hints_release(&one);
    }
    kiln_log(KILN_LOG_INFO, "build_begins", "hints", known.count || local.count ? "yes" : "no", NULL);
    kiln_hints_release(&local);
    pthread_mutex_lock(&prefetch->lock);
    if (kiln_digest_equal(&build->key, &key)) {
        kiln_hints_release(&build->known);
        build->known = known;
        build->objects = objects;
        build->loaded = true;
        known = (struct kiln_hints){0};
    }
    pthread_mutex_unlock(&prefetch->lock);
    kiln_hints_release(&known);
}

static bool is_quiet(const struct kiln_prefetch_build *build, uint64_t now_ms) {
    return build->dirty && build->loaded && now_ms >= build->touched_ms + QUIET_MS;
}

// The local hints of a lock file: what this build used, then what others did.
static void write_local(struct kiln_prefetch *prefetch, const struct kiln_digest *key, const struct kiln_hints *used) {
    struct kiln_hints all = {0}, before = {0};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_HINTS_BYTES_MAX);
    read_local(prefetch, key, &before);
    for (size_t i = 0; i < used->count; i++)
        kiln_hints_add(&all, &used->all[i], NULL);
    for (size_t i = 0; i < before.count; i++)
        kiln_hints_add(&all, &before.all[i], NULL);
    if (kiln_hints_encode(&all, &bytes, NULL) == 0)
        kiln_l0_memo_put(prefetch->options.lookup.l0, KILN_MEMO_HINTS, key->bytes, sizeof key->bytes, bytes.data, bytes.len, NULL);
    kiln_hints_release(&all);
    kiln_hints_release(&before);
}

// What the fleet does not have yet, as one more object. A lost race loses a hint.
static void write_object(struct kiln_prefetch *prefetch, const struct kiln_digest *build, unsigned number,
                         const struct kiln_hints *fresh) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_HINTS_BYTES_MAX);
    kiln_autofree char *key = object_key(prefetch, build, number);
    struct kiln_err err = {0};
    if (!key || kiln_hints_encode(fresh, &bytes, NULL) || kiln_link_store(prefetch->options.lookup.link, NULL))
        return;
    if (kiln_store_put_bytes(prefetch->options.lookup.store, KILN_SPACE_QUARANTINE, key, bytes.data, bytes.len, NULL, &err))
        kiln_log(KILN_LOG_INFO, "hints_unsaved", "error", err.text, NULL);
}

struct notes { // of one quiet build
    struct kiln_digest key;
    struct kiln_hints used, fresh;
    unsigned object;
};

static bool take_notes(struct kiln_prefetch_build *build, uint64_t now_ms, struct notes *notes) {
    if (!is_quiet(build, now_ms))
        return false;
    *notes = (struct notes){.key = build->key, .object = build->objects};
    build->dirty = false;
    for (size_t i = 0; i < build->used.count; i++) {
        kiln_hints_add(&notes->used, &build->used.all[i], NULL);
        if (!kiln_hints_have(&build->known, &build->used.all[i].action))
            kiln_hints_add(&notes->fresh, &build->used.all[i], NULL);
    }
    for (size_t i = 0; i < notes->fresh.count; i++)
        kiln_hints_add(&build->known, &notes->fresh.all[i], NULL);
    build->objects += notes->fresh.count != 0;
    return true;
}

static void save(struct kiln_prefetch *prefetch) {
    for (size_t i = 0; i < BUILDS_MAX; i++) {
        struct notes notes;
        pthread_mutex_lock(&prefetch->lock);
        bool taken = take_notes(&prefetch->builds[i], kiln_clock_ms(), &notes);
        pthread_mutex_unlock(&prefetch->lock);
        if (!taken)
            continue;
        write_local(prefetch, &notes.key, &notes.used);
        if (notes.fresh.count && notes.object < KILN_HINTS_OBJECTS)
            write_object(prefetch, &notes.key, notes.object, &notes.fresh);
        kiln_hints_release(&notes.used);
        kiln_hints_release(&notes.fresh);
    }
    pthread_mutex_lock(&prefetch->lock);
    prefetch->saving = false;
    pthread_mutex_unlock(&prefetch->lock);
}

static void run_task(struct kiln_prefetch *prefetch, struct task *task) {
    if (task->kind == TASK_LOAD) {
        load(prefetch, task->build);
    } else if (task->kind == TASK_FETCH) {
        fetch(prefetch, &task->hint);
    } else if (task->kind == TASK_SAVE) {
        save(prefetch);
    } else {
        const struct kiln_late_result late = {.action = &task->action, .scope = task->scope, .envelope = task->envelope,
                                              .len = task->len, .submission = task->submission,
                                              .submission_len = task->submission_len, .waited_ms = task->waited_ms};
        prefetch->options.late(prefetch->options.context, &late);
    }
}

static struct task *pop(struct kiln_prefetch *prefetch) { // with the lock held
    struct task *task = prefetch->first;
    prefetch->first = task->next;
    if (!prefetch->first)
        prefetch->last = &prefetch->first;
    prefetch->tasks--;
    return task;
}

static void *work(void *argument) {
    struct kiln_prefetch *prefetch = argument;
    pthread_mutex_lock(&prefetch->lock);
    unsigned self = 0;
    while (!pthread_equal(prefetch->threads[self], pthread_self()))
        self++;
    while (!prefetch->stopping) {
        if (!prefetch->first) {
            prefetch->idle++;
            pthread_cond_wait(&prefetch->changed, &prefetch->lock);
            prefetch->idle--;
            continue;
        }
        struct task *task = pop(prefetch);
        if (task->kind == TASK_FETCH)
            prefetch->fetching[self] = task->hint.action;
        pthread_mutex_unlock(&prefetch->lock);
        run_task(prefetch, task);
        free_task(task);
        pthread_mutex_lock(&prefetch->lock);
        prefetch->fetching[self] = (struct kiln_digest){0};
        pthread_cond_broadcast(&prefetch->changed);
    }
    pthread_mutex_unlock(&prefetch->lock);
    return NULL;
}

int kiln_prefetch_new(const struct kiln_prefetch_options *options, struct kiln_prefetch **out, struct kiln_err *err) {
    struct kiln_prefetch *prefetch = calloc(1, sizeof *prefetch);
    if (!prefetch)
        return kiln_fail(err, KILN_E_NOMEM, "prefetch");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&prefetch->lock, NULL);
    pthread_cond_init(&prefetch->changed, &attr);
    pthread_condattr_destroy(&attr);
    prefetch->options = *options;
    prefetch->last = &prefetch->first;
    *out = prefetch;
    return 0;
}

void kiln_prefetch_stop(struct kiln_prefetch *prefetch) {
    if (!prefetch)
        return;
    pthread_mutex_lock(&prefetch->lock);
    bool stopped = prefetch->stopping;
    prefetch->stopping = true; // no thread is started from now on
    pthread_cond_broadcast(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->lock);
    for (unsigned i = 0; !stopped && i < prefetch->threads_count; i++)
        pthread_join(prefetch->threads[i], NULL);
}

void kiln_prefetch_free(struct kiln_prefetch *prefetch) {
    if (!prefetch)
        return;
    kiln_prefetch_stop(prefetch);
    while (prefetch->first)
        free_task(pop(prefetch));
    for (size_t i = 0; i < BUILDS_MAX; i++) {
        kiln_hints_release(&prefetch->builds[i].used);
        kiln_hints_release(&prefetch->builds[i].known);
    }
    pthread_cond_destroy(&prefetch->changed);
    pthread_mutex_destroy(&prefetch->lock);
    free(prefetch);
}

// The nearest Cargo.lock at or above the directory that cargo runs in.
static bool key_of_build(pid_t cargo, struct kiln_digest *key) {
    char link[64], dir[PATH_MAX];
    snprintf(link, sizeof link, "/proc/%d/cwd", (int)cargo);
    ssize_t len = readlink(link, dir, sizeof dir - 1);
    if (len <= 0)
        return false;
    dir[len] = 0;
    for (;;) {
        char path[PATH_MAX + 16];
        snprintf(path, sizeof path, "%s/Cargo.lock", dir);
        kiln_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd >= 0)
            return kiln_digest_of_fd(fd, LOCK_FILE_BYTES_MAX, key, NULL, NULL) == 0;
        char *slash = strrchr(dir, '/');
        if (!slash)
            return false;
        *slash = 0;
    }
}

static struct kiln_prefetch_build *find_build(struct kiln_prefetch *prefetch, pid_t cargo, unsigned long long started) {
    for (size_t i = 0; i < BUILDS_MAX; i++)
        if (prefetch->builds[i].pid == cargo && prefetch->builds[i].started == started)
            return &prefetch->builds[i];
    return NULL;
}

static struct kiln_prefetch_build *place_build(struct kiln_prefetch *prefetch) { // the one that is quiet for longest goes
    struct kiln_prefetch_build *oldest = &prefetch->builds[0];
    for (size_t i = 1; i < BUILDS_MAX; i++)
        if (prefetch->builds[i].touched_ms < oldest->touched_ms)
            oldest = &prefetch->builds[i];
    kiln_hints_release(&oldest->used);
    kiln_hints_release(&oldest->known);
    return oldest;
}

static void push_load(struct kiln_prefetch *prefetch, struct kiln_prefetch_build *build) {
    struct task *task = calloc(1, sizeof *task);
    if (!task)
        return;
    task->kind = TASK_LOAD;
    task->build = build;
    push(prefetch, task);
}

struct kiln_prefetch_build *kiln_prefetch_begin(struct kiln_prefetch *prefetch, pid_t wrapper) {
    pid_t cargo;
    unsigned long long started;
    if (!kiln_ancestor_identify(wrapper, &cargo, &started))
        return NULL;
    pthread_mutex_lock(&prefetch->lock);
    struct kiln_prefetch_build *build = find_build(prefetch, cargo, started);
    if (build) {
        build->touched_ms = kiln_clock_ms();
        pthread_mutex_unlock(&prefetch->lock);
        return build;
    }
    pthread_mutex_unlock(&prefetch->lock);
    struct kiln_digest key = {0};
    bool keyed = key_of_build(cargo, &key);
    pthread_mutex_lock(&prefetch->lock);
    build = find_build(prefetch, cargo, started); // another wrapper of it may have been faster
    if (!build) {
        build = place_build(prefetch);
        *build = (struct kiln_prefetch_build){.pid = cargo, .started = started, .keyed = keyed, .key = key,
                                              .touched_ms = kiln_clock_ms()};
        if (keyed)
            push_load(prefetch, build);
    }
    pthread_mutex_unlock(&prefetch->lock);
    return build;
}

void kiln_prefetch_used(struct kiln_prefetch *prefetch, struct kiln_prefetch_build *build, const char *scope,
                        const struct kiln_digest *action) {
    const struct kiln_hint hint = {.action = *action, .is_public = !strcmp(scope, KILN_SCOPE_PUBLIC)};
    pthread_mutex_lock(&prefetch->lock);
    if (build->keyed && kiln_hints_add(&build->used, &hint, NULL) == 0)
        build->dirty = true;
    build->touched_ms = kiln_clock_ms();
    pthread_mutex_unlock(&prefetch->lock);
}

static bool is_fetching(const struct kiln_prefetch *prefetch, const struct kiln_digest *action) { // with the lock held
    for (unsigned i = 0; i < prefetch->threads_count; i++)
        if (kiln_digest_equal(&prefetch->fetching[i], action))
            return true;
    return false;
}

static void withdraw(struct kiln_prefetch *prefetch, const struct kiln_digest *action) { // with the lock held
    for (struct task **slot = &prefetch->first; *slot; slot = &(*slot)->next) {
        struct task *task = *slot;
        if (task->kind != TASK_FETCH || !kiln_digest_equal(&task->hint.action, action))
            continue;
        *slot = task->next;
        if (!*slot)
            prefetch->last = slot;
        prefetch->tasks--;
        free_task(task);
        return;
    }
}

void kiln_prefetch_await(struct kiln_prefetch *prefetch, const struct kiln_digest *action) {
    const uint64_t until_ms = kiln_clock_ms() + AWAIT_MS;
    const struct timespec at = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};
    pthread_mutex_lock(&prefetch->lock);
    withdraw(prefetch, action);
    while (is_fetching(prefetch, action) && !prefetch->stopping)
        if (pthread_cond_timedwait(&prefetch->changed, &prefetch->lock, &at))
            break;
    pthread_mutex_unlock(&prefetch->lock);
}

static void *copy(const void *bytes, size_t len) {
    void *made = malloc(len + 1);
    return made ? memcpy(made, bytes, len) : NULL;
}

void kiln_prefetch_late(struct kiln_prefetch *prefetch, const struct kiln_late_result *late) {
    struct task *task = calloc(1, sizeof *task);
    if (!task)
        return;
    *task = (struct task){.kind = TASK_LATE, .action = *late->action, .scope = strdup(late->scope),
                          .envelope = copy(late->envelope, late->len), .len = late->len,
                          .submission = copy(late->submission, late->submission_len), .submission_len = late->submission_len,
                          .waited_ms = late->waited_ms};
    if (!task->scope || !task->envelope || !task->submission) {
        free_task(task);
        return;
    }
    pthread_mutex_lock(&prefetch->lock);
    push(prefetch, task);
    pthread_mutex_unlock(&prefetch->lock);
}

// Writing may have to wait for the store: not on the caller's thread.
void kiln_prefetch_tick(struct kiln_prefetch *prefetch, uint64_t now_ms) {
    bool quiet = false;
    pthread_mutex_lock(&prefetch->lock);
    for (size_t i = 0; i < BUILDS_MAX; i++)
        quiet |= is_quiet(&prefetch->builds[i], now_ms);
    struct task *task = quiet && !prefetch->saving ? calloc(1, sizeof *task) : NULL;
    if (task) {
        task->kind = TASK_SAVE;
        prefetch->saving = true;
        push(prefetch, task);
    }
    pthread_mutex_unlock(&prefetch->lock);
}
