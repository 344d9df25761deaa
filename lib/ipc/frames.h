// Frames between the wrapper (or a user command) and the agent over a Unix stream socket: versioned, bounded, with
// descriptors. Blocking with deadlines; used by short-lived programs, so it needs libc only.
//
// Frame: "KILN" be16 version, be16 type, be32 payload length, payload. Descriptors travel with the first byte of their
// frame (SCM_RIGHTS, at most KILN_FRAME_FDS_MAX). A version that differs is KILN_E_UNSUPPORTED: the wrapper compiles locally.
// Payloads are be32 fields as in lib/base/buf.h. The peer is hostile: the agent checks its credentials and every bound.
//
// A conversation: connect; the agent sends ALIVE at accept and every KILN_ALIVE_EVERY_MS while it works; the wrapper sends
// COMPILE and waits. LOCAL ends it. PLACE (the last of them with `more` 0) is answered by PLACED, or by LOCAL with the
// reason when the files could not be placed and the wrapper compiles locally instead. A command sends COMMAND and waits for
// REPLY. Whoever hears nothing for KILN_ALIVE_GAP_MS gives up. Each descriptor in a frame is an open file description
// of its own (its offset is not shared), open for reading.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define KILN_FRAME_VERSION 1
#define KILN_FRAME_BYTES_MAX (16u << 20)
#define KILN_FRAME_FDS_MAX 64
#define KILN_ALIVE_EVERY_MS 2000
#define KILN_ALIVE_FIRST_MS 5000 // from the request to the first byte of the answer
#define KILN_ALIVE_GAP_MS 6000   // between two frames
#define KILN_REQUEST_TEXTS_MAX 65536
#define KILN_REQUEST_TEXT_BYTES_MAX (2u << 20)
#define KILN_PLACE_FILES_MAX 4096 // of one answer, over all its PLACE frames

enum kiln_frame_type {
    KILN_FRAME_COMPILE = 1,   // wrapper: struct kiln_compile_request
    KILN_FRAME_LOCAL = 2,     // agent: compile locally; wrapper: placing failed, I compile locally. One field: reason
    KILN_FRAME_PLACE = 3,     // agent: struct kiln_place_order + its descriptors (order of files; last frame has `more` 0)
    KILN_FRAME_PLACED = 4,    // wrapper: what it placed, as struct kiln_placed
    KILN_FRAME_COMMAND = 5,   // command: struct kiln_command_request
    KILN_FRAME_REPLY = 6,     // agent: struct kiln_command_reply
    KILN_FRAME_ALIVE = 7,     // agent: I am working on it; no payload
};

struct kiln_frame {
    enum kiln_frame_type type;
    unsigned char *payload; // heap
    size_t len;
    int fds[KILN_FRAME_FDS_MAX];
    size_t fds_count;
};
void kiln_frame_release(struct kiln_frame *frame); // frees and closes what was not taken (set to -1)
#define kiln_autoframe __attribute__((cleanup(kiln_frame_release)))

int kiln_frame_send(int socket, enum kiln_frame_type type, const void *payload, size_t len, const int *fds,
                    size_t fds_count, uint64_t deadline_ms, struct kiln_err *err);
// KILN_E_CLOSED when the peer closed between frames, KILN_E_CORRUPT for anything that is no frame.
// KILN_E_TIMEOUT when the whole frame is not there by the deadline. After any failure but TIMEOUT before the first byte
// the stream is out of step: close it. Descriptors of a refused frame are closed.
int kiln_frame_receive(int socket, uint64_t deadline_ms, struct kiln_frame *frame, struct kiln_err *err);
// The next frame that is not ALIVE. first_ms bounds the wait for the first frame of any type, KILN_ALIVE_GAP_MS each
// later wait, deadline_ms all of it. *heard becomes true with the first frame, also when the call fails later.
int kiln_frame_await(int socket, uint64_t first_ms, uint64_t deadline_ms, struct kiln_frame *frame, bool *heard,
                     struct kiln_err *err);
int kiln_frame_peer(int socket, pid_t *pid, uid_t *uid, struct kiln_err *err); // SO_PEERCRED

struct kiln_compile_request {
    char **argv; // without the wrapper itself: argv[0] is the compiler. At least one; NULL after the last when decoded
    size_t argc;
    char **env;  // NAME=VALUE, NAME not empty; NULL after the last when decoded
    size_t env_count;
    char *cwd;   // absolute
};
int kiln_compile_request_encode(const struct kiln_compile_request *request, struct kiln_buf *out, struct kiln_err *err);
int kiln_compile_request_decode(const void *data, size_t len, struct kiln_compile_request *request, struct kiln_err *err);
void kiln_compile_request_release(struct kiln_compile_request *request);

// The reason of a LOCAL frame: a stable word, optionally ": " and details.
int kiln_local_encode(const char *reason, struct kiln_buf *out, struct kiln_err *err);
int kiln_local_decode(const void *data, size_t len, char **reason, struct kiln_err *err);

// argv[0] is the command's name ("stats"), then its operands and options ("list", "--json").
struct kiln_command_request {
    char **argv; // at least one; NULL after the last when decoded
    size_t argc;
};
int kiln_command_request_encode(const struct kiln_command_request *request, struct kiln_buf *out, struct kiln_err *err);
int kiln_command_request_decode(const void *data, size_t len, struct kiln_command_request *request,
                                struct kiln_err *err);
void kiln_command_request_release(struct kiln_command_request *request);

// What the command prints and exits with.
struct kiln_command_reply {
    int32_t exit_code; // 0 ... 255
    unsigned char *out, *errout;
    size_t out_len, errout_len;
};
int kiln_command_reply_encode(const struct kiln_command_reply *reply, struct kiln_buf *out, struct kiln_err *err);
int kiln_command_reply_decode(const void *data, size_t len, struct kiln_command_reply *reply, struct kiln_err *err);
void kiln_command_reply_release(struct kiln_command_reply *reply);

// What the wrapper writes: files from descriptors (regular, read-only), then the texts, then it exits.
struct kiln_place_file {
    char *path;      // as the caller spells it: out dir + "/" + name; relative to the wrapper's cwd
    bool executable; // 0755 else 0644, both through the umask
    uint64_t size;   // of the descriptor's content; the copy must have exactly this many bytes
};
struct kiln_place_order {
    bool more;       // another PLACE frame follows (more than KILN_FRAME_FDS_MAX files); texts are in the last
    struct kiln_place_file *files; // files[i] goes with descriptor i
    size_t files_count;
    unsigned char *out, *errout; // bytes for stdout and stderr
    size_t out_len, errout_len;
    int32_t exit_code; // 0 ... 255
};
int kiln_place_order_encode(const struct kiln_place_order *order, struct kiln_buf *buf, struct kiln_err *err);
int kiln_place_order_decode(const void *data, size_t len, struct kiln_place_order *order, struct kiln_err *err);
void kiln_place_order_release(struct kiln_place_order *order);

// Identity of each file right after it was placed (fstat after rename), so that the agent need not hash it again.
struct kiln_placed_file {
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
};
struct kiln_placed {
    struct kiln_placed_file *files; // in the order of the order
    size_t count;
};
int kiln_placed_encode(const struct kiln_placed *placed, struct kiln_buf *buf, struct kiln_err *err);
int kiln_placed_decode(const void *data, size_t len, struct kiln_placed *placed, struct kiln_err *err);
void kiln_placed_release(struct kiln_placed *placed);
