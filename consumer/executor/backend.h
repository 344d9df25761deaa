// Which program starts this executor's sandboxes, and with what options: kiln-run with bubblewrap, or kiln-run-docker.
#pragma once

#include "lib/base/err.h"

struct kiln_backend {
    const char *name; // as candidates have it
    char *program;
    char *dir, *socket; // docker
    const char *arguments[5];
};

// `docker_socket` NULL: bubblewrap. `dir`: the executor's own directory.
int kiln_backend_open(struct kiln_backend *backend, const char *libexec, const char *dir, const char *docker_socket,
                      struct kiln_err *err);
// With docker, removes what a killed executor of the directory left. A dockerd that is not there (yet) is logged, and each job
// says so again.
void kiln_backend_sweep(const struct kiln_backend *backend);
void kiln_backend_close(struct kiln_backend *backend);
