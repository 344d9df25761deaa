#include "producer/agent/doctor.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"

#define SELF_TEST_TIMEOUT_MS 60000
#define LOW_DISK_BYTES (2ull << 30)

struct report {
    struct kiln_buf *out;
    json_t *json; // array, or NULL for text
    bool healthy;
};

static void say(struct report *report, bool ok, const char *check, const char *text) {
    report->healthy &= ok;
    if (report->json)
        json_array_append_new(report->json, json_pack("{s:s,s:b,s:s}", "check", check, "ok", ok, "text", text));
    else
        kiln_buf_addf(report->out, "%-4s %-18s %s\n", ok ? "ok" : "BAD", check, text);
}

// kiln-run --self-test runs a job in the sandbox that tries each wall and prints "ok|BAD NAME TEXT" lines.
static void check_sandbox(const struct kiln_agent *agent, struct report *report) {
    kiln_autofree char *program = kiln_path_join(agent->options.libexec, "kiln-run");
    char *argv[] = {(char *)"kiln-run", (char *)"--self-test", NULL};
    char *const envp[] = {(char *)"KILN_DOCTOR_CANARY=visible", NULL};
    const struct kiln_proc_options options = {.program = program, .argv = argv, .envp = envp, .cwd = "/"};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20), errout = KILN_BUF_INIT(1 << 20);
    struct kiln_err err = {0};
    int status = 0;
    int rc = program ? kiln_proc_run(&options, kiln_clock_ms() + SELF_TEST_TIMEOUT_MS, &out, &errout, &status, &err) : KILN_E_NOMEM;
    if (rc) {
        say(report, false, "sandbox", err.text);
        return;
    }
    char *save = NULL;
    size_t lines = 0;
    for (char *line = strtok_r((char *)kiln_buf_text(&out), "\n", &save); line; line = strtok_r(NULL, "\n", &save), lines++) {
        char verdict[8], name[64];
        int at = 0;
        if (sscanf(line, "%7s %63s %n", verdict, name, &at) >= 2)
            say(report, !strcmp(verdict, "ok"), name, line + at);
    }
    if (status || !lines) {
        char *text = (char *)kiln_buf_text(&errout);
        text[strcspn(text, "\n")] = 0;
        say(report, false, "sandbox", *text ? text : "the self-test did not end well; units are compiled locally");
    }
}

static void check_directory(const struct kiln_agent *agent, struct report *report) {
    struct statvfs vfs;
    struct kiln_err err = {0};
    kiln_autofree char *probe = kiln_path_join(agent->options.dir, ".doctor");
    char text[512];
    if (!probe || kiln_fs_write_file(AT_FDCWD, probe, "x", 1, 0600, &err)) {
        say(report, false, "state_directory", err.text);
        return;
    }
    unlink(probe);
    if (statvfs(agent->options.dir, &vfs) == 0) {
        uint64_t left = (uint64_t)vfs.f_bavail * vfs.f_frsize;
        snprintf(text, sizeof text, "%s is writable, %.1f GiB left%s", agent->options.dir, (double)left / (1ull << 30),
                 left < LOW_DISK_BYTES ? ": make room, or set cache.max_size lower" : "");
        say(report, left >= LOW_DISK_BYTES, "state_directory", text);
    }
}

static void check_children(const struct kiln_agent *agent, struct report *report) {
    static const char *const names[KILN_CHILDREN] = {"verifier", "executor"};
    for (int i = 0; i < KILN_CHILDREN; i++) {
        pid_t pid;
        bool runs = kiln_child_runs(agent->children, (enum kiln_child)i, &pid);
        char text[256];
        snprintf(text, sizeof text, runs ? "runs" : "does not run; the end of %s/agent.log says why", agent->options.dir);
        say(report, runs, names[i], text);
    }
}

static void check_breaker(const struct kiln_agent *agent, struct report *report) {
    char reason[256];
    if (kiln_breaker_open(agent->breaker, kiln_clock_ms(), reason, sizeof reason))
        say(report, false, "breaker", reason);
}

// A doctor goes and looks: it connects where no miss has yet.
static void check_fleet(const struct kiln_agent *agent, struct report *report) {
    struct kiln_fleet *fleet = kiln_membership_fleet(agent->membership);
    struct kiln_link *link = kiln_membership_link(agent->membership);
    struct kiln_submitter *submitter;
    struct kiln_err err = {0};
    char text[320];
    bool valid = kiln_keeper_valid(kiln_fleet_keeper(fleet), &err) == 0;
    snprintf(text, sizeof text, "in force, generation %llu", (unsigned long long)kiln_keeper_generation(kiln_fleet_keeper(fleet)));
    say(report, valid, "trust_record", valid ? text : err.text);
    bool store = kiln_link_store(link, &err) == 0;
    say(report, store, "store", store ? "answers" : err.text);
    bool bus = kiln_link_submitter(link, &submitter, &err) == 0;
    snprintf(text, sizeof text, "connected as %s of tenant %s", kiln_fleet_principal(fleet), kiln_fleet_tenant(fleet));
    say(report, bus, "brokers", bus ? text : err.text);
}

int kiln_doctor(const struct kiln_agent *agent, bool json, struct kiln_buf *out, bool *healthy) {
    struct report report = {.out = out, .json = json ? json_array() : NULL, .healthy = true};
    check_directory(agent, &report);
    check_breaker(agent, &report);
    if (agent->membership) { // the fleet's executors have the sandboxes
        check_fleet(agent, &report);
    } else {
        check_children(agent, &report);
        check_sandbox(agent, &report);
    }
    *healthy = report.healthy;
    if (report.json) {
        kiln_autofree char *text = json_dumps(report.json, JSON_INDENT(1));
        json_decref(report.json);
        kiln_buf_addf(out, "%s\n", text ? text : "[]");
    } else {
        kiln_buf_add_str(out, report.healthy ? "everything that builds need works\n"
                                             : "builds still work: what Kiln cannot do is compiled locally\n");
    }
    return kiln_buf_check(out, "report", NULL);
}
