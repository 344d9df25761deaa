// `kiln-run --self-test`: starts a sandbox as for a job, with this very program as the job, which tries each wall from
// inside and prints a line per wall: "ok NAME TEXT" or "BAD NAME TEXT"; then the lines of host_limits.h. What `kiln doctor` shows.
#pragma once

// Exit status for main: 0 when every wall stood. A sandbox that cannot be started is said on stderr.
int kiln_selftest_run(const char *bwrap);
// Inside the sandbox: tries the walls. `port` is of a listener of the host's on 127.0.0.1.
int kiln_selftest_probe(const char *port);
