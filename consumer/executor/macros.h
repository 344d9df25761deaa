// Which libraries of a job hold code that the preloaded observer cannot see, so that the job has to be watched
// (consumer/run/watch.h).
//
// The verdict on an object (lib/macro/macro_object.h) is kept by its digest as DIR/macros/HEX, also over restarts. Thread-safe.
#pragma once

#include <stdbool.h>

#include "consumer/executor/stage.h"

struct kiln_macros;

// `dir` is the executor's own directory.
int kiln_macros_open(const char *dir, struct kiln_macros **macros, struct kiln_err *err);
void kiln_macros_close(struct kiln_macros *macros);
// The file name of the first such library among the staged ones, borrowed from the stage; NULL: all can be seen through.
int kiln_macros_find_unseen(const struct kiln_macros *macros, const struct kiln_stage *stage, const char **name,
                            struct kiln_err *err);
