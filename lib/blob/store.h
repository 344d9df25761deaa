// The content store: quarantine (anybody's claims), inputs (verified) and vault (verified, immutable), behind one
// interface with a directory (here) and S3 (fleet) implementation.
//
// Keys are canonical relative paths made by the functions below. A put is create-only: content goes to a temporary file,
// is hashed on the way, made durable, and published without replacing; finding the key there already is success (the
// content is content-addressed) except for pointers, where it is KILN_E_EXISTS. A stored object whose bytes no longer
// match is replaced by a put of the right bytes in the directory store (a disk that lies must not block a key for ever).
// A read-only file of the store's own user (out of quarantine) is hashed and linked instead of copied.
// A get checks the digest of what it gives before the caller sees a byte.
// Roles: a store handle is opened for a role and refuses (KILN_E_DENIED) what the role may not do; in a fleet the
// credentials say the same. Thread: handles may be shared between threads.
// Durability: inputs and vault are on disk before a put returns; quarantine may be lost by a power failure. Removing what
// is absent is success. Quarantine keys begin with "in/" (agents) or "out/" (executors).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/core/digest.h"

enum kiln_space { KILN_SPACE_QUARANTINE, KILN_SPACE_INPUTS, KILN_SPACE_VAULT };
enum kiln_store_role {
    KILN_ROLE_AGENT,    // read vault; put and remove quarantine in/, read in/TENANT/hints/ of it
    KILN_ROLE_EXECUTOR, // read inputs and vault; put quarantine out/
    KILN_ROLE_VERIFIER, // everything
    KILN_ROLE_READER,   // read inputs and vault
};

struct kiln_store; // opaque; implementations fill struct kiln_store_ops (store_ops.h)

// path is made when absent (0700, owned by the caller); below it `quarantine`, `inputs` and `vault`.
int kiln_store_open_dir(const char *path, enum kiln_store_role role, struct kiln_store **store, struct kiln_err *err);
void kiln_store_close(struct kiln_store *store);

// Puts the bytes of fd (from its start). `expected` non-NULL: the digest they must have (KILN_E_CORRUPT otherwise, and
// nothing is stored). Content, not pointer: an existing key is success.
int kiln_store_put_fd(struct kiln_store *store, enum kiln_space space, const char *key, int fd, uint64_t max_bytes,
                      const struct kiln_digest *expected, struct kiln_err *err);
int kiln_store_put_bytes(struct kiln_store *store, enum kiln_space space, const char *key, const void *data, size_t len,
                         const struct kiln_digest *expected, struct kiln_err *err);
// Create-only pointer (action to result): KILN_E_EXISTS when there is one. `replace` only for a pointer that was found
// invalid (bad signature, corrupt content): embedded directory store only.
int kiln_store_put_pointer(struct kiln_store *store, const char *key, const void *data, size_t len, bool replace,
                           struct kiln_err *err);
// A read-only descriptor on the object whose bytes were just checked against `expected`, at offset 0.
int kiln_store_get_fd(struct kiln_store *store, enum kiln_space space, const char *key, const struct kiln_digest *expected,
                      int *fd, uint64_t *size, struct kiln_err *err);
// Unchecked read for objects that carry their own proof (packs, pointers, quarantine content that is hashed next).
int kiln_store_open_unchecked(struct kiln_store *store, enum kiln_space space, const char *key, int *fd, struct kiln_err *err);
int kiln_store_get_bytes(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_buf *out,
                         struct kiln_err *err); // unchecked, bounded by out->max
bool kiln_store_has(struct kiln_store *store, enum kiln_space space, const char *key);
// For many keys at once (S3: those not remembered, in parallel). What cannot be told counts as absent.
void kiln_store_has_many(struct kiln_store *store, enum kiln_space space, const char *const *keys, size_t count, bool *present);
int kiln_store_remove(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_err *err);
// Removes everything below a key prefix (quarantine of one job).
int kiln_store_remove_below(struct kiln_store *store, enum kiln_space space, const char *prefix, struct kiln_err *err);
// Verifier only: removes least recently used content and pointers until at most max_bytes are left in the space. Never
// what was read or written within `keep_ms`. Directory store of the embedded default.
int kiln_store_prune(struct kiln_store *store, enum kiln_space space, uint64_t max_bytes, uint64_t keep_ms,
                     uint64_t *removed_bytes, struct kiln_err *err);

// A pin names one stored version of an object: what a reader with the pin gets cannot be shadowed by a later PUT or hidden
// by a delete marker. "" in the directory store. S3: the version id.
struct kiln_pin {
    char text[128];
};
// Verifier: puts content for good, locked until retain_until_ms (wall clock; 0: the bucket's default), and says which version
// it is. An object that is there is adopted when its bytes match and its lock reaches far enough; else a new version is put.
int kiln_store_keep_fd(struct kiln_store *store, const char *key, int fd, uint64_t max_bytes,
                       const struct kiln_digest *expected, uint64_t retain_until_ms, struct kiln_pin *pin, struct kiln_err *err);
// A vault object by its pin: version, lock (S3: COMPLIANCE and date) and digest are checked. KILN_E_CORRUPT otherwise.
int kiln_store_get_pinned(struct kiln_store *store, const char *key, const struct kiln_pin *pin,
                          const struct kiln_digest *expected, int *fd, uint64_t *size, struct kiln_err *err);
// Pointer under object lock: create-only. *pin may be NULL. KILN_E_EXISTS: a version (or a delete marker over one) is there.
int kiln_store_keep_pointer(struct kiln_store *store, const char *key, const void *data, size_t len, uint64_t retain_until_ms,
                            bool over_shadow, struct kiln_pin *pin, struct kiln_err *err);
// Verifier: content, then a new pointer to it, as kiln_store_keep_fd and kiln_store_keep_pointer do, in two calls between which the caller
// makes the pointer's bytes with the content's pin. What order does not ask for is done at the same time; nothing may be told of the
// pair before both have succeeded.
struct kiln_store_pair {
    const char *content_key, *pointer_key;
    uint64_t content_size, content_until_ms;
    const struct kiln_digest *expected; // of the content
    struct kiln_pin pin;                // of the content, after the first call
    bool confirmed, pointer_is_new;     // the store's, between the calls
};
int kiln_store_pair_content(struct kiln_store *store, struct kiln_store_pair *pair, int fd, struct kiln_err *err);
int kiln_store_pair_pointer(struct kiln_store *store, const struct kiln_store_pair *pair, const void *data, size_t len,
                            uint64_t retain_until_ms, struct kiln_err *err);
// Verifier: whether a version, or a delete marker, of a pointer is there. One that cannot be asked for counts as there.
bool kiln_store_pointer_is_listed(struct kiln_store *store, const char *key);
// Verifier: all versions of a pointer, oldest first (delete markers left out), until visit gives non-zero, which is returned.
// At most KILN_POINTER_VERSIONS_MAX, the oldest. On S3 also left out: versions that are not under a COMPLIANCE lock now, and those larger
// than a pointer, and those whose bytes the server has lost. Another that cannot be read fails the call (it may be the first). No version: 0.
#define KILN_POINTER_VERSIONS_MAX 64u
#define KILN_POINTER_BYTES_MAX (2u << 20)
int kiln_store_pointer_versions(struct kiln_store *store, const char *key,
                                int (*visit)(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes),
                                void *context, struct kiln_err *err);
// Fetches several objects at once into the caller's descriptors (-1 where one failed, its error in errs). Bounded parallel.
struct kiln_store_want {
    enum kiln_space space;
    const char *key;
    const struct kiln_pin *pin; // or NULL
    const struct kiln_digest *expected; // or NULL: unchecked
    int fd;
    uint64_t size;
    struct kiln_err err;
};
void kiln_store_get_many(struct kiln_store *store, struct kiln_store_want *wants, size_t count);
struct kiln_store_offer {
    enum kiln_space space;
    const char *key;
    int fd;
    uint64_t max_bytes;
    const struct kiln_digest *expected; // or NULL
    struct kiln_err err;                // code 0: stored
};
int kiln_store_put_many(struct kiln_store *store, struct kiln_store_offer *offers, size_t count, struct kiln_err *err);
// true: results travel as one bundle (lib/blob/bundle.h) instead of one object for each output, to save requests.
bool kiln_store_wants_bundles(const struct kiln_store *store);
// Makes it so, in a test: S3 stores are opened like that. What is fetched must then be a copy that nobody else can write, which is not
// so in a directory.
void kiln_store_use_bundles(struct kiln_store *store);

// Keys (heap, caller frees); NULL on exhausted memory or when a part is not one plain path component, which hostile
// names may be. content kinds: "blob" (a file), "pack" (a tree with its bytes), "list" (a tree encoding).
char *kiln_key_content(const char *kind, const char *scope, const struct kiln_digest *digest); // cas/SCOPE/KIND/ab/HEX
char *kiln_key_result(const char *scope, uint64_t generation, const struct kiln_digest *action); // ac/SCOPE/GEN/ab/HEX
char *kiln_key_quarantine_in(const char *tenant, const char *agent, const char *job, const char *name);
char *kiln_key_quarantine_out(const char *executor, const char *job, unsigned attempt, const char *name);
