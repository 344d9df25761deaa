// What kiln-run-docker and the container's init say to each other through KILN_GATE_SOCKET, which lies in the container's /dev
// until both have met (SOCK_SEQPACKET, messages as in consumer/run/client.h):
//   1. kiln-run-docker: READY + 3 descriptors: a memfd with the order, the job's stdout, its stderr.
//   2. of a watched job, its process: READY + the descriptor that hears of its calls (consumer/run/watch.h).
//      init: READY + 4 descriptors (out, observer and tmp directory, root) when the job stands behind all walls that the order
//      names; or REFUSED + text.
//   3. kiln-run-docker: READY without descriptors: go.
//   4. init: DONE + be32, the job's wait status, as soon as it ended; or REFUSED + text: it could not be executed.
// The end of the conversation, whoever dies, is the end of init and so of all that runs in the container.
//
// Order: "kiln-gate-1\0", be32 uid, be32 gid, the namespaces and the mounts as lists (be32 count, then elements), the spec as a
// field (consumer/run/spec.h).
#pragma once

#include <sys/types.h>

#include "consumer/run/spec.h"

#define KILN_GATE_DIR "/dev"
#define KILN_GATE_SOCKET "kiln-gate"
#define KILN_GATE_INIT ".kiln/init" // in the image
#define KILN_GATE_ORDER_FDS 3
#define KILN_GATE_READY_FDS 4
#define KILN_GATE_ORDER_MAX (KILN_RUN_SPEC_MAX + (8u << 20))

// What must be mounted read-only at `dest`: this very file or directory.
struct kiln_gate_mount {
    char *dest;
    uint64_t device, inode;
};

// A namespace of kiln-run-docker's, in which the job must not be.
struct kiln_gate_namespace {
    char *name; // as in /proc/self/ns
    uint64_t inode;
};

struct kiln_gate_order {
    uid_t uid;
    gid_t gid;
    struct kiln_gate_namespace *namespaces;
    size_t namespaces_count;
    struct kiln_gate_mount *mounts;
    size_t mounts_count;
    struct kiln_run_spec spec;
};

int kiln_gate_order_encode(const struct kiln_gate_order *order, struct kiln_buf *out, struct kiln_err *err);
int kiln_gate_order_decode(const void *data, size_t len, struct kiln_gate_order *order, struct kiln_err *err);
void kiln_gate_order_release(struct kiln_gate_order *order);
