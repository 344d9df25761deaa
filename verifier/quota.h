// How many bytes each tenant has uploaded in the last day, by hours, in bounded memory. Of more tenants than fit, the one that was
// heard of longest ago is forgotten. Pure.
#pragma once

#include "lib/core/trust_record.h"

#define KILN_QUOTA_TENANTS_MAX 1024u
#define KILN_QUOTA_HOURS 24u

struct kiln_quota_tenant {
    char name[KILN_PRINCIPAL_BYTES];
    uint64_t hour;  // of the newest count
    uint64_t bytes[KILN_QUOTA_HOURS];
};

struct kiln_quota {
    struct kiln_quota_tenant *tenants; // heap
    size_t count;
};

void kiln_quota_release(struct kiln_quota *quota);
int kiln_quota_add(struct kiln_quota *quota, const char *tenant, uint64_t bytes, uint64_t now_ms, struct kiln_err *err);
uint64_t kiln_quota_used(const struct kiln_quota *quota, const char *tenant, uint64_t now_ms); // bytes of the last 24 hours
