#include "verifier/crew.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define THREADS_MAX 64u

STAILQ_HEAD(tasks, kiln_task);

struct kiln_crew {
    pthread_mutex_t lock;
    pthread_cond_t given;
    struct tasks waiting[KILN_TASK_KINDS], done;
    char last_owner[KILN_PRINCIPAL_BYTES]; // of the bulk task that was begun last
    unsigned threads_count, bulk_running, bulk_max;
    bool stopping;
    size_t load;
    int fd;
    pthread_t threads[THREADS_MAX];
};

// The first bulk task of the owner whose turn it is: of those that wait, the one after the last in order of names.
static struct kiln_task *next_bulk(struct kiln_crew *crew) {
    struct kiln_task *task, *after = NULL, *least = NULL;
    STAILQ_FOREACH(task, &crew->waiting[KILN_TASK_BULK], link) {
        if (!least || strcmp(task->owner, least->owner) < 0)
            least = task;
        if (strcmp(task->owner, crew->last_owner) > 0 && (!after || strcmp(task->owner, after->owner) < 0))
            after = task;
    }
    return after ? after : least;
}

static struct kiln_task *take(struct kiln_crew *crew) {
    struct kiln_task *task = STAILQ_FIRST(&crew->waiting[KILN_TASK_SHORT]);
    if (task) {
        STAILQ_REMOVE_HEAD(&crew->waiting[KILN_TASK_SHORT], link);
        return task;
    }
    task = crew->bulk_running < crew->bulk_max ? next_bulk(crew) : NULL;
    if (!task)
        return NULL;
    STAILQ_REMOVE(&crew->waiting[KILN_TASK_BULK], task, kiln_task, link);
    memcpy(crew->last_owner, task->owner, sizeof crew->last_owner);
    crew->bulk_running++;
    return task;
}

static void put_done(struct kiln_crew *crew, struct kiln_task *task) {
    const uint64_t one = 1;
    STAILQ_INSERT_TAIL(&crew->done, task, link);
    while (write(crew->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void *serve(void *context) {
    struct kiln_crew *crew = context;
    pthread_mutex_lock(&crew->lock);
    while (!crew->stopping) {
        struct kiln_task *task = take(crew);
        if (!task) {
            pthread_cond_wait(&crew->given, &crew->lock);
            continue;
        }
        pthread_mutex_unlock(&crew->lock);
        task->run(task);
        pthread_mutex_lock(&crew->lock);
        task->ran = true;
        if (task->kind == KILN_TASK_BULK) {
            crew->bulk_running--;
            pthread_cond_signal(&crew->given); // it may have been held back for its kind
        }
        put_done(crew, task);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

int kiln_crew_new(unsigned threads, struct kiln_crew **crew, struct kiln_err *err) {
    struct kiln_crew *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a crew");
    for (size_t i = 0; i < KILN_TASK_KINDS; i++)
        STAILQ_INIT(&made->waiting[i]);
    STAILQ_INIT(&made->done);
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->given, NULL);
    threads = threads < 2 ? 2 : threads > THREADS_MAX ? THREADS_MAX : threads;
    made->bulk_max = threads - 1;
    made->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = made->fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "cannot make an event descriptor") : 0;
    while (!rc && made->threads_count < threads) {
        errno = pthread_create(&made->threads[made->threads_count], NULL, serve, made);
        if (errno)
            rc = kiln_fail_errno(err, KILN_E_IO, "cannot start a thread");
        else
            made->threads_count++;
    }
    if (rc) {
        kiln_crew_stop(made);
        kiln_crew_free(made);
        return rc;
    }
    *crew = made;
    return 0;
}

void kiln_crew_give(struct kiln_crew *crew, struct kiln_task *task) {
    pthread_mutex_lock(&crew->lock);
    crew->load++;
    if (crew->stopping) {
        put_done(crew, task);
    } else {
        STAILQ_INSERT_TAIL(&crew->waiting[task->kind], task, link);
        pthread_cond_signal(&crew->given);
    }
    pthread_mutex_unlock(&crew->lock);
}

int kiln_crew_finish(struct kiln_crew *crew, void *context, struct kiln_err *err) {
    uint64_t count;
    while (read(crew->fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
    for (int rc = 0; !rc;) {
        pthread_mutex_lock(&crew->lock);
        struct kiln_task *task = STAILQ_FIRST(&crew->done);
        if (task) {
            STAILQ_REMOVE_HEAD(&crew->done, link);
            crew->load--;
        }
        pthread_mutex_unlock(&crew->lock);
        if (!task)
            return 0;
        rc = task->finish(task, context, err);
        if (rc)
            return rc;
    }
    return 0;
}

int kiln_crew_fd(const struct kiln_crew *crew) { return crew->fd; }

size_t kiln_crew_load(const struct kiln_crew *crew) {
    struct kiln_crew *open = (struct kiln_crew *)(uintptr_t)crew;
    pthread_mutex_lock(&open->lock);
    size_t load = crew->load;
    pthread_mutex_unlock(&open->lock);
    return load;
}

void kiln_crew_stop(struct kiln_crew *crew) {
    pthread_mutex_lock(&crew->lock);
    crew->stopping = true;
    pthread_cond_broadcast(&crew->given);
    pthread_mutex_unlock(&crew->lock);
    for (unsigned i = 0; i < crew->threads_count; i++)
        pthread_join(crew->threads[i], NULL);
    crew->threads_count = 0;
    for (size_t kind = 0; kind < KILN_TASK_KINDS; kind++) {
        for (struct kiln_task *task; (task = STAILQ_FIRST(&crew->waiting[kind]));) {
            STAILQ_REMOVE_HEAD(&crew->waiting[kind], link);
            put_done(crew, task);
        }
    }
}

void kiln_crew_free(struct kiln_crew *crew) {
    if (!crew)
        return;
    if (crew->fd >= 0)
        close(crew->fd);
    pthread_cond_destroy(&crew->given);
    pthread_mutex_destroy(&crew->lock);
    free(crew);
}
