// `kiln doctor`: each thing that a build through Kiln needs, tried for real: the sandbox runs a job that attacks its own
// walls, the directories are written, the programs are looked for. What is wrong comes with what to do.
#pragma once

#include "producer/agent/agent.h"

// *healthy is false when something that builds need does not work.
int kiln_doctor(const struct kiln_agent *agent, bool json, struct kiln_buf *out, bool *healthy);
