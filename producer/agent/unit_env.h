// The environment of a job from its caller's (the rule is in lib/rustc/environment.h and DESIGN "Environment").
#pragma once

#include "producer/agent/unit.h"

int kiln_unit_environment(const struct kiln_compile_request *request, const struct kiln_ancestor *ancestor,
                          struct kiln_unit *unit, struct kiln_err *err);
