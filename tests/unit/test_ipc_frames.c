// Frames over a socket pair: what goes in comes out, and what a hostile peer may send is refused without a leak.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/ipc/frames.h"

#define SHORT_MS 100
#define LONG_MS 10000

static uint64_t in_ms(unsigned ms) { return kiln_clock_ms() + ms; }

static void make_pair(int pair[2]) { assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0); }

static size_t count_fds(void) {
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    size_t count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

// Sends raw bytes with fds_count copies of /dev/null.
static void send_raw(int socket, const void *data, size_t len, size_t fds_count) {
    char control[CMSG_SPACE(sizeof(int) * 253)];
    memset(control, 0, sizeof control);
    struct iovec part = {(void *)data, len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    kiln_autofd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fds_count) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
        struct cmsghdr *item = CMSG_FIRSTHDR(&message);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
        for (size_t i = 0; i < fds_count; i++)
            memcpy(CMSG_DATA(item) + i * sizeof(int), &null, sizeof null);
    }
    assert_int_equal(sendmsg(socket, &message, 0), (ssize_t)len);
}

struct raw_frame {
    unsigned char bytes[64];
    size_t len;
};

static struct raw_frame make_raw(unsigned version, unsigned type, uint32_t claimed, size_t sent) {
    struct raw_frame raw = {.bytes = {'K', 'I', 'L', 'N', (unsigned char)(version >> 8), (unsigned char)version,
                                      (unsigned char)(type >> 8), (unsigned char)type, (unsigned char)(claimed >> 24),
                                      (unsigned char)(claimed >> 16), (unsigned char)(claimed >> 8), (unsigned char)claimed},
                            .len = 12 + sent};
    memset(raw.bytes + 12, 'x', sent);
    return raw;
}

static void test_round_trip(void **state) {
    (void)state;
    int pair[2];
    make_pair(pair);
    kiln_autofd int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const int fds[] = {file, file, file};
    struct kiln_err err;
    assert_int_equal(kiln_frame_send(pair[0], KILN_FRAME_PLACE, "payload", 7, fds, 3, in_ms(LONG_MS), &err), 0);
    assert_int_equal(kiln_frame_send(pair[0], KILN_FRAME_ALIVE, NULL, 0, NULL, 0, in_ms(LONG_MS), &err), 0);
    kiln_autoframe struct kiln_frame frame = {0};
    assert_int_equal(kiln_frame_receive(pair[1], in_ms(LONG_MS), &frame, &err), 0);
    assert_int_equal(frame.type, KILN_FRAME_PLACE);
    assert_int_equal(frame.len, 7);
    assert_memory_equal(frame.payload, "payload", 7);
    assert_int_equal(frame.fds_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_true(frame.fds[i] > 2);
        assert_int_equal(fcntl(frame.fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    }
    kiln_autoframe struct kiln_frame empty = {0};
    assert_int_equal(kiln_frame_receive(pair[1], in_ms(LONG_MS), &empty, &err), 0);
    assert_int_equal(empty.type, KILN_FRAME_ALIVE);
    assert_int_equal(empty.len, 0);
    close(pair[0]);
    assert_int_equal(kiln_frame_receive(pair[1], in_ms(LONG_MS), &empty, &err), KILN_E_CLOSED);
    close(pair[1]);
}

static void test_largest_frame_and_most_descriptors(void **state) {
    (void)state;
    int pair[2];
    make_pair(pair);
    kiln_autofree unsigned char *big = malloc(KILN_FRAME_BYTES_MAX);
    for (size_t i = 0; i < KILN_FRAME_BYTES_MAX; i++)
        big[i] = (unsigned char)(i * 7);
    kiln_autofd int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    int fds[KILN_FRAME_FDS_MAX];
    for (size_t i = 0; i < KILN_FRAME_FDS_MAX; i++)
        fds[i] = file;
    pid_t child = fork();
    if (child == 0)
        _exit(kiln_frame_send(pair[0], KILN_FRAME_PLACE, big, KILN_FRAME_BYTES_MAX, fds, KILN_FRAME_FDS_MAX,
                              in_ms(LONG_MS), NULL) != 0);
    kiln_autoframe struct kiln_frame frame = {0};
    struct kiln_err err;
    assert_int_equal(kiln_frame_receive(pair[1], in_ms(LONG_MS), &frame, &err), 0);
    assert_int_equal(frame.len, KILN_FRAME_BYTES_MAX);
    assert_int_equal(frame.fds_count, KILN_FRAME_FDS_MAX);
    assert_memory_equal(frame.payload, big, KILN_FRAME_BYTES_MAX);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(kiln_frame_send(pair[0], KILN_FRAME_PLACE, big, KILN_FRAME_BYTES_MAX + 1, NULL, 0, in_ms(SHORT_MS),
                                     &err), KILN_E_LIMIT);
    assert_int_equal(kiln_frame_send(pair[0], KILN_FRAME_PLACE, big, 1, fds, KILN_FRAME_FDS_MAX + 1, in_ms(SHORT_MS),
                                     &err), KILN_E_LIMIT);
    close(pair[0]);
    close(pair[1]);
}

// What the peer sends before it closes its end; all of it must be refused and no descriptor kept.
static const struct hostile_case {
    const char *name;
    unsigned version, type;
    uint32_t claimed; // payload length in the header
    size_t sent;      // payload bytes that follow
    size_t cut;       // header bytes left out at the end (with no payload)
    size_t fds;
    int expected;
} hostile_cases[] = {
    {"nothing", 1, 1, 0, 0, 12, 0, KILN_E_CLOSED},
    {"half a header", 1, 1, 0, 0, 6, 0, KILN_E_CORRUPT},
    {"half a header with descriptors", 1, 1, 0, 0, 6, 3, KILN_E_CORRUPT},
    {"payload cut", 1, 1, 20, 19, 0, 0, KILN_E_CORRUPT},
    {"payload cut, descriptors", 1, 3, 20, 19, 0, 2, KILN_E_CORRUPT},
    {"older version", 0, 1, 4, 4, 0, 1, KILN_E_UNSUPPORTED},
    {"newer version", 2, 1, 4, 4, 0, 1, KILN_E_UNSUPPORTED},
    {"version in the high byte", 0x100, 1, 4, 4, 0, 0, KILN_E_UNSUPPORTED},
    {"type zero", 1, 0, 4, 4, 0, 1, KILN_E_CORRUPT},
    {"type unknown", 1, KILN_FRAME_ALIVE + 1, 4, 4, 0, 1, KILN_E_CORRUPT},
    {"type in the high byte", 1, 0x100, 4, 4, 0, 0, KILN_E_CORRUPT},
    {"one byte too large", 1, 1, KILN_FRAME_BYTES_MAX + 1, 4, 0, 1, KILN_E_CORRUPT},
    {"length of four gigabytes", 1, 1, UINT32_MAX, 4, 0, 1, KILN_E_CORRUPT},
    {"one descriptor too many", 1, 3, 4, 4, 0, KILN_FRAME_FDS_MAX + 1, KILN_E_CORRUPT},
    {"all the descriptors one message can have", 1, 3, 4, 4, 0, 253, KILN_E_CORRUPT},
};

static void test_hostile_frames(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof hostile_cases / sizeof *hostile_cases; i++) {
        const struct hostile_case *one = &hostile_cases[i];
        int pair[2];
        make_pair(pair);
        size_t before = count_fds();
        struct raw_frame raw = make_raw(one->version, one->type, one->claimed, one->sent);
        if (raw.len > one->cut)
            send_raw(pair[0], raw.bytes, raw.len - one->cut, one->fds);
        shutdown(pair[0], SHUT_WR);
        struct kiln_frame frame = {.fds_count = 77};
        struct kiln_err err;
        int rc = kiln_frame_receive(pair[1], in_ms(LONG_MS), &frame, &err);
        if (rc != one->expected)
            fail_msg("%s: %d (%s) instead of %d", one->name, rc, rc ? err.text : "", one->expected);
        assert_int_equal(frame.fds_count, 77); // untouched
        assert_int_equal(count_fds(), before);
        close(pair[0]);
        close(pair[1]);
    }
}

static void test_descriptors_after_the_first_byte(void **state) {
    (void)state;
    for (size_t split = 1; split < 16; split += 3) {
        int pair[2];
        make_pair(pair);
        size_t before = count_fds();
        struct raw_frame raw = make_raw(1, KILN_FRAME_PLACE, 4, 4);
        send_raw(pair[0], raw.bytes, split, 1);
        send_raw(pair[0], raw.bytes + split, raw.len - split, 1);
        struct kiln_frame frame = {0};
        struct kiln_err err;
        assert_int_equal(kiln_frame_receive(pair[1], in_ms(LONG_MS), &frame, &err), KILN_E_CORRUPT);
        assert_int_equal(count_fds(), before);
        close(pair[0]);
        close(pair[1]);
    }
}

static void test_not_a_frame(void **state) {
    (void)state;
    static const char *const texts[] = {"GET / HTTP/1.1\r\n\r\n", "KILM\0\1\0\1\0\0\0\0", "\0\0\0\0\0\0\0\0\0\0\0\0"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int pair[2];
        make_pair(pair);
        send_raw(pair[0], texts[i], 12, 0);
        struct kiln_frame frame = {0};
        assert_int_equal(kiln_frame_receive(pair[1], in_ms(LONG_MS), &frame, NULL), KILN_E_CORRUPT);
        close(pair[0]);
        close(pair[1]);
    }
}

static void test_deadlines(void **state) {
    (void)state;
    int pair[2];
    make_pair(pair);
    struct kiln_frame frame = {0};
    struct kiln_err err;
    uint64_t before_ms = kiln_clock_ms();
    assert_int_equal(kiln_frame_receive(pair[1], in_ms(SHORT_MS), &frame, &err), KILN_E_TIMEOUT);
    assert_int_equal(kiln_frame_receive(pair[1], 0, &frame, &err), KILN_E_TIMEOUT);
    send_raw(pair[0], "KIL", 3, 0); // a peer that stops within a frame
    assert_int_equal(kiln_frame_receive(pair[1], in_ms(SHORT_MS), &frame, &err), KILN_E_TIMEOUT);
    kiln_autofree void *big = calloc(1, KILN_FRAME_BYTES_MAX); // a peer that does not read
    assert_int_equal(kiln_frame_send(pair[0], KILN_FRAME_LOCAL, big, KILN_FRAME_BYTES_MAX, NULL, 0, in_ms(SHORT_MS),
                                     &err), KILN_E_TIMEOUT);
    assert_true(kiln_clock_ms() - before_ms < 20 * SHORT_MS);
    close(pair[1]);
    assert_int_equal(kiln_frame_send(pair[0], KILN_FRAME_LOCAL, big, 4, NULL, 0, in_ms(SHORT_MS), &err), KILN_E_CLOSED);
    close(pair[0]);
}

static void test_await_skips_keepalives(void **state) {
    (void)state;
    int pair[2];
    make_pair(pair);
    for (int i = 0; i < 3; i++)
        kiln_frame_send(pair[0], KILN_FRAME_ALIVE, NULL, 0, NULL, 0, in_ms(LONG_MS), NULL);
    kiln_frame_send(pair[0], KILN_FRAME_LOCAL, "why", 3, NULL, 0, in_ms(LONG_MS), NULL);
    kiln_autoframe struct kiln_frame frame = {0};
    bool heard = false;
    assert_int_equal(kiln_frame_await(pair[1], LONG_MS, in_ms(LONG_MS), &frame, &heard, NULL), 0);
    assert_int_equal(frame.type, KILN_FRAME_LOCAL);
    assert_true(heard);
    heard = false;
    struct kiln_frame none = {0};
    assert_int_equal(kiln_frame_await(pair[1], SHORT_MS, in_ms(LONG_MS), &none, &heard, NULL), KILN_E_TIMEOUT);
    assert_false(heard);
    kiln_frame_send(pair[0], KILN_FRAME_ALIVE, NULL, 0, NULL, 0, in_ms(LONG_MS), NULL);
    assert_int_equal(kiln_frame_await(pair[1], LONG_MS, in_ms(SHORT_MS), &none, &heard, NULL), KILN_E_TIMEOUT);
    assert_true(heard);
    close(pair[0]);
    close(pair[1]);
}

// Every single-byte change of a frame is either refused or gives a frame of the same size; nothing leaks or reads on.
static void test_flipped_bytes(void **state) {
    (void)state;
    size_t before = count_fds();
    for (size_t at = 0; at < 16; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            int pair[2];
            make_pair(pair);
            struct raw_frame raw = make_raw(1, KILN_FRAME_LOCAL, 4, 4);
            raw.bytes[at] ^= (unsigned char)(1u << bit);
            send_raw(pair[0], raw.bytes, raw.len, 2);
            shutdown(pair[0], SHUT_WR);
            struct kiln_frame frame = {0};
            if (kiln_frame_receive(pair[1], in_ms(LONG_MS), &frame, NULL) == 0) {
                assert_true(frame.len <= 4);
                kiln_frame_release(&frame);
            }
            close(pair[0]);
            close(pair[1]);
        }
    }
    assert_int_equal(count_fds(), before);
}

static void test_peer(void **state) {
    (void)state;
    int pair[2];
    make_pair(pair);
    pid_t pid;
    uid_t uid;
    assert_int_equal(kiln_frame_peer(pair[0], &pid, &uid, NULL), 0);
    assert_int_equal(pid, getpid());
    assert_int_equal(uid, geteuid());
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(kiln_frame_peer(pair[0], &pid, &uid, NULL), KILN_E_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_largest_frame_and_most_descriptors),
        cmocka_unit_test(test_hostile_frames),
        cmocka_unit_test(test_descriptors_after_the_first_byte),
        cmocka_unit_test(test_not_a_frame),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_await_skips_keepalives),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
