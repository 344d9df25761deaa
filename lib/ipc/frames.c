#include "lib/ipc/frames.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define HEADER_BYTES 12

static const unsigned char magic[4] = {'K', 'I', 'L', 'N'};

union fd_control {
    char bytes[CMSG_SPACE(sizeof(int) * KILN_FRAME_FDS_MAX)];
    struct cmsghdr align;
};

void kiln_frame_release(struct kiln_frame *frame) {
    free(frame->payload);
    for (size_t i = 0; i < frame->fds_count; i++)
        if (frame->fds[i] >= 0)
            close(frame->fds[i]);
    *frame = (struct kiln_frame){0};
}

static int wait_for(int socket, short events, uint64_t deadline_ms, struct kiln_err *err) {
    for (;;) {
        struct pollfd ready = {.fd = socket, .events = events};
        int left_ms = kiln_clock_left_ms(deadline_ms);
        int n = poll(&ready, 1, left_ms);
        if (n > 0)
            return 0;
        if (n == 0 && left_ms == 0)
            return kiln_fail(err, KILN_E_TIMEOUT, "the other side of the socket is silent");
        if (n < 0 && errno != EINTR)
            return kiln_fail_errno(err, KILN_E_IO, "poll");
    }
}

static int socket_failure(const char *what, struct kiln_err *err) {
    int code = errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN ? KILN_E_CLOSED : KILN_E_IO;
    return kiln_fail_errno(err, code, "%s", what);
}

static void put_header(unsigned char *header, enum kiln_frame_type type, size_t len) {
    memcpy(header, magic, sizeof magic);
    header[4] = KILN_FRAME_VERSION >> 8;
    header[5] = KILN_FRAME_VERSION & 0xff;
    header[6] = (unsigned char)((unsigned)type >> 8);
    header[7] = (unsigned char)type;
    for (int i = 0; i < 4; i++)
        header[8 + i] = (unsigned char)(len >> (24 - 8 * i));
}

static void attach_fds(struct msghdr *message, union fd_control *control, const int *fds, size_t fds_count) {
    memset(control, 0, sizeof *control);
    message->msg_control = control->bytes;
    message->msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
    struct cmsghdr *item = CMSG_FIRSTHDR(message);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
    memcpy(CMSG_DATA(item), fds, sizeof(int) * fds_count);
}

static void consume(struct msghdr *message, size_t len) {
    while (len && message->msg_iovlen) {
        struct iovec *part = message->msg_iov;
        size_t step = len < part->iov_len ? len : part->iov_len;
        part->iov_base = (char *)part->iov_base + step;
        part->iov_len -= step;
        len -= step;
        if (part->iov_len == 0) {
            message->msg_iov++;
            message->msg_iovlen--;
        }
    }
}

int kiln_frame_send(int socket, enum kiln_frame_type type, const void *payload, size_t len, const int *fds,
                    size_t fds_count, uint64_t deadline_ms, struct kiln_err *err) {
    if (len > KILN_FRAME_BYTES_MAX || fds_count > KILN_FRAME_FDS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a frame of %zu bytes and %zu descriptors is too large", len, fds_count);
    unsigned char header[HEADER_BYTES];
    put_header(header, type, len);
    struct iovec parts[] = {{header, sizeof header}, {(void *)payload, len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = len ? 2 : 1};
    union fd_control control;
    if (fds_count)
        attach_fds(&message, &control, fds, fds_count);
    while (message.msg_iovlen) {
        ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            consume(&message, (size_t)n);
            message.msg_control = NULL;
            message.msg_controllen = 0;
        } else if (errno == EAGAIN) {
            int rc = wait_for(socket, POLLOUT, deadline_ms, err);
            if (rc)
                return rc;
        } else if (errno != EINTR) {
            return socket_failure("sending a frame", err);
        }
    }
    return 0;
}

static void keep_fds(struct msghdr *message, struct kiln_frame *frame) {
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item; item = CMSG_NXTHDR(message, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        // The control buffer has room for no more than the maximum.
        memcpy(frame->fds + frame->fds_count, CMSG_DATA(item), count * sizeof(int));
        frame->fds_count += count;
    }
}

// Reads exactly len bytes. Descriptors are taken with the first byte only, into `frame` (NULL: none are expected); any
// others are closed by the kernel, which says so with MSG_CTRUNC.
static int receive_exactly(int socket, unsigned char *data, size_t len, struct kiln_frame *frame, uint64_t deadline_ms,
                           struct kiln_err *err) {
    size_t at = 0;
    while (at < len) {
        union fd_control control;
        struct iovec part = {data + at, len - at};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        if (frame && at == 0) {
            message.msg_control = control.bytes;
            message.msg_controllen = sizeof control.bytes;
        }
        ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(socket, POLLIN, deadline_ms, err);
            if (rc)
                return rc;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return socket_failure("receiving a frame", err);
        if (message.msg_controllen)
            keep_fds(&message, frame);
        if (message.msg_flags & MSG_CTRUNC)
            return kiln_fail(err, KILN_E_CORRUPT, "a frame has more descriptors than it may have");
        if (n == 0 && frame && at == 0)
            return kiln_fail(err, KILN_E_CLOSED, "the other side has closed the socket");
        if (n == 0)
            return kiln_fail(err, KILN_E_CORRUPT, "the stream ended within a frame");
        at += (size_t)n;
    }
    return 0;
}

static int parse_header(const unsigned char *header, struct kiln_frame *frame, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(header, HEADER_BYTES);
    if (memcmp(kiln_read_bytes(&reader, sizeof magic), magic, sizeof magic) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "what came is no frame");
    uint32_t version_and_type = kiln_read_be32(&reader);
    uint32_t len = kiln_read_be32(&reader);
    unsigned version = version_and_type >> 16, type = version_and_type & 0xffff;
    if (version != KILN_FRAME_VERSION)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "the other side speaks version %u, not %d", version,
                         KILN_FRAME_VERSION);
    if (type < KILN_FRAME_COMPILE || type > KILN_FRAME_ALIVE)
        return kiln_fail(err, KILN_E_CORRUPT, "a frame has the unknown type %u", type);
    if (len > KILN_FRAME_BYTES_MAX)
        return kiln_fail(err, KILN_E_CORRUPT, "a frame of %u bytes is too large", len);
    frame->type = (enum kiln_frame_type)type;
    frame->len = len;
    return 0;
}

int kiln_frame_receive(int socket, uint64_t deadline_ms, struct kiln_frame *frame, struct kiln_err *err) {
    kiln_autoframe struct kiln_frame got = {0};
    unsigned char header[HEADER_BYTES];
    int rc = receive_exactly(socket, header, sizeof header, &got, deadline_ms, err);
    if (rc)
        return rc;
    rc = parse_header(header, &got, err);
    if (rc)
        return rc;
    got.payload = malloc(got.len + 1);
    if (!got.payload)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a frame of %zu bytes", got.len);
    rc = receive_exactly(socket, got.payload, got.len, NULL, deadline_ms, err);
    if (rc)
        return rc;
    *frame = got;
    got = (struct kiln_frame){0};
    return 0;
}

int kiln_frame_await(int socket, uint64_t first_ms, uint64_t deadline_ms, struct kiln_frame *frame, bool *heard,
                     struct kiln_err *err) {
    for (uint64_t gap_ms = first_ms;; gap_ms = KILN_ALIVE_GAP_MS) {
        uint64_t gap_end_ms = kiln_clock_ms() + gap_ms;
        kiln_autoframe struct kiln_frame got = {0};
        int rc = kiln_frame_receive(socket, gap_end_ms < deadline_ms ? gap_end_ms : deadline_ms, &got, err);
        if (rc)
            return rc;
        *heard = true;
        if (got.type == KILN_FRAME_ALIVE && kiln_clock_ms() < deadline_ms)
            continue;
        if (got.type == KILN_FRAME_ALIVE)
            return kiln_fail(err, KILN_E_TIMEOUT, "the answer took too long");
        *frame = got;
        got = (struct kiln_frame){0};
        return 0;
    }
}

int kiln_frame_peer(int socket, pid_t *pid, uid_t *uid, struct kiln_err *err) {
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "asking who is at the other side of the socket");
    *pid = peer.pid;
    *uid = peer.uid;
    return 0;
}
