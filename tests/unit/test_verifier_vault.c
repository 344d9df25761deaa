// The vault: first result wins, what does not hold any more is put over, nothing unsigned or incomplete is found; and in a
// store with versions and bundles: who stands over a pointer, or hides it, changes nothing.
#include <sys/mman.h>
#include <unistd.h>

#include "lib/blob/bundle.h"
#include "tests/unit/verifier_rig.h"
#include "tests/unit/versioned_store.h"
#include "verifier/vault_content.h"

static const char artifact[] = "the artifact", other_artifact[] = "another artifact";

static void put_quarantine(const struct rig *rig, const char *key, const void *data, size_t len) {
    struct kiln_err err;
    assert_ok(kiln_store_put_bytes(rig->executor, KILN_SPACE_QUARANTINE, key, data, len, NULL, &err));
}

static struct kiln_output output_of(const void *data, size_t len) {
    struct kiln_output output = {.kind = KILN_OUTPUT_FILE, .name = TEXT("libdemo.rlib"), .size = len};
    kiln_digest_of(data, len, &output.digest);
    return output;
}

enum { NOW_MS = 1000 };

static void add_attestation(struct kiln_result *result) {
    struct kiln_err err;
    struct kiln_attestation attestation = {.executor = TEXT("e"), .pool = TEXT("p"), .backend = TEXT("b")};
    assert_ok(kiln_result_outputs_digest(result->outputs, result->outputs_count, &attestation.outputs, &err));
    assert_ok(kiln_result_add_attestation(result, &attestation, &err));
}

static void make_empty(const struct rig *rig, struct kiln_result *result) {
    *result = (struct kiln_result){.action = rig->action_digest, .scope = strdup("local"), .generation = 1,
                                   .outcome = KILN_OUTCOME_SUCCESS, .profile = strdup("bwrap-1"),
                                   .policy = strdup("agreement=1"), .bundle_pin = strdup("")};
}

// One artifact in quarantine, and the result over it.
static void make_result(const struct rig *rig, const char *key, const void *data, size_t len, struct kiln_result *result) {
    struct kiln_err err;
    const struct kiln_output output = output_of(data, len);
    put_quarantine(rig, key, data, len);
    make_empty(rig, result);
    assert_ok(kiln_result_add_output(result, output.kind, output.name, false, output.size, &output.digest, &err));
    add_attestation(result);
    assert_ok(kiln_result_finish(result, &err));
}

// Whether what is stored already differs; *issued_ms is that of what is stored then.
static bool publish(const struct rig *rig, uint64_t now_ms, struct kiln_result *result, const char *key, uint64_t *issued_ms) {
    struct kiln_err err;
    kiln_auto(kiln_vault_entry_release) struct kiln_vault_entry entry = {0};
    kiln_autoresult struct kiln_result stored = {0};
    char *keys[] = {TEXT(key)};
    const struct kiln_vault_source source = {.keys = keys};
    assert_ok(kiln_vault_store(&rig->vault, now_ms, result, &source, &entry, &err));
    assert_ok(kiln_result_open(entry.envelope.data, entry.envelope.len, rig->trust, &rig->action_digest, &stored, &err));
    assert_int_equal(stored.issued_ms, entry.result.issued_ms);
    *issued_ms = stored.issued_ms;
    return entry.diverges;
}

static bool make_and_publish(const struct rig *rig, uint64_t now_ms, const void *data, size_t len, uint64_t *issued_ms) {
    kiln_autoresult struct kiln_result result = {0};
    char key[64];
    snprintf(key, sizeof key, "out/e/%llu/1/a", (unsigned long long)now_ms);
    make_result(rig, key, data, len, &result);
    return publish(rig, now_ms, &result, key, issued_ms);
}

static int find(const struct rig *rig, uint64_t *issued_ms) {
    kiln_auto(kiln_vault_entry_release) struct kiln_vault_entry entry = {0};
    const struct kiln_vault_place place = {.scope = "local", .generation = 1, .now_ms = NOW_MS};
    int rc = kiln_vault_find(&rig->vault, &place, &rig->action_digest, &entry, NULL);
    if (rc == 0)
        *issued_ms = entry.result.issued_ms;
    else
        assert_int_equal(entry.envelope.len, 0);
    assert_false(entry.shadowed || entry.carried || entry.diverges);
    return rc;
}

static void first_result_wins(void **state) {
    struct rig *rig = *state;
    uint64_t issued;
    kiln_autoresult struct kiln_result local = {0};
    assert_int_equal(find(rig, &issued), KILN_E_NOTFOUND);
    assert_false(make_and_publish(rig, 100, artifact, sizeof artifact, &issued));
    assert_false(make_and_publish(rig, 200, artifact, sizeof artifact, &issued));
    assert_int_equal(issued, 100);
    assert_true(make_and_publish(rig, 300, other_artifact, sizeof other_artifact, &issued)); // a divergence; what is stored stays
    assert_int_equal(issued, 100);
    assert_int_equal(find(rig, &issued), 0);
    assert_int_equal(issued, 100);
    make_empty(rig, &local);
    local.outcome = KILN_OUTCOME_LOCAL;
    kiln_result_add_reason(&local, "clock: x", NULL);
    add_attestation(&local);
    assert_true(publish(rig, 400, &local, NULL, &issued));
    assert_int_equal(issued, 100);
}

static void damaged_pointer(void **state) {
    struct rig *rig = *state;
    uint64_t issued;
    make_and_publish(rig, 100, artifact, sizeof artifact, &issued);
    kiln_autofree char *key = kiln_key_result("local", 1, &rig->action_digest);
    rig_damage(rig, "vault", key);
    assert_int_equal(find(rig, &issued), KILN_E_CORRUPT);
    assert_false(make_and_publish(rig, 200, other_artifact, sizeof other_artifact, &issued));
    assert_int_equal(issued, 200);
    assert_int_equal(find(rig, &issued), 0);
}

static void damaged_content(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    uint64_t issued;
    make_and_publish(rig, 100, artifact, sizeof artifact, &issued);
    const struct kiln_output output = output_of(artifact, sizeof artifact);
    kiln_autofree char *key = kiln_key_content("blob", "local", &output.digest);
    rig_damage(rig, "vault", key);
    assert_int_equal(find(rig, &issued), KILN_E_CORRUPT);
    // The same bytes again mend the content, and the first pointer holds again.
    assert_false(make_and_publish(rig, 200, artifact, sizeof artifact, &issued));
    assert_int_equal(issued, 100);
    assert_int_equal(find(rig, &issued), 0);
    // Gone, and other bytes come: the pointer that does not hold is replaced.
    assert_ok(kiln_store_remove(rig->verifier, KILN_SPACE_VAULT, key, &err));
    assert_false(make_and_publish(rig, 300, other_artifact, sizeof other_artifact, &issued));
    assert_int_equal(issued, 300);
}

// A pointer that is well signed, and not for this place.
static void pointers_of_elsewhere(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    uint64_t issued;
    kiln_autofree char *key = kiln_key_result("local", 1, &rig->action_digest);
    make_and_publish(rig, 100, artifact, sizeof artifact, &issued);
    for (unsigned i = 0; i < 5; i++) {
        kiln_autoresult struct kiln_result result = {0};
        kiln_autobuf struct kiln_buf sealed = KILN_BUF_INIT(1 << 20);
        make_result(rig, "out/e/1/1/a", artifact, sizeof artifact, &result);
        struct kiln_sign_key *stranger = NULL;
        assert_ok(kiln_sign_key_load_or_make(rig->scratch->fd, "stranger", &stranger, &err));
        if (i == 0)
            result.generation = 2;
        if (i == 1)
            result.scope[0] = 'L';
        if (i == 2)
            result.action.bytes[0] ^= 1;
        assert_ok(kiln_result_seal(&result, i == 3 ? stranger : rig->key, &sealed, &err));
        kiln_sign_key_free(stranger);
        assert_ok(kiln_store_put_pointer(rig->verifier, key, sealed.data, sealed.len, true, &err));
        assert_int_equal(find(rig, &issued), i == 4 ? 0 : KILN_E_CORRUPT); // the last one is as it should be
    }
}

static int take(const struct rig *rig, const char *key, const struct kiln_output *output) {
    struct kiln_err err;
    kiln_auto(kiln_vault_entry_release) struct kiln_vault_entry entry = {0};
    kiln_autoresult struct kiln_result result = {0};
    char *keys[] = {TEXT(key)};
    const struct kiln_vault_source source = {.keys = keys};
    make_empty(rig, &result);
    assert_ok(kiln_result_add_output(&result, output->kind, output->name, false, output->size, &output->digest, &err));
    add_attestation(&result);
    return kiln_vault_store(&rig->vault, NOW_MS, &result, &source, &entry, &err);
}

static void takes_only_what_was_said(void **state) {
    struct rig *rig = *state;
    uint64_t issued;
    const struct kiln_output output = output_of(artifact, sizeof artifact);
    kiln_autofree char *key = kiln_key_content("blob", "local", &output.digest);
    assert_int_equal(take(rig, "out/e/1/1/none", &output), KILN_E_CORRUPT);
    put_quarantine(rig, "out/e/1/1/long", "the artifact+", 14);
    assert_int_equal(take(rig, "out/e/1/1/long", &output), KILN_E_CORRUPT);
    put_quarantine(rig, "out/e/1/1/short", artifact, sizeof artifact - 1);
    assert_int_equal(take(rig, "out/e/1/1/short", &output), KILN_E_CORRUPT);
    put_quarantine(rig, "out/e/1/1/other", "The artifact", sizeof artifact);
    assert_int_equal(take(rig, "out/e/1/1/other", &output), KILN_E_CORRUPT);
    put_quarantine(rig, "out/e/1/1/right", artifact, sizeof artifact);
    struct kiln_output larger = output;
    larger.size++; // the bytes are right, the size is not
    assert_int_equal(take(rig, "out/e/1/1/right", &larger), KILN_E_CORRUPT);
    assert_false(kiln_store_has(rig->verifier, KILN_SPACE_VAULT, key));
    assert_int_equal(find(rig, &issued), KILN_E_NOTFOUND);
    assert_int_equal(take(rig, "out/e/1/1/right", &output), 0);
    assert_int_equal(find(rig, &issued), 0);
}

// A store with versions. What readers would say of a result is up to the test.
struct bucket {
    struct rig *rig;
    struct kiln_vault vault;
    uint64_t generation;
    uint64_t revoked_from_ms; // results issued from then on do not hold; 0: all do
    char *pointer;            // key of the rig's action, generation 1
};

static int open_unless_revoked(void *context, const void *envelope, size_t len, const struct kiln_digest *action,
                               const char *scope, uint64_t generation, struct kiln_result *result, struct kiln_err *err) {
    const struct bucket *bucket = context;
    kiln_autoresult struct kiln_result opened = {0};
    int rc = kiln_vault_open_trusted(bucket->rig->trust, envelope, len, action, scope, generation, &opened, err);
    if (rc)
        return rc;
    if (bucket->revoked_from_ms && opened.issued_ms >= bucket->revoked_from_ms)
        return kiln_fail(err, KILN_E_CORRUPT, "revoked_executor: e");
    *result = opened;
    opened = (struct kiln_result){0};
    return 0;
}

static int bucket_setup(void **state) {
    struct bucket *bucket = calloc(1, sizeof *bucket);
    rig_setup((void **)&bucket->rig);
    bucket->vault = (struct kiln_vault){.store = versioned_new(), .key = bucket->rig->key, .open = open_unless_revoked,
                                        .context = bucket, .pointer_ms = 500, .content_ms = 2000};
    bucket->generation = 1;
    bucket->pointer = kiln_key_result("local", 1, &bucket->rig->action_digest);
    *state = bucket;
    return 0;
}

static int bucket_teardown(void **state) {
    struct bucket *bucket = *state;
    kiln_store_close(bucket->vault.store);
    rig_teardown((void **)&bucket->rig);
    free(bucket->pointer);
    free(bucket);
    return 0;
}

#define auto_entry kiln_auto(kiln_vault_entry_release) struct kiln_vault_entry
#define bucket_test(function) cmocka_unit_test_setup_teardown(function, bucket_setup, bucket_teardown)

// A bundle of three outputs, of which one is a library and two have the same bytes, under `key` in quarantine; and the result.
static void make_three(struct bucket *bucket, const char *key, const char *library, struct kiln_result *result) {
    struct kiln_err err;
    static const char *const names[] = {"demo-01.d", "libdemo-01.rlib", ""};
    const char *bytes[] = {"same", library, "same"};
    struct kiln_bundle_member members[3];
    kiln_autofd int bundle = memfd_create("bundle", MFD_CLOEXEC);
    struct kiln_digest digest;
    uint64_t size;
    make_empty(bucket->rig, result);
    for (unsigned i = 0; i < 3; i++) {
        members[i] = (struct kiln_bundle_member){.size = strlen(bytes[i]), .fd = memfd_create("member", MFD_CLOEXEC)};
        assert_int_equal(write(members[i].fd, bytes[i], strlen(bytes[i])), strlen(bytes[i]));
        kiln_digest_of(bytes[i], strlen(bytes[i]), &members[i].digest);
        assert_ok(kiln_result_add_output(result, i == 2 ? KILN_OUTPUT_STDERR : KILN_OUTPUT_FILE, names[i], false,
                                         members[i].size, &members[i].digest, &err));
    }
    assert_ok(kiln_bundle_write(members, 3, bundle, &digest, &size, &err));
    assert_ok(kiln_store_put_fd(bucket->vault.store, KILN_SPACE_QUARANTINE, key, bundle, size, &digest, &err));
    for (unsigned i = 0; i < 3; i++)
        close(members[i].fd);
    add_attestation(result);
}

static int fetch(struct bucket *bucket, const char *key, const struct kiln_result *result, struct kiln_harvest *harvest) {
    return kiln_harvest_fetch(bucket->vault.store, bucket->rig->scratch->fd, key, result, harvest, NULL);
}

static int store_three(struct bucket *bucket, uint64_t now_ms, const char *library, struct kiln_vault_entry *entry) {
    struct kiln_err err;
    kiln_autoresult struct kiln_result result = {0};
    kiln_auto(kiln_harvest_release) struct kiln_harvest harvest = {0};
    const struct kiln_vault_source source = {.harvest = &harvest};
    char key[64];
    snprintf(key, sizeof key, "out/e/%llu/1/bundle", (unsigned long long)now_ms);
    make_three(bucket, key, library, &result);
    assert_int_equal(fetch(bucket, key, &result, &harvest), 0);
    int rc = kiln_vault_store(&bucket->vault, now_ms, &result, &source, entry, &err);
    if (rc == 0 && !entry->diverges)
        assert_ok(kiln_vault_share(&bucket->vault, &result, &harvest, &err));
    return rc;
}

// Outputs that are not what was said of them are not taken, and what was fetched is what is stored.
static void takes_a_bundle_only_whole(void **state) {
    struct bucket *bucket = *state;
    struct kiln_err err;
    auto_entry entry = {0};
    kiln_auto(kiln_harvest_release) struct kiln_harvest harvest = {0};
    kiln_autoresult struct kiln_result result = {0};
    make_three(bucket, "out/e/1/1/bundle", "library", &result);
    assert_int_equal(fetch(bucket, "out/e/1/2/bundle", &result, &harvest), KILN_E_CORRUPT); // not uploaded
    result.outputs[1].size++;
    assert_int_equal(fetch(bucket, "out/e/1/1/bundle", &result, &harvest), KILN_E_CORRUPT);
    result.outputs[1].size = KILN_HARVEST_BYTES_MAX + 1;
    assert_int_equal(fetch(bucket, "out/e/1/1/bundle", &result, &harvest), KILN_E_LIMIT);
    result.outputs[1].size = strlen("library");
    result.outputs[1].digest.bytes[0] ^= 1;
    assert_int_equal(fetch(bucket, "out/e/1/1/bundle", &result, &harvest), KILN_E_CORRUPT);
    result.outputs[1].digest.bytes[0] ^= 1;
    assert_null(harvest.members);
    const struct kiln_vault_source nothing = {.harvest = &harvest};
    assert_int_equal(kiln_vault_store(&bucket->vault, 1000, &result, &nothing, &entry, &err), KILN_E_INTERNAL);
    assert_int_equal(fetch(bucket, "out/e/1/1/bundle", &result, &harvest), 0);
    // Whatever lies there now.
    assert_ok(kiln_store_put_bytes(bucket->vault.store, KILN_SPACE_QUARANTINE, "out/e/1/1/bundle", "other", 5, NULL, &err));
    const struct kiln_vault_source fetched = {.harvest = &harvest};
    assert_ok(kiln_vault_store(&bucket->vault, 1000, &result, &fetched, &entry, &err));
    kiln_autofd int bundle = -1;
    assert_ok(kiln_vault_read(&bucket->vault, &entry.result, &bundle, &err));
    assert_true(kiln_digest_equal(&entry.result.bundle, &harvest.digest));
}

static int look(struct bucket *bucket, uint64_t now_ms, struct kiln_vault_entry *entry) {
    const struct kiln_vault_place place = {.scope = "local", .generation = bucket->generation, .now_ms = now_ms};
    return kiln_vault_find(&bucket->vault, &place, &bucket->rig->action_digest, entry, NULL);
}

static struct version *bundle_of(struct bucket *bucket, const struct kiln_vault_entry *entry) {
    kiln_autofree char *key = kiln_key_content("bundle", "local", &entry->result.bundle);
    return versioned_newest(bucket->vault.store, KILN_SPACE_VAULT, key);
}

static void results_travel_as_bundles(void **state) {
    struct bucket *bucket = *state;
    auto_entry entry = {0}, found = {0};
    assert_int_equal(store_three(bucket, 1000, "library", &entry), 0);
    assert_int_equal(entry.result.expires_ms, 1500);
    assert_int_equal(versioned_newest(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer)->retain_until_ms, 1500);
    const struct version *bundle = bundle_of(bucket, &entry);
    assert_non_null(bundle);
    assert_int_equal(bundle->retain_until_ms, 3000);
    assert_int_equal(bundle->len, entry.result.bundle_size);
    assert_int_equal(entry.result.bundle_pin[0], 'v');
    // The library lies where dependants' jobs find their inputs; the rest does not.
    unsigned inputs = 0, vault = 0;
    const struct versioned *all = (const struct versioned *)bucket->vault.store;
    for (size_t i = 0; i < all->count; i++) {
        inputs += all->list[i].space == KILN_SPACE_INPUTS;
        vault += all->list[i].space == KILN_SPACE_VAULT;
    }
    assert_int_equal(inputs, 1);
    assert_int_equal(vault, 2); // bundle and pointer
    struct kiln_digest digest;
    kiln_digest_of("library", 7, &digest);
    kiln_autofree char *key = kiln_key_content("blob", "local", &digest);
    assert_true(kiln_store_has(bucket->vault.store, KILN_SPACE_INPUTS, key));
    assert_int_equal(look(bucket, 1100, &found), 0);
    assert_false(found.shadowed || found.carried);
    assert_int_equal(found.envelope.len, entry.envelope.len);
    assert_memory_equal(found.envelope.data, entry.envelope.data, found.envelope.len);
}

static void a_bundle_is_read_by_its_pin(void **state) {
    struct bucket *bucket = *state;
    auto_entry entry = {0}, found = {0};
    store_three(bucket, 1000, "library", &entry);
    kiln_autofree char *key = kiln_key_content("bundle", "local", &entry.result.bundle);
    versioned_add(bucket->vault.store, KILN_SPACE_VAULT, key, "evil", 4);
    versioned_hide(bucket->vault.store, key);
    assert_int_equal(look(bucket, 1100, &found), 0);
    size_t at = 0;
    versioned_next(bucket->vault.store, KILN_SPACE_VAULT, key, &at)->bytes[20] ^= 1; // a disk that lies
    auto_entry damaged = {0};
    assert_int_equal(look(bucket, 1100, &damaged), KILN_E_CORRUPT);
    assert_int_equal(damaged.envelope.len, 0);
}

static void assert_on_top(struct bucket *bucket, const struct kiln_vault_entry *entry) {
    const struct version *newest = versioned_newest(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer);
    assert_non_null(newest);
    assert_int_equal(newest->len, entry->envelope.len);
    assert_memory_equal(newest->bytes, entry->envelope.data, newest->len);
}

static void shadowed_pointers_are_put_right(void **state) {
    struct bucket *bucket = *state;
    auto_entry entry = {0};
    store_three(bucket, 1000, "library", &entry);
    for (unsigned i = 0; i < 4; i++) {
        auto_entry found = {0}, again = {0};
        if (i == 0 || i == 3)
            versioned_add(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer, "junk", 4);
        if (i == 1 || i == 3)
            versioned_hide(bucket->vault.store, bucket->pointer);
        if (i == 2) { // a good one with a bit turned
            struct version *forged = versioned_add(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer, entry.envelope.data,
                                                   entry.envelope.len);
            forged->bytes[forged->len / 2] ^= 1;
        }
        assert_int_equal(look(bucket, 1100, &found), 0);
        assert_true(found.shadowed);
        assert_int_equal(found.result.issued_ms, 1000);
        assert_on_top(bucket, &entry);
        assert_int_equal(look(bucket, 1100, &again), 0);
        assert_false(again.shadowed);
    }
    // Storing over a delete marker is no way to take the place of what is hidden.
    versioned_hide(bucket->vault.store, bucket->pointer);
    auto_entry later = {0};
    assert_int_equal(store_three(bucket, 1200, "another", &later), 0);
    assert_true(later.diverges && later.shadowed);
    assert_int_equal(later.result.issued_ms, 1000);
    assert_on_top(bucket, &entry);
}

// Valid versions of one key differ only when a verifier that was trusted for a while wrote one: the first one counts.
static void the_oldest_valid_version_wins(void **state) {
    struct bucket *bucket = *state;
    auto_entry entry = {0}, other = {0}, found = {0};
    versioned_add(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer, "junk before", 11);
    assert_int_equal(store_three(bucket, 1000, "library", &entry), 0); // over what does not hold
    assert_false(entry.shadowed || entry.diverges);
    struct kiln_vault elsewhere = bucket->vault;
    elsewhere.store = versioned_new();
    struct bucket second = *bucket;
    second.vault = elsewhere;
    assert_int_equal(store_three(&second, 1050, "another", &other), 0);
    kiln_store_close(elsewhere.store);
    versioned_add(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer, other.envelope.data, other.envelope.len);
    versioned_add(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer, "junk after", 10);
    assert_int_equal(look(bucket, 1100, &found), 0);
    assert_true(found.shadowed);
    assert_int_equal(found.result.issued_ms, 1000);
}

static void revoked_results_are_put_over(void **state) {
    struct bucket *bucket = *state;
    auto_entry entry = {0}, refused = {0}, none = {0}, fresh = {0};
    store_three(bucket, 1000, "library", &entry);
    bucket->revoked_from_ms = 900;
    assert_int_equal(look(bucket, 1100, &none), KILN_E_CORRUPT);
    // Nobody may use what would be signed now: it is not published.
    size_t before = ((struct versioned *)bucket->vault.store)->count, at = 0, pointers = 0;
    assert_int_equal(store_three(bucket, 1100, "another", &refused), KILN_E_CORRUPT);
    for (; versioned_next(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer, &at); pointers++)
        ;
    assert_int_equal(pointers, 1);
    assert_true(((struct versioned *)bucket->vault.store)->count > before); // the content is there, unnamed
    bucket->revoked_from_ms = 0;
    bucket->vault.pointer_ms = 0;
    assert_int_equal(look(bucket, 1100, &fresh), 0);
}

static void a_generation_is_carried_forward(void **state) {
    struct bucket *bucket = *state;
    auto_entry entry = {0}, carried = {0}, again = {0}, too_far = {0};
    store_three(bucket, 1000, "library", &entry);
    versioned_add(bucket->vault.store, KILN_SPACE_VAULT, bucket->pointer, "junk", 4); // also when it is shadowed there
    bucket->generation = 3;
    assert_int_equal(look(bucket, 1200, &too_far), KILN_E_NOTFOUND);
    bucket->generation = 2;
    assert_int_equal(look(bucket, 1400, &carried), 0);
    assert_true(carried.carried);
    assert_int_equal(carried.result.generation, 2);
    assert_int_equal(carried.result.issued_ms, 1400);
    assert_int_equal(carried.result.expires_ms, 1900);
    assert_int_equal(carried.result.outputs_count, 3);
    assert_int_equal(carried.result.attestations_count, 1);
    // Content is locked as long as that of a fresh result: the core names the version that is.
    assert_true(kiln_digest_equal(&carried.result.bundle, &entry.result.bundle));
    assert_string_not_equal(carried.result.bundle_pin, entry.result.bundle_pin);
    assert_int_equal(bundle_of(bucket, &carried)->retain_until_ms, 3400);
    kiln_autofree char *key = kiln_key_result("local", 2, &bucket->rig->action_digest);
    assert_int_equal(versioned_newest(bucket->vault.store, KILN_SPACE_VAULT, key)->retain_until_ms, 1900);
    assert_int_equal(look(bucket, 1450, &again), 0);
    assert_false(again.carried);
    assert_int_equal(again.result.issued_ms, 1400);
}

static void what_is_revoked_is_not_carried(void **state) {
    struct bucket *bucket = *state;
    auto_entry entry = {0}, none = {0}, neither = {0}, junk = {0};
    store_three(bucket, 1000, "library", &entry);
    kiln_autofree char *key = kiln_key_result("local", 2, &bucket->rig->action_digest);
    bucket->generation = 2;
    bucket->revoked_from_ms = 1000;
    assert_int_equal(look(bucket, 1400, &none), KILN_E_NOTFOUND);
    bucket->revoked_from_ms = 1300; // the old one holds, what would be signed now does not
    assert_int_equal(look(bucket, 1400, &neither), KILN_E_NOTFOUND);
    assert_false(kiln_store_has(bucket->vault.store, KILN_SPACE_VAULT, key));
    // Something invalid under the current generation is put over by what is carried.
    bucket->revoked_from_ms = 0;
    versioned_add(bucket->vault.store, KILN_SPACE_VAULT, key, "junk", 4);
    assert_int_equal(look(bucket, 1400, &junk), 0);
    assert_true(junk.carried);
    const struct version *newest = versioned_newest(bucket->vault.store, KILN_SPACE_VAULT, key);
    assert_int_equal(newest->len, junk.envelope.len);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        rig_test(first_result_wins),
        rig_test(damaged_pointer),
        rig_test(damaged_content),
        rig_test(pointers_of_elsewhere),
        rig_test(takes_only_what_was_said),
        bucket_test(takes_a_bundle_only_whole),
        bucket_test(results_travel_as_bundles),
        bucket_test(a_bundle_is_read_by_its_pin),
        bucket_test(shadowed_pointers_are_put_right),
        bucket_test(the_oldest_valid_version_wins),
        bucket_test(revoked_results_are_put_over),
        bucket_test(a_generation_is_carried_forward),
        bucket_test(what_is_revoked_is_not_carried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
