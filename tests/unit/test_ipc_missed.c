// Notes of compiles that no agent heard of.
#include "scratch.h"

#include <sys/wait.h>

#include "lib/ipc/missed.h"

struct seen {
    size_t count, mixed; // mixed: words that nobody in the last test wrote
    char words[64][80];
};

static void see(void *context, const char *reason) {
    struct seen *seen = context;
    if (seen->count < 64)
        snprintf(seen->words[seen->count], sizeof seen->words[0], "%s", reason);
    seen->count++;
    seen->mixed += strcmp(reason, "agent_absent") && strcmp(reason, "agent_silent_for_long");
}

static void test_notes_are_kept_until_taken(void **state) {
    const struct scratch *scratch = *state;
    struct seen seen = {0};
    assert_int_equal(kiln_missed_read(scratch->path, see, &seen, NULL), 0);
    assert_int_equal(kiln_missed_take(scratch->path, see, &seen, NULL), 0);
    assert_int_equal(seen.count, 0);
    kiln_missed_add(scratch->path, "agent_absent");
    kiln_missed_add(scratch->path, "agent_silent");
    assert_int_equal(kiln_missed_read(scratch->path, see, &seen, NULL), 0);
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.words[0], "agent_absent");
    assert_string_equal(seen.words[1], "agent_silent");
    seen = (struct seen){0};
    assert_int_equal(kiln_missed_take(scratch->path, see, &seen, NULL), 0);
    assert_int_equal(seen.count, 2);
    assert_int_equal(kiln_missed_take(scratch->path, see, &seen, NULL), 0);
    assert_int_equal(seen.count, 2);
}

static void test_what_is_no_word_is_unknown(void **state) {
    const struct scratch *scratch = *state;
    static const char notes[] = "fine\n<script>\n\nUPPER\nx\0y\nlast_without_end";
    scratch_write(scratch, "agent.missed", notes, sizeof notes - 1);
    struct seen seen = {0};
    assert_int_equal(kiln_missed_read(scratch->path, see, &seen, NULL), 0);
    assert_true(seen.count >= 4);
    assert_string_equal(seen.words[0], "fine");
    for (size_t i = 1; i < 4; i++)
        assert_string_equal(seen.words[i], "unknown");
    for (size_t i = 0; i < seen.count; i++)
        assert_string_not_equal(seen.words[i], "last_without_end");
}

static void test_notes_are_bounded(void **state) {
    const struct scratch *scratch = *state;
    int fd = openat(scratch->fd, "agent.missed", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    kiln_missed_add(scratch->path, "agent_absent");
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 1 << 20);
    close(fd);
}

static void test_links_are_not_followed(void **state) {
    const struct scratch *scratch = *state;
    scratch_write(scratch, "victim", "", 0);
    assert_int_equal(symlinkat("victim", scratch->fd, "agent.missed"), 0);
    kiln_missed_add(scratch->path, "agent_absent");
    struct stat st;
    assert_int_equal(fstatat(scratch->fd, "victim", &st, 0), 0);
    assert_int_equal(st.st_size, 0);
    kiln_missed_add("/nonexistent/directory", "agent_absent"); // nothing to see, nothing to crash
}

static void test_notes_of_many_processes_do_not_mix(void **state) {
    const struct scratch *scratch = *state;
    for (int i = 0; i < 16; i++) {
        if (fork() == 0) {
            for (int k = 0; k < 100; k++)
                kiln_missed_add(scratch->path, i % 2 ? "agent_absent" : "agent_silent_for_long");
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        ;
    struct seen seen = {0};
    assert_int_equal(kiln_missed_take(scratch->path, see, &seen, NULL), 0);
    assert_int_equal(seen.count, 1600);
    assert_int_equal(seen.mixed, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(test_notes_are_kept_until_taken), scratch_test(test_what_is_no_word_is_unknown),
        scratch_test(test_notes_are_bounded),          scratch_test(test_links_are_not_followed),
        scratch_test(test_notes_of_many_processes_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
