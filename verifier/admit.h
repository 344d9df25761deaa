// The only room that reads a client's claims: everything a submission says is computed again from the bytes.
//
// Order: form (the record's own consistency), then what is lacking in the store, then, once the client has uploaded, taking
// its bytes from quarantine into the verified inputs. What differs from the claim is KILN_E_DENIED with a text that names it
// ("word: detail"); KILN_E_IO and the like are troubles of this side. Nothing is believed on the way: packs are unpacked in
// thought (kiln_pack_verify) from a private copy, lists are decoded strictly, blobs are hashed while they are stored.
// Thread: one per struct.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/action.h"
#include "lib/wire/records.h"

struct kiln_admit {
    struct kiln_store *store; // role VERIFIER
    const char *tenant;       // whose submissions are taken here
    const char *scope;        // of content keys
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

// Decodes the action (*action zeroed), recomputes its digest, and checks what can be checked without content.
int kiln_admit_form(const struct kiln_admit *admit, const struct kiln_job_submitted *record, struct kiln_action *action,
                    struct kiln_err *err);
// What of the submission's content is not in the store. Checks that the content list is exactly what the action's inputs
// need, as far as the lists among them are there; sizes of packs, which a client need not know (0), are filled in.
int kiln_admit_lacking(const struct kiln_admit *admit, struct kiln_job_submitted *record,
                       const struct kiln_action *action, enum kiln_admit_care care, struct kiln_refs *lacking,
                       struct kiln_err *err);
// Takes what is lacking from quarantine into the inputs. Success: everything is there and verified.
int kiln_admit_upload(const struct kiln_admit *admit, struct kiln_job_submitted *record, const struct kiln_action *action,
                      struct kiln_err *err);
// The prefix of what the job has in quarantine (heap), and its removal.
char *kiln_admit_uploads(const struct kiln_job_submitted *record);
void kiln_admit_clear(const struct kiln_admit *admit, const struct kiln_job_submitted *record);
