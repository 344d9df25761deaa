#include "producer/agent/doctor.h"

#include <fcntl.h>
#include <inttypes.h>
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
#include "producer/agent/settings.h"

#define SELF_TEST_TIMEOUT_MS 60000
#define LOW_DISK_BYTES (2ull << 30)

struct report {
    struct kiln_buf *out;
    json_t *json; // array, or NULL for text
    bool healthy;
};

static void say_verdict(struct report *report, const char *verdict, const char *check, const char *text) {
    bool weak = !strcmp(verdict, "weak"), ok = weak || !strcmp(verdict, "ok");
    report->healthy &= ok;
    if (report->json)
        json_array_append_new(report->json, json_pack("{s:s,s:b,s:b,s:s}", "check", check, "ok", ok, "weak", weak, "text", text));
    else
        kiln_buf_addf(report->out, "%-4s %-18s %s\n", verdict, check, text);
}

static void say(struct report *report, bool ok, const char *check, const char *text) {
    say_verdict(report, ok ? "ok" : "BAD", check, text);
}

// --self-test of the program that runs jobs here: it runs one that tries each wall and prints "ok|weak|BAD NAME TEXT" lines.
static void check_sandbox(const struct kiln_agent *agent, struct report *report) {
    const char *docker = kiln_settings_docker(agent->conf);
    kiln_autofree char *program = kiln_path_join(agent->options.libexec, docker ? "kiln-run-docker" : "kiln-run");
    kiln_autofree char *dir = kiln_path_join(agent->options.dir, "docker");
    char *of_docker[] = {(char *)"kiln-run-docker", (char *)"--self-test", (char *)"--socket", (char *)docker, (char *)"--dir", dir, NULL};
    char *of_bwrap[] = {(char *)"kiln-run", (char *)"--self-test", NULL};
    char *const envp[] = {(char *)"KILN_DOCTOR_CANARY=visible", NULL};
    const struct kiln_proc_options options = {.program = program, .argv = docker ? of_docker : of_bwrap, .envp = envp, .cwd = "/"};
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
            say_verdict(report, verdict, name, line + at);
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

static void check_enrolled(struct kiln_fleet *fleet, struct report *report) {
    struct kiln_err err = {0};
    char text[320];
    snprintf(text, sizeof text, "%s, agent of tenant %s", kiln_fleet_principal(fleet), kiln_fleet_tenant(fleet));
    bool enrolled = kiln_fleet_enrolled(fleet, &err) == 0;
    say(report, enrolled, "enrolled", enrolled ? text : err.text);
}

static void check_trust(struct kiln_fleet *fleet, const struct kiln_keeper_status *status, struct report *report) {
    struct kiln_keeper *keeper = kiln_fleet_keeper(fleet);
    struct kiln_err err = {0};
    char text[512];
    bool valid = kiln_keeper_valid(keeper, &err) == 0;
    uint64_t now = kiln_clock_wall_ms();
    if (valid)
        snprintf(text, sizeof text, "version %" PRIu64 ", generation %" PRIu64 ", good for %.1f h; %zu principals, %zu revocations",
                 status->version, status->generation, (double)(status->expires_ms - now) / 3600000, status->principals_count,
                 status->revocations_count);
    say(report, valid, "trust_record", valid ? text : err.text);
    if (!valid) // without one neither the list nor anybody's enrolment means anything
        return;
    if (*status->trust_refusal)
        say(report, false, "trust_refresh", status->trust_refusal);
    check_enrolled(fleet, report);
    if (*status->public_refusal)
        say(report, false, "public_list", status->public_refusal);
    else if (status->public_version) {
        snprintf(text, sizeof text, "version %" PRIu64 ", %zu packages, good for %.1f h", status->public_version,
                 status->public_count, ((double)status->public_expires_ms - (double)now) / 3600000);
        say(report, status->public_expires_ms > now, "public_list", text);
    }
}

// The vault is asked for the trust record, whatever the link thinks of it.
static void check_store(struct kiln_link *link, const struct kiln_keeper_status *status, struct report *report) {
    struct kiln_err err = {0};
    bool answers = strncmp(status->trust_refusal, "trust_unreachable", strlen("trust_unreachable")) != 0;
    bool used = kiln_link_store(link, &err) == 0;
    say(report, answers && used, "store", !answers ? status->trust_refusal : used ? "answers" : err.text);
}

// A doctor goes and looks: it connects where no miss has yet.
static void check_fleet(const struct kiln_agent *agent, struct report *report) {
    struct kiln_fleet *fleet = kiln_membership_fleet(agent->membership);
    struct kiln_link *link = kiln_membership_link(agent->membership);
    struct kiln_submitter *submitter;
    struct kiln_keeper_status status;
    struct kiln_err err = {0};
    kiln_keeper_refresh(kiln_fleet_keeper(fleet), NULL); // what it finds is in the status
    kiln_keeper_status(kiln_fleet_keeper(fleet), &status);
    check_store(link, &status, report);
    check_trust(fleet, &status, report);
    bool bus = kiln_link_submitter(link, &submitter, &err) == 0;
    say(report, bus, "brokers", bus ? "connected" : err.text);
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
