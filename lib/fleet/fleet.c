#include "lib/fleet/fleet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/blob/store_s3.h"
#include "lib/bus/bus_kafka.h"

#define SECRET_FILE_BYTES_MAX 1024u
#define PASSED_MAX 256u
// The keeper has a connection of its own with short limits: stopping it waits for one request at most.
#define AGENT_REQUEST_MS 2000 // without a sign of life: somebody waits for a build, and can compile
#define KEEPER_REQUEST_MS 3000u

struct kiln_fleet {
    const struct kiln_conf *conf; // borrowed
    enum kiln_role role;
    struct kiln_sign_key *record_key; // NULL: a reader without one
    struct kiln_sign_key *sign_key;   // NULL: no verifier
    struct kiln_job_id incarnation;
    struct kiln_store *store, *keeper_store;
    struct kiln_keeper *keeper;
};

static void wipe(char (*text)[SECRET_FILE_BYTES_MAX + 1]) { explicit_bzero(*text, sizeof *text); }

static const char *setting(const struct kiln_fleet *fleet, const char *name) {
    const char *value = kiln_conf_text(fleet->conf, name);
    return *value ? value : NULL;
}

static enum kiln_store_role store_role(enum kiln_role role) {
    switch (role) {
    case KILN_ROLE_OF_AGENT:
        return KILN_ROLE_AGENT;
    case KILN_ROLE_OF_EXECUTOR:
        return KILN_ROLE_EXECUTOR;
    case KILN_ROLE_OF_VERIFIER:
    case KILN_ROLE_OF_OPERATOR: // the server's own rights decide what an operator may
        return KILN_ROLE_VERIFIER;
    case KILN_ROLE_OF_READER:
    case KILN_ROLE_OF_NOBODY:
        break;
    }
    return KILN_ROLE_READER;
}

static int read_secret(const char *path, char (*text)[SECRET_FILE_BYTES_MAX + 1], struct kiln_err *err) {
    kiln_autofd int fd = -1;
    int rc = kiln_fs_open_private(AT_FDCWD, path, 077, &fd, err);
    if (rc)
        return rc;
    ssize_t got = pread(fd, *text, SECRET_FILE_BYTES_MAX, 0);
    if (got < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot read %s", path);
    (*text)[got] = 0;
    if (got == SECRET_FILE_BYTES_MAX || strlen(*text) != (size_t)got)
        return kiln_fail(err, KILN_E_INVAL, "%s is no file of keys", path);
    return 0;
}

// Cuts "ACCESS\nSECRET\n" in two.
static int split_keys(char *text, const char *path, const char **access, const char **secret, struct kiln_err *err) {
    size_t first = strcspn(text, "\n");
    char *rest = text[first] ? text + first + 1 : text + first;
    size_t second = strcspn(rest, "\n");
    const char *end = rest + second + (rest[second] ? 1 : 0);
    text[first] = 0;
    rest[second] = 0;
    if (!first || !second || *end || strpbrk(text, " \t\r") || strpbrk(rest, " \t\r"))
        return kiln_fail(err, KILN_E_INVAL, "%s: two lines are needed: access key, secret key", path);
    *access = text;
    *secret = rest;
    return 0;
}

// Makes SCRATCH below state_dir and says what a connection needs; *scratch and text hold what *options borrows.
static int make_options(const struct kiln_fleet *fleet, const char *state_dir, char **scratch,
                        char (*text)[SECRET_FILE_BYTES_MAX + 1], struct kiln_s3_options *options, struct kiln_err *err) {
    const char *path = setting(fleet, "s3.access_key_file");
    *scratch = kiln_path_join(state_dir, "scratch");
    int rc = *scratch ? kiln_fs_make_dirs(AT_FDCWD, *scratch, 0700, err) : kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    if (rc)
        return rc;
    *options = (struct kiln_s3_options){.endpoint = setting(fleet, "s3.endpoint"),
                                        .region = setting(fleet, "s3.region"),
                                        .bucket_prefix = setting(fleet, "s3.bucket_prefix"),
                                        .tls_ca = setting(fleet, "tls.s3_ca"),
                                        .scratch_dir = *scratch,
                                        .libs3 = kiln_conf_bool(fleet->conf, "s3.libs3")};
    rc = read_secret(path, text, err);
    if (!rc)
        rc = split_keys(*text, path, &options->access_key, &options->secret_key, err);
    return rc ? kiln_wrap(err, rc, "s3.access_key_file") : 0;
}

static int open_stores(struct kiln_fleet *fleet, const char *state_dir, struct kiln_err *err) {
    kiln_auto(wipe) char text[SECRET_FILE_BYTES_MAX + 1];
    kiln_autofree char *scratch = NULL;
    struct kiln_s3_options options;
    int rc = make_options(fleet, state_dir, &scratch, &text, &options, err);
    if (fleet->role == KILN_ROLE_OF_AGENT) { // a store that does not answer is left alone at once, and asked again later
        options.request_ms = AGENT_REQUEST_MS;
        options.impatient = true;
    }
    if (!rc)
        rc = kiln_store_open_s3(&options, store_role(fleet->role), &fleet->store, err);
    if (rc)
        return rc;
    options.request_ms = KEEPER_REQUEST_MS;
    options.parallel = 1;
    options.libs3 = false;
    return kiln_store_open_s3(&options, KILN_ROLE_READER, &fleet->keeper_store, err);
}

int kiln_fleet_probe_store(const struct kiln_fleet *fleet, const char *state_dir, struct kiln_err *err) {
    kiln_auto(wipe) char text[SECRET_FILE_BYTES_MAX + 1];
    kiln_autofree char *scratch = NULL;
    struct kiln_s3_options options;
    int rc = make_options(fleet, state_dir, &scratch, &text, &options, err);
    return rc ? rc : kiln_s3_probe(&options, err);
}

static int load_key(const struct kiln_fleet *fleet, const char *name, struct kiln_sign_key **key, struct kiln_err *err) {
    const char *path = setting(fleet, name);
    int rc = path ? kiln_sign_key_load(AT_FDCWD, path, key, err) : 0;
    return rc ? kiln_wrap(err, rc, "%s", name) : 0;
}

static int load_keys(struct kiln_fleet *fleet, struct kiln_err *err) {
    int rc = load_key(fleet, "fleet.record_key", &fleet->record_key, err);
    if (!rc && fleet->role == KILN_ROLE_OF_VERIFIER)
        rc = load_key(fleet, "fleet.sign_key", &fleet->sign_key, err);
    return rc;
}

static int make_incarnation(struct kiln_job_id *incarnation, struct kiln_err *err) {
    if (getrandom(incarnation->bytes, sizeof incarnation->bytes, 0) != sizeof incarnation->bytes)
        return kiln_fail_errno(err, KILN_E_INTERNAL, "no random bytes");
    return 0;
}

static int open_keeper(struct kiln_fleet *fleet, const char *state_dir, struct kiln_err *err) {
    uint8_t keys[KILN_TRUST_ROOTS_MAX][KILN_PUBLIC_KEY_BYTES];
    struct kiln_roots roots;
    int rc = kiln_fleet_roots(fleet->conf, keys, &roots, err);
    if (rc)
        return rc;
    kiln_autofree char *dir = kiln_path_join(state_dir, "trust");
    if (!dir)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    struct kiln_keeper_options options = {.store = fleet->keeper_store,
                                          .dir = dir,
                                          .roots = roots.keys,
                                          .roots_count = roots.count,
                                          .threshold = roots.threshold,
                                          .refresh_ms = kiln_conf_number(fleet->conf, "fleet.trust_refresh"),
                                          .least_version = kiln_conf_number(fleet->conf, "fleet.trust_version")};
    return kiln_keeper_open(&options, &fleet->keeper, err);
}

int kiln_fleet_open(const struct kiln_conf *conf, enum kiln_role role, const char *state_dir, struct kiln_fleet **fleet,
                    struct kiln_err *err) {
    int rc = kiln_fleet_check(conf, role, err);
    if (rc)
        return rc;
    struct kiln_fleet *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a fleet");
    made->conf = conf;
    made->role = role;
    rc = load_keys(made, err);
    if (!rc)
        rc = make_incarnation(&made->incarnation, err);
    if (!rc)
        rc = open_stores(made, state_dir, err);
    if (!rc)
        rc = open_keeper(made, state_dir, err);
    if (rc)
        kiln_fleet_close(made);
    else
        *fleet = made;
    return rc;
}

void kiln_fleet_close(struct kiln_fleet *fleet) {
    if (!fleet)
        return;
    kiln_keeper_close(fleet->keeper);
    if (fleet->keeper_store)
        kiln_store_close(fleet->keeper_store);
    if (fleet->store)
        kiln_store_close(fleet->store);
    kiln_sign_key_free(fleet->record_key);
    kiln_sign_key_free(fleet->sign_key);
    free(fleet);
}

int kiln_fleet_open_bus(struct kiln_fleet *fleet, struct kiln_bus **bus, struct kiln_err *err) {
    struct kiln_kafka_setting settings[PASSED_MAX];
    struct kiln_conf_item item;
    size_t count = 0;
    for (; count < PASSED_MAX && kiln_conf_item(fleet->conf, "kafka.*", count, &item); count++)
        settings[count] = (struct kiln_kafka_setting){item.name, item.value};
    struct kiln_kafka_options options = {
        .brokers = setting(fleet, "fleet.brokers"),
        .role = fleet->role,
        .principal = kiln_fleet_principal(fleet),
        .tenant = kiln_fleet_tenant(fleet),
        .pool = kiln_fleet_pool(fleet),
        .incarnation = fleet->incarnation,
        .key = fleet->role == KILN_ROLE_OF_READER ? NULL : fleet->record_key,
        .tls_ca = setting(fleet, "tls.ca"),
        .tls_cert = setting(fleet, "tls.cert"),
        .tls_key = setting(fleet, "tls.key"),
        .partitions = (uint32_t)kiln_conf_number(fleet->conf, "fleet.partitions"),
        .work_partitions = (uint32_t)kiln_conf_number(fleet->conf, "fleet.work_partitions"),
        .result_partitions = (uint32_t)kiln_conf_number(fleet->conf, "fleet.result_partitions"),
        .topic_prefix = kiln_conf_text(fleet->conf, "fleet.topic_prefix"),
        .settings = settings,
        .settings_count = count,
        .find = kiln_keeper_find,
        .context = fleet->keeper,
    };
    return kiln_bus_open_kafka(&options, bus, err);
}

struct kiln_store *kiln_fleet_store(struct kiln_fleet *fleet) { return fleet->store; }
struct kiln_keeper *kiln_fleet_keeper(struct kiln_fleet *fleet) { return fleet->keeper; }
const char *kiln_fleet_principal(const struct kiln_fleet *fleet) { return kiln_conf_text(fleet->conf, "fleet.principal"); }
const char *kiln_fleet_tenant(const struct kiln_fleet *fleet) { return kiln_conf_text(fleet->conf, "fleet.tenant"); }
const char *kiln_fleet_pool(const struct kiln_fleet *fleet) { return kiln_conf_text(fleet->conf, "fleet.pool"); }
const struct kiln_job_id *kiln_fleet_incarnation(const struct kiln_fleet *fleet) { return &fleet->incarnation; }
const struct kiln_sign_key *kiln_fleet_record_key(const struct kiln_fleet *fleet) { return fleet->record_key; }
const struct kiln_sign_key *kiln_fleet_sign_key(const struct kiln_fleet *fleet) { return fleet->sign_key; }

static int check_enrolment(const struct kiln_fleet *fleet, const struct kiln_principal *found, struct kiln_err *err) {
    uint8_t key[KILN_PUBLIC_KEY_BYTES] = {0};
    if (fleet->record_key)
        kiln_sign_key_public(fleet->record_key, key);
    if (found->role != fleet->role)
        return kiln_fail(err, KILN_E_DENIED, "%s is enrolled with another role", found->name);
    if (fleet->record_key && memcmp(key, found->record_key, sizeof key) != 0)
        return kiln_fail(err, KILN_E_DENIED, "%s is enrolled with another record key", found->name);
    if (fleet->role == KILN_ROLE_OF_AGENT && strcmp(found->tenant, kiln_fleet_tenant(fleet)) != 0)
        return kiln_fail(err, KILN_E_DENIED, "%s is enrolled in tenant %s", found->name, found->tenant);
    if (fleet->role == KILN_ROLE_OF_EXECUTOR && strcmp(found->pool, kiln_fleet_pool(fleet)) != 0)
        return kiln_fail(err, KILN_E_DENIED, "%s is enrolled in pool %s", found->name, found->pool);
    return 0;
}

int kiln_fleet_enrolled(struct kiln_fleet *fleet, struct kiln_err *err) {
    struct kiln_principal found;
    int rc = kiln_keeper_valid(fleet->keeper, err);
    if (rc)
        return rc;
    if (!kiln_keeper_find(fleet->keeper, kiln_fleet_principal(fleet), &found))
        return kiln_fail(err, KILN_E_DENIED, "%s is not enrolled, or is revoked", kiln_fleet_principal(fleet));
    rc = check_enrolment(fleet, &found, err);
    if (!rc && fleet->sign_key && !kiln_keeper_signs(fleet->keeper, found.name, fleet->sign_key))
        rc = kiln_fail(err, KILN_E_DENIED, "the record does not know the signing key of %s, or no longer", found.name);
    return rc;
}
