#include "producer/agent/children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"

#define RESTART_MS 100
#define RESTART_MAX_MS 2000
#define HEALTHY_MS 10000   // a child that ran this long starts counting anew
#define GIVE_UP_DEATHS 5
#define GIVE_UP_MS 60000
#define TERM_WAIT_MS 5000

struct child {
    pid_t pid; // 0: not running
    uint64_t started_ms, due_ms;
    unsigned deaths;
    bool ran_before;
};

struct kiln_children {
    struct kiln_children_options options;
    char *dir, *libexec;
    struct child child[KILN_CHILDREN];
};

static const char *const programs[KILN_CHILDREN] = {"kiln-verifier", "kiln-executor"};
static const enum kiln_bus_role roles[KILN_CHILDREN] = {KILN_BUS_VERIFIER, KILN_BUS_EXECUTOR};

static int start(struct kiln_children *children, enum kiln_child which, struct kiln_err *err) {
    kiln_autofree char *program = kiln_path_join(children->libexec, programs[which]);
    kiln_autofd int bus = -1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (!program || null < 0)
        return kiln_fail_errno(err, KILN_E_IO, "start %s", programs[which]);
    int rc = kiln_bus_server_connect(children->options.bus, roles[which], &bus, err);
    if (rc)
        return rc;
    char number[32];
    snprintf(number, sizeof number, "%llu",
             (unsigned long long)(which == KILN_CHILD_VERIFIER ? children->options.store_max_bytes : children->options.slots));
    char *argv[] = {(char *)programs[which], (char *)"--dir", children->dir,
                    (char *)(which == KILN_CHILD_VERIFIER ? "--vault-max" : "--slots"), number,
                    which == KILN_CHILD_EXECUTOR ? (char *)"--libexec" : NULL, children->libexec,
                    NULL, NULL, NULL, NULL};
    size_t argc = 7;
    if (children->options.watch_all)
        argv[argc++] = (char *)"--watch-all";
    if (children->options.docker) {
        argv[argc++] = (char *)"--docker";
        argv[argc++] = (char *)children->options.docker;
    }
    char *const envp[] = {(char *)"PATH=/usr/bin:/bin", NULL};
    const struct kiln_proc_fd fds[] = {{null, 0}, {null, 1}, {children->options.log_fd, 2}, {bus, 3}};
    const struct kiln_proc_options options = {.program = program, .argv = argv, .envp = envp, .cwd = "/", .fds = fds,
                                              .fds_count = 4, .die_with_parent = true};
    struct child *child = &children->child[which];
    rc = kiln_proc_spawn(&options, &child->pid, err);
    if (rc) {
        child->pid = 0;
        return rc;
    }
    child->started_ms = kiln_clock_ms();
    return 0;
}

static void give_up(struct kiln_children *children, enum kiln_child which, uint64_t now_ms, const char *why) {
    char reason[320];
    snprintf(reason, sizeof reason, "%s_unavailable: %s", which == KILN_CHILD_VERIFIER ? "verifier" : "executor", why);
    children->child[which].due_ms = now_ms + GIVE_UP_MS;
    children->child[which].deaths = 0;
    kiln_log(KILN_LOG_ERROR, "child_given_up", "program", programs[which], "reason", why, NULL);
    children->options.changed(children->options.context, which, reason);
}

void kiln_children_tick(struct kiln_children *children, uint64_t now_ms) {
    for (int i = 0; i < KILN_CHILDREN; i++) {
        struct child *child = &children->child[i];
        if (child->pid || now_ms < child->due_ms)
            continue;
        struct kiln_err err = {0};
        if (start(children, (enum kiln_child)i, &err)) {
            give_up(children, (enum kiln_child)i, now_ms, err.text);
            continue;
        }
        kiln_log(KILN_LOG_INFO, "child_started", "program", programs[i], NULL);
        if (child->ran_before)
            children->options.changed(children->options.context, (enum kiln_child)i, NULL);
        child->ran_before = true;
    }
}

void kiln_children_exited(struct kiln_children *children, pid_t pid, int status, uint64_t now_ms) {
    for (int i = 0; i < KILN_CHILDREN; i++) {
        struct child *child = &children->child[i];
        if (child->pid != pid)
            continue;
        char how[64];
        snprintf(how, sizeof how, WIFSIGNALED(status) ? "died of signal %d" : "ended with status %d",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        kiln_log(KILN_LOG_WARN, "child_ended", "program", programs[i], "how", how, NULL);
        child->pid = 0;
        child->deaths = now_ms - child->started_ms > HEALTHY_MS ? 1 : child->deaths + 1;
        uint64_t pause = RESTART_MS;
        for (unsigned k = 1; k < child->deaths && pause < RESTART_MAX_MS; k++)
            pause *= 2;
        child->due_ms = child->deaths == 1 ? now_ms : now_ms + pause;
        if (child->deaths >= GIVE_UP_DEATHS) {
            char why[128];
            snprintf(why, sizeof why, "%s %s %u times in a row; see agent.log", programs[i], how, child->deaths);
            give_up(children, (enum kiln_child)i, now_ms, why);
        }
    }
    kiln_children_tick(children, now_ms);
}

bool kiln_child_runs(const struct kiln_children *children, enum kiln_child child, pid_t *pid) {
    *pid = children->child[child].pid;
    return *pid != 0;
}

int kiln_children_new(const struct kiln_children_options *options, struct kiln_children **out, struct kiln_err *err) {
    struct kiln_children *children = calloc(1, sizeof *children);
    if (!children || !(children->dir = strdup(options->dir)) || !(children->libexec = strdup(options->libexec))) {
        if (children)
            free(children->dir);
        free(children);
        return kiln_fail(err, KILN_E_NOMEM, "children");
    }
    children->options = *options;
    *out = children;
    return 0;
}

void kiln_children_free(struct kiln_children *children) {
    if (!children)
        return;
    for (int i = 0; i < KILN_CHILDREN; i++)
        if (children->child[i].pid)
            kill(children->child[i].pid, SIGTERM);
    uint64_t deadline = kiln_clock_ms() + TERM_WAIT_MS;
    for (int i = 0; i < KILN_CHILDREN; i++) {
        int status;
        pid_t pid = children->child[i].pid;
        if (!pid || kiln_proc_wait(pid, deadline, &status, NULL) == 0)
            continue;
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    free(children->dir);
    free(children->libexec);
    free(children);
}
