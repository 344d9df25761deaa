#include "producer/agent/settings.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/fleet/fleet.h"

#define KEYS_MAX 128

static const struct kiln_conf_key agent_keys[] = {
    {"cache.max_size", KILN_CONF_BYTES, "20G", NULL, NULL, false, "Upper bound of the local cache and of the embedded store, each."},
    {"build.incremental", KILN_CONF_CHOICE, "local", NULL, "local|drop", false,
     "What happens to -C incremental: compile such units locally, or drop the flag and cache them."},
    {"build.wait", KILN_CONF_MS, "14m", NULL, NULL, false, "How long a unit waits for its result before it is compiled locally."},
    {"executor.backend", KILN_CONF_CHOICE, "bubblewrap", NULL, "bubblewrap|docker", false,
     "What sandboxes are made of: bubblewrap, or one container of Docker for each job."},
    {"executor.docker_socket", KILN_CONF_TEXT, "/var/run/docker.sock", NULL, NULL, false,
     "The socket of dockerd. Whoever may write to it is as good as root on that host."},
    {"executor.slots", KILN_CONF_COUNT, "0", NULL, NULL, false, "Jobs that run at the same time; 0 for one per processor."},
    {"executor.watch_all", KILN_CONF_BOOL, "false", NULL, NULL, false,
     "For audits: watches the system calls of every job, not only of those with macros that make some by themselves."},
    {"log.level", KILN_CONF_CHOICE, "info", "KILN_LOG", "error|warn|info|debug", false, "What the agent writes to agent.log."},
    {"log.json", KILN_CONF_BOOL, "false", NULL, NULL, false, "One JSON object a line instead of key=value."},
};

// The agent's own, then the fleet's. Made once; what was loaded with it borrows it.
static struct kiln_conf_key all[KEYS_MAX];
static pthread_once_t joined = PTHREAD_ONCE_INIT;

static void join_tables(void) {
    const size_t own_count = sizeof agent_keys / sizeof *agent_keys;
    assert(own_count + kiln_fleet_settings_count <= KEYS_MAX);
    memcpy(all, agent_keys, sizeof agent_keys);
    memcpy(all + own_count, kiln_fleet_settings, kiln_fleet_settings_count * sizeof *all);
}

const struct kiln_conf_key *kiln_settings(size_t *count) {
    pthread_once(&joined, join_tables);
    *count = sizeof agent_keys / sizeof *agent_keys + kiln_fleet_settings_count;
    return all;
}

const char *kiln_settings_docker(const struct kiln_conf *conf) {
    bool docker = !strcmp(kiln_conf_text(conf, "executor.backend"), "docker");
    return docker ? kiln_conf_text(conf, "executor.docker_socket") : NULL;
}

static int check_owner(const char *path, struct kiln_err *err) {
    struct stat st;
    if (stat(path, &st))
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "%s", path);
    if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 022))
        return kiln_fail(err, KILN_E_DENIED, "%s: must belong to you or root and be writable by nobody else (chmod go-w)", path);
    return 0;
}

int kiln_settings_load(const char *file, const char *home, struct kiln_conf **out, struct kiln_err *err) {
    struct kiln_conf *conf;
    size_t count;
    const struct kiln_conf_key *keys = kiln_settings(&count);
    int rc = kiln_conf_new(keys, count, &conf, err);
    if (rc)
        return rc;
    kiln_autofree char *own = home ? kiln_path_join(home, ".config/kiln/kiln.conf") : NULL;
    const char *candidates[] = {own, "/etc/kiln/kiln.conf"};
    const char *chosen = file;
    for (int i = 0; !chosen && i < 2; i++)
        if (candidates[i] && access(candidates[i], F_OK) == 0)
            chosen = candidates[i];
    if (chosen)
        rc = check_owner(chosen, err);
    if (rc == 0 && chosen)
        rc = kiln_conf_load_file(conf, chosen, err);
    if (rc == 0)
        rc = kiln_conf_load_env(conf, environ, err);
    if (rc) {
        kiln_conf_free(conf);
        return rc;
    }
    *out = conf;
    return 0;
}
