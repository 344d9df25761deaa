#include "consumer/docker/container.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

#define OWNER_LABEL "dev.kiln.owner"
#define JOB_LABEL "dev.kiln.job"
#define OPEN_FILES 4096
#define SHARES_OF_A_PROCESSOR 1024

static json_t *describe_mounts(const struct kiln_mounts *mounts) {
    json_t *list = json_array();
    for (size_t i = 0; i < mounts->count; i++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:b,s:{s:s,s:b}}", "Type", "bind", "Source", mounts->sources[i],
                                              "Target", mounts->all[i].dest, "ReadOnly", 1, "BindOptions", "Propagation",
                                              "rprivate", "NonRecursive", 1));
    if (json_array_size(list) == mounts->count)
        return list;
    json_decref(list); // a path that is no UTF-8
    return NULL;
}

static json_t *describe_scratch(const struct kiln_container_plan *plan) {
    json_t *map = json_object();
    for (size_t i = 0; i < plan->layout->count; i++) {
        const struct kiln_layout_part *part = &plan->layout->parts[i];
        char options[200];
        if (part->bind)
            continue;
        snprintf(options, sizeof options, "rw,nosuid,nodev,noexec,mode=0700,size=%" PRIu64 ",nr_inodes=%" PRIu64 ",uid=%u,gid=%u",
                 part->bytes, part->inodes, plan->uid, plan->gid);
        json_object_set_new(map, part->dest, json_string(options));
    }
    return map;
}

// Docker's own list of what is hidden in /proc, and all of /sys.
static json_t *describe_masks(void) {
    return json_pack("[s,s,s,s,s,s,s,s,s,s]", "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                     "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys");
}

static json_t *describe_host_side(const struct kiln_container_plan *plan) {
    // The container's own init is counted too.
    // As kiln-run has it: a job has its share, however many processes another one starts.
    const json_int_t shares = SHARES_OF_A_PROCESSOR * (json_int_t)sysconf(_SC_NPROCESSORS_ONLN);
    const json_int_t processes = (json_int_t)plan->spec->processes + 1, memory = (json_int_t)plan->spec->memory_bytes;
    return json_pack("{s:s,s:s,s:s,s:s, s:b,s:b,s:b,s:b, s:[s],s:[s,s], s:I,s:I,s:I,s:I, s:{s:s},s:{s:s},"
                     " s:[{s:s,s:i,s:i},{s:s,s:i,s:i}], s:o,s:[s,s,s,s,s], s:o,s:o}",
                     "NetworkMode", "none", "IpcMode", "none", "CgroupnsMode", "private", "PidMode", "",
                     "ReadonlyRootfs", 1, "Privileged", 0, "AutoRemove", 0, "Init", 0,
                     "CapDrop", "ALL", "SecurityOpt", "no-new-privileges", "label=disable",
                     "Memory", memory, "MemorySwap", memory, "PidsLimit", processes, "CpuShares", shares,
                     "LogConfig", "Type", "none", "RestartPolicy", "Name", "no",
                     "Ulimits", "Name", "core", "Soft", 0, "Hard", 0, "Name", "nofile", "Soft", OPEN_FILES, "Hard", OPEN_FILES,
                     "MaskedPaths", describe_masks(),
                     "ReadonlyPaths", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
                     "Mounts", describe_mounts(plan->mounts), "Tmpfs", describe_scratch(plan));
}

static json_t *describe(const struct kiln_container_plan *plan) {
    char user[32];
    snprintf(user, sizeof user, "%u:%u", plan->uid, plan->gid);
    const char *cwd = kiln_layout_makes_cwd(plan->layout, plan->spec) ? plan->spec->cwd : "/";
    return json_pack("{s:s,s:s,s:s,s:s,s:[s],s:[],s:[], s:b,s:b,s:b,s:b,s:b,s:b, s:{s:[s]},s:{s:s,s:s},s:o}", "Image", plan->image,
                     "Hostname", "kiln", "User", user, "WorkingDir", cwd, "Entrypoint", "/" KILN_GATE_INIT, "Cmd", "Env",
                     "NetworkDisabled", 1, "Tty", 0, "OpenStdin", 0, "AttachStdin", 0, "AttachStdout", 0, "AttachStderr", 0,
                     "Healthcheck", "Test", "NONE", "Labels", OWNER_LABEL, plan->owner, JOB_LABEL, plan->job, "HostConfig",
                     describe_host_side(plan));
}

static bool is_id(const char *text) {
    return text && strlen(text) == KILN_CONTAINER_ID_LEN && strspn(text, "0123456789abcdef") == KILN_CONTAINER_ID_LEN;
}

int kiln_container_create(struct kiln_container *container, const struct kiln_container_plan *plan, uint64_t deadline_ms,
                          struct kiln_err *err) {
    json_t *body = describe(plan), *answer = NULL;
    if (!body)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "a path of the job is no UTF-8 text, which docker cannot be told");
    const struct kiln_docker_request request = {
        .method = "POST", .path = "/containers/create", .body = body, .deadline_ms = deadline_ms};
    int rc = kiln_docker_ask(container->docker, &request, &answer, err);
    json_decref(body);
    if (rc)
        return kiln_wrap(err, rc, "making a container");
    const char *id = json_string_value(json_object_get(answer, "Id"));
    if (is_id(id))
        memcpy(container->id, id, sizeof container->id);
    else
        rc = kiln_fail(err, KILN_E_CORRUPT, "dockerd names no container that it made");
    json_decref(answer);
    return rc;
}

static int ask(struct kiln_container *container, const char *method, const char *what, uint64_t deadline_ms, json_t **answer,
               struct kiln_err *err) {
    char path[KILN_CONTAINER_ID_LEN + 64];
    snprintf(path, sizeof path, "/containers/%s%s", container->id, what);
    const struct kiln_docker_request request = {.method = method, .path = path, .deadline_ms = deadline_ms};
    return kiln_docker_ask(container->docker, &request, answer, err);
}

int kiln_container_start(struct kiln_container *container, uint64_t deadline_ms, struct kiln_err *err) {
    int rc = ask(container, "POST", "/start", deadline_ms, NULL, err);
    return rc ? kiln_wrap(err, rc, "starting a container") : 0;
}

int kiln_container_check(struct kiln_container *container, const struct kiln_run_spec *spec, pid_t pid, uint64_t deadline_ms,
                         struct kiln_err *err) {
    json_t *answer = NULL;
    int rc = ask(container, "GET", "/json", deadline_ms, &answer, err);
    if (rc)
        return rc;
    const json_t *host = json_object_get(answer, "HostConfig");
    if (json_integer_value(json_object_get(json_object_get(answer, "State"), "Pid")) != pid)
        rc = kiln_fail(err, KILN_E_DENIED, "somebody else than the container's init is at the gate");
    else if (json_integer_value(json_object_get(host, "Memory")) != (json_int_t)spec->memory_bytes)
        rc = kiln_fail(err, KILN_E_DENIED, "docker did not raise a wall: this host cannot bound the job's memory");
    else if (json_integer_value(json_object_get(host, "PidsLimit")) != (json_int_t)spec->processes + 1)
        rc = kiln_fail(err, KILN_E_DENIED, "docker did not raise a wall: this host cannot bound the job's processes");
    json_decref(answer);
    return rc;
}

bool kiln_container_ran_out_of_memory(struct kiln_container *container, uint64_t deadline_ms) {
    json_t *answer = NULL;
    if (ask(container, "GET", "/json", deadline_ms, &answer, NULL))
        return false;
    bool did = json_is_true(json_object_get(json_object_get(answer, "State"), "OOMKilled"));
    json_decref(answer);
    return did;
}

int kiln_container_kill(struct kiln_container *container, uint64_t deadline_ms, struct kiln_err *err) {
    return ask(container, "POST", "/kill?signal=KILL", deadline_ms, NULL, err);
}

int kiln_container_remove(struct kiln_container *container, uint64_t deadline_ms, struct kiln_err *err) {
    int rc = *container->id ? ask(container, "DELETE", "?force=1&v=1", deadline_ms, NULL, err) : 0;
    if (rc == 0 || rc == KILN_E_NOTFOUND)
        *container->id = 0;
    return rc == KILN_E_NOTFOUND ? 0 : rc;
}

static int remove_stale(struct kiln_docker *docker, const char *owner, const json_t *listed, uint64_t deadline_ms,
                        struct kiln_err *err) {
    const char *id = json_string_value(json_object_get(listed, "Id"));
    const char *job = json_string_value(json_object_get(json_object_get(listed, "Labels"), JOB_LABEL));
    if (!is_id(id) || !job || strchr(job, '/') || kiln_job_dir_is_held(owner, job))
        return 0;
    struct kiln_container container = {.docker = docker};
    memcpy(container.id, id, sizeof container.id);
    int rc = kiln_container_remove(&container, deadline_ms, err);
    return rc == KILN_E_EXISTS ? 0 : rc; // its removal is under way
}

int kiln_container_sweep(struct kiln_docker *docker, const char *owner, uint64_t deadline_ms, struct kiln_err *err) {
    json_t *filter = json_pack("{s:[s+]}", "label", OWNER_LABEL "=", owner);
    kiln_autofree char *text = filter ? json_dumps(filter, JSON_COMPACT) : NULL;
    json_decref(filter);
    kiln_autobuf struct kiln_buf path = KILN_BUF_INIT(32u << 10);
    kiln_buf_add_str(&path, "/containers/json?all=1&filters=");
    kiln_docker_add_quoted(&path, text ? text : "");
    int rc = text ? kiln_buf_check(&path, "a request to dockerd", err) : kiln_fail(err, KILN_E_UNSUPPORTED, "%s is no UTF-8 text", owner);
    if (rc)
        return rc;
    const struct kiln_docker_request request = {.method = "GET", .path = kiln_buf_text(&path), .deadline_ms = deadline_ms};
    json_t *answer = NULL;
    rc = kiln_docker_ask(docker, &request, &answer, err);
    for (size_t i = 0; rc == 0 && i < json_array_size(answer); i++)
        rc = remove_stale(docker, owner, json_array_get(answer, i), deadline_ms, err);
    json_decref(answer);
    return rc;
}
