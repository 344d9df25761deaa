// The settings of the agent: one table, from which the parser, `kiln config` and the reference come.
// Read from a file that the user or root owns; never from a variable that the wrapper sees.
#pragma once

#include "lib/base/conf.h"

const struct kiln_conf_key *kiln_settings(size_t *count); // the agent's own, and the fleet's (lib/fleet/fleet.h)

// The socket of dockerd when the embedded executor's jobs run in containers; NULL: bubblewrap. Borrowed.
const char *kiln_settings_docker(const struct kiln_conf *conf);

// Loads `file`, or the first of ~/.config/kiln/kiln.conf and /etc/kiln/kiln.conf that exists. A file that others may
// write, or that belongs to neither the user nor root, is refused.
int kiln_settings_load(const char *file_or_null, const char *home_or_null, struct kiln_conf **conf, struct kiln_err *err);
