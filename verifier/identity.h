// Whose word counts: what a body says of its writer is held against who wrote the record. Pure.
//
// In a fleet the author comes from the record's signature and the trust record. On the embedded bus the connection says the
// role only, and every agent and executor is the machine's own: kiln_identity_adopt() takes the names of the body then, so
// that one way of checking serves both. A difference is KILN_E_DENIED with its name: wrong_role, wrong_tenant, wrong_agent,
// wrong_partition, wrong_executor, wrong_incarnation, wrong_pool.
#pragma once

#include "lib/bus/bus.h"
#include "lib/wire/records.h"

#define KILN_SCOPE_PUBLIC "public" // no tenant may be called that
#define KILN_TENANT_EMBEDDED "local"

void kiln_identity_adopt_agent(const struct kiln_job_submitted *record, struct kiln_author *author);
void kiln_identity_adopt_executor(const char *executor, const char *pool, const struct kiln_job_id *incarnation,
                                  struct kiln_author *author);
// `partition`: where the author reads its answers; those of another partition belong to somebody else.
int kiln_identity_check_submission(const struct kiln_author *author, const struct kiln_job_submitted *record,
                                   uint32_t partition, struct kiln_err *err);
// Of a credit, lease, decline or candidate. executor and pool: NULL where the body has none.
int kiln_identity_check_executor(const struct kiln_author *author, const char *executor, const char *pool,
                                 const struct kiln_job_id *incarnation, struct kiln_err *err);
