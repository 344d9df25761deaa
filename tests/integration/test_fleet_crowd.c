// Many at once, on real Kafka and MinIO with real verifiers: a thousand that want the same, one that never uploads, a verifier that
// is killed between, and a tenant with ten thousand jobs beside a tenant with one.
#include "tests/integration/fleet_outsider.h"

#define CROWD 20u   // agents: incarnations of two principals of a tenant
#define EACH 50u    // submissions of each
#define CROWD_MS 60000u
#define MANY_QUICK 10000u
#define TURNS_BEFORE 3u

struct crowd {
    struct actor agents[CROWD];
    struct kiln_job_submitted records[CROWD * EACH]; // of agent i: i * EACH and on
    bool answered[CROWD * EACH];
    unsigned results, executions;
    const char *silent; // principal that never uploads
    struct kiln_digest rlib;
    bool asked, uploaded;  // the silent one was; something was
    bool keeps, heeds;     // a work is kept instead of done; a demand is answered by a credit, once
    struct kiln_work kept;
};

static struct crowd crowd;

// A submitter that says nothing is waited for as long as that.
static const char quick[] = "\n[verifier]\nupload = 1500ms\n";

static int up(void **state) {
    (void)state;
    return fleet_up_with(quick);
}

static int gather(void **state) {
    static const enum kiln_topic results[] = {KILN_TOPIC_RESULTS};
    (void)state;
    fleet_next_action();
    crowd = (struct crowd){0};
    kiln_digest_of("the rlib of all", 15, &crowd.rlib);
    for (unsigned i = 0; i < CROWD; i++) {
        crowd.agents[i] = fleet_actor(i % 2 ? "agent-2" : "agent-1", KILN_ROLE_OF_AGENT, results, 1);
        for (unsigned k = 0; k < EACH; k++)
            fleet_submission(&crowd.agents[i], &crowd.records[i * EACH + k]);
    }
    return 0;
}

static int disperse(void **state) {
    (void)state;
    for (unsigned i = 0; i < CROWD; i++)
        fleet_dismiss(&crowd.agents[i]);
    for (unsigned i = 0; i < CROWD * EACH; i++)
        kiln_job_submitted_release(&crowd.records[i]);
    kiln_work_release(&crowd.kept);
    return 0;
}

// Submissions from k on, all agents in turn.
static void submit(unsigned from, unsigned to) {
    for (unsigned k = from; k < to; k++) {
        for (unsigned i = 0; i < CROWD; i++)
            fleet_submit(&crowd.agents[i], &crowd.records[i * EACH + k]);
    }
}

static void take_result(const struct actor *agent, unsigned which, const struct kiln_answer *answer) {
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_err err = {0};
    struct kiln_keeper *keeper = kiln_fleet_keeper(agent->fleet);
    const struct kiln_job_submitted *record = &crowd.records[which];
    if (!crowd.answered[which]) {
        fleet_must(kiln_keeper_open_result(keeper, answer->envelope, answer->envelope_len, &record->action_digest, record->scope,
                                           kiln_keeper_generation(keeper), &result, &err), &err);
        assert_true(kiln_digest_equal(&fleet_output(&result, "libdemo-0123.rlib")->digest, &crowd.rlib));
        crowd.results++;
    }
    crowd.answered[which] = true;
}

static void take_answer(unsigned who, const struct kiln_answer *answer) {
    const struct actor *agent = &crowd.agents[who];
    for (size_t i = 0; i < answer->jobs_count; i++) {
        for (unsigned which = who * EACH; which < (who + 1) * EACH; which++) {
            if (memcmp(&answer->jobs[i], &crowd.records[which].job, sizeof answer->jobs[i]) != 0)
                continue;
            if (answer->status == KILN_ANSWER_RESULT)
                take_result(agent, which, answer);
            else if (answer->status == KILN_ANSWER_WANTED && crowd.silent && !strcmp(agent->author.principal, crowd.silent))
                crowd.asked = true;
            else if (answer->status == KILN_ANSWER_WANTED) {
                fleet_upload(agent, &crowd.records[which]);
                crowd.uploaded = true;
            } else if (answer->status == KILN_ANSWER_REJECTED || answer->status == KILN_ANSWER_COMPILE_LOCALLY)
                fail_msg("answer %d \"%s\"", (int)answer->status, answer->reasons_count ? answer->reasons[0] : "");
        }
    }
}

static void hear_answers(void) {
    struct kiln_record heard;
    for (unsigned i = 0; i < CROWD; i++) {
        while (fleet_hear(&crowd.agents[i], KILN_TOPIC_RESULTS, 0, &heard)) {
            struct kiln_answer answer = {0};
            assert_int_equal(kiln_answer_decode(heard.value, heard.value_len, &answer, NULL), 0);
            kiln_record_release(&heard);
            take_answer(i, &answer);
            kiln_answer_release(&answer);
        }
    }
}

static void do_work(const struct kiln_work *work) {
    struct kiln_candidate candidate;
    fleet_candidate(&fleet.executor, work, "the rlib of all", &candidate);
    fleet_sign(&fleet.executor, &candidate);
    fleet_deliver(&fleet.executor, &candidate);
    kiln_candidate_release(&candidate);
}

static bool is_for(const struct kiln_record *heard, const struct actor *executor, struct kiln_work *work) {
    return kiln_work_decode(heard->value, heard->value_len, work, NULL) == 0 &&
           !memcmp(&work->incarnation, &executor->author.incarnation, 16);
}

static void heed(const struct kiln_record *heard) {
    enum kiln_record_type type;
    if (!crowd.heeds || kiln_record_type_of(heard->value, heard->value_len, &type, NULL) || type != KILN_RECORD_demand)
        return;
    fleet_credit(&fleet.executor);
    crowd.heeds = false;
}

static void hear_work(void) {
    struct kiln_record heard;
    while (fleet_hear(&fleet.executor, KILN_TOPIC_WORK, 0, &heard)) {
        heed(&heard);
        struct kiln_work work = {0};
        if (is_for(&heard, &fleet.executor, &work) && kiln_digest_equal(&work.action_digest, &fleet.rig->action_digest)) {
            crowd.executions++;
            if (crowd.keeps)
                crowd.kept = work, work = (struct kiln_work){0};
            else
                do_work(&work);
        }
        kiln_work_release(&work);
        kiln_record_release(&heard);
    }
}

// Answers and work, until that holds.
static void go_on(bool (*until)(void), const char *what) {
    for (uint64_t deadline_ms = kiln_clock_ms() + CROWD_MS; !until();) {
        if (!kiln_clock_left_ms(deadline_ms)) {
            fleet_show_log();
            fail_msg("not in time: %s (%u answered, %u executions)", what, crowd.results, crowd.executions);
        }
        hear_answers();
        hear_work();
        poll(NULL, 0, 2);
    }
}

static bool all_answered(void) { return crowd.results == CROWD * EACH; }
static bool silent_was_asked(void) { return crowd.asked; }
static bool work_came(void) { return crowd.executions > 0; }

static void a_thousand_want_the_same(void **state) {
    (void)state;
    fleet_credit(&fleet.executor);
    submit(0, EACH);
    go_on(all_answered, "a result for each");
    assert_int_equal(crowd.executions, 1);
}

// Nobody has uploaded anything before, and the one that came first says nothing: its principal's others are not asked either.
static void who_never_uploads_holds_up_nobody(void **state) {
    (void)state;
    crowd.silent = "agent-1";
    fleet_submit(&crowd.agents[0], &crowd.records[0]);
    go_on(silent_was_asked, "somebody is asked for the content");
    submit(0, EACH); // the first one once more, as an agent does that has not heard of its job
    fleet_credit(&fleet.executor);
    go_on(all_answered, "a result for each, though one says nothing");
    assert_int_equal(crowd.executions, 1);
    assert_true(crowd.uploaded);
}

// Killed with half of the crowd waiting and the work going on; the other half comes while it is away.
static void a_verifier_is_killed_in_the_middle(void **state) {
    (void)state;
    fleet_credit(&fleet.executor);
    crowd.keeps = true;
    submit(0, EACH / 2);
    go_on(work_came, "work");
    fleet_await_committed("kiln.jobs", fleet_partition(&fleet.rig->action_digest)); // what is left is in kiln.state
    fleet_kill_verifier();
    submit(EACH / 2, EACH);
    crowd.keeps = false;
    do_work(&crowd.kept);
    crowd.heeds = true; // a second execution, if one is wanted
    fleet_start_verifier(quick);
    go_on(all_answered, "a result for each, past a death");
    assert_in_range(crowd.executions, 1, 2);
}

// Until at least so many flights wait, as the verifier says when it has no credit, and has said since then.
static void wait_for_demand(const struct actor *executor, unsigned least, uint64_t since_ms) {
    struct kiln_record heard;
    unsigned count = 0;
    for (uint64_t deadline_ms = kiln_clock_ms() + 2 * CROWD_MS; count < least;) {
        if (!kiln_clock_left_ms(deadline_ms)) {
            fleet_show_log();
            fail_msg("%u jobs wait instead of %u", count, least);
        }
        if (!fleet_hear(executor, KILN_TOPIC_WORK, kiln_clock_ms() + 100, &heard))
            continue;
        struct kiln_demand demand;
        enum kiln_record_type type;
        if (kiln_record_type_of(heard.value, heard.value_len, &type, NULL) == 0 && type == KILN_RECORD_demand) {
            assert_int_equal(kiln_demand_decode(heard.value, heard.value_len, &demand, NULL), 0);
            count = demand.at_ms >= since_ms ? demand.count : count;
            kiln_demand_release(&demand);
        }
        kiln_record_release(&heard);
    }
}

// One turn of the executor's slot: whose job it was. The job fails, so nothing is stored.
static void one_turn(char scope[KILN_PRINCIPAL_BYTES]) {
    struct kiln_record heard;
    fleet_credit(&fleet.executor);
    while (fleet_hear(&fleet.executor, KILN_TOPIC_WORK, kiln_clock_ms() + FLEET_MS, &heard)) {
        struct kiln_work work = {0};
        bool mine = is_for(&heard, &fleet.executor, &work);
        kiln_record_release(&heard);
        if (mine) {
            struct kiln_candidate candidate;
            fleet_candidate(&fleet.executor, &work, "of no use", &candidate);
            candidate.exit_code = 1;
            fleet_sign(&fleet.executor, &candidate);
            fleet_deliver(&fleet.executor, &candidate);
            kiln_candidate_release(&candidate);
            snprintf(scope, KILN_PRINCIPAL_BYTES, "%s", work.scope);
            kiln_work_release(&work);
            return;
        }
        kiln_work_release(&work);
    }
    fleet_show_log();
    fail_msg("no work for a slot");
}

static void submit_one(const struct actor *agent, struct kiln_job_submitted *record) {
    fleet_next_action();
    fleet_submission(agent, record);
    record->deadline_ms = 10 * 60000;
    fleet_submit(agent, record);
}

static void who_has_many_delays_who_has_one_by_a_turn(void **state) {
    (void)state;
    char scope[KILN_PRINCIPAL_BYTES];
    struct kiln_job_submitted record;
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor); // the content of both tenants is there then
    fleet_next_action();
    fleet_honest_build(&fleet.stranger, &fleet.executor);
    uint64_t begin_ms = kiln_clock_ms();
    for (unsigned i = 0; i < MANY_QUICK; i++) {
        submit_one(&fleet.agent, &record);
        kiln_job_submitted_release(&record);
    }
    wait_for_demand(&fleet.executor, MANY_QUICK, 0);
    fprintf(stderr, "%u jobs wait after %llu ms\n", MANY_QUICK, (unsigned long long)(kiln_clock_ms() - begin_ms));
    for (unsigned i = 0; i < TURNS_BEFORE; i++) {
        one_turn(scope);
        assert_string_equal(scope, "red");
    }
    uint64_t since_ms = kiln_clock_wall_ms();
    submit_one(&fleet.stranger, &record);
    wait_for_demand(&fleet.executor, MANY_QUICK - TURNS_BEFORE + 1, since_ms);
    one_turn(scope);
    if (strcmp(scope, "blue") != 0)
        one_turn(scope);
    assert_string_equal(scope, "blue");
    one_turn(scope);
    assert_string_equal(scope, "red"); // and it goes on
    fleet_expect(&fleet.stranger, &record, KILN_ANSWER_COMPILE_LOCALLY, NULL);
    kiln_job_submitted_release(&record);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_never_uploads_holds_up_nobody, gather, disperse), // first: content is still wanted
        cmocka_unit_test_setup_teardown(a_thousand_want_the_same, gather, disperse),
        cmocka_unit_test_setup_teardown(a_verifier_is_killed_in_the_middle, gather, disperse),
        cmocka_unit_test(who_has_many_delays_who_has_one_by_a_turn),
    };
    return cmocka_run_group_tests(tests, up, fleet_down);
}
