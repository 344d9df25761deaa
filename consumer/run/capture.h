// One text stream of the job: a pipe that the job writes and a memfd that keeps at most so many bytes of it.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"

struct kiln_capture {
    int write_end; // for the job; closed here once it has it
    int read_end;  // non-blocking; -1 after its end
    int memfd;
    uint64_t kept_bytes, max_bytes;
    bool exceeded; // the job wrote more than was kept
};

#define KILN_CAPTURE_INIT ((struct kiln_capture){.write_end = -1, .read_end = -1, .memfd = -1})

// The pipe belongs to `uid` and `gid`, so that the job may open /dev/stdout by name.
int kiln_capture_open(struct kiln_capture *capture, uint64_t max_bytes, uid_t uid, gid_t gid, struct kiln_err *err);
// Takes what is in the pipe now. Returns when it is empty, at its end, or when the maximum is exceeded.
int kiln_capture_drain(struct kiln_capture *capture, struct kiln_err *err);
void kiln_capture_release(struct kiln_capture *capture);
