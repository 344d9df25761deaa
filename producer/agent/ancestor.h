// The nearest ancestor of a wrapper that is cargo, and the environment it was started with.
//
// What differs between the two environments was set by cargo for this unit: build script `rustc-env`, `[env]`. Read from
// /proc; remembered by pid and start time. Without /proc, or without the right to read it (system mode under another
// uid), there is no ancestor. Thread-safe.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct kiln_ancestors;

struct kiln_ancestor {
    bool found;
    bool direct;  // cargo itself started the wrapper
    char **env;   // NAME=VALUE; owned by this struct
    size_t env_count;
};

struct kiln_ancestors *kiln_ancestors_new(void); // NULL on exhausted memory
void kiln_ancestors_free(struct kiln_ancestors *ancestors);
void kiln_ancestor_find(struct kiln_ancestors *ancestors, pid_t wrapper, struct kiln_ancestor *ancestor);
void kiln_ancestor_release(struct kiln_ancestor *ancestor);
// Which process that cargo is, without looking at its environment. false without one.
bool kiln_ancestor_identify(pid_t wrapper, pid_t *cargo, unsigned long long *started);
