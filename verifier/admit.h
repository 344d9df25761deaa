// The only room that reads a client's claims: everything a submission says is computed again from the bytes.
//
// Order: form (the record's own consistency), then what is lacking in the store, then, once the client has uploaded, taking
// its bytes from quarantine into the verified inputs. What differs from the claim is KILN_E_DENIED with a text that names it
// ("word: detail"); KILN_E_IO and the like are troubles of this side. Nothing is believed on the way: packs are unpacked in
// thought (kiln_pack_verify) from a private copy, lists are decoded strictly, blobs are hashed while they are stored.
//
// Scope: content is looked for in the flight's own scope, and a tenant's job finds what is public too; never in another
// tenant's, so that nobody learns what others have. In scope `public` blobs are there already or the claim is wrong: they come
// from outputs of public actions, never from a client (verifier/scope.h).
// Thread: one per struct and record; content sizes of the record are filled in.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/action.h"
#include "lib/wire/records.h"

struct kiln_admit {
    struct kiln_store *store; // role VERIFIER
    const char *scope;        // of the flight
    int scratch_dir;          // for private copies
};

enum kiln_admit_care {
    KILN_ADMIT_PRESENT, // an object that is there counts
    KILN_ADMIT_BYTES,   // every object is read; one that is not what its name says is removed, and lacks
};

struct kiln_refs {
    struct kiln_content_ref *list;
    size_t count;
};
void kiln_refs_release(struct kiln_refs *refs);

// The name of a content's object in quarantine: "KIND-HEX"; and its kind as keys of the store spell it.
#define KILN_CONTENT_NAME_BYTES 80
void kiln_content_name(const struct kiln_content_ref *ref, char name[KILN_CONTENT_NAME_BYTES]);
const char *kiln_content_kind_name(enum kiln_content_kind kind);
// KILN_E_DENIED "contents: KIND-HEX why".
int kiln_content_deny(const struct kiln_content_ref *ref, const char *why, struct kiln_err *err);

// Decodes the action (*action zeroed), recomputes its digest, and checks what can be checked without content.
int kiln_admit_form(const struct kiln_job_submitted *record, struct kiln_action *action, struct kiln_err *err);
// What of the submission's content is not in the store. Checks that the content list is exactly what the action's inputs
// need, as far as the lists among them are there; sizes of packs, which a client need not know (0), are filled in where the
// store tells them without being read.
int kiln_admit_lacking(const struct kiln_admit *admit, struct kiln_job_submitted *record,
                       const struct kiln_action *action, enum kiln_admit_care care, struct kiln_refs *lacking,
                       struct kiln_err *err);
// Takes what is lacking from quarantine into the inputs. Success: everything is there and verified. *bytes (may be NULL) are
// added up, also on failure.
int kiln_admit_upload(const struct kiln_admit *admit, struct kiln_job_submitted *record, const struct kiln_action *action,
                      uint64_t *bytes, struct kiln_err *err);
// The prefix of what the job has in quarantine (heap), and its removal.
char *kiln_admit_uploads(const struct kiln_job_submitted *record);
void kiln_admit_clear(struct kiln_store *store, const struct kiln_job_submitted *record);
