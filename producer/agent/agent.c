#include "producer/agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/base/path.h"
#include "lib/ipc/missed.h"
#include "producer/agent/settings.h"

#define BREAKER_MS 60000
#define KEY_WAIT_MS 10000
#define LOG_BYTES_MAX (16 << 20)

static int take_lock(struct kiln_agent *agent, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(agent->options.dir, "agent.lock");
    int rc = path ? kiln_fs_make_dirs(AT_FDCWD, agent->options.dir, agent->options.system_mode ? 0755 : 0700, err) : KILN_E_NOMEM;
    if (rc)
        return rc;
    agent->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (agent->lock_fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    if (flock(agent->lock_fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? kiln_fail(err, KILN_E_EXISTS, "another agent serves %s", agent->options.dir)
                                    : kiln_fail_errno(err, KILN_E_IO, "lock %s", path);
    return 0;
}

static int open_log(struct kiln_agent *agent, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(agent->options.dir, "agent.log");
    if (!path)
        return kiln_fail(err, KILN_E_NOMEM, "log");
    agent->log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (agent->log_fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    struct stat st;
    if (fstat(agent->log_fd, &st) == 0 && st.st_size > LOG_BYTES_MAX && ftruncate(agent->log_fd, 0))
        return kiln_fail_errno(err, KILN_E_IO, "truncate %s", path);
    enum kiln_log_level level = KILN_LOG_INFO;
    kiln_log_level_parse(kiln_conf_text(agent->conf, "log.level"), &level);
    kiln_log_init(agent->log_fd, "agent", level, kiln_conf_bool(agent->conf, "log.json"));
    return 0;
}

static void children_changed(void *context, enum kiln_child child, const char *reason) {
    struct kiln_agent *agent = context;
    if (reason) {
        kiln_breaker_trip(agent->breaker, kiln_clock_ms(), reason);
        kiln_submitter_give_up(agent->submitter, reason);
    } else {
        if (child == KILN_CHILD_VERIFIER)
            kiln_submitter_resubmit(agent->submitter);
        kiln_breaker_succeed(agent->breaker);
    }
}

static int open_bus(struct kiln_agent *agent, struct kiln_err *err) {
    int rc = kiln_bus_server_new(&agent->bus, err);
    int fd = -1;
    struct kiln_bus *bus = NULL;
    if (rc == 0)
        rc = kiln_bus_server_connect(agent->bus, KILN_BUS_AGENT, &fd, err);
    if (rc == 0)
        rc = kiln_bus_open_fd(fd, &bus, err);
    const struct kiln_submitter_options options = {.agent = "host", .tenant = "local"};
    return rc ? rc : kiln_submitter_new(bus, &options, &agent->submitter, err);
}

// The verifier makes its key at its first start; every result, also from the local cache, is checked with its public half.
static int load_trust(struct kiln_agent *agent, struct kiln_err *err) {
    int rc = kiln_trust_new(&agent->trust, err);
    kiln_autofree char *keys = kiln_path_join(agent->options.dir, "keys");
    uint64_t deadline = kiln_clock_ms() + KEY_WAIT_MS;
    while (rc == 0) {
        kiln_autofd int dir = -1;
        if (keys && (dir = open(keys, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0 &&
            kiln_trust_add_file(agent->trust, dir, "verifier", err) == 0)
            return 0;
        if (kiln_clock_left_ms(deadline) == 0)
            return kiln_wrap(err, KILN_E_TIMEOUT, "the verifier made no key");
        const struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
    }
    return rc;
}

static int open_rooms(struct kiln_agent *agent, struct kiln_err *err) {
    const char *dir = agent->options.dir;
    const enum kiln_toolchain_use use = kiln_fleet_configured(agent->conf) ? KILN_TOOLCHAIN_NAMED : KILN_TOOLCHAIN_STAGED;
    kiln_autofree char *l0 = kiln_path_join(dir, "l0");
    if (!l0 || !(agent->ancestors = kiln_ancestors_new()) || !(agent->breaker = kiln_breaker_new(BREAKER_MS)) ||
        !(agent->conversations = kiln_conversations_new()))
        return kiln_fail(err, KILN_E_NOMEM, "agent");
    int rc = kiln_l0_open(l0, kiln_conf_number(agent->conf, "cache.max_size"), &agent->l0, err);
    if (rc == 0)
        rc = kiln_memo_new(agent->l0, &agent->memo, err);
    if (rc == 0)
        rc = kiln_toolchains_new(dir, agent->l0, agent->options.system_mode, use, &agent->toolchains, err);
    return rc ? rc : kiln_stats_open(dir, &agent->stats, err);
}

static int join_fleet(struct kiln_agent *agent, struct kiln_err *err) {
    const struct kiln_membership_options options = {
        .conf = agent->conf, .dir = agent->options.dir, .l0 = agent->l0, .stats = agent->stats,
        .late_ms = kiln_conf_number(agent->conf, "build.wait"),
    };
    return kiln_membership_open(&options, &agent->membership, err);
}

static int start_children(struct kiln_agent *agent, struct kiln_err *err) {
    const struct kiln_children_options options = {
        .dir = agent->options.dir, .libexec = agent->options.libexec,
        .store_max_bytes = kiln_conf_number(agent->conf, "cache.max_size"),
        .slots = kiln_conf_number(agent->conf, "executor.slots"),
        .docker = kiln_settings_docker(agent->conf),
        .watch_all = kiln_conf_bool(agent->conf, "executor.watch_all"),
        .log_fd = agent->log_fd, .bus = agent->bus, .changed = children_changed, .context = agent,
    };
    int rc = kiln_children_new(&options, &agent->children, err);
    if (rc == 0)
        kiln_children_tick(agent->children, kiln_clock_ms());
    return rc ? rc : load_trust(agent, err);
}

static int open_embedded(struct kiln_agent *agent, struct kiln_err *err) {
    kiln_autofree char *store = kiln_path_join(agent->options.dir, "store");
    int rc = store ? kiln_store_open_dir(store, KILN_ROLE_AGENT, &agent->store, err) : kiln_fail(err, KILN_E_NOMEM, "agent");
    if (rc == 0)
        rc = open_bus(agent, err);
    return rc ? rc : start_children(agent, err);
}

static void fill_compile_context(struct kiln_agent *agent) {
    agent->compile = (struct kiln_compile_context){
        .unit = {.l0 = agent->l0, .memo = agent->memo, .toolchains = agent->toolchains, .ancestors = agent->ancestors,
                 .system_mode = agent->options.system_mode,
                 .drop_incremental = !strcmp(kiln_conf_text(agent->conf, "build.incremental"), "drop")},
        .lookup = {.l0 = agent->l0, .store = agent->store, .trust = agent->trust, .stats = agent->stats},
        .submitter = agent->submitter, .breaker = agent->breaker, .stats = agent->stats,
        .wait_ms = kiln_conf_number(agent->conf, "build.wait"),
    };
    if (agent->membership)
        kiln_membership_equip(agent->membership, &agent->compile);
}

int kiln_agent_open(const struct kiln_agent_options *options, struct kiln_agent *agent, struct kiln_err *err) {
    *agent = (struct kiln_agent){.options = *options, .lock_fd = -1, .log_fd = -1, .started_ms = kiln_clock_ms()};
    const char *home = options->system_mode ? NULL : getenv("HOME");
    int rc = kiln_settings_load(options->config, home, &agent->conf, err);
    if (rc == 0)
        rc = take_lock(agent, err);
    if (rc == 0)
        rc = open_log(agent, err);
    if (rc == 0)
        rc = open_rooms(agent, err);
    if (rc == 0)
        rc = kiln_fleet_configured(agent->conf) ? join_fleet(agent, err) : open_embedded(agent, err);
    if (rc) {
        kiln_agent_close(agent);
        return rc;
    }
    fill_compile_context(agent);
    return 0;
}

void kiln_agent_close(struct kiln_agent *agent) {
    kiln_membership_close(agent->membership);
    kiln_submitter_free(agent->submitter);
    kiln_children_free(agent->children);
    kiln_bus_server_free(agent->bus);
    kiln_conversations_free(agent->conversations);
    kiln_stats_close(agent->stats);
    kiln_store_close(agent->store);
    kiln_toolchains_free(agent->toolchains);
    kiln_memo_free(agent->memo);
    kiln_l0_close(agent->l0);
    kiln_trust_free(agent->trust);
    kiln_breaker_free(agent->breaker);
    kiln_ancestors_free(agent->ancestors);
    kiln_conf_free(agent->conf);
    if (agent->log_fd >= 0)
        close(agent->log_fd);
    if (agent->lock_fd >= 0)
        close(agent->lock_fd);
}

static void count_missed(void *context, const char *reason) {
    struct kiln_agent *agent = context;
    kiln_stats_add(agent->stats, "", KILN_STAT_REQUESTS);
    kiln_stats_add_local(agent->stats, "", reason);
}

void kiln_agent_count_missed(struct kiln_agent *agent) {
    struct kiln_err err = {0};
    if (kiln_missed_take(agent->options.dir, count_missed, agent, &err))
        kiln_log(KILN_LOG_WARN, "missed", "error", err.text, NULL);
}

void kiln_agent_give_up(struct kiln_agent *agent, const char *reason) {
    if (agent->membership)
        kiln_membership_give_up(agent->membership, reason);
    else
        kiln_submitter_give_up(agent->submitter, reason);
}

size_t kiln_agent_waiting(const struct kiln_agent *agent) {
    return agent->membership ? kiln_link_waiting(kiln_membership_link(agent->membership))
                             : kiln_submitter_waiting(agent->submitter);
}

void kiln_agent_tick(struct kiln_agent *agent, uint64_t now_ms) {
    if (agent->membership)
        kiln_membership_tick(agent->membership, now_ms);
    else
        kiln_children_tick(agent->children, now_ms);
    struct kiln_err err = {0};
    if (kiln_stats_save(agent->stats, &err) || kiln_l0_evict(agent->l0, &err))
        kiln_log(KILN_LOG_WARN, "housekeeping", "error", err.text, NULL);
}
