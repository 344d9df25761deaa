// The image of all containers: an almost empty root, made here and imported once. It holds kiln-init and the links that a job's
// root has; everything else a job sees is mounted, the same directories that bubblewrap would bind.
//
// Its name is the digest of its bytes, and a daemon's image is taken only if its one layer has that digest; containers are made
// of the image's id then, which no later tag can change.
#pragma once

#include "consumer/docker/api.h"
#include "consumer/run/spec.h"

// *id: "sha256:..."; heap. `init_program`: a path of this host.
int kiln_image_ensure(struct kiln_docker *docker, const char *init_program, const struct kiln_run_spec *spec,
                      uint64_t deadline_ms, char **id, struct kiln_err *err);
