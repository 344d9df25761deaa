// A kiln-run-docker with holes: its own sources, linked with these in place of some calls. KILN_WITHOUT of the job's environment
// says what dockerd is told otherwise: "HostConfig.NetworkMode=\"host\";HostConfig.Mounts.7.ReadOnly=false", as paths into the
// body of the request that makes the container, and JSON; or "hurry": nobody waits for dockerd longer than a second.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "consumer/docker/api.h"
#include "consumer/docker/image.h"
#include "consumer/run/spec.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define HURRY_MS 1000

static char without[1024];

int __real_kiln_run_spec_decode(const void *data, size_t len, struct kiln_run_spec *spec, struct kiln_err *err);
int __wrap_kiln_run_spec_decode(const void *data, size_t len, struct kiln_run_spec *spec, struct kiln_err *err);
int __wrap_kiln_run_spec_decode(const void *data, size_t len, struct kiln_run_spec *spec, struct kiln_err *err) {
    int rc = __real_kiln_run_spec_decode(data, len, spec, err);
    for (size_t i = 0; rc == 0 && i < spec->env_count; i++)
        if (!strncmp(spec->env[i], "KILN_WITHOUT=", 13))
            snprintf(without, sizeof without, "%s", spec->env[i] + 13);
    return rc;
}

// kiln-init lies where the build has it, or a copy of the build's tree.
int __real_kiln_image_ensure(struct kiln_docker *docker, const char *init_program, const struct kiln_run_spec *spec,
                             uint64_t deadline_ms, char **id, struct kiln_err *err);
int __wrap_kiln_image_ensure(struct kiln_docker *docker, const char *init_program, const struct kiln_run_spec *spec,
                             uint64_t deadline_ms, char **id, struct kiln_err *err);
int __wrap_kiln_image_ensure(struct kiln_docker *docker, const char *init_program, const struct kiln_run_spec *spec,
                             uint64_t deadline_ms, char **id, struct kiln_err *err) {
    kiln_autofree char *beside = NULL;
    if (asprintf(&beside, "%.*s/../consumer/kiln-init", (int)(strrchr(init_program, '/') - init_program), init_program) < 0)
        abort();
    return __real_kiln_image_ensure(docker, beside, spec, deadline_ms, id, err);
}

static void set(json_t *body, char *path, const char *value) {
    json_t *at = body;
    char *name;
    while ((name = strsep(&path, ".")) && path)
        at = json_is_array(at) ? json_array_get(at, strtoul(name, NULL, 10)) : json_object_get(at, name);
    json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);
    if (!parsed || json_object_set_new(at, name, parsed))
        abort();
}

static void weaken(json_t *body) {
    char *copy = strdup(without), *rest = copy;
    for (char *one; (one = strsep(&rest, ";"));) {
        char *equals = strchr(one, '=');
        if (!equals)
            continue;
        *equals = 0;
        set(body, one, equals + 1);
    }
    free(copy);
}

int __real_kiln_docker_open(const char *socket, uint64_t deadline_ms, struct kiln_docker *docker, struct kiln_err *err);
int __wrap_kiln_docker_open(const char *socket, uint64_t deadline_ms, struct kiln_docker *docker, struct kiln_err *err);
int __wrap_kiln_docker_open(const char *socket, uint64_t deadline_ms, struct kiln_docker *docker, struct kiln_err *err) {
    uint64_t soon_ms = kiln_clock_ms() + HURRY_MS;
    return __real_kiln_docker_open(socket, strcmp(without, "hurry") ? deadline_ms : soon_ms, docker, err);
}

int __real_kiln_docker_ask(struct kiln_docker *docker, const struct kiln_docker_request *request, json_t **answer,
                           struct kiln_err *err);
int __wrap_kiln_docker_ask(struct kiln_docker *docker, const struct kiln_docker_request *request, json_t **answer,
                           struct kiln_err *err);
int __wrap_kiln_docker_ask(struct kiln_docker *docker, const struct kiln_docker_request *request, json_t **answer,
                           struct kiln_err *err) {
    struct kiln_docker_request other = *request;
    if (!strcmp(without, "hurry"))
        other.deadline_ms = kiln_clock_ms() + HURRY_MS;
    else if (request->body)
        weaken((json_t *)request->body);
    return __real_kiln_docker_ask(docker, &other, answer, err);
}
