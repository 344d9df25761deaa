// kiln-verifier in a fleet: a service that operators run, with its own certificate, record key and signing key.
//
// SIGTERM: takes no more records, finishes what it is at, flushes its acks and leaves the group, within 5 seconds; what is left
// is in kiln.state, and the next owner of its partitions goes on.
#pragma once

// Returns the program's exit code.
int kiln_fleet_verifier(const char *config, const char *dir);
