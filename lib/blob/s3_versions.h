// What lies under a key, version by version, and what may be said of one version. Thread: re-entrant.
#pragma once

#include "lib/blob/s3_answer.h"
#include "lib/blob/s3_client.h"

// The versions of exactly one key that are objects, the oldest first; of more than KILN_POINTER_VERSIONS_MAX the oldest ones.
struct kiln_s3_versions {
    struct {
        struct kiln_pin pin;
        uint64_t size;
    } items[KILN_POINTER_VERSIONS_MAX];
    size_t count;
    size_t listed; // all of them, delete markers among them
};

// For one among several requests: a GET that asks for the versions of a key, and whether its answer says that nothing, and no delete
// marker, was ever there. KILN_E_IO and others: it says nothing.
void kiln_s3_ask_versions(struct kiln_s3_exchange *exchange, enum kiln_space space, const char *key);
int kiln_s3_never_was(const struct kiln_s3_exchange *exchange, const char *key, bool *never, struct kiln_err *err);
int kiln_s3_versions_of(struct kiln_s3_client *client, enum kiln_space space, const char *key, struct kiln_s3_versions *versions,
                        struct kiln_err *err);
// Deletes the object `prefix` and all below it, in pages.
int kiln_s3_delete_below(struct kiln_s3_client *client, enum kiln_space space, const char *prefix, struct kiln_err *err);

// Whether the answer to a GET or HEAD is about the version asked for, under a COMPLIANCE lock that reaches until `until_ms` and is in
// force. KILN_E_CORRUPT with "version: ..." or "lock: ..." otherwise: absent headers are no lock.
int kiln_s3_check_version(const struct kiln_s3_exchange *exchange, const struct kiln_pin *pin, struct kiln_err *err);
int kiln_s3_check_lock(const struct kiln_s3_exchange *exchange, uint64_t until_ms, struct kiln_err *err);

// A GET that the server refused with a status of 500 and more, again and again, though a HEAD of the very same version shows it there:
// its disk has lost the bytes, and waiting will not bring them back. Then *err becomes KILN_E_CORRUPT. Returns err->code.
int kiln_s3_judge_refused(struct kiln_s3_client *client, const struct kiln_s3_exchange *get, const struct kiln_pin *pin, struct kiln_err *err);
