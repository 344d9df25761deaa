// What the store alone costs, for the fleet's bench: single operations of our own client, one after the other, so that
// a miss can be compared with what it cannot go below. Usage: kiln-bench-store CONFIG DIR (a verifier's, with the rights to do all)
//
// Lines "COUNT OPERATION BYTES" on standard input; for each a line of JSON with the milliseconds of each operation:
// plain (into quarantine), put (create-only into inputs, under its default lock), keep (bundle: locked PUT, HEAD of the version),
// pointer (listing, locked PUT, HEAD), get (what `plain` wrote last), absent (GET of nothing), list (versions of nothing), and
// miss: all that a submission waits for when its result is new and its inputs are there, in the same order and by the same calls.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/blob/scratch.h"
#include "lib/fleet/fleet.h"
#include "tests/bench/times.h"

#define COUNT_MAX 100000u
#define BYTES_MAX (16u << 20)
#define SCOPE "bench"
#define LOCK_MS 3600000u

struct bench {
    struct kiln_store *store;
    struct kiln_digest salt; // changes with each operation
    struct kiln_digest last; // name of what was put last
    int fd;                  // what is put
    uint64_t size;
};

// Fresh bytes that do not compress, and their digest.
static int prepare(struct bench *bench, size_t bytes, struct kiln_err *err) {
    kiln_autofree unsigned char *data = malloc(bytes + 1);
    if (!data || getrandom(data, bytes < 256 ? bytes : 256, 0) < 0)
        return kiln_fail(err, KILN_E_NOMEM, "bytes");
    for (size_t i = 256; i < bytes; i++)
        data[i] = (unsigned char)(data[i - 256] * 5u + data[i - 255]);
    kiln_cleanup_fd(&bench->fd);
    int rc = kiln_scratch_file(-1, 0, &bench->fd, err);
    if (!rc)
        rc = kiln_fs_write_all(bench->fd, data, bytes, err);
    kiln_digest_of(data, bytes, &bench->salt);
    bench->size = bytes;
    return rc;
}

static int visit(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes) {
    (void)context, (void)pin, (void)bytes;
    return 0;
}

static int do_miss(struct bench *bench, const char *plain, const char *content, const char *pointer, struct kiln_err *err) {
    static const char envelope[1600];
    kiln_autofd int fd = -1;
    struct kiln_store_pair pair = {.content_key = content, .pointer_key = pointer, .content_size = bench->size,
                                   .content_until_ms = kiln_clock_wall_ms() + 2 * LOCK_MS, .expected = &bench->salt};
    int rc = kiln_store_pointer_is_listed(bench->store, pointer) ? kiln_fail(err, KILN_E_EXISTS, "pointer") : 0;
    if (!rc)
        rc = kiln_store_put_fd(bench->store, KILN_SPACE_QUARANTINE, plain, bench->fd, bench->size, NULL, err);
    if (!rc)
        rc = kiln_store_open_unchecked(bench->store, KILN_SPACE_QUARANTINE, plain, &fd, err);
    if (!rc)
        rc = kiln_store_pair_content(bench->store, &pair, fd, err);
    return rc ? rc : kiln_store_pair_pointer(bench->store, &pair, envelope, sizeof envelope, kiln_clock_wall_ms() + LOCK_MS, err);
}

static int operate(struct bench *bench, const char *operation, struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    struct kiln_pin pin;
    kiln_digest_format(&bench->salt, hex);
    uint64_t until_ms = kiln_clock_wall_ms() + LOCK_MS;
    kiln_autofree char *pointer = kiln_key_result(SCOPE, 1, &bench->salt), *content = kiln_key_content("blob", SCOPE, &bench->salt),
                       *plain = kiln_key_quarantine_in(SCOPE, "bench", hex, "x");
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_POINTER_BYTES_MAX);
    if (!pointer || !content || !plain)
        return kiln_fail(err, KILN_E_NOMEM, "keys");
    if (!strcmp(operation, "miss"))
        return do_miss(bench, plain, content, pointer, err);
    if (!strcmp(operation, "plain"))
        return kiln_store_put_fd(bench->store, KILN_SPACE_QUARANTINE, plain, bench->fd, bench->size, NULL, err);
    if (!strcmp(operation, "put"))
        return kiln_store_put_fd(bench->store, KILN_SPACE_INPUTS, content, bench->fd, bench->size, &bench->salt, err);
    if (!strcmp(operation, "keep"))
        return kiln_store_keep_fd(bench->store, content, bench->fd, bench->size, &bench->salt, until_ms, &pin, err);
    if (!strcmp(operation, "pointer"))
        return kiln_store_keep_pointer(bench->store, pointer, hex, KILN_DIGEST_HEX_LEN, until_ms, false, NULL, err);
    if (!strcmp(operation, "list"))
        return kiln_store_pointer_versions(bench->store, pointer, visit, NULL, err);
    if (!strcmp(operation, "absent")) {
        int rc = kiln_store_get_bytes(bench->store, KILN_SPACE_VAULT, pointer, &bytes, err);
        return rc == KILN_E_NOTFOUND ? 0 : rc;
    }
    if (!strcmp(operation, "get")) {
        kiln_autofd int fd = -1;
        kiln_digest_format(&bench->last, hex);
        kiln_autofree char *key = kiln_key_quarantine_in(SCOPE, "bench", hex, "x");
        return key ? kiln_store_open_unchecked(bench->store, KILN_SPACE_QUARANTINE, key, &fd, err) : kiln_fail(err, KILN_E_NOMEM, "keys");
    }
    return kiln_fail(err, KILN_E_INVAL, "no operation %s", operation);
}

static int run(struct bench *bench, struct kiln_err *err) {
    char line[100], operation[20];
    while (fgets(line, sizeof line, stdin)) {
        size_t count, bytes;
        if (sscanf(line, "%zu %19s %zu", &count, operation, &bytes) != 3 || count > COUNT_MAX || bytes > BYTES_MAX)
            return kiln_fail(err, KILN_E_INVAL, "not COUNT OPERATION BYTES: %s", line);
        printf("{\"ms\": [");
        for (size_t i = 0; i < count; i++) {
            int rc = prepare(bench, bytes, err);
            double begin = bench_now_ms();
            if (!rc)
                rc = operate(bench, operation, err);
            if (rc)
                return rc;
            printf("%s%.3f", i ? ", " : "", bench_now_ms() - begin);
            if (!strcmp(operation, "plain"))
                bench->last = bench->salt;
        }
        printf("]}\n");
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
    struct kiln_err err = {0};
    struct kiln_conf *conf = NULL;
    struct kiln_fleet *fleet = NULL;
    struct bench bench = {.fd = -1};
    if (argc != 3) {
        fprintf(stderr, "usage: kiln-bench-store CONFIG DIR\n");
        return 2;
    }
    kiln_log_init(STDERR_FILENO, "bench", KILN_LOG_WARN, false);
    int rc = kiln_conf_new(kiln_fleet_settings, kiln_fleet_settings_count, &conf, &err);
    if (!rc)
        rc = kiln_conf_load_file(conf, argv[1], &err);
    if (!rc)
        rc = kiln_fleet_open(conf, KILN_ROLE_OF_VERIFIER, argv[2], &fleet, &err);
    if (!rc) {
        bench.store = kiln_fleet_store(fleet);
        rc = run(&bench, &err);
    }
    kiln_cleanup_fd(&bench.fd);
    kiln_fleet_close(fleet);
    kiln_conf_free(conf);
    if (rc)
        fprintf(stderr, "kiln-bench-store: %s\n", err.text);
    return rc != 0;
}
