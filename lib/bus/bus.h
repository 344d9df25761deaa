// The bus: topics of records, behind one interface with an embedded (here) and a Kafka (fleet) implementation.
//
// At-least-once: a record is given again until it is acked; effects must be idempotent. A consumer names its topics and
// partitions at open and starts at the first unacked record ("committed") or at the absolute end. Records carry Avro
// bodies in the framing of schemas/README.md; the bus does not look inside.
// Identity: the embedded server gives each connection a role when it is made, and refuses topics the role may not write
// or read (table in bus_embedded.c, the same as the ACLs of schemas/README.md).
// Thread: one handle, one thread; kiln_bus_publish of the in-process handle may be called from any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

enum kiln_topic { // names in schemas/README.md
    KILN_TOPIC_JOBS, KILN_TOPIC_WORK, KILN_TOPIC_CREDITS, KILN_TOPIC_LEASES, KILN_TOPIC_CANDIDATES,
    KILN_TOPIC_RESULTS, // of the handle's tenant
    KILN_TOPIC_STATE, KILN_TOPIC_LEDGER, KILN_TOPIC_EVENTS,
    KILN_TOPIC_COUNT,
};
const char *kiln_topic_name(enum kiln_topic topic);

enum kiln_bus_role { KILN_BUS_AGENT, KILN_BUS_VERIFIER, KILN_BUS_EXECUTOR };

#define KILN_RECORD_BYTES_MAX (256u << 10)

struct kiln_record {
    enum kiln_topic topic;
    uint32_t partition;
    uint64_t offset;       // set by the bus
    unsigned char key[64]; // at most 64 bytes
    size_t key_len;
    unsigned char *value;  // heap; owned by the record
    size_t value_len;
};
void kiln_record_release(struct kiln_record *record);

struct kiln_bus;

struct kiln_bus_subscription {
    enum kiln_topic topic;
    bool from_end; // else from the first unacked record
};

int kiln_bus_publish(struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, const void *key, size_t key_len,
                     const void *value, size_t value_len, struct kiln_err *err);
int kiln_bus_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count, struct kiln_err *err);
// Waits until the deadline (monotonic ms) for the next record; KILN_E_TIMEOUT when none came, KILN_E_CLOSED when the
// server has gone. *record is the caller's to release.
int kiln_bus_poll(struct kiln_bus *bus, uint64_t deadline_ms, struct kiln_record *record, struct kiln_err *err);
// Acks this record and all before it of the same topic and partition.
int kiln_bus_ack(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err);
int kiln_bus_fd(const struct kiln_bus *bus); // readable when a poll may give something
void kiln_bus_close(struct kiln_bus *bus);

// Embedded server: topics in memory (bounded; a full topic refuses publishing with KILN_E_LIMIT, retriable). It runs its
// own thread. Acked records are dropped. A consumer group is the role: a second verifier connection continues where the
// first stopped acking; results are given to every agent handle from its subscription on.
struct kiln_bus_server;
int kiln_bus_server_new(struct kiln_bus_server **server, struct kiln_err *err);
void kiln_bus_server_free(struct kiln_bus_server *server); // closes all connections, joins its thread
// Makes a connected socket for a child of that role; the child opens it with kiln_bus_open_fd. The server drops the
// connection when the child closes or dies.
int kiln_bus_server_connect(struct kiln_bus_server *server, enum kiln_bus_role role, int *client_fd, struct kiln_err *err);
int kiln_bus_open_fd(int fd, struct kiln_bus **bus, struct kiln_err *err); // takes ownership of fd, also on failure
