#include "producer/agent/commands.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "producer/agent/doctor.h"

#define TEXT_BYTES_MAX (8u << 20)

// One run of a command: its words and options, and what it prints.
struct run {
    struct kiln_agent *agent;
    const struct kiln_command_request *request;
    bool json, may_control, stop;
    struct kiln_buf out, errout;
    int exit_code;
};

static bool has_option(const struct run *run, const char *option) {
    for (size_t i = 1; i < run->request->argc; i++)
        if (!strcmp(run->request->argv[i], option))
            return true;
    return false;
}

static bool word_is(const struct run *run, size_t at, const char *word) {
    return at < run->request->argc && !strcmp(run->request->argv[at], word);
}

static void run_stats(struct run *run) {
    if (has_option(run, "--zero")) {
        if (!run->may_control) {
            run->exit_code = 1;
            kiln_buf_add_str(&run->errout, "kiln stats --zero: only the agent's own user may do that\n");
            return;
        }
        kiln_stats_zero(run->agent->stats);
    }
    kiln_agent_count_missed(run->agent);
    kiln_stats_show(run->agent->stats, run->json, &run->out, NULL);
    if (run->json)
        return;
    struct kiln_l0_stats l0;
    kiln_l0_stats(run->agent->l0, &l0);
    kiln_buf_addf(&run->out, "\nlocal cache: %.1f MiB in %llu objects, %llu results; %.1f MiB evicted, %llu damaged\n",
                  (double)l0.bytes / 1048576, (unsigned long long)l0.objects, (unsigned long long)l0.actions,
                  (double)l0.evicted_bytes / 1048576, (unsigned long long)l0.corrupt);
}

static void run_config(struct run *run) { kiln_conf_show(run->agent->conf, run->json, &run->out); }

static void run_toolchain(struct run *run) {
    if (run->request->argc > 1 && !word_is(run, 1, "list") && run->request->argv[1][0] != '-') {
        run->exit_code = 2;
        kiln_buf_addf(&run->errout, "kiln toolchain: unknown word '%.64s'; try: kiln toolchain list\n", run->request->argv[1]);
        return;
    }
    kiln_toolchains_list(run->agent->toolchains, run->json, &run->out, NULL);
    if (!run->json && run->out.len == 0)
        kiln_buf_add_str(&run->out, "no toolchain is staged yet; the first build does it\n");
}

static void run_doctor(struct run *run) {
    bool healthy = true;
    if (kiln_doctor(run->agent, run->json, &run->out, &healthy))
        kiln_buf_add_str(&run->errout, "kiln doctor: out of memory\n");
    run->exit_code = healthy ? 0 : 1;
}

static void show_children(struct run *run) {
    static const char *const names[KILN_CHILDREN] = {"verifier", "executor"};
    const struct kiln_agent *agent = run->agent;
    for (int i = 0; i < KILN_CHILDREN; i++) {
        pid_t pid;
        bool runs = kiln_child_runs(agent->children, (enum kiln_child)i, &pid);
        if (run->json)
            kiln_buf_addf(&run->out, ",\"%s\":%d", names[i], runs ? (int)pid : 0);
        else if (runs)
            kiln_buf_addf(&run->out, "%s: pid %d\n", names[i], (int)pid);
        else
            kiln_buf_addf(&run->out, "%s: not running; see %s/agent.log\n", names[i], agent->options.dir);
    }
}

static void show_fleet(struct run *run) {
    struct kiln_fleet *fleet = kiln_membership_fleet(run->agent->membership);
    struct kiln_link_state link;
    struct kiln_err trust = {0};
    kiln_link_show(kiln_membership_link(run->agent->membership), &link);
    bool valid = kiln_keeper_valid(kiln_fleet_keeper(fleet), &trust) == 0;
    struct kiln_keeper_status status;
    kiln_keeper_status(kiln_fleet_keeper(fleet), &status);
    unsigned long long version = status.version, generation = status.generation;
    if (run->json) {
        kiln_buf_addf(&run->out, ",\"fleet\":{\"principal\":\"%s\",\"tenant\":\"%s\",\"trust_version\":%llu,\"generation\":%llu,\"trust_valid\":%s,"
                                 "\"bus\":\"%s\",\"store_up\":%s,\"refused\":%llu}", kiln_fleet_principal(fleet), kiln_fleet_tenant(fleet),
                      version, generation, valid ? "true" : "false", link.bus, link.store_up ? "true" : "false",
                      (unsigned long long)link.refused);
        return;
    }
    kiln_buf_addf(&run->out, "fleet: %s of tenant %s, trust record %llu, generation %llu; brokers %s, store %s\n",
                  kiln_fleet_principal(fleet), kiln_fleet_tenant(fleet), version, generation, link.bus, link.store_up ? "up" : "down");
    const char *const troubles[] = {valid ? "" : trust.text, link.bus_reason, link.store_reason};
    for (size_t i = 0; i < sizeof troubles / sizeof *troubles; i++)
        if (*troubles[i])
            kiln_buf_addf(&run->out, "  %s\n", troubles[i]);
    if (link.refused)
        kiln_buf_addf(&run->out, "  %llu records refused: %s\n", (unsigned long long)link.refused, *link.refusal ? link.refusal : "no answers");
}

static void show_status(struct run *run) {
    const struct kiln_agent *agent = run->agent;
    unsigned long long up = (kiln_clock_ms() - agent->started_ms) / 1000;
    if (run->json)
        kiln_buf_addf(&run->out, "{\"pid\":%d,\"version\":\"%s\",\"dir\":\"%s\",\"up_seconds\":%llu,\"waiting\":%zu", (int)getpid(),
                      KILN_VERSION, agent->options.dir, up, kiln_agent_waiting(agent));
    else
        kiln_buf_addf(&run->out, "agent %s, pid %d, up %llu s, in %s; %zu units wait for a result\n", KILN_VERSION, (int)getpid(),
                      up, agent->options.dir, kiln_agent_waiting(agent));
    if (agent->membership)
        show_fleet(run);
    else
        show_children(run);
    if (run->json)
        kiln_buf_add_str(&run->out, "}\n");
}

static void run_agent(struct run *run) {
    if (word_is(run, 1, "status")) {
        show_status(run);
        return;
    }
    if (word_is(run, 1, "stop") && run->may_control) {
        run->stop = true;
        kiln_buf_add_str(&run->out, "agent stopped\n");
        return;
    }
    run->exit_code = word_is(run, 1, "stop") ? 1 : 2;
    kiln_buf_add_str(&run->errout, word_is(run, 1, "stop") ? "kiln agent stop: only the agent's own user may do that\n"
                                                            : "kiln agent: start, stop or status\n");
}

static const struct {
    const char *name;
    void (*run)(struct run *run);
} commands[] = {{"stats", run_stats}, {"config", run_config}, {"toolchain", run_toolchain}, {"doctor", run_doctor}, {"agent", run_agent}};

void kiln_command_serve(struct kiln_agent *agent, const struct kiln_command_request *request, bool may_control,
                        struct kiln_command_reply *reply, bool *stop) {
    struct run run = {.agent = agent, .request = request, .may_control = may_control,
                      .out = KILN_BUF_INIT(TEXT_BYTES_MAX), .errout = KILN_BUF_INIT(TEXT_BYTES_MAX)};
    run.json = has_option(&run, "--json");
    bool found = false;
    for (size_t i = 0; !found && i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(commands[i].name, request->argv[0])) {
            found = true;
            commands[i].run(&run);
        }
    if (!found) {
        run.exit_code = 2;
        kiln_buf_addf(&run.errout, "kiln: the agent knows no command '%.64s'\n", request->argv[0]);
    }
    *stop = run.stop;
    *reply = (struct kiln_command_reply){.exit_code = run.exit_code};
    reply->out = kiln_buf_steal(&run.out, &reply->out_len);
    reply->errout = kiln_buf_steal(&run.errout, &reply->errout_len);
}
