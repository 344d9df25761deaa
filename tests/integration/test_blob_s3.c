// The S3 store on a real server: locks, pins, shadows, races, a disk that lies, and what the roles' credentials refuse.
#include "tests/integration/s3_rig.h"

#include <dirent.h>
#include <pthread.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void put_as(const char *principal, enum kiln_space space, const char *key, const char *text, const char *mode, uint64_t until_ms,
                   int expected_status) {
    struct kiln_s3_client *client = s3_rig_client(principal);
    struct kiln_s3_exchange exchange;
    struct kiln_s3_body body;
    char until[KILN_S3_TIME_LEN + 1];
    assert_int_equal(kiln_s3_body_of(text, strlen(text), &body, NULL), 0);
    kiln_s3_exchange_init(&exchange, "PUT", space, key);
    exchange.body = &body;
    if (mode) {
        kiln_s3_time_format(until_ms, until);
        kiln_s3_add_header(&exchange, "x-amz-object-lock-mode", mode);
        kiln_s3_add_header(&exchange, "x-amz-object-lock-retain-until-date", until);
    }
    kiln_s3_run_one(client, &exchange, NULL);
    assert_int_equal(exchange.status, expected_status);
    kiln_s3_exchange_release(&exchange);
    kiln_s3_client_free(client);
}

// Returns the HTTP status.
static int delete_as(const char *principal, enum kiln_space space, const char *key, const char *version) {
    struct kiln_s3_client *client = s3_rig_client(principal);
    struct kiln_s3_exchange exchange;
    kiln_s3_exchange_init(&exchange, "DELETE", space, key);
    if (version)
        kiln_s3_add_query(&exchange, "versionId", version);
    kiln_s3_run_one(client, &exchange, NULL);
    int status = exchange.status;
    kiln_s3_exchange_release(&exchange);
    kiln_s3_client_free(client);
    return status;
}

static struct kiln_s3_versions versions_of(const char *key) {
    struct kiln_s3_client *client = s3_rig_client("root");
    struct kiln_s3_versions versions;
    struct kiln_err err = {0};
    assert_ok(kiln_s3_versions_of(client, KILN_SPACE_VAULT, key, &versions, &err));
    kiln_s3_client_free(client);
    return versions;
}

static uint64_t lock_of(const char *key, const char *version) {
    struct kiln_s3_client *client = s3_rig_client("root");
    struct kiln_s3_exchange exchange;
    struct kiln_err err = {0};
    kiln_s3_exchange_init(&exchange, "HEAD", KILN_SPACE_VAULT, key);
    kiln_s3_add_query(&exchange, "versionId", version);
    assert_ok(kiln_s3_run_one(client, &exchange, &err));
    assert_string_equal(exchange.lock_mode, "COMPLIANCE");
    kiln_s3_exchange_release(&exchange);
    kiln_s3_client_free(client);
    return exchange.retain_until_ms;
}

static int keep_text(struct kiln_store *store, const char *key, const char *text, uint64_t until_ms, struct kiln_pin *pin, struct kiln_err *err) {
    struct kiln_digest digest = digest_of(text);
    kiln_autofd int fd = file_of(text, strlen(text));
    return kiln_store_keep_fd(store, key, fd, 1 << 20, &digest, until_ms, pin, err);
}

static int get_text(struct kiln_store *store, enum kiln_space space, const char *key, const char *text, struct kiln_err *err) {
    struct kiln_digest digest = digest_of(text);
    int fd = -1;
    uint64_t size;
    int rc = kiln_store_get_fd(store, space, key, &digest, &fd, &size, err);
    if (rc)
        return rc;
    assert_int_equal(size, strlen(text));
    assert_text(fd, text);
    return 0;
}

static int get_pinned(struct kiln_store *store, const char *key, const char *pin_text, const char *text, struct kiln_err *err) {
    struct kiln_digest digest = digest_of(text);
    struct kiln_pin pin = {0};
    int fd = -1;
    uint64_t size;
    snprintf(pin.text, sizeof pin.text, "%s", pin_text);
    int rc = kiln_store_get_pinned(store, key, &pin, &digest, &fd, &size, err);
    if (rc)
        return rc;
    assert_text(fd, text);
    return 0;
}

static void the_server_has_what_a_verifier_needs(void **state) {
    (void)state;
    struct kiln_s3_options options = s3_rig_options("verifier-1");
    struct kiln_err err = {0};
    assert_ok(kiln_s3_probe(&options, &err));
    size_t left = versions_of("probe/locked").listed;
    assert_in_range(left, 2, 3);
    assert_int_equal(versions_of("probe/refused").listed, 0);
    assert_ok(kiln_s3_probe(&options, &err));
    assert_int_equal(versions_of("probe/locked").listed, left);
}

static void content_goes_through_all_spaces(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *agent = s3_rig_store("agent-1", KILN_ROLE_AGENT), *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER);
    struct kiln_store *executor = s3_rig_store("executor-1", KILN_ROLE_EXECUTOR);
    struct kiln_digest digest = digest_of("source");
    const char *quarantine = s3_rig_key("in/red/agent-1", "a b+c%&=\303\244~"), *inputs = s3_rig_key("cas/red/blob", "one");
    assert_ok(kiln_store_put_bytes(agent, KILN_SPACE_QUARANTINE, quarantine, "source", 6, &digest, &err));
    assert_ok(kiln_store_put_bytes(agent, KILN_SPACE_QUARANTINE, quarantine, "source", 6, &digest, &err));
    int fd;
    assert_ok(kiln_store_open_unchecked(verifier, KILN_SPACE_QUARANTINE, quarantine, &fd, &err));
    assert_int_equal(write(fd, "x", 1), -1); // nobody changes what was checked
    assert_ok(kiln_store_put_fd(verifier, KILN_SPACE_INPUTS, inputs, fd, 100, &digest, &err));
    assert_ok(kiln_store_put_fd(verifier, KILN_SPACE_INPUTS, inputs, fd, 100, &digest, &err));
    close(fd);
    assert_ok(get_text(executor, KILN_SPACE_INPUTS, inputs, "source", &err));
    assert_int_equal(get_text(executor, KILN_SPACE_INPUTS, inputs, "other!", &err), KILN_E_CORRUPT);
    assert_int_equal(get_text(executor, KILN_SPACE_INPUTS, s3_rig_key("cas/red/blob", "none"), "source", &err), KILN_E_NOTFOUND);
    assert_int_equal(kiln_store_put_bytes(verifier, KILN_SPACE_INPUTS, inputs, "sourcE", 6, &digest, &err), KILN_E_CORRUPT);
    kiln_store_close(agent);
    kiln_store_close(verifier);
    kiln_store_close(executor);
}

// The role of a handle is a courtesy; what counts is what the server makes of the credentials.
static void credentials_refuse_what_roles_may_not(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_digest digest = digest_of("poison");
    struct kiln_store *agent = s3_rig_store("agent-1", KILN_ROLE_VERIFIER), *executor = s3_rig_store("executor-1", KILN_ROLE_VERIFIER);
    const enum kiln_space spaces[] = {KILN_SPACE_INPUTS, KILN_SPACE_VAULT};
    for (size_t i = 0; i < COUNT(spaces); i++) {
        const char *key = s3_rig_key("cas/public/blob", "poison");
        assert_int_equal(kiln_store_put_bytes(agent, spaces[i], key, "poison", 6, &digest, &err), KILN_E_DENIED);
        assert_int_equal(kiln_store_put_bytes(executor, spaces[i], key, "poison", 6, &digest, &err), KILN_E_DENIED);
    }
    assert_int_equal(kiln_store_keep_pointer(agent, s3_rig_key("ac/public/1", "p"), "x", 1, 0, false, NULL, &err), KILN_E_DENIED);
    assert_int_equal(kiln_store_put_bytes(agent, KILN_SPACE_QUARANTINE, s3_rig_key("in/red/agent-2", "x"), "poison", 6, &digest, &err),
                     KILN_E_DENIED);
    assert_int_equal(kiln_store_remove(agent, KILN_SPACE_QUARANTINE, s3_rig_key("in/red/agent-2", "x"), &err), KILN_E_DENIED);
    kiln_store_close(agent);
    kiln_store_close(executor);
}

static void a_pin_outlives_shadow_and_delete_marker(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_pin pin, again;
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER), *agent = s3_rig_store("agent-1", KILN_ROLE_AGENT);
    const char *key = s3_rig_key("cas/red/blob", "kept");
    uint64_t until_ms = kiln_clock_wall_ms() + DAY_MS;
    assert_ok(keep_text(verifier, key, "the first bytes", until_ms, &pin, &err));
    assert_true(strlen(pin.text) > 8);
    assert_true(lock_of(key, pin.text) >= until_ms);
    put_as("root", KILN_SPACE_VAULT, key, "the other bytes", NULL, 0, 200);
    assert_int_equal(get_text(agent, KILN_SPACE_VAULT, key, "the first bytes", &err), KILN_E_CORRUPT);
    assert_ok(get_pinned(agent, key, pin.text, "the first bytes", &err));
    assert_int_equal(delete_as("root", KILN_SPACE_VAULT, key, NULL), 204);
    assert_int_equal(get_text(agent, KILN_SPACE_VAULT, key, "the first bytes", &err), KILN_E_NOTFOUND);
    assert_ok(get_pinned(agent, key, pin.text, "the first bytes", &err));
    assert_true(delete_as("root", KILN_SPACE_VAULT, key, pin.text) >= 400);
    assert_int_equal(delete_as("verifier-1", KILN_SPACE_VAULT, key, NULL), 403);
    assert_ok(get_pinned(agent, key, pin.text, "the first bytes", &err));
    // A create-only PUT passes over the delete marker; the pin is of the first right version or of a new one, and both hold.
    assert_ok(keep_text(verifier, key, "the first bytes", until_ms, &again, &err));
    assert_ok(get_pinned(agent, key, again.text, "the first bytes", &err));
    kiln_store_close(verifier);
    kiln_store_close(agent);
}

static void a_pin_is_of_that_version_and_that_lock(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_pin pin;
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER), *agent = s3_rig_store("agent-1", KILN_ROLE_AGENT);
    const char *key = s3_rig_key("cas/red/blob", "weak");
    uint64_t now_ms = kiln_clock_wall_ms();
    put_as("root", KILN_SPACE_VAULT, key, "weak", "GOVERNANCE", now_ms + DAY_MS, 200);
    struct kiln_s3_versions versions = versions_of(key);
    assert_int_equal(get_pinned(agent, key, versions.items[0].pin.text, "weak", &err), KILN_E_CORRUPT);
    assert_non_null(strstr(err.text, "lock: "));
    assert_int_equal(get_pinned(agent, key, "", "weak", &err), KILN_E_CORRUPT);
    assert_non_null(strstr(err.text, "version: "));
    int rc = get_pinned(agent, key, "00000000-0000-0000-0000-000000000000", "weak", &err);
    assert_int_equal(rc, KILN_E_NOTFOUND);
    // Right bytes under a weak lock are not adopted as they are.
    assert_ok(keep_text(verifier, key, "weak", now_ms + DAY_MS, &pin, &err));
    assert_true(lock_of(key, pin.text) >= now_ms + DAY_MS);
    assert_ok(get_pinned(agent, key, pin.text, "weak", &err));
    assert_int_equal(get_pinned(agent, key, pin.text, "Weak", &err), KILN_E_CORRUPT);
    kiln_store_close(verifier);
    kiln_store_close(agent);
}

static void a_reader_asks_for_days_of_lock(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_pin pin;
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER), *strict = NULL;
    struct kiln_s3_options options = s3_rig_options("agent-1");
    options.lock_days = 3;
    assert_ok(kiln_store_open_s3(&options, KILN_ROLE_AGENT, &strict, &err));
    const char *key = s3_rig_key("cas/red/blob", "days"), *pointer = s3_rig_key("ac/red/1", "days");
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1000);
    assert_ok(keep_text(verifier, key, "two days", kiln_clock_wall_ms() + 2 * DAY_MS, &pin, &err));
    assert_int_equal(get_pinned(strict, key, pin.text, "two days", &err), KILN_E_CORRUPT);
    assert_non_null(strstr(err.text, "lock: "));
    assert_ok(kiln_store_keep_pointer(verifier, pointer, "p", 1, kiln_clock_wall_ms() + 2 * DAY_MS, false, NULL, &err));
    assert_int_equal(kiln_store_get_bytes(strict, KILN_SPACE_VAULT, pointer, &bytes, &err), KILN_E_CORRUPT);
    // Kept for longer, the same version is locked for longer: nothing is sent twice.
    struct kiln_pin longer;
    assert_ok(keep_text(verifier, key, "two days", kiln_clock_wall_ms() + 4 * DAY_MS, &longer, &err));
    assert_string_equal(longer.text, pin.text);
    assert_int_equal(versions_of(key).listed, 1);
    assert_ok(get_pinned(strict, key, pin.text, "two days", &err));
    kiln_store_close(verifier);
    kiln_store_close(strict);
}

struct seen {
    char texts[8][16], pins[8][128];
    size_t count;
};

static int see(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes) {
    struct seen *seen = context;
    assert_true(seen->count < 8 && bytes->len < 16);
    memcpy(seen->texts[seen->count], bytes->data, bytes->len);
    seen->texts[seen->count][bytes->len] = 0;
    strcpy(seen->pins[seen->count++], pin->text);
    return bytes->len == 4 ? 7 : 0;
}

static void pointers_are_created_once_and_listed_oldest_first(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_pin first, third;
    struct seen seen = {0};
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER), *agent = s3_rig_store("agent-1", KILN_ROLE_AGENT);
    const char *key = s3_rig_key("ac/red/1", "p"), *longer = s3_rig_key("ac/red/1", "p2");
    uint64_t until_ms = kiln_clock_wall_ms() + DAY_MS;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(100);
    assert_int_equal(kiln_store_pointer_versions(verifier, key, see, &seen, &err), 0);
    assert_ok(kiln_store_keep_pointer(verifier, key, "first", 5, until_ms, false, &first, &err));
    assert_ok(kiln_store_keep_pointer(verifier, longer, "longer", 6, until_ms, false, NULL, &err));
    assert_int_equal(kiln_store_keep_pointer(verifier, key, "second", 6, until_ms, false, NULL, &err), KILN_E_EXISTS);
    put_as("root", KILN_SPACE_VAULT, key, "shadow", "COMPLIANCE", until_ms, 200);
    put_as("root", KILN_SPACE_VAULT, key, "weak shadow", "GOVERNANCE", until_ms, 200);
    assert_ok(kiln_store_keep_pointer(verifier, key, "third", 5, until_ms, true, &third, &err));
    assert_ok(kiln_store_get_bytes(agent, KILN_SPACE_VAULT, key, &bytes, &err));
    assert_string_equal(kiln_buf_text(&bytes), "third");
    assert_int_equal(kiln_store_pointer_versions(verifier, key, see, &seen, &err), 0);
    assert_int_equal(seen.count, 3);
    assert_string_equal(seen.texts[0], "first");
    assert_string_equal(seen.texts[1], "shadow");
    assert_string_equal(seen.texts[2], "third");
    assert_string_equal(seen.pins[0], first.text);
    assert_string_equal(seen.pins[2], third.text);
    // A delete marker on top lets a create-only PUT pass on the server; here it does not.
    assert_int_equal(delete_as("root", KILN_SPACE_VAULT, key, NULL), 204);
    assert_int_equal(kiln_store_keep_pointer(verifier, key, "fourth", 6, until_ms, false, NULL, &err), KILN_E_EXISTS);
    seen.count = 0;
    assert_int_equal(kiln_store_pointer_versions(verifier, key, see, &seen, &err), 0);
    assert_int_equal(seen.count, 3);
    // What visit returns ends it.
    assert_ok(kiln_store_keep_pointer(verifier, key, "stop", 4, until_ms, true, NULL, &err));
    assert_ok(kiln_store_keep_pointer(verifier, key, "after", 5, until_ms, true, NULL, &err));
    seen.count = 0;
    assert_int_equal(kiln_store_pointer_versions(verifier, key, see, &seen, &err), 7);
    assert_int_equal(seen.count, 4);
    kiln_store_close(verifier);
    kiln_store_close(agent);
}

static int keep_pair(struct kiln_store *store, struct kiln_store_pair *pair, const char *text, const char *pointer, struct kiln_err *err) {
    const struct kiln_digest digest = digest_of(text);
    kiln_autofd int fd = file_of(text, strlen(text));
    pair->expected = &digest;
    pair->content_size = strlen(text);
    pair->content_until_ms = kiln_clock_wall_ms() + 2 * DAY_MS;
    int rc = kiln_store_pair_content(store, pair, fd, err);
    return rc ? rc : kiln_store_pair_pointer(store, pair, pointer, strlen(pointer), kiln_clock_wall_ms() + DAY_MS, err);
}

static void content_and_pointer_go_as_a_pair(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER), *agent = s3_rig_store("agent-1", KILN_ROLE_AGENT);
    struct kiln_store *second = s3_rig_store("verifier-2", KILN_ROLE_VERIFIER);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(100);
    struct kiln_store_pair pair = {.content_key = s3_rig_key("cas/red/blob", "pair"), .pointer_key = s3_rig_key("ac/red/1", "pair")};
    uint64_t now_ms = kiln_clock_wall_ms();
    assert_false(kiln_store_pointer_is_listed(verifier, pair.pointer_key));
    assert_ok(keep_pair(verifier, &pair, "content", "pointer", &err));
    assert_true(kiln_store_pointer_is_listed(verifier, pair.pointer_key));
    assert_true(lock_of(pair.content_key, pair.pin.text) >= now_ms + 2 * DAY_MS);
    assert_ok(get_pinned(agent, pair.content_key, pair.pin.text, "content", &err));
    assert_ok(kiln_store_get_bytes(agent, KILN_SPACE_VAULT, pair.pointer_key, &bytes, &err));
    assert_string_equal(kiln_buf_text(&bytes), "pointer");
    // Another one comes too late; its content, which is there, is adopted.
    struct kiln_store_pair late = {.content_key = pair.content_key, .pointer_key = pair.pointer_key};
    assert_int_equal(keep_pair(second, &late, "content", "another", &err), KILN_E_EXISTS);
    assert_string_equal(late.pin.text, pair.pin.text);
    // One that comes between the two calls, too.
    const struct kiln_digest digest = digest_of("content");
    kiln_autofd int fd = file_of("content", 7);
    struct kiln_store_pair slow = {.content_key = pair.content_key, .pointer_key = s3_rig_key("ac/red/1", "slow"), .expected = &digest,
                                   .content_size = 7, .content_until_ms = now_ms + DAY_MS};
    assert_ok(kiln_store_pair_content(second, &slow, fd, &err));
    assert_ok(kiln_store_keep_pointer(verifier, slow.pointer_key, "faster", 6, now_ms + DAY_MS, false, NULL, &err));
    assert_int_equal(kiln_store_pair_pointer(second, &slow, "slow", 4, now_ms + DAY_MS, &err), KILN_E_EXISTS);
    // A delete marker on top lets a create-only PUT pass on the server; here it does not.
    assert_int_equal(delete_as("root", KILN_SPACE_VAULT, pair.pointer_key, NULL), 204);
    assert_int_equal(keep_pair(second, &late, "content", "another", &err), KILN_E_EXISTS);
    assert_true(kiln_store_pointer_is_listed(verifier, pair.pointer_key));
    // What has other bytes than it is named for is not sent.
    kiln_autofd int other = file_of("CONTENT", 7);
    struct kiln_store_pair wrong = {.content_key = s3_rig_key("cas/red/blob", "wrong"), .pointer_key = s3_rig_key("ac/red/1", "wrong"),
                                    .expected = &digest, .content_size = 7};
    assert_int_equal(kiln_store_pair_content(verifier, &wrong, other, &err), KILN_E_CORRUPT);
    assert_int_equal(kiln_store_pair_content(agent, &slow, fd, &err), KILN_E_DENIED);
    assert_int_equal(get_text(agent, KILN_SPACE_VAULT, wrong.content_key, "CONTENT", &err), KILN_E_NOTFOUND);
    kiln_store_close(verifier);
    kiln_store_close(second);
    kiln_store_close(agent);
}

#define WRITERS 16

struct racer {
    struct kiln_store *store;
    const char *key;
    pthread_barrier_t *start;
    char text[16];
    int rc;
    struct kiln_err err;
};

static void *race(void *context) {
    struct racer *racer = context;
    pthread_barrier_wait(racer->start);
    racer->rc = kiln_store_keep_pointer(racer->store, racer->key, racer->text, strlen(racer->text), kiln_clock_wall_ms() + DAY_MS, false, NULL,
                                        &racer->err);
    return NULL;
}

static void of_sixteen_writers_one_creates(void **state) {
    (void)state;
    pthread_barrier_t start;
    pthread_t threads[WRITERS];
    struct racer racers[WRITERS];
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER);
    for (int round = 0; round < 3; round++) {
        char name[16];
        snprintf(name, sizeof name, "race%d", round);
        const char *key = s3_rig_key("ac/red/1", name);
        int created = -1;
        pthread_barrier_init(&start, NULL, WRITERS);
        for (int i = 0; i < WRITERS; i++) {
            racers[i] = (struct racer){.store = verifier, .key = key, .start = &start};
            snprintf(racers[i].text, sizeof racers[i].text, "writer %d", i);
            assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
        }
        for (int i = 0; i < WRITERS; i++) {
            pthread_join(threads[i], NULL);
            if (racers[i].rc == 0) {
                assert_int_equal(created, -1);
                created = i;
            } else if (racers[i].rc != KILN_E_EXISTS) {
                fail_msg("%s", racers[i].err.text);
            }
        }
        pthread_barrier_destroy(&start);
        assert_true(created >= 0);
        assert_int_equal(versions_of(key).listed, 1);
        kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(100);
        assert_int_equal(kiln_store_get_bytes(verifier, KILN_SPACE_VAULT, key, &bytes, NULL), 0);
        assert_string_equal(kiln_buf_text(&bytes), racers[created].text);
    }
    kiln_store_close(verifier);
}

// Flips bits in the middle of every file below; returns how many.
static unsigned flip_below(const char *path, bool inside) {
    unsigned count = 0;
    DIR *dir = opendir(path);
    if (!dir)
        return 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char name[1024];
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (lstat(name, &st))
            continue;
        if (S_ISDIR(st.st_mode)) {
            count += flip_below(name, true);
        } else if (inside && strcmp(entry->d_name, "xl.meta") != 0) {
            unsigned char byte;
            int fd = open(name, O_RDWR | O_CLOEXEC);
            assert_int_equal(pread(fd, &byte, 1, st.st_size / 2), 1);
            byte ^= 4;
            assert_int_equal(pwrite(fd, &byte, 1, st.st_size / 2), 1);
            close(fd);
            count++;
        }
    }
    closedir(dir);
    return count;
}

static void a_disk_that_lies_is_never_believed(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_pin pin;
    size_t size = 3u << 20;
    kiln_autofree char *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    kiln_autofd int fd = file_of(data, size);
    struct kiln_digest digest;
    kiln_digest_of(data, size, &digest);
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER), *agent = s3_rig_store("agent-1", KILN_ROLE_AGENT);
    const char *key = s3_rig_key("cas/red/blob", "rot");
    uint64_t until_ms = kiln_clock_wall_ms() + DAY_MS, got_size;
    int got = -1;
    assert_ok(kiln_store_keep_fd(verifier, key, fd, size, &digest, until_ms, &pin, &err));
    assert_ok(kiln_store_get_pinned(agent, key, &pin, &digest, &got, &got_size, &err));
    close(got);
    char path[1024];
    snprintf(path, sizeof path, "%s/kiln-vault/%s", rig.data, key);
    assert_int_equal(flip_below(path, false), 1);
    got = -1;
    assert_int_not_equal(kiln_store_get_pinned(agent, key, &pin, &digest, &got, &got_size, &err), 0);
    assert_int_equal(got, -1);
    assert_int_not_equal(kiln_store_get_fd(agent, KILN_SPACE_VAULT, key, &digest, &got, &got_size, &err), 0);
    assert_int_equal(got, -1);
    // Keeping the right bytes again makes a version that can be read.
    assert_ok(kiln_store_keep_fd(verifier, key, fd, size, &digest, until_ms, &pin, &err));
    assert_ok(kiln_store_get_pinned(agent, key, &pin, &digest, &got, &got_size, &err));
    close(got);
    kiln_store_close(verifier);
    kiln_store_close(agent);
}

static void wrong_inputs_are_put_over(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_digest digest = digest_of("right");
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER);
    const char *key = s3_rig_key("cas/red/blob", "wrong");
    put_as("root", KILN_SPACE_INPUTS, key, "wrong", NULL, 0, 200);
    assert_true(kiln_store_has(verifier, KILN_SPACE_INPUTS, key));
    assert_int_equal(get_text(verifier, KILN_SPACE_INPUTS, key, "right", &err), KILN_E_CORRUPT);
    assert_ok(kiln_store_remove(verifier, KILN_SPACE_INPUTS, key, &err));
    assert_ok(kiln_store_put_bytes(verifier, KILN_SPACE_INPUTS, key, "right", 5, &digest, &err));
    assert_ok(get_text(verifier, KILN_SPACE_INPUTS, key, "right", &err));
    kiln_store_close(verifier);
}

#define MANY 60

static void many_go_at_once(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *agent = s3_rig_store("agent-1", KILN_ROLE_AGENT), *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER);
    struct kiln_store *executor = s3_rig_store("executor-1", KILN_ROLE_EXECUTOR);
    struct kiln_store_offer offers[MANY] = {0};
    struct kiln_store_want wants[MANY + 2] = {0};
    struct kiln_digest digests[MANY];
    char keys[MANY][128], text[32];
    const char *list[MANY + 1];
    bool present[MANY + 1];
    for (int i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof keys[i], "%s", s3_rig_key("cas/red/blob/many", (snprintf(text, sizeof text, "%d", i), text)));
        digests[i] = digest_of(text);
        offers[i] = (struct kiln_store_offer){.space = KILN_SPACE_INPUTS, .key = keys[i], .fd = file_of(text, strlen(text)), .max_bytes = 100,
                                              .expected = &digests[i]};
        wants[i] = (struct kiln_store_want){.space = KILN_SPACE_INPUTS, .key = keys[i], .expected = &digests[i]};
        list[i] = keys[i];
    }
    list[MANY] = "cas/red/blob/none";
    assert_ok(kiln_store_put_many(verifier, offers, MANY, &err));
    kiln_store_has_many(executor, KILN_SPACE_INPUTS, list, MANY + 1, present);
    for (int i = 0; i < MANY; i++)
        assert_true(present[i]);
    assert_false(present[MANY]);
    wants[MANY] = (struct kiln_store_want){.space = KILN_SPACE_INPUTS, .key = "cas/red/blob/none", .expected = &digests[0]};
    wants[MANY + 1] = (struct kiln_store_want){.space = KILN_SPACE_QUARANTINE, .key = "in/red/agent-1/x"};
    wants[3].expected = &digests[4];
    kiln_store_get_many(executor, wants, MANY + 2);
    for (int i = 0; i < MANY; i++) {
        if (i == 3)
            continue;
        assert_int_equal(wants[i].err.code, 0);
        snprintf(text, sizeof text, "%d", i);
        assert_text(wants[i].fd, text);
    }
    assert_int_equal(wants[3].err.code, KILN_E_CORRUPT);
    assert_int_equal(wants[3].fd, -1);
    assert_int_equal(wants[MANY].err.code, KILN_E_NOTFOUND);
    assert_int_equal(wants[MANY + 1].err.code, KILN_E_DENIED);
    offers[5].expected = &digests[6];
    offers[5].key = "cas/red/blob/refused";
    assert_int_equal(kiln_store_put_many(verifier, offers, MANY, &err), KILN_E_CORRUPT);
    for (int i = 0; i < MANY; i++)
        close(offers[i].fd);
    kiln_store_close(agent);
    kiln_store_close(verifier);
    kiln_store_close(executor);
}

static void quarantine_is_emptied(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *agent = s3_rig_store("agent-1", KILN_ROLE_AGENT), *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER);
    const char *job = s3_rig_key("in/red/agent-1", "job");
    char key[300], other[300];
    snprintf(other, sizeof other, "%s2/x", job);
    assert_ok(kiln_store_put_bytes(agent, KILN_SPACE_QUARANTINE, other, "x", 1, NULL, &err));
    for (int i = 0; i < 25; i++) {
        snprintf(key, sizeof key, "%s/f %d", job, i);
        assert_ok(kiln_store_put_bytes(agent, KILN_SPACE_QUARANTINE, key, "x", 1, NULL, &err));
    }
    assert_true(kiln_store_has(verifier, KILN_SPACE_QUARANTINE, key));
    assert_ok(kiln_store_remove(agent, KILN_SPACE_QUARANTINE, key, &err));
    assert_ok(kiln_store_remove(agent, KILN_SPACE_QUARANTINE, key, &err));
    assert_false(kiln_store_has(verifier, KILN_SPACE_QUARANTINE, key));
    assert_int_equal(kiln_store_remove_below(agent, KILN_SPACE_QUARANTINE, job, &err), KILN_E_DENIED); // an agent lists nothing
    assert_ok(kiln_store_remove_below(verifier, KILN_SPACE_QUARANTINE, job, &err));
    for (int i = 0; i < 25; i++) {
        snprintf(key, sizeof key, "%s/f %d", job, i);
        assert_false(kiln_store_has(verifier, KILN_SPACE_QUARANTINE, key));
    }
    assert_true(kiln_store_has(verifier, KILN_SPACE_QUARANTINE, other));
    assert_int_equal(kiln_store_remove_below(verifier, KILN_SPACE_VAULT, "cas", &err), KILN_E_UNSUPPORTED);
    kiln_store_close(agent);
    kiln_store_close(verifier);
}

static void sizes_at_the_edges(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 65536, 8u << 20, (8u << 20) + 1, 20u << 20};
    struct kiln_err err = {0};
    struct kiln_store *verifier = s3_rig_store("verifier-1", KILN_ROLE_VERIFIER);
    kiln_autofree char *data = calloc(1, sizes[COUNT(sizes) - 1]);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        char name[32];
        snprintf(name, sizeof name, "size%zu", sizes[i]);
        const char *key = s3_rig_key("cas/red/blob", name);
        struct kiln_digest digest;
        kiln_digest_of(data, sizes[i], &digest);
        kiln_autofd int fd = file_of(data, sizes[i]);
        kiln_autofd int got = -1;
        uint64_t size;
        assert_int_equal(sizes[i] ? kiln_store_put_fd(verifier, KILN_SPACE_INPUTS, key, fd, sizes[i] - 1, &digest, &err) : KILN_E_LIMIT, KILN_E_LIMIT);
        assert_ok(kiln_store_put_fd(verifier, KILN_SPACE_INPUTS, key, fd, sizes[i], &digest, &err));
        assert_ok(kiln_store_get_fd(verifier, KILN_SPACE_INPUTS, key, &digest, &got, &size, &err));
        assert_int_equal(size, sizes[i]);
        assert_int_equal(write(got, "x", 1), -1);
    }
    // A read into a buffer ends at the buffer's bound.
    kiln_autobuf struct kiln_buf small = KILN_BUF_INIT(1000);
    assert_int_equal(kiln_store_get_bytes(verifier, KILN_SPACE_INPUTS, s3_rig_key("cas/red/blob", "size65536"), &small, &err), KILN_E_LIMIT);
    kiln_store_close(verifier);
}

static void libs3_moves_quarantine(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *agent = NULL, *verifier = NULL;
    struct kiln_s3_options options = s3_rig_options("agent-1");
    options.libs3 = true;
    int rc = kiln_store_open_s3(&options, KILN_ROLE_AGENT, &agent, &err);
    if (rc == KILN_E_UNSUPPORTED) {
        print_message("skipped: %s\n", err.text);
        skip();
    }
    assert_ok(rc);
    options = s3_rig_options("verifier-1");
    options.libs3 = true;
    assert_ok(kiln_store_open_s3(&options, KILN_ROLE_VERIFIER, &verifier, &err));
    size_t size = 9u << 20;
    kiln_autofree char *data = malloc(size);
    memset(data, 'x', size);
    kiln_autofd int fd = file_of(data, size);
    struct kiln_digest digest;
    kiln_digest_of(data, size, &digest);
    const char *key = s3_rig_key("in/red/agent-1", "libs3 +%~");
    int got = -1;
    uint64_t got_size;
    assert_ok(kiln_store_put_fd(agent, KILN_SPACE_QUARANTINE, key, fd, size, &digest, &err));
    assert_ok(kiln_store_get_fd(verifier, KILN_SPACE_QUARANTINE, key, &digest, &got, &got_size, &err));
    assert_int_equal(got_size, size);
    close(got);
    assert_ok(kiln_store_put_bytes(agent, KILN_SPACE_QUARANTINE, key, "", 0, NULL, &err));
    assert_ok(kiln_store_open_unchecked(verifier, KILN_SPACE_QUARANTINE, key, &got, &err));
    assert_text(got, "");
    assert_int_equal(kiln_store_put_bytes(agent, KILN_SPACE_QUARANTINE, s3_rig_key("in/red/agent-2", "x"), "x", 1, NULL, &err), KILN_E_DENIED);
    assert_int_equal(kiln_store_open_unchecked(verifier, KILN_SPACE_QUARANTINE, s3_rig_key("in/red/agent-1", "none"), &got, &err), KILN_E_NOTFOUND);
    kiln_store_close(agent);
    kiln_store_close(verifier);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_server_has_what_a_verifier_needs),
        cmocka_unit_test(content_goes_through_all_spaces),
        cmocka_unit_test(credentials_refuse_what_roles_may_not),
        cmocka_unit_test(a_pin_outlives_shadow_and_delete_marker),
        cmocka_unit_test(a_pin_is_of_that_version_and_that_lock),
        cmocka_unit_test(a_reader_asks_for_days_of_lock),
        cmocka_unit_test(pointers_are_created_once_and_listed_oldest_first),
        cmocka_unit_test(content_and_pointer_go_as_a_pair),
        cmocka_unit_test(of_sixteen_writers_one_creates),
        cmocka_unit_test(a_disk_that_lies_is_never_believed),
        cmocka_unit_test(wrong_inputs_are_put_over),
        cmocka_unit_test(many_go_at_once),
        cmocka_unit_test(quarantine_is_emptied),
        cmocka_unit_test(sizes_at_the_edges),
        cmocka_unit_test(libs3_moves_quarantine),
    };
    return cmocka_run_group_tests(tests, s3_rig_up, s3_rig_down);
}
