// The agent's link to its fleet with brokers and a store that the test turns on and off.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "lib/base/clock.h"
#include "producer/agent/link.h"

#define PATIENCE_MS 300u
#define PROBE_MS 5u
#define DEADLINE_MS 10000u

struct rig {
    struct kiln_bus_server *server;
    struct kiln_link *link;
    atomic_bool brokers, store;
    atomic_int opens, probes;
};

static int open_bus(void *context, struct kiln_bus **bus, struct kiln_err *err) {
    struct rig *rig = context;
    int fd;
    atomic_fetch_add(&rig->opens, 1);
    if (!atomic_load(&rig->brokers))
        return kiln_fail(err, KILN_E_IO, "nobody listens");
    assert_int_equal(kiln_bus_server_connect(rig->server, KILN_BUS_AGENT, &fd, NULL), 0);
    return kiln_bus_open_fd(fd, bus, err);
}

static int probe_store(void *context, struct kiln_err *err) {
    struct rig *rig = context;
    atomic_fetch_add(&rig->probes, 1);
    return atomic_load(&rig->store) ? 0 : kiln_fail(err, KILN_E_IO, "no answer");
}

static void open_rig(struct rig *rig) {
    *rig = (struct rig){0};
    atomic_store(&rig->store, true);
    assert_int_equal(kiln_bus_server_new(&rig->server, NULL), 0);
    const struct kiln_link_options options = {.open_bus = open_bus, .probe_store = probe_store, .context = rig,
                                              .submitter = {.agent = "agent-1", .tenant = "red"}, .patience_ms = PATIENCE_MS,
                                              .probe_ms = PROBE_MS};
    assert_int_equal(kiln_link_new(&options, &rig->link, NULL), 0);
}

static void close_rig(struct rig *rig) {
    kiln_link_free(rig->link);
    kiln_bus_server_free(rig->server);
}

static void nothing_is_connected_before_the_first_miss(void **state) {
    (void)state;
    struct rig rig;
    struct kiln_link_state shown;
    open_rig(&rig);
    atomic_store(&rig.brokers, true);
    kiln_link_show(rig.link, &shown);
    assert_string_equal(shown.bus, "idle");
    assert_true(shown.store_up);
    assert_int_equal(kiln_link_waiting(rig.link), 0);
    assert_int_equal(atomic_load(&rig.opens), 0);
    struct kiln_submitter *submitter = NULL;
    assert_int_equal(kiln_link_submitter(rig.link, &submitter, NULL), 0);
    assert_non_null(submitter);
    kiln_link_show(rig.link, &shown);
    assert_string_equal(shown.bus, "up");
    close_rig(&rig);
}

static void *ask(void *argument) {
    struct rig *rig = argument;
    struct kiln_submitter *submitter;
    struct kiln_err err = {0};
    assert_int_equal(kiln_link_submitter(rig->link, &submitter, &err), KILN_E_UNSUPPORTED);
    return NULL;
}

static void a_dead_fleet_is_waited_for_once(void **state) {
    (void)state;
    struct rig rig;
    pthread_t threads[8];
    struct kiln_submitter *submitter;
    struct kiln_err err = {0};
    open_rig(&rig);
    uint64_t begin_ms = kiln_clock_ms();
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, ask, &rig);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    uint64_t first_ms = kiln_clock_ms() - begin_ms;
    assert_in_range(first_ms, PATIENCE_MS - 1, PATIENCE_MS * 2);
    begin_ms = kiln_clock_ms();
    for (int i = 0; i < 100; i++)
        assert_int_equal(kiln_link_submitter(rig.link, &submitter, &err), KILN_E_UNSUPPORTED);
    assert_in_range(kiln_clock_ms() - begin_ms, 0, 100);
    assert_string_equal(err.text, "fleet_unreachable: nobody listens");
    close_rig(&rig);
}

static void it_finds_brokers_that_come_later(void **state) {
    (void)state;
    struct rig rig;
    struct kiln_submitter *submitter;
    open_rig(&rig);
    assert_int_equal(kiln_link_submitter(rig.link, &submitter, NULL), KILN_E_UNSUPPORTED);
    atomic_store(&rig.brokers, true);
    for (uint64_t deadline_ms = kiln_clock_ms() + DEADLINE_MS; kiln_link_submitter(rig.link, &submitter, NULL);) {
        assert_true(kiln_clock_left_ms(deadline_ms) > 0);
        sched_yield();
    }
    close_rig(&rig);
}

// Brokers are there, verifiers are not: one waits, the others are told at once.
static void a_silent_fleet_is_left_alone_until_it_speaks(void **state) {
    (void)state;
    struct rig rig;
    struct kiln_submitter *submitter = NULL;
    struct kiln_err err = {0};
    open_rig(&rig);
    atomic_store(&rig.brokers, true);
    assert_int_equal(kiln_link_submitter(rig.link, &submitter, &err), 0);
    kiln_link_silent(rig.link, "fleet_silent: nobody");
    assert_int_equal(kiln_link_submitter(rig.link, &submitter, &err), KILN_E_UNSUPPORTED);
    assert_string_equal(err.text, "fleet_silent: nobody");
    int fd;
    struct kiln_bus *verifier;
    assert_int_equal(kiln_bus_server_connect(rig.server, KILN_BUS_VERIFIER, &fd, NULL), 0);
    assert_int_equal(kiln_bus_open_fd(fd, &verifier, NULL), 0);
    struct kiln_job_id job = {{1}};
    const struct kiln_answer word = {.jobs = &job, .jobs_count = 1, .status = KILN_ANSWER_ACCEPTED}; // to whomever
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_int_equal(kiln_answer_encode(&word, &bytes, NULL), 0);
    for (uint64_t deadline_ms = kiln_clock_ms() + DEADLINE_MS; kiln_link_submitter(rig.link, &submitter, NULL);) {
        assert_true(kiln_clock_left_ms(deadline_ms) > 0);
        assert_int_equal(kiln_bus_publish_result(verifier, "local", 0, "k", 1, bytes.data, bytes.len, NULL), 0);
        sched_yield();
    }
    kiln_bus_close(verifier);
    close_rig(&rig);
}

static void a_store_that_does_not_answer_is_left_alone_until_it_does(void **state) {
    (void)state;
    struct rig rig;
    open_rig(&rig);
    atomic_store(&rig.store, false);
    struct kiln_err missing = {0}, gone = {0}, err = {0};
    kiln_fail(&missing, KILN_E_NOTFOUND, "no such object");
    kiln_link_store_failed(rig.link, &missing);
    assert_int_equal(missing.code, KILN_E_NOTFOUND); // an answer like others
    assert_int_equal(kiln_link_store(rig.link, NULL), 0);
    kiln_fail(&gone, KILN_E_IO, "connection refused");
    kiln_link_store_failed(rig.link, &gone);
    assert_int_equal(gone.code, KILN_E_UNSUPPORTED);
    assert_string_equal(gone.text, "store_unreachable: connection refused");
    assert_int_equal(kiln_link_store(rig.link, &err), KILN_E_UNSUPPORTED);
    assert_string_equal(err.text, gone.text);
    for (uint64_t deadline_ms = kiln_clock_ms() + DEADLINE_MS; atomic_load(&rig.probes) < 2;)
        assert_true(kiln_clock_left_ms(deadline_ms) > 0);
    assert_int_equal(kiln_link_store(rig.link, NULL), KILN_E_UNSUPPORTED);
    atomic_store(&rig.store, true);
    for (uint64_t deadline_ms = kiln_clock_ms() + DEADLINE_MS; kiln_link_store(rig.link, NULL);)
        assert_true(kiln_clock_left_ms(deadline_ms) > 0);
    close_rig(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_connected_before_the_first_miss),
        cmocka_unit_test(a_dead_fleet_is_waited_for_once),
        cmocka_unit_test(it_finds_brokers_that_come_later),
        cmocka_unit_test(a_silent_fleet_is_left_alone_until_it_speaks),
        cmocka_unit_test(a_store_that_does_not_answer_is_left_alone_until_it_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
