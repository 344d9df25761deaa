// `kiln-run --limits`: which limits this host lets Kiln put on a whole job, tried as for a job. A line for each: "ok NAME TEXT", or
// "weak NAME TEXT" where less holds than should, with what an administrator can do about it.
#pragma once

#include <stdbool.h>

// True when all limits hold.
bool kiln_host_limits_print(void);
