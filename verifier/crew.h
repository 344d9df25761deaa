// Hands for what blocks: a few threads that carry out tasks, and one thread that decides and hears of them when they are done.
//
// A task is embedded as the first member of the caller's struct. `run` is called in a thread of the crew and touches only what
// belongs to the task; `finish` is called by kiln_crew_finish() on the deciding thread, in the order of completion, and frees
// the task. BULK tasks (uploads, of any size) never take all hands, so that what is short is not kept waiting by what is long; and
// they go round between their owners, so that one owner's many do not hold up another's one. Tasks given after
// kiln_crew_stop(), or not begun by then, are finished without having been run (`ran` is false).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "lib/core/trust_record.h"

enum kiln_task_kind { KILN_TASK_SHORT, KILN_TASK_BULK, KILN_TASK_KINDS };

struct kiln_task {
    STAILQ_ENTRY(kiln_task) link;
    enum kiln_task_kind kind;
    char owner[KILN_PRINCIPAL_BYTES]; // whose turn it takes
    bool ran;
    void (*run)(struct kiln_task *task);
    int (*finish)(struct kiln_task *task, void *context, struct kiln_err *err);
};

struct kiln_crew;

int kiln_crew_new(unsigned threads, struct kiln_crew **crew, struct kiln_err *err);
void kiln_crew_give(struct kiln_crew *crew, struct kiln_task *task); // takes ownership
// Finishes what is done. An error of a finish ends it; the rest stays for the next call.
int kiln_crew_finish(struct kiln_crew *crew, void *context, struct kiln_err *err);
int kiln_crew_fd(const struct kiln_crew *crew);     // readable when there is something to finish
size_t kiln_crew_load(const struct kiln_crew *crew); // tasks given and not finished
void kiln_crew_stop(struct kiln_crew *crew);         // ends the threads after the tasks that they are at
void kiln_crew_free(struct kiln_crew *crew);         // stopped, and everything finished before
