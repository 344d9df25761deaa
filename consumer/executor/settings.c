#include "consumer/executor/settings.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fleet/fleet.h"

#define KEYS_MAX 128

static const struct kiln_conf_key own[] = {
    {"executor.backend", KILN_CONF_CHOICE, "bubblewrap", NULL, "bubblewrap|docker", false,
     "What sandboxes are made of: bubblewrap, or one container of Docker for each job."},
    {"executor.docker_socket", KILN_CONF_TEXT, "/var/run/docker.sock", NULL, NULL, false,
     "The socket of dockerd. Whoever may write to it is as good as root on that host."},
    {"executor.slots", KILN_CONF_COUNT, "0", NULL, NULL, false, "Jobs that run at the same time; 0 for one per processor."},
    {"executor.cache", KILN_CONF_BYTES, "40G", NULL, NULL, false,
     "Disk space of fetched packages and libraries; what running jobs use may exceed it."},
    {"executor.drain", KILN_CONF_MS, "10m", NULL, NULL, false,
     "How long running jobs may go on after SIGTERM; a second SIGTERM ends them."},
    {"executor.insecure_limits", KILN_CONF_BOOL, "false", NULL, NULL, false,
     "Takes jobs although this host cannot bound the memory, swap or processor time of a whole job (kiln-run --limits)."},
    {"executor.watch_all", KILN_CONF_BOOL, "false", NULL, NULL, false,
     "For audits: watches the system calls of every job, not only of those with macros that make some by themselves."},
    {"log.level", KILN_CONF_CHOICE, "info", NULL, "error|warn|info|debug", false, "What is written to standard error."},
    {"log.json", KILN_CONF_BOOL, "false", NULL, NULL, false, "One JSON object a line instead of key=value."},
};

// The table must live as long as what was loaded with it.
static struct kiln_conf_key all[KEYS_MAX];

static int join_tables(size_t *count, struct kiln_err *err) {
    const size_t own_count = sizeof own / sizeof *own;
    if (own_count + kiln_fleet_settings_count > KEYS_MAX)
        return kiln_fail(err, KILN_E_INTERNAL, "more than %d settings", KEYS_MAX);
    memcpy(all, own, sizeof own);
    memcpy(all + own_count, kiln_fleet_settings, kiln_fleet_settings_count * sizeof *all);
    *count = own_count + kiln_fleet_settings_count;
    return 0;
}

static int check_owner(const char *file, struct kiln_err *err) {
    struct stat st;
    if (stat(file, &st))
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "%s", file);
    if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 022))
        return kiln_fail(err, KILN_E_DENIED, "%s: must belong to this user or root and be writable by nobody else", file);
    return 0;
}

int kiln_executor_settings_load(const char *file, struct kiln_conf **out, struct kiln_err *err) {
    size_t count = 0;
    struct kiln_conf *conf = NULL;
    int rc = join_tables(&count, err);
    if (rc == 0)
        rc = check_owner(file, err);
    if (rc == 0)
        rc = kiln_conf_new(all, count, &conf, err);
    if (rc == 0)
        rc = kiln_conf_load_file(conf, file, err);
    if (rc == 0 && !kiln_fleet_configured(conf))
        rc = kiln_fail(err, KILN_E_INVAL, "%s names no fleet.brokers", file);
    if (rc) {
        kiln_conf_free(conf);
        return rc;
    }
    *out = conf;
    return 0;
}
