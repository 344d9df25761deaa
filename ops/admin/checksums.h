// Lists of archive checksums that an operator trusts: a Cargo.lock, or lines as sha256sum prints them.
//
// Of a Cargo.lock: each [[package]] with name, version and checksum. Else each line is 64 hex digits, blanks, and a file name
// that ends in NAME-VERSION.crate. Hostile input: bounded, what does not read as either is refused with its line.
#pragma once

#include "lib/base/buf.h"
#include "lib/core/digest.h"

struct kiln_checksum {
    char *package; // "NAME-VERSION"
    struct kiln_digest archive;
};

struct kiln_checksums {
    struct kiln_checksum *items;
    size_t count;
};

int kiln_checksums_parse(const char *text, size_t len, struct kiln_checksums *checksums, struct kiln_err *err); // adds
bool kiln_checksums_has(const struct kiln_checksums *checksums, const char *package, const struct kiln_digest *archive);
void kiln_checksums_release(struct kiln_checksums *checksums);
#define kiln_autochecksums __attribute__((cleanup(kiln_checksums_release)))
