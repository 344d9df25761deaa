// Each line of what a fleet's verifier refuses, attacked: the refusal has its name, in the answer and in an event; nothing is
// remembered of it; and the honest one who comes next gets its result.
#include "tests/unit/docket_rig.h"

static void honest_build(struct world *world) {
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    world_submission(world, "agent-2", 77, "blue", &record);
    world_submit(world, "agent-2", &record);
    world_expect(world, "agent-2", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-2", &record);
    world_credit(world, "executor-2");
    world_work(world, "executor-2", "an rlib");
    world_expect_result(world, "agent-2", "blue", &result);
    kiln_job_submitted_release(&record);
}

static void lie_tenant(struct kiln_job_submitted *r) { world_set(&r->tenant, "red"); }
static void lie_agent(struct kiln_job_submitted *r) { world_set(&r->agent, "agent-2"); }
static void lie_partition(struct kiln_job_submitted *r) { r->waiter_partition = (r->waiter_partition + 1) % PARTITIONS; }
static void lie_scope(struct kiln_job_submitted *r) { world_set(&r->scope, "red"); }
static void lie_public(struct kiln_job_submitted *r) { world_set(&r->scope, "public"); }
static void lie_digest(struct kiln_job_submitted *r) { r->action_digest.bytes[20] ^= 1; }
static void lie_action(struct kiln_job_submitted *r) { r->action[r->action_len - 1] ^= 1; }
static void lie_content(struct kiln_job_submitted *r) { r->contents[0].digest.bytes[0] ^= 1; }
static void lie_more(struct kiln_job_submitted *r) { r->contents[2].kind = KILN_CONTENT_PACK; }

static void refuses_a_lying_submission(void **state) {
    static const struct {
        void (*lie)(struct kiln_job_submitted *record);
        const char *word;
    } cases[] = {{lie_tenant, "wrong_tenant"}, {lie_agent, "wrong_agent"},    {lie_partition, "wrong_partition"},
                 {lie_scope, "scope"},         {lie_public, "scope"},         {lie_digest, "action_digest"},
                 {lie_action, "action_digest"}, {lie_content, "contents"},    {lie_more, "contents"}};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_job_submitted record;
        world_submission(world, "agent-1", (unsigned char)(i + 1), "blue", &record);
        cases[i].lie(&record);
        size_t before = world_events(world, cases[i].word, NULL);
        world_submit(world, "agent-1", &record);
        world_expect(world, "agent-1", KILN_ANSWER_REJECTED, cases[i].word); // in its own mailbox, whatever it said
        if (world_events(world, cases[i].word, NULL) != before + 1)
            fail_msg("case %zu: no event %s", i, cases[i].word);
        world_expect_event(world, cases[i].word, "agent-1");
        assert_int_equal(world_state(world), 0);
        assert_int_equal(kiln_docket_flights(world->docket), 0);
        kiln_job_submitted_release(&record);
    }
    honest_build(world);
}

// Nobody else hears of what was refused.
static void answers_go_to_the_author_only(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world_submission(world, "agent-3", 1, "red", &record);
    const struct kiln_author author = world_author(world, "agent-1");
    world_submit_as(world, &author, world_partition(world, &record.action_digest), &record); // agent-3's own words
    world_expect(world, "agent-1", KILN_ANSWER_REJECTED, "wrong_tenant");
    for (size_t i = 0; i < world->bus->count; i++)
        assert_string_not_equal(world->bus->sent[i].tenant, "red");
    kiln_job_submitted_release(&record);
}

static void refuses_a_role_that_does_not_submit(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world_submission(world, "agent-1", 1, "blue", &record);
    const struct kiln_author author = world_author(world, "executor-1");
    world_submit_as(world, &author, world_partition(world, &record.action_digest), &record);
    world_expect_event(world, "wrong_role", "executor-1");
    assert_int_equal(world_state(world), 0);
    kiln_job_submitted_release(&record);
    honest_build(world);
}

static void refuses_an_action_in_another_partition(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world_submission(world, "agent-1", 1, "blue", &record);
    const struct kiln_author author = world_author(world, "agent-1");
    world_submit_as(world, &author, (world_partition(world, &record.action_digest) + 1) % PARTITIONS, &record);
    world_expect(world, "agent-1", KILN_ANSWER_REJECTED, "misplaced");
    world_expect_event(world, "misplaced", "agent-1");
    assert_int_equal(world_state(world), 0);
    kiln_job_submitted_release(&record);
    honest_build(world);
}

// Another agent of the tenant knows the job's id: it can neither take its place, nor cancel it, nor speak of its upload.
static void refuses_to_speak_of_anothers_job(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record, other;
    kiln_autoresult struct kiln_result result = {0};
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_submission(world, "agent-2", 1, "blue", &other);
    world_submit(world, "agent-2", &other);
    world_expect(world, "agent-2", KILN_ANSWER_REJECTED, "job_taken");
    world_expect_event(world, "job_taken", "agent-2");
    world_cancel(world, "agent-2", &record);
    world_expect_event(world, "wrong_agent", "agent-2");
    assert_int_equal(kiln_docket_flights(world->docket), 1);
    size_t before = world_events(world, "wrong_agent", NULL);
    world_announce(world, "agent-2", &record); // nothing is there: it would be refused in agent-1's name
    assert_int_equal(world_events(world, "wrong_agent", NULL), before + 1);
    assert_int_equal(world_events(world, "not_uploaded", NULL), 0);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    world_work(world, "executor-1", "an rlib");
    world_expect_result(world, "agent-1", "blue", &result);
    kiln_job_submitted_release(&record);
    kiln_job_submitted_release(&other);
}

// The same id in another tenant's flight of the same action would share its place in the state.
static void refuses_anothers_job_id_in_another_scope(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record, other;
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_submission(world, "agent-3", 1, "red", &other);
    world_submit(world, "agent-3", &other);
    world_expect(world, "agent-3", KILN_ANSWER_REJECTED, "job_taken");
    assert_int_equal(world_state(world), 1);
    kiln_job_submitted_release(&record);
    kiln_job_submitted_release(&other);
}

static void refuses_other_bytes_than_named(void **state) {
    (void)state;
    for (unsigned char which = 0; which <= RIG_CONTENTS; which++) {
        struct world *world;
        struct kiln_job_submitted record;
        world_setup((void **)&world);
        world_submission(world, "agent-1", (unsigned char)(which + 1), "blue", &record);
        world_submit(world, "agent-1", &record);
        world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
        if (which < RIG_CONTENTS) {
            rig_upload_all(world->rig, &record);
            kiln_autofree char *lie = malloc(record.contents[which].size);
            memset(lie, 'x', record.contents[which].size);
            rig_put_upload(world->rig, &record, &record.contents[which], lie, record.contents[which].size);
        }
        world_announce(world, "agent-1", &record);
        world_expect(world, "agent-1", KILN_ANSWER_REJECTED, which < RIG_CONTENTS ? "contents: " : "not_uploaded: ");
        world_expect_event(world, which < RIG_CONTENTS ? "contents" : "not_uploaded", "agent-1");
        assert_int_equal(world_state(world), 0);
        kiln_job_submitted_release(&record);
        if (which == 1)
            honest_build(world);
        world_teardown((void **)&world);
    }
}

static void make_public(struct world *world) {
    struct kiln_err err = {0};
    world_publish_list(world);
    const struct kiln_digest *parts[] = {&world->rig->action.toolchain_runtime, &world->rig->action.toolchain_rustc};
    for (size_t i = 0; i < 2; i++) {
        char hex[KILN_DIGEST_HEX_LEN + 1], key[128];
        kiln_digest_format(parts[i], hex);
        snprintf(key, sizeof key, "toolchain/%s", hex);
        assert_ok(kiln_store_put_bytes(world->rig->verifier, KILN_SPACE_VAULT, key, "part", 4, NULL, &err));
    }
}

static void put_public_libraries(struct world *world) {
    struct kiln_err err = {0};
    for (size_t i = 0; i < 2; i++) {
        kiln_autofree char *key = kiln_key_content("blob", "public", &world->rig->contents[2 + i].digest);
        assert_ok(kiln_store_put_bytes(world->rig->verifier, KILN_SPACE_INPUTS, key, rig_libraries[i][1],
                                       strlen(rig_libraries[i][1]), NULL, &err));
    }
}

static void takes_a_public_job(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0}, other = {0};
    make_public(world);
    put_public_libraries(world);
    world_submission(world, "agent-1", 1, "public", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    world_work(world, "executor-1", "an rlib");
    world_expect_result(world, "agent-1", "public", &result);
    kiln_job_submitted_release(&record);
    world_submission(world, "agent-3", 2, "public", &record); // another tenant: a hit
    world_submit(world, "agent-3", &record);
    world_expect_result(world, "agent-3", "public", &other);
    assert_int_equal(world_ledger(world, "dispatched"), 1);
    kiln_job_submitted_release(&record);
}

// The package is listed, a library is not public: neither a claim nor an upload makes it so.
static void a_private_library_does_not_become_public(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    make_public(world);
    world_submission(world, "agent-1", 1, "public", &record);
    world_submit(world, "agent-1", &record); // its list is not known yet
    world_expect(world, "agent-1", KILN_ANSWER_REJECTED, "scope: ");
    world_expect_event(world, "scope", "agent-1");
    for (size_t i = 0; i < 2; i++) {
        kiln_autofree char *key = kiln_key_content("blob", "public", &world->rig->contents[2 + i].digest);
        assert_false(kiln_store_has(world->rig->verifier, KILN_SPACE_INPUTS, key));
    }
    kiln_job_submitted_release(&record);
    honest_build(world);
}

// As above, with a submission that does not name what its list holds: the list itself must not become public.
static void a_list_does_not_become_public_before_its_members(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    make_public(world);
    world_submission(world, "agent-1", 1, "public", &record);
    record.contents_count = 2; // package and list
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    kiln_autofree char *list = kiln_key_content("list", "public", &world->rig->contents[1].digest);
    world_upload(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_REJECTED, "scope: ");
    assert_false(kiln_store_has(world->rig->verifier, KILN_SPACE_INPUTS, list));
    kiln_job_submitted_release(&record);
}

static void an_unpublished_toolchain_is_not_public(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world_publish_list(world);
    put_public_libraries(world);
    world_submission(world, "agent-1", 1, "public", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_REJECTED, "scope: the runtime part");
    kiln_job_submitted_release(&record);
}

// executor-2 knows all about executor-1's run, and speaks for it.
static void refuses_another_executors_words(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    struct kiln_candidate candidate;
    kiln_autoresult struct kiln_result result = {0};
    const struct kiln_author one = world_author(world, "executor-1"), two = world_author(world, "executor-2"),
                             agent = world_author(world, "agent-1");
    world_credit_as(world, &two, one.principal, one.pool, &one.incarnation);
    world_expect_event(world, "wrong_executor", "executor-2");
    world_credit_as(world, &two, two.principal, two.pool, &one.incarnation);
    world_expect_event(world, "wrong_incarnation", "executor-2");
    world_credit_as(world, &two, two.principal, "a", &two.incarnation);
    world_expect_event(world, "wrong_pool", "executor-2");
    world_credit_as(world, &agent, one.principal, one.pool, &one.incarnation);
    world_expect_event(world, "wrong_role", "agent-1");
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", &record);
    assert_int_equal(world_works(world, &work), 0); // none of those credits counts
    world_credit(world, "executor-1");
    assert_int_equal(world_works(world, &work), 1);

    world_candidate(world, "executor-1", &work, "a trap", &candidate);
    size_t before = world_events(world, "wrong_executor", NULL);
    world_deliver(world, "executor-2", &candidate); // in executor-1's name
    assert_int_equal(world_events(world, "wrong_executor", NULL), before + 1);
    kiln_candidate_release(&candidate);
    world_candidate(world, "executor-2", &work, "a trap", &candidate);
    world_deliver(world, "executor-2", &candidate); // in its own, for a run that is another's
    world_expect_event(world, "not_dispatched", "executor-2");
    kiln_candidate_release(&candidate);
    assert_int_equal(world_ledger(world, "judged"), 0);

    struct kiln_err err = {0};
    const struct kiln_decline decline = {.job = work.job, .incarnation = one.incarnation, .credit = work.credit,
                                         .attempt = work.attempt};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_decline_encode(&decline, &bytes, &err));
    before = world_events(world, "wrong_incarnation", NULL);
    world_feed(world, KILN_TOPIC_LEASES, 0, &two, &bytes);
    const struct kiln_lease lease = {.job = work.job, .incarnation = one.incarnation, .attempt = work.attempt};
    kiln_buf_reset(&bytes);
    assert_ok(kiln_lease_encode(&lease, &bytes, &err));
    world_feed(world, KILN_TOPIC_LEASES, 0, &two, &bytes);
    assert_int_equal(world_events(world, "wrong_incarnation", NULL), before + 2);
    world_work(world, "executor-1", "an rlib");
    world_expect_result(world, "agent-1", "blue", &result);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

static void forge_signature(struct kiln_candidate *c) { c->signature.bytes[3] ^= 1; }
static void swap_outputs(struct kiln_candidate *c) {
    struct kiln_digest first = c->outputs[0].digest;
    uint64_t size = c->outputs[0].size;
    c->outputs[0].digest = c->outputs[1].digest;
    c->outputs[0].size = c->outputs[1].size;
    c->outputs[1].digest = first;
    c->outputs[1].size = size;
}

// What it signed is not what it says: no result, and the next one is right.
static void refuses_a_false_attestation(void **state) {
    static void (*const lies[])(struct kiln_candidate *candidate) = {forge_signature, swap_outputs};
    struct world *world = *state;
    for (unsigned char i = 0; i < 2; i++) {
        struct kiln_job_submitted record;
        struct kiln_work work = {0};
        struct kiln_candidate candidate;
        kiln_autoresult struct kiln_result result = {0};
        unsigned char *name = memmem(world->rig->action_bytes.data, world->rig->action_bytes.len, "demo-1.0.", 9);
        name[9] = (unsigned char)('a' + i); // another action each time
        kiln_digest_of(world->rig->action_bytes.data, world->rig->action_bytes.len, &world->rig->action_digest);
        world_submission(world, "agent-1", (unsigned char)(i + 1), "blue", &record);
        world_submit(world, "agent-1", &record);
        if (i == 0) {
            world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
            world_upload(world, "agent-1", &record);
        }
        world_credit(world, "executor-1");
        assert_true(world_works(world, &work) > 0);
        world_candidate(world, "executor-1", &work, "an rlib", &candidate);
        lies[i](&candidate);
        world_deliver(world, "executor-1", &candidate);
        world_expect_event(world, "attestation", "executor-1");
        assert_int_equal(world_ledger(world, "stored"), i);
        world_credit(world, "executor-2");
        world_work(world, "executor-2", "an rlib");
        world_expect_result(world, "agent-1", "blue", &result);
        assert_string_equal(result.attestations[0].executor, "executor-2");
        kiln_candidate_release(&candidate);
        kiln_work_release(&work);
        kiln_job_submitted_release(&record);
    }
}

static size_t dead_letters(const struct world *world, const char *reason, uint64_t offset) {
    size_t found = 0;
    for (size_t i = 0; i < world->bus->count; i++) {
        const struct kiln_record *record = &world->bus->sent[i].record;
        struct kiln_dead_letter letter = {0};
        if (record->topic != KILN_TOPIC_DLQ)
            continue;
        assert_int_equal(kiln_dead_letter_decode(record->value, record->value_len, &letter, NULL), 0);
        found += strncmp(letter.reason, reason, strlen(reason)) == 0 && letter.offset == offset;
        kiln_dead_letter_release(&letter);
    }
    return found;
}

// Every truncation of a submission, and records on topics where they do not belong: each a dead letter, none stalls anything.
static void buries_what_cannot_be_read(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    const struct kiln_author author = world_author(world, "agent-1");
    world_submission(world, "agent-1", 1, "blue", &record);
    assert_int_equal(kiln_job_submitted_encode(&record, &bytes, NULL), 0);
    uint32_t partition = world_partition(world, &record.action_digest);
    for (size_t len = 0; len < bytes.len; len += 7) {
        const struct kiln_buf cut = {.data = bytes.data, .len = len};
        uint64_t offset = world->offset;
        world_feed(world, KILN_TOPIC_JOBS, partition, &author, &cut);
        assert_int_equal(dead_letters(world, "form: ", offset), 1);
    }
    uint64_t offset = world->offset;
    world_feed(world, KILN_TOPIC_CANDIDATES, partition, &author, &bytes);
    assert_int_equal(dead_letters(world, "form: ", offset), 1);
    assert_int_equal(world->bus->acked[world->bus->acked_count - 1].offset, offset);
    kiln_job_submitted_release(&record);
    honest_build(world);
}

static void buries_what_the_bus_refused(void **state) {
    struct world *world = *state;
    struct kiln_err err = {0};
    unsigned char junk[] = "junk";
    const struct kiln_record record = {.topic = KILN_TOPIC_JOBS, .news = KILN_NEWS_REFUSED, .why = "replayed: seen before",
                                       .offset = 41, .value = junk, .value_len = sizeof junk};
    assert_ok(kiln_docket_take(world->docket, &record, &err));
    assert_int_equal(dead_letters(world, "replayed: ", 41), 1);
    world_expect_event(world, "replayed", NULL);
    honest_build(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        world_test(refuses_a_lying_submission),
        world_test(answers_go_to_the_author_only),
        world_test(refuses_a_role_that_does_not_submit),
        world_test(refuses_an_action_in_another_partition),
        world_test(refuses_to_speak_of_anothers_job),
        world_test(refuses_anothers_job_id_in_another_scope),
        world_test(refuses_other_bytes_than_named),
        world_test(takes_a_public_job),
        world_test(a_private_library_does_not_become_public),
        world_test(a_list_does_not_become_public_before_its_members),
        world_test(an_unpublished_toolchain_is_not_public),
        world_test(refuses_another_executors_words),
        world_test(refuses_a_false_attestation),
        world_test(buries_what_cannot_be_read),
        world_test(buries_what_the_bus_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
