#include "verifier/identity.h"

#include <stdio.h>
#include <string.h>

static void set(char name[KILN_PRINCIPAL_BYTES], const char *value) {
    snprintf(name, KILN_PRINCIPAL_BYTES, "%s", value);
}

void kiln_identity_adopt_agent(const struct kiln_job_submitted *record, struct kiln_author *author) {
    *author = (struct kiln_author){.role = KILN_ROLE_OF_AGENT};
    set(author->principal, record->agent);
    set(author->tenant, KILN_TENANT_EMBEDDED);
}

void kiln_identity_adopt_executor(const char *executor, const char *pool, const struct kiln_job_id *incarnation,
                                  struct kiln_author *author) {
    *author = (struct kiln_author){.role = KILN_ROLE_OF_EXECUTOR, .incarnation = *incarnation};
    set(author->principal, executor ? executor : "");
    set(author->pool, pool ? pool : "");
}

int kiln_identity_check_submission(const struct kiln_author *author, const struct kiln_job_submitted *record,
                                   uint32_t partition, struct kiln_err *err) {
    if (author->role != KILN_ROLE_OF_AGENT)
        return kiln_fail(err, KILN_E_DENIED, "wrong_role: %s is no agent", author->principal);
    if (!*author->tenant || strcmp(author->tenant, KILN_SCOPE_PUBLIC) == 0)
        return kiln_fail(err, KILN_E_DENIED, "wrong_tenant: %s has none that can be served", author->principal);
    if (strcmp(record->tenant, author->tenant) != 0)
        return kiln_fail(err, KILN_E_DENIED, "wrong_tenant: %s is of %s, not of %s", author->principal, author->tenant,
                         record->tenant);
    if (strcmp(record->agent, author->principal) != 0)
        return kiln_fail(err, KILN_E_DENIED, "wrong_agent: %s speaks for %s", author->principal, record->agent);
    if (record->waiter_partition != partition)
        return kiln_fail(err, KILN_E_DENIED, "wrong_partition: %s reads its answers in %u, not in %u", author->principal,
                         partition, record->waiter_partition);
    return 0;
}

int kiln_identity_check_executor(const struct kiln_author *author, const char *executor, const char *pool,
                                 const struct kiln_job_id *incarnation, struct kiln_err *err) {
    if (author->role != KILN_ROLE_OF_EXECUTOR)
        return kiln_fail(err, KILN_E_DENIED, "wrong_role: %s is no executor", author->principal);
    if (executor && strcmp(executor, author->principal) != 0)
        return kiln_fail(err, KILN_E_DENIED, "wrong_executor: %s speaks for %s", author->principal, executor);
    if (memcmp(incarnation, &author->incarnation, sizeof *incarnation) != 0)
        return kiln_fail(err, KILN_E_DENIED, "wrong_incarnation: not the one in which %s runs", author->principal);
    if (pool && strcmp(pool, author->pool) != 0)
        return kiln_fail(err, KILN_E_DENIED, "wrong_pool: %s is of %s, not of %s", author->principal, author->pool, pool);
    return 0;
}
