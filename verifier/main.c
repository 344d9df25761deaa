// kiln-verifier: the only program that signs. With --config it serves a fleet (fleet_verifier.c). Without, it is the embedded
// one: descriptor 3 is its connection to the bus, and it ends when the bus goes.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/base/conf.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/base/path.h"
#include "verifier/fleet_verifier.h"
#include "verifier/serve.h"

#define BUS_FD 3
#define PRINCIPAL "local"
#define POLL_MS_MAX 5000u
#define QUIET_MS (15u * 1000)  // without a record before pruning
#define PRUNE_EVERY_MS (5ull * 60 * 1000)
#define KEEP_MS (10ull * 60 * 1000)
#define QUARANTINE_KEEP_MS (60ull * 60 * 1000)

static const struct kiln_conf_key settings[] = {
    {.name = "vault-max", .type = KILN_CONF_BYTES, .fallback = "20G", .help = "Bytes kept in the store; a quarter of them for inputs."},
    {.name = "lease", .type = KILN_CONF_MS, .fallback = "15s", .help = "An executor silent for this long has lost its job."},
    {.name = "upload", .type = KILN_CONF_MS, .fallback = "60s", .help = "Time that a submitter has to upload."},
};
#define SETTINGS (sizeof settings / sizeof *settings)

// Everything that lives as long as the process.
struct rooms {
    struct kiln_bus *bus;
    struct kiln_store *store;
    struct kiln_sign_key *key;
    struct kiln_trust *trust;
    int scratch_dir;
    struct kiln_docket *docket;
    uint64_t vault_max;
};

static void close_rooms(struct rooms *rooms) {
    kiln_docket_free(rooms->docket);
    kiln_trust_free(rooms->trust);
    kiln_sign_key_free(rooms->key);
    if (rooms->store)
        kiln_store_close(rooms->store);
    if (rooms->bus)
        kiln_bus_close(rooms->bus);
    kiln_cleanup_fd(&rooms->scratch_dir);
}

static int open_keys(struct rooms *rooms, const char *dir, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(dir, "keys");
    kiln_autofd int fd = -1;
    int rc = path ? kiln_fs_open_dir(path, &fd, err) : kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    if (!rc)
        rc = kiln_sign_key_load_or_make(fd, "verifier", &rooms->key, err);
    if (!rc)
        rc = kiln_trust_new(&rooms->trust, err);
    if (rc)
        return rc;
    uint8_t public_key[KILN_PUBLIC_KEY_BYTES];
    kiln_sign_key_public(rooms->key, public_key);
    return kiln_trust_add_public(rooms->trust, public_key, err);
}

static int open_docket(struct rooms *rooms, const struct kiln_conf *conf, struct kiln_err *err) {
    struct kiln_docket_options docket = {
        .bus = rooms->bus, .store = rooms->store, .scratch_dir = rooms->scratch_dir, .principal = PRINCIPAL,
        .vault = {.store = rooms->store, .key = rooms->key, .open = kiln_vault_open_trusted, .context = rooms->trust},
        .plan = {.lease_ms = kiln_conf_number(conf, "lease"), .upload_ms = kiln_conf_number(conf, "upload")},
    };
    static const struct kiln_bus_subscription topics[] = {
        {KILN_TOPIC_JOBS, false}, {KILN_TOPIC_CREDITS, false}, {KILN_TOPIC_LEASES, false}, {KILN_TOPIC_CANDIDATES, false}};
    int rc = getrandom(&docket.plan.hash_seed, sizeof docket.plan.hash_seed, 0) == sizeof docket.plan.hash_seed
                 ? 0
                 : kiln_fail_errno(err, KILN_E_IO, "no random bytes");
    if (!rc)
        rc = kiln_docket_new(&docket, &rooms->docket, err);
    return rc ? rc : kiln_bus_subscribe(rooms->bus, topics, sizeof topics / sizeof *topics, err);
}

static int open_rooms(struct rooms *rooms, const char *dir, const struct kiln_conf *conf, struct kiln_err *err) {
    rooms->vault_max = kiln_conf_number(conf, "vault-max");
    kiln_autofree char *store = kiln_path_join(dir, "store");
    int rc = store ? kiln_bus_open_fd(BUS_FD, &rooms->bus, err) : kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    if (!rc)
        rc = kiln_store_open_dir(store, KILN_ROLE_VERIFIER, &rooms->store, err);
    if (!rc)
        rc = kiln_fs_open_dir(store, &rooms->scratch_dir, err);
    if (!rc)
        rc = open_keys(rooms, dir, err);
    return rc ? rc : open_docket(rooms, conf, err);
}

static void prune_space(struct rooms *rooms, enum kiln_space space, const char *name, uint64_t max_bytes,
                        uint64_t keep_ms) {
    uint64_t removed = 0;
    struct kiln_err err;
    char bytes[24];
    if (kiln_store_prune(rooms->store, space, max_bytes, keep_ms, &removed, &err)) {
        kiln_log(KILN_LOG_WARN, "prune_failed", "space", name, "error", err.text, NULL);
        return;
    }
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)removed);
    if (removed)
        kiln_log(KILN_LOG_INFO, "pruned", "space", name, "bytes", bytes, NULL);
}

static void prune(struct rooms *rooms) {
    uint64_t inputs_max = rooms->vault_max / 4;
    prune_space(rooms, KILN_SPACE_INPUTS, "inputs", inputs_max, KEEP_MS);
    prune_space(rooms, KILN_SPACE_VAULT, "vault", rooms->vault_max - inputs_max, KEEP_MS);
    prune_space(rooms, KILN_SPACE_QUARANTINE, "quarantine", 0, QUARANTINE_KEEP_MS);
}

// When things are done that nobody waits for: after a quiet while, or at last when there never is one.
struct chores {
    struct rooms *rooms;
    uint64_t record_ms, pruned_ms;
    bool changed; // something may have been stored since
};

static void do_chores(void *context, uint64_t record_ms) {
    struct chores *chores = context;
    uint64_t now_ms = kiln_clock_ms();
    chores->changed |= record_ms != chores->record_ms;
    chores->record_ms = record_ms;
    bool quiet = kiln_docket_flights(chores->rooms->docket) == 0 && now_ms - record_ms >= QUIET_MS;
    uint64_t wait_ms = quiet ? PRUNE_EVERY_MS : 6 * PRUNE_EVERY_MS;
    if (!chores->changed || now_ms - chores->pruned_ms < wait_ms)
        return;
    prune(chores->rooms);
    chores->pruned_ms = kiln_clock_ms();
    chores->changed = false;
}

static int serve(struct rooms *rooms, struct kiln_err *err) {
    struct chores chores = {.rooms = rooms, .pruned_ms = kiln_clock_ms(), .changed = true};
    const struct kiln_serve loop = {.bus = rooms->bus, .docket = rooms->docket, .stop_fd = -1,
                                    .poll_ms_max = POLL_MS_MAX, .idle = do_chores, .context = &chores};
    return kiln_serve(&loop, err);
}

static int work(const struct kiln_cli_call *call, struct kiln_conf *conf, struct kiln_err *err) {
    const char *dir = kiln_cli_text(call, "dir");
    if (!dir || dir[0] != '/')
        return kiln_fail(err, KILN_E_INVAL, "--dir with an absolute path is needed");
    for (size_t i = 0; i < SETTINGS; i++) {
        const char *value = kiln_cli_text(call, settings[i].name);
        int rc = value ? kiln_conf_set(conf, settings[i].name, value, "command line", err) : 0;
        if (rc)
            return rc;
    }
    __attribute__((cleanup(close_rooms))) struct rooms rooms = {.scratch_dir = -1};
    int rc = open_rooms(&rooms, dir, conf, err);
    if (rc)
        return kiln_wrap(err, rc, "start");
    kiln_log(KILN_LOG_INFO, "serving", "dir", dir, NULL);
    rc = serve(&rooms, err);
    return rc == KILN_E_CLOSED ? 0 : rc;
}

static int run(const struct kiln_cli_call *call) {
    struct kiln_err err;
    struct kiln_conf *conf = NULL;
    if (kiln_cli_text(call, "config"))
        return kiln_fleet_verifier(kiln_cli_text(call, "config"), kiln_cli_text(call, "dir"));
    int rc = kiln_conf_new(settings, SETTINGS, &conf, &err);
    if (!rc)
        rc = work(call, conf, &err);
    kiln_conf_free(conf);
    if (rc) {
        kiln_log(KILN_LOG_ERROR, "cannot_serve", "error", err.text, NULL);
        return rc == KILN_E_INVAL ? KILN_EXIT_USAGE : KILN_EXIT_FAILED;
    }
    kiln_log(KILN_LOG_INFO, "stopping", NULL);
    return KILN_EXIT_OK;
}

static const struct kiln_cli_option options[] = {
    {"config", "FILE", "Be a verifier of the fleet that this file describes, not a part of an agent."},
    {"dir", "DIR", "The state directory. Of an agent: store and keys are in it."},
    {"libexec", "DIR", "Where other programs of Kiln lie; none is needed."},
    {"vault-max", "BYTES", "Bytes kept in the store, a quarter of them for inputs (20G)."},
    {"lease", "TIME", "An executor silent for this long has lost its job (15s)."},
    {"upload", "TIME", "Time that a submitter has to upload what is wanted (60s)."},
};

static const struct kiln_cli_command program = {
    .name = "kiln-verifier",
    .help = "Verifies, dispatches and signs: for a fleet (--config), or started by kiln-agent with the bus as descriptor 3.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};

int main(int argc, char **argv) {
    struct kiln_cli_call call;
    struct kiln_err err;
    kiln_log_init(STDERR_FILENO, "kiln-verifier", KILN_LOG_INFO, false);
    if (kiln_cli_parse(&program, argc, argv, &call, &err)) {
        fprintf(stderr, "kiln-verifier: %s\n", err.text);
        return KILN_EXIT_USAGE;
    }
    if (call.wants_help) {
        kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(64 << 10);
        kiln_cli_help(&call, &text);
        fputs(kiln_buf_text(&text), stdout);
        return KILN_EXIT_OK;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(077);
    return call.command->run(&call);
}
