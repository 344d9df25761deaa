// The name of the sandbox that a job runs in, whichever backend makes it: part of every action, so a changed sandbox is a miss.
//
// The second half is the digest of the table of system calls (consumer/policy/calls.h); the build stops when it is not. The
// version counts the rest that a compile can see: mounts, devices, the observer.
#pragma once

#define KILN_PROFILE_VERSION "sandbox-3"
#define KILN_PROFILE KILN_PROFILE_VERSION "-6cd78dd8458aa2a6"
