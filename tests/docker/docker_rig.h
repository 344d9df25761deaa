// A dockerd of the tests' own (tests/docker/daemon.py), which ends with the process that started it, however that ends.
#pragma once

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/proc.h"

struct docker_rig {
    pid_t pid;
    FILE *say, *hear;
    char socket[128];
};

#define DOCKER_RIG_DAEMON KILN_SOURCE_DIR "/tests/docker/daemon.py"

static inline bool docker_rig_hear(struct docker_rig *docker, char *line, int size) {
    if (!fgets(line, size, docker->hear))
        return false;
    line[strcspn(line, "\n")] = 0;
    return true;
}

static inline void docker_rig_down(struct docker_rig *docker) {
    if (docker->pid <= 0)
        return;
    fclose(docker->say);
    fclose(docker->hear);
    while (waitpid(docker->pid, NULL, 0) < 0)
        ;
    docker->pid = 0;
}

// 0 when dockerd answers; 77 when this host cannot run it, which its standard error explains.
static inline int docker_rig_up(struct docker_rig *docker) {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
        return 1;
    char *const argv[] = {(char *)"python3", (char *)"-B", (char *)DOCKER_RIG_DAEMON, NULL};
    const struct kiln_proc_fd fds[] = {{to[0], 0}, {from[1], 1}, {2, 2}};
    const struct kiln_proc_options options = {
        .program = "/usr/bin/python3", .argv = argv, .envp = environ, .fds = fds, .fds_count = 3};
    struct kiln_err err = {0};
    if (kiln_proc_spawn(&options, &docker->pid, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    close(to[0]);
    close(from[1]);
    docker->say = fdopen(to[1], "w");
    docker->hear = fdopen(from[0], "r");
    if (docker_rig_hear(docker, docker->socket, sizeof docker->socket))
        return 0;
    int status = 0;
    fclose(docker->say);
    fclose(docker->hear);
    waitpid(docker->pid, &status, 0);
    docker->pid = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 77 ? 77 : 1;
}

// How many containers there are, of any state; -1 when it does not say.
static inline int docker_rig_containers(struct docker_rig *docker) {
    char answer[16];
    fputs("containers\n", docker->say);
    fflush(docker->say);
    return docker_rig_hear(docker, answer, sizeof answer) ? (int)strtol(answer, NULL, 10) : -1;
}

// One of the daemon's lines; true when it was obeyed.
static inline bool docker_rig_tell(struct docker_rig *docker, const char *what) {
    char answer[8];
    fprintf(docker->say, "%s\n", what);
    fflush(docker->say);
    return docker_rig_hear(docker, answer, sizeof answer) && !strcmp(answer, "ok");
}
