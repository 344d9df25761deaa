// What a body says of its writer counts only where the record's author says the same; and what may be called public.
#include "tests/unit/trust_rig.h"

#include "lib/base/cleanup.h"
#include "lib/core/public_list.h"
#include "lib/rustc/paths.h"
#include "verifier/identity.h"
#include "verifier/scope.h"

static const struct kiln_author agent = {
    .role = KILN_ROLE_OF_AGENT, .principal = "agent-1", .tenant = "blue", .incarnation = {{1}}};
static const struct kiln_author executor = {
    .role = KILN_ROLE_OF_EXECUTOR, .principal = "executor-1", .pool = "a", .incarnation = {{2}}};

static void nobody_submits_in_anothers_name(void **state) {
    (void)state;
    const struct {
        struct kiln_author author;
        const char *tenant, *agent;
        uint32_t partition;
        const char *word;
    } cases[] = {
        {agent, "blue", "agent-1", 5, NULL},
        {agent, "red", "agent-1", 5, "wrong_tenant"},
        {agent, "public", "agent-1", 5, "wrong_tenant"},
        {agent, "blue", "agent-2", 5, "wrong_agent"},
        {agent, "blue", "agent-1", 6, "wrong_partition"},
        {executor, "blue", "executor-1", 5, "wrong_role"},
        {{.role = KILN_ROLE_OF_READER, .principal = "agent-1", .tenant = "blue"}, "blue", "agent-1", 5, "wrong_role"},
        {{.role = KILN_ROLE_OF_AGENT, .principal = "agent-1", .tenant = ""}, "", "agent-1", 5, "wrong_tenant"},
        {{.role = KILN_ROLE_OF_AGENT, .principal = "agent-1", .tenant = "public"}, "public", "agent-1", 5, "wrong_tenant"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_err err = {0};
        const struct kiln_job_submitted record = {.tenant = (char *)(uintptr_t)cases[i].tenant,
                                                  .agent = (char *)(uintptr_t)cases[i].agent,
                                                  .waiter_partition = cases[i].partition};
        int rc = kiln_identity_check_submission(&cases[i].author, &record, 5, &err);
        const char *word = cases[i].word ? cases[i].word : "";
        if (rc != (cases[i].word ? KILN_E_DENIED : 0) || strncmp(err.text, word, strlen(word)) != 0)
            fail_msg("case %zu: %d \"%s\" instead of \"%s\"", i, rc, err.text, word);
    }
}

static void no_executor_speaks_for_another(void **state) {
    (void)state;
    static const struct kiln_job_id own = {{2}}, other = {{3}};
    const struct {
        struct kiln_author author;
        const char *executor, *pool;
        struct kiln_job_id incarnation;
        const char *word;
    } cases[] = {
        {executor, "executor-1", "a", own, NULL},
        {executor, NULL, NULL, own, NULL}, // a lease names neither
        {executor, "executor-2", "a", own, "wrong_executor"},
        {executor, "executor-1", "b", own, "wrong_pool"},
        {executor, "executor-1", "a", other, "wrong_incarnation"},
        {executor, NULL, NULL, other, "wrong_incarnation"},
        {agent, "agent-1", "", {{1}}, "wrong_role"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_err err = {0};
        int rc = kiln_identity_check_executor(&cases[i].author, cases[i].executor, cases[i].pool, &cases[i].incarnation, &err);
        const char *word = cases[i].word ? cases[i].word : "";
        if (rc != (cases[i].word ? KILN_E_DENIED : 0) || strncmp(err.text, word, strlen(word)) != 0)
            fail_msg("case %zu: %d \"%s\" instead of \"%s\"", i, rc, err.text, word);
    }
}

static uint64_t rig_now(void) { return RIG_NOW; }

// A keeper that has serde-1.0.200 with the tree 01.. on its list.
static struct kiln_keeper *open_keeper(struct scratch *scratch, struct kiln_store *store) {
    static const char *const roots[] = {"root-1"};
    struct kiln_err err = {0};
    const struct kiln_digest tree = {{1}}, archive = {{9}};
    uint8_t root[1][KILN_PUBLIC_KEY_BYTES];
    rig_public(scratch, roots[0], root[0]);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    kiln_autobuf struct kiln_buf signed_record = KILN_BUF_INIT(1 << 20), signed_list = KILN_BUF_INIT(1 << 20);
    rig_record(scratch, &record);
    rig_sign(scratch, &record, roots, 1, &signed_record);
    kiln_autopublic_list struct kiln_public_list list = {.version = 1, .issued_ms = RIG_NOW, .expires_ms = RIG_NOW + 1000};
    assert_ok(kiln_public_list_add(&list, "serde-1.0.200", &archive, &tree, &err));
    struct kiln_sign_key *key = rig_key(scratch, roots[0]);
    assert_ok(kiln_public_list_sign(&list, (const struct kiln_sign_key *const *)&key, 1, &signed_list, &err));
    kiln_sign_key_free(key);
    assert_ok(kiln_store_put_pointer(store, "trust/record", signed_record.data, signed_record.len, true, &err));
    assert_ok(kiln_store_put_pointer(store, "trust/public", signed_list.data, signed_list.len, true, &err));
    struct kiln_keeper *keeper = NULL;
    struct kiln_keeper_options options = {.store = store,
                                          .dir = scratch_path(scratch, "kept"),
                                          .roots = (const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])root,
                                          .roots_count = 1,
                                          .threshold = 1,
                                          .wall_ms = rig_now};
    assert_ok(kiln_keeper_open(&options, &keeper, &err));
    return keeper;
}

static void only_what_is_listed_is_public(void **state) {
    struct kiln_err err = {0};
    struct kiln_store *store = NULL;
    assert_ok(kiln_store_open_dir(scratch_path(*state, "store"), KILN_ROLE_VERIFIER, &store, &err));
    struct kiln_keeper *keeper = open_keeper(*state, store);
    const struct kiln_authority authority = {.keeper = keeper}, embedded = {.keeper = NULL};
    kiln_autofree char *registry = kiln_place(KILN_PLACE_REGISTRY, NULL), *workspace = kiln_place(KILN_PLACE_WORKSPACE, NULL);
    assert_true(registry && workspace);
    const struct {
        const struct kiln_authority *authority;
        const char *claim, *below, *package;
        uint8_t tree;
        enum kiln_input_form form;
        int rc;
    } cases[] = {
        {&authority, "public", registry, "/serde-1.0.200", 1, KILN_INPUT_PACK, 0},
        {&authority, "public", registry, "/serde-1.0.200", 2, KILN_INPUT_PACK, KILN_E_DENIED}, // other bytes under its name
        {&authority, "public", registry, "/serde-1.0.201", 1, KILN_INPUT_PACK, KILN_E_DENIED}, // its bytes under another name
        {&authority, "public", registry, "/serde-1.0.200/sub", 1, KILN_INPUT_PACK, KILN_E_DENIED},
        {&authority, "public", registry, "", 1, KILN_INPUT_PACK, KILN_E_DENIED},
        {&authority, "public", workspace, "/serde-1.0.200", 1, KILN_INPUT_PACK, KILN_E_DENIED},
        {&authority, "public", registry, "/serde-1.0.200", 1, KILN_INPUT_LIST, KILN_E_DENIED}, // no package at all
        {&embedded, "public", registry, "/serde-1.0.200", 1, KILN_INPUT_PACK, KILN_E_DENIED},
        {&authority, "blue", workspace, "", 3, KILN_INPUT_PACK, 0},
        {&authority, "red", registry, "/serde-1.0.200", 1, KILN_INPUT_PACK, KILN_E_DENIED}, // another tenant's
        {&authority, "", registry, "/serde-1.0.200", 1, KILN_INPUT_PACK, KILN_E_DENIED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char mount[512];
        snprintf(mount, sizeof mount, "%s%s", cases[i].below, cases[i].package);
        struct kiln_action_input input = {.mount = mount, .form = cases[i].form, .tree = {{cases[i].tree}}};
        const struct kiln_action action = {.inputs = &input, .inputs_count = 1};
        err = (struct kiln_err){0};
        int rc = kiln_scope_check(cases[i].authority, "blue", cases[i].claim, &action, &err);
        if (rc != cases[i].rc || (rc && strncmp(err.text, "scope: ", 7) != 0))
            fail_msg("case %zu: %d \"%s\"", i, rc, err.text);
    }
    kiln_keeper_close(keeper);
    kiln_store_close(store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_submits_in_anothers_name),
        cmocka_unit_test(no_executor_speaks_for_another),
        scratch_test(only_what_is_listed_is_public),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
