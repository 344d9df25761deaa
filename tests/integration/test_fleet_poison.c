// Attempts to poison a fleet, each by somebody with credentials of a role, on real Kafka and MinIO with a real verifier: refused by
// its name, nothing wrong is kept, and the next honest build is right. The rights of roles on topics and buckets themselves are
// tried by test_fleet_roles_kafka.c and tests/fleet/test_roles_s3.py.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/blob/s3_client.h"
#include "tests/integration/fleet_outsider.h"

static void lie_tenant(struct kiln_job_submitted *r) { fleet_set(&r->tenant, "blue"); }
static void lie_agent(struct kiln_job_submitted *r) { fleet_set(&r->agent, "agent-2"); }
static void lie_partition(struct kiln_job_submitted *r) { r->waiter_partition = (r->waiter_partition + 1) % 4; }
static void lie_scope(struct kiln_job_submitted *r) { fleet_set(&r->scope, "blue"); }
static void lie_public(struct kiln_job_submitted *r) { fleet_set(&r->scope, "public"); } // its archive is not on the list
static void lie_action(struct kiln_job_submitted *r) { r->action[r->action_len - 1] ^= 1; }
static void lie_digest(struct kiln_job_submitted *r) { r->action_digest.bytes[20] ^= 1; }
static void lie_input(struct kiln_job_submitted *r) { r->contents[0].digest.bytes[0] ^= 1; }

static void a_client_lies(void **state) {
    static const struct {
        void (*lie)(struct kiln_job_submitted *record);
        const char *word;
    } cases[] = {{lie_tenant, "wrong_tenant"}, {lie_agent, "wrong_agent"},     {lie_partition, "wrong_partition"},
                 {lie_scope, "scope"},         {lie_public, "scope"},          {lie_action, "action_digest"},
                 {lie_digest, "action_digest"}, {lie_input, "contents"}};
    (void)state;
    fleet_next_action();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_job_submitted record;
        fleet_submission(&fleet.agent, &record);
        cases[i].lie(&record);
        fleet_submit(&fleet.agent, &record);
        fleet_expect(&fleet.agent, &record, KILN_ANSWER_REJECTED, cases[i].word); // in its own mailbox, whatever it said
        fleet_expect_event(cases[i].word, "agent-1");
        kiln_job_submitted_release(&record);
    }
    fleet_honest_build(&fleet.agent, &fleet.executor);
}

// Content number `which` as named, or with one byte changed, or cut by one.
enum spoil { SPOIL_NOTHING, SPOIL_BYTE, SPOIL_SIZE };
static void upload_spoilt(const struct kiln_job_submitted *record, size_t which, enum spoil spoil) {
    struct rig *rig = fleet.rig;
    const void *data[RIG_CONTENTS] = {rig->pack.data, rig->list_bytes.data, rig_libraries[0][1], rig_libraries[1][1]};
    const size_t len[RIG_CONTENTS] = {rig->pack.len, rig->list_bytes.len, strlen(rig_libraries[0][1]), strlen(rig_libraries[1][1])};
    kiln_autofree unsigned char *bytes = malloc(len[which]);
    memcpy(bytes, data[which], len[which]);
    bytes[len[which] - 1] ^= spoil == SPOIL_BYTE;
    rig_put_upload(rig, record, &rig->contents[which], bytes, len[which] - (spoil == SPOIL_SIZE));
}

// Other bytes than named are refused, and nobody else of the tenant gets them.
static void a_client_uploads_other_bytes(void **state) {
    (void)state;
    fleet_next_action();
    for (int round = 0; round < 3; round++) {
        struct kiln_job_submitted record;
        fleet_submission(&fleet.stranger, &record); // its tenant has nothing yet
        fleet_submit(&fleet.stranger, &record);
        fleet_expect(&fleet.stranger, &record, KILN_ANSWER_WANTED, NULL);
        struct kiln_store *own = fleet.rig->agent;
        fleet.rig->agent = kiln_fleet_store(fleet.stranger.fleet);
        for (size_t i = 0; i < RIG_CONTENTS; i++) // the last round: all but the pack are right
            upload_spoilt(&record, i, round == 0 ? SPOIL_BYTE : round == 1 ? SPOIL_SIZE : i == 0 ? SPOIL_BYTE : SPOIL_NOTHING);
        fleet.rig->agent = own;
        const struct kiln_job_uploaded uploaded = {.job = record.job, .action_digest = record.action_digest};
        fleet_say_job_uploaded(&fleet.stranger, KILN_TOPIC_JOBS, fleet_partition(&record.action_digest), &record.action_digest, &uploaded);
        fleet_expect(&fleet.stranger, &record, KILN_ANSWER_REJECTED, "contents");
        fleet_expect_event("contents", "agent-3");
        kiln_job_submitted_release(&record);
    }
    fleet_honest_build(&fleet.stranger, &fleet.executor);
}

// A digest that another tenant has stored tells nothing and gives nothing.
static void a_digest_of_another_tenant_is_unknown(void **state) {
    (void)state;
    struct kiln_job_submitted record;
    struct kiln_answer answer;
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor); // red has the result and all content
    struct rig *rig = fleet.rig;
    fleet_submission(&fleet.stranger, &record);
    fleet_submit(&fleet.stranger, &record);
    fleet_await(&fleet.stranger, &record, &answer);
    assert_int_equal(answer.status, KILN_ANSWER_WANTED);
    assert_int_equal(answer.contents_count, RIG_CONTENTS); // as if nobody had any of it
    kiln_answer_release(&answer);
    // Nor by the store: blue may not read red's keys.
    kiln_autofree char *key = kiln_key_result("red", kiln_keeper_generation(kiln_fleet_keeper(fleet.stranger.fleet)), &rig->action_digest);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1 << 20);
    assert_int_equal(kiln_store_get_bytes(kiln_fleet_store(fleet.agent.fleet), KILN_SPACE_VAULT, key, &bytes, NULL), 0);
    assert_int_equal(kiln_store_get_bytes(kiln_fleet_store(fleet.stranger.fleet), KILN_SPACE_VAULT, key, &bytes, NULL), KILN_E_DENIED);
    const struct kiln_job_cancelled cancelled = {.job = record.job, .action_digest = record.action_digest};
    fleet_say_job_cancelled(&fleet.stranger, KILN_TOPIC_JOBS, fleet_partition(&record.action_digest), &record.action_digest, &cancelled);
    kiln_job_submitted_release(&record);
}

static void another_principals_words(void **state) {
    (void)state;
    struct kiln_job_submitted record;
    struct kiln_work work;
    struct kiln_candidate candidate;
    const struct kiln_author *one = &fleet.executor.author, *two = &fleet.rival.author;
    fleet_next_action();
    const struct kiln_digest *action = &fleet.rig->action_digest;
    const uint32_t partition = fleet_partition(action);
    struct kiln_credit credit = {.executor = (char *)(uintptr_t)one->principal, .pool = (char *)(uintptr_t)one->pool,
                                 .incarnation = one->incarnation, .credit = {{99}}, .expires_ms = kiln_clock_wall_ms() + 60000};
    fleet_say_credit(&fleet.rival, KILN_TOPIC_CREDITS, partition, action, &credit);
    fleet_expect_event("wrong_executor", "executor-2");
    credit.executor = (char *)(uintptr_t)two->principal;
    fleet_say_credit(&fleet.rival, KILN_TOPIC_CREDITS, partition, action, &credit);
    fleet_expect_event("wrong_incarnation", "executor-2");
    credit.incarnation = two->incarnation;
    fleet_say_credit(&fleet.rival, KILN_TOPIC_CREDITS, partition, action, &credit); // executor-1's pool
    fleet_expect_event("wrong_pool", "executor-2");

    fleet_submission(&fleet.agent, &record);
    fleet_submit(&fleet.agent, &record);
    fleet_credit(&fleet.executor);
    fleet_await_work(&fleet.executor, &work); // red's content is there
    const struct kiln_job_cancelled cancelled = {.job = record.job, .action_digest = *action};
    fleet_say_job_cancelled(&fleet.second, KILN_TOPIC_JOBS, partition, action, &cancelled);
    fleet_expect_event("wrong_agent", "agent-2");
    const struct kiln_lease lease = {.job = work.job, .incarnation = one->incarnation, .attempt = work.attempt, .at_ms = kiln_clock_wall_ms()};
    fleet_say_lease(&fleet.rival, KILN_TOPIC_LEASES, partition, action, &lease);
    fleet_expect_event("wrong_incarnation", "executor-2");
    const struct kiln_decline decline = {.job = work.job, .incarnation = one->incarnation, .credit = work.credit, .attempt = work.attempt};
    fleet_say_decline(&fleet.rival, KILN_TOPIC_LEASES, partition, action, &decline);
    fleet_expect_event("wrong_incarnation", "executor-2");
    fleet_candidate(&fleet.rival, &work, "a trap", &candidate);
    fleet_sign(&fleet.rival, &candidate);
    fleet_deliver(&fleet.rival, &candidate); // of a run that is not its own
    fleet_expect_event("not_dispatched", "executor-2");
    fleet_set(&candidate.executor, one->principal);
    fleet_deliver(&fleet.rival, &candidate);
    fleet_expect_event("wrong_executor", "executor-2");
    kiln_candidate_release(&candidate);

    kiln_autoresult struct kiln_result result = {0};
    fleet_candidate(&fleet.executor, &work, "the right rlib", &candidate);
    fleet_sign(&fleet.executor, &candidate);
    fleet_deliver(&fleet.executor, &candidate);
    fleet_expect_result(&fleet.agent, &record, &result);
    assert_string_equal(result.attestations[0].executor, "executor-1");
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

static void one_more(const struct actor *executor, struct kiln_candidate *c) {
    struct kiln_candidate_output *extra = &c->outputs[c->outputs_count++];
    *extra = (struct kiln_candidate_output){.kind = KILN_OUTPUT_FILE, .name = strdup("libother-1.rlib")};
    fleet_name_output("an extra", extra);
    fleet_sign(executor, c);
}
static void one_less(const struct actor *executor, struct kiln_candidate *c) {
    free(c->outputs[1].name); // the .rmeta
    memmove(&c->outputs[1], &c->outputs[2], (c->outputs_count - 2) * sizeof *c->outputs);
    c->outputs[--c->outputs_count] = (struct kiln_candidate_output){0};
    fleet_sign(executor, c);
}
static void cut_short(const struct actor *executor, struct kiln_candidate *c) {
    const char *const bytes[] = {"a tra", "an rmeta", "/t/libdemo-0123.rlib: src/lib.rs\n\nsrc/lib.rs:\n", ""};
    fleet_put_bundle(executor, c, bytes, FLEET_OUTPUTS); // under the name of the whole
    fleet_sign(executor, c);
}
static void longer_than_uploaded(const struct actor *executor, struct kiln_candidate *c) {
    c->outputs[0].size++;
    fleet_sign(executor, c);
}
static void not_uploaded(const struct actor *executor, struct kiln_candidate *c) {
    c->outputs[0].digest.bytes[0] ^= 1;
    fleet_sign(executor, c);
}
static void swapped_after_signing(const struct actor *executor, struct kiln_candidate *c) {
    fleet_sign(executor, c);
    struct kiln_digest first = c->outputs[0].digest;
    uint64_t size = c->outputs[0].size;
    c->outputs[0].digest = c->outputs[1].digest, c->outputs[0].size = c->outputs[1].size;
    c->outputs[1].digest = first, c->outputs[1].size = size;
}
static void of_another_action(const struct actor *executor, struct kiln_candidate *c) {
    c->action_digest.bytes[31] ^= 1; // the partition stays
    fleet_sign(executor, c);
}
static void not_signed(const struct actor *executor, struct kiln_candidate *c) { (void)executor, (void)c; }

// None of it is kept: the next submission of the action is run anew, by another executor.
static void an_executor_lies(void **state) {
    static const struct {
        void (*lie)(const struct actor *executor, struct kiln_candidate *candidate);
        const char *event;
        bool locally; // what has a wrong form is of no use to anybody; else it is another executor's turn
    } cases[] = {{one_more, "form", true},        {one_less, "form", true},
                 {cut_short, "outputs", false},   {longer_than_uploaded, "outputs", false},
                 {not_uploaded, "outputs", false}, {swapped_after_signing, "attestation", false},
                 {not_signed, "attestation", false}, {of_another_action, "not_dispatched", false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_job_submitted record;
        struct kiln_work work;
        struct kiln_candidate candidate;
        fleet_next_action();
        fleet_submission(&fleet.agent, &record);
        fleet_submit(&fleet.agent, &record);
        fleet_credit(&fleet.executor);
        fleet_await_work(&fleet.executor, &work);
        fleet_candidate(&fleet.executor, &work, "a trap", &candidate);
        cases[i].lie(&fleet.executor, &candidate);
        fleet_deliver(&fleet.executor, &candidate);
        fleet_expect_event(cases[i].event, "executor-1");
        if (cases[i].locally)
            fleet_expect(&fleet.agent, &record, KILN_ANSWER_COMPILE_LOCALLY, cases[i].event);
        const struct kiln_job_cancelled cancelled = {.job = record.job, .action_digest = record.action_digest};
        fleet_say_job_cancelled(&fleet.agent, KILN_TOPIC_JOBS, fleet_partition(&record.action_digest), &record.action_digest, &cancelled);
        if (!strcmp(cases[i].event, "not_dispatched")) { // its run goes on
            kiln_candidate_release(&candidate);
            fleet_candidate(&fleet.executor, &work, "the right rlib", &candidate);
            fleet_sign(&fleet.executor, &candidate);
            fleet_deliver(&fleet.executor, &candidate);
        } else {
            fleet_honest_build(&fleet.second, &fleet.rival);
        }
        kiln_candidate_release(&candidate);
        kiln_work_release(&work);
        kiln_job_submitted_release(&record);
    }
}

// A delete marker over what is locked.
static void hide(const char *key) {
    const struct kiln_s3_options options = fleet_root_options();
    struct kiln_s3_client *client = NULL;
    struct kiln_s3_exchange exchange;
    struct kiln_err err = {0};
    fleet_must(kiln_s3_client_new(&options, &client, &err), &err);
    kiln_s3_exchange_init(&exchange, "DELETE", KILN_SPACE_VAULT, key);
    kiln_s3_run_one(client, &exchange, NULL);
    assert_int_equal(exchange.status, 204);
    kiln_s3_exchange_release(&exchange);
    kiln_s3_client_free(client);
}

// Asks again as an agent that found its pointer wanting; the result comes without an execution.
static void expect_known(const char *rlib) {
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_digest right;
    kiln_digest_of(rlib, strlen(rlib), &right);
    fleet_submission(&fleet.second, &record);
    fleet_submit(&fleet.second, &record);
    fleet_expect_result(&fleet.second, &record, &result); // no executor has a credit
    assert_true(kiln_digest_equal(&fleet_output(&result, "libdemo-0123.rlib")->digest, &right));
    kiln_job_submitted_release(&record);
}

#define expect_pointer(key, action, good) expect_pointer_at(__LINE__, key, action, good)
static void expect_pointer_at(int line, const char *key, const struct kiln_digest *action, bool good) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1 << 20);
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_keeper *keeper = kiln_fleet_keeper(fleet.agent.fleet);
    int rc = kiln_store_get_bytes(kiln_fleet_store(fleet.agent.fleet), KILN_SPACE_VAULT, key, &bytes, NULL);
    if (rc == 0)
        rc = kiln_keeper_open_result(keeper, bytes.data, bytes.len, action, "red", kiln_keeper_generation(keeper), &result, NULL);
    if ((rc == 0) != good)
        fail_msg("line %d: the pointer is %s", line, good ? "not good" : "good");
}

// The storage admin shadows a pointer, and hides it behind a delete marker.
static void the_storage_admin_shadows(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *root = fleet_root_store();
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor);
    const struct kiln_digest action = fleet.rig->action_digest;
    kiln_autofree char *key = kiln_key_result("red", kiln_keeper_generation(kiln_fleet_keeper(fleet.agent.fleet)), &action);
    expect_pointer(key, &action, true);
    fleet_must(kiln_store_keep_pointer(root, key, "forged", 6, kiln_clock_wall_ms() + 86400000, true, NULL, &err), &err);
    expect_pointer(key, &action, false);
    expect_known("the right rlib");
    fleet_expect_event("shadowed_pointer", NULL);
    expect_pointer(key, &action, true); // the right bytes lie on top again
    hide(key);
    expect_pointer(key, &action, false);
    expect_known("the right rlib");
    fleet_expect_event("shadowed_pointer", NULL);
    expect_pointer(key, &action, true);
    kiln_store_close(root);
}

// The bundle that the pointer of the rig's action pins, as an agent opens it.
static int open_bundle(char **key, struct kiln_buf *content) {
    struct kiln_err err = {0};
    struct kiln_keeper *keeper = kiln_fleet_keeper(fleet.agent.fleet);
    struct kiln_store *store = kiln_fleet_store(fleet.agent.fleet);
    kiln_autofree char *pointer = kiln_key_result("red", kiln_keeper_generation(keeper), &fleet.rig->action_digest);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1 << 20);
    kiln_autoresult struct kiln_result result = {0};
    fleet_must(kiln_store_get_bytes(store, KILN_SPACE_VAULT, pointer, &bytes, &err), &err);
    fleet_must(kiln_keeper_open_result(keeper, bytes.data, bytes.len, &fleet.rig->action_digest, "red",
                                       kiln_keeper_generation(keeper), &result, &err), &err);
    *key = kiln_key_content("bundle", "red", &result.bundle);
    struct kiln_pin pin;
    snprintf(pin.text, sizeof pin.text, "%s", result.bundle_pin);
    kiln_autofd int fd = -1;
    uint64_t size;
    int rc = kiln_store_get_pinned(store, *key, &pin, &result.bundle, &fd, &size, &err);
    return rc ? rc : kiln_fs_read_fd(fd, content, &err);
}

// Flips one byte of a locked object on the server's own disk: in the middle of what its versions' file holds, where the bytes are.
static void flip_on_disk(const char *key, const char *bytes, size_t len) {
    kiln_autofree char *data = stack_env(&fleet.stack, "KILN_STACK_S3_DATA");
    char path[1024];
    snprintf(path, sizeof path, "%s/kiln-vault/%s/xl.meta", data, key); // small objects lie in it
    kiln_autofd int file = open(path, O_RDWR | O_CLOEXEC);
    kiln_autobuf struct kiln_buf held = KILN_BUF_INIT(1 << 20);
    assert_int_equal(kiln_fs_read_fd(file, &held, NULL), 0);
    const unsigned char *at = memmem(held.data, held.len, bytes, len);
    assert_non_null(at);
    const unsigned char other = at[len / 2] ^ 1;
    assert_int_equal(pwrite(file, &other, 1, at + len / 2 - held.data), 1);
}

// Content is read by its pin: a shadow or a marker over it changes nothing. A byte that the disk changed is seen, by agent and
// verifier, and the action is done again.
static void content_is_shadowed_hidden_and_flipped(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *root = fleet_root_store();
    kiln_autofree char *key = NULL, *again = NULL, *after = NULL;
    kiln_autobuf struct kiln_buf bundle = KILN_BUF_INIT(1 << 20), ignored = KILN_BUF_INIT(1 << 20);
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor);
    assert_int_equal(open_bundle(&key, &bundle), 0);
    fleet_must(kiln_store_keep_pointer(root, key, "other bytes", 11, kiln_clock_wall_ms() + 86400000, true, NULL, &err), &err);
    hide(key);
    assert_int_equal(open_bundle(&again, &ignored), 0);
    assert_string_equal(again, key);
    expect_known("the right rlib");
    flip_on_disk(key, (const char *)bundle.data, bundle.len);
    assert_int_not_equal(open_bundle(&after, &ignored), 0);
    fleet_honest_build(&fleet.second, &fleet.executor);
    free(after);
    kiln_buf_reset(&ignored);
    assert_int_equal(open_bundle(&after, &ignored), 0);
    kiln_store_close(root);
}

// The same of the pointer.
static void a_pointer_is_flipped(void **state) {
    (void)state;
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor);
    const struct kiln_digest action = fleet.rig->action_digest;
    kiln_autofree char *key = kiln_key_result("red", kiln_keeper_generation(kiln_fleet_keeper(fleet.agent.fleet)), &action);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1 << 20);
    assert_int_equal(kiln_store_get_bytes(kiln_fleet_store(fleet.agent.fleet), KILN_SPACE_VAULT, key, &bytes, NULL), 0);
    flip_on_disk(key, (const char *)bytes.data, bytes.len);
    expect_pointer(key, &action, false);
    fleet_honest_build(&fleet.second, &fleet.executor);
    expect_pointer(key, &action, true);
}

// A result that is signed, but by nobody whom the trust record names.
static void a_result_of_an_unknown_key(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *root = fleet_root_store();
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor);
    struct kiln_keeper *keeper = kiln_fleet_keeper(fleet.agent.fleet);
    kiln_autofree char *old_key = kiln_key_result("red", kiln_keeper_generation(keeper), &fleet.rig->action_digest);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1 << 20), forged = KILN_BUF_INIT(1 << 20);
    kiln_autoresult struct kiln_result result = {0};
    fleet_must(kiln_store_get_bytes(kiln_fleet_store(fleet.agent.fleet), KILN_SPACE_VAULT, old_key, &bytes, &err), &err);
    fleet_must(kiln_keeper_open_result(keeper, bytes.data, bytes.len, &fleet.rig->action_digest, "red",
                                       kiln_keeper_generation(keeper), &result, &err), &err);
    // The same result, its attestations honest, sealed by a key of nobody.
    fleet_must(kiln_result_seal(&result, fleet.rig->key, &forged, &err), &err);
    fleet_must(kiln_store_keep_pointer(root, old_key, forged.data, forged.len, kiln_clock_wall_ms() + 86400000, true, NULL, &err), &err);
    expect_pointer(old_key, &fleet.rig->action_digest, false);
    expect_known("the right rlib");
    fleet_expect_event("shadowed_pointer", NULL);
    kiln_buf_reset(&forged);
    fleet_next_action();
    result.action = fleet.rig->action_digest; // for an action that nobody has a result of
    kiln_attestation_sign(&result.attestations[0], &result.action, fleet.rig->key, NULL);
    fleet_must(kiln_result_seal(&result, fleet.rig->key, &forged, &err), &err);
    kiln_autofree char *key = kiln_key_result("red", kiln_keeper_generation(keeper), &fleet.rig->action_digest);
    fleet_must(kiln_store_keep_pointer(root, key, forged.data, forged.len, kiln_clock_wall_ms() + 86400000, false, NULL, &err), &err);
    expect_pointer(key, &fleet.rig->action_digest, false);
    fleet_honest_build(&fleet.second, &fleet.executor);
    expect_pointer(key, &fleet.rig->action_digest, true);
    kiln_store_close(root);
}

// The admin of the store replaces the trust record: nobody takes it, and what was in force stays. (An older one:
// tests/fleet/cases_trust.py.)
static void a_forged_trust_record(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_store *root = fleet_root_store();
    struct kiln_keeper *keeper = kiln_fleet_keeper(fleet.agent.fleet);
    kiln_autobuf struct kiln_buf honest = KILN_BUF_INIT(8u << 20), forged = KILN_BUF_INIT(8u << 20);
    fleet_must(kiln_store_get_bytes(root, KILN_SPACE_VAULT, "trust/record", &honest, &err), &err);
    assert_int_equal(kiln_buf_add(&forged, honest.data, honest.len), 0);
    forged.data[forged.len / 2] ^= 1;
    fleet_must(kiln_store_keep_pointer(root, "trust/record", forged.data, forged.len, kiln_clock_wall_ms() + 86400000, true, NULL, &err), &err);
    assert_int_not_equal(kiln_keeper_refresh(keeper, &err), 0);
    assert_non_null(strstr(err.text, "trust_forged"));
    assert_int_equal(kiln_keeper_valid(keeper, NULL), 0);
    fleet_expect_event("trust_forged", "verifier-1");
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor);
    fleet_must(kiln_store_keep_pointer(root, "trust/record", honest.data, honest.len, kiln_clock_wall_ms() + 86400000, true, NULL, &err), &err);
    fleet_must(kiln_keeper_refresh(keeper, &err), &err);
    kiln_store_close(root);
}

// Somebody who can read the topic writes a signed record once more, byte for byte.
static void an_old_record_comes_again(void **state) {
    (void)state;
    struct kiln_job_submitted record;
    fleet_next_action();
    fleet_submission(&fleet.agent, &record);
    lie_partition(&record); // a small one that leaves nothing behind
    fleet_submit(&fleet.agent, &record);
    fleet_expect(&fleet.agent, &record, KILN_ANSWER_REJECTED, "wrong_partition");
    fleet_expect_event("wrong_partition", "agent-1");
    rd_kafka_t *thief = fleet_raw_client(RD_KAFKA_CONSUMER, "operator");
    rd_kafka_message_t *message = fleet_steal(thief, "kiln.jobs", fleet_partition(&record.action_digest));
    fleet_repeat("operator", message);
    fleet_expect_event("replayed", NULL);
    rd_kafka_message_destroy(message);
    rd_kafka_consumer_close(thief);
    rd_kafka_destroy(thief);
    kiln_job_submitted_release(&record);
    fleet_honest_build(&fleet.agent, &fleet.executor);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_lies),
        cmocka_unit_test(a_digest_of_another_tenant_is_unknown),
        cmocka_unit_test(a_client_uploads_other_bytes),
        cmocka_unit_test(another_principals_words),
        cmocka_unit_test(an_executor_lies),
        cmocka_unit_test(the_storage_admin_shadows),
        cmocka_unit_test(content_is_shadowed_hidden_and_flipped),
        cmocka_unit_test(a_pointer_is_flipped),
        cmocka_unit_test(a_result_of_an_unknown_key),
        cmocka_unit_test(a_forged_trust_record),
        cmocka_unit_test(an_old_record_comes_again),
    };
    return cmocka_run_group_tests(tests, fleet_up, fleet_down);
}
