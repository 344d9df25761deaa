// What is written down of the verifier's work and read by nobody on a job's way: kiln.ledger (each decision), kiln.events (what
// people should know, refusals with their name), kiln.dlq (records that cannot be taken, verbatim).
//
// A ledger entry or event that finds its topic full is dropped and counted: people's records never hold up jobs. A dead
// letter is waited for, since it stands for a record that will be acked. Texts are made printable. One thread.
#pragma once

#include "lib/bus/bus.h"
#include "lib/wire/records.h"

struct kiln_chronicle {
    struct kiln_bus *bus;
    const char *principal; // of this verifier
    uint64_t entries, events, dead_letters, dropped;
};

struct kiln_chronicle_entry {
    const char *event; // "submitted", "rejected", "wanted", "uploaded", "dispatched", "judged", "stored", "answered", ...
    const struct kiln_digest *action;
    const struct kiln_job_id *job; // NULL: about no single one
    const char *scope, *tenant, *principal, *executor, *pool, *detail; // NULL: ""
    uint32_t attempt;
    const struct kiln_buf *envelope; // or NULL
};

// KILN_E_CLOSED and KILN_E_NOMEM only.
int kiln_chronicle_enter(struct kiln_chronicle *chronicle, const struct kiln_chronicle_entry *entry, struct kiln_err *err);
// name: a word, or a text whose first word (before ':') it is. severity: "info", "warn", "alert".
int kiln_chronicle_tell(struct kiln_chronicle *chronicle, const char *severity, const char *name, const char *subject,
                        const char *detail, struct kiln_err *err);
int kiln_chronicle_bury(struct kiln_chronicle *chronicle, const struct kiln_record *record, const char *reason,
                        struct kiln_err *err);

// A copy of a text that a record may hold: printable ASCII, at most what the records take. Heap; NULL: no memory.
char *kiln_chronicle_plain(const char *text);
// Publishes, and waits a while when the topic is full (its reader is behind). KILN_E_LIMIT: it stayed full; KILN_E_INVAL: the
// bus does not take such a record; KILN_E_CLOSED: the bus is not to be used any more.
int kiln_chronicle_publish(struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, const void *key, size_t key_len,
                           const struct kiln_buf *record, struct kiln_err *err);
