// What a command of kiln-admin works with: the settings of kiln.conf that name the fleet, and its roots.
#pragma once

#include "lib/base/cli.h"
#include "lib/base/conf.h"
#include "lib/core/rooted.h"

struct kiln_admin_settings {
    struct kiln_conf *conf;
    uint8_t root_keys[KILN_TRUST_ROOTS_MAX][KILN_PUBLIC_KEY_BYTES];
    struct kiln_roots roots; // points into root_keys
};

// Reads the file that --config names, ~/.config/kiln/kiln.conf or /etc/kiln/kiln.conf.
int kiln_admin_settings_load(const struct kiln_cli_call *call, struct kiln_admin_settings *settings, struct kiln_err *err);
void kiln_admin_settings_release(struct kiln_admin_settings *settings);
#define kiln_autosettings __attribute__((cleanup(kiln_admin_settings_release)))
// A text setting, or NULL when it is empty.
const char *kiln_admin_setting(const struct kiln_admin_settings *settings, const char *name);
