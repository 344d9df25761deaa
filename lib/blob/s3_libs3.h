// Quarantine transfers through libs3, where the build has it (KILN_WITH_LIBS3): whole objects, each byte checked after.
//
// libs3 2.0 signs with SigV2, verifies no TLS chain, and says OK to refused PUTs and cut GETs. So each of its transfers is
// performed here, with verification on, redirects off and deadlines, and counts only when libcurl's own result and the final
// HTTP status say so, the length is the announced one, and (PUT) the server's ETag is the MD5 that was sent, where it gives one.
// Without libs3 in the build, opening is KILN_E_UNSUPPORTED. Thread: shared.
#pragma once

#include "lib/blob/s3_client.h"

struct kiln_libs3;

int kiln_libs3_new(const struct kiln_s3_options *options, struct kiln_libs3 **libs3, struct kiln_err *err);
void kiln_libs3_free(struct kiln_libs3 *libs3);
int kiln_libs3_put(struct kiln_libs3 *libs3, const char *key, const struct kiln_s3_body *body, struct kiln_err *err);
// *fd as kiln_s3_exchange's; the caller checks the digest.
int kiln_libs3_get(struct kiln_libs3 *libs3, const char *key, uint64_t max_bytes, int *fd, uint64_t *size, struct kiln_err *err);
