#include "verifier/quota.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOUR_MS 3600000u

void kiln_quota_release(struct kiln_quota *quota) {
    free(quota->tenants);
    *quota = (struct kiln_quota){0};
}

static struct kiln_quota_tenant *find(const struct kiln_quota *quota, const char *tenant) {
    for (size_t i = 0; i < quota->count; i++) {
        if (strcmp(quota->tenants[i].name, tenant) == 0)
            return &quota->tenants[i];
    }
    return NULL;
}

static struct kiln_quota_tenant *find_oldest(const struct kiln_quota *quota) {
    struct kiln_quota_tenant *oldest = &quota->tenants[0];
    for (size_t i = 1; i < quota->count; i++) {
        if (quota->tenants[i].hour < oldest->hour)
            oldest = &quota->tenants[i];
    }
    return oldest;
}

int kiln_quota_add(struct kiln_quota *quota, const char *tenant, uint64_t bytes, uint64_t now_ms, struct kiln_err *err) {
    uint64_t hour = now_ms / HOUR_MS;
    if (!quota->tenants)
        quota->tenants = calloc(KILN_QUOTA_TENANTS_MAX, sizeof *quota->tenants);
    if (!quota->tenants)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for quotas");
    struct kiln_quota_tenant *found = find(quota, tenant);
    if (!found) {
        found = quota->count < KILN_QUOTA_TENANTS_MAX ? &quota->tenants[quota->count++] : find_oldest(quota);
        *found = (struct kiln_quota_tenant){.hour = hour};
        snprintf(found->name, sizeof found->name, "%s", tenant);
    }
    for (unsigned i = 0; found->hour < hour && i < KILN_QUOTA_HOURS; i++)
        found->bytes[++found->hour % KILN_QUOTA_HOURS] = 0;
    found->hour = hour > found->hour ? hour : found->hour;
    found->bytes[hour % KILN_QUOTA_HOURS] += bytes;
    return 0;
}

uint64_t kiln_quota_used(const struct kiln_quota *quota, const char *tenant, uint64_t now_ms) {
    uint64_t hour = now_ms / HOUR_MS, sum = 0;
    const struct kiln_quota_tenant *found = quota->tenants ? find(quota, tenant) : NULL;
    for (uint64_t back = 0; found && back < KILN_QUOTA_HOURS && back <= found->hour; back++) {
        uint64_t at = found->hour - back;
        if (at + KILN_QUOTA_HOURS > hour)
            sum += found->bytes[at % KILN_QUOTA_HOURS];
    }
    return sum;
}
