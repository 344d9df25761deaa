// A fleet as kiln.conf names it: the connections and the identity that agent, verifier, executor and commands share.
//
// Layer: above bus and blob. Settings are the table kiln_fleet_settings ([fleet], [s3], [tls], and [kafka] passed through).
// Without fleet.brokers there is no fleet: the embedded default. Secrets come from files named in the settings, mode 0600,
// owned by the reader.
#pragma once

#include "lib/base/conf.h"
#include "lib/blob/store.h"
#include "lib/bus/bus.h"
#include "lib/fleet/keeper.h"

extern const struct kiln_conf_key kiln_fleet_settings[];
extern const size_t kiln_fleet_settings_count;

struct kiln_fleet; // settings, record key, incarnation, keeper

bool kiln_fleet_configured(const struct kiln_conf *conf);
// Reads keys and settings, opens the store and the keeper (which fetches the trust record; a fleet without a valid one opens, and
// kiln_keeper_valid says why it cannot be used yet). No Kafka connection is made. state_dir: where the newest trust record is kept.
int kiln_fleet_open(const struct kiln_conf *conf, enum kiln_role role, const char *state_dir, struct kiln_fleet **fleet,
                    struct kiln_err *err);
void kiln_fleet_close(struct kiln_fleet *fleet); // after the buses made from it
int kiln_fleet_open_bus(struct kiln_fleet *fleet, struct kiln_bus **bus, struct kiln_err *err);
struct kiln_store *kiln_fleet_store(struct kiln_fleet *fleet); // borrowed
struct kiln_keeper *kiln_fleet_keeper(struct kiln_fleet *fleet);
const char *kiln_fleet_principal(const struct kiln_fleet *fleet);
const char *kiln_fleet_tenant(const struct kiln_fleet *fleet);
const char *kiln_fleet_pool(const struct kiln_fleet *fleet);
const struct kiln_job_id *kiln_fleet_incarnation(const struct kiln_fleet *fleet);
const struct kiln_sign_key *kiln_fleet_record_key(const struct kiln_fleet *fleet);
