#include "producer/agent/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

const struct kiln_conf_key kiln_settings[] = {
    {"cache.max_size", KILN_CONF_BYTES, "20G", NULL, NULL, false, "Upper bound of the local cache and of the embedded store, each."},
    {"build.incremental", KILN_CONF_CHOICE, "local", NULL, "local|drop", false,
     "What happens to -C incremental: compile such units locally, or drop the flag and cache them."},
    {"build.wait", KILN_CONF_MS, "14m", NULL, NULL, false, "How long a unit waits for its result before it is compiled locally."},
    {"executor.slots", KILN_CONF_COUNT, "0", NULL, NULL, false, "Jobs that run at the same time; 0 for one per processor."},
    {"log.level", KILN_CONF_CHOICE, "info", "KILN_LOG", "error|warn|info|debug", false, "What the agent writes to agent.log."},
    {"log.json", KILN_CONF_BOOL, "false", NULL, NULL, false, "One JSON object a line instead of key=value."},
};
const size_t kiln_settings_count = sizeof kiln_settings / sizeof *kiln_settings;

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
    int rc = kiln_conf_new(kiln_settings, kiln_settings_count, &conf, err);
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
