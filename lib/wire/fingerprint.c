#include "lib/wire/fingerprint.h"

#define EMPTY 0xc15d213aa4d7a795u // of no bytes; also the polynomial

uint64_t kiln_fingerprint(const void *canonical_form, size_t len) {
    const unsigned char *bytes = canonical_form;
    uint64_t fingerprint = EMPTY;
    for (size_t i = 0; i < len; i++) {
        uint64_t entry = (fingerprint ^ bytes[i]) & 0xff;
        for (int bit = 0; bit < 8; bit++)
            entry = entry >> 1 ^ (entry & 1 ? EMPTY : 0);
        fingerprint = fingerprint >> 8 ^ entry;
    }
    return fingerprint;
}
