#include "consumer/executor/backend.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"

#define SWEEP_MS 30000

int kiln_backend_open(struct kiln_backend *backend, const char *libexec, const char *dir, const char *docker_socket,
                      struct kiln_err *err) {
    struct kiln_backend opened = {.name = docker_socket ? "docker" : "bwrap",
                                  .program = kiln_path_join(libexec, docker_socket ? "kiln-run-docker" : "kiln-run")};
    if (docker_socket) {
        opened.dir = kiln_path_join(dir, "docker");
        opened.socket = strdup(docker_socket);
        const char *const arguments[] = {"--socket", opened.socket, "--dir", opened.dir, NULL};
        memcpy(opened.arguments, arguments, sizeof arguments);
    }
    if (!opened.program || (docker_socket && (!opened.dir || !opened.socket))) {
        kiln_backend_close(&opened);
        return kiln_fail(err, KILN_E_NOMEM, "executor");
    }
    *backend = opened;
    return 0;
}

void kiln_backend_sweep(const struct kiln_backend *backend) {
    if (!backend->socket)
        return;
    char *argv[] = {(char *)"kiln-run-docker", (char *)"--socket", backend->socket, (char *)"--dir", backend->dir, (char *)"--sweep", NULL};
    char *const envp[] = {NULL};
    const struct kiln_proc_options options = {.program = backend->program, .argv = argv, .envp = envp, .cwd = "/"};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096), errout = KILN_BUF_INIT(4096);
    struct kiln_err err = {0};
    int status = 0;
    int rc = kiln_proc_run(&options, kiln_clock_ms() + SWEEP_MS, &out, &errout, &status, &err);
    if (rc || status)
        kiln_log(KILN_LOG_WARN, "docker_unavailable", "error", rc ? err.text : kiln_buf_text(&errout), NULL);
}

void kiln_backend_close(struct kiln_backend *backend) {
    free(backend->program);
    free(backend->dir);
    free(backend->socket);
    *backend = (struct kiln_backend){0};
}
