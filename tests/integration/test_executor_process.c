// kiln-executor on the embedded bus: credits, work, leases, candidates; and how it ends, by itself or by force.
#include "tests/integration/executor_rig.h"

#include <dirent.h>
#include <signal.h>
#include <time.h>

#include "consumer/executor/credits.h"
#include "lib/base/proc.h"
#include "lib/bus/bus.h"

#define SLOTS 2
#define PATIENCE_MS 20000

struct fleet {
    struct world *world;
    struct kiln_bus_server *server;
    struct kiln_bus *bus; // the verifier's
    pid_t executor;
    uint8_t next_job;
};

static int open_fleet(void **state) {
    struct fleet *fleet = calloc(1, sizeof *fleet);
    void *world;
    setup(&world);
    fleet->world = world;
    int fd = -1;
    const struct kiln_bus_subscription topics[] = {
        {.topic = KILN_TOPIC_CREDITS}, {.topic = KILN_TOPIC_LEASES}, {.topic = KILN_TOPIC_CANDIDATES}};
    assert_int_equal(kiln_bus_server_new(&fleet->server, NULL), 0);
    assert_int_equal(kiln_bus_server_connect(fleet->server, KILN_BUS_VERIFIER, &fd, NULL), 0);
    assert_int_equal(kiln_bus_open_fd(fd, &fleet->bus, NULL), 0);
    assert_int_equal(kiln_bus_subscribe(fleet->bus, topics, 3, NULL), 0);
    fleet->executor = -1;
    *state = fleet;
    return 0;
}

static void kill_executor(struct fleet *fleet, int number) {
    if (fleet->executor > 0) {
        kill(fleet->executor, number);
        waitpid(fleet->executor, NULL, 0);
    }
    fleet->executor = -1;
}

static int close_fleet(void **state) {
    struct fleet *fleet = *state;
    kill_executor(fleet, SIGKILL);
    kiln_bus_close(fleet->bus);
    kiln_bus_server_free(fleet->server);
    void *world = fleet->world;
    free(fleet);
    return teardown(&world);
}

// The next record of a topic, the others dropped; false when none comes in time.
static bool next_record(struct fleet *fleet, enum kiln_topic topic, uint64_t patience_ms, struct kiln_record *record) {
    for (uint64_t deadline_ms = kiln_clock_ms() + patience_ms;;) {
        *record = (struct kiln_record){0};
        if (kiln_bus_poll(fleet->bus, deadline_ms, record, NULL))
            return false;
        assert_int_equal(kiln_bus_ack(fleet->bus, record, NULL), 0);
        if (record->topic == topic)
            return true;
        kiln_record_release(record);
    }
}

static void start_executor(struct fleet *fleet) {
    int fd = -1;
    struct kiln_err err = {0};
    struct kiln_record stale; // credits of a killed predecessor
    while (next_record(fleet, KILN_TOPIC_CREDITS, 20, &stale))
        kiln_record_release(&stale);
    assert_int_equal(kiln_bus_server_connect(fleet->server, KILN_BUS_EXECUTOR, &fd, NULL), 0);
    const char *program = rig_program("consumer/kiln-executor");
    kiln_autofree char *libexec = kiln_path_dir(program);
    char *const argv[] = {(char *)"kiln-executor", (char *)"--dir", fleet->world->path, (char *)"--libexec", libexec,
                          (char *)"--slots", (char *)"2", NULL};
    char *const envp[] = {NULL};
    kiln_autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct kiln_proc_fd fds[] = {{null, 0}, {null, 1}, {null, 2}, {fd, 3}};
    const struct kiln_proc_options options = {.program = program, .argv = argv, .envp = envp, .fds = fds,
                                              .fds_count = 4};
    if (kiln_proc_spawn(&options, &fleet->executor, &err))
        fail_msg("%s", err.text);
    close(fd);
}

static void next_credit(struct fleet *fleet, struct kiln_credit *credit) {
    struct kiln_record record;
    if (!next_record(fleet, KILN_TOPIC_CREDITS, PATIENCE_MS, &record))
        fail_msg("no credit came");
    assert_int_equal(kiln_credit_decode(record.value, record.value_len, credit, NULL), 0);
    kiln_record_release(&record);
}

static void next_candidate(struct fleet *fleet, struct kiln_candidate *candidate) {
    struct kiln_record record;
    if (!next_record(fleet, KILN_TOPIC_CANDIDATES, PATIENCE_MS, &record))
        fail_msg("no candidate came");
    assert_int_equal(kiln_candidate_decode(record.value, record.value_len, candidate, NULL), 0);
    kiln_record_release(&record);
}

static struct kiln_job_id give_work(struct fleet *fleet, const struct kiln_credit *credit, const char *deed) {
    kiln_autoaction struct kiln_action action = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    make_action(fleet->world, deed, &action);
    assert_int_equal(kiln_action_encode(&action, &encoding, NULL), 0);
    struct kiln_work work = {.attempt = 1, .lease_ms = 400, .action = encoding.data, .action_len = encoding.len,
                             .scope = (char *)"local", .incarnation = credit->incarnation, .credit = credit->credit};
    work.job.bytes[0] = ++fleet->next_job;
    assert_int_equal(kiln_action_digest(&action, &work.action_digest, NULL), 0);
    assert_int_equal(kiln_work_encode(&work, &record, NULL), 0);
    assert_int_equal(kiln_bus_publish(fleet->bus, KILN_TOPIC_WORK, 0, credit->incarnation.bytes, 16, record.data, record.len,
                                      NULL), 0);
    return work.job;
}

static bool same_id(const struct kiln_job_id *a, const struct kiln_job_id *b) { return !memcmp(a, b, sizeof *a); }

// Processes of jobs that this test process gave out.
static int job_processes(void) {
    int count = 0;
    DIR *proc = opendir("/proc");
    assert_non_null(proc);
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[300], line[4096];
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        kiln_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd < 0 ? 0 : read(fd, line, sizeof line);
        const char *mark = executor_rig_mark();
        count += len > 0 && memmem(line, (size_t)len, mark, strlen(mark) + 1) != NULL;
    }
    closedir(proc);
    return count;
}

static void await_job_processes(bool some) {
    for (uint64_t deadline_ms = kiln_clock_ms() + PATIENCE_MS; (job_processes() != 0) != some;) {
        if (kiln_clock_left_ms(deadline_ms) == 0)
            fail_msg("%s", some ? "the job does not run" : "the job lives on");
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

static void works_for_its_credits(void **state) {
    struct fleet *fleet = *state;
    struct kiln_credit credits[SLOTS], renewed;
    start_executor(fleet);
    for (int i = 0; i < SLOTS; i++)
        next_credit(fleet, &credits[i]);
    assert_false(same_id(&credits[0].credit, &credits[1].credit));
    assert_true(same_id(&credits[0].incarnation, &credits[1].incarnation));
    struct kiln_job_id job = give_work(fleet, &credits[0], "good");
    struct kiln_candidate candidate = {0};
    next_candidate(fleet, &candidate);
    assert_true(same_id(&candidate.job, &job));
    assert_int_equal(candidate.status, KILN_RUN_EXITED);
    assert_int_equal(candidate.outputs_count, 5);
    kiln_candidate_release(&candidate);
    next_credit(fleet, &renewed);
    assert_false(same_id(&renewed.credit, &credits[0].credit));
    // A spent credit buys nothing, nor one of another incarnation; the next good one does.
    give_work(fleet, &credits[0], "good");
    struct kiln_credit foreign = credits[1];
    foreign.incarnation.bytes[0] ^= 1;
    give_work(fleet, &foreign, "good");
    job = give_work(fleet, &credits[1], "fail");
    next_candidate(fleet, &candidate);
    assert_true(same_id(&candidate.job, &job));
    assert_int_equal(candidate.exit_code, 1);
    kiln_candidate_release(&candidate);
    for (int i = 0; i < SLOTS; i++)
        kiln_credit_release(&credits[i]);
    kiln_credit_release(&renewed);
}

static void next_decline(struct fleet *fleet, struct kiln_decline *decline) {
    struct kiln_record record;
    enum kiln_record_type type;
    do {
        if (!next_record(fleet, KILN_TOPIC_LEASES, PATIENCE_MS, &record))
            fail_msg("no decline came");
        assert_int_equal(kiln_record_type_of(record.value, record.value_len, &type, NULL), 0);
        if (type == KILN_RECORD_decline)
            assert_int_equal(kiln_decline_decode(record.value, record.value_len, decline, NULL), 0);
        kiln_record_release(&record);
    } while (type != KILN_RECORD_decline);
}

static void declines_work_for_a_void_credit(void **state) {
    struct fleet *fleet = *state;
    struct kiln_credit credits[SLOTS];
    struct kiln_decline decline = {0};
    struct kiln_candidate candidate = {0};
    start_executor(fleet);
    for (int i = 0; i < SLOTS; i++)
        next_credit(fleet, &credits[i]);
    struct kiln_credit forged = credits[0];
    forged.credit.bytes[0] ^= 1;
    struct kiln_job_id job = give_work(fleet, &forged, "good");
    next_decline(fleet, &decline);
    assert_true(same_id(&decline.job, &job));
    assert_true(same_id(&decline.credit, &forged.credit));
    kiln_decline_release(&decline);
    // The slot is none the worse for it; a drained executor has no slots.
    job = give_work(fleet, &credits[0], "good");
    next_candidate(fleet, &candidate);
    assert_true(same_id(&candidate.job, &job));
    kiln_candidate_release(&candidate);
    for (int i = 0; i < SLOTS; i++)
        kiln_credit_release(&credits[i]);
}

static void offers_again_where_credits_are_wanted(void **state) {
    struct fleet *fleet = *state;
    struct kiln_credit credits[SLOTS], fresh;
    start_executor(fleet);
    for (int i = 0; i < SLOTS; i++)
        next_credit(fleet, &credits[i]);
    const struct kiln_demand demand = {.partition = 0, .count = 1, .at_ms = kiln_clock_wall_ms()};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_int_equal(kiln_demand_encode(&demand, &record, NULL), 0);
    // A fresh credit answers a demand that crossed it; an older one the verifier may have lost, so it comes anew.
    struct kiln_record none;
    assert_false(next_record(fleet, KILN_TOPIC_CREDITS, 2 * KILN_CREDIT_SETTLE_MS, &none));
    assert_int_equal(kiln_bus_publish(fleet->bus, KILN_TOPIC_WORK, 0, "d", 1, record.data, record.len, NULL), 0);
    next_credit(fleet, &fresh);
    for (int i = 0; i < SLOTS; i++) {
        assert_false(same_id(&fresh.credit, &credits[i].credit));
        kiln_credit_release(&credits[i]);
    }
    assert_false(next_record(fleet, KILN_TOPIC_CREDITS, 100, &none)); // one was wanted
    kiln_credit_release(&fresh);
}

static void keeps_its_lease(void **state) {
    struct fleet *fleet = *state;
    struct kiln_credit credit;
    struct kiln_record record;
    start_executor(fleet);
    next_credit(fleet, &credit);
    struct kiln_job_id job = give_work(fleet, &credit, "sleep");
    for (int i = 0; i < 3; i++) {
        struct kiln_lease lease;
        assert_true(next_record(fleet, KILN_TOPIC_LEASES, PATIENCE_MS, &record));
        assert_int_equal(kiln_lease_decode(record.value, record.value_len, &lease, NULL), 0);
        assert_true(same_id(&lease.job, &job));
        kiln_lease_release(&lease);
        kiln_record_release(&record);
    }
    kiln_credit_release(&credit);
}

static void start_sleeping_job(struct fleet *fleet) {
    struct kiln_credit credit;
    start_executor(fleet);
    next_credit(fleet, &credit);
    give_work(fleet, &credit, "sleep");
    kiln_credit_release(&credit);
    await_job_processes(true);
}

static void ends_when_told(void **state) {
    struct fleet *fleet = *state;
    start_sleeping_job(fleet);
    kill(fleet->executor, SIGTERM);
    int status;
    assert_int_equal(kiln_proc_wait(fleet->executor, kiln_clock_ms() + PATIENCE_MS, &status, NULL), 0);
    fleet->executor = -1;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    await_job_processes(false);
}

static void ends_with_the_bus(void **state) {
    struct fleet *fleet = *state;
    start_sleeping_job(fleet);
    kiln_bus_close(fleet->bus);
    kiln_bus_server_free(fleet->server);
    fleet->bus = NULL;
    fleet->server = NULL;
    assert_int_equal(kiln_proc_wait(fleet->executor, kiln_clock_ms() + PATIENCE_MS, NULL, NULL), 0);
    fleet->executor = -1;
    await_job_processes(false);
}

static unsigned jobs_left(const struct fleet *fleet) {
    char path[512];
    unsigned count = 0;
    join(path, fleet->world->path, "executor/jobs");
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void a_successor_cleans_up(void **state) {
    struct fleet *fleet = *state;
    struct kiln_credit credit;
    struct kiln_candidate candidate = {0};
    for (int round = 0; round < 3; round++) {
        start_sleeping_job(fleet);
        kill_executor(fleet, SIGKILL);
        await_job_processes(false);
        assert_int_equal(jobs_left(fleet), 1);
    }
    start_executor(fleet);
    next_credit(fleet, &credit);
    assert_int_equal(jobs_left(fleet), 0);
    give_work(fleet, &credit, "good");
    next_candidate(fleet, &candidate);
    assert_int_equal(candidate.status, KILN_RUN_EXITED);
    assert_int_equal(candidate.exit_code, 0);
    kiln_candidate_release(&candidate);
    kiln_credit_release(&credit);
}

static int tests(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test_setup_teardown(works_for_its_credits, open_fleet, close_fleet),
        cmocka_unit_test_setup_teardown(declines_work_for_a_void_credit, open_fleet, close_fleet),
        cmocka_unit_test_setup_teardown(offers_again_where_credits_are_wanted, open_fleet, close_fleet),
        cmocka_unit_test_setup_teardown(keeps_its_lease, open_fleet, close_fleet),
        cmocka_unit_test_setup_teardown(ends_when_told, open_fleet, close_fleet),
        cmocka_unit_test_setup_teardown(ends_with_the_bus, open_fleet, close_fleet),
        cmocka_unit_test_setup_teardown(a_successor_cleans_up, open_fleet, close_fleet),
    };
    return cmocka_run_group_tests_name("executor process", all, NULL, NULL);
}

int main(void) { return rig_both(tests); }
