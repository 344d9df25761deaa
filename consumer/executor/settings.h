// The settings of an executor in a fleet: its own, and the fleet's (lib/fleet/fleet.h), from the file that --config names.
#pragma once

#include "lib/base/conf.h"

// A file that others may write, or that belongs to neither this user nor root, is refused.
int kiln_executor_settings_load(const char *file, struct kiln_conf **conf, struct kiln_err *err);
