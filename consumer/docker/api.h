// Docker's HTTP interface over the daemon's unix socket. What the daemon says is parsed with limits.
//
// KILN_E_NOTFOUND and KILN_E_EXISTS are its 404 and 409; anything else that it refuses is KILN_E_DENIED with its words; one that
// does not answer in time is KILN_E_TIMEOUT, one that is not there KILN_E_CLOSED. One thread.
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct kiln_docker {
    void *curl;
    char *socket;
    char version[16]; // of the interface, as asked for: "1.41"
};

struct kiln_docker_request {
    const char *method; // "GET"
    const char *path;   // behind the version: "/containers/json?all=1"
    const json_t *body;
    const struct kiln_buf *tar; // instead of `body`
    uint64_t deadline_ms;
};

// Needs a daemon of Docker 20.10 or newer.
int kiln_docker_open(const char *socket, uint64_t deadline_ms, struct kiln_docker *docker, struct kiln_err *err);
void kiln_docker_close(struct kiln_docker *docker);
// *answer (may be NULL, the body is then dropped) belongs to the caller; JSON null when the daemon says nothing.
int kiln_docker_ask(struct kiln_docker *docker, const struct kiln_docker_request *request, json_t **answer,
                    struct kiln_err *err);
// Appends text as a part of a URL.
void kiln_docker_add_quoted(struct kiln_buf *out, const char *text);
