// The keeper against a store that lies: each attack is refused by its name, and the last good record stays until it expires.
#include "tests/unit/trust_rig.h"

#include <pthread.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/blob/store_ops.h"
#include "lib/core/public_list.h"
#include "lib/fleet/keeper.h"

static const char *const roots[] = {"root-1", "root-2", "root-3"};
static uint64_t now_ms; // of the tests' clock
static uint64_t clock_now(void) { return __atomic_load_n(&now_ms, __ATOMIC_SEQ_CST); }
static void set_clock(uint64_t to) { __atomic_store_n(&now_ms, to, __ATOMIC_SEQ_CST); }

struct world {
    struct scratch *scratch;
    struct kiln_store *store;
    struct kiln_keeper *keeper;
    uint8_t roots[3][KILN_PUBLIC_KEY_BYTES];
    uint64_t refresh_ms, least_version;
};

static void open_keeper(struct world *world) {
    struct kiln_err err = {0};
    struct kiln_keeper_options options = {.store = world->store,
                                          .dir = scratch_path(world->scratch, "kept"),
                                          .roots = (const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])world->roots,
                                          .roots_count = 3,
                                          .threshold = 2,
                                          .refresh_ms = world->refresh_ms ? world->refresh_ms : 3600000,
                                          .least_version = world->least_version,
                                          .wall_ms = clock_now};
    assert_ok(kiln_keeper_open(&options, &world->keeper, &err));
}

static void reopen_keeper(struct world *world) {
    kiln_keeper_close(world->keeper);
    open_keeper(world);
}

static void world_open(struct world *world, struct scratch *scratch) {
    struct kiln_err err = {0};
    *world = (struct world){.scratch = scratch};
    set_clock(RIG_NOW);
    for (size_t i = 0; i < 3; i++)
        rig_public(scratch, roots[i], world->roots[i]);
    assert_ok(kiln_store_open_dir(scratch_path(scratch, "store"), KILN_ROLE_VERIFIER, &world->store, &err));
}

static void world_close(struct world *world) {
    kiln_keeper_close(world->keeper);
    kiln_store_close(world->store);
}

static void put(struct world *world, const char *key, const struct kiln_buf *bytes) {
    struct kiln_err err = {0};
    assert_ok(kiln_store_put_pointer(world->store, key, bytes->data, bytes->len, true, &err));
}

static void publish(struct world *world, struct kiln_trust_record *record) {
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    kiln_trust_record_sort(record);
    rig_sign(world->scratch, record, roots, 2, &envelope);
    put(world, "trust/record", &envelope);
}

static void publish_version(struct world *world, uint64_t version, uint64_t generation) {
    kiln_autotrust_record struct kiln_trust_record record = {0};
    rig_record(world->scratch, &record);
    record.version = version;
    record.generation = generation;
    publish(world, &record);
}

#define assert_refused(call, code, word)                                                                               \
    do {                                                                                                               \
        struct kiln_err refused_ = {0};                                                                                \
        struct kiln_err *err_ = &refused_;                                                                             \
        int refused_rc_ = (call);                                                                                      \
        if (refused_rc_ != (code) || strncmp(refused_.text, word ":", strlen(word) + 1) != 0)                          \
            fail_msg("%s: %d \"%s\" instead of \"%s:\"", #call, refused_rc_, refused_.text, word);                     \
    } while (0)

static void without_a_record_nothing_is_valid(void **state) {
    struct world world;
    world_open(&world, *state);
    open_keeper(&world);
    struct kiln_principal found;
    assert_refused(kiln_keeper_valid(world.keeper, err_), KILN_E_DENIED, "trust_missing");
    assert_false(kiln_keeper_find(world.keeper, "agent-1", &found));
    assert_int_equal(kiln_keeper_generation(world.keeper), 0);
    publish_version(&world, 7, 3);
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0);
    assert_true(kiln_keeper_find(world.keeper, "agent-1", &found));
    assert_string_equal(found.tenant, "blue");
    assert_false(kiln_keeper_find(world.keeper, "agent-2", &found));
    assert_int_equal(kiln_keeper_generation(world.keeper), 3);
    world_close(&world);
}

static void a_forged_record_is_refused(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    open_keeper(&world);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    kiln_autobuf struct kiln_buf alone = KILN_BUF_INIT(1 << 20), strange = KILN_BUF_INIT(1 << 20), cut = KILN_BUF_INIT(64);
    rig_record(world.scratch, &record);
    record.version = 8;
    record.generation = 9;
    rig_sign(world.scratch, &record, roots, 1, &alone); // one root of the two that are needed
    put(&world, "trust/record", &alone);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "trust_forged");
    const char *const strangers[] = {"stranger-1", "stranger-2", "stranger-3"};
    rig_sign(world.scratch, &record, strangers, 3, &strange);
    put(&world, "trust/record", &strange);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "trust_forged");
    kiln_buf_add_str(&cut, "kiln-trust-signed-1");
    put(&world, "trust/record", &cut);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "trust_forged");
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0); // the last good one
    assert_int_equal(kiln_keeper_generation(world.keeper), 3);
    set_clock(RIG_NOW + 3600000); // until it expires
    assert_refused(kiln_keeper_valid(world.keeper, err_), KILN_E_DENIED, "trust_forged");
    world_close(&world);
}

static void a_rolled_back_record_is_refused_also_after_a_restart(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 8, 4);
    open_keeper(&world);
    assert_int_equal(kiln_keeper_generation(world.keeper), 4);
    publish_version(&world, 7, 3);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "trust_rolled_back");
    assert_int_equal(kiln_keeper_generation(world.keeper), 4);
    reopen_keeper(&world);
    struct kiln_keeper_status status;
    kiln_keeper_status(world.keeper, &status);
    assert_int_equal(status.version, 8); // from the disk
    assert_int_equal(status.generation, 4);
    assert_non_null(strstr(status.trust_refusal, "trust_rolled_back: version 7, but version 8 was seen"));
    kiln_keeper_close(world.keeper);
    set_clock(RIG_NOW + 3600000); // the kept one has expired, and still says what was seen
    kiln_autotrust_record struct kiln_trust_record old = {0};
    rig_record(world.scratch, &old);
    old.expires_ms += 7200000;
    publish(&world, &old);
    open_keeper(&world);
    assert_refused(kiln_keeper_valid(world.keeper, err_), KILN_E_DENIED, "trust_rolled_back");
    assert_int_equal(kiln_keeper_generation(world.keeper), 0);
    world_close(&world);
}

// A machine that has seen no record takes an old one for the newest, unless its configuration says which there is at least.
static void an_old_record_is_refused_by_who_has_seen_none(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    world.least_version = 8;
    open_keeper(&world);
    assert_refused(kiln_keeper_valid(world.keeper, err_), KILN_E_DENIED, "trust_rolled_back");
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "trust_rolled_back");
    publish_version(&world, 8, 3);
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0);
    world.least_version = 9; // also what was kept
    reopen_keeper(&world);
    assert_refused(kiln_keeper_valid(world.keeper, err_), KILN_E_DENIED, "trust_rolled_back");
    world.least_version = 0;
    reopen_keeper(&world);
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0);
    world_close(&world);
}

static void two_records_of_one_version_are_refused(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    open_keeper(&world);
    publish_version(&world, 7, 4);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "trust_forked");
    assert_int_equal(kiln_keeper_generation(world.keeper), 3);
    kiln_autotrust_record struct kiln_trust_record record = {0}; // one more signature is no fork
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    rig_record(world.scratch, &record);
    rig_sign(world.scratch, &record, roots, 3, &envelope);
    put(&world, "trust/record", &envelope);
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    world_close(&world);
}

static void a_frozen_record_ends_by_the_clock(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    open_keeper(&world);
    struct kiln_principal found;
    set_clock(RIG_NOW + 3599999);
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0);
    set_clock(RIG_NOW + 3600000);
    assert_refused(kiln_keeper_valid(world.keeper, err_), KILN_E_DENIED, "trust_expired"); // before any refresh
    assert_false(kiln_keeper_find(world.keeper, "agent-1", &found));
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "trust_expired");
    reopen_keeper(&world); // the store still has it
    assert_refused(kiln_keeper_valid(world.keeper, err_), KILN_E_DENIED, "trust_expired");
    set_clock(RIG_NOW + 1000); // a clock that is set back does not make it younger than it is
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    world_close(&world);
}

static void a_record_from_the_future_is_refused(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    open_keeper(&world);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    rig_record(world.scratch, &record);
    record.version = 8;
    record.generation = 4;
    record.issued_ms = RIG_NOW + 300001;
    record.expires_ms = record.issued_ms + 1000;
    publish(&world, &record);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "trust_from_future");
    assert_int_equal(kiln_keeper_generation(world.keeper), 3);
    set_clock(RIG_NOW + 1);
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    assert_int_equal(kiln_keeper_generation(world.keeper), 4);
    world_close(&world);
}

static void the_last_good_record_outlives_the_store(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    open_keeper(&world);
    struct kiln_err err = {0};
    assert_ok(kiln_store_remove(world.store, KILN_SPACE_VAULT, "trust/record", &err));
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_NOTFOUND, "trust_missing");
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0);
    reopen_keeper(&world);
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0);
    assert_int_equal(kiln_keeper_generation(world.keeper), 3);
    world_close(&world);
}

static void what_is_kept_is_verified(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    open_keeper(&world);
    kiln_keeper_close(world.keeper);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    kiln_autobuf struct kiln_buf forged = KILN_BUF_INIT(1 << 20);
    rig_record(world.scratch, &record);
    record.version = 99;
    const char *const strangers[] = {"stranger-1", "stranger-2"};
    rig_sign(world.scratch, &record, strangers, 2, &forged);
    scratch_write(world.scratch, "kept/trust-record", forged.data, forged.len);
    struct kiln_err err = {0};
    assert_ok(kiln_store_remove(world.store, KILN_SPACE_VAULT, "trust/record", &err));
    open_keeper(&world);
    assert_refused(kiln_keeper_valid(world.keeper, err_), KILN_E_DENIED, "trust_missing");
    publish_version(&world, 7, 3); // nor does it lock the fleet out
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    assert_int_equal(kiln_keeper_generation(world.keeper), 3);
    world_close(&world);
}

static void publish_list(struct world *world, uint64_t version, uint64_t expires_ms, const char *package,
                         const struct kiln_digest *tree, const char *const *by) {
    struct kiln_err err = {0};
    kiln_autopublic_list struct kiln_public_list list = {
        .version = version, .issued_ms = RIG_NOW - 1000, .expires_ms = expires_ms};
    assert_ok(kiln_public_list_add(&list, package, tree, tree, &err));
    assert_ok(kiln_public_list_finish(&list, &err));
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    struct kiln_sign_key *keys[2] = {0};
    for (size_t i = 0; i < 2; i++)
        keys[i] = rig_key(world->scratch, by[i]);
    assert_ok(kiln_public_list_sign(&list, (const struct kiln_sign_key *const *)keys, 2, &envelope, &err));
    for (size_t i = 0; i < 2; i++)
        kiln_sign_key_free(keys[i]);
    put(world, "trust/public", &envelope);
}

static void the_list_of_public_packages_is_held_to_the_same(void **state) {
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    const struct kiln_digest tree = {{1}}, other = {{2}};
    open_keeper(&world);
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0); // a fleet need not have one
    assert_false(kiln_keeper_is_public(world.keeper, "serde-1.0.0", &tree));
    publish_list(&world, 2, RIG_NOW + 1000, "serde-1.0.0", &tree, roots);
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    assert_true(kiln_keeper_is_public(world.keeper, "serde-1.0.0", &tree));
    assert_false(kiln_keeper_is_public(world.keeper, "serde-1.0.0", &other));
    assert_false(kiln_keeper_is_public(world.keeper, "serde-1.0.1", &tree));
    const char *const strangers[] = {"stranger-1", "root-1"};
    publish_list(&world, 3, RIG_NOW + 1000, "evil-1.0.0", &tree, strangers);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "public_forged");
    publish_list(&world, 1, RIG_NOW + 1000, "evil-1.0.0", &tree, roots);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "public_rolled_back");
    reopen_keeper(&world);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_DENIED, "public_rolled_back");
    assert_false(kiln_keeper_is_public(world.keeper, "evil-1.0.0", &tree));
    assert_true(kiln_keeper_is_public(world.keeper, "serde-1.0.0", &tree));
    set_clock(RIG_NOW + 1000);
    assert_false(kiln_keeper_is_public(world.keeper, "serde-1.0.0", &tree)); // frozen
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0);
    publish_list(&world, 4, RIG_NOW + 90000000, "serde-1.0.0", &tree, roots);
    assert_int_equal(kiln_keeper_refresh(world.keeper, NULL), 0);
    assert_true(kiln_keeper_is_public(world.keeper, "serde-1.0.0", &tree));
    set_clock(RIG_NOW + 3600000); // without a record in force nothing is public either
    assert_false(kiln_keeper_is_public(world.keeper, "serde-1.0.0", &tree));
    world_close(&world);
}

static void roots_that_make_no_sense(void **state) {
    struct world world;
    world_open(&world, *state);
    const size_t counts[][2] = {{0, 1}, {3, 0}, {1, 2}, {17, 2}};
    for (size_t i = 0; i < 4; i++) {
        struct kiln_keeper_options options = {.store = world.store,
                                              .dir = scratch_path(world.scratch, "kept"),
                                              .roots = (const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])world.roots,
                                              .roots_count = counts[i][0],
                                              .threshold = counts[i][1]};
        assert_int_equal(kiln_keeper_open(&options, &world.keeper, NULL), KILN_E_INVAL);
    }
    assert_null(world.keeper);
    world_close(&world);
}

static void wait_for_generation(struct kiln_keeper *keeper, uint64_t generation) {
    uint64_t deadline = kiln_clock_ms() + 10000;
    while (kiln_keeper_generation(keeper) != generation) {
        if (kiln_clock_ms() > deadline)
            fail_msg("generation %llu did not come", (unsigned long long)generation);
        sched_yield();
    }
}

static void it_refreshes_by_itself_and_stops_at_once(void **state) {
    struct world world;
    world_open(&world, *state);
    world.refresh_ms = 20;
    publish_version(&world, 7, 3);
    open_keeper(&world);
    assert_int_equal(kiln_keeper_generation(world.keeper), 3);
    publish_version(&world, 8, 4);
    wait_for_generation(world.keeper, 4);
    world.refresh_ms = 0;
    reopen_keeper(&world);
    uint64_t before = kiln_clock_ms();
    world_close(&world); // an hour before the next refresh
    assert_true(kiln_clock_ms() - before < 2000);
}

// A store that does not answer until it is told to.
struct stuck_store {
    struct kiln_store store;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool asked, answer;
};

static int stuck_read(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_buf *out,
                      struct kiln_err *err) {
    (void)space, (void)out;
    struct stuck_store *stuck = (struct stuck_store *)store;
    pthread_mutex_lock(&stuck->lock);
    stuck->asked = true;
    pthread_cond_broadcast(&stuck->changed);
    while (!stuck->answer)
        pthread_cond_wait(&stuck->changed, &stuck->lock);
    pthread_mutex_unlock(&stuck->lock);
    return kiln_fail(err, KILN_E_IO, "no answer for %s", key);
}

static void a_store_that_hangs_does_not_hold_up_the_start(void **state) {
    static const struct kiln_store_ops ops = {.read = stuck_read};
    struct stuck_store stuck = {.store = {.ops = &ops, .role = KILN_ROLE_READER},
                                .lock = PTHREAD_MUTEX_INITIALIZER,
                                .changed = PTHREAD_COND_INITIALIZER};
    struct world world;
    world_open(&world, *state);
    publish_version(&world, 7, 3);
    open_keeper(&world);
    kiln_keeper_close(world.keeper);
    struct kiln_store *good = world.store;
    world.store = &stuck.store;
    uint64_t before = kiln_clock_ms();
    open_keeper(&world);
    assert_true(kiln_clock_ms() - before < 8000);
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0); // what was kept is in force meanwhile
    pthread_mutex_lock(&stuck.lock);
    assert_true(stuck.asked);
    stuck.answer = true;
    pthread_cond_broadcast(&stuck.changed);
    pthread_mutex_unlock(&stuck.lock);
    assert_refused(kiln_keeper_refresh(world.keeper, err_), KILN_E_IO, "trust_unreachable");
    assert_int_equal(kiln_keeper_valid(world.keeper, NULL), 0);
    world.store = good;
    world_close(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(without_a_record_nothing_is_valid),
        scratch_test(a_forged_record_is_refused),
        scratch_test(a_rolled_back_record_is_refused_also_after_a_restart),
        scratch_test(an_old_record_is_refused_by_who_has_seen_none),
        scratch_test(two_records_of_one_version_are_refused),
        scratch_test(a_frozen_record_ends_by_the_clock),
        scratch_test(a_record_from_the_future_is_refused),
        scratch_test(the_last_good_record_outlives_the_store),
        scratch_test(what_is_kept_is_verified),
        scratch_test(the_list_of_public_packages_is_held_to_the_same),
        scratch_test(roots_that_make_no_sense),
        scratch_test(it_refreshes_by_itself_and_stops_at_once),
        scratch_test(a_store_that_hangs_does_not_hold_up_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
