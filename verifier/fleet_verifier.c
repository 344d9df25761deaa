#include "verifier/fleet_verifier.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"
#include "lib/base/conf.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/base/path.h"
#include "lib/fleet/fleet.h"
#include "verifier/serve.h"

#define KEYS_MAX 128
#define POLL_MS_MAX 250u
#define CONNECT_AGAIN_MS 1000
#define STOP_MS 3000u   // for the tasks that are at work
#define STOP_SECONDS 5u // and for all of it
#define METRICS_MS 60000u
#define DAY_MS (24ull * 3600 * 1000)

static const struct kiln_conf_key own[] = {
    {"verifier.lease", KILN_CONF_MS, "15s", NULL, NULL, false, "An executor silent for this long has lost its job."},
    {"verifier.upload", KILN_CONF_MS, "60s", NULL, NULL, false, "Time that a submitter has to upload what is wanted."},
    {"verifier.elsewhere", KILN_CONF_MS, "2s", NULL, NULL, false, "How long a further attempt waits for another executor than those before."},
    {"verifier.agreement_wait", KILN_CONF_MS, "0s", NULL, NULL, false, "How long a job waits for a further pool that must agree; 0: as long as its submitters wait."},
    {"verifier.threads", KILN_CONF_COUNT, "4", NULL, NULL, false, "Threads that talk to the store."},
    {"log.level", KILN_CONF_CHOICE, "info", NULL, "error|warn|info|debug", false, "What is written to standard error."},
    {"log.json", KILN_CONF_BOOL, "false", NULL, NULL, false, "One JSON object a line instead of key=value."},
};

// The table must live as long as what was loaded with it.
static struct kiln_conf_key all[KEYS_MAX];

struct service {
    struct kiln_conf *conf;
    int signals, lock, scratch_dir;
    struct kiln_fleet *fleet;
    struct kiln_bus *bus;
    struct kiln_docket *docket;
    uint64_t metrics_ms;
    struct kiln_docket_counts told;
};

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

static int load(struct service *service, const char *file, struct kiln_err *err) {
    size_t count = 0;
    int rc = join_tables(&count, err);
    if (!rc)
        rc = check_owner(file, err);
    if (!rc)
        rc = kiln_conf_new(all, count, &service->conf, err);
    if (!rc)
        rc = kiln_conf_load_file(service->conf, file, err);
    if (!rc && !kiln_fleet_configured(service->conf))
        rc = kiln_fail(err, KILN_E_INVAL, "%s names no fleet.brokers", file);
    if (rc)
        return rc;
    enum kiln_log_level level = KILN_LOG_INFO;
    kiln_log_level_parse(kiln_conf_text(service->conf, "log.level"), &level);
    kiln_log_init(STDERR_FILENO, "kiln-verifier", level, kiln_conf_bool(service->conf, "log.json"));
    return 0;
}

// Before any thread starts, so that all inherit the mask.
static int watch_signals(int *signals, struct kiln_err *err) {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    if (sigprocmask(SIG_BLOCK, &watched, NULL) == 0 && (*signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK)) >= 0)
        return 0;
    return kiln_fail_errno(err, KILN_E_IO, "watch signals");
}

// Two verifiers in one directory would be one principal with two processes: their results partitions and sequences would mix.
static int open_dir(struct service *service, const char *dir, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(dir, "verifier.lock");
    kiln_autofree char *scratch = kiln_path_join(dir, "scratch");
    int rc = path && scratch ? kiln_fs_make_dirs(AT_FDCWD, dir, 0700, err) : kiln_fail(err, KILN_E_NOMEM, "verifier");
    if (rc)
        return rc;
    service->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (service->lock < 0)
        return kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    if (flock(service->lock, LOCK_EX | LOCK_NB))
        return kiln_fail(err, KILN_E_EXISTS, "another verifier works in %s", dir);
    return kiln_fs_open_dir(scratch, &service->scratch_dir, err);
}

static int open_kept(void *keeper, const void *envelope, size_t len, const struct kiln_digest *action, const char *scope,
                     uint64_t generation, struct kiln_result *result, struct kiln_err *err) {
    return kiln_keeper_open_result(keeper, envelope, len, action, scope, generation, result, err);
}

static int make_docket(struct service *service, struct kiln_err *err) {
    const struct kiln_conf *conf = service->conf;
    struct kiln_store *store = kiln_fleet_store(service->fleet);
    struct kiln_keeper *keeper = kiln_fleet_keeper(service->fleet);
    struct kiln_docket_options options = {
        .bus = service->bus, .store = store, .scratch_dir = service->scratch_dir, .keeper = keeper,
        .principal = kiln_fleet_principal(service->fleet),
        .vault = {.store = store, .key = kiln_fleet_sign_key(service->fleet), .open = open_kept, .context = keeper,
                  .pointer_ms = kiln_conf_number(conf, "fleet.pointer_days") * DAY_MS,
                  .content_ms = kiln_conf_number(conf, "fleet.content_days") * DAY_MS},
        .plan = {.lease_ms = kiln_conf_number(conf, "verifier.lease"), .upload_ms = kiln_conf_number(conf, "verifier.upload"),
                 .elsewhere_ms = kiln_conf_number(conf, "verifier.elsewhere"),
                 .agreement_ms = kiln_conf_number(conf, "verifier.agreement_wait"),
                 .quota_jobs = (uint32_t)kiln_conf_number(conf, "fleet.quota_jobs")},
        .agreement_public = (uint32_t)kiln_conf_number(conf, "fleet.agreement_public"),
        .agreement_tenant = (uint32_t)kiln_conf_number(conf, "fleet.agreement_tenant"),
        .quota_bytes = kiln_conf_number(conf, "fleet.quota_bytes"),
        .threads = (unsigned)kiln_conf_number(conf, "verifier.threads"),
    };
    if (getrandom(&options.plan.hash_seed, sizeof options.plan.hash_seed, 0) != sizeof options.plan.hash_seed)
        return kiln_fail_errno(err, KILN_E_IO, "no random bytes");
    return kiln_docket_new(&options, &service->docket, err);
}

static bool is_told(struct service *service, int wait_ms) {
    struct pollfd watch = {.fd = service->signals, .events = POLLIN};
    return poll(&watch, 1, wait_ms) > 0;
}

static bool may_pass(int rc, const struct kiln_err *err) {
    return err->retriable || rc == KILN_E_IO || rc == KILN_E_TIMEOUT;
}

// Servers of a fleet may come later than its verifiers. KILN_E_CLOSED: told to end meanwhile.
static int wait_for(struct service *service, const char *dir, int (*attempt)(struct service *, const char *, struct kiln_err *),
                    struct kiln_err *err) {
    for (bool told = false;; told = true) {
        *err = (struct kiln_err){0};
        int rc = attempt(service, dir, err);
        if (!rc || !may_pass(rc, err))
            return rc;
        if (!told)
            kiln_log(KILN_LOG_WARN, "fleet_unreachable", "error", err->text, NULL);
        if (is_told(service, CONNECT_AGAIN_MS))
            return kiln_fail(err, KILN_E_CLOSED, "told to end");
    }
}

// A store that does not keep what it is told to keep is no vault.
static int probe(struct service *service, const char *dir, struct kiln_err *err) {
    int rc = kiln_fleet_probe_store(service->fleet, dir, err);
    return rc ? kiln_wrap(err, rc, "the object store cannot be a vault") : 0;
}

static int subscribe(struct service *service, const char *dir, struct kiln_err *err) {
    static const struct kiln_bus_subscription topics[] = {
        {KILN_TOPIC_JOBS, false}, {KILN_TOPIC_CREDITS, false}, {KILN_TOPIC_LEASES, false}, {KILN_TOPIC_CANDIDATES, false}};
    (void)dir;
    return kiln_bus_subscribe(service->bus, topics, sizeof topics / sizeof *topics, err);
}

static int open_service(struct service *service, const char *file, const char *dir, struct kiln_err *err) {
    int rc = load(service, file, err);
    if (!rc)
        rc = watch_signals(&service->signals, err);
    if (!rc)
        rc = open_dir(service, dir, err);
    if (!rc)
        rc = kiln_fleet_open(service->conf, KILN_ROLE_OF_VERIFIER, dir, &service->fleet, err);
    if (!rc)
        rc = wait_for(service, dir, probe, err);
    if (!rc)
        rc = kiln_fleet_open_bus(service->fleet, &service->bus, err);
    if (!rc)
        rc = make_docket(service, err);
    if (rc)
        return rc;
    struct kiln_err why = {0};
    if (kiln_fleet_enrolled(service->fleet, &why)) // the record may come later; until then everything is compiled locally
        kiln_log(KILN_LOG_WARN, "not_enrolled", "error", why.text, NULL);
    return wait_for(service, dir, subscribe, err);
}

static void close_service(struct service *service) {
    kiln_docket_free(service->docket);
    kiln_bus_close(service->bus); // flushes, commits what was acked, leaves the group
    kiln_fleet_close(service->fleet);
    kiln_conf_free(service->conf);
    kiln_cleanup_fd(&service->scratch_dir);
    kiln_cleanup_fd(&service->lock);
    kiln_cleanup_fd(&service->signals);
}

static void tell_metrics(void *context, uint64_t record_ms) {
    struct service *service = context;
    uint64_t now_ms = kiln_clock_ms();
    (void)record_ms;
    if (now_ms - service->metrics_ms < METRICS_MS)
        return;
    service->metrics_ms = now_ms;
    struct kiln_docket_counts now;
    kiln_docket_counts(service->docket, &now);
    const struct kiln_docket_counts *then = &service->told;
    char text[12][24];
    const uint64_t values[] = {now.submitted - then->submitted, now.known - then->known, now.wanted - then->wanted,
                               now.rejected - then->rejected, now.dispatched - then->dispatched, now.stored - then->stored,
                               now.locally - then->locally, now.diverged - then->diverged, now.refused - then->refused,
                               now.dead_letters - then->dead_letters, kiln_docket_flights(service->docket),
                               kiln_docket_tasks(service->docket)};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        snprintf(text[i], sizeof text[i], "%llu", (unsigned long long)values[i]);
    kiln_log(KILN_LOG_INFO, "metrics", "submitted", text[0], "known", text[1], "wanted", text[2], "rejected", text[3],
             "dispatched", text[4], "stored", text[5], "locally", text[6], "diverged", text[7], "refused", text[8],
             "dead_letters", text[9], "flights", text[10], "tasks", text[11], NULL);
    service->told = now;
}

static int serve(struct service *service, struct kiln_err *err) {
    const struct kiln_serve loop = {.bus = service->bus, .docket = service->docket, .stop_fd = service->signals,
                                    .poll_ms_max = POLL_MS_MAX, .idle = tell_metrics, .context = service};
    kiln_log(KILN_LOG_INFO, "serving", "principal", kiln_fleet_principal(service->fleet), NULL);
    int rc = kiln_serve(&loop, err);
    if (rc)
        return rc;
    kiln_log(KILN_LOG_INFO, "stopping", NULL);
    alarm(STOP_SECONDS); // whatever hangs then: the state is outside
    kiln_serve_drain(&loop, kiln_clock_ms() + STOP_MS);
    return 0;
}

static void give_up(int signal_number) {
    (void)signal_number;
    _exit(1);
}

int kiln_fleet_verifier(const char *config, const char *dir) {
    struct kiln_err err = {0};
    struct service service = {.signals = -1, .lock = -1, .scratch_dir = -1, .metrics_ms = kiln_clock_ms()};
    if (!dir || dir[0] != '/') {
        kiln_log(KILN_LOG_ERROR, "cannot_serve", "error", "--dir with an absolute path is needed", NULL);
        return KILN_EXIT_USAGE;
    }
    signal(SIGALRM, give_up);
    int rc = open_service(&service, config, dir, &err);
    if (rc && rc != KILN_E_CLOSED)
        rc = kiln_wrap(&err, rc, "start");
    if (!rc)
        rc = serve(&service, &err);
    if (rc && rc != KILN_E_CLOSED)
        kiln_log(KILN_LOG_ERROR, "cannot_serve", "error", err.text, NULL);
    alarm(STOP_SECONDS);
    close_service(&service);
    return !rc || rc == KILN_E_CLOSED ? KILN_EXIT_OK : rc == KILN_E_INVAL ? KILN_EXIT_USAGE : KILN_EXIT_FAILED;
}
