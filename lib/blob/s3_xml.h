// What an S3 server says in XML: listings of versions, errors, the lock configuration of a bucket.
//
// Hostile bytes: no document type, no entities but the five of XML, bounded depth, text and number of entries; unknown
// elements are skipped. Anything else that is not well-formed or lacks what it must have is KILN_E_CORRUPT.
// Source: Amazon S3 API Reference, ListObjectVersions, GetObjectLockConfiguration, Error Responses.
// Ownership: a listing owns its entries. Thread: re-entrant.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KILN_S3_XML_BYTES_MAX (4u << 20)
#define KILN_S3_LIST_MAX 1000u    // entries of one page
#define KILN_S3_VERSION_ID_MAX 127u

struct kiln_s3_version {
    char *key; // decoded where the listing says that it is encoded
    char version[KILN_S3_VERSION_ID_MAX + 1];
    bool delete_marker;
    uint64_t size;
};

struct kiln_s3_listing {
    struct kiln_s3_version *entries; // as listed: keys ascending, the newest version of a key first
    size_t count;
    bool truncated; // then the markers say where the next page begins
    char *next_key, *next_version;
};

void kiln_s3_listing_release(struct kiln_s3_listing *listing);
#define kiln_autolisting __attribute__((cleanup(kiln_s3_listing_release)))
// *listing zeroed; untouched on failure.
int kiln_s3_xml_listing(const void *data, size_t len, struct kiln_s3_listing *listing, struct kiln_err *err);

// The code of an <Error> document, "" when it is none. Never fails: it only explains a failure.
void kiln_s3_xml_error(const void *data, size_t len, char code[64]);

struct kiln_s3_lock_rule {
    bool enabled;    // object lock
    bool compliance; // default retention in that mode
    uint32_t days;   // default retention, 0: none
};
int kiln_s3_xml_lock(const void *data, size_t len, struct kiln_s3_lock_rule *rule, struct kiln_err *err);
// Whether a <VersioningConfiguration> says Enabled.
int kiln_s3_xml_versioning(const void *data, size_t len, bool *enabled, struct kiln_err *err);
