#include "producer/agent/membership.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/bus/bus_kafka.h"
#include "producer/agent/history.h"

// A verifier accepts within milliseconds; one that died is followed by another after its session (6 s), which costs the units
// of that while, and no more of them, a local compile.
#define SILENCE_MS 2000u
// Else quick units would be called late, one after the other, where nobody is there to answer.
_Static_assert(SILENCE_MS + 500 <= KILN_HISTORY_LEAST_MS, "a silent fleet is found out before a unit is late");

struct kiln_membership {
    struct kiln_fleet *fleet;
    struct kiln_link *link;
    struct kiln_prefetch *prefetch;
    struct kiln_compile_doubts doubts;
    struct kiln_lookup lookup;
    const struct kiln_compile_context *context; // once it is equipped
    int scratch_dir;
};

static int open_bus(void *context, struct kiln_bus **bus, struct kiln_err *err) {
    const struct kiln_membership *membership = context;
    return kiln_fleet_open_bus(membership->fleet, bus, err);
}

// Any answer will do: also that something is not there, or not for us.
static int probe_store(void *context, struct kiln_err *err) {
    const struct kiln_membership *membership = context;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(8u << 20);
    int rc = kiln_store_get_bytes(kiln_fleet_store(membership->fleet), KILN_SPACE_VAULT, "trust/record", &bytes, err);
    return rc == KILN_E_IO || rc == KILN_E_TIMEOUT ? rc : 0;
}

static void take_late(void *context, const struct kiln_late_result *late) { // on the reading thread
    const struct kiln_membership *membership = context;
    kiln_prefetch_late(membership->prefetch, late);
}

static void keep_late(void *context, const struct kiln_late_result *late) {
    const struct kiln_membership *membership = context;
    if (membership->context)
        kiln_compile_late(membership->context, late);
}

static int open_scratch(struct kiln_membership *membership, const char *dir, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(dir, "l0"); // the cache's file system, so that it can link what it gets
    return path ? kiln_fs_open_dir(path, &membership->scratch_dir, err) : kiln_fail(err, KILN_E_NOMEM, "fleet");
}

static int open_link(struct kiln_membership *membership, const struct kiln_membership_options *with, struct kiln_err *err) {
    const struct kiln_fleet *fleet = membership->fleet;
    const uint32_t partition = kiln_kafka_result_partition(kiln_fleet_principal(fleet), kiln_fleet_incarnation(fleet),
                                                           (uint32_t)kiln_conf_number(with->conf, "fleet.result_partitions"));
    const struct kiln_link_options options = {
        .open_bus = open_bus, .probe_store = probe_store, .context = membership,
        .submitter = {.agent = kiln_fleet_principal(fleet), .tenant = kiln_fleet_tenant(fleet),
                      .waiter_partition = partition, .late = take_late, .context = membership, .late_ms = with->late_ms,
                      .silence_ms = SILENCE_MS},
    };
    return kiln_link_new(&options, &membership->link, err);
}

static int open_all(const struct kiln_membership_options *options, struct kiln_membership *membership, struct kiln_err *err) {
    int rc = open_scratch(membership, options->dir, err);
    if (rc == 0)
        rc = kiln_fleet_open(options->conf, KILN_ROLE_OF_AGENT, options->dir, &membership->fleet, err);
    if (rc == 0)
        rc = open_link(membership, options, err);
    if (rc)
        return rc;
    membership->lookup = (struct kiln_lookup){
        .l0 = options->l0, .store = kiln_fleet_store(membership->fleet), .keeper = kiln_fleet_keeper(membership->fleet),
        .link = membership->link, .stats = options->stats, .scratch_dir = membership->scratch_dir};
    const struct kiln_prefetch_options prefetch = {.lookup = membership->lookup, .tenant = kiln_fleet_tenant(membership->fleet),
                                                   .late = keep_late, .context = membership};
    return kiln_prefetch_new(&prefetch, &membership->prefetch, err);
}

int kiln_membership_open(const struct kiln_membership_options *options, struct kiln_membership **out, struct kiln_err *err) {
    struct kiln_membership *membership = calloc(1, sizeof *membership);
    if (!membership)
        return kiln_fail(err, KILN_E_NOMEM, "fleet");
    membership->scratch_dir = -1;
    int rc = open_all(options, membership, err);
    if (rc) {
        kiln_membership_close(membership);
        return rc;
    }
    *out = membership;
    return 0;
}

void kiln_membership_close(struct kiln_membership *membership) {
    if (!membership)
        return;
    // The link's thread hands late results to the prefetch, whose threads ask the link for the store: a stopped link answers,
    // a freed one would not, so both wind down before either is freed.
    kiln_prefetch_stop(membership->prefetch);
    kiln_link_free(membership->link);
    kiln_prefetch_free(membership->prefetch);
    kiln_fleet_close(membership->fleet);
    kiln_cleanup_fd(&membership->scratch_dir);
    free(membership);
}

void kiln_membership_equip(struct kiln_membership *membership, struct kiln_compile_context *context) {
    context->lookup = membership->lookup;
    context->tenant = kiln_fleet_tenant(membership->fleet);
    context->prefetch = membership->prefetch;
    context->doubts = &membership->doubts;
    membership->context = context;
}

void kiln_membership_tick(struct kiln_membership *membership, uint64_t now_ms) {
    kiln_prefetch_tick(membership->prefetch, now_ms);
}

void kiln_membership_give_up(struct kiln_membership *membership, const char *reason) {
    kiln_link_give_up(membership->link, reason);
}

struct kiln_link *kiln_membership_link(struct kiln_membership *membership) { return membership->link; }
struct kiln_fleet *kiln_membership_fleet(struct kiln_membership *membership) { return membership->fleet; }
