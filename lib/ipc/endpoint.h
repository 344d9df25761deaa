// Where the agent listens, and how to reach, serve or start it.
//
// An agent listens on DIR/agent.sock. Which DIR:
//   1. $KILN_DIR, when the nearest process above that is cargo was started with the same value, or no cargo is above:
//      a repository can set variables of the wrapper, never cargo's own;
//   2. /run/kiln (system mode), when its socket belongs to root or to the account "kiln" and an agent answers there;
//   3. HOME/.cache/kiln, HOME being what the password database says, never the variable. Only here an agent is started.
// The agent must run as the caller, as root, or as the account "kiln"; anybody else's socket is refused (KILN_E_DENIED).
//
// Files in DIR: agent.sock; agent.start (locked by the one process that starts an agent); agent.failed and agent.silent:
// their mtime is the moment until which nobody starts an agent, or talks to it, again, so that a broken agent costs once
// and not for each crate.
// Blocking, with deadlines; libc only. Descriptors are O_CLOEXEC.
#pragma once

#include <stdint.h>

#include "lib/base/err.h"

#define KILN_SYSTEM_DIR "/run/kiln"
#define KILN_SYSTEM_ACCOUNT "kiln"
#define KILN_START_MS 3000        // an agent answers this soon after its start
#define KILN_PAUSE_START_MS 5000  // after a start that failed
#define KILN_PAUSE_SILENT_MS 30000 // after an agent that accepted and said nothing

enum kiln_endpoint_kind { KILN_ENDPOINT_CHOSEN, KILN_ENDPOINT_SYSTEM, KILN_ENDPOINT_USER };

struct kiln_endpoint {
    enum kiln_endpoint_kind kind;
    char *dir; // heap, absolute
};
void kiln_endpoint_release(struct kiln_endpoint *endpoint);

// The directory of this process's agent, by the rules above. KILN_E_NOTFOUND when there is none: the account has no
// entry in the password database.
int kiln_endpoint_find(struct kiln_endpoint *endpoint, struct kiln_err *err);
// By rule 3 alone: also where an agent lives that is not told where.
int kiln_endpoint_find_home(struct kiln_endpoint *endpoint, struct kiln_err *err);

// KILN_E_NOTFOUND: nobody listens in dir. KILN_E_DENIED: it is not an agent that this process may trust.
int kiln_endpoint_connect(const char *dir, uint64_t deadline_ms, int *socket, struct kiln_err *err);

// What the wrapper does: find, connect, in the user's own directory start an agent when none listens. On failure
// endpoint->dir may be set (the place that was tried), for counting; it is the caller's in every case.
// KILN_E_TIMEOUT at once while a pause lasts.
int kiln_endpoint_reach(struct kiln_endpoint *endpoint, uint64_t deadline_ms, int *socket, struct kiln_err *err);

enum kiln_endpoint_trouble {
    KILN_TROUBLE_START, // it could not be started: no other start, but one that listens after all is used
    KILN_TROUBLE_SILENT, // it accepted and said nothing: it is left alone
};
// Makes everybody who uses dir wait for pause_ms before the next try; 0 ends a pause. Best effort.
void kiln_endpoint_pause(const char *dir, enum kiln_endpoint_trouble trouble, unsigned pause_ms);

struct kiln_endpoint_start {
    const char *dir;
    const char *agent;  // path of the agent's program; NULL: kiln-agent beside this program or in ../libexec/kiln
    const char *config; // NULL: the agent's own rule
};
// Starts `AGENT --dir DIR [--config CONFIG]` in a session of its own, working directory "/", the three standard
// descriptors on /dev/null and no others, HOME (from the password database) and PATH its only environment. However many
// processes call this at once, one starts it, all get a connection. KILN_E_TIMEOUT after the deadline.
int kiln_endpoint_start_agent(const struct kiln_endpoint_start *start, uint64_t deadline_ms, int *socket,
                              struct kiln_err *err);
// The path of a program of Kiln's, found as `agent` is above. Heap. KILN_E_NOTFOUND.
int kiln_endpoint_program(const char *name, char **path, struct kiln_err *err);

enum kiln_endpoint_audience {
    KILN_AUDIENCE_USER,   // dir 0700, socket 0600
    KILN_AUDIENCE_SYSTEM, // dir 0755, socket 0666; the agent checks its peers
};
// A listening socket DIR/agent.sock. Makes dir when it is absent; a directory or socket of another account's, or a
// directory that others can write, is refused. A socket that is there already is replaced without a moment in between:
// the caller holds DIR/agent.lock.
int kiln_endpoint_listen(const char *dir, enum kiln_endpoint_audience audience, int *socket, struct kiln_err *err);
