#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/bus/bus_frames.h"
#include "lib/bus/bus_topics.h"

static struct kiln_bus_server *server;

static int setup(void **state) {
    (void)state;
    return kiln_bus_server_new(&server, NULL);
}

static int teardown(void **state) {
    (void)state;
    kiln_bus_server_free(server);
    server = NULL;
    return 0;
}

static uint64_t soon(void) { return kiln_clock_ms() + 20000; }

static struct kiln_bus *open_client(enum kiln_bus_role role) {
    int fd = -1;
    struct kiln_bus *bus = NULL;
    assert_int_equal(kiln_bus_server_connect(server, role, &fd, NULL), 0);
    assert_int_equal(kiln_bus_open_fd(fd, &bus, NULL), 0);
    return bus;
}

static int subscribe(struct kiln_bus *bus, enum kiln_topic topic) {
    struct kiln_bus_subscription subscription = {.topic = topic};
    return kiln_bus_subscribe(bus, &subscription, 1, NULL);
}

static struct kiln_bus *open_reader(enum kiln_bus_role role, enum kiln_topic topic) {
    struct kiln_bus *bus = open_client(role);
    assert_int_equal(subscribe(bus, topic), 0);
    return bus;
}

static void put(struct kiln_bus *bus, enum kiln_topic topic, const char *value) {
    assert_int_equal(kiln_bus_publish(bus, topic, 0, "key", 3, value, strlen(value), NULL), 0);
}

static struct kiln_record take(struct kiln_bus *bus) {
    struct kiln_record record = {0};
    struct kiln_err err = {0};
    if (kiln_bus_poll(bus, soon(), &record, &err))
        fail_msg("poll: %s", err.text);
    return record;
}

static void assert_takes(struct kiln_bus *bus, const char *expected, bool with_ack) {
    struct kiln_record record = take(bus);
    assert_int_equal(record.value_len, strlen(expected));
    assert_memory_equal(record.value, expected, record.value_len);
    if (with_ack)
        assert_int_equal(kiln_bus_ack(bus, &record, NULL), 0);
    kiln_record_release(&record);
}

static void assert_takes_nothing(struct kiln_bus *bus) {
    struct kiln_record record;
    assert_int_equal(kiln_bus_poll(bus, 0, &record, NULL), KILN_E_TIMEOUT);
}

static struct kiln_bus_server_stats stats(void) {
    struct kiln_bus_server_stats now;
    kiln_bus_server_stats(server, &now);
    return now;
}

// The server learns of a closed connection by itself, so this is waited for.
static void await_connections(unsigned count) {
    uint64_t deadline_ms = soon();
    while (stats().connections != count) {
        assert_true(kiln_clock_ms() < deadline_ms);
        poll(NULL, 0, 1);
    }
}

static void records_come_whole_and_in_order(void **state) {
    (void)state;
    struct kiln_bus *agent = open_client(KILN_BUS_AGENT);
    struct kiln_bus *verifier = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    char value[32];
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(value, sizeof value, "value %u", i);
        put(agent, KILN_TOPIC_JOBS, value);
    }
    for (unsigned i = 0; i < 1000; i++) {
        struct kiln_record record = take(verifier);
        snprintf(value, sizeof value, "value %u", i);
        assert_int_equal(record.topic, KILN_TOPIC_JOBS);
        assert_int_equal(record.partition, 0);
        assert_int_equal(record.offset, i);
        assert_int_equal(record.key_len, 3);
        assert_memory_equal(record.key, "key", 3);
        assert_int_equal(record.value_len, strlen(value));
        assert_memory_equal(record.value, value, record.value_len);
        kiln_record_release(&record);
    }
    assert_takes_nothing(verifier);
    kiln_bus_close(verifier);
    kiln_bus_close(agent);
}

static void the_connection_says_who_wrote(void **state) {
    (void)state;
    struct kiln_bus *agent = open_reader(KILN_BUS_AGENT, KILN_TOPIC_EVENTS);
    static const enum kiln_role written_by[] = {KILN_ROLE_OF_AGENT, KILN_ROLE_OF_VERIFIER, KILN_ROLE_OF_EXECUTOR};
    for (int role = KILN_BUS_AGENT; role <= KILN_BUS_EXECUTOR; role++) {
        struct kiln_bus *writer = open_client(role);
        put(writer, KILN_TOPIC_EVENTS, "here");
        struct kiln_record record = take(agent);
        assert_int_equal(record.news, KILN_NEWS_RECORD);
        assert_int_equal(record.author.role, written_by[role]);
        assert_string_equal(record.author.principal, "local");
        assert_string_equal(record.author.tenant, "local");
        assert_string_equal(record.author.pool, "local");
        kiln_record_release(&record);
        kiln_bus_close(writer);
    }
    kiln_bus_close(agent);
}

static void a_fleets_calls_on_one_host(void **state) {
    (void)state;
    struct kiln_bus *verifier = open_client(KILN_BUS_VERIFIER);
    struct kiln_bus *agent = open_reader(KILN_BUS_AGENT, KILN_TOPIC_RESULTS);
    assert_int_equal(kiln_bus_publish_result(verifier, "local", 0, "key", 3, "answer", 6, NULL), 0);
    assert_takes(agent, "answer", true);
    assert_int_equal(kiln_bus_publish_result(verifier, "red", 0, "key", 3, "answer", 6, NULL), KILN_E_INVAL);
    assert_takes_nothing(agent);
    assert_int_equal(kiln_bus_partitions(verifier, KILN_TOPIC_JOBS), 1);
    struct kiln_digest action = {{0xff, 0xff, 0xff, 0xff}};
    assert_int_equal(kiln_bus_partition_of(verifier, &action), 0);
    assert_int_equal(kiln_bus_restore(verifier, 0, soon(), NULL, NULL, NULL), KILN_E_UNSUPPORTED);
    assert_int_equal(kiln_bus_healthy(verifier, NULL), 0);
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
}

static void sizes_at_the_limits(void **state) {
    (void)state;
    struct kiln_bus *agent = open_client(KILN_BUS_AGENT);
    struct kiln_bus *verifier = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    unsigned char *big = malloc(KILN_RECORD_BYTES_MAX + 1);
    memset(big, 0xa5, KILN_RECORD_BYTES_MAX + 1);
    assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_JOBS, 7, big, 64, big, KILN_RECORD_BYTES_MAX, NULL), 0);
    assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_JOBS, 0, NULL, 0, NULL, 0, NULL), 0);
    assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_JOBS, 0, big, 65, "", 0, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_JOBS, 8, "", 0, "", 0, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_COUNT, 0, "", 0, "", 0, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_JOBS, 0, "", 0, big, KILN_RECORD_BYTES_MAX + 1, NULL), KILN_E_INVAL);
    struct kiln_record record = take(verifier);
    assert_int_equal(record.partition, 7);
    assert_int_equal(record.value_len, KILN_RECORD_BYTES_MAX);
    assert_memory_equal(record.value, big, record.value_len);
    kiln_record_release(&record);
    record = take(verifier);
    assert_int_equal(record.value_len, 0);
    assert_int_equal(record.key_len, 0);
    kiln_record_release(&record);
    free(big);
    kiln_bus_close(verifier);
    kiln_bus_close(agent);
}

// More than the socket holds waits in the topic; the connection is served on when the reader goes on.
static void a_slow_reader_gets_all(void **state) {
    (void)state;
    struct kiln_bus *agent = open_client(KILN_BUS_AGENT);
    struct kiln_bus *verifier = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    unsigned char *big = calloc(1, KILN_RECORD_BYTES_MAX);
    for (unsigned i = 0; i < 40; i++) {
        memcpy(big, &i, sizeof i);
        assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_JOBS, 0, "", 0, big, KILN_RECORD_BYTES_MAX, NULL), 0);
    }
    for (unsigned i = 0; i < 40; i++) {
        struct kiln_record record = take(verifier);
        memcpy(big, &i, sizeof i);
        assert_memory_equal(record.value, big, KILN_RECORD_BYTES_MAX);
        kiln_record_release(&record);
    }
    free(big);
    kiln_bus_close(verifier);
    kiln_bus_close(agent);
}

static void a_closed_reader_leaves_the_unacked(void **state) {
    (void)state;
    struct kiln_bus *agent = open_client(KILN_BUS_AGENT);
    struct kiln_bus *first = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    struct kiln_bus *second = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    const char *values[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < 4; i++)
        put(agent, KILN_TOPIC_JOBS, values[i]);
    assert_takes(first, "a", true);
    assert_takes(first, "b", true);
    assert_takes(first, "c", false);
    assert_takes_nothing(second);
    kiln_bus_close(first);
    assert_takes(second, "c", true);
    assert_takes(second, "d", true);
    kiln_bus_close(second);
    await_connections(1);
    struct kiln_bus *third = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    assert_takes_nothing(third);
    kiln_bus_close(third);
    kiln_bus_close(agent);
}

static _Noreturn void executor_child(int bus_fd, int report_fd) {
    dup2(bus_fd, 3);
    if (report_fd != 4)
        dup2(report_fd, 4);
    close_range(5, ~0u, 0);
    struct kiln_bus *bus;
    struct kiln_record record;
    struct kiln_bus_subscription work = {.topic = KILN_TOPIC_WORK};
    if (kiln_bus_open_fd(3, &bus, NULL) || kiln_bus_subscribe(bus, &work, 1, NULL))
        _exit(1);
    for (int i = 0; i < 3; i++) {
        if (kiln_bus_poll(bus, kiln_clock_ms() + 20000, &record, NULL))
            _exit(2);
        if (i == 0 && kiln_bus_ack(bus, &record, NULL))
            _exit(3);
        kiln_record_release(&record);
    }
    if (write(4, "x", 1) != 1)
        _exit(4);
    for (;;)
        pause();
}

static void a_killed_process_leaves_the_unacked(void **state) {
    (void)state;
    struct kiln_bus *verifier = open_client(KILN_BUS_VERIFIER);
    const char *values[] = {"a", "b", "c"};
    for (size_t i = 0; i < 3; i++)
        put(verifier, KILN_TOPIC_WORK, values[i]);
    int fd, report[2];
    assert_int_equal(kiln_bus_server_connect(server, KILN_BUS_EXECUTOR, &fd, NULL), 0);
    assert_int_equal(pipe(report), 0);
    // Both above the numbers that the child uses.
    int bus_fd = fcntl(fd, F_DUPFD_CLOEXEC, 20), report_fd = fcntl(report[1], F_DUPFD_CLOEXEC, 20);
    close(fd);
    close(report[1]);
    pid_t child = fork();
    if (child == 0)
        executor_child(bus_fd, report_fd);
    close(bus_fd);
    close(report_fd);
    char byte = 0;
    assert_int_equal(read(report[0], &byte, 1), 1);
    close(report[0]);
    struct kiln_bus *next = open_reader(KILN_BUS_EXECUTOR, KILN_TOPIC_WORK);
    assert_takes_nothing(next);
    int status;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_takes(next, "b", true);
    assert_takes(next, "c", true);
    assert_takes_nothing(next);
    kiln_bus_close(next);
    kiln_bus_close(verifier);
}

static void results_go_to_every_agent(void **state) {
    (void)state;
    struct kiln_bus *verifier = open_client(KILN_BUS_VERIFIER);
    put(verifier, KILN_TOPIC_RESULTS, "before");
    struct kiln_bus *one = open_reader(KILN_BUS_AGENT, KILN_TOPIC_RESULTS);
    struct kiln_bus *two = open_reader(KILN_BUS_AGENT, KILN_TOPIC_RESULTS);
    put(verifier, KILN_TOPIC_RESULTS, "both");
    assert_takes(one, "both", true);
    assert_takes(two, "both", true);
    kiln_bus_close(two);
    put(verifier, KILN_TOPIC_RESULTS, "one");
    assert_takes(one, "one", true);
    kiln_bus_close(one);
    kiln_bus_close(verifier);
}

// DESIGN.md section 5, as far as the roles exist here.
static const struct {
    enum kiln_topic topic;
    const char *writers, *readers; // a: agent, v: verifier, e: executor
} acl[] = {
    {KILN_TOPIC_JOBS, "a", "v"},    {KILN_TOPIC_WORK, "v", "e"},   {KILN_TOPIC_CREDITS, "e", "v"},
    {KILN_TOPIC_LEASES, "e", "v"},  {KILN_TOPIC_CANDIDATES, "e", "v"}, {KILN_TOPIC_RESULTS, "v", "a"},
    {KILN_TOPIC_STATE, "v", "v"},   {KILN_TOPIC_LEDGER, "v", "a"}, {KILN_TOPIC_EVENTS, "ave", "a"},
    {KILN_TOPIC_DLQ, "v", "a"},
};

static void assert_may(enum kiln_bus_role role, enum kiln_topic topic, bool writes, bool may) {
    uint64_t before = stats().violations;
    struct kiln_bus *bus = open_client(role);
    int rc = writes ? kiln_bus_publish(bus, topic, 0, "", 0, "x", 1, NULL) : subscribe(bus, topic);
    assert_int_equal(rc, may ? 0 : KILN_E_DENIED);
    assert_int_equal(stats().violations, before + !may);
    if (!may) { // and the connection is gone
        struct kiln_record record;
        struct kiln_err err = {0};
        assert_int_equal(kiln_bus_poll(bus, soon(), &record, &err), KILN_E_CLOSED);
        assert_true(err.fatal);
        assert_int_equal(kiln_bus_publish(bus, KILN_TOPIC_EVENTS, 0, "", 0, "x", 1, NULL), KILN_E_CLOSED);
    }
    kiln_bus_close(bus);
}

static void roles_are_enforced(void **state) {
    (void)state;
    static const char letters[] = "ave"; // in the order of enum kiln_bus_role
    assert_int_equal(sizeof acl / sizeof *acl, KILN_TOPIC_COUNT);
    for (size_t i = 0; i < sizeof acl / sizeof *acl; i++) {
        for (int role = KILN_BUS_AGENT; role <= KILN_BUS_EXECUTOR; role++) {
            assert_may(role, acl[i].topic, true, strchr(acl[i].writers, letters[role]));
            assert_may(role, acl[i].topic, false, strchr(acl[i].readers, letters[role]));
        }
    }
}

static void a_refused_value_of_any_size_is_answered(void **state) {
    (void)state;
    unsigned char *big = calloc(1, KILN_RECORD_BYTES_MAX);
    for (int i = 0; i < 20; i++) {
        struct kiln_bus *bus = open_client(KILN_BUS_EXECUTOR);
        assert_int_equal(kiln_bus_publish(bus, KILN_TOPIC_JOBS, 0, "", 0, big, KILN_RECORD_BYTES_MAX, NULL), KILN_E_DENIED);
        kiln_bus_close(bus);
    }
    free(big);
}

static void a_full_topic_refuses_and_recovers(void **state) {
    (void)state;
    struct kiln_bus *agent = open_client(KILN_BUS_AGENT);
    struct kiln_err err = {0};
    unsigned taken = 0;
    while (kiln_bus_publish(agent, KILN_TOPIC_JOBS, 0, "", 0, "x", 1, &err) == 0)
        taken++;
    assert_int_equal(taken, KILN_BUS_TOPIC_RECORDS_MAX);
    assert_int_equal(err.code, KILN_E_LIMIT);
    assert_true(err.retriable);
    assert_int_equal(stats().refused_full, 1);
    put(agent, KILN_TOPIC_EVENTS, "others are not full");
    struct kiln_bus *verifier = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    assert_takes(verifier, "x", true);
    uint64_t deadline_ms = soon();
    while (kiln_bus_publish(agent, KILN_TOPIC_JOBS, 0, "", 0, "y", 1, NULL)) // the ack has no answer
        assert_true(kiln_clock_ms() < deadline_ms);
    kiln_bus_close(verifier);
    kiln_bus_close(agent);
}

enum { THREADS = 8, PER_THREAD = 400 };

struct publisher {
    struct kiln_bus *bus;
    unsigned number;
    int failed;
};

static void *publish_many(void *arg) {
    struct publisher *self = arg;
    for (unsigned i = 0; i < PER_THREAD; i++) {
        unsigned value[2] = {self->number, i};
        self->failed |= kiln_bus_publish(self->bus, KILN_TOPIC_JOBS, self->number % 2, "", 0, value, sizeof value, NULL);
    }
    return NULL;
}

static void drain_publishers(struct kiln_bus *verifier) {
    unsigned next[THREADS] = {0};
    for (unsigned i = 0; i < THREADS * PER_THREAD; i++) {
        struct kiln_record record = take(verifier);
        unsigned value[2];
        assert_int_equal(record.value_len, sizeof value);
        memcpy(value, record.value, sizeof value);
        assert_true(value[0] < THREADS);
        assert_int_equal(value[1], next[value[0]]++);
        assert_int_equal(kiln_bus_ack(verifier, &record, NULL), 0);
        kiln_record_release(&record);
    }
}

static void run_publishers(bool one_handle) {
    struct kiln_bus *verifier = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    struct publisher publishers[THREADS];
    pthread_t threads[THREADS];
    struct kiln_bus *shared = one_handle ? open_reader(KILN_BUS_AGENT, KILN_TOPIC_RESULTS) : NULL;
    for (unsigned i = 0; i < THREADS; i++) {
        publishers[i] = (struct publisher){shared ? shared : open_client(KILN_BUS_AGENT), i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, publish_many, &publishers[i]), 0);
    }
    drain_publishers(verifier);
    put(verifier, KILN_TOPIC_RESULTS, "answer");
    if (shared)
        assert_takes(shared, "answer", true);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(publishers[i].failed, 0);
        if (!shared)
            kiln_bus_close(publishers[i].bus);
    }
    kiln_bus_close(shared);
    kiln_bus_close(verifier);
}

static void eight_threads_on_one_handle(void **state) {
    (void)state;
    run_publishers(true);
}

static void eight_handles(void **state) {
    (void)state;
    run_publishers(false);
}

static void *poll_until_closed(void *arg) {
    struct kiln_record record;
    return (void *)(intptr_t)kiln_bus_poll(arg, soon(), &record, NULL);
}

static void *publish_until_closed(void *arg) {
    int rc;
    while ((rc = kiln_bus_publish(arg, KILN_TOPIC_EVENTS, 0, "", 0, "x", 1, NULL)) == 0) {
    }
    return (void *)(intptr_t)rc;
}

static void a_freed_server_closes_its_clients(void **state) {
    (void)state;
    struct kiln_bus *reader = open_reader(KILN_BUS_AGENT, KILN_TOPIC_RESULTS);
    struct kiln_bus *writer = open_client(KILN_BUS_EXECUTOR);
    struct kiln_bus *idle = open_client(KILN_BUS_VERIFIER);
    int never_opened;
    assert_int_equal(kiln_bus_server_connect(server, KILN_BUS_VERIFIER, &never_opened, NULL), 0);
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, poll_until_closed, reader), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, publish_until_closed, writer), 0);
    while (stats().published < 100)
        poll(NULL, 0, 1);
    kiln_bus_server_free(server);
    server = NULL;
    for (int i = 0; i < 2; i++) {
        void *rc;
        pthread_join(threads[i], &rc);
        assert_int_equal((intptr_t)rc, KILN_E_CLOSED);
    }
    assert_int_equal(kiln_bus_publish(idle, KILN_TOPIC_EVENTS, 0, "", 0, "x", 1, NULL), KILN_E_CLOSED);
    kiln_bus_close(reader);
    kiln_bus_close(writer);
    kiln_bus_close(idle);
    close(never_opened);
}

static void the_descriptor_says_when_to_poll(void **state) {
    (void)state;
    struct kiln_bus *agent = open_client(KILN_BUS_AGENT);
    struct kiln_bus *verifier = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    struct pollfd wait = {.fd = kiln_bus_fd(verifier), .events = POLLIN};
    assert_int_equal(poll(&wait, 1, 0), 0);
    put(agent, KILN_TOPIC_JOBS, "a");
    put(agent, KILN_TOPIC_JOBS, "b");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(poll(&wait, 1, 20000), 1);
        assert_takes(verifier, i ? "b" : "a", true);
    }
    assert_int_equal(poll(&wait, 1, 0), 0);
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
}

static void a_stranger_descriptor_is_refused(void **state) {
    (void)state;
    int pair[2];
    struct kiln_bus *bus = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(send(pair[0], "K", 1, 0), 1); // the right byte without the descriptor
    assert_int_equal(kiln_bus_open_fd(pair[1], &bus, NULL), KILN_E_CORRUPT);
    close(pair[0]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    close(pair[0]);
    assert_int_equal(kiln_bus_open_fd(pair[1], &bus, NULL), KILN_E_CLOSED);
    assert_int_equal(kiln_bus_open_fd(-1, &bus, NULL), KILN_E_IO);
    assert_null(bus);
}

// A client without the library: both sockets in the raw.
static void open_raw(enum kiln_bus_role role, int *deliver_fd, int *request_fd) {
    assert_int_equal(kiln_bus_server_connect(server, role, deliver_fd, NULL), 0);
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    assert_int_equal(recvmsg(*deliver_fd, &message, MSG_CMSG_CLOEXEC), 1);
    memcpy(request_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
}

static void assert_violates(const struct kiln_bus_frame *frame) {
    uint64_t before = stats().violations;
    int deliver_fd, request_fd;
    char byte;
    open_raw(KILN_BUS_AGENT, &deliver_fd, &request_fd);
    assert_int_equal(send(request_fd, frame, sizeof *frame, MSG_NOSIGNAL), sizeof *frame);
    assert_int_equal(recv(deliver_fd, &byte, 1, 0), 0); // waits for the server to hang up
    assert_int_equal(stats().violations, before + 1);
    close(deliver_fd);
    close(request_fd);
}

static void hostile_frames_end_the_connection(void **state) {
    (void)state;
    static const struct kiln_bus_frame frames[] = {
        {.op = 0},
        {.op = KILN_BUS_OP_DELIVER, .topic = KILN_TOPIC_JOBS},
        {.op = 255, .value_len = UINT32_MAX},
        {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_COUNT},
        {.op = KILN_BUS_OP_PUBLISH, .topic = 255},
        {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_JOBS, .partition = KILN_BUS_PARTITIONS_MAX},
        {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_JOBS, .partition = UINT32_MAX},
        {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_JOBS, .key_len = KILN_BUS_KEY_BYTES_MAX + 1},
        {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_JOBS, .key_len = UINT16_MAX},
        {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_JOBS, .value_len = KILN_RECORD_BYTES_MAX + 1},
        {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_JOBS, .value_len = UINT32_MAX},
        {.op = KILN_BUS_OP_SUBSCRIBE, .topics = 1u << KILN_TOPIC_RESULTS | 1u << KILN_TOPIC_COUNT},
        {.op = KILN_BUS_OP_SUBSCRIBE, .topics = 1u << KILN_TOPIC_RESULTS, .from_end = 1u << KILN_TOPIC_LEDGER},
        {.op = KILN_BUS_OP_SUBSCRIBE, .topics = 1u << KILN_TOPIC_RESULTS, .value_len = 1},
        {.op = KILN_BUS_OP_ACK, .topic = KILN_TOPIC_RESULTS},
        {.op = KILN_BUS_OP_ACK, .topic = KILN_TOPIC_COUNT},
        {.op = KILN_BUS_OP_ACK, .topic = KILN_TOPIC_RESULTS, .partition = 99},
    };
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        assert_violates(&frames[i]);
    await_connections(0);
}

static void writing_to_the_delivery_socket_ends_the_connection(void **state) {
    (void)state;
    int deliver_fd, request_fd;
    char byte;
    open_raw(KILN_BUS_AGENT, &deliver_fd, &request_fd);
    assert_int_equal(send(deliver_fd, "x", 1, MSG_NOSIGNAL), 1);
    assert_int_equal(recv(request_fd, &byte, 1, 0), 0);
    assert_int_equal(stats().violations, 1);
    close(deliver_fd);
    close(request_fd);
}

static void a_half_request_is_dropped(void **state) {
    (void)state;
    int deliver_fd, request_fd;
    struct kiln_bus_frame frame = {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_JOBS, .value_len = 1000};
    for (size_t len = 1; len <= sizeof frame; len += sizeof frame - 1) {
        open_raw(KILN_BUS_AGENT, &deliver_fd, &request_fd);
        assert_int_equal(send(request_fd, &frame, len, MSG_NOSIGNAL), len);
        close(request_fd);
        close(deliver_fd);
    }
    await_connections(0);
    assert_int_equal(stats().published, 0);
    assert_int_equal(stats().violations, 0);
}

// A client that floods and never reads its answers is stopped by its own socket; the others are served.
static void a_flooder_stops_itself(void **state) {
    (void)state;
    int deliver_fd, request_fd;
    open_raw(KILN_BUS_AGENT, &deliver_fd, &request_fd);
    struct kiln_bus_frame frame = {.op = KILN_BUS_OP_PUBLISH, .topic = KILN_TOPIC_EVENTS};
    struct pollfd wait = {.fd = request_fd, .events = POLLOUT};
    clock_t cpu = clock();
    while (poll(&wait, 1, 400) == 1) { // full for that long: the server reads no more
        (void)send(request_fd, &frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT);
        cpu = clock();
    }
    assert_in_range(clock() - cpu, 0, CLOCKS_PER_SEC / 5); // and does not spin meanwhile
    struct kiln_bus *agent = open_client(KILN_BUS_AGENT);
    struct kiln_bus *verifier = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    put(agent, KILN_TOPIC_JOBS, "served");
    assert_takes(verifier, "served", true);
    uint64_t before = stats().published;
    struct kiln_bus_reply reply;
    assert_int_equal(recv(request_fd, &reply, sizeof reply, MSG_WAITALL), sizeof reply);
    assert_int_equal(reply.code, 0);
    char answers[65536]; // reading on, the connection goes on
    uint64_t deadline_ms = soon();
    while (stats().published == before) {
        assert_true(kiln_clock_ms() < deadline_ms);
        (void)recv(request_fd, answers, sizeof answers, MSG_DONTWAIT);
    }
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
    close(deliver_fd);
    close(request_fd);
}

static void connections_are_bounded(void **state) {
    (void)state;
    int fds[128];
    size_t count = 0;
    struct kiln_err err = {0};
    while (count < 128 && kiln_bus_server_connect(server, KILN_BUS_AGENT, &fds[count], &err) == 0)
        count++;
    assert_int_equal(err.code, KILN_E_LIMIT);
    assert_int_equal(count, 64);
    while (count)
        close(fds[--count]);
    await_connections(0);
}

static void *echo(void *arg) {
    struct kiln_record record;
    while (kiln_bus_poll(arg, soon(), &record, NULL) == 0) {
        kiln_bus_publish(arg, KILN_TOPIC_RESULTS, 0, "", 0, record.value, record.value_len, NULL);
        kiln_bus_ack(arg, &record, NULL);
        kiln_record_release(&record);
    }
    return NULL;
}

static int by_value(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

// There and back over the server. The bound is one that only a timer, a retry or a sleep on the way would break.
static void two_hops_are_quick(void **state) {
    (void)state;
    enum { ROUNDS = 2000 };
    static uint64_t us[ROUNDS];
    static unsigned char value[4096];
    struct kiln_bus *agent = open_reader(KILN_BUS_AGENT, KILN_TOPIC_RESULTS);
    struct kiln_bus *verifier = open_reader(KILN_BUS_VERIFIER, KILN_TOPIC_JOBS);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, echo, verifier), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t start_us = kiln_clock_us();
        assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_JOBS, 0, "", 0, value, sizeof value, NULL), 0);
        struct kiln_record record = take(agent);
        us[i] = kiln_clock_us() - start_us;
        assert_int_equal(kiln_bus_ack(agent, &record, NULL), 0);
        kiln_record_release(&record);
    }
    qsort(us, ROUNDS, sizeof *us, by_value);
    print_message("two hops: p50 %u us, p99 %u us\n", (unsigned)us[ROUNDS / 2], (unsigned)us[ROUNDS * 99 / 100]);
    assert_in_range(us[ROUNDS / 2], 0, 5000);
    kiln_bus_server_free(server);
    server = NULL;
    pthread_join(thread, NULL);
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
}

int main(void) {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(records_come_whole_and_in_order),
        CASE(the_connection_says_who_wrote),
        CASE(a_fleets_calls_on_one_host),
        CASE(sizes_at_the_limits),
        CASE(a_slow_reader_gets_all),
        CASE(a_closed_reader_leaves_the_unacked),
        CASE(a_killed_process_leaves_the_unacked),
        CASE(results_go_to_every_agent),
        CASE(roles_are_enforced),
        CASE(a_refused_value_of_any_size_is_answered),
        CASE(a_full_topic_refuses_and_recovers),
        CASE(eight_threads_on_one_handle),
        CASE(eight_handles),
        CASE(a_freed_server_closes_its_clients),
        CASE(the_descriptor_says_when_to_poll),
        CASE(a_stranger_descriptor_is_refused),
        CASE(hostile_frames_end_the_connection),
        CASE(writing_to_the_delivery_socket_ends_the_connection),
        CASE(a_half_request_is_dropped),
        CASE(a_flooder_stops_itself),
        CASE(connections_are_bounded),
        CASE(two_hops_are_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
