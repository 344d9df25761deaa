// The server of the embedded bus: one thread, one epoll set. Everything is under one mutex, which the thread drops only
// while it waits; nothing blocks under it (all sockets are used with MSG_DONTWAIT). Clients are hostile: a frame is
// checked before a byte of its value is stored, and a connection holds at most one request and one delivery.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "lib/base/cleanup.h"
#include "lib/bus/bus_topics.h"

enum {
    CONNECTIONS_MAX = 64,
    EVENTS_MAX = 64,
    REQUESTS_PER_WAKE = 32, // then the others have their turn
};

struct connection;

struct endpoint { // what epoll points at
    struct connection *connection;
    int fd;
};

struct connection {
    TAILQ_ENTRY(connection) link;
    enum kiln_bus_role role;
    struct endpoint deliver, request;
    struct kiln_bus_reader reader;
    bool dead, wants_out, wants_reply_out;

    struct kiln_bus_frame frame; // the request being received
    size_t frame_len;
    struct kiln_bus_item *item;
    size_t value_len;
    struct kiln_bus_reply reply;
    size_t reply_left;

    struct kiln_bus_item *sending;
    size_t sent;
};

struct kiln_bus_server {
    pthread_mutex_t lock;
    pthread_t thread;
    int epoll_fd, stop_fd;
    struct kiln_bus_topics topics;
    TAILQ_HEAD(, connection) connections;
    struct kiln_bus_server_stats stats;
};

static void lock(struct kiln_bus_server *server) { pthread_mutex_lock(&server->lock); }
static void unlock(struct kiln_bus_server *server) { pthread_mutex_unlock(&server->lock); }

static void watch(struct kiln_bus_server *server, struct endpoint *endpoint, bool in, bool out) {
    struct epoll_event event = {.events = (in ? EPOLLIN : 0u) | (out ? EPOLLOUT : 0u), .data.ptr = endpoint};
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, endpoint->fd, &event))
        endpoint->connection->dead = true;
}

static void violate(struct kiln_bus_server *server, struct connection *connection) {
    server->stats.violations++;
    connection->dead = true;
}

// Sends what the connection is to get until its socket is full.
static void pump(struct kiln_bus_server *server, struct connection *connection) {
    bool full = false;
    while (!connection->dead && !full) {
        struct kiln_bus_item *item = connection->sending;
        if (!item) {
            item = connection->sending = kiln_bus_topics_next(&server->topics, &connection->reader);
            connection->sent = 0;
        }
        if (!item)
            break;
        size_t head = sizeof item->frame, total = head + item->frame.value_len, sent = connection->sent;
        struct iovec parts[2] = {
            {(char *)&item->frame + (sent < head ? sent : head), sent < head ? head - sent : 0},
            {item->value + (sent < head ? 0 : sent - head), sent < head ? item->frame.value_len : total - sent},
        };
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t n = sendmsg(connection->deliver.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            full = errno == EAGAIN;
            connection->dead = !full;
            continue;
        }
        connection->sent += (size_t)n;
        if (connection->sent == total) {
            kiln_bus_item_unref(item);
            connection->sending = NULL;
        }
    }
    if (full != connection->wants_out && !connection->dead) {
        connection->wants_out = full;
        watch(server, &connection->deliver, true, full);
    }
}

static void pump_all(struct kiln_bus_server *server) {
    struct connection *connection;
    TAILQ_FOREACH(connection, &server->connections, link) {
        if (!connection->wants_out)
            pump(server, connection);
    }
}

static void flush_reply(struct kiln_bus_server *server, struct connection *connection) {
    while (connection->reply_left && !connection->dead) {
        const char *from = (const char *)(&connection->reply + 1) - connection->reply_left;
        ssize_t n = send(connection->request.fd, from, connection->reply_left, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0)
            connection->reply_left -= (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            connection->dead = true;
    }
    bool waits = connection->reply_left > 0;
    if (waits != connection->wants_reply_out && !connection->dead) {
        connection->wants_reply_out = waits;
        watch(server, &connection->request, !waits, waits);
    }
}

static void answer(struct kiln_bus_server *server, struct connection *connection, int code) {
    connection->reply = (struct kiln_bus_reply){.code = code};
    connection->reply_left = sizeof connection->reply;
    flush_reply(server, connection);
    if (code == KILN_E_DENIED || code == KILN_E_INVAL)
        violate(server, connection);
}

static int check_mask(const struct kiln_bus_frame *frame, enum kiln_bus_role role) {
    if (frame->topics >> KILN_TOPIC_COUNT || frame->from_end & ~frame->topics)
        return KILN_E_INVAL;
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        if (frame->topics >> topic & 1 && !kiln_bus_may_read(topic, role))
            return KILN_E_DENIED;
    }
    return 0;
}

// What can be refused before the value has come.
static int check_frame(const struct kiln_bus_frame *frame, enum kiln_bus_role role) {
    if (frame->op == KILN_BUS_OP_SUBSCRIBE)
        return frame->value_len ? KILN_E_INVAL : check_mask(frame, role);
    if (frame->topic >= KILN_TOPIC_COUNT || frame->partition >= KILN_BUS_PARTITIONS_MAX)
        return KILN_E_INVAL;
    if (frame->op == KILN_BUS_OP_ACK)
        return frame->value_len ? KILN_E_INVAL : 0;
    if (frame->op != KILN_BUS_OP_PUBLISH || frame->key_len > KILN_BUS_KEY_BYTES_MAX ||
        frame->value_len > KILN_RECORD_BYTES_MAX)
        return KILN_E_INVAL;
    return kiln_bus_may_write(frame->topic, role) ? 0 : KILN_E_DENIED;
}

static void serve(struct kiln_bus_server *server, struct connection *connection) {
    const struct kiln_bus_frame *frame = &connection->frame;
    int rc;
    connection->frame_len = 0;
    connection->value_len = 0;
    switch (frame->op) {
    case KILN_BUS_OP_PUBLISH:
        rc = kiln_bus_topics_append(&server->topics, KILN_STEAL(connection->item));
        server->stats.published += rc == 0;
        server->stats.refused_full += rc == KILN_E_LIMIT;
        pump_all(server); // before the answer: the reader is what somebody waits for
        answer(server, connection, rc);
        break;
    case KILN_BUS_OP_SUBSCRIBE:
        rc = kiln_bus_topics_subscribe(&server->topics, &connection->reader, frame->topics, frame->from_end);
        answer(server, connection, rc);
        pump(server, connection);
        break;
    case KILN_BUS_OP_ACK:
        if (kiln_bus_topics_ack(&server->topics, &connection->reader, frame->topic, frame->partition, frame->offset))
            violate(server, connection);
        break;
    default:
        break;
    }
}

// Receives into [data, data + size) of which *have is there. True when complete.
static bool receive(struct connection *connection, void *data, size_t size, size_t *have) {
    while (*have < size) {
        ssize_t n = recv(connection->request.fd, (char *)data + *have, size - *have, MSG_DONTWAIT);
        if (n > 0) {
            *have += (size_t)n;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            connection->dead = true;
            return false;
        } else if (errno == EAGAIN) {
            return false;
        }
    }
    return true;
}

// True when a whole request has been received.
static bool receive_request(struct kiln_bus_server *server, struct connection *connection) {
    struct kiln_bus_frame *frame = &connection->frame;
    if (!connection->item) {
        if (!receive(connection, frame, sizeof *frame, &connection->frame_len))
            return false;
        int rc = check_frame(frame, connection->role);
        if (rc) {
            answer(server, connection, rc);
            return false;
        }
        if (frame->op != KILN_BUS_OP_PUBLISH)
            return true;
        connection->item = kiln_bus_item_new(frame);
        if (!connection->item) {
            connection->dead = true;
            return false;
        }
        connection->item->frame.writer = (uint16_t)connection->role;
    }
    return receive(connection, connection->item->value, frame->value_len, &connection->value_len);
}

static void on_request(struct kiln_bus_server *server, struct connection *connection) {
    flush_reply(server, connection);
    for (int i = 0; i < REQUESTS_PER_WAKE && !connection->dead && !connection->reply_left; i++) {
        if (!receive_request(server, connection))
            return;
        serve(server, connection);
    }
}

static void on_deliver(struct kiln_bus_server *server, struct connection *connection, uint32_t events) {
    char byte;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t n = recv(connection->deliver.fd, &byte, 1, MSG_DONTWAIT);
        if (n > 0)
            violate(server, connection);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            connection->dead = true;
    }
    if (events & EPOLLOUT)
        pump(server, connection);
}

// Closing alone does not end the watch: a child between fork and exec holds a copy of the descriptor for a moment.
static void unwatch(struct kiln_bus_server *server, struct endpoint *endpoint) {
    if (endpoint->fd >= 0)
        epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, endpoint->fd, NULL);
    kiln_cleanup_fd(&endpoint->fd);
}

static void connection_free(struct kiln_bus_server *server, struct connection *connection) {
    kiln_bus_topics_leave(&server->topics, &connection->reader);
    kiln_bus_item_unref(connection->sending);
    kiln_bus_item_unref(connection->item);
    unwatch(server, &connection->deliver);
    unwatch(server, &connection->request);
    TAILQ_REMOVE(&server->connections, connection, link);
    server->stats.connections--;
    free(connection);
}

// Only between batches of events, so that none of them points at a connection that is gone.
static void bury(struct kiln_bus_server *server) {
    bool again = true;
    while (again) { // what the dead leave may go to others, and they may turn out dead when it is sent
        again = false;
        struct connection *connection = TAILQ_FIRST(&server->connections), *next;
        for (; connection; connection = next) {
            next = TAILQ_NEXT(connection, link);
            if (!connection->dead)
                continue;
            connection_free(server, connection);
            again = true;
        }
        if (again)
            pump_all(server);
    }
}

static void *run(void *arg) {
    struct kiln_bus_server *server = arg;
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(server->epoll_fd, events, EVENTS_MAX, -1);
        lock(server);
        for (int i = 0; i < count; i++) {
            struct endpoint *endpoint = events[i].data.ptr;
            if (!endpoint) { // stop_fd
                unlock(server);
                return NULL;
            }
            struct connection *connection = endpoint->connection;
            if (connection->dead)
                continue;
            if (endpoint == &connection->request)
                on_request(server, connection);
            else
                on_deliver(server, connection, events[i].events);
        }
        bury(server);
        unlock(server);
    }
}

static int start_thread(struct kiln_bus_server *server, struct kiln_err *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // signals are for the program's own threads
    int rc = pthread_create(&server->thread, NULL, run, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc ? kiln_fail(err, KILN_E_IO, "bus: cannot start a thread: %s", strerror(rc)) : 0;
}

int kiln_bus_server_new(struct kiln_bus_server **result, struct kiln_err *err) {
    struct kiln_bus_server *server = calloc(1, sizeof *server);
    if (!server)
        return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
    pthread_mutex_init(&server->lock, NULL);
    kiln_bus_topics_init(&server->topics);
    TAILQ_INIT(&server->connections);
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    server->stop_fd = eventfd(0, EFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    int rc = 0;
    if (server->epoll_fd < 0 || server->stop_fd < 0 ||
        epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->stop_fd, &event))
        rc = kiln_fail_errno(err, KILN_E_IO, "bus: cannot wait for events");
    if (rc == 0)
        rc = start_thread(server, err);
    if (rc) {
        kiln_cleanup_fd(&server->epoll_fd);
        kiln_cleanup_fd(&server->stop_fd);
        pthread_mutex_destroy(&server->lock);
        free(server);
        return rc;
    }
    *result = server;
    return 0;
}

void kiln_bus_server_free(struct kiln_bus_server *server) {
    if (!server)
        return;
    eventfd_write(server->stop_fd, 1);
    pthread_join(server->thread, NULL);
    struct connection *connection;
    while ((connection = TAILQ_FIRST(&server->connections)))
        connection_free(server, connection);
    kiln_bus_topics_release(&server->topics);
    close(server->epoll_fd);
    close(server->stop_fd);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

void kiln_bus_server_stats(struct kiln_bus_server *server, struct kiln_bus_server_stats *stats) {
    lock(server);
    *stats = server->stats;
    unlock(server);
}

static int send_hello(int deliver_fd, int request_client_fd) {
    char hello = KILN_BUS_HELLO;
    struct iovec part = {&hello, 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &request_client_fd, sizeof(int));
    return sendmsg(deliver_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 ? 0 : -1;
}

// Makes both socket pairs; the request pair's client end is left in the delivery pair for the client to pick up.
static int open_pairs(int *deliver_fd, int *request_fd, int *client_fd, struct kiln_err *err) {
    int deliver[2] = {-1, -1}, request[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, deliver) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, request) || send_hello(deliver[0], request[1])) {
        int rc = kiln_fail_errno(err, KILN_E_IO, "bus: cannot make a connection");
        for (int i = 0; i < 2; i++) {
            kiln_cleanup_fd(&deliver[i]);
            kiln_cleanup_fd(&request[i]);
        }
        return rc;
    }
    close(request[1]);
    *deliver_fd = deliver[0];
    *request_fd = request[0];
    *client_fd = deliver[1];
    return 0;
}

static int add_connection(struct kiln_bus_server *server, struct connection *connection, struct kiln_err *err) {
    if (server->stats.connections >= CONNECTIONS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "bus: %u connections already", server->stats.connections);
    struct epoll_event deliver = {.events = EPOLLIN, .data.ptr = &connection->deliver};
    struct epoll_event request = {.events = EPOLLIN, .data.ptr = &connection->request};
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, connection->deliver.fd, &deliver) ||
        epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, connection->request.fd, &request))
        return kiln_fail_errno(err, KILN_E_IO, "bus: cannot watch a connection");
    TAILQ_INSERT_TAIL(&server->connections, connection, link);
    server->stats.connections++;
    return 0;
}

int kiln_bus_server_connect(struct kiln_bus_server *server, enum kiln_bus_role role, int *client_fd, struct kiln_err *err) {
    kiln_autofree struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
    kiln_autofd int deliver_fd = -1, request_fd = -1, made_fd = -1;
    int rc = open_pairs(&deliver_fd, &request_fd, &made_fd, err);
    if (rc)
        return rc;
    connection->role = role;
    connection->deliver = (struct endpoint){connection, deliver_fd};
    connection->request = (struct endpoint){connection, request_fd};
    lock(server);
    rc = add_connection(server, connection, err);
    unlock(server);
    if (rc)
        return rc;
    (void)KILN_STEAL(connection);
    (void)kiln_steal_fd(&deliver_fd);
    (void)kiln_steal_fd(&request_fd);
    *client_fd = kiln_steal_fd(&made_fd);
    return 0;
}
