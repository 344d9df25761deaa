// `kiln-run --self-test`: starts a sandbox as for a job, with this very program as the job, which tries each wall from
// inside and prints a line per wall: "ok NAME TEXT" or "BAD NAME TEXT". Another line says whether a job can be watched: if not, it is
// "weak". What `kiln doctor` shows, with the lines of --limits.
#pragma once

// Exit status for main: 0 when every wall stood. A sandbox that cannot be started is said on stderr. The program is started again
// with `bwrap`, or, where that is NULL, with `arguments` (consumer/run/client.h); these too may be NULL.
int kiln_selftest_run(const char *bwrap, const char *const *arguments);
// Inside the sandbox: tries the walls. `port` is of a listener of the host's on 127.0.0.1.
int kiln_selftest_probe(const char *port);
