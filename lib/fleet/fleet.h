// A fleet as kiln.conf names it: the connections and the identity that agent, verifier, executor and commands share.
//
// Layer: above bus and blob. Settings are the table kiln_fleet_settings ([fleet], [s3], [tls], and [kafka] passed through), which a
// program joins to its own. Without fleet.brokers there is no fleet: the embedded default. Secrets come from files named in the
// settings: regular, mode 0600, owned by the reader; a setting never holds one.
#pragma once

#include "lib/base/conf.h"
#include "lib/blob/store.h"
#include "lib/bus/bus.h"
#include "lib/fleet/keeper.h"

extern const struct kiln_conf_key kiln_fleet_settings[];
extern const size_t kiln_fleet_settings_count;

struct kiln_fleet; // settings, record key, incarnation, keeper

bool kiln_fleet_configured(const struct kiln_conf *conf);
// What the settings say, without touching file or network: KILN_E_INVAL names the setting that is missing or makes no sense for
// the role.
int kiln_fleet_check(const struct kiln_conf *conf, enum kiln_role role, struct kiln_err *err);
// The trust roots of fleet.trust_roots and fleet.trust_threshold; `keys` holds what roots->keys points to.
int kiln_fleet_roots(const struct kiln_conf *conf, uint8_t keys[KILN_TRUST_ROOTS_MAX][KILN_PUBLIC_KEY_BYTES],
                     struct kiln_roots *roots, struct kiln_err *err);
// Reads keys and settings, opens the store and the keeper (which fetches the trust record; a fleet without a valid one opens, and
// kiln_keeper_valid says why it cannot be used yet). No Kafka connection is made. state_dir: where the newest trust record is kept.
// conf is borrowed as long as the fleet.
int kiln_fleet_open(const struct kiln_conf *conf, enum kiln_role role, const char *state_dir, struct kiln_fleet **fleet,
                    struct kiln_err *err);
void kiln_fleet_close(struct kiln_fleet *fleet); // after the buses made from it
// Whether the S3 server honours what a vault needs (kiln_s3_probe): for a verifier, before it starts.
int kiln_fleet_probe_store(const struct kiln_fleet *fleet, const char *state_dir, struct kiln_err *err);
int kiln_fleet_open_bus(struct kiln_fleet *fleet, struct kiln_bus **bus, struct kiln_err *err);
struct kiln_store *kiln_fleet_store(struct kiln_fleet *fleet); // borrowed
struct kiln_keeper *kiln_fleet_keeper(struct kiln_fleet *fleet);
const char *kiln_fleet_principal(const struct kiln_fleet *fleet);
const char *kiln_fleet_tenant(const struct kiln_fleet *fleet);
const char *kiln_fleet_pool(const struct kiln_fleet *fleet);
const struct kiln_job_id *kiln_fleet_incarnation(const struct kiln_fleet *fleet);
const struct kiln_sign_key *kiln_fleet_record_key(const struct kiln_fleet *fleet); // NULL for a reader without one
const struct kiln_sign_key *kiln_fleet_sign_key(const struct kiln_fleet *fleet); // a verifier's, for results; else NULL
// Whether the record in force knows this process: the name, with this role, tenant, pool and record key, not revoked, and a
// verifier's signing key. KILN_E_DENIED with what differs.
int kiln_fleet_enrolled(struct kiln_fleet *fleet, struct kiln_err *err);
