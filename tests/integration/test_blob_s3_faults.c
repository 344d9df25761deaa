// The S3 store against a server that fails in every way we know (tests/fault/s3_stub.py): no failure becomes a success, nothing is
// repeated that must not be, and the probe names what a server does not honour.
#include "tests/unit/scratch.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/blob/s3_client.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define DAY_MS 86400000ull

struct stub {
    pid_t pid;
    int in;
    char endpoint[64], dir[64], cert[96];
};

static struct stub plain, secure;

static int stub_start(struct stub *stub, bool tls) {
    int in[2], out[2];
    strcpy(stub->dir, "/tmp/kiln-stub-XXXXXX");
    if (!mkdtemp(stub->dir) || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        return -1;
    snprintf(stub->cert, sizeof stub->cert, "%s/cert.pem", stub->dir);
    fflush(NULL);
    stub->pid = fork();
    if (stub->pid == 0) {
        char *argv[] = {TEXT("python3"), TEXT(KILN_SOURCE_DIR "/tests/fault/s3_stub.py"), tls ? TEXT("--tls") : NULL, stub->dir, NULL};
        dup2(in[0], 0);
        dup2(out[1], 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    stub->in = in[1];
    FILE *said = fdopen(out[0], "r");
    bool up = said && fgets(stub->endpoint, sizeof stub->endpoint, said);
    stub->endpoint[strcspn(stub->endpoint, "\n")] = 0;
    if (said)
        fclose(said);
    return up ? 0 : -1;
}

static void stub_stop(struct stub *stub) {
    close(stub->in);
    waitpid(stub->pid, NULL, 0);
    kiln_fs_remove_tree(AT_FDCWD, stub->dir, NULL);
}

static int start_stubs(void **state) {
    (void)state;
    // Whoever controls the environment does not thereby choose whom we talk to.
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("https_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    signal(SIGPIPE, SIG_IGN);
    return stub_start(&plain, false) || stub_start(&secure, true) ? -1 : 0;
}

static int stop_stubs(void **state) {
    (void)state;
    stub_stop(&plain);
    stub_stop(&secure);
    return 0;
}

static struct kiln_s3_options options_of(const struct stub *stub, const char *prefix) {
    return (struct kiln_s3_options){.endpoint = stub->endpoint, .region = "eu-west-9", .bucket_prefix = prefix, .access_key = "AKID",
                                    .secret_key = "stub-secret", .scratch_dir = stub->dir, .request_ms = 1500, .connect_ms = 1000};
}

static struct kiln_store *open_with(const struct kiln_s3_options *options, enum kiln_store_role role) {
    struct kiln_store *store = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_store_open_s3(options, role, &store, &err));
    return store;
}

static struct kiln_store *open_store(const char *prefix) {
    struct kiln_s3_options options = options_of(&plain, prefix);
    return open_with(&options, KILN_ROLE_VERIFIER);
}

static int file_of(const char *text) {
    int fd = memfd_create("text", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(kiln_fs_write_all(fd, text, strlen(text), NULL), 0);
    return fd;
}

static const struct kiln_digest *digest_of(const char *text) {
    static struct kiln_digest digests[4];
    static unsigned turn;
    struct kiln_digest *digest = &digests[turn++ % 4];
    kiln_digest_of(text, strlen(text), digest);
    return digest;
}

// What the stub tells about a key: "count" or "seen".
static void ask(const char *what, const char *key, char *text, size_t size) {
    struct kiln_s3_options options = options_of(&plain, "kiln");
    struct kiln_s3_client *client;
    struct kiln_s3_exchange exchange;
    struct kiln_err err = {0};
    char name[256];
    snprintf(name, sizeof name, "%s/%s", what, key);
    assert_ok(kiln_s3_client_new(&options, &client, &err));
    kiln_s3_exchange_init(&exchange, "GET", KILN_SPACE_INPUTS, name);
    exchange.sink = KILN_S3_SINK_BYTES;
    exchange.max_bytes = size - 1;
    assert_ok(kiln_s3_run_one(client, &exchange, &err));
    snprintf(text, size, "%s", kiln_buf_text(&exchange.bytes));
    kiln_s3_exchange_release(&exchange);
    kiln_s3_client_free(client);
}

static int requests_for(const char *key) {
    char text[32];
    ask("count", key, text, sizeof text);
    return atoi(text);
}

static int get(struct kiln_store *store, const char *key, const char *pin_text, struct kiln_err *err) {
    struct kiln_pin pin = {0};
    int fd = -1, rc;
    uint64_t size;
    *err = (struct kiln_err){0};
    if (pin_text) {
        snprintf(pin.text, sizeof pin.text, "%s", pin_text);
        rc = kiln_store_get_pinned(store, key, &pin, digest_of("content"), &fd, &size, err);
    } else {
        rc = kiln_store_get_fd(store, KILN_SPACE_VAULT, key, digest_of("content"), &fd, &size, err);
    }
    assert_int_equal(rc, err->code);
    assert_true((rc == 0) == (fd >= 0));
    if (rc == 0) {
        kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(100);
        assert_int_equal(kiln_fs_read_fd(fd, &text, NULL), 0);
        assert_string_equal(kiln_buf_text(&text), "content");
        close(fd);
    }
    return rc;
}

static const struct {
    const char *name;
    int plain, pinned;
    const char *says; // for the pinned read
    int requests;     // of one read
} read_faults[] = {
    {"good", 0, 0, "", 1},
    {"cut", KILN_E_IO, KILN_E_IO, "no whole answer", 3},
    {"cut-once", 0, 0, "", 2},
    {"chunked", KILN_E_CORRUPT, KILN_E_CORRUPT, "length: ", 1},
    {"cut-chunked", KILN_E_IO, KILN_E_IO, "no whole answer", 3},
    {"no-length", KILN_E_CORRUPT, KILN_E_CORRUPT, "length: ", 1},
    {"two-lengths", KILN_E_CORRUPT, KILN_E_CORRUPT, "two lengths", 1},
    {"two-versions", KILN_E_CORRUPT, KILN_E_CORRUPT, "twice", 1},
    {"status-304", KILN_E_IO, KILN_E_IO, "304", 1},
    {"status-206", KILN_E_IO, KILN_E_IO, "206", 1},
    {"status-204", KILN_E_IO, KILN_E_IO, "204", 1},
    {"redirect", KILN_E_IO, KILN_E_IO, "307", 1},
    {"busy-twice", 0, 0, "", 3},
    {"busy", KILN_E_IO, KILN_E_IO, "503 SlowDown", 4},
    {"unreadable", KILN_E_CORRUPT, KILN_E_CORRUPT, "unreadable: ", 4}, // a HEAD shows it
    {"empty-500", KILN_E_IO, KILN_E_IO, "500", 4},
    {"continue-403", KILN_E_DENIED, KILN_E_DENIED, "403", 1},
    {"continue-503", KILN_E_IO, KILN_E_IO, "503", 4},
    {"gone", KILN_E_IO, KILN_E_IO, "no whole answer", 3},
    {"garbage", KILN_E_IO, KILN_E_IO, "no safe connection", 1},
    {"huge", KILN_E_LIMIT, KILN_E_LIMIT, "larger", 1},
    {"huge-head", KILN_E_CORRUPT, KILN_E_CORRUPT, "head", 1},
    {"other-version", 0, KILN_E_CORRUPT, "version: ", 1},
    {"no-version", 0, KILN_E_CORRUPT, "version: ", 1},
    {"no-lock", 0, KILN_E_CORRUPT, "lock: ", 1},
    {"no-date", 0, KILN_E_CORRUPT, "lock: ", 1},
    {"governance", 0, KILN_E_CORRUPT, "lock: ", 1},
    {"expired", 0, KILN_E_CORRUPT, "lock: ", 1},
    {"bad-date", KILN_E_CORRUPT, KILN_E_CORRUPT, "date", 1},
    {"other-bytes", KILN_E_CORRUPT, KILN_E_CORRUPT, "digest", 1},
};

static void no_failed_read_becomes_a_success(void **state) {
    (void)state;
    struct kiln_store *store = open_store("kiln");
    for (size_t i = 0; i < COUNT(read_faults); i++) {
        struct kiln_err err;
        char key[64];
        const char *name = read_faults[i].name;
        snprintf(key, sizeof key, "plain/%s", name);
        int rc = get(store, key, NULL, &err), count = requests_for(key);
        if (rc != read_faults[i].plain)
            fail_msg("%s: %d %s", name, rc, err.text);
        // libcurl itself tries anew when a kept connection turns out to be closed.
        if (count != read_faults[i].requests && strcmp(name, "gone") != 0)
            fail_msg("%s: %d requests", name, count);
        snprintf(key, sizeof key, "pinned/%s", name);
        rc = get(store, key, "v1", &err);
        if (rc != read_faults[i].pinned || !strstr(err.text, read_faults[i].says))
            fail_msg("%s pinned: %d %s", name, rc, err.text);
        assert_int_equal(err.retriable, rc == KILN_E_IO && read_faults[i].requests > 1);
        bool present = kiln_store_has(store, KILN_SPACE_VAULT, key);
        if (rc == KILN_E_IO && strncmp(name, "status", 6) == 0)
            assert_false(present);
    }
    assert_int_equal(requests_for("trap"), 0);
    kiln_store_close(store);
}

static void a_silent_server_is_left_in_time(void **state) {
    (void)state;
    struct kiln_s3_options options = options_of(&plain, "kiln");
    options.request_ms = 300;
    struct kiln_store *store = open_with(&options, KILN_ROLE_VERIFIER);
    struct kiln_err err;
    uint64_t begun_ms = kiln_clock_ms();
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1000);
    assert_int_equal(kiln_store_get_bytes(store, KILN_SPACE_VAULT, "silent", &bytes, &err), KILN_E_IO);
    assert_true(err.retriable);
    assert_true(kiln_clock_ms() - begun_ms < 8000);
    kiln_store_close(store);
    // Nobody listens.
    options.endpoint = "http://127.0.0.1:1";
    store = open_with(&options, KILN_ROLE_VERIFIER);
    assert_int_equal(get(store, "good", NULL, &err), KILN_E_IO);
    assert_true(err.retriable);
    kiln_store_close(store);
}

static void no_failed_put_becomes_a_success(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int rc, requests;
    } faults[] = {
        {"good", 0, 1},          {"continue-200", 0, 1},       {"continue-403", KILN_E_DENIED, 1}, {"continue-503", KILN_E_IO, 3},
        {"empty-500", KILN_E_IO, 3}, {"busy-twice", 0, 3},     {"status-304", KILN_E_IO, 1},       {"status-204", KILN_E_IO, 1},
        {"redirect", KILN_E_IO, 1}, {"cut", KILN_E_IO, 3},     {"garbage", KILN_E_IO, 1},          {"huge-head", KILN_E_CORRUPT, 1},
        {"huge-error", KILN_E_DENIED, -1},
    };
    struct kiln_store *store = open_store("kiln");
    struct kiln_err err;
    for (size_t i = 0; i < COUNT(faults); i++) {
        char key[64];
        snprintf(key, sizeof key, "in/put/%s", faults[i].name);
        int rc = kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, key, "content", 7, digest_of("content"), &err), count = requests_for(key);
        bool huge = strcmp(faults[i].name, "huge-error") == 0;
        if (huge ? rc == 0 : rc != faults[i].rc)
            fail_msg("%s: %d %s", faults[i].name, rc, err.text);
        if (!huge && count != faults[i].requests)
            fail_msg("%s: %d requests", faults[i].name, count);
    }
    // An answer that comes before the bytes were taken is about other bytes.
    size_t size = 8u << 20;
    kiln_autofree char *data = calloc(1, size);
    assert_int_equal(kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, "in/put/early-200", data, size, NULL, &err), KILN_E_IO);
    kiln_store_close(store);
}

static void what_has_an_effect_is_sent_once(void **state) {
    (void)state;
    struct kiln_store *store = open_store("kiln");
    struct kiln_err err;
    struct kiln_pin pin;
    uint64_t until_ms = kiln_clock_wall_ms() + DAY_MS;
    assert_int_equal(kiln_store_keep_pointer(store, "ac/over/busy", "p", 1, until_ms, true, &pin, &err), KILN_E_IO);
    assert_int_equal(requests_for("ac/over/busy"), 1);
    assert_int_equal(kiln_store_keep_pointer(store, "ac/new/busy", "p", 1, until_ms, false, &pin, &err), KILN_E_IO);
    assert_int_equal(requests_for("ac/new/busy"), 3);
    assert_int_equal(kiln_store_keep_pointer(store, "ac/new/conflict", "p", 1, until_ms, false, &pin, &err), KILN_E_EXISTS);
    kiln_store_close(store);
}

static void requests_say_what_they_must_and_no_more(void **state) {
    (void)state;
    struct kiln_store *store = open_store("kiln");
    struct kiln_err err = {0};
    struct kiln_pin pin;
    char head[4096];
    kiln_autofd int fd = file_of("content");
    assert_ok(kiln_store_keep_fd(store, "cas/x/shape", fd, 100, digest_of("content"), kiln_clock_wall_ms() + DAY_MS, &pin, &err));
    assert_ok(kiln_store_keep_pointer(store, "ac/x/shape", "p", 1, kiln_clock_wall_ms() + DAY_MS, true, &pin, &err));
    // The last request for it is the HEAD that confirms the version.
    ask("seen", "ac/x/shape", head, sizeof head);
    assert_non_null(strstr(head, "HEAD /kiln-vault/ac/x/shape?versionId=v0"));
    kiln_autobuf struct kiln_buf big = KILN_BUF_INIT(4u << 20);
    kiln_buf_reserve(&big, 4u << 20);
    big.len = 4u << 20;
    memset(big.data, 'x', big.len);
    assert_ok(kiln_store_put_bytes(store, KILN_SPACE_INPUTS, "cas/x/head", big.data, big.len, NULL, &err));
    ask("seen", "cas/x/head", head, sizeof head);
    for (char *c = head; *c; c++)
        *c |= *c >= 'A' && *c <= 'Z' ? 0x20 : 0;
    static const char *const present[] = {"if-none-match: *", "content-md5: ", "x-amz-content-sha256: ", "content-length: 4194304"};
    static const char *const absent[] = {"expect:", "accept:", "transfer-encoding:", "content-type:"};
    for (size_t i = 0; i < COUNT(present); i++)
        assert_non_null(strstr(head, present[i]));
    for (size_t i = 0; i < COUNT(absent); i++)
        assert_null(strstr(head, absent[i]));
    // Signed as the stub reckons it, whatever the key is: absent, not refused.
    static const char *const keys[] = {"a b", "a+b", "a%2fb", "a&b=c?d", "\303\244\342\202\254", "a/.b/c..", "~-_.", "*'()!$,;:@[]{}|\\^`\"<>#"};
    for (size_t i = 0; i < COUNT(keys); i++)
        if (get(store, keys[i], NULL, &err) != KILN_E_NOTFOUND || get(store, keys[i], "v 1+2/3?&=%", &err) != KILN_E_NOTFOUND)
            fail_msg("%s: %s", keys[i], err.text);
    kiln_store_close(store);
    struct kiln_s3_options options = options_of(&plain, "kiln");
    options.secret_key = "another";
    store = open_with(&options, KILN_ROLE_VERIFIER);
    assert_int_equal(get(store, "good", NULL, &err), KILN_E_DENIED);
    assert_non_null(strstr(err.text, "SignatureDoesNotMatch"));
    kiln_store_close(store);
}

static void known_content_costs_no_request(void **state) {
    (void)state;
    struct kiln_store *store = open_store("kiln");
    struct kiln_err err = {0};
    const char *keys[] = {"cas/x/known", "cas/x/absent"};
    bool present[2];
    assert_ok(kiln_store_put_bytes(store, KILN_SPACE_INPUTS, keys[0], "content", 7, digest_of("content"), &err));
    for (int i = 0; i < 3; i++) {
        kiln_store_has_many(store, KILN_SPACE_INPUTS, keys, 2, present);
        assert_true(present[0] && !present[1]);
        assert_ok(kiln_store_put_bytes(store, KILN_SPACE_INPUTS, keys[0], "content", 7, digest_of("content"), &err));
    }
    assert_int_equal(requests_for(keys[0]), 1);
    assert_int_equal(requests_for(keys[1]), 3);
    // Forgotten, it is looked at again.
    assert_ok(kiln_store_remove(store, KILN_SPACE_INPUTS, keys[0], &err));
    assert_true(kiln_store_has(store, KILN_SPACE_INPUTS, keys[0]));
    assert_int_equal(requests_for(keys[0]), 2);
    // Wrong bytes are no presence.
    int fd;
    uint64_t size;
    assert_int_equal(kiln_store_get_fd(store, KILN_SPACE_INPUTS, keys[0], digest_of("other"), &fd, &size, &err), KILN_E_CORRUPT);
    assert_true(kiln_store_has(store, KILN_SPACE_INPUTS, keys[0]));
    assert_int_equal(requests_for(keys[0]), 4);
    kiln_store_close(store);
}

static void versions_are_listed_page_by_page(void **state) {
    (void)state;
    struct kiln_store *store = open_store("lax-nothing-pages");
    struct kiln_err err = {0};
    struct kiln_pin pins[8], adopted;
    uint64_t until_ms = kiln_clock_wall_ms() + DAY_MS;
    kiln_autofd int fd = file_of("version 2");
    char text[32], key[64];
    for (int i = 0; i < 8; i++) { // the stub lists three at a time
        snprintf(text, sizeof text, "version %d", i);
        assert_ok(kiln_store_keep_pointer(store, "cas/pages/a", text, strlen(text), until_ms, true, &pins[i], &err));
        snprintf(key, sizeof key, "in/pages/job/%d +%%", i);
        assert_ok(kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, key, "x", 1, NULL, &err));
    }
    assert_int_equal(kiln_store_keep_pointer(store, "cas/pages/a", "x", 1, until_ms, false, NULL, &err), KILN_E_EXISTS);
    assert_ok(kiln_store_keep_fd(store, "cas/pages/a", fd, 100, digest_of("version 2"), until_ms, &adopted, &err));
    assert_string_equal(adopted.text, pins[2].text);
    assert_ok(kiln_store_remove_below(store, KILN_SPACE_QUARANTINE, "in/pages/job", &err));
    for (int i = 0; i < 8; i++) {
        snprintf(key, sizeof key, "in/pages/job/%d +%%", i);
        assert_false(kiln_store_has(store, KILN_SPACE_QUARANTINE, key));
    }
    kiln_store_close(store);
}

static void a_pin_is_given_only_for_what_is_locked(void **state) {
    (void)state;
    static const struct {
        const char *prefix;
        int rc;
        const char *says;
    } servers[] = {{"lax-nothing-k", 0, ""},
                   {"lax-mode-k", KILN_E_CORRUPT, "lock: "},
                   {"lax-date-k", KILN_E_CORRUPT, "lock: "},
                   {"lax-change-k", KILN_E_CORRUPT, "length: "},
                   {"lax-versions-k", KILN_E_UNSUPPORTED, "version: "}};
    for (size_t i = 0; i < COUNT(servers); i++) {
        struct kiln_store *store = open_store(servers[i].prefix);
        struct kiln_err err = {0};
        struct kiln_pin pin = {"untouched"};
        kiln_autofd int fd = file_of("content");
        uint64_t until_ms = kiln_clock_wall_ms() + DAY_MS;
        int rc = kiln_store_keep_fd(store, "cas/x/y", fd, 100, digest_of("content"), until_ms, &pin, &err);
        if (rc != servers[i].rc || !strstr(err.text, servers[i].says))
            fail_msg("%s: %d %s", servers[i].prefix, rc, err.text);
        assert_true((rc != 0) == (strcmp(pin.text, "untouched") == 0));
        assert_int_equal(kiln_store_keep_pointer(store, "ac/x/y", "content", 7, until_ms, false, &pin, &err), servers[i].rc);
        // As a pair: it fails as a whole, and that is the store's fault.
        const struct kiln_digest *digest = digest_of("more content");
        kiln_autofd int more = file_of("more content");
        struct kiln_store_pair pair = {.content_key = "cas/x/z", .pointer_key = "ac/x/z", .content_size = 12, .content_until_ms = until_ms,
                                       .expected = digest};
        rc = kiln_store_pair_content(store, &pair, more, &err);
        if (!rc)
            rc = kiln_store_pair_pointer(store, &pair, "pointer", 7, until_ms, &err);
        if (rc != (servers[i].rc == KILN_E_CORRUPT ? KILN_E_IO : servers[i].rc) || !strstr(err.text, servers[i].says))
            fail_msg("%s, a pair: %d %s", servers[i].prefix, rc, err.text);
        kiln_store_close(store);
    }
}

static void the_probe_names_what_is_not_honoured(void **state) {
    (void)state;
    static const struct {
        const char *lax;
        int rc;
        const char *says;
    } servers[] = {{"nothing", 0, ""},
                   {"versioning", KILN_E_UNSUPPORTED, "versioning of the vault"},
                   {"bucket", KILN_E_UNSUPPORTED, "object lock of the vault"},
                   {"default", KILN_E_UNSUPPORTED, "object lock of the vault"},
                   {"sha256", KILN_E_UNSUPPORTED, "x-amz-content-sha256"},
                   {"md5", KILN_E_UNSUPPORTED, "Content-MD5"},
                   {"versions", KILN_E_UNSUPPORTED, "versions"},
                   {"mode", KILN_E_UNSUPPORTED, "COMPLIANCE"},
                   {"date", KILN_E_UNSUPPORTED, "COMPLIANCE"},
                   {"create", KILN_E_UNSUPPORTED, "If-None-Match"},
                   {"delete", KILN_E_UNSUPPORTED, "DELETE of a version"},
                   {"marker", KILN_E_UNSUPPORTED, "DELETE by verifiers"},
                   {"shorten", KILN_E_UNSUPPORTED, "shorter retention"},
                   {"replace", KILN_E_UNSUPPORTED, "pinned version"},
                   {"pin", KILN_E_UNSUPPORTED, "pinned version"},
                   {"down", KILN_E_IO, "503"}};
    for (size_t i = 0; i < COUNT(servers); i++) {
        char prefix[64];
        struct kiln_err err = {0};
        snprintf(prefix, sizeof prefix, "lax-%s-p", servers[i].lax);
        struct kiln_s3_options options = options_of(&plain, prefix);
        // A version under a lock that lasts is not put again, and a marker over one lets a second PUT through: what only the
        // first probe sees then is named by the first probe.
        for (int again = 0; again < (strcmp(servers[i].lax, "versions") && strcmp(servers[i].lax, "marker") ? 2 : 1); again++) {
            int rc = kiln_s3_probe(&options, &err);
            if (rc != servers[i].rc || !strstr(err.text, servers[i].says))
                fail_msg("%s, %d: %d %s", servers[i].lax, again, rc, err.text);
        }
    }
    struct kiln_s3_options options = options_of(&plain, "kiln");
    options.endpoint = "http://127.0.0.1:1";
    assert_int_equal(kiln_s3_probe(&options, NULL), KILN_E_IO);
}

static void tls_is_verified(void **state) {
    (void)state;
    struct kiln_err err;
    struct kiln_s3_options options = options_of(&secure, "kiln");
    options.tls_ca = secure.cert;
    struct kiln_store *store = open_with(&options, KILN_ROLE_VERIFIER);
    assert_int_equal(get(store, "good", "v1", &err), 0);
    kiln_store_close(store);
    options.tls_ca = NULL;
    store = open_with(&options, KILN_ROLE_VERIFIER);
    assert_int_equal(get(store, "good", "v1", &err), KILN_E_IO);
    assert_false(err.retriable);
    assert_non_null(strstr(err.text, "no safe connection"));
    kiln_store_close(store);
    options.tls_ca = "/nonexistent.pem";
    store = open_with(&options, KILN_ROLE_VERIFIER);
    assert_int_equal(get(store, "good", "v1", &err), KILN_E_IO);
    kiln_store_close(store);
    // The right chain for another name.
    char other[64];
    snprintf(other, sizeof other, "https://localhost%s", strrchr(secure.endpoint, ':'));
    options.endpoint = other;
    options.tls_ca = secure.cert;
    store = open_with(&options, KILN_ROLE_VERIFIER);
    assert_int_equal(get(store, "good", "v1", &err), KILN_E_IO);
    assert_non_null(strstr(err.text, "no safe connection"));
    kiln_store_close(store);
}

static bool open_libs3(const struct stub *stub, const char *ca, struct kiln_store **store) {
    struct kiln_s3_options options = options_of(stub, "kiln");
    struct kiln_err err = {0};
    options.libs3 = true;
    options.tls_ca = ca;
    int rc = kiln_store_open_s3(&options, KILN_ROLE_VERIFIER, store, &err);
    if (rc == 0)
        return true;
    assert_int_equal(rc, KILN_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "libs3"));
    return false;
}

static void libs3_is_not_believed(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int put, got;
    } faults[] = {{"good", 0, 0},
                  {"continue-200", 0, 0},
                  {"continue-403", KILN_E_DENIED, KILN_E_DENIED},
                  {"continue-503", KILN_E_IO, KILN_E_IO},
                  {"empty-500", KILN_E_IO, KILN_E_IO},
                  {"busy-twice", 0, 0},
                  {"cut", KILN_E_IO, KILN_E_IO},
                  {"cut-once", 0, 0},
                  {"status-304", KILN_E_IO, KILN_E_IO},
                  {"status-206", KILN_E_IO, KILN_E_IO},
                  {"redirect", KILN_E_IO, KILN_E_IO},
                  {"gone", KILN_E_IO, KILN_E_IO},
                  {"other-bytes", 0, KILN_E_CORRUPT},
                  {"wrong-etag", KILN_E_CORRUPT, KILN_E_CORRUPT}};
    struct kiln_store *store;
    if (!open_libs3(&plain, NULL, &store)) {
        print_message("skipped: this build has no libs3\n");
        skip();
    }
    for (size_t i = 0; i < COUNT(faults); i++) {
        struct kiln_err err = {0};
        char put[64], got[64];
        int fd = -1;
        uint64_t size;
        snprintf(put, sizeof put, "in/libs3-put/%s", faults[i].name);
        snprintf(got, sizeof got, "in/libs3-get/%s", faults[i].name);
        int rc = kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, put, "content", 7, digest_of("content"), &err);
        if (rc != faults[i].put)
            fail_msg("put %s: %d %s", faults[i].name, rc, err.text);
        rc = kiln_store_get_fd(store, KILN_SPACE_QUARANTINE, got, digest_of("content"), &fd, &size, &err);
        if (rc != faults[i].got)
            fail_msg("get %s: %d %s", faults[i].name, rc, err.text);
        if (fd >= 0)
            close(fd);
    }
    assert_int_equal(requests_for("trap"), 0);
    kiln_store_close(store);
}

static void libs3_verifies_tls(void **state) {
    (void)state;
    struct kiln_store *store;
    struct kiln_err err = {0};
    if (!open_libs3(&secure, secure.cert, &store))
        skip();
    assert_ok(kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, "in/tls/good", "content", 7, NULL, &err));
    kiln_store_close(store);
    assert_true(open_libs3(&secure, NULL, &store));
    assert_int_equal(kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, "in/tls/good", "content", 7, NULL, &err), KILN_E_IO);
    assert_false(err.retriable);
    kiln_store_close(store);
}

static void options_are_checked(void **state) {
    (void)state;
    static const char *const endpoints[] = {"", "127.0.0.1:9000", "ftp://h", "http://", "http://h/path", "http://u@h", "http://h?x", "file:///etc", "http://H",
                                            "http://h\r\nx: y"};
    static const char *const prefixes[] = {"", "-a", "A", "a/b", "a.b", "a_b", "abcdefghijabcdefghijabcdefghijabcdefghija"};
    struct kiln_store *store = NULL;
    for (size_t i = 0; i < COUNT(endpoints); i++) {
        struct kiln_s3_options options = options_of(&plain, "kiln");
        options.endpoint = endpoints[i];
        assert_int_equal(kiln_store_open_s3(&options, KILN_ROLE_READER, &store, NULL), KILN_E_INVAL);
    }
    for (size_t i = 0; i < COUNT(prefixes); i++) {
        struct kiln_s3_options options = options_of(&plain, prefixes[i]);
        assert_int_equal(kiln_store_open_s3(&options, KILN_ROLE_READER, &store, NULL), KILN_E_INVAL);
    }
    assert_null(store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(no_failed_read_becomes_a_success),
        cmocka_unit_test(a_silent_server_is_left_in_time),
        cmocka_unit_test(no_failed_put_becomes_a_success),
        cmocka_unit_test(what_has_an_effect_is_sent_once),
        cmocka_unit_test(requests_say_what_they_must_and_no_more),
        cmocka_unit_test(known_content_costs_no_request),
        cmocka_unit_test(versions_are_listed_page_by_page),
        cmocka_unit_test(a_pin_is_given_only_for_what_is_locked),
        cmocka_unit_test(the_probe_names_what_is_not_honoured),
        cmocka_unit_test(tls_is_verified),
        cmocka_unit_test(libs3_is_not_believed),
        cmocka_unit_test(libs3_verifies_tls),
    };
    return cmocka_run_group_tests(tests, start_stubs, stop_stubs);
}
