// The user commands that the agent answers: stats, config, doctor, toolchain list, agent status, agent stop.
#pragma once

#include "lib/ipc/frames.h"
#include "producer/agent/agent.h"

// Fills *reply (heap; release with kiln_command_reply_release). *stop is set when the agent shall end after the answer.
void kiln_command_serve(struct kiln_agent *agent, const struct kiln_command_request *request, bool may_control,
                        struct kiln_command_reply *reply, bool *stop);
