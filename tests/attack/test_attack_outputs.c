// Hostile compilers in the executor's own jobs: outputs that are not files, or change; everything that could be used up. Each ends
// within its limit, nothing of it leaves the executor, and a job beside it is not harmed.
#include "tests/integration/executor_rig.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>

#define RLIB "libfoo-abc.rlib"
#define WALL_MS 1500

static const struct kiln_job_limits limits = {.wall_ms = WALL_MS, .memory_bytes = 256u << 20, .out_bytes = 16u << 20,
                                              .tmp_bytes = 16u << 20, .file_bytes = 8u << 20, .text_bytes = 1u << 20,
                                              .inodes = 2000, .processes = 64};

// Processes of jobs of this test, by the argument that only they have.
static unsigned running(void) {
    unsigned count = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[300];
        kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(1u << 16);
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && kiln_fs_read_file(AT_FDCWD, path, &line, NULL) == 0)
            count += memmem(line.data, line.len, executor_rig_mark(), strlen(executor_rig_mark())) != NULL;
    }
    closedir(proc);
    return count;
}

struct outcome {
    const char *deed;
    enum kiln_run_status status;
    int exit_code;
    const char *reason; // NULL: none
};

static void expect(const struct world *world, const struct outcome *outcome) {
    struct kiln_candidate candidate = {0};
    executor_run(world, outcome->deed, &candidate);
    bool reason = !outcome->reason || starts_with_any(candidate.reasons, candidate.reasons_count, outcome->reason);
    if (candidate.status != outcome->status || candidate.exit_code != outcome->exit_code || !reason) {
        explain(&candidate);
        fail_msg("%s: status %d, exit %d", outcome->deed, (int)candidate.status, (int)candidate.exit_code);
    }
    if (candidate.status != KILN_RUN_EXITED || candidate.exit_code)
        assert_int_equal(candidate.outputs_count, 0);
    assert_int_equal(running(), 0);
    kiln_candidate_release(&candidate);
}

static void outputs_are_plain_files(void **state) {
    struct world *world = *state;
    static const struct outcome outcomes[] = {
        {"link-to-host", KILN_RUN_LIMIT, 0, "job_outputs: output " RLIB},
        {"put hard-link", KILN_RUN_LIMIT, 0, "job_outputs: output " RLIB " has 2 names"},
        {"put hard-link-to-input", KILN_RUN_EXITED, EXDEV, NULL},
        {"put fifo", KILN_RUN_EXITED, EPERM, NULL},
        {"put device", KILN_RUN_EXITED, EPERM, NULL},
        {"put socket", KILN_RUN_EXITED, EACCES, NULL},
        {"put directory", KILN_RUN_LIMIT, 0, "job_outputs: output " RLIB " is not a regular file"},
        {"out-dir", KILN_RUN_EXITED, EROFS, NULL},
        {"sparse", KILN_RUN_LIMIT, 0, "job_limit: wrote a larger file than it may"},
    };
    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++)
        expect(world, &outcomes[i]);
}

// What the filter of system calls keeps from being made is refused by the collector too, and without waiting for a writer.
static void collector_refuses_by_itself(void **state) {
    struct world *world = *state;
    world->without = "--seccomp";
    static const struct outcome outcomes[] = {
        {"put fifo", KILN_RUN_LIMIT, 0, "job_outputs: output " RLIB " is not a regular file"},
        {"put socket", KILN_RUN_LIMIT, 0, "job_outputs: output " RLIB " cannot be opened as a plain file"},
        {"put device", KILN_RUN_EXITED, EPERM, NULL}, // nobody in it has the capability
    };
    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++)
        expect(world, &outcomes[i]);
}

static const struct kiln_candidate_output *find_output(const struct kiln_candidate *candidate, const char *name) {
    for (size_t i = 0; i < candidate->outputs_count; i++)
        if (!strcmp(candidate->outputs[i].name, name))
            return &candidate->outputs[i];
    return NULL;
}

static void unexpected_names_stay_behind(void **state) {
    struct world *world = *state;
    struct kiln_candidate candidate = {0};
    executor_run(world, "names", &candidate);
    assert_int_equal(candidate.status, KILN_RUN_EXITED);
    assert_int_equal(candidate.exit_code, 0);
    assert_int_equal(candidate.outputs_count, 5); // three files, two texts
    assert_stored(world, find_output(&candidate, RLIB), SOURCE);
    kiln_candidate_release(&candidate);
}

// The stored bytes of an output, whatever they are: those of its digest.
static void read_stored(const struct world *world, const struct kiln_candidate_output *output, struct kiln_buf *bytes) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    struct kiln_digest digest;
    kiln_digest_format(&output->digest, hex);
    kiln_autofree char *key = kiln_key_quarantine_out(EXECUTOR, "00000000000000000000000000000001", 1, hex);
    assert_int_equal(kiln_store_get_bytes(world->verifier_store, KILN_SPACE_QUARANTINE, key, bytes, NULL), 0);
    kiln_digest_of(bytes->data, bytes->len, &digest);
    assert_true(kiln_digest_equal(&digest, &output->digest));
    assert_int_equal(bytes->len, output->size);
}

// A grandchild that swaps the output for a link to its environment and back, until it is killed.
static void swapping_leads_nowhere(void **state) {
    struct world *world = *state;
    for (int round = 0; round < 20; round++) {
        struct kiln_candidate candidate = {0};
        executor_run(world, "race", &candidate);
        assert_int_equal(running(), 0);
        if (candidate.status == KILN_RUN_LIMIT) {
            assert_true(starts_with_any(candidate.reasons, candidate.reasons_count, "job_outputs: output " RLIB));
        } else {
            kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1u << 20);
            assert_int_equal(candidate.status, KILN_RUN_EXITED);
            read_stored(world, find_output(&candidate, RLIB), &bytes);
            if (strcmp(kiln_buf_text(&bytes), SOURCE) && strcmp(kiln_buf_text(&bytes), "other"))
                fail_msg("collected: %.100s", kiln_buf_text(&bytes));
        }
        kiln_candidate_release(&candidate);
    }
}

// A grandchild that goes on writing: nothing of it is there any more when the collector looks, so what is stored does not change.
static void late_bytes_are_not_collected(void **state) {
    struct world *world = *state;
    for (int round = 0; round < 10; round++) {
        struct kiln_candidate candidate = {0};
        executor_run(world, "late", &candidate);
        assert_int_equal(running(), 0);
        assert_int_equal(candidate.status, KILN_RUN_EXITED);
        kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(16u << 20);
        read_stored(world, find_output(&candidate, RLIB), &bytes);
        kiln_candidate_release(&candidate);
    }
}

// By what a host that has no control groups for us (an ordinary user's, here) can still enforce.
static const struct outcome *bombs(size_t *count) {
    static struct outcome outcomes[] = {
        {"fork-bomb 1000000", KILN_RUN_LIMIT, 0, "job_limit: ran longer than"},
        {"memory-bomb 100000", KILN_RUN_LIMIT, 0, "job_limit: used more memory"},
        {"inodes 1000000", KILN_RUN_LIMIT, 0, "job_limit: made more files than it may"},
        {"flood 1000000", KILN_RUN_LIMIT, 0, "job_limit: stdout grew over"},
        {"spin", KILN_RUN_LIMIT, 0, "job_limit: ran longer than"},
        {"stop", KILN_RUN_LIMIT, 0, "job_limit: ran longer than"},
    };
    if (geteuid() != 0)
        outcomes[1] = (struct outcome){"memory-bomb 100000", KILN_RUN_SIGNALED, SIGABRT, "job_signal"};
    *count = sizeof outcomes / sizeof *outcomes;
    return outcomes;
}

static void bombs_end_within_their_limits(void **state) {
    struct world *world = *state;
    size_t count;
    const struct outcome *outcomes = bombs(&count);
    world->context.limits = &limits;
    for (size_t i = 0; i < count; i++) {
        uint64_t started_ms = kiln_clock_ms();
        expect(world, &outcomes[i]);
        assert_in_range(kiln_clock_ms() - started_ms, 0, WALL_MS + 15000); // of a busy machine
    }
}

static const struct kiln_job_limits wide = {.wall_ms = 60000, .memory_bytes = 2ull << 30, .out_bytes = 16u << 20,
                                            .tmp_bytes = 16u << 20, .file_bytes = 2ull << 40, .text_bytes = 64u << 20,
                                            .inodes = 100000, .processes = 4000};

// The same with the one limit wide: each gets what it wants, so it is the limit that ends it.
static void bombs_win_without_their_limit(void **state) {
    struct world *world = *state;
    world->context.limits = &wide;
    static const char *const deeds[] = {"fork-bomb 300", "memory-bomb 400", "inodes 5000", "flood 64", "sparse"};
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        struct outcome won = {deeds[i], KILN_RUN_EXITED, 0, NULL};
        if (!strcmp(deeds[i], "sparse")) // written, and then larger than what a job may give back
            won = (struct outcome){deeds[i], KILN_RUN_LIMIT, 0, "job_outputs: outputs are larger than"};
        expect(world, &won);
    }
}

struct bomb {
    const struct world *world;
    const char *deed;
    int done; // atomically
};

static void *explode(void *argument) {
    struct bomb *bomb = argument;
    struct kiln_candidate candidate = {0};
    executor_run(bomb->world, bomb->deed, &candidate);
    kiln_candidate_release(&candidate);
    __atomic_store_n(&bomb->done, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static uint64_t good_job_ms(const struct world *world) {
    struct kiln_candidate candidate = {0};
    uint64_t started_ms = kiln_clock_ms();
    executor_run(world, "good", &candidate);
    if (candidate.status != KILN_RUN_EXITED || candidate.exit_code)
        explain(&candidate);
    assert_int_equal(candidate.status, KILN_RUN_EXITED);
    assert_int_equal(candidate.exit_code, 0);
    assert_stored(world, find_output(&candidate, RLIB), SOURCE);
    kiln_candidate_release(&candidate);
    return kiln_clock_ms() - started_ms;
}

static void job_beside_a_bomb_is_unharmed(void **state) {
    struct world *world = *state;
    size_t count;
    const struct outcome *outcomes = bombs(&count);
    world->context.limits = &limits;
    printf("a good job alone: %u ms\n", (unsigned)good_job_ms(world));
    for (size_t i = 0; i < count; i++) {
        struct bomb bomb = {.world = world, .deed = outcomes[i].deed};
        pthread_t thread;
        uint64_t longest_ms = 0;
        unsigned jobs = 0;
        assert_int_equal(pthread_create(&thread, NULL, explode, &bomb), 0);
        do {
            uint64_t took_ms = good_job_ms(world);
            longest_ms = took_ms > longest_ms ? took_ms : longest_ms;
            jobs++;
        } while (!__atomic_load_n(&bomb.done, __ATOMIC_SEQ_CST));
        pthread_join(thread, NULL);
        printf("beside \"%s\": %u good jobs, the longest took %u ms\n", outcomes[i].deed, jobs, (unsigned)longest_ms);
    }
    printf("after them: %u ms\n", (unsigned)good_job_ms(world));
}

static int tests(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test_setup_teardown(outputs_are_plain_files, setup, teardown),
        cmocka_unit_test_setup_teardown(collector_refuses_by_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(unexpected_names_stay_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(swapping_leads_nowhere, setup, teardown),
        cmocka_unit_test_setup_teardown(late_bytes_are_not_collected, setup, teardown),
        cmocka_unit_test_setup_teardown(bombs_end_within_their_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(bombs_win_without_their_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(job_beside_a_bomb_is_unharmed, setup, teardown),
    };
    return cmocka_run_group_tests_name("attacks of compilers", all, NULL, NULL);
}

int main(void) { return rig_both(tests); }
