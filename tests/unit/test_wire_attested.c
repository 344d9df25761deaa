// What an executor signs of its candidate, and that nothing it covers can be changed afterwards.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/wire/attested.h"
#include "tests/unit/scratch.h"

static char *text_of(const char *text) { return (char *)(uintptr_t)text; }

struct bench {
    struct scratch *scratch;
    struct kiln_sign_key *key;
    uint8_t public_key[KILN_PUBLIC_KEY_BYTES];
    struct kiln_candidate_output outputs[2];
    struct kiln_candidate candidate;
};

static int setup(void **state) {
    struct bench *bench = calloc(1, sizeof *bench);
    scratch_setup((void **)&bench->scratch);
    assert_int_equal(kiln_sign_key_load_or_make(bench->scratch->fd, "executor", &bench->key, NULL), 0);
    kiln_sign_key_public(bench->key, bench->public_key);
    bench->outputs[0] = (struct kiln_candidate_output){.kind = KILN_OUTPUT_STDERR, .name = text_of(""), .size = 3};
    bench->outputs[1] = (struct kiln_candidate_output){.kind = KILN_OUTPUT_FILE, .executable = true, .name = text_of("a"), .size = 5};
    bench->candidate = (struct kiln_candidate){
        .job = {{1}}, .executor = text_of("executor-1"), .pool = text_of("east"), .backend = text_of("bwrap"),
        .action_digest = {{2}}, .at_ms = 1000, .outputs = bench->outputs, .outputs_count = 2};
    assert_int_equal(kiln_candidate_sign(&bench->candidate, bench->key, NULL), 0);
    *state = bench;
    return 0;
}

static int teardown(void **state) {
    struct bench *bench = *state;
    kiln_sign_key_free(bench->key);
    scratch_teardown((void **)&bench->scratch);
    free(bench);
    return 0;
}

static int check(const struct bench *bench) {
    struct kiln_attestation attestation;
    assert_int_equal(kiln_candidate_attestation(&bench->candidate, &attestation, NULL), 0);
    return kiln_attestation_check(&attestation, &bench->candidate.action_digest, bench->public_key, NULL);
}

static void names_what_the_result_will_name(void **state) {
    const struct bench *bench = *state;
    struct kiln_attestation attestation;
    assert_int_equal(kiln_candidate_attestation(&bench->candidate, &attestation, NULL), 0);
    kiln_autoresult struct kiln_result result = {0};
    for (size_t i = 0; i < 2; i++) {
        const struct kiln_candidate_output *output = &bench->outputs[i];
        assert_int_equal(kiln_result_add_output(&result, (enum kiln_output_kind)output->kind, output->name, output->executable,
                                                output->size, &output->digest, NULL), 0);
    }
    struct kiln_digest digest;
    assert_int_equal(kiln_result_outputs_digest(result.outputs, result.outputs_count, &digest, NULL), 0);
    assert_true(kiln_digest_equal(&attestation.outputs, &digest));
    assert_string_equal(result.outputs[0].name, ""); // what was given is not put in order, only what is digested
    assert_int_equal(check(bench), 0);
}

static void the_order_of_outputs_does_not_matter(void **state) {
    struct bench *bench = *state;
    struct kiln_candidate_output first = bench->outputs[0];
    bench->outputs[0] = bench->outputs[1];
    bench->outputs[1] = first;
    assert_int_equal(check(bench), 0);
}

static void other_action(struct bench *bench) { bench->candidate.action_digest.bytes[31] ^= 1; }
static void other_executor(struct bench *bench) { bench->candidate.executor = text_of("executor-2"); }
static void other_pool(struct bench *bench) { bench->candidate.pool = text_of("west"); }
static void other_backend(struct bench *bench) { bench->candidate.backend = text_of("docker"); }
static void names_moved(struct bench *bench) {
    bench->candidate.executor = text_of("executor-1e");
    bench->candidate.pool = text_of("ast");
}
static void other_time(struct bench *bench) { bench->candidate.at_ms++; }
static void fewer_outputs(struct bench *bench) { bench->candidate.outputs_count--; }
static void other_content(struct bench *bench) { bench->outputs[1].digest.bytes[0] ^= 1; }
static void other_size(struct bench *bench) { bench->outputs[1].size++; }
static void other_mode(struct bench *bench) { bench->outputs[1].executable = false; }
static void other_name(struct bench *bench) { bench->outputs[1].name = text_of("b"); }
static void other_kind(struct bench *bench) { bench->outputs[0].kind = KILN_OUTPUT_STDOUT; }
static void other_signature(struct bench *bench) { bench->candidate.signature.bytes[63] ^= 1; }
static void no_signature(struct bench *bench) { memset(&bench->candidate.signature, 0, sizeof bench->candidate.signature); }
static void other_key(struct bench *bench) { bench->public_key[0] ^= 1; }
static void no_key(struct bench *bench) { memset(bench->public_key, 0, sizeof bench->public_key); }

static void nothing_can_be_changed(void **state) {
    (void)state;
    static void (*const changes[])(struct bench *) = {
        other_action, other_executor, other_pool, other_backend, names_moved, other_time,      fewer_outputs, other_content,
        other_size,   other_mode,     other_name, other_kind,    other_signature, no_signature, other_key,     no_key};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct bench *bench;
        setup((void **)&bench);
        changes[i](bench);
        if (check(bench) != KILN_E_CORRUPT)
            fail_msg("change %zu is taken", i);
        teardown((void **)&bench);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_what_the_result_will_name, setup, teardown),
        cmocka_unit_test_setup_teardown(the_order_of_outputs_does_not_matter, setup, teardown),
        cmocka_unit_test(nothing_can_be_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
