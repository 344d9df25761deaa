// The bus: topics of records, behind one interface with an embedded (here) and a Kafka (fleet) implementation.
//
// At-least-once: a record is given again until it is acked; effects must be idempotent. A consumer names its topics and
// partitions at open and starts at the first unacked record ("committed") or at the absolute end. Records carry Avro
// bodies in the framing of schemas/README.md; the bus does not look inside.
// Identity: the embedded server gives each connection a role when it is made, and refuses topics the role may not write
// or read (table in bus_topics.c, the same as the ACLs of schemas/README.md).
// Thread: publish and ack may be called from any thread, also while another one is in poll; subscribe, poll and close
// belong to one thread. A handle must outlive every call on it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/wire/statement.h"

enum kiln_topic { // names in schemas/README.md
    KILN_TOPIC_JOBS, KILN_TOPIC_WORK, KILN_TOPIC_CREDITS, KILN_TOPIC_LEASES, KILN_TOPIC_CANDIDATES,
    KILN_TOPIC_RESULTS, // of the handle's tenant
    KILN_TOPIC_STATE, KILN_TOPIC_LEDGER, KILN_TOPIC_EVENTS, KILN_TOPIC_DLQ,
    KILN_TOPIC_COUNT,
};
#define KILN_BUS_PARTITIONS_MAX 8u // partitions of each topic of the embedded bus; its default is to use only 0
#define KILN_BUS_KAFKA_PARTITIONS_MAX 256u
#define KILN_BUS_KEY_BYTES_MAX 64u
#define KILN_BUS_WHY_BYTES 96u
const char *kiln_topic_name(enum kiln_topic topic);

enum kiln_bus_role { KILN_BUS_AGENT, KILN_BUS_VERIFIER, KILN_BUS_EXECUTOR };

#define KILN_RECORD_BYTES_MAX (256u << 10)

enum kiln_record_news {
    KILN_NEWS_RECORD,
    KILN_NEWS_GAINED,  // this handle now owns `partition` of the group's topics; its state is to be restored first
    KILN_NEWS_LOST,    // it does not own it any more: forget what was in flight there, acks are void
    KILN_NEWS_REFUSED, // a record whose signature or form of transport does not hold: `why`; value and offset as received
};

struct kiln_record {
    enum kiln_topic topic;
    enum kiln_record_news news; // Kafka; always RECORD on the embedded bus
    struct kiln_author author;
    const char *why;       // REFUSED: static text "word: detail"
    uint32_t partition;
    uint64_t offset;       // set by the bus
    unsigned char key[KILN_BUS_KEY_BYTES_MAX];
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

// Returns when the bus has taken the record. KILN_E_LIMIT with retriable set: the topic is full, a consumer is behind.
// KILN_E_DENIED: the role may not do that; the connection is closed.
int kiln_bus_publish(struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, const void *key, size_t key_len,
                     const void *value, size_t value_len, struct kiln_err *err);
// A verifier's answer: to the results topic of that tenant. The embedded bus has one tenant, "local".
int kiln_bus_publish_result(struct kiln_bus *bus, const char *tenant, uint32_t partition, const void *key, size_t key_len,
                            const void *value, size_t value_len, struct kiln_err *err);
// Partitions of the topics that go by action (jobs, credits, leases, candidates, state, ledger) / of work / of results.
uint32_t kiln_bus_partitions(const struct kiln_bus *bus, enum kiln_topic topic); // 1 on the embedded bus
uint32_t kiln_bus_partition_of(const struct kiln_bus *bus, const struct kiln_digest *action); // first 4 bytes, be32, mod N
// Whether a publish would reach somebody soon. KILN_E_IO with the reason when no broker can be reached.
int kiln_bus_healthy(struct kiln_bus *bus, struct kiln_err *err);
// Reads what kiln.state holds for a partition, the newest of each key, until the end as of now. Verifier, after GAINED.
// Records that do not hold come as REFUSED without their value, as they are read; the others at the end. What is left until the
// deadline is how long a next record is waited for.
// KILN_E_UNSUPPORTED on the embedded bus, where agents submit again.
int kiln_bus_restore(struct kiln_bus *bus, uint32_t partition, uint64_t deadline_ms,
                     int (*visit)(void *context, const struct kiln_record *record), void *context, struct kiln_err *err);
// All topics at once; may be called again for further topics, not for one that the handle has already. On
// Kafka a handle whose subscribe failed is to be closed and opened anew: some of its topics may be read already.
int kiln_bus_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count, struct kiln_err *err);
// Waits until the deadline (monotonic ms) for the next record; KILN_E_TIMEOUT when none came, KILN_E_CLOSED when the
// server has gone. *record is the caller's to release.
int kiln_bus_poll(struct kiln_bus *bus, uint64_t deadline_ms, struct kiln_record *record, struct kiln_err *err);
// Acks this record and all before it of the same topic and partition. On Kafka an ack takes effect once all that this
// handle published before it has been acknowledged by the brokers: what a record caused is never lost with its offset.
int kiln_bus_ack(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err);
// How many records this handle has read that are not what they say (bus_kafka.h), given as REFUSED or skipped, since it was
// opened. `why`: of the last; "".
uint64_t kiln_bus_refused(struct kiln_bus *bus, char why[KILN_BUS_WHY_BYTES]);
int kiln_bus_fd(const struct kiln_bus *bus); // readable when a poll may give something
void kiln_bus_close(struct kiln_bus *bus);

// Embedded server: topics in memory, 4096 records and 64 MiB each, served by a thread of its own. What happens to a record:
//   jobs, work, credits, leases, candidates: kept until acked by the consumer group, which is the role. The connection that
//     subscribed first gets all of them; when it closes or dies, the next one goes on at the first unacked record.
//     A full topic refuses publishing (KILN_E_LIMIT, retriable). from_end gives up what is there at the subscription.
//   results: given to every subscribed handle from its subscription on, kept until all of them acked it or closed;
//     refuses when full. Records that nobody has subscribed to are dropped.
//   state: the last record of each key is kept; an empty value deletes the key (and is seen as such); refuses when full.
//   ledger, events: the newest are kept, the oldest make room.
// Acks mean nothing on the last two kinds. Order: a handle gets records in the order in which the server took them.
// A connection that asks for what its role may not do, or breaks the framing, is dropped and counted.
struct kiln_bus_server;
struct kiln_bus_server_stats {
    uint64_t published, refused_full, violations; // since the start
    unsigned connections;                         // now
};
int kiln_bus_server_new(struct kiln_bus_server **server, struct kiln_err *err);
void kiln_bus_server_free(struct kiln_bus_server *server); // closes all connections, joins its thread
void kiln_bus_server_stats(struct kiln_bus_server *server, struct kiln_bus_server_stats *stats);
// Makes a connected socket for a child of that role; the child opens it with kiln_bus_open_fd. The server drops the
// connection when the child closes or dies, so the parent closes its own copy once the child has it. Any thread.
int kiln_bus_server_connect(struct kiln_bus_server *server, enum kiln_bus_role role, int *client_fd, struct kiln_err *err);
int kiln_bus_open_fd(int fd, struct kiln_bus **bus, struct kiln_err *err); // takes ownership of fd, also on failure
