// Objects under lock: put once, confirmed, adopted where they are there already. DESIGN.md of the store: a PUT onto a locked key makes
// a newer version, it does not fail; so every writer asks for create-only, and says which version it means.
//
// Each PUT states mode and date (until_ms 0: the bucket's default), and counts only when a HEAD of that very version shows them.
// Thread: re-entrant.
#pragma once

#include "lib/blob/s3_versions.h"

// Content whose digest is body->digest. `known`: it is believed to be there, so what is there is looked at before bytes are sent.
// What is there is adopted when its bytes match and its lock reaches, or can be made to reach; else a newer version is put.
enum kiln_s3_belief { KILN_S3_BELIEVED_ABSENT, KILN_S3_BELIEVED_PRESENT };
int kiln_s3_keep_content(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                         enum kiln_s3_belief belief, struct kiln_pin *pin, struct kiln_err *err);
// A pointer: KILN_E_EXISTS when any version or delete marker is there.
int kiln_s3_keep_new(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                     struct kiln_pin *pin, struct kiln_err *err);
// Content, then a pointer to it, in two calls between which the caller makes the pointer's bytes (they name the content's pin). What
// order does not ask for goes on at the same time: the pointer's key is looked at while the content is sent, the content's lock
// while the pointer is. kiln_s3_pair_pointer succeeds when the locks of both were seen.
struct kiln_s3_pair {
    const char *content_key, *pointer_key; // borrowed
    uint64_t content_size, content_until_ms;
    struct kiln_pin pin;   // of the content
    bool confirmed;        // the lock of that version was seen
    bool pointer_is_new;   // neither version nor delete marker was there
};
int kiln_s3_pair_content(struct kiln_s3_client *client, struct kiln_s3_pair *pair, const struct kiln_s3_body *body,
                         enum kiln_s3_belief belief, struct kiln_err *err);
int kiln_s3_pair_pointer(struct kiln_s3_client *client, const struct kiln_s3_pair *pair, const struct kiln_s3_body *body,
                         uint64_t until_ms, struct kiln_err *err);
// A newer version over whatever is there.
int kiln_s3_keep_over(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                      struct kiln_pin *pin, struct kiln_err *err);
