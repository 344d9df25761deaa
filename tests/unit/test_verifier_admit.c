// Admission: what a client claims is computed again, and every difference is a refusal that names it.
#include "tests/unit/verifier_rig.h"

static void free_record(struct kiln_job_submitted *record) { kiln_job_submitted_release(record); }
#define auto_record __attribute__((cleanup(free_record))) struct kiln_job_submitted

static void set(char **text, const char *value) {
    free(*text);
    *text = strdup(value);
}

static void set_place(char **text, const char *place, const char *rest) {
    free(*text);
    *text = kiln_place(place, rest);
}

static int form(const struct kiln_job_submitted *record, struct kiln_err *err) {
    kiln_autoaction struct kiln_action action = {0};
    return kiln_admit_form(record, &action, err);
}

static void takes_the_job(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    auto_record record;
    rig_submission(rig, 1, &record);
    assert_ok(form(&record, &err));
}

static void other_profile(struct rig *rig) { set(&rig->action.profile, "bwrap-0"); }
static void out_of_sandbox(struct rig *rig) { set(&rig->action.cwd, "/etc"); }
static void other_out_dir(struct rig *rig) { set_place(&rig->action.out_dir, "ws", "x"); }
static void over_toolchain(struct rig *rig) { set_place(&rig->action.inputs[0].mount, "sysroot", "lib"); }
static void over_root(struct rig *rig) { set(&rig->action.inputs[0].mount, kiln_sandbox_root()); }
static void over_observer(struct rig *rig) { set_place(&rig->action.inputs[0].mount, "obs", NULL); }
static void over_outputs(struct rig *rig) { set_place(&rig->action.inputs[0].mount, "target", NULL); }
static void over_etc(struct rig *rig) { set(&rig->action.inputs[0].mount, "/etc"); }
static void beside_a_place(struct rig *rig) { set_place(&rig->action.inputs[0].mount, "wsx", NULL); }
static void preload(struct rig *rig) { kiln_action_add_env(&rig->action, "LD_PRELOAD", "/x.so", NULL); }
static void audit(struct rig *rig) { kiln_action_add_env(&rig->action, "LD_AUDIT", "/x.so", NULL); }
static void no_compile(struct rig *rig) { kiln_action_add_arg(&rig->action, "-vV", NULL); }
static void unknown_flag(struct rig *rig) { kiln_action_add_arg(&rig->action, "-Zanything=/etc/passwd", NULL); }
static void arguments_elsewhere(struct rig *rig) {
    for (size_t i = 0; i < rig->action.argc; i++) {
        if (strncmp(rig->action.argv[i], "--out-dir=", 10) == 0)
            set(&rig->action.argv[i], "--out-dir=/tmp");
    }
}

static void both_elsewhere(struct rig *rig) {
    set_place(&rig->action.out_dir, "ws", "x");
    for (size_t i = 0; i < rig->action.argc; i++) {
        if (strncmp(rig->action.argv[i], "--out-dir=", 10) == 0) {
            free(rig->action.argv[i]);
            assert_true(asprintf(&rig->action.argv[i], "--out-dir=%s", rig->action.out_dir) > 0);
        }
    }
}

static void refuses_actions(void **state) {
    static const struct {
        void (*change)(struct rig *rig);
        const char *word;
    } cases[] = {
        {other_profile, "profile"}, {out_of_sandbox, "cwd"},   {other_out_dir, "out_dir"},     {over_toolchain, "mount"},
        {over_root, "mount"},       {over_observer, "mount"},  {over_outputs, "mount"},        {over_etc, "mount"},
        {beside_a_place, "mount"},  {preload, "environment"},  {audit, "environment"},         {no_compile, "arguments"},
        {unknown_flag, "arguments"}, {arguments_elsewhere, "out_dir"}, {both_elsewhere, "out_dir"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig *rig;
        rig_setup((void **)&rig);
        cases[i].change(rig);
        rig_seal_action(rig);
        struct kiln_err err = {0};
        auto_record record;
        rig_submission(rig, 1, &record);
        if (form(&record, &err) != KILN_E_DENIED || strncmp(err.text, cases[i].word, strlen(cases[i].word)) != 0)
            fail_msg("case %zu: %s", i, err.text);
        rig_teardown((void **)&rig);
    }
}

static void lie_digest(struct kiln_job_submitted *r) { r->action_digest.bytes[0] ^= 1; }
static void lie_action(struct kiln_job_submitted *r) { r->action[r->action_len - 1] ^= 1; }
static void lie_order(struct kiln_job_submitted *r) { set(&r->closure[0], "libzzz"); }
static void lie_twice(struct kiln_job_submitted *r) { set(&r->closure[0], r->closure[1]); }
static void lie_path(struct kiln_job_submitted *r) { set(&r->closure[0], "../x"); }
static void lie_malformed(struct kiln_job_submitted *r) {
    r->action_len--;
    kiln_digest_of(r->action, r->action_len, &r->action_digest);
}

static void refuses_records(void **state) {
    struct rig *rig = *state;
    static const struct {
        void (*lie)(struct kiln_job_submitted *record);
        const char *word;
    } cases[] = {{lie_digest, "action_digest"}, {lie_action, "action_digest"}, {lie_order, "closure"},      {lie_twice, "closure"},
                 {lie_path, "closure"},        {lie_malformed, "action:"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_err err = {0};
        auto_record record;
        rig_submission(rig, 1, &record);
        cases[i].lie(&record);
        if (form(&record, &err) != KILN_E_DENIED || strncmp(err.text, cases[i].word, strlen(cases[i].word)) != 0)
            fail_msg("case %zu: %s", i, err.text);
    }
}

static size_t lacking(struct rig *rig, struct kiln_job_submitted *record, enum kiln_admit_care care) {
    struct kiln_err err;
    kiln_auto(kiln_refs_release) struct kiln_refs refs = {0};
    assert_ok(kiln_admit_lacking(&rig->admit, record, &rig->action, care, &refs, &err));
    return refs.count;
}

static void asks_only_for_what_lacks(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    auto_record record;
    rig_submission(rig, 1, &record);
    record.contents[0].size = 0; // a client need not know the size of a pack
    assert_int_equal(lacking(rig, &record, KILN_ADMIT_PRESENT), 4);
    // A library that an earlier job made lies in the vault.
    kiln_autofree char *key = kiln_key_content("blob", "local", &rig->contents[2].digest);
    assert_ok(kiln_store_put_bytes(rig->verifier, KILN_SPACE_VAULT, key, rig_libraries[0][1], rig->contents[2].size,
                                   &rig->contents[2].digest, &err));
    assert_int_equal(lacking(rig, &record, KILN_ADMIT_PRESENT), 3);
    rig_upload(rig, &record, 0);
    rig_upload(rig, &record, 1);
    rig_upload(rig, &record, 3);
    assert_ok(kiln_admit_upload(&rig->admit, &record, &rig->action, NULL, &err));
    assert_int_equal(lacking(rig, &record, KILN_ADMIT_PRESENT), 0);
    assert_int_equal(lacking(rig, &record, KILN_ADMIT_BYTES), 0);
    assert_int_equal(record.contents[0].size, rig->pack.len);
    kiln_autofree char *pack = kiln_key_content("pack", "local", &rig->contents[0].digest);
    kiln_autofree char *blob = kiln_key_content("blob", "local", &rig->contents[2].digest);
    assert_true(kiln_store_has(rig->verifier, KILN_SPACE_INPUTS, pack));
    assert_false(kiln_store_has(rig->verifier, KILN_SPACE_INPUTS, blob)); // still only in the vault
    kiln_admit_clear(rig->verifier, &record);
    struct stat st;
    assert_int_not_equal(fstatat(rig->scratch->fd, "store/quarantine/in/local/agent/01000000000000000000000000000000",
                                 &st, 0), 0);
}

static int upload(struct rig *rig, struct kiln_job_submitted *record, struct kiln_err *err) {
    return kiln_admit_upload(&rig->admit, record, &rig->action, NULL, err);
}

static void refuses_missing_uploads(void **state) {
    struct rig *rig = *state;
    for (size_t missing = 0; missing < RIG_CONTENTS; missing++) {
        struct kiln_err err = {0};
        auto_record record;
        rig_submission(rig, (unsigned char)(missing + 1), &record);
        for (size_t i = missing + 1; i < RIG_CONTENTS; i++)
            rig_upload(rig, &record, i);
        assert_int_equal(upload(rig, &record, &err), KILN_E_DENIED);
        assert_int_equal(strncmp(err.text, "not_uploaded: ", 14), 0);
        rig_upload(rig, &record, missing);
        for (size_t i = 0; i < missing; i++)
            rig_upload(rig, &record, i);
    }
}

static const void *bytes_of(const struct rig *rig, size_t which) {
    return which == 0 ? (const void *)rig->pack.data : which == 1 ? (const void *)rig->list_bytes.data : rig_libraries[which - 2][1];
}

// One flipped bit at the end or at the beginning, a byte too few, a byte too many.
static void refuses_other_bytes(void **state) {
    (void)state;
    for (unsigned number = 0; number < RIG_CONTENTS * 4; number++) {
        struct rig *rig;
        rig_setup((void **)&rig);
        size_t which = number / 4, change = number % 4, len = (size_t)rig->contents[which].size;
        struct kiln_err err = {0};
        auto_record record;
        rig_submission(rig, 1, &record);
        record.contents[0].size = 0;
        kiln_autofree unsigned char *bytes = calloc(1, len + 1);
        memcpy(bytes, bytes_of(rig, which), len);
        bytes[change == 0 ? len - 1 : 0] ^= change == 0 || change == 1 ? 4 : 0;
        rig_put_upload(rig, &record, &rig->contents[which], bytes, change == 2 ? len - 1 : change == 3 ? len + 1 : len);
        for (size_t i = 0; i < RIG_CONTENTS; i++) {
            if (i != which)
                rig_upload(rig, &record, i);
        }
        if (upload(rig, &record, &err) != KILN_E_DENIED || strncmp(err.text, "contents: ", 10) != 0)
            fail_msg("content %zu, change %zu: %s", which, change, err.text);
        assert_true(lacking(rig, &record, KILN_ADMIT_BYTES) >= 1); // it was not kept
        rig_teardown((void **)&rig);
    }
}

static void drop_ref(struct kiln_job_submitted *r, size_t which) {
    r->contents[which] = r->contents[--r->contents_count];
}
static void without_pack(struct kiln_job_submitted *r) { drop_ref(r, 0); }
static void without_list(struct kiln_job_submitted *r) { drop_ref(r, 1); }
static void without_blob(struct kiln_job_submitted *r) { drop_ref(r, 2); }
static void with_stranger(struct kiln_job_submitted *r) {
    r->contents = reallocarray(r->contents, r->contents_count + 1, sizeof *r->contents);
    r->contents[r->contents_count++] = (struct kiln_content_ref){KILN_CONTENT_BLOB, {{9}}, 5};
}
static void with_strange_pack(struct kiln_job_submitted *r) {
    with_stranger(r);
    r->contents[4].kind = KILN_CONTENT_PACK;
}
static void twice(struct kiln_job_submitted *r) {
    with_stranger(r);
    r->contents[4] = r->contents[2];
}
static void blob_size(struct kiln_job_submitted *r) { r->contents[2].size++; }
static void list_size(struct kiln_job_submitted *r) { r->contents[1].size++; }
static void pack_size(struct kiln_job_submitted *r) { r->contents[0].size++; }
static void blob_as_pack(struct kiln_job_submitted *r) { r->contents[0].kind = KILN_CONTENT_BLOB; }
static void without_stem(struct kiln_job_submitted *r) { free(r->closure[--r->closure_count]); }
static void other_stem(struct kiln_job_submitted *r) { set(&r->closure[0], "libde"); }
static void longer_stem(struct kiln_job_submitted *r) { set(&r->closure[0], "libdep-01.rmeta"); }

static void covers_exactly(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    auto_record first;
    rig_submission(rig, 1, &first);
    rig_upload_all(rig, &first);
    assert_ok(upload(rig, &first, &err));
    static const struct {
        void (*lie)(struct kiln_job_submitted *record);
        bool without_bytes; // noticed before any list is there
    } cases[] = {{without_pack, true}, {without_list, true},      {without_blob, false}, {with_stranger, false},
                 {with_strange_pack, true}, {twice, true},        {blob_size, false},    {list_size, false},
                 {pack_size, false},   {blob_as_pack, true},      {without_stem, false}, {other_stem, false},
                 {longer_stem, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        auto_record record;
        rig_submission(rig, 2, &record);
        cases[i].lie(&record);
        kiln_auto(kiln_refs_release) struct kiln_refs refs = {0};
        if (kiln_admit_lacking(&rig->admit, &record, &rig->action, KILN_ADMIT_PRESENT, &refs, &err) != KILN_E_DENIED)
            fail_msg("case %zu was taken", i);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) { // the same with nothing stored: at the latest on upload
        struct rig *other;
        rig_setup((void **)&other);
        auto_record record;
        rig_submission(other, 3, &record);
        cases[i].lie(&record);
        kiln_auto(kiln_refs_release) struct kiln_refs refs = {0};
        int rc = kiln_admit_lacking(&other->admit, &record, &other->action, KILN_ADMIT_PRESENT, &refs, &err);
        assert_int_equal(rc, cases[i].without_bytes ? KILN_E_DENIED : 0);
        rig_upload_all(other, &record);
        if (upload(other, &record, &err) != KILN_E_DENIED)
            fail_msg("case %zu was taken on upload", i);
        rig_teardown((void **)&other);
    }
}

// A blob that no list needs is not stored on anybody's word.
static void keeps_no_strangers(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    auto_record record;
    rig_submission(rig, 1, &record);
    with_stranger(&record);
    kiln_digest_of("stranger", 8, &record.contents[4].digest);
    record.contents[4].size = 8;
    rig_upload_all(rig, &record);
    rig_put_upload(rig, &record, &record.contents[4], "stranger", 8);
    assert_int_equal(upload(rig, &record, &err), KILN_E_DENIED);
    kiln_autofree char *key = kiln_key_content("blob", "local", &record.contents[4].digest);
    assert_false(kiln_store_has(rig->verifier, KILN_SPACE_INPUTS, key));
}

static void notices_damage(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    auto_record record;
    rig_submission(rig, 1, &record);
    rig_upload_all(rig, &record);
    assert_ok(upload(rig, &record, &err));
    static const char *const kinds[] = {"pack", "list", "blob", "blob"};
    for (size_t i = 0; i < RIG_CONTENTS; i++) {
        kiln_autofree char *key = kiln_key_content(kinds[i], "local", &rig->contents[i].digest);
        rig_damage(rig, "inputs", key);
        assert_int_equal(lacking(rig, &record, KILN_ADMIT_BYTES), 1);
        assert_false(kiln_store_has(rig->verifier, KILN_SPACE_INPUTS, key));
        rig_upload(rig, &record, i);
        assert_ok(upload(rig, &record, &err));
        assert_int_equal(lacking(rig, &record, KILN_ADMIT_BYTES), 0);
    }
}

// A list that holds anything but plain files at its top is refused, also when its digest is right.
static void odd_lists(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    for (unsigned kind = 0; kind < 3; kind++) {
        kiln_autotree struct kiln_tree tree = {0};
        if (kind == 0)
            kiln_tree_add_link(&tree, "liba-1.so", "libb-1.so", NULL);
        else if (kind == 1)
            kiln_tree_add_file(&tree, "d/liba-1.so", false, rig->contents[2].size, &rig->contents[2].digest, NULL);
        else
            kiln_tree_add_withheld(&tree, "liba-1.so", NULL);
        assert_ok(kiln_tree_finish(&tree, &err));
        kiln_buf_reset(&rig->list_bytes);
        assert_ok(kiln_tree_encode(&tree, &rig->list_bytes, &err));
        rig->contents[1].size = rig->list_bytes.len;
        assert_ok(kiln_tree_digest(&tree, &rig->contents[1].digest, &err));
        rig->action.inputs[0].tree = rig->contents[1].digest;
        rig_seal_action(rig);
        auto_record record;
        rig_submission(rig, (unsigned char)(kind + 1), &record);
        rig_upload_all(rig, &record);
        assert_int_equal(upload(rig, &record, &err), KILN_E_DENIED);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        rig_test(takes_the_job),        cmocka_unit_test(refuses_actions), rig_test(refuses_records),
        rig_test(asks_only_for_what_lacks), rig_test(refuses_missing_uploads), cmocka_unit_test(refuses_other_bytes),
        rig_test(covers_exactly),       rig_test(keeps_no_strangers),      rig_test(notices_damage),
        rig_test(odd_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
