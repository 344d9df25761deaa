#include "ops/admin/settings.h"

#include "lib/fleet/fleet.h"

int kiln_admin_settings_load(const struct kiln_cli_call *call, struct kiln_admin_settings *settings, struct kiln_err *err) {
    const char *file = kiln_cli_text(call, "config");
    int rc = kiln_conf_new(kiln_fleet_settings, kiln_fleet_settings_count, &settings->conf, err);
    if (!rc)
        rc = kiln_conf_load_file(settings->conf, file ? file : "/etc/kiln/kiln.conf", err);
    return rc ? rc : kiln_fleet_roots(settings->conf, settings->root_keys, &settings->roots, err);
}

void kiln_admin_settings_release(struct kiln_admin_settings *settings) {
    kiln_conf_free(settings->conf);
    settings->conf = NULL;
}

const char *kiln_admin_setting(const struct kiln_admin_settings *settings, const char *name) {
    const char *value = kiln_conf_text(settings->conf, name);
    return *value ? value : NULL;
}
