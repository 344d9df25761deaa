// The client of the embedded bus. Deliveries come on one socket, which only poll reads; requests go over the other, under
// a mutex, so that any thread may publish while another one waits for a record.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/bus/bus_frames.h"
#include "lib/bus/bus_ops.h"

struct client {
    struct kiln_bus bus;
    int deliver_fd, request_fd;
    pthread_mutex_t lock; // of request_fd

    struct kiln_bus_frame frame; // the delivery being received
    size_t frame_len;
    unsigned char *value;
    size_t value_len;
};

static struct client *client_of(struct kiln_bus *bus) { return (struct client *)bus; }

static int gone(struct kiln_err *err) {
    kiln_fail(err, KILN_E_CLOSED, "the bus has closed the connection");
    if (err)
        err->fatal = true;
    return KILN_E_CLOSED;
}

static int send_request(struct client *client, const struct kiln_bus_frame *frame, const void *value, struct kiln_err *err) {
    struct iovec parts[2] = {{(void *)(uintptr_t)frame, sizeof *frame}, {(void *)(uintptr_t)value, frame->value_len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    size_t left = sizeof *frame + frame->value_len;
    while (left) {
        ssize_t n = sendmsg(client->request_fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return gone(err);
        if (n < 0)
            return kiln_fail_errno(err, KILN_E_IO, "bus: send");
        left -= (size_t)n;
        for (size_t i = 0, used = (size_t)n; i < 2; i++) {
            size_t part = used < parts[i].iov_len ? used : parts[i].iov_len;
            parts[i].iov_base = (char *)parts[i].iov_base + part;
            parts[i].iov_len -= part;
            used -= part;
        }
    }
    return 0;
}

static int receive_reply(struct client *client, struct kiln_bus_reply *reply, struct kiln_err *err) {
    size_t have = 0;
    while (have < sizeof *reply) {
        ssize_t n = recv(client->request_fd, (char *)reply + have, sizeof *reply - have, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return gone(err);
        if (n < 0)
            return kiln_fail_errno(err, KILN_E_IO, "bus: receive");
        have += (size_t)n;
    }
    return 0;
}

static int explain(int code, struct kiln_err *err) {
    switch (code) {
    case 0:
        return 0;
    case KILN_E_LIMIT:
        kiln_fail(err, code, "the topic is full");
        if (err)
            err->retriable = true;
        return code;
    case KILN_E_DENIED:
        return kiln_fail(err, code, "the role of this connection may not");
    default:
        return kiln_fail(err, code, "refused by the bus");
    }
}

// Sends a request and, unless it is an ack, waits for its answer.
static int request(struct client *client, const struct kiln_bus_frame *frame, const void *value, struct kiln_err *err) {
    struct kiln_bus_reply reply = {0};
    pthread_mutex_lock(&client->lock);
    int rc = send_request(client, frame, value, err);
    // The server answers a request that it refuses before it has come in whole: the answer says more than EPIPE.
    if (frame->op != KILN_BUS_OP_ACK && (rc == 0 || rc == KILN_E_CLOSED))
        rc = receive_reply(client, &reply, err);
    pthread_mutex_unlock(&client->lock);
    return rc ? rc : explain(reply.code, err);
}

#define LOCAL "local" // tenant, pool and principal of all that is on this host

static int client_publish(struct kiln_bus *bus, const struct kiln_record *record, const char *tenant,
                          struct kiln_err *err) {
    if (tenant && strcmp(tenant, LOCAL) != 0)
        return kiln_fail(err, KILN_E_INVAL, "there is no tenant '%s' here", tenant);
    struct kiln_bus_frame frame = {
        .op = KILN_BUS_OP_PUBLISH,
        .topic = (uint8_t)record->topic,
        .key_len = (uint16_t)record->key_len,
        .partition = record->partition,
        .value_len = (uint32_t)record->value_len,
    };
    memcpy(frame.key, record->key, record->key_len);
    return request(client_of(bus), &frame, record->value, err);
}

static int client_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count,
                            struct kiln_err *err) {
    struct kiln_bus_frame frame = {.op = KILN_BUS_OP_SUBSCRIBE};
    for (size_t i = 0; i < count; i++) {
        frame.topics |= (uint16_t)(1u << topics[i].topic);
        if (topics[i].from_end)
            frame.from_end |= (uint16_t)(1u << topics[i].topic);
    }
    return request(client_of(bus), &frame, NULL, err);
}

static int client_ack(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err) {
    struct kiln_bus_frame frame = {
        .op = KILN_BUS_OP_ACK,
        .topic = (uint8_t)record->topic,
        .partition = record->partition,
        .offset = record->offset,
    };
    return request(client_of(bus), &frame, NULL, err);
}

// Receives without waiting into [data, data + size): 0 when complete, KILN_E_TIMEOUT when more must come.
static int receive_part(struct client *client, void *data, size_t size, size_t *have, struct kiln_err *err) {
    while (*have < size) {
        ssize_t n = recv(client->deliver_fd, (char *)data + *have, size - *have, MSG_DONTWAIT);
        if (n > 0)
            *have += (size_t)n;
        else if (n < 0 && errno == EAGAIN)
            return KILN_E_TIMEOUT;
        else if (n == 0 || errno == ECONNRESET)
            return gone(err);
        else if (errno != EINTR)
            return kiln_fail_errno(err, KILN_E_IO, "bus: receive");
    }
    return 0;
}

static bool is_delivery(const struct kiln_bus_frame *frame) {
    return frame->op == KILN_BUS_OP_DELIVER && frame->topic < KILN_TOPIC_COUNT &&
           frame->partition < KILN_BUS_PARTITIONS_MAX && frame->key_len <= KILN_BUS_KEY_BYTES_MAX &&
           frame->value_len <= KILN_RECORD_BYTES_MAX && frame->writer <= KILN_BUS_EXECUTOR;
}

static int receive_delivery(struct client *client, struct kiln_err *err) {
    struct kiln_bus_frame *frame = &client->frame;
    if (!client->value) {
        int rc = receive_part(client, frame, sizeof *frame, &client->frame_len, err);
        if (rc)
            return rc;
        if (!is_delivery(frame))
            return kiln_fail(err, KILN_E_CORRUPT, "bus: not a delivery");
        client->value = malloc(frame->value_len + 1u);
        if (!client->value)
            return kiln_fail(err, KILN_E_NOMEM, "bus: no memory for a record");
    }
    return receive_part(client, client->value, frame->value_len, &client->value_len, err);
}

// The connection a record came from says who wrote it; its incarnation and sequence are nobody's.
static void fill_author(enum kiln_bus_role writer, struct kiln_author *author) {
    static const enum kiln_role roles[] = {
        [KILN_BUS_AGENT] = KILN_ROLE_OF_AGENT,
        [KILN_BUS_VERIFIER] = KILN_ROLE_OF_VERIFIER,
        [KILN_BUS_EXECUTOR] = KILN_ROLE_OF_EXECUTOR,
    };
    *author = (struct kiln_author){
        .role = roles[writer], .principal = LOCAL, .tenant = LOCAL, .pool = LOCAL, .at_ms = kiln_clock_wall_ms()};
}

static void take_delivery(struct client *client, struct kiln_record *record) {
    const struct kiln_bus_frame *frame = &client->frame;
    *record = (struct kiln_record){
        .topic = frame->topic,
        .partition = frame->partition,
        .offset = frame->offset,
        .key_len = frame->key_len,
        .value = KILN_STEAL(client->value),
        .value_len = frame->value_len,
    };
    memcpy(record->key, frame->key, frame->key_len);
    fill_author(frame->writer, &record->author);
    client->frame_len = 0;
    client->value_len = 0;
}

static int client_poll(struct kiln_bus *bus, uint64_t deadline_ms, struct kiln_record *record, struct kiln_err *err) {
    struct client *client = client_of(bus);
    for (;;) {
        int rc = receive_delivery(client, err);
        if (rc == 0) {
            take_delivery(client, record);
            return 0;
        }
        if (rc != KILN_E_TIMEOUT)
            return rc;
        int left_ms = kiln_clock_left_ms(deadline_ms);
        if (left_ms == 0)
            return kiln_fail(err, KILN_E_TIMEOUT, "no record until the deadline");
        struct pollfd wait = {.fd = client->deliver_fd, .events = POLLIN};
        if (poll(&wait, 1, left_ms) < 0 && errno != EINTR)
            return kiln_fail_errno(err, KILN_E_IO, "bus: poll");
    }
}

static int client_healthy(struct kiln_bus *bus, struct kiln_err *err) {
    struct pollfd look = {.fd = client_of(bus)->request_fd};
    if (poll(&look, 1, 0) > 0 && look.revents & (POLLHUP | POLLERR))
        return kiln_fail(err, KILN_E_IO, "the bus has closed the connection");
    return 0;
}

static int client_restore(struct kiln_bus *bus, uint32_t partition, uint64_t deadline_ms,
                          int (*visit)(void *context, const struct kiln_record *record), void *context,
                          struct kiln_err *err) {
    (void)bus, (void)partition, (void)deadline_ms, (void)visit, (void)context;
    return kiln_fail(err, KILN_E_UNSUPPORTED, "the embedded bus keeps no state");
}

static uint32_t client_partitions(const struct kiln_bus *bus, enum kiln_topic topic) {
    (void)bus, (void)topic;
    return 1;
}

static uint32_t client_partitions_max(const struct kiln_bus *bus, enum kiln_topic topic) {
    (void)bus, (void)topic;
    return KILN_BUS_PARTITIONS_MAX;
}

static int client_fd(const struct kiln_bus *bus) { return ((const struct client *)bus)->deliver_fd; }

static void client_close(struct kiln_bus *bus) {
    struct client *client = client_of(bus);
    kiln_cleanup_fd(&client->deliver_fd);
    kiln_cleanup_fd(&client->request_fd);
    pthread_mutex_destroy(&client->lock);
    free(client->value);
    free(client);
}

static const struct kiln_bus_ops client_ops = {
    .publish = client_publish,
    .subscribe = client_subscribe,
    .poll = client_poll,
    .ack = client_ack,
    .healthy = client_healthy,
    .restore = client_restore,
    .partitions = client_partitions,
    .partitions_max = client_partitions_max,
    .fd = client_fd,
    .close = client_close,
};

static int receive_hello(int deliver_fd, int *request_fd, struct kiln_err *err) {
    char hello = 0;
    struct iovec part = {&hello, 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    do
        n = recvmsg(deliver_fd, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return kiln_fail_errno(err, KILN_E_IO, "bus: descriptor %d", deliver_fd);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (n == 0)
        return gone(err);
    if (hello != KILN_BUS_HELLO || !header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
        header->cmsg_len != CMSG_LEN(sizeof(int)))
        return kiln_fail(err, KILN_E_CORRUPT, "bus: descriptor %d does not come from a bus server", deliver_fd);
    memcpy(request_fd, CMSG_DATA(header), sizeof(int));
    return 0;
}

int kiln_bus_open_fd(int fd, struct kiln_bus **bus, struct kiln_err *err) {
    kiln_autofd int deliver_fd = fd, request_fd = -1;
    if (fcntl(deliver_fd, F_SETFD, FD_CLOEXEC))
        return kiln_fail_errno(err, KILN_E_IO, "bus: descriptor %d", fd);
    int rc = receive_hello(deliver_fd, &request_fd, err);
    if (rc)
        return rc;
    struct client *client = calloc(1, sizeof *client);
    if (!client)
        return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
    client->bus.ops = &client_ops;
    pthread_mutex_init(&client->lock, NULL);
    client->deliver_fd = kiln_steal_fd(&deliver_fd);
    client->request_fd = kiln_steal_fd(&request_fd);
    *bus = &client->bus;
    return 0;
}
